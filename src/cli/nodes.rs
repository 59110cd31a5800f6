//! Asking several nodes the same: `--nodes all|NODE,...`; what images and volumes have in common.

use super::{
    client::{self, Call, Client, encode},
    exit::{CliError, Exit},
    human::{self, decimal_size, number, text},
    output,
};
use hyper::Method;
use serde_json::Value;
use std::io::{BufRead as _, Write as _};

/// What one node answered.
pub(super) struct Answer {
    /// Its host name; none where this node was asked alone.
    pub(super) node: Option<String>,
    /// What Docker's API would answer.
    pub(super) value: Value,
}

/// Asks this node, or those that are named. `path` has no query; nodes that failed are told of,
/// and the exit says so.
pub(super) fn ask(
    client: &Client,
    method: Method,
    path: &str,
    query: &str,
    body: Option<Value>,
    nodes: Option<&str>,
) -> Result<(Vec<Answer>, Exit), CliError> {
    let call = Call { body, ..Call::default() };
    let Some(nodes) = nodes else {
        let value = client.json(method, &format!("{path}?{query}"), call)?;
        return Ok((vec![Answer { node: None, value }], Exit::Ok));
    };
    let path = format!("/midge{path}?{query}&nodes={}", encode(nodes));
    let (mut answers, mut exit) = (Vec::new(), Exit::Ok);
    for answer in human::items(client.json(method, &path, call)?)? {
        let node = text(&answer, "/Hostname").to_owned();
        let error = text(&answer, "/Error");
        if error.is_empty() {
            answers.push(Answer { node: Some(node), value: answer["Answer"].clone() });
        } else {
            output::note(&format!("{node}: {error}"));
            exit = Exit::Failure;
        }
    }
    Ok((answers, exit))
}

impl Answer {
    /// Names the node in what it answered, where several were asked.
    fn with_node(self) -> Value {
        let Answer { node, mut value } = self;
        if let (Some(node), Some(fields)) = (node, value.as_object_mut()) {
            fields.insert("Node".to_owned(), Value::from(node));
        }
        value
    }

    /// Prints a line, after the node's name where several were asked.
    pub(super) fn line(&self, line: &str) -> Result<(), CliError> {
        match &self.node {
            Some(node) => output::line(&format!("{node}: {line}")),
            None => output::line(line),
        }
    }
}

/// Shows what nodes hold under each of the names. `path` is that of one in the API.
pub(super) fn inspect(
    client: &Client,
    names: &[String],
    path: impl Fn(&str) -> String,
    nodes: Option<&str>,
    format: Option<&str>,
) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    let exit = super::each(names, |name| {
        let (answers, exit) = ask(client, Method::GET, &path(name), "", None, nodes)?;
        found.extend(answers.into_iter().map(Answer::with_node));
        done_everywhere(exit)
    });
    output::objects(format, &found)?;
    exit
}

/// Removes each of the names, and prints the lines that `removed` makes of a name and of what a
/// node answered.
pub(super) fn remove(
    client: &Client,
    names: &[String],
    path: impl Fn(&str) -> String,
    query: &str,
    nodes: Option<&str>,
    removed: impl Fn(&str, Value) -> Result<Vec<String>, CliError>,
) -> Result<Exit, CliError> {
    super::each(names, |name| {
        let (answers, exit) = ask(client, Method::DELETE, &path(name), query, None, nodes)?;
        for answer in answers {
            let lines = removed(name, answer.value.clone())?;
            lines.iter().try_for_each(|line| answer.line(line))?;
        }
        done_everywhere(exit)
    })
}

/// Fails at the end where some nodes, whose errors were told, failed.
fn done_everywhere(exit: Exit) -> Result<(), CliError> {
    if exit == Exit::Ok { Ok(()) } else { Err(CliError::failure("not done on every node")) }
}

/// What is to be pruned.
pub(super) struct Pruning<'a> {
    /// What goes, as the question names it: "all dangling images".
    pub(super) what: String,
    /// Whether to go on without asking.
    pub(super) force: bool,
    /// Where the API prunes.
    pub(super) path: &'a str,
    /// Which of them, as `KEY=VALUE`.
    pub(super) filter: Vec<String>,
    /// Where.
    pub(super) nodes: Option<&'a str>,
    /// The line above what is gone.
    pub(super) heading: &'a str,
}

/// Asks, prunes, and prints what `removed` finds in the answers and how much is free again.
pub(super) fn prune(
    client: &Client,
    pruning: &Pruning<'_>,
    removed: impl Fn(&Value) -> Vec<String>,
) -> Result<Exit, CliError> {
    let warning = format!("WARNING! This will remove {}.", pruning.what);
    if !pruning.force && !confirm(&warning)? {
        return Ok(Exit::Ok);
    }
    let query = client::filters(&pruning.filter)?;
    let (answers, exit) = ask(client, Method::POST, pruning.path, &query, None, pruning.nodes)?;
    for answer in &answers {
        let removed = removed(&answer.value);
        if !removed.is_empty() {
            answer.line(pruning.heading)?;
            removed.iter().try_for_each(|line| answer.line(line))?;
            output::line("")?;
        }
        let freed = decimal_size(number(&answer.value, "/SpaceReclaimed"));
        answer.line(&format!("Total reclaimed space: {freed}"))?;
    }
    Ok(exit)
}

/// Asks the person at the terminal whether to go on; whoever says nothing means no.
pub(super) fn confirm(warning: &str) -> Result<bool, CliError> {
    output::raw_note(format!("{warning}\nAre you sure you want to continue? [y/N] ").as_bytes());
    // Nothing can be done where the question is not seen.
    std::io::stderr().flush().ok();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::failure(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
