//! What there is to know of a machine: plain data, that tests write by hand.
//!
//! Where a field is a `Result`, its error says why nobody could look.

use crate::runtime;
use std::net::Ipv4Addr;

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// This very program.
    pub program: Program,
    /// The operating system.
    pub system: System,
    /// The kernel.
    pub kernel: Kernel,
    /// What the kernel can limit.
    pub cgroups: Cgroups,
    /// What confines containers besides.
    pub apparmor: AppArmor,
    /// The container runtime.
    pub containerd: Containerd,
    /// What the configuration has start containers; none where midge chooses.
    pub oci_configured: Option<String>,
    /// Programs that start containers, with what they say of themselves; the error is why not. Only
    /// the configured one, where one is.
    pub oci_runtimes: Vec<(String, Result<String, String>)>,
    /// The UDP port that this node talks to others on.
    pub cluster_port: u16,
    /// UDP ports that midge wants.
    pub ports: Vec<Port>,
    /// What is at the path of the daemon's API.
    pub socket: Socket,
    /// The clock.
    pub clock: Clock,
    /// Where files go.
    pub disks: Vec<Disk>,
    /// What filters packets.
    pub firewall: Firewall,
    /// Where packets go.
    pub routes: Result<Vec<Route>, String>,
    /// The block of addresses that this node's bridge has, once it was chosen.
    pub bridge_block: Option<(Ipv4Addr, u8)>,
    /// Who the machine says it is.
    pub identity: Identity,
    /// Its memory.
    pub memory: Memory,
    /// The configuration of the daemon.
    pub config: Config,
    /// What the daemon says, where one answers; the error is why it does not, though something
    /// listens.
    pub daemon: Result<Option<Daemon>, String>,
}

/// This very program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The processor that it was built for (`x86_64`, `aarch64`, `arm`).
    pub architecture: String,
    /// Whether it runs as root.
    pub root: bool,
}

/// What installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    /// Debian and what descends from it.
    Apt,
    /// Alpine.
    Apk,
    /// Fedora and what descends from it.
    Dnf,
    /// Another, or none.
    Other,
}

/// What starts services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC, Alpine's.
    OpenRc,
    /// Another, or none.
    Other,
}

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Its name for people, where it says one.
    pub name: Option<String>,
    /// The board's model, where the firmware tells it.
    pub board: Option<String>,
    /// What installs packages.
    pub packages: Packages,
    /// What starts services.
    pub init: Init,
    /// Whether its programs are of 32 or of 64 bits, where that can be told.
    pub bits: Option<u8>,
}

/// Something that a kernel may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name, which a finding is named by.
    pub name: &'static str,
    /// The option that it is built by.
    pub option: &'static str,
    /// The module that it may be.
    pub module: &'static str,
    /// Whether nothing runs without it.
    pub needed: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// What midge wants of a kernel, beside what every kernel has.
pub(super) const FEATURES: [Feature; 10] = [
    needed("overlay", "CONFIG_OVERLAY_FS", "overlay", "files of containers"),
    needed("veth", "CONFIG_VETH", "veth", "the cable of a container"),
    needed("bridge", "CONFIG_BRIDGE", "bridge", "the network of containers"),
    needed("nf-tables", "CONFIG_NF_TABLES", "nf_tables", "published ports"),
    needed("nft-nat", "CONFIG_NFT_NAT", "nft_nat", "published ports"),
    needed("nft-masq", "CONFIG_NFT_MASQ", "nft_masq", "the way out of containers"),
    needed("nft-fib", "CONFIG_NFT_FIB_IPV4", "nft_fib_ipv4", "published ports"),
    needed("nft-ct", "CONFIG_NFT_CT", "nft_ct", "published ports"),
    Feature {
        name: "ct-netlink",
        option: "CONFIG_NF_CT_NETLINK",
        module: "nf_conntrack_netlink",
        needed: false,
        purpose: "UDP clients that keep sending while the task that they send to is replaced",
    },
    Feature {
        name: "vxlan",
        option: "CONFIG_VXLAN",
        module: "vxlan",
        needed: false,
        purpose: "networks that span nodes, which this version does not make yet",
    },
];

const fn needed(
    name: &'static str,
    option: &'static str,
    module: &'static str,
    purpose: &'static str,
) -> Feature {
    Feature { name, option, module, needed: true, purpose }
}

/// How the kernel has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is part of the kernel.
    BuiltIn,
    /// Its module is loaded.
    Loaded,
    /// Its module is there to be loaded.
    Loadable,
    /// It is not there.
    Missing,
    /// Nothing on this machine tells.
    Unknown,
}

/// The kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `6.1.0-18-amd64`.
    pub release: String,
    /// Its word for the processor (`x86_64`, `aarch64`, `armv7l`).
    pub machine: String,
    /// Each of [`FEATURES`].
    pub features: Vec<(Feature, Presence)>,
    /// The namespaces that it lacks, of those that containers need.
    pub namespaces_missing: Vec<String>,
    /// Whether it filters system calls; none where nothing tells.
    pub seccomp: Option<bool>,
    /// Whether it loads modules, and those of another release lie there but not its own.
    pub modules_gone: bool,
}

