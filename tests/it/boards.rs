//! Small boards: little memory, a fifth of a core, and a card that wears out or is slow.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    disks::fill,
    host::{Host, Network, can_run, eventually, note, processes},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const SLEEP: &[&str] = &["sh", "-c", "while :; do sleep 1; done"];

/// The memory that a small board has for the daemon.
const MEMORY: u64 = 64 << 20;

/// What starting tasks may write, one or ten in a batch.
const WRITTEN_MAX: u64 = 64 << 10;

/// How many packets an idle node takes in while it is watched: one or two for each heartbeat.
const WATCHED: u64 = 12;

/// How many writes a slow disk carries out in a second: what a file system makes of one takes it
/// 200 ms at least.
const WRITES_A_SECOND: u32 = 10;

/// The control groups of a board's daemon.
struct Small {
    dirs: Vec<PathBuf>,
}

impl Small {
    /// Makes these.
    fn of(dirs: Vec<PathBuf>) -> Self {
        dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
        Self { dirs }
    }

    /// Makes them; none where this machine's control groups are not of version 1.
    fn new(name: &str) -> Option<Self> {
        let dirs: Vec<PathBuf> = ["memory", "cpu"]
            .map(|controller| Path::new("/sys/fs/cgroup").join(controller).join(name))
            .into();
        if dirs.iter().any(|dir| !dir.parent().is_some_and(|parent| parent.join("tasks").exists()))
        {
            note("skipped: the memory and cpu controllers of control groups are not of version 1");
            return None;
        }
        let small = Self::of(dirs);
        small.set(0, "memory.limit_in_bytes", MEMORY);
        small.set(1, "cpu.cfs_period_us", 100_000);
        small.set(1, "cpu.cfs_quota_us", 20_000);
        Some(small)
    }

    fn set(&self, dir: usize, file: &str, value: u64) {
        fs::write(self.dirs[dir].join(file), value.to_string()).unwrap();
    }

    fn memory(&self, file: &str) -> String {
        fs::read_to_string(self.dirs[0].join(file)).unwrap()
    }

    /// Returns a number from a file of lines `key number`, or of a number alone.
    fn number(&self, file: &str, key: &str) -> u64 {
        let text = self.memory(file);
        let value = if key.is_empty() {
            text.trim()
        } else {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap()
        };
        value.parse().unwrap()
    }

    fn pids(&self) -> BTreeSet<u32> {
        self.memory("cgroup.procs").lines().map(|line| line.parse().unwrap()).collect()
    }

    fn describe(&self) -> String {
        let kib = |file: &str, key: &str| self.number(file, key) >> 10;
        format!(
            "at most {} KiB, now {} KiB: anonymous {}, cache {}, kernel {}; the limit was met {} \
             times",
            kib("memory.max_usage_in_bytes", ""),
            kib("memory.usage_in_bytes", ""),
            kib("memory.stat", "rss"),
            kib("memory.stat", "cache"),
            kib("memory.kmem.usage_in_bytes", ""),
            self.number("memory.failcnt", ""),
        )
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The last process of it may still be ending.
            eventually("a control group to be empty", || fs::remove_dir(dir).ok());
        }
    }
}

/// Returns a field of a process' status, in KiB.
fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns the control group of a process below a controller.
fn group(pid: u32, controller: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|it| it == controller).then(|| path.to_owned())
    };
    text.lines().find_map(of).unwrap()
}

