//! A node of memory, and a client that writes requests by hand.

use crate::{
    api::local::*,
    cluster::{Class, Query, Refusal, Rejected, Request, Response, validate},
    types::*,
    util::board::{Board, BoardLimits, Reading},
};
use bytes::Bytes;
use futures_lite::{StreamExt, stream};
use serde_json::Value;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Nothing here takes longer; a test that does has failed.
const WAIT: Duration = Duration::from_secs(20);

/// Whether the removal of a container is waited for, and who waits.
type Waiter = (bool, async_channel::Sender<Result<ContainerExit, Refusal>>);

pub(super) struct Fake {
    pub(super) nodes: Vec<Node>,
    pub(super) services: Mutex<Vec<Service>>,
    pub(super) tasks: Mutex<Vec<Task>>,
    pub(super) held: Mutex<Vec<(NodeId, HeldImage)>>,
    pub(super) requests: Mutex<Vec<Request>>,
    pub(super) uploaded: Mutex<Vec<u8>>,
    pub(super) containers: Mutex<Vec<Container>>,
    pub(super) execs: Mutex<Vec<(Place, ExecSpec)>>,
    pub(super) signals: Mutex<Vec<(Place, u32)>>,
    pub(super) stops: Mutex<Vec<(Place, StopOptions)>>,
    pub(super) waiters: Mutex<Vec<Waiter>>,
    /// What was asked of what nodes store, and what they say.
    pub(super) chores: Mutex<Vec<(NodeSelector, Chore)>>,
    pub(super) done: Mutex<Option<Result<ChoreDone, Refusal>>>,
    pub(super) board: Board<Occurrence>,
    /// How many log streams are open.
    pub(super) following: Arc<AtomicU64>,
    index: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
    /// A manager of a version that does not know the newest questions.
    pub(super) leads_older: AtomicBool,
}

pub(super) fn node(bits: u128, hostname: &str, role: Role) -> Node {
    let manager = (role == Role::Manager)
        .then(|| ManagerStatus { address: "10.0.0.1:2377".to_owned(), raft_id: 1 });
    Node {
        id: NodeId::from_bits(bits),
        version: Version { epoch: 1, index: 7 },
        created: Date::from_unix_seconds(1_700_000_000),
        updated: Date::from_unix_seconds(1_700_000_000),
        spec: NodeSpec { labels: Labels::new(), role, availability: Availability::Active },
        description: NodeDescription {
            hostname: hostname.to_owned(),
            platform: Platform::normalized("linux", "arm", "v7"),
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 1 << 30 },
            ..Default::default()
        },
        status: NodeStatus { state: NodeState::Ready, ..Default::default() },
        manager,
        role,
        key_digest: [0; 32],
    }
}

pub(super) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_bits(9),
        version: Version { epoch: 1, index: 3 },
        created: Date::EPOCH,
        updated: Date::EPOCH,
        spec: ClusterSpec::default(),
        root: RootCa { certificate: vec![1], key: vec![2], digest: [3; 32] },
        tokens: JoinTokens { worker: JoinToken(1), manager: JoinToken(2) },
        unlock_key: None,
        rotation: None,
        former_roots: Vec::new(),
    }
}

/// Tells whether the version before does not know the request.
fn is_new(request: &Request) -> bool {
    let Request::Read(query) = request else { return false };
    matches!(query, Query::NodesNamed(_) | Query::ServicesNamed(_) | Query::TasksNamed(_))
}

