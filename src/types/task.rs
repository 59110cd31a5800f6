//! Tasks: one attempt to run a service's template on one node.

use super::{
    Constraint, ContainerSpec, Date, Endpoint, GenericReservations, GenericResource, Labels,
    NetworkId, NodeId, Platform, PortConfig, ServiceId, TaskId, Version,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// The wait before a task is replaced, as Swarm's.
pub const RESTART_DELAY: Duration = Duration::from_secs(5);

/// What the doubling restart delay grows to: a task that cannot start costs a pull or a container
/// start every five minutes, which even a metered link bears.
pub const RESTART_MAX_DELAY: Duration = Duration::from_secs(300);

/// How many reasons a task keeps: enough to tell its story, few enough to store with every task.
pub const REASONS_MAX: usize = 8;

/// How far a task has come. Only ever rises; the numbers are Swarm's and order the states.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum TaskState {
    /// Created by the orchestrator.
    #[default]
    New,
    /// Has what the cluster must allocate; waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node has it.
    Accepted,
    /// The node makes its network, volumes, image and container.
    Preparing,
    /// The container is made; waits until it may start.
    Ready,
    /// The container was started; not yet healthy.
    Starting,
    /// Runs.
    Running,
    /// Ended by itself with exit status 0.
    Complete,
    /// Stopped on request.
    Shutdown,
    /// Ended with an error after it was started.
    Failed,
    /// Could not be started.
    Rejected,
    /// Its node has been lost for so long that its resources count as free.
    Orphaned,
}

impl TaskState {
    /// Tells whether the task still uses its node: it may run, or come to run.
    #[must_use]
    pub fn is_live(self) -> bool {
        self <= Self::Running
    }

    /// Tells whether the task was given to a node and has not ended there.
    #[must_use]
    pub fn is_given(self) -> bool {
        (Self::Assigned..=Self::Running).contains(&self)
    }

    /// Tells whether the state goes through the consensus log. The steps between ASSIGNED and
    /// RUNNING stay in the leader's memory, so that starting a task is two writes and not seven.
    #[must_use]
    pub fn is_committed(self) -> bool {
        self <= Self::Assigned || self >= Self::Running
    }

    /// Returns the name that Docker's API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the manager wants a task to come. Only ever rises.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Desired {
    /// Prepared, but held: a replacement that waits for its delay or for its predecessor's end.
    Ready,
    /// Running.
    #[default]
    Running,
    /// Run to its end: what a job's task is wanted to come to.
    Complete,
    /// Stopped, kept as history.
    Shutdown,
    /// Stopped, then forgotten.
    Remove,
}

impl Desired {
    /// Tells whether the manager still wants the task to run, now or later. That a job's task has
    /// run is wanted for ever.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        self <= Self::Complete
    }

    /// Tells whether nothing holds the task back.
    #[must_use]
    pub fn may_run(self) -> bool {
        matches!(self, Self::Running | Self::Complete)
    }

    /// Returns the name that Docker's API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// CPU and memory, of a node or reserved by a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// What a task may use at most. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of memory and swap together; -1 is as much swap as there is, none the kernel's
    /// default beside a memory limit (as much again). Only beside `memory_bytes`.
    pub memory_swap: Option<i64>,
    /// How readily the kernel swaps the task's memory, 0 to 100; none is the node's own.
    pub swappiness: Option<u8>,
}

/// Where a task's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// How it is kept: `json-file` (also `local`) or `none`.
    pub driver: String,
    /// Its options: `max-size`, `max-file`, `labels`, `env`, `tag`.
    pub options: BTreeMap<String, String>,
}

/// When a task that ended is replaced.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum RestartCondition {
    /// Never.
    None,
    /// Where it failed.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// How a task that ended is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When.
    pub condition: RestartCondition,
    /// How long after. Doubles with each failure in a row, and falls back after a healthy run.
    pub delay: Duration,
    /// What the doubled delay is cut to. A `delay` that is longer from the start stays as it is.
    pub max_delay: Duration,
    /// How often, within `window`. 0 is without end.
    pub max_attempts: u64,
    /// The time within which `max_attempts` counts. Zero is the slot's whole life.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: RESTART_DELAY,
            max_delay: RESTART_MAX_DELAY,
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Which of the node-local networks a task uses.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum NetworkMode {
    /// An address of its own behind the node's bridge.
    #[default]
    Bridge,
    /// The node's own network.
    Host,
    /// Loopback only.
    None,
}

impl NetworkMode {
    /// Returns the name that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// Where tasks may run, and how they spread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// All of them must hold.
    pub constraints: Vec<Constraint>,
    /// Spread over the values of these labels (`node.labels.zone`), outermost first.
    pub spread: Vec<String>,
    /// At most so many tasks of the service on a node; 0 is no bound.
    pub max_replicas_per_node: u64,
    /// The platforms the image was made for; empty is unknown and fits everywhere.
    pub platforms: Vec<Platform>,
}

