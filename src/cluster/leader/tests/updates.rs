//! Updates and rollbacks, by the clock.

use super::{
    services::check,
    world::{World, replicated},
};
use crate::{
    cluster::{Planned, Query, Request, Response, is_outdated},
    types::{
        Availability, Constraint, Desired, FailureAction, ImagePin, Mode, Platform, Ratio,
        RegistryCredential, ServiceId, ServiceSpec, Task, TaskSpec, TaskState, UpdateConfig,
        UpdateOrder, UpdateState,
    },
};
use expect_test::expect;
use std::{collections::BTreeSet, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

fn updated(replicas: u64, update: UpdateConfig) -> ServiceSpec {
    ServiceSpec { update, ..replicated("web", replicas) }
}

fn service(world: &mut World, spec: ServiceSpec) -> ServiceId {
    let id = world.create(spec);
    world.run(SECOND);
    id
}

fn set_image(world: &mut World, id: &ServiceId, image: &str) {
    world.update(id, |spec| spec.task.container.image = image.to_owned());
}

/// How many wanted tasks run, of this image.
fn running(world: &World, image: &str) -> usize {
    let runs = |task: &&Task| {
        task.status.state == TaskState::Running && task.spec.container.image == image
    };
    world.wanted().iter().filter(runs).count()
}

fn status(world: &World, id: &ServiceId) -> (UpdateState, String) {
    let update = world.service(id).update.expect("an update");
    (update.state, update.message)
}

fn state(world: &World, id: &ServiceId) -> UpdateState {
    status(world, id).0
}

fn roll_back(world: &mut World, id: &ServiceId) {
    let (request, version) = (world.request_id(), world.service(id).version);
    let answer = world.request(Request::RollbackService { request, id: id.clone(), version });
    assert_eq!(answer, Ok(Response::Done));
}

/// How many tasks of each image were ever made.
fn made(world: &World, image: &str) -> usize {
    world.state.tasks().filter(|task| task.spec.container.image == image).count()
}

fn ratio(fraction: f64) -> Ratio {
    Ratio::from_fraction(fraction).expect("a fraction")
}

#[test]
fn a_task_is_outdated_by_what_makes_a_difference_to_it() {
    let mut world = World::new(1);
    let id = service(&mut world, replicated("web", 1));
    let ran = world.wanted().remove(0);
    assert_eq!(ran.status.state, TaskState::Running);
    let mut waits = ran.clone();
    waits.status.state = TaskState::Assigned;
    let outdates = |task: &Task, change: &dyn Fn(&mut TaskSpec)| {
        let mut service = world.service(&id);
        service.spec_version.index += 1;
        change(&mut service.spec.task);
        is_outdated(&service, task, task.node.as_ref().and_then(|node| world.state.node(node)))
    };
    let constrained = |text: &'static str| {
        move |spec: &mut TaskSpec| {
            spec.placement.constraints.push(Constraint::parse(text).expect("a constraint"));
        }
    };
    let (username, secret) = ("a".to_owned(), "b".to_owned());
    let login = RegistryCredential { username, secret, is_token: false };

    assert!(!outdates(&ran, &|_| ()));
    assert!(!outdates(&ran, &|spec| spec.placement.platforms.push(Platform::default())));
    assert!(outdates(&ran, &|spec| spec.container.image = "good:2".to_owned()));
    assert!(outdates(&ran, &|spec| spec.force_update += 1));
    // A login is used when the image is pulled: no task that has its image notices another one.
    assert!(!outdates(&ran, &|spec| spec.credential = Some(login.clone())));
    assert!(outdates(&waits, &|spec| spec.credential = Some(login.clone())));
    // A node that meets the new constraints keeps its task.
    assert!(!outdates(&ran, &constrained("node.role==worker")));
    assert!(!outdates(&ran, &constrained("node.role == worker ")));
    assert!(outdates(&ran, &constrained("node.role==manager")));
    assert!(outdates(&ran, &constrained("node.role != worker")));
    // Nor does a task go that is one of fewer than may be on its node now; who waits asks anew.
    let at_most = |most| move |spec: &mut TaskSpec| spec.placement.max_replicas_per_node = most;
    let mut crowded = ran.clone();
    std::sync::Arc::make_mut(&mut crowded.spec).placement.max_replicas_per_node = 2;
    let homeless = Task { node: None, ..crowded.clone() };
    for (most, goes) in [(0, false), (3, false), (2, false), (1, true)] {
        assert_eq!(outdates(&crowded, &at_most(most)), goes, "{most}");
    }
    assert!(outdates(&homeless, &at_most(3)));
    // Which nodes hold the image is nothing to a task, which image it is, is.
    let pinned = |digest: &str, nodes: &[u128]| {
        let nodes = nodes.iter().copied().map(super::world::id).collect();
        Some(ImagePin { digest: digest.to_owned(), nodes })
    };
    let mut pins = ran.clone();
    std::sync::Arc::make_mut(&mut pins.spec).pin = pinned("sha256:a", &[1]);
    assert!(!outdates(&pins, &|spec| spec.pin = pinned("sha256:a", &[1, 2])));
    assert!(outdates(&pins, &|spec| spec.pin = pinned("sha256:b", &[1])));
}

