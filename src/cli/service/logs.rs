//! `midge service logs`.

use super::get;
use crate::cli::{
    client::{Call, Client, encode},
    exit::{CliError, Exit},
    human::{number, short_id, text},
    output,
    pieces::{Pieces, STDERR},
    when,
};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

/// The stream on which the daemon itself speaks.
const SYSTEM_ERROR: u8 = 3;

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// A service or a task: id, prefix of an id, or name (web, web.2)
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Print what the containers printed, and nothing else
    #[arg(long)]
    raw: bool,
    /// Only what came since: how long ago (10m), a time (2026-01-31T12:00:00Z), seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last lines of each task
    #[arg(short = 'n', long, default_value = "all", value_name = "N")]
    tail: String,
    /// Print the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Leave the ids of tasks out
    #[arg(long)]
    no_task_ids: bool,
    /// Print ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Print what else the line carries
    #[arg(long)]
    details: bool,
}

impl LogsArgs {
    /// A terminal's log is printed as it is, so no details are asked for with it.
    fn query(&self, tty: bool) -> Result<String, CliError> {
        let since = match self.since.as_deref() {
            None => String::new(),
            Some(text) => when::parse("--since", text)?,
        };
        if self.tail != "all" && self.tail.parse::<u64>().is_err() {
            return Err(CliError::usage(format!("invalid value for --tail: {:?}", self.tail))
                .hint("a number of lines, or all"));
        }
        Ok(format!(
            "stdout=1&stderr=1&details={}&follow={}&timestamps={}&tail={}&since={since}",
            u8::from(!tty),
            u8::from(self.follow),
            u8::from(self.timestamps),
            self.tail,
        ))
    }
}

/// What is asked for its log.
struct Source {
    path: String,
    tty: bool,
    /// How wide the numbers of the slots are.
    digits: usize,
}

fn source(client: &Client, args: &LogsArgs) -> Result<Source, CliError> {
    match get(client, &args.name) {
        Ok(service) => {
            let tty = service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
            let path = format!("/services/{}/logs", encode(text(&service, "/ID")));
            let replicas = number(&service, "/Spec/Mode/Replicated/Replicas");
            Ok(Source { path, tty, digits: replicas.to_string().len() })
        }
        Err(error) if error.exit == Exit::Unreachable => Err(error),
        Err(no_service) => {
            let found = client.get(&format!("/tasks/{}", encode(&args.name)));
            let task = found.map_err(|error| match error.exit {
                Exit::Unreachable => error,
                _ => CliError {
                    exit: Exit::Failure,
                    message: format!("no such task or service: {}", args.name),
                    // People rather mistype the names of services than the ids of tasks.
                    hint: no_service.hint,
                },
            })?;
            let tty = task["Spec"]["ContainerSpec"]["TTY"] == true;
            let path = format!("/tasks/{}/logs", encode(text(&task, "/ID")));
            Ok(Source { path, tty, digits: 1 })
        }
    }
}

pub(super) fn run(client: &Client, args: &LogsArgs) -> Result<Exit, CliError> {
    // Wrong options are told before anything is looked up.
    args.query(false)?;
    let source = source(client, args)?;
    let path = format!("{}?{}", source.path, args.query(source.tty)?);
    let mut names = Names::new(client, args, source.digits);
    let mut pieces = Pieces::default();
    let mut incomplete = None;
    client.stream(hyper::Method::GET, &path, &Call::default(), None, |bytes| {
        if source.tty {
            output::raw(bytes)?;
            return Ok(true);
        }
        for (stream, piece) in pieces.feed(bytes)? {
            if stream == SYSTEM_ERROR {
                incomplete = Some(String::from_utf8_lossy(&piece).trim().to_owned());
                continue;
            }
            let line = if args.raw { names.raw(&piece) } else { names.prefixed(&piece) };
            if stream == STDERR { output::raw_note(&line) } else { output::raw(&line)? }
        }
        Ok(true)
    })?;
    match incomplete {
        None => Ok(Exit::Ok),
        Some(message) => Err(CliError::failure(format!("error from daemon in stream: {message}"))
            .hint("midge node ls shows which nodes are down; the other lines are complete")),
    }
}

/// Turns the ids in front of each line into the names people know.
struct Names<'a> {
    client: &'a Client,
    args: &'a LogsArgs,
    digits: usize,
    /// What stands before the lines of a task.
    tasks: BTreeMap<String, String>,
    /// Names of services and host names of nodes, by id.
    others: BTreeMap<String, String>,
}

/// The ids by which a line names where it comes from.
const ORIGIN: [&str; 3] =
    ["com.docker.swarm.node.id", "com.docker.swarm.service.id", "com.docker.swarm.task.id"];

