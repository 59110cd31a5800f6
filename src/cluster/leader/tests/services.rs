//! What happens to services.

use super::{World, replicated};
use crate::{
    cluster::{Class, Request, Response},
    types::{Availability, Constraint, Desired, Mode, RestartCondition, TaskState, UpdateState},
};
use expect_test::{Expect, expect};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::needless_pass_by_value, reason = "reads best where the text stands in the call")]
pub(super) fn check(world: &World, expected: Expect) {
    expected.assert_eq(&world.tasks());
}

#[test]
fn a_service_spreads_and_runs() {
    let mut world = World::new(3);
    world.create(replicated("web", 4));
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: running/running ServiceScaled
        web.2 on 2: running/running ServiceScaled
        web.3 on 3: running/running ServiceScaled
        web.4 on 1: running/running ServiceScaled
    "#]],
    );
}

#[test]
fn a_crashed_task_is_replaced_after_its_delay_on_a_new_task() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    world.run(60 * SECOND);
    let task = world.wanted()[0].id.clone();
    world.report(&task, TaskState::Failed, "exit status 1");
    world.run(4 * SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: shutdown/failed ServiceScaled (exit status 1)
        web.1 on 1: ready/ready Restarted
    "#]],
    );
    world.run(2 * SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: shutdown/failed ServiceScaled (exit status 1)
        web.1 on 1: running/running Restarted
    "#]],
    );
}

#[test]
fn the_delay_doubles_and_history_is_bounded() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.task.container.image = "crash:1".to_owned();
    let service = world.create(spec);
    let mut delays = Vec::new();
    for _ in 0..1_200 {
        world.run(SECOND);
        for task in world.state.tasks_of_service(&service) {
            if delays.last() != Some(&task.delay.as_secs()) && task.desired.is_wanted() {
                delays.push(task.delay.as_secs());
            }
        }
    }
    assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300]);
    assert!(world.state.tasks_of_service(&service).count() <= 5);
}

#[test]
fn a_service_may_be_run_once_an_hour() {
    let mut world = World::new(1);
    let mut spec = replicated("hourly", 1);
    spec.task.container.image = "done:1".to_owned();
    spec.task.restart.delay = 3_600 * SECOND;
    world.create(spec);
    world.run(3_599 * SECOND);
    assert_eq!(world.state.tasks().count(), 2, "{}", world.tasks());
    world.run(2 * SECOND);
    assert_eq!(world.state.tasks().count(), 3, "{}", world.tasks());
}

#[test]
fn a_healthy_run_resets_the_delay() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    for _ in 0..3 {
        world.run(60 * SECOND);
        let task = world.wanted()[0].clone();
        assert_eq!(task.status.state, TaskState::Running);
        world.report(&task.id, TaskState::Failed, "exit status 1");
        world.work();
        let held = world.wanted()[0].clone();
        assert_eq!((held.desired, held.delay, held.failures), (Desired::Ready, 5 * SECOND, 1));
    }
}

#[test]
fn restart_condition_none_leaves_what_ended() {
    let mut world = World::new(1);
    let mut spec = replicated("once", 2);
    spec.task.container.image = "crash:1".to_owned();
    spec.task.restart.condition = RestartCondition::None;
    let service = world.create(spec);
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
        once.1 on 1: shutdown/failed ServiceScaled (exit status 1)
        once.2 on 1: shutdown/failed ServiceScaled (exit status 1)
    "#]],
    );
    // A changed spec runs it again.
    world.update(&service, |spec| spec.task.container.image = "done:1".to_owned());
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
        once.1 on 1: shutdown/failed ServiceScaled (exit status 1)
        once.1 on 1: shutdown/complete SpecChanged
        once.2 on 1: shutdown/failed ServiceScaled (exit status 1)
        once.2 on 1: shutdown/complete SpecChanged
    "#]],
    );
}

#[test]
fn restart_condition_on_failure_leaves_what_completed() {
    let mut world = World::new(1);
    let mut spec = replicated("job", 2);
    spec.task.container.image = "done:1".to_owned();
    spec.task.restart.condition = RestartCondition::OnFailure;
    world.create(spec);
    world.run(60 * SECOND);
    check(
        &world,
        expect![[r#"
        job.1 on 1: shutdown/complete ServiceScaled
        job.2 on 1: shutdown/complete ServiceScaled
    "#]],
    );
}

#[test]
fn max_attempts_end_restarts_also_after_a_fail_over() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.task.container.image = "crash:1".to_owned();
    spec.task.restart.max_attempts = 3;
    world.create(spec);
    world.run(12 * SECOND);
    world.fail_over(2);
    for worker in 0..=1 {
        world.link(worker);
    }
    world.run(300 * SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: shutdown/failed ServiceScaled (exit status 1)
        web.1 on 1: shutdown/failed Restarted (exit status 1)
        web.1 on 1: shutdown/failed Restarted (exit status 1)
        web.1 on 1: shutdown/failed Restarted (exit status 1)
    "#]],
    );
}

#[test]
fn scaling_down_takes_from_the_fullest_node() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 2));
    world.run(SECOND);
    world.set_availability(1, Availability::Pause);
    world.update(&service, |spec| spec.mode = Mode::Replicated { replicas: 5 });
    world.run(SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (1, 4));
    world.update(&service, |spec| spec.mode = Mode::Replicated { replicas: 2 });
    world.run(SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (1, 1));
    world.update(&service, |spec| spec.mode = Mode::Replicated { replicas: 0 });
    world.run(SECOND);
    assert_eq!(world.state.tasks().count(), 0, "{}", world.tasks());
}

