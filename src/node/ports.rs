//! What a node needs of the outside.

use crate::{
    agent::{self, Failure, Observed, Phase, Prepared, ProbeResult},
    cluster::{Admission, Refusal, Request, Response},
    consensus::{Approach, Notice, ProposeError},
    types::{
        Cluster, Date, FromManager, FromWorker, HealthState, LeaderAt, Moment, NodeId, PeerInput,
        PortStatus, Role, Roster, Sequence, Task, TaskId, Trust, UnlockKey, Version,
    },
};
use async_channel::Receiver;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

/// Clock, randomness and tasks. Cheap to clone.
pub trait Host: Clone + Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// The wall clock.
    fn date(&self) -> Date;

    /// Waits until `moment`; returns at once where it has passed.
    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send;

    /// Runs `future` beside everything else, until it ends or the node does.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static);

    /// Returns 64 random bits.
    fn random(&self) -> u64;
}

/// The replicated log.
pub trait Log: Clone + Send + Sync + 'static {
    /// Proposes an entry and waits until it is committed and applied here. Returns its index.
    fn propose(
        &self,
        entry: Vec<u8>,
        limit: Duration,
    ) -> impl Future<Output = Result<u64, ProposeError>> + Send;

    /// Waits until everything is applied that was committed anywhere when this was called, and
    /// makes sure that this member still leads: a read after it is linearizable.
    fn read_barrier(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// Returns the channel of notices. Called once.
    fn notices(&self) -> Receiver<Notice>;

    /// Returns how a write that is under way goes; none where nothing is written.
    fn write_under_way(&self) -> Option<Write>;

    /// Returns for how long too few members have answered this one; none where it does not lead.
    fn without_quorum(&self) -> Option<Duration>;

    /// Sets how many entries lie between snapshots, from the next entry on.
    fn set_snapshot_interval(&self, entries: u64);

    /// Says how long the members should do without a leader's word, from soon on. `as_of` is the
    /// version of the cluster's row that says so: what an older one says, as the log tells it again
    /// after a restart, must not undo what a newer one said.
    fn set_election_timeout(&self, as_of: Version, timeout: Duration);

    /// Takes one step towards the group of these members, each at its address; only while this
    /// one leads.
    fn approach(
        &self,
        members: BTreeMap<u64, String>,
        limit: Duration,
    ) -> impl Future<Output = Result<Approach, ProposeError>> + Send;

    /// Tells whether no other member of the group votes: nobody else can lead, and nobody has to
    /// agree.
    fn votes_alone(&self) -> bool;

    /// Returns the members of the group, those that do not vote included.
    fn members(&self) -> BTreeSet<u64>;

    /// Lets another member lead; returns once one does, or none could within `limit`.
    fn hand_over(&self, limit: Duration) -> impl Future<Output = ()> + Send;
    /// Says what opens the log after a restart; none where nothing is needed. `as_of` is the version
    /// of the cluster's row that says so: an older one must not undo a newer. On disk when it
    /// returns, so that it may block for one small write, each time that a user changes it.
    fn set_unlock_key(&self, as_of: Version, key: Option<UnlockKey>) {
        let _nothing_is_locked = (as_of, key);
    }
}

/// A write of the log that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// For how long it has gone on.
    pub time: Duration,
    /// Why it cannot end, where that is known: it is tried again until it can.
    pub failure: Option<String>,
}

/// What an agent keeps on disk.
pub trait AgentDisk: Clone + Send + Sync + 'static {
    /// Reads everything, once, at start.
    fn load(
        &self,
    ) -> impl Future<Output = Result<(Sequence, Vec<agent::StoredTask>), DiskError>> + Send;

    /// Writes everything in one commit; on disk when it returns.
    fn commit(
        &self,
        records: Vec<agent::Record>,
    ) -> impl Future<Output = Result<(), DiskError>> + Send;
}

