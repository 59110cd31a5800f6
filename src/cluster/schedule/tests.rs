//! Tests of the scheduler: filters and their texts, ranking, spread, replacements.

use super::*;
use crate::{
    cluster::{Change, Command},
    types::{
        Availability, CgroupSupport, Cluster, ClusterId, ClusterSpec, Constraint, ContainerSpec,
        Date, Desired, ImagePin, JoinToken, JoinTokens, Labels, Mode, Node, NodeDescription,
        NodeSpec, NodeState, NodeStatus, Platform, PortConfig, PublishMode, Resources, Role,
        RootCa, Service, ServiceSpec, TaskSpec,
    },
};
use expect_test::expect;

/// A gibibyte.
const GIB: u64 = 1 << 30;

pub(in crate::cluster) fn node(n: u128) -> Node {
    let spec =
        NodeSpec { labels: Labels::new(), role: Role::Worker, availability: Availability::Active };
    let description = NodeDescription {
        hostname: format!("n{n}"),
        platform: Platform::normalized("linux", "amd64", ""),
        resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 4 * GIB },
        cgroups: CgroupSupport { version: 2, cpu: true, memory: true, pids: true },
        ..NodeDescription::default()
    };
    let status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
    let mut key_digest = [0; 32];
    key_digest[..16].copy_from_slice(&n.to_be_bytes());
    Node {
        id: NodeId::from_bits(n),
        version: Version::ZERO,
        created: Date::EPOCH,
        updated: Date::EPOCH,
        spec,
        description,
        status,
        manager: None,
        role: Role::Worker,
        key_digest,
    }
}

fn task_spec() -> TaskSpec {
    let container = ContainerSpec { image: "bb:1".into(), ..ContainerSpec::default() };
    TaskSpec { container, ..TaskSpec::default() }
}

pub(in crate::cluster) struct Bench {
    pub(in crate::cluster) state: State,
    volatile: Volatile,
    index: u64,
    next: u128,
}

impl Bench {
    pub(in crate::cluster) fn new(nodes: Vec<Node>) -> Self {
        let mut bench =
            Self { state: State::default(), volatile: Volatile::default(), index: 0, next: 1 };
        let root = RootCa { certificate: Vec::new(), key: Vec::new(), digest: [0; 32] };
        let cluster = Cluster {
            id: ClusterId::from_bits(1),
            version: Version::ZERO,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            spec: ClusterSpec::default(),
            root,
            tokens: JoinTokens { worker: JoinToken(1), manager: JoinToken(2) },
            unlock_key: None,
            rotation: None,
            former_roots: Vec::new(),
        };
        let mut nodes = nodes.into_iter();
        if let Some(first) = nodes.next() {
            let (cluster, node) = (Box::new(cluster), Box::new(first));
            bench.apply(Change::CreateCluster { cluster, node });
        }
        for node in nodes {
            bench.apply(Change::CreateNode { node: Box::new(node) });
        }
        bench
    }

    pub(in crate::cluster) fn apply(&mut self, change: Change) {
        self.index += 1;
        let version = Version { epoch: 1, index: self.index };
        let command = Command { request: None, term: 1, date: Date::EPOCH, change };
        self.state.apply(version, 1, &command).expect("it holds");
    }

    pub(in crate::cluster) fn service(&mut self, task: TaskSpec, mode: Mode) -> ServiceId {
        self.next += 1;
        let id = ServiceId::from_bits(self.next);
        let name = format!("s{}", self.next);
        let spec = ServiceSpec { name, task, mode, ..ServiceSpec::default() };
        let service = Service {
            id: id.clone(),
            version: Version::ZERO,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            spec,
            spec_version: Version::ZERO,
            previous_spec: None,
            update: None,
            job: None,
        };
        self.apply(Change::CreateService { service: Box::new(service) });
        id
    }

    /// Makes pending tasks of a new service, changed as wanted.
    pub(in crate::cluster) fn tasks(
        &mut self,
        spec: TaskSpec,
        count: u64,
        change: impl Fn(&mut Task),
    ) -> Vec<TaskId> {
        let service = self.service(spec.clone(), Mode::Replicated { replicas: count });
        (1..=count).map(|slot| self.task(&service, slot, spec.clone(), &change)).collect()
    }

