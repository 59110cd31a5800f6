//! What is left of a cluster that lost managers, disks or keys.

use crate::host::{Host, Network, can_run, eventually};
use serde_json::Value;
use std::{path::Path, process::Command};

/// A manager that an older midge left is taken over with everything in it.
#[test]
fn the_data_directory_of_an_older_midge_is_taken_over() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(1);
    let host = &mut network.hosts[0];
    let data = host.dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1/manager.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&data).status();
    assert!(unpacked.unwrap().success());
    host.start_daemon();
    assert_eq!(
        host.ok(&["node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}"]).lines().count(),
        1
    );
    let names = host.ok(&["service", "ls", "--format", "{{.Name}}"]);
    assert_eq!(names, "job\nweb\n");
    let raft = &swarm(host)["Spec"]["Raft"];
    assert_eq!(
        (&raft["SnapshotInterval"], &raft["ElectionTimeout"]),
        (&12.into(), &700_000_000.into())
    );
    // It writes what it read, and reads that.
    host.ok(&["service", "update", "--detach", "--label-add", "after=1", "web"]);
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.inspect("service", "web")["Spec"]["Labels"]["after"], "1");
}

fn swarm(host: &Host) -> Value {
    serde_json::from_str(&host.api("/swarm")).unwrap()
}

fn version(host: &Host, service: &str) -> u64 {
    host.inspect("service", service)["Version"]["Index"].as_u64().unwrap()
}

#[test]
fn a_manager_goes_on_alone_and_containers_never_notice() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    manager.ok(&["service", "create", "--name", "web", "--replicas", "4", "bb:1", "sleep", "9999"]);
    manager.ok(&["service", "update", "--detach", "--label-add", "n=1", "web"]);
    manager.ok(&["service", "update", "--detach", "--label-add", "n=2", "web"]);
    let says = network.hosts[1].refused(&["swarm", "init", "--force-new-cluster"]);
    assert!(says.contains("This node is not a swarm manager"), "{says}");
    let says = manager.refused(&["swarm", "init"]);
    assert!(says.contains("already part of a swarm"), "{says}");

    let (tasks, before) = (manager.wait_running("web", 4), version(manager, "web"));
    let containers: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    let says = manager.ok(&["swarm", "init", "--force-new-cluster"]);
    assert!(says.contains("Swarm initialized: current node"), "{says}");
    assert_eq!(version(manager, "web"), before, "what was written keeps its version");
    eventually("the worker to follow", || {
        let ready = manager.ok(&["node", "ls", "--format", "{{.Status}}"]);
        (ready == "Ready\nReady\n").then_some(())
    });
    assert_eq!(manager.wait_running("web", 4), tasks);

    // The worker follows the new epoch, also over restarts of both.
    manager.ok(&["service", "update", "--detach", "--label-add", "n=3", "web"]);
    assert!(version(manager, "web") > 1 << 40, "the epoch is in the version");
    network.hosts[0].kill_daemon();
    network.hosts[0].start_daemon();
    network.hosts[1].kill_daemon();
    network.hosts[1].start_daemon();
    let manager = network.manager();
    assert_eq!(manager.inspect("service", "web")["Spec"]["Labels"]["n"], "3");
    manager.wait_running("web", 4);
    let now: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    assert_eq!(now, containers, "the same processes");
    manager.ok(&["service", "scale", "--detach", "web=6"]);
    manager.wait_running("web", 6);
}
