//! What nodes say: registers, heartbeats, reports.

use crate::{
    cluster::{
        Effect, SlotKey, State,
        dispatch::Session,
        leader::Leader,
        schedule::{FAILURE_WINDOW, FAILURES_MAX, Volatile},
    },
    types::{
        FromManager, FromWorker, HeldImage, LocalSuccessor, Moment, Node, NodeDescription, NodeId,
        NodeState, Register, Task, TaskId, TaskReport, TaskState, TaskStatus,
    },
};
use std::collections::BTreeMap;

/// How many reports of one message are looked at: a node runs some hundred tasks at most, and
/// what was left out is repeated until it is taken.
const REPORTS_MAX: usize = 10_000;

/// How many images of one node are kept: more than any node holds, at 200 bytes each.
const IMAGES_MAX: usize = 4_096;

/// How many tasks of its own making a node may bring back for one slot; those before them are
/// forgotten, as history would forget them anyway.
const SUCCESSORS_PER_SLOT_MAX: usize = 8;

/// How many characters are kept of what a node says is wrong: a sentence with a path in it.
const COMPLAINT_MAX: usize = 300;

/// Tells whether a report says something that the log must hold and does not hold yet.
pub(super) fn needs_commit(state: &State, id: &TaskId, status: &TaskStatus) -> bool {
    let Some(task) = state.task(id) else { return false };
    if !status.state.is_committed() || status.state < TaskState::Running {
        return false;
    }
    let known = &task.status;
    if status.state != known.state {
        return status.state > known.state;
    }
    // The same once more: only a running task has news of itself, and a date is none.
    let same = TaskStatus { date: known.date, message: known.message.clone(), ..status.clone() };
    status.state == TaskState::Running && same != TaskStatus { ..known.clone() }
}

/// Who says something.
pub(super) struct Origin<'a> {
    pub(super) node: &'a NodeId,
    /// The address it is seen at.
    pub(super) address: &'a str,
    /// The manager that passes its session on.
    pub(super) via: Option<NodeId>,
}

impl Leader {
    pub(super) fn handle_message(
        &mut self,
        state: &State,
        now: Moment,
        origin: Origin<'_>,
        message: FromWorker,
        effects: &mut Vec<Effect>,
    ) {
        let Origin { node, address, .. } = origin;
        let Some(row) = state.node(node) else {
            let message = if state.is_removed(node) {
                FromManager::Removed
            } else {
                FromManager::NoSession { session: session_of(&message) }
            };
            effects.push(Effect::Send { node: node.clone(), message });
            return;
        };
        if let FromWorker::Register(register) = message {
            let known = &row.description.machine_id;
            let named = &register.description.machine_id;
            if !known.is_empty() && !named.is_empty() && known != named {
                let holder = format!("{} (machine {known})", row.description.hostname);
                let message = FromManager::Duplicate { holder };
                effects.push(Effect::Send { node: node.clone(), message });
            } else {
                self.register(state, now, origin, *register, effects);
            }
            return;
        }
        if let FromWorker::Leave { .. } = message {
            self.sessions.remove(node);
            self.liveness.forget(node);
            self.want_node_state(state, node, NodeState::Down, "node left the cluster");
            return;
        }
        let session = session_of(&message);
        if self.sessions.get(node).is_none_or(|known| known.id != session) {
            let message = FromManager::NoSession { session };
            effects.push(Effect::Send { node: node.clone(), message });
            return;
        }
        self.heard(state, now, node);
        self.see_at(row, address);
        match message {
            FromWorker::Heartbeat { applied, .. } => {
                if let Some(known) = self.sessions.get_mut(node) {
                    known.unwell = known.complaint.take();
                }
                self.beat(state, node, applied, effects);
            }
            FromWorker::Unwell { message, .. } => {
                if let Some(known) = self.sessions.get_mut(node) {
                    known.complaint = Some(message.chars().take(COMPLAINT_MAX).collect());
                }
            }
            FromWorker::Report { number, tasks, .. } => {
                let waits = self.take_reports(state, now, node, tasks);
                if let Some(known) = self.sessions.get_mut(node) {
                    known.await_commit(number, waits);
                }
                self.acknowledge_reports_of(node, effects);
            }
            FromWorker::Inventory { description, images, .. } => {
                self.describe(state, node, address, *description, images);
            }
            FromWorker::Register(_) | FromWorker::Leave { .. } => {}
        }
    }

    fn register(
        &mut self,
        state: &State,
        now: Moment,
        Origin { node, address, via }: Origin<'_>,
        mut register: Register,
        effects: &mut Vec<Effect>,
    ) {
        // A register that came twice must not start the numbers of its session anew: a later set
        // under an earlier number would be taken for an old one.
        let number = self.numbers.get(node).copied().unwrap_or_default();
        self.sessions.insert(node.clone(), Session::new(register.session, number, via));
        self.due.told.insert(node.clone());
        self.heard(state, now, node);
        self.want_node_state(state, node, NodeState::Ready, "");
        self.describe(state, node, address, register.description, register.images);
        let message = FromManager::Registered {
            session: register.session,
            heartbeat: super::super::liveness::heartbeat_period(state),
        };
        effects.push(Effect::Send { node: node.clone(), message });
        register.successors.retain(|made| state.task(&made.task.id).is_none());
        shorten_chains(&mut register.successors);
        for made in &mut register.successors {
            prepare_successor(node, &mut made.task, &register.tasks);
        }
        // What an earlier register of this node brought is in this one, or is gone.
        self.wanted.adoptions.remove(node);
        if let Some(known) = self.sessions.get_mut(node)
            && !register.successors.is_empty()
        {
            // A set without its own tasks would make the node stop them.
            known.hold();
            self.wanted.adoptions.insert(node.clone(), register.successors);
        }
        drop(self.take_reports(state, now, node, register.tasks));
        self.due.nodes.insert(node.clone());
        self.due.schedule = true;
    }

