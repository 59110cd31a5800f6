//! Tasks of jobs: they start, end, and are run again only where they failed.

use super::*;

fn job(n: u128, desired: Desired) -> Task {
    let mut task = task(n, desired);
    task.job_iteration = Some(3);
    task
}

fn begun() -> Bench {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![job(1, Desired::Complete)]);
    bench.run(1);
    bench
}

#[test]
fn a_task_that_is_to_come_to_its_end_starts_at_once_and_a_held_one_waits() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![job(1, Desired::Complete), job(2, Desired::Ready)]);
    for n in 1..=2 {
        bench.step(Event::Prepared { task: id(n), result: Ok(super::made()) });
    }
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
    assert_eq!(bench.state(2), Some((TaskState::Ready, "")));
    let actions = show(&bench.assign(false, vec![job(2, Desired::Complete)]));
    assert!(actions.contains("start 2"), "{actions}");
}

#[test]
fn what_came_to_its_end_is_never_run_again() {
    let mut bench = begun();
    bench.step(Event::Disconnected);
    bench.exit(1, 0);
    assert_eq!(bench.state(1), Some((TaskState::Complete, "")));
    for _ in 0..20 {
        let actions = show(&bench.wait(Duration::from_secs(60)));
        assert!(!actions.contains("prepare"), "the condition is any: {actions}");
    }
    // Neither does the manager's set, nor another life of the agent, begin it once more.
    bench.connect();
    let actions = show(&bench.assign(true, vec![job(1, Desired::Complete)]));
    assert!(!actions.contains("prepare") && !actions.contains("remove"), "{actions}");
    let mut ended = stored(1, TaskState::Complete);
    ended.task = job(1, Desired::Complete);
    let (mut bench, _) = Bench::new(vec![ended]);
    bench.inventory(Vec::new());
    let actions = show(&bench.wait(Duration::from_secs(100)));
    assert!(!actions.contains("prepare"), "{actions}");
}

#[test]
fn what_failed_is_run_again_without_a_manager() {
    let mut bench = begun();
    bench.step(Event::Disconnected);
    bench.exit(1, 3);
    let actions = bench.wait(Duration::from_secs(30));
    let prepared = actions.iter().find_map(|action| match action {
        Action::Perform(Operation::Prepare { task }) => Some((**task).clone()),
        _ => None,
    });
    let next = prepared.expect("a successor");
    assert_eq!((next.desired, next.job_iteration), (Desired::Complete, Some(3)));
    bench.step(Event::Prepared { task: next.id.clone(), result: Ok(super::made()) });
    bench.step(Event::Started { task: next.id.clone(), result: Ok((43, Vec::new())) });
    bench.step(Event::Exited { task: next.id, phase: exited(Some(0)) });
    let actions = show(&bench.wait(Duration::from_secs(600)));
    assert!(!actions.contains("prepare"), "now it is done: {actions}");
}

#[test]
fn a_slot_that_another_task_did_is_not_filled_again() {
    let mut bench = begun();
    let mut other = job(2, Desired::Complete);
    other.slot = 1;
    bench.assign(false, vec![other]);
    bench.run(2);
    bench.exit(2, 0);
    bench.step(Event::Disconnected);
    bench.exit(1, 1);
    let actions = show(&bench.wait(Duration::from_secs(600)));
    assert!(!actions.contains("prepare"), "{actions}");
}

#[test]
fn what_is_told_to_stop_has_not_come_to_its_end() {
    let mut bench = begun();
    let actions = show(&bench.assign(false, vec![job(1, Desired::Shutdown)]));
    assert!(actions.contains("stop 1"), "{actions}");
    bench.exit(1, 0);
    assert_eq!(bench.state(1), Some((TaskState::Shutdown, "")));
}
