//! What the kernel has counted of a container: processor, memory, disks, network.
//!
//! Knows the files of both versions of the cgroup file system and of `/proc`; must not know who
//! shows the numbers.

use super::{
    cgroups,
    containerd::container,
    engine::{Runtime, cgroup_of},
    exec::{self, ExecError},
};
use crate::{
    types::{CpuUsage, Date, DeviceUsage, LinkUsage, MemoryUsage, NetworkUsage, TaskId, Usage},
    util::unblock::unblock,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Nanoseconds in one of the ticks that `/proc` counts in: 100 a second on every processor that
/// midge runs on.
const TICK_NANOS: u64 = 10_000_000;

/// How many of the fields of `/proc/stat` are time of its own: the rest is counted in these, too.
const CPU_FIELDS: usize = 7;

impl Runtime {
    /// Reads what the kernel has counted of the task's container.
    ///
    /// # Errors
    ///
    /// The container does not run.
    pub async fn usage(&self, task: &TaskId) -> Result<Usage, ExecError> {
        let (pid, group) = self.group(task).await?;
        let read = unblock(move || {
            let proc = Path::new("/proc");
            let mut usage = counted(Path::new(cgroups::ROOT), &group);
            usage.date = now();
            node(proc, &mut usage);
            usage.networks = networks(proc, pid);
            usage
        });
        Ok(read.await)
    }

    /// Returns the container's first process and its cgroup.
    pub(super) async fn group(&self, task: &TaskId) -> Result<(u32, String), ExecError> {
        let link = &self.shared.link;
        let pid = exec::running(link, task).await?;
        let record = container::get(link, task.as_str()).await;
        let record = record.map_err(|error| exec::asking(&error))?;
        let record = record.ok_or_else(|| ExecError::NoContainer(task.clone()))?;
        let group = cgroup_of(&record.spec).unwrap_or_default();
        Ok((pid, group))
    }
}

fn now() -> Date {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Date::EPOCH + since.unwrap_or(Duration::ZERO)
}

/// Reads the counters of the group `path`.
fn counted(root: &Path, path: &str) -> Usage {
    let path = path.trim_start_matches('/');
    if root.join("cgroup.controllers").exists() {
        unified(&root.join(path))
    } else {
        split(|controller| root.join(controller).join(path))
    }
}

fn unified(group: &Path) -> Usage {
    let cpu = counters(&group.join("cpu.stat"));
    let get = |name: &str| cpu.get(name).copied().unwrap_or_default();
    let micros = |name: &str| get(name).saturating_mul(1_000);
    Usage {
        cgroup_version: 2,
        cpu: CpuUsage {
            total: micros("usage_usec"),
            user: micros("user_usec"),
            kernel: micros("system_usec"),
            periods: get("nr_periods"),
            throttled_periods: get("nr_throttled"),
            throttled: micros("throttled_usec"),
            ..CpuUsage::default()
        },
        memory: MemoryUsage {
            usage: number(&group.join("memory.current")),
            peak: number(&group.join("memory.peak")),
            limit: limit(&group.join("memory.max")).unwrap_or_default(),
            failures: 0,
            details: counters(&group.join("memory.stat")),
        },
        pids: number(&group.join("pids.current")),
        pids_limit: limit(&group.join("pids.max")),
        disks: disks_unified(&text(&group.join("io.stat"))),
        ..Usage::default()
    }
}

fn split(group: impl Fn(&str) -> PathBuf) -> Usage {
    let (cpu, accounts) = (group("cpu"), group("cpuacct"));
    let (memory, pids, disks) = (group("memory"), group("pids"), group("blkio"));
    let ticks = counters(&accounts.join("cpuacct.stat"));
    let nanos = |name: &str| ticks.get(name).copied().unwrap_or_default() * TICK_NANOS;
    let quota = counters(&cpu.join("cpu.stat"));
    let get = |name: &str| quota.get(name).copied().unwrap_or_default();
    let per_cpu = text(&accounts.join("cpuacct.usage_percpu"));
    Usage {
        cgroup_version: 1,
        cpu: CpuUsage {
            total: number(&accounts.join("cpuacct.usage")),
            user: nanos("user"),
            kernel: nanos("system"),
            per_cpu: per_cpu.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect(),
            periods: get("nr_periods"),
            throttled_periods: get("nr_throttled"),
            throttled: get("throttled_time"),
            ..CpuUsage::default()
        },
        memory: MemoryUsage {
            usage: number(&memory.join("memory.usage_in_bytes")),
            peak: number(&memory.join("memory.max_usage_in_bytes")),
            limit: number(&memory.join("memory.limit_in_bytes")),
            failures: number(&memory.join("memory.failcnt")),
            details: counters(&memory.join("memory.stat")),
        },
        pids: number(&pids.join("pids.current")),
        pids_limit: limit(&pids.join("pids.max")),
        disks: disks_split(&disks),
        ..Usage::default()
    }
}

/// Reads what of the node goes with a container's counters.
fn node(proc: &Path, usage: &mut Usage) {
    let stat = text(&proc.join("stat"));
    let mut lines = stat.lines().filter(|line| line.starts_with("cpu"));
    let all = lines.next().unwrap_or_default().split_ascii_whitespace().skip(1).take(CPU_FIELDS);
    let ticks: u64 = all.filter_map(|n| n.parse::<u64>().ok()).sum();
    usage.cpu.system = ticks.saturating_mul(TICK_NANOS);
    usage.cpu.online = u32::try_from(lines.count()).unwrap_or(u32::MAX);
    let memory = text(&proc.join("meminfo"));
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    let total = total.unwrap_or(0_u64).saturating_mul(1_024);
    // Without a limit of its own, the first version of cgroups says more than there can be.
    if usage.memory.limit == 0 || (total > 0 && usage.memory.limit > total) {
        usage.memory.limit = total;
    }
}

/// Reads what the interfaces of a process carried; none where it uses the node's own.
fn networks(proc: &Path, pid: u32) -> BTreeMap<String, NetworkUsage> {
    let of = |process: &str| fs::read_link(proc.join(process).join("ns/net"));
    let own: io::Result<PathBuf> = of("self");
    if let (Ok(own), Ok(its)) = (own, of(&pid.to_string()))
        && own == its
    {
        return BTreeMap::new();
    }
    interfaces(&text(&proc.join(pid.to_string()).join("net/dev")))
}

fn interfaces(text: &str) -> BTreeMap<String, NetworkUsage> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> =
            rest.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let link = |at: usize| {
            let get = |offset: usize| numbers.get(at + offset).copied().unwrap_or_default();
            LinkUsage { bytes: get(0), packets: get(1), errors: get(2), dropped: get(3) }
        };
        let usage = NetworkUsage { received: link(0), sent: link(8) };
        Some((name.trim().to_owned(), usage))
    };
    text.lines().filter_map(line).filter(|(name, _)| name != "lo").collect()
}

