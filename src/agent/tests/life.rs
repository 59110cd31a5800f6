//! One task's life, adoption, sessions.

use super::*;
use crate::types::HeldImage;
use expect_test::{Expect, expect};

fn check(actions: &[Action], expected: Expect) {
    expected.assert_eq(&show(actions));
}

fn taken(bench: &Bench, number: u64) -> Event {
    Event::Message(FromManager::ReportTaken { session: bench.session, number })
}

#[test]
fn a_task_is_prepared_started_and_ends() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    check(
        &bench.assign(true, vec![task(1, Desired::Running)]),
        expect![[r#"
        persist 1 assigned running, sequence 1
        prepare 1
        send report #1 1 preparing "preparing"
    "#]],
    );
    check(
        &bench.step(Event::Prepared { task: id(1), result: Ok(made()) }),
        expect![[r#"
        start 1
    "#]],
    );
    check(
        &bench.step(taken(&bench, 1)),
        expect![[r#"
        send report #2 1 starting "starting"
    "#]],
    );
    check(
        &bench.step(Event::Started { task: id(1), result: Ok((42, Vec::new())) }),
        expect![[r#"
            persist note 1 running
        "#]],
    );
    check(
        &bench.step(taken(&bench, 2)),
        expect![[r#"
        send report #3 1 running "started"
    "#]],
    );
    check(
        &bench.exit(1, 7),
        expect![[r#"
        persist 1 failed running, sequence 1
    "#]],
    );
    check(
        &bench.step(taken(&bench, 3)),
        expect![[r#"
        send report #4 1 failed "started": task: non-zero exit (7)
    "#]],
    );
    check(&bench.step(taken(&bench, 4)), expect![[r#""#]]);
    assert_eq!(bench.state(1), Some((TaskState::Failed, "task: non-zero exit (7)")));
    // Its container is history until the manager forgets the task.
    let gone = bench.set(false, Vec::new(), vec![id(1)]);
    check(
        &bench.step(Event::Message(FromManager::Assignments(Box::new(gone)))),
        expect![[r#"
        remove 1
    "#]],
    );
    check(
        &bench.step(Event::Removed { task: id(1), result: Ok(()) }),
        expect![[r#"
        persist -1, sequence 2
    "#]],
    );
    assert_eq!(bench.state(1), None);
}

#[test]
fn a_held_task_waits_prepared() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Ready)]);
    let actions = bench.step(Event::Prepared { task: id(1), result: Ok(made()) });
    assert!(!show(&actions).contains("start"));
    assert_eq!(bench.state(1), Some((TaskState::Ready, "")));
    assert!(show(&bench.assign(false, vec![task(1, Desired::Running)])).contains("start 1"));
}

#[test]
fn a_stop_is_told_from_a_failure() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    assert!(show(&bench.assign(false, vec![task(1, Desired::Shutdown)])).contains("stop 1 10s"));
    let retry = bench.step(Event::StopFailed { task: id(1), failure: failure(true) });
    assert!(!show(&retry).contains("stop 1"));
    assert!(show(&bench.wait(Duration::from_secs(1))).contains("stop 1"));
    bench.exit(1, 143);
    assert_eq!(bench.state(1), Some((TaskState::Shutdown, "")));
}

#[test]
fn preparations_are_cancelled() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    assert!(show(&bench.assign(false, vec![task(1, Desired::Shutdown)])).contains("remove 1"));
    assert_eq!(bench.state(1), Some((TaskState::Shutdown, "")));
    bench.step(Event::Prepared { task: id(1), result: Ok(made()) });
    let actions = bench.step(Event::Removed { task: id(1), result: Err(failure(true)) });
    assert!(!show(&actions).contains("remove"));
    assert!(show(&bench.wait(Duration::from_secs(1))).contains("remove 1"));
}

#[test]
fn temporary_failures_back_off_and_permanent_ones_reject() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench.step(Event::Prepared { task: id(1), result: Err(failure(true)) });
        assert_eq!(bench.state(1), Some((TaskState::Preparing, "No such image: bb:1")));
        let early = bench.wait(Duration::from_secs(wait) - Duration::from_millis(1));
        assert!(!show(&early).contains("prepare"), "{wait}");
        assert!(show(&bench.wait(Duration::from_millis(1))).contains("prepare 1"), "{wait}");
    }
    bench.step(Event::Prepared { task: id(1), result: Err(failure(false)) });
    assert_eq!(bench.state(1), Some((TaskState::Rejected, "No such image: bb:1")));
}

#[test]
fn only_so_many_are_prepared_at_once() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    let actions = bench.assign(true, (1..=9).map(|n| task(n, Desired::Running)).collect());
    let prepares = |actions: &[Action]| show(actions).matches("prepare ").count();
    assert_eq!(prepares(&actions), PREPARES_MAX);
    let next = bench.step(Event::Prepared { task: id(1), result: Ok(made()) });
    assert_eq!(prepares(&next), 1);
}

#[test]
fn what_runs_is_adopted_without_a_restart() {
    let kept = vec![
        stored(1, TaskState::Running),
        stored(2, TaskState::Running),
        stored(3, TaskState::Running),
        stored(4, TaskState::Assigned),
        stored(5, TaskState::Assigned),
    ];
    let (mut bench, first) = Bench::new(kept);
    check(
        &first,
        expect![[r#"
        inventory
    "#]],
    );
    let containers = vec![
        observed(1, running()),
        observed(2, exited(Some(7))),
        observed(4, running()),
        observed(5, Phase::Created),
        observed(6, running()),
    ];
    check(
        &bench.inventory(containers),
        expect![[r#"
            persist 2 failed running, 3 failed running, sequence 0, note 1 running, note 4 running
            remove 3
            prepare 5
        "#]],
    );
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
    assert_eq!(bench.state(2), Some((TaskState::Failed, "task: non-zero exit (7)")));
    assert_eq!(bench.state(3), Some((TaskState::Failed, "exit status lost")));
    assert_eq!(bench.state(4), Some((TaskState::Running, "")));
    // What nobody knows goes only once the manager has said what there is.
    let tasks = (1..=5).map(|n| task(n, Desired::Running)).collect();
    bench.connect();
    let actions = show(&bench.assign(true, tasks));
    assert!(actions.contains("stop 6"), "{actions}");
    assert_eq!(actions.matches("stop").count(), 1, "{actions}");
    assert!(show(&bench.exit(6, 0)).contains("remove 6"));
}

#[test]
fn a_node_that_lost_its_disk_adopts_what_is_assigned() {
    let mut bench = Bench::online(Vec::new(), vec![observed(1, running())]);
    let actions = show(&bench.assign(true, vec![task(1, Desired::Running)]));
    assert!(!actions.contains("prepare") && !actions.contains("stop"), "{actions}");
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
}

#[test]
fn sets_out_of_place_stop_nothing() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    let good = bench.set(true, Vec::new(), Vec::new());
    let at = |number| Sequence { number, ..good.sequence };
    for wrong in [
        Assignments { session: good.session + 1, ..good.clone() },
        Assignments { sequence: at(1), ..good.clone() },
        Assignments { sequence: Sequence { epoch: 0, ..good.sequence }, ..good.clone() },
        Assignments { complete: false, removed: vec![id(1)], sequence: at(3), ..good.clone() },
        Assignments { complete: false, removed: vec![id(1)], sequence: at(1), ..good.clone() },
    ] {
        let actions = bench.step(Event::Message(FromManager::Assignments(Box::new(wrong))));
        assert!(actions.is_empty(), "{}", show(&actions));
    }
    let actions = bench.step(Event::Message(FromManager::Assignments(Box::new(good))));
    assert!(show(&actions).contains("stop 1"));
}

#[test]
fn a_silent_manager_is_given_up() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, Vec::new());
    let mut said = String::new();
    for _ in 0..4 {
        let wait = bench.agent.next_deadline().unwrap().since(bench.now);
        said += &show(&bench.wait(wait));
    }
    expect![[r#"
        send heartbeat 1
        send heartbeat 1
        send heartbeat 1
        reconnect: the manager does not answer heartbeats
    "#]]
    .assert_eq(&said);
    assert_eq!(bench.agent.session(), None);
}

#[test]
fn an_idle_agent_only_beats() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    for number in 1..9 {
        bench.step(taken(&bench, number));
    }
    for _ in 0..100 {
        let wait = bench.agent.next_deadline().unwrap().since(bench.now);
        assert_eq!(show(&bench.wait(wait)), "send heartbeat 1\n");
        let heartbeat = Duration::from_millis(1_500);
        let beat = FromManager::Beat { session: bench.session, heartbeat };
        assert!(bench.step(Event::Message(beat)).is_empty());
    }
}

#[test]
fn a_shorter_period_begins_at_once() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, Vec::new());
    let beat = |bench: &Bench, seconds| {
        let heartbeat = Duration::from_secs(seconds);
        Event::Message(FromManager::Beat { session: bench.session, heartbeat })
    };
    let long = beat(&bench, 30);
    bench.step(long);
    let wait = |bench: &Bench| bench.agent.next_deadline().unwrap().since(bench.now);
    let first = wait(&bench);
    bench.wait(first);
    assert_eq!(wait(&bench), Duration::from_secs(30));
    let short = beat(&bench, 2);
    bench.step(short);
    assert_eq!(wait(&bench), Duration::from_secs(2));
}

#[test]
fn an_unknown_session_is_begun_anew() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    let old = bench.session;
    let actions = bench.step(Event::Message(FromManager::NoSession { session: old }));
    check(
        &actions,
        expect![[r#"
        send register 0+0
    "#]],
    );
    assert_ne!(bench.session, old);
    let again = bench.step(Event::Message(FromManager::NoSession { session: old }));
    assert!(again.is_empty());
}

#[test]
fn a_removed_node_clears_everything_away() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    let mut said = show(&bench.step(Event::Message(FromManager::Removed)));
    said += &show(&bench.exit(1, 0));
    said += &show(&bench.step(Event::Removed { task: id(1), result: Ok(()) }));
    expect![[r#"
        stop 1 10s
        persist 1 shutdown running, sequence 1
        remove 1
        persist -1, sequence 1
        retire: removed from the cluster
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_cloned_disk_changes_nothing_and_waits() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    let duplicate = FromManager::Duplicate { holder: "pi-2".into() };
    check(
        &bench.step(Event::Message(duplicate)),
        expect![[r#"
        reconnect: this node's key is in use on pi-2: is this disk a copy of that one's?
    "#]],
    );
    assert!(!show(&bench.step(Event::Connected)).contains("register"));
    assert!(show(&bench.wait(Duration::from_secs(60))).contains("register"));
}

#[test]
fn a_lost_runtime_is_waited_for() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.run(1);
    assert_eq!(show(&bench.step(Event::RuntimeLost)), "");
    let actions = show(&bench.assign(false, vec![task(2, Desired::Running)]));
    assert!(!actions.contains("prepare"), "{actions}");
    let containers = vec![observed(1, running())];
    assert_eq!(show(&bench.step(Event::RuntimeFound)), "inventory\n");
    let actions = show(&bench.inventory(containers));
    assert!(actions.contains("prepare 2"), "{actions}");
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
}

#[test]
fn an_inventory_says_nothing_of_what_came_after_it() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running)]);
    bench.step(Event::RuntimeLost);
    bench.step(Event::RuntimeFound);
    bench.step(Event::Prepared { task: id(1), result: Ok(made()) });
    // Taken before the container was made, told after.
    bench.inventory(Vec::new());
    assert_eq!(bench.state(1), Some((TaskState::Starting, "")));
    let old = bench.step(Event::Started { task: id(1), result: Ok((42, Vec::new())) });
    assert!(!show(&old).contains("prepare"));
    assert_eq!(bench.state(1), Some((TaskState::Running, "")));
}

#[test]
fn an_old_inventory_that_comes_late_ends_nothing() {
    let mut bench = Bench::online(Vec::new(), Vec::new());
    bench.assign(true, vec![task(1, Desired::Running), task(2, Desired::Running)]);
    bench.run(1);
    bench.step(Event::RuntimeLost);
    bench.step(Event::RuntimeFound);
    let first = bench.asked;
    bench.step(Event::Prepared { task: id(2), result: Ok(made()) });
    // It takes so long that another is asked for; meanwhile the second container starts.
    let actions = show(&bench.wait(Duration::from_secs(10)));
    assert!(actions.contains("inventory"), "{actions}");
    let before = vec![observed(1, running())];
    bench.step(Event::Inventory { asked: first, containers: before.clone() });
    bench.step(Event::Started { task: id(2), result: Ok((43, Vec::new())) });
    bench.step(Event::Inventory { asked: first, containers: before });
    assert_eq!(bench.state(2), Some((TaskState::Running, "")));
    // One that was asked for before the runtime was lost says nothing at all.
    bench.step(Event::RuntimeLost);
    let actions = show(&bench.inventory(vec![observed(1, running())]));
    assert_eq!(bench.state(2), Some((TaskState::Running, "")), "{actions}");
    bench.step(Event::RuntimeFound);
    bench.inventory(vec![observed(1, running())]);
    assert_eq!(bench.state(2), Some((TaskState::Failed, "exit status lost")));
}

#[test]
fn what_the_node_holds_is_told_also_where_it_changes_while_a_register_is_under_way() {
    let described = |digest: &str| {
        let (name, platforms) = ("bb:1".to_owned(), Vec::new());
        let images = vec![HeldImage { name, digest: digest.to_owned(), platforms }];
        Event::Described { description: Box::default(), images }
    };
    let (mut bench, _) = Bench::new(Vec::new());
    bench.inventory(Vec::new());
    bench.step(described("sha256:1"));
    assert!(show(&bench.step(Event::Connected)).contains("register"));
    let actions = show(&bench.step(described("sha256:2")));
    assert_eq!(actions, "", "there is no session to say it in");
    let heartbeat = Duration::from_secs(60);
    let registered = Event::Message(FromManager::Registered { session: bench.session, heartbeat });
    check(
        &bench.step(registered),
        expect![[r#"
        send inventory
    "#]],
    );
    assert_eq!(show(&bench.wait(Duration::from_secs(1))), "", "once");
    // The register of another session says it.
    bench.step(Event::Disconnected);
    bench.step(described("sha256:3"));
    bench.step(Event::Connected);
    let registered = Event::Message(FromManager::Registered { session: bench.session, heartbeat });
    assert_eq!(show(&bench.step(registered)), "");
}
