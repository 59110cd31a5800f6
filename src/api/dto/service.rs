//! Services and task templates.

use super::{
    ContainerSpec, Driver, GenericResource, JobStatus, ObjectVersion, ReplicatedJob, is_default,
    is_unset, nullable,
};
use crate::types::Labels;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// The name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Labels of the service.
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    /// What each task runs.
    #[serde(deserialize_with = "nullable")]
    pub task_template: TaskTemplate,
    /// How many.
    #[serde(deserialize_with = "nullable")]
    pub mode: ServiceMode,
    /// How an update goes; none is Docker's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How a rollback goes; none is Docker's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Networks, where old clients put them.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub networks: Vec<NetworkAttachment>,
    /// How it is reached.
    #[serde(deserialize_with = "nullable")]
    pub endpoint_spec: EndpointSpec,
}

/// How tasks are replaced. What is left out is zero, which Docker does not take for its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// How many at a time; 0 is all at once.
    #[serde(deserialize_with = "nullable")]
    pub parallelism: u64,
    /// Nanoseconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub delay: i64,
    /// `pause`, `continue`, `rollback`; empty is `pause`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub failure_action: String,
    /// Nanoseconds; 0 is 5 seconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub monitor: i64,
    /// From 0 to 1.
    #[serde(deserialize_with = "nullable", serialize_with = "as_go")]
    pub max_failure_ratio: f64,
    /// `stop-first`, `start-first`; empty is `stop-first`.
    #[serde(deserialize_with = "nullable")]
    pub order: String,
    /// midge's own: nanoseconds within which a replacement must run; 0 is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<i64>,
}

/// Writes a number as Go does: a whole one without a point.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn as_go<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match number.to_string().parse::<i64>() {
        Ok(whole) => serializer.serialize_i64(whole),
        Err(_) => serializer.serialize_f64(*number),
    }
}

/// What each task runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskTemplate {
    /// The container.
    #[serde(deserialize_with = "nullable")]
    pub container_spec: ContainerSpec,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub plugin_spec: Value,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub network_attachment_spec: Value,
    /// CPU and memory.
    #[serde(deserialize_with = "nullable")]
    pub resources: ResourceRequirements,
    /// What happens when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(deserialize_with = "nullable")]
    pub placement: Placement,
    /// Its networks.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub networks: Vec<NetworkAttachment>,
    /// Where its output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
    /// Raised to replace tasks that are up to date.
    #[serde(deserialize_with = "nullable")]
    pub force_update: u64,
    /// `container`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub runtime: String,
}

/// CPU and memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceRequirements {
    /// At most.
    #[serde(deserialize_with = "nullable")]
    pub limits: Amounts,
    /// At least.
    #[serde(deserialize_with = "nullable")]
    pub reservations: Amounts,
    /// Bytes of swap beside the memory limit; -1 is without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<i64>,
    /// How readily memory is swapped, 0 to 100; -1 is the node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
}

/// Amounts of resources.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Amounts {
    /// Billionths of a processor.
    #[serde(
        rename = "NanoCPUs",
        deserialize_with = "nullable",
        skip_serializing_if = "is_default"
    )]
    pub nano_cpus: i64,
    /// Bytes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub memory_bytes: i64,
    /// Processes and threads.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub pids: i64,
    /// Of each kind so many; only as reservations.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
}

/// What happens when a task ends.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `none`, `on-failure`, `any`; empty is `any`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub condition: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    /// How often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// Nanoseconds within which attempts count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// midge's own: what the doubling delay is cut to, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<i64>,
}

/// Where tasks may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// Expressions.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub constraints: Vec<String>,
    /// How they spread.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub preferences: Vec<Preference>,
    /// At most so many on a node.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub max_replicas: u64,
    /// The platforms of the image.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub platforms: Vec<Platform>,
}

/// A placement preference.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Preference {
    /// The only kind there is.
    pub spread: Option<Spread>,
}

/// Spread over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Spread {
    /// The label.
    #[serde(deserialize_with = "nullable")]
    pub spread_descriptor: String,
}

/// A platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// The processor.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub architecture: String,
    /// The operating system.
    #[serde(rename = "OS", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub os: String,
    /// midge's own: the processor's variant.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub variant: String,
}

/// A network of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachment {
    /// Name or id.
    #[serde(deserialize_with = "nullable")]
    pub target: String,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub aliases: Value,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub driver_opts: Value,
}

/// How many tasks. None of them set is one replica.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceMode {
    /// So many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    /// So many that run to their end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    /// One a node that runs to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Empty>,
}

/// An object without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// So many tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// How many; none is one.
    pub replicas: Option<u64>,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// `vip` or `dnsrr`; empty is `vip`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mode: String,
    /// Published ports.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    /// A name for people.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub name: String,
    /// `tcp`, `udp`; empty is `tcp`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub protocol: String,
    /// Inside.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub target_port: u32,
    /// On the node; 0 leaves the choice to it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub published_port: u32,
    /// `host`, or Docker's default `ingress`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub publish_mode: String,
    /// midge's own: the node's address it listens at; empty is every address. Missing in an
    /// update, the address that the same port had.
    #[serde(rename = "HostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: ObjectVersion,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What was wanted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// How far an update has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// How often it was set off; of jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
    /// How many run; where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// midge's own: how an image was pinned that no registry resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pin: Option<ImagePin>,
}

/// The nodes that hold the image of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagePin {
    /// Its digest.
    pub digest: String,
    /// Their ids.
    pub nodes: Vec<String>,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// As wanted.
    pub spec: EndpointSpec,
    /// The ports it has.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
}

/// How far an update has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateStatus {
    /// `updating`, `completed`, `paused`, and the same of a rollback: `rollback_started`,
    /// `rollback_completed`, `rollback_paused`.
    pub state: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// In words.
    pub message: String,
}

/// How many tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceStatus {
    /// On nodes that are not lost.
    pub running_tasks: u64,
    /// How many should.
    pub desired_tasks: u64,
    /// Of jobs.
    pub completed_tasks: u64,
    /// midge's own: slots of a job that failed too often.
    #[serde(skip_serializing_if = "is_default")]
    pub given_up_tasks: u64,
}

/// The answer to a create.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceCreated {
    /// The new service.
    #[serde(rename = "ID")]
    pub id: String,
    /// What the user should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// midge's own: why a task or a service is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Why {
    /// Of which.
    #[serde(rename = "ID")]
    pub id: String,
    /// Sentences for people, each a line.
    pub why: Vec<String>,
}

/// midge's own: what an update would do, in order; at most 256 places.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Plan {
    /// Place by place.
    pub plan: Vec<PlannedTask>,
}

/// What an update would do in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlannedTask {
    /// The place: `web.1`, `web.<node id>`.
    pub name: String,
    /// `create`, `replace` or `remove`.
    pub action: String,
    /// The task that is there; empty where there is none.
    #[serde(rename = "TaskID")]
    pub task_id: String,
    /// The node of that task.
    #[serde(rename = "FromNodeID")]
    pub from_node_id: String,
    /// The node of the new one; empty where there is none, or none yet.
    #[serde(rename = "ToNodeID")]
    pub to_node_id: String,
    /// Why no node takes the new one.
    pub error: String,
}

/// The answer to an update.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceUpdated {
    /// What the user should know.
    pub warnings: Option<Vec<String>>,
}
