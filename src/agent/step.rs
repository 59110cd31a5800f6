//! The agent's loop body: an event comes in, what is known changes, actions follow.
//!
//! Knows the order of things within one step: what is learnt, what follows for each task, what is
//! written, and only then what is done and said.

use super::{
    assign::Stray,
    event::{Action, Event, Observed, Operation, Record, StoredTask},
    probe::{PROBES_MAX, Probes},
    report::Reports,
    restart::{OFFLINE_AFTER, Restarts},
    session::{Say, Session},
    task::{At, Container, Entry, Next, Work},
};
use crate::{
    types::{
        Date, FromManager, FromWorker, HeldImage, Moment, NodeDescription, Register, STOP_GRACE,
        Sequence, Task, TaskId, TaskReport, TaskState, TaskStatus,
    },
    util::random::draw,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How many tasks are prepared at once: unpacking an image keeps a small board's core and SD card
/// busy, and four of them hide a slow registry.
pub const PREPARES_MAX: usize = 4;

/// How many containers are started at once: a start is half a second of a small board's CPU.
pub const STARTS_MAX: usize = 4;

/// The wait for an inventory before it is asked for again.
const INVENTORY_RETRY: Duration = Duration::from_secs(10);

/// How long a node that leaves or was removed tries to clear its containers away: longer than the
/// grace period of all but a few, and short enough for a person to wait.
const LEAVE_LIMIT: Duration = Duration::from_secs(120);

/// What may differ between agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many tasks are prepared at once; [`PREPARES_MAX`].
    pub prepares: usize,
    /// How many containers are started at once; [`STARTS_MAX`].
    pub starts: usize,
    /// How many probes run at once; [`PROBES_MAX`].
    pub probes: usize,
    /// How long without a session before tasks are restarted locally; [`OFFLINE_AFTER`].
    pub offline_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prepares: PREPARES_MAX,
            starts: STARTS_MAX,
            probes: PROBES_MAX,
            offline_after: OFFLINE_AFTER,
        }
    }
}

/// The node is on its way out of the cluster.
#[derive(Debug)]
pub(super) struct Leaving {
    reason: String,
    /// Whether the manager is to be told.
    tell: bool,
    limit: Moment,
    retired: bool,
}

/// The worker's decisions.
#[derive(Debug)]
pub struct Agent {
    pub(super) options: Options,
    /// State of the stream of session numbers.
    random: u64,
    step: u64,
    /// The place of the last set of assignments that was taken.
    pub(super) sequence: Sequence,
    /// Whether epoch or term rose since that was written.
    pub(super) sequence_dirty: bool,
    /// Whether a complete set was taken in this session.
    pub(super) set_taken: bool,
    pub(super) tasks: BTreeMap<TaskId, Entry>,
    /// Tasks to forget on disk.
    forgotten: Vec<TaskId>,
    pub(super) strays: BTreeMap<TaskId, Stray>,
    /// Whether a complete set was ever taken: what it did not name is nobody's.
    pub(super) strays_judged: bool,
    pub(super) session: Session,
    reports: Reports,
    pub(super) probes: Probes,
    pub(super) restarts: Restarts,
    /// Whether the containers are known; not while the runtime is away.
    pub(super) inventoried: bool,
    /// The number of the last inventory that was asked for: the step it was asked in.
    inventory_asked: u64,
    /// When to ask for one (again).
    inventory_due: Option<Moment>,
    /// The step in which the runtime was lost last: an inventory asked for before is worthless.
    runtime_lost: u64,
    description: Option<Box<NodeDescription>>,
    images: Vec<HeldImage>,
    /// The last session that a register was sent for.
    introduced: Option<u64>,
    /// Whether what the node is or holds changed since that register was first sent.
    redescribe: bool,
    /// Which of them services refer to, by digest, once a manager said so.
    pub(super) kept: Option<BTreeSet<String>>,
    pub(super) leaving: Option<Leaving>,
    pub(super) out: Vec<Action>,
}

impl Agent {
    /// Takes over what is on disk, and asks what the runtime has of it.
    #[must_use]
    pub fn new(
        options: Options,
        sequence: Sequence,
        stored: Vec<StoredTask>,
        now: Moment,
        date: Date,
        seed: u64,
    ) -> (Self, Vec<Action>) {
        let entry = |stored| {
            let entry = Entry::stored(stored, now);
            (entry.task.id.clone(), entry)
        };
        let tasks: BTreeMap<TaskId, Entry> = stored.into_iter().map(entry).collect();
        let mut agent = Self {
            restarts: Restarts::remember(&tasks, now),
            options,
            random: seed,
            step: 0,
            sequence,
            sequence_dirty: false,
            set_taken: false,
            tasks,
            forgotten: Vec::new(),
            strays: BTreeMap::new(),
            strays_judged: false,
            session: Session::new(now),
            reports: Reports::default(),
            probes: Probes::new(now),
            inventoried: false,
            inventory_asked: 0,
            inventory_due: Some(now),
            runtime_lost: 0,
            description: None,
            images: Vec::new(),
            introduced: None,
            redescribe: false,
            kept: None,
            leaving: None,
            out: Vec::new(),
        };
        let actions = agent.step(now, date, Event::Tick);
        (agent, actions)
    }

