//! What users and peers ask of the leader, and what it answers.
//!
//! Typed, so that a manager that does not lead relays these and never raw HTTP.

use super::command::Rejected;
use crate::types::{
    Cluster, ClusterSpec, Date, Node, NodeDescription, NodeId, NodeSpec, RequestId, Role,
    RootRotation, Service, ServiceId, ServiceSpec, Task, TaskId, UnlockKey, Version,
};
use serde::{Deserialize, Serialize};

/// What a worker answers whoever asks for the cluster. Docker's own words, so that scripts that look
/// for them go on working.
pub const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to \
     view or modify cluster state. Please run this command on a manager node or promote the \
     current node to a manager.";

/// A request to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Asks for everything that tables and inspections show. One answer, read at one version.
    Read(Query),
    /// Makes a service.
    CreateService {
        /// Names the request for retries.
        request: RequestId,
        /// What is wanted.
        spec: Box<ServiceSpec>,
    },
    /// Changes a service.
    UpdateService {
        /// Names the request for retries.
        request: RequestId,
        /// The service.
        id: ServiceId,
        /// The version that the user read.
        version: Version,
        /// What is wanted.
        spec: Box<ServiceSpec>,
    },
    /// Gives a service its previous spec back.
    RollbackService {
        /// Names the request for retries.
        request: RequestId,
        /// The service.
        id: ServiceId,
        /// The version that the user read.
        version: Version,
    },
    /// Removes a service.
    RemoveService {
        /// Names the request for retries.
        request: RequestId,
        /// The service.
        id: ServiceId,
    },
    /// Changes a node.
    UpdateNode {
        /// Names the request for retries.
        request: RequestId,
        /// The node.
        id: NodeId,
        /// The version that the user read.
        version: Version,
        /// What is wanted.
        spec: NodeSpec,
    },
    /// Removes a node.
    RemoveNode {
        /// Names the request for retries.
        request: RequestId,
        /// The node.
        id: NodeId,
        /// Also where it is Ready.
        force: bool,
    },
    /// Changes the cluster's options, and replaces join tokens.
    UpdateCluster(Box<ClusterUpdate>),
    /// Admits a node that proved a join token. The token was compared by the leader before any
    /// certificate was signed.
    Join(Box<JoinRequest>),
    /// Gives a member its next certificate.
    Renew(Box<RenewRequest>),
    /// Gives a member a certificate of the role it should have, now that it is ready for it.
    TakeRole(Box<RoleRequest>),
    /// Takes in that a node has a certificate of a root, and checks others by it.
    Certified {
        /// The node, as its certificate says.
        node: NodeId,
        /// The root's digest.
        root: [u8; 32],
    },
    /// Takes a node in again that was a member, as a good certificate says, and is not known any more:
    /// the cluster was restored from a backup of before it joined. Answered as [`Self::Renew`].
    Readmit(Box<RenewRequest>),
}

impl Request {
    /// Returns the name under which what came of it is remembered; none where nothing is, since a
    /// second time does no harm.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::CreateService { request, .. }
            | Self::UpdateService { request, .. }
            | Self::RollbackService { request, .. }
            | Self::RemoveService { request, .. }
            | Self::UpdateNode { request, .. }
            | Self::RemoveNode { request, .. } => Some(request),
            Self::UpdateCluster(update) => Some(&update.request),
            Self::Read(_)
            | Self::Join(_)
            | Self::Renew(_)
            | Self::TakeRole(_)
            | Self::Certified { .. }
            | Self::Readmit(_) => None,
        }
    }

    /// Tells whether it only reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read(_))
    }

    /// Tells whether only a manager may answer it that leads for certain. What nodes hold is known from
    /// their sessions and not from the log, and what is made of it has to be committed anyway.
    #[must_use]
    pub fn needs_barrier(&self) -> bool {
        matches!(self, Self::Read(query) if !matches!(query, Query::HeldImages { .. }))
    }

    /// Tells whether no other change may be decided on the same state: what two of them decide would
    /// contradict itself.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Self::UpdateNode { .. } | Self::UpdateCluster(_))
    }

    /// Returns the signing request that its answer's certificate is made of.
    #[must_use]
    pub fn into_csr(self) -> Option<Vec<u8>> {
        match self {
            Self::Join(join) => Some(join.csr),
            Self::Renew(renew) | Self::Readmit(renew) => Some(renew.csr),
            Self::TakeRole(asked) => Some(asked.csr),
            _ => None,
        }
    }
}

/// What the cluster is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Under the name that the recorded bytes have its fields by: those of the variant.
#[serde(rename = "Request::UpdateCluster")]
pub struct ClusterUpdate {
    /// Names the request for retries.
    pub request: RequestId,
    /// The version that the user read.
    pub version: Version,
    /// What is wanted.
    pub spec: ClusterSpec,
    /// Whether to replace the workers' token.
    pub rotate_worker_token: bool,
    /// Whether to replace the managers' token.
    pub rotate_manager_token: bool,
    /// Whether to replace the unlock key, where managers lock themselves.
    pub rotate_unlock_key: bool,
    /// The unlock key to take where one is needed: drawn where there is true randomness, which
    /// the leader has none of.
    pub fresh_unlock_key: UnlockKey,
    /// The root to begin to replace the present one with: made where its keys can be.
    pub next_root: Option<Box<RootRotation>>,
}

/// What a member that asks for its next certificate shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The node, as its present certificate says.
    pub node: NodeId,
    /// The certificate signing request, DER. Only its public key is used.
    pub csr: Vec<u8>,
    /// SHA-256 of that public key, which must be the one that the node joined with.
    pub key_digest: [u8; 32],
    /// When the certificate that it shows ran out, where it has.
    pub expired: Option<Date>,
}

