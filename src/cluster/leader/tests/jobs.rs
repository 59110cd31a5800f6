//! What happens to jobs.

use super::{World, replicated, world::id};
use crate::{
    cluster::Response,
    types::{
        Availability, Constraint, Desired, JobTally, Mode, RestartCondition, ServiceId,
        ServiceSpec, Task, TaskId, TaskState,
    },
};
use expect_test::{Expect, expect};
use std::{collections::BTreeMap, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::needless_pass_by_value, reason = "reads best where the text stands in the call")]
fn check(world: &World, expected: Expect) {
    expected.assert_eq(&world.tasks());
}

/// A job whose tasks run until a test says otherwise.
fn job(max_concurrent: u64, total_completions: u64) -> ServiceSpec {
    let mut spec = replicated("job", 0);
    spec.mode = Mode::ReplicatedJob { max_concurrent, total_completions };
    spec
}

fn tally(world: &World, service: &ServiceId) -> (u64, u64, u64) {
    let row = world.service(service);
    let tally = JobTally::of(&row, world.state.tasks_of_service(service)).expect("a job");
    (tally.active, tally.complete, tally.given_up)
}

/// Returns the task that runs in a slot.
fn runs(world: &World, slot: u64) -> Task {
    let mut tasks = world.state.tasks().filter(|task| {
        task.slot == slot && task.desired.may_run() && task.status.state == TaskState::Running
    });
    tasks.next().unwrap_or_else(|| panic!("nothing runs in {slot}:\n{}", world.tasks())).clone()
}

fn end_well(world: &mut World, slot: u64) -> TaskId {
    let task = runs(world, slot).id;
    world.report(&task, TaskState::Complete, "");
    world.run(SECOND);
    task
}

#[test]
fn so_many_run_at_a_time_until_all_have_run() {
    let mut world = World::new(2);
    let service = world.create(job(2, 4));
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/running ServiceScaled
            job.2 on 2: complete/running ServiceScaled
        "#]],
    );
    end_well(&mut world, 2);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/running ServiceScaled
            job.2 on 2: complete/complete ServiceScaled
            job.3 on 2: complete/running ServiceScaled
        "#]],
    );
    for slot in [1, 3, 4] {
        end_well(&mut world, slot);
    }
    assert_eq!(tally(&world, &service), (0, 4, 0), "{}", world.tasks());
    let before = world.proposals;
    world.run(600 * SECOND);
    assert_eq!(world.proposals, before, "what is done is left alone");
}

#[test]
fn what_fails_is_tried_again_in_its_slot() {
    let mut world = World::new(1);
    let service = world.create(job(1, 2));
    world.run(SECOND);
    let first = runs(&world, 1).id;
    world.report(&first, TaskState::Failed, "task: non-zero exit (3)");
    world.run(4 * SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: shutdown/failed ServiceScaled (task: non-zero exit (3))
            job.1 on 1: ready/ready Restarted
        "#]],
    );
    world.run(2 * SECOND);
    end_well(&mut world, 1);
    check(
        &world,
        expect![[r#"
            job.1 on 1: shutdown/failed ServiceScaled (task: non-zero exit (3))
            job.1 on 1: complete/complete Restarted
            job.2 on 1: complete/running ServiceScaled
        "#]],
    );
    assert_eq!(tally(&world, &service), (1, 1, 0));
}

#[test]
fn the_delay_doubles_as_a_services_does() {
    let mut world = World::new(1);
    let mut spec = job(1, 1);
    spec.task.container.image = "crash:1".to_owned();
    let service = world.create(spec);
    let mut delays = Vec::new();
    for _ in 0..400 {
        world.run(SECOND);
        for task in world.state.tasks_of_service(&service).filter(|task| task.is_active()) {
            if delays.last() != Some(&task.delay.as_secs()) {
                delays.push(task.delay.as_secs());
            }
        }
    }
    assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300]);
}

