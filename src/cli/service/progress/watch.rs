//! How far a service has come, and when that is enough: decided by what was polled and the time.

use super::{STEPS_OF_SERVICES, step};
use crate::cli::{
    exit::CliError,
    human::{number, parse_date, short_id, text},
    screen::{BARS_MAX, Line},
};
use serde_json::Value;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long the tasks must stay up before the service counts as converged, where it does not say:
/// Swarm's default monitoring period.
const MONITOR: Duration = Duration::from_secs(5);

/// How much longer an update whose tasks all run may take to say that it is completed. The manager
/// watches as long as this command and began no later, so it has to say so by then; a fail-over
/// costs it a few seconds.
const VERDICT: Duration = Duration::from_secs(10);

/// How long a global service without any task is looked at: its tasks are all made at once.
const NO_NODE: Duration = Duration::from_secs(5);

/// What was read of a service at about one time.
#[derive(Debug, Default)]
pub(super) struct Polled {
    pub(super) service: Value,
    /// Its tasks that run what it wants now.
    pub(super) tasks: Vec<Value>,
    /// Its other tasks; of a global service only.
    pub(super) outdated: Vec<Value>,
    /// All nodes.
    pub(super) nodes: Vec<Value>,
}

/// What one look at a service comes to.
#[derive(Debug)]
pub(super) struct Step {
    /// What is to be seen.
    pub(super) lines: Vec<Line>,
    /// Whether all tasks run.
    pub(super) converged: bool,
    /// How the wait ended, where it did.
    pub(super) ended: Option<Result<(), CliError>>,
}

/// A wait for one service.
#[derive(Debug)]
pub(super) struct Watch {
    /// What the user calls the service.
    name: String,
    /// Since when all tasks run.
    stable_since: Option<Duration>,
    /// Whether they did before, and do not now.
    fell_back: bool,
    /// Whether an update was seen under way.
    updating: bool,
    /// What a rollback said that was seen under way.
    rolling_back: Option<String>,
}

impl Watch {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stable_since: None,
            fell_back: false,
            updating: false,
            rolling_back: None,
        }
    }

    /// Looks at what was polled at `now`, the time since the wait began.
    pub(super) fn step(&mut self, polled: &Polled, now: Duration) -> Step {
        let progress = Progress::of(polled);
        let update = Update::of(&polled.service);
        let converged = progress.is_converged();
        self.note(&update, converged, now);
        let stable = self.stable_since.map(|since| now.saturating_sub(since));
        let ended = self.verdict(&update, &progress, stable, now);
        let last = match (&ended, stable) {
            (Some(Ok(())), _) => Some(Line::head(self.farewell(&progress))),
            (Some(Err(_)), _) => None,
            (None, Some(stable)) => Some(update.verifying(stable)),
            (None, None) if self.fell_back => Some(Line::head("verify: Detected task failure")),
            (None, None) => None,
        };
        let mut lines = update.headline();
        lines.push(progress.overall(update.is_rollback()));
        lines.extend(progress.bars());
        lines.extend(last);
        Step { lines, converged, ended }
    }

    /// Remembers what a later look needs to know of this one.
    fn note(&mut self, update: &Update<'_>, converged: bool, now: Duration) {
        match update.state {
            "updating" => self.updating = true,
            "rollback_started" => self.rolling_back = Some(update.message.to_owned()),
            _ => {}
        }
        if converged {
            self.stable_since.get_or_insert(now);
            self.fell_back = false;
        } else {
            self.fell_back |= self.stable_since.take().is_some();
        }
    }

    fn verdict(
        &self,
        update: &Update<'_>,
        progress: &Progress,
        stable: Option<Duration>,
        now: Duration,
    ) -> Option<Result<(), CliError>> {
        let name = &self.name;
        let failed = |what: &str, message: &str| {
            Some(Err(CliError::failure(format!("service {what}: {message}"))
                .hint(format!("midge service ps {name} shows the tasks and their errors"))))
        };
        match update.state {
            "paused" => return failed("update paused", update.message),
            "rollback_paused" => return failed("rollback paused", update.message),
            "completed" if self.updating => return Some(Ok(())),
            // Whoever asked for the rollback has seen no update on the way to it.
            "rollback_completed" if self.updating => {
                let message = self.rolling_back.as_deref().unwrap_or(update.message);
                return failed("rolled back", message);
            }
            "rollback_completed" if self.rolling_back.is_some() => return Some(Ok(())),
            _ => {}
        }
        if stable.is_some_and(|stable| stable >= update.due()) {
            return Some(Ok(()));
        }
        if progress.has_no_node() && now >= NO_NODE {
            return Some(Ok(()));
        }
        let (given_up, why) = progress.given_up();
        let hopeless = given_up > 0 && progress.running() + given_up >= progress.wanted;
        if hopeless && !update.is_moving() {
            let (tasks, wanted) = (if given_up == 1 { "task" } else { "tasks" }, progress.wanted);
            let text =
                format!("{given_up} of {wanted} {tasks} ended and will not be started again");
            return failed("did not converge", &format!("{text}: {why}"));
        }
        None
    }

    fn farewell(&self, progress: &Progress) -> String {
        if progress.has_no_node() {
            return "no node fits the service now; those that come to fit will run it".to_owned();
        }
        if progress.is_converged() {
            return format!("verify: Service {} converged", self.name);
        }
        let (running, wanted) = (progress.running(), progress.wanted);
        format!("verify: the update is completed, with {running} out of {wanted} tasks running")
    }
}

