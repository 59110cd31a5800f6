//! Containers and images, by containerd.
//!
//! Knows containerd, the OCI formats and how a task becomes a container. Must not know the
//! network (it is handed a namespace and files to mount), the node loop or Docker's JSON.
//!
//! [`Runtime`] is the entry point. [`logger_main`] and [`init_main`] are modes of the executable
//! that run as processes of their own, before any runtime is started.

pub mod apparmor;
mod cdi;
mod cgroups;
pub mod containerd;
mod device;
mod engine;
mod exec;
pub mod fake;
mod folder;
#[cfg(test)]
mod fuzz;
mod helper;
mod host;
pub mod image;
mod image_config;
mod init;
mod log_config;
mod log_format;
mod logger;
mod logs;
mod mountinfo;
mod oci;
mod plan;
mod prepare;
mod processes;
pub mod registry;
mod rootfs;
mod signals;
mod spec;
mod strays;
mod usage;
mod volume;
mod volume_part;
mod volumes;
mod watch;

pub use cdi::CDI_DIRS;
pub use cgroups::{cgroups, cgroups_at, remove_cgroup};
pub use engine::{Config, ContainerInfo, Runtime};
pub use exec::{
    Exec, ExecControl, ExecError, ExecEvent, ExecExit, ExecOutput, ExecStdin, Inside,
    PROBE_OUTPUT_MAX, ProbeOutput,
};
pub use helper::{INIT_MODE, LOGGER_MODE, install_helper};
pub use image_config::{ImageConfig, PreparedImage};
pub use init::init_main;
pub use log_format::LogLine;
pub use logger::logger_main;
pub use logs::LogOptions;
pub use oci::{OciChoice, OciError, OciRuntime, oci_programs, oci_version};
pub use spec::Mounted;
pub use volumes::{ANONYMOUS, VolumeError, VolumeNews, VolumeOptionError, VolumeWanted, Volumes};

use std::path::PathBuf;

/// Which of a container's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; everything, where the container has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a container gets from the node besides what its task says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSetup {
    /// The network namespace it joins; none is the node's own network.
    pub netns: Option<PathBuf>,
    /// Its host name; empty is the beginning of its id.
    pub hostname: String,
    /// What becomes its `/etc/hosts`; none leaves the image's.
    pub hosts: Option<PathBuf>,
    /// What becomes its `/etc/resolv.conf`; none leaves the image's.
    pub resolv_conf: Option<PathBuf>,
    /// What becomes its `/etc/hostname`; none is a file that the runtime makes.
    pub hostname_file: Option<PathBuf>,
    /// The cgroup above the container's own (`/midge/<node id>`).
    pub cgroup_parent: String,
}

#[cfg(test)]
mod tests;