/// How the kernel's command line is changed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// One line in a file, the Raspberry Pi's.
    Line,
    /// `GRUB_CMDLINE_LINUX` in `/etc/default/grub`.
    Grub,
    /// `extraargs=` in Armbian's file.
    Armbian,
    /// `APPEND` lines.
    Extlinux,
}

/// The file that the kernel's command line is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Where it is.
    pub path: String,
    /// How it is written.
    pub kind: BootKind,
    /// What is in it; empty where it cannot be read.
    pub text: String,
}

/// What the kernel can limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// 1 or 2; 0 where the file system is not mounted.
    pub version: u8,
    /// Processor time.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
    /// Numbers of processes.
    pub pids: bool,
    /// Where the kernel's command line is changed, where that is known.
    pub boot: Option<BootFile>,
}

/// AppArmor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppArmor {
    /// What it does for containers that name no profile; none where only root may know.
    pub state: Option<runtime::apparmor::AppArmor>,
    /// Whether the program that loads profiles is there.
    pub parser: bool,
    /// Whether midge's own profile is installed.
    pub installed: bool,
}

/// What became of the question to containerd's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answered with its version.
    Version(String),
    /// There is no socket.
    Absent,
    /// Nobody listens there.
    Refused,
    /// Only others may ask.
    Denied,
    /// It does not answer, or not as containerd does.
    Silent(String),
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// The socket.
    pub socket: String,
    /// What it answered.
    pub answer: Answer,
    /// Whether its program is installed.
    pub installed: bool,
}

/// A UDP port that midge wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// Who holds it: each socket's program with its process, or none where that cannot be seen.
    /// The error is why nobody could look.
    pub holders: Result<Vec<Option<(String, u32)>>, String>,
}

/// What is at the path of the daemon's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The path.
    pub path: String,
    /// What is there.
    pub state: SocketState,
}

/// What is at a socket's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketState {
    /// Nothing.
    Absent,
    /// Somebody listens.
    Listens,
    /// A socket that nobody listens on any more.
    Stale,
    /// Only others may talk to it.
    Denied,
    /// No socket.
    NotASocket,
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// The clock. Seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// What it says.
    pub now: u64,
    /// What it must be past: this program was built then.
    pub built: u64,
    /// Whether something keeps it right; none where the kernel does not tell.
    pub synchronised: Option<bool>,
    /// Whether it goes on while the machine is off.
    pub battery: bool,
}

/// What a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What midge remembers.
    Data,
    /// Images and containers.
    Images,
}

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What it is for.
    pub role: Role,
    /// The folder.
    pub path: String,
    /// Its file system, where that can be told.
    pub file_system: Option<String>,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether it is a memory card.
    pub card: bool,
    /// All of it, in bytes.
    pub total: u64,
    /// What is free for programs, in bytes.
    pub free: u64,
    /// How long it takes until something is safe; none where it does not matter. The error is why
    /// it was not measured.
    pub sync: Option<Result<Sync, String>>,
}

/// How long it takes to write a few kilobytes so that they outlive a power cut. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sync {
    /// Half of the writes took no longer.
    pub median: u64,
    /// The longest took so long.
    pub worst: u64,
}

/// A chain of the packet filter that the kernel calls by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table, as `nft` writes it: `ip`, `ip6`, `inet`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether it is one of the older iptables.
    pub legacy: bool,
    /// What it sees.
    pub hook: Hook,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
    /// Whether a rule of it, or of a chain that it calls, speaks of midge's addresses or bridge, and
    /// does not drop.
    pub lets_midge_through: bool,
}

/// What a chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What comes to the machine itself.
    Input,
    /// What goes through it.
    Forward,
}

/// Who makes rules on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Docker's engine.
    Docker,
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
}

/// What filters packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Chains of others; the error is why nobody could look.
    pub chains: Result<Vec<Chain>, String>,
    /// Whose rules were found.
    pub keepers: Vec<Keeper>,
    /// Whether packets between containers of one bridge pass these chains too.
    pub sees_bridges: bool,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// By which interface.
    pub interface: String,
    /// Where to.
    pub to: Ipv4Addr,
    /// The length of the prefix.
    pub prefix_len: u8,
}

/// Who the machine says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `/etc/machine-id`, none where it is missing.
    pub machine_id: Option<String>,
    /// `/var/lib/dbus/machine-id`, where it is a file of its own.
    pub dbus_machine_id: Option<String>,
    /// The host name.
    pub hostname: String,
}

/// The machine's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// All of it; 0 where it cannot be told.
    pub total: u64,
    /// What is swapped to: devices or files, and how large.
    pub swaps: Vec<(String, u64)>,
}

/// The configuration of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// It can be used, or there is none.
    Usable,
    /// It cannot be used, for this reason.
    Wrong(String),
    /// It cannot be read, for this reason.
    Unseen(String),
}

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// `inactive`, `active`, `pending`, `locked` or `error`.
    pub swarm: String,
    /// What is wrong with its membership, in its words; empty where nothing is.
    pub error: String,
    /// Whether it is a manager.
    pub manager: bool,
    /// What else it warns of.
    pub warnings: Vec<String>,
    /// How many other nodes of the cluster bear this node's name; 0 where it does not know.
    pub namesakes: usize,
}
