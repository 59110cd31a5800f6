//! What happens to a leader, and what it wants done about it.

use super::{
    command::{Applied, Command, Rejected},
    request::{Refusal, Request, Response},
};
use crate::types::{FromManager, FromWorker, NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};

/// Names one request until it is answered; drawn by the driver, never reused.
pub type Ticket = u64;

/// Something that happened to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A user or a peer asks.
    Request {
        /// Where the answer goes.
        ticket: Ticket,
        /// What.
        request: Request,
    },
    /// A node said something over its authenticated connection.
    Message {
        /// The node, as its certificate names it.
        node: NodeId,
        /// The address it is seen at, without a port.
        address: String,
        /// The manager that passes its session on, where that is not with this one.
        via: Option<NodeId>,
        /// What.
        message: FromWorker,
    },
    /// The last connection of a node ended. No more than a hint: only silence makes it Down.
    Disconnected {
        /// The node.
        node: NodeId,
    },
    /// The batch that was proposed was committed and applied, or something was that another
    /// leader proposed.
    Applied {
        /// The version it got.
        version: Version,
        /// Each command with its outcome, in order.
        outcomes: Vec<(Command, Result<Applied, Rejected>)>,
    },
    /// The batch that was proposed will not be applied, or nobody knows: decide anew.
    ProposalFailed {
        /// Why.
        error: String,
    },
    /// The deadline that [`super::leader::Leader::next_deadline`] named has come, or the driver
    /// has nothing else to say.
    Tick,
    /// The consensus group has these members by now, those that do not vote included.
    Group {
        /// Their keys.
        members: BTreeSet<u64>,
    },
    /// The driver itself was held up (a suspended machine, a stalled disk) for this long: every
    /// deadline of liveness is put off by as much, since nobody could be heard.
    Stalled {
        /// For how long.
        wait: std::time::Duration,
    },
}

/// Something the leader wants done. Idempotent, and safe to lose with the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Commit these commands as one log entry. At most one is under way at a time: the next comes
    /// only after [`Event::Applied`] or [`Event::ProposalFailed`].
    Propose(Vec<Command>),
    /// Send to a node; lost where it is not connected.
    Send {
        /// The node.
        node: NodeId,
        /// What.
        message: FromManager,
    },
    /// Answer a request.
    Reply {
        /// Which.
        ticket: Ticket,
        /// The answer.
        result: Result<Response, Refusal>,
    },
    /// Make the consensus group of these members, each at its address: step by step, for as long
    /// as it takes. The latest one counts.
    SetGroup(BTreeMap<u64, String>),
    /// End every connection of a node that was removed.
    Disconnect {
        /// The node.
        node: NodeId,
    },
}
