//! What the API needs of the node it runs on.

use crate::{
    cluster::{Refusal, Request, Response},
    types::{
        Availability, CgroupSupport, Chore, ChoreDone, Cluster, ClusterSpec, Date, ExecSpec,
        Health, HeldImage, Labels, NodeId, Occurrence, PathStat, Platform, PortConfig,
        ProcessTable, RegistryCredential, Resources, Role, RootRotation, ServiceId, Task, TaskId,
        TaskSpec, TaskState, TaskStatus, TerminalSize, UnpackOptions, Usage,
    },
    util::board::Reading,
};
use bytes::Bytes;
use futures_lite::Stream;
use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A boxed stream that can move between threads. Dropping it ends whatever feeds it.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// The answer of an operation: it, or why it was refused.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// The local node. Every call has a deadline of its own; streams end when they are dropped.
pub trait LocalNode: Send + Sync + 'static {
    /// Asks the leader, wherever it is. On a node that is no manager it refuses with
    /// [`crate::cluster::Class::Unavailable`] and one of the texts of [`crate::api::error`].
    fn request(&self, request: Request) -> Answer<'_, Response>;

    /// Tells how the node stands in its cluster, from memory alone: also while containerd hangs.
    fn standing(&self) -> Standing;

    /// Describes the node.
    fn info(&self) -> BoxFuture<'_, Info>;

    /// Makes a new cluster with this node as its manager.
    fn swarm_init(&self, options: InitOptions) -> Answer<'_, NodeId>;

    /// Joins a cluster.
    fn swarm_join(&self, options: JoinOptions) -> Answer<'_, ()>;

    /// Leaves the cluster; a manager only with `force`.
    fn swarm_leave(&self, force: bool) -> Answer<'_, ()>;

    /// Opens a locked manager with the text of the unlock key.
    fn swarm_unlock(&self, key: String) -> Answer<'_, ()>;

    /// Returns the text of the key that opens locked managers; empty where they are not locked.
    fn unlock_key(&self, cluster: &Cluster) -> String;

    /// Returns the cluster's state and what belongs to it, sealed with a passphrase.
    fn backup(&self, passphrase: String) -> Answer<'_, Vec<u8>>;

    /// Makes this node the only manager of the cluster that a backup holds.
    fn restore(&self, options: RestoreOptions, file: Vec<u8>) -> Answer<'_, NodeId>;

    /// Returns the text of the token that admits to `role`.
    fn join_token(&self, cluster: &Cluster, role: Role) -> String;

    /// Makes the root that is to replace the cluster's: the one given as the PEMs of certificate and
    /// key, or a new one.
    ///
    /// # Errors
    ///
    /// What is given is no root that can be used.
    fn next_root(
        &self,
        cluster: &Cluster,
        given: Option<(String, String)>,
    ) -> Result<RootRotation, Refusal>;

    /// Returns the root certificate as PEM.
    fn root_pem(&self, cluster: &Cluster) -> String;

    /// Pulls an image.
    fn image_pull(&self, options: PullOptions) -> Answer<'_, BoxStream<Progress>>;

    /// Reads a `docker save` or OCI archive into this node or several.
    fn image_load(
        &self,
        nodes: NodeSelector,
        archive: BoxStream<io::Result<Bytes>>,
    ) -> Answer<'_, BoxStream<Progress>>;

    /// Asks the registry what a reference stands for.
    fn image_resolve(
        &self,
        image: String,
        credential: Option<RegistryCredential>,
    ) -> Answer<'_, Resolved>;

    /// Asks a registry (`docker.io`, `host:port`) whether it takes a login.
    fn registry_login(&self, registry: String, credential: RegistryCredential) -> Answer<'_, ()>;

    /// Lists the containers of tasks on this node, without the ids of their images.
    fn containers(&self) -> Answer<'_, Vec<Container>>;

    /// Lists them with those ids, for which containerd has to be asked about all images.
    fn containers_with_images(&self) -> Answer<'_, Vec<Container>>;

    /// Does something with what nodes store, on each of the nodes.
    fn chore(&self, nodes: NodeSelector, chore: Chore) -> Answer<'_, Vec<NodeAnswer>>;

    /// Begins to tell what happens: to the cluster on a manager, and to this node.
    fn occurrences(&self) -> Answer<'_, Reading<Occurrence>>;

    /// Reads what tasks wrote, across nodes.
    fn logs(&self, options: LogOptions) -> Answer<'_, BoxStream<LogItem>>;

    // What is done with running containers, on this node and on others.

    /// Notes a command that is to run in a container; returns its id.
    fn exec_create(&self, place: Place, spec: ExecSpec) -> Answer<'_, String>;

    /// Runs it.
    fn exec_start(&self, id: String, options: StartOptions) -> Answer<'_, Started>;

    /// Tells its terminal its size.
    fn exec_resize(&self, id: String, size: TerminalSize) -> Answer<'_, ()>;

    /// Returns how it is.
    fn exec_state(&self, id: String) -> Answer<'_, ExecState>;

    /// Looks at a path in a container.
    fn path_stat(&self, place: Place, path: String) -> Answer<'_, PathStat>;

    /// Packs a path of a container. An archive that breaks off ends with an error.
    fn pack(&self, place: Place, path: String) -> Answer<'_, (PathStat, Archive)>;

    /// Unpacks an archive in a folder of a container.
    fn unpack(
        &self,
        place: Place,
        path: String,
        options: UnpackOptions,
        archive: Archive,
    ) -> Answer<'_, ()>;

    /// Reads what the kernel counts of a container, once a second and so many times.
    fn usage(&self, place: Place, times: Option<u32>) -> Answer<'_, BoxStream<Usage>>;

    /// Lists the processes of a container; the options are those of `ps`.
    fn processes(&self, place: Place, options: String) -> Answer<'_, ProcessTable>;

    /// Sends a signal to the first process of a container; SIGKILL until it has ended.
    fn signal(&self, place: Place, number: u32) -> Answer<'_, ()>;

    /// Ends a container. Refuses with [`crate::cluster::Class::Conflict`] where it does not run.
    fn stop(&self, place: Place, options: StopOptions) -> Answer<'_, ()>;

    /// Waits until a container has ended; with `removed`, until nothing is left of it. The first answer
    /// says that its node is within reach, the second is the end.
    fn end(
        &self,
        place: Place,
        removed: bool,
    ) -> Answer<'_, BoxFuture<'static, Result<ContainerExit, Refusal>>>;
}

