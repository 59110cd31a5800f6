//! The fields that Docker's answers leave out where they are empty, and what they are then; and those
//! whose numbers are durations.
//!
//! Docker's own command knows them by the types it is compiled with. A template that names one of
//! them is right whether or not this object has it; one that names anything else is mistyped.

use serde_json::{Value, json};

/// Texts that may be left out.
const TEXTS: &[&str] = &[
    "Addr",
    "Architecture",
    "CompletedAt",
    "Err",
    "Error",
    "Hostname",
    "ID",
    "Image",
    "Isolation",
    "Message",
    "Name",
    "NodeID",
    "OS",
    "ServiceID",
    "Source",
    "StartedAt",
    "State",
    "StopSignal",
    "Target",
    "Type",
    "User",
    "Variant",
    "Dir",
    "ContainerID",
    "PublishMode",
    "Protocol",
    "Runtime",
    "Condition",
    "FailureAction",
    "Order",
    "Driver",
    "NodeAddr",
    "LocalNodeState",
    "HostnamePath",
    "WorkingDir",
    "Comment",
    "Author",
    "Status",
    "Mode",
    "Consistency",
    "Parent",
];

/// Numbers that may be left out.
const NUMBERS: &[&str] = &[
    "Slot",
    "NanoCPUs",
    "MemoryBytes",
    "Pids",
    "MaxReplicas",
    "PublishedPort",
    "TargetPort",
    "PID",
    "ExitCode",
    "Delay",
    "Window",
    "MaxAttempts",
    "Parallelism",
    "Monitor",
    "MaxFailureRatio",
    "ForceUpdate",
    "StopGracePeriod",
    "Replicas",
    "OomScoreAdj",
    "SwapBytes",
    "MemorySwappiness",
    "Nodes",
    "Managers",
    "Warnings",
];

/// Truth values that may be left out.
const FLAGS: &[&str] =
    &["Leader", "ReadOnly", "TTY", "OpenStdin", "Init", "ControlAvailable", "Internal", "Ingress"];

/// Lists that may be left out.
const LISTS: &[&str] = &[
    "Addresses",
    "Aliases",
    "Args",
    "CapabilityAdd",
    "CapabilityDrop",
    "Command",
    "Configs",
    "Constraints",
    "Env",
    "GenericResources",
    "Groups",
    "Hosts",
    "Mounts",
    "Nameservers",
    "Networks",
    "NetworksAttachments",
    "Options",
    "Platforms",
    "Plugins",
    "Ports",
    "Preferences",
    "RemoteManagers",
    "Search",
    "Secrets",
    "Test",
    "Ulimits",
    "VirtualIPs",
    "RepoTags",
    "RepoDigests",
    "Entrypoint",
    "Cmd",
];

/// Maps whose keys users choose, left out or not.
const FREE: &[&str] = &[
    "Annotations",
    "DriverOpts",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "LogOpts",
    "Opts",
    "PortBindings",
    "Sysctls",
    "Volumes",
];

/// Objects that may be left out.
const OBJECTS: &[&str] = &[
    "ContainerStatus",
    "Endpoint",
    "EndpointSpec",
    "Global",
    "GlobalJob",
    "Healthcheck",
    "JobStatus",
    "Limits",
    "LogDriver",
    "ManagerStatus",
    "Placement",
    "PortStatus",
    "PreviousSpec",
    "Privileges",
    "Replicated",
    "ReplicatedJob",
    "Reservations",
    "Resources",
    "RestartPolicy",
    "RollbackConfig",
    "ServiceStatus",
    "TLSInfo",
    "UpdateConfig",
    "UpdateStatus",
    "DNSConfig",
    "BindOptions",
    "VolumeOptions",
    "TmpfsOptions",
    "Cluster",
    "JobIteration",
    "Health",
    "CredentialSpec",
];

/// Durations, which Docker's command prints as such and writes to JSON in nanoseconds.
const DURATIONS: &[&str] = &[
    "Delay",
    "HeartbeatPeriod",
    "Interval",
    "MaxDelay",
    "Monitor",
    "NodeCertExpiry",
    "ProgressDeadline",
    "StartInterval",
    "StartPeriod",
    "StopGracePeriod",
    "Timeout",
    "Window",
];

/// Tells whether the number in the field of this name is a duration.
pub(super) fn is_duration(name: &str) -> bool {
    DURATIONS.contains(&name)
}

/// Returns what the field is where it was left out; none where no field is called so.
pub(super) fn empty(name: &str) -> Option<Value> {
    match name {
        name if TEXTS.contains(&name) => Some(json!("")),
        name if NUMBERS.contains(&name) => Some(json!(0)),
        name if FLAGS.contains(&name) => Some(json!(false)),
        name if LISTS.contains(&name) => Some(json!([])),
        name if FREE.contains(&name) => Some(json!({})),
        name if OBJECTS.contains(&name) => Some(Value::Null),
        _ => None,
    }
}

/// Tells whether users choose the keys of the map of this name.
pub(super) fn has_free_keys(name: &str) -> bool {
    FREE.contains(&name)
}
