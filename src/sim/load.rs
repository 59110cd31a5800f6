//! What users do to a cluster: services come, change, scale and go; nodes are drained, labelled
//! and removed. Every request is repeated under its id until it is answered.

use super::{
    executor::Executor,
    group::History,
    trust::{FIRST, Papers, root},
    world::World,
};
use crate::{
    cluster::{Change, Class, Command, JoinRequest, Query, Refusal, Request, Response, State},
    types::{
        Availability, Cluster, ClusterId, ClusterSpec, Constraint, ContainerSpec, Date, Entropy,
        FailureAction, HealthCheck, HealthTest, JoinToken, JoinTokens, ManagerStatus, Mode, Node,
        NodeDescription, NodeId, NodeSpec, NodeStatus, Ratio, RequestId, RestartPolicy, Role,
        Service, ServiceId, ServiceSpec, TaskSpec, UPDATE_PROGRESS_DEADLINE, UpdateConfig,
        UpdateOrder, Version,
    },
};
use std::time::Duration;

/// How long one try of a request may take.
const TRY: Duration = Duration::from_secs(15);

impl Entropy for Executor {
    fn next_u64(&mut self) -> u64 {
        self.random()
    }
}

/// More managers than this survive nothing more.
const MANAGERS_MAX: usize = 7;

/// How often, in a thousand, a user who may demote a manager while another one is down does so. Most
/// of these are refused.
const MISTAKES: u64 = 500;

/// How often, in a thousand, a user who replaces the root at all does so.
const ROTATIONS: u64 = 150;

const WORKER_TOKEN: JoinToken = JoinToken(1);
const MANAGER_TOKEN: JoinToken = JoinToken(2);

impl World {
    pub(super) fn request_id(&self) -> RequestId {
        RequestId::generate(&mut self.0.executor.clone())
    }

