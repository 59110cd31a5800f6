//! The cluster: options, tokens, joining and leaving.

use super::{ObjectVersion, TlsInfo, is_default, is_unset, nullable};
use crate::types::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Swarm {
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
    pub spec: SwarmSpec,
    /// Its root.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Whether the root is being replaced.
    pub root_rotation_in_progress: bool,
    /// None.
    pub default_addr_pool: Option<Vec<String>>,
    /// Docker's default.
    pub subnet_size: u32,
    /// Docker's default.
    pub data_path_port: u32,
    /// What admits nodes; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_tokens: Option<JoinTokens>,
}

/// What admits nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinTokens {
    /// As workers.
    pub worker: String,
    /// As managers.
    pub manager: String,
}

/// What a user sets of the cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmSpec {
    /// `default`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Not supported.
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    /// History.
    #[serde(deserialize_with = "nullable")]
    pub orchestration: Orchestration,
    /// The log.
    #[serde(deserialize_with = "nullable")]
    pub raft: Raft,
    /// Sessions.
    #[serde(deserialize_with = "nullable")]
    pub dispatcher: Dispatcher,
    /// Certificates.
    #[serde(rename = "CAConfig", deserialize_with = "nullable")]
    pub ca_config: CaConfig,
    /// Not supported.
    #[serde(deserialize_with = "nullable")]
    pub task_defaults: TaskDefaults,
    /// Whether managers are locked.
    #[serde(deserialize_with = "nullable")]
    pub encryption_config: EncryptionConfig,
}

/// History.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Orchestration {
    /// How many tasks of a slot are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Raft {
    /// Entries between snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_interval: Option<u64>,
    /// Only 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    /// Only Docker's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_entries_for_slow_followers: Option<u64>,
    /// Only Docker's default.
    #[serde(deserialize_with = "nullable")]
    pub election_tick: i64,
    /// Only Docker's default.
    #[serde(deserialize_with = "nullable")]
    pub heartbeat_tick: i64,
    /// midge's own: nanoseconds without a leader before an election.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_timeout: Option<i64>,
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Dispatcher {
    /// Nanoseconds between heartbeats; 0 is the default.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub heartbeat_period: i64,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaConfig {
    /// Nanoseconds that they last; 0 is the default.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub node_cert_expiry: i64,
    /// midge's own: nanoseconds for which a node may renew a certificate that ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejoin_grace: Option<i64>,
    /// Not supported.
    #[serde(rename = "ExternalCAs", skip_serializing_if = "is_unset")]
    pub external_cas: Value,
    /// The root to take, PEM; none is one that is made. Never shown.
    #[serde(rename = "SigningCACert", deserialize_with = "nullable", skip_serializing)]
    pub signing_ca_cert: String,
    /// Its key, PEM. Never shown.
    #[serde(rename = "SigningCAKey", deserialize_with = "nullable", skip_serializing)]
    pub signing_ca_key: String,
    /// A higher number than before replaces the root.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub force_rotate: u64,
}

/// Defaults of tasks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskDefaults {
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub log_driver: Value,
}

/// Whether managers are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    /// Whether they need the unlock key when they are restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_lock_managers: Option<bool>,
}

/// `POST /swarm/init`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// Where to listen.
    #[serde(deserialize_with = "nullable")]
    pub listen_addr: String,
    /// What others are told.
    #[serde(deserialize_with = "nullable")]
    pub advertise_addr: String,
    /// Not supported.
    pub data_path_addr: Value,
    /// Not supported.
    pub data_path_port: Value,
    /// Not supported.
    pub default_addr_pool: Value,
    /// Recovers a lone manager.
    #[serde(deserialize_with = "nullable")]
    pub force_new_cluster: bool,
    /// Docker's older place of `EncryptionConfig.AutoLockManagers`.
    #[serde(deserialize_with = "nullable")]
    pub auto_lock_managers: bool,
    /// Of this node.
    #[serde(deserialize_with = "nullable")]
    pub availability: String,
    /// The cluster's options.
    #[serde(deserialize_with = "nullable")]
    pub spec: SwarmSpec,
}

/// `POST /swarm/unlock`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_debug_implementations, reason = "it holds a key")]
pub struct UnlockRequest {
    /// What opens the manager.
    #[serde(deserialize_with = "nullable")]
    pub unlock_key: String,
}

/// `POST /swarm/join`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// Where to listen.
    #[serde(deserialize_with = "nullable")]
    pub listen_addr: String,
    /// What others are told.
    #[serde(deserialize_with = "nullable")]
    pub advertise_addr: String,
    /// Not supported.
    pub data_path_addr: Value,
    /// Managers to try.
    #[serde(deserialize_with = "nullable")]
    pub remote_addrs: Vec<String>,
    /// The token.
    #[serde(deserialize_with = "nullable")]
    pub join_token: String,
    /// Of this node.
    #[serde(deserialize_with = "nullable")]
    pub availability: String,
}
