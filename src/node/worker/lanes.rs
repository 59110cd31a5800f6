//! Operations on containers: one task's in order, different tasks' side by side.
//!
//! Knows what may run when and what ends what; knows nothing of containers.

use crate::{agent::Operation, types::TaskId};
use futures_util::future::{AbortHandle, AbortRegistration};
use std::collections::{BTreeMap, VecDeque};

/// How many operations run at once. Preparing and starting is bounded lower by the agent; what is
/// left is mostly waiting for grace periods, which costs a descriptor and some kilobytes each.
pub(super) const RUNNING_MAX: usize = 64;

/// One task's operations.
#[derive(Debug, Default)]
struct Lane {
    /// At most one of a kind: a repetition takes the place of what it repeats.
    waiting: VecDeque<Operation>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    number: u64,
    is_prepare: bool,
    abort: AbortHandle,
}

/// All tasks' operations. The inventory has a lane of its own, and each task's probes have.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Key, Lane>,
    /// Lanes in which something waits and nothing runs, in the order they became so.
    ready: VecDeque<Key>,
    running: usize,
    last: u64,
}

/// An operation that may run now.
#[derive(Debug)]
pub(super) struct Job {
    /// Names it for [`Lanes::finished`].
    pub(super) number: u64,
    pub(super) lane: Key,
    pub(super) operation: Operation,
    pub(super) registration: AbortRegistration,
}

/// Names a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The inventory's.
    Inventory,
    /// One task's container's.
    Task(TaskId),
    /// One task's probes': a container is stopped while it is probed.
    Probe(TaskId),
}

impl Key {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Prepare { task } | Operation::Start { task } => Self::Task(task.id.clone()),
            Operation::Stop { task, .. } | Operation::Remove { task } => Self::Task(task.clone()),
            Operation::Probe { task, .. } => Self::Probe(task.clone()),
            Operation::TakeInventory { .. } => Self::Inventory,
        }
    }
}

/// Tells whether one is the other once more, so that either may stand for both.
pub(super) fn repeats(one: &Operation, other: &Operation) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other) && Key::of(one) == Key::of(other)
}

impl Lanes {
    /// Takes an operation in. Stopping or removing ends preparations under way, and whatever still
    /// waits to be done before it.
    pub(super) fn push(&mut self, operation: Operation) {
        let key = Key::of(&operation);
        let lane = self.lanes.entry(key.clone()).or_default();
        if matches!(operation, Operation::Stop { .. } | Operation::Remove { .. }) {
            lane.waiting.retain(|other| {
                !matches!(other, Operation::Prepare { .. } | Operation::Start { .. })
            });
            if let Some(running) = lane.running.as_ref().filter(|running| running.is_prepare) {
                running.abort.abort();
            }
        }
        lane.waiting.retain(|other| !repeats(&operation, other));
        lane.waiting.push_back(operation);
        if lane.running.is_none() && !self.ready.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Returns the next operation that may run, as long as there is room.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key).expect("a lane that is ready exists");
        let operation = lane.waiting.pop_front().expect("in a lane that is ready something waits");
        assert!(lane.running.is_none(), "one operation of a task runs at a time");
        let (abort, registration) = AbortHandle::new_pair();
        self.last += 1;
        let is_prepare = matches!(operation, Operation::Prepare { .. });
        lane.running = Some(Running { number: self.last, is_prepare, abort });
        self.running += 1;
        Some(Job { number: self.last, lane: key, operation, registration })
    }

    /// An operation ended, or was ended.
    pub(super) fn finished(&mut self, key: &Key, number: u64) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.running.as_ref().is_none_or(|running| running.number != number) {
            return;
        }
        lane.running = None;
        self.running -= 1;
        if lane.waiting.is_empty() {
            self.lanes.remove(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// Ends everything that runs.
    pub(super) fn abort_all(&self) {
        for running in self.lanes.values().filter_map(|lane| lane.running.as_ref()) {
            running.abort.abort();
        }
    }
}
