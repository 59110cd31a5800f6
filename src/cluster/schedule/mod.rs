//! The scheduler: which node each pending task gets, or why it gets none.
//!
//! A pure function of the committed state and of what only the leader knows. Swarm's filters,
//! texts and ranking, with ARM variants, cgroup controllers and held images besides.

mod filter;
mod generic;
mod node_set;
mod rank;

use super::{Decision, State};
use crate::types::{
    HeldImage, Moment, Node, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Version,
};
use filter::Checks;
pub(super) use generic::Left as GenericLeft;
use node_set::NodeSet;
use rank::Seated;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Failures older than this say nothing about a node any more, as Swarm's.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// So many failures of a service on a node within [`FAILURE_WINDOW`] put the node last, as
/// Swarm's: fewer may be the service's own fault.
pub const FAILURES_MAX: usize = 5;

/// What the leader knows besides the committed state. Lost with it and learnt again.
#[derive(Debug, Clone, Default)]
pub struct Volatile {
    /// States between ASSIGNED and RUNNING, which are never committed.
    pub soft: BTreeMap<TaskId, TaskStatus>,
    /// What each node holds.
    pub images: BTreeMap<NodeId, Vec<HeldImage>>,
    /// When tasks of a service's spec failed on a node.
    pub failures: BTreeMap<(ServiceId, Version, NodeId), Vec<Moment>>,
    /// Nodes that the circuit breaker doubts: they keep their tasks and get no new ones.
    pub suspects: BTreeSet<NodeId>,
}

impl Volatile {
    /// Returns how far the task has come, uncommitted steps included.
    #[must_use]
    pub fn state_of(&self, task: &Task) -> TaskState {
        let soft = self.soft.get(&task.id).map(|status| status.state);
        soft.map_or(task.status.state, |soft| soft.max(task.status.state))
    }
}

/// Tasks of one service and spec: alike to every filter.
type Group<'a> = Vec<&'a Task>;

/// Returns a node, or the reason for none, for every pending task of which that is news.
#[must_use]
pub fn schedule(state: &State, volatile: &Volatile, now: Moment) -> Vec<Decision> {
    let mut preassigned: BTreeMap<(&ServiceId, Version), Group<'_>> = BTreeMap::new();
    let mut groups = preassigned.clone();
    for task in state.tasks() {
        if volatile.state_of(task) != TaskState::Pending || !task.desired.is_wanted() {
            continue;
        }
        let groups = if task.node.is_some() { &mut preassigned } else { &mut groups };
        groups.entry((&task.service, task.spec_version)).or_default().push(task);
    }
    if preassigned.is_empty() && groups.is_empty() {
        return Vec::new();
    }
    let mut nodes = NodeSet::new(state, volatile, now);
    let mut decisions = Vec::new();
    for ((service, _), group) in preassigned {
        nodes.count_for(service, group[0].spec_version);
        let checks = Checks::new(group[0], volatile);
        for task in group {
            confirm(&mut nodes, &checks, task, &mut decisions);
        }
    }
    for ((service, _), mut group) in groups {
        // A batch that a failed node left behind refills its slots in order.
        group.sort_by_key(|task| (task.slot, &task.id));
        nodes.count_for(service, group[0].spec_version);
        place_group(&mut nodes, volatile, &group, &mut decisions);
    }
    decisions
}

/// Confirms that a task of a global service can run where it belongs.
fn confirm(nodes: &mut NodeSet<'_>, checks: &Checks<'_>, task: &Task, out: &mut Vec<Decision>) {
    let Some(id) = &task.node else { return };
    let error = match nodes.find(id) {
        Some(index) => match checks.first_failure(&nodes.seats()[index], nodes.credit(task, index))
        {
            None => {
                let generic = nodes.take(task, index);
                out.push(placed(nodes, task, (index, generic)));
                return;
            }
            Some(failure) => filter::explain(&BTreeMap::from([(failure, 1)]), checks),
        },
        None => filter::explain(&BTreeMap::new(), checks),
    };
    refuse(task, &error, out);
}

