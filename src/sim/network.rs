//! The links between machines, and the sessions on them: they drop, delay, double, reorder and
//! part, also one way.
//!
//! A worker has a session with any manager that it reaches. One that does not lead passes the
//! session on to whom it takes for the leader; sessions end where that changes.

use super::{executor::Owner, host::Engine, trust::Purpose, world::World};
use crate::types::{FromManager, FromWorker, LeaderAt, NodeId, PeerInput, Role, Roster};
use async_channel::Sender;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a lossy link does. Chances are in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    pub(super) drop: u64,
    pub(super) double: u64,
    pub(super) delay: Duration,
}

impl Loss {
    pub(super) const NONE: Self = Self { drop: 0, double: 0, delay: Duration::from_millis(5) };
}

/// A running daemon's end of the network.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) owner: Owner,
    pub(super) role: Role,
    pub(super) inputs: Sender<PeerInput>,
    /// Its member of the consensus group, on a manager.
    pub(super) engine: Option<Engine>,
    /// Where it takes the leader to be, on a manager.
    pub(super) leader: LeaderAt,
    /// Nodes it refuses.
    pub(super) denied: BTreeSet<NodeId>,
    /// The session that each worker has here.
    pub(super) workers: BTreeMap<NodeId, u64>,
    /// Its own session.
    pub(super) uplink: Option<u64>,
    /// What the state, as far as a manager has it, says of who may ask what.
    pub(super) roster: Roster,
    /// A manager said that it does not take this node's certificate any more.
    pub(super) outdated: bool,
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) loss: Loss,
    pub(super) ports: BTreeMap<NodeId, Port>,
    /// The way of each session that stands: the worker, who passes it on, the leader. A leader's
    /// own has one place.
    pub(super) sessions: BTreeMap<u64, Vec<NodeId>>,
    last: u64,
    /// Who is not heard by whom.
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that nobody hears.
    pub(super) cut_up: BTreeSet<NodeId>,
    /// Nodes that hear nobody.
    pub(super) cut_down: BTreeSet<NodeId>,
    /// Messages of sessions that were sent.
    pub(super) sent: u64,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            loss: Loss::NONE,
            ports: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last: 0,
            cuts: BTreeSet::new(),
            cut_up: BTreeSet::new(),
            cut_down: BTreeSet::new(),
            sent: 0,
        }
    }

    /// Tells whether what one machine sends reaches another.
    pub(super) fn passes(&self, from: &NodeId, to: &NodeId) -> bool {
        from == to
            || !self.cut_up.contains(from)
                && !self.cut_down.contains(to)
                && !self.cuts.contains(&(from.clone(), to.clone()))
    }

    fn both_ways(&self, one: &NodeId, other: &NodeId) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// Ends a session at one of its places; the ends that still hear that place notice.
    fn end(&mut self, number: u64, at: &NodeId) {
        let Some(way) = self.sessions.remove(&number) else { return };
        let [worker, .., leader] = way.as_slice() else {
            let Some(own) = way.first().and_then(|own| self.ports.get_mut(own)) else { return };
            if own.uplink == Some(number) {
                own.uplink = None;
                let _full = own.inputs.try_send(PeerInput::Disconnected);
            }
            return;
        };
        let (told_worker, told_leader) = (self.passes(at, worker), self.passes(at, leader));
        if let Some(port) = self.ports.get_mut(worker)
            && told_worker
            && port.uplink == Some(number)
        {
            port.uplink = None;
            let _full = port.inputs.try_send(PeerInput::Disconnected);
        }
        if let Some(port) = self.ports.get_mut(leader)
            && told_leader
            && port.workers.get(worker) == Some(&number)
        {
            port.workers.remove(worker);
            let _full = port.inputs.try_send(PeerInput::WorkerGone { node: worker.clone() });
        }
    }

    fn end_all(&mut self, at: &NodeId, which: impl Fn(&[NodeId]) -> bool) {
        let ended: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, way)| way.contains(at) && which(way))
            .map(|(number, _)| *number)
            .collect();
        ended.into_iter().for_each(|number| self.end(number, at));
    }
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(super) enum Carried {
    Up(FromWorker),
    Down(FromManager),
}

