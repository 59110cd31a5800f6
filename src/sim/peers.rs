//! One daemon's ports to the other machines: sessions, requests between managers, calls of the
//! consensus engine, and the role that it is told to take.

use super::{host::Engine, network::Port, trust::Purpose, world::World};
use crate::{
    cluster::{Class, Refusal, Request, Response, RoleRequest},
    consensus::PeerCall,
    node::{Handle, ports::Peers},
    types::{FromManager, FromWorker, LeaderAt, NodeId, PeerInput, Role, Roster, Trust},
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use std::{fmt, future::Future, io, pin::Pin, time::Duration};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long a leader has for what another manager asks; as the daemon's.
const RELAY_LIMIT: Duration = Duration::from_secs(30);

/// How long a manager has for a node that asks for its role; as the daemon's.
const ROLE_LIMIT: Duration = Duration::from_secs(15);

/// The wait before a role is asked for again; as the daemon's.
const ROLE_RETRY: Duration = Duration::from_millis(500);

/// How long a manager that ends waits for another to lead; as the daemon's.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

/// After so long whoever waits for what was lost is told: all have given up before.
const LOST: Duration = Duration::from_secs(60);

/// What a node is told of its place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    role: Role,
    managers: Vec<String>,
}

/// One daemon's ports to the network.
#[derive(Clone)]
pub(super) struct SimPeers {
    pub(super) world: World,
    pub(super) node: NodeId,
    pub(super) inputs: Receiver<PeerInput>,
    /// One waits: a later one counts instead of it.
    pub(super) places: Sender<Place>,
    /// As with places.
    pub(super) trusts: Sender<(Trust, Duration)>,
}

impl Peers for SimPeers {
    fn send_to_worker(&self, node: &NodeId, message: FromManager) {
        self.world.carry_down(&self.node, node, message);
    }

    fn send_to_manager(&self, message: FromWorker) {
        self.world.check_said(&self.node, &message);
        self.world.carry_up(&self.node, message);
    }

    fn disconnect(&self, node: &NodeId) {
        self.world.deny(&self.node, node);
    }

    fn reconnect(&self) {
        self.world.hang_up(&self.node);
    }

    fn inputs(&self) -> Receiver<PeerInput> {
        self.inputs.clone()
    }

    fn set_leader(&self, leader: LeaderAt) {
        self.world.trace(|| format!("{} sees the leader {leader:?}", self.world.name(&self.node)));
        self.world.point(&self.node, leader);
    }

    async fn relay(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        let unknown = |error: io::Error| Refusal::new(Class::NotLeader, error.to_string());
        let leader = self.world.network().ports.get(&self.node).map(|port| port.leader.clone());
        let Some(LeaderAt::There(address)) = leader else {
            return Err(unknown(io::ErrorKind::NotConnected.into()));
        };
        let executor = self.world.0.executor.clone();
        let asked = self.world.ask_node(&self.node, &address, Purpose::Any, move |_, handle| {
            let handle = handle.clone();
            Some(Box::pin(async move { handle.relayed(request, RELAY_LIMIT).await }))
        });
        let late = async {
            executor.sleep(limit).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        asked.or(late).await.map_err(unknown)?
    }

    fn set_roster(&self, roster: Roster) {
        if let Some(port) = self.world.network().ports.get_mut(&self.node) {
            port.roster = roster;
        }
    }

    fn take_trust(&self, trust: Trust, within: Duration) {
        self.world
            .trace(|| format!("{} is told of {:?}", self.world.name(&self.node), trust.roots));
        let _before = self.trusts.force_send((trust, within));
    }

    fn take_place(&self, role: Role, managers: Vec<String>) {
        self.world.trace(|| format!("{} is to be a {role}", self.world.name(&self.node)));
        let _before = self.places.force_send(Place { role, managers });
    }
}

/// How one manager's engine calls another's.
pub(super) struct SimCall {
    pub(super) world: World,
    pub(super) node: NodeId,
}

impl fmt::Debug for SimCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCall").field("node", &self.node).finish_non_exhaustive()
    }
}

impl PeerCall for SimCall {
    fn call(&self, target: u64, address: String, request: Vec<u8>) -> Boxed<io::Result<Vec<u8>>> {
        let (world, node) = (self.world.clone(), self.node.clone());
        Box::pin(async move {
            let answer = world.ask_node(&node, &address, Purpose::Any, move |port, _| {
                let engine = port.engine.clone()?;
                Some(Box::pin(answer_member(engine, target, request)))
            });
            answer.await?
        })
    }
}

