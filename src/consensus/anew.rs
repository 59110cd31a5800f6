//! A group of one, made on disk: from what a group that is lost has left there, or from a snapshot.
//!
//! Nothing runs on the log meanwhile. Each of these ends in one commit, so that a power cut leaves
//! what was there before or the whole.

use super::{
    leader_id::LeaderId,
    runtime::Runtime,
    storage::{LogStore, decode, encode},
    types::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, Vote},
};
use openraft::{
    EntryPayload, Membership, entry::RaftEntry as _, impls::BasicNode, vote::RaftLeaderId as _,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Makes member `id` the only one of its group, on the log that it has. `first` is given a term, of
/// which `passed` are left out, and makes the entry that the new group begins with.
///
/// Every entry on this disk counts: one that the group had acknowledged may be here without being
/// known as committed, and which those are only the lost members could tell. The new group's term is
/// above any that this member has heard of, so that it is elected at once.
///
/// # Errors
///
/// The disk failed, or there is no log.
pub fn make_alone<R: Runtime>(
    store: &dyn LogStore,
    id: u64,
    address: String,
    passed: u64,
    first: impl FnOnce(u64) -> Vec<u8>,
) -> io::Result<()> {
    let last = newest::<R>(store)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no log to go on with"))?;
    let vote = store.vote()?.map(|bytes| decode::<Vote<R>>(&bytes)).transpose()?;
    let heard_of = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term);
    let term = heard_of + 1 + passed;
    save_term::<R>(store, id, term)?;
    let place =
        |index| LogId::<R> { leader_id: LeaderId { term, node_id: id }.to_committed(), index };
    let members =
        Entry::<R>::new(place(last.index + 1), EntryPayload::Membership(membership(id, address)));
    let begun = Entry::<R>::new(place(last.index + 2), EntryPayload::Normal(Payload(first(term))));
    store.append(&[
        (last.index + 1, encode(&members)?.into()),
        (last.index + 2, encode(&begun)?.into()),
    ])
}

/// Makes a group of member `id` alone in a store that has none, with the state of `snapshot`, as of
/// the entry `index`. `first` is given a term, of which `passed` are left out, and makes the entry
/// after it.
///
/// # Errors
///
/// The disk failed, or there is a log already.
pub fn make_from_snapshot<R: Runtime>(
    store: &dyn LogStore,
    id: u64,
    address: String,
    (index, snapshot): (u64, Vec<u8>),
    passed: u64,
    first: impl FnOnce(u64) -> Vec<u8>,
) -> io::Result<()> {
    if newest::<R>(store)?.is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a log already"));
    }
    let term = 1 + passed;
    let place =
        |index| LogId::<R> { leader_id: LeaderId { term, node_id: id }.to_committed(), index };
    let meta = SnapshotMeta::<R> {
        last_log_id: Some(place(index)),
        last_membership: StoredMembership::<R>::new(Some(place(index)), membership(id, address)),
    };
    save_term::<R>(store, id, term)?;
    store.save_snapshot(encode(&meta)?, snapshot)?;
    store.purge(index, encode(&place(index))?)?;
    let begun = Entry::<R>::new(place(index + 1), EntryPayload::Normal(Payload(first(term))));
    store.append(&[(index + 1, encode(&begun)?.into())])
}

/// Returns the term and the index of the newest entry: of two logs of a group, the one with the
/// greater ones holds everything that was committed, if either does.
///
/// # Errors
///
/// The disk failed.
#[cfg(test)]
pub(crate) fn newest_place<R: Runtime>(store: &dyn LogStore) -> io::Result<Option<(u64, u64)>> {
    Ok(newest::<R>(store)?.map(|last| (last.leader_id.term, last.index)))
}

fn membership(id: u64, address: String) -> Membership<u64, BasicNode> {
    let nodes = BTreeMap::from([(id, BasicNode::new(address))]);
    Membership::new(vec![BTreeSet::from([id])], nodes).expect("its one voter is among its nodes")
}

/// A term that this member has heard of, and voted for itself in.
fn save_term<R: Runtime>(store: &dyn LogStore, id: u64, term: u64) -> io::Result<()> {
    let vote = Vote::<R> { leader_id: LeaderId { term, node_id: id }, committed: false };
    store.save_vote(encode(&vote)?)
}

/// Returns the place of the newest entry, be it in the log, discarded, or in the snapshot.
fn newest<R: Runtime>(store: &dyn LogStore) -> io::Result<Option<LogId<R>>> {
    let extent = store.log_state()?;
    let last: Option<Entry<R>> = extent.last.map(|bytes| decode(&bytes)).transpose()?;
    let purged: Option<LogId<R>> = extent.purged.map(|bytes| decode(&bytes)).transpose()?;
    let snapshot =
        store.snapshot()?.map(|(meta, _)| decode::<SnapshotMeta<R>>(&meta)).transpose()?;
    let snapshot = snapshot.and_then(|meta| meta.last_log_id);
    Ok([last.map(|entry| entry.log_id()), purged, snapshot].into_iter().flatten().max())
}