/// The disk failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write the node's state: {message}")]
pub struct DiskError {
    /// What went wrong.
    pub message: String,
    /// Whether it may pass (no space left); otherwise the node must end and be started again.
    pub temporary: bool,
}

/// Connections between this node and others. A node that is both manager and worker talks to
/// itself through it as well.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Sends to a worker; dropped where it is not connected or too slow. Never waits.
    fn send_to_worker(&self, node: &NodeId, message: FromManager);

    /// Sends to the manager this node is connected to; dropped where there is none. Never waits.
    fn send_to_manager(&self, message: FromWorker);

    /// Ends every connection of a node and refuses new ones.
    fn disconnect(&self, node: &NodeId);

    /// Says where the leader is: sessions go there, this node's own included.
    fn set_leader(&self, leader: LeaderAt);

    /// Says what the state, as far as this manager has it, knows of who may ask what.
    fn set_roster(&self, _roster: Roster) {}

    /// Asks the leader, where that is another node.
    ///
    /// # Errors
    ///
    /// Its refusal; [`Class::NotLeader`](crate::cluster::Class) where nobody was reached who leads:
    /// then nothing was done, or nobody knows.
    fn relay(
        &self,
        request: Request,
        limit: Duration,
    ) -> impl Future<Output = Result<Response, Refusal>> + Send;

    /// Takes in what role this node should have, and where the managers are.
    fn take_place(&self, role: Role, managers: Vec<String>);

    /// Takes in the roots that count; what that asks of the node is to be done at some point
    /// `within` this time.
    fn take_trust(&self, _trust: Trust, _within: Duration) {}

    /// Ends the connection to the manager and looks for another.
    fn reconnect(&self);

    /// What comes in. Called once.
    fn inputs(&self) -> Receiver<PeerInput>;
}

/// The containers of this node, their network and their images. Carries out every
/// [`agent::Operation`]: different tasks' run side by side; one task's come in order, but for
/// probes, which run beside the rest. What is repeated does no harm.
pub trait Workload: Clone + Send + Sync + 'static {
    /// Makes the task's network, volumes, image and container; dropped where the task is to go
    /// before that is done.
    fn prepare(&self, task: &Task) -> impl Future<Output = Result<Prepared, Failure>> + Send;

    /// Starts the task's container; returns its process and the host ports it holds.
    fn start(
        &self,
        task: &Task,
    ) -> impl Future<Output = Result<(u32, Vec<PortStatus>), Failure>> + Send;

    /// Sends the stop signal, empty for the image's, then SIGKILL after the grace period. Returns
    /// how the container ended, always [`Phase::Exited`]; at once where nothing runs.
    fn stop(
        &self,
        task: &TaskId,
        signal: &str,
        grace: Duration,
    ) -> impl Future<Output = Result<Phase, Failure>> + Send;

    /// Removes container, snapshot, network, log and anonymous volumes.
    fn remove(&self, task: &TaskId) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns every container of this node.
    fn inventory(&self) -> impl Future<Output = Result<Vec<Observed>, Failure>> + Send;

    /// Runs a program in the task's container, and kills it after `timeout`. A temporary failure
    /// says nothing of the container's health.
    fn probe(
        &self,
        task: &TaskId,
        command: &[String],
        timeout: Duration,
    ) -> impl Future<Output = Result<ProbeResult, Failure>> + Send;

    /// Tells whoever listens on this node that a container's health changed. Never waits.
    fn tell(&self, task: &TaskId, state: HealthState);

    /// What happens by itself: exits, containerd going and coming, new images. Called once.
    fn events(&self) -> Receiver<agent::Event>;
}

/// The cluster's certificate authority, on managers.
pub trait Authority: Clone + Send + Sync + 'static {
    /// Signs a certificate of the key in `csr` (DER) for a node that was admitted, with the root in
    /// `cluster`.
    fn sign(
        &self,
        cluster: &Cluster,
        csr: &[u8],
        admission: Admission,
    ) -> impl Future<Output = Result<Admission, Refusal>> + Send;
}
