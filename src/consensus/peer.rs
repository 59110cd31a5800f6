//! Calls between members, as bytes: how they travel is the transport's affair.

use super::{
    runtime::Runtime,
    storage::{decode, encode},
    types::{Snapshot, SnapshotMeta, Types, Vote},
};
use futures_lite::FutureExt as _;
use openraft::{
    Raft, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt::Debug, future::Future, io, marker::PhantomData, pin::Pin, sync::Arc};

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
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

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
    Snapshot(Vote<R>, SnapshotMeta<R>, Vec<u8>),
    TransferLeader(TransferLeaderRequest<Types<R>>),
}

/// Answers a call of another member.
pub(super) async fn answer<R: Runtime>(
    raft: &Raft<Types<R>, super::machine::Machine<R>>,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    match decode::<Call<R>>(request)? {
        Call::Append(rpc) => encode(&raft.append_entries(rpc).await.map_err(|e| failed(&e))?),
        Call::Vote(rpc) => encode(&raft.vote(rpc).await.map_err(|e| failed(&e))?),
        Call::PreVote(rpc) => encode(&raft.pre_vote(rpc).await.map_err(|e| failed(&e))?),
        Call::Snapshot(vote, meta, data) => {
            let snapshot = Snapshot::<R> { meta, snapshot: data };
            encode(&raft.install_full_snapshot(vote, snapshot).await.map_err(|e| failed(&e))?)
        }
        Call::TransferLeader(rpc) => {
            encode(&raft.handle_transfer_leader(rpc).await.map_err(|e| failed(&e))?)
        }
    }
}

/// Makes connections to members.
#[derive(Debug)]
pub(super) struct Network<R> {
    pub(super) peers: Arc<dyn PeerCall>,
    pub(super) runtime: PhantomData<R>,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Connection<R>;

    async fn new_client(
        &mut self,
        target: u64,
        node: &openraft::impls::BasicNode,
    ) -> Connection<R> {
        let (peers, address) = (Arc::clone(&self.peers), node.addr.clone());
        Connection { peers, target, address, runtime: PhantomData }
    }
}

/// The way to one member.
#[derive(Debug)]
pub(super) struct Connection<R> {
    peers: Arc<dyn PeerCall>,
    target: u64,
    address: String,
    runtime: PhantomData<R>,
}

impl<R: Runtime> Connection<R> {
    async fn ask<A: DeserializeOwned>(
        &self,
        call: &Call<R>,
        option: &RPCOption,
    ) -> Result<A, Unreachable<Types<R>>> {
        let request = encode(call).map_err(|error| Unreachable::new(&error))?;
        let asked = self.peers.call(self.target, self.address.clone(), request);
        let late = async {
            R::sleep(option.hard_ttl()).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let answer = asked.or(late).await.map_err(|error| Unreachable::new(&error))?;
        decode(&answer).map_err(|error| Unreachable::new(&error))
    }
}

impl<R: Runtime> RaftNetworkV2<Types<R>> for Connection<R> {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::Append(rpc), &option).await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::Vote(rpc), &option).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        Ok(self.ask(&Call::PreVote(rpc), &option).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<R>,
        snapshot: Snapshot<R>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let call = Call::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let sent = async { Ok(self.ask(&call, &option).await?) };
        let cancelled = async { Err(StreamingError::Closed(cancel.await)) };
        sent.or(cancelled).await
    }
}
