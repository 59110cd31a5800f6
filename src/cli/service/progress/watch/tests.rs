use super::*;
use expect_test::{Expect, expect};
use serde_json::json;

/// Reads what was polled, one thing a line: `replicas N` or `global`, `update STATE MESSAGE`,
/// `monitor SECONDS`, `rollback-monitor SECONDS`, `down NODE`, and tasks: `[old] PLACE NODE DESIRED
/// STATE ERROR`, in the order in which they were made. Places with a `-` for a slot are of nodes.
fn polled(text: &str) -> Polled {
    let mut polled = Polled {
        service: json!({"ID": "s", "Spec": {"Mode": {"Global": {}}}}),
        ..Polled::default()
    };
    let mut down = Vec::new();
    for (at, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let nanos = || rest.parse::<u64>().unwrap() * 1_000_000_000;
        match word {
            "replicas" => {
                let replicas: u64 = rest.parse().unwrap();
                polled.service["Spec"]["Mode"] = json!({"Replicated": {"Replicas": replicas}});
            }
            "global" => {}
            "update" => {
                let (state, message) = rest.split_once(' ').unwrap();
                polled.service["UpdateStatus"] = json!({"State": state, "Message": message});
            }
            "monitor" => polled.service["Spec"]["UpdateConfig"] = json!({"Monitor": nanos()}),
            "rollback-monitor" => {
                polled.service["Spec"]["RollbackConfig"] = json!({"Monitor": nanos()});
            }
            "down" => down.push(rest),
            "old" => polled.outdated.push(task(at, rest)),
            _ => polled.tasks.push(task(at, line)),
        }
    }
    let node = |id: &str| {
        let state = if down.contains(&id) { "down" } else { "ready" };
        json!({"ID": id, "Status": {"State": state}})
    };
    polled.nodes = ["n1", "n2", "n3"].map(node).to_vec();
    polled
}

fn task(at: usize, line: &str) -> Value {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().unwrap_or("");
    let (slot, node, desired, state, error) = (word(), word(), word(), word(), word());
    json!({
        "ID": format!("t{at}"),
        "CreatedAt": format!("2026-01-01T00:00:{at:02}Z"),
        "Slot": slot.parse::<u64>().unwrap_or(0),
        "NodeID": if node == "-" { "" } else { node },
        "DesiredState": desired,
        "Status": {"State": state, "Err": error},
    })
}

fn shown(step: &Step) -> String {
    let mut text: String = step.lines.iter().map(|line| format!("{}\n", line.shown())).collect();
    match &step.ended {
        None => {}
        Some(Ok(())) => text.push_str("=> done\n"),
        Some(Err(error)) => text.push_str(&format!("=> {error}\n")),
    }
    text
}

/// Looks at one thing after another, each at its second.
fn check(polls: &[(u64, &str)], expected: &Expect) {
    let mut watch = Watch::new("web");
    let mut text = String::new();
    for (at, poll) in polls {
        let step = watch.step(&polled(poll), Duration::from_secs(*at));
        text.push_str(&format!("{at} s\n{}", shown(&step)));
    }
    expected.assert_eq(&text);
}

const RUNNING: &str = "replicas 2\n 1 n1 running running\n 2 n2 running running";