/// How the update of a service stands.
struct Update<'a> {
    /// Empty where there is none.
    state: &'a str,
    message: &'a str,
    monitor: Duration,
}

impl<'a> Update<'a> {
    fn of(service: &'a Value) -> Self {
        let state = text(service, "/UpdateStatus/State");
        let config = if state.starts_with("rollback") { "RollbackConfig" } else { "UpdateConfig" };
        let monitor = match number(&service["Spec"][config], "/Monitor") {
            0 => MONITOR,
            nanos => Duration::from_nanos(nanos),
        };
        Self { state, message: text(service, "/UpdateStatus/Message"), monitor }
    }

    fn is_rollback(&self) -> bool {
        self.state.starts_with("rollback")
    }

    fn is_moving(&self) -> bool {
        matches!(self.state, "updating" | "rollback_started")
    }

    /// How long the tasks must have run for the service to count as converged.
    fn due(&self) -> Duration {
        self.monitor + if self.is_moving() { VERDICT } else { Duration::ZERO }
    }

    fn headline(&self) -> Vec<Line> {
        if self.is_rollback() && !self.message.is_empty() {
            vec![Line::head(format!("rollback: {}", self.message))]
        } else {
            Vec::new()
        }
    }

    /// Returns the line of a service whose tasks have all run for so long.
    fn verifying(&self, stable: Duration) -> Line {
        if stable >= self.monitor {
            return Line::head("verify: Waiting until the update counts as completed...");
        }
        let waiting = |left: Duration| {
            let seconds = left.as_secs_f64().ceil();
            format!("verify: Waiting {seconds:.0} seconds to verify that tasks are stable...")
        };
        Line::ticking(waiting(self.monitor.saturating_sub(stable)), waiting(self.monitor))
    }
}

/// A place of a service that has, or had, a task which runs what is wanted now.
#[derive(Debug)]
struct Place {
    /// `1/3`, or the beginning of a node's id.
    name: String,
    state: String,
    /// What is wrong; also with the attempt before, as long as this one does not run.
    error: String,
    runs: bool,
    /// Whether it ended, and nothing takes its place.
    given_up: bool,
}

impl Place {
    fn line(&self) -> Line {
        if self.error.is_empty() || self.runs {
            Line::bar(&self.name, &self.state, step(&self.state), STEPS_OF_SERVICES)
        } else {
            Line::error(&self.name, &self.error)
        }
    }
}

/// How far a service has come.
#[derive(Debug)]
struct Progress {
    global: bool,
    /// How many tasks it should have.
    wanted: usize,
    /// By number, from 1, those too many last; the nodes of a global service by their ids.
    places: BTreeMap<usize, Place>,
}

impl Progress {
    fn of(polled: &Polled) -> Self {
        let up: BTreeSet<&str> = polled
            .nodes
            .iter()
            .filter(|node| text(node, "/Status/State") != "down")
            .map(|node| text(node, "/ID"))
            .collect();
        let there = |task: &&Value| {
            let node = text(task, "/NodeID");
            node.is_empty() || up.contains(node)
        };
        let tasks = polled.tasks.iter().filter(there);
        match polled.service.pointer("/Spec/Mode/Replicated/Replicas") {
            Some(replicas) => Self::replicated(to_usize(replicas), tasks),
            None => Self::global(tasks, polled.outdated.iter().filter(there)),
        }
    }

