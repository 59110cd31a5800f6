//! Whether and when a task that ended is replaced.
//!
//! What this needs of the past is in the tasks themselves, so that a fail-over forgets nothing:
//! how many failed in a row before, and the tasks that history keeps.

use super::{SlotKey, State};
use crate::types::{Date, Reason, ReasonCode, RestartPolicy, Task, TaskState};
use std::time::Duration;

/// A run of so long is healthy, whatever the delay: crash loops are shorter.
const HEALTHY_RUN: Duration = Duration::from_secs(10);

/// Tells whether the policy lets `task`, which ended at `date`, be replaced.
pub(super) fn is_allowed(state: &State, task: &Task, date: Date) -> bool {
    let policy = &task.spec.restart;
    let condition = task.restarts_after(task.status.state);
    if !condition || policy.max_attempts == 0 {
        return condition;
    }
    let key = SlotKey::of(task);
    let is_restart = |reason: &Reason| {
        matches!(reason.code, ReasonCode::Restarted | ReasonCode::LocalRestart)
            && (policy.window.is_zero() || date.since(reason.date) < policy.window)
    };
    // A job's spec may change without its tasks being run anew.
    let same = |other: &Task| match task.job_iteration {
        Some(_) => other.job_iteration == task.job_iteration,
        None => other.spec_version == task.spec_version,
    };
    let restarts = state
        .tasks_in_slot(&key)
        .filter(|other| same(other) && other.reasons.iter().any(is_restart));
    u64::try_from(restarts.count()).unwrap_or(u64::MAX) < policy.max_attempts
}

/// Returns how many failures in a row the successor of `task` has behind it, and how long it is
/// held.
pub(super) fn delay(task: &Task, ran: Option<Duration>) -> (u32, Duration) {
    let policy = &task.spec.restart;
    let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    let healthy = ran.is_some_and(|ran| ran >= HEALTHY_RUN.max(task.delay));
    let failures = match (failed, healthy) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => task.failures.saturating_add(1),
    };
    (failures, doubled(policy, failures))
}

fn doubled(policy: &RestartPolicy, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    policy.delay.saturating_mul(factor).min(policy.max_delay.max(policy.delay))
}
