//! Calls between members, as bytes: how they travel is the transport's affair.

use super::{
    machine::Machine,
    runtime::Runtime,
    storage::{ENTRY_MAX, SNAPSHOT_MAX, decode_up_to, encode, size},
    types::{Snapshot, SnapshotMeta, Types, Vote},
};
use futures_lite::FutureExt as _;
use openraft::{
    Instant as _, Raft, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    future::Future,
    io,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// A boxed future that can move between threads.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How one member calls another.
pub trait PeerCall: Send + Sync + Debug + 'static {
    /// Sends `request` to the member `target` at `address` and waits for its answer.
    fn call(
        &self,
        target: u64,
        address: String,
        request: Vec<u8>,
    ) -> BoxFuture<'static, io::Result<Vec<u8>>>;
}

/// A group of one calls nobody.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoPeers;

#[cfg(test)]
impl PeerCall for NoPeers {
    fn call(&self, target: u64, _: String, _: Vec<u8>) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let error = io::Error::other(format!("there is no connection to member {target}"));
        Box::pin(async move { Err(error) })
    }
}

/// What one member asks of another. Variants are only ever appended.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
enum Call<R: Runtime> {
    Append(AppendEntriesRequest<Types<R>>),
    Vote(VoteRequest<Types<R>>),
    PreVote(VoteRequest<Types<R>>),
    SnapshotPart(Part<R>),
    TransferLeader(TransferLeaderRequest<Types<R>>),
}

/// A piece of a snapshot. They are sent in order; a lost one makes the sender begin anew.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Part<R: Runtime> {
    vote: Vote<R>,
    meta: SnapshotMeta<R>,
    /// Where it belongs.
    offset: u64,
    /// The length of the whole.
    len: u64,
    bytes: Vec<u8>,
}

/// The largest message: entries up to a bound, then one more, and what surrounds them.
const MESSAGE_MAX: usize = ENTRY_MAX + (2 << 20);

/// The size of a piece of a snapshot.
const PART_BYTES: usize = 1 << 20;

/// How long entries may be on their way, however short the engine's own patience: it measures in
/// heartbeats, and a message that is given up is sent again from its beginning. Their bytes have
/// the time that [`SLOWEST_LINK`] takes besides. Heartbeats have a connection of their own, and keep
/// the engine's limit.
const ENTRIES_LIMIT: Duration = Duration::from_secs(5);

/// How many bytes a second every link is expected to carry: those of the parts of a snapshot, within
/// their own limit.
const SLOWEST_LINK: usize = 35 << 10;

/// The snapshot that is being received, as far as it came.
#[derive(Debug)]
pub(super) struct Parts<R: Runtime>(Mutex<Option<(SnapshotMeta<R>, Vec<u8>)>>);

impl<R: Runtime> Default for Parts<R> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<R: Runtime> Parts<R> {
    /// Adds a part, and returns the snapshot once it is whole.
    fn add(&self, part: Part<R>) -> io::Result<Option<Snapshot<R>>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if usize::try_from(part.len).map_or(true, |len| len > SNAPSHOT_MAX) {
            return Err(io::Error::other("the snapshot is larger than any that is taken"));
        }
        if part.offset == 0 {
            *slot = Some((part.meta.clone(), Vec::new()));
        }
        let (meta, mut data) = slot.take().ok_or_else(|| io::Error::other("no part before it"))?;
        let offset = u64::try_from(data.len()).map_err(io::Error::other)?;
        if meta != part.meta || offset != part.offset {
            return Err(io::Error::other("the part belongs to another snapshot"));
        }
        data.extend(part.bytes);
        let got = u64::try_from(data.len()).map_err(io::Error::other)?;
        if got >= part.len {
            return Ok(Some(Snapshot::<R> { meta, snapshot: data }));
        }
        *slot = Some((meta, data));
        Ok(None)
    }
}

/// Answers a call of another member.
pub(super) async fn answer<R: Runtime>(
    raft: &Raft<Types<R>, Machine<R>>,
    parts: &Parts<R>,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    match decode_up_to::<Call<R>>(request, MESSAGE_MAX)? {
        Call::Append(rpc) => encode(&raft.append_entries(rpc).await.map_err(|e| failed(&e))?),
        Call::Vote(rpc) => encode(&raft.vote(rpc).await.map_err(|e| failed(&e))?),
        Call::PreVote(rpc) => encode(&raft.pre_vote(rpc).await.map_err(|e| failed(&e))?),
        Call::SnapshotPart(part) => {
            let vote = part.vote;
            let Some(snapshot) = parts.add(part)? else {
                return encode(&None::<SnapshotResponse<Types<R>>>);
            };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            encode(&Some(installed.map_err(|e| failed(&e))?))
        }
        Call::TransferLeader(rpc) => {
            encode(&raft.handle_transfer_leader(rpc).await.map_err(|e| failed(&e))?)
        }
    }
}

