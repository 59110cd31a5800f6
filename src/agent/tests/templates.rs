//! Templates: what the runtime gets to see, and what becomes of a task whose templates fail.

use super::*;
use crate::types::{NodeDescription, Platform};

fn described(hostname: &str) -> Event {
    let description = NodeDescription {
        hostname: hostname.into(),
        platform: Platform::normalized("linux", "arm", "v7"),
        ..NodeDescription::default()
    };
    Event::Described { description: Box::new(description), images: Vec::new() }
}

fn templated(n: u128, hostname: &str) -> Task {
    let mut task = task(n, Desired::Running);
    task.service_labels.insert("x".into(), "label".into());
    task.spec_mut().container.hostname = hostname.into();
    task.spec_mut().container.env =
        vec!["A={{.Node.Platform.Architecture}} {{index .Service.Labels \"x\"}}".into()];
    task
}

/// The task as the runtime is given it.
fn given(actions: &[Action]) -> Option<&Task> {
    actions.iter().find_map(|action| match action {
        Action::Perform(Operation::Prepare { task } | Operation::Start { task }) => Some(&**task),
        _ => None,
    })
}

#[test]
fn the_runtime_sees_what_templates_become() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.step(described("node-7"));
    let wanted = templated(1, "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}");
    let prepare = bench.assign(true, vec![wanted.clone()]);
    let start = bench.step(Event::Prepared { task: id(1), result: Ok(made()) });
    for actions in [&prepare, &start] {
        let container = &given(actions).expect("the runtime has work").spec.container;
        assert_eq!(container.hostname, "web-1-node-7");
        assert_eq!(container.env, ["A=armv7l label"]);
    }
    let (kept, _) = bench.agent.tasks().next().expect("one task");
    assert_eq!(kept.spec, wanted.spec, "the task itself keeps its templates");
}

#[test]
fn a_task_of_a_global_service_has_its_node_as_slot() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    let mut global = templated(1, "{{.Task.Slot}}");
    global.slot = 0;
    let node = global.node.clone().expect("it is assigned");
    let actions = bench.assign(true, vec![global]);
    assert_eq!(given(&actions).expect("work").spec.container.hostname, node.as_str());
}

#[test]
fn a_template_that_fails_rejects_the_task_by_the_field_s_name() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.step(described("not a name"));
    // As many as may be prepared at once, and one that can be.
    let mut tasks: Vec<Task> = (1..=4).map(|n| templated(n, "{{.Node.Hostname}}")).collect();
    tasks.push(task(5, Desired::Running));
    let actions = bench.assign(true, tasks);
    let error = "expanding hostname failed: hostname \"not a name\" is not valid: letters, \
                 digits, '-' and '.' are allowed";
    for n in 1..=4 {
        assert_eq!(bench.state(n), Some((TaskState::Rejected, error)));
    }
    assert_eq!(given(&actions).expect("the last has its turn").id, id(5));
    assert!(!show(&actions).contains("prepare 1\n"));
}

#[test]
fn what_needs_the_node_waits_until_it_is_known() {
    let (mut bench, _) = Bench::new(vec![StoredTask {
        task: templated(1, "{{.Node.Hostname}}"),
        ..stored(1, TaskState::Assigned)
    }]);
    let actions = bench.inventory(Vec::new());
    assert!(given(&actions).is_none(), "{actions:?}");
    let actions = bench.step(described("node-7"));
    assert_eq!(given(&actions).expect("work").spec.container.hostname, "node-7");
}