    fn replicated<'a>(wanted: usize, tasks: impl Iterator<Item = &'a Value>) -> Self {
        let mut slots: BTreeMap<usize, Vec<&Value>> = BTreeMap::new();
        for task in tasks {
            slots.entry(to_usize(&task["Slot"])).or_default().push(task);
        }
        // After scaling down, the slots that are left may have any numbers: they take the free ones.
        let own = |slot: usize| (1..=wanted).contains(&slot);
        let mut free = (1..).filter(|number| !own(*number) || !slots.contains_key(number));
        let numbered = slots.iter().map(|(slot, tasks)| {
            let number = if own(*slot) { *slot } else { free.next()? };
            Some((number, place(format!("{number}/{wanted}"), tasks)?))
        });
        Self { global: false, wanted, places: numbered.flatten().collect() }
    }

    fn global<'a>(
        tasks: impl Iterator<Item = &'a Value>,
        outdated: impl Iterator<Item = &'a Value>,
    ) -> Self {
        let mut nodes: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for task in tasks {
            nodes.entry(text(task, "/NodeID")).or_default().push(task);
        }
        let places: BTreeMap<&str, Place> = nodes
            .into_iter()
            .filter_map(|(node, tasks)| Some((node, place(short_id(node, false), &tasks)?)))
            .collect();
        let waiting = outdated.filter(|task| is_wanted(task)).map(|task| text(task, "/NodeID"));
        let wanted: BTreeSet<&str> = waiting.chain(places.keys().copied()).collect();
        Self {
            global: true,
            wanted: wanted.len(),
            places: (1..).zip(places.into_values()).collect(),
        }
    }

    fn running(&self) -> usize {
        self.places.values().filter(|place| place.runs).count()
    }

    /// Returns how many places are given up, and why the first of them is.
    fn given_up(&self) -> (usize, String) {
        let all = || self.places.values().filter(|place| place.given_up);
        let why = |place: &'_ Place| match place.error.as_str() {
            "" => place.state.clone(),
            error => error.to_owned(),
        };
        (all().count(), all().next().map_or_else(String::new, why))
    }

    fn has_no_node(&self) -> bool {
        self.global && self.wanted == 0
    }

    fn is_converged(&self) -> bool {
        self.running() == self.wanted && !self.has_no_node()
    }

    fn overall(&self, rollback: bool) -> Line {
        if self.has_no_node() {
            return Line::head("overall progress: waiting for new tasks");
        }
        let going_back = if rollback { "rolling back update: " } else { "" };
        let (running, wanted) = (self.running(), self.wanted);
        Line::head(format!("overall progress: {going_back}{running} out of {wanted} tasks"))
    }

    /// Returns a line for each place; where there are too many, the lines of their errors.
    fn bars(&self) -> Vec<Line> {
        if self.wanted > BARS_MAX {
            let failing = self.places.values().filter(|place| !place.runs);
            let failing = failing.filter(|place| !place.error.is_empty());
            return Line::errors(failing.map(|place| (&*place.name, &*place.error)));
        }
        if self.global {
            return self.places.values().map(Place::line).collect();
        }
        let line = |number| match self.places.get(&number) {
            Some(place) => place.line(),
            None => Line::blank(&format!("{number}/{}", self.wanted)),
        };
        (1..=self.wanted).map(line).collect()
    }
}

fn to_usize(number: &Value) -> usize {
    number.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn is_wanted(task: &Value) -> bool {
    matches!(text(task, "/DesiredState"), "ready" | "running")
}

/// Returns how a place stands by its tasks; none where all of them are to be forgotten.
fn place(name: String, tasks: &[&Value]) -> Option<Place> {
    const DESIRED: [&str; 3] = ["ready", "running", "shutdown"];
    let created = |task: &Value| parse_date(text(task, "/CreatedAt"));
    // As Docker: what is wanted least far counts, such as the replacement of one that failed; of
    // equals the one that has come least far.
    let rank = |task: &Value| {
        let desired = DESIRED.iter().position(|d| *d == text(task, "/DesiredState"))?;
        let step = step(text(task, "/Status/State"));
        Some((desired, step == 0, step, Reverse(created(task))))
    };
    let ranked = tasks.iter().filter_map(|task| rank(task).map(|rank| (rank, *task)));
    let (_, task) = ranked.min_by(|(one, _), (other, _)| one.cmp(other))?;
    let others = tasks.iter().filter(|other| text(other, "/ID") != text(task, "/ID"));
    let before = others.max_by_key(|other| created(other));
    let failed = before.filter(|task| matches!(text(task, "/Status/State"), "failed" | "rejected"));
    let error = match (text(task, "/Status/Err"), failed) {
        ("", Some(failed)) => text(failed, "/Status/Err"),
        (error, _) => error,
    };
    let state = text(task, "/Status/State");
    let ended = !(1..=STEPS_OF_SERVICES).contains(&step(state));
    Some(Place {
        name,
        state: state.to_owned(),
        error: error.to_owned(),
        runs: state == "running" && is_wanted(task),
        given_up: ended && !is_wanted(task),
    })
}

#[cfg(test)]
mod tests;
