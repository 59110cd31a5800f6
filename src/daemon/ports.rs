//! The node's ports on the real parts: small translations, and no decisions.

use super::membership::{lock::SealLock, roster};
use crate::{
    agent,
    cluster::{Admission, Class, Refusal, Request, Response},
    consensus::{Approach, Consensus, Notice, OnSmol, PeerCall, ProposeError, SnapshotInterval},
    node::ports::{AgentDisk, Authority, DiskError, Log, Peers, Write},
    pki::{self, Identity, TrustedClock},
    store::{AgentStore, ManagerStore},
    transport::{Endpoint, StreamError},
    types::{
        Cluster, FromManager, FromWorker, LeaderAt, NodeId, PeerInput, Role, Roster, Sequence,
        Trust, UnlockKey, Version,
    },
    util::{deadline::within, disk::may_pass, unblock::unblock},
};
use async_channel::{Receiver, Sender};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

/// How long the consensus group does without a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elections {
    pub(super) timeout: Duration,
    /// The version of the cluster's row that said so; none where none did yet.
    pub(super) as_of: Option<Version>,
}

/// The replicated log. Made before its engine is: the engine gives the node's loop a snapshot
/// before anything else, so the loop must be there first.
#[derive(Debug, Clone)]
pub(super) struct LogPort {
    engine: Arc<smol::lock::OnceCell<Consensus<OnSmol>>>,
    store: Arc<ManagerStore>,
    lock: Arc<SealLock>,
    snapshot_interval: SnapshotInterval,
    election: (Elections, Sender<Elections>),
    channel: (Sender<Notice>, Receiver<Notice>),
}

impl LogPort {
    /// Makes the log that is in `store`, without an engine: proposals wait for it.
    /// `election` is how long the engine does without a leader; a newer word on it goes to
    /// `elections`.
    pub(super) fn new(
        store: Arc<ManagerStore>,
        lock: Arc<SealLock>,
        election: Elections,
        elections: Sender<Elections>,
    ) -> Self {
        let default = crate::types::ClusterSpec::default().snapshot_interval;
        let snapshot_interval = SnapshotInterval::new(default);
        let channel = Consensus::<OnSmol>::channel();
        let election = (election, elections);
        Self { engine: Arc::default(), store, lock, snapshot_interval, election, channel }
    }

    /// Returns the channel of notices, for the engine.
    pub(super) fn channel(&self) -> (Sender<Notice>, Receiver<Notice>) {
        self.channel.clone()
    }

    /// Returns the number of entries between snapshots, for the engine.
    pub(super) fn snapshot_interval(&self) -> SnapshotInterval {
        self.snapshot_interval.clone()
    }

    /// Gives the log its engine, once.
    pub(super) fn set(&self, engine: Consensus<OnSmol>) {
        let set = self.engine.set_blocking(engine);
        assert!(set.is_ok(), "a log has one engine");
    }

    async fn engine(&self, limit: Duration) -> Result<&Consensus<OnSmol>, ProposeError> {
        within(limit, self.engine.wait()).await.ok_or(ProposeError::Timeout(limit))
    }
}

/// How one member of the consensus group calls another.
#[derive(Debug)]
pub(super) struct MemberPort(pub(super) Endpoint);

impl PeerCall for MemberPort {
    fn call(
        &self,
        target: u64,
        address: String,
        request: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>> {
        let endpoint = self.0.clone();
        Box::pin(async move {
            endpoint.call_member(target, &address, request).await.map_err(io::Error::other)
        })
    }
}

impl Log for LogPort {
    async fn propose(&self, entry: Vec<u8>, limit: Duration) -> Result<u64, ProposeError> {
        self.engine(limit).await?.propose(entry, limit).await
    }

    async fn read_barrier(&self, limit: Duration) -> Result<(), ProposeError> {
        self.engine(limit).await?.read_barrier(limit).await
    }

    fn notices(&self) -> Receiver<Notice> {
        self.channel.1.clone()
    }

    fn write_under_way(&self) -> Option<Write> {
        let failure = self.store.failure();
        self.store.commit_under_way().map(|time| Write { time, failure })
    }

    fn without_quorum(&self) -> Option<Duration> {
        self.engine.get()?.without_quorum()
    }

    fn set_snapshot_interval(&self, entries: u64) {
        self.snapshot_interval.set(entries);
    }

    fn set_election_timeout(&self, as_of: Version, timeout: Duration) {
        let (present, elections) = &self.election;
        if timeout != present.timeout && Some(as_of) > present.as_of {
            // An error means that the member ends, and the next one is told.
            let _before = elections.force_send(Elections { timeout, as_of: Some(as_of) });
        }
    }

