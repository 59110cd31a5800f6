//! The driver of one node: the loops that step the pure parts and carry out what they return.
//!
//! Generic over [`ports`]: the daemon gives it the real ones, the simulator its own, and both run
//! this same code. It knows which effects there are and in which order they may happen; it knows
//! nothing of sockets, files, containers or certificates, and takes no decision about the cluster.
//!
//! # How to compose it
//!
//! [`new`] takes [`Options`] and [`Ports`] and gives a [`Handle`] and a [`Node`]. The caller runs
//! [`Node::run`] once, to its end, on any executor, and hands clones of the handle to whoever asks
//! the node for something: the HTTP interface, the joiners' listener, the shutdown code.
//!
//! - A manager passes [`ManagerPorts`]; a worker passes `None`. Either runs the worker loop.
//! - The consensus engine is started by the caller, before or after; its notices wait in their
//!   channel. A new cluster is made by initialising the engine with one member and then
//!   [`Handle::bootstrap`] with a `CreateCluster` command.
//! - [`Handle::stop`] ends the run as [`Ended::Stopped`] and leaves every container running.
//! - [`Ended::Retired`] asks the caller to forget the membership (certificate, state files).
//! - [`Ended::Fatal`] means that the node must be started again from its disk; the caller exits
//!   with an error and lets the service manager do so.
//!
//! Several tasks run side by side on the caller's executor: the manager loop, the worker loop, a
//! router between the peers' one channel and the two loops, and one task for each operation that
//! is under way (a proposal, a read barrier, a signature, a commit, an action on a container). All
//! of them end with the run, operations on the disk and on containers as soon as they can.

mod handle;
mod manager;
pub mod ports;
mod wait;
mod worker;

pub use handle::{Handle, LocalTask, Status};

use crate::{
    agent,
    types::{NodeId, Occurrence, PeerInput},
    util::board::Board,
};
use async_channel::{Receiver, Sender};
use futures_util::FutureExt as _;
use handle::{Calls, Shared};
use ports::{AgentDisk, Authority, Host, Log, Peers, Workload};
use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// How many messages of workers wait for the manager loop. A fleet of 1,000 nodes says one each
/// 1.8 s; this holds almost two seconds of them. What does not fit is dropped: it is repeated.
const MANAGER_INPUTS_MAX: usize = 1_024;

/// How many messages of the manager wait for the worker loop. A session has a handful under way;
/// what does not fit is dropped and asked for again.
const WORKER_INPUTS_MAX: usize = 64;

/// How long the other loops may take to end once one has. They hold nothing that needs more than
/// a poll to let go of.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a node is told about itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its id, for the log.
    pub node: NodeId,
    /// The agent's.
    pub agent: agent::Options,
    /// Where a manager tells users what happens to the cluster.
    pub occurrences: Board<Occurrence>,
}

/// Everything a node touches.
#[derive(Debug)]
pub struct Ports<H, L, D, P, W, A> {
    /// Clock, randomness, tasks.
    pub host: H,
    /// What the agent keeps on disk.
    pub disk: D,
    /// The other nodes.
    pub peers: P,
    /// The containers.
    pub workload: W,
    /// What only a manager has.
    pub manager: Option<ManagerPorts<L, A>>,
}

/// What only a manager touches.
#[derive(Debug)]
pub struct ManagerPorts<L, A> {
    /// The replicated log.
    pub log: L,
    /// The certificate authority.
    pub authority: A,
    /// This manager's key in the consensus group.
    pub member: u64,
}

/// Why a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is no longer a member: its membership should be forgotten.
    Retired {
        /// Why.
        reason: String,
    },
    /// It cannot go on: it must be started again.
    Fatal {
        /// What went wrong, with the whole chain of causes.
        error: String,
    },
    /// [`Handle::stop`] was called, or the last handle is gone.
    Stopped,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired { reason } => write!(f, "the node left the cluster: {reason}"),
            Self::Fatal { error } => write!(f, "the node cannot go on: {error}"),
            Self::Stopped => f.write_str("the node was stopped"),
        }
    }
}

/// A node that is ready to run.
#[derive(Debug)]
pub struct Node<H, L, D, P, W, A> {
    options: Options,
    ports: Ports<H, L, D, P, W, A>,
    shared: Arc<Shared>,
    calls: Calls,
}

/// Makes a node and the handle to it. Nothing happens before [`Node::run`].
pub fn new<H, L, D, P, W, A>(
    options: Options,
    ports: Ports<H, L, D, P, W, A>,
) -> (Handle, Node<H, L, D, P, W, A>)
where
    H: Host,
{
    let (handle, shared, calls) = handle::new(ports.host.clone(), ports.manager.is_some());
    (handle, Node { options, ports, shared, calls })
}