    /// Takes an event; returns what to do, in order.
    pub fn step(&mut self, now: Moment, date: Date, event: Event) -> Vec<Action> {
        self.step += 1;
        let at = At { now, date, step: self.step };
        self.take(event, at);
        self.expire(now);
        self.ask_inventory(now);
        self.restart_locally(at);
        self.drive_tasks(at);
        self.drive_probes(at);
        self.drive_strays(now);
        self.finish_leaving(now);
        self.speak(now);
        let mut actions = Vec::new();
        let records = self.records();
        if !records.is_empty() {
            actions.push(Action::Persist(records));
        }
        actions.append(&mut self.out);
        actions
    }

    /// Returns when [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let leaving = self.leaving.as_ref().filter(|leaving| !leaving.retired);
        let mut deadlines = vec![
            self.session.deadline(self.description.is_some()),
            self.session.registered().and_then(|_| self.reports.deadline()),
            self.local_deadline(),
            self.inventory_due,
            self.probe_deadline(),
            leaving.map(|leaving| leaving.limit),
        ];
        deadlines.extend(self.tasks.values().map(|entry| entry.body.deadline()));
        deadlines.extend(self.strays.values().map(|stray| stray.body.deadline()));
        deadlines.into_iter().flatten().min()
    }

    /// Returns every task of this node, with how far it has come, in order of id.
    pub fn tasks(&self) -> impl Iterator<Item = (&Task, &TaskStatus)> {
        self.tasks.values().map(|entry| (&entry.task, &entry.status))
    }

    /// Returns how far a task of this node has come, and whether its container runs no more and never
    /// will; none of a task that is not here, or not any more.
    #[must_use]
    pub fn outcome(&self, task: &TaskId) -> Option<(&TaskStatus, bool)> {
        let entry = self.tasks.get(task)?;
        let runs = entry.body.container == Container::Running;
        Some((&entry.status, !entry.status.state.is_live() && !runs))
    }

    /// Returns the number of the session that stands with a manager, if one does.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.session.registered()
    }

    /// Returns how often the manager wants to hear of this node.
    #[must_use]
    pub fn heartbeat_period(&self) -> Duration {
        self.session.period()
    }

    /// Returns the place of the last set of assignments that was taken.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Returns what the node is, once that is known.
    #[must_use]
    pub fn description(&self) -> Option<&NodeDescription> {
        self.description.as_deref()
    }

    /// Returns the images the node holds, as far as known.
    #[must_use]
    pub fn images(&self) -> &[HeldImage] {
        &self.images
    }

    /// Returns which images services refer to, by digest, once a manager said so.
    #[must_use]
    pub fn kept_images(&self) -> Option<&BTreeSet<String>> {
        self.kept.as_ref()
    }

    fn take(&mut self, event: Event, at: At) {
        match event {
            Event::Inventory { asked, containers } => self.take_inventory(asked, &containers, at),
            Event::RuntimeFound => self.inventory_due = Some(at.now),
            Event::RuntimeLost => {
                self.inventoried = false;
                self.runtime_lost = at.step;
                self.inventory_due = Some(at.now + INVENTORY_RETRY);
            }
            Event::Message(message) => self.take_message(message, at),
            Event::Connected => self.begin_session(at.now),
            Event::Disconnected => self.session.disconnected(at.now),
            Event::Described { description, images } => self.describe(description, images),
            Event::Tick => {}
            Event::Leave => self.leave("left the cluster", true, at.now),
            Event::Probed { task, number, result } => self.take_probe(&task, number, result, at),
            Event::Prepared { task, result } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.prepared(result, at);
                }
            }
            Event::Started { task, result } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.started(result, at);
                }
            }
            Event::Exited { task, phase } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.exited(&phase, at);
                } else if let Some(stray) = self.strays.get_mut(&task) {
                    stray.exited(phase, at);
                }
            }
            Event::StopFailed { task, failure } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.stop_failed(&failure, at);
                } else if let Some(stray) = self.strays.get_mut(&task) {
                    stray.stop_failed(at);
                }
            }
            Event::Removed { task, result } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.removed(&result, at);
                } else if let Some(stray) = self.strays.get_mut(&task)
                    && stray.removed(&result, at)
                {
                    self.strays.remove(&task);
                }
            }
        }
    }

    /// Takes what the runtime found. What was learnt after `as_of`, the step in which the inventory
    /// was asked for, is newer than it, however late the answer comes.
    fn take_inventory(&mut self, as_of: u64, containers: &[Observed], at: At) {
        if as_of < self.runtime_lost {
            return;
        }
        if as_of >= self.inventory_asked {
            self.inventory_due = None;
        }
        self.inventoried = true;
        let found: BTreeMap<&TaskId, &Observed> =
            containers.iter().map(|observed| (&observed.task, observed)).collect();
        for (id, entry) in &mut self.tasks {
            let unknown = entry.body.container == Container::Unknown;
            let older = unknown || entry.body.changed <= as_of;
            let stopping = entry.body.busy(Work::Stop);
            if older && (entry.body.work.is_none() || stopping) {
                entry.observed(found.get(id).copied(), at);
            }
        }
        self.strays.retain(|id, stray| {
            stray.body.work.is_some() || stray.body.changed > as_of || found.contains_key(id)
        });
        for (id, observed) in found {
            if !self.tasks.contains_key(id) && !self.strays.contains_key(id) {
                self.strays.insert(id.clone(), Stray::new(observed.clone(), at));
            }
        }
    }

    fn ask_inventory(&mut self, now: Moment) {
        if self.inventory_due.is_some_and(|due| due <= now) {
            self.inventory_asked = self.step;
            self.inventory_due = Some(now + INVENTORY_RETRY);
            self.out.push(Action::Perform(Operation::TakeInventory { asked: self.step }));
        }
    }

    fn expire(&mut self, now: Moment) {
        let mut lost = false;
        for entry in self.tasks.values_mut() {
            lost |= entry.body.expire(now);
        }
        for stray in self.strays.values_mut() {
            lost |= stray.body.expire(now);
        }
        if lost && self.inventory_due.is_none() {
            self.inventory_due = Some(now);
        }
    }

    /// Draws a session's number.
    pub(super) fn draw(&mut self) -> u64 {
        draw(&mut self.random)
    }

    fn begin_session(&mut self, now: Moment) {
        let number = self.draw();
        self.session.connected(number, now);
        self.new_session();
    }

    fn new_session(&mut self) {
        self.set_taken = false;
        self.reports = Reports::default();
    }

    fn describe(&mut self, description: Box<NodeDescription>, images: Vec<HeldImage>) {
        if self.description.as_ref() == Some(&description) && self.images == images {
            return;
        }
        self.description = Some(description);
        self.images = images;
        self.redescribe = true;
    }

    fn take_message(&mut self, message: FromManager, at: At) {
        match message {
            FromManager::Registered { session, heartbeat } => {
                if self.session.accepted(session, heartbeat, at.now) {
                    self.new_session();
                }
            }
            FromManager::Beat { session, heartbeat } => {
                self.session.answered(session, heartbeat, at.now);
            }
            FromManager::Assignments(set) => self.assign(*set, at),
            FromManager::ReportTaken { session, number } => {
                if self.session.registered() == Some(session) {
                    self.reports.taken(number, &mut self.tasks);
                }
            }
            FromManager::NoSession { session } => {
                let fresh = self.draw();
                self.session.unknown(session, fresh, at.now);
            }
            FromManager::Removed => self.leave("removed from the cluster", false, at.now),
            // The daemon's affair: what a node is decides nothing about its containers.
            FromManager::Place { .. } | FromManager::Trust { .. } => {}
            FromManager::Duplicate { holder } => {
                self.session.refuse(at.now);
                let reason = format!(
                    "this node's key is in use on {holder}: is this disk a copy of that one's?"
                );
                self.out.push(Action::Reconnect { reason });
            }
        }
    }

    fn leave(&mut self, reason: &str, tell: bool, now: Moment) {
        if self.leaving.is_some() {
            return;
        }
        let (reason, limit) = (reason.to_owned(), now + LEAVE_LIMIT);
        self.leaving = Some(Leaving { reason, tell, limit, retired: false });
        for entry in self.tasks.values_mut() {
            entry.drop_assignment();
        }
        self.tell_leaving();
    }

    fn tell_leaving(&mut self) {
        if let Some(session) = self.session.registered()
            && self.leaving.as_ref().is_some_and(|leaving| leaving.tell)
        {
            self.out.push(Action::Send(FromWorker::Leave { session }));
        }
    }

    fn finish_leaving(&mut self, now: Moment) {
        let left = self.tasks.len() + self.strays.len();
        let clean = left == 0 && self.inventoried;
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.retired || (!clean && leaving.limit > now) {
            return;
        }
        leaving.retired = true;
        let mut reason = leaving.reason.clone();
        if !clean {
            reason += "; containers may be left that could not be removed";
        }
        self.out.push(Action::Retire { reason });
    }

    fn drive_tasks(&mut self, at: At) {
        let busy = |work| self.tasks.values().filter(|e| e.body.busy(work)).count();
        let mut prepares = self.options.prepares.saturating_sub(busy(Work::Prepare));
        let mut starts = self.options.starts.saturating_sub(busy(Work::Start));
        let mut unbounded = usize::MAX;
        let mut forget = Vec::new();
        for entry in self.tasks.values_mut() {
            entry.settle(at.now, at.date);
            let work = match entry.next() {
                Next::Nothing => continue,
                Next::Forget => {
                    forget.push(entry.task.id.clone());
                    continue;
                }
                Next::Do(work) => work,
            };
            let left = match work {
                // Nothing is known of containers: what seems to follow may not.
                _ if !self.inventoried => continue,
                Work::Prepare | Work::Start
                    if self.description.is_none() && entry.needs_description() =>
                {
                    continue;
                }
                Work::Prepare => &mut prepares,
                Work::Start => &mut starts,
                Work::Stop | Work::Remove => &mut unbounded,
            };
            if *left == 0 {
                continue;
            }
            if let Some(operation) = entry.begin(work, self.description.as_deref(), at) {
                *left -= 1;
                self.out.push(Action::Perform(operation));
            }
        }
        for id in forget {
            self.tasks.remove(&id);
            self.forgotten.push(id);
        }
        if !self.forgotten.is_empty() {
            self.restarts.prune(&self.tasks);
        }
    }

    fn drive_strays(&mut self, now: Moment) {
        let judged = self.strays_judged || self.leaving.is_some();
        if !judged || !self.inventoried {
            return;
        }
        for (id, stray) in &mut self.strays {
            let Next::Do(work) = stray.body.clear_away() else { continue };
            stray.body.begin(work, now, STOP_GRACE);
            let task = id.clone();
            self.out.push(Action::Perform(match work {
                Work::Stop => Operation::Stop { task, signal: String::new(), grace: STOP_GRACE },
                Work::Prepare | Work::Start | Work::Remove => Operation::Remove { task },
            }));
        }
    }

    fn speak(&mut self, now: Moment) {
        self.tell_description();
        match self.session.poll(self.description.is_some(), now) {
            Say::Nothing => {}
            Say::Register { session } => {
                if self.introduced != Some(session) {
                    self.introduced = Some(session);
                    self.redescribe = false;
                }
                if let Some(register) = self.register(session) {
                    self.out.push(Action::Send(FromWorker::Register(Box::new(register))));
                }
            }
            Say::Heartbeat { session } => {
                self.tell_leaving();
                // The numbers of an earlier session would look like this one's.
                let number = if self.set_taken { self.sequence.number } else { 0 };
                let applied = Sequence { number, ..self.sequence };
                self.out.push(Action::Send(FromWorker::Heartbeat { session, applied }));
            }
            Say::GiveUp => {
                let reason = "the manager does not answer heartbeats".to_owned();
                self.out.push(Action::Reconnect { reason });
            }
        }
        if let Some(session) = self.session.registered()
            && let Some(report) = self.reports.poll(session, &self.tasks, now)
        {
            self.out.push(Action::Send(report));
        }
    }

    /// Tells what the register of this session did not: the answer to it says nothing of what
    /// changed while it was under way.
    fn tell_description(&mut self) {
        if let Some(session) = self.session.registered()
            && self.redescribe
            && let Some(description) = self.description.clone()
        {
            self.redescribe = false;
            let images = self.images.clone();
            self.out.push(Action::Send(FromWorker::Inventory { session, description, images }));
        }
    }

    fn register(&self, session: u64) -> Option<Register> {
        let report = |entry: &Entry| TaskReport {
            task: entry.task.id.clone(),
            status: entry.status.clone(),
        };
        Some(Register {
            session,
            description: *self.description.clone()?,
            images: self.images.clone(),
            tasks: self.tasks.values().map(report).collect(),
            successors: self.successors(),
        })
    }

    fn records(&mut self) -> Vec<Record> {
        let mut records: Vec<Record> = self.forgotten.drain(..).map(Record::RemoveTask).collect();
        for entry in self.tasks.values_mut().filter(|entry| entry.dirty) {
            entry.dirty = false;
            records.push(Record::PutTask(Box::new(entry.to_stored())));
        }
        if self.sequence_dirty || !records.is_empty() {
            self.sequence_dirty = false;
            records.push(Record::Sequence(self.sequence));
        }
        for entry in self.tasks.values_mut().filter(|entry| entry.unnoted) {
            entry.unnoted = false;
            records.push(Record::NoteTask(Box::new(entry.to_stored())));
        }
        records
    }
}

impl Entry {
    /// The node has the task.
    pub(super) fn accept(&mut self, at: At) {
        if self.status.state < TaskState::Accepted {
            self.advance(TaskState::Accepted, at.date, "accepted", "");
        }
    }
}
