//! What is asked of a running container, and what it answers: the nouns of `exec`, `cp`, `stats`
//! and `top`.
//!
//! Knows what travels between nodes; must not know how a container is reached.

use super::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands for the exit status of a container, or of a command in one, that has none, or whose
/// nobody saw, as Docker has it.
pub const EXIT_UNKNOWN: i32 = 255;

/// A process to run inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, on top of the container's own.
    pub env: Vec<String>,
    /// `user|uid[:group|gid]`; empty is the container's.
    pub user: String,
    /// The working directory; empty is the container's.
    pub dir: String,
    /// With every capability that the node has.
    pub privileged: bool,
    /// With a terminal.
    pub tty: bool,
    /// Whether its input is fed; otherwise it is empty.
    pub stdin: bool,
    /// Whether its output is wanted.
    pub stdout: bool,
    /// Whether its error output is wanted.
    pub stderr: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// What a path inside a container is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathStat {
    /// The last part of the path that was asked for.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The kernel's mode: type and permissions.
    pub mode: u32,
    /// When it was changed last.
    pub modified: Date,
    /// Where a symbolic link leads, as a path inside the container; empty for everything else.
    pub link_target: String,
}

/// How an archive is unpacked in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnpackOptions {
    /// Refuse to put a file where a folder is, and the other way round.
    pub keep_kinds: bool,
    /// Give everything to the user that the container runs as, instead of to whom the archive
    /// names.
    pub own_to_user: bool,
}

/// The processes of a container as a table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessTable {
    /// The headings.
    pub titles: Vec<String>,
    /// A row a process, as many cells as there are headings.
    pub rows: Vec<Vec<String>>,
}

/// What the kernel has counted of a container up to a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// When it was read.
    pub date: Date,
    /// The version of the cgroup file system: 1 or 2.
    pub cgroup_version: u8,
    /// Processor time.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes and threads now; 0 where they are not counted.
    pub pids: u64,
    /// At most so many; none is no limit.
    pub pids_limit: Option<u64>,
    /// What was read from and written to disks.
    pub disks: Vec<DeviceUsage>,
    /// What each interface carried, by name; empty where the container uses the node's network.
    pub networks: BTreeMap<String, NetworkUsage>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuUsage {
    /// Of the container.
    pub total: u64,
    /// Of it in programs.
    pub user: u64,
    /// Of it in the kernel.
    pub kernel: u64,
    /// Of the container on each processor; empty where it is not counted.
    pub per_cpu: Vec<u64>,
    /// Of all processors of the node, idle time included.
    pub system: u64,
    /// How many processors there are.
    pub online: u32,
    /// Periods in which the container had a quota.
    pub periods: u64,
    /// Periods in which it used it up.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// Now, caches included.
    pub usage: u64,
    /// The most there was; 0 where that is not counted.
    pub peak: u64,
    /// The limit: the container's own, or the node's memory.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The kernel's own counters.
    pub details: BTreeMap<String, u64>,
}

/// What one disk did for a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceUsage {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// How many times it was read.
    pub reads: u64,
    /// How many times it was written.
    pub writes: u64,
}

/// What an interface of a container carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkUsage {
    /// Received.
    pub received: LinkUsage,
    /// Sent.
    pub sent: LinkUsage,
}

/// One direction of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkUsage {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were faulty.
    pub errors: u64,
    /// Packets that were given up.
    pub dropped: u64,
}
