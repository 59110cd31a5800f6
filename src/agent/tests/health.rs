//! Health checks: what a task is while its container is found out.

use super::*;
use crate::types::{HealthCheck, HealthState, HealthTest};

/// A task whose container is probed every ten seconds and may fail once.
fn checked(n: u128) -> Task {
    let mut task = task(n, Desired::Running);
    task.spec_mut().container.health = Some(HealthCheck {
        test: HealthTest::Command(vec!["test".into()]),
        interval: Duration::from_secs(10),
        retries: 2,
        ..HealthCheck::default()
    });
    task
}

/// Returns the last probe that the actions ask for.
fn probe_of(actions: &[Action]) -> Option<(TaskId, u64)> {
    actions.iter().rev().find_map(|action| match action {
        Action::Perform(Operation::Probe { task, number, .. }) => Some((task.clone(), *number)),
        _ => None,
    })
}

fn result(code: i32) -> Result<ProbeResult, Failure> {
    let output = if code == 0 { "" } else { "no route to host\nsecond line" };
    Ok(ProbeResult { code: Some(code), output: output.into() })
}

impl Bench {
    fn start(&mut self, n: u128) {
        self.step(Event::Prepared { task: id(n), result: Ok(made()) });
        self.step(Event::Started { task: id(n), result: Ok((42, Vec::new())) });
    }

    /// Lets `wait` pass, in which the next probe begins; answers it.
    fn probe(&mut self, wait: u64, code: i32) -> Vec<Action> {
        let actions = self.wait(Duration::from_secs(wait));
        let (task, number) = probe_of(&actions).expect("a probe begins");
        self.step(Event::Probed { task, number, result: result(code) })
    }
}

fn starting() -> Bench {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![checked(1)]);
    bench.start(1);
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
    bench
}

#[test]
fn a_task_runs_once_a_probe_has_succeeded() {
    let mut bench = starting();
    let actions = show(&bench.wait(Duration::from_secs(9)));
    assert!(!actions.contains("probe"), "{actions}");
    bench.probe(1, 1);
    let told = "health check: no route to host";
    assert_eq!(bench.state(1), Some((TaskState::Starting, told)));
    let actions = show(&bench.probe(10, 0));
    assert!(actions.starts_with("persist note 1 running"), "{actions}");
    assert!(actions.contains("tell 1 healthy"), "{actions}");
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
    let health = bench.agent.health(&id(1)).expect("it is probed");
    assert_eq!((health.state, health.log.len()), (HealthState::Healthy, 2));
}

#[test]
fn without_a_check_it_runs_at_once_whatever_the_image_says() {
    let check = |test| Some(HealthCheck { test, ..HealthCheck::default() });
    let image = ImageHealth { check: check(HealthTest::Shell("x".into())), shell: Vec::new() };
    for (spec, state) in
        [(None, TaskState::Starting), (check(HealthTest::Disabled), TaskState::Running)]
    {
        let mut bench = Bench::online(Vec::new(), Vec::new());
        let mut one = task(1, Desired::Running);
        one.spec_mut().container.health = spec;
        bench.assign(true, vec![one]);
        let made = Prepared { health: image.clone(), ..made() };
        bench.step(Event::Prepared { task: id(1), result: Ok(made) });
        bench.step(Event::Started { task: id(1), result: Ok((42, Vec::new())) });
        assert_eq!(bench.state(1), Some((state, "")));
    }
}

#[test]
fn an_unhealthy_container_is_stopped_and_its_task_has_failed() {
    // Before it ever ran, and after.
    for well in [false, true] {
        let mut bench = starting();
        if well {
            bench.probe(10, 0);
        }
        bench.probe(10, 7);
        let actions = show(&bench.probe(10, 7));
        assert!(actions.contains("tell 1 unhealthy"), "{actions}");
        assert!(actions.contains("stop 1 10s"), "{actions}");
        assert!(bench.state(1).is_some_and(|(state, _)| state.is_live()));
        // However it ends then, it has failed.
        bench.exit(1, 0);
        let error = "unhealthy container: no route to host";
        assert_eq!(bench.state(1), Some((TaskState::Failed, error)));
        assert_eq!(bench.agent.health(&id(1)), None);
        let later = show(&bench.wait(Duration::from_secs(60)));
        assert!(!later.contains("probe"), "{later}");
    }
}

