//! Local restarts.

use super::*;
use crate::types::RestartCondition;

fn offline_with(change: impl Fn(&mut Task)) -> Bench {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    let mut one = task(1, Desired::Running);
    change(&mut one);
    bench.assign(true, vec![one]);
    bench.run(1);
    bench.step(Event::Disconnected);
    bench
}

/// Runs the clock on until `limit`, deadline by deadline; every container that starts ends at once
/// with 1. Returns when each preparation began, in seconds.
fn fail_always(bench: &mut Bench, limit: u64) -> Vec<u64> {
    let mut at = Vec::new();
    let mut todo = Vec::new();
    for _ in 0..10_000 {
        while let Some(action) = todo.pop() {
            let event = match action {
                Action::Perform(Operation::Prepare { task }) => {
                    at.push(bench.now.since_origin().as_secs());
                    Event::Prepared { task: task.id.clone(), result: Ok(made()) }
                }
                Action::Perform(Operation::Start { task }) => {
                    let started = Ok((1, Vec::new()));
                    todo.extend(
                        bench.step(Event::Started { task: task.id.clone(), result: started }),
                    );
                    Event::Exited { task: task.id.clone(), phase: exited(Some(1)) }
                }
                Action::Perform(Operation::Remove { task }) => {
                    Event::Removed { task, result: Ok(()) }
                }
                _ => continue,
            };
            todo.extend(bench.step(event));
        }
        let Some(next) = bench.agent.next_deadline() else { return at };
        assert!(next > bench.now, "the clock must go on");
        if next.since_origin().as_secs() > limit {
            return at;
        }
        bench.now = next;
        todo.extend(bench.step(Event::Tick));
    }
    panic!("the agent spins");
}

#[test]
fn without_a_manager_the_node_restarts_with_doubling_delay() {
    let mut bench = offline_with(|_| {});
    bench.exit(1, 1);
    assert_eq!(fail_always(&mut bench, 700), vec![30, 40, 60, 100, 180, 340, 640]);
    // The history has an end.
    let local = bench.agent.tasks().filter(|(task, _)| task.failures > 0).count();
    assert!(local <= LOCAL_HISTORY_MAX + 1, "{local}");
    // What is left of it follows the task that the manager knows, one after the other.
    bench.step(Event::Described { description: Box::default(), images: Vec::new() });
    let actions = bench.step(Event::Connected);
    let register = actions.iter().find_map(|action| match action {
        Action::Send(FromWorker::Register(register)) => Some(register),
        _ => None,
    });
    let successors = &register.expect("it registers").successors;
    assert!(successors.len() > LOCAL_HISTORY_MAX, "{}", successors.len());
    let mut before = id(1);
    for made in successors {
        assert_eq!(made.task.predecessor.as_ref(), Some(&before));
        before.clone_from(&made.task.id);
    }
}

#[test]
fn the_policy_is_respected() {
    let never = |task: &mut Task| task.spec_mut().restart.condition = RestartCondition::None;
    let mut bench = offline_with(never);
    bench.exit(1, 1);
    assert_eq!(fail_always(&mut bench, 1_000), Vec::<u64>::new());

    let failed = |task: &mut Task| task.spec_mut().restart.condition = RestartCondition::OnFailure;
    let mut bench = offline_with(failed);
    bench.exit(1, 0);
    assert_eq!(fail_always(&mut bench, 1_000), Vec::<u64>::new());

    let mut bench = offline_with(|task| task.spec_mut().restart.max_attempts = 2);
    bench.exit(1, 1);
    assert_eq!(fail_always(&mut bench, 5_000), vec![30, 40]);

    let mut bench = offline_with(|task| {
        task.spec_mut().restart.max_attempts = 2;
        task.spec_mut().restart.window = Duration::from_secs(1_000);
    });
    bench.exit(1, 1);
    assert_eq!(fail_always(&mut bench, 2_500), vec![30, 40, 1_030, 1_070, 2_030, 2_190]);
}

#[test]
fn a_manager_that_answers_in_time_decides() {
    let mut bench = offline_with(|_| {});
    bench.exit(1, 1);
    bench.wait(Duration::from_secs(29));
    bench.connect();
    let actions = bench.wait(Duration::from_secs(2));
    assert!(!show(&actions).contains("prepare"));
}

fn restarted() -> (Bench, Task) {
    let mut bench = offline_with(|_| {});
    bench.exit(1, 1);
    let actions = bench.wait(Duration::from_secs(30));
    let prepared = actions.iter().find_map(|action| match action {
        Action::Perform(Operation::Prepare { task }) => Some((**task).clone()),
        _ => None,
    });
    let next = prepared.expect("a successor");
    assert_eq!((next.slot, next.predecessor.clone(), next.failures), (1, Some(id(1)), 1));
    bench.step(Event::Prepared { task: next.id.clone(), result: Ok(made()) });
    bench.step(Event::Started { task: next.id.clone(), result: Ok((43, Vec::new())) });
    (bench, next)
}

