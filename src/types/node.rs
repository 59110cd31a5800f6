//! Nodes: what a user sets, what the node says of itself, and what the manager sees of it.

use super::{Date, GenericResource, Labels, NodeId, Platform, Resources, Version};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node does for the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Holds the cluster's state as well.
    Manager,
}

impl Role {
    /// The organisational unit that stands for this role in a node's certificate.
    #[must_use]
    pub fn organizational_unit(self) -> &'static str {
        match self {
            Self::Worker => "swarm-worker",
            Self::Manager => "swarm-manager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// Whether a node takes tasks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Availability {
    /// Takes new tasks.
    #[default]
    Active,
    /// Keeps what it has, takes nothing new.
    Pause,
    /// Its tasks move elsewhere.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// Whether the manager hears of the node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum NodeState {
    /// Not heard of since this manager began to lead, or doubted by the circuit breaker. Its tasks
    /// stay where they are.
    #[default]
    Unknown,
    /// Lost. Its tasks run elsewhere.
    Down,
    /// In touch.
    Ready,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Ready => "ready",
        })
    }
}

/// What a user sets of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// `node.labels.*` of constraints.
    pub labels: Labels,
    /// The role the user wants it to have.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// Which cgroup controllers a node can limit with. Raspberry Pi OS ships with memory off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupSupport {
    /// 1 or 2.
    pub version: u8,
    /// CPU quotas.
    pub cpu: bool,
    /// Memory limits.
    pub memory: bool,
    /// Process count limits.
    pub pids: bool,
}

/// The engine's side of a node's description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineDescription {
    /// midge's version.
    pub version: String,
    /// `engine.labels.*` of constraints, from the daemon's configuration.
    pub labels: Labels,
    /// containerd's version.
    pub runtime_version: String,
}

/// What a node says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeDescription {
    /// The machine's host name. Equal names in one cluster are normal.
    pub hostname: String,
    /// The platform whose images containerd runs here, variant included.
    pub platform: Platform,
    /// All of its CPU and memory.
    pub resources: Resources,
    /// What else it has, in order.
    pub generic: Vec<GenericResource>,
    /// The engine.
    pub engine: EngineDescription,
    /// What the kernel can limit.
    pub cgroups: CgroupSupport,
    /// The host's id (`/etc/machine-id`), by which a cloned disk is told. Empty where unknown.
    pub machine_id: String,
}

/// One image that a node holds and could run without a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldImage {
    /// The familiar name (`nginx:1.27`), as a user would write it.
    pub name: String,
    /// The digest of the manifest or index (`sha256:...`) that the name points to.
    pub digest: String,
    /// The platforms whose content is complete on this node.
    pub platforms: Vec<Platform>,
}

/// What the manager sees of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether it is in touch.
    pub state: NodeState,
    /// Why, in words. Empty where there is nothing to say.
    pub message: String,
    /// The address the manager sees it at, without a port.
    pub address: String,
}

impl NodeId {
    /// Returns the key of this node in the consensus group, from 2^62 on: 62 bits of the id itself,
    /// so that no node ever has another's. A node that left the group and comes back has a
    /// [new one](new_member_key).
    #[must_use]
    pub fn member(&self) -> u64 {
        let digit = |byte: u8| u64::from(char::from(byte).to_digit(36).unwrap_or(0));
        let bits = self
            .as_str()
            .bytes()
            .fold(0_u64, |bits, byte| bits.wrapping_mul(36).wrapping_add(digit(byte)));
        bits & ((1 << 62) - 1) | 1 << 62
    }
}

/// Returns a key in the consensus group for a node that comes back to it. It lost its log: under
/// the key that it had, the one it is sent would tell it that it votes before it is let go in the
/// middle of it, or even alone, and it could elect itself.
#[must_use]
pub fn new_member_key(random: u128) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = random.to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 2 | 1 << 62
}

/// A manager's standing among the managers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// The address other nodes reach it at, `host:port`.
    pub address: String,
    /// The key of its node in the consensus group.
    pub raft_id: u64,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id, the CN of its certificate.
    pub id: NodeId,
    /// When it was last written.
    pub version: Version,
    /// When it joined.
    pub created: Date,
    /// When it was last written, in wall-clock time.
    pub updated: Date,
    /// What a user sets.
    pub spec: NodeSpec,
    /// What it says of itself; empty until it registers.
    pub description: NodeDescription,
    /// What the manager sees.
    pub status: NodeStatus,
    /// Present on managers.
    pub manager: Option<ManagerStatus>,
    /// The role its certificate carries now; differs from the wanted one while it changes.
    pub role: Role,
    /// SHA-256 of the public key it joined with: the identity that its certificate must carry.
    pub key_digest: [u8; 32],
}

impl Node {
    /// Tells whether a user may mean this node by `name`: the beginning of its id, or its host name.
    #[must_use]
    pub fn may_be(&self, name: &str) -> bool {
        self.id.as_str().starts_with(name) || self.description.hostname == name
    }
}
