//! Several managers as real processes: every one answers, and the cluster outlives any of them.

use crate::host::{Host, Network, can_run, eventually};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const BUSY: [&str; 3] = ["bb:1", "sleep", "3600"];

fn create(host: &Host, name: &str, replicas: &str) {
    let command = ["service", "create", "-q", "--name", name, "--replicas", replicas];
    host.ok(&[&command[..], &BUSY].concat());
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
    let led = network.hosts[1].leader().unwrap();
    assert!(led == 2 || led == 3, "{led}");
    assert_eq!(network.hosts[2].leader(), Some(led));
    network.hosts[1].wait_running("after", 2);
    assert_eq!(network.hosts[2].running("made-0"), before, "no task notices");

    network.hosts[0].start_daemon();
    network.await_nodes(3, 1);
    assert_eq!(names(&network.hosts[0]), ["after", "made-0", "made-1", "made-2"]);
}

/// The engine of a leader that is cut off goes on leading: it cannot know of another.
#[test]
fn a_leader_that_is_cut_off_restarts_its_containers_and_comes_back() {
    if !can_run() {
        return;
    }
    let network = Network::managers(3, 0);
    network.load_busybox();
    let made = ["service", "create", "-q", "--name", "web", "--mode", "global"];
    network.hosts[0].ok(&[&made[..], &BUSY].concat());
    network.hosts[0].wait_running("web", 3);
    let led = network.hosts[0].leader().unwrap() - 1;
    let (cut_off, other) = (&network.hosts[led], &network.hosts[(led + 1) % 3]);
    cut_off.link(false);
    let other_leads = || other.leader().filter(|leader| *leader != led + 1);
    eventually("another leader", other_leads);

    let before = cut_off.containers();
    let [(_, pid)] = before[..] else { panic!("{before:?}") };
    cut_off.sh(&format!("kill -9 {pid}"));
    let after = eventually("its container to be restarted", || {
        let now = cut_off.containers();
        (now.len() == 1 && now != before).then_some(now)
    });
    cut_off.link(true);
    network.await_nodes(3, 0);
    other.wait_running("web", 3);
    assert_eq!(cut_off.containers(), after, "what it restarted is taken over");
    assert_eq!(cut_off.leader(), other.leader());
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
        (second.leader().is_some_and(|leader| leader != 1)).then_some(())
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

#[test]
fn a_worker_that_was_off_finds_managers_that_it_never_knew() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(1, 2);
    network.hosts[2].stop_daemon();
    let [first, second, third] = &mut network.hosts[..] else { panic!("three hosts") };
    first.ok(&["node", "promote", "n2"]);
    let managers = |host: &Host| {
        let shown = host.midge(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let stands = |line: &&str| line.ends_with("Leader") || line.ends_with("Reachable");
        shown.lines().filter(stands).filter_map(|it| it.split(' ').next()).collect::<String>()
    };
    eventually("two managers", || (managers(second) == "n1n2").then_some(()));
    second.ok(&["node", "demote", "n1"]);
    eventually("the first to be a worker", || {
        let says = first.midge(&["node", "ls"]);
        String::from_utf8_lossy(&says.stderr).contains("not a swarm manager").then_some(())
    });
    eventually("one manager", || (managers(second) == "n2").then_some(()));
    // Also after the manager of before was restarted. The other one knows no other than that.
    first.stop_daemon();
    first.start_daemon();
    third.start_daemon();
    eventually("the third to be back", || {
        let shown = second.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        shown.contains("n3 Ready").then_some(())
    });
}

/// Makes services without tasks through one manager after another, until `stop`; returns the names
/// of those that were acknowledged.
fn keep_creating(network: &Network, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let host = &network.hosts[number % network.hosts.len()];
        let name = format!("s{number}");
        let create = ["service", "create", "-d", "-q", "--name", &name, "--replicas", "0"];
        if host.midge(&[&create[..], &BUSY].concat()).status.success() {
            acknowledged.push(name);
        }
    }
    acknowledged
}

/// The number of the host that leads, as soon as somebody says so.
fn any_leader(network: &Network, but: usize) -> usize {
    eventually("a leader", || {
        let others = network.hosts.iter().enumerate().filter(|(index, _)| *index + 1 != but);
        others.filter_map(|(_, host)| host.leader()).find(|leader| *leader != but)
    })
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_managers() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 0);
    network.load_busybox();
    let stop = AtomicBool::new(false);
    let signal = |host: &Host, signal: &str| host.sh(&format!("kill -{signal} {}", host.pid()));
    let acknowledged = std::thread::scope(|scope| {
        let client = scope.spawn(|| keep_creating(&network, &stop));
        let faults = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The leader stands still, and another takes its place; then it comes back.
            let stood = any_leader(&network, 0);
            signal(&network.hosts[stood - 1], "STOP");
            let cut = any_leader(&network, stood);
            signal(&network.hosts[stood - 1], "CONT");
            // That one is cut off, with a link that comes back.
            network.hosts[cut - 1].link(false);
            any_leader(&network, cut);
            network.hosts[cut - 1].link(true);
            network.await_nodes(3, 0);
        }));
        stop.store(true, Ordering::Relaxed);
        let acknowledged = client.join().unwrap();
        faults.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acknowledged
    });
    assert!(acknowledged.len() > 5, "{acknowledged:?}");
    // All at once, and back in another order: two of three are enough.
    network.hosts.iter_mut().for_each(Host::kill_daemon);
    network.hosts[2].start_daemon();
    network.hosts[1].start_daemon();
    let names_on = |host: &Host| {
        let shown = eventually("the managers to answer", || {
            let shown = host.midge(&["service", "ls", "--format", "{{.Name}}"]);
            shown.status.success().then_some(shown.stdout)
        });
        String::from_utf8(shown).unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let known = names_on(&network.hosts[2]);
    let lost: Vec<_> = acknowledged.iter().filter(|name| !known.contains(*name)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    network.hosts[0].start_daemon();
    network.await_nodes(3, 0);
    for host in &network.hosts {
        assert_eq!(names_on(host), known);
    }
    // Without a majority there is an answer, and it says what to do: also from the one that led.
    let leader = eventually("a leader", || network.hosts[0].leader()) - 1;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|index| network.hosts[*index].kill_daemon());
    for command in [&["service", "ls"][..], &["node", "update", "--label-add", "a=b", "n1"]] {
        let says = network.hosts[leader].refused(command);
        assert!(says.contains("The swarm does not have a leader"), "{says}");
    }
    for index in others {
        network.hosts[index].start_daemon();
    }
    network.await_nodes(3, 0);
}

#[test]
fn the_election_timeout_changes_while_managers_run() {
    if !can_run() {
        return;
    }
    let network = Network::managers(3, 0);
    network.load_busybox();
    create(network.manager(), "web", "3");
    let before = network.manager().wait_running("web", 3);
    network.manager().ok(&["swarm", "update", "--election-timeout", "3s"]);
    for host in &network.hosts {
        eventually("the engine to begin anew", || {
            let kept = std::fs::read_to_string(host.dir.join("data/membership.json")).unwrap();
            kept.contains("\"election_millis\": 3000").then_some(())
        });
    }
    network.await_nodes(3, 0);
    assert_eq!(network.manager().running("web"), before, "no task notices");
}
