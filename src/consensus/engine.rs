//! The engine itself: one member of the group.

use super::{
    Leadership, Notice, ProposeError,
    group::{Present, Step},
    machine::Machine,
    peer::{self, Network, Parts, PeerCall, Places, Silence},
    runtime::Runtime,
    storage::{ENTRY_MAX, LogStore, Storage},
    types::{Payload, StoredMembership, Types},
    writer::Heard,
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use openraft::{
    ChangeMembers, Membership, Raft, ReadPolicy, ServerState, SnapshotPolicy,
    errors::{ClientWriteError, ForwardReason, InitializeError, LinearizableReadError, RaftError},
    impls::BasicNode,
    metrics::RaftMetrics,
};
use openraft_rt::watch::WatchReceiver as _;
use smol::lock::Semaphore;
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    marker::PhantomData,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How many notices wait for the driver. The engine waits for each anyway; a few kinds come side by
/// side.
const NOTICES_MAX: usize = 16;

/// Entries kept behind a snapshot, so that a member that lags a little needs no snapshot. As
/// Swarm's.
const KEEP_BEHIND_SNAPSHOT: u64 = 500;

/// How many entries a member may lack before it is sent a snapshot instead of them: sending so many
/// takes about as long as sending the state they made.
const LAG_MAX: u64 = 5_000;

/// How many messages wait in each of the engine's own queues; its default is 65,536. Proposals are
/// bounded below, and a peer has a few calls under way, so that this is never full for longer than
/// a moment.
const QUEUE_MAX: u64 = 512;

/// How many of its own notices wait for the engine. It stands still while its disk does, and its
/// clock ticks on for the minutes until the writer has it stopped; and it waits for ever once it
/// cannot put a notice of its own behind those. This is an hour of ticks. They take memory only
/// while they wait, at most about 16 MB then.
const NOTIFICATIONS_MAX: u64 = 65_536;

/// How many proposals are under way at once; others wait for their turn within their own limit.
/// The driver batches its commands, so that this many stand for thousands of them, and bounds the
/// engine's memory at a few hundred MB even where each is as large as it may be.
const PROPOSALS_MAX: usize = 64;
/// How long a leader that no majority answers keeps silent, in the shortest time before an election:
/// until its lease is over the others hear it yet, and then they wait for the lease and the longest
/// time, four together. One that is heard and hears nothing would be followed for ever.
const SILENCE: u32 = 5;
/// How long an election waits at most, in the shortest time before one. A leader's lease is as long.
const ELECTION_SPREAD: u32 = 2;
/// How long a part of a snapshot may take. A part is 1 MiB: 35 KiB a second are enough.
const SNAPSHOT_PART_MILLIS: u64 = 30_000;
/// How many entries go into one message; their bytes are bounded beside it.
const MESSAGE_ENTRIES_MAX: u64 = 300;

/// How a member is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its id in the group, from 1.
    pub id: u64,
    /// How often a leader tells that it lives, and how long it waits for the answer: links whose
    /// round trip is longer make no leader. The engine looks at its clock five times as often.
    pub heartbeat: Duration,
    /// The shortest time without a leader before an election; the longest is twice as much.
    pub election: Duration,
    /// Entries between snapshots.
    pub snapshot_interval: SnapshotInterval,
}

/// Entries between snapshots: an option of the cluster, which may change while the engine runs.
/// Cheap to clone; all clones are one number.
#[derive(Debug, Clone)]
pub struct SnapshotInterval(Arc<AtomicU64>);

impl SnapshotInterval {
    /// Begins with so many.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        Self(Arc::new(AtomicU64::new(entries)))
    }

    /// Sets it, from the next entry on.
    pub fn set(&self, entries: u64) {
        self.0.store(entries, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        // A log that grows for ever helps nobody: none is the least there is.
        self.0.load(Ordering::Relaxed).max(1)
    }
}

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be read.
    #[error("cannot read the log")]
    Storage(#[source] io::Error),
    /// The engine refuses.
    #[error("cannot start the consensus engine: {0}")]
    Engine(String),
}

