//! What a leader remembers between looks at a service: how long things have waited or lasted.
//!
//! All of it can be lost: a new leader takes from the tasks' dates how long things have lasted, so
//! that delays and monitors continue where they were. The deadline of an update's task begins anew:
//! how far the task came without a leader is yet to be heard.

use crate::{
    cluster::State,
    types::{Date, Moment, ServiceId, Task, TaskId, TaskState, TaskStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cluster) enum Wait {
    /// The delay of a task that is held.
    Held,
    /// The end of a task that was told to stop.
    Leaving,
    /// That a task which an update made runs.
    Progress,
    /// That it goes on running.
    Monitor,
}

/// Since when something is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) struct Since {
    /// When this leader saw it first.
    seen: Moment,
    /// How long it had lasted by then, by the dates of who led before.
    before: Duration,
}

impl Since {
    pub(in crate::cluster) fn starting(now: Moment) -> Self {
        Self { seen: now, before: Duration::ZERO }
    }

    pub(in crate::cluster) fn elapsed(self, now: Moment) -> Duration {
        now.since(self.seen).saturating_add(self.before)
    }

    /// Returns when it will have lasted so long.
    pub(in crate::cluster) fn at(self, wait: Duration) -> Moment {
        self.seen + wait.saturating_sub(self.before)
    }
}

/// What a leader remembers.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Memory {
    /// What is waited for of tasks, from which date on, and since when.
    waits: BTreeMap<(TaskId, Wait), (Date, Since)>,
    /// How long tasks ran that ended.
    ran: BTreeMap<TaskId, Duration>,
    /// When to look at services again.
    wakes: BTreeMap<ServiceId, Moment>,
}

impl Memory {
    /// Returns since when something is waited for, which began at `date`. `now` and `today` are one
    /// instant on both clocks: what began before this leader saw it continues where it was.
    pub(in crate::cluster) fn since(
        &mut self,
        task: &TaskId,
        wait: Wait,
        date: Date,
        (now, today): (Moment, Date),
    ) -> Since {
        let first = || match wait {
            Wait::Progress => (date, Since::starting(now)),
            Wait::Held | Wait::Leaving | Wait::Monitor => {
                (date, Since { before: today.since(date), ..Since::starting(now) })
            }
        };
        let entry = self.waits.entry((task.clone(), wait)).or_insert_with(first);
        if entry.0 != date {
            *entry = first();
        }
        entry.1
    }

    /// Returns how long something is waited for by now; nothing where it is not.
    pub(in crate::cluster) fn waited(&self, task: &TaskId, wait: Wait, now: Moment) -> Duration {
        let since = self.waits.get(&(task.clone(), wait)).map(|(_, since)| *since);
        since.map_or(Duration::ZERO, |since| since.elapsed(now))
    }

    /// Has the wait begin anew when it is asked for again.
    pub(in crate::cluster) fn forget_wait(&mut self, task: &TaskId, wait: Wait) {
        self.waits.remove(&(task.clone(), wait));
    }

    pub(in crate::cluster) fn ran(&self, id: &TaskId) -> Option<Duration> {
        self.ran.get(id).copied()
    }

    /// Notes how long a task ran that is about to end. Both dates are of the node's clock.
    pub(in crate::cluster) fn note_end(&mut self, task: &Task, since: Date, status: &TaskStatus) {
        assert!(status.state > TaskState::Running, "only what ended has run for a time");
        self.ran.insert(task.id.clone(), status.date.since(since));
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
        self.wakes.remove(id);
    }

    /// Drops what is about tasks that are gone.
    pub(in crate::cluster) fn forget_gone(&mut self, state: &State) {
        self.waits.retain(|(id, _), _| state.task(id).is_some());
        self.ran.retain(|id, _| state.task(id).is_some());
    }
}
