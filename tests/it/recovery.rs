//! What is left of a cluster that lost managers, disks or keys.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    chaos::fault::give_clock,
    host::{Host, Network, can_run, eventually, eventually_so},
};
use serde_json::Value;
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

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
        (&12.into(), &900_000_000.into())
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
    assert!(version(manager, "web") > 1 << 32, "the epoch is in the version");
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
fn of_the_managers_that_are_left_the_one_with_the_newest_log_is_known() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 0);
    let force = ["swarm", "init", "--force-new-cluster"];
    let says = network.hosts[1].refused(&force);
    assert!(says.contains("the swarm has a leader, and 3 managers"), "{says}");
    let last = |host: &Host| {
        let says = host.ok(&["info"]);
        let (_, rest) = says.split_once("  Last Entry:\n   Term: ").unwrap();
        let (term, rest) = rest.split_once("\n   Index: ").unwrap();
        let (index, _) = rest.split_once('\n').unwrap();
        (term.parse::<u64>().unwrap(), index.parse::<u64>().unwrap(), says)
    };

    // The third misses what the first two agree on, and the first is lost with it.
    network.hosts[2].kill_daemon();
    eventually("a leader of two", || {
        let create = ["service", "create", "--detach", "--replicas", "0", "--name", "new", "bb:1"];
        network.hosts[1].midge(&create).status.success().then_some(())
    });
    network.hosts[0].kill_daemon();
    network.hosts[1].kill_daemon();
    network.hosts[2].start_daemon();
    let (term, index, _) = last(&network.hosts[2]);
    let behind = (term, index);
    network.hosts[2].kill_daemon();
    network.hosts[1].start_daemon();
    let left = &network.hosts[1];
    let (term, index, says) = last(left);
    assert!((term, index) > behind, "{term} {index} {behind:?}");
    assert!(says.contains("does not have a leader"), "{says}");

    left.ok(&force);
    assert_eq!(left.ok(&["service", "ls", "--format", "{{.Name}}"]), "new\n");
    assert!(last(left).0 > term, "another term");
}

/// Managers that were given up come back, and are still more than half of what they know. Where they
/// reach the one that goes on alone, they are workers of it; else they lead what was, and whoever has
/// followed the other one does nothing that they say.
#[test]
fn managers_that_were_given_up_are_ignored_by_whoever_knows_better() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 0);
    // This worker looks for managers where it joined, whatever it is told later.
    let token = network.manager().ok(&["swarm", "join-token", "-q", "worker"]);
    let joined = format!("{}:2377", network.hosts[1].address);
    let worker = network.add_host();
    worker.start_daemon();
    worker.ok(&["swarm", "join", "--token", token.trim(), &joined]);
    network.await_nodes(3, 1);
    network.load_busybox();
    let create = ["service", "create", "--name", "web", "--constraint", "node.hostname==n4"];
    network.manager().ok(&[&create[..], &["bb:1", "sleep", "9999"]].concat());
    network.hosts[1].kill_daemon();
    network.hosts[2].kill_daemon();
    network.manager().ok(&["swarm", "init", "--force-new-cluster"]);
    network.manager().ok(&["service", "scale", "--detach", "web=3"]);
    let tasks = network.manager().wait_running("web", 3);
    let containers = network.hosts[3].containers();

    network.hosts[0].kill_daemon();
    network.hosts[1].start_daemon();
    network.hosts[2].start_daemon();
    eventually("the two to agree", || network.hosts[1].leader());
    network.hosts[1].ok(&["service", "scale", "--detach", "web=0"]);
    eventually_so("the worker to be with those, and to say what it makes of them", || {
        let nodes = network.hosts[1].midge(&["node", "ls"]);
        let nodes = String::from_utf8_lossy(&nodes.stdout).into_owned();
        nodes.contains("the node ignores this manager").then_some(()).ok_or(nodes)
    });
    assert_eq!(network.hosts[3].containers(), containers, "the same processes");

    // They are retired by leaving, and then there is one cluster again.
    network.hosts[0].start_daemon();
    let manager = network.manager();
    let token = manager.ok(&["swarm", "join-token", "-q", "manager"]);
    let remote = format!("{}:2377", manager.address);
    for retired in &network.hosts[1..3] {
        retired.ok(&["swarm", "leave", "--force"]);
        retired.ok(&["swarm", "join", "--token", token.trim(), &remote]);
    }
    network.await_nodes(3, 1);
    assert_eq!(manager.wait_running("web", 3), tasks);
    assert_eq!(network.hosts[3].containers(), containers, "the same processes");
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
    let backup = [&["cluster", "backup", &path], &with_phrase[..]].concat();
    let restore = [&["cluster", "restore", &path], &with_phrase[..]].concat();
    let manager = network.manager();
    let on_worker = ["--constraint", "node.hostname==n2", "--replicas", "2"];
    let create = [&["service", "create", "--name", "web"], &on_worker[..]].concat();
    manager.ok(&[&create[..], &["bb:1", "sleep", "9999"]].concat());
    manager.ok(&["node", "update", "--label-add", "disk=ssd", "n1"]);
    let says = network.hosts[1].refused(&backup);
    assert!(says.contains("This node is not a swarm manager"), "{says}");
    let says = manager.refused(&["cluster", "backup", &path]);
    assert!(says.contains("no passphrase was given"), "{says}");
    assert!(!file.exists(), "a backup that failed leaves nothing");
    let tasks = manager.wait_running("web", 2);
    manager.ok(&backup);
    manager.ok_with(&[("MIDGE_PASSPHRASE", "correct horse")], &["cluster", "backup", &path]);
    // What comes after the backup is lost.
    manager.ok(&["service", "update", "--detach", "--label-add", "late=1", "web"]);
    let says = manager.refused(&restore);
    assert!(says.contains("already part of a swarm"), "{says}");
    let before = version(manager, "web");

    let containers = network.hosts[1].containers();
    let other = replace_manager(&mut network, 0);
    check_refusals(other, &file);
    let says = other.ok(&restore);
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
    restart(&mut network.hosts[2]);
    network.hosts[2].wait_running("web", 3);
}

