//! Agents without containers: the real agent on the real transport, thousands in one process.

use async_channel::Receiver;
use midge::{
    agent::{
        self, Event, Failure, Observed, Operation, Phase, Prepared, ProbeResult, Record, StoredTask,
    },
    cluster::{Admission, JoinRequest, Refusal, Request, Response},
    consensus::{Approach, Notice, ProposeError},
    node::{
        self,
        ports::{AgentDisk, Authority, DiskError, Host, Log, Peers, Workload, Write},
    },
    pki::{self, TokenText, TrustedClock},
    runtime::fake::{Fake, Faults},
    transport::{Config, Credentials, Endpoint, Joined, Managers},
    types::{
        Availability, Cluster, Date, FromManager, FromWorker, HealthState, LeaderAt, Moment,
        NodeDescription, NodeId, PeerInput, Platform, PortStatus, Resources, Role, Sequence, Task,
        TaskId, Trust, Version,
    },
    util::{
        board::{Board, BoardLimits},
        dns::Resolver,
        unblock::unblock,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending},
    io::Read as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How many nodes join at once.
const JOINING: usize = 16;

/// How often a node tries to join; each attempt ends by itself.
const JOIN_ATTEMPTS: usize = 5;

/// Joins so many agents through the manager and runs them until standard input ends. Says `joined`
/// once all are members.
pub(crate) fn run(manager: &str, token: &str, count: usize) {
    let token = TokenText::parse(token).unwrap();
    smol::block_on(async {
        let (sender, numbers) = async_channel::unbounded();
        for number in 0..count {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        let joining = (0..JOINING).map(|_| {
            let (numbers, token, manager) = (numbers.clone(), token, manager.to_owned());
            smol::spawn(async move {
                while let Ok(number) = numbers.recv().await {
                    live(number, &manager, &token).await;
                }
            })
        });
        for task in joining.collect::<Vec<_>>() {
            task.await;
        }
        println!("joined");
        unblock(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap();
    });
}

/// Makes one node a member, and lets it live.
async fn live(number: usize, manager: &str, token: &TokenText) {
    let config = Config {
        listen: ([0, 0, 0, 0], 0).into(),
        clock: TrustedClock::system(date()),
        resolver: Resolver::system(),
    };
    let endpoint = Endpoint::bind(config).unwrap();
    let (key, csr) = pki::new_key_and_request(None).unwrap();
    let description = NodeDescription {
        hostname: format!("agent-{number}"),
        platform: Platform::normalized("linux", "x86_64", ""),
        resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 1 << 32 },
        machine_id: format!("{number:032x}"),
        ..NodeDescription::default()
    };
    let request = JoinRequest {
        secret: token.secret,
        key_digest: pki::request_key_digest(&csr).unwrap(),
        csr,
        description: description.clone(),
        labels: BTreeMap::new(),
        availability: Availability::Active,
        address: String::new(),
        advertise: String::new(),
    };
    let managers = [manager.to_owned()];
    let joined = join(&endpoint, &managers, token, request).await;
    let trust = Trust { roots: vec![joined.root], cross_signed: Vec::new() };
    let credentials = Credentials { certificate: joined.admission.certificate, key, trust };
    endpoint.set_identity(Some(&credentials)).unwrap();
    let host = Machine { origin: Instant::now(), drawn: Arc::new(AtomicU64::new(number as u64)) };
    let fake = Fake::new(number as u64, Faults::default());
    let containers =
        Containers { host: host.clone(), fake: Arc::new(Mutex::new(fake)), description };
    let ports = node::Ports::<_, Nothing, _, _, _, Nothing> {
        host,
        disk: Memory,
        peers: Transport(endpoint.clone()),
        workload: containers,
        manager: None,
    };
    let options = node::Options {
        node: joined.admission.node,
        agent: agent::Options::default(),
        occurrences: Board::new(BoardLimits { recent: 0, waiting: 1, readers: 0 }),
    };
    let (handle, node) = node::new(options, ports);
    smol::spawn(async move {
        let ended = node.run().await;
        println!("an agent ended: {ended}");
        drop(handle);
    })
    .detach();
    endpoint.set_managers(Managers::Remote(managers.into()));
}

/// Joins, again where a packet or an answer was lost among so many: the key makes it one join.
#[expect(clippy::print_stderr, reason = "what went wrong is part of the benchmark's outcome")]
async fn join(
    endpoint: &Endpoint,
    managers: &[String],
    token: &TokenText,
    request: JoinRequest,
) -> Joined {
    for _ in 1..JOIN_ATTEMPTS {
        match endpoint.join(managers, token, request.clone()).await {
            Ok(joined) => return joined,
            Err(error) => eprintln!("{} joins again: {error}", request.description.hostname),
        }
    }
    endpoint.join(managers, token, request).await.expect("it joins at last")
}

fn date() -> Date {
    Date::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[derive(Debug, Clone)]
struct Machine {
    origin: Instant,
    drawn: Arc<AtomicU64>,
}

impl Host for Machine {
    fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }

    fn date(&self) -> Date {
        date()
    }

    async fn sleep_until(&self, moment: Moment) {
        smol::Timer::at(self.origin + moment.since_origin()).await;
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(future).detach();
    }

    fn random(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1 << 32, Ordering::Relaxed);
        drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (drawn >> 7)
    }
}

/// A disk that forgets, and is never asked.
#[derive(Debug, Clone, Copy)]
struct Memory;

impl AgentDisk for Memory {
    async fn load(&self) -> Result<(Sequence, Vec<StoredTask>), DiskError> {
        Ok((Sequence::default(), Vec::new()))
    }

    async fn commit(&self, _records: Vec<Record>) -> Result<(), DiskError> {
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Containers {
    host: Machine,
    fake: Arc<Mutex<Fake>>,
    description: NodeDescription,
}

impl Containers {
    /// Carries an operation out once its time has passed.
    async fn perform<T>(&self, operation: Operation, perform: impl FnOnce(&mut Fake) -> T) -> T {
        let delay = self.fake.lock().unwrap().delay(&operation);
        smol::Timer::after(delay).await;
        perform(&mut self.fake.lock().unwrap())
    }
}

impl Workload for Containers {
    async fn prepare(&self, task: &Task) -> Result<Prepared, Failure> {
        let operation = Operation::Prepare { task: Box::new(task.clone()) };
        self.perform(operation, |fake| fake.prepare(task)).await
    }

    async fn start(&self, task: &Task) -> Result<(u32, Vec<PortStatus>), Failure> {
        let operation = Operation::Start { task: Box::new(task.clone()) };
        self.perform(operation, |fake| fake.start(self.host.now(), task)).await
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
        self.perform(Operation::TakeInventory { asked: 0 }, |fake| fake.inventory()).await
    }

    async fn probe(
        &self,
        task: &TaskId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, Failure> {
        let operation =
            Operation::Probe { task: task.clone(), number: 0, command: command.to_vec(), timeout };
        self.perform(operation, |fake| fake.probe(self.host.now(), task, command)).await
    }

    fn tell(&self, _task: &TaskId, _state: HealthState) {}

    fn events(&self) -> Receiver<Event> {
        let (sender, events) = async_channel::unbounded();
        let description = Box::new(self.description.clone());
        sender.try_send(Event::Described { description, images: Vec::new() }).unwrap();
        // Nothing else happens by itself.
        smol::spawn(async move {
            let _open = sender;
            pending::<()>().await;
        })
        .detach();
        events
    }
}

#[derive(Debug, Clone)]
struct Transport(Endpoint);

impl Peers for Transport {
    fn send_to_worker(&self, node: &NodeId, message: FromManager) {
        self.0.send_to_worker(node, message);
    }

    fn send_to_manager(&self, message: FromWorker) {
        self.0.send_to_manager(message);
    }

    fn disconnect(&self, node: &NodeId) {
        self.0.disconnect(node);
    }

    fn set_leader(&self, leader: LeaderAt) {
        self.0.set_leader(leader);
    }

    async fn relay(&self, _request: Request, _limit: Duration) -> Result<Response, Refusal> {
        pending().await
    }

    fn take_place(&self, _role: Role, _managers: Vec<String>) {}

    fn reconnect(&self) {
        self.0.reconnect();
    }

    fn inputs(&self) -> Receiver<PeerInput> {
        self.0.inputs()
    }
}

/// What a worker does not have.
#[derive(Debug, Clone, Copy)]
enum Nothing {}

impl Log for Nothing {
    async fn propose(&self, _entry: Vec<u8>, _limit: Duration) -> Result<u64, ProposeError> {
        match *self {}
    }

    async fn read_barrier(&self, _limit: Duration) -> Result<(), ProposeError> {
        match *self {}
    }

    fn notices(&self) -> Receiver<Notice> {
        match *self {}
    }

    fn write_under_way(&self) -> Option<Write> {
        match *self {}
    }

    fn without_quorum(&self) -> Option<Duration> {
        match *self {}
    }

    fn set_snapshot_interval(&self, _entries: u64) {
        match *self {}
    }

    fn set_election_timeout(&self, _as_of: Version, _timeout: Duration) {
        match *self {}
    }

    async fn approach(
        &self,
        _members: BTreeMap<u64, String>,
        _limit: Duration,
    ) -> Result<Approach, ProposeError> {
        match *self {}
    }

    fn votes_alone(&self) -> bool {
        true
    }

    fn members(&self) -> BTreeSet<u64> {
        match *self {}
    }

    async fn hand_over(&self, _limit: Duration) {
        match *self {}
    }
}

impl Authority for Nothing {
    async fn sign(
        &self,
        _cluster: &Cluster,
        _csr: &[u8],
        _admission: Admission,
    ) -> Result<Admission, Refusal> {
        match *self {}
    }
}