    fn task(
        &mut self,
        service: &ServiceId,
        slot: u64,
        spec: TaskSpec,
        change: impl Fn(&mut Task),
    ) -> TaskId {
        self.next += 1;
        let status = TaskStatus { state: TaskState::Pending, ..TaskStatus::default() };
        let spec_version = self.state.service(service).expect("made").spec_version;
        let mut task = Task {
            service: service.clone(),
            service_name: "s".into(),
            slot,
            spec: spec.into(),
            spec_version,
            status,
            ..Task::sample(self.next)
        };
        change(&mut task);
        let id = task.id.clone();
        self.apply(Change::ReplaceTasks { create: vec![task], desire: Vec::new() });
        id
    }

    pub(in crate::cluster) fn schedule(&self) -> Vec<Decision> {
        schedule(&self.state, &self.volatile, Moment::ZERO + Duration::from_secs(1_000))
    }

    /// Schedules and applies; returns how many tasks each node has, in order.
    pub(in crate::cluster) fn settle(&mut self) -> Vec<usize> {
        let decisions = self.schedule();
        self.apply(Change::Schedule { decisions });
        self.counts()
    }

    fn counts(&self) -> Vec<usize> {
        self.state.nodes().map(|node| self.state.tasks_on_node(&node.id).count()).collect()
    }

    /// Returns why the only task that waits does so.
    fn reason(&mut self) -> String {
        let decisions = self.schedule();
        self.apply(Change::Schedule { decisions: decisions.clone() });
        assert!(self.schedule().is_empty(), "the same reason is no news");
        decisions.iter().map(|decision| decision.error.as_str()).collect::<Vec<_>>().join("|")
    }

    fn report(&mut self, task: &TaskId, state: TaskState) {
        let status = TaskStatus { state, ..TaskStatus::default() };
        self.apply(Change::ReportTasks { reports: vec![(task.clone(), status)] });
    }
}

fn labelled(n: u128, zone: &str) -> Node {
    let mut node = node(n);
    node.spec.labels.insert("zone".into(), zone.into());
    node
}

fn with_platform(n: u128, architecture: &str) -> Node {
    let mut node = node(n);
    node.description.platform = Platform::normalized("linux", architecture, "");
    node
}

fn with_port(published: u16) -> impl Fn(&mut Task) {
    move |task: &mut Task| {
        let (name, protocol) = (String::new(), crate::types::PortProtocol::Tcp);
        let mode = PublishMode::Host;
        task.endpoint.ports =
            vec![PortConfig { name, protocol, target: 80, published, host_ip: None, mode }];
    }
}

fn nothing(_: &mut Task) {}

#[test]
fn a_port_is_taken_at_one_address_only() {
    let at = |address: &str| {
        let address = address.parse().ok();
        move |task: &mut Task| {
            with_port(80)(task);
            task.endpoint.ports[0].host_ip = address;
        }
    };
    let mut bench = Bench::new(vec![node(1)]);
    bench.tasks(task_spec(), 1, at("10.0.0.1"));
    bench.tasks(task_spec(), 1, at("10.0.0.2"));
    bench.tasks(task_spec(), 1, at("::"));
    assert_eq!(bench.settle(), vec![3]);
    bench.tasks(task_spec(), 1, at("10.0.0.2"));
    bench.tasks(task_spec(), 1, at(""));
    assert_eq!(bench.settle(), vec![3]);
}

#[test]
fn tasks_spread_over_nodes() {
    let mut bench = Bench::new((1..=3).map(node).collect());
    bench.tasks(task_spec(), 7, nothing);
    assert_eq!(bench.settle(), vec![3, 2, 2]);
    // Another service begins where least is.
    bench.tasks(task_spec(), 2, nothing);
    assert_eq!(bench.settle(), vec![3, 3, 3]);
    assert!(bench.schedule().is_empty());
}

