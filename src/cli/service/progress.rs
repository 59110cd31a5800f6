//! Waits until a service runs as asked, and shows how far it has come.
//!
//! Polls three reads five times a second, as Docker's client does; plain lines where stdout is no
//! terminal, one a change.

use super::{WaitArgs, job};
use crate::cli::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::{items, number, text},
    output,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often the daemon is asked, as Docker's client.
const POLL: Duration = Duration::from_millis(200);

/// How long the tasks must stay up before the service counts as converged: Swarm's default
/// monitoring period.
const STABLE: Duration = Duration::from_secs(5);

/// With more tasks than this there is no line for each: they would not fit a screen.
const BARS_MAX: u64 = 20;

/// The states a task passes, as the positions of its bar.
const STEPS: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

/// How far a service has come.
struct Progress {
    /// How many tasks it should have.
    wanted: u64,
    /// How many of them run what is wanted.
    running: u64,
    /// What each slot's newest task does, and its error.
    slots: BTreeMap<String, (String, String)>,
    /// Set where the update went back or stopped: its state and message.
    stopped: Option<(String, String)>,
    /// Whether slots are still being replaced.
    updating: bool,
}

/// Waits as `wait` says.
pub(super) fn wait(client: &Client, id: &str, wait: WaitArgs) -> Result<Exit, CliError> {
    if wait.detach {
        return Ok(Exit::Ok);
    }
    let service = client.get(&format!("/services/{}", encode(id)))?;
    if service.get("JobStatus").is_some() {
        return job::wait(client, &service, wait);
    }
    let mut screen = Screen::new(wait.quiet);
    let mut stable_since: Option<Instant> = None;
    loop {
        let progress = read(client, id)?;
        if let Some((state, message)) = &progress.stopped {
            let what = if state.starts_with("rollback") { "rollback" } else { "update" };
            screen.finish(&progress)?;
            return Err(CliError::failure(format!("service {what} paused: {message}"))
                .hint("midge service ps shows the tasks and their errors"));
        }
        let converged = progress.running >= progress.wanted
            && u64::try_from(progress.slots.len()).is_ok_and(|n| n <= progress.wanted)
            && !progress.updating;
        match (converged, stable_since) {
            (true, Some(since)) if since.elapsed() >= STABLE => {
                screen.finish(&progress)?;
                screen.say(&format!("verify: Service {id} converged"))?;
                return Ok(Exit::Ok);
            }
            (true, since) => {
                let since = *stable_since.insert(since.unwrap_or_else(Instant::now));
                let left = STABLE.saturating_sub(since.elapsed()).as_secs_f64().ceil();
                screen.show(
                    &progress,
                    &format!(
                        "verify: Waiting {left:.0} seconds to verify that tasks are stable..."
                    ),
                )?;
            }
            (false, Some(_)) => {
                stable_since = None;
                screen.show(&progress, "verify: Detected task failure")?;
            }
            (false, None) => screen.show(&progress, "")?,
        }
        std::thread::sleep(POLL);
    }
}

fn read(client: &Client, id: &str) -> Result<Progress, CliError> {
    let service = client.get(&format!("/services/{}", encode(id)))?;
    let filter = encode(&format!(
        r#"{{"service":{{"{}":true}},"_up-to-date":{{"true":true}}}}"#,
        text(&service, "/ID")
    ));
    let tasks = items(client.get(&format!("/tasks?filters={filter}"))?)?;
    let nodes = items(client.get("/nodes")?)?;
    let up = |task: &Value| {
        let node = text(task, "/NodeID");
        node.is_empty()
            || nodes.iter().any(|n| text(n, "/ID") == node && text(n, "/Status/State") != "down")
    };
    let mut slots: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut running = 0;
    for task in tasks.iter().filter(|task| up(task)) {
        if !matches!(text(task, "/DesiredState"), "running" | "ready") {
            continue;
        }
        let state = text(task, "/Status/State");
        running += u64::from(state == "running" && text(task, "/DesiredState") == "running");
        let key = match number(task, "/Slot") {
            0 => text(task, "/NodeID").to_owned(),
            slot => format!("{slot:>8}"),
        };
        slots.insert(key, (state.to_owned(), text(task, "/Status/Err").to_owned()));
    }
    let wanted = match service.pointer("/Spec/Mode/Replicated/Replicas") {
        Some(replicas) => replicas.as_u64().unwrap_or(0),
        // A global service is as many tasks as it was given: the nodes that fit are the
        // manager's affair.
        None => u64::try_from(slots.len()).unwrap_or(u64::MAX),
    };
    let update = text(&service, "/UpdateStatus/State").to_owned();
    let message = text(&service, "/UpdateStatus/Message").to_owned();
    let updating = update == "updating" && slots.len() as u64 != running;
    let stopped = update.ends_with("paused").then_some((update, message));
    Ok(Progress { wanted, running, slots, stopped, updating })
}

/// What was shown last, so that it can be drawn over, or left alone where nothing changed.
#[derive(Default)]
pub(super) struct Screen {
    quiet: bool,
    lines: usize,
    last: String,
}

impl Screen {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    fn show(&mut self, progress: &Progress, verify: &str) -> Result<(), CliError> {
        if self.quiet {
            return Ok(());
        }
        if !output::stdout_is_terminal() {
            let overall = overall(progress);
            let line = if verify.is_empty() { overall } else { verify.to_owned() };
            if line != self.last {
                output::line(&line)?;
                self.last = line;
            }
            return Ok(());
        }
        let mut lines = vec![overall(progress)];
        if progress.wanted <= BARS_MAX {
            lines.extend(bars(progress));
        }
        if !verify.is_empty() {
            lines.push(verify.to_owned());
        }
        self.draw(&lines)
    }

    /// Draws these lines over the last ones.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<(), CliError> {
        let mut text = String::new();
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        for line in lines {
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        // Lines that were there and are no longer.
        for _ in lines.len()..self.lines {
            text.push_str("\x1b[2K\n");
        }
        self.lines = self.lines.max(lines.len());
        output::raw(text.as_bytes())
    }

    fn finish(&mut self, progress: &Progress) -> Result<(), CliError> {
        if output::stdout_is_terminal() { self.show(progress, "") } else { Ok(()) }
    }

    pub(super) fn say(&self, line: &str) -> Result<(), CliError> {
        if self.quiet { Ok(()) } else { output::line(line) }
    }
}

fn overall(progress: &Progress) -> String {
    format!("overall progress: {} out of {} tasks", progress.running, progress.wanted)
}

fn bars(progress: &Progress) -> Vec<String> {
    let bar = |(slot, (state, error)): (&String, &(String, String))| {
        let step = STEPS.iter().position(|s| s == state).map_or(0, |at| at + 1);
        let filled = "=".repeat(step * 6).chars().take(48).collect::<String>();
        let shown = if error.is_empty() {
            format!("[{:<49}]", format!("{filled}>"))
        } else {
            error.chars().take(75).collect()
        };
        let slot = slot.trim();
        let name: String = slot.chars().take(12).collect();
        match slot.parse::<u64>() {
            Ok(slot) => format!("{slot}/{}: {state:<9} {shown}", progress.wanted),
            Err(_) => format!("{name}: {state:<9} {shown}"),
        }
    };
    progress.slots.iter().map(bar).collect()
}
