//! Probes: which container is looked at next, and how many at once.
//!
//! Knows the node's bounds; what a probe means for its container is [`super::health`]'s affair.
//! While the runtime is away nothing is probed.

use super::{
    event::{Action, Failure, Operation, ProbeResult},
    health::Verdict,
    step::Agent,
    task::{At, Container, Entry},
};
use crate::types::{Health, Moment, TaskId, TaskState};
use std::time::Duration;

/// How many probes run at once. Each is a process of runc, 15 MB while it starts, and then one of
/// the container's; with eight of them a board with 512 MB keeps most of its memory, and as many
/// stuck ones do not yet keep the others waiting.
pub const PROBES_MAX: usize = 8;

/// The least time from the beginning of one probe to that of the next: starting one keeps the core
/// of a small board busy for about that long, so probes alone never take more than one core.
/// A hundred containers are still all probed within ten seconds.
const PROBE_GAP: Duration = Duration::from_millis(100);

/// The probes of a node.
#[derive(Debug)]
pub(super) struct Probes {
    /// The last number drawn.
    number: u64,
    /// No probe begins before this.
    not_before: Moment,
}

impl Probes {
    pub(super) fn new(now: Moment) -> Self {
        Self { number: 0, not_before: now }
    }
}

impl Agent {
    /// Returns the entries that are probed: those whose container runs and is to run.
    fn probed(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.values().filter(|entry| entry.is_probed())
    }

    fn room_for_probes(&self) -> bool {
        let under_way = self.tasks.values().filter(|entry| entry.health.is_under_way()).count();
        self.inventoried && under_way < self.options.probes
    }

    /// Returns when a probe is to begin, or an answer counts as lost.
    pub(super) fn probe_deadline(&self) -> Option<Moment> {
        let limits = self.tasks.values().filter_map(|entry| entry.health.limit());
        let due = self.probed().filter_map(|entry| entry.health.due()).min();
        let due = due.filter(|_| self.room_for_probes()).map(|due| due.max(self.probes.not_before));
        limits.chain(due).min()
    }

    /// Begins what is due, the longest overdue first.
    pub(super) fn drive_probes(&mut self, at: At) {
        for entry in self.tasks.values_mut() {
            entry.health.expire(at.now);
        }
        if self.probes.not_before > at.now || !self.room_for_probes() {
            return;
        }
        let due = self.probed().filter_map(|entry| Some((entry.health.due()?, &entry.task.id)));
        let Some((due, id)) = due.min() else { return };
        if due > at.now {
            return;
        }
        let id = id.clone();
        self.probes.number += 1;
        let number = self.probes.number;
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        if let Some((command, timeout)) = entry.health.start(number, at.now, at.date) {
            self.probes.not_before = at.now + PROBE_GAP;
            let probe = Operation::Probe { task: id, number, command, timeout };
            self.out.push(Action::Perform(probe));
        }
    }

    /// [`Operation::Probe`] was answered.
    pub(super) fn take_probe(
        &mut self,
        id: &TaskId,
        number: u64,
        result: Result<ProbeResult, Failure>,
        at: At,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let before = entry.health.health().map(|health| health.state);
        entry.probed(number, result, at);
        let now = entry.health.health().map(|health| health.state);
        if let (true, Some(state)) = (before != now, now) {
            self.out.push(Action::Tell { task: id.clone(), state });
        }
    }
}

impl Entry {
    /// Tells whether the container is to be probed: it runs, and is to go on running.
    fn is_probed(&self) -> bool {
        let runs = self.body.container == Container::Running && self.body.work.is_none();
        runs && !self.unwanted() && self.unhealthy.is_none()
    }

    fn probed(&mut self, number: u64, result: Result<ProbeResult, Failure>, at: At) {
        let verdict = self.health.ended(number, result, at.now, at.date);
        if self.body.container != Container::Running || self.unwanted() {
            return;
        }
        match verdict {
            Verdict::Passed if self.status.state < TaskState::Running => self.runs(at),
            Verdict::Nothing | Verdict::Passed => {}
            Verdict::Failed(text) => {
                // Why it does not run yet; one that runs has not failed.
                if self.status.state == TaskState::Starting {
                    let error = format!("health check: {text}");
                    self.advance_with_error(TaskState::Starting, at.date, &error);
                }
            }
            Verdict::Unhealthy(text) => {
                self.unhealthy.get_or_insert_with(|| format!("unhealthy container: {text}"));
            }
        }
    }
}

impl Agent {
    /// Returns the health of a task's container; none where it is not probed.
    #[must_use]
    pub fn health(&self, task: &TaskId) -> Option<&Health> {
        self.tasks.get(task)?.health.health()
    }
}
