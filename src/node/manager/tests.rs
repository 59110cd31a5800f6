//! What the loop makes of what the engine asks.

use super::{Channels, Context, run};
use crate::{
    cluster::{Admission, Change, Command, Refusal, Request, Response, State, encode_entry},
    consensus::{Approach, Committed, Notice, ProposeError, SNAPSHOT_MAX},
    node::ports::{Authority, Host, Log, Peers, Write},
    types::{
        Cluster, Date, FromManager, FromWorker, LeaderAt, Moment, Node, NodeId, NodeSpec,
        PeerInput, Role, Version,
    },
    util::{
        board::{Board, BoardLimits},
        sample::Sampler,
    },
};
use async_channel::Receiver;
use futures_lite::{FutureExt as _, future::block_on};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Everything outside of a manager that follows its engine, and never leads: there time stands still,
/// and nobody is.
#[derive(Clone)]
struct Outside {
    notices: Receiver<Notice>,
}

impl Host for Outside {
    fn now(&self) -> Moment {
        Moment::ZERO
    }

    fn date(&self) -> Date {
        Date::EPOCH
    }

    async fn sleep_until(&self, _: Moment) {
        std::future::pending::<()>().await;
    }

    fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {}

    fn random(&self) -> u64 {
        0
    }
}

impl Log for Outside {
    async fn propose(&self, _: Vec<u8>, _: Duration) -> Result<u64, ProposeError> {
        unreachable!("it never leads")
    }

    async fn read_barrier(&self, _: Duration) -> Result<(), ProposeError> {
        unreachable!("nobody asks")
    }

    fn notices(&self) -> Receiver<Notice> {
        self.notices.clone()
    }

    fn write_under_way(&self) -> Option<Write> {
        None
    }

    fn without_quorum(&self) -> Option<Duration> {
        None
    }

    fn set_snapshot_interval(&self, _: u64) {}

    fn set_election_timeout(&self, _: Version, _: Duration) {}

    async fn approach(
        &self,
        _: BTreeMap<u64, String>,
        _: Duration,
    ) -> Result<Approach, ProposeError> {
        unreachable!("it never leads")
    }

    fn votes_alone(&self) -> bool {
        true
    }

    fn members(&self) -> BTreeSet<u64> {
        BTreeSet::new()
    }

    async fn hand_over(&self, _: Duration) {}
}

impl Peers for Outside {
    fn send_to_worker(&self, _: &NodeId, _: FromManager) {}

    fn send_to_manager(&self, _: FromWorker) {}

    fn disconnect(&self, _: &NodeId) {}

    fn set_leader(&self, _: LeaderAt) {}

    async fn relay(&self, _: Request, _: Duration) -> Result<Response, Refusal> {
        unreachable!("nobody asks")
    }

    fn take_place(&self, _: Role, _: Vec<String>) {}

    fn reconnect(&self) {}

    fn inputs(&self) -> Receiver<PeerInput> {
        async_channel::bounded(1).1
    }
}

impl Authority for Outside {
    async fn sign(&self, _: &Cluster, _: &[u8], _: Admission) -> Result<Admission, Refusal> {
        unreachable!("nobody asks")
    }
}

/// Runs a manager's loop for as long as `script` takes, which plays the engine.
fn drive<F: Future<Output = ()>>(
    script: impl FnOnce(async_channel::Sender<Notice>, Arc<super::Shared>) -> F,
) {
    let (engine, notices) = async_channel::bounded(1);
    let (_calls, calls) = async_channel::bounded(1);
    let (_inputs, inputs) = async_channel::bounded(1);
    let (_stop, stop) = async_channel::bounded(1);
    let shared = Arc::<super::Shared>::default();
    let occurrences = Board::new(BoardLimits { recent: 1, waiting: 1, readers: 0 });
    let context = Context { member: 1, shared: Arc::clone(&shared), occurrences };
    let channels = Channels { calls, inputs, stop };
    let outside = || Outside { notices: notices.clone() };
    let run = run(outside(), outside(), outside(), outside(), context, channels);
    let ended = async { panic!("the loop ended: {:?}", run.await) };
    block_on(script(engine, shared).or(ended));
}

fn command(change: Change) -> Command {
    Command { request: None, term: 1, date: Date::EPOCH, change }
}

/// Has the loop hand out its state; returns how many bytes it has.
async fn snapshot(engine: &async_channel::Sender<Notice>) -> usize {
    let (reply, bytes) = async_channel::bounded(1);
    engine.send(Notice::Snapshot { reply }).await.unwrap();
    bytes.recv().await.unwrap().len()
}

#[test]
fn a_state_that_outgrows_snapshots_is_complained_of_and_nothing_stops() {
    let cluster = Sampler::default().samples::<Cluster>("Cluster").swap_remove(0).1;
    let mut node = Sampler::default().samples::<Node>("Node").swap_remove(0).1;
    let (id, spec) = (node.id.clone(), NodeSpec { labels: BTreeMap::new(), ..node.spec.clone() });
    node.spec.labels = BTreeMap::from([("large".to_owned(), "x".repeat(SNAPSHOT_MAX))]);
    let mut state = State::default();
    let created = Change::CreateCluster { cluster: Box::new(cluster), node: Box::new(node) };
    state.apply(Version { epoch: 1, index: 1 }, 1, &command(created)).unwrap();
    let expected = state.node(&id).unwrap().version;
    let data = state.encode_snapshot();
    drop(state);

    drive(async |engine, shared| {
        let (done, taken) = async_channel::bounded(1);
        engine.send(Notice::Install { index: 1, data, done }).await.unwrap();
        taken.recv().await.unwrap();
        assert_eq!(shared.get().complaint(), None);
        assert!(snapshot(&engine).await > SNAPSHOT_MAX);
        let complaint = shared.get().complaint().unwrap();
        let text = "the cluster's state has 129 MiB, and a snapshot holds 128: until there is less";
        assert!(complaint.starts_with(text), "{complaint}");

        // Changes are applied as before, and one that makes it small again ends the complaint.
        let change = Change::UpdateNode { id, expected, spec: Box::new(spec) };
        let data = encode_entry(&[command(change)]);
        let (done, applied) = async_channel::bounded(1);
        let entries = vec![Committed { index: 2, term: 1, data }];
        engine.send(Notice::Apply { entries, done }).await.unwrap();
        applied.recv().await.unwrap();
        assert!(snapshot(&engine).await < 1 << 20);
        assert_eq!(shared.get().complaint(), None);
    });
}
