//! A small world: one leader whose proposals commit at once, and workers that do as told.

use crate::{
    cluster::{
        Applied, Change, Command, Effect, Event, Leader, Query, Refusal, Request, Response, State,
        Ticket, decode_entry, encode_entry, invariants,
    },
    types::{
        Availability, Cluster, ClusterId, ClusterSpec, ContainerSpec, Date, Desired, Entropy,
        FromManager, FromWorker, JoinToken, JoinTokens, ManagerStatus, Mode, Moment, Node,
        NodeDescription, NodeId, NodeSpec, NodeStatus, Platform, Register, RequestId, Resources,
        Role, RootCa, Sequence, Service, ServiceId, ServiceSpec, Task, TaskId, TaskReport,
        TaskSpec, TaskState, TaskStatus, Version,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

pub(crate) const BEAT: Duration = Duration::from_millis(1_500);

/// A worker, as far as the leader sees one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    pub(crate) session: u64,
    pub(crate) linked: bool,
    pub(crate) applied: Sequence,
    pub(crate) tasks: BTreeMap<TaskId, (Task, TaskStatus)>,
    pub(crate) reports: u64,
    pub(crate) taken: BTreeSet<u64>,
    pub(crate) heard: Vec<FromManager>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) leader: Leader,
    pub(crate) now: Moment,
    pub(crate) date: Date,
    pub(crate) index: u64,
    pub(crate) workers: BTreeMap<NodeId, Worker>,
    pub(crate) replies: BTreeMap<Ticket, Result<Response, Refusal>>,
    pub(crate) proposals: usize,
    /// Whether proposals are committed; otherwise they wait.
    pub(crate) commits: bool,
    pub(crate) pending: Option<Vec<Command>>,
    pub(crate) rejected: Vec<String>,
    /// The consensus group that the leader wants.
    pub(crate) group: BTreeMap<u64, String>,
    /// The longest desired or committed states seen: neither ever falls.
    seen: BTreeMap<TaskId, (TaskState, Desired)>,
    tickets: u64,
    next_beat: Moment,
    seed: u64,
    /// The managers that pass on sessions of workers.
    pub(crate) ways: BTreeMap<NodeId, NodeId>,
}

pub(crate) fn id(number: u128) -> NodeId {
    NodeId::from_bits(number)
}

pub(crate) fn replicated(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        task: TaskSpec {
            container: ContainerSpec { image: "good:1".to_owned(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        },
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    }
}

fn description(number: u128) -> NodeDescription {
    NodeDescription {
        hostname: format!("node{number}"),
        platform: Platform::normalized("linux", "amd64", ""),
        resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 4 << 30 },
        machine_id: format!("machine{number}"),
        ..NodeDescription::default()
    }
}

/// Where a node is seen.
fn address_of(node: &NodeId) -> String {
    let number = u128::from_str_radix(node.as_str(), 36).expect("an id is a number");
    format!("10.0.0.{number}")
}

fn node(number: u128, role: Role) -> Node {
    let mut key_digest = [0; 32];
    key_digest[0] = u8::try_from(number).expect("few nodes");
    Node {
        id: id(number),
        version: Version::ZERO,
        created: Date::EPOCH,
        updated: Date::EPOCH,
        spec: NodeSpec {
            labels: BTreeMap::new(),
            role,
            availability: if role == Role::Manager {
                Availability::Drain
            } else {
                Availability::Active
            },
        },
        description: description(number),
        status: NodeStatus::default(),
        manager: (role == Role::Manager).then(|| ManagerStatus {
            address: format!("10.0.0.{number}:2377"),
            raft_id: id(number).member(),
        }),
        role,
        key_digest,
    }
}

impl World {
    /// A manager that runs nothing (node 0) and `workers` workers, all in touch.
    pub(crate) fn new(workers: u128) -> Self {
        let mut state = State::default();
        let date = Date::from_unix_seconds(1_000_000);
        let cluster = Cluster {
            id: ClusterId::from_bits(1),
            version: Version::ZERO,
            created: date,
            updated: date,
            spec: ClusterSpec::default(),
            root: RootCa { certificate: vec![1], key: vec![2], digest: [3; 32] },
            tokens: JoinTokens { worker: JoinToken(11), manager: JoinToken(12) },
            unlock_key: None,
            rotation: None,
            former_roots: Vec::new(),
        };
        let mut changes = vec![Change::CreateCluster {
            cluster: Box::new(cluster),
            node: Box::new(node(0, Role::Manager)),
        }];
        changes.extend(
            (1..=workers)
                .map(|number| Change::CreateNode { node: Box::new(node(number, Role::Worker)) }),
        );
        for change in changes {
            let command = Command { request: None, term: 1, date, change };
            let applied = state.apply(Version { epoch: 1, index: 1 }, 1, &command);
            assert!(applied.is_ok(), "{applied:?}");
        }
        let now = Moment::ZERO + Duration::from_secs(100);
        let (leader, effects) = Leader::new(&state, now, date, (1, false), 7);
        let mut world = Self {
            state,
            leader,
            now,
            date,
            index: 1,
            workers: BTreeMap::new(),
            replies: BTreeMap::new(),
            proposals: 0,
            commits: true,
            pending: None,
            rejected: Vec::new(),
            group: BTreeMap::new(),
            seen: BTreeMap::new(),
            tickets: 0,
            next_beat: now + BEAT,
            seed: 7,
            ways: BTreeMap::new(),
        };
        world.carry_out(effects);
        for number in 0..=workers {
            world.link(number);
        }
        world
    }