#[test]
fn a_slot_is_given_up_when_the_policy_says_so() {
    let mut world = World::new(1);
    let mut spec = job(1, 2);
    spec.task.container.image = "crash:1".to_owned();
    spec.task.restart.max_attempts = 1;
    let service = world.create(spec);
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: shutdown/failed ServiceScaled (exit status 1)
            job.1 on 1: shutdown/failed Restarted (exit status 1)
            job.2 on 1: shutdown/failed ServiceScaled (exit status 1)
            job.2 on 1: shutdown/failed Restarted (exit status 1)
        "#]],
    );
    assert_eq!(tally(&world, &service), (0, 0, 2));
    // More of it does not try again what was given up.
    world.update(&service, |spec| {
        spec.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 3 };
    });
    world.run(60 * SECOND);
    assert_eq!(tally(&world, &service), (0, 0, 3));
    assert_eq!(world.state.tasks_of_service(&service).count(), 6);
}

#[test]
fn condition_none_gives_up_at_the_first_failure() {
    let mut world = World::new(1);
    let mut spec = job(1, 1);
    spec.task.container.image = "crash:1".to_owned();
    spec.task.restart.condition = RestartCondition::None;
    let service = world.create(spec);
    world.run(60 * SECOND);
    assert_eq!(tally(&world, &service), (0, 0, 1), "{}", world.tasks());
    assert_eq!(world.state.tasks().count(), 1);
}

#[test]
fn condition_none_is_not_made_up_for_on_another_node() {
    let mut world = World::new(2);
    let mut spec = job(1, 1);
    spec.task.restart.condition = RestartCondition::None;
    let service = world.create(spec);
    world.run(SECOND);
    world.set_availability(1, Availability::Drain);
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
        job.1 on 1: shutdown/shutdown ServiceScaled
    "#]],
    );
    assert_eq!(tally(&world, &service), (0, 0, 1));
}

#[test]
fn a_new_login_disturbs_nothing() {
    let mut world = World::new(2);
    let service = world.create(job(1, 1));
    world.run(SECOND);
    world.cut(1);
    // Its replacement is on its way to the other node.
    world.advance(10 * SECOND);
    assert_eq!(world.wanted().len(), 2, "{}", world.tasks());
    world.update(&service, |spec| {
        let (username, secret) = ("a".to_owned(), "b".to_owned());
        let login = crate::types::RegistryCredential { username, secret, is_token: false };
        spec.task.credential = Some(login);
    });
    world.link(1);
    world.run(60 * SECOND);
    assert_eq!(world.service(&service).job.map(|job| job.iteration), Some(0));
    assert_eq!(runs(&world, 1).node, Some(id(1)), "{}", world.tasks());
}

#[test]
fn another_spec_or_force_runs_all_of_it_anew_and_keeps_what_was() {
    let mut world = World::new(1);
    let mut spec = job(0, 2);
    spec.task.container.image = "done:1".to_owned();
    let service = world.create(spec);
    world.run(SECOND);
    assert_eq!(tally(&world, &service), (0, 2, 0));
    let first = world.service(&service).job.expect("a job");
    // Labels and numbers are nothing to a task.
    world.update(&service, |spec| {
        spec.labels.insert("a".to_owned(), "b".to_owned());
        spec.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 3 };
    });
    world.run(SECOND);
    assert_eq!(world.service(&service).job, Some(first));
    assert_eq!(world.state.tasks().count(), 3);
    world.update(&service, |spec| spec.task.force_update += 1);
    world.run(5 * SECOND);
    let second = world.service(&service).job.expect("a job");
    assert_eq!(second.iteration, 1);
    assert!(second.last_execution > first.last_execution);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/complete ServiceScaled
            job.1 on 1: complete/complete SpecChanged
            job.2 on 1: complete/complete ServiceScaled
            job.2 on 1: complete/complete SpecChanged
            job.3 on 1: complete/complete ServiceScaled
            job.3 on 1: complete/complete SpecChanged
        "#]],
    );
    // History has its limit, the present iteration has none.
    for _ in 0..8 {
        world.update(&service, |spec| spec.task.force_update += 1);
        world.run(5 * SECOND);
    }
    assert_eq!(world.state.tasks().count(), 15);
    assert_eq!(tally(&world, &service), (0, 3, 0));
}

