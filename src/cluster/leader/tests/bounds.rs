//! What must never grow, repeat or rest too little.

use super::{World, replicated};
use crate::{
    cluster::{Class, Request},
    types::{Availability, Mode, TaskState},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_cluster_proposes_nothing() {
    let mut world = World::new(5);
    world.create(replicated("web", 10));
    let mut spec = replicated("agent", 1);
    spec.mode = Mode::Global;
    world.create(spec);
    world.run(30 * SECOND);
    let before = world.proposals;
    world.run(600 * SECOND);
    assert_eq!(world.proposals, before);
    assert_eq!(world.rejected, Vec::<String>::new());
}

#[test]
fn a_flood_of_requests_is_refused() {
    let mut world = World::new(1);
    world.commits = false;
    let mut refused = 0;
    for number in 0..400 {
        let request = world.request_id();
        let spec = Box::new(replicated(&format!("s{number}"), 0));
        let ticket = world.ask(Request::CreateService { request, spec });
        if let Some(Err(refusal)) = world.replies.get(&ticket) {
            assert_eq!(refusal.class, Class::Unavailable);
            refused += 1;
        }
    }
    assert_eq!(refused, 400 - 256 - 1);
    world.commits = true;
    world.commit();
    assert_eq!(world.state.services().count(), 257);
    assert_eq!(world.replies.len(), 400);
}

#[test]
fn large_requests_come_in_several_entries() {
    let mut world = World::new(1);
    world.commits = false;
    for number in 0..12 {
        let mut spec = replicated(&format!("s{number}"), 0);
        spec.labels.insert("large".to_owned(), "x".repeat(200 << 10));
        let request = world.request_id();
        world.ask(Request::CreateService { request, spec: Box::new(spec) });
    }
    // The first alone, then as many as make a megabyte, then the rest.
    for together in [1, 6, 5] {
        assert_eq!(world.pending.as_ref().map(Vec::len), Some(together));
        world.commit();
    }
    assert_eq!(world.state.services().count(), 12);
}

#[test]
fn many_tasks_come_in_several_entries() {
    let mut world = World::new(3);
    world.create(replicated("web", 3_000));
    assert_eq!(world.state.tasks().count(), 3_000);
    assert!(world.state.tasks().all(|task| task.status.state == TaskState::Assigned));
    assert!(world.proposals > 3);
}

#[test]
fn a_crash_and_its_replacement_are_one_entry() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.task.restart.delay = Duration::ZERO;
    world.create(spec);
    world.run(SECOND);
    let before = world.proposals;
    let task = world.wanted()[0].id.clone();
    world.report(&task, TaskState::Failed, "exit status 1");
    assert_eq!(world.proposals, before + 1);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].status.state, TaskState::Assigned);
}

#[test]
fn decisions_are_made_once() {
    let mut world = World::new(3);
    world.create(replicated("web", 6));
    world.run(SECOND);
    world.set_availability(1, Availability::Drain);
    world.cut(2);
    world.run(20 * SECOND);
    assert_eq!(world.rejected, Vec::<String>::new());
    assert_eq!(world.running_on(3), 6, "{}", world.tasks());
}