/// One member of the group. Cheap to clone.
#[derive(Clone)]
pub struct Consensus<R: Runtime> {
    raft: Raft<Types<R>, Machine<R>>,
    id: u64,
    heartbeat: Duration,
    snapshot_interval: SnapshotInterval,
    notices: Receiver<Notice>,
    proposals: Arc<Semaphore>,
    parts: Arc<Parts<R>>,
    storage: Storage<R>,
    places: Places,
    clock: Arc<Mutex<Clock>>,
    writer: Heard,
}

/// Why the engine's clock may stand still.
#[derive(Debug, Default)]
struct Clock {
    /// Whoever leads itself alone has nobody to tell that it lives, and need not wake.
    alone: bool,
    /// The engine cannot take a tick while it waits for its disk, and fills its own queue with
    /// them.
    disk_hangs: bool,
}

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Who votes.
    pub voters: Vec<u64>,
    /// Who only follows.
    pub learners: Vec<u64>,
}

/// How far a group has come on its way to the wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approach {
    /// It is as wanted.
    There,
    /// A step was taken.
    Nearer,
    /// A member has to catch up, or another to take the lead, before the next step.
    Waits,
}

impl<R: Runtime> std::fmt::Debug for Consensus<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R: Runtime> Consensus<R> {
    /// Starts a member on its log. What it tells the driver comes through `notices`, beginning with
    /// the snapshot on disk: whoever calls this must be reading those, or read them soon.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or the settings contradict themselves.
    pub fn start(
        settings: &Settings,
        store: Arc<dyn LogStore>,
        peers: Arc<dyn PeerCall>,
        notices: (Sender<Notice>, Receiver<Notice>),
    ) -> impl Future<Output = Result<Self, StartError>> + Send + use<R> {
        // Borrows nothing, so that it can be spawned.
        Self::start_with(settings.clone(), store, peers, notices)
    }

    async fn start_with(
        settings: Settings,
        store: Arc<dyn LogStore>,
        peers: Arc<dyn PeerCall>,
        notices: (Sender<Notice>, Receiver<Notice>),
    ) -> Result<Self, StartError> {
        let config = config(&settings)?;
        let (storage, writer) = Storage::new(store, notices.0.clone());
        let mut machine = Machine {
            storage: storage.clone(),
            notices: notices.0.clone(),
            applied: None,
            membership: StoredMembership::<R>::default(),
        };
        machine.restore().await.map_err(StartError::Storage)?;
        storage.abdicate(settings.id).await.map_err(StartError::Storage)?;
        let places = Places::default();
        let silence = Arc::new(Silence {
            lease: settings.election * ELECTION_SPREAD,
            turn: settings.election * SILENCE,
            unheard: OnceLock::new(),
        });
        let network = Network {
            peers,
            places: places.clone(),
            silence: Arc::clone(&silence),
            runtime: PhantomData,
        };
        let id = settings.id;
        let raft: Raft<Types<R>, _> =
            Raft::new(id, Arc::new(config), network, storage.clone(), machine)
                .await
                .map_err(|error| StartError::Engine(error.to_string()))?;
        let metrics = raft.metrics();
        let _first = silence.unheard.set(Box::new(move || unheard(id, &metrics.borrow_watched())));
        let consensus = Self {
            raft,
            id,
            heartbeat: settings.heartbeat,
            snapshot_interval: settings.snapshot_interval,
            notices: notices.1,
            proposals: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            parts: Arc::default(),
            storage,
            places,
            clock: Arc::default(),
            writer,
        };
        let watcher = consensus.clone();
        drop(R::spawn(async move { watcher.watch(&notices.0).await }));
        // Holds nothing that keeps the writer going.
        let (raft, clock) = (consensus.raft.clone(), Arc::clone(&consensus.clock));
        let hangs = consensus.writer.hangs.clone();
        drop(R::spawn(async move {
            while let Ok(disk_hangs) = hangs.recv().await {
                set_clock(&raft, &clock, |clock| clock.disk_hangs = disk_hangs);
            }
        }));
        consensus.elect_if_alone().await;
        Ok(consensus)
    }

