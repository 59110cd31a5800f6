//! The cluster's replicated state: tables, the indices over them, and how to read both.
//!
//! Identical on every manager at the same applied version, down to the bytes of a snapshot. It
//! changes only by [`State::apply`] (in `apply`), which knows no clock, no randomness and no
//! outside. Soft knowledge (task states between ASSIGNED and RUNNING, sessions, timers) is the
//! leader's and has no place here.

mod apply;
mod codec;
mod epoch;
#[cfg(test)]
mod record;
mod rotation;
#[cfg(test)]
mod tests;

pub(super) use codec::encoded_len;
pub use codec::{
    DecodeError, ENTRY_MAX, SNAPSHOT_MAX, decode_entry, decode_snapshot, encode_entry,
};
pub use epoch::{forced_anew, restored_anew, terms_passed};

use super::command::{Applied, Rejected};
use crate::types::{
    Cluster, Date, Desired, Node, NodeId, REJOIN_GRACE, RequestId, Role, Roster, Service,
    ServiceId, Task, TaskId, TaskSpec, Trust, Version,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// How many outcomes of requests are remembered: a client repeats a request within seconds, and
/// a thousand are more than a manager commits in that time, at about 100 bytes each.
pub const OUTCOMES_MAX: usize = 1_024;

/// What is replicated, and nothing else: the unit of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Tables {
    applied: Version,
    cluster: Option<Cluster>,
    // Shared: a decision is drafted on a copy, which holds other rows only where it changes them.
    nodes: BTreeMap<NodeId, Arc<Node>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    /// Removed nodes and when: their certificates are good for a while yet.
    removed: BTreeMap<NodeId, Date>,
    /// The last requests' outcomes, oldest first.
    outcomes: VecDeque<(RequestId, Result<Applied, Rejected>)>,
    /// When nodes ceased to be managers: their certificates of that role are good for a while yet.
    demoted: BTreeMap<NodeId, Date>,
}

/// Ways into the tables; derived from them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Indices {
    service_names: BTreeMap<String, ServiceId>,
    service_tasks: BTreeSet<(ServiceId, TaskId)>,
    slot_tasks: BTreeSet<(SlotKey, TaskId)>,
    node_tasks: BTreeSet<(NodeId, TaskId)>,
}

/// The cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    tables: Tables,
    indices: Indices,
}

/// The place that a chain of tasks fills one after another: a slot of a replicated service, or a
/// node of a global one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// The service.
    pub service: ServiceId,
    /// The slot, from 1; 0 for global services.
    pub slot: u64,
    /// The node of a global service's task; none otherwise.
    pub node: Option<NodeId>,
}

impl SlotKey {
    /// Returns the place that `task` belongs to.
    #[must_use]
    pub fn of(task: &Task) -> Self {
        let node = if task.slot == 0 { task.node.clone() } else { None };
        Self { service: task.service.clone(), slot: task.slot, node }
    }
}

/// Checks the tasks of one slot, each with what is desired of it: at most one is to run, or two
/// where the newer one runs beside its predecessor until it has proved itself; at most one is held,
/// and beside one that is to run only for a predecessor.
///
/// # Errors
///
/// How many there are, in words.
pub(super) fn check_slot<'a>(
    tasks: impl Iterator<Item = (Desired, &'a Task)>,
) -> Result<(), String> {
    let (mut running, mut held) = (Vec::new(), Vec::new());
    for (desired, task) in tasks {
        match desired {
            Desired::Running | Desired::Complete => running.push(task),
            Desired::Ready => held.push(task),
            Desired::Shutdown | Desired::Remove => {}
        }
    }
    let waits = |task: &&Task| task.predecessor.is_some();
    let fits = match (running.as_slice(), held.as_slice()) {
        ([] | [_], []) | ([], [_]) => true,
        ([_], [held]) => waits(held),
        ([a, b], []) => a.overlaps(b) || b.overlaps(a),
        _ => false,
    };
    let count = (running.len(), held.len());
    if fits { Ok(()) } else { Err(format!("{} tasks to run and {} held", count.0, count.1)) }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tables.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tables::deserialize(deserializer).map(Self::of)
    }
}

/// Has the tasks of a service share their spec, where they run the same.
fn share_specs(tables: &mut Tables, indices: &Indices) {
    let mut shared: Option<(&ServiceId, Arc<TaskSpec>)> = None;
    for (service, id) in &indices.service_tasks {
        let Some(task) = tables.tasks.get_mut(id) else { continue };
        match &shared {
            Some((of, spec)) if *of == service && *spec == task.spec => {
                Arc::make_mut(task).spec = Arc::clone(spec);
            }
            _ => shared = Some((service, Arc::clone(&task.spec))),
        }
    }
}

impl Indices {
    fn of(tables: &Tables) -> Self {
        let mut indices = Self::default();
        for service in tables.services.values() {
            indices.service_names.insert(service.spec.name.clone(), service.id.clone());
        }
        for task in tables.tasks.values() {
            indices.add(task);
        }
        indices
    }

