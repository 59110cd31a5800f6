//! Updates: a changed spec replaces tasks, so many slots at a time.
//!
//! Where a slot's task runs, its replacement is prepared first, and only then takes its place; or it
//! runs beside it until it has proved itself, where the order is start-first. How far an update has
//! come is in the tasks themselves, and where it failed in the service: a new leader goes on where
//! the old one stopped.

use super::{
    Change, SlotKey, State,
    reconcile::{Making, Pass, Since, Slot, Stand},
    why::in_words,
};
use crate::types::{
    Desired, FailureAction, Node, ReasonCode, Service, SpecDifference, Task, TaskId, TaskState,
    UpdateConfig, UpdateOrder, UpdatePlace, UpdateState, UpdateStatus,
};

/// Tells whether an update was stopped and waits for the user.
pub(super) fn is_paused(service: &Service) -> bool {
    service.update.as_ref().is_some_and(|update| update.state.is_paused())
}

/// Tells whether the service is on its way to its previous spec.
pub(super) fn is_going_back(service: &Service) -> bool {
    service.update.as_ref().is_some_and(|update| update.state == UpdateState::RollbackStarted)
}

/// Returns how the tasks of the service are replaced at present.
pub(super) fn config(service: &Service) -> &UpdateConfig {
    if is_going_back(service) { &service.spec.rollback } else { &service.spec.update }
}

/// Tells whether the update made this task for the present spec.
pub(super) fn is_fresh(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
        && task.reasons.iter().any(|reason| reason.code == ReasonCode::SpecChanged)
}

/// Tells whether `task`, which is on `node` where it is on any, no longer runs what its service wants,
/// so that an update replaces it.
///
/// A changed constraint alone does not where the node meets the new ones, nor does room for more
/// tasks on a node, nor a changed login once the image is there.
#[must_use]
pub fn is_outdated(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if let Some(job) = service.job {
        // What a job's task runs changes only with the iteration.
        return task.job_iteration != Some(job.iteration);
    }
    if task.spec_version == service.spec_version {
        return false;
    }
    let wanted = &service.spec.task;
    let SpecDifference { credential, constraints, rest } = task.spec.difference(wanted);
    let has_image = task.desired.is_wanted()
        && (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
    let meets =
        || node.is_some_and(|node| wanted.placement.constraints.iter().all(|c| c.matches(node)));
    rest || task.endpoint != service.spec.endpoint
        || (credential && !has_image)
        || (constraints && !meets())
}

/// Tells the same of a task of the state.
pub(super) fn is_dirty(state: &State, service: &Service, task: &Task) -> bool {
    is_outdated(service, task, task.node.as_ref().and_then(|id| state.node(id)))
}

/// Returns the place that the update knows a slot by.
fn place(key: &SlotKey) -> UpdatePlace {
    UpdatePlace { slot: key.slot, node: key.node.clone() }
}

/// The slots of a service by how they stand towards its update.
struct Standing<'a> {
    /// Not begun.
    dirty: Vec<Slot<'a>>,
    /// Replaced, not running yet.
    progressing: u64,
    /// Replaced where nothing ran, by what no node takes: nothing comes of waiting for them.
    stuck: u64,
    /// Running since.
    watched: Vec<Since>,
}

