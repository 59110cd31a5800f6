//! Connections that a manager makes to other managers, and keeps: for the consensus engine, for
//! requests that the leader answers, and for sessions that are passed on.

use super::{
    endpoint::Inner,
    serve::{boxed_streams, manager_at},
    stream::StreamError,
    tls::Close,
    uplink::{connect, resolve},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an address that did not answer is not tried again: those who wait for it meanwhile are
/// told at once, and do not queue up for attempts of their own.
const FAILURE_HOLDS: Duration = Duration::from_millis(300);

/// Addresses that are remembered: more than any group has, with room for those that changed.
const ADDRESSES_MAX: usize = 64;

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
    let (sender, outcome) = async_channel::bounded(1);
    let (inner, address) = (Arc::clone(inner), address.to_owned());
    smol::spawn(async move {
        let mut slot = slot.lock().await;
        let outcome = fill(&inner, &address, &mut slot).await;
        // Whoever asked may have stopped waiting.
        let _gone = sender.try_send(outcome);
    })
    .detach();
    outcome.recv().await.unwrap_or(Err(StreamError::NotConnected))
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
    let ready = inner.state().ready.clone().ok_or(StreamError::NotConnected)?;
    let mut last = StreamError::NotConnected;
    for target in resolve(inner, address).await? {
        let connection = match connect(inner, target, &ready.client).await {
            Ok(connection) => connection,
            Err(error) => {
                last = error;
                continue;
            }
        };
        if let Some(peer) = manager_at(inner, &ready, &connection) {
            // The other end opens streams on it as well: to a worker whose session it is for.
            let (inner, ready) = (Arc::clone(inner), Arc::clone(&ready));
            smol::spawn(boxed_streams(inner, ready, connection.clone(), Some(peer))).detach();
            return Ok(connection);
        }
        Close::Done.apply(&connection);
        last = StreamError::Broken("the peer is no manager of this cluster".to_owned());
    }
    Err(last)
}