    /// Connects a worker: it registers.
    pub(crate) fn link(&mut self, number: u128) {
        self.link_as(number, description(number), vec![]);
    }

    pub(crate) fn link_as(
        &mut self,
        number: u128,
        description: NodeDescription,
        successors: Vec<crate::types::LocalSuccessor>,
    ) {
        self.seed += 1;
        let session = self.seed;
        let worker = self.workers.entry(id(number)).or_default();
        worker.session = session;
        worker.linked = true;
        worker.applied = Sequence::default();
        let tasks = worker
            .tasks
            .iter()
            .map(|(task, (_, status))| TaskReport { task: task.clone(), status: status.clone() });
        let register =
            Register { session, description, images: vec![], tasks: tasks.collect(), successors };
        self.say(number, FromWorker::Register(Box::new(register)));
    }

    /// Cuts a worker off; what it runs goes on.
    pub(crate) fn cut(&mut self, number: u128) {
        self.workers.get_mut(&id(number)).expect("a worker").linked = false;
    }

    pub(crate) fn say(&mut self, number: u128, message: FromWorker) {
        let address = address_of(&id(number));
        self.event(Event::Message {
            node: id(number),
            address,
            via: self.ways.get(&id(number)).cloned(),
            message,
        });
    }

    /// Says one status of one task on behalf of its node.
    pub(crate) fn report(&mut self, task: &TaskId, state: TaskState, error: &str) {
        let node = self.task(task).node.expect("a node");
        let date = self.date;
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let status = TaskStatus { state, date, error: error.to_owned(), ..TaskStatus::default() };
        if let Some((_, known)) = worker.tasks.get_mut(task) {
            *known = status.clone();
        }
        if !worker.linked {
            return;
        }
        worker.reports += 1;
        let (session, number) = (worker.session, worker.reports);
        let tasks = vec![TaskReport { task: task.clone(), status }];
        let message = FromWorker::Report { session, number, tasks };
        let address = address_of(&node);
        self.event(Event::Message { node, address, via: None, message });
    }

    pub(crate) fn event(&mut self, event: Event) {
        let effects = self.leader.step(&self.state, self.now, self.date, event);
        self.carry_out(effects);
    }

    pub(crate) fn request(&mut self, request: Request) -> Result<Response, Refusal> {
        let ticket = self.ask(request);
        // After a failed proposal, the next waits a little.
        for _ in 0..20 {
            if !self.replies.contains_key(&ticket) {
                self.advance(Duration::from_millis(100));
            }
        }
        self.replies.remove(&ticket).expect("an answer")
    }

    pub(crate) fn read(&self, query: &Query) -> Result<Response, Refusal> {
        self.leader.read(&self.state, (self.now, self.date), query)
    }

    pub(crate) fn ask(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.event(Event::Request { ticket, request });
        ticket
    }

    pub(crate) fn request_id(&mut self) -> RequestId {
        self.seed += 1;
        RequestId::from_bits(u128::from(self.seed))
    }