#[test]
fn a_stop_that_fails_is_tried_again() {
    let mut bench = starting();
    bench.probe(10, 7);
    bench.probe(10, 7);
    bench.step(Event::StopFailed { task: id(1), failure: failure(true) });
    let actions = show(&bench.wait(Duration::from_secs(1)));
    assert!(actions.contains("stop 1"), "{actions}");
    bench.exit(1, 143);
    let error = "unhealthy container: no route to host";
    assert_eq!(bench.state(1), Some((TaskState::Failed, error)));
}

#[test]
fn one_that_ends_while_it_is_probed_ended_by_itself() {
    let mut bench = starting();
    let (task, number) = probe_of(&bench.wait(Duration::from_secs(10))).expect("a probe");
    bench.exit(1, 3);
    bench.step(Event::Probed { task, number, result: result(0) });
    assert_eq!(bench.state(1), Some((TaskState::Failed, "task: non-zero exit (3)")));
}

#[test]
fn one_that_is_to_stop_is_not_probed_and_not_failed() {
    let mut bench = starting();
    let (task, number) = probe_of(&bench.wait(Duration::from_secs(10))).expect("a probe");
    let mut stop = checked(1);
    stop.desired = Desired::Shutdown;
    let actions = show(&bench.assign(false, vec![stop]));
    assert!(actions.contains("stop 1"), "{actions}");
    bench.step(Event::Probed { task, number, result: result(0) });
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
    bench.exit(1, 143);
    assert_eq!(bench.state(1), Some((TaskState::Shutdown, "")));
}

#[test]
fn an_agent_that_starts_anew_finds_out_anew() {
    let running = || StoredTask { task: checked(1), ..stored(1, TaskState::Running) };
    let (mut bench, _) = Bench::new(vec![running()]);
    bench.inventory(vec![observed(1, super::running())]);
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
    // The first probe is not held against it, the next two are.
    bench.probe(10, 1);
    assert_eq!(bench.agent.health(&id(1)).map(|health| health.streak), Some(0));
    bench.probe(10, 1);
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
    assert!(show(&bench.probe(10, 1)).contains("stop 1"));
    // One that was not known to be well is not taken for it.
    let assigned = StoredTask { task: checked(1), ..stored(1, TaskState::Assigned) };
    let (mut bench, _) = Bench::new(vec![assigned]);
    bench.inventory(vec![observed(1, super::running())]);
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
    bench.probe(10, 0);
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
}

#[test]
fn while_containerd_is_away_nothing_is_probed() {
    let mut bench = starting();
    bench.step(Event::RuntimeLost);
    let actions = show(&bench.wait(Duration::from_secs(60)));
    assert!(!actions.contains("probe"), "{actions}");
    bench.step(Event::RuntimeFound);
    let actions = bench.inventory(vec![observed(1, running())]);
    let (task, number) = probe_of(&actions).expect("a probe begins");
    let away = Err(failure(true));
    bench.step(Event::Probed { task, number, result: away });
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
}

#[test]
fn probes_are_spread_and_few_at_once() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, (1..=20).map(checked).collect());
    for _ in 0..20 {
        for n in 1..=20 {
            bench.start(n);
        }
    }
    bench.wait(Duration::from_secs(9));
    let mut under_way = Vec::new();
    let mut last = None;
    for _ in 0..2_000 {
        let Some(next) = bench.agent.next_deadline().filter(|at| *at > bench.now) else { break };
        if next.since(Moment::ZERO) > Duration::from_secs(14) {
            break;
        }
        bench.now = next;
        let actions = bench.step(Event::Tick);
        let probes = actions
            .iter()
            .filter(|action| matches!(action, Action::Perform(Operation::Probe { .. })));
        assert!(probes.count() <= 1, "one at a time");
        if let Some(probe) = probe_of(&actions) {
            let gap = last.map(|last| bench.now.since(last));
            assert!(gap.is_none_or(|gap| gap >= Duration::from_millis(100)), "{gap:?}");
            last = Some(bench.now);
            under_way.push(probe);
        }
    }
    assert_eq!(under_way.len(), PROBES_MAX, "as many as may run at once, and no more");
    let (task, number) = under_way.pop().expect("one");
    let actions = bench.step(Event::Probed { task: task.clone(), number, result: result(0) });
    let (next, _) = probe_of(&actions).expect("the next one begins");
    assert_ne!(next, task);
}