impl<'a> Names<'a> {
    fn new(client: &'a Client, args: &'a LogsArgs, digits: usize) -> Self {
        let (tasks, others) = (BTreeMap::new(), BTreeMap::new());
        Self { client, args, digits, tasks, others }
    }

    fn raw(&self, piece: &[u8]) -> Vec<u8> {
        let (stamp, _, line) = split(piece, self.args.timestamps);
        if stamp.is_empty() { line.to_vec() } else { [stamp, b" ", line].concat() }
    }

    fn prefixed(&mut self, piece: &[u8]) -> Vec<u8> {
        let (stamp, details, line) = split(piece, self.args.timestamps);
        let details = String::from_utf8_lossy(details).into_owned();
        let fields: Vec<(&str, &str)> =
            details.split(',').filter_map(|field| field.split_once('=')).collect();
        let field = |wanted: &str| {
            fields.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| *value)
        };
        let name = self.task_name(field(ORIGIN[2]), field(ORIGIN[1]), field(ORIGIN[0]));
        let mut out = Vec::new();
        if !stamp.is_empty() {
            out.extend_from_slice(stamp);
            out.push(b' ');
        }
        out.extend_from_slice(format!("{name}    | ").as_bytes());
        if self.args.details {
            // Where the line comes from is said already.
            let rest: Vec<String> = fields
                .iter()
                .filter(|(name, _)| !ORIGIN.contains(name))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            out.extend_from_slice(rest.join(",").as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
        out
    }

    fn task_name(&mut self, task: &str, service: &str, node: &str) -> String {
        if let Some(name) = self.tasks.get(task) {
            return name.clone();
        }
        let id = short_id(task, self.args.no_trunc);
        let found = self.client.get(&format!("/tasks/{}", encode(task))).unwrap_or(Value::Null);
        let slot = match super::super::task::place(&found) {
            place if place.is_empty() || place == node => short_id(node, self.args.no_trunc),
            place => place,
        };
        let service = self.name("services", service, "/Spec/Name");
        let node = self.name("nodes", node, "/Description/Hostname");
        let mut name = format!("{service}.{slot}");
        if !self.args.no_task_ids {
            name.push_str(&format!(".{id}"));
        }
        let lacking = self.digits.saturating_sub(slot.len());
        let name = format!("{name}@{node}{:lacking$}", "");
        self.tasks.insert(task.to_owned(), name.clone());
        name
    }

    /// Returns the name of a service or node; its id where it has none any more.
    fn name(&mut self, list: &str, id: &str, pointer: &str) -> String {
        if self.args.no_resolve {
            return id.to_owned();
        }
        if let Some(name) = self.others.get(id) {
            return name.clone();
        }
        let found = self.client.get(&format!("/{list}/{}", encode(id))).unwrap_or(Value::Null);
        let name = match text(&found, pointer) {
            "" => id.to_owned(),
            name => name.to_owned(),
        };
        self.others.insert(id.to_owned(), name.clone());
        name
    }
}

/// Splits a line into time stamp (where asked for), details and text.
fn split(piece: &[u8], timestamps: bool) -> (&[u8], &[u8], &[u8]) {
    fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
        match bytes.iter().position(|b| *b == b' ') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&bytes[..0], bytes),
        }
    }
    let (stamp, rest) = if timestamps { cut(piece) } else { (&piece[..0], piece) };
    let (details, line) = cut(rest);
    (stamp, details, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_into_their_parts() {
        let line = b"2026-01-31T12:00:00Z a=1,b=2 two words\n";
        assert_eq!(
            split(line, true),
            (&b"2026-01-31T12:00:00Z"[..], &b"a=1,b=2"[..], &b"two words\n"[..])
        );
        assert_eq!(split(b"a=1 x", false), (&b""[..], &b"a=1"[..], &b"x"[..]));
        assert_eq!(split(b"alone", false), (&b""[..], &b""[..], &b"alone"[..]));
    }

    #[test]
    fn pieces_are_put_together_across_reads() {
        let mut stream = vec![1, 0, 0, 0, 0, 0, 0, 3];
        stream.extend_from_slice(b"abc");
        stream.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 1, b'x']);
        for cut in 0..stream.len() {
            let mut pieces = Pieces::default();
            let mut got = pieces.feed(&stream[..cut]).unwrap();
            got.extend(pieces.feed(&stream[cut..]).unwrap());
            assert_eq!(got, [(1, b"abc".to_vec()), (2, b"x".to_vec())]);
        }
        assert!(Pieces::default().feed(&[1, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