    /// Asks until there is an answer: any manager, each time another.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, Refusal> {
        let before = {
            let history = &mut self.checks().history;
            history.asked(&request);
            history.clone()
        };
        loop {
            let managers = self.managers();
            if let Some(handle) = self.any(&managers).and_then(|node| self.handle(node)) {
                match handle.request(request.clone(), TRY).await {
                    Err(refusal) if refusal.class == Class::Unavailable => {
                        self.trace(|| format!("refused: {refusal}"));
                    }
                    result => {
                        self.trace(|| format!("asked: {request:?}: {result:?}"));
                        self.check_answer(&before, &request, &result);
                        return result;
                    }
                }
            }
            self.0.executor.sleep(Duration::from_millis(500)).await;
        }
    }

    fn check_answer(
        &self,
        before: &History,
        request: &Request,
        result: &Result<Response, Refusal>,
    ) {
        let mut checks = self.checks();
        if checks.history.is_another_than(before) {
            return;
        }
        match result {
            Ok(Response::Services(services)) => before.check_read(&checks.history, services),
            Ok(Response::Created(id)) => checks.history.acknowledged(request, Some(id)),
            Ok(_) => checks.history.acknowledged(request, None),
            Err(_) => {}
        }
    }

    /// Makes the cluster on its manager.
    pub(super) async fn bootstrap(&self) {
        let node = self.leader();
        let (raft_id, address) = (node.member(), self.machines()[&node].address.clone());
        let id = ClusterId::from_bits(1);
        let cluster = Cluster {
            id,
            version: Version::ZERO,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            spec: ClusterSpec { snapshot_interval: 60, ..ClusterSpec::default() },
            root: root(FIRST),
            tokens: JoinTokens { worker: WORKER_TOKEN, manager: MANAGER_TOKEN },
            unlock_key: None,
            rotation: None,
            former_roots: Vec::new(),
        };
        let spec = node_spec(Role::Manager, Availability::Active);
        let node = Node {
            id: node,
            version: Version::ZERO,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            spec,
            description: NodeDescription::default(),
            status: NodeStatus::default(),
            manager: Some(ManagerStatus { address, raft_id }),
            role: Role::Manager,
            key_digest: [0; 32],
        };
        let change = Change::CreateCluster { cluster: Box::new(cluster), node: Box::new(node) };
        let request = Some(self.request_id());
        let command = Command { request, term: 0, date: Date::EPOCH, change };
        loop {
            if let Some(handle) = self.handle(&self.leader()) {
                match handle.bootstrap(command.clone(), TRY).await {
                    Ok(_) => return self.set_founded(),
                    Err(refusal) => assert_eq!(refusal.class, Class::Unavailable, "{refusal}"),
                }
            }
            self.0.executor.sleep(Duration::from_millis(500)).await;
        }
    }

    /// Joins a machine, and switches it on.
    pub(super) async fn join(&self, role: Role) -> NodeId {
        let mut key_digest = [0; 32];
        key_digest[..8].copy_from_slice(&self.0.executor.random().to_le_bytes());
        let address = self.new_address();
        let join = JoinRequest {
            labels: std::collections::BTreeMap::new(),
            secret: if role == Role::Manager { MANAGER_TOKEN } else { WORKER_TOKEN },
            csr: vec![1],
            key_digest,
            description: NodeDescription::default(),
            availability: Availability::Active,
            address: "10.0.0.9".to_owned(),
            advertise: address.clone(),
        };
        let managers = self.managers();
        let joined = managers.iter().map(|node| self.machines()[node].address.clone()).collect();
        match self.ask(Request::Join(Box::new(join))).await {
            Ok(Response::Admitted(admission)) => {
                assert!(!admission.certificate.is_empty(), "admitted without a certificate");
                assert_eq!(admission.role, role, "a token stands for one role");
                let papers = {
                    let checks = self.checks();
                    let cluster = checks.state.cluster().expect("there is one that it joined");
                    Papers::new(admission.certificate.clone(), &cluster.root)
                };
                self.add(&admission.node, role, address, joined, (key_digest, papers));
                self.start(&admission.node);
                admission.node
            }
            other => panic!("a join was answered {other:?}"),
        }
    }

    pub(super) async fn services(&self) -> Vec<Service> {
        match self.ask(Request::Read(Query::Services)).await {
            Ok(Response::Services(services)) => services,
            other => panic!("a read was answered {other:?}"),
        }
    }

    pub(super) async fn nodes(&self) -> Vec<Node> {
        match self.ask(Request::Read(Query::Nodes)).await {
            Ok(Response::Nodes(nodes)) => nodes,
            other => panic!("a read was answered {other:?}"),
        }
    }

    pub(super) async fn create(&self, spec: ServiceSpec) -> Result<ServiceId, Refusal> {
        let request = self.request_id();
        match self.ask(Request::CreateService { request, spec: Box::new(spec) }).await? {
            Response::Created(id) => Ok(id),
            other => panic!("a create was answered {other:?}"),
        }
    }

    pub(super) async fn update(
        &self,
        service: &Service,
        spec: ServiceSpec,
    ) -> Result<Response, Refusal> {
        let (request, id, version) = (self.request_id(), service.id.clone(), service.version);
        self.ask(Request::UpdateService { request, id, version, spec: Box::new(spec) }).await
    }

    pub(super) async fn remove_service(&self, id: ServiceId) -> Result<Response, Refusal> {
        self.ask(Request::RemoveService { request: self.request_id(), id }).await
    }

    pub(super) async fn update_node(
        &self,
        node: &Node,
        spec: NodeSpec,
    ) -> Result<Response, Refusal> {
        let (request, id, version) = (self.request_id(), node.id.clone(), node.version);
        self.ask(Request::UpdateNode { request, id, version, spec }).await
    }

    /// Removes a node, Ready or not.
    pub(super) async fn forget(&self, node: &NodeId) -> Result<Response, Refusal> {
        let (request, id) = (self.request_id(), node.clone());
        self.ask(Request::RemoveNode { request, id, force: true }).await
    }

    /// Draws a service.
    fn draw_service(&self, name: String) -> ServiceSpec {
        let executor = &self.0.executor;
        let mode = match executor.below(20) {
            0..=4 => Mode::Global,
            5..=7 => Mode::ReplicatedJob {
                max_concurrent: executor.below(4),
                total_completions: executor.below(8),
            },
            8..=9 => Mode::GlobalJob,
            _ => Mode::Replicated { replicas: executor.below(6) },
        };
        let mut spec = service_spec(&name, mode);
        spec.task.restart.delay = Duration::from_millis(executor.below(3_000));
        if executor.chance(300) {
            // Well before its start period is over; later only the weather is against it.
            let seconds = executor.below(15).to_string();
            spec.task.container.health = Some(health_check(&["after", &seconds]));
        }
        if !mode.is_job() {
            (spec.update, spec.rollback) = (self.draw_update(true), self.draw_update(false));
        }
        if mode.is_job() && executor.chance(300) {
            spec.task.restart.max_attempts = 1 + executor.below(3);
        }
        if executor.chance(100) {
            let kind = if executor.chance(500) { "gpu" } else { "ssd" };
            spec.task.generic.insert(kind.to_owned(), 1 + executor.below(2));
        }
        if executor.chance(200) {
            let zone = if executor.chance(500) { "a" } else { "b" };
            let constraint = Constraint::parse(&format!("node.labels.zone=={zone}"));
            spec.task.placement.constraints = vec![constraint.expect("it is well formed")];
        }
        spec
    }

    /// Draws how a service is updated, or rolled back.
    fn draw_update(&self, rolls_back: bool) -> UpdateConfig {
        let executor = &self.0.executor;
        let up_to = |millis| Duration::from_millis(executor.below(millis));
        UpdateConfig {
            parallelism: executor.below(4),
            delay: if executor.chance(300) { up_to(5_000) } else { Duration::ZERO },
            failure_action: match executor.below(3) {
                0 => FailureAction::Pause,
                1 => FailureAction::Continue,
                _ if rolls_back => FailureAction::Rollback,
                _ => FailureAction::Pause,
            },
            monitor: up_to(8_000),
            max_failure_ratio: match executor.below(3) {
                0 => Ratio::from_fraction(0.4).expect("it is a fraction"),
                _ => Ratio::default(),
            },
            order: match executor.chance(400) {
                true => UpdateOrder::StartFirst,
                false => UpdateOrder::StopFirst,
            },
            progress_deadline: match executor.chance(300) {
                true => Duration::from_secs(20 + executor.below(100)),
                false => UPDATE_PROGRESS_DEADLINE,
            },
        }
    }

    /// Replaces images that nothing ever runs well from, as a user does in the end.
    pub(super) async fn mend_images(&self) {
        for service in self.services().await {
            let id = service.id.clone();
            let runs_bad = |state: &State| {
                let mut tasks = state.tasks_of_service(&id);
                tasks.any(|task| task.desired.is_wanted() && !is_good(&task.spec.container.image))
            };
            while let Some(service) = self.services().await.into_iter().find(|it| it.id == id) {
                let bad = !is_good(&service.spec.task.container.image);
                if !bad && !runs_bad(&self.checks().state) {
                    break;
                }
                let mut spec = service.spec.clone();
                spec.task.container.image = GOOD_IMAGES[0].to_owned();
                // What no node takes is given up, place by place, and not for what was there before.
                spec.update.progress_deadline = Duration::from_secs(60);
                spec.update.failure_action = FailureAction::Continue;
                if self.update(&service, spec).await.is_ok() {
                    break;
                }
            }
        }
    }

    /// Does one thing that a user might.
    #[expect(clippy::too_many_lines, reason = "one list of what users do")]
    pub(super) async fn do_something(&self) {
        let executor = &self.0.executor;
        if self.changes_roles()
            && let Some(node) = self.demoted_by_mistake()
            && executor.chance(MISTAKES)
        {
            let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
            let _refused = self.update_node(&node, spec).await;
            return;
        }
        if self.rotates() && executor.chance(ROTATIONS) {
            return self.rotate_root().await;
        }
        match executor.below(12) {
            0..=2 => {
                let name = format!("s{}", executor.below(6));
                let _taken = self.create(self.draw_service(name)).await;
            }
            3..=6 => {
                let services = self.services().await;
                let Some(service) = self.any(&services) else { return };
                let mut spec = service.spec.clone();
                match (executor.below(3), spec.mode) {
                    (0 | 1, Mode::Replicated { .. }) => {
                        spec.mode = Mode::Replicated { replicas: executor.below(8) };
                    }
                    (0 | 1, Mode::ReplicatedJob { max_concurrent, .. }) => {
                        let total_completions = executor.below(10);
                        spec.mode = Mode::ReplicatedJob { max_concurrent, total_completions };
                    }
                    (2, _) if executor.chance(400) => spec.task.force_update += 1,
                    (2, Mode::Replicated { .. } | Mode::Global) if executor.chance(700) => {
                        spec.task.container.image = self.draw_image();
                    }
                    (2, Mode::Replicated { .. } | Mode::Global) => {
                        spec.update = self.draw_update(true);
                    }
                    _ => spec.task.container.env = vec![format!("V={}", executor.below(9))],
                }
                let _conflict = self.update(service, spec).await;
            }
            7 => {
                let services = self.services().await;
                let Some(service) = self.any(&services) else { return };
                let _gone = self.remove_service(service.id.clone()).await;
            }
            8..=10 => {
                let nodes = self.nodes().await;
                let Some(node) = self.any(&nodes) else { return };
                let mut spec = node.spec.clone();
                if self.changes_roles() && executor.chance(350) {
                    spec.role = match spec.role {
                        Role::Worker => Role::Manager,
                        Role::Manager => Role::Worker,
                    };
                    let managers = nodes.iter().filter(|it| it.spec.role == Role::Manager).count();
                    if spec.role == Role::Worker || managers < MANAGERS_MAX {
                        let _refused = self.update_node(node, spec).await;
                    }
                    return;
                }
                match executor.below(5) {
                    0 => spec.availability = Availability::Drain,
                    1 => spec.availability = Availability::Pause,
                    2 => {
                        let zone = if executor.chance(500) { "a" } else { "b" };
                        spec.labels.insert("zone".to_owned(), zone.to_owned());
                    }
                    _ => spec.availability = Availability::Active,
                }
                let _conflict = self.update_node(node, spec).await;
            }
            _ => {
                let nodes = self.nodes().await;
                let Some(node) = self.any(&nodes) else { return };
                if node.manager.is_some() || nodes.len() < 4 {
                    return;
                }
                let _refused = self.forget(&node.id).await;
                if executor.chance(500) {
                    self.join(Role::Worker).await;
                }
            }
        }
    }

    fn draw_image(&self) -> String {
        let all = GOOD_IMAGES.iter().chain(&BAD_IMAGES).copied().collect::<Vec<_>>();
        (*self.any(&all).expect("there are some")).to_owned()
    }

    fn any<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        let drawn = self.0.executor.below(u64::try_from(all.len()).expect("a usize fits"));
        all.get(usize::try_from(drawn).expect("it came from a usize"))
    }
}

