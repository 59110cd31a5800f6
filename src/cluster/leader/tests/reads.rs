//! What is read from the leader.

use super::{World, replicated, world::id};
use crate::{
    cluster::{Query, Response},
    types::{FromWorker, ServiceId, Task, TaskState},
};

#[test]
fn reads_show_soft_states_and_held_images() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    let task = world.wanted()[0].clone();
    world.report(&task.id, TaskState::Preparing, "");
    let query = Query::Tasks { services: vec![task.service.clone()], nodes: vec![id(1)] };
    let Ok(Response::Tasks(seen)) = world.read(&query) else { panic!("no tasks") };
    assert_eq!((seen[0].status.state, seen[0].version), (TaskState::Preparing, task.version));
    assert_eq!(world.task(&task.id).status.state, TaskState::Assigned);
    // A later report of an earlier step changes nothing.
    world.report(&task.id, TaskState::Accepted, "");
    let Ok(Response::Tasks(seen)) = world.read(&query) else { panic!("no tasks") };
    assert_eq!(seen[0].status.state, TaskState::Preparing);
    let held = crate::types::HeldImage {
        name: "nginx:1.27".to_owned(),
        digest: format!("sha256:{}", "a".repeat(64)),
        platforms: vec![],
    };
    let session = world.workers[&id(1)].session;
    let description = Box::new(world.state.node(&id(1)).expect("a node").description.clone());
    let images = vec![held.clone()];
    world.say(1, FromWorker::Inventory { session, description, images });
    for image in ["nginx:1.27", "docker.io/library/nginx:1.27", held.digest.as_str()] {
        let query = Query::HeldImages { image: image.to_owned() };
        let answer = world.read(&query);
        assert_eq!(answer, Ok(Response::HeldImages(vec![(id(1), held.clone())])), "{image}");
    }
}

#[test]
fn a_name_brings_only_what_it_may_mean() {
    let mut world = World::new(2);
    world.create(replicated("web", 2));
    world.create(replicated("web2", 1));
    let named = |name: &str| -> [Vec<String>; 3] {
        let name = name.to_owned();
        let ask = |query: Query| world.read(&query).expect("an answer");
        let Response::Nodes(nodes) = ask(Query::NodesNamed(name.clone())) else {
            panic!("no nodes")
        };
        let Response::Services(services) = ask(Query::ServicesNamed(name.clone())) else {
            panic!("no services")
        };
        let Response::Tasks(tasks) = ask(Query::TasksNamed(name)) else { panic!("no tasks") };
        [
            nodes.iter().map(|node| node.id.to_string()).collect(),
            services.iter().map(|service| service.spec.name.clone()).collect(),
            tasks.iter().map(Task::short_name).collect(),
        ]
    };
    let none = Vec::<String>::new;
    let web = world.state.services().find(|it| it.spec.name == "web").expect("the service");
    let task = world.state.tasks().find(|it| it.short_name() == "web.2").expect("the task");
    assert_eq!(named("web"), [none(), vec!["web".to_owned()], none()]);
    assert_eq!(named(&web.id.as_str()[..20]), [none(), vec!["web".to_owned()], none()]);
    assert_eq!(named("web.2"), [none(), none(), vec!["web.2".to_owned()]]);
    assert_eq!(named(&task.full_name()), [none(), none(), vec!["web.2".to_owned()]]);
    assert_eq!(named(task.id.as_str()), [none(), none(), vec!["web.2".to_owned()]]);
    let node = world.state.node(&id(2)).expect("the node");
    for name in [node.id.as_str(), &node.description.hostname] {
        assert_eq!(named(name), [vec![node.id.to_string()], none(), none()], "{name}");
    }
    assert_eq!(named("nothing"), [none(), none(), none()]);
}

#[test]
fn tasks_are_those_of_the_services_and_nodes_that_are_named() {
    let mut world = World::new(2);
    for name in ["a", "b"] {
        world.create(replicated(name, 4));
    }
    let a = world.state.services().next().expect("a service").id.clone();
    let all: Vec<Task> = world.state.tasks().cloned().collect();
    for (services, nodes) in [
        (vec![], vec![]),
        (vec![a.clone()], vec![]),
        (vec![], vec![id(2)]),
        (vec![a.clone(), a.clone()], vec![id(1), id(1)]),
        (vec![ServiceId::from_bits(99)], vec![]),
    ] {
        let fits = |task: &&Task| {
            (services.is_empty() || services.contains(&task.service))
                && (nodes.is_empty() || nodes.contains(task.node.as_ref().expect("a node")))
        };
        let expected: Vec<Task> = all.iter().filter(fits).cloned().collect();
        assert!(expected.len() < all.len() || services.is_empty() && nodes.is_empty());
        let answer = world.read(&Query::Tasks { services: services.clone(), nodes: nodes.clone() });
        assert_eq!(answer, Ok(Response::Tasks(expected)), "{services:?} {nodes:?}");
    }
}
