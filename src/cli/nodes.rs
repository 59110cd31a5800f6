//! Asking several nodes the same: `--nodes all|NODE,...`.

use super::{
    client::{Call, Client, encode},
    exit::{CliError, Exit},
    human::{self, text},
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
    /// Prints a line, after the node's name where several were asked.
    pub(super) fn line(&self, line: &str) -> Result<(), CliError> {
        match &self.node {
            Some(node) => output::line(&format!("{node}: {line}")),
            None => output::line(line),
        }
    }
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
