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

#[test]
fn a_cluster_is_restored_on_another_machine_and_its_workers_come_back() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    let file = network.folder().join("cluster.backup");
    let (path, phrase) = (file.to_str().unwrap().to_owned(), network.folder().join("phrase"));
    std::fs::write(&phrase, "correct horse\n").unwrap();
    let with_phrase = ["--passphrase-file", phrase.to_str().unwrap()];
    let manager = network.manager();
    manager.ok(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "--constraint",
        "node.hostname==n2",
        "bb:1",
        "sleep",
        "9999",
    ]);
    manager.ok(&["node", "update", "--label-add", "disk=ssd", "n1"]);
    let says =
        network.hosts[1].refused(&[&["cluster", "backup", &path], &with_phrase[..]].concat());
    assert!(says.contains("This node is not a swarm manager"), "{says}");
    let says = manager.refused(&["cluster", "backup", &path]);
    assert!(says.contains("no passphrase was given"), "{says}");
    assert!(!file.exists(), "a backup that failed leaves nothing");
    let tasks = manager.wait_running("web", 2);
    manager.ok(&[&["cluster", "backup", &path], &with_phrase[..]].concat());
    let again = [("MIDGE_PASSPHRASE", "correct horse")];
    manager.ok_with(&again, &["cluster", "backup", &path]);
    // What comes after the backup is lost.
    manager.ok(&["service", "update", "--detach", "--label-add", "late=1", "web"]);
    let says = manager.refused(&[&["cluster", "restore", &path], &with_phrase[..]].concat());
    assert!(says.contains("already part of a swarm"), "{says}");
    let before = version(manager, "web");

    // The manager is gone for good; another machine gets its address.
    let address = network.manager().address.clone();
    network.hosts[0].kill_daemon();
    network.hosts[0].link(false);
    let containers = network.hosts[1].containers();
    let other = network.add_host();
    other.sh(&format!("ip addr add {address}/24 dev eth0"));
    other.start_daemon();
    check_refusals(other, &file);
    let says = other.ok(&[&["cluster", "restore", &path], &with_phrase[..]].concat());
    assert!(says.contains("is now its manager"), "{says}");
    let manager = &network.hosts[2];
    eventually("the worker to come back", || {
        let nodes = manager.ok(&[
            "node",
            "ls",
            "--format",
            "{{.Hostname}} {{.Status}} {{.ManagerStatus}}|",
        ]);
        let mut nodes: Vec<&str> = nodes.lines().collect();
        nodes.sort_unstable();
        (nodes == ["n2 Ready |", "n3 Ready Leader|"]).then_some(())
    });
    assert_eq!(manager.wait_running("web", 2), tasks);
    assert_eq!(network.hosts[1].containers(), containers, "the same processes");
    let web = manager.inspect("service", "web");
    assert_eq!(web["Spec"]["Labels"].get("late"), None);
    let labels = &manager.inspect("node", "n3")["Spec"]["Labels"];
    assert_eq!(labels["disk"], "ssd", "what was said of the manager is said of the new one");
    manager.ok(&["service", "scale", "--detach", "web=3"]);
    assert!(version(manager, "web") > before, "above all that the lost manager wrote");
    manager.wait_running("web", 3);
    network.hosts[2].kill_daemon();
    network.hosts[2].start_daemon();
    network.hosts[2].wait_running("web", 3);
}

/// What is no backup, or not ours to open, is refused by name and changes nothing.
fn check_refusals(host: &Host, file: &Path) {
    let good = std::fs::read(file).unwrap();
    let wrong = file.with_extension("wrong");
    let mut newer = good.clone();
    newer[8] = 9;
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let right = "correct horse";
    for (bytes, phrase, expected) in [
        (&good[..], "wrong horse", "the passphrase is wrong"),
        (&good[..good.len() - 7], right, "cut short"),
        (&good[..20], right, "cut short"),
        (&b"nonsense"[..], right, "no backup of a cluster"),
        (&b""[..], right, "no backup of a cluster"),
        (&newer[..], right, "written by a newer midge (format 9)"),
        (&damaged[..], right, "its content was changed"),
    ] {
        std::fs::write(&wrong, bytes).unwrap();
        let phrase_file = file.with_extension("phrase");
        std::fs::write(&phrase_file, phrase).unwrap();
        let says = host.refused(&[
            "cluster",
            "restore",
            wrong.to_str().unwrap(),
            "--passphrase-file",
            phrase_file.to_str().unwrap(),
        ]);
        assert!(says.contains(expected), "{expected}: {says}");
    }
    assert!(host.ok(&["info"]).contains("Swarm: inactive"));
    assert!(!host.dir.join("data/membership.json").exists());
    assert!(!host.dir.join("data/manager.redb").exists());
}
