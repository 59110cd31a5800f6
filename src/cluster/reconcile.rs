//! Makes the tasks of a service what the service asks for.
//!
//! One slot at a time: whatever happened to its tasks, [`Pass::keep`] returns what is to be done
//! next and what the update may do with the slot. What it decides is idempotent: on the state that
//! comes of it, it decides nothing more.

mod global;
mod job;
mod memory;
mod replicated;

pub(super) use memory::{Memory, Since, Wait};

use super::{
    Change, SlotKey, State, enforce, leader::Random, reap::age, restart, schedule::Volatile, update,
};
use crate::types::{
    Attachment, Availability, Date, Desired, Endpoint, Mode, Moment, NodeState, Reason, ReasonCode,
    RestartCondition, STOP_GRACE, Service, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    UpdateOrder, Version,
};
use std::{sync::Arc, time::Duration};

/// How long a replacement waits at least for a predecessor that does not end, as Swarm's.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(60);

/// How much longer than its own grace period a predecessor may take to end: killing it and saying
/// so takes a while on a busy board.
const PREDECESSOR_MARGIN: Duration = Duration::from_secs(10);

/// How many tasks one look at a service creates; the rest follows once those are committed. Keeps
/// an entry near 1 MiB with specs of ordinary size.
const CREATED_MAX: usize = 1_024;

/// One look at one service.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) state: &'a State,
    pub(super) volatile: &'a Volatile,
    pub(super) memory: &'a mut Memory,
    pub(super) random: &'a mut Random,
    pub(super) now: Moment,
    pub(super) date: Date,
    /// What to commit.
    pub(super) changes: Vec<Change>,
    /// When to look again, where anything waits for a time.
    pub(super) wake: Option<Moment>,
}

/// The tasks of one slot that matter.
#[derive(Debug, Clone)]
pub(super) struct Slot<'a> {
    pub(super) key: SlotKey,
    /// The one that is to run.
    pub(super) running: Option<&'a Task>,
    /// The one that is to run as well, until it has proved itself and takes the other's place.
    pub(super) incoming: Option<&'a Task>,
    /// The one that is held to take its place.
    pub(super) held: Option<&'a Task>,
    /// The newest of all, wanted or not.
    pub(super) newest: &'a Task,
    pub(super) all: Vec<&'a Task>,
}

impl<'a> Slot<'a> {
    fn of(key: SlotKey, all: Vec<&'a Task>) -> Option<Self> {
        let newest = all.iter().copied().max_by_key(|task| age(task))?;
        let to_run = || all.iter().copied().filter(|task| task.desired.may_run());
        let incoming = to_run().find(|task| to_run().any(|other| task.overlaps(other)));
        let running = to_run().find(|task| incoming.is_none_or(|it| it.id != task.id));
        let held = all.iter().copied().find(|task| task.desired == Desired::Ready);
        Some(Self { key, running, incoming, held, newest, all })
    }

    fn is_wanted(&self) -> bool {
        self.wanted().next().is_some()
    }

    /// Returns the tasks that are wanted.
    fn wanted(&self) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.running.into_iter().chain(self.incoming).chain(self.held)
    }
}

/// How a slot stands towards an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    /// As it should be, or on its way there without the update.
    Steady,
    /// Its tasks are made from an outdated spec.
    Dirty,
    /// This task, made by the update, does not run yet.
    Progressing {
        /// The task.
        task: TaskId,
        /// Since when it is waited for.
        since: Since,
    },
    /// A task made by the update runs, and is watched.
    Watched(Since),
    /// This task, made by the update, ended too early.
    Failed(TaskId),
}

/// What a task is made from.
pub(super) struct Template {
    spec: Arc<TaskSpec>,
    endpoint: Endpoint,
    version: Version,
}

/// Why and how a task is made.
pub(super) struct Making {
    pub(super) desired: Desired,
    pub(super) reason: ReasonCode,
    pub(super) predecessor: Option<TaskId>,
    /// Whether it runs beside its predecessor until it has proved itself.
    pub(super) overlap: bool,
    pub(super) failures: u32,
    pub(super) delay: Duration,
}

