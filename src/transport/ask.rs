//! Finding managers through nodes that are none any more.
//!
//! A node that was off while every manager it knows became a worker, and workers became managers,
//! would look for ever in the wrong places. So a manager of before goes on listening, and says where
//! managers are; it is told that itself for as long as it has a session. What it says is hearsay: an
//! address to try after those that managers named, where whoever answers has to show the certificate
//! of a manager before it is believed anything.

use super::{
    endpoint::{Inner, Managers, open},
    serve::chain,
    stream::{StreamError, within},
    tls::{Close, Ready},
    uplink::{connect, resolve},
};
use crate::{
    pki::Shown,
    types::LeaderAt,
    wire::{STRANGER_LEN_MAX, StreamReply, StreamRequest},
};
use futures_lite::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

/// How long all of them together may take: a look-up, a handshake and a question over a slow link.
/// A manager that comes back meanwhile waits for the rest of it.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// Addresses that one node is believed: more managers than any cluster has use for.
const TOLD_MAX: usize = 9;

/// Addresses that are tried by hearsay: what four nodes say that agree on nothing, and each costs
/// one turn of a round.
const HEARSAY_MAX: usize = 36;

/// The longest address: a DNS name, a colon and a port.
const ADDRESS_LEN_MAX: usize = 253 + 6;

/// Returns what this node answers to who asks where managers are: where they themselves said, and
/// nothing that it has heard from others.
pub(super) fn told(inner: &Inner) -> Vec<String> {
    let state = inner.state();
    let leader = match &state.leader {
        LeaderAt::There(leader) => Some(leader),
        LeaderAt::Here | LeaderAt::Nowhere => None,
    };
    match &state.managers {
        Managers::None => Vec::new(),
        Managers::Remote(addresses) => addresses.clone(),
        Managers::Local { others, .. } => {
            let others = others.iter().filter(|other| Some(*other) != leader);
            leader.into_iter().chain(others).cloned().collect()
        }
    }
}

/// Asks at every address where managers are; keeps what is said for the next rounds.
pub(super) async fn around(inner: &Inner, addresses: &[String], ready: &Ready) {
    let mut asked: FuturesUnordered<_> =
        addresses.iter().map(|address| at_name(inner, address, ready)).collect();
    let mut answers = Vec::new();
    let all = async {
        while let Some(answer) = asked.next().await {
            answers.extend(answer);
        }
        Ok(())
    };
    // Whoever is late is asked again after the next round.
    let _in_time = within(ASK_LIMIT, all).await;
    let mut state = inner.state();
    let known: BTreeSet<&str> = match &state.managers {
        Managers::None => BTreeSet::new(),
        Managers::Remote(known) | Managers::Local { others: known, .. } => {
            known.iter().map(String::as_str).collect()
        }
    };
    // What was heard before may be all there is, where nobody answered now.
    answers.push(state.hearsay.clone());
    let heard = merge(&answers, &known);
    state.hearsay = heard;
}

/// Returns what is new in the answers: the first of each, then the second of each, and so on, so
/// that nobody who says much keeps out what another says.
fn merge(answers: &[Vec<String>], known: &BTreeSet<&str>) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    let most = answers.iter().map(Vec::len).max().unwrap_or(0);
    for address in (0..most).flat_map(|rank| answers.iter().filter_map(move |it| it.get(rank))) {
        if merged.len() < HEARSAY_MAX
            && !known.contains(address.as_str())
            && !merged.contains(address)
        {
            merged.push(address.clone());
        }
    }
    merged
}

async fn at_name(inner: &Inner, address: &str, ready: &Ready) -> Option<Vec<String>> {
    for target in resolve(inner, address).await.ok()? {
        match at(inner, target, ready).await {
            Ok(told) => {
                tracing::debug!(%target, ?told, "a node says where managers are");
                return Some(told);
            }
            Err(error) => tracing::debug!(%target, %error, "cannot ask where managers are"),
        }
    }
    None
}

async fn at(inner: &Inner, target: SocketAddr, ready: &Ready) -> Result<Vec<String>, StreamError> {
    let connection = connect(inner, target, &ready.asking).await?;
    // Nothing else that it says is taken, such as that this node was removed.
    let told = ask(inner, &connection, ready).await;
    Close::Done.apply(&connection);
    told
}

async fn ask(
    inner: &Inner,
    connection: &quinn::Connection,
    ready: &Ready,
) -> Result<Vec<String>, StreamError> {
    let chain = chain(connection).unwrap_or_default();
    let holder = inner.judge.holder(&ready.anchors, Shown::Member, &chain);
    if holder.is_none_or(|holder| holder.identity.cluster != ready.identity.cluster) {
        return Err(StreamError::Broken("the peer is no node of this cluster".to_owned()));
    }
    let (mut sender, mut receiver) = open(connection).await?;
    sender.send(&StreamRequest::Managers).await?;
    match receiver.receive_up_to::<StreamReply>(STRANGER_LEN_MAX).await? {
        Some(StreamReply::Managers(mut told)) => {
            told.retain(|address| address.len() <= ADDRESS_LEN_MAX);
            told.truncate(TOLD_MAX);
            Ok(told)
        }
        Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
        _ => Err(StreamError::Unexpected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn nobody_who_says_much_keeps_out_what_another_says() {
        let much: Vec<String> = (0..2 * HEARSAY_MAX).map(|number| format!("x{number}:1")).collect();
        let merged =
            merge(&[much, names(&["a:1", "b:1"]), names(&["a:1", "c:1"])], &["x0:1"].into());
        assert_eq!(merged[..5], names(&["a:1", "x1:1", "b:1", "c:1", "x2:1"]));
        assert_eq!(merged.len(), HEARSAY_MAX);
        assert!(merge(&[], &BTreeSet::new()).is_empty());
    }
}