    async fn approach(
        &self,
        members: BTreeMap<u64, String>,
        limit: Duration,
    ) -> Result<Approach, ProposeError> {
        self.engine(limit).await?.approach(&members, limit).await
    }

    fn votes_alone(&self) -> bool {
        self.engine.get().is_none_or(Consensus::votes_alone)
    }

    fn members(&self) -> BTreeSet<u64> {
        let members = self.engine.get().map(Consensus::members).unwrap_or_default();
        members.voters.into_iter().chain(members.learners).collect()
    }

    async fn hand_over(&self, limit: Duration) {
        if let Some(engine) = self.engine.get() {
            engine.hand_over(limit).await;
        }
    }

    fn set_unlock_key(&self, as_of: Version, key: Option<UnlockKey>) {
        self.lock.follow(as_of, key);
    }
}

/// The agent's file.
#[derive(Debug, Clone)]
pub(super) struct DiskPort(pub(super) Arc<AgentStore>);

/// Tells a disk that may recover from one that will not.
fn disk_error(error: &io::Error) -> DiskError {
    let temporary = may_pass(error.kind()) || error.kind() == io::ErrorKind::Interrupted;
    DiskError { message: error.to_string(), temporary }
}

impl AgentDisk for DiskPort {
    async fn load(&self) -> Result<(Sequence, Vec<agent::StoredTask>), DiskError> {
        let store = Arc::clone(&self.0);
        unblock(move || store.load()).await.map_err(|error| disk_error(&error))
    }

    async fn commit(&self, records: Vec<agent::Record>) -> Result<(), DiskError> {
        let store = Arc::clone(&self.0);
        unblock(move || store.commit(&records)).await.map_err(|error| disk_error(&error))
    }
}

/// What the cluster wants of this node, and where its managers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) role: Role,
    pub(super) managers: Vec<String>,
}

/// The other nodes.
#[derive(Debug, Clone)]
pub(super) struct PeersPort {
    pub(super) endpoint: Endpoint,
    /// Takes in places; the latest counts.
    pub(super) places: Sender<Place>,
    /// Takes in roots, and within which time to follow; the latest count.
    pub(super) trusts: Sender<(Trust, Duration)>,
    pub(super) data_dir: Arc<Path>,
}

impl Peers for PeersPort {
    fn send_to_worker(&self, node: &NodeId, message: FromManager) {
        self.endpoint.send_to_worker(node, message);
    }

    fn send_to_manager(&self, message: FromWorker) {
        self.endpoint.send_to_manager(message);
    }

    fn disconnect(&self, node: &NodeId) {
        self.endpoint.disconnect(node);
    }

    fn reconnect(&self) {
        self.endpoint.reconnect();
    }

    fn inputs(&self) -> Receiver<PeerInput> {
        self.endpoint.inputs()
    }

    fn set_leader(&self, leader: LeaderAt) {
        self.endpoint.set_leader(leader);
    }

    fn set_roster(&self, roster: Roster) {
        if self.endpoint.set_roster(roster.clone())
            && let Err(error) = roster::save(&self.data_dir, &roster)
        {
            tracing::warn!(%error, "cannot write down who the managers are");
        }
    }

    async fn relay(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        self.endpoint.relay(request, limit).await.map_err(|error| match error {
            StreamError::Refused(refusal) => refusal,
            // What came of it nobody knows; whoever leads next is asked again, and does it once.
            error => Refusal::new(Class::NotLeader, error.to_string()),
        })
    }

    fn take_place(&self, role: Role, managers: Vec<String>) {
        // An error means that the member ends.
        let _before = self.places.force_send(Place { role, managers });
    }

    fn take_trust(&self, trust: Trust, within: Duration) {
        // An error means that the member ends.
        let _before = self.trusts.force_send((trust, within));
    }
}

/// The certificate authority: the cluster's root is in its state. Signs by the clock that
/// certificates are judged by.
#[derive(Debug, Clone)]
pub(super) struct AuthorityPort(pub(super) TrustedClock);

impl Authority for AuthorityPort {
    async fn sign(
        &self,
        cluster: &Cluster,
        csr: &[u8],
        mut admission: Admission,
    ) -> Result<Admission, Refusal> {
        let identity = Identity {
            node: admission.node.clone(),
            role: admission.role,
            cluster: admission.cluster.clone(),
        };
        let signed = pki::sign(
            cluster.signing_root(),
            csr,
            &identity,
            self.0.date(),
            cluster.spec.node_cert_expiry,
        );
        admission.certificate =
            signed.map_err(|error| Refusal::new(Class::Invalid, error.to_string()))?;
        Ok(admission)
    }
}