impl World {
    /// A worker says something in its session.
    pub(super) fn carry_up(&self, worker: &NodeId, message: FromWorker) {
        let number = self.network().ports.get(worker).and_then(|port| port.uplink);
        self.carry(number, Carried::Up(message));
    }

    /// A manager says something in a worker's session.
    pub(super) fn carry_down(&self, manager: &NodeId, worker: &NodeId, message: FromManager) {
        let number = {
            let network = self.network();
            network.ports.get(manager).and_then(|port| {
                let own = port.uplink.filter(|number| {
                    manager == worker && network.sessions.get(number).is_some_and(|w| w.len() == 1)
                });
                own.or_else(|| port.workers.get(worker).copied())
            })
        };
        self.carry(number, Carried::Down(message));
    }

    /// Takes a message to the other end of a session, if it gets there.
    fn carry(&self, number: Option<u64>, message: Carried) {
        let (number, hops, loss) = {
            let mut network = self.network();
            network.sent += 1;
            let Some(number) = number else { return };
            let Some(way) = network.sessions.get(&number) else { return };
            let hops = u32::try_from(way.len() - 1).expect("a way has three places at most");
            (number, hops, if hops == 0 { Loss::NONE } else { network.loss })
        };
        let executor = &self.0.executor;
        if executor.chance(loss.drop) {
            return;
        }
        let copies = if executor.chance(loss.double) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = executor.between(Duration::from_micros(100), loss.delay * hops.max(1));
            let (world, message) = (self.clone(), message.clone());
            executor.spawn_for(0, async move {
                world.0.executor.sleep(delay).await;
                world.deliver(number, message);
            });
        }
    }

    fn deliver(&self, number: u64, message: Carried) {
        let network = self.network();
        let Some(way) = network.sessions.get(&number) else { return };
        let (Some(worker), Some(leader)) = (way.first(), way.last()) else { return };
        let arrives = way.windows(2).all(|hop| match &message {
            Carried::Up(_) => network.passes(&hop[0], &hop[1]),
            Carried::Down(_) => network.passes(&hop[1], &hop[0]),
        });
        if !arrives {
            return;
        }
        let (to, input) = match message {
            Carried::Up(message) => {
                let (node, address) = (worker.clone(), format!("10.0.0.{}", self.number(worker)));
                let via = way.get(1).filter(|hop| *hop != leader).cloned();
                (leader, PeerInput::FromWorker { node, address, via, message })
            }
            Carried::Down(message) => (worker, PeerInput::FromManager(message)),
        };
        if let Some(port) = network.ports.get(to) {
            self.trace(|| format!("-> {} {input:?}", self.name(to)));
            let _full = port.inputs.try_send(input);
        }
    }

    /// Ends a worker's session at its own end.
    pub(super) fn hang_up(&self, worker: &NodeId) {
        let mut network = self.network();
        let Some(port) = network.ports.get_mut(worker) else { return };
        let Some(number) = port.uplink else { return };
        if network.sessions.contains_key(&number) {
            network.end(number, worker);
        } else if let Some(port) = network.ports.get_mut(worker) {
            // The other end was gone, and could not say so.
            port.uplink = None;
            let _full = port.inputs.try_send(PeerInput::Disconnected);
        }
    }

    /// A daemon is gone, and every session that went through it.
    pub(super) fn unplug(&self, node: &NodeId) {
        let mut network = self.network();
        network.ports.remove(node);
        network.end_all(node, |_| true);
    }

    /// A manager ends every session of a node that was removed, and refuses new ones.
    pub(super) fn deny(&self, manager: &NodeId, node: &NodeId) {
        let mut network = self.network();
        if let Some(port) = network.ports.get_mut(manager) {
            port.denied.insert(node.clone());
        }
        network.end_all(manager, |way| way.first() == Some(node) && way.get(1) == Some(manager));
    }

    /// A manager learns where the leader is.
    pub(super) fn point(&self, manager: &NodeId, leader: LeaderAt) {
        let mut network = self.network();
        let Some(port) = network.ports.get_mut(manager) else { return };
        if port.leader == leader {
            return;
        }
        port.leader = leader;
        network.hang_up_all(manager);
    }

    /// Ends every session at one of its places.
    pub(super) fn hang_up_all(&self, node: &NodeId) {
        self.network().hang_up_all(node);
    }

    /// Keeps a node connected, as long as its daemon lives.
    pub(super) async fn connect(self, worker: NodeId) {
        let executor = self.0.executor.clone();
        loop {
            let wait = executor.between(Duration::from_millis(50), Duration::from_secs(2));
            executor.sleep(wait).await;
            if self.is_dead(&worker) && executor.chance(100) {
                self.hang_up(&worker);
            }
            let Some((inputs, input)) = self.dial(&worker) else { continue };
            let _ended = inputs.send(input).await;
        }
    }

    /// Tells whether the session of a node ended, which nobody could tell it. The transport takes
    /// some seconds of silence to see that.
    fn is_dead(&self, worker: &NodeId) -> bool {
        let network = self.network();
        let uplink = network.ports.get(worker).and_then(|port| port.uplink);
        uplink.is_some_and(|number| !network.sessions.contains_key(&number))
    }

    /// Makes a session where there is none and a way to the leader is found.
    fn dial(&self, worker: &NodeId) -> Option<(Sender<PeerInput>, PeerInput)> {
        let known = self.known_managers(worker);
        let mut network = self.network();
        let port = network.ports.get(worker)?;
        if port.uplink.is_some() {
            return None;
        }
        let inputs = port.inputs.clone();
        let answers = |it: &NodeId| network.ports.contains_key(it) && network.both_ways(worker, it);
        let known = [known, self.hearsay(worker, answers)].concat();
        let tried = match (port.role, &port.leader) {
            (Role::Manager, LeaderAt::Here) => {
                network.open(worker, vec![worker.clone()]);
                return Some((inputs, PeerInput::Connected));
            }
            (Role::Manager, LeaderAt::There(address)) => [vec![address.clone()], known].concat(),
            (Role::Manager, LeaderAt::Nowhere) | (Role::Worker, _) => known,
        };
        let tried = tried.iter().filter_map(|address| self.at(address));
        let mut outdated = false;
        for manager in tried.filter(|manager| manager != worker) {
            let Some(there) = network.ports.get(&manager) else { continue };
            if there.role != Role::Manager || !network.both_ways(worker, &manager) {
                continue;
            }
            if there.denied.contains(worker) {
                return Some((inputs, PeerInput::FromManager(FromManager::Removed)));
            }
            let (former, both) = (&there.roster.former_roots, (worker, &manager));
            let forgotten = there.roster.may_have_forgotten(worker);
            if forgotten || !self.trust_each_other(former, both, Purpose::Any) {
                outdated |= self.trust_each_other(former, both, Purpose::Renewal);
                continue;
            }
            let leader = match &there.leader {
                LeaderAt::Here => manager.clone(),
                LeaderAt::There(address) => match self.at(address) {
                    Some(leader) => leader,
                    None => continue,
                },
                LeaderAt::Nowhere => continue,
            };
            let leads = network.ports.get(&leader).is_some_and(|port| {
                port.leader == LeaderAt::Here
                    && !port.denied.contains(worker)
                    && self.trust_each_other(&[], (&manager, &leader), Purpose::Any)
            });
            if leads && network.both_ways(&manager, &leader) {
                let mut way = vec![worker.clone(), manager, leader];
                way.dedup();
                network.open(worker, way);
                return Some((inputs, PeerInput::Connected));
            }
        }
        if let Some(port) = network.ports.get_mut(worker) {
            port.outdated |= outdated;
        }
        None
    }
}

impl Network {
    fn hang_up_all(&mut self, at: &NodeId) {
        self.end_all(at, |_| true);
        if let Some(port) = self.ports.get_mut(at) {
            // What could not be told that it ended.
            port.workers.clear();
            if port.uplink.take().is_some() {
                let _full = port.inputs.try_send(PeerInput::Disconnected);
            }
        }
    }

    fn open(&mut self, worker: &NodeId, way: Vec<NodeId>) {
        self.last += 1;
        let number = self.last;
        let leader = way.last().cloned().filter(|leader| leader != worker);
        self.sessions.insert(number, way);
        if let Some(port) = self.ports.get_mut(worker) {
            port.uplink = Some(number);
        }
        if let Some(port) = leader.and_then(|leader| self.ports.get_mut(&leader)) {
            port.workers.insert(worker.clone(), number);
        }
    }
}