    fn add(&mut self, task: &Task) {
        self.service_tasks.insert((task.service.clone(), task.id.clone()));
        self.slot_tasks.insert((SlotKey::of(task), task.id.clone()));
        if let Some(node) = &task.node {
            self.node_tasks.insert((node.clone(), task.id.clone()));
        }
    }

    fn remove(&mut self, task: &Task) {
        self.service_tasks.remove(&(task.service.clone(), task.id.clone()));
        self.slot_tasks.remove(&(SlotKey::of(task), task.id.clone()));
        if let Some(node) = &task.node {
            self.node_tasks.remove(&(node.clone(), task.id.clone()));
        }
    }
}

/// Returns the tasks that an index has under `key`, in order of id.
fn under<'a, K: Ord + Clone>(
    index: &'a BTreeSet<(K, TaskId)>,
    key: &K,
) -> impl Iterator<Item = &'a TaskId> + use<'a, K> {
    let ends = (key.clone(), TaskId::MIN)..=(key.clone(), TaskId::MAX);
    index.range(ends).map(|(_, id)| id)
}

impl State {
    fn of(mut tables: Tables) -> Self {
        let indices = Indices::of(&tables);
        share_specs(&mut tables, &indices);
        Self { tables, indices }
    }

    /// Returns the version of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> Version {
        self.tables.applied
    }

    /// Returns the cluster, once it was made.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.tables.cluster.as_ref()
    }

    /// Returns all nodes, in order of id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.tables.nodes.values().map(Arc::as_ref)
    }

    /// Returns a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.tables.nodes.get(id).map(Arc::as_ref)
    }

    /// Returns all services, in order of id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.tables.services.values().map(Arc::as_ref)
    }

    /// Returns a service.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.tables.services.get(id).map(Arc::as_ref)
    }

    /// Returns the service of that name.
    #[must_use]
    pub fn service_by_name(&self, name: &str) -> Option<&Service> {
        self.indices.service_names.get(name).and_then(|id| self.service(id))
    }

    /// Returns all tasks, in order of id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tables.tasks.values().map(Arc::as_ref)
    }

    /// Returns a task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tables.tasks.get(id).map(Arc::as_ref)
    }

    /// Returns a service's tasks, in order of id; also those a removed service left.
    pub fn tasks_of_service<'a>(
        &'a self,
        id: &ServiceId,
    ) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.found(under(&self.indices.service_tasks, id))
    }

    /// Returns the tasks that were given to a node, in order of id.
    pub fn tasks_on_node<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.found(under(&self.indices.node_tasks, id))
    }

    /// Returns the tasks of one slot, in order of id.
    pub fn tasks_in_slot<'a>(&'a self, key: &SlotKey) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.found(under(&self.indices.slot_tasks, key))
    }

    /// Tells whether a node of this id was a member and was removed.
    #[must_use]
    pub fn is_removed(&self, id: &NodeId) -> bool {
        self.tables.removed.contains_key(id)
    }

    /// Tells whether a node was a manager and is none any more, and may still have the certificate
    /// of one.
    #[must_use]
    pub fn was_manager(&self, id: &NodeId) -> bool {
        self.tables.demoted.contains_key(id)
    }

    /// Returns the nodes that were removed and may still have a certificate.
    pub fn removed(&self) -> impl Iterator<Item = &NodeId> {
        self.tables.removed.keys()
    }

    /// Returns what this state says of who may ask what.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let managers = self.nodes().filter(|node| node.role == Role::Manager);
        let cluster = self.cluster();
        let grace = cluster.map_or(REJOIN_GRACE, |cluster| cluster.spec.rejoin_grace);
        let reached = |node: &Node| Some((node.id.clone(), node.manager.as_ref()?.address.clone()));
        let former = cluster.into_iter().flat_map(|cluster| &cluster.former_roots);
        Roster {
            as_of: self.applied(),
            managers: managers.map(|node| node.id.clone()).collect(),
            demoted: self.tables.demoted.clone(),
            addresses: self.nodes().filter_map(reached).collect(),
            grace,
            trust: cluster.map_or_else(Trust::default, Cluster::trust),
            former_roots: former.map(|it| (it.certificate.clone(), it.ended + grace)).collect(),
            members: self.is_made_anew().then(|| self.nodes().map(|it| it.id.clone()).collect()),
        }
    }

    /// Returns what became of a request, where it is remembered.
    #[must_use]
    pub fn outcome(&self, request: &RequestId) -> Option<&Result<Applied, Rejected>> {
        let found = self.tables.outcomes.iter().find(|(id, _)| id == request);
        found.map(|(_, outcome)| outcome)
    }

    /// Tells whether the indices are what the tables say; checked by the simulation.
    #[must_use]
    pub fn indices_agree(&self) -> bool {
        self.indices == Indices::of(&self.tables)
    }

    fn found<'a, I: Iterator<Item = &'a TaskId>>(
        &'a self,
        ids: I,
    ) -> impl Iterator<Item = &'a Task> + use<'a, I> {
        ids.map(|id| self.task(id).expect("indices hold only tasks that are in the table"))
    }
}