impl Fake {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![
                node(1, "m1", Role::Manager),
                node(2, "twin", Role::Worker),
                node(3, "twin", Role::Worker),
            ],
            services: Mutex::default(),
            tasks: Mutex::default(),
            held: Mutex::default(),
            requests: Mutex::default(),
            uploaded: Mutex::default(),
            containers: Mutex::default(),
            execs: Mutex::default(),
            signals: Mutex::default(),
            stops: Mutex::default(),
            waiters: Mutex::default(),
            chores: Mutex::default(),
            done: Mutex::default(),
            board: Board::new(BoardLimits { recent: 16, waiting: 16, readers: 2 }),
            following: Arc::default(),
            index: AtomicU64::new(10),
            refusal: Mutex::default(),
            leads_older: AtomicBool::new(false),
        }
    }

    pub(super) fn refuse(&self, class: Class) {
        *self.refusal.lock().unwrap() = Some(Refusal::new(class, "no"));
    }

    fn next(&self) -> Version {
        Version { epoch: 1, index: self.index.fetch_add(1, Ordering::SeqCst) }
    }

    fn answer(&self, request: Request) -> Result<Response, Refusal> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        self.requests.lock().unwrap().push(request.clone());
        if self.leads_older.load(Ordering::Relaxed) && is_new(&request) {
            return Err(Refusal::new(Class::Invalid, "the message is malformed"));
        }
        let mut services = self.services.lock().unwrap();
        match request {
            Request::Read(Query::Cluster) => Ok(Response::Cluster(Box::new(cluster()))),
            Request::Read(Query::Nodes) => Ok(Response::Nodes(self.nodes.clone())),
            Request::Read(Query::NodesNamed(name)) => {
                let nodes = self.nodes.iter().filter(|node| node.may_be(&name));
                Ok(Response::Nodes(nodes.cloned().collect()))
            }
            Request::Read(Query::Services) => Ok(Response::Services(services.clone())),
            Request::Read(Query::ServicesNamed(name)) => {
                let services = services.iter().filter(|service| service.may_be(&name));
                Ok(Response::Services(services.cloned().collect()))
            }
            Request::Read(Query::TasksNamed(name)) => {
                let tasks = self.tasks.lock().unwrap().clone().into_iter();
                Ok(Response::Tasks(tasks.filter(|task| task.may_be(&name)).collect()))
            }
            Request::Read(Query::Tasks { services, .. }) => {
                let tasks = self.tasks.lock().unwrap().clone().into_iter();
                let fits = |task: &Task| services.is_empty() || services.contains(&task.service);
                Ok(Response::Tasks(tasks.filter(fits).collect()))
            }
            Request::Read(Query::HeldImages { image }) => {
                let held = self.held.lock().unwrap().clone().into_iter();
                Ok(Response::HeldImages(held.filter(|(_, held)| held.name == image).collect()))
            }
            Request::CreateService { spec, .. } => {
                validate::service_spec(&spec)?;
                let version = self.next();
                let service = Service {
                    id: ServiceId::from_bits(u128::from(version.index) << 90),
                    version,
                    created: Date::from_unix_seconds(1_700_000_000),
                    updated: Date::from_unix_seconds(1_700_000_000),
                    spec: *spec,
                    spec_version: version,
                    previous_spec: None,
                    update: None,
                    job: None,
                };
                self.tasks.lock().unwrap().push(task(&service, 1, &self.nodes[0].id));
                services.push(service);
                Ok(Response::Created(services[services.len() - 1].id.clone()))
            }
            Request::UpdateService { id, version, spec, .. } => {
                let service = services.iter_mut().find(|service| service.id == id).unwrap();
                if service.version != version {
                    return Err(Rejected::OutOfSequence.into());
                }
                validate::service_update(&service.spec, &spec)?;
                service.version = self.next();
                service.spec_version = service.version;
                service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, *spec)));
                Ok(Response::Done)
            }
            Request::RemoveService { id, .. } => {
                services.retain(|service| service.id != id);
                Ok(Response::Done)
            }
            _ => Ok(Response::Done),
        }
    }
}

pub(in crate::api) fn task(service: &Service, slot: u64, node: &NodeId) -> Task {
    Task {
        version: service.version,
        created: service.created,
        updated: service.updated,
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        slot,
        node: Some(node.clone()),
        spec: service.spec.task.clone().into(),
        endpoint: service.spec.endpoint.clone(),
        spec_version: service.spec_version,
        status: TaskStatus { state: TaskState::Running, ..Default::default() },
        ..Task::sample(u128::from(slot) + (u128::from(service.version.index) << 60))
    }
}

/// A TCP port that is published at every address of its node.
pub(in crate::api) fn port(published: u16, target: u16) -> PortConfig {
    PortConfig {
        name: String::new(),
        host_ip: None,
        protocol: PortProtocol::Tcp,
        target,
        published,
        mode: PublishMode::Host,
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, Refusal>) -> Answer<'a, T> {
    Box::pin(async move { answer })
}

fn stat(mode: u32) -> PathStat {
    PathStat { name: "file".to_owned(), size: 2, mode, ..PathStat::default() }
}

/// An archive of one file.
pub(super) fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", &b"hi"[..]).unwrap();
    builder.into_inner().unwrap()
}

