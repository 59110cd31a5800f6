//! What must hold after every event, and when a cluster has come to rest.

use super::{
    group::{Group, History},
    jobs, quorum, updates,
    world::World,
};
use crate::{
    agent::Operation,
    cluster::{Change, State, decode_entry, invariants},
    consensus::Committed,
    types::{
        Availability, Desired, FromWorker, Mode, NodeId, NodeState, Sequence, ServiceId, Task,
        TaskId, TaskState, TaskStatus, Version,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// How far each task had come: its state, what was desired of it, and its node.
type Known = BTreeMap<TaskId, (TaskState, Desired, Option<NodeId>)>;

fn known(state: &State) -> Known {
    let known = |task: &Task| (task.status.state, task.desired, task.node.clone());
    state.tasks().map(|task| (task.id.clone(), known(task))).collect()
}

impl updates::Before for Known {
    fn of(&self, task: &TaskId) -> Option<(TaskState, Desired)> {
        self.get(task).map(|(state, desired, _)| (*state, *desired))
    }
}

/// What the checkers remember of a run.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The state as everything committed makes it.
    pub(super) state: State,
    /// What each entry held: none may ever change.
    pub(super) entries: BTreeMap<u64, Committed>,
    /// What is known of leaders.
    pub(super) group: Group,
    /// What users were told.
    pub(super) history: History,
    /// How far each task had come.
    tasks: Known,
    /// The last place in the manager's stream that each node said it took.
    sequences: BTreeMap<NodeId, Sequence>,
    /// Services whose failed update was rolled back.
    reverted: BTreeSet<ServiceId>,
    /// Tasks that a cluster which was restored to before did not want any more: its nodes may be about
    /// to end them.
    told_to_end: BTreeSet<TaskId>,
    /// Nodes that are told to leave.
    pub(super) leaving: BTreeSet<NodeId>,
    /// How many roots there were after the first.
    pub(super) roots: u8,
}

impl Checks {
    /// Returns what was known when the state was this one.
    pub(super) fn as_of(&self, state: &State) -> Self {
        let last = state.applied().index;
        let entries = self.entries.range(..=last);
        Self {
            state: state.clone(),
            entries: entries.map(|(index, entry)| (*index, entry.clone())).collect(),
            history: self.history.as_of(state),
            tasks: known(state),
            reverted: self.reverted.clone(),
            ..Self::default()
        }
    }

    /// The cluster is as it was then. What nodes hold and were told to do, and which roots there were,
    /// stays.
    pub(super) fn go_back_to(&mut self, before: Self) {
        let is_wanted = |id| self.state.task(id).is_some_and(|task| task.desired.is_wanted());
        let ids = before.state.tasks().map(|task| &task.id);
        self.told_to_end.extend(ids.filter(|id| !is_wanted(id)).cloned());
        self.state = before.state;
        self.entries = before.entries;
        self.history.go_back_to(before.history);
        self.tasks = before.tasks;
        self.reverted = before.reverted;
        self.group.is_made_anew();
    }
}

impl World {
    /// A committed entry reaches the driver of a manager.
    pub(super) fn check_entry(&self, node: &NodeId, entry: &Committed) {
        let mut checks = self.checks();
        if let Some(known) = checks.entries.get(&entry.index) {
            let (index, name) = (entry.index, self.name(node));
            assert!(known == entry, "entry {index} was committed, and is another one on {name}");
            return;
        }
        checks.group.check_entry(entry.index, entry.term);
        let next = checks.entries.keys().next_back().map_or(0, |last| last + 1);
        assert!(entry.index == next, "entry {} comes where {next} is due", entry.index);
        checks.entries.insert(entry.index, entry.clone());
        self.0.executor.record(entry.index);
        if entry.data.is_empty() {
            return;
        }
        for command in decode_entry(&entry.data).expect("what we wrote is readable") {
            let version = Version { epoch: checks.state.epoch(), index: entry.index };
            let voters = quorum::voters(&checks.state);
            let outcome = checks.state.apply(version, entry.term, &command);
            if outcome.is_ok() {
                let left = quorum::voters(&checks.state);
                match &command.change {
                    Change::ForceNewCluster { manager, .. } => {
                        assert!(checks.state.epoch() > version.epoch, "the epoch stays");
                        quorum::check_alone(&left, manager);
                    }
                    Change::RestoreCluster { node, .. } => {
                        assert!(checks.state.epoch() > version.epoch, "the epoch stays");
                        quorum::check_alone(&left, &node.id);
                    }
                    _ => quorum::check_voters(&voters, &left),
                }
                updates::check_change(&mut checks.reverted, &command.change);
                if let Change::FinishRootRotation { root } = &command.change {
                    self.check_rotated(&checks.state, root);
                }
                if let Some(request) = command.request.clone() {
                    checks.history.note(request, entry.index);
                }
            }
            let index = entry.index;
            self.trace(|| format!("#{index} {:?} -> {outcome:?}", command.change));
        }
        for byte in &entry.data {
            self.0.executor.record(u64::from(*byte));
        }
        checks.after_entry(entry.index, |task| self.is_prepared(task));
        for task in checks.state.tasks().filter(|task| task.status.state == TaskState::Running) {
            self.check_well(task.node.as_ref(), task, &task.status);
        }
    }

    /// Tells whether the task's node holds its container, not started yet; none where the node is
    /// gone.
    fn is_prepared(&self, task: &Task) -> Option<bool> {
        let machines = self.machines();
        let machine = machines.get(task.node.as_ref()?)?;
        Some(machine.fake.lock().unwrap().is_prepared(&task.id))
    }

    /// A task with a check never runs before its container was found well.
    fn check_well(&self, node: Option<&NodeId>, task: &Task, status: &TaskStatus) {
        let checked = task.spec.container.health.is_some();
        if !checked || status.state != TaskState::Running {
            return;
        }
        let machines = self.machines();
        // A node that was removed takes its containers with it.
        let Some(machine) = node.and_then(|node| machines.get(node)) else { return };
        let well = machine.fake.lock().unwrap().was_well(&task.id);
        assert!(well, "{} runs and was never found well", task.id);
    }

    /// A daemon is about to do something to a container.
    pub(super) fn check_operation(&self, node: &NodeId, operation: &Operation) {
        let (Operation::Stop { task, .. } | Operation::Remove { task }) = operation else {
            return;
        };
        let (runs, failed) = {
            let machines = self.machines();
            let fake = machines[node].fake.lock().unwrap();
            (fake.running().contains(task), fake.failed_probes(task))
        };
        if !runs {
            return;
        }
        let checks = self.checks();
        let wanted = checks.state.task(task).is_some_and(|task| {
            let retries = task.spec.container.health.as_ref().map_or(u32::MAX, |it| it.retries);
            failed < retries
                && task.desired.is_wanted()
                && task.status.state.is_live()
                && task.node.as_ref() == Some(node)
        });
        let gone = checks.leaving.contains(node) || checks.state.is_removed(node);
        assert!(
            !wanted || gone || checks.told_to_end.contains(task),
            "{} stops {task}, which the cluster wants",
            self.name(node)
        );
    }

    /// A daemon says something to its manager.
    pub(super) fn check_said(&self, node: &NodeId, message: &FromWorker) {
        if let FromWorker::Register(register) = message {
            for made in &register.successors {
                self.check_well(Some(node), &made.task, &made.task.status);
            }
        }
        let reports = match message {
            FromWorker::Register(register) => register.tasks.as_slice(),
            FromWorker::Report { tasks, .. } => tasks.as_slice(),
            _ => &[],
        };
        for report in reports {
            if let Some(task) = self.checks().state.task(&report.task) {
                self.check_well(Some(node), task, &report.status);
            }
        }
        if let FromWorker::Heartbeat { applied, .. } = message {
            let mut checks = self.checks();
            let before = checks.sequences.entry(node.clone()).or_default();
            let fell = (applied.epoch, applied.term) < (before.epoch, before.term);
            assert!(!fell, "{} took {before:?} and then {applied:?}", self.name(node));
            *before = *applied;
        }
    }

    /// Returns what keeps the cluster from being as its spec says, if anything.
    pub(super) fn unrest(&self) -> Option<String> {
        if let Some(unrest) = self.group_unrest().or_else(|| self.trust_unrest()) {
            return Some(unrest);
        }
        let checks = self.checks();
        let state = &checks.state;
        for service in state.services() {
            if service.update.as_ref().is_some_and(|it| it.state.is_moving()) {
                return Some(format!("{} is being updated", service.spec.name));
            }
            if let Mode::Replicated { replicas } = service.spec.mode {
                let wanted = |task: &&Task| {
                    task.desired == Desired::Running && stays(state, task) && !waits(state, task)
                };
                let count = state.tasks_of_service(&service.id).filter(wanted).count() as u64;
                if count != replicas {
                    return Some(format!("{} has {count} of {replicas}", service.spec.name));
                }
            }
            if let Some(unrest) = jobs::unrest(state, service) {
                return Some(unrest);
            }
        }
        for task in state.tasks() {
            if is_out_of_reach(state, task) {
                if let Some(unrest) = unreplaced(state, task) {
                    return Some(unrest);
                }
                continue;
            }
            if task.desired.is_wanted() && !settled(task) && !is_frozen(state, task) {
                return Some(format!(
                    "task {} of {} on {:?} is {}/{}: {}",
                    task.id,
                    task.service_name,
                    task.node.as_ref().map(|n| self.name(n)),
                    task.desired,
                    task.status.state,
                    task.status.error
                ));
            }
            if task.desired == Desired::Remove {
                return Some(format!("task {} is to be removed", task.id));
            }
        }
        let machines = self.machines();
        for (node, machine) in machines.iter() {
            let should: BTreeSet<TaskId> = state
                .tasks_on_node(node)
                .filter(|task| task.desired.may_run() && !is_out_of_reach(state, task))
                .filter(|task| task.status.state == TaskState::Running)
                .map(|task| task.id.clone())
                .collect();
            let running = machine.fake.lock().unwrap().running();
            if running != should {
                return Some(format!("{} runs {running:?} and should {should:?}", self.name(node)));
            }
            let up = machine.handle.as_ref().is_some_and(|handle| handle.status().connected);
            if !machine.retired && !up {
                return Some(format!("{} is not connected", self.name(node)));
            }
        }
        None
    }
}

/// Tells whether nothing more will become of a wanted task.
fn settled(task: &Task) -> bool {
    let waits = task.status.state == TaskState::Pending && !task.status.error.is_empty();
    let ended = if task.is_job() { TaskState::Complete } else { TaskState::Running };
    task.desired.may_run() && (task.status.state == ended || waits)
}

/// Tells whether nothing more will become of a wanted task, or can be known to.
fn stays(state: &State, task: &Task) -> bool {
    settled(task) || task.status.state.is_live() && is_out_of_reach(state, task)
}

/// Tells whether the task is on a node that is lost.
fn is_out_of_reach(state: &State, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.node(id));
    node.is_some_and(|node| node.status.state == NodeState::Down)
}

