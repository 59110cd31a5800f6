//! Disks that are full, and disks that hang.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, can_run, eventually};
use std::time::Instant;

const SLEEP: &[&str] = &["sh", "-c", "while :; do sleep 1; done"];

/// Puts a host's state on a disk of its own, that can be filled or frozen: sparse, and with room for a
/// copy of a large executable.
pub(crate) fn give_disk(host: &Host) {
    let data = host.dir.join("data");
    std::fs::create_dir(&data).unwrap();
    let data = data.display();
    host.sh(&format!(
        "truncate -s 2G {data}.img; mkfs.ext4 -q {data}.img; mount -o loop {data}.img {data}"
    ));
}

/// A cluster of one whose state is on a file system of its own.
fn on_its_own_disk() -> Network {
    let mut network = Network::new(1);
    give_disk(&network.hosts[0]);
    network.hosts[0].start_daemon();
    let host = &network.hosts[0];
    host.ok(&["swarm", "init", "--advertise-addr", &host.address]);
    network.load_busybox();
    network
}

fn create(host: &Host, name: &str, label: &str) -> std::process::Output {
    let begin = ["service", "create", "-d", "--name", name, "--label", label, "bb:1"];
    host.midge(&[&begin[..], SLEEP].concat())
}

/// Takes all the room that there is on the disk of a host's state, and returns what takes it.
pub(crate) fn fill(host: &Host) -> std::path::PathBuf {
    let fill = host.dir.join("data/fill");
    // Reserved, and not written; the last blocks one by one.
    host.sh(&format!(
        "size=1073741824; at=0; while [ $size -ge 4096 ]; do \
         if fallocate -o $at -l $size {} 2>/dev/null; then at=$((at + size)); \
         else size=$((size / 2)); fi; done",
        fill.display()
    ));
    fill
}

#[test]
fn a_full_disk_stops_nothing_that_runs_and_recovers_by_itself() {
    if !can_run() {
        return;
    }
    let network = on_its_own_disk();
    let host = network.manager();
    assert!(create(host, "web", "a=b").status.success());
    host.wait_running("web", 1);
    let before = host.containers();
    let fill = fill(host);

    // What is free inside the files goes first.
    let large = format!("large={}", "x".repeat(60_000));
    let mut number = 0;
    let refusal = eventually("a change to be refused", || {
        number += 1;
        let output = create(host, &format!("s{number}"), &large);
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(refusal.contains("No space left on device"), "{refusal}");
    assert_eq!(host.containers().iter().find(|one| **one == before[0]), Some(&before[0]));
    let info = host.midge(&["info"]);
    let info = String::from_utf8_lossy(&[info.stdout, info.stderr].concat()).into_owned();
    assert!(info.contains("No space left on device"), "{info}");

    std::fs::remove_file(&fill).unwrap();
    eventually("a change to be made again", || {
        create(host, "after", "a=b").status.success().then_some(())
    });
    host.wait_running("after", 1);
    assert!(host.containers().contains(&before[0]), "it ran all the time");
}

#[test]
fn a_disk_that_hangs_is_named_and_recovers_by_itself() {
    if !can_run() {
        return;
    }
    let network = on_its_own_disk();
    let host = network.manager();
    assert!(create(host, "web", "a=b").status.success());
    host.wait_running("web", 1);
    let before = host.containers();
    let data = host.dir.join("data");
    let _thawed = Thaw(data.clone());
    host.sh(&format!("fsfreeze -f {}", data.display()));
    let begun = Instant::now();
    let output = create(host, "late", "a=b");
    let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(refusal.contains("the disk of this manager has not finished a write"), "{refusal}");
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
    // From now on at once.
    let begun = Instant::now();
    assert!(!create(host, "later", "a=b").status.success());
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let nodes = host.ok(&["node", "ls"]);
    assert!(nodes.contains("has not finished a write"), "{nodes}");
    assert_eq!(host.containers(), before);

    host.sh(&format!("fsfreeze -u {}", data.display()));
    eventually("a change to be made again", || {
        create(host, "after", "a=b").status.success().then_some(())
    });
    host.wait_running("after", 1);
    eventually("the disk to be well, as the next heartbeat tells", || {
        host.ok(&["node", "ls"]).contains("Leader").then_some(())
    });
    assert!(host.containers().contains(&before[0]));
}

/// Lets a file system go on, however the test ends: nothing else could ever be done to it.
struct Thaw(std::path::PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        std::process::Command::new("fsfreeze").arg("-u").arg(&self.0).output().ok();
    }
}