/// Reads `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn disks_unified(text: &str) -> Vec<DeviceUsage> {
    let disk = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device(words.next()?)?;
        let mut disk = DeviceUsage { major, minor, ..DeviceUsage::default() };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or_default();
            match name {
                "rbytes" => disk.read = value,
                "wbytes" => disk.written = value,
                "rios" => disk.reads = value,
                "wios" => disk.writes = value,
                _ => {}
            }
        }
        Some(disk)
    };
    text.lines().filter_map(disk).collect()
}

/// Reads lines such as `8:0 Read 1` of two files.
fn disks_split(group: &Path) -> Vec<DeviceUsage> {
    let mut disks: BTreeMap<(u64, u64), DeviceUsage> = BTreeMap::new();
    let read = |name: &str| {
        let all = text(&group.join(format!("blkio.throttle.{name}_recursive")));
        if all.is_empty() { text(&group.join(format!("blkio.throttle.{name}"))) } else { all }
    };
    for (file, bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        for line in read(file).lines() {
            let mut words = line.split_ascii_whitespace();
            let Some((major, minor)) = words.next().and_then(device) else { continue };
            let disk = disks.entry((major, minor)).or_default();
            (disk.major, disk.minor) = (major, minor);
            let field = match (words.next(), bytes) {
                (Some("Read"), true) => &mut disk.read,
                (Some("Write"), true) => &mut disk.written,
                (Some("Read"), false) => &mut disk.reads,
                (Some("Write"), false) => &mut disk.writes,
                _ => continue,
            };
            *field = words.next().and_then(|n| n.parse().ok()).unwrap_or_default();
        }
    }
    disks.into_values().collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Reads a file; empty where it is not there: a controller that is off, or a kernel that is older.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    text(path).trim().parse().unwrap_or_default()
}

