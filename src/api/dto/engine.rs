//! The engine: version, info.

use super::{ObjectVersion, is_default, nullable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// The product.
    pub platform: PlatformName,
    /// Its parts.
    #[serde(deserialize_with = "nullable")]
    pub components: Vec<Component>,
    /// midge's version.
    pub version: String,
    /// The newest API version.
    pub api_version: String,
    /// The oldest API version.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Empty.
    pub git_commit: String,
    /// Empty.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// In Go's words.
    pub arch: String,
    /// The kernel's release.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel_version: String,
}

/// The product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlatformName {
    /// Its name.
    pub name: String,
}

/// A part of the product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What else there is.
    #[serde(deserialize_with = "nullable")]
    pub details: BTreeMap<String, String>,
}

/// The cluster's side of `GET /info`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmInfo {
    /// This node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Where others reach it.
    pub node_addr: String,
    /// Where it stands.
    pub local_node_state: String,
    /// Whether it is a manager.
    pub control_available: bool,
    /// What is wrong.
    pub error: String,
    /// The managers it knows.
    pub remote_managers: Option<Vec<RemoteManager>>,
    /// How many nodes there are.
    #[serde(skip_serializing_if = "is_default")]
    pub nodes: usize,
    /// How many managers there are.
    #[serde(skip_serializing_if = "is_default")]
    pub managers: usize,
    /// The cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<super::Swarm>,
    /// What this manager's log ends with. midge's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<LastEntry>,
}

/// The last entry of a manager's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LastEntry {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

/// A manager that a node knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RemoteManager {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Where it is.
    pub addr: String,
}

/// The parts of `GET /info` that midge's own client reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// Names the engine.
    #[serde(rename = "ID")]
    pub id: String,
    /// All containers.
    pub containers: u64,
    /// Those that run.
    pub containers_running: u64,
    /// None.
    pub containers_paused: u64,
    /// The others.
    pub containers_stopped: u64,
    /// Images.
    pub images: u64,
    /// What holds containers' file systems.
    pub driver: String,
    /// Facts about it.
    pub driver_status: Vec<(String, String)>,
    /// What it can.
    pub plugins: Plugins,
    /// Whether memory can be limited.
    pub memory_limit: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// Whether CPU quotas work.
    pub cpu_cfs_period: bool,
    /// Whether CPU quotas work.
    pub cpu_cfs_quota: bool,
    /// Whether processes can be limited.
    pub pids_limit: bool,
    /// What is the same of every midge.
    #[serde(flatten)]
    pub facts: super::EngineFacts,
    /// Always true: the bridge needs it.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// RFC 3339.
    pub system_time: String,
    /// `json-file`.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The operating system's name.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// In the kernel's words.
    pub architecture: String,
    /// Docker's registry.
    pub index_server_address: String,
    /// Registries.
    pub registry_config: RegistryConfig,
    /// Processors.
    #[serde(rename = "NCPU")]
    pub ncpu: u64,
    /// Bytes.
    pub mem_total: u64,
    /// Where the state is.
    pub docker_root_dir: String,
    /// The host name.
    pub name: String,
    /// `NAME=value`.
    pub labels: Vec<String>,
    /// False.
    pub experimental_build: bool,
    /// midge's version.
    pub server_version: String,
    /// What runs containers.
    pub runtimes: BTreeMap<String, RuntimePath>,
    /// The one that is used.
    pub default_runtime: String,
    /// The cluster.
    pub swarm: SwarmInfo,
    /// True: containers outlive the daemon.
    pub live_restore_enabled: bool,
    /// Empty.
    pub isolation: String,
    /// The program that reaps orphans.
    pub init_binary: String,
    /// containerd.
    pub containerd_commit: Commit,
    /// runc.
    pub runc_commit: Commit,
    /// The init.
    pub init_commit: Commit,
    /// What confines containers.
    pub security_options: Vec<String>,
    /// What an operator should know.
    pub warnings: Option<Vec<String>>,
}

/// What an engine can.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Plugins {
    /// Volume drivers.
    pub volume: Vec<String>,
    /// Network drivers.
    pub network: Vec<String>,
    /// None.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    pub log: Vec<String>,
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegistryConfig {
    /// Addresses that are spoken to in plain HTTP.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    /// Registries by name.
    pub index_configs: BTreeMap<String, IndexConfig>,
    /// Mirrors of the default registry.
    pub mirrors: Vec<String>,
}

/// A registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IndexConfig {
    /// Its name.
    pub name: String,
    /// Its mirrors.
    pub mirrors: Vec<String>,
    /// Whether TLS is spoken.
    pub secure: bool,
    /// Whether it is Docker's.
    pub official: bool,
}

/// What runs containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuntimePath {
    /// The program.
    pub path: String,
}

/// A version of a part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commit {
    /// Which.
    #[serde(rename = "ID")]
    pub id: String,
}

/// One of the networks that every node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id: the name as well.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// False.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// False.
    pub internal: bool,
    /// False.
    pub attachable: bool,
    /// False.
    pub ingress: bool,
    /// Empty.
    pub labels: BTreeMap<String, String>,
    /// Empty.
    pub options: BTreeMap<String, String>,
    /// Nothing that could change.
    #[serde(skip)]
    pub version: ObjectVersion,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EventMessage {
    /// The action again, for containers and images.
    #[serde(rename = "status", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The actor's id again, for containers and images.
    #[serde(rename = "id", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The image, for containers and images.
    #[serde(rename = "from", skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it happened to.
    pub r#type: String,
    /// What.
    pub action: String,
    /// To which.
    pub actor: EventActor,
    /// `swarm` or `local`.
    #[serde(rename = "scope")]
    pub scope: String,
    /// When, in seconds.
    #[serde(rename = "time")]
    pub time: u64,
    /// When, in nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

/// What something happened to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventActor {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What else is to be said of it.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
