//! What must hold of several managers: one leads a term, and holds all that was committed before
//! it; all have one history, and one state at one version; what a user was told is done is in it,
//! and seen by whoever reads afterwards.

use super::world::World;
use crate::{
    cluster::{Request, State},
    consensus::Leadership,
    types::{NodeId, NodeState, RequestId, Role, Service, ServiceId, Version},
    util::random::draw,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a manager's state is left alone at least, and at most, between two looks at it.
const SAMPLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What the checkers remember of leaders and states.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The leader of each term, as managers saw it, by its key.
    leaders: BTreeMap<u64, u64>,
    /// Up to where each leader had applied the log when it began, by term.
    reigns: BTreeMap<u64, Option<u64>>,
    /// The state at each version that was looked at, as a hash of its snapshot.
    states: BTreeMap<Version, u64>,
}

impl Group {
    /// The group is lost, and one member makes another of its own. Terms that it never heard of are
    /// led again: nothing of them was committed, and a new epoch sets them apart.
    pub(super) fn is_made_anew(&mut self) {
        self.leaders.clear();
        self.reigns.clear();
    }

    /// An entry of a term is committed: whoever leads a later term holds it from the start.
    pub(super) fn check_entry(&self, index: u64, term: u64) {
        for (later, begins) in self.reigns.range(term + 1..) {
            assert!(
                *begins >= Some(index),
                "entry {index} of term {term} is committed, and the leader of term {later} began \
                 without it, with {begins:?}"
            );
        }
    }
}

/// What users were told.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// The entry that holds each request which changed something.
    requests: BTreeMap<RequestId, u64>,
    /// Services that are there, each with the entry of the last change that was acknowledged.
    there: BTreeMap<ServiceId, u64>,
    /// Services whose removal was acknowledged.
    gone: BTreeSet<ServiceId>,
    /// Services that are being removed.
    going: BTreeSet<ServiceId>,
    /// How often the cluster was restored.
    restored: u32,
}

impl History {
    /// A request changed something.
    pub(super) fn note(&mut self, request: RequestId, index: u64) {
        self.requests.entry(request).or_insert(index);
    }

    fn of(&self, request: &RequestId) -> u64 {
        let index = self.requests.get(request).copied();
        index.expect("what is acknowledged was committed")
    }

    /// A user is about to ask.
    pub(super) fn asked(&mut self, request: &Request) {
        if let Request::RemoveService { id, .. } = request {
            self.going.insert(id.clone());
        }
    }

    /// Returns what of it is known to be in this state, which may be one of before.
    pub(super) fn as_of(&self, state: &State) -> Self {
        let last = state.applied().index;
        let mut known = self.clone();
        known.requests.retain(|_, index| *index <= last);
        known.there.retain(|_, index| *index <= last);
        known.gone.retain(|id| state.service(id).is_none());
        known
    }

    /// The cluster is restored, as it was `before`. What users asked since may still be done.
    pub(super) fn go_back_to(&mut self, before: Self) {
        let restored = self.restored + 1;
        let going = std::mem::take(&mut self.going);
        *self = Self { restored, ..before };
        self.going.extend(going);
    }

    /// Tells whether what is answered now may be of a cluster that is no more, where the question was
    /// asked `before`.
    pub(super) fn is_another_than(&self, before: &Self) -> bool {
        self.restored != before.restored
    }

    /// A user was told that it is done.
    pub(super) fn acknowledged(&mut self, asked: &Request, made: Option<&ServiceId>) {
        match asked {
            Request::CreateService { request, .. } => {
                let index = self.of(request);
                self.there.extend(made.map(|id| (id.clone(), index)));
            }
            Request::UpdateService { request, id, .. }
            | Request::RollbackService { request, id, .. } => {
                let index = self.of(request);
                self.there.insert(id.clone(), index);
            }
            Request::RemoveService { request, id } => {
                self.of(request);
                self.there.remove(id);
                self.gone.insert(id.clone());
            }
            Request::UpdateNode { request, .. } | Request::RemoveNode { request, .. } => {
                self.of(request);
            }
            _ => {}
        }
    }

    /// A user read all services, having begun when the history was `self`.
    pub(super) fn check_read(&self, later: &Self, read: &[Service]) {
        for service in read {
            assert!(!self.gone.contains(&service.id), "{} is read, and gone", service.spec.name);
        }
        for (id, index) in self.there.iter().filter(|(id, _)| !later.going.contains(*id)) {
            let service = read.iter().find(|service| service.id == *id);
            let service = service.expect("what was acknowledged is read");
            assert!(
                service.version.index >= *index,
                "{} is read at {:?}, and was acknowledged at {index}",
                service.spec.name,
                service.version
            );
        }
    }