#[test]
fn a_worker_of_64_mib_and_a_fifth_of_a_core_runs_ten_tasks() {
    if !can_run() {
        return;
    }
    let Some(small) = Small::new(&format!("midge-it-{}", std::process::id())) else { return };
    let mut network = Network::new(2);
    let worker = &mut network.hosts[1];
    worker.groups.clone_from(&small.dirs);
    // An executable that nobody else has in memory: what is read of it counts.
    let own = worker.dir.join("midge");
    fs::copy(&worker.binary, &own).unwrap();
    worker.sh(&format!("sync {0}; dd of={0} oflag=nocache conv=notrunc count=0", own.display()));
    worker.binary = own;
    network.found(1);
    network.load_busybox();
    let manager = network.manager();
    let place = ["--constraint", "node.hostname==n2", "--replicas", "10", "--env", "A=1", "bb:1"];
    let create = ["service", "create", "-d", "--name", "web"];
    manager.ok(&[&create[..], &place, SLEEP].concat());
    manager.wait_running("web", 10);
    let before = network.hosts[1].containers();
    let update = ["service", "update", "--update-monitor", "1s", "--env-add", "A=2", "web"];
    manager.ok(&update);
    let updated = network.hosts[1].containers();
    assert_eq!(updated.len(), 10);
    assert!(before.iter().all(|one| !updated.contains(one)), "{before:?} {updated:?}");
    note(&format!("after an update: {}", small.describe()));

    // Nothing but the daemon is in its group: what it asked containerd for is in containerd's.
    assert_eq!(small.pids(), BTreeSet::from([network.hosts[1].pid()]));
    let dir = network.hosts[1].dir.display().to_string();
    let containerd = processes(&["containerd.toml", &dir])[0];
    for words in [["containerd-shim", &dir], ["__logger", &dir]] {
        let found = processes(&words);
        assert!(found.len() >= 10, "{words:?}");
        for pid in found {
            assert_eq!(group(pid, "memory"), group(containerd, "memory"), "{words:?}");
        }
    }
    for (task, pid) in &updated {
        let group = group(*pid, "memory");
        assert!(group.starts_with("/midge/") && group.contains(task), "{group}");
    }

    let first = status(network.hosts[1].pid(), "VmHWM");
    network.hosts[1].kill_daemon();
    network.hosts[1].start_daemon();
    let worker = &network.hosts[1];
    eventually("the same containers to be adopted", || {
        (worker.containers() == updated).then_some(())
    });
    network.manager().wait_running("web", 10);
    network.manager().ok(&["service", "scale", "web=9"]);
    let again = status(worker.pid(), "VmHWM");
    let killed = small.number("memory.oom_control", "oom_kill");
    note(&format!("after a restart: {}", small.describe()));
    note(&format!("resident at most: {first} KiB, and {again} KiB after a restart"));
    assert_eq!(killed, 0);
    // The rest is cache, which the kernel takes back where it is short of memory.
    let anonymous = small.number("memory.stat", "rss");
    let taken = anonymous + small.number("memory.kmem.usage_in_bytes", "");
    assert!(taken < MEMORY / 2, "{taken}");
}

/// Puts the state of each host on a disk of its own, and what must not survive a reboot in memory, as
/// `/run` is. What containerd keeps is in memory as well: not midge's to answer for. Without times of
/// access, as Raspberry Pi OS mounts its card: whoever first reads a file that was written would have
/// one noted.
fn on_disks_of_their_own(hosts: usize) -> Network {
    let mut network = Network::new(hosts);
    for host in &mut network.hosts {
        let dir = host.dir.display().to_string();
        host.kill_containerd();
        host.sh(&format!(
            "cd {dir}; mkdir -p data run ctd; truncate -s 1G data.img; mkfs.ext4 -q data.img; \
             mount -o loop,noatime,errors=remount-ro data.img data; \
             mount -t tmpfs midge run; mount -t tmpfs midge ctd"
        ));
        host.start_containerd();
    }
    network.found(1);
    network.load_busybox();
    network
}

/// Creates a service whose tasks run on the worker.
fn create_on_worker(network: &Network, name: &str, replicas: usize, more: &[&str]) {
    let replicas = replicas.to_string();
    let create = ["service", "create", "-d", "--name", name, "--replicas", &replicas];
    let place = ["--constraint", "node.hostname==n2", "bb:1"];
    network.manager().ok(&[&create[..], more, &place, SLEEP].concat());
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    /// By the daemon: what it changed in files, as the kernel counts it.
    daemon: u64,
    /// To the disk of its state, with all that the file system adds.
    disk: u64,
}

impl std::ops::Sub for Written {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { daemon: self.daemon - before.daemon, disk: self.disk - before.disk }
    }
}

impl Written {
    fn now(host: &Host) -> Self {
        let io = fs::read_to_string(format!("/proc/{}/io", host.pid())).unwrap();
        let daemon = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        host.sh(&format!("sync -f {}", host.dir.join("data").display()));
        let stat = host.sh(&format!("cat /sys/block/{}/stat", device(host)));
        let sectors: u64 = stat.split_whitespace().nth(6).unwrap().parse().unwrap();
        Self { daemon: daemon.parse().unwrap(), disk: sectors * 512 }
    }