impl LocalNode for Fake {
    fn request(&self, request: Request) -> Answer<'_, Response> {
        ready(self.answer(request))
    }

    fn standing(&self) -> Standing {
        Standing {
            node: Some(self.nodes[0].id.clone()),
            leader: Some(self.nodes[0].id.clone()),
            swarm: SwarmState::Active,
            control_available: true,
            node_address: "10.0.0.1".to_owned(),
            managers: vec![(self.nodes[0].id.clone(), "10.0.0.1:2377".to_owned())],
            ..Standing::default()
        }
    }

    fn info(&self) -> BoxFuture<'_, Info> {
        Box::pin(async {
            Info {
                standing: self.standing(),
                hostname: "m1".to_owned(),
                platform: Platform::normalized("linux", "amd64", ""),
                version: "0.1.0".to_owned(),
                plain_http_registries: vec!["mirror.local:5000".to_owned()],
                ..Default::default()
            }
        })
    }

    fn swarm_init(&self, _: InitOptions) -> Answer<'_, NodeId> {
        ready(Ok(self.nodes[0].id.clone()))
    }

    fn swarm_join(&self, _: JoinOptions) -> Answer<'_, ()> {
        ready(Ok(()))
    }

    fn swarm_leave(&self, force: bool) -> Answer<'_, ()> {
        ready(if force { Ok(()) } else { Err(Refusal::new(Class::Unavailable, "manager")) })
    }

    fn swarm_unlock(&self, key: String) -> Answer<'_, ()> {
        ready(if key == "SWMKEY-1-right" {
            Ok(())
        } else {
            Err(Refusal::new(Class::Unauthorized, "wrong key"))
        })
    }

    fn unlock_key(&self, cluster: &Cluster) -> String {
        cluster.unlock_key.map(|_| "SWMKEY-1-right".to_owned()).unwrap_or_default()
    }

    fn backup(&self, passphrase: String) -> Answer<'_, Vec<u8>> {
        ready(Ok(passphrase.into_bytes()))
    }

    fn restore(&self, options: RestoreOptions, file: Vec<u8>) -> Answer<'_, NodeId> {
        ready(if options.passphrase.as_bytes() == file {
            Ok(self.nodes[0].id.clone())
        } else {
            Err(Refusal::new(Class::Invalid, "the passphrase is wrong"))
        })
    }

    fn join_token(&self, _: &Cluster, role: Role) -> String {
        format!("SWMTKN-1-{role}")
    }

    fn next_root(
        &self,
        cluster: &Cluster,
        given: Option<(String, String)>,
    ) -> Result<RootRotation, Refusal> {
        if given.is_some_and(|(_, key)| key != "KEY") {
            return Err(Refusal::new(Class::Invalid, "that is no key"));
        }
        let (root, cross_signed) = (cluster.root.clone(), vec![1]);
        Ok(RootRotation { root, cross_signed, tokens: cluster.tokens })
    }

    fn root_pem(&self, _: &Cluster) -> String {
        "PEM".to_owned()
    }

    fn image_pull(&self, options: PullOptions) -> Answer<'_, BoxStream<Progress>> {
        let steps = [
            Progress::Status {
                id: String::new(),
                status: format!("Pulling {}", options.image),
                amount: None,
            },
            Progress::Error("cut".to_owned()),
        ];
        ready(Ok(stream::iter(steps).boxed()))
    }

    fn image_load(
        &self,
        nodes: NodeSelector,
        mut archive: BoxStream<std::io::Result<Bytes>>,
    ) -> Answer<'_, BoxStream<Progress>> {
        Box::pin(async move {
            while let Some(bytes) = archive.next().await {
                self.uploaded.lock().unwrap().extend_from_slice(&bytes.unwrap());
            }
            let text = Progress::Text(format!("Loaded image: {nodes:?}\n"));
            Ok(stream::once(text).boxed())
        })
    }

    fn image_resolve(&self, image: String, _: Option<RegistryCredential>) -> Answer<'_, Resolved> {
        if image.starts_with("reg.example/") {
            let platforms = ["v6", "v7"].map(|v| Platform::normalized("linux", "arm", v));
            return ready(Ok(Resolved {
                digest: format!("sha256:{}", "a".repeat(64)),
                media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
                size: 1,
                platforms: platforms.to_vec(),
            }));
        }
        ready(Err(Refusal::new(Class::Internal, "Get \"https://registry-1.docker.io/v2/\": no")))
    }

    fn registry_login(&self, registry: String, login: RegistryCredential) -> Answer<'_, ()> {
        let (registry, user) = (registry.as_str(), login.username.as_str());
        ready(match (registry, user, login.secret.as_str(), login.is_token) {
            ("reg.example", "fleet", "secret", false) | ("docker.io", "", "token", true) => Ok(()),
            _ => Err(Refusal::new(Class::Unauthorized, format!("{registry}: no {user}"))),
        })
    }

    fn containers(&self) -> Answer<'_, Vec<Container>> {
        let mut containers = self.containers.lock().unwrap().clone();
        containers.iter_mut().for_each(|container| container.image_id.clear());
        ready(Ok(containers))
    }

    fn containers_with_images(&self) -> Answer<'_, Vec<Container>> {
        ready(Ok(self.containers.lock().unwrap().clone()))
    }

    fn exec_create(&self, place: Place, spec: ExecSpec) -> Answer<'_, String> {
        self.execs.lock().unwrap().push((place, spec));
        ready(Ok("e1".to_owned()))
    }

    /// Echoes its input once that has ended, and says so on the other stream. A program called
    /// `nope` is not there.
    fn exec_start(&self, id: String, options: StartOptions) -> Answer<'_, Started> {
        let (_, spec) = self.execs.lock().unwrap().last().cloned().unwrap();
        assert_eq!(id, "e1");
        if spec.command[0] == "nope" {
            let message = "nope: not found".to_owned();
            return ready(Ok(Started::Failed { message, tty: spec.tty }));
        }
        if options.detach {
            return ready(Ok(Started::Detached));
        }
        let (input, received) = async_channel::bounded(1);
        let output = stream::unfold((received, false), |(received, ended)| async move {
            if ended {
                return None;
            }
            match received.recv().await {
                Ok(ExecInput::Data(bytes)) => Some((ExecItem::Stdout(bytes), (received, false))),
                _ => Some((ExecItem::Stderr("end\n".into()), (received, true))),
            }
        });
        let exec = ExecStream { tty: spec.tty, input, output: output.boxed() };
        ready(Ok(Started::Attached(exec)))
    }

    fn exec_resize(&self, _: String, size: TerminalSize) -> Answer<'_, ()> {
        ready(if size.width == 80 {
            Ok(())
        } else {
            Err(Refusal::new(Class::Conflict, "exec command e1 is not running"))
        })
    }

    fn exec_state(&self, id: String) -> Answer<'_, ExecState> {
        let all = self.execs.lock().unwrap();
        let Some((place, spec)) = all.last().cloned().filter(|_| id == "e1") else {
            return ready(Err(Refusal::new(Class::NotFound, "No such exec instance: x")));
        };
        let exit_code = Some(if spec.command[0] == "nope" { 127 } else { 7 });
        ready(Ok(ExecState { task: place.task, spec, running: false, pid: 0, exit_code }))
    }

    fn path_stat(&self, _: Place, path: String) -> Answer<'_, PathStat> {
        ready(match path.as_str() {
            "/file" | "/file/" => Ok(stat(0o100_644)),
            "/" | "/tmp" => Ok(stat(0o040_755)),
            _ => Err(Refusal::new(Class::NotFound, format!("Could not find the file {path}"))),
        })
    }

    fn pack(&self, _: Place, path: String) -> Answer<'_, (PathStat, Archive)> {
        let whole = Ok(Bytes::from(archive()));
        let items = match path.as_str() {
            "/file" => vec![whole],
            // An archive that breaks off in the middle.
            _ => vec![Ok(Bytes::from_static(b"begun")), Err(std::io::ErrorKind::Other.into())],
        };
        ready(Ok((stat(0o100_644), stream::iter(items).boxed())))
    }

    fn unpack(
        &self,
        _: Place,
        path: String,
        options: UnpackOptions,
        mut archive: Archive,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            assert!(options.keep_kinds && !options.own_to_user, "{path}");
            while let Some(bytes) = archive.next().await {
                self.uploaded.lock().unwrap().extend_from_slice(&bytes.unwrap());
            }
            Ok(())
        })
    }

    fn usage(&self, _: Place, times: Option<u32>) -> Answer<'_, BoxStream<Usage>> {
        let usage = |n: u64| Usage {
            date: Date::from_unix_seconds(n),
            cpu: CpuUsage { total: n * 100, system: n * 1_000, online: 2, ..CpuUsage::default() },
            memory: MemoryUsage { usage: 1 << 20, limit: 4 << 20, ..MemoryUsage::default() },
            pids: 3,
            ..Usage::default()
        };
        let count = u64::from(times.unwrap_or(3));
        ready(Ok(stream::iter((1..=count).map(usage)).boxed()))
    }

    fn processes(&self, _: Place, options: String) -> Answer<'_, ProcessTable> {
        ready(Ok(ProcessTable {
            titles: vec!["PID".to_owned(), "CMD".to_owned()],
            rows: vec![vec!["1".to_owned(), format!("sh {options}")]],
        }))
    }

    fn signal(&self, place: Place, number: u32) -> Answer<'_, ()> {
        self.signals.lock().unwrap().push((place, number));
        ready(Ok(()))
    }

    fn stop(&self, place: Place, options: StopOptions) -> Answer<'_, ()> {
        self.stops.lock().unwrap().push((place, options));
        ready(Ok(()))
    }

    fn end(
        &self,
        _: Place,
        removed: bool,
    ) -> Answer<'_, BoxFuture<'static, Result<ContainerExit, Refusal>>> {
        let (sender, ended) = async_channel::bounded(1);
        self.waiters.lock().unwrap().push((removed, sender));
        let end = async move {
            let gone = |_| Err(Refusal::new(Class::Unavailable, "the node is gone"));
            ended.recv().await.unwrap_or_else(gone)
        };
        ready(Ok(Box::pin(end)))
    }

    fn chore(&self, nodes: NodeSelector, chore: Chore) -> Answer<'_, Vec<NodeAnswer>> {
        let done = self.done.lock().unwrap().clone();
        let result = done.unwrap_or_else(|| match &chore {
            Chore::Images => panic!("a defect, on purpose: one request must not end the others"),
            Chore::Image { name } => {
                let image = StoredImage { tags: vec![name.clone()], ..StoredImage::default() };
                let detail = StoredImageDetail { image, ..StoredImageDetail::default() };
                Ok(ChoreDone::Image(Box::new(detail)))
            }
            _ => Err(Refusal::new(Class::NotFound, "none")),
        });
        self.chores.lock().unwrap().push((nodes.clone(), chore));
        let answer = |node: &Node| NodeAnswer {
            node: Some(node.id.clone()),
            name: node.description.hostname.clone(),
            result: result.clone(),
        };
        let nodes = if nodes == NodeSelector::Local { &self.nodes[..1] } else { &self.nodes[..] };
        ready(Ok(nodes.iter().map(answer).collect()))
    }

    fn occurrences(&self) -> Answer<'_, Reading<Occurrence>> {
        ready(self.board.read().ok_or_else(|| Refusal::new(Class::Unavailable, "too many")))
    }

    fn logs(&self, options: LogOptions) -> Answer<'_, BoxStream<LogItem>> {
        let from = options.tasks[0].clone();
        let line = LogItem::Line(LogLine {
            from,
            source: LogSource::Stderr,
            date: Date::from_unix_nanos(1),
            line: Bytes::from_static(b"hello\n"),
            attributes: std::collections::BTreeMap::new(),
        });
        if !options.follow {
            let gap = LogItem::Incomplete("node twin is away".to_owned());
            return ready(Ok(stream::iter([gap, line]).boxed()));
        }
        struct Open(Arc<AtomicU64>);
        impl Drop for Open {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.following.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.following.clone());
        let rest = stream::unfold(open, |open| async move {
            let _open = &open;
            std::future::pending::<()>().await;
            None::<(LogItem, Open)>
        });
        ready(Ok(stream::once(line).chain(rest).boxed()))
    }
}

