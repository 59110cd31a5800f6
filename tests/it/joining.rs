//! Forming a cluster, and every way it is refused.

use crate::host::{Network, can_run, eventually};

#[test]
fn nodes_join_and_are_listed() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(3);
    let manager = network.manager();
    let nodes = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}|"]);
    assert_eq!(nodes, "n1 Leader|\nn2 |\nn3 |\n");
    let node = manager.inspect("node", "n2");
    assert_eq!(node["Status"]["Addr"], network.hosts[1].address.as_str());
    assert_eq!(node["Description"]["Platform"]["OS"], "linux");
    assert!(node["Description"]["Resources"]["MemoryBytes"].as_u64() > Some(0));
    let says = network.hosts[1].refused(&["node", "ls"]);
    assert!(says.contains("This node is not a swarm manager"), "{says}");
}

#[test]
fn a_join_that_cannot_be_meant_changes_nothing() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(3);
    for host in &mut network.hosts {
        host.start_daemon();
    }
    let [first, second, other] = &network.hosts[..] else { unreachable!("three hosts") };
    first.ok(&["swarm", "init", "--advertise-addr", &first.address]);
    other.ok(&["swarm", "init", "--advertise-addr", &other.address]);
    let token = first.ok(&["swarm", "join-token", "-q", "worker"]).trim().to_owned();
    let foreign = other.ok(&["swarm", "join-token", "-q", "worker"]).trim().to_owned();
    let manager = format!("{}:2377", first.address);
    let join =
        |token: &str, remote: &str| second.refused(&["swarm", "join", "--token", token, remote]);

    let wrong = format!("{}{}", &token[..token.len() - 25], "0".repeat(25));
    let cases = [
        ("nonsense", manager.as_str(), "token"),
        (&token[..token.len() - 3], &manager, "token"),
        (&wrong, &manager, "token"),
        (&foreign, &manager, "cluster"),
        (&token, "10.98.6.77:2377", "10.98.6.77"),
    ];
    let mut messages = Vec::new();
    for (token, remote, expected) in cases {
        let says = join(token, remote);
        assert!(says.contains(expected), "{token} {remote}: {says}");
        messages.push(says);
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 5, "each refusal has its own message: {messages:#?}");
    assert!(second.ok(&["info"]).contains("Swarm: inactive"));
    assert_eq!(first.ok(&["node", "ls", "-q"]).lines().count(), 1);

    first.ok(&["swarm", "join-token", "--rotate", "-q", "worker"]);
    let says = join(&token, &manager);
    assert!(says.contains("rotated"), "{says}");
    let fresh = first.ok(&["swarm", "join-token", "-q", "worker"]);
    second.ok(&["swarm", "join", "--token", fresh.trim(), &manager]);
    let says = second.refused(&["swarm", "join", "--token", fresh.trim(), &manager]);
    assert!(says.contains("already part of a swarm"), "{says}");
}

/// What could not be started lets go of the port and of the files.
#[test]
fn a_join_that_fails_on_its_own_machine_is_tried_again() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(2);
    for host in &mut network.hosts {
        host.start_daemon();
    }
    let [first, second] = &network.hosts[..] else { unreachable!("two hosts") };
    first.ok(&["swarm", "init", "--advertise-addr", &first.address]);
    let token = first.ok(&["swarm", "join-token", "-q", "manager"]);
    let manager = format!("{}:2377", first.address);
    let join = ["swarm", "join", "--token", token.trim(), &manager];
    let in_the_way = second.dir.join("data/agent.redb");
    std::fs::create_dir(&in_the_way).unwrap();
    let says = second.refused(&join);
    assert!(says.contains("agent.redb"), "{says}");
    assert_eq!(second.refused(&join), says, "the second attempt comes as far as the first");
    std::fs::remove_dir(&in_the_way).unwrap();
    second.ok(&join);
    assert_eq!(first.ok(&["node", "ls", "-q"]).lines().count(), 2);
}

#[test]
fn a_node_leaves_and_is_removed() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    let (manager, worker) = (&network.hosts[0], &network.hosts[1]);
    let says = manager.refused(&["node", "rm", "n2"]);
    assert!(says.contains("is not down and can't be removed"), "{says}");
    worker.ok(&["swarm", "leave"]);
    eventually("the node to be down", || {
        let status = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        status.contains("n2 Down").then_some(())
    });
    manager.ok(&["node", "rm", "n2"]);
    assert_eq!(manager.ok(&["node", "ls", "-q"]).lines().count(), 1);
    let token = manager.ok(&["swarm", "join-token", "-q", "worker"]);
    let remote = format!("{}:2377", manager.address);
    worker.ok(&["swarm", "join", "--token", token.trim(), &remote]);
    assert_eq!(manager.ok(&["node", "ls", "-q"]).lines().count(), 2);
    let says = manager.refused(&["swarm", "leave"]);
    assert!(says.contains("--force"), "{says}");
}