/// Nodes follow nobody whose epoch and term are below those that they have followed, and a backup
/// knows nothing of the time in which it was restored before.
#[test]
fn a_backup_is_restored_once_more_and_workers_follow_again() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    let file = network.folder().join("cluster.backup");
    let (file, phrase) = (file.to_str().unwrap(), [("MIDGE_PASSPHRASE", "correct horse")]);
    let on_worker = ["--constraint", "node.hostname==n2", "--replicas", "2"];
    let create = [&["service", "create", "--name", "web"], &on_worker[..]].concat();
    network.manager().ok(&[&create[..], &["bb:1", "sleep", "9999"]].concat());
    let tasks = network.manager().wait_running("web", 2);
    let containers = network.hosts[1].containers();
    network.manager().ok_with(&phrase, &["cluster", "backup", file]);

    let mut epochs = Vec::new();
    for (gone, ahead) in [(0, "0"), (2, "0"), (3, "1200")] {
        let other = replace_manager(&mut network, gone);
        other.stop_daemon();
        give_clock(other);
        std::fs::write(other.dir.join("clock"), ahead).unwrap();
        other.start_daemon();
        other.ok_with(&phrase, &["cluster", "restore", file]);
        let (worker, manager) = (&network.hosts[1], network.hosts.last().unwrap());
        let ready = format!("n2 Ready\nn{} Ready", network.hosts.len());
        eventually_so("the worker to follow", || {
            let nodes = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
            let mut nodes: Vec<&str> = nodes.lines().collect();
            nodes.sort_unstable();
            (nodes.join("\n") == ready).then_some(()).ok_or_else(|| format!("{nodes:?}"))
        });
        assert_eq!(manager.wait_running("web", 2), tasks);
        // More than one time each, so that its log is ahead of the next one's.
        for count in [4, 2, 3] {
            manager.ok(&["service", "scale", "--detach", &format!("web={count}")]);
            manager.wait_running("web", count);
        }
        epochs.push(version(manager, "web") >> 32);
        // What the backup does not know of goes, and the rest never notices.
        eventually("three containers", || (worker.containers().len() == 3).then_some(()));
        let now = worker.containers();
        assert!(containers.iter().all(|one| now.contains(one)), "{containers:?} {now:?}");
    }
    // An epoch is ten minutes of the calendar; within those the term rises.
    assert!(0 < epochs[0] && epochs[0] <= epochs[1] && epochs[1] < epochs[2], "{epochs:?}");
    restart(&mut network.hosts[4]);
    restart(&mut network.hosts[1]);
    network.hosts[4].wait_running("web", 3);
}

