//! What happened, as `events` tells it. (An "event" elsewhere is what a step function takes.)

use super::{Date, Labels};

/// What something happened to. The names are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OccurrenceKind {
    /// The container of a task on this node.
    Container,
    /// An image of this node.
    Image,
    /// A volume of this node.
    Volume,
    /// The daemon itself.
    Daemon,
    /// A member of the cluster.
    Node,
    /// A service.
    Service,
    /// A network of the cluster.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

impl OccurrenceKind {
    /// Returns Docker's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
            Self::Node => "node",
            Self::Service => "service",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Returns `swarm` for what every manager tells, `local` for what only its node does.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Container | Self::Image | Self::Volume | Self::Daemon => "local",
            Self::Node | Self::Service | Self::Network | Self::Secret | Self::Config => "swarm",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// When.
    pub date: Date,
    /// What it happened to.
    pub kind: OccurrenceKind,
    /// What: `create`, `die`, `exec_start: sh`.
    pub action: String,
    /// The id of what it happened to, or its name where that is its id.
    pub id: String,
    /// What else is to be said of it.
    pub attributes: Labels,
}
