//! One node's ports on the simulated world: clock, log, disk, containers, certificates.

use super::{
    executor::{Executor, running},
    on_sim::OnSim,
    world::World,
};
use crate::{
    agent::{self, Event, Failure, Observed, Operation, Phase, Prepared, ProbeResult},
    cluster::{Admission, Refusal},
    consensus::{Approach, Consensus, Notice, ProposeError},
    node::ports::{AgentDisk, Authority, DiskError, Host, Log, Workload, Write},
    runtime::fake::Fake,
    store::AgentStore,
    types::{Cluster, Date, HealthState, Moment, NodeId, PortStatus, Sequence, Task, TaskId},
    util::random::draw,
};
use async_channel::Receiver;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

/// One manager's member of the consensus group.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    /// Its key in the group.
    pub(super) member: u64,
    /// Set once the engine has started, for which the driver must be reading notices.
    pub(super) started: Arc<OnceLock<Consensus<OnSim>>>,
}

/// Since when a disk has been at one write, where it hangs.
pub(super) type Hang = Arc<Mutex<Option<Moment>>>;

/// The wall clock when a run begins.
const BEGIN: u64 = 1_800_000_000;

/// A node's clock: its monotonic one counts from its own boot, its wall clock may be wrong.
#[derive(Clone)]
pub(super) struct SimHost {
    pub(super) executor: Executor,
    pub(super) origin: Duration,
    pub(super) skew: Duration,
    /// A stream of the node's own: ids do not depend on what happens when.
    pub(super) stream: Arc<Mutex<u64>>,
}

impl Host for SimHost {
    fn now(&self) -> Moment {
        self.executor.now() + self.origin
    }

    fn date(&self) -> Date {
        Date::from_unix_seconds(BEGIN) + self.executor.now().since_origin() + self.skew
    }

    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send {
        self.executor.sleep_until(moment - self.origin)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(future);
    }

    fn random(&self) -> u64 {
        draw(&mut self.stream.lock().unwrap())
    }
}

/// The log, with the world looking on.
#[derive(Clone)]
pub(super) struct SimLog {
    pub(super) engine: Engine,
    pub(super) notices: Receiver<Notice>,
    pub(super) hang: Hang,
    pub(super) executor: Executor,
}

impl Log for SimLog {
    async fn propose(&self, entry: Vec<u8>, limit: Duration) -> Result<u64, ProposeError> {
        let late = self.executor.now() + limit;
        while self.write_under_way().is_some() {
            if self.executor.now() >= late {
                return Err(ProposeError::Timeout(limit));
            }
            self.executor.sleep(Duration::from_millis(100)).await;
        }
        match self.engine.started.get() {
            Some(engine) => engine.propose(entry, limit).await,
            None => Err(ProposeError::NotLeader { leader: None }),
        }
    }

    async fn read_barrier(&self, limit: Duration) -> Result<(), ProposeError> {
        match self.engine.started.get() {
            Some(engine) => engine.read_barrier(limit).await,
            None => Err(ProposeError::NotLeader { leader: None }),
        }
    }

    fn notices(&self) -> Receiver<Notice> {
        self.notices.clone()
    }

    fn write_under_way(&self) -> Option<Write> {
        let since = (*self.hang.lock().unwrap())?;
        Some(Write { time: self.executor.now().since(since), failure: None })
    }

    fn without_quorum(&self) -> Option<Duration> {
        self.engine.started.get()?.without_quorum()
    }

    /// The simulation keeps its own, so that snapshots come often.
    fn set_snapshot_interval(&self, _: u64) {}

    /// The simulation keeps its own.
    fn set_election_timeout(&self, _: crate::types::Version, _: Duration) {}

    async fn approach(
        &self,
        members: BTreeMap<u64, String>,
        limit: Duration,
    ) -> Result<Approach, ProposeError> {
        match self.engine.started.get() {
            Some(engine) => engine.approach(&members, limit).await,
            None => Err(ProposeError::NotLeader { leader: None }),
        }
    }

    fn votes_alone(&self) -> bool {
        self.engine.started.get().is_none_or(Consensus::votes_alone)
    }

    fn members(&self) -> BTreeSet<u64> {
        let members = self.engine.started.get().map(Consensus::members).unwrap_or_default();
        members.voters.into_iter().chain(members.learners).collect()
    }

    async fn hand_over(&self, limit: Duration) {
        if let Some(engine) = self.engine.started.get() {
            engine.hand_over(limit).await;
        }
    }
}

#[derive(Clone)]
pub(super) struct SimDisk(pub(super) Arc<AgentStore>);