/// Nobody is at hand to join a node once more that did so after the backup was written.
#[test]
fn a_node_that_the_backup_does_not_know_is_taken_in_again_unless_it_was_removed() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(3);
    let file = network.folder().join("cluster.backup");
    let (file, phrase) = (file.to_str().unwrap(), [("MIDGE_PASSPHRASE", "correct horse")]);
    network.hosts[2].kill_daemon();
    network.manager().ok(&["node", "rm", "--force", "n3"]);
    let address = network.manager().address.clone();
    network.manager().ok_with(&phrase, &["cluster", "backup", file]);
    for role in ["worker", "manager"] {
        let token = network.manager().ok(&["swarm", "join-token", "-q", role]);
        let late = network.add_host();
        late.start_daemon();
        late.ok(&["swarm", "join", "--token", token.trim(), &format!("{address}:2377")]);
    }
    network.await_nodes(2, 2);
    let id = |host: &Host| host.ok(&["info", "--format", "{{.Swarm.NodeID}}"]);
    let before = [id(&network.hosts[3]), id(&network.hosts[4])];

    replace_manager(&mut network, 0).ok_with(&phrase, &["cluster", "restore", file]);
    network.hosts[2].start_daemon();
    let manager = &network.hosts[5];
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}|";
    eventually_so("all that were not removed to be back", || {
        let nodes = manager.ok(&["node", "ls", "--format", format]);
        let mut nodes: Vec<&str> = nodes.lines().collect();
        nodes.sort_unstable();
        let back = ["n2 Ready |", "n4 Ready |", "n5 Ready |", "n6 Ready Leader|"];
        (nodes == back).then_some(()).ok_or_else(|| format!("{nodes:?}"))
    });
    assert_eq!(before, [id(&network.hosts[3]), id(&network.hosts[4])], "the same nodes");
    eventually("the one that was removed to leave", || {
        (network.hosts[2].ok(&["info"]).contains("Swarm: inactive")).then_some(())
    });
    let late = &network.hosts[4];
    eventually("the other manager of before to be a worker", || {
        late.refused(&["node", "ls"]).contains("This node is not a swarm manager").then_some(())
    });
}

#[test]
fn a_backup_of_before_another_root_brings_no_node_back_and_each_says_why() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    let file = network.folder().join("cluster.backup");
    let (file, phrase) = (file.to_str().unwrap(), [("MIDGE_PASSPHRASE", "correct horse")]);
    let manager = network.manager();
    manager.ok_with(&phrase, &["cluster", "backup", file]);
    let rotate = manager.midge(&["swarm", "ca", "--rotate"]);
    let says = String::from_utf8(rotate.stderr).unwrap();
    assert!(rotate.status.success() && says.contains("take another"), "{says}");

    replace_manager(&mut network, 0).ok_with(&phrase, &["cluster", "restore", file]);
    let address = &network.hosts[0].address;
    let (worker, manager) = (&network.hosts[1], &network.hosts[2]);
    let reason = format!(
        "no manager answers: {address}:2377: the stream was cut off: the manager's certificate is of \
         another cluster, or of another of its root certificates\n"
    );
    eventually("the worker to say why", || {
        let says = worker.ok(&["info", "--format", "{{.Swarm.Error}}"]);
        (says == reason).then_some(())
    });
    let token = manager.ok(&["swarm", "join-token", "-q", "worker"]);
    worker.ok(&["swarm", "leave"]);
    worker.ok(&["swarm", "join", "--token", token.trim(), &format!("{address}:2377")]);
    eventually("the worker to be back", || {
        let shown = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        shown.contains("n2 Ready").then_some(())
    });
    assert_eq!(worker.ok(&["info", "--format", "{{.Swarm.Error}}"]), "\n");
}