fn refuse(task: &Task, error: &str, out: &mut Vec<Decision>) {
    if task.status.error != error {
        let (task, error) = (task.id.clone(), error.to_owned());
        out.push(Decision { task, node: None, error, generic: Vec::new() });
    }
}

fn placed(nodes: &NodeSet<'_>, task: &Task, (index, generic): Seated) -> Decision {
    let node = Some(nodes.seats()[index].node.id.clone());
    Decision { task: task.id.clone(), node, error: String::new(), generic }
}

fn place_group(
    nodes: &mut NodeSet<'_>,
    volatile: &Volatile,
    group: &Group<'_>,
    out: &mut Vec<Decision>,
) {
    let checks = Checks::new(group[0], volatile);
    let mut rest = Vec::new();
    for task in group {
        // In place, where it needs no room besides its predecessor's. Not where the service keeps
        // failing.
        let home = nodes.home(task).filter(|_| !task.overlap).filter(|index| {
            let seat = &nodes.seats()[*index];
            let credit = nodes.credit(task, *index);
            seat.failures < FAILURES_MAX && checks.first_failure(seat, credit).is_none()
        });
        let Some(index) = home else {
            rest.push(*task);
            continue;
        };
        let place = if nodes.is_placed_anew(task) {
            nodes.count_once(task);
            let even = rank::is_even(nodes, &checks, index);
            let other = if even { None } else { rank::choose(nodes, &checks, &[task]).pop() };
            other.unwrap_or_else(|| (index, nodes.take(task, index)))
        } else {
            (index, nodes.take(task, index))
        };
        out.push(placed(nodes, task, place));
    }
    let mut unplaced = rest.as_slice();
    let chosen = rank::choose(nodes, &checks, &rest);
    for (task, place) in rest.iter().zip(chosen) {
        out.push(placed(nodes, task, place));
        unplaced = &unplaced[1..];
    }
    if unplaced.is_empty() {
        return;
    }
    let mut failures = BTreeMap::new();
    for seat in nodes.seats() {
        if let Some(failure) = checks.first_failure(seat, node_set::Credit::default()) {
            *failures.entry(failure).or_insert(0) += 1;
        }
    }
    let error = filter::explain(&failures, &checks);
    for task in unplaced {
        refuse(task, &error, out);
    }
}

/// Which nodes would take a task, and which would not.
#[derive(Debug)]
pub(super) struct Verdict<'a> {
    /// Those that pass every filter.
    pub(super) passing: Vec<&'a Node>,
    /// The others, by the first filter that they do not pass, in the filters' order.
    pub(super) removed: Vec<(String, Vec<&'a Node>)>,
}

/// Looks at all nodes that a task could go to, or could have gone to: at its own node it is not
/// counted against itself.
pub(super) fn verdict<'a>(
    state: &'a State,
    volatile: &'a Volatile,
    now: Moment,
    task: &'a Task,
) -> Verdict<'a> {
    let mut nodes = NodeSet::without(state, volatile, now, Some(&task.id));
    nodes.count_for(&task.service, task.spec_version);
    let checks = Checks::new(task, volatile);
    let (mut passing, mut removed) = (Vec::new(), BTreeMap::<_, Vec<&'a Node>>::new());
    for (at, seat) in nodes.seats().iter().enumerate() {
        if task.slot == 0 && task.node.as_ref() != Some(&seat.node.id) {
            continue;
        }
        match checks.first_failure(seat, nodes.credit(task, at)) {
            None => passing.push(seat.node),
            Some(failure) => removed.entry(failure).or_default().push(seat.node),
        }
    }
    let said = |(failure, nodes): (_, Vec<&'a Node>)| {
        (filter::reason(failure, nodes.len(), &checks), nodes)
    };
    Verdict { passing, removed: removed.into_iter().map(said).collect() }
}

#[cfg(test)]
mod tests;
