//! What nodes made themselves while they had no manager: in whatever order the manager learns of
//! it, what runs well is kept.

use super::{World, replicated, world::id};
use crate::types::{
    Date, Desired, LocalSuccessor, Reason, ReasonCode, Task, TaskId, TaskState, TaskStatus,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn status(state: TaskState, date: Date) -> TaskStatus {
    let exit_code = (state == TaskState::Failed).then_some(137);
    TaskStatus { state, date, exit_code, ..TaskStatus::default() }
}

/// A cluster of workers; the only task runs on the first.
fn one_task(workers: u128) -> (World, Task) {
    let mut world = World::new(workers);
    for number in 2..=workers {
        world.set_availability(number, crate::types::Availability::Pause);
    }
    let mut spec = replicated("web", 1);
    spec.task.restart.delay = Duration::from_millis(100);
    world.create(spec);
    world.run(SECOND);
    let old = world.wanted()[0].clone();
    assert_eq!(old.node, Some(id(1)));
    (world, old)
}

/// The node replaces `old`, which ended; returns what it would register with.
fn restart(world: &mut World, old: &Task, number: u128, state: TaskState) -> LocalSuccessor {
    let date = world.date;
    let mut task = old.clone();
    task.id = TaskId::from_bits(number);
    task.predecessor = Some(old.id.clone());
    task.failures += 1;
    task.reasons = vec![Reason { code: ReasonCode::LocalRestart, date }];
    task.desired = Desired::Running;
    task.status = status(state, date);
    let worker = world.workers.get_mut(&id(1)).expect("a worker");
    let ended = (old.clone(), status(TaskState::Failed, date));
    worker.tasks.insert(old.id.clone(), ended);
    worker.tasks.insert(task.id.clone(), (task.clone(), task.status.clone()));
    LocalSuccessor { task, made: date }
}

fn register(world: &mut World, successors: Vec<LocalSuccessor>) {
    let description = world.state.node(&id(1)).expect("a node").description.clone();
    world.link_as(1, description, successors);
}

/// The node was never told to stop the task, which runs in the only slot.
fn assert_kept(world: &mut World, kept: &TaskId) {
    world.run(10 * SECOND);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1, "{}", world.tasks());
    assert_eq!((&wanted[0].id, wanted[0].status.state), (kept, TaskState::Running));
    let held = &world.workers[&id(1)].tasks;
    let (task, status) = held.get(kept).expect("the node holds it");
    assert_eq!((task.desired, status.state), (Desired::Running, TaskState::Running));
    let live = held.values().filter(|(_, status)| status.state.is_live());
    assert_eq!(live.count(), 1, "{held:?}");
}

#[test]
fn a_manager_that_comes_back_takes_over_what_runs() {
    // What the node says of the predecessor may be old, or left out.
    for said in [Some(TaskState::Failed), Some(TaskState::Running), None] {
        let (mut world, old) = one_task(1);
        world.cut(1);
        let made = restart(&mut world, &old, 77, TaskState::Running);
        let held = &mut world.workers.get_mut(&id(1)).expect("a worker").tasks;
        match said {
            Some(state) => held.get_mut(&old.id).expect("the task").1.state = state,
            None => drop(held.remove(&old.id)),
        }
        world.fail_over(2);
        world.advance(SECOND);
        register(&mut world, vec![made.clone()]);
        let held = &mut world.workers.get_mut(&id(1)).expect("a worker").tasks;
        if let Some((_, known)) = held.get_mut(&old.id) {
            known.state = TaskState::Failed;
        }
        assert_kept(&mut world, &made.task.id);
        assert_eq!(world.task(&old.id).status.state, TaskState::Failed);
    }
}

#[test]
fn what_is_still_being_started_is_taken_over_as_well() {
    for state in [TaskState::Accepted, TaskState::Ready, TaskState::Starting] {
        let (mut world, old) = one_task(1);
        world.cut(1);
        let made = restart(&mut world, &old, 77, state);
        world.fail_over(2);
        register(&mut world, vec![made.clone()]);
        world.report(&made.task.id, TaskState::Running, "");
        assert_kept(&mut world, &made.task.id);
    }
}

