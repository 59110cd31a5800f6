//! Why a task or a service is as it is, in plain words.
//!
//! Read from the state, from what the leader knows besides, and from the scheduler's own filters as
//! of now. What was decided on earlier is told by the reasons and dates that tasks carry.

use super::{
    SlotKey, State,
    reconcile::{Memory, Wait},
    schedule::{self, Volatile},
    update,
};
use crate::types::{
    Date, Desired, FailureAction, Moment, Node, NodeId, Reason, ReasonCode, Service, Task,
    TaskState, UpdatePlace,
};
use std::{collections::BTreeSet, time::Duration};

/// Of how many tasks a service says what each waits for: more fill a screen and say the same.
const TASKS_MAX: usize = 20;

/// Writes a time as people say it, in its largest unit.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 if seconds != 60 => format!("{} s", time.as_secs_f32().round()),
        0..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A look at the cluster at one time.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) state: &'a State,
    pub(super) volatile: &'a Volatile,
    pub(super) memory: &'a Memory,
    pub(super) now: Moment,
    pub(super) date: Date,
}

impl<'a> Look<'a> {
    /// Says how a task stands, why it was made, what it waits for, and which nodes would take it.
    pub(super) fn task(self, task: &Task) -> Vec<String> {
        let mut lines = vec![self.standing(task)];
        lines.extend(task.reasons.iter().map(|reason| self.made(task, reason)));
        lines.extend(self.waiting(task));
        if task.desired.is_wanted() && self.observed(task) <= TaskState::Running {
            lines.extend(self.placement(task));
        }
        lines
    }

    /// Says how many of a service's tasks run, how far its update has come and what that waits for,
    /// and what each task waits for that does not run.
    pub(super) fn service(self, service: &Service) -> Vec<String> {
        let tasks: Vec<&Task> = self.state.tasks_of_service(&service.id).collect();
        let wanted = || tasks.iter().filter(|task| task.desired.is_wanted());
        let runs = |task: &&&Task| self.observed(task) == TaskState::Running;
        let all: BTreeSet<SlotKey> = wanted().map(|task| SlotKey::of(task)).collect();
        let up: BTreeSet<SlotKey> = wanted().filter(runs).map(|task| SlotKey::of(task)).collect();
        let (name, up, all) = (&service.spec.name, up.len(), all.len());
        let mut lines = vec![format!("{name}: a task runs in {up} of {all} places")];
        lines.extend(self.update(service, &tasks));
        let idle = wanted().filter(|task| self.observed(task) < TaskState::Running);
        lines.extend(idle.take(TASKS_MAX).map(|task| self.standing(task)));
        lines
    }

    fn observed(self, task: &Task) -> TaskState {
        self.volatile.state_of(task)
    }

    fn ago(self, date: Date) -> String {
        format!("{} ago", in_words(self.date.since(date)))
    }

    fn node(self, id: &NodeId) -> String {
        self.state.node(id).map_or_else(|| id.to_string(), name)
    }

    fn standing(self, task: &Task) -> String {
        let soft = self.volatile.soft.get(&task.id).filter(|soft| soft.state > task.status.state);
        let status = soft.unwrap_or(&task.status);
        let name = task.short_name();
        let place =
            task.node.as_ref().map_or_else(String::new, |id| format!(" on {}", self.node(id)));
        let error =
            if status.error.is_empty() { String::new() } else { format!(": {}", status.error) };
        let ago = self.ago(status.date);
        match status.state {
            TaskState::New | TaskState::Pending => {
                format!(
                    "{name} waits for a node since {}{error}",
                    in_words(self.date.since(task.created))
                )
            }
            TaskState::Running => format!("{name} runs{place}, started {ago}"),
            TaskState::Complete => format!("{name} came to its end{place} {ago}"),
            TaskState::Shutdown => format!("{name} was stopped{place} {ago}"),
            TaskState::Failed => format!("{name} failed{place} {ago}{error}"),
            TaskState::Rejected => format!("{name} could not be started{place} {ago}{error}"),
            TaskState::Orphaned => format!("{name} was given up with its node {ago}"),
            state => format!(
                "{name} is {state}{place} since {}{error}",
                in_words(self.date.since(status.date))
            ),
        }
    }

    /// Says why the task was made.
    fn made(self, task: &Task, reason: &Reason) -> String {
        let before = task.predecessor.as_ref().and_then(|id| self.state.task(id));
        let ended =
            before.map_or_else(String::new, |it| format!("; before it, {}", self.standing(it)));
        let of_before = || {
            let node = before.and_then(|it| it.node.as_ref());
            node.map_or_else(|| "its node".to_owned(), |id| self.node(id))
        };
        let why = match reason.code {
            ReasonCode::ServiceScaled => "the service wants so many tasks".to_owned(),
            ReasonCode::Restarted => format!("the task before it ended{ended}"),
            ReasonCode::SpecChanged => "the service was updated".to_owned(),
            ReasonCode::NodeLost => format!("{} was lost", of_before()),
            ReasonCode::NodeDrained => format!("{} is drained", of_before()),
            ReasonCode::ConstraintViolated => {
                format!("{} no longer met the constraints", of_before())
            }
            ReasonCode::LocalRestart => {
                format!("the task before it ended while the node had no manager{ended}")
            }
            ReasonCode::NodeJoined => "its node takes part in the service".to_owned(),
            ReasonCode::NoLongerWanted => return "the service wants it no longer".to_owned(),
            ReasonCode::Superseded => return "another task took its place".to_owned(),
        };
        format!("made {}, since {why}", self.ago(reason.date))
    }