#[test]
fn each_filter_says_why() {
    let mut paused = node(1);
    paused.spec.availability = Availability::Pause;
    let mut down = node(2);
    down.status.state = NodeState::Down;
    let mut bench = Bench::new(vec![paused, down, with_platform(3, "armv6l")]);
    let mut spec = task_spec();
    spec.placement.platforms = vec![Platform::normalized("linux", "arm", "v7")];
    bench.tasks(spec, 1, nothing);
    expect![
        "no suitable node (2 nodes not available for new tasks; unsupported platform on 1 node)"
    ]
    .assert_eq(&bench.reason());

    let mut all = Vec::new();
    let mut check = |nodes: Vec<Node>, change: &dyn Fn(&mut TaskSpec)| {
        let mut bench = Bench::new(nodes);
        let mut spec = task_spec();
        change(&mut spec);
        bench.tasks(spec, 1, nothing);
        all.push(bench.reason());
    };
    let two = || vec![node(1), node(2)];
    check(two(), &|spec| spec.reservations.memory_bytes = 5 * GIB);
    check(two(), &|spec| {
        let constraint = Constraint::parse("node.hostname!=n1").unwrap();
        spec.placement.constraints = vec![constraint, Constraint::parse("node.id==x").unwrap()];
    });
    let no_memory = |n| {
        let mut node = node(n);
        node.description.cgroups.memory = false;
        node
    };
    check(vec![no_memory(1), no_memory(2)], &|spec| spec.limits.memory_bytes = GIB);
    check(two(), &|spec| {
        let nodes = vec![NodeId::from_bits(9)];
        spec.pin = Some(ImagePin { digest: "sha256:1".into(), nodes });
    });
    check(Vec::new(), &|_| {});
    expect![[r#"
        no suitable node (insufficient resources on 2 nodes)
        no suitable node (scheduling constraints not satisfied on 2 nodes)
        no suitable node (memory limit needs the memory cgroup controller, missing on 2 nodes)
        no suitable node (image bb:1 came from no registry and is not held on 2 nodes)
        no suitable node"#]]
    .assert_eq(&all.join("\n"));
}

#[test]
fn resources_are_held_until_the_task_has_ended() {
    let mut bench = Bench::new(vec![node(1)]);
    let mut spec = task_spec();
    spec.reservations.nano_cpus = 3_000_000_000;
    let first = bench.tasks(spec.clone(), 1, nothing).remove(0);
    assert_eq!(bench.settle(), vec![1]);
    bench.report(&first, TaskState::Running);
    bench.apply(Change::ReplaceTasks {
        create: Vec::new(),
        desire: vec![(first.clone(), Desired::Shutdown)],
    });
    bench.tasks(spec, 1, nothing);
    expect!["no suitable node (insufficient resources on 1 node)"].assert_eq(&bench.reason());
    bench.report(&first, TaskState::Shutdown);
    assert_eq!(bench.settle(), vec![2]);
}

#[test]
fn a_host_port_is_taken_once_a_node() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    bench.tasks(task_spec(), 3, with_port(80));
    expect!["||no suitable node (host-mode port already in use on 2 nodes)"]
        .assert_eq(&bench.reason());
    assert_eq!(bench.counts(), vec![1, 1]);
}

#[test]
fn max_replicas_per_node_is_kept() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    let mut spec = task_spec();
    spec.placement.max_replicas_per_node = 2;
    bench.tasks(spec, 5, nothing);
    expect!["||||no suitable node (max replicas per node limit exceed)"].assert_eq(&bench.reason());
    assert_eq!(bench.counts(), vec![2, 2]);
}

#[test]
fn preferences_balance_zones_before_nodes() {
    let nodes = vec![labelled(1, "a"), labelled(2, "b"), labelled(3, "b"), labelled(4, "b")];
    let mut bench = Bench::new(nodes);
    let mut spec = task_spec();
    spec.placement.spread = vec!["node.labels.zone".into()];
    bench.tasks(spec.clone(), 6, nothing);
    assert_eq!(bench.settle(), vec![3, 1, 1, 1]);
    // A full zone leaves the rest to the other.
    spec.placement.max_replicas_per_node = 1;
    bench.tasks(spec, 4, nothing);
    assert_eq!(bench.settle(), vec![4, 2, 2, 2]);
}

#[test]
fn a_node_where_the_service_keeps_failing_comes_last() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    bench.tasks(task_spec(), 2, nothing);
    let task = bench.state.tasks().next().unwrap();
    let key = (task.service.clone(), task.spec_version, NodeId::from_bits(1));
    let now = Moment::ZERO + Duration::from_secs(999);
    let old = Moment::ZERO + Duration::from_secs(600);
    bench.volatile.failures.insert(key.clone(), vec![old, now, now, now, now]);
    let first = bench.schedule();
    assert_ne!(first[0].node, first[1].node, "four are no pattern");
    bench.volatile.failures.insert(key, vec![now; 5]);
    assert_eq!(bench.settle(), vec![0, 2]);
}

#[test]
fn images_held_by_nodes_limit_the_platforms() {
    let mut bench = Bench::new(vec![with_platform(1, "arm64"), node(2)]);
    let platforms = vec![Platform::normalized("linux", "arm64", "")];
    let held = HeldImage { name: "bb:1".into(), digest: "sha256:1".into(), platforms };
    bench.volatile.images.insert(NodeId::from_bits(1), vec![held]);
    bench.tasks(task_spec(), 2, nothing);
    assert_eq!(bench.settle(), vec![2, 0]);
}

