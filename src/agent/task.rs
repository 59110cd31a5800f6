//! One task's life on this node: what is known of its container, and what follows from that.
//!
//! Knows one task and its container; nothing of sessions, other tasks or the disk.

use super::{
    event::{Failure, Observed, Operation, Phase, Prepared, StoredTask},
    health::Watch,
};
use crate::types::{
    Date, Desired, ImageHealth, LocalSuccessor, Moment, NodeDescription, PortStatus, Probe,
    STOP_GRACE, Task, TaskId, TaskState, TaskStatus,
};
use std::time::Duration;

/// The first wait after a temporary failure, as Swarm's.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// What the doubling wait is cut to: a registry that comes back is noticed within a minute, and a
/// metered link bears one failed request a minute.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long preparations may take before they are asked for again. The executor has limits of its
/// own on progress; this one only catches an answer that was lost. A 1 GB image over 64 KB/s takes
/// five hours.
const PREPARE_LIMIT: Duration = Duration::from_secs(6 * 3_600);

/// The same for start and remove: a slow SD card takes seconds.
const WORK_LIMIT: Duration = Duration::from_secs(180);

/// What is known of a task's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// The runtime was not asked yet.
    Unknown,
    /// There is none.
    Absent,
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended, or spoilt while it was made or started; kept for its logs.
    Ended,
}

/// What was asked of the runtime and not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Prepare,
    Start,
    Stop,
    Remove,
}

/// What should happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    Do(Work),
    /// Nothing of it is left.
    Forget,
}

/// The container's side of a task, or of a container whose task nobody knows.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) container: Container,
    /// What is under way, and when its answer counts as lost.
    pub(super) work: Option<(Work, Moment)>,
    /// Nothing is tried before this; none once it has passed.
    pub(super) retry_at: Option<Moment>,
    /// Temporary failures in a row.
    tries: u32,
    /// Whether something was made that only a removal clears away.
    pub(super) touched: bool,
    /// The step in which `container` was last learnt: an inventory asked for earlier says nothing.
    pub(super) changed: u64,
}

impl Body {
    pub(super) fn new(container: Container, step: u64) -> Self {
        let touched = container != Container::Absent;
        Self { container, work: None, retry_at: None, tries: 0, touched, changed: step }
    }

    pub(super) fn learn(&mut self, container: Container, step: u64) {
        self.container = container;
        self.changed = step;
        self.touched = self.touched || container != Container::Absent;
    }

    pub(super) fn busy(&self, work: Work) -> bool {
        self.work.is_some_and(|(under_way, _)| under_way == work)
    }

    pub(super) fn begin(&mut self, work: Work, now: Moment, grace: Duration) {
        let limit = match work {
            Work::Prepare => PREPARE_LIMIT,
            Work::Start | Work::Remove => WORK_LIMIT,
            Work::Stop => grace + WORK_LIMIT,
        };
        self.touched = true;
        self.work = Some((work, now + limit));
    }

    /// Takes note that `work` was answered; tells whether it was the answer waited for.
    pub(super) fn end(&mut self, work: Work) -> bool {
        let expected = self.busy(work);
        if expected {
            self.work = None;
        }
        expected
    }

    pub(super) fn succeed(&mut self) {
        self.tries = 0;
        self.retry_at = None;
    }

    pub(super) fn fail(&mut self, now: Moment) {
        let wait = RETRY_FIRST * (1 << self.tries.min(6));
        self.tries = self.tries.saturating_add(1);
        self.retry_at = Some(now + wait.min(RETRY_MAX));
    }

    /// Lets waits end that have passed. Tells whether an answer was given up on.
    pub(super) fn expire(&mut self, now: Moment) -> bool {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        let lost = self.work.is_some_and(|(_, limit)| limit <= now);
        if lost {
            self.work = None;
            self.fail(now);
        }
        lost
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let limit = self.work.map(|(_, limit)| limit);
        [self.retry_at, limit].into_iter().flatten().min()
    }