    pub(crate) fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let request = self.request_id();
        match self.request(Request::CreateService { request, spec: Box::new(spec) }) {
            Ok(Response::Created(id)) => id,
            other => panic!("not created: {other:?}"),
        }
    }

    pub(crate) fn remove(&mut self, id: &ServiceId) {
        let (request, id) = (self.request_id(), id.clone());
        let answer = self.request(Request::RemoveService { request, id });
        assert_eq!(answer, Ok(Response::Done));
    }

    pub(crate) fn update(&mut self, id: &ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service(id);
        let mut spec = service.spec;
        change(&mut spec);
        let request = self.request_id();
        let (id, version, spec) = (id.clone(), service.version, Box::new(spec));
        let answer = self.request(Request::UpdateService { request, id, version, spec });
        assert_eq!(answer, Ok(Response::Done));
    }

    pub(crate) fn set_availability(&mut self, number: u128, availability: Availability) {
        self.update_node(number, |spec| spec.availability = availability);
    }

    pub(crate) fn update_node(&mut self, number: u128, change: impl FnOnce(&mut NodeSpec)) {
        let node = self.state.node(&id(number)).expect("a node").clone();
        let mut spec = node.spec;
        change(&mut spec);
        let request = self.request_id();
        let (id, version) = (node.id, node.version);
        let answer = self.request(Request::UpdateNode { request, id, version, spec });
        assert_eq!(answer, Ok(Response::Done));
    }

    pub(crate) fn service(&self, id: &ServiceId) -> Service {
        self.state.service(id).expect("a service").clone()
    }

    pub(crate) fn task(&self, id: &TaskId) -> Task {
        self.state.task(id).expect("a task").clone()
    }

    /// Lets time pass, with beats and deadlines at their times.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let mut next = end.min(self.next_beat);
            if let Some(deadline) = self.leader.next_deadline() {
                next = next.min(deadline.max(self.now + Duration::from_millis(1)));
            }
            self.date = self.date + next.since(self.now);
            self.now = next;
            if self.now >= self.next_beat {
                self.next_beat = self.now + BEAT;
                self.beat_all();
            }
            self.event(Event::Tick);
            let next = self.leader.next_deadline();
            assert!(next.is_none_or(|at| at > self.now), "a deadline that passed was left");
        }
    }

    pub(crate) fn beat_all(&mut self) {
        let linked = self.workers.iter().filter(|(_, worker)| worker.linked);
        let beats: Vec<_> =
            linked.map(|(id, worker)| (id.clone(), worker.session, worker.applied)).collect();
        for (node, session, applied) in beats {
            let message = FromWorker::Heartbeat { session, applied };
            let address = address_of(&node);
            self.event(Event::Message { node, address, via: None, message });
        }
    }

    /// Lets time pass in which nobody leads.
    pub(crate) fn pass_unled(&mut self, time: Duration) {
        self.now = self.now + time;
        self.date = self.date + time;
        self.next_beat = self.now + BEAT;
    }

    /// Replaces the leader by a new one, which knows only the state.
    pub(crate) fn fail_over(&mut self, term: u64) {
        self.pending = None;
        self.seed += 1;
        let (leader, effects) =
            Leader::new(&self.state, self.now, self.date, (term, false), self.seed);
        self.leader = leader;
        self.carry_out(effects);
    }

    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose(commands) => {
                    self.proposals += 1;
                    assert!(self.pending.is_none(), "two proposals at once");
                    self.pending = Some(commands);
                }
                Effect::Reply { ticket, result } => {
                    assert!(self.replies.insert(ticket, result).is_none(), "answered twice");
                }
                Effect::Send { node, message } => self.deliver(&node, message),
                Effect::SetGroup(members) => self.group = members,
                Effect::Disconnect { node } => {
                    if let Some(worker) = self.workers.get_mut(&node) {
                        worker.linked = false;
                    }
                }
            }
        }
        if self.commits {
            self.commit();
        }
    }

    /// Commits the proposal that waits.
    pub(crate) fn commit(&mut self) {
        if let Some(commands) = self.pending.take() {
            self.commit_entry(&commands);
        }
    }

    /// Loses the proposal that waits; returns it, for it may be committed yet.
    pub(crate) fn fail_proposal(&mut self) -> Option<Vec<Command>> {
        let lost = self.pending.take();
        if lost.is_some() {
            self.event(Event::ProposalFailed { error: "no quorum".to_owned() });
        }
        lost
    }

    /// Commits an entry, whoever proposed it.
    pub(crate) fn commit_entry(&mut self, commands: &[Command]) {
        let commands = decode_entry(&encode_entry(commands)).expect("what was just encoded");
        // Entries of the engine's own lie between.
        self.index += 2;
        let version = Version { epoch: self.state.epoch(), index: self.index };
        let term = commands.first().map_or(0, |command| command.term);
        let mut outcomes: Vec<(Command, Result<Applied, _>)> = Vec::new();
        for command in commands {
            let outcome = self.state.apply(version, term, &command);
            if let Err(rejected) = &outcome {
                self.rejected.push(format!("{rejected}: {:?}", command.change));
            }
            outcomes.push((command, outcome));
        }
        self.check();
        self.event(Event::Applied { version, outcomes });
    }

    pub(crate) fn check(&mut self) {
        if let Err(broken) = invariants::check(&self.state) {
            panic!("{broken}\n{}", self.tasks());
        }
        for task in self.state.tasks() {
            let now = (task.status.state, task.desired);
            let before = self.seen.insert(task.id.clone(), now).unwrap_or(now);
            assert!(before.0 <= now.0 && before.1 <= now.1, "{} fell: {before:?}", task.id);
        }
    }

    fn deliver(&mut self, node: &NodeId, message: FromManager) {
        let Some(worker) = self.workers.get_mut(node).filter(|worker| worker.linked) else {
            return;
        };
        match message {
            FromManager::Assignments(set) if set.session == worker.session => {
                let follows = set.sequence.number == worker.applied.number + 1;
                if !set.complete && !follows {
                    return;
                }
                worker.applied = set.sequence;
                if set.complete {
                    let ids: BTreeSet<_> = set.tasks.iter().map(|task| task.id.clone()).collect();
                    worker.tasks.retain(|id, _| ids.contains(id));
                }
                for id in &set.removed {
                    worker.tasks.remove(id);
                }
                for task in set.tasks {
                    let status = worker.tasks.remove(&task.id).map(|(_, status)| status);
                    let status = status.unwrap_or_else(|| task.status.clone());
                    worker.tasks.insert(task.id.clone(), (task, status));
                }
            }
            FromManager::ReportTaken { number, .. } => {
                worker.taken.insert(number);
            }
            other => worker.heard.push(other),
        }
    }

    /// Lets every worker do what it was told, until nothing changes: images named `bad` cannot be
    /// had, `slow` never come, `crash` fails once started, `unwell` is never found healthy, `done`
    /// ends well, `stuck` never stops.
    pub(crate) fn work(&mut self) {
        for _ in 0..1_000 {
            let mut news = Vec::new();
            for worker in self.workers.values() {
                for (id, (task, status)) in &worker.tasks {
                    if let Some(next) = next_state(task, status.state) {
                        news.push((id.clone(), next));
                    }
                }
            }
            if news.is_empty() {
                return;
            }
            for (id, (state, error)) in news {
                if self.state.task(&id).is_some() {
                    self.report(&id, state, error);
                } else {
                    self.workers.values_mut().for_each(|worker| {
                        worker.tasks.remove(&id);
                    });
                }
            }
        }
        panic!("the workers never come to rest:\n{}", self.tasks());
    }

    /// Work and time by turns.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.work();
        while self.now < end {
            self.advance(Duration::from_millis(500).min(end.since(self.now)));
            self.work();
        }
    }

    /// Renders every task: slot, node, desired and observed state, why it is there.
    pub(crate) fn tasks(&self) -> String {
        let mut tasks: Vec<Task> =
            match self.read(&Query::Tasks { services: vec![], nodes: vec![] }) {
                Ok(Response::Tasks(tasks)) => tasks,
                other => panic!("{other:?}"),
            };
        tasks.sort_by_key(|task| {
            (task.service_name.clone(), task.slot, task.created, task.failures, task.id.clone())
        });
        let mut text = String::new();
        for task in tasks {
            let node = task.node.as_ref().map_or("-", |node| node.as_str());
            let node = node.trim_start_matches('0');
            let reason = task.reasons.last().map(|reason| format!("{:?}", reason.code));
            let mut line = format!(
                "{}.{} on {}: {}/{} {}",
                task.service_name,
                task.slot,
                if node.is_empty() { "0" } else { node },
                task.desired,
                task.status.state,
                reason.unwrap_or_default(),
            );
            if !task.status.error.is_empty() {
                write!(line, " ({})", task.status.error).expect("memory");
            }
            writeln!(text, "{line}").expect("memory");
        }
        text
    }

    pub(crate) fn wanted(&self) -> Vec<Task> {
        self.state.tasks().filter(|task| task.is_active()).cloned().collect()
    }

    pub(crate) fn running_on(&self, number: u128) -> usize {
        let tasks = self.state.tasks_on_node(&id(number));
        tasks.filter(|t| t.is_active() && t.status.state == TaskState::Running).count()
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        struct Seeded<'a>(&'a mut u64);
        impl Entropy for Seeded<'_> {
            fn next_u64(&mut self) -> u64 {
                *self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                *self.0 >> 33
            }
        }
        Seeded(&mut self.seed).next_u64() % below
    }
}

fn next_state(task: &Task, state: TaskState) -> Option<(TaskState, &'static str)> {
    let image = task.spec.container.image.as_str();
    let image = image.split(':').next().unwrap_or(image);
    if state > TaskState::Running {
        return None;
    }
    if !task.desired.is_wanted() {
        return (image != "stuck").then_some((TaskState::Shutdown, ""));
    }
    match (image, state) {
        ("bad", _) => Some((TaskState::Rejected, "no such image")),
        ("slow", TaskState::Assigned) | ("unwell", TaskState::Ready) => None,
        (_, TaskState::Assigned) => Some((TaskState::Ready, "")),
        (_, TaskState::Ready) if task.desired.may_run() => Some((TaskState::Running, "")),
        ("crash", TaskState::Running) => Some((TaskState::Failed, "exit status 1")),
        ("done", TaskState::Running) => Some((TaskState::Complete, "")),
        _ => None,
    }
}