/// Images that run well.
const GOOD_IMAGES: [&str; 3] = ["busybox", "busybox:2", "busybox:3"];

/// Images that cannot be had, crash, or take very long to come.
const BAD_IMAGES: [&str; 3] = ["missing:1", "crashing:1", "slow:1"];

fn is_good(image: &str) -> bool {
    GOOD_IMAGES.contains(&image)
}

/// Returns a check by what the virtual runtime understands.
pub(super) fn health_check(words: &[&str]) -> HealthCheck {
    HealthCheck {
        test: HealthTest::Command(words.iter().map(|word| (*word).to_owned()).collect()),
        interval: Duration::from_secs(3),
        start_period: Duration::from_secs(20),
        start_interval: Duration::from_secs(1),
        retries: 2,
        ..HealthCheck::default()
    }
}

pub(super) fn node_spec(role: Role, availability: Availability) -> NodeSpec {
    NodeSpec { labels: crate::types::Labels::new(), role, availability }
}

pub(super) fn service_spec(name: &str, mode: Mode) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        task: TaskSpec {
            container: ContainerSpec { image: "busybox".to_owned(), ..ContainerSpec::default() },
            restart: RestartPolicy { delay: Duration::from_secs(1), ..RestartPolicy::default() },
            ..TaskSpec::default()
        },
        mode,
        ..ServiceSpec::default()
    }
}
