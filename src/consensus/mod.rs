//! The replicated log, behind an interface of our own.
//!
//! Entries are bytes; what they mean is the driver's affair. Committed entries, requests for a
//! snapshot and changes of leadership reach the driver as [`Notice`]s over one channel, so that
//! the cluster's state lives in the driver's loop and nowhere else.

mod anew;
mod engine;
mod group;
mod leader_id;
mod machine;
mod on_smol;
mod peer;
pub mod runtime;
mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod watch;
mod writer;

#[cfg(test)]
pub(crate) use anew::newest_place;
pub use anew::{make_alone, make_from_snapshot};
pub use engine::{Approach, Consensus, Members, Settings, SnapshotInterval, StartError};
pub use on_smol::OnSmol;
#[cfg(test)]
pub(crate) use peer::NoPeers;
pub use peer::PeerCall;
pub use storage::{ENTRY_MAX, Extent, LogStore, SNAPSHOT_MAX};

use async_channel::Sender;
use std::time::Duration;

/// A committed log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// What was proposed; empty for the engine's own entries (elections, membership).
    pub data: Vec<u8>,
}

/// Who leads, as this member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// Whether it is this member, and every entry of earlier terms is applied.
    pub leading: bool,
    /// The leader's member id, where known.
    pub leader: Option<u64>,
}

/// Something the engine tells the driver. The engine waits for each `done` before it goes on.
#[derive(Debug)]
pub enum Notice {
    /// Apply these, in order.
    Apply {
        /// The entries.
        entries: Vec<Committed>,
        /// Signalled once they are applied.
        done: Sender<()>,
    },
    /// Encode the state as of the last entry applied.
    Snapshot {
        /// Takes the bytes.
        reply: Sender<Vec<u8>>,
    },
    /// Replace the state by this snapshot: at start, or when this member lagged too far behind.
    Install {
        /// The last entry that the snapshot holds.
        index: u64,
        /// What [`Notice::Snapshot`] gave, here or on another member.
        data: Vec<u8>,
        /// Signalled once it is taken over.
        done: Sender<()>,
    },
    /// Leadership changed.
    Leadership(Leadership),
    /// The log can no longer be written: this member is of no use until it is restarted.
    Fatal {
        /// Why.
        error: String,
    },
}

/// Why a proposal was not committed, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead.
    #[error("this manager does not lead")]
    NotLeader {
        /// Who does, where known.
        leader: Option<u64>,
    },
    /// It was not committed in time; it may be yet.
    #[error("not committed within {0:?}; it may be yet")]
    Timeout(Duration),
    /// It was not even tried, and never will be.
    #[error("the proposal was refused: {0}")]
    Refused(String),
    /// The engine ended.
    #[error("the consensus engine ended: {0}")]
    Fatal(String),
}
