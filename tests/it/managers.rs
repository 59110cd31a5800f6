//! Several managers as real processes: every one answers, and the cluster outlives any of them.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, can_run, eventually};
use std::time::{Duration, Instant};

const BUSY: [&str; 3] = ["bb:1", "sleep", "3600"];

fn create(host: &Host, name: &str, replicas: &str) {
    let command = ["service", "create", "-q", "--name", name, "--replicas", replicas];
    host.ok(&[&command[..], &BUSY].concat());
}

/// The number of the host that leads, as `host` sees it.
fn leader(host: &Host) -> Option<usize> {
    let output = host.midge(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(" Leader"))?;
    line.split(' ').next()?.trim_start_matches('n').parse().ok()
}

fn names(host: &Host) -> Vec<String> {
    let shown = host.ok(&["service", "ls", "--format", "{{.Name}}"]);
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn every_manager_answers_and_the_cluster_outlives_its_leader() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 1);
    network.load_busybox();
    // Where no daemon is killed below: only these tasks have nothing to notice.
    let fixed = ["--constraint", "node.hostname==n4"];
    let made = ["service", "create", "-q", "--name", "made-0", "--replicas", "2"];
    network.hosts[0].ok(&[&made[..], &fixed, &BUSY].concat());
    for number in [1, 2] {
        create(&network.hosts[number], &format!("made-{number}"), "2");
    }
    for host in &network.hosts[..3] {
        assert_eq!(names(host), ["made-0", "made-1", "made-2"]);
        host.wait_running("made-0", 2);
    }
    let says = network.hosts[3].refused(&["service", "ls"]);
    assert!(says.contains("This node is not a swarm manager"), "{says}");
    // From a manager that the worker is not connected to.
    let task = network.hosts[2].ok(&["service", "ps", "-q", "made-1"]);
    let task = task.lines().next().unwrap();
    let says = network.hosts[2].ok(&["exec", task, "echo", "here"]);
    assert_eq!(says.trim(), "here");

    let before: Vec<String> = network.hosts[1].running("made-0");
    let start = Instant::now();
    network.hosts[0].kill_daemon();
    create(&network.hosts[1], "after", "2");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let led = leader(&network.hosts[1]).unwrap();
    assert!(led == 2 || led == 3, "{led}");
    assert_eq!(leader(&network.hosts[2]), Some(led));
    network.hosts[1].wait_running("after", 2);
    assert_eq!(network.hosts[2].running("made-0"), before, "no task notices");

    network.hosts[0].start_daemon();
    network.await_nodes(3, 1);
    assert_eq!(names(&network.hosts[0]), ["after", "made-0", "made-1", "made-2"]);
}

#[test]
fn roles_change_without_a_container_noticing() {
    if !can_run() {
        return;
    }
    let network = Network::managers(1, 2);
    network.load_busybox();
    let [first, second, third] = &network.hosts[..] else { panic!("three hosts") };
    create(first, "web", "6");
    let before = first.wait_running("web", 6);
    let containers = |host: &Host| host.containers();
    let ran = [containers(second), containers(third)];

    let says = first.refused(&["node", "demote", "n1"]);
    assert!(says.contains("attempting to demote the last manager of the swarm"), "{says}");
    let says = first.ok(&["node", "promote", "n2", "n3"]);
    assert!(says.contains("Node n2 promoted to a manager in the swarm."), "{says}");
    network.await_nodes(3, 0);
    for host in [second, third] {
        eventually("the new manager to answer", || {
            let shown = host.midge(&["service", "ls", "--format", "{{.Name}}"]);
            (String::from_utf8_lossy(&shown.stdout) == "web\n").then_some(())
        });
    }
    assert_eq!([containers(second), containers(third)], ran);

    // The leader itself.
    second.ok(&["node", "demote", "n1"]);
    eventually("another to lead", || {
        (leader(second).is_some_and(|leader| leader != 1)).then_some(())
    });
    eventually("the first to be a worker", || {
        let says = first.midge(&["node", "ls"]);
        String::from_utf8_lossy(&says.stderr).contains("not a swarm manager").then_some(())
    });
    eventually("two managers", || {
        let shown = second.ok(&["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]);
        let standing = shown.lines().filter(|l| l.contains("Leader") || l.contains("Reachable"));
        let ready = shown.lines().filter(|line| line.starts_with("Ready")).count();
        (standing.count() == 2 && ready == 3).then_some(())
    });
    assert_eq!(second.running("web"), before);
    assert_eq!([containers(second), containers(third)], ran);

    // Of two, one is needed for the other.
    third.ok(&["swarm", "leave", "--force"]);
    eventually("one manager", || {
        let shown = second.ok(&["node", "ls", "--format", "{{.ManagerStatus}}"]);
        let standing = shown.lines().filter(|l| l.contains("Leader") || l.contains("Reachable"));
        (standing.count() == 1).then_some(())
    });
    second.wait_running("web", 6);
}
