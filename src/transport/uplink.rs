//! The worker's side: one session with one manager, made anew for as long as it takes.

use super::{
    CONNECT_LIMIT, HEADER_LIMIT, ask,
    endpoint::{Inner, Managers, Uplink, open},
    outbox::{Outgoing, outbox},
    peers::places,
    serve::{manager_at, streams},
    stream::{ByteReceiver, ByteSender, StreamError, within},
    tls::{Close, Ready, explain},
};
use crate::{
    cluster::Class,
    pki::MANAGER_NAME,
    types::{FromManager, LeaderAt, PeerInput},
    util::{address::own_towards, deadline},
    wire::{StreamReply, StreamRequest},
};
use futures_lite::{FutureExt as _, StreamExt as _};
use futures_util::stream::FuturesUnordered;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The wait after the first failure; doubles.
const BACKOFF: Duration = Duration::from_millis(100);

/// What it grows to: a manager that comes back is found before its circuit breaker and the users
/// lose patience, and a thousand orphans make 125 handshakes a second, a fifth of what one core
/// does.
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// Rounds that fail before it is asked around for managers: those of an election, or of a manager
/// that starts anew, go by without.
const ROUNDS_ALONE: u32 = 2;

/// How long a session is begun again on the same connection: some elections. After that another
/// manager may know more.
const BEGIN_AGAIN_LIMIT: Duration = Duration::from_secs(5);

/// How long one manager is waited for alone, before the next is tried beside it: some round trips
/// of a slow link.
const TURN: Duration = Duration::from_secs(1);

enum Plan {
    Closed,
    Idle,
    Local,
    Remote(Vec<String>, Arc<Ready>),
}

/// Returns where managers are, by what is known here: the leader first, and hearsay last.
pub(super) fn addresses(inner: &Inner) -> Vec<String> {
    match plan(inner).0 {
        Plan::Remote(addresses, _) => addresses,
        Plan::Closed | Plan::Idle | Plan::Local => Vec::new(),
    }
}

fn plan(inner: &Inner) -> (Plan, u64) {
    let state = inner.state();
    let with_hearsay = |known: &[String]| known.iter().chain(&state.hearsay).cloned().collect();
    let plan = match (&state.managers, &state.ready) {
        _ if state.closed => Plan::Closed,
        (Managers::Local { others, .. }, Some(ready)) => match &state.leader {
            LeaderAt::Here => Plan::Local,
            LeaderAt::Nowhere if others.is_empty() => Plan::Idle,
            LeaderAt::Nowhere => Plan::Remote(with_hearsay(others), ready.clone()),
            LeaderAt::There(leader) => {
                let others = others.iter().filter(|other| *other != leader);
                let all = [leader].into_iter().chain(others);
                Plan::Remote(all.cloned().collect(), ready.clone())
            }
        },
        (Managers::Remote(addresses), Some(ready)) if !addresses.is_empty() => {
            Plan::Remote(with_hearsay(addresses), ready.clone())
        }
        _ => Plan::Idle,
    };
    (plan, state.plan)
}

/// Waits until the plan is no longer the one numbered `number`.
async fn changed(inner: &Inner, number: u64) {
    while inner.state().plan == number {
        // The sender lives in `inner`, so the channel never closes.
        let _outcome = inner.wake.1.recv().await;
    }
}

/// Keeps a session for as long as the endpoint is open.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut failures = 0;
    loop {
        let (plan, number) = plan(&inner);
        match plan {
            Plan::Closed => return,
            Plan::Idle => {
                failures = 0;
                let _outcome = inner.wake.1.recv().await;
            }
            Plan::Local => {
                inner.state().uplink = Uplink::Local;
                tell(&inner, PeerInput::Connected).await;
                changed(&inner, number).await;
                inner.state().uplink = Uplink::Down;
                tell(&inner, PeerInput::Disconnected).await;
            }
            Plan::Remote(addresses, ready) => {
                let stood = round(&inner, &addresses, &ready, number).await;
                failures = if stood { 0 } else { failures + 1 };
                if stood {
                    // Managers themselves have said where they are.
                    inner.state().hearsay.clear();
                } else if failures > ROUNDS_ALONE {
                    let asked = async {
                        ask::around(&inner, &addresses, &ready).await;
                        false
                    };
                    let unplanned = async {
                        changed(&inner, number).await;
                        true
                    };
                    let _unplanned = unplanned.or(asked).await;
                }
                let pause = backoff(failures, rand::random());
                deadline::within(pause, changed(&inner, number)).await;
            }
        }
    }
}

