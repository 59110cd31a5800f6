//! Generic resources and the iterations of jobs.

use super::nullable;
use serde::{Deserialize, Serialize};

/// A generic resource: one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GenericResource {
    /// A thing with a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_resource_spec: Option<NamedResource>,
    /// So many of a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
}

/// A thing with a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NamedResource {
    /// What it is.
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    /// Which one.
    #[serde(deserialize_with = "nullable")]
    pub value: String,
}

/// So many of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiscreteResource {
    /// What they are.
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    /// How many.
    #[serde(deserialize_with = "nullable")]
    pub value: i64,
}

/// So many slots that run to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicatedJob {
    /// How many at a time; none is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// How many in all; none is as many as at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
}

/// How often a job was set off, and when last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobStatus {
    /// How often it was set off again.
    pub job_iteration: Iteration,
    /// RFC 3339.
    pub last_execution: String,
}

/// An iteration of a job. The first is an empty object, as Docker writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Iteration {
    /// Counts from 0.
    #[serde(skip_serializing_if = "super::is_default")]
    pub index: u64,
}