    /// What follows for a container that must go.
    pub(super) fn clear_away(&self) -> Next {
        match self.work {
            Some((Work::Prepare, _)) => return Next::Do(Work::Remove),
            Some(_) => return Next::Nothing,
            None if self.retry_at.is_some() => return Next::Nothing,
            None => {}
        }
        match self.container {
            Container::Unknown => Next::Nothing,
            Container::Running => Next::Do(Work::Stop),
            Container::Created | Container::Ended => Next::Do(Work::Remove),
            Container::Absent if self.touched => Next::Do(Work::Remove),
            Container::Absent => Next::Forget,
        }
    }
}

/// A task on this node.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The task; its `desired` is what counts here, its `status` is not kept.
    pub(super) task: Task,
    pub(super) status: TaskStatus,
    /// The last status that is worth writing down.
    committed: TaskStatus,
    pub(super) body: Body,
    /// The container's health, where it is probed.
    pub(super) health: Watch,
    /// Set once the container is to be stopped for its health: what the task then failed of.
    pub(super) unhealthy: Option<String>,
    /// Whether a stop was asked for: how it ends then says nothing about the task.
    stopping: bool,
    /// Whether it is among the assignments, or its own local restart. Otherwise it must go.
    pub(super) assigned: bool,
    pub(super) local: Option<LocalSuccessor>,
    /// Whether the manager knows `status`.
    pub(super) reported: bool,
    /// Whether what is on disk differs.
    pub(super) dirty: bool,
    /// Whether what is noted of the running container differs.
    pub(super) unnoted: bool,
    /// Since when it is seen running.
    pub(super) running_since: Option<Moment>,
    /// Since when it is seen ended, and how long it had run.
    pub(super) ended: Option<(Moment, Duration)>,
}

impl Entry {
    /// Makes the entry of a task that the node did not know.
    pub(super) fn new(task: Task, step: u64, now: Moment) -> Self {
        let status = task.status.clone();
        let ended = (!status.state.is_live()).then_some((now, Duration::ZERO));
        Self {
            committed: status.clone(),
            status,
            task,
            body: Body::new(Container::Unknown, step),
            health: Watch::new(),
            unhealthy: None,
            stopping: false,
            assigned: true,
            local: None,
            reported: true,
            dirty: true,
            unnoted: false,
            running_since: None,
            ended,
        }
    }

    /// Makes the entry of a task that was on disk when the agent started.
    pub(super) fn stored(stored: StoredTask, now: Moment) -> Self {
        let StoredTask { task, status, reported, local } = stored;
        let mut entry = Self::new(task, 0, now);
        entry.ended = (!status.state.is_live()).then_some((now, Duration::ZERO));
        entry.committed = status.clone();
        entry.status = status;
        entry.local = local;
        entry.reported = reported;
        entry.dirty = false;
        entry
    }

    /// Returns what is written to disk.
    pub(super) fn to_stored(&self) -> StoredTask {
        StoredTask {
            task: self.task.clone(),
            status: self.committed.clone(),
            reported: self.reported,
            local: self.local.clone(),
        }
    }

    /// Tells whether the container must not run (any more).
    pub(super) fn unwanted(&self) -> bool {
        !self.assigned || !self.task.desired.is_wanted() || !self.status.state.is_live()
    }

    /// Raises the desired state; a lower one is an old one.
    pub(super) fn desire(&mut self, desired: Desired) {
        if desired > self.task.desired {
            self.task.desired = desired;
            self.dirty = true;
            // A wait for another try to prepare must not delay the end.
            self.body.retry_at = None;
        }
    }

    /// Has the task follow another one than it was made after.
    pub(super) fn set_predecessor(&mut self, predecessor: Option<TaskId>) {
        if let Some(local) = &mut self.local {
            local.task.predecessor.clone_from(&predecessor);
        }
        self.task.predecessor = predecessor;
        self.dirty = true;
    }

