//! The container of a service's tasks.
//!
//! What midge adds to Docker's fields is optional in the sense of the word: missing, it is kept as
//! it was in the service; there, it is what the client wants. So a client of Docker's, which drops
//! what it does not know between reading and writing a service, changes none of it.

use super::{is_default, is_unset, nullable};
use crate::types::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// The image.
    #[serde(deserialize_with = "nullable")]
    pub image: String,
    /// Labels of the container.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// The entrypoint.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The host name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub hostname: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// The working directory.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub dir: String,
    /// The user.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub user: String,
    /// Supplementary groups.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// Seccomp, AppArmor and new privileges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    /// The stop signal.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub stop_signal: String,
    /// Whether it has a terminal.
    #[serde(rename = "TTY", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub open_stdin: Value,
    /// Whether the root file system is read-only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Whether an init reaps orphans.
    #[serde(deserialize_with = "nullable")]
    pub init: bool,
    /// Mounts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Nanoseconds until SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    /// What tells whether it is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Lines of the hosts file.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub hosts: Vec<String>,
    /// How names are resolved. Docker's client always sends one and expects one back.
    #[serde(rename = "DNSConfig", deserialize_with = "nullable")]
    pub dns_config: DnsConfig,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub secrets: Value,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub configs: Value,
    /// `default`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub isolation: String,
    /// Kernel parameters.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities beyond the default set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub capability_add: Vec<String>,
    /// Capabilities it does without.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub capability_drop: Vec<String>,
    /// Limits of its processes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub ulimits: Vec<Ulimit>,
    /// How readily the kernel ends it for want of memory.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
    /// midge's own: whether it has all capabilities and devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// midge's own: devices of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<Device>>,
    /// midge's own: the size of `/dev/shm`; 0 is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<i64>,
    /// midge's own: `host`, or empty for the container's own processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<String>,
    /// midge's own: `host`, or empty for the container's own shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<String>,
    /// midge's own: what `docker run --security-opt` takes and `Privileges` cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_opt: Option<Vec<String>>,
}

/// Seccomp, AppArmor and new privileges.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Privileges {
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub credential_spec: Value,
    /// Not supported.
    #[serde(rename = "SELinuxContext", skip_serializing_if = "is_unset")]
    pub selinux_context: Value,
    /// Which system calls there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompOptions>,
    /// Whether AppArmor confines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_armor: Option<AppArmorOptions>,
    /// Whether set-user-ID programs give it nothing.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
}

/// Which system calls there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SeccompOptions {
    /// `default`, `unconfined` or `custom`; empty is `default`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mode: String,
    /// With `custom` the profile's JSON, in base64.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub profile: String,
}

/// Whether AppArmor confines a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AppArmorOptions {
    /// `default` or `disabled`; empty is `default`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mode: String,
}

/// What tells whether a container is healthy. Times are nanoseconds; 0 takes the image's value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` and a program, or `CMD-SHELL` and a command line; empty is the image's.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    /// From one probe to the next.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub interval: i64,
    /// For one probe.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub start_period: i64,
    /// The interval within it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub start_interval: i64,
    /// So many failures in a row.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Addresses of name servers.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub nameservers: Vec<String>,
    /// Domains that short names are tried in.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub search: Vec<String>,
    /// As resolv.conf has them.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub options: Vec<String>,
}

/// A limit of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile`, ...
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// What it may be raised to; -1 is without limit.
    #[serde(deserialize_with = "nullable")]
    pub hard: i64,
    /// What it starts with; -1 is without limit.
    #[serde(deserialize_with = "nullable")]
    pub soft: i64,
}

/// A device of the node, in the words of `docker run`; one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its path on the node.
    #[serde(
        rename = "PathOnHost",
        deserialize_with = "nullable",
        skip_serializing_if = "is_default"
    )]
    pub path_on_host: String,
    /// Its path inside; empty is the same.
    #[serde(
        rename = "PathInContainer",
        deserialize_with = "nullable",
        skip_serializing_if = "is_default"
    )]
    pub path_in_container: String,
    /// Of `r`, `w`, `m`; empty is all of them.
    #[serde(
        rename = "CgroupPermissions",
        deserialize_with = "nullable",
        skip_serializing_if = "is_default"
    )]
    pub cgroup_permissions: String,
    /// The name of a CDI specification's device: `vendor.com/gpu=0`.
    #[serde(rename = "CDI", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub cdi: String,
}

/// A driver with its options: of logs, of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Driver {
    /// Its name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub name: String,
    /// Its options.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume` or `tmpfs`; empty is `volume`.
    #[serde(deserialize_with = "nullable")]
    pub r#type: String,
    /// A path or a volume's name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub source: String,
    /// The path inside.
    #[serde(deserialize_with = "nullable")]
    pub target: String,
    /// Whether it is read-only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// A hint to Docker Desktop; says nothing on Linux.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub consistency: String,
    /// Of `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Of `volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Of `tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub image_options: Value,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub cluster_options: Value,
}

/// How a file or folder is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate`, `private`, `rshared`, `shared`, `rslave`, `slave`; empty is `rprivate`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub propagation: String,
    /// Whether mounts below are left out.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    /// Whether a missing source is made.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub create_mountpoint: bool,
    /// Whether mounts below a read-only one stay writable.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub read_only_non_recursive: bool,
    /// Whether a read-only one that is not so all the way down is refused.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub read_only_force_recursive: bool,
}

/// How a volume is made and mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Whether an empty one stays empty.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// Its labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// What makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<Driver>,
    /// The folder inside.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub subpath: String,
}

/// How memory is mounted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// At most.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub size_bytes: i64,
    /// The mode of its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Not supported.
    #[serde(skip_serializing_if = "is_unset")]
    pub options: Value,
}