/// An archive on its way.
pub type Archive = BoxStream<io::Result<Bytes>>;

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its task.
    pub task: TaskId,
    /// Its node; none is this one.
    pub node: Option<NodeId>,
}

/// How a container is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOptions {
    /// The signal that asks it to end; none is its image's.
    pub signal: Option<u32>,
    /// The time until it is killed; none is for ever.
    pub grace: Option<Duration>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// Its exit status; [`crate::types::EXIT_UNKNOWN`] where it is not known.
    pub code: i32,
    /// Why it is not known; else empty.
    pub reason: String,
}

/// How a command is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StartOptions {
    /// Nobody listens to it.
    pub detach: bool,
    /// How large its terminal is at first.
    pub size: Option<TerminalSize>,
}

/// A command after it was started.
pub enum Started {
    /// It runs, and nobody listens.
    Detached,
    /// It runs, with its streams.
    Attached(ExecStream),
    /// The program cannot be executed; the exit status is noted.
    Failed {
        /// Why.
        message: String,
        /// Whether the client is a terminal.
        tty: bool,
    },
}

/// The streams of a running command. Dropped, the command's terminal hangs up and its input ends.
pub struct ExecStream {
    /// Whether it has a terminal, whose output is one stream.
    pub tty: bool,
    /// To the command; dropped, its input ends.
    pub input: async_channel::Sender<ExecInput>,
    /// From the command, to its end.
    pub output: BoxStream<ExecItem>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Detached => "Detached",
            Self::Attached(_) => "Attached",
            Self::Failed { .. } => "Failed",
        })
    }
}

impl std::fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecStream")
    }
}

/// To a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Its input.
    Data(Bytes),
    /// This was all.
    End,
}

/// From a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecItem {
    /// It printed.
    Stdout(Bytes),
    /// It printed an error.
    Stderr(Bytes),
    /// It did not end by itself, or was lost. The last of all.
    Failed(String),
}

/// How a command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecState {
    /// In whose container.
    pub task: TaskId,
    /// What it is.
    pub spec: ExecSpec,
    /// Whether it runs.
    pub running: bool,
    /// Its process; 0 where none runs.
    pub pid: u32,
    /// How it ended.
    pub exit_code: Option<i32>,
}

/// Where a node stands with regard to a cluster; Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwarmState {
    /// In none.
    #[default]
    Inactive,
    /// Joining one.
    Pending,
    /// A member.
    Active,
    /// A member that cannot work; [`Standing::swarm_error`] says why.
    Error,
    /// A manager that waits for its unlock key.
    Locked,
}

