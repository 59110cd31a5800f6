//! Waits until services run as asked, and shows how far they have come.

mod watch;

use super::{WaitArgs, job};
use crate::cli::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::{items, text},
    output, poll,
    screen::Screen,
};
use serde_json::Value;
use watch::{Polled, Watch};

/// The states a task passes, as the positions of its bar; only a job's comes to the last one.
const STEPS: [&str; 10] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
];

/// How many steps a service's task has to go.
const STEPS_OF_SERVICES: usize = STEPS.len() - 1;

/// How many steps a job's task has to go.
pub(super) const STEPS_OF_JOBS: usize = STEPS.len();

/// Returns which step of its bar a task in this state has come to; 0 where it left its way.
pub(super) fn step(state: &str) -> usize {
    STEPS.iter().position(|known| *known == state).map_or(0, |at| at + 1)
}

/// Waits for one service as `wait` says.
pub(super) fn wait(client: &Client, name: &str, wait: WaitArgs) -> Result<Exit, CliError> {
    wait_for_each(client, &[name.to_owned()], wait)
}

/// Waits for one service after the other, also after one that failed. Ctrl-C ends all waiting and
/// none of the work: that is no failure.
pub(super) fn wait_for_each(
    client: &Client,
    names: &[String],
    wait: WaitArgs,
) -> Result<Exit, CliError> {
    if wait.detach {
        return Ok(Exit::Ok);
    }
    let mut failed: Option<CliError> = None;
    for (at, name) in names.iter().enumerate() {
        match wait_for(client, name, wait) {
            Ok(Waited::Arrived) => {}
            Ok(Waited::Interrupted { converged }) => {
                let left = &names[if converged { at + 1 } else { at }..];
                left_running(&Screen::new(wait.quiet), left)?;
                break;
            }
            Err(error) if error.exit == Exit::Unreachable => return Err(error),
            // The last failure is printed by whoever prints that of any command.
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    output::error(&before);
                }
            }
        }
    }
    failed.map_or(Ok(Exit::Ok), Err)
}

/// How the wait for a service ended that met no error.
pub(super) enum Waited {
    /// The service runs as asked.
    Arrived,
    /// The user has waited enough.
    Interrupted {
        /// Whether all tasks ran at that time, so that there is nothing to look for later.
        converged: bool,
    },
}

fn left_running(screen: &Screen, names: &[String]) -> Result<(), CliError> {
    if !names.is_empty() {
        screen.say("Operation continuing in background.")?;
    }
    let hint = |name| screen.say(&format!("Use `midge service ps {name}` to check progress."));
    names.iter().try_for_each(hint)
}

fn wait_for(client: &Client, name: &str, wait: WaitArgs) -> Result<Waited, CliError> {
    let service = client.get(&format!("/services/{}", encode(name)))?;
    let mut screen = Screen::new(wait.quiet);
    if service.get("JobStatus").is_some() {
        return job::wait(client, &service, &mut screen);
    }
    let mut watch = Watch::new(name);
    let mut converged = false;
    let reader = (client.clone(), text(&service, "/ID").to_owned());
    let ended = poll::until(
        move || read(&reader.0, &reader.1),
        |polled, now| {
            let step = watch.step(&polled, now);
            converged = step.converged;
            screen.show(step.lines)?;
            Ok(step.ended)
        },
    )?;
    match ended {
        None => Ok(Waited::Interrupted { converged }),
        Some(result) => result.map(|()| Waited::Arrived),
    }
}

fn read(client: &Client, id: &str) -> Result<Polled, CliError> {
    let service = client.get(&format!("/services/{}", encode(id)))?;
    // Without what is to be replaced, nothing tells on how many nodes a global service runs.
    let global = service.pointer("/Spec/Mode/Global").is_some();
    let outdated = if global { tasks(client, id, false)? } else { Vec::new() };
    Ok(Polled {
        tasks: tasks(client, id, true)?,
        nodes: items(client.get("/nodes")?)?,
        service,
        outdated,
    })
}

/// Reads the tasks of a service that run what it wants now, or those that do not.
pub(super) fn tasks(client: &Client, id: &str, up_to_date: bool) -> Result<Vec<Value>, CliError> {
    let filter = format!(r#"{{"service":{{"{id}":true}},"_up-to-date":{{"{up_to_date}":true}}}}"#);
    items(client.get(&format!("/tasks?filters={}", encode(&filter)))?)
}
