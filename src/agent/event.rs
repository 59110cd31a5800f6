//! What happens to a worker's agent, and what it wants done about it.

use crate::types::{
    Date, FromManager, FromWorker, HealthState, HeldImage, ImageHealth, LocalSuccessor,
    NodeDescription, PortStatus, Sequence, Task, TaskId, TaskStatus,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the runtime found of one container of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The task it belongs to.
    pub task: TaskId,
    /// The container's id.
    pub container: String,
    /// How it is.
    pub phase: Phase,
    /// What its image says of its health.
    pub health: ImageHealth,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// Its id.
    pub container: String,
    /// What its image says of its health.
    pub health: ImageHealth,
}

/// A probe that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Its exit status; none where it did not end in time.
    pub code: Option<i32>,
    /// What it printed, the beginning of it.
    pub output: String,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Runs.
    Running {
        /// Its process.
        pid: u32,
        /// The host ports it holds.
        ports: Vec<PortStatus>,
    },
    /// Ended. Without a status where nobody saw it end (the machine was restarted, or the
    /// runtime's record was lost): FAILED, "exit status lost".
    Exited {
        /// The exit status.
        code: Option<i32>,
        /// When, where known.
        date: Option<Date>,
        /// Whether the kernel ended it for want of memory.
        out_of_memory: bool,
    },
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, as a user should read it.
    pub message: String,
    /// Whether trying again may help (containerd is away, the registry does not answer); a
    /// permanent failure ends the task.
    pub temporary: bool,
}

/// Something that happened to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Operation::TakeInventory`] ended. Complete: a task without an entry has no container.
    Inventory {
        /// The number it was asked under: it says nothing of what was learnt since.
        asked: u64,
        /// Every container of this node.
        containers: Vec<Observed>,
    },
    /// containerd came, or came back: whatever ends from here on is told. What ended before is
    /// only in an inventory that is asked for from here on.
    RuntimeFound,
    /// containerd went away, or an inventory could not be taken; what is known stays true until
    /// the next inventory.
    RuntimeLost,
    /// The manager said something.
    Message(FromManager),
    /// There is a connection to a manager: register on it.
    Connected,
    /// The connection ended.
    Disconnected,
    /// What the node is or which images it holds became known or changed.
    Described {
        /// What the node is.
        description: Box<NodeDescription>,
        /// Its images.
        images: Vec<HeldImage>,
    },
    /// [`Operation::Prepare`] ended.
    Prepared {
        /// The task.
        task: TaskId,
        /// The container.
        result: Result<Prepared, Failure>,
    },
    /// [`Operation::Start`] ended.
    Started {
        /// The task.
        task: TaskId,
        /// Process and host ports.
        result: Result<(u32, Vec<PortStatus>), Failure>,
    },
    /// A container ended, asked or not.
    Exited {
        /// The task.
        task: TaskId,
        /// How; always [`Phase::Exited`].
        phase: Phase,
    },
    /// [`Operation::Stop`] could not be carried out. (Success is an [`Event::Exited`].)
    StopFailed {
        /// The task.
        task: TaskId,
        /// Why.
        failure: Failure,
    },
    /// [`Operation::Remove`] ended.
    Removed {
        /// The task.
        task: TaskId,
        /// Nothing is left, or why something is.
        result: Result<(), Failure>,
    },
    /// [`Operation::Probe`] ended.
    Probed {
        /// The task.
        task: TaskId,
        /// The probe's number.
        number: u64,
        /// What came of it. A temporary failure says nothing of the container's health; any other
        /// says that the probe cannot be run in it.
        result: Result<ProbeResult, Failure>,
    },
    /// The deadline that `next_deadline` named has come.
    Tick,
    /// The user takes the node out of the cluster: stop and remove everything.
    Leave,
}

/// Something the agent wants done. Idempotent: what is repeated does no harm, and what was lost
/// in a crash is asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have the runtime do this. Answered by an event, whatever comes of it.
    Perform(Operation),
    /// Tell whoever listens on this node that a container's health changed. Not answered.
    Tell {
        /// The task.
        task: TaskId,
        /// How it is now.
        state: HealthState,
    },
    /// Send to the manager; lost where there is no connection.
    Send(FromWorker),
    /// End the connection to the manager and look for another one.
    Reconnect {
        /// Why, for the log.
        reason: String,
    },
    /// Commit to disk, before anything after it in the same step is carried out.
    Persist(Vec<Record>),
    /// The cluster removed this node, or it left and nothing of it is left: forget the
    /// membership and end.
    Retire {
        /// Why.
        reason: String,
    },
}

/// What a container runtime does. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make the task's network, volumes, image and container. Answered by [`Event::Prepared`].
    Prepare {
        /// The task.
        task: Box<Task>,
    },
    /// Start its container. Answered by [`Event::Started`].
    Start {
        /// The task.
        task: Box<Task>,
    },
    /// Send the stop signal, then SIGKILL after the grace period. Answered by [`Event::Exited`]
    /// or [`Event::StopFailed`]; at once where nothing runs.
    Stop {
        /// The task.
        task: TaskId,
        /// The signal as the task names it; empty is the image's.
        signal: String,
        /// The time until SIGKILL.
        grace: Duration,
    },
    /// End preparations under way, remove container, snapshot, network, log and anonymous
    /// volumes. Answered by [`Event::Removed`].
    Remove {
        /// The task.
        task: TaskId,
    },
    /// Ask the runtime what there is. Answered by [`Event::Inventory`] or [`Event::RuntimeLost`].
    TakeInventory {
        /// Comes back with the answer.
        asked: u64,
    },
    /// Run a program in the container, to find out how it is. Answered by [`Event::Probed`].
    Probe {
        /// The task.
        task: TaskId,
        /// Comes back with the answer.
        number: u64,
        /// The program with its arguments.
        command: Vec<String>,
        /// When it is killed.
        timeout: Duration,
    },
}

/// A change to what the agent keeps on disk. Small: batched into one commit a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The last complete state of the assignments that were taken.
    Sequence(Sequence),
    /// A task to keep running, assigned or made locally.
    PutTask(Box<StoredTask>),
    /// Forget a task.
    RemoveTask(TaskId),
    /// How far a task is whose container runs. Has to survive the daemon, and not the machine: then
    /// the container runs no more, and the runtime knows that it did.
    NoteTask(Box<StoredTask>),
}

/// A task as the agent keeps it on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTask {
    /// The task with its desired state.
    pub task: Task,
    /// The last committed or final status that was seen of it. States between ASSIGNED and
    /// RUNNING are never written, and RUNNING only as long as the machine runs: a start looks at
    /// the container instead.
    pub status: TaskStatus,
    /// Whether the manager has acknowledged that status.
    pub reported: bool,
    /// Set where the agent made the task itself and no manager took it over yet.
    pub local: Option<LocalSuccessor>,
}
