//! Tasks.

use super::{
    GenericResource, Iteration, NetworkAttachment, ObjectVersion, Port, TaskTemplate, is_default,
    nullable,
};
use crate::types::Labels;
use serde::{Deserialize, Serialize};

/// A task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Task {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: ObjectVersion,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// midge's own: `web.1`, or `web.<node id>`.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Always empty.
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    /// What it runs.
    pub spec: TaskTemplate,
    /// Its service.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Its slot; a job's are counted from 0.
    #[serde(skip_serializing_if = "is_default")]
    pub slot: u64,
    /// Its node.
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub node_id: String,
    /// How far it has come.
    pub status: TaskStatus,
    /// How far it should come.
    pub desired_state: String,
    /// Its overlay networks: none yet.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub networks_attachments: Vec<NetworkAttachment>,
    /// Of a job: the iteration it counts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Iteration>,
    /// What it was given of its node's generic resources, as Docker's client reads it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
    /// The same, as Docker's description of the API calls it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub assigned_generic_resources: Vec<GenericResource>,
    /// midge's own: its addresses.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub addresses: Vec<String>,
    /// midge's own: why it is there, oldest first.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub reasons: Vec<Reason>,
}

/// Why something happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Reason {
    /// A word.
    pub code: String,
    /// RFC 3339.
    pub timestamp: String,
}

/// How far a task has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatus {
    /// RFC 3339.
    pub timestamp: String,
    /// The state.
    pub state: String,
    /// What was done last.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "is_default")]
    pub err: String,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    /// The host ports it holds.
    pub port_status: PortStatus,
}

/// The container of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerStatus {
    /// Its id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Its process.
    #[serde(rename = "PID")]
    pub pid: u32,
    /// How it ended.
    pub exit_code: i32,
}

/// The host ports of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortStatus {
    /// Each of them.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
}
