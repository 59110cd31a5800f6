//! Tests of generic resources: what is claimed, shared with nobody, and handed on.

use super::super::tests::{Bench, node};
use crate::{
    cluster::{Change, enforce},
    types::{
        ContainerSpec, Date, Desired, GenericResource, NodeId, Task, TaskId, TaskSpec, TaskState,
        TaskStatus,
    },
};

fn with(n: u128, resources: &[&str]) -> crate::types::Node {
    let mut node = node(n);
    let entries: Vec<String> = resources.iter().map(|entry| (*entry).to_owned()).collect();
    node.description.generic = GenericResource::parse_list(&entries).expect("it is well formed");
    node
}

fn wants(kinds: &[(&str, u64)]) -> TaskSpec {
    let container = ContainerSpec { image: "bb:1".into(), ..ContainerSpec::default() };
    let generic = kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    TaskSpec { container, generic, ..TaskSpec::default() }
}

impl Bench {
    /// Schedules what waits, and tells what each of the tasks has by then.
    fn place(&mut self, tasks: &[TaskId]) -> Vec<String> {
        let decisions = self.schedule();
        self.apply(Change::Schedule { decisions });
        tasks.iter().map(|task| self.has(task)).collect()
    }

    fn has(&self, id: &TaskId) -> String {
        let task = self.state.task(id).expect("it is there");
        let list: Vec<String> = task.generic.iter().map(ToString::to_string).collect();
        match &task.node {
            Some(node) => {
                format!("{}: {}", node.as_str().trim_start_matches('0'), list.join(" "))
            }
            None => task.status.error.clone(),
        }
    }

    fn end(&mut self, task: &TaskId) {
        let status = TaskStatus { state: TaskState::Failed, ..TaskStatus::default() };
        self.apply(Change::ReportTasks { reports: vec![(task.clone(), status)] });
    }
}

#[test]
fn things_are_had_by_one_task_each_and_freed_with_it() {
    let mut bench = Bench::new(vec![with(1, &["gpu=a", "gpu=b", "gpu=c", "ssd=3"])]);
    let tasks = bench.tasks(wants(&[("gpu", 1), ("ssd", 1)]), 4, |_| {});
    assert_eq!(
        bench.place(&tasks),
        [
            "1: gpu=a ssd=1",
            "1: gpu=b ssd=1",
            "1: gpu=c ssd=1",
            "no suitable node (insufficient resources on 1 node)"
        ]
    );
    bench.end(&tasks[1]);
    assert_eq!(bench.place(&tasks[3..]), ["1: gpu=b ssd=1"]);
}

#[test]
fn what_a_node_does_not_have_it_cannot_give() {
    let mut bench = Bench::new(vec![with(1, &["gpu=a"]), with(2, &["ssd=1", "fpga=9"])]);
    let pair = bench.tasks(wants(&[("gpu", 2)]), 1, |_| {});
    let both = bench.tasks(wants(&[("gpu", 1), ("ssd", 1)]), 1, |_| {});
    let many = bench.tasks(wants(&[("fpga", 9)]), 2, |_| {});
    let refused = "no suitable node (insufficient resources on 2 nodes)";
    assert_eq!(bench.place(&pair), [refused]);
    assert_eq!(bench.place(&both), [refused]);
    assert_eq!(bench.place(&many), ["2: fpga=9", refused]);
}

#[test]
fn a_replacement_takes_over_what_its_predecessor_has() {
    let mut bench = Bench::new(vec![with(1, &["gpu=a", "gpu=b", "ssd=2"])]);
    let spec = wants(&[("gpu", 1), ("ssd", 2)]);
    let first = bench.tasks(spec.clone(), 1, |_| {});
    let other = bench.tasks(wants(&[("gpu", 1)]), 1, |_| {});
    assert_eq!(bench.place(&first), ["1: gpu=a ssd=2"]);
    assert_eq!(bench.place(&other), ["1: gpu=b"]);
    let held = bench.replacement(&first[0]);
    assert_eq!(bench.place(std::slice::from_ref(&held)), ["1: gpu=a ssd=2"]);
    // Neither the enforcer nor another task takes that for two uses.
    assert_eq!(enforce::enforce(&bench.state, Date::EPOCH), []);
    bench.end(&first[0]);
    let late = bench.tasks(wants(&[("gpu", 1)]), 1, |_| {});
    let refused = "no suitable node (insufficient resources on 1 node)";
    assert_eq!(bench.place(&late), [refused]);
    bench.end(&held);
    assert_eq!(bench.place(&late), ["1: gpu=a"]);
}

#[test]
fn who_lost_a_thing_is_turned_away() {
    let mut bench = Bench::new(vec![with(1, &["gpu=a", "gpu=b", "ssd=2"])]);
    let gpus = bench.tasks(wants(&[("gpu", 1)]), 2, |_| {});
    let disks = bench.tasks(wants(&[("ssd", 1)]), 2, |_| {});
    assert_eq!(bench.place(&gpus), ["1: gpu=a", "1: gpu=b"]);
    assert_eq!(bench.place(&disks), ["1: ssd=1", "1: ssd=1"]);
    assert_eq!(enforce::enforce(&bench.state, Date::EPOCH), []);
    let description = Box::new(with(1, &["gpu=b", "gpu=c", "ssd=1"]).description);
    let id = NodeId::from_bits(1);
    bench.apply(Change::DescribeNode { id, description, address: String::new() });
    let rejected = enforce::enforce(&bench.state, Date::EPOCH);
    let ids: Vec<&TaskId> = rejected.iter().map(|(task, _)| task).collect();
    assert_eq!(ids.len(), 2, "{rejected:?}");
    assert!(ids.contains(&&gpus[0]) && disks.iter().any(|task| ids.contains(&task)));
}

impl Bench {
    /// Holds another task for the end of this one.
    fn replacement(&mut self, of: &TaskId) -> TaskId {
        let old = self.state.task(of).expect("it is there").clone();
        let id = TaskId::from_bits(9_000);
        let task = Task {
            id: id.clone(),
            node: None,
            desired: Desired::Ready,
            predecessor: Some(of.clone()),
            generic: Vec::new(),
            status: TaskStatus { state: TaskState::Pending, ..TaskStatus::default() },
            ..old
        };
        self.apply(Change::ReplaceTasks { create: vec![task], desire: vec![] });
        id
    }
}
