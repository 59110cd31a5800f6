//! `midge events`.

use super::{
    client::{self, Call, Client},
    exit::{CliError, Exit},
    human::{self, number, text},
    output, template,
};
use crate::types::Date;
use clap::Args;
use hyper::Method;
use serde_json::Value;

/// The longest message that is believed: its labels are a container's, 4 KiB each at most.
const MESSAGE_MAX: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only what fits (can be repeated): type=service, event=die, container=NAME, ...
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, or a template such as '{{.Type}} {{.Action}}'
    #[arg(long)]
    format: Option<String>,
    /// Begin with what came since: a time (RFC 3339, or seconds) or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End then: a time or how long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

pub(super) fn run(client: &Client, args: &EventsArgs) -> Result<Exit, CliError> {
    let mut query = vec![client::filters(&args.filter)?];
    for (name, given) in [("since", &args.since), ("until", &args.until)] {
        if let Some(given) = given {
            query.push(format!("{name}={}", time(name, given)?));
        }
    }
    query.retain(|part| !part.is_empty());
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(template::parse(format)?),
    };
    let json = args.format.as_deref() == Some("json");
    let path = format!("/events?{}", query.join("&"));
    let mut rest = Vec::new();
    let mut cut = None;
    client.stream(Method::GET, &path, &Call::default(), None, |bytes| {
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(message) = serde_json::from_slice::<Value>(&line) else {
                return Err(CliError::failure("unreadable event"));
            };
            if text(&message, "/Type") == "daemon" && text(&message, "/Action").starts_with("cut") {
                cut = Some(text(&message, "/Action").to_owned());
                return Ok(false);
            }
            match &template {
                _ if json => output::line(&message.to_string())?,
                Some(template) => output::line(&template.render(&message)?)?,
                None => output::line(&shown(&message))?,
            }
        }
        if rest.len() > MESSAGE_MAX {
            return Err(CliError::failure("unreadable event"));
        }
        Ok(true)
    })?;
    match cut {
        None => Ok(Exit::Ok),
        Some(message) => {
            Err(CliError::failure(message)
                .hint("midge events --since TIME tells the last 256 again"))
        }
    }
}

/// Returns an event as a line, in Docker's shape.
fn shown(message: &Value) -> String {
    let date = Date::from_unix_nanos(number(message, "/timeNano"));
    let seconds = Date::from_unix_seconds(date.unix_seconds()).to_string();
    let nanos = date.unix_nanos() % 1_000_000_000;
    let attributes: Vec<String> = message["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mut line = format!(
        "{}.{nanos:09}Z {} {} {}",
        seconds.trim_end_matches('Z'),
        text(message, "/Type"),
        text(message, "/Action"),
        text(message, "/Actor/ID"),
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

/// Reads a time, as seconds for the API.
fn time(option: &str, given: &str) -> Result<String, CliError> {
    let plain = given.split('.').all(|part| part.bytes().all(|b| b.is_ascii_digit()));
    if plain && given.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        return Ok(given.to_owned());
    }
    let ago = human::parse_duration(given).ok().map(|ago| human::now() - ago);
    let date = ago.or_else(|| human::parse_date(given)).ok_or_else(|| {
        CliError::usage(format!("invalid value for --{option}: {given:?}"))
            .hint("a duration (10m), seconds, or a time (2026-01-31T12:00:00Z) is expected")
    })?;
    Ok(format!("{}.{:09}", date.unix_seconds(), date.unix_nanos() % 1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_dockers() {
        let message = json!({
            "Type": "service", "Action": "create",
            "Actor": {"ID": "redk", "Attributes": {"name": "ev", "replicas.new": "2"}},
            "timeNano": 1_795_231_469_000_735_240_u64,
        });
        assert_eq!(
            shown(&message),
            "2026-11-21T03:24:29.000735240Z service create redk (name=ev, replicas.new=2)"
        );
    }

    #[test]
    fn times_are_seconds_dates_or_durations() {
        assert_eq!(time("since", "12.5").unwrap(), "12.5");
        assert_eq!(time("since", "1970-01-01T00:01:00.5Z").unwrap(), "60.500000000");
        assert!(time("since", "10m").is_ok());
        assert_eq!(time("until", "yesterday").unwrap_err().exit, Exit::Usage);
    }
}
