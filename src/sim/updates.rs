//! What must hold of updates: no more places are under way at a time than the service allows, no
//! running task is stopped for one that is not ready to take over, and a failed update is rolled
//! back at most once.

use crate::{
    cluster::{Change, SlotKey, State},
    types::{
        Availability, Desired, Mode, NodeState, ReasonCode, Service, ServiceId, Task, TaskId,
        TaskState, UpdatePlace, UpdateState,
    },
};
use std::collections::BTreeSet;

/// How the tasks were before an entry.
pub(super) trait Before {
    /// Returns the state and the desired state of a task that was there.
    fn of(&self, task: &TaskId) -> Option<(TaskState, Desired)>;
}

/// Looks at what an entry did to the tasks. `is_prepared` tells whether a node holds the container
/// of a task; none where the node is gone.
pub(super) fn check_entry(
    state: &State,
    before: &impl Before,
    is_prepared: impl Fn(&Task) -> Option<bool>,
) {
    for task in state.tasks().filter(|task| !task.is_job()) {
        let Some(service) = state.service(&task.service) else { continue };
        match before.of(&task.id) {
            None => check_begun(state, service, before, task),
            Some((_, desired)) if desired.may_run() && task.desired == Desired::Shutdown => {
                check_stopped(state, before, task, &is_prepared);
            }
            Some(_) => {}
        }
    }
}

/// A place whose task runs is begun with only where there is room for one more.
fn check_begun(state: &State, service: &Service, before: &impl Before, made: &Task) {
    let old = made.predecessor.as_ref().and_then(|id| state.task(id));
    let takes_over = old.is_some_and(|old| {
        old.status.state == TaskState::Running
            && before.of(&old.id) == Some((TaskState::Running, Desired::Running))
    });
    if !takes_over || !is_fresh(service, made) || !made.desired.is_wanted() {
        return;
    }
    let Some(update) = &service.update else {
        panic!("{} is replaced without an update", made.full_name());
    };
    let back = update.state == UpdateState::RollbackStarted;
    let config = if back { &service.spec.rollback } else { &service.spec.update };
    let under_way = state.tasks_of_service(&service.id).filter(|task| {
        let place = UpdatePlace {
            slot: task.slot,
            node: task.node.clone().filter(|_| service.spec.mode == Mode::Global),
        };
        is_fresh(service, task)
            && task.desired.is_wanted()
            && task.status.state < TaskState::Running
            && !is_out_of_reach(state, service, task)
            && !is_stuck(state, before, task)
            && !update.failed_in(&place)
    });
    let under_way = u64::try_from(under_way.count()).expect("a usize fits");
    assert!(
        config.parallelism == 0 || under_way <= config.parallelism,
        "{under_way} places of {} under way at once, {} may be",
        service.spec.name,
        config.parallelism
    );
}

/// Tells whether nothing is waited for of a task: its node is lost, or takes no part for now.
fn is_out_of_reach(state: &State, service: &Service, task: &Task) -> bool {
    let Some(node) = task.node.as_ref().and_then(|id| state.node(id)) else { return false };
    let global = service.spec.mode == Mode::Global;
    node.status.state == NodeState::Down
        || node.spec.availability == Availability::Drain
        || (global && node.spec.availability != Availability::Active)
}

/// Tells whether no node took a task until this entry, and nothing else of its place lives: nothing
/// is lost where it is not waited for.
fn is_stuck(state: &State, before: &impl Before, task: &Task) -> bool {
    let refused = if task.status.state <= TaskState::Pending {
        !task.status.error.is_empty()
    } else {
        before.of(&task.id).is_some_and(|(state, _)| state <= TaskState::Pending)
    };
    let lives = |other: &Task| {
        other.id != task.id
            && SlotKey::of(other) == SlotKey::of(task)
            && other.status.state.is_given()
    };
    refused && !state.tasks_of_service(&task.service).any(lives)
}

fn is_fresh(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
        && task.reasons.iter().any(|reason| reason.code == ReasonCode::SpecChanged)
}

/// A task that lives is told to stop by an update only where its successor is ready.
fn check_stopped(
    state: &State,
    before: &impl Before,
    old: &Task,
    is_prepared: impl Fn(&Task) -> Option<bool>,
) {
    let node = old.node.as_ref().and_then(|id| state.node(id));
    let here = node.is_some_and(|node| {
        node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
    });
    if old.status.state != TaskState::Running || !here {
        return;
    }
    let successor = state.tasks_of_service(&old.service).find(|task| {
        let updates = task.reasons.iter().any(|reason| reason.code == ReasonCode::SpecChanged);
        let waits = task.overlap || task.desired == Desired::Ready;
        let known = before.of(&task.id).is_some();
        known && updates && waits && task.desired.is_wanted() && follows(task, old)
    });
    let Some(successor) = successor else { return };
    if successor.overlap {
        let runs = successor.status.state == TaskState::Running;
        assert!(runs, "{} stops before {} runs", old.full_name(), successor.id);
    } else if let Some(prepared) = is_prepared(successor) {
        assert!(prepared, "{} stops before {} is prepared", old.full_name(), successor.id);
    }
}

/// No place is filled again more often than its service allows, whoever led meanwhile.
pub(super) fn check_restarts(state: &State, known: impl Fn(&TaskId) -> bool) {
    let restarted = |task: &Task| {
        let is_restart = |code| matches!(code, ReasonCode::Restarted | ReasonCode::LocalRestart);
        task.reasons.iter().any(|reason| is_restart(reason.code))
    };
    // What a node made itself is checked there, and taken over as history. It bears the reasons of
    // what it replaces, and its own behind them.
    let by_leader =
        |task: &Task| task.reasons.last().is_some_and(|it| it.code == ReasonCode::Restarted);
    for made in state.tasks().filter(|task| !known(&task.id) && by_leader(task)) {
        let policy = &made.spec.restart;
        if policy.max_attempts == 0 || !policy.window.is_zero() {
            continue;
        }
        let same = |task: &&Task| match made.job_iteration {
            Some(_) => task.job_iteration == made.job_iteration,
            None => task.spec_version == made.spec_version,
        };
        let all = state.tasks_in_slot(&SlotKey::of(made)).filter(same);
        let restarts = all.filter(|task| restarted(task)).count();
        let restarts = u64::try_from(restarts).expect("a usize fits");
        let (most, name) = (policy.max_attempts, made.full_name());
        assert!(restarts <= most, "{name} is restarted {restarts} times, {most} are allowed");
    }
}

fn follows(task: &Task, old: &Task) -> bool {
    task.predecessor.as_ref() == Some(&old.id)
}

/// Notes which services went back by themselves; none does so twice before its user changes it.
pub(super) fn check_change(reverted: &mut BTreeSet<ServiceId>, change: &Change) {
    match change {
        Change::RevertService { id, .. } => {
            assert!(reverted.insert(id.clone()), "{id} is rolled back twice");
        }
        Change::UpdateService { id, .. } | Change::RollbackService { id, .. } => {
            reverted.remove(id);
        }
        _ => {}
    }
}