#[test]
fn so_many_at_a_time_and_each_place_waits_its_delay() {
    let config = UpdateConfig { parallelism: 2, delay: 10 * SECOND, ..UpdateConfig::default() };
    let mut world = World::new(3);
    let id = service(&mut world, updated(6, config));
    set_image(&mut world, &id, "good:2");
    let mut seen = Vec::new();
    for _ in 0..28 {
        world.run(SECOND);
        seen.push(running(&world, "good:2"));
        assert_eq!(running(&world, "good:1") + running(&world, "good:2"), 6);
    }
    let expected: Vec<usize> = [(9, 2), (10, 4), (9, 6)]
        .into_iter()
        .flat_map(|(seconds, count)| std::iter::repeat_n(count, seconds))
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(state(&world, &id), UpdateState::Completed);
    let update = world.service(&id).update.expect("an update");
    // Five seconds after the last task ran: nobody waits for a delay after it.
    assert_eq!(update.completed.since(update.started).as_secs(), 25);
}

#[test]
fn no_parallelism_is_all_at_once() {
    let mut world = World::new(2);
    let config = UpdateConfig { parallelism: 0, ..UpdateConfig::default() };
    let id = service(&mut world, updated(5, config));
    set_image(&mut world, &id, "slow:2");
    world.run(SECOND);
    let held = world.state.tasks().filter(|task| task.desired == Desired::Ready).count();
    assert_eq!((held, running(&world, "good:1")), (5, 5));
}