#[test]
fn an_outdated_iteration_stops_before_the_next_takes_its_place() {
    let mut world = World::new(1);
    let mut spec = job(2, 3);
    spec.task.container.image = "stuck:1".to_owned();
    let service = world.create(spec);
    world.run(SECOND);
    world.update(&service, |spec| spec.task.container.env.push("A=1".to_owned()));
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: remove/running ServiceScaled
            job.1 on 1: ready/ready SpecChanged
            job.2 on 1: remove/running ServiceScaled
            job.2 on 1: ready/ready SpecChanged
        "#]],
    );
    let old: Vec<TaskId> = world
        .state
        .tasks()
        .filter(|task| task.desired == Desired::Remove)
        .map(|task| task.id.clone())
        .collect();
    for task in &old {
        world.report(task, TaskState::Shutdown, "");
    }
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/running SpecChanged
            job.2 on 1: complete/running SpecChanged
        "#]],
    );
}

#[test]
fn a_held_task_that_its_node_let_go_by_itself_is_held_no_more_once_it_came_to_its_end() {
    let mut world = World::new(1);
    let mut spec = job(1, 1);
    spec.task.container.image = "stuck:1".to_owned();
    let service = world.create(spec);
    world.run(SECOND);
    let old = runs(&world, 1).id;
    world.update(&service, |spec| spec.task.container.env.push("A=1".to_owned()));
    world.run(SECOND);
    let held = world.state.tasks().find(|task| task.desired == Desired::Ready);
    let held = held.expect("it waits for the one before").id.clone();
    world.report(&old, TaskState::Shutdown, "");
    world.report(&held, TaskState::Complete, "");
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/complete SpecChanged
        "#]],
    );
    assert_eq!(tally(&world, &service), (0, 1, 0));
}

#[test]
fn rollback_runs_the_spec_before_anew() {
    let mut world = World::new(1);
    let service = world.create(job(1, 1));
    world.run(SECOND);
    end_well(&mut world, 1);
    world.update(&service, |spec| spec.task.container.env.push("A=1".to_owned()));
    world.run(SECOND);
    end_well(&mut world, 1);
    let row = world.service(&service);
    let request = world.request_id();
    let answer = world.request(crate::cluster::Request::RollbackService {
        request,
        id: service.clone(),
        version: row.version,
    });
    assert_eq!(answer, Ok(Response::Done));
    world.run(SECOND);
    let row = world.service(&service);
    assert_eq!(row.job.map(|job| job.iteration), Some(2));
    assert_eq!(row.update, None, "a job is not updated slot by slot");
    assert!(runs(&world, 1).spec.container.env.is_empty());
}

#[test]
fn fewer_completions_forget_the_slots_beyond() {
    let mut world = World::new(1);
    let service = world.create(job(2, 4));
    world.run(SECOND);
    end_well(&mut world, 1);
    world.update(&service, |spec| {
        spec.mode = Mode::ReplicatedJob { max_concurrent: 2, total_completions: 2 };
    });
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/complete ServiceScaled
            job.2 on 1: complete/running ServiceScaled
        "#]],
    );
    assert_eq!(tally(&world, &service), (1, 1, 0));
    world.update(&service, |spec| {
        spec.mode = Mode::ReplicatedJob { max_concurrent: 2, total_completions: 0 };
    });
    world.run(SECOND);
    check(&world, expect![""]);
}

#[test]
fn a_lost_node_runs_again_only_what_had_not_ended() {
    let mut world = World::new(2);
    let service = world.create(job(0, 4));
    world.run(SECOND);
    let done: Vec<TaskId> = [1, 3].map(|slot| end_well(&mut world, slot)).to_vec();
    assert!(done.iter().all(|task| world.task(task).node == Some(id(1))));
    world.cut(2);
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/complete ServiceScaled
            job.2 on 2: shutdown/running ServiceScaled
            job.2 on 1: complete/running NodeLost
            job.3 on 1: complete/complete ServiceScaled
            job.4 on 2: shutdown/running ServiceScaled
            job.4 on 1: complete/running NodeLost
        "#]],
    );
    assert_eq!(tally(&world, &service), (2, 2, 0));
}

