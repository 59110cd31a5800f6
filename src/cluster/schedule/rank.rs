//! Ranking: which of the nodes that can take a task should.
//!
//! A tree of the spread preferences' values, leaves hold nodes. Knows no filter's inside.

use super::{
    FAILURES_MAX,
    filter::Checks,
    node_set::{Credit, NodeSet, Seat},
};
use crate::types::{GenericResource, Node, Task, constraint::label_name};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// A level of the tree: what differs in one preference.
#[derive(Debug)]
enum Branch {
    Inner(Vec<Branch>),
    /// Nodes that still take tasks.
    Leaf(Vec<usize>),
}

/// A node's place in the set, and what a task gets of its generic resources.
pub(super) type Seated = (usize, Vec<GenericResource>);

/// Gives nodes to as many of `tasks` as possible, in order, and counts them there.
pub(super) fn choose(nodes: &mut NodeSet<'_>, checks: &Checks<'_>, tasks: &[&Task]) -> Vec<Seated> {
    if tasks.is_empty() {
        return Vec::new();
    }
    let passes = |seat: &Seat<'_>| checks.first_failure(seat, Credit::default()).is_none();
    let all = nodes.seats().iter().enumerate();
    let usable: Vec<usize> = all.filter(|(_, seat)| passes(seat)).map(|(at, _)| at).collect();
    let spread = &checks.task().spec.placement.spread;
    let mut tree = grow(nodes, usable, spread);
    let mut chosen = Vec::new();
    tree.place(nodes, checks, tasks, &mut chosen);
    chosen
}

/// Tells whether a task that goes to this node leaves the service spread as evenly as any other node
/// that takes it would.
pub(super) fn is_even(nodes: &NodeSet<'_>, checks: &Checks<'_>, home: usize) -> bool {
    let takes = |seat: &Seat<'_>| {
        seat.failures < FAILURES_MAX && checks.first_failure(seat, Credit::default()).is_none()
    };
    let all = nodes.seats().iter().enumerate();
    let mut seats: Vec<&Seat<'_>> =
        all.filter(|(at, seat)| *at == home || takes(seat)).map(|(_, seat)| seat).collect();
    let home = &nodes.seats()[home];
    for descriptor in &checks.task().spec.placement.spread {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for seat in &seats {
            *counts.entry(value_of(seat.node, descriptor)).or_default() += seat.of_service;
        }
        let own = value_of(home.node, descriptor);
        if counts.values().any(|count| *count < counts[own]) {
            return false;
        }
        seats.retain(|seat| value_of(seat.node, descriptor) == own);
    }
    seats.iter().all(|seat| seat.of_service >= home.of_service)
}

fn grow(nodes: &NodeSet<'_>, members: Vec<usize>, spread: &[String]) -> Branch {
    let Some((descriptor, deeper)) = spread.split_first() else { return Branch::Leaf(members) };
    let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for at in members {
        values.entry(value_of(nodes.seats()[at].node, descriptor)).or_default().push(at);
    }
    Branch::Inner(values.into_values().map(|members| grow(nodes, members, deeper)).collect())
}

/// Returns the node's value of a preference; nodes without the label are alike.
fn value_of<'a>(node: &'a Node, descriptor: &str) -> &'a str {
    let sources =
        [("node.labels.", &node.spec.labels), ("engine.labels.", &node.description.engine.labels)];
    let found = sources.iter().find_map(|(prefix, labels)| {
        label_name(descriptor, prefix).and_then(|name| labels.get(name))
    });
    found.map_or("", String::as_str)
}

/// What makes a node better: lower is.
fn cost(seat: &Seat<'_>) -> (usize, u64, u64) {
    let failures = if seat.failures >= FAILURES_MAX { seat.failures } else { 0 };
    (failures, seat.of_service, seat.active)
}

impl Branch {
    /// Returns how many tasks of the service are on the branch's nodes.
    fn existing(&self, nodes: &NodeSet<'_>) -> u64 {
        match self {
            Self::Inner(children) => children.iter().map(|child| child.existing(nodes)).sum(),
            Self::Leaf(members) => members.iter().map(|at| nodes.seats()[*at].of_service).sum(),
        }
    }

    /// Places as many tasks as fit; returns how many that were.
    fn place(
        &mut self,
        nodes: &mut NodeSet<'_>,
        checks: &Checks<'_>,
        tasks: &[&Task],
        chosen: &mut Vec<Seated>,
    ) -> usize {
        match self {
            Self::Inner(children) => place_evenly(children, nodes, checks, tasks, chosen),
            Self::Leaf(members) => place_on(members, nodes, checks, tasks, chosen),
        }
    }
}

/// Places each task on the best of the nodes; those that take none any more leave `members`.
fn place_on(
    members: &mut Vec<usize>,
    nodes: &mut NodeSet<'_>,
    checks: &Checks<'_>,
    tasks: &[&Task],
    chosen: &mut Vec<Seated>,
) -> usize {
    let ranked = |nodes: &NodeSet<'_>, at: usize| Reverse((cost(&nodes.seats()[at]), at));
    // A task changes nothing but the node that it goes to.
    let mut best: BinaryHeap<_> = members.iter().map(|at| ranked(nodes, *at)).collect();
    let mut done = 0;
    while let Some(task) = tasks.get(done) {
        let Some(Reverse((_, at))) = best.pop() else { break };
        // What failed once is out: use only grows while a group is placed.
        if checks.first_failure(&nodes.seats()[at], Credit::default()).is_some() {
            continue;
        }
        let generic = nodes.take(task, at);
        chosen.push((at, generic));
        best.push(ranked(nodes, at));
        done += 1;
    }
    *members = best.into_iter().map(|Reverse((_, at))| at).collect();
    done
}

/// Fills the branches up to a common level, until all is placed or all are full.
fn place_evenly(
    children: &mut [Branch],
    nodes: &mut NodeSet<'_>,
    checks: &Checks<'_>,
    tasks: &[&Task],
    chosen: &mut Vec<Seated>,
) -> usize {
    let mut usable: Vec<usize> = (0..children.len()).collect();
    let mut done = 0;
    while done < tasks.len() && !usable.is_empty() {
        let existing: u64 = usable.iter().map(|at| children[*at].existing(nodes)).sum();
        let remaining = u64::try_from(tasks.len() - done).unwrap_or(u64::MAX);
        let branches = u64::try_from(usable.len()).unwrap_or(u64::MAX);
        let level = (existing + remaining) / branches;
        let mut extra = (existing + remaining) % branches;
        let before = done;
        let mut full = Vec::new();
        // The emptiest first, so that what is left over goes there.
        usable.sort_by_key(|at| (children[*at].existing(nodes), *at));
        for at in &usable {
            let have = children[*at].existing(nodes);
            let bonus = u64::from(extra > 0 && have <= level);
            let want = (level + bonus).saturating_sub(have);
            extra -= bonus;
            let want = usize::try_from(want).unwrap_or(usize::MAX).min(tasks.len() - done);
            if want == 0 {
                continue;
            }
            let slice = &tasks[done..done + want];
            let placed = children[*at].place(nodes, checks, slice, chosen);
            done += placed;
            if placed < want {
                full.push(*at);
            }
        }
        usable.retain(|at| !full.contains(at));
        if done == before && full.is_empty() {
            break;
        }
    }
    done
}