#[test]
fn a_manager_that_ends_amid_taking_over_begins_again() {
    for committed in ["before", "after", "never"] {
        let (mut world, old) = one_task(1);
        world.cut(1);
        let made = restart(&mut world, &old, 77, TaskState::Running);
        world.fail_over(2);
        world.commits = false;
        register(&mut world, vec![made.clone()]);
        let entry = world.pending.take().expect("a proposal");
        world.cut(1);
        world.commits = true;
        if committed == "before" {
            world.commit_entry(&entry);
        }
        world.fail_over(3);
        if committed == "after" {
            world.commit_entry(&entry);
        }
        assert_eq!(world.state.task(&made.task.id).is_some(), committed != "never");
        register(&mut world, vec![made.clone()]);
        assert_kept(&mut world, &made.task.id);
    }
}

#[test]
fn a_second_register_with_more_is_not_taken_for_the_first() {
    let (mut world, old) = one_task(1);
    world.cut(1);
    let first = restart(&mut world, &old, 77, TaskState::Running);
    world.commits = false;
    register(&mut world, vec![first.clone()]);
    assert!(world.pending.is_some());
    // It ends and is replaced before the answer comes; the answer is to the first register.
    let mut ended = first.clone();
    ended.task.status = status(TaskState::Failed, world.date);
    let second = restart(&mut world, &first.task, 78, TaskState::Running);
    register(&mut world, vec![ended, second.clone()]);
    world.commits = true;
    world.commit();
    assert_kept(&mut world, &second.task.id);
    assert_eq!(world.task(&first.task.id).status.exit_code, Some(137));
}

#[test]
fn the_end_of_the_predecessor_may_be_known_first() {
    // The node registers, makes a successor before that is answered, and registers with it.
    let (mut world, old) = one_task(1);
    world.report(&old.id, TaskState::Failed, "exit status 1");
    let replacement = world.wanted();
    assert_eq!(replacement.len(), 1, "{}", world.tasks());
    assert_ne!(replacement[0].id, old.id);
    assert!(replacement[0].status.state < TaskState::Running);
    world.cut(1);
    let made = restart(&mut world, &old, 77, TaskState::Running);
    world.advance(SECOND);
    register(&mut world, vec![made.clone()]);
    assert_kept(&mut world, &made.task.id);
}

#[test]
fn a_node_that_was_lost_keeps_what_it_restarted_until_its_replacement_runs() {
    let (mut world, old) = one_task(2);
    world.cut(1);
    let made = restart(&mut world, &old, 77, TaskState::Running);
    world.run(10 * SECOND);
    assert_eq!(world.wanted().len(), 2, "one is lost, one waits for a node: {}", world.tasks());
    register(&mut world, vec![made.clone()]);
    assert_kept(&mut world, &made.task.id);
}

#[test]
fn what_runs_elsewhere_by_then_has_filled_the_slot() {
    let (mut world, old) = one_task(2);
    world.set_availability(2, crate::types::Availability::Active);
    world.cut(1);
    let made = restart(&mut world, &old, 77, TaskState::Running);
    world.run(10 * SECOND);
    assert_eq!(world.running_on(2), 1, "{}", world.tasks());
    register(&mut world, vec![made.clone()]);
    world.run(10 * SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (0, 1), "{}", world.tasks());
    assert_eq!(world.task(&made.task.id).status.state, TaskState::Shutdown);
}

#[test]
fn an_updated_service_is_not_taken_back_to_what_it_was() {
    let (mut world, old) = one_task(1);
    world.cut(1);
    let made = restart(&mut world, &old, 77, TaskState::Running);
    world.update(&old.service, |spec| spec.task.container.image = "good:2".to_owned());
    world.run(2 * SECOND);
    register(&mut world, vec![made]);
    world.run(20 * SECOND);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1, "{}", world.tasks());
    assert_eq!(wanted[0].spec.container.image, "good:2");
    assert_eq!(wanted[0].status.state, TaskState::Running);
}
