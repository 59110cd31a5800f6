//! The simulated world: machines with their disks and containers, and their daemons' lives.

use super::{
    check::Checks,
    executor::{Executor, Owner},
    host::{Engine, Hang, SimAuthority, SimDisk, SimHost, SimLog, SimWorkload},
    network::{Network, Port},
    on_sim::OnSim,
    peers::{SimCall, SimPeers},
    trust::Papers,
};
use crate::{
    agent::{self, Event},
    consensus::{Consensus, Notice, Settings, SnapshotInterval},
    node::{self, Ended, Handle, ManagerPorts, Options, Ports},
    runtime::fake::{Fake, Faults},
    store::{AgentStore, ManagerStore, Sealer, faulty::FaultyDisk},
    types::{
        GenericResource, LeaderAt, NodeDescription, NodeId, Platform, Resources, Role, Roster,
        new_member_key,
    },
    util::board::{Board, BoardLimits},
};
use async_channel::{Receiver, Sender};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often a leader says that it lives, and the least that others wait for it. Longer than the
/// daemon's, in the same proportion, since each costs the run time.
const HEARTBEAT: Duration = Duration::from_secs(1);
const ELECTION: Duration = Duration::from_secs(2);

type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// The daemon is killed; what it wrote is in the page cache.
    Kill,
    /// The power is cut; containers end as well.
    Power,
}

/// One machine.
pub(super) struct Machine {
    pub(super) fake: Arc<Mutex<Fake>>,
    pub(super) agent_disk: FaultyDisk,
    /// A manager's.
    pub(super) log_disk: Option<FaultyDisk>,
    /// The log's disk hangs since then.
    pub(super) hang: Hang,
    /// As its certificate says.
    pub(super) role: Role,
    /// Where others reach it.
    pub(super) address: String,
    /// Where it was last told that managers are.
    pub(super) managers: Vec<String>,
    /// Where they were when it joined.
    pub(super) joined: Vec<String>,
    /// It was a manager, and tells others where managers are.
    pub(super) was_manager: bool,
    pub(super) key_digest: [u8; 32],
    pub(super) papers: Papers,
    /// Its key in the group of managers.
    pub(super) member: u64,
    pub(super) owner: Option<Owner>,
    pub(super) handle: Option<Handle>,
    pub(super) events: Option<Sender<Event>>,
    /// It never starts again.
    pub(super) retired: bool,
    /// Its log is of a group that was given up.
    pub(super) stray: bool,
    skew: Duration,
    boots: u64,
}

pub(super) struct Inner {
    pub(super) executor: Executor,
    pub(super) network: Mutex<Network>,
    pub(super) machines: Mutex<BTreeMap<NodeId, Machine>>,
    /// In the order in which they came; the first makes the cluster.
    pub(super) names: Mutex<Vec<NodeId>>,
    /// How many addresses are taken.
    addresses: Mutex<u64>,
    pub(super) checks: Mutex<Checks>,
    /// The cluster is there: nobody makes another one.
    founded: AtomicBool,
    /// Users promote and demote nodes.
    pub(super) roles: bool,
    /// Users replace the root.
    pub(super) rotates: bool,
    pub(super) seed: u64,
    verbose: bool,
}

/// The world. Cheap to clone.
#[derive(Clone)]
pub(super) struct World(pub(super) Arc<Inner>);

impl World {
    pub(super) fn new(seed: u64, verbose: bool) -> Self {
        Self(Arc::new(Inner {
            executor: Executor::new(seed),
            network: Mutex::new(Network::new()),
            machines: Mutex::default(),
            names: Mutex::default(),
            addresses: Mutex::default(),
            checks: Mutex::default(),
            founded: AtomicBool::new(false),
            roles: seed % 3 != 1,
            rotates: matches!(seed % 8, 2 | 5),
            seed,
            verbose,
        }))
    }

