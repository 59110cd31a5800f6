//! Connections that a manager makes to other managers, and keeps: for the consensus engine, for
//! requests that the leader answers, and for sessions that are passed on.
//!
//! A manager is called at the address that the state names. Where that is out of date, and no
//! majority is there to write down another, it is tried where it was last met: it may have called
//! from there, or have answered at an address that was another's.

use super::{
    endpoint::{Inner, State},
    serve::{boxed_streams, manager_at},
    stream::StreamError,
    tls::Close,
    uplink::{connect, earliest, resolve},
};
use crate::{
    types::{NodeId, Role},
    util::unbroken::to_its_end,
};
use futures_lite::FutureExt as _;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an address that did not answer is not tried again: those who wait for it meanwhile are
/// told at once, and do not queue up for attempts of their own.
const FAILURE_HOLDS: Duration = Duration::from_millis(300);

/// Addresses that are remembered: more than any group has, with room for those that changed.
const ADDRESSES_MAX: usize = 64;

/// Managers whose last place is remembered: as many as any group has, and those before them.
const MET_MAX: usize = 64;

/// Where managers were last met. What it says of a node, that one's certificate has proved.
#[derive(Default)]
pub(super) struct Met(BTreeMap<NodeId, SocketAddr>);

impl Met {
    pub(super) fn note(&mut self, node: &NodeId, at: SocketAddr) {
        if self.0.len() >= MET_MAX && !self.0.contains_key(node) {
            self.0.clear();
        }
        let _before = self.0.insert(node.clone(), at);
    }

    fn place_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.get(node).copied()
    }
}

/// Returns where else than at its name a manager may be: where its connection comes from now, or
/// where it was met.
fn elsewhere(state: &State, node: &NodeId) -> impl Iterator<Item = SocketAddr> {
    let of_node = state.connections.values().filter(|(peer, _)| peer == node);
    let live = of_node.filter(|(_, connection)| connection.close_reason().is_none());
    // The port is that where it listens: a node has one for both.
    let from: Vec<_> = live.map(|(_, connection)| connection.remote_address()).collect();
    from.into_iter().chain(state.met.place_of(node)).map(canonical)
}

/// Returns an address as a socket of its own family knows it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns where to try a manager that is said to be at `address`, and who that is; nobody where
/// the state knows nothing of it.
///
/// # Errors
///
/// The name has no address, and nobody was met who has it.
pub(super) async fn places(
    inner: &Inner,
    address: &str,
) -> Result<(Vec<SocketAddr>, Vec<NodeId>), StreamError> {
    let nodes = inner.judge.managers_at(address);
    let met: Vec<SocketAddr> = {
        let state = inner.state();
        nodes.iter().flat_map(|node| elsewhere(&state, node)).collect()
    };
    let mut places = match resolve(inner, address).await {
        Ok(places) => places,
        Err(error) if met.is_empty() => return Err(error),
        Err(_) => Vec::new(),
    };
    for place in met {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok((places, nodes))
}

#[derive(Default)]
struct Slot {
    connection: Option<quinn::Connection>,
    failed: Option<(Instant, StreamError)>,
}

/// By address; one attempt at a time each.
#[derive(Default)]
pub(super) struct Peers(BTreeMap<String, Arc<smol::lock::Mutex<Slot>>>);

impl Peers {
    fn slot(&mut self, address: &str) -> Arc<smol::lock::Mutex<Slot>> {
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(address) {
            self.0.clear();
        }
        Arc::clone(self.0.entry(address.to_owned()).or_default())
    }
}

/// Returns a connection to the manager at `address`, made now where there is none. Whoever stops
/// waiting does not stop the attempt: the next one finds what came of it.
pub(super) async fn connection(
    inner: &Arc<Inner>,
    address: &str,
) -> Result<quinn::Connection, StreamError> {
    let slot = inner.state().peers.slot(address);
    if let Some(slot) = slot.try_lock()
        && let Some(connection) = live(&slot)
    {
        return Ok(connection);
    }
    let (inner, address) = (Arc::clone(inner), address.to_owned());
    let filled = to_its_end(async move {
        let mut slot = slot.lock().await;
        fill(&inner, &address, &mut slot).await
    });
    filled.await.unwrap_or(Err(StreamError::NotConnected))
}

impl Peers {
    /// Ends the connections that `outdated` says are to be made anew, or all that are being made.
    pub(super) fn end(&mut self, outdated: impl Fn(&quinn::Connection) -> bool) {
        self.0.retain(|_, slot| {
            let Some(slot) = slot.try_lock() else { return false };
            match &slot.connection {
                Some(connection) if outdated(connection) => {
                    Close::Renewed.apply(connection);
                    false
                }
                _ => true,
            }
        });
    }
}

fn live(slot: &Slot) -> Option<quinn::Connection> {
    slot.connection.clone().filter(|connection| connection.close_reason().is_none())
}

async fn fill(
    inner: &Arc<Inner>,
    address: &str,
    slot: &mut Slot,
) -> Result<quinn::Connection, StreamError> {
    if let Some(connection) = live(slot) {
        return Ok(connection);
    }
    if let Some((at, error)) = &slot.failed
        && at.elapsed() < FAILURE_HOLDS
    {
        return Err(error.clone());
    }
    let dialled = dial(inner, address).await;
    slot.failed = dialled.as_ref().err().map(|error| (Instant::now(), error.clone()));
    slot.connection = dialled.as_ref().ok().cloned();
    dialled
}

async fn dial(inner: &Arc<Inner>, address: &str) -> Result<quinn::Connection, StreamError> {
    let (places, nodes) = places(inner, address).await?;
    let attempts = places.iter().map(|place| dial_at(inner, *place, &nodes).boxed());
    earliest(StreamError::NotConnected, attempts).await
}

/// Connects to the manager at `place`, which has to be one of `nodes` where there are any.
async fn dial_at(
    inner: &Arc<Inner>,
    place: SocketAddr,
    nodes: &[NodeId],
) -> Result<quinn::Connection, StreamError> {
    let ready = inner.state().ready.clone().ok_or(StreamError::NotConnected)?;
    let connection = connect(inner, place, &ready.client).await?;
    let refused = |text: &str| {
        Close::Done.apply(&connection);
        Err(StreamError::Broken(text.to_owned()))
    };
    let Some(peer) = manager_at(inner, &ready, &connection) else {
        return refused("the peer is no manager of this cluster");
    };
    let node = &peer.identity.node;
    inner.state().met.note(node, place);
    if !nodes.is_empty() && !nodes.contains(node) {
        return refused("another manager has got the address");
    }
    // The other end opens streams on it as well: to a worker whose session it is for.
    let (inner, ready) = (Arc::clone(inner), Arc::clone(&ready));
    smol::spawn(boxed_streams(inner, ready, connection.clone(), Some(peer))).detach();
    Ok(connection)
}

/// Remembers where a peer comes from that may be called there.
pub(super) fn note_caller(inner: &Inner, node: &NodeId, role: Role, at: SocketAddr) {
    if role == Role::Manager {
        inner.state().met.note(node, canonical(at));
    }
}