/// Returns the wait after so many failures in a row: half of it fixed, half drawn, so that the
/// workers of a manager that went do not come back as one.
fn backoff(failures: u32, random: u64) -> Duration {
    let full = BACKOFF.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    let half = full / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % nanos)
}

async fn tell(inner: &Inner, input: PeerInput) {
    // An error means that the node's loop has ended.
    let _outcome = inner.inputs.send(input).await;
}

/// Tries every address once; returns whether a session stood meanwhile.
async fn round(inner: &Arc<Inner>, addresses: &[String], ready: &Arc<Ready>, number: u64) -> bool {
    // One that falls silent must not keep the node from a leader that is known since.
    let unplanned = async {
        changed(inner, number).await;
        None
    };
    inner.state().unreached.retain(|known, _| addresses.contains(known));
    let attempts = addresses.iter().map(|address| async {
        let reached = reach(inner, address, ready).await;
        if let Err(error) = &reached {
            inner.state().unreached.insert(address.clone(), error.to_string());
        }
        reached
    });
    let first = async { earliest(StreamError::NotConnected, attempts).await.ok() };
    let Some((connection, sender, receiver)) = unplanned.or(first).await else {
        return false;
    };
    inner.state().unreached.clear();
    hold(inner, ready, connection, sender, receiver, number).await;
    true
}

