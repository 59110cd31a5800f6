//! Certificates of nodes that were away, and of a cluster whose root changes.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, can_run, eventually};
use serde_json::Value;
use std::fs;

const BUSY: [&str; 3] = ["bb:1", "sleep", "3600"];

fn create(host: &Host, name: &str, replicas: &str) {
    let command = ["service", "create", "-q", "--name", name, "--replicas", replicas];
    host.ok(&[&command[..], &BUSY].concat());
}

/// Lets a node that is off wake up so many days later: it believes what it wrote down of the time.
fn sleep_days(host: &Host, days: u64) {
    let path = host.dir.join("data/membership.json");
    let mut membership: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let seen = membership["last_seen"].as_u64().unwrap();
    membership["last_seen"] = (seen + days * 86_400 * 1_000_000_000).into();
    fs::write(&path, membership.to_string()).unwrap();
}

fn certificate(host: &Host) -> String {
    fs::read_to_string(host.dir.join("data/certificates/swarm-node.crt")).unwrap()
}

#[test]
fn a_fleet_that_was_off_past_its_certificates_comes_back_by_itself() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 1);
    network.load_busybox();
    create(&network.hosts[0], "web", "4");
    network.hosts[0].wait_running("web", 4);
    let ran: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    let certificates: Vec<_> = network.hosts.iter().map(certificate).collect();
    for host in &mut network.hosts {
        host.kill_daemon();
        sleep_days(host, 120);
    }
    for host in &mut network.hosts {
        host.start_daemon();
    }
    eventually("all nodes to have another certificate", || {
        let mut pairs = network.hosts.iter().zip(&certificates);
        pairs.all(|(host, before)| certificate(host) != *before).then_some(())
    });
    eventually("all nodes to be back", || {
        let shown = network.hosts[0].midge(&["node", "ls", "--format", "{{.Status}}"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        (text.lines().filter(|line| *line == "Ready").count() == 4).then_some(())
    });
    create(&network.hosts[1], "after", "2");
    network.hosts[1].wait_running("after", 2);
    let now: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    for (before, now) in ran.iter().zip(&now) {
        assert!(before.iter().all(|container| now.contains(container)), "{before:?}, {now:?}");
    }
}

fn token(host: &Host) -> String {
    host.ok(&["swarm", "join-token", "-q", "worker"]).trim().to_owned()
}

fn status(host: &Host, node: &str) -> String {
    let shown = host.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
    let line = shown.lines().find_map(|line| line.strip_prefix(&format!("{node} ")));
    line.unwrap_or_default().to_owned()
}

fn await_status(host: &Host, node: &str, wanted: &str) {
    eventually(&format!("{node} to be {wanted}"), || (status(host, node) == wanted).then_some(()));
}

#[test]
fn the_root_is_replaced_under_running_containers_and_no_dead_node_holds_it_up() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(4);
    network.load_busybox();
    create(&network.hosts[0], "web", "8");
    network.hosts[0].wait_running("web", 8);
    let ran: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    let (old_token, old_root) = (token(&network.hosts[0]), network.hosts[0].ok(&["swarm", "ca"]));
    // Two that are away: one comes back by itself, one was removed meanwhile. One after the other:
    // where half of all fall silent at once the manager doubts itself first.
    for (number, node) in [(2, "n3"), (3, "n4")] {
        network.hosts[number].kill_daemon();
        await_status(&network.hosts[0], node, "Down");
    }
    let says = network.hosts[0].refused(&["swarm", "ca", "--detach"]);
    assert!(says.contains("`--detach` flag requires the `--rotate` flag"), "{says}");
    let says = network.hosts[0].refused(&["swarm", "ca", "--rotate", "--external-ca", "x"]);
    assert!(says.contains("managers sign certificates themselves"), "{says}");

    let new_root = network.hosts[0].ok(&["swarm", "ca", "--rotate"]);
    assert!(new_root.starts_with("-----BEGIN CERTIFICATE-----") && new_root != old_root);
    let new_token = token(&network.hosts[0]);
    assert_ne!(new_token, old_token);
    for node in ["n1", "n2"] {
        await_status(&network.hosts[0], node, "Ready");
    }
    eventually("both to trust the new root alone", || {
        let trusts = |host: &Host| {
            fs::read_to_string(host.dir.join("data/certificates/swarm-root-ca.crt")).unwrap()
        };
        network.hosts[..2].iter().all(|host| trusts(host) == new_root).then_some(())
    });
    for number in [0, 1] {
        let now = network.hosts[number].containers();
        assert!(ran[number].iter().all(|it| now.contains(it)), "{:?}, {now:?}", ran[number]);
    }
    let id = network.hosts[0].ok(&["node", "ls", "-q", "--filter", "name=n4"]);
    network.hosts[0].ok(&["node", "rm", id.trim()]);
    network.hosts[2].start_daemon();
    await_status(&network.hosts[0], "n3", "Ready");
    network.hosts[3].start_daemon();
    eventually("the removed node to be out", || {
        let info = network.hosts[3].ok(&["info", "--format", "{{.Swarm.LocalNodeState}}"]);
        (info.trim() == "inactive").then_some(())
    });
    let manager = format!("{}:2377", network.hosts[0].address);
    let says = network.hosts[3].refused(&["swarm", "join", "--token", &old_token, &manager]);
    assert!(says.contains("before the cluster's root certificate was rotated"), "{says}");
    network.hosts[3].ok(&["swarm", "join", "--token", &new_token, &manager]);
    eventually("all four to be there", || {
        let shown = network.hosts[0].ok(&["node", "ls", "--format", "{{.Status}}"]);
        (shown.lines().filter(|line| *line == "Ready").count() == 4).then_some(())
    });
}

#[test]
fn managers_follow_to_another_root_and_so_does_one_that_was_dead() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 0);
    network.load_busybox();
    create(&network.hosts[0], "web", "2");
    network.hosts[0].wait_running("web", 2);
    network.hosts[2].kill_daemon();
    await_status(&network.hosts[0], "n3", "Down");
    let root = network.hosts[1].ok(&["swarm", "ca", "--rotate"]);
    network.hosts[2].start_daemon();
    network.await_nodes(3, 0);
    for host in &network.hosts {
        eventually("every manager to answer by the new root", || {
            let shown = host.midge(&["swarm", "ca"]);
            (String::from_utf8_lossy(&shown.stdout) == root).then_some(())
        });
    }
    // What they wrote down serves for another start, whoever leads.
    for host in &mut network.hosts {
        host.kill_daemon();
    }
    for host in &mut network.hosts {
        host.start_daemon();
    }
    network.await_nodes(3, 0);
    create(&network.hosts[2], "after", "2");
    network.hosts[2].wait_running("after", 2);
    // One that lost its role while it was away has a certificate of neither this root nor this role.
    network.hosts[2].kill_daemon();
    await_status(&network.hosts[0], "n3", "Down");
    network.hosts[0].ok(&["node", "demote", "n3"]);
    network.hosts[0].ok(&["swarm", "ca", "--rotate"]);
    network.hosts[2].start_daemon();
    network.await_nodes(2, 1);
    assert!(network.hosts[2].refused(&["node", "ls"]).contains("not a swarm manager"));
}