impl SwarmState {
    /// Returns Docker's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// What `info` and `version` show of a node.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// How it stands in its cluster.
    pub standing: Standing,
    /// The host name.
    pub hostname: String,
    /// The platform whose images run here.
    pub platform: Platform,
    /// All of its CPU and memory.
    pub resources: Resources,
    /// What the kernel can limit.
    pub cgroups: CgroupSupport,
    /// `engine.labels.*`, from the configuration.
    pub labels: Labels,
    /// How many containers run.
    pub containers_running: u64,
    /// How many are stopped, or not yet started.
    pub containers_stopped: u64,
    /// How many images there are.
    pub images: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system's name for people.
    pub operating_system: String,
    /// The operating system's version; may be empty.
    pub os_version: String,
    /// containerd's version; empty while it does not answer.
    pub containerd_version: String,
    /// Whether AppArmor confines containers that name no profile of it.
    pub has_apparmor: bool,
    /// midge's version.
    pub version: String,
    /// The folder with its state.
    pub data_dir: String,
    /// The id of the machine, or what else names it uniquely.
    pub machine_id: String,
    /// Registries that are spoken to in plain HTTP, beyond loopback.
    pub plain_http_registries: Vec<String>,
    /// Mirrors of the default registry.
    pub mirrors: Vec<String>,
    /// What an operator should know besides what its standing tells.
    pub warnings: Vec<String>,
}

/// How a node stands in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Its id in the cluster; none outside of one.
    pub node: Option<NodeId>,
    /// Where it stands.
    pub swarm: SwarmState,
    /// Why it does not work, or cannot reach its manager; empty where all is well.
    pub swarm_error: String,
    /// Whether it is a manager that can answer for the cluster.
    pub control_available: bool,
    /// The manager that leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// What is wrong with it as a manager; empty where nothing is.
    pub manager_error: String,
    /// What its log ends with; none where it is no manager.
    pub last_entry: Option<LastEntry>,
    /// The address under which others reach it, without a port.
    pub node_address: String,
    /// The managers it knows: id and `host:port`.
    pub managers: Vec<(NodeId, String)>,
    /// What an operator should know of it.
    pub warnings: Vec<String>,
}

/// The end of a manager's log. Of two managers the one whose term is higher, and of one term the one
/// whose index is, has what the other lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEntry {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

/// What `swarm init` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Where to listen, as the user wrote it: `ADDRESS|INTERFACE[:PORT]`; may be empty.
    pub listen: String,
    /// What others are told; may be empty.
    pub advertise: String,
    /// What the node's availability is to be.
    pub availability: Availability,
    /// Go on as the only manager with the state that is there.
    pub force_new_cluster: bool,
    /// The cluster's options.
    pub spec: ClusterSpec,
}

/// What `cluster restore` is given beside the file.
#[derive(Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// What opens the file.
    pub passphrase: String,
    /// Where to listen; empty for where the manager of the backup did.
    pub listen: String,
    /// What others are told; empty for what they were told by that one.
    pub advertise: String,
}

impl std::fmt::Debug for RestoreOptions {
    /// Leaves the passphrase out, so that no log ever holds it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreOptions").field("advertise", &self.advertise).finish_non_exhaustive()
    }
}

/// What `swarm join` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOptions {
    /// Where to listen; may be empty.
    pub listen: String,
    /// What others are told; may be empty.
    pub advertise: String,
    /// Managers to try, `HOST[:PORT]`; at least one.
    pub remotes: Vec<String>,
    /// The whole token.
    pub token: String,
    /// What the node's availability is to be.
    pub availability: Availability,
}

/// What `pull` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOptions {
    /// The reference.
    pub image: String,
    /// The platform; none is the node's.
    pub platform: Option<Platform>,
    /// The login.
    pub credential: Option<RegistryCredential>,
}

/// Which nodes an archive is read into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodeSelector {
    /// This one.
    #[default]
    Local,
    /// Every one that is Ready.
    All,
    /// These, by id or name.
    Named(Vec<String>),
}

/// What one node says to a chore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAnswer {
    /// The node; none outside of a cluster.
    pub node: Option<NodeId>,
    /// Its host name.
    pub name: String,
    /// What came of it, or why nothing did.
    pub result: Result<ChoreDone, Refusal>,
}

/// One step of a pull or a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something about one layer or node, or about the whole where `id` is empty.
    Status {
        /// The layer's short digest, the node's name, or the tag.
        id: String,
        /// In words (`Downloading`).
        status: String,
        /// How much of how much, in bytes.
        amount: Option<(u64, u64)>,
    },
    /// Text for people, line end included.
    Text(String),
    /// It failed; nothing follows.
    Error(String),
}

