//! Local restarts: what replaces a task that ended while no manager answers.
//!
//! Knows the restart policy and the node's own tasks. The manager adopts what was made here, or
//! has filled the slot meanwhile; either way its next complete set decides.

use super::{
    step::Agent,
    task::{At, Entry},
};
use crate::types::{
    Date, Desired, LocalSuccessor, Moment, ReasonCode, ServiceId, Task, TaskId, TaskState,
    TaskStatus, Version,
};
use std::{collections::BTreeMap, time::Duration};

/// How long there must be no session before the agent restarts tasks itself. A manager that fails
/// over needs 20 s; it should decide wherever it can, since it knows the other nodes.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(30);

/// How many ended tasks of its own making the agent keeps for a slot, for their logs and for the
/// manager's history: as many as the manager keeps by default.
pub const LOCAL_HISTORY_MAX: usize = 5;

/// A run at least this long counts as healthy, as does one longer than the delay before it.
const HEALTHY_RUN: Duration = Duration::from_secs(10);

/// How many restarts a slot remembers for `max_attempts`. Beyond it a bound is as good as none.
const ATTEMPTS_MAX: usize = 1_000;

/// A place that a chain of tasks fills one after another on this node.
pub(super) type Place = (ServiceId, u64);

/// The restarts made here, by place.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    made: BTreeMap<Place, Vec<Moment>>,
}

impl Restarts {
    /// Takes over what earlier runs of the agent made, as far as it is still on disk.
    pub(super) fn remember(tasks: &BTreeMap<TaskId, Entry>, now: Moment) -> Self {
        let mut restarts = Self::default();
        for entry in tasks.values().filter(|entry| entry.local.is_some()) {
            restarts.note(entry, now);
        }
        restarts
    }

    fn note(&mut self, entry: &Entry, now: Moment) {
        let policy = &entry.task.spec.restart;
        if policy.max_attempts == 0 {
            return;
        }
        let made = self.made.entry(place(&entry.task)).or_default();
        made.push(now);
        if made.len() > ATTEMPTS_MAX {
            made.remove(0);
        }
    }

    /// Forgets the places that no task is left of.
    pub(super) fn prune(&mut self, tasks: &BTreeMap<TaskId, Entry>) {
        if !self.made.is_empty() {
            self.made.retain(|known, _| tasks.values().any(|e| place(&e.task) == *known));
        }
    }

    /// Returns when the policy's attempts allow another restart, at the earliest; none where they
    /// never do.
    fn allowed_at(&self, task: &Task) -> Option<Moment> {
        let policy = &task.spec.restart;
        let none = Vec::new();
        let made = self.made.get(&place(task)).unwrap_or(&none);
        let max = usize::try_from(policy.max_attempts).unwrap_or(usize::MAX);
        if max == 0 || made.len() < max {
            return Some(Moment::ZERO);
        }
        if policy.window.is_zero() {
            return None;
        }
        // `max` of them must have left the window but for one.
        Some(made[made.len() - max] + policy.window)
    }
}

fn place(task: &Task) -> Place {
    (task.service.clone(), task.slot)
}

/// Returns the wait before a task is replaced whose chain failed so often in a row.
fn delay(task: &Task, failures: u32) -> Duration {
    let policy = &task.spec.restart;
    let doublings = failures.saturating_sub(1).min(31);
    policy.delay.saturating_mul(1 << doublings).min(policy.max_delay.max(policy.delay))
}

/// Returns how many tasks in a row failed, this one included, now that it ended.
fn failures(entry: &Entry) -> u32 {
    let ran = entry.ended.map_or(Duration::ZERO, |(_, ran)| ran);
    let before = entry.task.failures;
    let healthy = ran >= HEALTHY_RUN.max(delay(&entry.task, before).min(Duration::from_secs(60)));
    let lost = entry.status.state == TaskState::Failed && entry.status.exit_code.is_none();
    match entry.status.state {
        _ if healthy => 0,
        TaskState::Failed if lost => before,
        TaskState::Failed | TaskState::Rejected => before.saturating_add(1),
        _ => 0,
    }
}

/// Returns the id of the task that replaces `id` locally: both it and a repetition of the same
/// decision after a crash give the same one. FNV-1a with 128 bits, which never changes.
fn successor_id(id: &TaskId, failures: u32) -> TaskId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = id.as_str().bytes().chain(failures.to_be_bytes());
    TaskId::from_bits(bytes.fold(OFFSET, |hash, b| (hash ^ u128::from(b)).wrapping_mul(PRIME)))
}

impl Agent {
    /// Returns from when on local restarts are due; none while there is a session.
    fn offline_at(&self) -> Option<Moment> {
        if self.leaving.is_some() {
            return None;
        }
        self.session.lost_at().map(|lost| lost + self.options.offline_after)
    }

    /// Returns when `entry` is to be replaced, if it is and no manager comes before.
    fn replace_at(&self, entry: &Entry) -> Option<Moment> {
        let wanted = entry.assigned && entry.task.desired.may_run();
        let (ended, _) = entry.ended.filter(|_| wanted)?;
        let restarts = entry.task.restarts_after(entry.status.state);
        let by_itself = matches!(
            entry.status.state,
            TaskState::Complete | TaskState::Failed | TaskState::Rejected
        );
        if !restarts || !by_itself || self.is_filled(entry) {
            return None;
        }
        let allowed = self.restarts.allowed_at(&entry.task)?;
        let due = ended + delay(&entry.task, failures(entry));
        Some(due.max(allowed).max(self.offline_at()?))
    }

