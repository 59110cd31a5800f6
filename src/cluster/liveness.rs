//! Which nodes live: heartbeats, their deadlines, and the doubt of a leader that hears nobody.
//!
//! Heartbeats never touch the log; only what follows from their absence does.

use super::{Leader, State};
use crate::types::{
    Cluster, HEARTBEAT_PERIOD, Moment, NodeId, NodeState, Role, TaskState, TaskStatus,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How many periods of silence make a node Down.
const PERIODS_UNTIL_DOWN: u32 = 3;

/// How many remote nodes there must be before a leader doubts itself: of two, one is always half.
const BREAKER_NODES_MIN: usize = 3;

/// How long the doubt lasts: long enough for a switch to restart, short enough that a site which
/// really lost most of its nodes gets its services back.
const BREAKER_EXPIRY: Duration = Duration::from_secs(60);

/// How long a node is Down before its tasks count as gone, as Swarm's.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// When nodes were heard of, and until when they are waited for.
#[derive(Debug)]
pub(super) struct Liveness {
    nodes: BTreeMap<NodeId, Pulse>,
    /// No deadline of a node is before this. Every message moves one, away from now, and would
    /// otherwise have all of them looked at.
    soonest: Option<Moment>,
    /// The nodes whose pulse says so.
    suspects: BTreeSet<NodeId>,
    /// Whether they are others than were last asked for.
    suspects_changed: bool,
    /// Until when silent nodes are doubted instead of taken for lost.
    doubt_until: Option<Moment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pulse {
    /// Not heard of since this leader began or since the node joined.
    Unheard { deadline: Moment },
    /// In touch.
    Heard { last: Moment, deadline: Moment },
    /// Silent, but so are most.
    Suspect,
    /// Down; its tasks are orphans after that long.
    Down { orphans_at: Option<Moment> },
}

/// Returns how often nodes beat.
pub(super) fn heartbeat_period(state: &State) -> Duration {
    state.cluster().map_or(HEARTBEAT_PERIOD, |cluster: &Cluster| cluster.spec.heartbeat_period)
}

fn deadline(state: &State) -> Duration {
    heartbeat_period(state) * PERIODS_UNTIL_DOWN
}

impl Pulse {
    /// Until when the node itself is waited for; of suspects that is one moment for all.
    fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Unheard { deadline } | Self::Heard { deadline, .. } => Some(*deadline),
            Self::Suspect => None,
            Self::Down { orphans_at } => *orphans_at,
        }
    }
}

impl Liveness {
    pub(super) fn new(state: &State, now: Moment) -> Self {
        let mut liveness = Self {
            nodes: BTreeMap::new(),
            soonest: None,
            suspects: BTreeSet::new(),
            suspects_changed: false,
            doubt_until: None,
        };
        liveness.note_nodes(state, now);
        liveness
    }

    /// Follows the nodes that the state has, and those that it says are Down.
    pub(super) fn note_nodes(&mut self, state: &State, now: Moment) {
        for node in state.nodes() {
            let is_down = node.status.state == NodeState::Down;
            let down = || Pulse::Down { orphans_at: Some(now + ORPHAN_AFTER) };
            let unheard = || Pulse::Unheard { deadline: now + deadline(state) * 2 };
            match self.nodes.get(&node.id) {
                None => self.set(&node.id, if is_down { down() } else { unheard() }),
                Some(Pulse::Unheard { .. } | Pulse::Suspect) if is_down => {
                    self.set(&node.id, down());
                }
                Some(_) => {}
            }
        }
        let gone: Vec<NodeId> =
            self.nodes.keys().filter(|id| state.node(id).is_none()).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
    }

    fn set(&mut self, id: &NodeId, pulse: Pulse) {
        if let Some(deadline) = pulse.deadline() {
            self.soonest = Some(self.soonest.map_or(deadline, |soonest| soonest.min(deadline)));
        }
        self.suspects_changed |= match pulse {
            Pulse::Suspect => self.suspects.insert(id.clone()),
            _ => self.suspects.remove(id),
        };
        match self.nodes.get_mut(id) {
            Some(known) => *known = pulse,
            None => drop(self.nodes.insert(id.clone(), pulse)),
        }
    }

    fn find_soonest(&mut self) {
        self.soonest = self.nodes.values().filter_map(Pulse::deadline).min();
    }

    pub(super) fn is_suspect(&self, id: &NodeId) -> bool {
        self.suspects.contains(id)
    }

    pub(super) fn forget(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.suspects_changed |= self.suspects.remove(id);
    }

    /// Nobody could be heard for so long.
    pub(super) fn put_off(&mut self, wait: Duration) {
        for pulse in self.nodes.values_mut() {
            match pulse {
                Pulse::Unheard { deadline } => *deadline = *deadline + wait,
                Pulse::Heard { last, deadline } => {
                    *last = *last + wait;
                    *deadline = *deadline + wait;
                }
                Pulse::Suspect | Pulse::Down { .. } => {}
            }
        }
        self.doubt_until = self.doubt_until.map(|until| until + wait);
        self.find_soonest();
    }

