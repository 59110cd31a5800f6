//! The leader: what a manager knows and decides while it leads.
//!
//! Volatile: everything here can be thrown away and derived again from [`State`] and from what the
//! nodes say. It holds sessions, soft task states, timers and requests under way, and returns what
//! should be done as [`Effect`]s. At most one proposal is under way at a time; whatever happens
//! meanwhile is decided on the state that comes of it, so nothing is ever decided twice on the
//! same state.

mod batch;
mod message;
mod request;

pub use request::check_cluster_spec;
pub(super) use request::{Answer, Prepared, check_update, find_service};

#[cfg(test)]
pub(crate) mod tests;

use super::{
    Applied, Change, Command, Effect, Event, Rejected, Request, State, Ticket, dispatch::Session,
    join, keep::Keep, liveness::Liveness, reconcile::Memory, schedule::Volatile,
};
use crate::{
    types::{
        Date, Entropy, LocalSuccessor, Moment, Node, NodeDescription, NodeId, NodeState, Role,
        ServiceId, TaskId, TaskStatus,
    },
    util::random::draw,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// How many requests wait for the proposal under way. Each is answered within one commit, so more
/// than this many at once are a flood, and better refused than kept waiting.
const QUEUE_MAX: usize = 256;

/// The wait after a proposal that came to nothing, so that a log which refuses everything is not
/// asked in a tight loop.
const PROPOSAL_RETRY: Duration = Duration::from_millis(250);

/// The wait after a decision of our own was rejected: the state did not hold what it was decided
/// on, which another look mends unless we are wrong.
const REJECTED_RETRY: Duration = Duration::from_secs(1);

/// A small generator for ids: the seed comes from the driver, so that a simulation
/// repeats exactly.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for Random {
    fn next_u64(&mut self) -> u64 {
        draw(&mut self.0)
    }
}

/// A request that waits for a proposal.
#[derive(Debug)]
pub(super) struct Waiting {
    ticket: Ticket,
    request: Request,
    /// How many proposals with it came to nothing.
    failures: u32,
}

/// A request inside the proposal under way.
#[derive(Debug)]
pub(super) struct Asked {
    waiting: Waiting,
    /// Which command's outcome answers it.
    command: usize,
    answer: request::Answer,
}

/// The proposal under way.
#[derive(Debug)]
pub(super) struct InFlight {
    commands: Vec<Command>,
    asked: Vec<Asked>,
}

/// What wants to be committed, until the state says that it is.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) node_states: BTreeMap<NodeId, (NodeState, String)>,
    pub(super) descriptions: BTreeMap<NodeId, (NodeDescription, String)>,
    pub(super) reports: BTreeMap<TaskId, TaskStatus>,
    pub(super) adoptions: BTreeMap<NodeId, Vec<LocalSuccessor>>,
    /// Managers that have left the consensus group.
    pub(super) workers: BTreeSet<NodeId>,
}

/// What has to be looked at before the leader is at rest.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) services: BTreeSet<ServiceId>,
    pub(super) all_services: bool,
    pub(super) schedule: bool,
    pub(super) enforce: bool,
    /// Tasks of services that are gone may have ended.
    pub(super) leftovers: bool,
    /// Nodes whose assignments may have changed.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Nodes that may not know their role, the managers or the roots as they are.
    pub(super) told: BTreeSet<NodeId>,
    /// Others may be managers by now.
    pub(super) group: bool,
    /// Nodes with reports whose commit is waited for.
    pub(super) reports: BTreeSet<NodeId>,
}

/// A leader.
#[derive(Debug)]
pub struct Leader {
    term: u64,
    random: Random,
    pub(super) sessions: BTreeMap<NodeId, Session>,
    /// The number of the last set that each node was sent in this term. Outlives its sessions: one
    /// that is begun a second time, after it was forgotten, must not use a number twice.
    pub(super) numbers: BTreeMap<NodeId, u64>,
    pub(super) liveness: Liveness,
    pub(super) volatile: Volatile,
    pub(super) memory: Memory,
    pub(super) keep: Keep,
    pub(super) wanted: Wanted,
    pub(super) due: Due,
    /// The consensus group that was asked for last.
    pub(super) group: Option<BTreeMap<u64, String>>,
    /// Where the managers are that the state has.
    pub(super) managers: Vec<String>,
    /// The root that each node last said it goes by.
    pub(super) certified: BTreeMap<NodeId, [u8; 32]>,
    queue: VecDeque<Waiting>,
    in_flight: Option<InFlight>,
    /// Whether a proposal of our own may still be committed that was given up. Nothing is decided
    /// before an entry behind it is applied, an empty one where there is no other: what is decided
    /// on a state without it would come on top of it.
    doubt: bool,
    retry_at: Option<Moment>,
}