    /// Nothing that was acknowledged is lost.
    pub(super) fn check_state(&self, state: &State) {
        let all: Vec<Service> = state.services().cloned().collect();
        self.check_read(self, &all);
    }
}

impl World {
    /// A manager sees who leads.
    pub(super) fn check_leadership(&self, node: &NodeId, now: Leadership, applied: Option<u64>) {
        let (key, stray) = {
            let machine = &self.machines()[node];
            (machine.member, machine.stray)
        };
        if stray {
            assert!(!now.leading, "{} leads a group that was given up", self.name(node));
            return;
        }
        let mut checks = self.checks();
        if let Some(leader) = now.leader {
            let known = *checks.group.leaders.entry(now.term).or_insert(leader);
            assert!(known == leader, "term {} has two leaders: {known} {leader}", now.term);
        }
        if !now.leading {
            return;
        }
        let known = *checks.group.leaders.entry(now.term).or_insert(key);
        assert!(known == key, "{} leads term {} of another", self.name(node), now.term);
        checks.group.reigns.entry(now.term).or_insert(applied);
        for (index, entry) in &checks.entries {
            assert!(
                entry.term >= now.term || applied >= Some(*index),
                "{} leads term {} without entry {index} of term {}",
                self.name(node),
                now.term,
                entry.term
            );
        }
    }

    /// Looks at a manager's state every now and then, as long as its daemon lives.
    pub(super) async fn sample(self, node: NodeId) {
        let executor = self.0.executor.clone();
        let mut last = Version::ZERO;
        loop {
            executor.sleep(executor.between(SAMPLE.0, SAMPLE.1)).await;
            let Some(handle) = self.handle(&node) else { return };
            let Some(state) = handle.state().await else { return };
            if state.applied() != last {
                last = state.applied();
                self.check_sample(&node, &state);
            }
        }
    }

    fn check_sample(&self, node: &NodeId, state: &State) {
        let mut hash = 0;
        for bytes in state.encode_snapshot().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            hash = draw(&mut (hash ^ u64::from_le_bytes(word)));
        }
        let mut checks = self.checks();
        let known = *checks.group.states.entry(state.applied()).or_insert(hash);
        let version = state.applied();
        assert!(known == hash, "{} has another state at {version:?}", self.name(node));
        if checks.state.applied() == version {
            assert!(checks.state == *state, "{} is not as its log says", self.name(node));
        }
    }

    /// Nothing that was acknowledged is lost.
    pub(super) fn check_history(&self) {
        let checks = self.checks();
        checks.history.check_state(&checks.state);
    }

    /// Tells whether users change roles in this run.
    pub(super) fn changes_roles(&self) -> bool {
        self.0.roles
    }

    /// Returns what keeps the managers from being as they should, if anything.
    pub(super) fn group_unrest(&self) -> Option<String> {
        let checks = self.checks();
        let machines = self.machines();
        let wanted: BTreeSet<u64> = checks
            .state
            .nodes()
            .filter(|node| node.spec.role == Role::Manager)
            .filter_map(|node| Some(node.manager.as_ref()?.raft_id))
            .collect();
        for (id, _) in machines.iter().filter(|(_, machine)| machine.retired) {
            let node = checks.state.node(id);
            if let Some(node) = node.filter(|node| node.status.state != NodeState::Down) {
                return Some(format!("{} is lost, and {}", self.name(id), node.status.state));
            }
        }
        let mut leaders = BTreeSet::new();
        for (id, machine) in machines.iter().filter(|(_, machine)| !machine.retired) {
            let name = self.name(id);
            let Some(node) = checks.state.node(id) else {
                return Some(format!("{name} is no member, and does not know"));
            };
            let standing = node.manager.as_ref().map(|manager| manager.raft_id);
            let own = Some(machine.member).filter(|_| machine.role == Role::Manager);
            if node.role != machine.role || node.spec.role != node.role || standing != own {
                let (is, has, should) = (machine.role, node.role, node.spec.role);
                return Some(format!("{name} is a {is}, seen as {has}, and should be a {should}"));
            }
            if node.status.state != NodeState::Ready {
                return Some(format!("{name} is {}", node.status.state));
            }
            let Some(handle) = &machine.handle else { return Some(format!("{name} is off")) };
            if node.role == Role::Worker {
                continue;
            }
            leaders.insert(handle.status().leader);
            let network = self.network();
            let engine = network.ports.get(id).and_then(|port| port.engine.as_ref());
            let voters = engine.and_then(|engine| Some(engine.started.get()?.members().voters));
            let voters: BTreeSet<u64> = voters.unwrap_or_default().into_iter().collect();
            if voters != wanted {
                return Some(format!("{name} sees the voters {voters:?}, not {wanted:?}"));
            }
        }
        let one = leaders.len() == 1 && !leaders.contains(&None);
        (!one).then(|| format!("managers see the leaders {leaders:?}"))
    }
}