async fn answer_member(engine: Engine, target: u64, request: Vec<u8>) -> io::Result<Vec<u8>> {
    match engine.started.get() {
        Some(started) if engine.member == target => started.handle(&request).await,
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

impl World {
    /// Takes a question from one manager, or a worker, to the one at `address`, and its answer
    /// back. What is cut off gets no answer; it may have been asked all the same.
    pub(super) async fn ask_node<T: Send + 'static>(
        &self,
        from: &NodeId,
        address: &str,
        purpose: Purpose,
        serve: impl FnOnce(&Port, &Handle) -> Option<Boxed<T>> + Send + 'static,
    ) -> io::Result<T> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let to = self.at(address).ok_or_else(refused)?;
        let (world, from) = (self.clone(), from.clone());
        let (sender, answer) = async_channel::bounded(1);
        // The question is on its way, though whoever asked may stop to wait.
        self.0.executor.spawn_for(0, async move {
            let executor = world.0.executor.clone();
            if !world.travel(&from, &to).await {
                executor.sleep(LOST).await;
                return;
            }
            let (served, outcome) = async_channel::bounded(1);
            {
                let Some(handle) = world.handle(&to) else { return };
                let network = world.network();
                let admits = |port: &&Port| {
                    let former = &port.roster.former_roots;
                    port.role == Role::Manager
                        && !port.denied.contains(&from)
                        && world.trust_each_other(former, (&from, &to), purpose)
                };
                let Some(port) = network.ports.get(&to).filter(admits) else { return };
                let Some(work) = serve(port, &handle) else { return };
                executor.spawn_for(port.owner, async move {
                    let _gone = served.send(work.await).await;
                });
            }
            let Ok(outcome) = outcome.recv().await else { return };
            if world.travel(&to, &from).await {
                let _gone = sender.send(outcome).await;
            } else {
                executor.sleep(LOST).await;
            }
        });
        answer.recv().await.map_err(|_| refused())
    }

    /// Waits for as long as a message is on its way; returns whether it arrives. The transport
    /// repeats what is lost, so that most of it only comes late.
    async fn travel(&self, from: &NodeId, to: &NodeId) -> bool {
        let executor = &self.0.executor;
        let loss = self.network().loss;
        let mut delay = executor.between(Duration::from_micros(100), loss.delay / 5);
        if executor.chance(loss.drop / 4) {
            delay += executor.between(Duration::ZERO, Duration::from_secs(3));
        }
        executor.sleep(delay).await;
        let lost = executor.chance(loss.drop / 20);
        from == to || !lost && self.network().passes(from, to)
    }

    /// Follows what a node is told of its place, as long as its daemon lives.
    pub(super) async fn follow_role(self, node: NodeId, own: Role, places: Receiver<Place>) {
        let executor = self.0.executor.clone();
        let mut wanted = None;
        let mut let_go = false;
        loop {
            let told = async { places.recv().await.ok().map(Some) };
            let again = async {
                if wanted.is_none() {
                    return std::future::pending().await;
                }
                executor.sleep(ROLE_RETRY).await;
                Some(None)
            };
            let Some(place) = told.or(again).await else { return };
            if let Some(Place { role, managers }) = place {
                wanted = Some(role);
                if let Some(machine) = self.machines().get_mut(&node)
                    && !managers.is_empty()
                {
                    let_go = !managers.contains(&machine.address);
                    machine.managers = managers;
                }
            }
            if wanted == Some(own) && !(own == Role::Manager && let_go) {
                wanted = None;
            }
            let Some(role) = wanted else { continue };
            match self.take_role(&node, own, role).await {
                Some(admitted) if admitted != own => return self.switch(&node, admitted).await,
                Some(_) if role == own => wanted = None,
                _ => {}
            }
        }
    }

    /// Returns where the manager of a node's present session is.
    pub(super) fn session_manager(&self, node: &NodeId) -> Option<String> {
        let network = self.network();
        let way = network.ports.get(node).and_then(|port| network.sessions.get(&port.uplink?))?;
        let manager = way.get(1).unwrap_or(node);
        Some(self.machines().get(manager)?.address.clone())
    }

    /// Asks the manager of the present session for a certificate; returns the role it is of.
    async fn take_role(&self, node: &NodeId, certified: Role, role: Role) -> Option<Role> {
        let manager = self.session_manager(node)?;
        let asked = {
            let machines = self.machines();
            let own = machines.get(node)?;
            RoleRequest {
                node: node.clone(),
                certified,
                csr: vec![1],
                key_digest: own.key_digest,
                advertise: own.address.clone(),
                member: own.member,
            }
        };
        let request = Request::TakeRole(Box::new(asked));
        let answer = self.ask_node(node, &manager, Purpose::Any, move |_, handle| {
            let handle = handle.clone();
            Some(Box::pin(async move { handle.request(request, ROLE_LIMIT).await }))
        });
        let answer = answer.await;
        self.trace(|| format!("{} asks to be a {role}: {answer:?}", self.name(node)));
        match answer {
            Ok(Ok(Response::Admitted(admission))) => Some(admission.role),
            _ => None,
        }
    }

    /// Ends a daemon that has a certificate of another role; it starts again in that one.
    pub(super) async fn switch(&self, node: &NodeId, role: Role) {
        self.trace(|| format!("{} takes the role of a {role}", self.name(node)));
        if let Some(machine) = self.machines().get_mut(node) {
            machine.was_manager |= machine.role == Role::Manager;
            machine.role = role;
        }
        self.hand_over(node, HAND_OVER_LIMIT).await;
        if let Some(handle) = self.handle(node) {
            handle.stop();
        }
    }

    /// Has a manager let another one lead.
    pub(super) async fn hand_over(&self, node: &NodeId, limit: Duration) {
        let engine = self.network().ports.get(node).and_then(|port| port.engine.clone());
        if let Some(started) = engine.as_ref().and_then(|engine| engine.started.get()) {
            started.hand_over(limit).await;
        }
    }
}
