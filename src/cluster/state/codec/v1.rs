//! Format 1: before there were several managers. Only what has changed since is mirrored; the rest
//! is read as it is today, and moves here when it changes.

use crate::{
    cluster::{
        command::{self, Applied, Decision, Rejected},
        state,
    },
    types::{
        self, ClusterId, Date, Desired, JoinTokens, ManagerStatus, Node, NodeDescription, NodeId,
        NodeSpec, NodeState, RequestId, RootCa, Service, ServiceId, ServiceSpec, Task, TaskId,
        TaskStatus, UpdateStatus, Version,
    },
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

#[derive(Deserialize)]
pub(super) struct ClusterSpec {
    task_history_limit: i64,
    heartbeat_period: Duration,
    node_cert_expiry: Duration,
    snapshot_interval: u64,
}

impl From<ClusterSpec> for types::ClusterSpec {
    fn from(spec: ClusterSpec) -> Self {
        Self {
            task_history_limit: spec.task_history_limit,
            heartbeat_period: spec.heartbeat_period,
            node_cert_expiry: spec.node_cert_expiry,
            snapshot_interval: spec.snapshot_interval,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Cluster {
    id: ClusterId,
    version: Version,
    created: Date,
    updated: Date,
    spec: ClusterSpec,
    root: RootCa,
    tokens: JoinTokens,
}

impl From<Cluster> for types::Cluster {
    fn from(cluster: Cluster) -> Self {
        let Cluster { id, version, created, updated, spec, root, tokens } = cluster;
        let spec = spec.into();
        let (unlock_key, rotation, former_roots) = (None, None, Vec::new());
        Self {
            id,
            version,
            created,
            updated,
            spec,
            root,
            tokens,
            unlock_key,
            rotation,
            former_roots,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Tables {
    applied: Version,
    cluster: Option<Cluster>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    removed: BTreeMap<NodeId, Date>,
    outcomes: VecDeque<(RequestId, Result<Applied, Rejected>)>,
}

impl From<Tables> for state::Tables {
    fn from(tables: Tables) -> Self {
        let Tables { applied, cluster, nodes, services, tasks, removed, outcomes } = tables;
        let cluster = cluster.map(types::Cluster::from);
        let demoted = BTreeMap::new();
        Self { applied, cluster, nodes, services, tasks, removed, outcomes, demoted }
    }
}

#[derive(Deserialize)]
pub(super) struct Command {
    request: Option<RequestId>,
    term: u64,
    date: Date,
    change: Change,
}

impl From<Command> for command::Command {
    fn from(command: Command) -> Self {
        let Command { request, term, date, change } = command;
        Self { request, term, date, change: change.into() }
    }
}

#[derive(Deserialize)]
pub(super) enum Change {
    CreateCluster { cluster: Box<Cluster>, node: Box<Node> },
    UpdateCluster { expected: Version, spec: Box<ClusterSpec> },
    RotateTokens { tokens: JoinTokens },
    CreateNode { node: Box<Node> },
    UpdateNode { id: NodeId, expected: Version, spec: Box<NodeSpec> },
    DescribeNode { id: NodeId, description: Box<NodeDescription>, address: String },
    SetNodeState { id: NodeId, state: NodeState, message: String },
    SetManagerStatus { id: NodeId, status: Option<ManagerStatus> },
    RemoveNode { id: NodeId, force: bool },
    CreateService { service: Box<Service> },
    UpdateService { id: ServiceId, expected: Version, spec: Box<ServiceSpec> },
    RollbackService { id: ServiceId, expected: Version },
    SetUpdateStatus { id: ServiceId, spec_version: Version, status: Option<UpdateStatus> },
    RemoveService { id: ServiceId },
    ReplaceTasks { create: Vec<Task>, desire: Vec<(TaskId, Desired)> },
    Schedule { decisions: Vec<Decision> },
    ReportTasks { reports: Vec<(TaskId, TaskStatus)> },
    AdoptTasks { node: NodeId, tasks: Vec<Task> },
    RemoveTasks { tasks: Vec<TaskId> },
    RevertService { id: ServiceId, spec_version: Version, message: String },
}

impl From<Change> for command::Change {
    fn from(change: Change) -> Self {
        match change {
            Change::CreateCluster { cluster, node } => {
                Self::CreateCluster { cluster: Box::new((*cluster).into()), node }
            }
            Change::UpdateCluster { expected, spec } => {
                Self::UpdateCluster { expected, spec: Box::new((*spec).into()) }
            }
            Change::RotateTokens { tokens } => Self::RotateTokens { tokens },
            Change::CreateNode { node } => Self::CreateNode { node },
            Change::UpdateNode { id, expected, spec } => Self::UpdateNode { id, expected, spec },
            Change::DescribeNode { id, description, address } => {
                Self::DescribeNode { id, description, address }
            }
            Change::SetNodeState { id, state, message } => {
                Self::SetNodeState { id, state, message }
            }
            Change::SetManagerStatus { id, status } => Self::SetManagerStatus { id, status },
            Change::RemoveNode { id, force } => Self::RemoveNode { id, force },
            Change::CreateService { service } => Self::CreateService { service },
            Change::UpdateService { id, expected, spec } => {
                Self::UpdateService { id, expected, spec }
            }
            Change::RollbackService { id, expected } => Self::RollbackService { id, expected },
            Change::SetUpdateStatus { id, spec_version, status } => {
                Self::SetUpdateStatus { id, spec_version, status }
            }
            Change::RemoveService { id } => Self::RemoveService { id },
            Change::ReplaceTasks { create, desire } => Self::ReplaceTasks { create, desire },
            Change::Schedule { decisions } => Self::Schedule { decisions },
            Change::ReportTasks { reports } => Self::ReportTasks { reports },
            Change::AdoptTasks { node, tasks } => Self::AdoptTasks { node, tasks },
            Change::RemoveTasks { tasks } => Self::RemoveTasks { tasks },
            Change::RevertService { id, spec_version, message } => {
                Self::RevertService { id, spec_version, message }
            }
        }
    }
}
