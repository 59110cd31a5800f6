//! Another midge in the place of the one that ran, under running containers.
//!
//! `MIDGE_TEST_OLDER` names the program of a version before; without it, the same one comes again.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, can_run, eventually, midge_binary};
use std::{fs, path::Path};

/// Prints a line a second, so that its log can be seen to go on.
const COUNT: &str = "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 1; done";

/// Puts a program where a host's is, as a package does: beside it, then in its place.
fn install(host: &mut Host, program: &Path) {
    let place = host.dir.join("bin/midge");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let beside = place.with_extension("new");
    fs::copy(program, &beside).unwrap();
    fs::rename(&beside, &place).unwrap();
    host.binary = place;
}

/// Returns how many lines of a service's log its node holds.
fn lines(host: &Host, service: &str) -> usize {
    host.ok(&["service", "logs", service]).lines().count()
}

/// Has every node upgraded, in this order, and looks after each that nothing noticed.
fn upgrade(order: [usize; 4]) {
    if !can_run() {
        return;
    }
    let mut network = Network::new(4);
    let older = std::env::var_os("MIDGE_TEST_OLDER").map_or_else(midge_binary, Into::into);
    for host in &mut network.hosts {
        install(host, &older);
    }
    network.found(3);
    network.load_busybox();
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global", "bb:1"];
    network.manager().ok(&[&create[..], &["sh", "-c", COUNT]].concat());
    network.manager().wait_running("web", 4);
    let before: Vec<_> = network.hosts.iter().map(Host::containers).collect();

    for (step, index) in order.into_iter().enumerate() {
        install(&mut network.hosts[index], &midge_binary());
        // A restart while the others are of either version.
        network.hosts[index].stop_daemon();
        network.hosts[index].start_daemon();
        network.await_nodes(3, 1);
        for (host, before) in network.hosts.iter().zip(&before) {
            let now = host.containers();
            assert!(before.iter().all(|one| now.contains(one)), "after {} of 4: {now:?}", step + 1);
        }
        let manager = network.manager();
        let seen = lines(manager, "web");
        eventually("more lines of every task", || {
            (lines(manager, "web") >= seen + 4).then_some(())
        });
        let name = format!("after{step}");
        let create = ["service", "create", "-d", "--name", &name, "--mode", "global", "bb:2"];
        manager.ok(&[&create[..], &["sh", "-c", COUNT]].concat());
        manager.wait_running(&name, 4);
        let task = manager.ok(&["service", "ps", &name, "-q", "--no-trunc", "--filter", "node=n4"]);
        assert_eq!(manager.ok(&["exec", task.trim(), "echo", "here"]), "here\n");
        manager.ok(&["service", "rm", &name]);
    }
    let manager = network.manager();
    eventually("only what was there before", || {
        network.hosts.iter().map(Host::containers).eq(before.iter().cloned()).then_some(())
    });
    // What was there before is changed by the new program.
    manager.ok(&["service", "update", "-q", "--image", "bb:2", "web"]);
    manager.wait_running("web", 4);
}

#[test]
fn managers_are_upgraded_first_and_containers_go_on() {
    upgrade([0, 1, 2, 3]);
}

#[test]
fn workers_are_upgraded_first_and_containers_go_on() {
    upgrade([3, 2, 1, 0]);
}
