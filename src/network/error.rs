//! What can go wrong with a task's network, and how a user reads it.

use crate::{agent::Failure, types::PortProtocol, util::error::chain};
use std::{io, net::IpAddr, path::PathBuf};

/// The network of a task or of the node could not be made or unmade.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file, folder or mount.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A link, address or route.
    #[error("cannot {what}")]
    Link {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The packet filter.
    #[error("cannot set up the packet filter ({what})")]
    Filter {
        /// Which part of it.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel was built or booted without something.
    #[error("the kernel of this node has no {module}, which is needed to {what}")]
    Unsupported {
        /// What it is needed for.
        what: String,
        /// The module's name.
        module: &'static str,
    },
    /// A port is held by another process or task.
    #[error("port {}/{} is already in use on this node", shown(*address, *port), protocol.as_str())]
    PortInUse {
        /// The address it is to be open at; none is every one.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// A port could not be reserved for another reason.
    #[error("cannot reserve port {}/{}", shown(*address, *port), protocol.as_str())]
    Port {
        /// The address it is to be open at; none is every one.
        address: Option<IpAddr>,
        /// The port, 0 for any.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A port is to be published at an address of another machine.
    #[error("cannot publish port {port}/{} on {address}: this node has no such address", protocol.as_str())]
    NoSuchAddress {
        /// The address.
        address: IpAddr,
        /// The port inside.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// The kernel forwards nothing that comes from loopback of version 6.
    #[error("cannot publish port {0} on ::1: publish it on 127.0.0.1 instead")]
    Loopback6(u16),
    /// A line of the hosts file.
    #[error("invalid extra host {line:?}: {why}")]
    Host {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name server.
    #[error("invalid DNS server {0:?}: it is no address")]
    NameServer(String),
    /// The node publishes as many ports as it can.
    #[error("this node already publishes {0} ports, which is the limit")]
    TooManyPorts(usize),
    /// Every subnet of the pool is in use on the host.
    #[error("no subnet is free for the bridge: 172.30.0.0/16 and 10.210.0.0/16 are all in use")]
    NoSubnet,
    /// Every address of the bridge is in use.
    #[error("no address is free in {0}")]
    NoAddress(String),
    /// The task has no network here.
    #[error("the network of the task was not prepared")]
    NotPrepared,
    /// The kernel did not answer, or too much was asked at once.
    #[error("cannot {0} in time")]
    Timeout(&'static str),
    /// The thread that does the work ended.
    #[error("the network of this node has been shut down")]
    Stopped,
}

impl NetworkError {
    /// Wraps a file's error.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// Tells whether trying again may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::Link { .. }
            | Self::Filter { .. }
            | Self::NoSubnet
            | Self::NoAddress(_)
            | Self::TooManyPorts(_)
            | Self::Timeout(_) => true,
            Self::Port { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Unsupported { .. }
            | Self::PortInUse { .. }
            | Self::NoSuchAddress { .. }
            | Self::Loopback6(_)
            | Self::Host { .. }
            | Self::NameServer(_)
            | Self::NotPrepared
            | Self::Stopped => false,
        }
    }
}

/// Writes a port with the address it is open at.
fn shown(address: Option<IpAddr>, port: u16) -> String {
    match address {
        Some(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        Some(IpAddr::V4(address)) => format!("{address}:{port}"),
        None => port.to_string(),
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Self { message: chain(&error), temporary: error.is_temporary() }
    }
}