#[test]
fn the_manager_adopts_the_successor_undisturbed() {
    let (mut bench, next) = restarted();
    bench.step(Event::Connected);
    let session = bench.session;
    let heartbeat = Duration::from_secs(1);
    bench.step(Event::Message(FromManager::Registered { session, heartbeat }));
    bench.number = 0;
    let old = task(1, Desired::Shutdown);
    let actions = show(&bench.assign(true, vec![old, next.clone()]));
    assert!(!actions.contains("stop") && !actions.contains("prepare"), "{actions}");
    let taken = FromManager::ReportTaken { session, number: 1 };
    let actions = show(&bench.step(Event::Message(taken)));
    assert!(actions.contains("running \"started\""), "its state is news: {actions}");
}

#[test]
fn a_successor_whose_slot_was_filled_is_stopped() {
    let (mut bench, next) = restarted();
    let actions = show(&bench.step(Event::Connected));
    assert!(actions.contains("register 2+1"), "{actions}");
    let session = bench.session;
    let heartbeat = Duration::from_secs(1);
    bench.step(Event::Message(FromManager::Registered { session, heartbeat }));
    bench.number = 0;
    let actions = show(&bench.assign(true, Vec::new()));
    assert!(actions.contains(&format!("stop {}", tail(&next.id))), "{actions}");
}

#[test]
fn after_a_power_cut_tasks_come_back_without_a_manager() {
    let (mut bench, _) = Bench::new(vec![stored(1, TaskState::Running)]);
    bench.inventory(vec![observed(1, exited(None))]);
    assert_eq!(bench.state(1), Some((TaskState::Failed, "exit status lost")));
    assert!(!show(&bench.wait(Duration::from_secs(29))).contains("prepare"));
    let actions = show(&bench.wait(Duration::from_secs(1)));
    assert!(actions.starts_with("persist ") && actions.contains("prepare 1"), "{actions}");
}

#[test]
fn a_successor_has_the_same_id_whoever_computes_it() {
    let (_, a) = restarted();
    let (_, b) = restarted();
    assert_eq!(a.id, b.id);
    assert_eq!(a.id.as_str(), "cenlgo4zq7jok57jd8yr3xhgv");
}

#[test]
fn a_held_replacement_is_released_once_its_predecessor_ended() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    let mut next = task(2, Desired::Ready);
    next.slot = 1;
    next.predecessor = Some(id(1));
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    bench.exit(1, 1);
    bench.assign(false, vec![task(1, Desired::Shutdown), next]);
    bench.step(Event::Prepared { task: id(2), result: Ok(made()) });
    bench.step(Event::Disconnected);
    assert!(!show(&bench.wait(Duration::from_secs(29))).contains("start"));
    assert!(show(&bench.wait(Duration::from_secs(1))).contains("start 1"));
}

#[test]
fn an_answer_to_a_register_without_the_successor_is_not_heard() {
    let mut bench = offline_with(|_| {});
    bench.exit(1, 1);
    // The register goes out just before the successor is made; its answer comes after.
    bench.now = bench.now + OFFLINE_AFTER - Duration::from_millis(100);
    bench.step(Event::Connected);
    let before = bench.session;
    let mut actions = bench.wait(Duration::from_millis(200));
    for _ in 0..5 {
        actions.extend(bench.wait(Duration::from_secs(1)));
    }
    let prepared = |action: &Action| match action {
        Action::Perform(Operation::Prepare { task }) => Some(task.id.clone()),
        _ => None,
    };
    let next = actions.iter().find_map(prepared).expect("a successor is made");
    assert_ne!(bench.session, before, "it registers anew, with its successor");
    bench.step(Event::Prepared { task: next.clone(), result: Ok(made()) });
    bench.step(Event::Started { task: next.clone(), result: Ok((43, Vec::new())) });
    let heartbeat = Duration::from_millis(1_500);
    bench.step(Event::Message(FromManager::Registered { session: before, heartbeat }));
    let sequence = Sequence { epoch: 1, term: 2, number: 1 };
    let set = Assignments {
        session: before,
        sequence,
        complete: true,
        tasks: Vec::new(),
        removed: Vec::new(),
        images: None,
    };
    let actions = bench.step(Event::Message(FromManager::Assignments(Box::new(set))));
    let stops =
        actions.iter().any(|action| matches!(action, Action::Perform(Operation::Stop { .. })));
    assert!(!stops, "{actions:?}");
    assert!(bench.agent.tasks().any(|(task, status)| {
        task.id == next && status.state == TaskState::Running && task.desired == Desired::Running
    }));
}
