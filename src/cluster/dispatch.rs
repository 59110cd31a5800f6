//! Sessions, and what each node is told to run.
//!
//! A set of assignments is complete first and then grows by increments; a node that falls behind
//! gets a complete one again. What a node needs to know of a task is that it is there and how far
//! it should come: its other changes are not sent.

use super::{Effect, Leader, State, rotation::Told};
use crate::types::{
    Assignments, Desired, FromManager, NodeId, Role, Sequence, Task, TaskId, TaskState,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many reports of one session wait for their commit: a worker repeats what was dropped.
const REPORTS_WAITING_MAX: usize = 1_024;

/// What is said of a node that took assignments of another manager, above all that this one gives.
const FOLLOWS_ANOTHER: &str = "the node ignores this manager, since it has followed one that began \
                               later: was an older backup restored with a clock that is behind? Set \
                               the clock and restore again, or have the node leave and join anew";

/// The digests of the present root and of the next one.
pub(super) type RootDigests = ([u8; 32], Option<[u8; 32]>);

/// A node's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// The manager that passes it on, until that one was too silent itself.
    pub(super) via: Option<NodeId>,
    /// The number of the last set sent, in this session or before it; 0 before the first.
    number: u64,
    /// What the node was told; none until the first complete set.
    sent: Option<BTreeMap<TaskId, Desired>>,
    /// Which of its images it was told that services refer to.
    kept: BTreeSet<String>,
    /// Nothing is sent before the node's own tasks are taken over.
    held: bool,
    /// What the node last said it had taken, where that was less than was sent.
    behind: Option<Sequence>,
    /// The role and the managers' addresses that it was told.
    pub(super) place: Option<(Role, Vec<String>)>,
    /// How many heartbeats came since.
    pub(super) place_age: u32,
    /// What it was told of the roots.
    pub(super) trust: Option<Told>,
    /// What is wrong with the node's manager, as of its last heartbeat.
    pub(super) unwell: Option<String>,
    /// What it said of that since.
    pub(super) complaint: Option<String>,
    /// Reports and the tasks whose news must be committed before they count as taken.
    reports: VecDeque<(u64, Vec<TaskId>)>,
}

impl Session {
    pub(super) fn new(id: u64, number: u64, via: Option<NodeId>) -> Self {
        let (sent, behind, place, trust, kept) = (None, None, None, None, BTreeSet::new());
        let (held, place_age, reports) = (false, 0, VecDeque::new());
        let (unwell, complaint) = (None, None);
        Self {
            id,
            via,
            number,
            sent,
            kept,
            held,
            behind,
            place,
            place_age,
            trust,
            unwell,
            complaint,
            reports,
        }
    }

    /// Tells whether the node was told of one of these tasks.
    pub(super) fn knows_any(&self, tasks: &[TaskId]) -> bool {
        self.sent.as_ref().is_some_and(|sent| tasks.iter().any(|task| sent.contains_key(task)))
    }

    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    pub(super) fn await_commit(&mut self, number: u64, tasks: Vec<TaskId>) {
        if self.reports.len() < REPORTS_WAITING_MAX {
            self.reports.push_back((number, tasks));
        }
    }
}

impl Leader {
    pub(super) fn beat(
        &mut self,
        state: &State,
        node: &NodeId,
        applied: Sequence,
        effects: &mut Vec<Effect>,
    ) {
        let epoch = state.applied().epoch;
        let term = self.term();
        let Some(session) = self.sessions.get_mut(node) else { return };
        session.place_age = session.place_age.saturating_add(1);
        self.due.told.insert(node.clone());
        if let Some(told) = &mut session.trust {
            told.grow_older();
        }
        let heartbeat = super::liveness::heartbeat_period(state);
        let message = FromManager::Beat { session: session.id, heartbeat };
        effects.push(Effect::Send { node: node.clone(), message });
        if (applied.epoch, applied.term) > (epoch, term) {
            session.unwell = Some(FOLLOWS_ANOTHER.to_owned());
        }
        let sent = Sequence { epoch, term, number: session.number };
        let same_stream = (applied.epoch, applied.term) == (epoch, term);
        if same_stream && applied.number > session.number {
            // A register that came late began this session a second time, after it was forgotten:
            // what follows must count on from what the node holds, or it takes it for old.
            session.number = applied.number;
            self.numbers.insert(node.clone(), applied.number);
            session.behind = None;
            session.sent = None;
            self.due.nodes.insert(node.clone());
        } else if session.sent.is_none() || applied >= sent {
            session.behind = None;
        } else if session.behind == Some(applied) {
            // Nothing moved for a whole beat: something was lost.
            session.behind = None;
            session.sent = None;
            self.due.nodes.insert(node.clone());
        } else {
            session.behind = Some(applied);
        }
    }