    /// Returns the channel of notices for [`Consensus::start`].
    #[must_use]
    pub fn channel() -> (Sender<Notice>, Receiver<Notice>) {
        async_channel::bounded(NOTICES_MAX)
    }

    /// Makes a new group of this one member. Does nothing where it has a group.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    #[expect(clippy::manual_async_fn, reason = "named as `Send`, it is so for every runtime")]
    pub fn initialize(
        &self,
        address: String,
    ) -> impl Future<Output = Result<(), StartError>> + Send {
        async move {
            let members = BTreeMap::from([(self.id, BasicNode::new(address))]);
            match self.raft.initialize(members).await {
                // The engine says so before it is on disk.
                Ok(()) => self.storage.flush().await.map_err(StartError::Storage),
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => Err(StartError::Engine(error.to_string())),
            }
        }
    }

    /// Returns the group's members, as this one knows them.
    #[must_use]
    pub fn members(&self) -> Members {
        let (voters, learners) =
            (self.raft.voter_ids().collect(), self.raft.learner_ids().collect());
        Members { voters, learners }
    }

    /// Tells whether no other member votes: nobody is asked, and nobody else can lead.
    #[must_use]
    pub fn votes_alone(&self) -> bool {
        self.raft.voter_ids().eq([self.id])
    }

    /// Returns for how long too few members have answered this one; none where it does not lead, or
    /// needs nobody's answer.
    #[must_use]
    pub fn without_quorum(&self) -> Option<Duration> {
        if self.votes_alone() {
            return None;
        }
        unheard(self.id, &self.raft.metrics().borrow_watched())
    }

    /// Returns the term and the index of the last entry on this member's disk. Of two members the
    /// one whose pair is greater has the newer log: Raft, section 5.4.1.
    #[must_use]
    pub fn last_entry(&self) -> Option<(u64, u64)> {
        let metrics = self.raft.data_metrics();
        let last = metrics.borrow_watched().last_log;
        last.map(|id| (id.leader_id.term, id.index))
    }

