//! Containers: what one task runs, and what it sees of its node.

use super::Labels;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The time from the stop signal to SIGKILL, as Swarm's.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How a mount made on one side of a bind mount shows on the other, as mount(2) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all, mounts below included.
    #[default]
    RPrivate,
    /// Not at all.
    Private,
    /// Both ways, mounts below included.
    RShared,
    /// Both ways.
    Shared,
    /// From the node into the container, mounts below included.
    RSlave,
    /// From the node into the container.
    Slave,
}

impl Propagation {
    /// Returns the name that Docker and mount(8) use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RPrivate => "rprivate",
            Self::Private => "private",
            Self::RShared => "rshared",
            Self::Shared => "shared",
            Self::RSlave => "rslave",
            Self::Slave => "slave",
        }
    }
}

/// How a file or folder of the node is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BindOptions {
    /// How mounts show on the other side.
    pub propagation: Propagation,
    /// Whether mounts below the source are left out.
    pub non_recursive: bool,
    /// Whether mounts below a read-only source stay writable.
    pub read_only_non_recursive: bool,
    /// Whether the task is refused where a read-only mount cannot be made so recursively.
    pub read_only_force_recursive: bool,
    /// Whether a missing source is made, as a folder.
    pub create_source: bool,
}

/// How a named volume is made, when its first task needs it, and mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// Whether an empty volume stays empty, instead of taking the image's content at its target.
    pub no_copy: bool,
    /// The folder inside the volume that is mounted; empty is all of it.
    pub subpath: String,
    /// Labels of the volume.
    pub labels: Labels,
    /// The volume driver; empty is `local`, the only one.
    pub driver: String,
    /// The driver's options: `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
}

/// How memory is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// At most so many bytes; 0 is half of the node's memory.
    pub size_bytes: u64,
    /// The mode of its root folder; none is 1777.
    pub mode: Option<u32>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or folder of the node, which must exist unless its options say otherwise.
    Bind {
        /// Its absolute path on the node.
        source: String,
        /// How.
        options: BindOptions,
    },
    /// A named volume of the node, made when first used and kept.
    Volume {
        /// Its name; empty is one of the task's own, removed with it.
        name: String,
        /// How.
        options: VolumeOptions,
    },
    /// Memory.
    Tmpfs {
        /// How.
        options: TmpfsOptions,
    },
}

/// A mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// The absolute path inside the container; unique among a container's mounts.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// What tells whether a container is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HealthTest {
    /// What the image says.
    #[default]
    Inherit,
    /// Nothing: a container that runs is healthy, whatever its image says.
    Disabled,
    /// A program with its arguments.
    Command(Vec<String>),
    /// A command line for the image's shell.
    Shell(String),
}

/// How the health of a container is found out. Zero and none take the image's value, and where it
/// has none Docker's: every 30 s, at most 30 s, 3 failures, no start period, 5 s within it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {
    /// By what.
    pub test: HealthTest,
    /// The time from the end of one probe to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How long after the start failures do not count, until the first success.
    pub start_period: Duration,
    /// The interval within the start period.
    pub start_interval: Duration,
    /// So many failures in a row make the container unhealthy.
    pub retries: u32,
}

/// The limits that setrlimit(2) has, as Docker names them.
pub const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The kernel parameters of a container's own shared memory and semaphores, as Docker lists them.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Tells whether a kernel parameter, written with dots, belongs to the namespace of shared memory
/// and message queues.
#[must_use]
pub fn is_ipc_sysctl(name: &str) -> bool {
    IPC_SYSCTLS.contains(&name) || name.starts_with("fs.mqueue.")
}

/// A limit of each process of a container, by setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Its name: `nofile`, `nproc`, `core`, ...
    pub name: String,
    /// What a process starts with; -1 is without limit.
    pub soft: i64,
    /// What a process may raise that to; -1 is without limit.
    pub hard: i64,
}

/// How names are resolved inside. Lists that are empty take the node's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Domains that short names are tried in.
    pub search: Vec<String>,
    /// Options of resolv.conf(5): `ndots:2`.
    pub options: Vec<String>,
}

/// A device of the node inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A device file, or a folder of them.
    Path {
        /// Its path on the node.
        source: String,
        /// Its path inside.
        target: String,
        /// What may be done: of `r`, `w`, `m`.
        permissions: String,
    },
    /// What a CDI specification of the node names so: `vendor.com/gpu=0`.
    Cdi {
        /// The qualified name.
        name: String,
    },
}

/// Whose namespace a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The node's.
    Host,
}

/// What a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image as the user named it, with the digest it was pinned to where it was:
    /// `nginx:1.27@sha256:...`.
    pub image: String,
    /// Replaces the image's entrypoint where not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments where not empty.
    pub args: Vec<String>,
    /// The host name inside; empty is derived from the task. A template.
    pub hostname: String,
    /// `NAME=value`, the last of a name wins. The values are templates.
    pub env: Vec<String>,
    /// The working directory; empty is the image's.
    pub dir: String,
    /// The user, `name|uid[:group|gid]`; empty is the image's.
    pub user: String,
    /// Supplementary groups, by name or number.
    pub groups: Vec<String>,
    /// Labels of the container.
    pub labels: Labels,
    /// Mounts. Sources and targets are templates.
    pub mounts: Vec<Mount>,
    /// The signal that asks it to stop (`SIGTERM`, `TERM`, `15`); empty is the image's.
    pub stop_signal: String,
    /// The time from that signal to SIGKILL; none is [`STOP_GRACE`].
    pub stop_grace: Option<Duration>,
    /// Whether the root file system cannot be written to.
    pub read_only: bool,
    /// Whether a small init reaps the container's orphans.
    pub init: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// How its health is found out; none is as the image says.
    pub health: Option<HealthCheck>,
    /// Lines of its hosts file, `ADDRESS NAME...`.
    pub hosts: Vec<String>,
    /// How names are resolved inside.
    pub dns: DnsConfig,
    /// Capabilities beyond Docker's default set: `CAP_NET_ADMIN`, or `ALL`.
    pub capability_add: Vec<String>,
    /// Capabilities of the default set that it does without.
    pub capability_drop: Vec<String>,
    /// Kernel parameters of its namespaces. Values are templates.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// How readily the kernel ends it for want of memory, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Whether it has all capabilities and devices, and no seccomp profile or masked paths.
    pub privileged: bool,
    /// Devices of the node.
    pub devices: Vec<Device>,
    /// The size of `/dev/shm` in bytes; 0 is Docker's 64 MiB.
    pub shm_size: u64,
    /// Whose processes it sees.
    pub pid: NamespaceMode,
    /// Whose shared memory and semaphores it uses.
    pub ipc: NamespaceMode,
    /// As `docker run` has it: `no-new-privileges`, `seccomp=unconfined`, `seccomp=PROFILE` (the
    /// JSON itself), `apparmor=PROFILE`, `systempaths=unconfined`.
    pub security: Vec<String>,
}