#[test]
fn doubted_nodes_get_nothing_new() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    bench.volatile.suspects.insert(NodeId::from_bits(1));
    bench.tasks(task_spec(), 2, nothing);
    assert_eq!(bench.settle(), vec![0, 2]);
}

#[test]
fn a_replacement_takes_its_predecessors_room() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    let mut spec = task_spec();
    spec.reservations.memory_bytes = 3 * GIB;
    spec.placement.max_replicas_per_node = 1;
    let olds = bench.tasks(spec.clone(), 2, with_port(80));
    assert_eq!(bench.settle(), vec![1, 1]);
    let service = bench.state.task(&olds[0]).unwrap().service.clone();
    for old in &olds {
        bench.report(old, TaskState::Running);
        let slot = bench.state.task(old).unwrap().slot;
        bench.task(&service, slot, spec.clone(), |task| {
            with_port(80)(task);
            task.desired = Desired::Ready;
            task.predecessor = Some(old.clone());
        });
    }
    assert_eq!(bench.settle(), vec![2, 2]);
    for task in bench.state.tasks().filter(|task| task.predecessor.is_some()) {
        let old = bench.state.task(task.predecessor.as_ref().unwrap()).unwrap();
        assert_eq!(task.node, old.node, "in place");
    }
    // Credit is for that one task only.
    bench.tasks(spec, 1, nothing);
    expect!["no suitable node (insufficient resources on 2 nodes)"].assert_eq(&bench.reason());
}

#[test]
fn a_preassigned_task_is_only_filtered() {
    let mut bench = Bench::new(vec![node(1), node(2)]);
    let mut spec = task_spec();
    let service = bench.service(spec.clone(), Mode::Global);
    let on = |n| move |task: &mut Task| task.node = Some(NodeId::from_bits(n));
    bench.task(&service, 0, spec.clone(), on(1));
    assert_eq!(bench.settle(), vec![1, 0]);
    spec.reservations.memory_bytes = 5 * GIB;
    let service = bench.service(spec.clone(), Mode::Global);
    bench.task(&service, 0, spec, on(2));
    expect!["no suitable node (insufficient resources on 1 node)"].assert_eq(&bench.reason());
}

#[test]
fn a_thousand_tasks_find_their_nodes() {
    let mut bench =
        Bench::new((1..=100).map(|n| labelled(n, if n % 3 == 0 { "a" } else { "b" })).collect());
    let mut spec = task_spec();
    spec.placement.spread = vec!["node.labels.zone".into()];
    spec.placement.constraints = vec![Constraint::parse("node.role==worker").unwrap()];
    bench.tasks(spec, 1_000, nothing);
    let decisions = bench.schedule();
    assert_eq!(decisions.iter().filter(|decision| decision.node.is_some()).count(), 1_000);
}

#[test]
fn the_enforcer_turns_away_what_no_longer_fits() {
    use crate::cluster::enforce::enforce;
    let mut bench = Bench::new(vec![node(1)]);
    let mut spec = task_spec();
    spec.placement.constraints = vec![Constraint::parse("node.labels.zone!=b").unwrap()];
    let bound = bench.tasks(spec, 1, nothing).remove(0);
    let mut spec = task_spec();
    spec.reservations.memory_bytes = 2 * GIB;
    let both = bench.tasks(spec, 2, nothing);
    assert_eq!(bench.settle(), vec![3]);
    assert_eq!(enforce(&bench.state, Date::EPOCH), Vec::new());

    let changed = labelled(1, "b");
    let version = bench.state.node(&changed.id).unwrap().version;
    let (id, spec) = (changed.id.clone(), Box::new(changed.spec));
    bench.apply(Change::UpdateNode { id: id.clone(), expected: version, spec });
    let rejected = enforce(&bench.state, Date::EPOCH);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].0, bound);
    assert_eq!(rejected[0].1.state, TaskState::Rejected);
    assert_eq!(rejected[0].1.error, "assigned node no longer meets constraints");

    let mut description = Box::new(node(1).description);
    description.resources.memory_bytes = 3 * GIB;
    bench.apply(Change::DescribeNode { id, description, address: String::new() });
    let rejected: Vec<TaskId> =
        enforce(&bench.state, Date::EPOCH).into_iter().map(|(task, _)| task).collect();
    assert_eq!(rejected, vec![bound, both[1].clone()]);
}