    /// Takes the task from the assignments.
    pub(super) fn drop_assignment(&mut self) {
        self.assigned = false;
        self.body.retry_at = None;
    }

    /// Moves on; a state below the present one is never taken.
    pub(super) fn advance(&mut self, state: TaskState, date: Date, message: &str, error: &str) {
        if state < self.status.state {
            return;
        }
        let same = state == self.status.state
            && message == self.status.message
            && error == self.status.error;
        if same {
            return;
        }
        self.status.state = state;
        self.status.date = date;
        message.clone_into(&mut self.status.message);
        error.clone_into(&mut self.status.error);
        self.changed();
    }

    /// Moves on with an error; how far it had come is still what its message says.
    pub(super) fn advance_with_error(&mut self, state: TaskState, date: Date, error: &str) {
        let message = self.status.message.clone();
        self.advance(state, date, &message, error);
    }

    fn changed(&mut self) {
        self.reported = false;
        if self.status.state.is_committed() {
            self.committed = self.status.clone();
            // A commit for each container that starts would wear a card out; that it runs can be
            // seen.
            if self.status.state == TaskState::Running {
                self.unnoted = true;
            } else {
                self.dirty = true;
            }
        }
    }

    /// Ends the task with an error: REJECTED before it was started, FAILED after.
    pub(super) fn give_up(&mut self, error: &str, now: Moment, date: Date) {
        let before = self.status.state < TaskState::Starting;
        let state = if before { TaskState::Rejected } else { TaskState::Failed };
        self.note_end(now);
        self.advance_with_error(state, date, error);
    }

    fn note_end(&mut self, now: Moment) {
        if self.ended.is_none() {
            let ran = self.running_since.map_or(Duration::ZERO, |since| now.since(since));
            self.ended = Some((now, ran));
        }
    }

    /// Ends a task that never ran and now never will.
    pub(super) fn settle(&mut self, now: Moment, date: Date) {
        if !self.unwanted() || !self.status.state.is_live() {
            return;
        }
        let idle = match self.body.container {
            Container::Absent => true,
            Container::Created => self.status.state < TaskState::Starting,
            Container::Unknown | Container::Running | Container::Ended => false,
        };
        if idle && !self.body.busy(Work::Start) && !self.body.busy(Work::Stop) {
            self.note_end(now);
            self.advance(TaskState::Shutdown, date, "shutdown", "");
        }
    }

    /// Returns what follows from what is known.
    pub(super) fn next(&self) -> Next {
        if self.unwanted() {
            return self.next_unwanted();
        }
        if self.body.work.is_some() || self.body.retry_at.is_some() {
            return Next::Nothing;
        }
        match self.body.container {
            Container::Absent if self.status.state < TaskState::Starting => Next::Do(Work::Prepare),
            Container::Created if self.task.desired.may_run() => Next::Do(Work::Start),
            Container::Running if self.unhealthy.is_some() => Next::Do(Work::Stop),
            _ => Next::Nothing,
        }
    }

    fn next_unwanted(&self) -> Next {
        let starting = self.status.state == TaskState::Starting;
        match self.body.container {
            // Whether a start that failed left something running is only known after a stop.
            Container::Created
                if starting && self.body.work.is_none() && self.body.retry_at.is_none() =>
            {
                Next::Do(Work::Stop)
            }
            // What ended is kept for its logs until the manager forgets it.
            Container::Ended if self.assigned => Next::Nothing,
            Container::Absent if self.assigned && !self.body.touched => Next::Nothing,
            _ => self.body.clear_away(),
        }
    }

