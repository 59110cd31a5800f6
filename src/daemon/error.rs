//! Why the daemon cannot start, or cannot go on.

use super::{config::ConfigError, membership::MembershipError};
use crate::{
    api,
    cluster::{Class, Refusal},
    consensus::StartError,
    network::NetworkError,
    pki::{CaError, FileError, IdentityError},
    store::OpenError,
    transport::{BindError, StreamError, TlsError},
    util::{disk::advice, error::chain},
};
use std::{io, path::PathBuf};

/// The daemon cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder.
    #[error("cannot {what}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
    /// Another daemon uses the data directory.
    #[error("another midge daemon uses {0}")]
    InUse(PathBuf),
    /// What the node remembers of its cluster cannot be read or written.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] CaError),
    /// A certificate does not say whose it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node's certificate files cannot be read or written.
    #[error("cannot use the node's certificate files")]
    Files(#[from] FileError),
    /// The node's certificate cannot be used.
    #[error("cannot use the node's certificate")]
    Tls(#[from] TlsError),
    /// The UDP port cannot be listened on.
    #[error("cannot listen for other nodes")]
    Bind(#[from] BindError),
    /// The API's socket cannot be listened on.
    #[error("cannot listen for clients")]
    Api(#[from] api::BindError),
    /// What the node keeps of its networks cannot be used.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The consensus engine does not start.
    #[error("cannot start the consensus engine")]
    Consensus(#[from] StartError),
    /// No manager answered.
    #[error(transparent)]
    Unanswered(#[from] StreamError),
    /// The cluster refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something that cannot happen on a machine that is set up right.
    #[error("{0}")]
    Other(String),
}

impl DaemonError {
    /// Tells whether nothing was started since the configuration is wrong.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    /// Returns the whole chain of causes, as one line.
    #[must_use]
    pub fn explain(&self) -> String {
        chain(self)
    }

    /// Returns what to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Config(_) => "midge's README lists what the configuration may hold".to_owned(),
            Self::InUse(_) => {
                "several daemons need a --data-dir, a --run-dir and a --socket each".to_owned()
            }
            Self::Bind(error) => listening(error)?.to_owned(),
            Self::Store(error) => error.hint()?.to_owned(),
            other => match other.system_error()?.kind() {
                io::ErrorKind::PermissionDenied => "the daemon runs as root".to_owned(),
                kind => advice(kind)?.to_owned(),
            },
        })
    }

    /// Returns what the system refused, where that is at the bottom of it.
    fn system_error(&self) -> Option<&io::Error> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            cause = error.source();
        }
        None
    }

    /// Returns what is said to a user whose request failed by it. A refusal stays what it is.
    pub(super) fn refusal(&self) -> Refusal {
        let hint = self.hint();
        let class = match self {
            Self::Refused(refusal) => return refusal.clone(),
            Self::Bind(_) => Class::Invalid,
            // Somebody can do something about it: it is no defect.
            _ if hint.is_some() => Class::Unavailable,
            _ => Class::Internal,
        };
        let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        Refusal::new(class, self.explain() + &hint)
    }
}

/// Returns what to do where an address cannot be listened at.
fn listening(error: &BindError) -> Option<&'static str> {
    match error {
        BindError::Socket { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => Some(
                "another program uses the port; join or init with another one: --listen-addr \
                 0.0.0.0:PORT",
            ),
            io::ErrorKind::AddrNotAvailable => {
                Some("this machine does not have that address: `ip address` shows those it has")
            }
            _ => None,
        },
        BindError::Tls(_) => None,
    }
}

impl From<DaemonError> for Refusal {
    fn from(error: DaemonError) -> Self {
        error.refusal()
    }
}