/// A registry login that travels with a task.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredential {
    /// The user; empty with an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
    /// Whether `secret` is an identity (refresh) token.
    pub is_token: bool,
}

impl fmt::Debug for RegistryCredential {
    /// Leaves the secret out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How an image was pinned that no registry resolved: the nodes that hold its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePin {
    /// The digest the tag had on those nodes.
    pub digest: String,
    /// The nodes that reported holding it when the service was written.
    pub nodes: Vec<NodeId>,
}

/// What each task of a service runs, where, and what happens when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskSpec {
    /// What runs.
    pub container: ContainerSpec,
    /// What the node must have left; the scheduler's currency.
    pub reservations: Resources,
    /// What it must have for itself besides, of each kind.
    pub generic: GenericReservations,
    /// What it may use at most.
    pub limits: ResourceLimits,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Where it may run.
    pub placement: Placement,
    /// Which network it has.
    pub network: NetworkMode,
    /// Where its output goes; none is the node's default.
    pub log: Option<LogConfig>,
    /// Raised by `--force`: a task of a lower count is out of date.
    pub force_update: u64,
    /// For the image's registry.
    pub credential: Option<RegistryCredential>,
    /// Set where the image was pinned from the nodes' own content.
    pub pin: Option<ImagePin>,
}

/// In what two specs differ that a task can tell. Not counted is what was known of the image when a
/// spec was written, its platforms and which nodes hold it: the image itself is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecDifference {
    /// In the login, which is used once, when the image is pulled.
    pub credential: bool,
    /// In what only asks something of the node: the constraints, and room for more of the service's
    /// tasks there than before.
    pub constraints: bool,
    /// In anything else.
    pub rest: bool,
}

impl TaskSpec {
    /// Returns in what the `other` differs from this one.
    #[must_use]
    pub fn difference(&self, other: &Self) -> SpecDifference {
        fn digest(pin: Option<&ImagePin>) -> Option<&str> {
            pin.map(|pin| pin.digest.as_str())
        }
        fn most(max_replicas_per_node: u64) -> u64 {
            if max_replicas_per_node == 0 { u64::MAX } else { max_replicas_per_node }
        }
        // Taken apart by name, so that a new field has to be thought of here.
        let Self {
            container,
            reservations,
            generic,
            limits,
            restart,
            placement: Placement { constraints, spread, max_replicas_per_node, platforms: _ },
            network,
            log,
            force_update,
            credential,
            pin,
        } = self;
        let (most, other_most) =
            (most(*max_replicas_per_node), most(other.placement.max_replicas_per_node));
        let same = *container == other.container
            && *reservations == other.reservations
            && *generic == other.generic
            && *limits == other.limits
            && *restart == other.restart
            && *spread == other.placement.spread
            && most <= other_most
            && *network == other.network
            && *log == other.log
            && *force_update == other.force_update
            && digest(pin.as_ref()) == digest(other.pin.as_ref());
        SpecDifference {
            credential: *credential != other.credential,
            constraints: *constraints != other.placement.constraints || most != other_most,
            rest: !same,
        }
    }
}

/// Why something happened to a task; the source of history and of `why`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReasonCode {
    /// The service wants one more.
    ServiceScaled,
    /// Its predecessor ended.
    Restarted,
    /// Its predecessor's spec is out of date.
    SpecChanged,
    /// Its predecessor's node was lost.
    NodeLost,
    /// Its predecessor's node is being drained.
    NodeDrained,
    /// Its predecessor's node no longer meets the constraints.
    ConstraintViolated,
    /// The node made it while it had no manager.
    LocalRestart,
    /// The service was removed or scaled down.
    NoLongerWanted,
    /// Its place was taken by another task meanwhile.
    Superseded,
    /// It joined the cluster's nodes (global services).
    NodeJoined,
}

/// One reason, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Why.
    pub code: ReasonCode,
    /// When, in wall-clock time.
    pub date: Date,
}

/// A network interface of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network; none for the node-local ones, which `mode` names.
    pub network: Option<NetworkId>,
    /// Which kind.
    pub mode: NetworkMode,
    /// Addresses with prefix lengths (`172.30.0.5/16`), of both families; the node picks
    /// those of its own bridge.
    pub addresses: Vec<String>,
    /// Names under which others find it.
    pub aliases: Vec<String>,
}

/// A host port that a running task holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port as published, with the number the node picked where it was 0.
    pub port: PortConfig,
}

/// How far a task has come, and the last that was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskStatus {
    /// How far.
    pub state: TaskState,
    /// When that was seen, in the wall-clock time of who saw it.
    pub date: Date,
    /// What was done last ("started", "preparing", ...), in Swarm's words where it has them.
    pub message: String,
    /// What went wrong; empty where nothing did.
    pub error: String,
    /// The container; empty before there is one.
    pub container: String,
    /// The container's process on the node; 0 where there is none.
    pub pid: u32,
    /// How the container ended.
    pub exit_code: Option<i32>,
    /// The host ports it holds.
    pub ports: Vec<PortStatus>,
}