    fn describe(
        &mut self,
        state: &State,
        node: &NodeId,
        address: &str,
        description: NodeDescription,
        mut images: Vec<HeldImage>,
    ) {
        images.truncate(IMAGES_MAX);
        if self.volatile.images.get(node) != Some(&images) {
            self.volatile.images.insert(node.clone(), images);
            self.due.schedule = true;
            self.due.nodes.insert(node.clone());
        }
        let known = state.node(node);
        let same = known.is_some_and(|known| {
            known.description == description && known.status.address == address
        });
        if same {
            self.wanted.descriptions.remove(node);
        } else {
            let wanted = (description, address.to_owned());
            self.wanted.descriptions.insert(node.clone(), wanted);
        }
    }

    /// Takes in where a node is seen: its session goes on where its machine gets another address.
    fn see_at(&mut self, row: &Node, address: &str) {
        let wanted = self.wanted.descriptions.get(&row.id);
        let known = wanted.map_or(&row.status.address, |(_, address)| address);
        if known != address {
            let description = wanted.map_or(&row.description, |(description, _)| description);
            let wanted = (description.clone(), address.to_owned());
            self.wanted.descriptions.insert(row.id.clone(), wanted);
        }
    }

    /// Takes what a node says of its tasks; returns those whose news must be committed first.
    fn take_reports(
        &mut self,
        state: &State,
        now: Moment,
        node: &NodeId,
        reports: Vec<TaskReport>,
    ) -> Vec<TaskId> {
        let mut waits = Vec::new();
        for report in reports.into_iter().take(REPORTS_MAX) {
            let Some(task) = state.task(&report.task) else { continue };
            if task.node.as_ref() != Some(node) {
                continue;
            }
            let wanted = self.wanted.reports.get(&report.task);
            if wanted.is_some_and(|wanted| wanted.state > report.status.state) {
                continue;
            }
            if needs_commit(state, &report.task, &report.status) {
                waits.push(report.task.clone());
                note_failure(&mut self.volatile, now, node, task, report.status.state);
                let running = wanted.filter(|status| status.state == TaskState::Running);
                let running = running.or(Some(&task.status));
                if let Some(running) = running.filter(|status| {
                    status.state == TaskState::Running && report.status.state > status.state
                }) {
                    self.memory.note_end(task, running.date, &report.status);
                }
                self.wanted.reports.insert(report.task, report.status);
            } else {
                self.take_soft(task, report.status);
            }
        }
        waits
    }

    fn take_soft(&mut self, task: &Task, status: TaskStatus) {
        let between = status.state > TaskState::Assigned && status.state < TaskState::Running;
        let known = self.volatile.soft.get(&task.id).map_or(task.status.state, |s| s.state);
        if !between || status.state < known || status.state < task.status.state {
            return;
        }
        if status.state >= TaskState::Ready {
            self.due.services.insert(task.service.clone());
        }
        self.volatile.soft.insert(task.id.clone(), status);
    }
}

/// Remembers that a node failed a task that the scheduler gave it.
fn note_failure(volatile: &mut Volatile, now: Moment, node: &NodeId, task: &Task, to: TaskState) {
    let failed = matches!(to, TaskState::Failed | TaskState::Rejected);
    if !failed || task.slot == 0 || task.status.state > TaskState::Running {
        return;
    }
    let recent = |at: &Moment| now.since(*at) < FAILURE_WINDOW;
    volatile.failures.retain(|_, times| {
        times.retain(recent);
        !times.is_empty()
    });
    let key = (task.service.clone(), task.spec_version, node.clone());
    let times = volatile.failures.entry(key).or_default();
    // More than the scheduler looks for make no difference.
    if times.len() > FAILURES_MAX {
        times.remove(0);
    }
    times.push(now);
}

/// Keeps the newest of every chain, and links them to what the chain began with.
fn shorten_chains(successors: &mut Vec<LocalSuccessor>) {
    let mut left: BTreeMap<SlotKey, (usize, Option<TaskId>)> = BTreeMap::new();
    for made in successors.iter() {
        let first = || (0, made.task.predecessor.clone());
        left.entry(SlotKey::of(&made.task)).or_insert_with(first).0 += 1;
    }
    successors.retain_mut(|made| {
        let Some((count, first)) = left.get_mut(&SlotKey::of(&made.task)) else { return false };
        *count -= 1;
        if *count == SUCCESSORS_PER_SLOT_MAX - 1 {
            made.task.predecessor.clone_from(first);
        }
        *count < SUCCESSORS_PER_SLOT_MAX
    });
}

/// Gives a task that a node made itself the newest that the node says of it.
fn prepare_successor(node: &NodeId, task: &mut Task, reports: &[TaskReport]) {
    task.node = Some(node.clone());
    if let Some(report) = reports.iter().find(|report| report.task == task.id) {
        task.status = report.status.clone();
    }
    if !task.status.state.is_committed() {
        task.status.state = TaskState::Assigned;
    }
}

fn session_of(message: &FromWorker) -> u64 {
    match message {
        FromWorker::Register(register) => register.session,
        FromWorker::Heartbeat { session, .. }
        | FromWorker::Report { session, .. }
        | FromWorker::Inventory { session, .. }
        | FromWorker::Unwell { session, .. }
        | FromWorker::Leave { session } => *session,
    }
}