    /// Returns what each host had written when it wrote no more.
    fn settled(hosts: &[Host]) -> Vec<Self> {
        let all = || hosts.iter().map(Self::now).collect::<Vec<_>>();
        let mut before = all();
        loop {
            packets(&hosts[1], 4);
            let now = all();
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

/// Returns the device that a host's state is on, as `loop0`.
fn device(host: &Host) -> String {
    let data = host.dir.join("data");
    let device = host.sh(&format!("findmnt -n -o SOURCE {}", data.display()));
    device.trim().trim_start_matches("/dev/").to_owned()
}

/// Waits until a host took in so many packets: where it is idle, an answer to a heartbeat each.
fn packets(host: &Host, count: u64) {
    let received = || -> u64 {
        let line = host.sh("ip -s -j link show dev eth0");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let first = received();
    eventually(&format!("{count} packets"), || (received() >= first + count).then_some(()));
}

#[test]
fn a_worker_writes_nothing_while_idle_and_little_for_tasks() {
    if !can_run() {
        return;
    }
    let network = on_disks_of_their_own(2);
    let idle = Written::settled(&network.hosts);
    packets(&network.hosts[1], WATCHED);
    let now: Vec<Written> = network.hosts.iter().map(Written::now).collect();
    assert_eq!(now, idle, "an idle manager and an idle worker");

    let mut before = idle;
    for (name, tasks) in [("ten", 10), ("one", 1)] {
        create_on_worker(&network, name, tasks, &[]);
        network.manager().wait_running(name, tasks);
        let after = Written::settled(&network.hosts);
        let [manager, worker] = [0, 1].map(|host| after[host] - before[host]);
        note(&format!("{tasks} tasks: the worker wrote {worker:?}, its manager {manager:?}"));
        assert!(worker.daemon <= WRITTEN_MAX, "{tasks} tasks: {worker:?}");
        before = after;
    }
    // What the manager writes where the tasks are its own.
    let on_manager = ["--constraint", "node.hostname==n1", "bb:1"];
    for (name, tasks) in [("own-ten", "10"), ("own-one", "1")] {
        let create = ["service", "create", "-d", "--name", name, "--replicas", tasks];
        network.manager().ok(&[&create[..], &on_manager, SLEEP].concat());
        network.manager().wait_running(name, tasks.parse().unwrap());
        let after = Written::settled(&network.hosts);
        note(&format!("{tasks} tasks of its own: a manager wrote {:?}", after[0] - before[0]));
        before = after;
    }
}

/// Returns what `node ls` says of the worker, which is never down.
fn worker_row(network: &Network) -> String {
    let nodes = network.manager().ok(&["node", "ls"]);
    let row = nodes.lines().find(|line| line.contains(" n2 ")).unwrap().to_owned();
    assert!(!row.contains("Down"), "{row}");
    row
}

#[test]
fn a_worker_with_a_full_disk_runs_on_and_says_so() {
    if !can_run() {
        return;
    }
    let network = on_disks_of_their_own(2);
    create_on_worker(&network, "web", 2, &[]);
    network.manager().wait_running("web", 2);
    let worker = &network.hosts[1];
    let before = worker.containers();
    let fill = fill(worker);
    // What is free inside the file goes first.
    let large = format!("LARGE={}", "x".repeat(60_000));
    let mut number = 0;
    eventually("the worker to say that its disk is full", || {
        number += 1;
        create_on_worker(&network, &format!("s{number}"), 5, &["--env", &large]);
        worker_row(&network).contains("No space left on device").then_some(())
    });
    let info = worker.midge(&["info"]);
    let info = String::from_utf8_lossy(&[info.stdout, info.stderr].concat()).into_owned();
    assert!(info.contains("No space left on device"), "{info}");
    assert!(before.iter().all(|one| worker.containers().contains(one)), "they run on");

    fs::remove_file(&fill).unwrap();
    create_on_worker(&network, "after", 1, &[]);
    network.manager().wait_running("after", 1);
    eventually("the worker to be well", || (!worker_row(&network).contains("but")).then_some(()));
    assert!(before.iter().all(|one| worker.containers().contains(one)), "they ran all the time");
}

/// Makes of a host's disk what a worn-out card comes to: read-only. Returns whether it could.
fn wear_out(host: &Host) -> bool {
    let error = format!("/sys/fs/ext4/{}/trigger_fs_error", device(host));
    let can = Path::new(&error).exists();
    if can {
        fs::write(error, "1").unwrap();
    } else {
        note("skipped: this kernel does not let errors of a disk be made");
    }
    can
}

#[test]
fn a_read_only_disk_stops_nothing_that_runs_and_is_named() {
    if !can_run() {
        return;
    }
    let mut network = on_disks_of_their_own(2);
    create_on_worker(&network, "web", 2, &[]);
    network.manager().wait_running("web", 2);
    let worker = &network.hosts[1];
    let before = worker.containers();
    if !wear_out(worker) {
        return;
    }
    create_on_worker(&network, "late", 1, &[]);
    eventually("the worker to say that its disk is read-only", || {
        worker_row(&network).contains("Read-only file system").then_some(())
    });
    packets(worker, WATCHED);
    assert!(worker_row(&network).contains("Ready, but"));
    assert_eq!(worker.containers(), before);

    // Nothing can be started on it, and what to do is said.
    network.hosts[1].kill_daemon();
    let output = network.hosts[1].daemon_command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("data/lock: Read-only file system"), "{said}");
    assert!(said.contains("hint: the kernel makes a file system read-only"), "{said}");

    // The next card, with what can be read of this one.
    let dir = network.hosts[1].dir.display().to_string();
    network.hosts[1].sh(&format!(
        "cd {dir}; cp --sparse=always data.img next.img; e2fsck -fy next.img >/dev/null || \
         test $? -le 2; umount -l data; mount -o loop next.img data"
    ));
    network.hosts[1].start_daemon();
    network.manager().wait_running("late", 1);
    let after = network.hosts[1].containers();
    assert!(before.iter().all(|one| after.contains(one)), "{before:?} {after:?}");
}

#[test]
fn a_manager_with_a_read_only_disk_says_so_and_runs_on() {
    if !can_run() {
        return;
    }
    let network = on_disks_of_their_own(1);
    let host = network.manager();
    host.ok(&[&["service", "create", "-d", "--name", "web", "bb:1"], SLEEP].concat());
    host.wait_running("web", 1);
    let before = host.containers();
    if !wear_out(host) {
        return;
    }
    let refusal = host.refused(&["service", "scale", "-d", "web=2"]);
    assert!(refusal.contains("Read-only file system"), "{refusal}");
    let nodes = host.ok(&["node", "ls"]);
    assert!(nodes.contains("Ready") && nodes.contains("Read-only file system"), "{nodes}");
    let info = host.midge(&["info"]);
    let info = String::from_utf8_lossy(&[info.stdout, info.stderr].concat()).into_owned();
    assert!(info.contains("Read-only file system"), "{info}");
    assert_eq!(host.containers(), before);
}

/// Disks that carry out few writes a second.
struct Slow {
    group: PathBuf,
    devices: Vec<String>,
}

impl Slow {
    /// Writes a limit for the daemons, and for what the kernel writes on their behalf.
    fn limit(&self, writes: u32) {
        for group in [&self.group, &self.group.parent().unwrap().to_owned()] {
            for device in &self.devices {
                let file = group.join("blkio.throttle.write_iops_device");
                fs::write(file, format!("{device} {writes}")).unwrap();
            }
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.limit(0);
    }
}

#[test]
fn slow_disks_delay_and_lose_nobody() {
    if !can_run() {
        return;
    }
    let group = PathBuf::from(format!("/sys/fs/cgroup/blkio/midge-it-{}", std::process::id()));
    if !Path::new("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device").exists() {
        note("skipped: there is no blkio controller of version 1");
        return;
    }
    let _removed = Small::of(vec![group.clone()]);
    let network = on_disks_of_their_own(2);
    let number = |host| fs::read_to_string(format!("/sys/block/{}/dev", device(host))).unwrap();
    let devices = network.hosts.iter().map(|host| number(host).trim().to_owned()).collect();
    for host in &network.hosts {
        fs::write(group.join("cgroup.procs"), host.pid().to_string()).unwrap();
    }
    let slow = Slow { group, devices };
    slow.limit(WRITES_A_SECOND);
    for host in &network.hosts {
        let begun = Instant::now();
        let probe = host.dir.join("data/probe");
        host.sh(&format!("dd if=/dev/zero of={} bs=4k count=10 oflag=sync", probe.display()));
        let took = begun.elapsed() / 10;
        note(&format!("what is written is on disk after {took:?}"));
        assert!(took >= Duration::from_millis(200), "{took:?}");
    }

    let begun = Instant::now();
    create_on_worker(&network, "web", 10, &[]);
    note(&format!("a change was committed after {:?}", begun.elapsed()));
    eventually("ten tasks on a slow disk", || {
        worker_row(&network);
        (network.manager().running("web").len() == 10).then_some(())
    });
    note(&format!("ten tasks ran after {:?}", begun.elapsed()));
    let begun = Instant::now();
    network.manager().ok(&["service", "scale", "-d", "web=11"]);
    network.manager().wait_running("web", 11);
    note(&format!("one more ran after {:?}", begun.elapsed()));
    let table = network.manager().ok(&["service", "ps", "web"]);
    assert!(!table.contains("\\_"), "nothing was replaced: {table}");
    assert!(network.manager().ok(&["node", "ls"]).contains("Leader"));
    worker_row(&network);
}
