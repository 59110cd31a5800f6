//! The links between the workers and the manager: they drop, delay, double, reorder and part.

use super::world::World;
use crate::{
    cluster::{Class, Refusal, Request, Response},
    node::ports::Peers,
    types::{FromManager, FromWorker, LeaderAt, NodeId, PeerInput, Role},
};
use async_channel::{Receiver, Sender};
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
    pub(super) inputs: Sender<PeerInput>,
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) loss: Loss,
    pub(super) ports: BTreeMap<NodeId, Port>,
    /// Each worker's connection, by number.
    pub(super) connections: BTreeMap<NodeId, u64>,
    pub(super) last: u64,
    /// Workers whose words do not arrive.
    pub(super) cut_up: BTreeSet<NodeId>,
    /// Workers that hear nothing.
    pub(super) cut_down: BTreeSet<NodeId>,
    /// Nodes the manager refuses, in its present life.
    pub(super) refused: BTreeSet<NodeId>,
    /// Messages sent.
    pub(super) sent: u64,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            loss: Loss::NONE,
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            last: 0,
            cut_up: BTreeSet::new(),
            cut_down: BTreeSet::new(),
            refused: BTreeSet::new(),
            sent: 0,
        }
    }
}

/// One daemon's ports to the network.
#[derive(Clone)]
pub(super) struct SimPeers {
    pub(super) world: World,
    pub(super) node: NodeId,
    pub(super) inputs: Receiver<PeerInput>,
}

impl Peers for SimPeers {
    fn send_to_worker(&self, node: &NodeId, message: FromManager) {
        self.world.carry(node, Carried::Down(message));
    }

    fn send_to_manager(&self, message: FromWorker) {
        self.world.check_said(&self.node, &message);
        self.world.carry(&self.node, Carried::Up(message));
    }

    fn disconnect(&self, node: &NodeId) {
        self.world.network().refused.insert(node.clone());
        self.world.hang_up(node);
    }

    fn reconnect(&self) {
        self.world.hang_up(&self.node);
    }

    fn inputs(&self) -> Receiver<PeerInput> {
        self.inputs.clone()
    }

    fn set_leader(&self, leader: LeaderAt) {
        self.world.trace(|| format!("{} sees the leader {leader:?}", self.world.name(&self.node)));
    }

    async fn relay(&self, _: Request, _: Duration) -> Result<Response, Refusal> {
        Err(Refusal::new(Class::NotLeader, "there is one manager"))
    }

    fn take_place(&self, role: Role, _: Vec<String>) {
        self.world.trace(|| format!("{} is to be a {role}", self.world.name(&self.node)));
    }
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(super) enum Carried {
    Up(FromWorker),
    Down(FromManager),
}

impl World {
    /// Takes a message to the other end of a worker's connection, if it gets there.
    fn carry(&self, worker: &NodeId, message: Carried) {
        let (connection, loss) = {
            let mut network = self.network();
            network.sent += 1;
            let Some(connection) = network.connections.get(worker).copied() else { return };
            let own = *worker == self.manager();
            (connection, if own { Loss::NONE } else { network.loss })
        };
        let executor = &self.0.executor;
        if executor.chance(loss.drop) {
            return;
        }
        let copies = if executor.chance(loss.double) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = executor.between(Duration::from_micros(100), loss.delay);
            let (world, worker, message) = (self.clone(), worker.clone(), message.clone());
            executor.spawn_for(0, async move {
                world.0.executor.sleep(delay).await;
                world.deliver(&worker, connection, message);
            });
        }
    }

    fn deliver(&self, worker: &NodeId, connection: u64, message: Carried) {
        let manager = self.manager();
        let network = self.network();
        if network.connections.get(worker) != Some(&connection) {
            return;
        }
        let (to, input) = match message {
            Carried::Up(message) if !network.cut_up.contains(worker) => {
                let (node, address) = (worker.clone(), format!("10.0.0.{}", self.number(worker)));
                (&manager, PeerInput::FromWorker { node, address, message })
            }
            Carried::Down(message) if !network.cut_down.contains(worker) => {
                (worker, PeerInput::FromManager(message))
            }
            _ => return,
        };
        if let Some(port) = network.ports.get(to) {
            self.trace(|| format!("-> {} {input:?}", self.name(to)));
            let _full = port.inputs.try_send(input);
        }
    }

    /// Ends a worker's connection; both ends notice.
    pub(super) fn hang_up(&self, worker: &NodeId) {
        let manager = self.manager();
        let mut network = self.network();
        if network.connections.remove(worker).is_none() {
            return;
        }
        if let Some(port) = network.ports.get(worker) {
            let _full = port.inputs.try_send(PeerInput::Disconnected);
        }
        if let Some(port) = network.ports.get(&manager) {
            let _full = port.inputs.try_send(PeerInput::WorkerGone { node: worker.clone() });
        }
    }

    /// Keeps a worker connected, as long as its daemon lives.
    pub(super) async fn connect(self, worker: NodeId) {
        let executor = self.0.executor.clone();
        loop {
            let wait = executor.between(Duration::from_millis(50), Duration::from_secs(2));
            executor.sleep(wait).await;
            let Some((port, input)) = self.dial(&worker) else { continue };
            let _ended = port.inputs.send(input).await;
        }
    }
    /// Makes a connection where there is none and both ends can be reached.
    fn dial(&self, worker: &NodeId) -> Option<(Port, PeerInput)> {
        let manager = self.manager();
        let mut network = self.network();
        let up = network.ports.contains_key(&manager)
            && !network.cut_up.contains(worker)
            && !network.cut_down.contains(worker);
        if !up || network.connections.contains_key(worker) {
            return None;
        }
        let port = network.ports.get(worker).cloned()?;
        if network.refused.contains(worker) {
            return Some((port, PeerInput::FromManager(FromManager::Removed)));
        }
        network.last += 1;
        let number = network.last;
        network.connections.insert(worker.clone(), number);
        Some((port, PeerInput::Connected))
    }
}