    /// Begins what [`Entry::next`] said, and returns the operation; none where the task cannot be
    /// what its templates say on this node.
    pub(super) fn begin(
        &mut self,
        work: Work,
        node: Option<&NodeDescription>,
        at: At,
    ) -> Option<Operation> {
        let At { now, date, .. } = at;
        let grace = self.task.spec.container.stop_grace.unwrap_or(STOP_GRACE);
        let operation = match work {
            Work::Prepare => {
                let task = self.expand_for(work, node, at)?;
                if self.status.state < TaskState::Preparing {
                    self.advance(TaskState::Preparing, date, "preparing", "");
                }
                Operation::Prepare { task }
            }
            Work::Start => {
                let task = self.expand_for(work, node, at)?;
                if self.status.state < TaskState::Starting {
                    self.advance(TaskState::Starting, date, "starting", "");
                }
                Operation::Start { task }
            }
            Work::Stop => {
                self.stopping = true;
                Operation::Stop {
                    task: self.task.id.clone(),
                    signal: self.task.spec.container.stop_signal.clone(),
                    grace,
                }
            }
            Work::Remove => Operation::Remove { task: self.task.id.clone() },
        };
        self.body.begin(work, now, grace);
        Some(operation)
    }

    /// [`Operation::Prepare`] was answered.
    pub(super) fn prepared(&mut self, result: Result<Prepared, Failure>, at: At) {
        if !self.body.end(Work::Prepare) {
            return;
        }
        match result {
            Ok(Prepared { container, health }) => {
                self.learn_health(&health);
                self.body.succeed();
                self.body.learn(Container::Created, at.step);
                if !self.unwanted() {
                    self.status.container = container;
                    self.advance(TaskState::Ready, at.date, "prepared", "");
                }
            }
            Err(failure) if failure.temporary => self.postpone(&failure, at),
            Err(failure) => {
                self.body.learn(Container::Ended, at.step);
                if !self.unwanted() {
                    self.give_up(&failure.message, at.now, at.date);
                }
            }
        }
    }

    fn postpone(&mut self, failure: &Failure, at: At) {
        self.body.fail(at.now);
        if !self.unwanted() {
            self.advance_with_error(self.status.state, at.date, &failure.message);
        }
    }

    /// [`Operation::Start`] was answered.
    pub(super) fn started(&mut self, result: Result<(u32, Vec<PortStatus>), Failure>, at: At) {
        // It may have ended, or been seen running, before this answer came.
        if !self.body.end(Work::Start) || self.body.container != Container::Created {
            return;
        }
        match result {
            Ok((pid, ports)) => {
                self.body.succeed();
                self.seen_running(pid, ports, at);
            }
            Err(failure) if failure.temporary => self.postpone(&failure, at),
            Err(failure) => {
                self.body.learn(Container::Ended, at.step);
                if !self.unwanted() {
                    self.give_up(&failure.message, at.now, at.date);
                } else if self.status.state.is_live() {
                    self.note_end(at.now);
                    self.advance(TaskState::Shutdown, at.date, "shutdown", "");
                }
            }
        }
    }

    fn seen_running(&mut self, pid: u32, ports: Vec<PortStatus>, at: At) {
        self.body.learn(Container::Running, at.step);
        if !self.status.state.is_live() {
            return;
        }
        let known = self.status.pid == pid;
        if !known {
            self.status.pid = pid;
            self.status.ports = ports;
        }
        if self.status.state == TaskState::Running {
            self.health.adopt(&self.task.id, at.now);
            if known {
                self.running_since.get_or_insert(at.now);
            } else {
                // Said anew: the process is another one than on disk.
                self.runs(at);
            }
        } else if self.health.is_checked() {
            self.health.begin(at.now);
            if !known {
                let message = "started, not yet known to be healthy";
                self.advance(TaskState::Starting, at.date, message, "");
            }
        } else {
            self.runs(at);
        }
    }

    /// The container runs, and is well as far as anyone looks.
    pub(super) fn runs(&mut self, at: At) {
        self.running_since.get_or_insert(at.now);
        self.status.state = TaskState::Running;
        self.status.date = at.date;
        "started".clone_into(&mut self.status.message);
        self.status.error.clear();
        self.changed();
    }