/// Reads a limit; none for `max`.
fn limit(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// Reads lines of a name and a number.
fn counters(path: &Path) -> BTreeMap<String, u64> {
    let text = text(path);
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(dir)
        }
    }

    #[test]
    fn version_2_is_read() {
        let files = Files::new(&[
            ("cgroup.controllers", "cpu memory\n"),
            (
                "midge/c/cpu.stat",
                "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 50\n",
            ),
            ("midge/c/memory.current", "5000\n"),
            ("midge/c/memory.max", "max\n"),
            ("midge/c/memory.stat", "anon 100\ninactive_file 700\n"),
            ("midge/c/pids.current", "3\n"),
            ("midge/c/pids.max", "50\n"),
            ("midge/c/io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n"),
        ]);
        let usage = counted(files.0.path(), "/midge/c");
        assert_eq!(usage.cgroup_version, 2);
        let cpu = &usage.cpu;
        assert_eq!((cpu.total, cpu.user, cpu.kernel), (3_000_000, 2_000_000, 1_000_000));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (9, 4, 50_000));
        assert_eq!((usage.memory.usage, usage.memory.limit), (5_000, 0));
        assert_eq!(usage.memory.details["inactive_file"], 700);
        assert_eq!((usage.pids, usage.pids_limit), (3, Some(50)));
        let disk = DeviceUsage { major: 8, minor: 0, read: 10, written: 20, reads: 1, writes: 2 };
        assert_eq!(usage.disks[0], disk);
    }

    #[test]
    fn version_1_is_read() {
        let files = Files::new(&[
            ("cpuacct/c/cpuacct.usage", "900\n"),
            ("cpuacct/c/cpuacct.usage_percpu", "400 500 \n"),
            ("cpuacct/c/cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpu/c/cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 77\n"),
            ("memory/c/memory.usage_in_bytes", "5000\n"),
            ("memory/c/memory.max_usage_in_bytes", "6000\n"),
            ("memory/c/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/c/memory.failcnt", "2\n"),
            ("memory/c/memory.stat", "inactive_file 1\ntotal_inactive_file 700\n"),
            ("pids/c/pids.current", "3\n"),
            ("pids/c/pids.max", "max\n"),
            (
                "blkio/c/blkio.throttle.io_service_bytes",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
            ),
            ("blkio/c/blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\n"),
            ("proc/stat", "cpu  1 2 3 4 5 6 7 100 9 9\ncpu0 1\ncpu1 1\nintr 5\n"),
            ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n"),
        ]);
        let mut usage = counted(files.0.path(), "/c");
        node(&files.0.path().join("proc"), &mut usage);
        assert_eq!(usage.cgroup_version, 1);
        let cpu = &usage.cpu;
        assert_eq!((cpu.total, cpu.user, cpu.kernel), (900, 20_000_000, 10_000_000));
        assert_eq!((&cpu.per_cpu[..], cpu.throttled), (&[400, 500][..], 77));
        assert_eq!((cpu.system, cpu.online), (280_000_000, 2));
        assert_eq!(usage.memory.limit, 1_024_000);
        assert_eq!((usage.memory.peak, usage.memory.failures), (6_000, 2));
        assert_eq!(usage.memory.details["total_inactive_file"], 700);
        assert_eq!((usage.pids, usage.pids_limit), (3, None));
        let disk = DeviceUsage { major: 8, minor: 0, read: 10, written: 20, reads: 1, writes: 2 };
        assert_eq!(usage.disks, [disk]);
    }

    #[test]
    fn interfaces_are_read() {
        let text = "Inter-|   Receive      |  Transmit\n face |bytes packets\n\
                    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
                    eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let all = interfaces(text);
        let received = LinkUsage { bytes: 10, packets: 2, errors: 3, dropped: 4 };
        let sent = LinkUsage { bytes: 50, packets: 6, errors: 7, dropped: 8 };
        assert_eq!(all, BTreeMap::from([("eth0".to_owned(), NetworkUsage { received, sent })]));
    }

    #[test]
    fn nothing_there_counts_nothing() {
        let usage = counted(Path::new("/nonexistent"), "/c");
        assert_eq!(usage, Usage { cgroup_version: 1, ..Usage::default() });
    }
}
