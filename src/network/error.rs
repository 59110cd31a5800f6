//! What can go wrong with a task's network, and how a user reads it.

use crate::{agent::Failure, types::PortProtocol};
use std::{error::Error, fmt::Write as _, io, path::PathBuf};

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
    #[error("port {port}/{} is already in use on this node", protocol.as_str())]
    PortInUse {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// A port could not be reserved for another reason.
    #[error("cannot reserve port {port}/{}", protocol.as_str())]
    Port {
        /// The port, 0 for any.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
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
            | Self::NotPrepared
            | Self::Stopped => false,
        }
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            write!(message, ": {cause}").expect("writing to a string never fails");
            source = cause.source();
        }
        Self { message, temporary: error.is_temporary() }
    }
}