    pub(super) fn release_assignments(&mut self, node: &NodeId) {
        if let Some(session) = self.sessions.get_mut(node) {
            session.held = false;
            self.due.nodes.insert(node.clone());
        }
    }

    pub(super) fn forget_node(&mut self, node: &NodeId, effects: &mut Vec<Effect>) {
        self.sessions.remove(node);
        self.numbers.remove(node);
        self.liveness.forget(node);
        self.volatile.images.remove(node);
        self.wanted.node_states.remove(node);
        self.wanted.descriptions.remove(node);
        self.wanted.adoptions.remove(node);
        effects.push(Effect::Send { node: node.clone(), message: FromManager::Removed });
        effects.push(Effect::Disconnect { node: node.clone() });
    }

    /// Tells nodes that their reports are taken, once what they say is committed.
    pub(super) fn acknowledge_reports(&mut self, effects: &mut Vec<Effect>) {
        for node in std::mem::take(&mut self.due.reports) {
            self.acknowledge_reports_of(&node, effects);
        }
    }

    pub(super) fn acknowledge_reports_of(&mut self, node: &NodeId, effects: &mut Vec<Effect>) {
        let waiting = &self.wanted.reports;
        let Some(session) = self.sessions.get_mut(node) else { return };
        let id = session.id;
        session.reports.retain(|(number, tasks)| {
            if tasks.iter().any(|task| waiting.contains_key(task)) {
                return true;
            }
            let message = FromManager::ReportTaken { session: id, number: *number };
            effects.push(Effect::Send { node: node.clone(), message });
            false
        });
        if !session.reports.is_empty() {
            self.due.reports.insert(node.clone());
        }
    }

    /// Sends what changed to the nodes whose assignments may have changed.
    pub(super) fn dispatch(&mut self, state: &State, effects: &mut Vec<Effect>) {
        let epoch = state.applied().epoch;
        let term = self.term();
        if self.keep.refresh(state) {
            self.due.nodes.extend(self.sessions.keys().cloned());
        }
        for node in std::mem::take(&mut self.due.nodes) {
            let Some(session) = self.sessions.get_mut(&node).filter(|s| !s.held) else { continue };
            let given = |task: &&Task| task.status.state >= TaskState::Assigned;
            let tasks: Vec<&Task> = state.tasks_on_node(&node).filter(given).collect();
            let now: BTreeMap<TaskId, Desired> =
                tasks.iter().map(|task| (task.id.clone(), task.desired)).collect();
            let complete = session.sent.is_none();
            let before = session.sent.take().unwrap_or_default();
            let changed = tasks
                .into_iter()
                .filter(|task| complete || before.get(&task.id) != Some(&task.desired));
            let changed: Vec<Task> = changed.cloned().collect();
            let removed = before.into_keys().filter(|id| !now.contains_key(id));
            let removed: Vec<TaskId> = removed.collect();
            session.sent = Some(now);
            let held = self.volatile.images.get(&node).map_or(&[][..], Vec::as_slice);
            let kept = self.keep.of(held);
            let images = (complete || session.kept != kept).then(|| kept.clone());
            session.kept = kept;
            if !complete && changed.is_empty() && removed.is_empty() && images.is_none() {
                continue;
            }
            session.number += 1;
            self.numbers.insert(node.clone(), session.number);
            let sequence = Sequence { epoch, term, number: session.number };
            let (session, tasks) = (session.id, changed);
            let set = Assignments { session, sequence, complete, tasks, removed, images };
            assert!(!set.complete || set.removed.is_empty(), "a complete set removes by omission");
            let message = FromManager::Assignments(Box::new(set));
            effects.push(Effect::Send { node, message });
        }
    }
}