    /// Takes note of what the container's image says of its health.
    fn learn_health(&mut self, image: &ImageHealth) {
        self.health.learn(Probe::of(self.task.spec.container.health.as_ref(), image));
    }

    /// The container ended.
    pub(super) fn exited(&mut self, phase: &Phase, at: At) {
        let Phase::Exited { code, date, out_of_memory } = phase else { return };
        if self.body.container == Container::Absent && self.status.state < TaskState::Starting {
            // A late word of a container that was removed before.
            return;
        }
        self.body.end(Work::Stop);
        self.body.succeed();
        self.body.learn(Container::Ended, at.step);
        self.health.end();
        if self.status.state.is_live() {
            self.finish(*code, *out_of_memory, at.now, date.unwrap_or(at.date));
        }
    }

    fn finish(&mut self, code: Option<i32>, out_of_memory: bool, now: Moment, date: Date) {
        self.note_end(now);
        self.status.exit_code = code;
        self.status.pid = 0;
        self.status.ports.clear();
        let unwanted = self.unwanted();
        let unhealthy = self.unhealthy.take().filter(|_| !unwanted);
        let error = match (unhealthy, code) {
            (Some(error), _) => error,
            (None, _) if self.stopping || unwanted => {
                return self.advance(TaskState::Shutdown, date, "shutdown", "");
            }
            (None, Some(0)) => return self.advance(TaskState::Complete, date, "finished", ""),
            (None, Some(code)) if out_of_memory => {
                format!("task: non-zero exit ({code}): out of memory")
            }
            (None, Some(code)) => format!("task: non-zero exit ({code})"),
            (None, None) => "exit status lost".to_owned(),
        };
        self.advance_with_error(TaskState::Failed, date, &error);
    }

    /// [`Operation::Stop`] failed.
    pub(super) fn stop_failed(&mut self, failure: &Failure, at: At) {
        if self.body.end(Work::Stop) {
            // Also where it is called permanent: a container that must not run is never left.
            self.body.fail(at.now);
            if self.status.state.is_live() {
                let error = format!("cannot stop: {}", failure.message);
                self.advance_with_error(self.status.state, at.date, &error);
            }
        }
    }

    /// [`Operation::Remove`] was answered.
    pub(super) fn removed(&mut self, result: &Result<(), Failure>, at: At) {
        if !self.body.end(Work::Remove) {
            return;
        }
        if result.is_ok() {
            self.body.succeed();
            self.body.learn(Container::Absent, at.step);
            self.body.touched = false;
        } else {
            self.body.fail(at.now);
        }
    }

    /// The runtime's inventory says this of the task's container; none where it has none.
    pub(super) fn observed(&mut self, observed: Option<&Observed>, at: At) {
        let Some(observed) = observed else {
            self.body.learn(Container::Absent, at.step);
            self.health.end();
            if self.status.state.is_live() && self.status.state >= TaskState::Starting {
                self.finish(None, false, at.now, at.date);
            }
            return;
        };
        if self.status.state.is_live() {
            self.status.container.clone_from(&observed.container);
            self.learn_health(&observed.health);
        }
        match &observed.phase {
            // Made before this agent was: perhaps not to the end, or before the machine was
            // restarted. Preparing is idempotent, so it is done once more.
            Phase::Created if self.status.state < TaskState::Ready => {
                self.body.learn(Container::Absent, at.step);
                self.body.touched = true;
            }
            Phase::Created => {
                self.body.learn(Container::Created, at.step);
                if self.status.state == TaskState::Running {
                    self.body.learn(Container::Ended, at.step);
                    self.finish(None, false, at.now, at.date);
                }
            }
            Phase::Running { pid, ports } => self.seen_running(*pid, ports.clone(), at),
            phase @ Phase::Exited { .. } => self.exited(phase, at),
        }
    }
}

/// When something is learnt.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) now: Moment,
    pub(super) date: Date,
    /// Counts the agent's steps.
    pub(super) step: u64,
}