/// Where each member is reached. The engine keeps a connection for as long as one leads, also where
/// the group is told meanwhile that its member moved.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<u64, String>>>);

impl Places {
    pub(super) fn set(&self, member: u64, address: String) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = places.insert(member, address);
    }

    fn of(&self, member: u64) -> String {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&member).cloned().unwrap_or_default()
    }
}

/// When a leader sends nothing: in turns, once too few members have answered it for longer than its
/// lease. One that is heard and hears nothing would be followed for ever. The engine holds back its
/// heartbeats then, and goes on to send the entries that nobody acknowledged, which whoever gets them
/// takes for a sign of life just as well.
pub(super) struct Silence {
    /// The time in which a leader may still be followed without having been heard.
    pub(super) lease: Duration,
    /// How long it keeps silent, and how long it speaks before it does so again.
    pub(super) turn: Duration,
    /// Returns for how long too few members have answered; none where none ever did.
    pub(super) unheard: OnceLock<Box<dyn Fn() -> Option<Duration> + Send + Sync>>,
}

impl Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence").field("turn", &self.turn).finish_non_exhaustive()
    }
}

impl Silence {
    /// Tells whether to send nothing now, on a connection that is so old. The turns are the engine's.
    fn holds(&self, age: Duration) -> bool {
        let unheard = self.unheard.get().and_then(|unheard| unheard()).unwrap_or(age);
        let beyond = unheard.checked_sub(self.lease);
        beyond.is_some_and(|beyond| (beyond.as_nanos() / self.turn.as_nanos()).is_multiple_of(2))
    }
}

/// Makes connections to members.
#[derive(Debug)]
pub(super) struct Network<R> {
    pub(super) peers: Arc<dyn PeerCall>,
    pub(super) places: Places,
    pub(super) silence: Arc<Silence>,
    pub(super) runtime: PhantomData<R>,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Connection<R>;

    async fn new_client(
        &mut self,
        target: u64,
        node: &openraft::impls::BasicNode,
    ) -> Connection<R> {
        self.places.set(target, node.addr.clone());
        let (peers, places) = (Arc::clone(&self.peers), self.places.clone());
        let (silence, made) = (Arc::clone(&self.silence), R::Instant::now());
        Connection { peers, target, places, silence, made }
    }
}

/// The way to one member.
#[derive(Debug)]
pub(super) struct Connection<R: Runtime> {
    peers: Arc<dyn PeerCall>,
    target: u64,
    places: Places,
    silence: Arc<Silence>,
    made: R::Instant,
}

impl<R: Runtime> Connection<R> {
    async fn ask<A: DeserializeOwned>(
        &self,
        call: &Call<R>,
        limit: Duration,
    ) -> Result<A, Unreachable<Types<R>>> {
        let request = encode(call).map_err(|error| Unreachable::new(&error))?;
        let asked = self.peers.call(self.target, self.places.of(self.target), request);
        let late = async {
            R::sleep(limit).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let answer = asked.or(late).await.map_err(|error| Unreachable::new(&error))?;
        decode_up_to(&answer, MESSAGE_MAX).map_err(|error| Unreachable::new(&error))
    }
}

impl<R: Runtime> RaftNetworkV2<Types<R>> for Connection<R> {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        if self.silence.holds(self.made.elapsed()) {
            let error = io::Error::other("too few members answer");
            return Err(Unreachable::<Types<R>>::new(&error).into());
        }
        let limit = option.hard_ttl();
        let limit = if rpc.entries.is_empty() {
            limit
        } else {
            let bytes: usize = rpc.entries.iter().map(size::<R>).sum();
            let seconds = u64::try_from(bytes / SLOWEST_LINK).unwrap_or(u64::MAX);
            limit.max(ENTRIES_LIMIT).saturating_add(Duration::from_secs(seconds))
        };
        Ok(self.ask(&Call::Append(rpc), limit).await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::Vote(rpc), option.hard_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::PreVote(rpc), option.hard_ttl()).await?)
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::TransferLeader(rpc), option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<R>,
        snapshot: Snapshot<R>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let sent = async {
            let (meta, data) = (snapshot.meta, snapshot.snapshot);
            let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let mut offset = 0;
            // An empty snapshot is one part as well.
            for bytes in data.chunks(PART_BYTES).chain(data.is_empty().then_some(&[][..])) {
                let (meta, bytes) = (meta.clone(), bytes.to_vec());
                let sent = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let part = Part { vote, meta, offset, len, bytes };
                let answer: Option<SnapshotResponse<Types<R>>> =
                    self.ask(&Call::SnapshotPart(part), option.hard_ttl()).await?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
                offset += sent;
            }
            let error = io::Error::other("the snapshot was sent, but not taken");
            Err(Unreachable::<Types<R>>::new(&error).into())
        };
        let cancelled = async { Err(StreamingError::Closed(cancel.await)) };
        sent.or(cancelled).await
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod record;