#[test]
fn an_update_prepares_then_replaces_slot_by_slot() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 2));
    world.run(SECOND);
    world.update(&service, |spec| spec.task.container.image = "good:2".to_owned());
    // Committed, but no worker has done anything yet.
    check(
        &world,
        expect![[r#"
        web.1 on 1: running/running ServiceScaled
        web.1 on 1: ready/assigned SpecChanged
        web.2 on 2: running/running ServiceScaled
    "#]],
    );
    let update = world.service(&service).update.expect("an update");
    assert_eq!(
        (update.state, update.message.as_str()),
        (UpdateState::Updating, "update in progress")
    );
    world.run(2 * SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: shutdown/shutdown ServiceScaled
        web.1 on 1: running/running SpecChanged
        web.2 on 2: shutdown/shutdown ServiceScaled
        web.2 on 2: running/running SpecChanged
    "#]],
    );
    world.run(6 * SECOND);
    let update = world.service(&service).update.expect("an update");
    assert_eq!(
        (update.state, update.message.as_str()),
        (UpdateState::Completed, "update completed")
    );
}

#[test]
fn a_missing_image_takes_no_running_task_down() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 3));
    world.run(SECOND);
    world.update(&service, |spec| spec.task.container.image = "bad:1".to_owned());
    world.run(60 * SECOND);
    let running = world.wanted();
    assert_eq!(running.len(), 3, "{}", world.tasks());
    assert!(running.iter().all(|task| task.spec.container.image == "good:1"));
    let update = world.service(&service).update.expect("an update");
    assert_eq!(update.state, UpdateState::Paused);
    let failed = world.state.tasks().find(|t| t.status.state == TaskState::Rejected);
    let failed = failed.expect("the failed task is kept").id.clone();
    assert_eq!(
        update.message,
        format!("update paused due to failure or early termination of task {failed}")
    );
    // A task that ends meanwhile comes back as it was.
    world.report(&running[0].id, TaskState::Failed, "exit status 1");
    world.run(20 * SECOND);
    let again = world.wanted();
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|task| task.spec.container.image == "good:1"), "{}", world.tasks());
    // Without a change, the update is tried again, and stops again.
    world.update(&service, |_| {});
    assert_eq!(world.service(&service).update.map(|u| u.state), Some(UpdateState::Updating));
    world.run(20 * SECOND);
    assert_eq!(world.service(&service).update.map(|u| u.state), Some(UpdateState::Paused));
    // A rollback leaves what runs alone.
    let (request, version) = (world.request_id(), world.service(&service).version);
    let answer = world.request(Request::RollbackService { request, id: service.clone(), version });
    assert_eq!(answer, Ok(Response::Done));
    world.run(20 * SECOND);
    let mut kept: Vec<_> = world.wanted().into_iter().map(|task| task.id).collect();
    let mut before: Vec<_> = again.into_iter().map(|task| task.id).collect();
    kept.sort();
    before.sort();
    assert_eq!(kept, before);
}

#[test]
fn a_crash_after_the_switch_pauses_the_update() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 3));
    world.run(SECOND);
    world.update(&service, |spec| spec.task.container.image = "crash:1".to_owned());
    world.run(30 * SECOND);
    let update = world.service(&service).update.expect("an update");
    assert_eq!(update.state, UpdateState::Paused);
    let good = world.wanted().into_iter().filter(|t| t.spec.container.image == "good:1").count();
    assert_eq!(good, 2, "{}", world.tasks());
}

#[test]
fn an_update_that_never_runs_is_paused_by_the_deadline() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 2));
    world.run(SECOND);
    world.update(&service, |spec| {
        let nowhere = Constraint::parse("node.labels.none==x").expect("a constraint");
        spec.task.placement.constraints.push(nowhere);
        spec.task.container.image = "good:2".to_owned();
    });
    world.run(599 * SECOND);
    assert_eq!(world.service(&service).update.map(|u| u.state), Some(UpdateState::Updating));
    world.run(2 * SECOND);
    let update = world.service(&service).update.expect("an update");
    assert_eq!(update.state, UpdateState::Paused);
    assert_eq!(world.wanted().len(), 2, "{}", world.tasks());
}

#[test]
fn a_spec_that_is_changed_again_during_its_update_wins() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 3));
    world.run(SECOND);
    world.update(&service, |spec| spec.task.container.image = "good:2".to_owned());
    world.update(&service, |spec| spec.task.container.image = "good:3".to_owned());
    world.run(30 * SECOND);
    let images: Vec<_> =
        world.wanted().into_iter().map(|t| t.spec.container.image.clone()).collect();
    assert_eq!(images, ["good:3", "good:3", "good:3"]);
    assert_eq!(world.service(&service).update.map(|u| u.state), Some(UpdateState::Completed));
}