#[test]
fn a_service_converges() {
    check(
        &[
            (0, "replicas 2"),
            (1, "replicas 2\n 1 n1 running preparing\n 2 - running pending no suitable node"),
            (2, "replicas 2\n 1 n1 running running\n 2 n2 running starting"),
            (3, RUNNING),
            (4, RUNNING),
            (8, RUNNING),
        ],
        &expect![[r#"
            0 s
            overall progress: 0 out of 2 tasks
            1/2:
            2/2:
            1 s
            overall progress: 0 out of 2 tasks
            1/2: preparing [=================================>                 ]
            2/2: no suitable node
            2 s
            overall progress: 1 out of 2 tasks
            1/2: running   [==================================================>]
            2/2: starting  [============================================>      ]
            3 s
            overall progress: 2 out of 2 tasks
            1/2: running   [==================================================>]
            2/2: running   [==================================================>]
            verify: Waiting 5 seconds to verify that tasks are stable...
            4 s
            overall progress: 2 out of 2 tasks
            1/2: running   [==================================================>]
            2/2: running   [==================================================>]
            verify: Waiting 4 seconds to verify that tasks are stable...
            8 s
            overall progress: 2 out of 2 tasks
            1/2: running   [==================================================>]
            2/2: running   [==================================================>]
            verify: Service web converged
            => done
        "#]],
    );
}

#[test]
fn a_task_that_fails_begins_the_watch_anew() {
    let failed = "replicas 1\n 1 n1 shutdown failed task: non-zero exit (1)\n 1 n1 ready ready";
    let running = "replicas 1\n 1 n1 shutdown failed x\n 1 n1 running running";
    check(
        &[(0, running), (4, failed), (5, failed), (9, running), (13, running), (14, running)],
        &expect![[r#"
            0 s
            overall progress: 1 out of 1 tasks
            1/1: running   [==================================================>]
            verify: Waiting 5 seconds to verify that tasks are stable...
            4 s
            overall progress: 0 out of 1 tasks
            1/1: task: non-zero exit (1)
            verify: Detected task failure
            5 s
            overall progress: 0 out of 1 tasks
            1/1: task: non-zero exit (1)
            verify: Detected task failure
            9 s
            overall progress: 1 out of 1 tasks
            1/1: running   [==================================================>]
            verify: Waiting 5 seconds to verify that tasks are stable...
            13 s
            overall progress: 1 out of 1 tasks
            1/1: running   [==================================================>]
            verify: Waiting 1 seconds to verify that tasks are stable...
            14 s
            overall progress: 1 out of 1 tasks
            1/1: running   [==================================================>]
            verify: Service web converged
            => done
        "#]],
    );
}

#[test]
fn the_services_own_period_is_waited_for() {
    let end = |poll: &str, at: &[u64]| {
        let mut watch = Watch::new("web");
        let mut ended = |at| watch.step(&polled(poll), Duration::from_secs(at)).ended.is_some();
        at.iter().copied().find(|at| ended(*at))
    };
    let slow = format!("{RUNNING}\n monitor 60\n rollback-monitor 30");
    assert_eq!(end(&slow, &[0, 5, 59, 60]), Some(60));
    assert_eq!(end(&format!("{RUNNING}\n monitor 0"), &[0, 4, 5]), Some(5));
    let back = format!("{slow}\n update rollback_completed rollback completed");
    assert_eq!(end(&back, &[0, 5, 29, 30]), Some(30));
    // Nobody who watches longer than the manager is left to wait for ever.
    let moving = format!("{RUNNING}\n update updating update in progress");
    assert_eq!(end(&moving, &[0, 5, 6, 14, 15]), Some(15));
}

#[test]
fn only_tasks_of_the_new_spec_count() {
    let begun = "replicas 3\n update updating update in progress\n 2 n2 ready ready";
    let done = "replicas 3\n update completed update completed
        1 n1 running running\n 2 n2 running running\n 3 n3 running running";
    check(
        &[(0, "replicas 3"), (1, begun), (9, done)],
        &expect![[r#"
            0 s
            overall progress: 0 out of 3 tasks
            1/3:
            2/3:
            3/3:
            1 s
            overall progress: 0 out of 3 tasks
            1/3:
            2/3: ready     [======================================>            ]
            3/3:
            9 s
            overall progress: 3 out of 3 tasks
            1/3: running   [==================================================>]
            2/3: running   [==================================================>]
            3/3: running   [==================================================>]
            verify: Service web converged
            => done
        "#]],
    );
}

#[test]
fn an_update_that_fails_is_told() {
    let moving = "replicas 1\n update updating update in progress";
    let paused = "replicas 1\n update paused update paused due to failure of task t
        1 n1 running starting";
    let partly = "replicas 1\n update completed update completed\n 1 n1 ready ready";
    let back = "replicas 1\n update rollback_started update rolled back due to failure of task t";
    let was = "replicas 1\n update rollback_completed rollback completed\n 1 n1 running running";
    check(
        &[(0, paused)],
        &expect![[r#"
            0 s
            overall progress: 0 out of 1 tasks
            1/1: starting  [============================================>      ]
            => service update paused: update paused due to failure of task t
        "#]],
    );
    check(
        &[(1, moving), (2, back), (3, was)],
        &expect![[r#"
            1 s
            overall progress: 0 out of 1 tasks
            1/1:
            2 s
            rollback: update rolled back due to failure of task t
            overall progress: rolling back update: 0 out of 1 tasks
            1/1:
            3 s
            rollback: rollback completed
            overall progress: rolling back update: 1 out of 1 tasks
            1/1: running   [==================================================>]
            => service rolled back: update rolled back due to failure of task t
        "#]],
    );
    check(
        &[(1, moving), (2, partly)],
        &expect![[r#"
            1 s
            overall progress: 0 out of 1 tasks
            1/1:
            2 s
            overall progress: 0 out of 1 tasks
            1/1: ready     [======================================>            ]
            verify: the update is completed, with 0 out of 1 tasks running
            => done
        "#]],
    );
}

#[test]
fn a_rollback_that_was_asked_for_is_no_failure() {
    let asked = "replicas 1\n update rollback_started manually requested rollback";
    let done = "replicas 1\n update rollback_completed rollback completed\n 1 n1 running running";
    let paused = "replicas 1\n update rollback_paused rollback paused due to failure of task t";
    check(
        &[(0, asked), (1, done)],
        &expect![[r#"
            0 s
            rollback: manually requested rollback
            overall progress: rolling back update: 0 out of 1 tasks
            1/1:
            1 s
            rollback: rollback completed
            overall progress: rolling back update: 1 out of 1 tasks
            1/1: running   [==================================================>]
            verify: Service web converged
            => done
        "#]],
    );
    check(
        &[(0, asked), (1, paused)],
        &expect![[r#"
            0 s
            rollback: manually requested rollback
            overall progress: rolling back update: 0 out of 1 tasks
            1/1:
            1 s
            rollback: rollback paused due to failure of task t
            overall progress: rolling back update: 0 out of 1 tasks
            1/1:
            => service rollback paused: rollback paused due to failure of task t
        "#]],
    );
}

#[test]
fn a_state_from_before_is_not_this_updates() {
    // What was not seen under way may be an update that somebody made earlier.
    let stale = "replicas 2\n update completed update completed\n 1 n1 running running";
    let mut watch = Watch::new("web");
    for state in ["completed", "rollback_completed"] {
        let poll = polled(&stale.replace("completed update", &format!("{state} update")));
        assert!(watch.step(&poll, Duration::ZERO).ended.is_none(), "{state}");
    }
}

#[test]
fn a_global_service_counts_the_nodes_still_to_come() {
    check(
        &[
            (0, "global"),
            (1, "global\n - n1 running running\n old - n2 running running\n old - n3 shutdown x"),
            (2, "global\n down n2\n - n1 running running\n - n2 running running"),
        ],
        &expect![[r#"
            0 s
            overall progress: waiting for new tasks
            1 s
            overall progress: 1 out of 2 tasks
            n1: running   [==================================================>]
            2 s
            overall progress: 1 out of 1 tasks
            n1: running   [==================================================>]
            verify: Waiting 5 seconds to verify that tasks are stable...
        "#]],
    );
    check(
        &[(5, "global")],
        &expect![[r#"
            5 s
            overall progress: waiting for new tasks
            no node fits the service now; those that come to fit will run it
            => done
        "#]],
    );
}

#[test]
fn slots_are_shown_from_one_on() {
    // Two of five are left; the others are told to go.
    let scaled = "replicas 2\n 1 n1 running running\n 4 n2 running running\n 5 n1 remove running";
    check(
        &[(0, scaled), (1, "replicas 0")],
        &expect![[r#"
            0 s
            overall progress: 2 out of 2 tasks
            1/2: running   [==================================================>]
            2/2: running   [==================================================>]
            verify: Waiting 5 seconds to verify that tasks are stable...
            1 s
            overall progress: 0 out of 0 tasks
            verify: Waiting 4 seconds to verify that tasks are stable...
        "#]],
    );
    // More tasks than are wanted, though enough of them run.
    let surplus = polled("replicas 1\n 1 n1 running running\n 2 n2 running running");
    let step = Watch::new("web").step(&surplus, Duration::ZERO);
    assert!(!step.converged);
}

#[test]
fn tasks_on_a_lost_node_do_not_count() {
    let lost = "replicas 1\n down n1\n 1 n1 running running\n 1 - ready pending no suitable node";
    check(
        &[(0, lost)],
        &expect![[r#"
            0 s
            overall progress: 0 out of 1 tasks
            1/1: no suitable node
        "#]],
    );
}

#[test]
fn what_is_never_started_again_is_not_waited_for() {
    let ended = "replicas 2\n 1 n1 shutdown failed task: non-zero exit (3)
        2 n2 shutdown complete";
    check(
        &[(0, ended)],
        &expect![[r#"
            0 s
            overall progress: 0 out of 2 tasks
            1/2: task: non-zero exit (3)
            2/2: complete  [==================================================>]
            => service did not converge: 2 of 2 tasks ended and will not be started again: task: non-zero exit (3)
        "#]],
    );
    let moving = format!("{ended}\n update updating x");
    assert!(Watch::new("web").step(&polled(&moving), Duration::ZERO).ended.is_none());
}

#[test]
fn many_tasks_have_one_line_and_their_errors() {
    let mut text = "replicas 25".to_owned();
    for slot in 1..=25 {
        text += &match slot {
            1..=4 => format!("\n {slot} n1 running running"),
            5..=8 => format!("\n {slot} n1 running starting"),
            _ => format!("\n {slot} - running pending no suitable node"),
        };
    }
    check(
        &[(0, &text)],
        &expect![[r#"
            0 s
            overall progress: 4 out of 25 tasks
            17 tasks: no suitable node
        "#]],
    );
}