#[test]
fn start_first_stops_the_old_task_once_the_new_one_runs() {
    let mut world = World::new(2);
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let id = service(&mut world, updated(1, config));
    set_image(&mut world, &id, "unwell:2");
    world.run(SECOND);
    // Never healthy: both are there, beside one another.
    check(
        &world,
        expect![[r#"
        web.1 on 1: running/running ServiceScaled
        web.1 on 2: running/ready SpecChanged
    "#]],
    );
    set_image(&mut world, &id, "good:2");
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: shutdown/shutdown ServiceScaled
        web.1 on 2: shutdown/shutdown SpecChanged
        web.1 on 2: running/running SpecChanged
    "#]],
    );
}

#[test]
fn start_first_needs_room_for_both() {
    let mut world = World::new(1);
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut spec = updated(1, config);
    spec.task.reservations.memory_bytes = 3 << 30;
    let id = service(&mut world, spec);
    set_image(&mut world, &id, "good:2");
    world.run(SECOND);
    check(
        &world,
        expect![[r#"
        web.1 on 1: running/running ServiceScaled
        web.1 on -: running/pending SpecChanged (no suitable node (1 node not available for new tasks; insufficient resources on 1 node))
    "#]],
    );
    // Stop-first needs none: the old task's room is the new one's.
    world.update(&id, |spec| spec.update.order = UpdateOrder::StopFirst);
    assert_eq!(state(&world, &id), UpdateState::Updating);
    world.run(10 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Completed);
    assert_eq!(running(&world, "good:2"), 1);
}

#[test]
fn a_task_that_fails_beside_its_predecessor_leaves_it_alone() {
    let mut world = World::new(2);
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let id = service(&mut world, updated(3, config));
    let before: BTreeSet<_> = world.wanted().into_iter().map(|task| task.id).collect();
    set_image(&mut world, &id, "bad:1");
    world.run(30 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Paused);
    let after: BTreeSet<_> = world.wanted().into_iter().map(|task| task.id).collect();
    assert_eq!(before, after, "{}", world.tasks());
}

#[test]
fn more_failures_than_the_ratio_allows_pause_the_update() {
    let mut world = World::new(2);
    let config = UpdateConfig { max_failure_ratio: ratio(0.2), ..UpdateConfig::default() };
    let id = service(&mut world, updated(10, config));
    set_image(&mut world, &id, "bad:1");
    world.run(60 * SECOND);
    // Two of ten may fail; the third is one too many.
    let update = world.service(&id).update.expect("an update");
    assert_eq!((update.state, update.failed.len(), update.total), (UpdateState::Paused, 3, 10));
    assert_eq!(running(&world, "good:1"), 10, "{}", world.tasks());
}

#[test]
fn an_update_that_continues_tries_every_place_and_takes_nothing_down() {
    let mut world = World::new(2);
    let failure_action = FailureAction::Continue;
    let config = UpdateConfig { failure_action, ..UpdateConfig::default() };
    let id = service(&mut world, updated(3, config));
    set_image(&mut world, &id, "bad:1");
    world.run(2 * SECOND);
    assert_eq!(status(&world, &id), (UpdateState::Completed, "update completed".to_owned()));
    assert_eq!(made(&world, "bad:1"), 6, "one a place, and another that waits: {}", world.tasks());
    world.run(60 * SECOND);
    assert_eq!(running(&world, "good:1"), 3, "{}", world.tasks());
    assert_eq!(state(&world, &id), UpdateState::Completed);
}

#[test]
fn another_image_does_not_wait_until_a_missing_one_is_tried_again() {
    // Nothing ever ran: the image was misspelt when the service was made.
    let mut world = World::new(2);
    let mut spec = updated(3, UpdateConfig::default());
    spec.task.container.image = "bad:1".to_owned();
    let id = service(&mut world, spec);
    world.run(120 * SECOND);
    set_image(&mut world, &id, "good:2");
    world.run(SECOND);
    assert_eq!(running(&world, "good:2"), 3, "{}", world.tasks());

    // What ran goes on until the right one is prepared, and this is an update like any other.
    let config =
        UpdateConfig { failure_action: FailureAction::Continue, ..UpdateConfig::default() };
    world.update(&id, |spec| spec.update = config);
    set_image(&mut world, &id, "bad:3");
    world.run(120 * SECOND);
    assert_eq!(running(&world, "good:2"), 3, "{}", world.tasks());
    set_image(&mut world, &id, "good:4");
    world.run(SECOND);
    assert_eq!(running(&world, "good:4"), 3, "{}", world.tasks());
    world.run(10 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Completed);
}

#[test]
fn a_failed_update_rolls_back_once() {
    let mut world = World::new(2);
    let failure_action = FailureAction::Rollback;
    let config = UpdateConfig { failure_action, ..UpdateConfig::default() };
    let id = service(&mut world, updated(3, config));
    world.update(&id, |spec| {
        spec.task.container.image = "crash:1".to_owned();
        spec.mode = Mode::Replicated { replicas: 4 };
    });
    world.work();
    let (state_now, message) = status(&world, &id);
    let failed = world.state.tasks().find(|task| task.status.state == TaskState::Failed);
    let failed = failed.expect("one failed").id.clone();
    assert_eq!(
        (state_now, message),
        (
            UpdateState::RollbackStarted,
            format!("update rolled back due to failure or early termination of task {failed}")
        )
    );
    world.run(10 * SECOND);
    assert_eq!(
        status(&world, &id),
        (UpdateState::RollbackCompleted, "rollback completed".to_owned())
    );
    assert_eq!(running(&world, "good:1"), 3, "{}", world.tasks());
    let row = world.service(&id);
    assert_eq!(row.spec.mode, Mode::Replicated { replicas: 3 });
    assert!(row.previous_spec.is_none(), "nothing is rolled back twice");
}

#[test]
fn a_rollback_that_fails_is_paused() {
    let mut world = World::new(2);
    let id = service(&mut world, updated(2, UpdateConfig::default()));
    let never = |action| UpdateConfig { failure_action: action, ..UpdateConfig::default() };
    world.update(&id, |spec| {
        spec.update = never(FailureAction::Continue);
        spec.task.container.image = "crash:1".to_owned();
    });
    world.run(20 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Completed);
    world.update(&id, |spec| {
        spec.update = never(FailureAction::Rollback);
        spec.task.container.image = "bad:1".to_owned();
    });
    world.run(60 * SECOND);
    let (state_now, message) = status(&world, &id);
    assert_eq!(state_now, UpdateState::RollbackPaused, "{}", world.tasks());
    let text = "rollback paused due to failure or early termination of task ";
    assert!(message.starts_with(text), "{message}");
    // Without a change the rollback goes on; what restarts is left to its policy.
    world.update(&id, |_| {});
    world.run(SECOND);
    assert_eq!(state(&world, &id), UpdateState::RollbackCompleted, "{}", world.tasks());
}

#[test]
fn a_rollback_by_hand_goes_back_and_forth() {
    let mut world = World::new(2);
    let id = service(&mut world, updated(2, UpdateConfig::default()));
    set_image(&mut world, &id, "good:2");
    world.run(10 * SECOND);
    for image in ["good:1", "good:2"] {
        roll_back(&mut world, &id);
        let expected = (UpdateState::RollbackStarted, "manually requested rollback".to_owned());
        assert_eq!(status(&world, &id), expected);
        world.run(10 * SECOND);
        let expected = (UpdateState::RollbackCompleted, "rollback completed".to_owned());
        assert_eq!(status(&world, &id), expected);
        assert_eq!(running(&world, image), 2, "{}", world.tasks());
    }
}

#[test]
fn a_rollback_goes_by_its_own_options() {
    let mut world = World::new(2);
    let mut spec = updated(4, UpdateConfig::default());
    spec.rollback.parallelism = 0;
    let id = service(&mut world, spec);
    set_image(&mut world, &id, "good:2");
    world.run(10 * SECOND);
    roll_back(&mut world, &id);
    let held = world.state.tasks().filter(|task| task.desired == Desired::Ready).count();
    assert_eq!(held, 4, "{}", world.tasks());
}

#[test]
fn a_task_is_watched_for_the_monitor_period() {
    for (after, expected) in [(7, UpdateState::Paused), (12, UpdateState::Completed)] {
        let mut world = World::new(1);
        let config = UpdateConfig { monitor: 10 * SECOND, ..UpdateConfig::default() };
        let id = service(&mut world, updated(1, config));
        set_image(&mut world, &id, "good:2");
        world.run(after * SECOND);
        let task = world.wanted()[0].id.clone();
        world.report(&task, TaskState::Failed, "exit status 1");
        world.run(20 * SECOND);
        assert_eq!(state(&world, &id), expected, "after {after} s");
    }
}

#[test]
fn other_options_take_effect_in_a_running_update() {
    let mut world = World::new(2);
    let config = UpdateConfig { delay: 60 * SECOND, ..UpdateConfig::default() };
    let id = service(&mut world, updated(3, config));
    set_image(&mut world, &id, "good:2");
    world.run(10 * SECOND);
    assert_eq!(running(&world, "good:2"), 1);
    let before = world.service(&id);
    world.update(&id, |spec| spec.update.delay = Duration::ZERO);
    world.run(10 * SECOND);
    let after = world.service(&id);
    assert_eq!(running(&world, "good:2"), 3);
    assert_eq!(after.previous_spec, before.previous_spec, "what it goes back to stays");
    assert_eq!(made(&world, "good:2"), 3, "no task is replaced twice");
    assert_eq!(after.update.map(|it| it.state), Some(UpdateState::Completed));
}

#[test]
fn an_update_outlives_its_manager() {
    let mut world = World::new(3);
    let config = UpdateConfig { delay: 4 * SECOND, monitor: 8 * SECOND, ..UpdateConfig::default() };
    let id = service(&mut world, updated(5, config));
    set_image(&mut world, &id, "good:2");
    for term in 2..40 {
        world.fail_over(term);
        for number in 0..=3 {
            world.link(number);
        }
        world.run(SECOND);
    }
    let update = world.service(&id).update.expect("an update");
    assert_eq!(update.state, UpdateState::Completed);
    assert_eq!(made(&world, "good:2"), 5, "no task is replaced twice: {}", world.tasks());
    // Four delays and one monitor period, as if nobody had been away.
    let took = update.completed.since(update.started).as_secs();
    assert!((24..=25).contains(&took), "{took} s");
}

#[test]
fn failures_are_counted_across_managers_and_a_pause_is_kept() {
    let mut world = World::new(2);
    let config = UpdateConfig { max_failure_ratio: ratio(0.3), ..UpdateConfig::default() };
    let id = service(&mut world, updated(4, config));
    set_image(&mut world, &id, "bad:1");
    for term in 2..6 {
        world.fail_over(term);
        (0..=2).for_each(|number| world.link(number));
        world.run(2 * SECOND);
    }
    let update = world.service(&id).update.expect("an update");
    assert_eq!((update.state, update.failed.len()), (UpdateState::Paused, 2));
    assert_eq!(running(&world, "good:1"), 4);
    world.fail_over(6);
    (0..=2).for_each(|number| world.link(number));
    world.run(60 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Paused);
}

#[test]
fn a_late_task_counts_as_failed_by_the_deadline() {
    let mut world = World::new(2);
    let config = UpdateConfig {
        failure_action: FailureAction::Continue,
        progress_deadline: 30 * SECOND,
        ..UpdateConfig::default()
    };
    let id = service(&mut world, updated(2, config));
    set_image(&mut world, &id, "slow:2");
    world.run(29 * SECOND);
    assert_eq!(made(&world, "slow:2"), 1);
    world.run(2 * SECOND);
    assert_eq!(made(&world, "slow:2"), 2, "the next place has its turn");
    world.run(30 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Completed);
    assert_eq!(running(&world, "good:1"), 2);
    // Without a deadline it waits for ever.
    world.update(&id, |spec| {
        spec.update.progress_deadline = Duration::ZERO;
        spec.task.container.image = "slow:3".to_owned();
    });
    world.run(7_200 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Updating);
}

#[test]
fn the_deadline_says_how_long_it_was() {
    let mut world = World::new(1);
    let config = UpdateConfig { progress_deadline: 90 * SECOND, ..UpdateConfig::default() };
    let id = service(&mut world, updated(1, config));
    set_image(&mut world, &id, "slow:2");
    world.run(100 * SECOND);
    let (state_now, message) = status(&world, &id);
    assert_eq!(state_now, UpdateState::Paused);
    assert!(message.ends_with(": it did not run within 90 s"), "{message}");
}

#[test]
fn a_global_service_is_updated_node_by_node() {
    let mut world = World::new(3);
    let mut spec = updated(1, UpdateConfig { delay: 5 * SECOND, ..UpdateConfig::default() });
    spec.mode = Mode::Global;
    let here = Constraint::parse("node.role==worker").expect("a constraint");
    spec.task.placement.constraints.push(here);
    let id = service(&mut world, spec);
    assert_eq!(running(&world, "good:1"), 3, "{}", world.tasks());
    world.set_availability(3, Availability::Pause);
    set_image(&mut world, &id, "good:2");
    world.run(2 * SECOND);
    assert_eq!((running(&world, "good:1"), running(&world, "good:2")), (2, 1));
    world.set_availability(2, Availability::Drain);
    world.run(10 * SECOND);
    // Paused nodes keep what they have, drained ones nothing.
    assert_eq!((running(&world, "good:1"), running(&world, "good:2")), (1, 1));
    assert_eq!(state(&world, &id), UpdateState::Completed);
    world.set_availability(2, Availability::Active);
    world.set_availability(3, Availability::Active);
    world.run(20 * SECOND);
    assert_eq!((running(&world, "good:1"), running(&world, "good:2")), (0, 3));
    assert_eq!(state(&world, &id), UpdateState::Completed);
}

#[test]
fn other_constraints_move_tasks_at_the_pace_of_the_update() {
    let in_zone = |zone: &str| {
        vec![Constraint::parse(&format!("node.labels.zone=={zone}")).expect("a constraint")]
    };
    let set_zone = |world: &mut World, number: u128, zone: &str| {
        let zone = zone.to_owned();
        world.update_node(number, |spec| drop(spec.labels.insert("zone".to_owned(), zone)));
    };
    let mut world = World::new(4);
    for (number, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        set_zone(&mut world, number, zone);
    }
    let mut spec = updated(4, UpdateConfig::default());
    spec.task.placement.constraints = in_zone("a");
    let id = service(&mut world, spec);
    world.update(&id, |spec| {
        spec.task.placement.constraints = in_zone("b");
        spec.task.container.image = "bad:2".to_owned();
    });
    // Something is news of a node meanwhile, and once the update is paused.
    for _ in 0..20 {
        world.update_node(4, |spec| drop(spec.labels.insert("a".to_owned(), "1".to_owned())));
        world.run(SECOND);
        world.update_node(4, |spec| drop(spec.labels.remove("a")));
        assert_eq!(running(&world, "good:1"), 4, "{}", world.tasks());
    }
    assert_eq!(state(&world, &id), UpdateState::Paused);
    // A node that leaves the zone of before loses its tasks all the same.
    set_zone(&mut world, 1, "c");
    world.run(20 * SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (0, 4), "{}", world.tasks());
    set_image(&mut world, &id, "good:2");
    world.run(20 * SECOND);
    let moved = (world.running_on(3), world.running_on(4));
    assert_eq!((running(&world, "good:2"), moved), (4, (2, 2)), "{}", world.tasks());
}

#[test]
fn room_for_more_on_each_node_restarts_nothing() {
    let mut world = World::new(2);
    let mut spec = updated(4, UpdateConfig::default());
    spec.task.placement.max_replicas_per_node = 1;
    let id = service(&mut world, spec);
    let ran: BTreeSet<_> = world
        .wanted()
        .into_iter()
        .filter(|task| task.status.state == TaskState::Running)
        .map(|task| task.id)
        .collect();
    assert_eq!(ran.len(), 2, "{}", world.tasks());
    world.update(&id, |spec| spec.task.placement.max_replicas_per_node = 2);
    world.run(20 * SECOND);
    assert_eq!(running(&world, "good:1"), 4, "{}", world.tasks());
    let wanted: BTreeSet<_> = world.wanted().into_iter().map(|task| task.id).collect();
    assert!(ran.is_subset(&wanted), "{}", world.tasks());
}

#[test]
fn what_no_node_takes_holds_up_nothing_else() {
    let mut world = World::new(3);
    let mut spec = updated(4, UpdateConfig::default());
    spec.task.reservations.memory_bytes = 3 << 30;
    let id = service(&mut world, spec);
    assert_eq!(running(&world, "good:1"), 3, "one has no room: {}", world.tasks());
    set_image(&mut world, &id, "good:2");
    world.run(60 * SECOND);
    assert_eq!(running(&world, "good:2"), 3, "{}", world.tasks());
    // It is waited for, but alone, and counts as late in the end.
    assert_eq!(state(&world, &id), UpdateState::Updating);
    world.run(600 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Paused);
}

#[test]
fn no_task_is_late_while_its_node_or_every_manager_is_away() {
    let mut world = World::new(1);
    let mut spec = updated(1, UpdateConfig::default());
    spec.update.failure_action = FailureAction::Rollback;
    spec.mode = Mode::Global;
    let id = service(&mut world, spec);
    set_image(&mut world, &id, "slow:2");
    world.run(5 * SECOND);
    world.cut(1);
    world.run(700 * SECOND);
    world.link(1);
    world.run(5 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Updating, "{}", world.tasks());
    world.pass_unled(700 * SECOND);
    world.fail_over(2);
    world.link(0);
    world.link(1);
    world.run(590 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Updating, "{}", world.tasks());
    // It has the whole of its time from then on, and no more.
    world.run(20 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::RollbackCompleted, "{}", world.tasks());
}

#[test]
fn force_and_other_preferences_even_out_a_service() {
    let counts = |world: &World| [1, 2, 3].map(|number| world.running_on(number));
    let mut world = World::new(3);
    for number in [2, 3] {
        world.set_availability(number, Availability::Pause);
    }
    let id = service(&mut world, updated(6, UpdateConfig::default()));
    for number in [2, 3] {
        world.set_availability(number, Availability::Active);
    }
    // An update as such replaces tasks where they are.
    set_image(&mut world, &id, "good:2");
    world.run(30 * SECOND);
    assert_eq!(counts(&world), [6, 0, 0], "{}", world.tasks());
    world.update(&id, |spec| spec.task.force_update += 1);
    world.run(30 * SECOND);
    assert_eq!(counts(&world), [2, 2, 2], "{}", world.tasks());
    // Nothing moves that need not.
    let places = |world: &World| {
        let mut places: Vec<_> =
            world.wanted().into_iter().map(|task| (task.slot, task.node)).collect();
        places.sort();
        places
    };
    let before = places(&world);
    world.update(&id, |spec| {
        spec.update.parallelism = 0;
        spec.task.force_update += 1;
    });
    world.run(30 * SECOND);
    assert_eq!(places(&world), before);
    for (number, zone) in [(1, "a"), (2, "b"), (3, "b")] {
        let labels = [("zone".to_owned(), zone.to_owned())];
        world.update_node(number, |spec| spec.labels.extend(labels));
    }
    let zone = "node.labels.zone".to_owned();
    world.update(&id, |spec| spec.task.placement.spread.push(zone));
    world.run(30 * SECOND);
    let [a, b, c] = counts(&world);
    assert_eq!((a, b + c), (3, 3), "{}", world.tasks());
}

#[test]
fn an_update_that_is_over_is_not_failed_by_what_comes_back_later() {
    let mut world = World::new(3);
    let mut spec = updated(1, UpdateConfig::default());
    spec.update.parallelism = 0;
    spec.update.failure_action = FailureAction::Rollback;
    spec.mode = Mode::Global;
    let id = service(&mut world, spec);
    world.set_availability(3, Availability::Pause);
    set_image(&mut world, &id, "good:2");
    // In the midst of it: a replacement is prepared there.
    world.set_availability(2, Availability::Pause);
    world.run(700 * SECOND);
    assert_eq!(state(&world, &id), UpdateState::Completed, "{}", world.tasks());
    world.set_availability(2, Availability::Active);
    world.set_availability(3, Availability::Active);
    world.run(60 * SECOND);
    assert_eq!(running(&world, "good:2"), 3, "{}", world.tasks());
    assert_eq!(state(&world, &id), UpdateState::Completed);
}

#[test]
fn a_global_service_starts_first_on_each_node() {
    let mut world = World::new(2);
    let mut spec = updated(1, UpdateConfig::default());
    spec.update = UpdateConfig { parallelism: 0, order: UpdateOrder::StartFirst, ..spec.update };
    spec.mode = Mode::Global;
    let id = service(&mut world, spec);
    set_image(&mut world, &id, "unwell:2");
    world.run(SECOND);
    assert_eq!(running(&world, "good:1"), 2, "{}", world.tasks());
    // A pause in the middle, and what is beside ends: the old task is kept.
    world.set_availability(1, Availability::Pause);
    let beside = world
        .wanted()
        .into_iter()
        .find(|task| task.overlap && task.node.as_ref().is_some_and(|node| *node == super::id(1)));
    let beside = beside.expect("one runs beside the old task").id;
    world.report(&beside, TaskState::Failed, "exit status 1");
    world.run(SECOND);
    assert_eq!(running(&world, "good:1"), 2, "{}", world.tasks());
}

#[test]
fn a_drain_starts_elsewhere_first_where_updates_do() {
    let mut world = World::new(2);
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut spec = updated(2, config);
    spec.task.reservations.memory_bytes = 3 << 30;
    service(&mut world, spec);
    world.set_availability(1, Availability::Drain);
    world.run(10 * SECOND);
    // No room: nothing is taken down, and it is said why.
    check(
        &world,
        expect![[r#"
        web.1 on 1: running/running ServiceScaled
        web.1 on -: running/pending NodeDrained (no suitable node (2 nodes not available for new tasks; insufficient resources on 1 node))
        web.2 on 2: running/running ServiceScaled
    "#]],
    );
    world.update_node(1, |spec| spec.availability = Availability::Active);
    world.run(SECOND);
    assert_eq!(world.wanted().len(), 2, "{}", world.tasks());
}

#[test]
fn a_new_task_waits_for_the_grace_of_the_old_one() {
    let mut world = World::new(1);
    let mut spec = updated(1, UpdateConfig::default());
    spec.task.container.image = "stuck:1".to_owned();
    spec.task.container.stop_grace = Some(120 * SECOND);
    let id = service(&mut world, spec);
    set_image(&mut world, &id, "good:2");
    world.run(129 * SECOND);
    assert_eq!(running(&world, "good:2"), 0, "{}", world.tasks());
    world.run(2 * SECOND);
    assert_eq!(running(&world, "good:2"), 1, "{}", world.tasks());
}

#[test]
fn what_ran_to_its_end_by_policy_is_still_updated() {
    let mut world = World::new(1);
    let mut spec = updated(2, UpdateConfig::default());
    spec.task.restart.condition = crate::types::RestartCondition::None;
    spec.task.container.image = "done:1".to_owned();
    let id = service(&mut world, spec);
    assert_eq!(world.wanted().len(), 0, "{}", world.tasks());
    set_image(&mut world, &id, "done:2");
    world.run(30 * SECOND);
    assert_eq!(made(&world, "done:2"), 2, "{}", world.tasks());
    assert_eq!(state(&world, &id), UpdateState::Completed);
    roll_back(&mut world, &id);
    world.run(30 * SECOND);
    assert_eq!(made(&world, "done:1"), 4, "each place once more: {}", world.tasks());
    assert_eq!(state(&world, &id), UpdateState::RollbackCompleted);
}

/// Asks why, with ids replaced by the names of tasks.
fn why(world: &World, query: &Query) -> String {
    let Ok(Response::Why(lines)) = world.read(query) else { panic!("no answer to {query:?}") };
    let mut text = lines.join("\n") + "\n";
    for task in world.state.tasks() {
        let name = format!("<{} of {}>", task.short_name(), task.spec.container.image);
        text = text.replace(task.id.as_str(), &name);
    }
    text
}

#[test]
fn why_says_what_an_update_waits_for() {
    let mut world = World::new(2);
    let config = UpdateConfig { progress_deadline: 90 * SECOND, ..UpdateConfig::default() };
    let id = service(&mut world, updated(2, config));
    set_image(&mut world, &id, "slow:2");
    world.run(10 * SECOND);
    let of_service = Query::WhyService { id: id.clone() };
    expect![[r#"
        web: a task runs in 2 of 2 places
        update in progress, begun 10 s ago
        of 2 places 0 run the new spec, 1 are under way, 2 run the old one
        waits for web.1, for another 80 s at most
        web.1 is assigned on node1 since 10 s
    "#]]
    .assert_eq(&why(&world, &of_service));
    let held = world.state.tasks().find(|task| task.desired == Desired::Ready);
    let held = held.expect("one is held").id.clone();
    expect![[r#"
        web.1 is assigned on node1 since 10 s
        made 10 s ago, since the service was updated
        <web.1 of good:1> runs on until this one is ready to take its place
        2 of 3 nodes pass every filter for it now: node1, node2
        1 node not available for new tasks: node0
    "#]]
    .assert_eq(&why(&world, &Query::WhyTask { id: held.clone() }));
    world.run(90 * SECOND);
    expect![[r#"
        web: a task runs in 2 of 2 places
        update paused due to failure or early termination of task <web.1 of slow:2>: it did not run within 90 s, begun 100 s ago
        failed in slot 1: web.1 was stopped on node1 10 s ago
        midge service update web tries again, midge service rollback web goes back
    "#]].assert_eq(&why(&world, &of_service));
    expect![[r#"
        web.1 was stopped on node1 10 s ago
        made 100 s ago, since the service was updated
    "#]]
    .assert_eq(&why(&world, &Query::WhyTask { id: held }));
    let gone = Query::WhyTask { id: crate::types::TaskId::from_bits(9) };
    assert!(world.read(&gone).is_err());
}

#[test]
fn why_says_which_filter_rejects_which_node() {
    let mut world = World::new(3);
    world.set_availability(3, Availability::Pause);
    let mut spec = updated(3, UpdateConfig::default());
    spec.task.reservations.memory_bytes = 3 << 30;
    let id = service(&mut world, spec);
    let pending = world.state.tasks().find(|task| task.status.state == TaskState::Pending);
    let pending = pending.expect("no room for the third").id.clone();
    expect![[r#"
        web.3 waits for a node since 1 s: no suitable node (2 nodes not available for new tasks; insufficient resources on 2 nodes)
        made 1 s ago, since the service wants so many tasks
        0 of 4 nodes pass every filter for it now
        2 nodes not available for new tasks: node0, node3
        insufficient resources on 2 nodes: node1, node2
    "#]].assert_eq(&why(&world, &Query::WhyTask { id: pending }));
    let first = world.wanted()[0].id.clone();
    world.report(&first, TaskState::Failed, "exit status 1");
    world.run(SECOND);
    expect![[r#"
        web: a task runs in 1 of 3 places
        web.2 is ready on node2 since 1 s
        web.3 waits for a node since 2 s: no suitable node (2 nodes not available for new tasks; insufficient resources on 2 nodes)
    "#]].assert_eq(&why(&world, &Query::WhyService { id }));
    expect![[r#"
        web.2 failed on node2 1 s ago: exit status 1
        made 2 s ago, since the service wants so many tasks
        its place was taken by <web.2 of good:1>: web.2 is ready on node2 since 1 s
    "#]]
    .assert_eq(&why(&world, &Query::WhyTask { id: first }));
}

/// What an update would do, in lines.
fn plan(world: &World, id: &ServiceId, change: impl FnOnce(&mut ServiceSpec)) -> String {
    let mut spec = Box::new(world.service(id).spec);
    change(&mut spec);
    let query = Query::PlanUpdate { id: id.clone(), version: world.service(id).version, spec };
    let Ok(Response::Plan(plan)) = world.read(&query) else { panic!("no plan") };
    let node = |id: &Option<crate::types::NodeId>| {
        id.as_ref()
            .map_or_else(|| "-".to_owned(), |id| id.as_str().trim_start_matches('0').to_owned())
    };
    let line = |it: &crate::cluster::PlannedTask| {
        format!("{:?} {} {}>{} {}\n", it.what, it.task, node(&it.from), node(&it.to), it.error)
    };
    plan.iter().map(line).collect()
}

#[test]
fn a_plan_says_what_goes_where_and_changes_nothing() {
    let mut world = World::new(3);
    let mut spec = updated(4, UpdateConfig::default());
    spec.task.reservations.memory_bytes = 1 << 30;
    let id = service(&mut world, spec);
    let before = world.state.clone();
    assert_eq!(plan(&world, &id, |_| {}), "");
    assert_eq!(plan(&world, &id, |spec| spec.update.parallelism = 9), "");
    // In place; and what no longer fits beside its like moves, or waits.
    expect![[r#"
        Replaced web.1 1>1 
        Replaced web.2 2>2 
        Replaced web.3 3>3 
        Replaced web.4 1>1 
    "#]]
    .assert_eq(&plan(&world, &id, |spec| spec.task.force_update += 1));
    expect![[r#"
        Replaced web.1 1>1 
        Replaced web.2 2>2 
        Replaced web.3 3>3 
        Replaced web.4 1>- no suitable node (insufficient resources on 3 nodes; 1 node not available for new tasks)
    "#]].assert_eq(&plan(&world, &id, |spec| {
        spec.task.reservations.memory_bytes = 3 << 30;
    }));
    expect![[r#"
        Replaced web.1 1>3 
        Replaced web.2 2>1 
        Ended web.4 1>- 
        Ended web.3 3>- 
    "#]]
    .assert_eq(&plan(&world, &id, |spec| {
        spec.mode = Mode::Replicated { replicas: 2 };
        spec.update.order = UpdateOrder::StartFirst;
        spec.task.container.image = "good:2".to_owned();
    }));
    expect![[r#"
        Made web.5 ->2 
        Made web.6 ->3 
    "#]]
    .assert_eq(&plan(&world, &id, |spec| {
        spec.mode = Mode::Replicated { replicas: 6 };
    }));
    let nowhere = Constraint::parse("node.labels.none==x").expect("a constraint");
    expect![[r#"
        Replaced web.1 1>- no suitable node (scheduling constraints not satisfied on 3 nodes; 1 node not available for new tasks)
        Replaced web.2 2>- no suitable node (scheduling constraints not satisfied on 3 nodes; 1 node not available for new tasks)
        Replaced web.3 3>- no suitable node (scheduling constraints not satisfied on 3 nodes; 1 node not available for new tasks)
        Replaced web.4 1>- no suitable node (scheduling constraints not satisfied on 3 nodes; 1 node not available for new tasks)
    "#]].assert_eq(&plan(&world, &id, |spec| {
        spec.task.placement.constraints.push(nowhere);
        spec.update.parallelism = 0;
    }));
    assert_eq!(world.state, before);
    // And it comes to pass as it was planned.
    let planned = plan(&world, &id, |spec| spec.task.container.image = "good:2".to_owned());
    set_image(&mut world, &id, "good:2");
    world.run(30 * SECOND);
    for task in world.wanted() {
        let node = task.node.as_ref().expect("it runs").as_str().trim_start_matches('0').to_owned();
        let line = format!("{:?} {} {node}>{node} ", Planned::Replaced, task.short_name());
        assert!(planned.lines().any(|planned| planned == line), "{line}: {planned}");
    }
}