/// The host of this index is gone for good; another machine gets the first manager's address, and is
/// returned.
fn replace_manager(network: &mut Network, gone: usize) -> &mut Host {
    let address = network.manager().address.clone();
    network.hosts[gone].kill_daemon();
    network.hosts[gone].link(false);
    let other = network.add_host();
    other.sh(&format!("ip addr add {address}/24 dev eth0"));
    other.start_daemon();
    other
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

/// Runs `swarm unlock` with this key on standard input; returns what it said where it failed.
fn unlock(host: &Host, key: &str) -> Result<(), String> {
    let mut command = host.command(&["swarm", "unlock"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses before it reads has closed its end.
    writeln!(child.stdin.take().unwrap(), "{key}").ok();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(()) } else { Err(error) }
}

fn restart(host: &mut Host) {
    host.kill_daemon();
    host.start_daemon();
}

#[test]
fn a_locked_manager_opens_with_its_key_and_containers_go_on() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    let says = manager.refused(&["swarm", "unlock-key"]);
    assert!(says.contains("no unlock key is set"), "{says}");
    assert!(unlock(manager, "x").unwrap_err().contains("swarm is not locked"));
    manager.ok(&["service", "create", "--name", "web", "--replicas", "4", "bb:1", "sleep", "9999"]);
    let tasks = manager.wait_running("web", 4);
    let says = manager.ok(&["swarm", "update", "--autolock"]);
    let key = manager.ok(&["swarm", "unlock-key", "-q"]).trim().to_owned();
    assert!(key.starts_with("SWMKEY-1-") && says.contains(&key), "{says}");
    // An update of something else leaves the key as it is.
    manager.ok(&["swarm", "update", "--task-history-limit", "4"]);
    assert_eq!(manager.ok(&["swarm", "unlock-key", "-q"]).trim(), key);
    let containers: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    let on_disk = std::fs::read_to_string(network.hosts[0].dir.join("data/seal.key")).unwrap();
    assert!(on_disk.contains(" locked "));

    restart(&mut network.hosts[0]);
    let manager = network.manager();
    assert!(manager.ok(&["info"]).contains("Swarm: locked"));
    let backup = network.folder().join("x.backup");
    let force = ["swarm", "init", "--force-new-cluster"];
    let commands: [&[&str]; 5] = [
        &["service", "ls"],
        &["node", "ls"],
        &["swarm", "leave"],
        &["swarm", "unlock-key"],
        &force,
    ];
    for command in commands {
        let says = manager.refused(command);
        assert!(says.contains("Swarm is encrypted and needs to be unlocked"), "{command:?} {says}");
    }
    let phrase = network.folder().join("phrase");
    std::fs::write(&phrase, "x").unwrap();
    let (backup, phrase) = (backup.to_str().unwrap(), phrase.to_str().unwrap());
    let says = manager.refused(&["cluster", "backup", backup, "--passphrase-file", phrase]);
    assert!(says.contains("needs to be unlocked"), "{says}");
    assert!(unlock(manager, "nonsense").unwrap_err().contains("invalid key string"));
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    assert!(unlock(manager, &wrong).unwrap_err().contains("invalid key provided"));
    // While it is locked its containers are looked after.
    assert_eq!(manager.containers(), containers[0]);
    unlock(manager, &key).unwrap();
    eventually("the worker to come back", || {
        let ready = manager.ok(&["node", "ls", "--format", "{{.Status}}"]);
        (ready == "Ready\nReady\n").then_some(())
    });
    assert_eq!(manager.wait_running("web", 4), tasks);
    let now: Vec<_> = network.hosts.iter().map(Host::containers).collect();
    assert_eq!(now, containers, "the same processes");

    // A new key makes the old one worthless, at once.
    let new = manager.ok(&["swarm", "unlock-key", "--rotate", "-q"]).trim().to_owned();
    assert_ne!(new, key);
    restart(&mut network.hosts[0]);
    let manager = network.manager();
    assert!(unlock(manager, &key).unwrap_err().contains("invalid key provided"));
    unlock(manager, &new).unwrap();
    assert_eq!(manager.ok(&["swarm", "unlock-key", "-q"]).trim(), new);
    // A group that is made anew goes on with the same key.
    manager.ok(&force);
    manager.ok(&["swarm", "update", "--autolock=false"]);
    restart(&mut network.hosts[0]);
    let manager = network.manager();
    assert!(manager.refused(&["swarm", "unlock-key"]).contains("no unlock key is set"));
    assert_eq!(manager.wait_running("web", 4), tasks);
}
