//! The constraint enforcer: which running tasks their nodes may no longer keep.
//!
//! Swarm's rule: only on ACTIVE nodes; against the service's present constraints and the node's
//! total of CPU, memory and generic resources. A changed service spec is the updater's affair, not
//! ours: a task that waits for its turn, or for a paused update, is judged by its own constraints.

use super::{State, schedule::GenericLeft, update};
use crate::types::{
    Availability, Date, Node, NodeState, Resources, Task, TaskId, TaskState, TaskStatus,
};

/// What a task that is turned away says last, in Swarm's words.
const MESSAGE: &str = "task rejected by constraint enforcer";

/// Why, in Swarm's words.
const ERROR: &str = "assigned node no longer meets constraints";

/// Tells whether a task ended like this because it was turned away, and not by a fault of its own.
pub(super) fn turned_away(status: &TaskStatus) -> bool {
    status.state == TaskState::Rejected && status.message == MESSAGE
}

/// Returns REJECTED for every live task that no longer fits its node.
#[must_use]
pub fn enforce(state: &State, date: Date) -> Vec<(TaskId, TaskStatus)> {
    let active = state.nodes().filter(|node| {
        node.spec.availability == Availability::Active && node.status.state != NodeState::Down
    });
    active.flat_map(|node| enforce_node(state, node, date)).collect()
}

fn enforce_node(state: &State, node: &Node, date: Date) -> Vec<(TaskId, TaskStatus)> {
    // A node that never registered has said nothing of its resources yet.
    let described = node.description.resources != Resources::default();
    let mut left = node.description.resources;
    let mut generic = GenericLeft::of(&node.description.generic);
    let mut rejected = Vec::new();
    let is_live = |task: &&Task| {
        task.status.state.is_given()
            && task.desired.is_wanted()
            && task.node.as_ref() == Some(&node.id)
    };
    let mut live: Vec<&Task> = state.tasks_on_node(&node.id).filter(is_live).collect();
    // The longest there stays.
    live.sort_by_key(|task| (task.created, &task.id));
    for task in &live {
        // A held replacement uses nothing before its predecessor stopped.
        let before = task.predecessor.as_ref().and_then(|id| state.task(id)).filter(is_live);
        let meets = state.service(&task.service).is_none_or(|service| {
            let outdated = update::is_outdated(service, task, Some(node));
            let spec = if outdated { &*task.spec } else { &service.spec.task };
            spec.placement.constraints.iter().all(|constraint| constraint.matches(node))
        });
        let wanted = task.spec.reservations;
        let held = before.map(|before| before.spec.reservations).unwrap_or_default();
        let more = |wanted: u64, held: u64| wanted.saturating_sub(held);
        let cpus = left.nano_cpus.checked_sub(more(wanted.nano_cpus, held.nano_cpus));
        let memory = left.memory_bytes.checked_sub(more(wanted.memory_bytes, held.memory_bytes));
        let has = meets && generic.take(task, before);
        match (has, cpus, memory) {
            (true, Some(nano_cpus), Some(memory_bytes)) => {
                left = Resources { nano_cpus, memory_bytes };
            }
            _ if meets && !described => {}
            _ => rejected.push((task.id.clone(), rejection(task, date))),
        }
    }
    rejected
}

fn rejection(task: &Task, date: Date) -> TaskStatus {
    TaskStatus {
        state: TaskState::Rejected,
        date,
        message: MESSAGE.to_owned(),
        error: ERROR.to_owned(),
        ..task.status.clone()
    }
}
