//! What Docker's engine says of itself that is the same of every midge, and that clients read.

use serde::{Deserialize, Serialize};

/// Fields of `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineFacts {
    /// Whether processor shares can be set: no option of a service does.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Whether processors can be chosen: no option of a service does.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Whether the kernel's killer can be turned off for a container: it cannot.
    pub oom_kill_disable: bool,
    /// Whether bridged packets pass the packet filter: midge does not rely on it.
    pub bridge_nf_iptables: bool,
    /// The same of IPv6.
    #[serde(rename = "BridgeNfIp6tables")]
    pub bridge_nf_ip6_tables: bool,
    /// Whether the daemon logs more than usual.
    pub debug: bool,
    /// Open files; told to those who debug only.
    #[serde(rename = "NFd")]
    pub fds: u64,
    /// Threads of Go; there are none.
    #[serde(rename = "NGoroutines")]
    pub goroutines: u64,
    /// Who listens to events; told to those who debug only.
    #[serde(rename = "NEventsListener")]
    pub events_listeners: u64,
    /// The proxy of the registries: there is none.
    pub http_proxy: String,
    /// The same of HTTPS.
    pub https_proxy: String,
    /// What is reached without it.
    pub no_proxy: String,
}
