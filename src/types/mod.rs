//! The nouns of midge and their rules.
//!
//! Pure: nothing here reads a clock, draws a random number or touches the outside. Every other
//! module may name this one; it names nothing of ours.
//!
//! # Glossary
//!
//! The words are Docker Swarm's, one meaning each:
//!
//! - **cluster**: the managers, workers and services that share one root certificate.
//! - **node**: one machine (more exactly: one `midge daemon`) that is a member of the cluster.
//! - **service**: what a user asks for: a task template and how many of it should run.
//! - **task**: one attempt to run a service's template on one node. A task is one-shot: it runs at
//!   most once, and what replaces it is a new task.
//! - **slot**: the place of a replicated service that a chain of tasks fills one after another,
//!   numbered from 1. A task of a global service has slot 0 and is known by its node.
//! - **job**: a service whose tasks run to their end; an **iteration** is one time it is set off.
//! - **observed state**: how far a task has come; only ever rises. See [`TaskState`].
//! - **desired state**: how far the manager wants it to come; only ever rises. See [`Desired`].
//! - **assignment**: a task that was given to a node; a node's set of them is sent as
//!   [`Assignments`].

pub mod absent;
mod assignment;
mod capability;
mod cluster;
pub mod constraint;
mod container;
mod exec;
mod expand;
#[cfg(test)]
mod fuzz;
mod generic;
mod health;
mod id;
pub mod image;
mod job;
mod mount;
mod name;
mod node;
mod occurrence;
mod platform;
mod service;
mod session;
pub mod signal;
mod storage;
mod task;
pub mod template;
mod time;
mod trust;
mod update;
mod version;

pub use assignment::{Assignments, Sequence};
pub use capability::{
    CAPABILITIES, CAPABILITY_ALL, capabilities_in, capability_name, is_capability,
};
pub use cluster::{
    Cluster, ClusterSpec, ELECTION_TIMEOUT, FORMER_ROOTS_MAX, HEARTBEAT_PERIOD, JoinToken,
    JoinTokens, NODE_CERT_EXPIRY, NODE_CERT_EXPIRY_MIN, REJOIN_GRACE, RootCa, TASK_HISTORY_LIMIT,
    UnlockKey,
};
pub use constraint::Constraint;
pub use container::{
    BindOptions, ContainerSpec, Device, DnsConfig, HealthCheck, HealthTest, Mount, MountKind,
    NamespaceMode, Propagation, STOP_GRACE, TmpfsOptions, ULIMITS, Ulimit, VolumeOptions,
    is_ipc_sysctl,
};
pub use exec::{
    CpuUsage, DeviceUsage, EXIT_UNKNOWN, ExecSpec, LinkUsage, MemoryUsage, NetworkUsage, PathStat,
    ProcessTable, TerminalSize, UnpackOptions, Usage,
};
pub use expand::{ExpandFailed, TemplateContext, expand_container, has_templates};
pub use generic::{
    GENERIC_RESOURCES_MAX, GenericReservations, GenericResource, InvalidGenericResource,
};
pub use health::{Health, HealthState, ImageHealth, Probe, ProbeLog};
pub use id::{
    ClusterId, Entropy, ID_LEN, InvalidId, NetworkId, NodeId, RequestId, ServiceId, TaskId,
};
pub use job::{JobPlace, JobStatus, JobTally, job_place};
pub use mount::{InvalidMount, validate_mounts};
pub use name::{
    InvalidName, SERVICE_NAME_MAX, is_volume_name, validate_hostname, validate_service_name,
};
pub use node::{
    Availability, CgroupSupport, EngineDescription, HeldImage, ManagerStatus, Node,
    NodeDescription, NodeSpec, NodeState, NodeStatus, Role, new_member_key,
};
pub use occurrence::{Occurrence, OccurrenceKind};
pub use platform::Platform;
pub use service::{
    Endpoint, EndpointMode, Mode, PortConfig, PortProtocol, PublishMode, Service, ServiceSpec,
    host_ips_meet,
};
pub use session::{
    ADDRESS_LOST, FromManager, FromWorker, LeaderAt, LocalSuccessor, PeerInput, Register,
    TaskReport,
};
pub use storage::{
    Chore, ChoreDone, NewVolume, Prune, RemovedImage, StorageUse, StoredContainer, StoredImage,
    StoredImageDetail, StoredVolume,
};
pub use task::{
    Attachment, Desired, ImagePin, LogConfig, NetworkMode, Placement, PortStatus, REASONS_MAX,
    RESTART_DELAY, RESTART_MAX_DELAY, Reason, ReasonCode, RegistryCredential, ResourceLimits,
    Resources, RestartCondition, RestartPolicy, SpecDifference, Task, TaskSpec, TaskState,
    TaskStatus,
};
pub use time::{Date, Moment};
pub use trust::{FormerRoot, RootRotation, Roster, Trust};
pub use update::{
    FailureAction, Ratio, UPDATE_MONITOR, UPDATE_PARALLELISM, UPDATE_PROGRESS_DEADLINE,
    UpdateConfig, UpdateOrder, UpdatePlace, UpdateState, UpdateStatus,
};
pub use version::Version;

/// Labels: keys and values a user attaches. Ordered, so that every encoding of them is the same.
pub type Labels = std::collections::BTreeMap<String, String>;