/// A server with a fake node. Ends with the value.
pub(super) struct Server {
    pub(super) node: Arc<Fake>,
    pub(super) path: PathBuf,
    stop: Option<async_channel::Sender<()>>,
    task: Option<smol::Task<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/midge.sock");
        let node = Arc::new(Fake::new());
        let listener = crate::api::bind(&path).unwrap();
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let served = crate::api::serve(listener, node.clone(), async move {
            stopped.recv().await.unwrap_err();
        });
        let task = Some(smol::spawn(served));
        Self { node, path, stop: Some(stop), task, _folder: folder }
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    /// Sends a request and returns status, head and body.
    pub(super) fn raw(&self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        // A server that refuses early may close before all is sent; its answer counts.
        let _sent = stream.write_all(&[head.as_bytes(), body].concat());
        let mut answer = Vec::new();
        let _read = stream.read_to_end(&mut answer);
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer[split + 4..].to_vec();
        let chunked = head.contains("transfer-encoding: chunked");
        (status, head, if chunked { dechunk(&body) } else { body })
    }

    pub(super) fn send(&self, request: &str, body: &str) -> (u16, Value) {
        let head = format!("{request} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json");
        let (status, _, body) = self.raw(&head, body.as_bytes());
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Ends the server and waits until it has.
    pub(super) fn stop(mut self) {
        self.stop = None;
        smol::block_on(self.task.take().unwrap());
    }
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = body.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&body[..at]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.extend_from_slice(&body[at + 2..at + 2 + length]);
        body = &body[at + 2 + length + 2..];
    }
    whole
}

/// Waits for a condition, within [`WAIT`].
pub(super) fn eventually(what: &str, fits: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !fits() {
        assert!(start.elapsed() < WAIT, "{what}");
        std::thread::yield_now();
    }
}
