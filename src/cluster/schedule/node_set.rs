//! The nodes as the scheduler sees them: what each has left, and who holds what.
//!
//! Knows how tasks use a node, not which node is better.

use super::{FAILURE_WINDOW, Volatile, generic::Use};
use crate::{
    cluster::State,
    types::{
        GenericResource, Moment, NetworkMode, Node, NodeId, PortProtocol, PublishMode, Resources,
        ServiceId, Task, TaskId, Version,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A host port.
pub(super) type Port = (PortProtocol, u16);

/// One node and its use.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    pub(super) node: &'a Node,
    /// Whether the circuit breaker doubts it.
    pub(super) suspect: bool,
    /// What its tasks reserve.
    pub(super) reserved: Resources,
    /// What its tasks have of its generic resources.
    pub(super) generic: Use,
    /// Who holds which host port, and at which address.
    pub(super) ports: BTreeMap<Port, BTreeSet<(TaskId, Option<IpAddr>)>>,
    /// Its wanted tasks.
    pub(super) active: u64,
    /// Those of the service that is being placed.
    pub(super) of_service: u64,
    /// Recent failures of that service's present spec here.
    pub(super) failures: usize,
    by_service: BTreeMap<&'a ServiceId, u64>,
}

/// What a task's predecessor holds on a node, and the task may count on: a prepared container uses
/// none of it before the predecessor has stopped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Credit<'a> {
    pub(super) reserved: Resources,
    pub(super) generic: &'a [GenericResource],
    /// Whose ports and things are as good as free.
    pub(super) holder: Option<&'a TaskId>,
    /// Whether it counts among the service's tasks there.
    pub(super) slot: bool,
}

/// All nodes, in order of id.
#[derive(Debug)]
pub(super) struct NodeSet<'a> {
    state: &'a State,
    volatile: &'a Volatile,
    now: Moment,
    seats: Vec<Seat<'a>>,
    index: BTreeMap<&'a NodeId, usize>,
}

impl<'a> NodeSet<'a> {
    pub(super) fn new(state: &'a State, volatile: &'a Volatile, now: Moment) -> Self {
        Self::without(state, volatile, now, None)
    }

    /// Leaves a task out, as if it had no node.
    pub(super) fn without(
        state: &'a State,
        volatile: &'a Volatile,
        now: Moment,
        left_out: Option<&TaskId>,
    ) -> Self {
        let seats: Vec<Seat<'a>> = state
            .nodes()
            .map(|node| Seat {
                node,
                suspect: volatile.suspects.contains(&node.id),
                reserved: Resources::default(),
                generic: Use::default(),
                ports: BTreeMap::new(),
                active: 0,
                of_service: 0,
                failures: 0,
                by_service: BTreeMap::new(),
            })
            .collect();
        let index = seats.iter().enumerate().map(|(at, seat)| (&seat.node.id, at)).collect();
        let mut set = Self { state, volatile, now, seats, index };
        for task in state.tasks() {
            let Some(at) = task.node.as_ref().and_then(|node| set.find(node)) else { continue };
            if !set.holds(task) || Some(&task.id) == left_out {
                continue;
            }
            set.occupy(task, at, &task.generic);
            if task.desired.is_wanted() {
                *set.seats[at].by_service.entry(&task.service).or_default() += 1;
            }
        }
        set
    }

    pub(super) fn seats(&self) -> &[Seat<'a>] {
        &self.seats
    }

    pub(super) fn find(&self, node: &NodeId) -> Option<usize> {
        self.index.get(node).copied()
    }

    /// Tells whether the task uses its node: from ASSIGNED until it has ended.
    fn holds(&self, task: &Task) -> bool {
        let state = self.volatile.state_of(task);
        state.is_given()
    }

    /// Turns the service's own counts to this service and spec.
    pub(super) fn count_for(&mut self, service: &ServiceId, spec_version: Version) {
        let since = self.now - FAILURE_WINDOW;
        for seat in &mut self.seats {
            seat.of_service = seat.by_service.get(service).copied().unwrap_or_default();
            seat.failures = 0;
            if !self.volatile.failures.is_empty() {
                let key = (service.clone(), spec_version, seat.node.id.clone());
                let failures = self.volatile.failures.get(&key);
                seat.failures =
                    failures.map_or(0, |all| all.iter().filter(|at| **at >= since).count());
            }
        }
    }

