//! Which tasks are forgotten: history beyond the limit, and what was removed and has ended.

use super::{SlotKey, State};
use crate::types::{Desired, Service, TASK_HISTORY_LIMIT, Task, TaskId, TaskState};
use std::{cmp::Reverse, collections::BTreeMap};

/// Tells whether nothing of the task is left anywhere, or ever was.
fn is_over(task: &Task) -> bool {
    let never_given = task.status.state < TaskState::Assigned && !task.desired.is_wanted();
    never_given || !task.status.state.is_live()
}

/// Orders the tasks of one slot, oldest first. Tasks that one entry created follow one another in
/// their count of failures.
pub(super) fn age(task: &Task) -> (crate::types::Date, u32, &TaskId) {
    (task.created, task.failures, &task.id)
}

/// Returns the tasks of a service that nobody needs any more.
pub(super) fn history(state: &State, service: &Service) -> Vec<TaskId> {
    let limit = state.cluster().map_or(TASK_HISTORY_LIMIT, |c| c.spec.task_history_limit);
    let mut gone = Vec::new();
    let mut slots: BTreeMap<SlotKey, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks_of_service(&service.id) {
        if task.desired == Desired::Remove && is_over(task) {
            gone.push(task.id.clone());
        } else {
            slots.entry(SlotKey::of(task)).or_default().push(task);
        }
    }
    // What a job's tasks came to is counted while its iteration lasts, and history after.
    let iteration = service.job.map(|job| job.iteration);
    let past = |task: &Task| task.is_complete_job() && task.job_iteration != iteration;
    let Ok(limit) = usize::try_from(limit) else { return gone };
    // The attempts that the restart policy counts must stay countable.
    let attempts = usize::try_from(service.spec.task.restart.max_attempts).unwrap_or(usize::MAX);
    let limit = if attempts > 0 { limit.max(attempts.saturating_add(1)) } else { limit };
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|task| Reverse(age(task)));
        // The newest tells whether the slot is done; it stays whatever the limit.
        let beyond = tasks.iter().skip(limit.max(1));
        gone.extend(
            beyond
                .filter(|task| (!task.desired.is_wanted() || past(task)) && is_over(task))
                .map(|task| task.id.clone()),
        );
    }
    gone
}

/// Returns the tasks of removed services that have ended.
pub(super) fn leftovers(state: &State) -> Vec<TaskId> {
    let left = state.tasks().filter(|task| state.service(&task.service).is_none());
    left.filter(|task| is_over(task)).map(|task| task.id.clone()).collect()
}