    pub(super) fn network(&self) -> MutexGuard<'_, Network> {
        self.0.network.lock().unwrap()
    }

    pub(super) fn machines(&self) -> MutexGuard<'_, BTreeMap<NodeId, Machine>> {
        self.0.machines.lock().unwrap()
    }

    pub(super) fn checks(&self) -> MutexGuard<'_, Checks> {
        self.0.checks.lock().unwrap()
    }

    /// Returns the machine that leads, or else one that could.
    pub(super) fn leader(&self) -> NodeId {
        let machines = self.machines();
        let leads = machines.iter().filter_map(|(node, machine)| {
            let status = machine.handle.as_ref()?.status();
            status.leading.then_some((status.term, node))
        });
        let first = || {
            let names = self.0.names.lock().unwrap();
            let manages = |it: &Machine| it.role == Role::Manager && !it.retired;
            let mut managers = names.iter().filter(|node| manages(&machines[*node]));
            managers.next().unwrap_or(&names[0]).clone()
        };
        leads.max().map_or_else(first, |(_, node)| node.clone())
    }

    /// Returns the machines that are managers.
    pub(super) fn managers(&self) -> Vec<NodeId> {
        let machines = self.machines();
        let managers = machines.iter().filter(|(_, it)| it.role == Role::Manager && !it.retired);
        managers.map(|(node, _)| node.clone()).collect()
    }

    /// Returns the machine at an address.
    pub(super) fn at(&self, address: &str) -> Option<NodeId> {
        let machines = self.machines();
        let found = machines.iter().find(|(_, machine)| machine.address == address);
        found.map(|(node, _)| node.clone())
    }

    /// Returns where managers are as those say that were managers: the ones that a machine knows,
    /// those that they know, and so on, as far as they answer.
    pub(super) fn hearsay(&self, node: &NodeId, answers: impl Fn(&NodeId) -> bool) -> Vec<String> {
        let known = self.known_managers(node);
        let (mut heard, mut asked) = (known.clone(), 0);
        while let Some(address) = heard.get(asked) {
            asked += 1;
            let Some(other) = self.at(address) else { continue };
            let tells = {
                let machine = &self.machines()[&other];
                machine.role == Role::Manager || machine.was_manager
            };
            if tells && other != *node && answers(&other) {
                let told = self.known_managers(&other);
                let news: Vec<_> = told.into_iter().filter(|it| !heard.contains(it)).collect();
                heard.extend(news);
            }
        }
        heard.split_off(known.len())
    }

    /// Returns an address that no machine has.
    pub(super) fn new_address(&self) -> String {
        let mut taken = self.0.addresses.lock().unwrap();
        *taken += 1;
        format!("10.1.0.{taken}:2377")
    }

    /// Returns where a machine looks for managers, in order.
    pub(super) fn known_managers(&self, node: &NodeId) -> Vec<String> {
        let machines = self.machines();
        let Some(machine) = machines.get(node) else { return Vec::new() };
        machine.managers.iter().chain(&machine.joined).cloned().collect()
    }

    /// The cluster is made.
    pub(super) fn set_founded(&self) {
        self.0.founded.store(true, Ordering::Relaxed);
    }

    pub(super) fn number(&self, node: &NodeId) -> usize {
        self.0.names.lock().unwrap().iter().position(|id| id == node).unwrap_or(999)
    }

    pub(super) fn name(&self, node: &NodeId) -> String {
        format!("n{}", self.number(node))
    }

    pub(super) fn handle(&self, node: &NodeId) -> Option<Handle> {
        self.machines().get(node)?.handle.clone()
    }

    /// Mixes a line into the trace hash, and prints it where a run is replayed.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if self.0.verbose {
            let seconds = self.0.executor.now().since_origin().as_secs_f64();
            let mut text = String::new();
            let _infallible = writeln!(text, "{seconds:12.6} {}", line());
            let _lost = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }

    /// Ends the world. Daemons and consensus engines hold it, and it holds them: without this
    /// every run of a process would stay in its memory.
    pub(super) fn end(&self) {
        self.0.executor.shut_down();
        let ports = std::mem::take(&mut self.network().ports);
        let machines = std::mem::take(&mut *self.machines());
        drop((ports, machines));
    }

    /// Adds a machine, switched off.
    pub(super) fn add(
        &self,
        node: &NodeId,
        role: Role,
        address: String,
        joined: Vec<String>,
        (key_digest, papers): ([u8; 32], Papers),
    ) {
        let executor = &self.0.executor;
        let machine = Machine {
            fake: Arc::new(Mutex::new(Fake::new(executor.random(), Faults::default()))),
            agent_disk: FaultyDisk::default(),
            log_disk: None,
            hang: Hang::default(),
            role,
            address,
            managers: Vec::new(),
            joined,
            was_manager: false,
            key_digest,
            papers,
            member: node.member(),
            owner: None,
            handle: None,
            events: None,
            retired: false,
            stray: false,
            skew: executor.between(Duration::ZERO, Duration::from_secs(48 * 3_600)),
            boots: 0,
        };
        self.0.names.lock().unwrap().push(node.clone());
        self.machines().insert(node.clone(), machine);
    }

    /// Starts a machine's daemon.
    pub(super) fn start(&self, node: &NodeId) {
        let number = self.number(node) as u64;
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(node) else { return };
        if machine.owner.is_some() || machine.retired {
            return;
        }
        machine.boots += 1;
        let owner = self.0.executor.random() | 1;
        machine.owner = Some(owner);
        let host = self.host(number, machine);
        // The certificate decides: a worker keeps nothing of a manager.
        let manager = match machine.role {
            Role::Worker => {
                machine.stray = false;
                if machine.log_disk.take().is_some() {
                    machine.member = new_member_key(u128::from(self.0.executor.random()));
                }
                None
            }
            Role::Manager => {
                let disk = machine.log_disk.get_or_insert_default().clone();
                Some((disk, Arc::clone(&machine.hang), machine.member))
            }
        };
        let agent_disk = machine.agent_disk.clone();
        let events = async_channel::bounded(1_024);
        machine.events = Some(events.0.clone());
        let workload = SimWorkload {
            world: self.clone(),
            node: node.clone(),
            fake: Arc::clone(&machine.fake),
            host: host.clone(),
            events,
        };
        drop(machines);
        self.trace(|| format!("{} starts", self.name(node)));
        let (world, node) = (self.clone(), node.clone());
        self.0.executor.spawn_for(owner, async move {
            let ended = {
                let life = world.clone();
                life.live(node.clone(), owner, host, workload, agent_disk, manager).await
            };
            world.ended(&node, owner, &ended);
        });
    }

    /// Returns the clocks of a machine since it booted.
    pub(super) fn host(&self, number: u64, machine: &Machine) -> SimHost {
        let boots = machine.boots;
        SimHost {
            executor: self.0.executor.clone(),
            origin: Duration::from_secs(boots * 7_919),
            skew: machine.skew,
            stream: Arc::new(Mutex::new(self.0.seed ^ (number << 32) ^ (boots << 48))),
        }
    }

    /// One life of a daemon.
    async fn live(
        self,
        node: NodeId,
        owner: Owner,
        host: SimHost,
        workload: SimWorkload,
        agent_disk: FaultyDisk,
        manager: Option<(FaultyDisk, Hang, u64)>,
    ) -> Ended {
        let fatal = |error: String| Ended::Fatal { error };
        let disk = match AgentStore::open_on(agent_disk.backend()) {
            Ok(store) => SimDisk(Arc::new(store)),
            Err(error) => return fatal(error.to_string()),
        };
        let role = if manager.is_some() { Role::Manager } else { Role::Worker };
        let log = manager.map(|(disk, hang, key)| self.begin_log(&node, disk, hang, key));
        let engine = log.as_ref().map(|log| log.engine.clone());
        let manager = log.map(|log| {
            let member = log.engine.member;
            ManagerPorts { log, authority: SimAuthority, member }
        });
        let (inputs_tx, inputs) = async_channel::bounded(4_096);
        let (places_tx, places) = async_channel::bounded(1);
        let (world, own) = (self.clone(), node.clone());
        let (trusts_tx, trusts) = async_channel::bounded(1);
        let peers = SimPeers { world, node: own, inputs, places: places_tx, trusts: trusts_tx };
        let occurrences = Board::new(BoardLimits { recent: 1, waiting: 1, readers: 0 });
        let options = Options { node: node.clone(), agent: agent::Options::default(), occurrences };
        workload.watch();
        let events = workload.events.0.clone();
        let (handle, node_run) = node::new(options, Ports { host, disk, peers, workload, manager });
        if let Some(machine) = self.machines().get_mut(&node) {
            machine.handle = Some(handle);
        }
        let port = Port {
            owner,
            role,
            inputs: inputs_tx,
            engine,
            leader: LeaderAt::Nowhere,
            denied: BTreeSet::new(),
            workers: BTreeMap::new(),
            uplink: None,
            roster: Roster::default(),
            outdated: false,
        };
        self.network().ports.insert(node.clone(), port);
        let described =
            Event::Described { description: Box::new(self.description(&node)), images: Vec::new() };
        let _room = events.try_send(described);
        let executor = self.0.executor.clone();
        executor.spawn(self.clone().connect(node.clone()));
        executor.spawn(self.clone().follow_role(node.clone(), role, places));
        if self.renews() {
            executor.spawn(self.clone().follow_trust(node.clone(), role, trusts));
        }
        if role == Role::Manager {
            executor.spawn(self.clone().sample(node.clone()));
        }
        node_run.run().await
    }

    /// Starts the engine beside the driver, which it tells what is on disk.
    fn begin_log(&self, node: &NodeId, disk: FaultyDisk, hang: Hang, key: u64) -> SimLog {
        let (seen_tx, notices) = async_channel::bounded(1);
        let (to_driver, from_engine) = Consensus::<OnSim>::channel();
        let executor = self.0.executor.clone();
        executor.spawn(self.clone().look_on(node.clone(), from_engine.clone(), seen_tx));
        let engine = Engine { member: key, started: Arc::default() };
        let (world, started, node) = (self.clone(), Arc::clone(&engine.started), node.clone());
        executor.spawn(async move {
            let channel = (to_driver.clone(), from_engine);
            match world.start_log(node, key, disk, channel).await {
                Ok(engine) => drop(started.set(engine)),
                Err(error) => {
                    let _ended = to_driver.send(Notice::Fatal { error }).await;
                }
            }
        });
        SimLog { engine, notices, hang, executor }
    }

    fn start_log(
        &self,
        node: NodeId,
        key: u64,
        disk: FaultyDisk,
        channel: (Sender<Notice>, Receiver<Notice>),
    ) -> Boxed<Result<Consensus<OnSim>, String>> {
        let sealer = self.sealer();
        let settings = Settings {
            id: key,
            heartbeat: HEARTBEAT,
            election: ELECTION,
            snapshot_interval: SnapshotInterval::new(60),
        };
        let founds = !self.0.founded.load(Ordering::Relaxed);
        let peers = Arc::new(SimCall { world: self.clone(), node });
        Box::pin(async move {
            let store = ManagerStore::open_on(disk.backend(), sealer).map_err(|e| e.to_string())?;
            let store = Arc::new(store);
            let engine = Consensus::<OnSim>::start(&settings, store, peers, channel).await;
            let engine = engine.map_err(|error| error.to_string())?;
            if founds {
                let made = engine.initialize("10.1.0.1:2377".to_owned()).await;
                made.map_err(|error| error.to_string())?;
            }
            Ok(engine)
        })
    }

    /// Returns what seals a manager's log.
    pub(super) fn sealer(&self) -> Sealer {
        let draw = self.0.executor.clone();
        Sealer::new(1, &[7; 32], move || {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&draw.random().to_le_bytes());
            nonce
        })
    }

    /// Looks at everything that a manager applies before its driver gets it.
    async fn look_on(self, node: NodeId, notices: Receiver<Notice>, to: Sender<Notice>) {
        let mut applied = None;
        while let Ok(notice) = notices.recv().await {
            match &notice {
                Notice::Apply { entries, .. } => {
                    for entry in entries {
                        self.check_entry(&node, entry);
                        applied = Some(entry.index);
                    }
                }
                Notice::Leadership(now) => {
                    self.trace(|| format!("{} sees {now:?}", self.name(&node)));
                    self.check_leadership(&node, *now, applied);
                }
                Notice::Fatal { error } => {
                    self.trace(|| format!("the log of {}: {error}", self.name(&node)));
                }
                Notice::Install { index, .. } => {
                    self.trace(|| format!("{} takes the snapshot of #{index}", self.name(&node)));
                    applied = Some(*index);
                }
                Notice::Snapshot { .. } => {}
            }
            if to.send(notice).await.is_err() {
                return;
            }
        }
    }

    /// Takes a daemon out of the world. Its tasks must be gone, or about to end.
    fn bury(&self, node: &NodeId) {
        self.unplug(node);
        if let Some(machine) = self.machines().get_mut(node) {
            machine.owner = None;
            machine.handle = None;
            machine.events = None;
        }
    }

    fn ended(&self, node: &NodeId, owner: Owner, ended: &Ended) {
        self.trace(|| format!("{} ended: {ended}", self.name(node)));
        self.bury(node);
        if let Some(machine) = self.machines().get_mut(node) {
            machine.retired |= matches!(ended, Ended::Retired { .. });
            // A failed write leaves the database unusable, not the disk.
            machine.agent_disk.break_writes(false);
            if let Some(disk) = &machine.log_disk {
                disk.break_writes(false);
            }
        }
        let (world, node) = (self.clone(), node.clone());
        self.0.executor.spawn_for(0, async move {
            // What is left of this life ends with the process.
            world.0.executor.kill(owner);
            world.power_off_disks(&node, Crash::Kill);
            world.0.executor.sleep(Duration::from_secs(2)).await;
            world.start(&node);
        });
    }

    fn power_off_disks(&self, node: &NodeId, crash: Crash) {
        let executor = self.0.executor.clone();
        let machines = self.machines();
        let Some(machine) = machines.get(node) else { return };
        for disk in machine.log_disk.iter().chain([&machine.agent_disk]) {
            let executor = &executor;
            disk.crash(|| if crash == Crash::Kill { 0 } else { executor.random() });
        }
    }

    /// Kills a daemon, or its machine, between two polls. It stays off until started.
    pub(super) fn crash(&self, node: &NodeId, crash: Crash) {
        let owner = self.machines().get(node).and_then(|machine| machine.owner);
        if let Some(owner) = owner {
            self.trace(|| format!("{} crashes: {crash:?}", self.name(node)));
            self.power_off_disks(node, crash);
            self.0.executor.kill(owner);
            self.bury(node);
        }
        if crash == Crash::Power {
            let fake = self.machines().get(node).map(|machine| Arc::clone(&machine.fake));
            if let Some(fake) = fake {
                fake.lock().unwrap().reboot();
            }
        }
    }

    pub(super) fn description(&self, node: &NodeId) -> NodeDescription {
        NodeDescription {
            hostname: self.name(node),
            platform: Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                ..Platform::default()
            },
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 4 << 30 },
            generic: GenericResource::parse_list(
                &["gpu=a", "gpu=b", "gpu=c", "ssd=4"].map(str::to_owned),
            )
            .expect("it is well formed"),
            machine_id: self.name(node),
            ..NodeDescription::default()
        }
    }
}