/// Returns the first success. Each attempt begins once the one before has failed, or has let [`TURN`]
/// pass: a dead manager takes its whole limit to be known as such.
///
/// # Errors
///
/// That of the last one that failed; `none` where there is no attempt.
pub(super) async fn earliest<T, E, F>(
    none: E,
    attempts: impl ExactSizeIterator<Item = F>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts;
    let mut tried = FuturesUnordered::new();
    let mut last = none;
    loop {
        match waiting.next() {
            Some(attempt) => tried.push(attempt),
            None if tried.is_empty() => return Err(last),
            None => {}
        }
        let outcome = if waiting.len() > 0 {
            deadline::within(TURN, tried.next()).await.flatten()
        } else {
            tried.next().await
        };
        match outcome {
            Some(Ok(done)) => return Ok(done),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// Tries the addresses of one name.
async fn reach(inner: &Inner, address: &str, ready: &Ready) -> Result<Opened, StreamError> {
    let (targets, _) = places(inner, address).await.inspect_err(|error| {
        tracing::debug!(%address, %error, "cannot find the manager");
    })?;
    let attempts = targets.into_iter().map(|target| async move {
        let attempted = attempt(inner, target, ready).await;
        match &attempted {
            Ok(_) => tracing::info!(%target, "connected to the manager"),
            Err(error) => tracing::info!(%target, %error, "cannot connect to the manager"),
        }
        attempted
    });
    earliest(StreamError::NotConnected, attempts).await
}

/// Returns the addresses of a `host:port`, a few at most.
pub(super) async fn resolve(inner: &Inner, address: &str) -> Result<Vec<SocketAddr>, StreamError> {
    inner.names.resolve(address).await
}

pub(super) type Opened = (quinn::Connection, ByteSender, ByteReceiver);

pub(super) async fn attempt(
    inner: &Inner,
    target: SocketAddr,
    ready: &Ready,
) -> Result<Opened, StreamError> {
    let connection = connect(inner, target, &ready.client).await?;
    let outcome = within(HEADER_LIMIT, begin(inner, &connection, ready)).await;
    match outcome {
        Ok((sender, receiver)) => Ok((connection, sender, receiver)),
        Err(error) => {
            // A certificate that the manager refuses shows only now: TLS 1.3 has this side done
            // before the other one has looked.
            let cause = connection.close_reason();
            Close::Done.apply(&connection);
            let Some(cause) = cause else { return Err(error) };
            if Close::Removed.is_cause(&cause) {
                tell(inner, PeerInput::FromManager(FromManager::Removed)).await;
            }
            Err(StreamError::Broken(explain(&cause)))
        }
    }
}

/// Makes a connection.
pub(super) async fn connect(
    inner: &Inner,
    target: SocketAddr,
    config: &quinn::ClientConfig,
) -> Result<quinn::Connection, StreamError> {
    // What is sent to a version of which the machine has no address is lost without a word.
    own_towards(target).map_err(|error| StreamError::NoWay(error.to_string()))?;
    let connecting = inner
        .quic
        .connect_with(config.clone(), target, MANAGER_NAME)
        .map_err(|error| StreamError::Broken(error.to_string()))?;
    let connected =
        async { connecting.await.map_err(|error| StreamError::Broken(explain(&error))) };
    within(CONNECT_LIMIT, connected).await
}

async fn begin(
    inner: &Inner,
    connection: &quinn::Connection,
    ready: &Ready,
) -> Result<(ByteSender, ByteReceiver), StreamError> {
    let Some(manager) = manager_at(inner, ready, connection) else {
        return Err(StreamError::Broken("the peer is no manager of this cluster".to_owned()));
    };
    inner.state().met.note(&manager.identity.node, connection.remote_address());
    let (mut sender, mut receiver) = open(connection).await?;
    sender.send(&StreamRequest::Session).await?;
    match receiver.receive::<StreamReply>().await? {
        Some(StreamReply::Ready) => Ok((sender, receiver)),
        Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
        Some(StreamReply::RenewFirst) => Err(inner.renew_first()),
        _ => Err(StreamError::Unexpected),
    }
}

/// Holds a session until it ends or the plan changes.
async fn hold(
    inner: &Arc<Inner>,
    ready: &Arc<Ready>,
    connection: quinn::Connection,
    sender: ByteSender,
    receiver: ByteReceiver,
    number: u64,
) {
    let manager = manager_at(inner, ready, &connection);
    let served = smol::spawn(streams(inner.clone(), ready.clone(), connection.clone(), manager));
    let mut session = Some((sender, receiver));
    while let Some((sender, receiver)) = session.take() {
        let (outbox, outgoing) = outbox();
        inner.state().uplink = Uplink::Up { outbox, connection: connection.clone() };
        tell(inner, PeerInput::Connected).await;
        let unplanned = async {
            changed(inner, number).await;
            Ok(())
        };
        let outcome = pump(inner, sender, receiver, outgoing).or(unplanned).await;
        inner.state().uplink = Uplink::Down;
        if let Err(error) = outcome {
            tracing::info!(%error, "the session with the manager ended");
        }
        session = begin_again(inner, ready, &connection, number).await;
        if session.is_some() {
            tell(inner, PeerInput::Disconnected).await;
        }
    }
    let cause = connection.close_reason();
    Close::Done.apply(&connection);
    let _ended = served.cancel().await;
    if cause.is_some_and(|cause| Close::Removed.is_cause(&cause)) {
        tell(inner, PeerInput::FromManager(FromManager::Removed)).await;
    }
    tell(inner, PeerInput::Disconnected).await;
}

/// Begins another session on a connection that stands, where the one before ended: another manager
/// leads by now, and the one at the other end is told soon who.
async fn begin_again(
    inner: &Inner,
    ready: &Ready,
    connection: &quinn::Connection,
    number: u64,
) -> Option<(ByteSender, ByteReceiver)> {
    let start = std::time::Instant::now();
    let mut failures = 0;
    while start.elapsed() < BEGIN_AGAIN_LIMIT
        && inner.state().plan == number
        && connection.close_reason().is_none()
    {
        let unplanned = async {
            changed(inner, number).await;
            Err(StreamError::NotConnected)
        };
        let begun = unplanned.or(within(HEADER_LIMIT, begin(inner, connection, ready)));
        match begun.await {
            Ok(session) => return Some(session),
            // Only an election is worth waiting for.
            Err(StreamError::Refused(refusal)) if refusal.class == Class::NotLeader => {}
            Err(_) => return None,
        }
        failures += 1;
        let _at = smol::Timer::after(backoff(failures.min(2), rand::random())).await;
    }
    None
}

async fn pump(
    inner: &Inner,
    sender: ByteSender,
    mut receiver: ByteReceiver,
    outgoing: Outgoing,
) -> Result<(), StreamError> {
    let read = async {
        while let Some(message) = receiver.receive_known::<FromManager>().await? {
            tell(inner, PeerInput::FromManager(message)).await;
        }
        Ok(())
    };
    read.or(outgoing.drain(sender)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        assert_eq!(backoff(0, 0), BACKOFF / 2);
        for (failures, full) in [(1, 200), (3, 800), (6, 6_400), (7, 8_000), (99, 8_000)] {
            let full = Duration::from_millis(full);
            for random in [0, 12_345, u64::MAX] {
                let wait = backoff(failures, random);
                assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
            }
        }
    }
}