impl<H, L, D, P, W, A> Node<H, L, D, P, W, A>
where
    H: Host,
    L: Log,
    D: AgentDisk,
    P: Peers,
    W: Workload,
    A: Authority,
{
    /// Runs the node until it ends, and says why. Containers go on running.
    pub async fn run(self) -> Ended {
        let Self { options, ports, shared, calls } = self;
        let Ports { host, disk, peers, workload, manager } = ports;
        let (ended_tx, ended_rx) = async_channel::bounded(4);
        let (stop_tx, stop) = async_channel::bounded::<()>(1);
        let mut loops = 2;

        let (worker_tx, worker_inputs) = async_channel::bounded(WORKER_INPUTS_MAX);
        let mut manager_tx = None;
        let node = options.node;
        if let Some(ManagerPorts { log, authority, member }) = manager {
            loops += 1;
            let (inputs_tx, inputs) = async_channel::bounded(MANAGER_INPUTS_MAX);
            manager_tx = Some(inputs_tx);
            let channels = manager::Channels { calls: calls.manager, inputs, stop: stop.clone() };
            let run = manager::run(
                host.clone(),
                log,
                peers.clone(),
                authority,
                manager::Context {
                    member,
                    shared: Arc::clone(&shared),
                    occurrences: options.occurrences.clone(),
                },
                channels,
            );
            host.spawn(guarded(node.clone(), "manager", run, ended_tx.clone()));
        }
        let channels =
            worker::Channels { calls: calls.worker, inputs: worker_inputs, stop: stop.clone() };
        let run = worker::run(
            worker::Ports { host: host.clone(), disk, peers: peers.clone(), workload },
            options.agent,
            Arc::clone(&shared),
            channels,
        );
        host.spawn(guarded(node.clone(), "worker", run, ended_tx.clone()));
        let run = route(peers.inputs(), manager_tx, worker_tx, stop);
        host.spawn(guarded(node.clone(), "router", run, ended_tx));

        let stopped = async {
            // An error says that every handle is gone: nobody could ask for anything any more.
            let _closed = calls.stop.recv().await;
            Ended::Stopped
        };
        let ended = async { ended_rx.recv().await.unwrap_or(Ended::Stopped) };
        let first = futures_lite::future::or(ended, stopped).await;
        tracing::info!(%node, reason = %first, "the node ends");
        shared.set(|status| status.ended = Some(first.clone()));
        drop(stop_tx);
        let rest = async {
            // Each loop says once that it ended; the channel closes after the last one.
            for _ in 0..loops {
                if ended_rx.recv().await.is_err() {
                    break;
                }
            }
        };
        if wait::within(&host, STOP_LIMIT, rest).await.is_none() {
            tracing::warn!(%node, limit = ?STOP_LIMIT, "a loop of the node did not end in time");
        }
        first
    }
}

/// Runs one loop and tells how it ended, also where it panicked: a defect in one loop must end the
/// whole node, which then starts again from its disk, and never leave half of one running.
async fn guarded(
    node: NodeId,
    name: &'static str,
    run: impl Future<Output = Ended> + Send,
    ended: Sender<Ended>,
) {
    let end = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| Ended::Fatal {
        error: format!("the {name} loop panicked: {}", panic_message(panic.as_ref())),
    });
    if let Ended::Fatal { error } = &end {
        tracing::error!(%node, error, "the {name} loop failed");
    }
    // Only full or closed once the node has ended for another reason.
    let _sent = ended.try_send(end);
}

/// Returns what a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Hands what peers send to the loop it is meant for.
async fn route(
    inputs: Receiver<PeerInput>,
    manager: Option<Sender<manager::Input>>,
    worker: Sender<worker::Input>,
    stop: Receiver<()>,
) -> Ended {
    loop {
        let next = async { inputs.recv().await.ok() };
        let stopped = async {
            let _closed = stop.recv().await;
            None
        };
        let Some(input) = futures_lite::future::or(next, stopped).await else {
            return Ended::Stopped;
        };
        match input {
            PeerInput::FromWorker { node, address, via, message } => {
                let Some(manager) = &manager else {
                    tracing::debug!(%node, "a worker spoke to a node that is no manager");
                    continue;
                };
                // Everything a worker says is repeated until it is answered, so dropping is safe
                // where waiting would hold up this node's own session as well.
                let input = manager::Input::Message { node, address, via, message };
                if manager.try_send(input).is_err() {
                    tracing::debug!("a worker's message was dropped: the manager is busy");
                }
            }
            PeerInput::WorkerGone { node } => {
                // No more than a hint, so it may be dropped too.
                if let Some(manager) = &manager {
                    let _hint = manager.try_send(manager::Input::Gone { node });
                }
            }
            PeerInput::FromManager(message) => {
                if worker.try_send(worker::Input::Message(message)).is_err() {
                    tracing::debug!("a message of the manager was dropped: the agent is busy");
                }
            }
            // These two are never repeated, so they wait for room; the worker loop never waits for
            // this one, so room comes.
            PeerInput::Connected => {
                let _ended = worker.send(worker::Input::Connected).await;
            }
            PeerInput::Disconnected => {
                let _ended = worker.send(worker::Input::Disconnected).await;
            }
        }
    }
}
