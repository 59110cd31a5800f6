//! Making a cluster, and restoring one, where that fails on the way: what to do is said, nothing of it
//! is left that would be in the way, and it succeeds once it is said again.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    disks::{fill, give_disk},
    host::{Host, LIMIT, Network, can_run},
};
use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    time::Instant,
};

/// What makes a node the manager of a cluster: of a new one, and of the one in a backup.
type Commands = [Vec<String>; 2];

/// What the daemon keeps of a cluster that it is in.
const OF_A_CLUSTER: [&str; 8] = [
    "membership.json",
    "certificates/swarm-root-ca.crt",
    "certificates/swarm-node.crt",
    "certificates/swarm-node.key",
    "manager.redb",
    "agent.redb",
    "seal.key",
    "managers.json",
];

/// A network whose second machine is in no cluster, prepared before its daemon starts.
fn a_fresh_machine(prepare: impl Fn(&Host)) -> (Network, Commands) {
    let mut network = Network::new(2);
    let (file, phrase) = (network.folder().join("backup"), network.folder().join("phrase"));
    fs::write(&phrase, "correct horse\n").unwrap();
    let phrase = ["--passphrase-file", phrase.to_str().unwrap()];
    let (first, second) = network.hosts.split_at_mut(1);
    let (first, second) = (&mut first[0], &mut second[0]);
    first.start_daemon();
    first.ok(&["swarm", "init", "--advertise-addr", &first.address]);
    first.ok(&["service", "create", "-d", "--name", "web", "--replicas", "0", "bb:1"]);
    first.ok(&[&["cluster", "backup", file.to_str().unwrap()], &phrase[..]].concat());
    first.stop_daemon();
    prepare(second);
    second.start_daemon();
    let restore = [&["cluster", "restore", file.to_str().unwrap()], &phrase[..]].concat();
    let commands = [&["swarm", "init"], &restore[..]].map(|command| {
        let advertise = ["--advertise-addr", &second.address];
        command.iter().chain(&advertise).map(|word| (*word).to_owned()).collect()
    });
    (network, commands)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn is_in_none(host: &Host) {
    let state = host.ok(&["info", "--format", "{{.Swarm.LocalNodeState}}"]);
    assert_eq!(state, "inactive\n");
}

/// Says it, where it must fail for this reason; returns all that was said.
fn fails(host: &Host, command: &[String], reason: &str) -> String {
    let says = host.refused(&words(command));
    assert!(says.contains(reason), "{command:?}: {says}");
    is_in_none(host);
    for name in OF_A_CLUSTER {
        assert!(!host.dir.join("data").join(name).exists(), "{command:?} left {name}: {says}");
    }
    says
}

/// Says it, and lives in that cluster, also after a start; then leaves it.
fn succeeds(host: &mut Host, command: &[String]) {
    host.ok(&words(command));
    host.kill_daemon();
    host.start_daemon();
    leads_and_leaves(host, command);
}

fn leads_and_leaves(host: &Host, command: &[String]) {
    crate::host::eventually("a leader", || host.leader());
    let services = host.ok(&["service", "ls", "--format", "{{.Name}}"]);
    assert_eq!(services, if command[0] == "cluster" { "web\n" } else { "" });
    host.ok(&["swarm", "leave", "--force"]);
    is_in_none(host);
}

#[test]
fn a_port_that_another_program_has_is_named() {
    if !can_run() {
        return;
    }
    let (mut network, commands) = a_fresh_machine(|_| {});
    let host = &mut network.hosts[1];
    for command in &commands {
        // The kernel's own socket of it.
        host.sh("ip link add taken type vxlan id 7 dev eth0 dstport 2377; ip link set taken up");
        let says = fails(host, command, "another program uses the port");
        assert!(says.contains("2377"), "{says}");
        host.sh("ip link del taken");
        succeeds(host, command);
    }
}

/// Room comes bit by bit, so that it runs out at one place after another.
#[test]
fn a_disk_that_runs_full_anywhere_on_the_way_leaves_nothing() {
    if !can_run() {
        return;
    }
    let (mut network, commands) = a_fresh_machine(give_disk);
    let host = &mut network.hosts[1];
    for command in &commands {
        let filled = fill(host);
        let mut attempts = 0;
        while !host.midge(&words(command)).status.success() {
            let says = fails(host, command, "No space left on device");
            assert!(says.contains("(make room on the disk"), "{says}");
            host.sh(&format!("truncate -s -8K {}", filled.display()));
            attempts += 1;
            assert!(attempts < 500, "{says}");
        }
        assert!(attempts > 5, "{attempts}");
        fs::remove_file(filled).unwrap();
        leads_and_leaves(host, command);
    }
}

#[test]
fn a_disk_that_may_only_be_read_is_named() {
    if !can_run() {
        return;
    }
    let (mut network, commands) = a_fresh_machine(|_| {});
    let host = &mut network.hosts[1];
    let data = host.dir.join("data").display().to_string();
    for command in &commands {
        host.sh(&format!("mount --bind {data} {data}; mount -o remount,bind,ro {data}"));
        let says = fails(host, command, "Read-only file system");
        assert!(says.contains("mount it for writing"), "{says}");
        host.sh(&format!("umount {data}"));
        succeeds(host, command);
    }
}

#[test]
fn a_daemon_that_is_killed_on_the_way_is_told_again() {
    if !can_run() {
        return;
    }
    let (mut network, commands) = a_fresh_machine(|_| {});
    let host = &mut network.hosts[1];
    for command in &commands {
        for name in OF_A_CLUSTER {
            let mut said = say(host, command);
            await_file(&host.dir.join("data").join(name));
            host.kill_daemon();
            // It may have been told before the end.
            said.wait().unwrap();
            host.start_daemon();
            // That it is a member is written last.
            if host.dir.join("data/membership.json").exists() {
                leads_and_leaves(host, command);
            } else {
                is_in_none(host);
                succeeds(host, command);
            }
        }
        // All that there is, but for what makes it count.
        host.ok(&words(command));
        host.kill_daemon();
        fs::remove_file(host.dir.join("data/membership.json")).unwrap();
        host.start_daemon();
        is_in_none(host);
        succeeds(host, command);
    }
}

#[test]
fn what_a_client_began_goes_on_without_it() {
    if !can_run() {
        return;
    }
    let (mut network, commands) = a_fresh_machine(|_| {});
    let host = &mut network.hosts[1];
    for command in &commands {
        for name in OF_A_CLUSTER {
            let mut said = say(host, command);
            await_file(&host.dir.join("data").join(name));
            said.kill().unwrap();
            said.wait().unwrap();
            leads_and_leaves(host, command);
        }
    }
}

/// Says it without waiting.
fn say(host: &Host, command: &[String]) -> Child {
    let mut midge = host.command(command);
    midge.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Returns as soon as the file is there: it looks as often as it can, since what follows is over soon.
fn await_file(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < LIMIT, "{} is not made", path.display());
    }
}
