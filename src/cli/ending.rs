//! `midge kill`, `midge stop`, `midge restart` and `midge wait`.

use super::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::text,
    output,
};
use clap::Args;
use serde_json::Value;

/// How many containers are stopped at once, as many as Docker's.
const AT_ONCE_MAX: usize = 50;

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// The signal: a name with or without SIG, RTMIN+N, or a number
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// A task of any node (id, SERVICE.SLOT), or a container of this one (can be repeated)
    #[arg(required = true, value_name = "TASK|CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// The signal that asks it to end; the service's, or the image's, unless given
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds until it is killed, -1 for never; the service's stop grace period unless given
    #[arg(
        short,
        long,
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
    /// A task of any node (id, SERVICE.SLOT), or a container of this one (can be repeated)
    #[arg(required = true, value_name = "TASK|CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// A task of any node (id, SERVICE.SLOT), or a container of this one (can be repeated)
    #[arg(required = true, value_name = "TASK|CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn kill(client: &Client, args: &KillArgs) -> Result<Exit, CliError> {
    let query = format!("signal={}", encode(&args.signal));
    at_once(&args.containers, |name| ask(client, name, "kill", &query))
}

pub(super) fn stop(client: &Client, args: &StopArgs) -> Result<Exit, CliError> {
    at_once(&args.containers, |name| ask(client, name, "stop", &args.query()))
}

pub(super) fn restart(client: &Client, args: &StopArgs) -> Result<Exit, CliError> {
    at_once(&args.containers, |name| ask(client, name, "restart", &args.query()))
}

impl StopArgs {
    fn query(&self) -> String {
        let signal = self.signal.iter().map(|signal| format!("signal={}", encode(signal)));
        let timeout = self.timeout.iter().map(|seconds| format!("t={seconds}"));
        signal.chain(timeout).collect::<Vec<_>>().join("&")
    }
}

fn ask(client: &Client, name: &str, verb: &str, query: &str) -> Result<(), CliError> {
    client.post(&format!("/containers/{}/{verb}?{query}", encode(name)), Value::Null).map(|_| ())
}

/// Does the same to all, side by side since each may take its grace period; prints the names of those
/// that it was done to, in order.
fn at_once(
    names: &[String],
    act: impl Fn(&str) -> Result<(), CliError> + Sync,
) -> Result<Exit, CliError> {
    let mut outcomes = Vec::new();
    for some in names.chunks(AT_ONCE_MAX) {
        std::thread::scope(|scope| {
            let begun: Vec<_> = some.iter().map(|name| scope.spawn(|| act(name))).collect();
            outcomes.extend(begun.into_iter().map(|one| one.join().expect("it does not panic")));
        });
    }
    let mut outcomes = outcomes.into_iter();
    super::each(names, |name| {
        outcomes.next().expect("there is one for each name")?;
        output::line(name)
    })
}

pub(super) fn wait(client: &Client, args: &WaitArgs) -> Result<Exit, CliError> {
    super::each(&args.containers, |name| {
        let path = format!("/containers/{}/wait", encode(name));
        let ended = client.post(&path, Value::Null)?;
        output::line(&ended["StatusCode"].to_string())?;
        match text(&ended, "/Error/Message") {
            "" => Ok(()),
            reason => Err(CliError::failure(format!("{name}: {reason}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: StopArgs,
    }

    #[test]
    fn only_what_is_asked_for_is_sent() {
        for (line, query) in [
            ("stop web.1", ""),
            ("stop -t 60 -s RTMIN+1 web.1 web.2", "signal=RTMIN%2B1&t=60"),
            ("stop -t -1 web.1", "t=-1"),
            ("stop --time=0 web.1", "t=0"),
        ] {
            assert_eq!(Line::parse_from(line.split(' ')).args.query(), query, "{line}");
        }
    }
}
