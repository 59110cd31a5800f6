//! Which container a name means: one of this node, or, on a manager, one of any node.
//!
//! A container's id is its task's, so a task's id, the beginning of it, its full name
//! (`web.1.<id>`) and its slot's (`web.1`) all work.

use super::super::{
    error::{invalid, not_found},
    local::{Container, ContainerState, LocalNode, Place},
};
use crate::{
    cluster::{Class, Refusal},
    types::{Task, TaskId},
};
use std::collections::BTreeMap;

/// A container, and where it is.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) container: Container,
    /// Its task as the cluster knows it; none where this node is no manager.
    pub(super) task: Option<Task>,
}

impl Target {
    /// Refuses, in Docker's words, what does not run.
    pub(super) fn must_run(&self) -> Result<(), Refusal> {
        if self.container.state == ContainerState::Running {
            return Ok(());
        }
        let text = format!("container {} is not running", self.container.id);
        Err(Refusal::new(Class::Conflict, text))
    }
}

/// Finds a container by id, name or the beginning of its id.
pub(super) async fn find(node: &dyn LocalNode, name: &str) -> Result<Target, Refusal> {
    find_among(node, name, node.containers().await).await
}

/// Finds it with the id of its image, which only its own node knows.
pub(super) async fn find_with_image(node: &dyn LocalNode, name: &str) -> Result<Target, Refusal> {
    find_among(node, name, node.containers_with_images().await).await
}

/// Finds a container among this node's and those of the cluster.
async fn find_among(
    node: &dyn LocalNode,
    name: &str,
    local: Result<Vec<Container>, Refusal>,
) -> Result<Target, Refusal> {
    let name = name.trim_start_matches('/');
    let tasks = tasks(node, name).await?.into_iter();
    let mut tasks: BTreeMap<TaskId, Task> = tasks.map(|task| (task.id.clone(), task)).collect();
    let here = |container: Container| Target {
        place: Place { task: container.task.clone(), node: None },
        task: tasks.remove(&container.task),
        container,
    };
    let mut all: Vec<Target> = Vec::new();
    let mut failure = None;
    match local {
        Ok(containers) => all.extend(containers.into_iter().map(here)),
        Err(refusal) => failure = Some(refusal),
    }
    all.extend(tasks.into_values().filter_map(of_task));
    match (pick(name, all), failure) {
        // What could not be listed may hold it.
        (Err(refusal), Some(failure)) if refusal.class == Class::NotFound => Err(failure),
        (result, _) => result,
    }
}

/// Lists the tasks of the cluster that the name may mean; none where this node is no manager.
async fn tasks(node: &dyn LocalNode, name: &str) -> Result<Vec<Task>, Refusal> {
    match super::tasks_named(node, name).await {
        // A worker, or a manager that has lost the others: this node's own are still within reach.
        Err(refusal) if refusal.class == Class::Unavailable => Ok(Vec::new()),
        answer => answer,
    }
}

/// None where it has no node yet.
fn of_task(task: Task) -> Option<Target> {
    let place = Place { task: task.id.clone(), node: Some(task.node.clone()?) };
    let container = Container::of_task(&task, &task.status);
    Some(Target { place, container, task: Some(task) })
}

fn pick(name: &str, mut all: Vec<Target>) -> Result<Target, Refusal> {
    let exact = |target: &Target| target.container.id == name || target.container.name == name;
    if let Some(at) = all.iter().position(exact) {
        return Ok(all.swap_remove(at));
    }
    // Of a slot, the task that runs; else the newest.
    let in_slot = |target: &Target| {
        let rest = target.container.name.strip_prefix(name);
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(target.container.id.as_str())
    };
    let rank = |target: &Target| {
        let container = &target.container;
        (container.state == ContainerState::Running, container.created)
    };
    let best = (0..all.len()).filter(|at| in_slot(&all[*at])).max_by_key(|at| rank(&all[*at]));
    if let Some(at) = best {
        return Ok(all.swap_remove(at));
    }
    let begins = |target: &Target| !name.is_empty() && target.container.id.starts_with(name);
    let found: Vec<usize> = (0..all.len()).filter(|at| begins(&all[*at])).collect();
    match found.as_slice() {
        [] => Err(not_found(format!("No such container: {name}"))),
        [only] => Ok(all.swap_remove(*only)),
        several => {
            let ids: Vec<&str> = several.iter().map(|at| all[*at].container.id.as_str()).collect();
            Err(invalid(format!(
                "container {name} is ambiguous ({} matches found: {}); use one of these ids",
                ids.len(),
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Date, NodeId, TaskState, TaskStatus};

    fn target(bits: u128, state: TaskState, created: u64) -> Target {
        let task = Task {
            created: Date::from_unix_seconds(created),
            node: Some(NodeId::from_bits(7)),
            status: TaskStatus { state, ..TaskStatus::default() },
            ..Task::sample(bits)
        };
        of_task(task).unwrap()
    }

    #[test]
    fn containers_are_found_by_every_name() {
        let all = || {
            vec![
                target(1, TaskState::Failed, 30),
                target(2, TaskState::Running, 20),
                target(3, TaskState::Failed, 10),
            ]
        };
        let ids: Vec<String> = all().into_iter().map(|t| t.container.id).collect();
        let found = |name: &str| pick(name, all()).map(|target| target.container.id);
        assert_eq!(found(&ids[0]), Ok(ids[0].clone()));
        assert_eq!(found(&format!("web.1.{}", ids[2])), Ok(ids[2].clone()));
        assert_eq!(found("web.1"), Ok(ids[1].clone()), "the one that runs");
        assert_eq!(found(&ids[1][..ids[1].len() - 1]).unwrap_err().class, Class::Invalid);
        for nothing in ["", "web", "web.", "web.2", "zzz", "eb.1"] {
            assert_eq!(found(nothing).unwrap_err().class, Class::NotFound, "{nothing}");
        }
        let mut ended = all();
        ended.remove(1);
        assert_eq!(pick("web.1", ended).unwrap().container.id, ids[0], "the newest");
        assert!(all()[0].must_run().is_err() && all()[1].must_run().is_ok());
    }
}