    /// Waits until this member votes for good, at most `limit`; tells whether it does. While it is
    /// only about to, the former voters are needed as before.
    pub async fn votes_within(&self, limit: Duration) -> bool {
        let mut metrics = self.raft.metrics();
        let votes = async {
            loop {
                let votes = {
                    let metrics = metrics.borrow_and_update();
                    let membership = metrics.committed_membership_config.membership();
                    !is_joint(membership) && membership.voter_ids().any(|id| id == self.id)
                };
                if votes {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        let late = async {
            R::sleep(limit).await;
            false
        };
        votes.or(late).await
    }

    /// Takes one step towards the group whose voters are `wanted`, each at its address. Returns
    /// whether the group is there, or nothing can be done before a member has caught up.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn approach(
        &self,
        wanted: &BTreeMap<u64, String>,
        limit: Duration,
    ) -> Result<Approach, ProposeError> {
        let Some(step) = self.present().next_step(wanted) else { return Ok(Approach::There) };
        let change = match step {
            Step::Wait => return Ok(Approach::Waits),
            Step::HandOver(to) => {
                self.raft.trigger().transfer_leader(to).await.map_err(fatal)?;
                return Ok(Approach::Waits);
            }
            Step::Follow(id, address) => {
                // Its answer may be needed before the group knows.
                self.places.set(id, address.clone());
                ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))]))
            }
            Step::Vote(id) => ChangeMembers::AddVoterIds([id].into()),
            Step::Leave(id) => ChangeMembers::RemoveVoters([id].into()),
            Step::Forget(id) => ChangeMembers::RemoveNodes([id].into()),
            // Where two sets of voters count, any change leads to the next one; this adds nobody.
            Step::Settle => ChangeMembers::AddVoterIds([].into()),
        };
        let changed = async {
            match self.raft.change_membership(change, false).await {
                Ok(_) => Ok(Approach::Nearer),
                Err(error) => Err(write_error(error, limit)),
            }
        };
        changed.or(self.late(limit)).await
    }

    /// Lets another voter lead, where this member does and another has caught up. Returns once
    /// that one leads, or `limit` has passed.
    pub async fn hand_over(&self, limit: Duration) {
        let mut metrics = self.raft.metrics();
        let Some(to) = self.present().successor(|_| true) else { return };
        let leads = metrics.borrow_watched().current_leader == Some(self.id);
        if !leads || self.raft.trigger().transfer_leader(to).await.is_err() {
            return;
        }
        let moved = async {
            while metrics.borrow_and_update().current_leader.is_none_or(|id| id == self.id) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        moved.or(R::sleep(limit)).await;
    }

    pub(super) fn present(&self) -> Present {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        Present {
            own: self.id,
            voters: membership.voter_ids().collect(),
            joint: is_joint(membership),
            members: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
            matched: matched.filter_map(|(id, log)| Some((*id, (*log)?.index))).collect(),
            last: metrics.last_log_index.unwrap_or(0),
        }
    }

    async fn late<T>(&self, limit: Duration) -> Result<T, ProposeError> {
        R::sleep(limit).await;
        Err(ProposeError::Timeout(limit))
    }

    /// A group of one need not wait for anybody's silence before it elects itself.
    async fn elect_if_alone(&self) {
        if self.votes_alone()
            && let Err(error) = self.raft.trigger().elect(false).await
        {
            tracing::warn!(%error, "cannot hold an election at once; it follows by itself");
        }
    }

    /// Proposes an entry and waits until it is committed and applied here. Returns its index.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn propose(&self, entry: Vec<u8>, limit: Duration) -> Result<u64, ProposeError> {
        if entry.len() > ENTRY_MAX {
            let bytes = entry.len();
            return Err(ProposeError::Refused(format!(
                "{bytes} bytes are more than the {ENTRY_MAX} of an entry"
            )));
        }
        let written = async {
            let _turn = self.proposals.acquire().await;
            loop {
                // A leader that is young or was cut off for a moment has yet to hear from the
                // others that it still leads. It refuses before it appends anything.
                match self.raft.client_write(Payload(entry.clone())).await {
                    Ok(response) => return Ok(response.log_id.index),
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))
                        if to.reason == ForwardReason::LeaseExpired =>
                    {
                        R::sleep(self.heartbeat).await;
                    }
                    Err(error) => return Err(write_error(error, limit)),
                }
            }
        };
        written.or(self.late(limit)).await
    }

    /// Waits until everything is applied that was committed anywhere when this was called.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn read_barrier(&self, limit: Duration) -> Result<(), ProposeError> {
        let read = async {
            match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                    Err(ProposeError::NotLeader { leader: to.leader_id })
                }
                Err(RaftError::APIError(_)) => Err(ProposeError::NotLeader { leader: None }),
                Err(RaftError::Fatal(error)) => Err(ProposeError::Fatal(error.to_string())),
            }
        };
        read.or(self.late(limit)).await
    }

    /// Answers what another member's [`PeerCall::call`] brought.
    ///
    /// # Errors
    ///
    /// The bytes are not a call, or this member cannot answer it.
    pub async fn handle(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        peer::answer(&self.raft, &self.parts, request).await
    }

    /// Ends the engine; what is on disk stays.
    pub async fn shutdown(&self) {
        // First, so that the engine waits no longer for a driver that may have ended before it.
        self.notices.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the consensus engine did not end well");
        }
        // Closed, and nothing else: nobody sends on it. The store is free for the next member.
        let _closed = self.writer.ended.recv().await;
    }

    /// Tells the driver of each change of leadership, and of the engine's end; has a snapshot made
    /// when it is time.
    async fn watch(&self, notices: &Sender<Notice>) {
        let mut metrics = self.raft.metrics();
        let mut told = Leadership::default();
        // The term it leads in, and the end of the log when that began.
        let mut reign: Option<(u64, Option<u64>)> = None;
        // Up to where a snapshot was asked for: one that fails is tried again an interval later.
        let mut asked = 0;
        loop {
            let (now, alone, fatal, applied, snapshot) = {
                let metrics = metrics.borrow_and_update();
                let fatal = metrics.running_state.as_ref().err().map(ToString::to_string);
                let leads =
                    metrics.state == ServerState::Leader && metrics.current_leader == Some(self.id);
                let (term, leader) = (metrics.current_term, metrics.current_leader);
                reign = leads.then(|| match reign {
                    Some(reign) if reign.0 == term => reign,
                    _ => (term, metrics.last_log_index),
                });
                // What the log holds when a term begins is all that earlier terms left behind.
                let applied = metrics.last_applied.map(|id| id.index);
                let leading = reign.is_some_and(|(_, end)| applied >= end);
                let now = Leadership { term, leading, leader };
                let alone = leads && metrics.membership_config.nodes().count() == 1;
                let snapshot = metrics.snapshot.map_or(0, |id| id.index);
                (now, alone, fatal, applied.unwrap_or(0), snapshot)
            };
            if let Some(error) = fatal {
                // Nobody is left to read it where the driver ended first.
                notices.send(Notice::Fatal { error }).await.ok();
                return;
            }
            if applied.saturating_sub(asked.max(snapshot)) >= self.snapshot_interval.get() {
                asked = applied;
                // An error is the engine's end, which the next look at it tells.
                self.raft.trigger().snapshot().await.ok();
            }
            set_clock(&self.raft, &self.clock, |clock| clock.alone = alone);
            if now != told {
                told = now;
                if notices.send(Notice::Leadership(now)).await.is_err() {
                    return;
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Has the engine's clock run or stand still.
fn set_clock<R: Runtime>(
    raft: &Raft<Types<R>, Machine<R>>,
    clock: &Mutex<Clock>,
    set: impl FnOnce(&mut Clock),
) {
    let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
    set(&mut clock);
    raft.runtime_config().tick(!clock.alone && !clock.disk_hangs);
}

fn is_joint(membership: &Membership<u64, BasicNode>) -> bool {
    membership.get_joint_config().len() > 1
}

fn fatal(error: impl std::fmt::Display) -> ProposeError {
    ProposeError::Fatal(error.to_string())
}

/// Says what a refused or lost write means to whoever proposed it.
fn write_error<R: Runtime>(
    error: RaftError<Types<R>, ClientWriteError<Types<R>>>,
    limit: Duration,
) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            ProposeError::NotLeader { leader: to.leader_id }
        }
        // Appended here, then replaced by another leader's entries, which may hold it as well.
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Timeout(limit),
        RaftError::APIError(error) => ProposeError::Refused(error.to_string()),
        RaftError::Fatal(error) => fatal(error),
    }
}

/// Returns for how long too few members have answered `id`; none where it does not lead, or none ever
/// did.
fn unheard<R: Runtime>(id: u64, metrics: &RaftMetrics<Types<R>>) -> Option<Duration> {
    let answered = metrics.last_quorum_acked.as_ref()?;
    (metrics.current_leader == Some(id)).then(|| openraft::Instant::elapsed(&**answered))
}

fn config(settings: &Settings) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: "midge".to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election),
        election_timeout_max: millis(settings.election * ELECTION_SPREAD),
        // `watch` asks for them: the interval may change while the engine runs.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        replication_lag_threshold: LAG_MAX,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        api_channel_size: Some(QUEUE_MAX),
        notification_channel_size: Some(NOTIFICATIONS_MAX),
        state_machine_channel_size: Some(QUEUE_MAX),
        install_snapshot_timeout: SNAPSHOT_PART_MILLIS,
        quorum_loss_probe_interval: Some(millis(settings.election * SILENCE)),
        // A member that was cut off comes back without unseating a leader that others follow.
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| StartError::Engine(error.to_string()))
}
