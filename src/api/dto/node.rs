//! Nodes.

use super::{GenericResource, ObjectVersion, Platform, is_default, nullable};
use crate::types::Labels;
use serde::{Deserialize, Serialize};

/// A node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: ObjectVersion,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What a user sets.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub description: NodeDescription,
    /// What the manager sees.
    pub status: NodeStatus,
    /// Of managers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
}

/// What a user sets of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// Docker's API knows a name; midge's nodes have none but their host's.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    /// `worker` or `manager`.
    #[serde(deserialize_with = "nullable")]
    pub role: String,
    /// `active`, `pause` or `drain`.
    #[serde(deserialize_with = "nullable")]
    pub availability: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// Its host name.
    pub hostname: String,
    /// Its platform.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// Its engine.
    pub engine: Engine,
    /// The certificates it trusts and has.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// midge's own: the cgroup controllers it can limit with.
    pub cgroups: Cgroups,
}

/// What the kernel of a node can limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Cgroups {
    /// 1 or 2; 0 where unknown.
    pub version: u8,
    /// `cpu`, `memory`, `pids`.
    pub controllers: Vec<String>,
}

/// What a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeResources {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// What else it has.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
}

/// The engine of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Engine {
    /// midge's version.
    pub engine_version: String,
    /// `engine.labels.*`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// What it can.
    #[serde(deserialize_with = "nullable")]
    pub plugins: Vec<EnginePlugin>,
    /// midge's own: containerd's version.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_version: String,
}

/// Something an engine can.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EnginePlugin {
    /// `Log`, `Network`, `Volume`.
    pub r#type: String,
    /// Its name.
    pub name: String,
}

/// The root that a node trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TlsInfo {
    /// PEM.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_root: String,
    /// The issuer's subject, DER in base 64.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_subject: String,
    /// The issuer's public key, DER in base 64.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_public_key: String,
}

/// What the manager sees of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStatus {
    /// `unknown`, `down`, `ready`.
    pub state: String,
    /// Why.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// Where it is seen.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
}

/// A manager's standing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagerStatus {
    /// Whether it leads.
    #[serde(skip_serializing_if = "is_default")]
    pub leader: bool,
    /// `reachable`, `unreachable`, `unknown`.
    pub reachability: String,
    /// Where others reach it.
    pub addr: String,
    /// What is wrong with it; midge's own.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
}
