//! What a manager gives a node to do.

use super::{Task, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The place of one set of assignments in a manager's stream of them.
///
/// Ordered: a later epoch beats any term, a later term any number. A node never acts on a set
/// below the one it holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Sequence {
    /// The cluster's epoch.
    pub epoch: u64,
    /// The leader's term in the consensus group.
    pub term: u64,
    /// Counts the sets that the node was sent in this term, from 1.
    pub number: u64,
}

/// A change to what a node should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignments {
    /// The session it belongs to.
    pub session: u64,
    /// Its place.
    pub sequence: Sequence,
    /// Whether `tasks` is all there is. Otherwise it adds to the set numbered one below, and a
    /// node that does not hold that one asks for a complete set.
    pub complete: bool,
    /// New and changed tasks.
    pub tasks: Vec<Task>,
    /// Tasks that the node may forget, once stopped. Empty in a complete set.
    pub removed: Vec<TaskId>,
    /// The digests of those of the node's images that services refer to, where that changed since
    /// it was last said; always said in a complete set.
    pub images: Option<BTreeSet<String>>,
}
