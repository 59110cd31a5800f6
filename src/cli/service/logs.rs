//! `midge service logs`.

use super::get;
use crate::cli::{
    client::{Call, Client, encode},
    exit::{CliError, Exit},
    human::text,
    output,
    pieces::{Pieces, STDERR},
};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// A service or a task: id, prefix of an id, or name
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Print what the containers printed, and nothing else
    #[arg(long)]
    raw: bool,
    /// Only what came since: a time (RFC 3339) or how long ago (10m)
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
            Some(text) => match crate::cli::human::parse_duration(text) {
                Ok(ago) => (crate::cli::human::now() - ago).unix_seconds().to_string(),
                Err(_) => crate::cli::human::parse_date(text)
                    .map(|date| date.unix_seconds().to_string())
                    .ok_or_else(|| {
                        CliError::usage(format!("invalid value for --since: {text:?}"))
                            .hint("a duration (10m) or a time (2026-01-31T12:00:00Z) is expected")
                    })?,
            },
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

pub(super) fn run(client: &Client, args: &LogsArgs) -> Result<Exit, CliError> {
    // Wrong options are told before anything is looked up.
    args.query(false)?;
    let (path, tty) = match get(client, &args.name) {
        Ok(service) => {
            let tty = service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
            (format!("/services/{}/logs?{}", encode(text(&service, "/ID")), args.query(tty)?), tty)
        }
        Err(error) if error.exit == Exit::Unreachable => return Err(error),
        Err(_) => {
            let task =
                client.get(&format!("/tasks/{}", encode(&args.name))).map_err(
                    |error| match error.exit {
                        Exit::Unreachable => error,
                        _ => CliError::failure(format!("no such task or service: {}", args.name)),
                    },
                )?;
            let tty = task["Spec"]["ContainerSpec"]["TTY"] == true;
            (format!("/tasks/{}/logs?{}", encode(text(&task, "/ID")), args.query(tty)?), tty)
        }
    };
    let mut names = Names { client, args, known: BTreeMap::new() };
    let mut pieces = Pieces::default();
    client.stream(hyper::Method::GET, &path, &Call::default(), None, |bytes| {
        if tty {
            output::raw(bytes)?;
            return Ok(true);
        }
        for (stream, piece) in pieces.feed(bytes)? {
            let line = if args.raw { names.raw(&piece) } else { names.prefixed(&piece) };
            if stream == STDERR { output::raw_note(&line) } else { output::raw(&line)? }
        }
        Ok(true)
    })?;
    Ok(Exit::Ok)
}

/// Turns the ids in front of each line into the names people know.
struct Names<'a> {
    client: &'a Client,
    args: &'a LogsArgs,
    known: BTreeMap<String, String>,
}

impl Names<'_> {
    fn raw(&self, piece: &[u8]) -> Vec<u8> {
        let (stamp, _, line) = self.split(piece);
        if stamp.is_empty() { line.to_vec() } else { [stamp, b" ", line].concat() }
    }

    fn prefixed(&mut self, piece: &[u8]) -> Vec<u8> {
        let (stamp, details, line) = self.split(piece);
        let details = String::from_utf8_lossy(details).into_owned();
        let fields: BTreeMap<&str, &str> =
            details.split(',').filter_map(|field| field.split_once('=')).collect();
        let field = |name: &str| {
            fields.get(format!("com.docker.swarm.{name}.id").as_str()).copied().unwrap_or("")
        };
        let name = self.task_name(field("task"), field("node"));
        let mut out = Vec::new();
        if !stamp.is_empty() {
            out.extend_from_slice(stamp);
            out.push(b' ');
        }
        out.extend_from_slice(format!("{name}    | ").as_bytes());
        if self.args.details {
            out.extend_from_slice(details.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
        out
    }

    /// Splits a line into time stamp (where asked for), details and text.
    fn split<'p>(&self, piece: &'p [u8]) -> (&'p [u8], &'p [u8], &'p [u8]) {
        let cut = |bytes: &'p [u8]| match bytes.iter().position(|b| *b == b' ') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&bytes[..0], bytes),
        };
        let (stamp, rest) = if self.args.timestamps { cut(piece) } else { (&piece[..0], piece) };
        let (details, line) = cut(rest);
        (stamp, details, line)
    }

    fn task_name(&mut self, task: &str, node: &str) -> String {
        if let Some(name) = self.known.get(task) {
            return name.clone();
        }
        let cut = |id: &str| super::super::human::short_id(id, self.args.no_trunc);
        let name = if self.args.no_resolve {
            format!("{}@{}", cut(task), cut(node))
        } else {
            let found = self.client.get(&format!("/tasks/{}", encode(task))).unwrap_or(Value::Null);
            let service = text(&found, "/ServiceID");
            let service = get(self.client, service).unwrap_or(Value::Null);
            let host = self.client.get(&format!("/nodes/{}", encode(node)));
            let host = host.unwrap_or(Value::Null);
            let host = match text(&host, "/Description/Hostname") {
                "" => cut(node),
                host => host.to_owned(),
            };
            let slot = match super::super::task::place(&found) {
                place if place.is_empty() || place == node => cut(node),
                slot => slot,
            };
            let service = match text(&service, "/Spec/Name") {
                "" => cut(text(&found, "/ServiceID")),
                name => name.to_owned(),
            };
            if self.args.no_task_ids {
                format!("{service}.{slot}@{host}")
            } else {
                format!("{service}.{slot}.{}@{host}", cut(task))
            }
        };
        self.known.insert(task.to_owned(), name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