/// What a registry says of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest.
    pub digest: String,
    /// The media type of what the digest names.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The platforms there are.
    pub platforms: Vec<Platform>,
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited,
}

impl ContainerState {
    /// Returns Docker's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

/// The container of a task on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name: the task's full one.
    pub name: String,
    /// The task.
    pub task: TaskId,
    /// The service.
    pub service: ServiceId,
    /// The id of the image's content; empty where it is not known, or was not asked for.
    pub image_id: String,
    /// The whole command line.
    pub command: Vec<String>,
    /// When it was made.
    pub created: Date,
    /// When it was started; the epoch before.
    pub started: Date,
    /// When it ended; the epoch before.
    pub finished: Date,
    /// How far it has come.
    pub state: ContainerState,
    /// Its process; 0 where none runs.
    pub pid: u32,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// Whether its service puts another one in its place, however it ends.
    pub is_replaced: bool,
    /// Labels.
    pub labels: Labels,
    /// Its host ports.
    pub ports: Vec<PortConfig>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its health, while it runs and is probed.
    pub health: Option<Health>,
    /// The path of its log file.
    pub log_path: String,
    /// What is mounted in it.
    pub mounts: Vec<MountPoint>,
    /// Whether the kernel ended it for want of memory.
    pub out_of_memory: bool,
    /// What it was asked to be.
    pub spec: Arc<TaskSpec>,
}

impl Container {
    /// Returns the container of a task of this status as far as a manager knows it; its own node
    /// knows more.
    #[must_use]
    pub fn of_task(task: &Task, status: &TaskStatus) -> Self {
        let container = &task.spec.container;
        let state = match status.state {
            TaskState::Starting | TaskState::Running => ContainerState::Running,
            state if state.is_live() => ContainerState::Created,
            _ => ContainerState::Exited,
        };
        let (running, ended) = (state == ContainerState::Running, state == ContainerState::Exited);
        Self {
            id: task.id.to_string(),
            name: task.full_name(),
            task: task.id.clone(),
            service: task.service.clone(),
            image_id: String::new(),
            command: container.command.iter().chain(&container.args).cloned().collect(),
            created: task.created,
            started: if running { status.date } else { Date::EPOCH },
            finished: if ended { status.date } else { Date::EPOCH },
            state,
            pid: if running { status.pid } else { 0 },
            exit_code: status.exit_code,
            is_replaced: task.restarts_after(TaskState::Complete)
                && task.spec.restart.max_attempts == 0,
            labels: container.labels.clone(),
            ports: status.ports.iter().map(|status| status.port.clone()).collect(),
            addresses: Vec::new(),
            health: None,
            log_path: String::new(),
            mounts: Vec::new(),
            out_of_memory: false,
            spec: Arc::clone(&task.spec),
        }
    }

    /// Returns the image as the service names it.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.spec.container.image
    }

    /// Returns the network's name: `bridge`, `host` or `none`.
    #[must_use]
    pub fn network(&self) -> &'static str {
        self.spec.network.as_str()
    }
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: &'static str,
    /// The volume's name; empty for everything else and for a container's own.
    pub name: String,
    /// The path on the node; empty for memory.
    pub source: String,
    /// The path inside.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// One task whose log is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTask {
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Where it is.
    pub node: NodeId,
}

/// What `logs` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Whose.
    pub tasks: Vec<LogTask>,
    /// With new tasks of this service as they come, while following.
    pub service: Option<ServiceId>,
    /// Stay and send what comes.
    pub follow: bool,
    /// Only the last so many lines of each task.
    pub tail: Option<u64>,
    /// Only what was written at or after this.
    pub since: Option<Date>,
    /// Only what was written before this.
    pub until: Option<Date>,
    /// With standard output.
    pub stdout: bool,
    /// With standard error.
    pub stderr: bool,
}

/// Where a task wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output, and all of a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Who wrote it.
    pub from: LogTask,
    /// Where.
    pub source: LogSource,
    /// When.
    pub date: Date,
    /// What, line end included where there was one.
    pub line: Bytes,
    /// What the log keeps with each line: labels, environment, tag.
    pub attributes: Labels,
}

/// One item of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// A line.
    Line(LogLine),
    /// A task or node whose log could not be read, and why. Shown at the end.
    Incomplete(String),
}

/// What nodes hold of an image.
pub(crate) type Holders = Vec<(NodeId, HeldImage)>;
