//! What must hold of the cluster's state after every command; checked by the simulation.

use super::{SlotKey, State, state::check_slot};
use crate::types::{Desired, GenericResource, NodeId, REASONS_MAX, Task};
use std::collections::BTreeMap;

/// Checks the whole state.
///
/// # Errors
///
/// The first rule that is broken, in words.
pub fn check(state: &State) -> Result<(), String> {
    if !state.indices_agree() {
        return Err("the indices differ from the tables".to_owned());
    }
    let mut slots: BTreeMap<SlotKey, Vec<(Desired, &Task)>> = BTreeMap::new();
    for task in state.tasks() {
        check_task(state, task).map_err(|broken| format!("task {}: {broken}", task.id))?;
        if !task.is_complete_job() {
            slots.entry(SlotKey::of(task)).or_default().push((task.desired, task));
        }
    }
    for (key, tasks) in slots {
        check_slot(tasks.into_iter()).map_err(|broken| format!("{key:?} has {broken}"))?;
    }
    check_generic(state)?;
    for service in state.services() {
        let named = state.service_by_name(&service.spec.name);
        if named.map(|named| &named.id) != Some(&service.id) {
            return Err(format!("service {} is not found by its name", service.id));
        }
    }
    for node in state.nodes() {
        if state.is_removed(&node.id) {
            return Err(format!("node {} is a member and was removed", node.id));
        }
        if node.version > state.applied() {
            return Err(format!("node {} was written in the future", node.id));
        }
    }
    Ok(())
}

/// Checks that no two tasks may run with the same thing. One that is held may have been promised
/// what its predecessor still uses.
fn check_generic(state: &State) -> Result<(), String> {
    let mut users: BTreeMap<(&NodeId, &GenericResource), &Task> = BTreeMap::new();
    for task in state.tasks() {
        let uses = task.status.state.is_given() && task.desired.may_run();
        let Some(node) = task.node.as_ref().filter(|_| uses) else { continue };
        let named = |resource: &&GenericResource| matches!(resource, GenericResource::Named { .. });
        for resource in task.generic.iter().filter(named) {
            if let Some(other) = users.insert((node, resource), task) {
                return Err(format!("{resource} of {node} is {}'s and {}'s", other.id, task.id));
            }
        }
    }
    Ok(())
}

fn check_task(state: &State, task: &Task) -> Result<(), String> {
    match state.service(&task.service) {
        None if task.desired != Desired::Remove => {
            return Err(format!("service {} is gone, and it is {}", task.service, task.desired));
        }
        Some(service) if service.spec.mode.is_per_node() != (task.slot == 0) => {
            return Err(format!("slot {} does not fit the service's mode", task.slot));
        }
        Some(service) if service.job.is_some() != service.spec.mode.is_job() => {
            return Err("its service's mode does not fit its iteration".to_owned());
        }
        Some(service) if task.job_iteration > service.job.map(|job| job.iteration) => {
            return Err(format!("iteration {:?} was never begun", task.job_iteration));
        }
        _ => {}
    }
    if let Some(node) = &task.node
        && state.node(node).is_none()
        && !task.is_complete_job()
    {
        return Err(format!("node {node} is gone"));
    }
    let given = task.status.state.is_given();
    if given && task.node.is_none() {
        return Err(format!("{} without a node", task.status.state));
    }
    if task.reasons.len() > REASONS_MAX {
        return Err(format!("{} reasons", task.reasons.len()));
    }
    if task.version > state.applied() {
        return Err("written in the future".to_owned());
    }
    Ok(())
}