impl Leader {
    /// Takes over: everything is looked at once, and every node has to be heard of again. `again` tells
    /// whether a leader of this term was thrown away: what that one proposed last may be committed yet.
    #[must_use]
    pub fn new(
        state: &State,
        now: Moment,
        date: Date,
        (term, again): (u64, bool),
        seed: u64,
    ) -> (Self, Vec<Effect>) {
        let mut leader = Self {
            term,
            random: Random::new(seed),
            sessions: BTreeMap::new(),
            numbers: BTreeMap::new(),
            liveness: Liveness::new(state, now),
            volatile: Volatile::default(),
            memory: Memory::default(),
            keep: Keep::new(),
            wanted: Wanted::default(),
            due: Due {
                all_services: true,
                schedule: true,
                enforce: true,
                leftovers: true,
                group: true,
                ..Due::default()
            },
            group: None,
            managers: Vec::new(),
            certified: BTreeMap::new(),
            queue: VecDeque::new(),
            in_flight: None,
            doubt: again,
            retry_at: None,
        };
        leader.doubt_all_nodes(state);
        let mut effects = Vec::new();
        leader.settle(state, now, date, &mut effects);
        (leader, effects)
    }

    /// Takes in an event and returns what should be done.
    ///
    /// For [`Event::Applied`], `state` already holds what was applied.
    #[must_use]
    pub fn step(&mut self, state: &State, now: Moment, date: Date, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Request { ticket, request: Request::Read(query) } => {
                effects
                    .push(Effect::Reply { ticket, result: self.read(state, (now, date), &query) });
            }
            Event::Request { ticket, request } => self.enqueue(ticket, request, &mut effects),
            Event::Message { node, address, via, message } => {
                let origin = message::Origin { node: &node, address: &address, via };
                self.handle_message(state, now, origin, message, &mut effects);
            }
            // Only silence tells that a node is lost: connections end for many reasons.
            Event::Disconnected { .. } | Event::Tick => {}
            Event::Applied { outcomes, .. } => {
                self.handle_applied(state, now, outcomes, &mut effects);
            }
            Event::ProposalFailed { error } => {
                self.handle_failed(now, &error, &mut effects);
            }
            Event::Group { members } => self.take_group(state, &members),
            Event::Stalled { wait } => self.liveness.put_off(wait),
        }
        self.settle(state, now, date, &mut effects);
        effects
    }

    /// Returns when [`Event::Tick`] is due, where anything waits for a time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let waits = self.memory.next_wake().into_iter();
        let mut next = waits.chain(self.liveness.next_deadline()).min();
        if let Some(retry) = self.retry_at {
            next = Some(next.map_or(retry, |at| at.min(retry)));
        }
        next
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Brings everything forward that time or the last event made due.
    fn settle(&mut self, state: &State, now: Moment, date: Date, effects: &mut Vec<Effect>) {
        self.expire_nodes(state, now);
        self.memory.wake(now, &mut self.due.services);
        self.decide(state, now, date, effects);
        self.follow_group(state, effects);
        let told = std::mem::take(&mut self.due.told);
        self.tell_places(state, &told, effects);
        self.tell_trust(state, &told, effects);
        self.dispatch(state, effects);
    }

    fn handle_applied(
        &mut self,
        state: &State,
        now: Moment,
        outcomes: Vec<(Command, Result<Applied, Rejected>)>,
        effects: &mut Vec<Effect>,
    ) {
        let applied = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
        let mut others = false;
        for (Command { change, .. }, _) in applied {
            self.keep.note(change);
            others |= !change.is_about_services();
            self.note_change(state, change, effects);
            self.settle_adoption(change);
        }
        // Once for all of them: the states of a thousand nodes are committed together.
        if others {
            self.liveness.note_nodes(state, now);
            self.due.group = true;
            self.due.told.extend(self.sessions.keys().cloned());
        }
        let ours = self.in_flight.as_ref().is_some_and(|flight| {
            flight.commands.len() == outcomes.len()
                && flight.commands.iter().zip(&outcomes).all(|(a, (b, _))| a == b)
        });
        if ours && let Some(flight) = self.in_flight.take() {
            self.retry_at = None;
            self.doubt = false;
            let asked: BTreeSet<usize> = flight.asked.iter().map(|asked| asked.command).collect();
            let rejected = |(at, (_, outcome)): (usize, &(Command, Result<_, _>))| {
                outcome.is_err() && !asked.contains(&at)
            };
            if outcomes.iter().enumerate().any(rejected) {
                self.due.all_services = true;
                self.retry_at = Some(now + REJECTED_RETRY);
            }
            for asked in flight.asked {
                let outcome = outcomes.get(asked.command).map(|(_, outcome)| outcome.clone());
                let outcome = outcome.expect("the answer's command is one of the batch");
                let result = match (&asked.waiting.request, outcome) {
                    // An earlier proposal of it, given up for lost, was committed after all.
                    (Request::Join(join), Err(Rejected::Exists { .. })) => {
                        join::repeated(state, join)
                    }
                    (_, outcome) => Self::answer(state, asked.answer, outcome),
                };
                effects.push(Effect::Reply { ticket: asked.waiting.ticket, result });
            }
        }
        self.forget_settled(state);
        self.acknowledge_reports(effects);
    }

    /// Lets a node have its assignments once all that it made itself is taken over. It may have
    /// registered anew since the change was proposed, with more of them: those are still to come.
    fn settle_adoption(&mut self, change: &Change) {
        let Change::AdoptTasks { node, tasks } = change else { return };
        let all = self.wanted.adoptions.get(node).is_some_and(|wanted| {
            wanted.len() == tasks.len() && wanted.iter().zip(tasks).all(|(w, task)| w.task == *task)
        });
        if all {
            self.wanted.adoptions.remove(node);
            self.release_assignments(node);
        }
    }

    /// Marks what an applied change makes worth another look.
    fn note_change(&mut self, state: &State, change: &Change, effects: &mut Vec<Effect>) {
        self.due.schedule = true;
        match change {
            Change::RotateTokens { .. }
            | Change::SetUnlockKey { .. }
            | Change::RotateRoot { .. }
            | Change::FinishRootRotation { .. } => {}
            // The role is a term of constraints. The last three are read from the log before anybody
            // leads; a leader that is told looks at everything.
            Change::CreateCluster { .. }
            | Change::UpdateCluster { .. }
            | Change::SetManagerStatus { .. }
            | Change::ForceNewCluster { .. }
            | Change::RestoreCluster { .. }
            | Change::PassEpochs { .. } => {
                self.due.all_services = true;
                self.due.enforce = true;
            }
            Change::CreateNode { node } => {
                self.due.all_services = true;
                self.due.nodes.insert(node.id.clone());
            }
            Change::UpdateNode { id, .. }
            | Change::DescribeNode { id, .. }
            | Change::SetNodeState { id, .. } => {
                self.due.all_services = true;
                self.due.enforce = true;
                self.reassert_node_state(state, id);
            }
            Change::RemoveNode { id, .. } => {
                self.due.all_services = true;
                self.forget_node(id, effects);
            }
            Change::CreateService { service } => {
                self.due.services.insert(service.id.clone());
            }
            Change::UpdateService { id, .. }
            | Change::RollbackService { id, .. }
            | Change::RevertService { id, .. }
            | Change::SetUpdateStatus { id, .. } => {
                self.due.services.insert(id.clone());
            }
            Change::RemoveService { id } => {
                self.due.leftovers = true;
                self.memory.forget_service(id);
                self.note_tasks(state, state.tasks_of_service(id).map(|task| &task.id));
            }
            Change::ReplaceTasks { create, desire } => {
                let created = create.iter().map(|task| &task.id);
                self.note_tasks(state, created.chain(desire.iter().map(|(id, _)| id)));
            }
            Change::Schedule { decisions } => {
                self.note_tasks(state, decisions.iter().map(|decision| &decision.task));
            }
            Change::ReportTasks { reports } => {
                self.note_tasks(state, reports.iter().map(|(id, _)| id));
            }
            Change::AdoptTasks { node, tasks } => {
                self.due.nodes.insert(node.clone());
                self.note_tasks(state, tasks.iter().map(|task| &task.id));
            }
            Change::RemoveTasks { tasks } => {
                for id in tasks {
                    self.volatile.soft.remove(id);
                }
                self.memory.forget_gone(state);
                // Their rows are gone, and with them the nodes they were on.
                let told = self.sessions.iter().filter(|(_, session)| session.knows_any(tasks));
                self.due.nodes.extend(told.map(|(node, _)| node.clone()));
            }
        }
    }

    fn note_tasks<'a>(&mut self, state: &State, ids: impl Iterator<Item = &'a TaskId>) {
        for task in ids.filter_map(|id| state.task(id)) {
            if state.service(&task.service).is_some() {
                self.due.services.insert(task.service.clone());
            } else {
                self.due.leftovers = true;
            }
            if let Some(node) = &task.node {
                self.due.nodes.insert(node.clone());
            }
        }
    }

    /// Drops from what wants to be committed all that the state holds by now.
    fn forget_settled(&mut self, state: &State) {
        let wanted = &mut self.wanted;
        wanted.node_states.retain(|id, (to, message)| {
            state
                .node(id)
                .is_some_and(|node| node.status.state != *to || node.status.message != *message)
        });
        wanted.descriptions.retain(|id, (description, address)| {
            state.node(id).is_some_and(|node| {
                node.description != *description || node.status.address != *address
            })
        });
        wanted.workers.retain(|id| {
            let is_to_be = |node: &Node| node.manager.is_some() && node.spec.role == Role::Worker;
            state.node(id).is_some_and(is_to_be)
        });
        wanted.reports.retain(|id, status| message::needs_commit(state, id, status));
        self.volatile.soft.retain(|id, status| {
            state.task(id).is_some_and(|task| task.status.state < status.state)
        });
    }
}