/// Returns whether a task on a lost node has none in its place, though it should. The node may run
/// it for all that is known, so that it stays wanted until another node has taken its place; where
/// the task is one of its node's own, none can.
fn unreplaced(state: &State, task: &Task) -> Option<String> {
    let follows = |other: &Task| other.predecessor.as_ref() == Some(&task.id);
    let mut successors = state.tasks_of_service(&task.service).filter(|other| follows(other));
    let wanted = task.slot > 0 && task.desired.is_wanted() && task.status.state.is_live();
    let waits = wanted && successors.any(|other| is_frozen(state, other) || waits(state, other));
    (wanted && !waits).then(|| format!("task {} is on a lost node", task.id))
}

/// Tells whether a task that is to run beside its predecessor finds no node: that one runs on.
fn waits(state: &State, task: &Task) -> bool {
    let before = task.predecessor.as_ref().and_then(|id| state.task(id));
    let runs = before.is_some_and(|it| it.desired.may_run() && stays(state, it));
    task.overlap && task.node.is_none() && runs
}

/// Tells whether a replacement rightly waits for a user while its predecessor runs on: its node
/// was paused before it could start, or there is no node for it.
fn is_frozen(state: &State, task: &Task) -> bool {
    let before = task.predecessor.as_ref().and_then(|id| state.task(id));
    let runs = before.is_some_and(|it| it.desired.may_run() && stays(state, it));
    let paused = task
        .node
        .as_ref()
        .and_then(|id| state.node(id))
        .is_some_and(|node| node.spec.availability == Availability::Pause);
    let unplaced = task.node.is_none() && !task.status.error.is_empty();
    task.desired == Desired::Ready && runs && (paused || unplaced)
}

impl Checks {
    fn after_entry(&mut self, index: u64, is_prepared: impl Fn(&Task) -> Option<bool>) {
        if let Err(broken) = invariants::check(&self.state) {
            panic!("after entry {index}: {broken}");
        }
        updates::check_entry(&self.state, &self.tasks, is_prepared);
        jobs::check_made(&self.state, |task| self.tasks.contains_key(task));
        updates::check_restarts(&self.state, |task| self.tasks.contains_key(task));
        let now = known(&self.state);
        for task in self.state.tasks() {
            let known = &now[&task.id];
            if let Some(before) = self.tasks.get(&task.id) {
                assert!(known.0 >= before.0, "task {} fell: {before:?} {known:?}", task.id);
                assert!(
                    known.1 >= before.1,
                    "task {} is wanted again: {before:?} {known:?}",
                    task.id
                );
                let moved = before.2.is_some() && before.2 != known.2;
                assert!(!moved, "task {} moved: {before:?} {known:?}", task.id);
            }
        }
        self.tasks = now;
    }
}
