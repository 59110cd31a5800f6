//! Commands: the only things that ever change the cluster's state.

use crate::types::{
    Cluster, ClusterSpec, Date, Desired, GenericResource, JoinTokens, ManagerStatus, Node,
    NodeDescription, NodeId, NodeSpec, NodeState, RequestId, RootRotation, Service, ServiceId,
    ServiceSpec, Task, TaskId, TaskStatus, UnlockKey, UpdateStatus, Version,
};
use serde::{Deserialize, Serialize};

/// One change to the cluster's state, with everything that deciding it needed: no clock and no
/// randomness is left for whoever applies it.
///
/// One log entry holds a batch of commands; each is applied as a whole or rejected as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Names the request, so that a retry after a fail-over is not carried out twice. None for
    /// what the leader decides itself: those carry preconditions that make a second time harmless.
    pub request: Option<RequestId>,
    /// The term the proposer led in. An entry proposed in an older term than the one it is
    /// committed in is rejected: the new leader decides anew.
    pub term: u64,
    /// The proposer's wall clock: becomes `updated` of what is written.
    pub date: Date,
    /// What changes.
    pub change: Change,
}

/// What a command changes. Variants are only ever appended: their order is their encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Makes the cluster, with its first node. Only into an empty state.
    CreateCluster {
        /// The cluster.
        cluster: Box<Cluster>,
        /// The manager that makes it.
        node: Box<Node>,
    },
    /// Sets the cluster's options.
    UpdateCluster {
        /// The version that the user read.
        expected: Version,
        /// What is wanted.
        spec: Box<ClusterSpec>,
    },
    /// Replaces the join tokens; members are unaffected.
    RotateTokens {
        /// The new ones.
        tokens: JoinTokens,
    },
    /// Admits a node. Rejected where the id is taken or was removed.
    CreateNode {
        /// The node.
        node: Box<Node>,
    },
    /// Sets what a user sets of a node.
    UpdateNode {
        /// The node.
        id: NodeId,
        /// The version that the user read.
        expected: Version,
        /// What is wanted.
        spec: Box<NodeSpec>,
    },
    /// Takes over what a node says of itself, and where it is seen.
    DescribeNode {
        /// The node.
        id: NodeId,
        /// What it says.
        description: Box<NodeDescription>,
        /// The address it is seen at.
        address: String,
    },
    /// Sets what the manager sees of a node.
    SetNodeState {
        /// The node.
        id: NodeId,
        /// Whether it is in touch.
        state: NodeState,
        /// Why, in words.
        message: String,
    },
    /// Sets a node's standing among the managers.
    SetManagerStatus {
        /// The node.
        id: NodeId,
        /// Its standing.
        status: Option<ManagerStatus>,
    },
    /// Takes a node out for good: its id is remembered as removed, its tasks are forgotten.
    RemoveNode {
        /// The node.
        id: NodeId,
        /// Also where it is Ready.
        force: bool,
    },
    /// Makes a service. Rejected where the name is taken.
    CreateService {
        /// The service.
        service: Box<Service>,
    },
    /// Replaces a service's spec; the one before becomes the previous one.
    UpdateService {
        /// The service.
        id: ServiceId,
        /// The version that the user read.
        expected: Version,
        /// What is wanted.
        spec: Box<ServiceSpec>,
    },
    /// Swaps a service's spec with the previous one.
    RollbackService {
        /// The service.
        id: ServiceId,
        /// The version that the user read.
        expected: Version,
    },
    /// Sets how far a service's update has come. Does not touch its version.
    SetUpdateStatus {
        /// The service.
        id: ServiceId,
        /// The spec it is about; rejected where the service has another one by now.
        spec_version: Version,
        /// How far.
        status: Option<UpdateStatus>,
    },
    /// Removes a service; its tasks become desired REMOVE.
    RemoveService {
        /// The service.
        id: ServiceId,
    },
    /// Makes tasks, and tells others to stop, as one: a slot is never left without a task, nor
    /// with two.
    ReplaceTasks {
        /// New tasks. Rejected where the service is gone, the id exists, or, unless a task is
        /// held for a predecessor, the slot has another wanted task.
        create: Vec<Task>,
        /// New desired states; a lower one than the present is ignored.
        desire: Vec<(TaskId, Desired)>,
    },
    /// Gives pending tasks a node, or says why they have none.
    Schedule {
        /// Each decision stands alone: one that no longer holds is skipped.
        decisions: Vec<Decision>,
    },
    /// Takes over what became of tasks. A state below the present one is ignored.
    ReportTasks {
        /// Task and status. That a node reports only about its own tasks is checked by the leader.
        reports: Vec<(TaskId, TaskStatus)>,
    },
    /// Takes over tasks that a node made itself while it had no manager: the predecessors become
    /// history, the newest is adopted unless the slot was filled meanwhile, and then it is told to
    /// stop. A replacement that does not run yet fills no slot. Of tasks that were taken over
    /// before, what became of them is taken in.
    AdoptTasks {
        /// The node.
        node: NodeId,
        /// The tasks, oldest first.
        tasks: Vec<Task>,
    },
    /// Forgets tasks.
    RemoveTasks {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Takes a service back to its previous spec, since its update failed. There is no previous
    /// one after it: a rollback is never rolled back.
    RevertService {
        /// The service.
        id: ServiceId,
        /// The spec whose update failed; rejected where the service has another one by now.
        spec_version: Version,
        /// Why, in words.
        message: String,
    },
    /// Replaces what opens a locked manager; none where managers no longer lock themselves.
    SetUnlockKey {
        /// The new one.
        key: Option<UnlockKey>,
    },
    /// Begins a new epoch, in which this node alone is a manager: the others' group is gone. They
    /// become workers; nodes, services and tasks stay as they are.
    ForceNewCluster {
        /// The node.
        manager: NodeId,
        /// Its standing.
        status: ManagerStatus,
    },
    /// Begins a new epoch on a machine that the cluster was restored to. It is the only manager;
    /// the one that the backup was taken on is removed, the others become workers.
    RestoreCluster {
        /// The new machine.
        node: Box<Node>,
        /// The node that the backup was taken on.
        replaces: NodeId,
    },
    /// Begins to replace the root. From here on the next one signs, and nodes check by both.
    RotateRoot {
        /// The digest of the present root; rejected where it is another by now.
        base: [u8; 32],
        /// The next one, and what goes with it.
        rotation: Box<RootRotation>,
    },
    /// The next root is the only one that counts; join tokens change with it.
    FinishRootRotation {
        /// Its digest; rejected where another one is on its way by now.
        root: [u8; 32],
    },
    /// Passes over epochs, so that the next one that begins is above all that began on the same
    /// older state before. Goes before [`Change::ForceNewCluster`] and [`Change::RestoreCluster`], in
    /// one entry with them.
    PassEpochs {
        /// The last one that is passed over. Does nothing where that is past.
        last: u64,
    },
}