/// One attempt to run a service's template on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// When it was last written.
    pub version: Version,
    /// When it was created.
    pub created: Date,
    /// When it was last written, in wall-clock time.
    pub updated: Date,
    /// The service it belongs to.
    pub service: ServiceId,
    /// That service's name, for the task's own name and labels.
    pub service_name: String,
    /// Labels of the service when the task was made, for templates.
    pub service_labels: Labels,
    /// Its slot, from 1; 0 for tasks of global services.
    pub slot: u64,
    /// The node; set once.
    pub node: Option<NodeId>,
    /// What it runs; a copy, never changed, and one for all tasks of a service that run the same.
    pub spec: Arc<TaskSpec>,
    /// The service's ports when the task was made.
    pub endpoint: Endpoint,
    /// The version of the service's spec that it was made from.
    pub spec_version: Version,
    /// Of a job's task: the iteration it counts for.
    pub job_iteration: Option<u64>,
    /// How far it has come.
    pub status: TaskStatus,
    /// How far it should come.
    pub desired: Desired,
    /// The task in whose place it will run. While it is held on its predecessor's node, the
    /// filters credit it with what the predecessor holds.
    pub predecessor: Option<TaskId>,
    /// Whether it runs beside its predecessor until it has proved itself (start-first): it needs
    /// room of its own, and is credited with nothing.
    pub overlap: bool,
    /// For a held replacement: its restart delay, from its creation on.
    pub delay: Duration,
    /// How many tasks of this chain failed in a row before it; doubles the delay.
    pub failures: u32,
    /// Why it is there, oldest first; at most [`REASONS_MAX`].
    pub reasons: Vec<Reason>,
    /// Its networks.
    pub attachments: Vec<Attachment>,
    /// What it was given of its node, along with it.
    pub generic: Vec<GenericResource>,
}

#[cfg(test)]
impl Task {
    /// A new task of the service `web`, in its first slot, of the least spec and without a node.
    pub(crate) fn sample(id: u128) -> Self {
        Self {
            id: TaskId::from_bits(id),
            version: Version::ZERO,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            service: ServiceId::from_bits(1),
            service_name: "web".to_owned(),
            service_labels: Labels::new(),
            slot: 1,
            node: None,
            spec: Arc::default(),
            endpoint: Endpoint::default(),
            spec_version: Version::ZERO,
            job_iteration: None,
            status: TaskStatus::default(),
            desired: Desired::Running,
            predecessor: None,
            overlap: false,
            delay: Duration::ZERO,
            failures: 0,
            reasons: Vec::new(),
            attachments: Vec::new(),
            generic: Vec::new(),
        }
    }
}

impl Task {
    /// Returns the spec as this task's own, to be changed: no other task sees it.
    pub fn spec_mut(&mut self) -> &mut TaskSpec {
        Arc::make_mut(&mut self.spec)
    }

    /// Returns the number of its slot as people know it: Docker's tools count the slots of a job
    /// from 0. Also 0 where a service has no slots.
    #[must_use]
    pub fn slot_number(&self) -> u64 {
        self.slot.saturating_sub(u64::from(self.is_job()))
    }

    /// Returns the name that tables show: `web.1`, or `web.<node id>` for a global service.
    #[must_use]
    pub fn short_name(&self) -> String {
        match (self.slot, &self.node) {
            (0, Some(node)) => format!("{}.{node}", self.service_name),
            _ => format!("{}.{}", self.service_name, self.slot_number()),
        }
    }

    /// Returns the full name: [`Task::short_name`] and the id.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.short_name(), self.id)
    }

    /// Tells whether a user may mean this task by `name`: the beginning of its id, its full name or
    /// its short one.
    #[must_use]
    pub fn may_be(&self, name: &str) -> bool {
        self.id.as_str().starts_with(name)
            || name.starts_with(self.service_name.as_str())
                && (self.short_name() == name || self.full_name() == name)
    }

    /// Tells whether the manager wants the task and it may still come to run or runs.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.desired.is_wanted() && self.status.state.is_live()
    }

    /// Tells whether its restart policy wants a task in its place once it ended so. A job's task
    /// that came to its end is never run again.
    #[must_use]
    pub fn restarts_after(&self, state: TaskState) -> bool {
        match self.spec.restart.condition {
            RestartCondition::None => false,
            RestartCondition::Any if !self.is_job() => true,
            RestartCondition::Any | RestartCondition::OnFailure => state != TaskState::Complete,
        }
    }

    /// Tells whether it runs beside `other` until it has proved itself.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.overlap && self.predecessor.as_ref() == Some(&other.id)
    }

    /// Adds a reason, dropping the oldest one beyond [`REASONS_MAX`].
    pub fn add_reason(&mut self, code: ReasonCode, date: Date) {
        if self.reasons.len() == REASONS_MAX {
            self.reasons.remove(0);
        }
        self.reasons.push(Reason { code, date });
        assert!(self.reasons.len() <= REASONS_MAX);
    }
}
