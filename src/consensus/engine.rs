//! The engine itself: one member of the group.

use super::{
    Leadership, Notice, ProposeError,
    machine::Machine,
    peer::{self, Network, PeerCall},
    runtime::Runtime,
    storage::{ENTRY_MAX, LogStore, Storage},
    types::{Payload, StoredMembership, Types},
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use openraft::{
    Raft, ReadPolicy, ServerState, SnapshotPolicy,
    errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError},
    impls::BasicNode,
};
use openraft_rt::watch::WatchReceiver as _;
use std::{
    collections::BTreeMap, future::Future, io, marker::PhantomData, sync::Arc, time::Duration,
};

/// How many notices wait for the driver. The engine waits for each anyway; a few kinds come side by
/// side.
const NOTICES_MAX: usize = 16;

/// Entries kept behind a snapshot, so that a member that lags a little needs no snapshot. As
/// Swarm's.
const KEEP_BEHIND_SNAPSHOT: u64 = 500;

/// How long leadership may take to be confirmed before it is looked at again.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// How a member is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its id in the group, from 1.
    pub id: u64,
    /// How often a leader tells that it lives. The engine looks at its clock as often.
    pub heartbeat: Duration,
    /// The shortest time without a leader before an election; the longest is twice as much.
    pub election: Duration,
    /// Entries between snapshots.
    pub snapshot_interval: u64,
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
    notices: Receiver<Notice>,
}

impl<R: Runtime> std::fmt::Debug for Consensus<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R: Runtime> Consensus<R> {
    /// Starts a member on its log. What it tells the driver comes through
    /// [`Consensus::notices`], beginning with the snapshot on disk: whoever calls this must be
    /// reading those, or read them soon.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or the settings contradict themselves.
    #[expect(
        clippy::manual_async_fn,
        reason = "the compiler sees that it may move between threads only where it is said"
    )]
    pub fn start(
        settings: &Settings,
        store: Arc<dyn LogStore>,
        peers: Arc<dyn PeerCall>,
        notices: (Sender<Notice>, Receiver<Notice>),
    ) -> impl Future<Output = Result<Self, StartError>> + Send {
        // Named as `Send` here, where it can be seen to be for every runtime.
        async move {
            let config = config(settings)?;
            let storage = Storage { store, runtime: PhantomData };
            let mut machine = Machine {
                storage: storage.clone(),
                notices: notices.0.clone(),
                applied: None,
                membership: StoredMembership::<R>::default(),
            };
            machine.restore().await.map_err(StartError::Storage)?;
            let network = Network { peers, runtime: PhantomData };
            let raft = Raft::new(settings.id, Arc::new(config), network, storage, machine)
                .await
                .map_err(|error| StartError::Engine(error.to_string()))?;
            let consensus = Self { raft, id: settings.id, notices: notices.1 };
            let watcher = consensus.clone();
            drop(R::spawn(async move { watcher.watch(&notices.0).await }));
            consensus.elect_if_alone().await;
            Ok(consensus)
        }
    }

    /// Returns the channel of notices for [`Consensus::start`].
    #[must_use]
    pub fn channel() -> (Sender<Notice>, Receiver<Notice>) {
        async_channel::bounded(NOTICES_MAX)
    }

    /// What the driver must carry out.
    #[must_use]
    pub fn notices(&self) -> Receiver<Notice> {
        self.notices.clone()
    }

    /// Makes a new group of this one member. Does nothing where it has a group.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    #[expect(
        clippy::manual_async_fn,
        reason = "the compiler sees that it may move between threads only where it is said"
    )]
    pub fn initialize(
        &self,
        address: String,
    ) -> impl Future<Output = Result<(), StartError>> + Send {
        async move {
            let members = BTreeMap::from([(self.id, BasicNode::new(address))]);
            match self.raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => Err(StartError::Engine(error.to_string())),
            }
        }
    }

    /// A group of one need not wait for anybody's silence before it elects itself.
    async fn elect_if_alone(&self) {
        let voters: Vec<u64> = self.raft.voter_ids().collect();
        if voters == [self.id]
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
            return Err(ProposeError::Fatal(format!("an entry of {bytes} bytes is too large")));
        }
        let written = async {
            match self.raft.client_write(Payload(entry)).await {
                Ok(response) => Ok(response.log_id.index),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    Err(ProposeError::NotLeader { leader: to.leader_id })
                }
                Err(RaftError::APIError(_)) => Err(ProposeError::Timeout(limit)),
                Err(RaftError::Fatal(error)) => Err(ProposeError::Fatal(error.to_string())),
            }
        };
        let late = async {
            R::sleep(limit).await;
            Err(ProposeError::Timeout(limit))
        };
        written.or(late).await
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
        let late = async {
            R::sleep(limit).await;
            Err(ProposeError::Timeout(limit))
        };
        read.or(late).await
    }

    /// Answers what another member's [`PeerCall::call`] brought.
    ///
    /// # Errors
    ///
    /// The bytes are not a call, or this member cannot answer it.
    pub async fn handle(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        peer::answer(&self.raft, request).await
    }

    /// Ends the engine; what is on disk stays.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the consensus engine did not end well");
        }
        self.notices.close();
    }

    /// Tells the driver of each change of leadership, and of the engine's end.
    async fn watch(&self, notices: &Sender<Notice>) {
        let mut metrics = self.raft.metrics();
        let mut told = Leadership::default();
        loop {
            let (term, state, leader, fatal) = {
                let now = metrics.borrow_watched();
                let fatal = now.running_state.as_ref().err().map(ToString::to_string);
                (now.current_term, now.state, now.current_leader, fatal)
            };
            if let Some(error) = fatal {
                // Nobody is left to read it where the driver ended first.
                notices.send(Notice::Fatal { error }).await.ok();
                return;
            }
            let leads = state == ServerState::Leader && leader == Some(self.id);
            let confirmed = leads && (told.leading && told.term == term || self.confirm().await);
            let now = Leadership { term, leading: confirmed, leader };
            if now != told {
                told = now;
                if notices.send(Notice::Leadership(now)).await.is_err() {
                    return;
                }
            }
            if leads && !confirmed {
                continue;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until every entry of earlier terms is applied: only then may this member decide.
    async fn confirm(&self) -> bool {
        self.read_barrier(CONFIRM_LIMIT).await.is_ok()
    }
}

fn config(settings: &Settings) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: "midge".to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election),
        election_timeout_max: millis(settings.election * 2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_interval),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        replication_lag_threshold: settings.snapshot_interval.saturating_add(KEEP_BEHIND_SNAPSHOT),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| StartError::Engine(error.to_string()))
}