impl Making {
    /// A replacement that runs beside `predecessor` until it has proved itself.
    pub(super) fn beside(predecessor: &Task, reason: ReasonCode) -> Self {
        Self { predecessor: Some(predecessor.id.clone()), overlap: true, ..Self::at_once(reason) }
    }

    /// A replacement that is held for `predecessor` and for nothing else.
    pub(super) fn held_for(predecessor: &Task, reason: ReasonCode) -> Self {
        Self {
            desired: Desired::Ready,
            reason,
            predecessor: Some(predecessor.id.clone()),
            overlap: false,
            failures: 0,
            delay: Duration::ZERO,
        }
    }

    /// A task that runs as soon as it can.
    pub(super) fn at_once(reason: ReasonCode) -> Self {
        Self {
            desired: Desired::Running,
            reason,
            predecessor: None,
            overlap: false,
            failures: 0,
            delay: Duration::ZERO,
        }
    }
}

pub(super) fn is_ended(task: &Task) -> bool {
    task.status.state > TaskState::Running
}

impl<'a> Pass<'a> {
    /// Looks at one service.
    pub(super) fn service(&mut self, service: &Service) {
        let stands = match service.spec.mode {
            Mode::Replicated { replicas } => self.replicated(service, replicas),
            Mode::Global => self.global(service),
            Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
                self.job(service);
                assert!(self.changes.len() <= CHANGES_MAX, "{TOO_MANY_CHANGES}");
                return;
            }
        };
        self.update(service, stands);
        assert!(self.changes.len() <= CHANGES_MAX, "{TOO_MANY_CHANGES}");
    }

    /// Returns how far a task has come, soft states included.
    pub(super) fn observed(&self, task: &Task) -> TaskState {
        let soft = self.volatile.soft.get(&task.id).map_or(TaskState::New, |soft| soft.state);
        task.status.state.max(soft)
    }

    /// Returns since when something is waited for that began at `date`.
    pub(super) fn since(&mut self, task: &Task, wait: Wait, date: Date) -> Since {
        self.memory.since(&task.id, wait, date, (self.now, self.date))
    }

    pub(super) fn wake_at(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub(super) fn replace(&mut self, create: Vec<Task>, desire: Vec<(&Task, Desired)>) {
        let desire = desire.into_iter().map(|(task, desired)| (task.id.clone(), desired));
        let desire = desire.collect();
        self.changes.push(Change::ReplaceTasks { create, desire });
    }

    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= CREATED_MAX
    }

    /// Tells whether the task's node is lost.
    fn is_lost(&self, task: &Task) -> bool {
        task.node.as_ref().is_some_and(|id| {
            self.state.node(id).is_none_or(|node| node.status.state == NodeState::Down)
        })
    }

    /// Tells whether the task's node cannot be heard: what became of the task is not known.
    fn is_away(&self, task: &Task) -> bool {
        task.node.as_ref().is_some_and(|id| {
            let node = self.state.node(id);
            self.volatile.suspects.contains(id)
                || node.is_none_or(|node| node.status.state != NodeState::Ready)
        })
    }

    fn is_drained(&self, task: &Task) -> bool {
        let node = task.node.as_ref().and_then(|id| self.state.node(id));
        node.is_some_and(|node| node.spec.availability == Availability::Drain)
    }

    /// Tells whether the slot holds nothing that is wanted because its restart policy says so:
    /// it is not free for another task.
    pub(super) fn is_done(&self, slot: &Slot<'_>) -> bool {
        let last = slot.newest;
        let ended_itself = matches!(
            last.status.state,
            TaskState::Complete | TaskState::Failed | TaskState::Rejected
        );
        let never = last.spec.restart.condition == RestartCondition::None;
        !slot.is_wanted()
            && last.desired == Desired::Shutdown
            && (never || (ended_itself && !restart::is_allowed(self.state, last, last.updated)))
    }

    /// Looks at one slot that is to be kept.
    pub(super) fn keep(&mut self, service: &Service, slot: &Slot<'a>) -> Stand {
        if let (Some(running), Some(incoming)) = (slot.running, slot.incoming) {
            return self.overlapping(service, slot, running, incoming);
        }
        match (slot.running, slot.held) {
            (None, None) if update::is_dirty(self.state, service, slot.newest) => Stand::Dirty,
            (None, None) => Stand::Steady,
            (Some(running), held) if is_ended(running) => self.ended(service, slot, running, held),
            (None, Some(held)) => self.held_alone(service, slot, held),
            (Some(running), Some(held)) => self.pair(service, slot, running, held),
            (Some(running), None) => self.lone(service, slot, running),
        }
    }

    /// The task that was to run has ended.
    fn ended(
        &mut self,
        service: &Service,
        slot: &Slot<'a>,
        task: &'a Task,
        held: Option<&'a Task>,
    ) -> Stand {
        let stand = self.failure_stand(service, task);
        if let Some(held) = held.filter(|held| !is_ended(held)) {
            self.replace(vec![], vec![(task, Desired::Shutdown), (held, held.goal())]);
            let progress = self.progress_stand(service, held);
            return if stand == Stand::Steady { progress } else { stand };
        }
        let mut desire = vec![(task, Desired::Shutdown)];
        desire.extend(held.map(|held| (held, Desired::Shutdown)));
        if !restart::is_allowed(self.state, task, self.date) {
            self.replace(vec![], desire);
            return stand;
        }
        let making = self.restart_making(task);
        if !(update::is_going_back(service) && update::is_dirty(self.state, service, task)) {
            let task = self.make(service, &slot.key, Some(task), making);
            self.replace(vec![task], desire);
            return stand;
        }
        // It failed as what the service goes back from: nothing is gained by a delay.
        let free = making.predecessor.as_ref() == Some(&task.id);
        let making = Making {
            desired: if free { Desired::Running } else { Desired::Ready },
            reason: ReasonCode::SpecChanged,
            failures: 0,
            delay: Duration::ZERO,
            ..making
        };
        let made = self.make(service, &slot.key, Some(task), making);
        let id = made.id.clone();
        self.replace(vec![made], desire);
        Stand::Progressing { task: id, since: Since::starting(self.now) }
    }

    /// Returns how the successor of a task that ended is made.
    fn restart_making(&self, task: &'a Task) -> Making {
        let (failures, delay) = restart::delay(task, self.memory.ran(&task.id));
        let base = task.spec.restart.delay;
        let (reason, failures, delay) = if self.is_lost(task) {
            (ReasonCode::NodeLost, 0, Duration::ZERO)
        } else if self.is_drained(task) {
            (ReasonCode::NodeDrained, 0, Duration::ZERO)
        } else if enforce::turned_away(&task.status) {
            (ReasonCode::ConstraintViolated, 0, base)
        } else {
            (ReasonCode::Restarted, failures, delay)
        };
        // Where the predecessor's own predecessor still runs, that is the one to wait for.
        let before = task.predecessor.as_ref().and_then(|id| self.state.task(id));
        let before = before.filter(|before| !self.is_out_of_the_way(before));
        let at_once = delay.is_zero() && before.is_none();
        Making {
            desired: if at_once { Desired::Running } else { Desired::Ready },
            reason,
            predecessor: Some(before.unwrap_or(task).id.clone()),
            overlap: false,
            failures,
            delay,
        }
    }

    /// Tells whether nothing of the task runs any more, as far as anyone can know.
    fn is_out_of_the_way(&self, task: &Task) -> bool {
        let never_given = task.status.state < TaskState::Assigned;
        is_ended(task) || self.is_lost(task) || (never_given && !task.desired.is_wanted())
    }

    /// A replacement whose predecessor was told to stop, or ended.
    fn held_alone(&mut self, service: &Service, slot: &Slot<'a>, held: &'a Task) -> Stand {
        let outdated = self.is_superseded(service, held);
        // Another spec is not to wait until the same would have been tried again.
        if is_ended(held) && !outdated {
            let stand = self.failure_stand(service, held);
            if self.is_delayed(held) {
                return stand;
            }
            let create = if restart::is_allowed(self.state, held, self.date) {
                let making = self.restart_making(held);
                vec![self.make(service, &slot.key, Some(held), making)]
            } else {
                vec![]
            };
            self.replace(create, vec![(held, Desired::Shutdown)]);
            return stand;
        }
        let moved = if self.is_lost(held) {
            Some(ReasonCode::NodeLost)
        } else if self.is_drained(held) {
            Some(ReasonCode::NodeDrained)
        } else if outdated {
            Some(ReasonCode::SpecChanged)
        } else {
            None
        };
        if let Some(reason) = moved {
            let before = held.predecessor.as_ref().and_then(|id| self.state.task(id));
            let before = before.filter(|before| !self.is_out_of_the_way(before));
            let making = Making::held_for(before.unwrap_or(held), reason);
            let task = self.make(service, &slot.key, Some(held), making);
            let id = task.id.clone();
            self.replace(vec![task], vec![(held, Desired::Shutdown)]);
            let updated = reason == ReasonCode::SpecChanged;
            let since = Since::starting(self.now);
            let progressing = Stand::Progressing { task: id, since };
            return if updated { progressing } else { Stand::Steady };
        }
        self.release(held);
        self.progress_stand(service, held)
    }

    /// Lets a held task run once its delay is over and its predecessor out of the way.
    fn release(&mut self, held: &'a Task) {
        let due = self.since(held, Wait::Held, held.created).at(held.delay);
        let predecessor = held.predecessor.as_ref().and_then(|id| self.state.task(id));
        let until = match predecessor.filter(|before| !self.is_out_of_the_way(before)) {
            Some(before) => {
                let grace = before.spec.container.stop_grace.unwrap_or(STOP_GRACE);
                let grace = grace.saturating_add(PREDECESSOR_MARGIN);
                let leaving = self.since(before, Wait::Leaving, before.updated);
                due.max(leaving.at(PREDECESSOR_WAIT.max(grace)))
            }
            None => due,
        };
        if self.now >= until {
            self.replace(vec![], vec![(held, held.goal())]);
        } else {
            self.wake_at(until);
        }
    }

    /// Tells whether the delay of a held task is not over yet. One that failed while it was
    /// prepared is replaced only then: otherwise an image that cannot be had would be asked for
    /// in a tight loop.
    fn is_delayed(&mut self, held: &Task) -> bool {
        let due = self.since(held, Wait::Held, held.created).at(held.delay);
        if self.now < due {
            self.wake_at(due);
        }
        self.now < due
    }

    /// A task and the one that is prepared to take its place.
    fn pair(
        &mut self,
        service: &Service,
        slot: &Slot<'a>,
        running: &'a Task,
        held: &'a Task,
    ) -> Stand {
        let lost = self.is_lost(running);
        let outdated = self.is_superseded(service, held);
        if is_ended(held) && !outdated {
            let stand = self.failure_stand(service, held);
            let again = lost || self.is_replaced(service, running);
            if again && self.is_delayed(held) {
                return stand;
            }
            self.try_again(service, slot, running, held, again);
            return stand;
        }
        let dirty = update::is_dirty(self.state, service, running);
        let unplaced = self.is_lost(held) || self.is_drained(held);
        let stopped = update::is_paused(service) && dirty && !lost;
        let needless = !dirty && !lost && !self.is_drained(running);
        if unplaced || needless || stopped || outdated {
            self.replace(vec![], vec![(held, Desired::Shutdown)]);
            return if dirty && !needless { Stand::Dirty } else { Stand::Steady };
        }
        if held.overlap {
            self.release_beside(held);
            return self.progress_stand(service, held);
        }
        if self.is_drained(running) && !lost {
            self.replace(vec![], vec![(running, Desired::Shutdown)]);
            return self.progress_stand(service, held);
        }
        if self.observed(held) < TaskState::Ready || self.is_delayed(held) {
            return self.progress_stand(service, held);
        }
        if lost {
            self.replace(vec![], vec![(running, Desired::Shutdown), (held, held.goal())]);
        } else {
            self.replace(vec![], vec![(running, Desired::Shutdown)]);
        }
        self.progress_stand(service, held)
    }

    /// Tells whether a task that lives is to give its place to another one.
    fn is_replaced(&self, service: &Service, task: &Task) -> bool {
        self.is_drained(task) || self.is_superseded(service, task)
    }

    /// Tells whether a task was made from a spec that its service has left behind.
    fn is_superseded(&self, service: &Service, task: &Task) -> bool {
        !update::is_paused(service) && update::is_dirty(self.state, service, task)
    }

    /// Ends a replacement that failed before it took over from `running`, and makes another one as
    /// the restart policy says, where one is still needed.
    fn try_again(
        &mut self,
        service: &Service,
        slot: &Slot<'a>,
        running: &'a Task,
        failed: &'a Task,
        again: bool,
    ) {
        let mut create = vec![];
        if again && restart::is_allowed(self.state, failed, self.date) {
            let making = Making {
                desired: Desired::Ready,
                predecessor: Some(running.id.clone()),
                overlap: failed.overlap,
                ..self.restart_making(failed)
            };
            create.push(self.make(service, &slot.key, Some(failed), making));
        }
        self.replace(create, vec![(failed, Desired::Shutdown)]);
    }

    /// Lets a held task that runs beside its predecessor do so, once its delay is over.
    fn release_beside(&mut self, held: &'a Task) {
        if !self.is_delayed(held) {
            self.replace(vec![], vec![(held, held.goal())]);
        }
    }

    /// A task and the one that runs beside it until it has proved itself.
    fn overlapping(
        &mut self,
        service: &Service,
        slot: &Slot<'a>,
        running: &'a Task,
        incoming: &'a Task,
    ) -> Stand {
        if is_ended(running) || self.observed(incoming) == TaskState::Running {
            self.replace(vec![], vec![(running, Desired::Shutdown)]);
            return self.progress_stand(service, incoming);
        }
        if is_ended(incoming) {
            let stand = self.failure_stand(service, incoming);
            let again = self.is_lost(running) || self.is_replaced(service, running);
            self.try_again(service, slot, running, incoming, again);
            return stand;
        }
        let dirty = update::is_dirty(self.state, service, running);
        let gone = self.is_lost(running) || self.is_drained(running);
        let unplaced = self.is_lost(incoming) || self.is_drained(incoming);
        let outdated = update::is_dirty(self.state, service, incoming);
        let paused = update::is_paused(service);
        // It has no node yet, and by now the order asks for no room of its own.
        let misplaced = dirty
            && incoming.status.state < TaskState::Assigned
            && update::config(service).order == UpdateOrder::StopFirst;
        let unplaced = unplaced || (misplaced && !gone);
        let needless = !gone && (paused || !dirty);
        if unplaced || needless || (outdated && !paused) {
            self.replace(vec![], vec![(incoming, Desired::Shutdown)]);
            return if dirty { Stand::Dirty } else { Stand::Steady };
        }
        self.progress_stand(service, incoming)
    }

    /// A task that lives, and none to take its place.
    fn lone(&mut self, service: &Service, slot: &Slot<'a>, task: &'a Task) -> Stand {
        let lost = self.is_lost(task);
        let never = task.spec.restart.condition == RestartCondition::None;
        if lost || self.is_drained(task) {
            if never {
                self.replace(vec![], vec![(task, Desired::Shutdown)]);
            } else if lost {
                // It stays wanted until its replacement is ready: should its node come back before
                // that, nothing was lost.
                let making = Making::held_for(task, ReasonCode::NodeLost);
                let created = self.make(service, &slot.key, Some(task), making);
                self.replace(vec![created], vec![]);
            } else {
                self.move_away(service, slot, task);
            }
            return Stand::Steady;
        }
        if update::is_dirty(self.state, service, task) {
            return Stand::Dirty;
        }
        self.progress_stand(service, task)
    }

    /// Replaces a task whose node is being drained: beside it, where updates do so as well.
    fn move_away(&mut self, service: &Service, slot: &Slot<'a>, task: &'a Task) {
        let reason = ReasonCode::NodeDrained;
        let runs = self.observed(task) == TaskState::Running;
        if runs && service.job.is_none() && service.spec.update.order == UpdateOrder::StartFirst {
            let created = self.make(service, &slot.key, Some(task), Making::beside(task, reason));
            self.replace(vec![created], vec![]);
        } else {
            let created = self.make(service, &slot.key, Some(task), Making::held_for(task, reason));
            self.replace(vec![created], vec![(task, Desired::Shutdown)]);
        }
    }

    /// Returns how a task that lives stands towards the update that made it, if one did.
    fn progress_stand(&mut self, service: &Service, task: &Task) -> Stand {
        if !update::is_fresh(service, task) {
            return Stand::Steady;
        }
        if self.observed(task) < TaskState::Running {
            let since = if self.is_away(task) {
                self.memory.forget_wait(&task.id, Wait::Progress);
                Since::starting(self.now)
            } else {
                let begun = service.update.as_ref().map_or(task.created, |update| update.started);
                self.since(task, Wait::Progress, begun.max(task.created))
            };
            return Stand::Progressing { task: task.id.clone(), since };
        }
        Stand::Watched(self.since(task, Wait::Monitor, task.updated))
    }

    /// Tells whether a task that ended counts as a failure of the update that made it.
    fn failure_stand(&self, service: &Service, task: &Task) -> Stand {
        let monitor = update::config(service).monitor;
        let early = self.memory.ran(&task.id).is_none_or(|ran| ran < monitor);
        let moved = enforce::turned_away(&task.status) || self.is_lost(task);
        // A task that is meant to end has not failed when it does.
        let done = task.status.state == TaskState::Complete
            && task.spec.restart.condition != RestartCondition::Any;
        if update::is_fresh(service, task) && early && !moved && !done {
            Stand::Failed(task.id.clone())
        } else {
            Stand::Steady
        }
    }

    /// Makes a task in place of `old`, or a first one.
    pub(super) fn make(
        &mut self,
        service: &Service,
        key: &SlotKey,
        old: Option<&Task>,
        making: Making,
    ) -> Task {
        let template = template(service, old, making.reason);
        let attachment = Attachment {
            network: None,
            mode: template.spec.network,
            addresses: Vec::new(),
            aliases: Vec::new(),
        };
        Task {
            id: TaskId::generate(self.random),
            version: Version::ZERO,
            created: self.date,
            updated: self.date,
            service: service.id.clone(),
            service_name: service.spec.name.clone(),
            service_labels: service.spec.labels.clone(),
            slot: key.slot,
            node: key.node.clone(),
            spec: template.spec,
            endpoint: template.endpoint,
            spec_version: template.version,
            status: TaskStatus {
                state: TaskState::Pending,
                date: self.date,
                message: "pending task scheduling".to_owned(),
                ..TaskStatus::default()
            },
            job_iteration: service.job.map(|job| job.iteration),
            desired: match making.desired {
                Desired::Running if service.job.is_some() => Desired::Complete,
                desired => desired,
            },
            predecessor: making.predecessor,
            overlap: making.overlap,
            delay: making.delay,
            failures: making.failures,
            reasons: vec![Reason { code: making.reason, date: self.date }],
            attachments: vec![attachment],
            generic: Vec::new(),
        }
    }
}

/// While an update is paused, what ends is replaced by the same again: the new spec is in doubt.
fn template(service: &Service, old: Option<&Task>, reason: ReasonCode) -> Template {
    let paused = update::is_paused(service);
    match old.filter(|_| paused && reason != ReasonCode::SpecChanged) {
        Some(old) => Template {
            spec: old.spec.clone(),
            endpoint: old.endpoint.clone(),
            version: old.spec_version,
        },
        None => Template {
            spec: service.spec.task.clone().into(),
            endpoint: service.spec.endpoint.clone(),
            version: service.spec_version,
        },
    }
}

/// One change a slot at most, and a service has no more slots than are validated.
const CHANGES_MAX: usize = 1_000_000;

const TOO_MANY_CHANGES: &str = "one look decides a bounded number of changes";