    /// Tells whether another task of the same place is there or coming.
    fn is_filled(&self, entry: &Entry) -> bool {
        self.tasks.values().any(|other| {
            // A place of a job is done once, whichever of its tasks did it.
            let done = other.status.state == TaskState::Complete
                && entry.task.is_job()
                && other.task.job_iteration == entry.task.job_iteration;
            other.task.id != entry.task.id
                && other.assigned
                && other.task.service == entry.task.service
                && other.task.slot == entry.task.slot
                && (done || other.task.desired.is_wanted())
                && (done || other.status.state.is_live() || other.task.created > entry.task.created)
        })
    }

    /// Returns when a held replacement may start without a manager's word: once its predecessor,
    /// which must be of this node, has ended and its delay has passed.
    fn release_at(&self, entry: &Entry) -> Option<Moment> {
        if !entry.assigned || entry.task.desired != Desired::Ready || entry.unwanted() {
            return None;
        }
        let predecessor = self.tasks.get(entry.task.predecessor.as_ref()?)?;
        let (ended, _) = predecessor.ended?;
        Some((ended + entry.task.delay).max(self.offline_at()?))
    }

    pub(super) fn local_deadline(&self) -> Option<Moment> {
        self.offline_at()?;
        let due = |entry: &Entry| self.replace_at(entry).or_else(|| self.release_at(entry));
        self.tasks.values().filter_map(due).min()
    }

    /// Makes the local successors that are due, and lets held replacements start.
    pub(super) fn restart_locally(&mut self, at: At) {
        if self.offline_at().is_none_or(|offline| offline > at.now) {
            return;
        }
        let is_due = |due: Option<Moment>| due.is_some_and(|due| due <= at.now);
        let release: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|entry| is_due(self.release_at(entry)))
            .map(|entry| entry.task.id.clone())
            .collect();
        for id in release {
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.desire(entry.task.goal());
            }
        }
        let candidates: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|entry| is_due(self.replace_at(entry)))
            .map(|entry| entry.task.id.clone())
            .collect();
        for id in candidates {
            // An earlier one of this very pass may have filled the place.
            if is_due(self.tasks.get(&id).and_then(|entry| self.replace_at(entry))) {
                self.replace(&id, at);
            }
        }
    }

    fn replace(&mut self, id: &TaskId, at: At) {
        let Some(old) = self.tasks.get_mut(id) else { return };
        let task = succeed(old, at.date);
        old.desire(Desired::Shutdown);
        if self.tasks.contains_key(&task.id) {
            return;
        }
        let mut entry = Entry::new(task.clone(), at.step, at.now);
        entry.local = Some(LocalSuccessor { task, made: at.date });
        entry.accept(at);
        if self.inventoried {
            entry.observed(None, at);
        }
        self.restarts.note(&entry, at.now);
        let place = place(&entry.task);
        self.tasks.insert(entry.task.id.clone(), entry);
        let fresh = self.draw();
        self.session.renew(fresh);
        self.trim_local_history(&place);
    }

    /// Lets go of the oldest tasks of the agent's own making beyond the history's limit.
    fn trim_local_history(&mut self, of: &Place) {
        let mut ended: Vec<(Moment, TaskId)> = self
            .tasks
            .values()
            .filter(|e| e.local.is_some() && e.assigned && place(&e.task) == *of)
            .filter_map(|e| e.ended.map(|(ended, _)| (ended, e.task.id.clone())))
            .collect();
        ended.sort();
        let excess = ended.len().saturating_sub(LOCAL_HISTORY_MAX);
        for (_, id) in ended.into_iter().take(excess) {
            let Some(entry) = self.tasks.get_mut(&id) else { continue };
            entry.drop_assignment();
            let before = entry.task.predecessor.clone();
            // The manager takes over what follows a task that it knows.
            let follows = |entry: &&mut Entry| entry.task.predecessor.as_ref() == Some(&id);
            for next in self.tasks.values_mut().filter(follows) {
                next.set_predecessor(before.clone());
            }
        }
    }

    /// Returns what the agent made itself, as it is now, oldest first.
    pub(super) fn successors(&self) -> Vec<LocalSuccessor> {
        let local = self.tasks.values().filter(|entry| entry.assigned);
        let mut local: Vec<LocalSuccessor> = local
            .filter_map(|entry| {
                let made = entry.local.as_ref()?.made;
                let task = Task { status: entry.status.clone(), ..entry.task.clone() };
                Some(LocalSuccessor { task, made })
            })
            .collect();
        local.sort_by(|a, b| (a.made, &a.task.id).cmp(&(b.made, &b.task.id)));
        local
    }
}

/// Returns the task that takes the ended one's place.
fn succeed(old: &Entry, date: Date) -> Task {
    let failures = failures(old);
    let mut task = Task {
        id: successor_id(&old.task.id, failures),
        version: Version::ZERO,
        created: date,
        updated: date,
        status: TaskStatus {
            state: TaskState::Assigned,
            date,
            message: "restarted by the node without a manager".into(),
            ..TaskStatus::default()
        },
        desired: old.task.goal(),
        predecessor: Some(old.task.id.clone()),
        delay: Duration::ZERO,
        failures,
        ..old.task.clone()
    };
    task.add_reason(ReasonCode::LocalRestart, date);
    task
}