    /// Returns when to look for nodes to give up, or somewhat before: what was looked at then is
    /// not looked at again soon.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let doubt = self.doubt_until.filter(|_| !self.suspects.is_empty());
        self.soonest.into_iter().chain(doubt).min()
    }

    /// Tells whether a node has missed a beat: one that is half a period late, as nodes that were cut
    /// off at once differ by one period at most.
    fn misses(&self, state: &State, now: Moment, id: &NodeId) -> bool {
        let period = heartbeat_period(state);
        match self.nodes.get(id) {
            Some(Pulse::Heard { last, .. }) => now.since(*last) > period + period / 2,
            _ => true,
        }
    }

    /// Tells whether most of the remote nodes have fallen silent together.
    fn most_are_silent(&self, state: &State, now: Moment) -> bool {
        let (mut remote, mut silent) = (0, 0);
        for node in state.nodes().filter(|node| node.role == Role::Worker) {
            let pulse = self.nodes.get(&node.id);
            if matches!(pulse, Some(Pulse::Heard { .. } | Pulse::Suspect)) {
                remote += 1;
                silent += usize::from(self.misses(state, now, &node.id));
            }
        }
        remote >= BREAKER_NODES_MIN && silent * 2 > remote
    }
}

impl Leader {
    /// A new leader knows of no node whether it lives.
    pub(super) fn doubt_all_nodes(&mut self, state: &State) {
        let message = "Node moved to \"unknown\" state due to leadership change in cluster";
        for node in state.nodes().filter(|node| node.status.state == NodeState::Ready) {
            self.want_node_state(state, &node.id, NodeState::Unknown, message);
        }
    }

    pub(super) fn want_node_state(
        &mut self,
        state: &State,
        id: &NodeId,
        to: NodeState,
        message: &str,
    ) {
        let Some(node) = state.node(id) else { return };
        if node.status.state == to && node.status.message == message {
            self.wanted.node_states.remove(id);
        } else {
            self.wanted.node_states.insert(id.clone(), (to, message.to_owned()));
        }
    }

    /// Says once more what a node's pulse says, where the state came to say something else: both
    /// may have changed while a proposal was under way.
    pub(super) fn reassert_node_state(&mut self, state: &State, id: &NodeId) {
        let Some(node) = state.node(id) else { return };
        match self.liveness.nodes.get(id) {
            Some(Pulse::Heard { .. }) if node.status.state != NodeState::Ready => {
                self.want_node_state(state, id, NodeState::Ready, "");
            }
            Some(Pulse::Down { .. }) if node.status.state != NodeState::Down => {
                self.want_node_state(state, id, NodeState::Down, "heartbeat failure");
            }
            _ => {}
        }
    }

    pub(super) fn heard(&mut self, state: &State, now: Moment, id: &NodeId) {
        let pulse = Pulse::Heard { last: now, deadline: now + deadline(state) };
        self.liveness.set(id, pulse);
    }

    /// Acts on every deadline of a node that has passed.
    pub(super) fn expire_nodes(&mut self, state: &State, now: Moment) {
        let doubt_over = self.liveness.doubt_until.is_some_and(|until| until <= now);
        if doubt_over {
            self.liveness.doubt_until = None;
        }
        if doubt_over || self.liveness.next_deadline().is_some_and(|at| at <= now) {
            self.expire_due_nodes(state, now, doubt_over);
            self.liveness.find_soonest();
        }
        if std::mem::take(&mut self.liveness.suspects_changed) {
            self.due.schedule = true;
            self.volatile.suspects.clone_from(&self.liveness.suspects);
        }
    }

    fn expire_due_nodes(&mut self, state: &State, now: Moment, doubt_over: bool) {
        let mut doubts = self.liveness.doubt_until.is_some();
        let mut most_are_silent = None;
        let ids: Vec<NodeId> = self.liveness.nodes.keys().cloned().collect();
        for id in ids {
            let lost = match self.liveness.nodes.get(&id) {
                Some(&Pulse::Heard { last, deadline: at }) if at <= now => {
                    if self.has_lost_its_way(state, now, &id) {
                        let pulse = Pulse::Heard { last, deadline: now + deadline(state) };
                        self.liveness.set(&id, pulse);
                        continue;
                    }
                    // Looked at once: nodes are lost by the thousand or not at all.
                    let silent = *most_are_silent
                        .get_or_insert_with(|| self.liveness.most_are_silent(state, now));
                    if !doubts && !doubt_over && silent {
                        self.liveness.doubt_until = Some(now + BREAKER_EXPIRY);
                        doubts = true;
                    }
                    if doubts {
                        self.liveness.set(&id, Pulse::Suspect);
                        continue;
                    }
                    "heartbeat failure"
                }
                Some(Pulse::Unheard { deadline }) if *deadline <= now => {
                    "heartbeat failure for node in \"unknown\" state"
                }
                Some(Pulse::Suspect) if self.liveness.doubt_until.is_none() => "heartbeat failure",
                Some(Pulse::Down { orphans_at: Some(at) }) if *at <= now => {
                    self.liveness.set(&id, Pulse::Down { orphans_at: None });
                    self.orphan_tasks(state, &id);
                    continue;
                }
                _ => continue,
            };
            self.liveness.set(&id, Pulse::Down { orphans_at: Some(now + ORPHAN_AFTER) });
            self.sessions.remove(&id);
            self.want_node_state(state, &id, NodeState::Down, lost);
        }
    }

    /// Tells, once a session, whether the manager that passes on the node's session fell silent with
    /// it: the node finds that out later than its deadline, and goes to another.
    fn has_lost_its_way(&mut self, state: &State, now: Moment, id: &NodeId) -> bool {
        let via = self.sessions.get_mut(id).and_then(|session| session.via.take());
        via.is_some_and(|via| self.liveness.misses(state, now, &via))
    }

    fn orphan_tasks(&mut self, state: &State, id: &NodeId) {
        for task in state.tasks_on_node(id) {
            if task.status.state.is_given() {
                let status = TaskStatus {
                    state: TaskState::Orphaned,
                    message: "the node has been down for 24 hours".to_owned(),
                    ..task.status.clone()
                };
                self.wanted.reports.insert(task.id.clone(), status);
            }
        }
    }
}
