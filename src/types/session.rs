//! What a worker and its manager say to each other.
//!
//! A session is a worker's register, then heartbeats and reports from it, assignments and
//! acknowledgements to it. Any message may be lost, doubled or late: everything is repeated until
//! answered, and everything carries the session's number, which the worker draws anew each time.
//!
//! An older peer passes over a variant that it does not know, as if it was lost: what is appended
//! here must be something that the other end can do without.

use super::{
    Assignments, Date, HeldImage, NodeDescription, NodeId, Role, Sequence, Task, TaskId,
    TaskStatus, Trust,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a worker saw of one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// How far it has come.
    pub status: TaskStatus,
}

/// A task that a worker made itself, in place of one that ended while no manager answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSuccessor {
    /// The whole task: same service, slot and spec as its predecessor; its id is a hash of the
    /// predecessor's and its `failures` count.
    pub task: Task,
    /// When the worker made it, by its own clock.
    pub made: Date,
}

/// A worker's introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Drawn by the worker for this session.
    pub session: u64,
    /// What the node is.
    pub description: NodeDescription,
    /// The images it could run without a registry.
    pub images: Vec<HeldImage>,
    /// Every task it holds, and how far each has come.
    pub tasks: Vec<TaskReport>,
    /// What it made itself while no manager answered, oldest first.
    pub successors: Vec<LocalSuccessor>,
}

/// From a worker to its manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Begins a session.
    Register(Box<Register>),
    /// "I live", and how far the assignments have come. Answered by [`FromManager::Beat`].
    Heartbeat {
        /// The session.
        session: u64,
        /// The last set of assignments that was taken.
        applied: Sequence,
    },
    /// What became of tasks. Repeated until [`FromManager::ReportTaken`].
    Report {
        /// The session.
        session: u64,
        /// Counts this session's reports, from 1.
        number: u64,
        /// The news.
        tasks: Vec<TaskReport>,
    },
    /// The node's images or description changed. Repeated by the next register.
    Inventory {
        /// The session.
        session: u64,
        /// What the node is.
        description: Box<NodeDescription>,
        /// The images it could run without a registry.
        images: Vec<HeldImage>,
    },
    /// The user took the node out of the cluster.
    Leave {
        /// The session.
        session: u64,
    },
    /// The node, or its manager, is unwell. Said before every heartbeat for as long as it is: a
    /// heartbeat that comes without it says that all is well.
    Unwell {
        /// The session.
        session: u64,
        /// What is wrong, for people.
        message: String,
    },
}

/// How it begins what a manager says that is well, but not reached where other nodes think.
pub const ADDRESS_LOST: &str = "address lost: ";

/// From a manager to one of its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromManager {
    /// The session stands. A complete set of assignments follows.
    Registered {
        /// The session.
        session: u64,
        /// How often to beat.
        heartbeat: Duration,
    },
    /// Answers a heartbeat.
    Beat {
        /// The session.
        session: u64,
        /// How often to beat from now on.
        heartbeat: Duration,
    },
    /// What to run.
    Assignments(Box<Assignments>),
    /// The report is taken: what had to be committed is.
    ReportTaken {
        /// The session.
        session: u64,
        /// Its number.
        number: u64,
    },
    /// The manager knows no such session: register anew.
    NoSession {
        /// The session that was named.
        session: u64,
    },
    /// The node was removed from the cluster.
    Removed,
    /// This node's key was seen from another machine: a cloned disk.
    Duplicate {
        /// The host name and machine that hold the place.
        holder: String,
    },
    /// What the node is to be, and where the managers are. A node whose role differs asks for a
    /// certificate of this one.
    Place {
        /// The role it should have.
        role: Role,
        /// `host:port` of every manager.
        managers: Vec<String>,
    },
    /// The roots that count from now on. A node whose certificate is of another than the last of
    /// them asks for one, and says when it goes by that root.
    Trust {
        /// The roots.
        trust: Box<Trust>,
        /// The node asks at some point within this time.
        within: Duration,
    },
}

/// Where the leader of the managers is, as one of them knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LeaderAt {
    /// Nobody leads, as far as is known.
    #[default]
    Nowhere,
    /// This node leads.
    Here,
    /// At this `host:port`.
    There(String),
}

/// What comes in from other nodes, or from this one as its own manager or worker.
#[derive(Debug)]
pub enum PeerInput {
    /// To this node as a manager.
    FromWorker {
        /// Who, as its certificate says.
        node: NodeId,
        /// The address it is seen at, without a port.
        address: String,
        /// The manager that passes its session on, where that is not with this one.
        via: Option<NodeId>,
        /// What.
        message: FromWorker,
    },
    /// To this node as a manager: a worker's last connection ended.
    WorkerGone {
        /// Who.
        node: NodeId,
    },
    /// To this node as a worker.
    FromManager(FromManager),
    /// There is a session with a manager now.
    Connected,
    /// It ended.
    Disconnected,
}