impl Change {
    /// Tells whether it touches nothing but services and their tasks.
    #[must_use]
    pub fn is_about_services(&self) -> bool {
        matches!(
            self,
            Self::CreateService { .. }
                | Self::UpdateService { .. }
                | Self::RollbackService { .. }
                | Self::RevertService { .. }
                | Self::RemoveService { .. }
                | Self::SetUpdateStatus { .. }
                | Self::ReplaceTasks { .. }
                | Self::Schedule { .. }
                | Self::ReportTasks { .. }
                | Self::AdoptTasks { .. }
                | Self::RemoveTasks { .. }
        )
    }
}

/// What the scheduler decided about one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The task; skipped unless it is still PENDING without a node, or preassigned to this one.
    pub task: TaskId,
    /// The node; none where nothing fits.
    pub node: Option<NodeId>,
    /// Why nothing fits; empty otherwise.
    pub error: String,
    /// What the task gets of the node's generic resources.
    pub generic: Vec<GenericResource>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It is done.
    Done,
    /// It made or changed this service.
    Service(ServiceId),
    /// It made or changed this node.
    Node(NodeId),
}

/// Why a command was rejected; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    /// Somebody else wrote the object first. The wording is Swarm's.
    #[error("update out of sequence")]
    OutOfSequence,
    /// The object is gone.
    #[error("{kind} {id} not found")]
    NotFound {
        /// `node`, `service`, `task`.
        kind: String,
        /// Which.
        id: String,
    },
    /// The name or id is taken.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    Exists {
        /// `node`, `service`, `task`.
        kind: String,
        /// Which.
        name: String,
    },
    /// What it was decided on no longer holds.
    #[error("{0}")]
    Precondition(String),
    /// It was proposed in an older term.
    #[error("the leader changed; try again")]
    StaleTerm,
}