#[test]
fn labels_and_replicas_make_nothing_dirty() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 2));
    world.run(SECOND);
    let before: Vec<_> = world.wanted().into_iter().map(|task| task.id).collect();
    world.update(&service, |spec| {
        spec.labels.insert("a".to_owned(), "b".to_owned());
        spec.task.force_update = 0;
    });
    world.run(10 * SECOND);
    let after: Vec<_> = world.wanted().into_iter().map(|task| task.id).collect();
    assert_eq!(before, after);
    assert_eq!(world.service(&service).update, None);
    world.update(&service, |spec| spec.task.force_update = 1);
    world.run(30 * SECOND);
    assert!(world.wanted().iter().all(|task| !before.contains(&task.id)));
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 3));
    world.run(SECOND);
    let request = world.request_id();
    let answer = world.request(Request::RemoveService { request, id: service.clone() });
    assert_eq!(answer, Ok(Response::Done));
    assert_eq!(world.state.tasks().filter(|t| t.desired == Desired::Remove).count(), 3);
    world.run(SECOND);
    assert_eq!(world.state.tasks().count(), 0);
    let held: usize = world.workers.values().map(|worker| worker.tasks.len()).sum();
    assert_eq!(held, 0);
}

#[test]
fn a_global_service_follows_the_nodes() {
    let mut world = World::new(3);
    let mut spec = replicated("agent", 1);
    spec.mode = Mode::Global;
    let worker = Constraint::parse("node.labels.skip!=yes").expect("a constraint");
    spec.task.placement.constraints.push(worker);
    world.create(spec);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        agent.0 on 2: running/running NodeJoined
        agent.0 on 3: running/running NodeJoined
        agent.0 on 1: running/running NodeJoined
    "#]],
    );
    world.set_availability(1, Availability::Drain);
    world.update_node(2, |spec| {
        spec.labels.insert("skip".to_owned(), "yes".to_owned());
    });
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        agent.0 on 2: shutdown/rejected NodeJoined (assigned node no longer meets constraints)
        agent.0 on 3: running/running NodeJoined
        agent.0 on 1: shutdown/shutdown NodeJoined
    "#]],
    );
    world.set_availability(1, Availability::Active);
    world.run(SECOND);
    assert_eq!((world.running_on(1), world.running_on(2), world.running_on(3)), (1, 0, 1));
}

#[test]
fn what_fits_nowhere_says_why_and_starts_once_it_does() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.task.placement.constraints.push(Constraint::parse("node.labels.a==b").expect("one"));
    world.create(spec);
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on -: running/pending ServiceScaled (no suitable node (1 node not available for new tasks; scheduling constraints not satisfied on 1 node))
    "#]],
    );
    let before = world.proposals;
    world.run(60 * SECOND);
    assert_eq!(world.proposals, before, "a task that still waits is no news");
    world.update_node(1, |spec| {
        spec.labels.insert("a".to_owned(), "b".to_owned());
    });
    world.run(SECOND);
    assert_eq!(world.running_on(1), 1, "{}", world.tasks());
}

#[test]
fn what_is_not_allowed_is_refused_in_swarms_words() {
    let mut world = World::new(1);
    let service = world.create(replicated("web", 1));
    let message = |answer: Result<Response, crate::cluster::Refusal>| {
        let refusal = answer.expect_err("a refusal");
        (refusal.class, refusal.message)
    };
    let request = world.request_id();
    let spec = Box::new(replicated("web", 1));
    assert_eq!(
        message(world.request(Request::CreateService { request, spec })),
        (
            Class::Conflict,
            "name conflicts with an existing object: service web already exists".to_owned()
        )
    );
    let mut change = |name: &str, mode: Mode, stale: bool| {
        let mut version = world.service(&service).version;
        version.index -= u64::from(stale);
        let mut spec = replicated(name, 1);
        spec.mode = mode;
        let (request, id) = (world.request_id(), service.clone());
        let spec = Box::new(spec);
        message(world.request(Request::UpdateService { request, id, version, spec })).1
    };
    let one = Mode::Replicated { replicas: 1 };
    assert_eq!(change("other", one, false), "renaming services is not supported");
    assert_eq!(change("web", Mode::Global, false), "service mode change is not allowed");
    assert_eq!(change("web", one, true), "update out of sequence");
    let request = world.request_id();
    let version = world.service(&service).version;
    let rollback = Request::RollbackService { request, id: service.clone(), version };
    assert_eq!(
        message(world.request(rollback)).1,
        format!("service {service} does not have a previous spec")
    );
    let request = world.request_id();
    let gone = crate::types::ServiceId::from_bits(99);
    assert_eq!(
        message(world.request(Request::RemoveService { request, id: gone })).0,
        Class::NotFound
    );
}