#[test]
fn what_a_lost_node_had_finished_is_taken_for_done_when_it_returns() {
    let mut world = World::new(2);
    let service = world.create(job(0, 2));
    world.run(SECOND);
    let there = runs(&world, 2);
    assert_eq!(there.node, Some(id(2)));
    world.cut(2);
    world.report(&there.id, TaskState::Complete, "");
    world.run(60 * SECOND);
    assert_eq!(runs(&world, 2).node, Some(id(1)), "nobody knows that it had ended");
    world.link(2);
    world.run(5 * SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/running ServiceScaled
            job.2 on 2: shutdown/complete ServiceScaled
            job.2 on 1: shutdown/shutdown NodeLost
        "#]],
    );
    assert_eq!(tally(&world, &service), (1, 1, 0));
}

#[test]
fn a_drained_node_hands_its_tasks_on_and_a_removed_one_leaves_what_it_did() {
    let mut world = World::new(2);
    let service = world.create(job(0, 4));
    world.run(SECOND);
    end_well(&mut world, 2);
    world.set_availability(2, Availability::Drain);
    world.run(5 * SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: complete/running ServiceScaled
            job.2 on 2: complete/complete ServiceScaled
            job.3 on 1: complete/running ServiceScaled
            job.4 on 2: shutdown/shutdown ServiceScaled
            job.4 on 1: complete/running NodeDrained
        "#]],
    );
    let request = world.request_id();
    let node = id(2);
    let removal = crate::cluster::Request::RemoveNode { request, id: node, force: true };
    assert_eq!(world.request(removal), Ok(Response::Done));
    world.run(5 * SECOND);
    assert_eq!(tally(&world, &service), (3, 1, 0), "{}", world.tasks());
    world.fail_over(2);
    for number in 0..=1 {
        world.link(number);
    }
    world.run(5 * SECOND);
    assert_eq!(tally(&world, &service), (3, 1, 0), "{}", world.tasks());
}

#[test]
fn a_fail_over_goes_on_where_the_job_was() {
    let mut world = World::new(2);
    let service = world.create(job(2, 4));
    world.run(SECOND);
    end_well(&mut world, 1);
    let before = world.tasks();
    world.fail_over(2);
    for number in 0..=2 {
        world.link(number);
    }
    world.run(5 * SECOND);
    assert_eq!(world.tasks(), before);
    for slot in [2, 3, 4] {
        end_well(&mut world, slot);
    }
    assert_eq!(tally(&world, &service), (0, 4, 0));
}

#[test]
fn a_global_job_runs_once_on_every_node_that_fits_and_on_those_that_join() {
    let mut world = World::new(2);
    world.set_availability(2, Availability::Pause);
    let mut spec = job(0, 0);
    spec.mode = Mode::GlobalJob;
    spec.task.container.image = "done:1".to_owned();
    spec.task.placement.constraints =
        vec![Constraint::parse("node.role==worker").expect("it is well formed")];
    let service = world.create(spec);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        job.0 on 1: complete/complete NodeJoined
    "#]],
    );
    world.set_availability(2, Availability::Active);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.0 on 1: complete/complete NodeJoined
            job.0 on 2: complete/complete NodeJoined
        "#]],
    );
    world.update(&service, |spec| spec.task.force_update += 1);
    world.run(SECOND);
    assert_eq!(tally(&world, &service), (0, 2, 0));
    assert_eq!(world.state.tasks().count(), 4);
}