    /// Returns the task's predecessor, ended or not.
    fn before(&self, task: &Task) -> Option<&'a Task> {
        self.state.task(task.predecessor.as_ref()?)
    }

    /// Returns the task's predecessor while that uses its node.
    fn predecessor(&self, task: &Task) -> Option<&'a Task> {
        self.before(task).filter(|before| self.holds(before))
    }

    /// Returns the node of the task's predecessor, whether that has ended or not.
    pub(super) fn home(&self, task: &Task) -> Option<usize> {
        self.find(self.before(task)?.node.as_ref()?)
    }

    /// Tells whether the task was made to be placed anew: by force, or since its predecessor was
    /// placed by other preferences.
    pub(super) fn is_placed_anew(&self, task: &Task) -> bool {
        self.before(task).is_some_and(|before| {
            before.spec.force_update != task.spec.force_update
                || before.spec.placement.spread != task.spec.placement.spread
        })
    }

    /// Counts the task's predecessor among the service's no more: the two are to be one.
    pub(super) fn count_once(&mut self, task: &Task) {
        let Some(before) = self.predecessor(task).filter(|it| it.desired.is_wanted()) else {
            return;
        };
        let Some(at) = before.node.as_ref().and_then(|node| self.find(node)) else { return };
        let seat = &mut self.seats[at];
        seat.of_service = seat.of_service.saturating_sub(1);
        if let Some(count) = seat.by_service.get_mut(&before.service) {
            *count = count.saturating_sub(1);
        }
    }

    /// Returns what the task may count on at this node: nothing where it runs beside its
    /// predecessor.
    pub(super) fn credit(&self, task: &Task, at: usize) -> Credit<'a> {
        let Some(predecessor) = self.predecessor(task) else { return Credit::default() };
        if task.overlap || predecessor.node.as_ref() != Some(&self.seats[at].node.id) {
            return Credit::default();
        }
        Credit {
            reserved: predecessor.spec.reservations,
            generic: &predecessor.generic,
            holder: Some(&predecessor.id),
            slot: predecessor.desired.is_wanted(),
        }
    }

    /// Counts a task that was just given this node; returns what it gets of its generic resources.
    pub(super) fn take(&mut self, task: &Task, at: usize) -> Vec<GenericResource> {
        let claimed = self.claim(task, at, self.credit(task, at)).unwrap_or_default();
        self.occupy(task, at, &claimed);
        let seat = &mut self.seats[at];
        seat.of_service += 1;
        if let Some(service) = self.state.service(&task.service) {
            *seat.by_service.entry(&service.id).or_default() += 1;
        }
        claimed
    }

    fn claim(&self, task: &Task, at: usize, credit: Credit<'_>) -> Option<Vec<GenericResource>> {
        let seat = &self.seats[at];
        seat.generic.claim(&seat.node.description.generic, &task.spec.generic, credit)
    }

    fn occupy(&mut self, task: &Task, at: usize, generic: &[GenericResource]) {
        // A replacement and the task it waits for never run at once: what counts is the larger.
        let credited = self.credit(task, at);
        let credit = credited.reserved;
        let seat = &mut self.seats[at];
        seat.generic.add(&task.id, generic, credited);
        let add = |sum: &mut u64, mine: u64, credited: u64| {
            *sum = sum.saturating_add(mine.saturating_sub(credited));
        };
        let mine = task.spec.reservations;
        add(&mut seat.reserved.nano_cpus, mine.nano_cpus, credit.nano_cpus);
        add(&mut seat.reserved.memory_bytes, mine.memory_bytes, credit.memory_bytes);
        for (port, address) in wanted_ports(task).chain(held_ports(task)) {
            seat.ports.entry(port).or_default().insert((task.id.clone(), address));
        }
        seat.active += u64::from(task.desired.is_wanted());
    }
}

/// Returns the host ports that the task must have, and at which addresses.
pub(super) fn wanted_ports(task: &Task) -> impl Iterator<Item = (Port, Option<IpAddr>)> {
    let host = task.spec.network == NetworkMode::Host;
    task.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Host).filter_map(
        move |port| match (port.published, host) {
            (0, false) => None,
            // Its own program listens, at whichever address.
            (0, true) => Some(((port.protocol, port.target), None)),
            (published, true) => Some(((port.protocol, published), None)),
            (published, false) => Some(((port.protocol, published), port.host_ip)),
        },
    )
}

/// Returns the host ports that the node chose for the task.
fn held_ports(task: &Task) -> impl Iterator<Item = (Port, Option<IpAddr>)> {
    let ports = task.status.ports.iter().map(|held| &held.port);
    ports.map(|port| ((port.protocol, port.published), port.host_ip))
}
