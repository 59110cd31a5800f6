//! Operations on containers: one task's in order, different tasks' side by side.
//!
//! Knows what may run when and what ends what; knows nothing of containers.

use crate::{
    agent::{Operation, PREPARES_MAX, PROBES_MAX, STARTS_MAX},
    types::TaskId,
};
use futures_util::future::{AbortHandle, AbortRegistration};
use std::collections::{BTreeMap, VecDeque};

/// How many operations run at once. Preparing, starting and probing is bounded lower by the agent;
/// what is left is mostly waiting for grace periods, which costs a descriptor and some kilobytes
/// each.
pub(super) const RUNNING_MAX: usize = 64;

/// How many of them are stops at most. A grace period may be minutes: so many containers that take
/// theirs leave room for all that the agent begins at once besides.
pub(super) const STOPS_MAX: usize = RUNNING_MAX - PREPARES_MAX - STARTS_MAX - PROBES_MAX;

/// One task's operations.
#[derive(Debug, Default)]
struct Lane {
    /// At most one of a kind: a repetition takes the place of what it repeats.
    waiting: VecDeque<Operation>,
    running: Option<Running>,
}

impl Lane {
    /// Tells whether what it does next is a stop.
    fn is_to_stop(&self) -> bool {
        self.waiting.front().is_some_and(|next| Kind::of(next) == Kind::Stop)
    }
}

#[derive(Debug)]
struct Running {
    number: u64,
    kind: Kind,
    abort: AbortHandle,
}

/// What matters of an operation while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A stop or a removal ends it.
    Prepare,
    /// Of these only [`STOPS_MAX`] run.
    Stop,
    Other,
}

impl Kind {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Prepare { .. } => Self::Prepare,
            Operation::Stop { .. } => Self::Stop,
            _ => Self::Other,
        }
    }
}

/// All tasks' operations. The inventory has a lane of its own, and each task's probes have.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Key, Lane>,
    /// Lanes in which something waits and nothing runs, in the order they became so.
    ready: VecDeque<Key>,
    running: usize,
    /// How many of those are stops.
    stops: usize,
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
            if let Some(running) = lane.running.as_ref().filter(|it| it.kind == Kind::Prepare) {
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
        let may_run = |key: &Key| {
            self.stops < STOPS_MAX || !self.lanes.get(key).is_some_and(Lane::is_to_stop)
        };
        let at = self.ready.iter().position(may_run)?;
        let key = self.ready.remove(at)?;
        let lane = self.lanes.get_mut(&key).expect("a lane that is ready exists");
        let operation = lane.waiting.pop_front().expect("in a lane that is ready something waits");
        assert!(lane.running.is_none(), "one operation of a task runs at a time");
        let (abort, registration) = AbortHandle::new_pair();
        self.last += 1;
        let kind = Kind::of(&operation);
        lane.running = Some(Running { number: self.last, kind, abort });
        self.running += 1;
        self.stops += usize::from(kind == Kind::Stop);
        Some(Job { number: self.last, lane: key, operation, registration })
    }

    /// An operation ended, or was ended.
    pub(super) fn finished(&mut self, key: &Key, number: u64) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(ended) = lane.running.take_if(|running| running.number == number) else { return };
        self.running -= 1;
        self.stops -= usize::from(ended.kind == Kind::Stop);
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