fn disk_error(error: &io::Error) -> DiskError {
    let temporary = error.kind() == io::ErrorKind::StorageFull;
    DiskError { message: error.to_string(), temporary }
}

impl AgentDisk for SimDisk {
    async fn load(&self) -> Result<(Sequence, Vec<agent::StoredTask>), DiskError> {
        let store = Arc::clone(&self.0);
        running().offload(move || store.load()).await.map_err(|error| disk_error(&error))
    }

    async fn commit(&self, records: Vec<agent::Record>) -> Result<(), DiskError> {
        let store = Arc::clone(&self.0);
        running().offload(move || store.commit(&records)).await.map_err(|error| disk_error(&error))
    }
}

/// The containers of one machine, as one life of its daemon sees them.
#[derive(Clone)]
pub(super) struct SimWorkload {
    pub(super) world: World,
    pub(super) node: NodeId,
    pub(super) fake: Arc<Mutex<Fake>>,
    pub(super) host: SimHost,
    pub(super) events: (async_channel::Sender<Event>, Receiver<Event>),
}

impl SimWorkload {
    /// Tells when containers end by themselves, as long as any will.
    pub(super) fn watch(&self) {
        let me = self.clone();
        self.host.executor.spawn(async move {
            loop {
                let next = me.fake.lock().unwrap().next_exit();
                let Some(at) = next else { return };
                me.host.executor.sleep_until(at).await;
                me.tell_exits().await;
            }
        });
    }

    async fn tell_exits(&self) {
        let now = self.host.executor.now();
        let ended = self.fake.lock().unwrap().poll(now, self.host.date());
        for event in ended {
            let _ended = self.events.0.send(event).await;
        }
    }

    /// Carries an operation out once its time has come.
    async fn perform<T: fmt::Debug>(
        &self,
        operation: Operation,
        perform: impl FnOnce(&mut Fake) -> T,
    ) -> T {
        let executor = &self.host.executor;
        let delay = self.fake.lock().unwrap().delay(&operation);
        executor.sleep(delay).await;
        self.world.check_operation(&self.node, &operation);
        // What has ended by now says so before anything else is seen of it.
        self.tell_exits().await;
        let result = perform(&mut self.fake.lock().unwrap());
        self.world.trace(|| format!("{} {operation:?} -> {result:?}", self.world.name(&self.node)));
        if matches!(operation, Operation::Start { .. }) {
            self.watch();
        }
        let lag = self.fake.lock().unwrap().lag(&operation);
        executor.sleep(lag).await;
        result
    }
}

impl Workload for SimWorkload {
    async fn prepare(&self, task: &Task) -> Result<Prepared, Failure> {
        let operation = Operation::Prepare { task: Box::new(task.clone()) };
        self.perform(operation, |fake| fake.prepare(task)).await
    }

    async fn start(&self, task: &Task) -> Result<(u32, Vec<PortStatus>), Failure> {
        let operation = Operation::Start { task: Box::new(task.clone()) };
        self.perform(operation, |fake| fake.start(self.host.executor.now(), task)).await
    }

    async fn stop(&self, task: &TaskId, signal: &str, grace: Duration) -> Result<Phase, Failure> {
        let operation = Operation::Stop { task: task.clone(), signal: signal.to_owned(), grace };
        self.perform(operation, |fake| fake.stop(task, self.host.date())).await
    }

    async fn remove(&self, task: &TaskId) -> Result<(), Failure> {
        let operation = Operation::Remove { task: task.clone() };
        self.perform(operation, |fake| fake.remove(task)).await
    }

    async fn inventory(&self) -> Result<Vec<Observed>, Failure> {
        let operation = Operation::TakeInventory { asked: 0 };
        self.perform(operation, |fake| fake.inventory()).await
    }

    async fn probe(
        &self,
        task: &TaskId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, Failure> {
        let operation =
            Operation::Probe { task: task.clone(), number: 0, command: command.to_vec(), timeout };
        self.perform(operation, |fake| fake.probe(self.host.executor.now(), task, command)).await
    }

    fn tell(&self, task: &TaskId, state: HealthState) {
        self.world.trace(|| format!("{} {task} is {state}", self.world.name(&self.node)));
    }

    fn events(&self) -> Receiver<Event> {
        self.events.1.clone()
    }
}

#[derive(Clone)]
pub(super) struct SimAuthority;

impl Authority for SimAuthority {
    async fn sign(
        &self,
        cluster: &Cluster,
        _: &[u8],
        mut admission: Admission,
    ) -> Result<Admission, Refusal> {
        admission.certificate.clone_from(&cluster.signing_root().certificate);
        Ok(admission)
    }
}
