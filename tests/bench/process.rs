//! What a process uses, as the kernel tells it.

use crate::host::{Host, processes};
use std::{fs, ops::Sub};

/// A process by its id.
pub(crate) struct Process(u32);

/// What grows while a process or a link is at work.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Bytes written to disk.
    pub(crate) written: f64,
    /// Seconds of CPU.
    pub(crate) cpu: f64,
    /// Bytes sent, Ethernet's headers left out.
    pub(crate) sent: f64,
    /// Bytes received, the same.
    pub(crate) received: f64,
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            written: self.written - before.written,
            cpu: self.cpu - before.cpu,
            sent: self.sent - before.sent,
            received: self.received - before.received,
        }
    }
}

impl Counted {
    pub(crate) fn between(before: &Self, after: &Self) -> Self {
        *after - *before
    }
}

/// The kernel's clock ticks in a second, for `/proc/PID/stat`: 100 on every Linux.
const TICKS: f64 = 100.0;

/// An Ethernet header, which a link's counters include.
const ETHERNET: f64 = 14.0;

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// Finds the processes whose command line holds all of `words`.
    pub(crate) fn named(words: &[&str]) -> Vec<Self> {
        processes(words).into_iter().map(Self).collect()
    }

    /// Sums the lines of a file of this process that begin with one of `keys`, in MiB.
    fn sum(&self, file: &str, keys: &[&str]) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default();
        let kib = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| keys.contains(key))
            .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok())
            .sum::<f64>();
        kib / 1024.0
    }

    /// Returns the resident memory in MiB.
    pub(crate) fn resident(&self) -> f64 {
        self.sum("status", &["VmRSS"])
    }

    /// Returns the memory that is nobody else's, in MiB.
    pub(crate) fn private(&self) -> f64 {
        self.sum("smaps_rollup", &["Private_Clean", "Private_Dirty"])
    }

    /// Returns the resident memory with what is shared divided among those who share it, in MiB.
    pub(crate) fn proportional(&self) -> f64 {
        self.sum("smaps_rollup", &["Pss"])
    }

    pub(crate) fn counted(&self) -> Counted {
        let io = fs::read_to_string(format!("/proc/{}/io", self.0)).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The name in parentheses may hold anything; after it come the state and 10 other fields.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        let written = written.and_then(|n| n.parse().ok()).unwrap_or_default();
        Counted { written, cpu: ticks / TICKS, ..Counted::default() }
    }
}

impl Host {
    /// Returns what has gone over this host's link.
    pub(crate) fn link_counted(&self) -> Counted {
        let text = self.sh("cd /sys/class/net/eth0 2>/dev/null; cat /proc/net/dev");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap_or("");
        let fields: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let ip = |bytes: usize| fields[bytes] - fields[bytes + 1] * ETHERNET;
        Counted { received: ip(0), sent: ip(8), ..Counted::default() }
    }
}
