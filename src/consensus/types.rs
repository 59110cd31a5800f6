//! The engine's types, chosen.

use super::{leader_id::LeaderId, runtime::Runtime};
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};
use std::{fmt, marker::PhantomData};

/// A proposal: bytes whose meaning is the driver's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload(pub(super) Vec<u8>);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Payload {
    /// Leaves the bytes out: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The choice, for one runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types<R>(PhantomData<R>);

impl<R: Runtime> openraft::RaftTypeConfig for Types<R> {
    type D = Payload;
    type R = ();
    type NodeId = u64;
    type Node = openraft::impls::BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = alias::EntryPayloadOf<Self>;
    type Entry = alias::DefaultEntryOf<Self>;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(super) type Entry<R> = alias::EntryOf<Types<R>>;
pub(super) type LogId<R> = alias::LogIdOf<Types<R>>;
pub(super) type Vote<R> = alias::VoteOf<Types<R>>;
pub(super) type StoredMembership<R> = alias::StoredMembershipOf<Types<R>>;
pub(super) type SnapshotMeta<R> = alias::SnapshotMetaOf<Types<R>>;
pub(super) type Snapshot<R> = alias::SnapshotOf<Types<R>, Vec<u8>>;
