//! Updates: a changed spec replaces tasks one slot after another.
//!
//! Where a slot's task runs, its replacement is prepared first, and only then takes its place. A
//! replacement that fails, early or before it ever ran, stops the update.

use super::{
    Change, State,
    reconcile::{Making, Pass, Slot, Stand},
};
use crate::types::{
    Date, Desired, ReasonCode, Service, Task, TaskSpec, TaskState, UpdateState, UpdateStatus,
};
use std::{collections::BTreeSet, time::Duration};

/// How long a replaced task must run before its slot counts as replaced, as Swarm's.
pub(super) const MONITOR: Duration = Duration::from_secs(5);

/// How long a replacement may take until it runs: a large image over a slow link, and no more.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// Tells whether an update was stopped and waits for the user.
pub(super) fn is_paused(service: &Service) -> bool {
    service.update.as_ref().is_some_and(|update| update.state == UpdateState::Paused)
}

/// Tells whether the update made this task for the present spec.
pub(super) fn is_fresh(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
        && task.reasons.iter().any(|reason| reason.code == ReasonCode::SpecChanged)
}

/// Tells whether `task` is made from a spec that its service no longer has.
pub(super) fn is_dirty(state: &State, service: &Service, task: &Task) -> bool {
    // What a job's task runs changes only with the iteration.
    let same = service.job.is_some_and(|job| task.job_iteration == Some(job.iteration));
    if same || task.spec_version == service.spec_version {
        return false;
    }
    if task.endpoint != service.spec.endpoint {
        return true;
    }
    let prepared = (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
    let wanted = comparable(&service.spec.task, task, prepared);
    let actual = comparable(&task.spec, task, prepared);
    if wanted == actual {
        return false;
    }
    // Where only constraints differ, a task whose node meets them stays.
    let node = task.node.as_ref().and_then(|id| state.node(id));
    let constraints = &service.spec.task.placement.constraints;
    let meets = node.is_some_and(|node| constraints.iter().all(|c| c.matches(node)));
    let mut unconstrained = actual;
    unconstrained.placement.constraints.clone_from(constraints);
    !(meets && unconstrained == wanted)
}

/// Returns the spec without what does not make a difference to `task`.
fn comparable(spec: &TaskSpec, task: &Task, prepared: bool) -> TaskSpec {
    let mut spec = spec.clone();
    // The login was used when the image was pulled.
    if task.desired.is_wanted() && prepared {
        spec.credential = None;
    }
    // Both are what was known of the image when the spec was written; the image itself is named.
    spec.placement.platforms.clear();
    spec.pin = spec.pin.map(|mut pin| {
        pin.nodes.clear();
        pin
    });
    spec
}

impl<'a> Pass<'a> {
    /// Moves the update of a service forward, after each of its slots was looked at.
    pub(super) fn update(&mut self, service: &Service, stands: Vec<(Slot<'a>, Stand)>) {
        if is_paused(service) {
            return;
        }
        let id = &service.id;
        if let Some(task) = stands.iter().find_map(|(_, stand)| match stand {
            Stand::Failed(task) => Some(task),
            _ => None,
        }) {
            let text = format!("update paused due to failure or early termination of task {task}");
            self.set_update(service, UpdateState::Paused, text);
            return;
        }
        let progressing = stands.iter().find_map(|(_, stand)| match stand {
            Stand::Progressing(task) => Some(task),
            _ => None,
        });
        let updating =
            service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
        if let Some(task) = progressing {
            self.memory.not_calm(id);
            let since = self.memory.progress_since(id, task, self.now);
            if self.now.since(since) >= PROGRESS_DEADLINE {
                let text = format!(
                    "update paused due to failure or early termination of task {task}: it did not \
                     run within {} minutes",
                    PROGRESS_DEADLINE.as_secs() / 60
                );
                self.set_update(service, UpdateState::Paused, text);
            } else {
                self.wake_at(since + PROGRESS_DEADLINE);
                if !updating {
                    self.begin(service);
                }
            }
            return;
        }
        let dirty = stands.into_iter().filter(|(_, stand)| *stand == Stand::Dirty);
        // What does not run has nothing to lose: it goes first.
        let runs = |slot: &Slot<'_>| {
            slot.running.is_some_and(|task| task.status.state == TaskState::Running)
        };
        let next = dirty.map(|(slot, _)| slot).min_by_key(|slot| (runs(slot), slot.key.clone()));
        if let Some(slot) = next {
            self.memory.not_calm(id);
            if !updating {
                self.begin(service);
            }
            self.replace_slot(service, &slot);
        } else if updating {
            let calm = self.memory.calm_since(id, self.now);
            if self.now.since(calm) >= MONITOR {
                self.memory.not_calm(id);
                self.set_update(service, UpdateState::Completed, "update completed".to_owned());
            } else {
                self.wake_at(calm + MONITOR);
            }
        }
    }

    fn replace_slot(&mut self, service: &Service, slot: &Slot<'a>) {
        // A pair has just been told to give up its outdated replacement; the next look goes on.
        if slot.held.is_some() {
            return;
        }
        let reason = ReasonCode::SpecChanged;
        let Some(old) = slot.running else {
            let task = self.make(service, &slot.key, None, Making::at_once(reason));
            self.replace(vec![task], vec![]);
            return;
        };
        let (making, desire) = if old.status.state == TaskState::Running {
            (Making::held_for(old, reason), vec![])
        } else if old.status.state < TaskState::Assigned {
            (Making::at_once(reason), vec![(old, Desired::Shutdown)])
        } else {
            (Making::held_for(old, reason), vec![(old, Desired::Shutdown)])
        };
        let task = self.make(service, &slot.key, Some(old), making);
        self.replace(vec![task], desire);
    }

    fn begin(&mut self, service: &Service) {
        self.set_update(service, UpdateState::Updating, "update in progress".to_owned());
    }

    fn set_update(&mut self, service: &Service, state: UpdateState, message: String) {
        let started = service.update.as_ref().map_or(self.date, |update| update.started);
        let completed = match state {
            UpdateState::Completed => self.date,
            _ => Date::EPOCH,
        };
        let status = Some(UpdateStatus {
            state,
            started,
            completed,
            message,
            total: 0,
            failed: BTreeSet::new(),
        });
        self.changes.push(Change::SetUpdateStatus {
            id: service.id.clone(),
            spec_version: service.spec_version,
            status,
        });
    }
}