    /// Says what keeps the task from running, or made it stop.
    fn waiting(self, task: &Task) -> Vec<String> {
        let before = task.predecessor.as_ref().and_then(|id| self.state.task(id));
        let alive = before.filter(|before| before.status.state <= TaskState::Running);
        let mut lines = Vec::new();
        match task.desired {
            Desired::Ready => {
                let left = task.delay.saturating_sub(self.date.since(task.created));
                if !left.is_zero() {
                    let failures = task.failures;
                    lines.push(format!(
                        "held for another {}; {failures} tasks before it failed in a row",
                        in_words(left)
                    ));
                }
                match alive {
                    Some(it) if it.desired.may_run() => lines.push(format!(
                        "{} runs on until this one is ready to take its place",
                        it.id
                    )),
                    Some(it) => lines.push(format!("waits for {} to stop", it.id)),
                    None => {}
                }
            }
            Desired::Running if task.overlap => {
                if let Some(it) = alive.filter(|it| it.desired.may_run()) {
                    lines.push(format!(
                        "{} runs on until this one does, healthy where it says so",
                        it.id
                    ));
                }
            }
            Desired::Running | Desired::Complete => {}
            Desired::Shutdown | Desired::Remove => lines.extend(self.stopped(task)),
        }
        lines
    }

    fn stopped(self, task: &Task) -> Option<String> {
        let slot = self.state.tasks_in_slot(&SlotKey::of(task));
        let next = slot.filter(|other| other.predecessor.as_ref() == Some(&task.id)).last();
        match next {
            Some(next) => {
                Some(format!("its place was taken by {}: {}", next.id, self.standing(next)))
            }
            None if task.desired == Desired::Remove => {
                Some("the service wants it no longer".to_owned())
            }
            None => None,
        }
    }

    /// Says which nodes would take the task as of now, and which filter rejects the others.
    fn placement(self, task: &Task) -> Vec<String> {
        let verdict = schedule::verdict(self.state, self.volatile, self.now, task);
        let all =
            verdict.passing.len() + verdict.removed.iter().map(|(_, n)| n.len()).sum::<usize>();
        let mut lines = vec![format!(
            "{} of {all} nodes pass every filter for it now{}",
            verdict.passing.len(),
            listed(&verdict.passing)
        )];
        lines.extend(verdict.removed.iter().map(|(why, nodes)| format!("{why}{}", listed(nodes))));
        lines
    }

    fn update(self, service: &Service, tasks: &[&Task]) -> Vec<String> {
        let Some(status) = &service.update else { return Vec::new() };
        let config = update::config(service);
        let mut lines = vec![format!("{}, begun {}", status.message, self.ago(status.started))];
        let wanted = || tasks.iter().copied().filter(|task| task.desired.is_wanted());
        for (place, id) in &status.failed {
            let how = self
                .state
                .task(id)
                .map_or_else(|| format!("task {id} failed"), |it| self.standing(it));
            lines.push(format!("failed in {}: {how}", place_name(self, place)));
        }
        if status.state.is_paused() {
            let name = &service.spec.name;
            lines.push(format!(
                "midge service update {name} tries again, midge service rollback {name} goes back"
            ));
        }
        if !status.state.is_moving() {
            return lines;
        }
        let dirty = wanted().filter(|task| update::is_dirty(self.state, service, task)).count();
        let fresh: Vec<&Task> = wanted().filter(|task| update::is_fresh(service, task)).collect();
        let done = fresh.iter().filter(|task| self.observed(task) == TaskState::Running).count();
        lines.push(format!(
            "of {} places {done} run the new spec, {} are under way, {dirty} run the old one",
            status.total,
            fresh.len() - done,
        ));
        for task in fresh.iter().take(TASKS_MAX) {
            let state = self.observed(task);
            let lasted = self.date.since(task.updated);
            let waited = self.memory.waited(&task.id, Wait::Progress, self.now);
            let left = |limit: Duration, since: Duration| in_words(limit.saturating_sub(since));
            if state < TaskState::Running && !config.progress_deadline.is_zero() {
                let left = left(config.progress_deadline, waited);
                lines.push(format!("waits for {}, for another {left} at most", task.short_name()));
            } else if state < TaskState::Running {
                lines.push(format!("waits for {}, as long as it takes", task.short_name()));
            } else if dirty > 0 && lasted < config.delay {
                let left = left(config.delay, lasted);
                lines.push(format!("the next place has its turn in {left}"));
            } else if lasted < config.monitor {
                let left = left(config.monitor, lasted);
                lines.push(format!("watches {} for another {left}", task.short_name()));
            }
        }
        if config.failure_action == FailureAction::Continue {
            lines.push("goes on whatever fails".to_owned());
        }
        lines
    }
}

fn name(node: &Node) -> String {
    let name = &node.description.hostname;
    if name.is_empty() { node.id.to_string() } else { name.clone() }
}

fn place_name(look: Look<'_>, place: &UpdatePlace) -> String {
    match &place.node {
        Some(node) => look.node(node),
        None => format!("slot {}", place.slot),
    }
}

/// Lists nodes by name, the first few of many.
fn listed(nodes: &[&Node]) -> String {
    const SHOWN: usize = 8;
    if nodes.is_empty() {
        return String::new();
    }
    let mut names: Vec<String> = nodes.iter().take(SHOWN).map(|node| name(node)).collect();
    if nodes.len() > SHOWN {
        names.push(format!("and {} more", nodes.len() - SHOWN));
    }
    format!(": {}", names.join(", "))
}