impl<'a> Pass<'a> {
    /// Moves the update of a service forward, after each of its slots was looked at.
    pub(super) fn update(&mut self, service: &Service, stands: Vec<(Slot<'a>, Stand)>) {
        if is_paused(service) {
            return;
        }
        let config = *config(service);
        let moving = service.update.as_ref().filter(|update| update.state.is_moving());
        let mut status = match &service.update {
            Some(update) if update.state.is_moving() => update.clone(),
            _ => UpdateStatus::begun(UpdateState::Updating, self.date, "update in progress"),
        };
        // What failed in an update that is over stays as the restart policy leaves it.
        if let Some(update) = &service.update {
            status.failed.clone_from(&update.failed);
        }
        let mut blamed = None;
        let mut standing = Standing { dirty: vec![], progressing: 0, stuck: 0, watched: vec![] };
        for (slot, stand) in stands {
            let place = place(&slot.key);
            if status.failed_in(&place) {
                continue;
            }
            match stand {
                Stand::Steady => {}
                Stand::Dirty => standing.dirty.push(slot),
                Stand::Watched(since) => standing.watched.push(since),
                Stand::Failed(task) if moving.is_some() => {
                    blamed.get_or_insert_with(|| (task.clone(), String::new()));
                    status.failed.insert((place, task));
                }
                Stand::Failed(_) => {}
                // An update that is over blames nobody: what it left under way begins another one.
                Stand::Progressing { task, since }
                    if moving.is_some() && self.is_overdue(&config, since) =>
                {
                    let late = in_words(config.progress_deadline);
                    let why = format!(": it did not run within {late}");
                    blamed.get_or_insert_with(|| (task.clone(), why));
                    status.failed.insert((place, task));
                }
                Stand::Progressing { task, .. } if self.is_stuck(&slot, &task) => {
                    standing.stuck += 1;
                }
                Stand::Progressing { .. } => standing.progressing += 1,
            }
        }
        let under_way = standing.progressing + standing.stuck;
        let begins = !standing.dirty.is_empty() || under_way > 0;
        if moving.is_none() && !begins {
            return;
        }
        if status.total == 0 {
            let dirty = u64::try_from(standing.dirty.len()).unwrap_or(u64::MAX);
            let failed = u64::try_from(status.failed.len()).unwrap_or(u64::MAX);
            status.total = dirty + under_way + failed;
        }
        if let Some((task, why)) = blamed
            && self.stop(service, &config, &status, &task, &why)
        {
            return;
        }
        self.advance(service, &config, &mut status, standing);
        if service.update.as_ref() != Some(&status) {
            // Before what was decided about tasks: that a task failed is known by its still being
            // wanted, and must not be forgotten where an entry takes only a part of the changes.
            self.changes.insert(0, set_status(service, status));
        }
    }

    /// Tells whether a task that does not run yet should by now.
    fn is_overdue(&mut self, config: &UpdateConfig, since: Since) -> bool {
        if config.progress_deadline.is_zero() {
            return false;
        }
        let overdue = since.elapsed(self.now) >= config.progress_deadline;
        if !overdue {
            self.wake_at(since.at(config.progress_deadline));
        }
        overdue
    }

    /// Tells whether no node takes a task, and nothing else of its slot lives.
    fn is_stuck(&self, slot: &Slot<'_>, task: &TaskId) -> bool {
        let refused = |task: &Task| {
            self.observed(task) <= TaskState::Pending && !task.status.error.is_empty()
        };
        slot.all.iter().any(|it| it.id == *task && refused(it))
            && !slot.all.iter().any(|it| self.observed(it).is_given())
    }

    /// Ends the update where more failed than may. Nothing else is decided then: what becomes of
    /// the slots depends on where the service goes.
    fn stop(
        &mut self,
        service: &Service,
        config: &UpdateConfig,
        status: &UpdateStatus,
        task: &TaskId,
        why: &str,
    ) -> bool {
        let failed = u64::try_from(status.failed.len()).unwrap_or(u64::MAX);
        let continues = config.failure_action == FailureAction::Continue;
        if continues || !config.max_failure_ratio.is_exceeded(failed, status.total) {
            return false;
        }
        let cause = format!("due to failure or early termination of task {task}{why}");
        let back = status.state == UpdateState::RollbackStarted;
        let reverts = config.failure_action == FailureAction::Rollback && !back;
        let change = if reverts && service.previous_spec.is_some() {
            Change::RevertService {
                id: service.id.clone(),
                spec_version: service.spec_version,
                message: format!("update rolled back {cause}"),
            }
        } else {
            let (state, what) = match back {
                true => (UpdateState::RollbackPaused, "rollback"),
                false => (UpdateState::Paused, "update"),
            };
            let missing = if reverts { "; there is no previous spec to go back to" } else { "" };
            let message = format!("{what} paused {cause}{missing}");
            set_status(service, UpdateStatus { state, message, ..status.clone() })
        };
        self.changes.clear();
        self.changes.push(change);
        true
    }

    /// Begins with as many slots as may be under way at a time, or ends the update.
    fn advance(
        &mut self,
        service: &Service,
        config: &UpdateConfig,
        status: &mut UpdateStatus,
        mut standing: Standing<'a>,
    ) {
        let delayed =
            standing.watched.iter().filter(|since| since.elapsed(self.now) < config.delay);
        let delayed: Vec<Since> = delayed.copied().collect();
        let busy = standing.progressing + u64::try_from(delayed.len()).unwrap_or(u64::MAX);
        let places = if config.parallelism == 0 { u64::MAX } else { config.parallelism };
        let free = usize::try_from(places.saturating_sub(busy)).unwrap_or(usize::MAX);
        // What does not run has nothing to lose: it goes first.
        let runs = |slot: &Slot<'_>| {
            slot.running.is_some_and(|task| task.status.state == TaskState::Running)
        };
        standing.dirty.sort_by_key(|slot| (runs(slot), slot.key.clone()));
        for slot in standing.dirty.iter().take(free) {
            if self.is_full() {
                break;
            }
            self.replace_slot(service, config, slot);
        }
        if !standing.dirty.is_empty() {
            for since in delayed {
                self.wake_at(since.at(config.delay));
            }
            return;
        }
        let watched = standing.watched.iter();
        let watched = watched.filter(|since| since.elapsed(self.now) < config.monitor);
        let until = watched.map(|since| since.at(config.monitor)).max();
        match until {
            Some(at) => self.wake_at(at),
            None if standing.progressing + standing.stuck == 0 => self.complete(status),
            None => {}
        }
    }

    fn complete(&self, status: &mut UpdateStatus) {
        let (state, message) = if status.state == UpdateState::RollbackStarted {
            (UpdateState::RollbackCompleted, "rollback completed")
        } else {
            (UpdateState::Completed, "update completed")
        };
        status.state = state;
        message.clone_into(&mut status.message);
        status.completed = self.date;
    }

    fn replace_slot(&mut self, service: &Service, config: &UpdateConfig, slot: &Slot<'a>) {
        // A pair has just been told to give up its outdated replacement; the next look goes on.
        if slot.held.is_some() || slot.incoming.is_some() {
            return;
        }
        let reason = ReasonCode::SpecChanged;
        let Some(old) = slot.running else {
            let task = self.make(service, &slot.key, None, Making::at_once(reason));
            self.replace(vec![task], vec![]);
            return;
        };
        let (making, desire) = if old.status.state == TaskState::Running {
            match config.order {
                UpdateOrder::StopFirst => (Making::held_for(old, reason), vec![]),
                UpdateOrder::StartFirst => (Making::beside(old, reason), vec![]),
            }
        } else if old.status.state < TaskState::Assigned {
            (Making::at_once(reason), vec![(old, Desired::Shutdown)])
        } else {
            (Making::held_for(old, reason), vec![(old, Desired::Shutdown)])
        };
        let task = self.make(service, &slot.key, Some(old), making);
        self.replace(vec![task], desire);
    }
}

fn set_status(service: &Service, status: UpdateStatus) -> Change {
    Change::SetUpdateStatus {
        id: service.id.clone(),
        spec_version: service.spec_version,
        status: Some(status),
    }
}