#[test]
fn a_global_job_stops_on_a_drained_node_and_runs_when_it_is_back() {
    let mut world = World::new(2);
    let mut spec = job(0, 0);
    spec.mode = Mode::GlobalJob;
    let service = world.create(spec);
    world.run(SECOND);
    world.set_availability(1, Availability::Drain);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.0 on 2: complete/running NodeJoined
            job.0 on 1: shutdown/shutdown NodeJoined
        "#]],
    );
    assert_eq!(tally(&world, &service), (1, 0, 0));
    // A node that takes nothing new keeps what it has, and what fails there is not tried again.
    world.set_availability(2, Availability::Pause);
    world.set_availability(1, Availability::Active);
    world.run(SECOND);
    let second = world.wanted().into_iter().find(|task| task.node == Some(id(2)));
    world.report(&second.expect("it runs on").id, TaskState::Failed, "exit status 1");
    world.run(20 * SECOND);
    check(
        &world,
        expect![[r#"
            job.0 on 2: shutdown/failed NodeJoined (exit status 1)
            job.0 on 1: shutdown/shutdown NodeJoined
            job.0 on 1: complete/running NodeJoined
        "#]],
    );
    world.set_availability(2, Availability::Active);
    world.run(SECOND);
    assert_eq!(world.running_on(2), 1, "{}", world.tasks());
}

#[test]
fn a_global_job_gives_a_node_up() {
    let mut world = World::new(2);
    let mut spec = job(0, 0);
    spec.mode = Mode::GlobalJob;
    spec.task.restart.max_attempts = 2;
    spec.task.container.image = "crash:1".to_owned();
    let service = world.create(spec);
    world.run(120 * SECOND);
    assert_eq!(tally(&world, &service), (0, 0, 2), "{}", world.tasks());
    // The first and two more on each.
    assert_eq!(world.state.tasks().count(), 6, "Swarm keeps every one and never ends");
}

#[test]
fn a_task_that_its_node_restarted_is_adopted_and_counts() {
    let mut world = World::new(1);
    let service = world.create(job(1, 1));
    world.run(SECOND);
    let first = runs(&world, 1);
    world.cut(1);
    let mut made = first.clone();
    made.id = TaskId::from_bits(77);
    made.predecessor = Some(first.id.clone());
    made.status.state = TaskState::Complete;
    made.failures = 1;
    let date = world.date;
    made.add_reason(crate::types::ReasonCode::LocalRestart, date);
    let successor = crate::types::LocalSuccessor { task: made, made: date };
    let description = world.state.node(&id(1)).expect("a node").description.clone();
    world.link_as(1, description, vec![successor]);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
            job.1 on 1: shutdown/failed ServiceScaled (exit status lost)
            job.1 on 1: complete/complete LocalRestart
        "#]],
    );
    assert_eq!(tally(&world, &service), (0, 1, 0));
}

#[test]
fn removing_a_job_leaves_nothing() {
    let mut world = World::new(1);
    let service = world.create(job(1, 3));
    world.run(SECOND);
    end_well(&mut world, 1);
    let request = world.request_id();
    let removal = crate::cluster::Request::RemoveService { request, id: service };
    assert_eq!(world.request(removal), Ok(Response::Done));
    world.run(5 * SECOND);
    assert_eq!(world.state.tasks().count(), 0, "{}", world.tasks());
}

/// Follows a job through whatever happens: never too many at once, and what came to its end in an
/// iteration is never run again in it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    done: BTreeMap<(u64, u64), TaskId>,
}

impl Watch {
    pub(super) fn look(&mut self, world: &World, service: &ServiceId) {
        let row = world.service(service);
        let iteration = row.job.expect("a job").iteration;
        let (active, _, _) = tally(world, service);
        let Mode::ReplicatedJob { max_concurrent, .. } = row.spec.mode else { panic!("a job") };
        assert!(active <= max_concurrent, "{active} at once:\n{}", world.tasks());
        let current = || {
            let tasks = world.state.tasks_of_service(service);
            tasks.filter(move |task| task.job_iteration == Some(iteration))
        };
        for task in current().filter(|task| task.is_complete_job()) {
            self.done.entry((iteration, task.slot)).or_insert_with(|| task.id.clone());
        }
        for ((of, slot), first) in &self.done {
            // A slot that was taken away and came back begins anew.
            if *of != iteration || world.state.task(first).is_none() {
                continue;
            }
            let mut tasks = current().filter(|task| task.slot == *slot);
            let late = tasks.find(|task| {
                task.status.state < TaskState::Assigned && task.created > world.task(first).updated
            });
            assert!(late.is_none(), "slot {slot} runs again:\n{}", world.tasks());
        }
    }
}
