//! What a leader remembers between looks at a service: how long things have waited or lasted.
//!
//! All of it can be lost: a new leader waits anew.

use crate::{
    cluster::State,
    types::{Date, Moment, ServiceId, Task, TaskId, TaskState, TaskStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a leader remembers.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Memory {
    /// Since when held tasks are seen.
    held: BTreeMap<TaskId, Moment>,
    /// Since when tasks of jobs are seen on their way out.
    leaving: BTreeMap<TaskId, Moment>,
    /// How long tasks ran that ended.
    ran: BTreeMap<TaskId, Duration>,
    /// Which task each update waits for, and since when.
    progress: BTreeMap<ServiceId, (TaskId, Moment)>,
    /// Since when each update has nothing left to do.
    calm: BTreeMap<ServiceId, Moment>,
    /// When to look at services again.
    wakes: BTreeMap<ServiceId, Moment>,
}

impl Memory {
    pub(in crate::cluster) fn held_since(&mut self, id: &TaskId, now: Moment) -> Moment {
        *self.held.entry(id.clone()).or_insert(now)
    }

    pub(in crate::cluster) fn leaving_since(&mut self, id: &TaskId, now: Moment) -> Moment {
        *self.leaving.entry(id.clone()).or_insert(now)
    }

    pub(in crate::cluster) fn ran(&self, id: &TaskId) -> Option<Duration> {
        self.ran.get(id).copied()
    }

    /// Notes how long a task ran that is about to end. Both dates are of the node's clock.
    pub(in crate::cluster) fn note_end(&mut self, task: &Task, since: Date, status: &TaskStatus) {
        assert!(status.state > TaskState::Running, "only what ended has run for a time");
        self.ran.insert(task.id.clone(), status.date.since(since));
    }

    /// Returns since when the update of a service waits for this task.
    pub(in crate::cluster) fn progress_since(
        &mut self,
        service: &ServiceId,
        task: &TaskId,
        now: Moment,
    ) -> Moment {
        match self.progress.get(service) {
            Some((known, since)) if known == task => *since,
            _ => {
                self.progress.insert(service.clone(), (task.clone(), now));
                now
            }
        }
    }

    /// Returns since when the update of a service has nothing left to do.
    pub(in crate::cluster) fn calm_since(&mut self, service: &ServiceId, now: Moment) -> Moment {
        *self.calm.entry(service.clone()).or_insert(now)
    }

    pub(in crate::cluster) fn not_calm(&mut self, service: &ServiceId) {
        self.calm.remove(service);
    }

    pub(in crate::cluster) fn set_wake(&mut self, service: &ServiceId, at: Option<Moment>) {
        match at {
            Some(at) => self.wakes.insert(service.clone(), at),
            None => self.wakes.remove(service),
        };
    }

    pub(in crate::cluster) fn next_wake(&self) -> Option<Moment> {
        self.wakes.values().min().copied()
    }

    /// Moves the services whose time has come into `due`.
    pub(in crate::cluster) fn wake(&mut self, now: Moment, due: &mut BTreeSet<ServiceId>) {
        self.wakes.retain(|service, at| {
            if *at <= now {
                due.insert(service.clone());
            }
            *at > now
        });
    }

    pub(in crate::cluster) fn forget_service(&mut self, id: &ServiceId) {
        self.progress.remove(id);
        self.calm.remove(id);
        self.wakes.remove(id);
    }

    pub(in crate::cluster) fn forget_task(&mut self, id: &TaskId) {
        self.held.remove(id);
        self.leaving.remove(id);
        self.ran.remove(id);
    }

    /// Drops what is about tasks that are gone.
    pub(in crate::cluster) fn forget_gone(&mut self, state: &State) {
        self.held.retain(|id, _| state.task(id).is_some());
        self.leaving.retain(|id, _| state.task(id).is_some());
        self.ran.retain(|id, _| state.task(id).is_some());
    }
}
