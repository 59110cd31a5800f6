//! Sets of assignments: which are taken, and what they change.
//!
//! Only a set of the standing session, whose number this node drew, in its place in the order, may
//! change anything. Nothing else ever stops a container.

use super::{
    event::{Failure, Observed, Phase},
    step::Agent,
    task::{At, Body, Container, Entry, Work},
};
use crate::types::{Assignments, Desired, Sequence, Task, TaskId};
use std::collections::BTreeSet;

impl Agent {
    /// Takes a set of assignments, or ignores it.
    pub(super) fn assign(&mut self, set: Assignments, at: At) {
        if !self.may_take(&set) {
            return;
        }
        let before = self.sequence;
        self.sequence = set.sequence;
        self.set_taken = true;
        if (before.epoch, before.term) != (set.sequence.epoch, set.sequence.term) {
            self.sequence_dirty = true;
        }
        if let Some(images) = set.images {
            self.kept = Some(images);
        }
        let listed: BTreeSet<TaskId> = set.tasks.iter().map(|task| task.id.clone()).collect();
        for task in set.tasks {
            self.assign_task(task, at);
        }
        for id in &set.removed {
            if let Some(entry) = self.tasks.get_mut(id).filter(|_| !listed.contains(id)) {
                entry.drop_assignment();
            }
        }
        if set.complete {
            self.strays_judged = true;
            for entry in self.tasks.values_mut() {
                if !listed.contains(&entry.task.id) {
                    entry.drop_assignment();
                }
            }
        }
    }

    fn may_take(&self, set: &Assignments) -> bool {
        if self.leaving.is_some() || self.session.registered() != Some(set.session) {
            return false;
        }
        let (held, new) = (self.sequence, set.sequence);
        match (self.set_taken, set.complete) {
            // The numbers of another session say nothing about this one's.
            (false, true) => (new.epoch, new.term) >= (held.epoch, held.term),
            (true, true) => new > held,
            // A gap is cured by the manager, which sees in the heartbeat what was taken.
            (true, false) => new == Sequence { number: held.number + 1, ..held },
            (false, false) => false,
        }
    }

    fn assign_task(&mut self, task: Task, at: At) {
        let ended = !task.status.state.is_live();
        if let Some(entry) = self.tasks.get_mut(&task.id) {
            let desired = entry.task.desired;
            if entry.local.take().is_some() {
                // The manager took it over; what became of it since is news to it.
                entry.dirty = true;
                entry.reported = false;
            }
            entry.assigned = true;
            let mut task = task;
            let wanted = task.desired;
            task.desired = desired;
            // Version, reasons and dates are for the manager's tables; a write for them alone
            // would wear the disk.
            entry.task = task;
            entry.desire(wanted);
            if ended && entry.status.state.is_live() {
                // The manager counts it as ended (rejected by it, orphaned): so it must.
                entry.desire(Desired::Shutdown);
            }
            return;
        }
        let mut entry = Entry::new(task, at.step, at.now);
        let id = entry.task.id.clone();
        if !ended {
            entry.accept(at);
        }
        match self.strays.remove(&id) {
            Some(stray) if stray.body.work.is_some() => {
                // Already on its way out: what is left when that ended decides.
                entry.body = stray.body;
            }
            Some(stray) => entry.observed(Some(&stray.observed), at),
            None if self.inventoried => entry.observed(None, at),
            None => {}
        }
        self.tasks.insert(id, entry);
    }
}

/// A container of this node whose task is not among the assignments.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) observed: Observed,
    pub(super) body: Body,
}

impl Stray {
    pub(super) fn new(observed: Observed, at: At) -> Self {
        let container = match observed.phase {
            Phase::Created => Container::Created,
            Phase::Running { .. } => Container::Running,
            Phase::Exited { .. } => Container::Ended,
        };
        Self { observed, body: Body::new(container, at.step) }
    }

    /// The container ended.
    pub(super) fn exited(&mut self, phase: Phase, at: At) {
        self.observed.phase = phase;
        self.body.end(Work::Stop);
        self.body.succeed();
        self.body.learn(Container::Ended, at.step);
    }

    /// [`Operation::Stop`](super::Operation::Stop) failed.
    pub(super) fn stop_failed(&mut self, at: At) {
        if self.body.end(Work::Stop) {
            self.body.fail(at.now);
        }
    }

    /// [`Operation::Remove`](super::Operation::Remove) was answered. Tells whether nothing is left.
    pub(super) fn removed(&mut self, result: &Result<(), Failure>, at: At) -> bool {
        if !self.body.end(Work::Remove) {
            return false;
        }
        if result.is_err() {
            self.body.fail(at.now);
        }
        result.is_ok()
    }
}