/// What a member that takes another role shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRequest {
    /// The node, as its present certificate says.
    pub node: NodeId,
    /// The role that its present certificate says, and that it lives by until it has another.
    pub certified: Role,
    /// The certificate signing request, DER. Only its public key is used.
    pub csr: Vec<u8>,
    /// SHA-256 of that public key, which must be the one that the node joined with.
    pub key_digest: [u8; 32],
    /// Where other nodes reach it by now, `host:port`; empty for where they did.
    pub advertise: String,
    /// Its key in the consensus group, should it become a manager. A node that was one before has
    /// another one now: it lost its log, and must not take part in what the log that it is sent
    /// says of the member that it was.
    pub member: u64,
}

/// What a joining node asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret half of the token.
    pub secret: crate::types::JoinToken,
    /// The certificate signing request, DER. Only its public key is used.
    pub csr: Vec<u8>,
    /// SHA-256 of that public key. A node that repeats its join with the same key gets the same
    /// node id back: a lost answer does no harm.
    pub key_digest: [u8; 32],
    /// What the node is.
    pub description: NodeDescription,
    /// The labels it is configured to ask for: `node.labels.*` until a user changes them.
    pub labels: crate::types::Labels,
    /// What it wants its availability to be.
    pub availability: crate::types::Availability,
    /// The address the manager sees it at, without a port.
    pub address: String,
    /// Where other nodes reach it, for managers.
    pub advertise: String,
}

/// What a join gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The node's id.
    pub node: NodeId,
    /// What its token admitted it to.
    pub role: Role,
    /// The cluster.
    pub cluster: crate::types::ClusterId,
    /// Its certificate, DER, signed by the root. Filled in by the manager's certificate authority
    /// once the node is committed.
    pub certificate: Vec<u8>,
}

/// What a read asks for. Filters are the reader's affair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The cluster.
    Cluster,
    /// All nodes.
    Nodes,
    /// All services.
    Services,
    /// Tasks: of these services and nodes; empty lists are no bound.
    Tasks {
        /// Only these services'.
        services: Vec<ServiceId>,
        /// Only these nodes'.
        nodes: Vec<NodeId>,
    },
    /// Which nodes hold an image of this familiar name, or of this digest.
    HeldImages {
        /// The name or the digest.
        image: String,
    },
    /// Why a task is as it is.
    WhyTask {
        /// The task.
        id: TaskId,
    },
    /// Why a service is as it is.
    WhyService {
        /// The service.
        id: ServiceId,
    },
    /// What an update of a service would do.
    PlanUpdate {
        /// The service.
        id: ServiceId,
        /// The version that the user read.
        version: Version,
        /// What is wanted.
        spec: Box<ServiceSpec>,
    },
    /// The nodes that this name may mean: the beginning of an id, or a host name.
    NodesNamed(String),
    /// The services that this name may mean: the beginning of an id, or a service's name.
    ServicesNamed(String),
    /// The tasks that this name may mean: the beginning of an id, or a task's name, with its id or without.
    TasksNamed(String),
}

/// What becomes of a place of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planned {
    /// It gets a task, and had none.
    Made,
    /// Another task takes the place of the one there.
    Replaced,
    /// Its task is ended.
    Ended,
}

/// What an update would do in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// The place, by the name of its tasks: `web.1`, `web.<node id>`.
    pub task: String,
    /// What becomes of it.
    pub what: Planned,
    /// The task that is there.
    pub old: Option<TaskId>,
    /// Where that is.
    pub from: Option<NodeId>,
    /// Where the new one goes.
    pub to: Option<NodeId>,
    /// Why no node takes the new one; empty otherwise.
    pub error: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done.
    Done,
    /// The service that was made.
    Created(ServiceId),
    /// The cluster.
    Cluster(Box<Cluster>),
    /// Nodes, in order of id.
    Nodes(Vec<Node>),
    /// Services, in order of id.
    Services(Vec<Service>),
    /// Tasks, in order of id, with their soft states.
    Tasks(Vec<Task>),
    /// Nodes and what each holds.
    HeldImages(Vec<(NodeId, crate::types::HeldImage)>),
    /// The node is admitted.
    Admitted(Box<Admission>),
    /// Sentences, each a line.
    Why(Vec<String>),
    /// What an update would do, in order. At most 256 places.
    Plan(Vec<PlannedTask>),
}

/// What a refusal is at heart; decides HTTP status and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// There is no such thing.
    NotFound,
    /// The request cannot be meant.
    Invalid,
    /// It conflicts with what is.
    Conflict,
    /// It is not allowed.
    Forbidden,
    /// The token or the certificate does not fit.
    Unauthorized,
    /// Not now: no leader, no quorum, no answer in time.
    Unavailable,
    /// midge does not do this (yet).
    Unsupported,
    /// Our mistake.
    Internal,
    /// Another manager leads, or none: said between managers, and never to users.
    NotLeader,
}

/// A refusal: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What it is at heart.
    pub class: Class,
    /// What went wrong, for people.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal.
    #[must_use]
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// Tells whether it may be of a node of an earlier version, which does not know the question: so
    /// that it can be put otherwise.
    #[must_use]
    pub fn may_be_of_an_older_peer(&self) -> bool {
        matches!(self.class, Class::Invalid | Class::Unsupported)
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let class = match &rejected {
            // Docker answers 500 here, which clients cannot tell from a defect.
            Rejected::OutOfSequence | Rejected::Exists { .. } | Rejected::Precondition(_) => {
                Class::Conflict
            }
            Rejected::NotFound { .. } => Class::NotFound,
            Rejected::StaleTerm => Class::Unavailable,
        };
        Self::new(class, rejected.to_string())
    }
}
