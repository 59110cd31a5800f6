//! The first frame in each direction of a stream: what is asked, and what comes of it.

use super::ContainerRequest;
use crate::{
    cluster::{Admission, JoinRequest, Refusal, Request, Response},
    types::{Chore, Date, NodeId, TaskId, Trust},
};
use serde::{Deserialize, Serialize};

/// What a stream is for. Variants are only ever appended: their order is their encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamRequest {
    /// Asks a manager for the root certificate and its date: the first step of a join, before
    /// anything is trusted. Answered by [`StreamReply::Root`].
    Root,
    /// Asks to be admitted. Sent only after the root's digest fitted the token. Answered by
    /// [`StreamReply::Admitted`].
    Join(Box<JoinRequest>),
    /// A worker's session: frames of `FromWorker` one way and of `FromManager` the other, after
    /// [`StreamReply::Ready`].
    Session,
    /// A manager relays a request to the leader. Answered by [`StreamReply::Response`].
    Relay(Box<Request>),
    /// The consensus engine's own messages, after [`StreamReply::Ready`].
    Raft,
    /// A node asks for its next certificate. Answered by [`StreamReply::Certificate`].
    Renew {
        /// The certificate signing request, DER, of the key it joined with.
        csr: Vec<u8>,
    },
    /// A manager reads the logs of tasks of a node, after [`StreamReply::Ready`].
    Logs(Box<LogsRequest>),
    /// A manager sends an image archive, after [`StreamReply::Ready`].
    LoadImage {
        /// Its size in bytes.
        size: u64,
    },
    /// A manager does something with a container of a node, after [`StreamReply::Ready`].
    Container(Box<ContainerRequest>),
    /// A manager asks something of what a node stores. Answered, after [`StreamReply::Ready`], by
    /// one `ChoreFrame`.
    Chore(Box<Chore>),
    /// A manager passes on a worker's session to the leader. Its frames are those of
    /// [`StreamRequest::Session`], after [`StreamReply::Ready`].
    SessionOf {
        /// The worker, as its certificate says.
        node: NodeId,
        /// The address that it is seen at, without a port.
        address: String,
    },
    /// A manager passes on a request to a node that another manager is connected to. What follows
    /// is between the two ends.
    Via {
        /// The node.
        node: NodeId,
        /// The request; only what a manager may ask of any node.
        request: Box<StreamRequest>,
    },
    /// A node asks for a certificate of the role that it should have. Answered by
    /// [`StreamReply::Admitted`].
    TakeRole {
        /// The certificate signing request, DER, of the key it joined with.
        csr: Vec<u8>,
        /// Where other nodes reach it, `host:port`.
        advertise: String,
        /// Its key in the group of managers, should it become one: another one each time.
        member: u64,
    },
    /// Asks for the roots of the cluster. Answered by [`StreamReply::Trust`].
    Trust,
    /// A node says that it has a certificate of this root, and checks others by it. Answered by
    /// [`StreamReply::Ready`].
    Certified {
        /// SHA-256 of the root certificate.
        root: [u8; 32],
    },
    /// Asks where managers are; also of a node that once was one. Answered by
    /// [`StreamReply::Managers`].
    Managers,
}

/// What a member of the consensus group asks of another, after [`StreamRequest::Raft`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftCall {
    /// The key of the member that is meant: an address may have become another one's.
    pub target: u64,
    /// What the consensus engine says.
    pub bytes: Vec<u8>,
}

/// What comes of it, after [`StreamReply::Ready`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftAnswer(pub Result<Vec<u8>, String>);

/// Which lines of which tasks' logs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogsRequest {
    /// The tasks; those that the node does not hold are passed over.
    pub tasks: Vec<TaskId>,
    /// Whether to go on with new lines.
    pub follow: bool,
    /// At most so many lines from the end; none is all.
    pub tail: Option<u64>,
    /// Not before.
    pub since: Option<Date>,
    /// Not after.
    pub until: Option<Date>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Whether each line bears its time.
    pub timestamps: bool,
    /// Whether attributes of each line's origin are wanted.
    pub details: bool,
}

/// What comes of a request. Variants are only ever appended: their order is their encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamReply {
    /// Granted: what the request said follows.
    Ready,
    /// Nothing was done.
    Refused(Refusal),
    /// The cluster's root.
    Root {
        /// The certificate, DER.
        certificate: Vec<u8>,
        /// The manager's wall clock: certificates mean nothing to a clock that is days off.
        date: Date,
    },
    /// The node is admitted.
    Admitted(Box<Admission>),
    /// The leader's answer.
    Response(Box<Response>),
    /// A node's certificate, DER.
    Certificate(Vec<u8>),
    /// The cluster's roots.
    Trust(Trust),
    /// Nothing was done: the peer's certificate ran out, or a root of before signed it. It may ask
    /// for the next one on this connection.
    RenewFirst,
    /// Where managers are, `host:port`, as far as the peer knows. Hearsay: who is found there has to
    /// show that it is one.
    Managers(Vec<String>),
}
