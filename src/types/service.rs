//! Services: what a user asks for.

use super::{Date, JobStatus, Labels, ServiceId, TaskSpec, UpdateConfig, UpdateStatus, Version};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// How many tasks a service has, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// So many tasks, wherever they fit.
    Replicated {
        /// How many slots. 0 is legal.
        replicas: u64,
    },
    /// One task on every node that fits.
    Global,
    /// So many slots, in each of which one task comes to its end, wherever they fit.
    ReplicatedJob {
        /// How many run at a time; 0 is no bound.
        max_concurrent: u64,
        /// How many slots. 0 is legal.
        total_completions: u64,
    },
    /// One task comes to its end on every node that fits.
    GlobalJob,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// How a service's name resolves. Takes effect with overlay networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One virtual address.
    #[default]
    Vip,
    /// All tasks' addresses.
    DnsRoundRobin,
}

/// A transport protocol of a published port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// Returns `tcp` or `udp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where a published port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node (the routing mesh). Comes with overlay networks.
    Ingress,
    /// On the task's node only.
    #[default]
    Host,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConfig {
    /// A name for people; may be empty.
    pub name: String,
    /// The protocol.
    pub protocol: PortProtocol,
    /// The port inside the container.
    pub target: u16,
    /// The port on the node; 0 leaves the choice to the node.
    pub published: u16,
    /// The node's address it listens at; none is every address of version 4. Only with
    /// [`PublishMode::Host`].
    pub host_ip: Option<IpAddr>,
    /// Where it listens.
    pub mode: PublishMode,
}

/// Tells whether the places meet that two ports listen at. None is every address of version 4, and
/// so is 0.0.0.0.
#[must_use]
pub fn host_ips_meet(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let every = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (a, b) = (a.unwrap_or(every), b.unwrap_or(every));
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// How its name resolves.
    pub mode: EndpointMode,
    /// Its published ports.
    pub ports: Vec<PortConfig>,
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Labels of the service; a change of them restarts nothing.
    pub labels: Labels,
    /// What each task runs.
    pub task: TaskSpec,
    /// How many, and where.
    pub mode: Mode,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// How its tasks are replaced when `task` or `endpoint` change.
    pub update: UpdateConfig,
    /// How they are replaced when it goes back to its previous spec.
    pub rollback: UpdateConfig,
}

impl ServiceSpec {
    /// Tells whether tasks made from it and from `other` are alike: what else differs replaces none.
    #[must_use]
    pub fn has_same_tasks(&self, other: &Self) -> bool {
        self.task == other.task && self.endpoint == other.endpoint
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// When it was last written.
    pub version: Version,
    /// When it was created.
    pub created: Date,
    /// When it was last written, in wall-clock time.
    pub updated: Date,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// The version at which `spec` was set: tasks made from it carry this.
    pub spec_version: Version,
    /// What was wanted before, for a rollback.
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// How far an update has come; none since creation or where none was needed.
    pub update: Option<UpdateStatus>,
    /// How often it was set off; of jobs, and only of them.
    pub job: Option<JobStatus>,
}

impl Service {
    /// Tells whether a user may mean this service by `name`: the beginning of its id, or its name.
    #[must_use]
    pub fn may_be(&self, name: &str) -> bool {
        self.id.as_str().starts_with(name) || self.spec.name == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_meet_where_they_share_an_address() {
        let meet = |a: &str, b: &str| host_ips_meet(a.parse().ok(), b.parse().ok());
        for (a, b) in
            [("", ""), ("", "1.2.3.4"), ("0.0.0.0", "1.2.3.4"), ("::", "::1"), ("::1", "::1")]
        {
            assert!(meet(a, b) && meet(b, a), "{a} {b}");
        }
        for (a, b) in [("1.2.3.4", "1.2.3.5"), ("", "::"), ("::1", "::2"), ("0.0.0.0", "::1")] {
            assert!(!meet(a, b) && !meet(b, a), "{a} {b}");
        }
    }
}
