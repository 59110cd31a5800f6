//! One batch: everything there is to commit now, as one log entry.
//!
//! Requests go first and alone, because what follows from them carries the version they get. All
//! else is decided on a copy of the state that already holds the commands before it, so that a
//! crash, its replacement and the replacement's node are one entry.

use super::{Asked, InFlight, Leader, PROPOSAL_RETRY, Waiting, request::Prepared};
use crate::{
    cluster::{
        Change, Class, Command, Decision, Effect, Refusal, Request, State, enforce, join, reap,
        reconcile, rotation, schedule, state::encoded_len,
    },
    types::{Date, Moment, RequestId, ServiceId, Version},
};
use std::{borrow::Cow, collections::BTreeSet};

/// What one entry holds at most: an eighth of what is read, small enough to be written by an SD
/// card within one heartbeat.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How many requests one entry holds at most.
const BATCH_REQUESTS_MAX: usize = 64;

/// How often a request is proposed before its asker is told that nobody knows.
const REQUEST_FAILURES_MAX: u32 = 3;

/// Commands on their way into a batch, and the state as it will be after them.
struct Draft<'a> {
    term: u64,
    date: Date,
    state: Cow<'a, State>,
    commands: Vec<Command>,
    bytes: usize,
    full: bool,
}

impl<'a> Draft<'a> {
    fn new(state: &'a State, term: u64, date: Date) -> Self {
        Self {
            term,
            date,
            state: Cow::Borrowed(state),
            commands: Vec::new(),
            bytes: 0,
            full: false,
        }
    }

    fn add(&mut self, change: Change) -> bool {
        let command = Command { request: None, term: self.term, date: self.date, change };
        let size = encoded_len(&command);
        if self.full || (self.bytes + size > BATCH_BYTES_MAX && !self.commands.is_empty()) {
            self.full = true;
            return false;
        }
        let applied = self.state.applied();
        let next = Version { index: applied.index + 1, ..applied };
        // The real index may be another one; nothing decided from here on may carry it.
        let outcome = self.state.to_mut().apply(next, self.term, &command);
        if outcome.is_ok() {
            self.bytes += size;
            self.commands.push(command);
        }
        outcome.is_ok()
    }
}

impl Leader {
    pub(super) fn handle_failed(&mut self, now: Moment, error: &str, effects: &mut Vec<Effect>) {
        let Some(flight) = self.in_flight.take() else { return };
        self.doubt = true;
        self.retry_at = Some(now + PROPOSAL_RETRY);
        self.due.all_services = true;
        self.due.schedule = true;
        self.due.enforce = true;
        self.due.leftovers = true;
        let mut failed: Vec<Waiting> = flight.asked.into_iter().map(|it| it.waiting).collect();
        if flight.commands.is_empty() {
            // It may be what a request waits for.
            failed.extend(self.queue.pop_front());
        }
        for mut waiting in failed.into_iter().rev() {
            waiting.failures += 1;
            if waiting.failures < REQUEST_FAILURES_MAX {
                self.queue.push_front(waiting);
                continue;
            }
            let message = format!("the change was not committed, or nobody knows: {error}");
            let result = Err(Refusal::new(Class::Unavailable, message));
            effects.push(Effect::Reply { ticket: waiting.ticket, result });
        }
    }

    /// Proposes what there is to propose, unless a proposal is under way.
    pub(super) fn decide(
        &mut self,
        state: &State,
        now: Moment,
        date: Date,
        effects: &mut Vec<Effect>,
    ) {
        if self.in_flight.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        let flight = self.draft_requests(state, (now, date), effects).or_else(|| {
            if self.doubt {
                return Some(InFlight { commands: Vec::new(), asked: Vec::new() });
            }
            self.draft_decisions(state, now, date)
        });
        if let Some(flight) = flight {
            effects.push(Effect::Propose(flight.commands.clone()));
            self.in_flight = Some(flight);
        }
    }

    fn draft_requests(
        &mut self,
        state: &State,
        (now, date): (Moment, Date),
        effects: &mut Vec<Effect>,
    ) -> Option<InFlight> {
        let mut flight = InFlight { commands: Vec::new(), asked: Vec::new() };
        let mut bytes = 0;
        let mut joins = BTreeSet::new();
        while flight.asked.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(Waiting { ticket, request, failures }) = self.queue.pop_front() else { break };
            // What two of a kind would decide on the same state contradicts itself: the second
            // waits for what comes of the first.
            let exclusive = request.is_exclusive();
            let fits = match &request {
                // Whether a manager may go depends on which others there are and answer. What was
                // proposed before, and may be committed yet, may say that one of them does not.
                Request::UpdateNode { .. } if self.doubt => false,
                _ if exclusive => flight.commands.is_empty(),
                // How many managers there may be is judged on the state, too.
                Request::Join(join) if join::is_of_manager(state, join) => {
                    !self.doubt && flight.commands.is_empty() && joins.insert(join.key_digest)
                }
                Request::Join(join) => joins.insert(join.key_digest),
                _ => true,
            };
            if !fits {
                self.queue.push_front(Waiting { ticket, request, failures });
                break;
            }
            match self.prepare(state, (now, date), &request) {
                Err(refusal) => effects.push(Effect::Reply { ticket, result: Err(refusal) }),
                Ok(Prepared::Answer(response)) => {
                    effects.push(Effect::Reply { ticket, result: Ok(response) });
                }
                Ok(Prepared::Propose { id, changes, answer }) => {
                    let command = flight.commands.len();
                    let ids = std::iter::successors(Some(id), |id| {
                        Some(id.as_ref().map(derived_request))
                    });
                    for (change, request) in changes.into_iter().zip(ids) {
                        let command = Command { request, term: self.term, date, change };
                        bytes += encoded_len(&command);
                        flight.commands.push(command);
                    }
                    let waiting = Waiting { ticket, request, failures };
                    flight.asked.push(Asked { waiting, command, answer });
                    if exclusive {
                        break;
                    }
                }
            }
        }
        (!flight.commands.is_empty()).then_some(flight)
    }

    fn draft_decisions(&mut self, state: &State, now: Moment, date: Date) -> Option<InFlight> {
        let mut draft = Draft::new(state, self.term, date);
        self.draft_news(&mut draft);
        if std::mem::take(&mut self.due.enforce) && !draft.full {
            let reports = enforce::enforce(&draft.state, date);
            if !reports.is_empty() {
                let _: bool = draft.add(Change::ReportTasks { reports });
            }
        }
        self.draft_services(&mut draft, now);
        if std::mem::take(&mut self.due.schedule) && !draft.full {
            let decisions = schedule::schedule(&draft.state, &self.volatile, now);
            self.draft_schedule(&mut draft, decisions);
        }
        if draft.full {
            self.due.all_services = true;
            self.due.enforce = true;
            self.due.schedule = true;
            self.due.leftovers = true;
        }
        let commands = draft.commands;
        (!commands.is_empty()).then_some(InFlight { commands, asked: Vec::new() })
    }

    /// What nodes said, before anything is decided on it.
    fn draft_news(&mut self, draft: &mut Draft<'_>) {
        for (id, (description, address)) in &self.wanted.descriptions {
            let (id, description) = (id.clone(), Box::new(description.clone()));
            let change = Change::DescribeNode { id, description, address: address.clone() };
            self.due.enforce |= draft.add(change);
        }
        for (id, (state, message)) in &self.wanted.node_states {
            let (id, state, message) = (id.clone(), *state, message.clone());
            if draft.add(Change::SetNodeState { id, state, message }) {
                self.due.all_services = true;
                self.due.enforce = true;
                self.due.schedule = true;
            }
        }
        if let Some(root) = rotation::is_done(&draft.state, &self.certified) {
            let _: bool = draft.add(Change::FinishRootRotation { root });
        }
        for id in &self.wanted.workers {
            let change = Change::SetManagerStatus { id: id.clone(), status: None };
            let _: bool = draft.add(change);
        }
        if !self.wanted.reports.is_empty() {
            let reports: Vec<_> = self
                .wanted
                .reports
                .iter()
                .map(|(id, status)| (id.clone(), status.clone()))
                .collect();
            let services: Vec<ServiceId> = reports
                .iter()
                .filter_map(|(id, _)| draft.state.task(id).map(|task| task.service.clone()))
                .collect();
            for chunk in reports.chunks(REPORTS_PER_COMMAND) {
                let _: bool = draft.add(Change::ReportTasks { reports: chunk.to_vec() });
            }
            self.due.services.extend(services);
            self.due.schedule = true;
            self.due.leftovers = true;
        }
        for (node, made) in &self.wanted.adoptions {
            let tasks: Vec<_> = made.iter().map(|made| made.task.clone()).collect();
            self.due.services.extend(tasks.iter().map(|task| task.service.clone()));
            let _: bool = draft.add(Change::AdoptTasks { node: node.clone(), tasks });
        }
    }

    fn draft_services(&mut self, draft: &mut Draft<'_>, now: Moment) {
        let mut due = std::mem::take(&mut self.due.services);
        if std::mem::take(&mut self.due.all_services) {
            due.extend(draft.state.services().map(|service| service.id.clone()));
        }
        for id in &due {
            let Some(service) = draft.state.service(id).cloned() else { continue };
            if draft.full {
                break;
            }
            let mut pass = reconcile::Pass {
                state: &draft.state,
                volatile: &self.volatile,
                memory: &mut self.memory,
                random: &mut self.random,
                now,
                date: draft.date,
                changes: Vec::new(),
                wake: None,
            };
            pass.service(&service);
            let (changes, wake) = (pass.changes, pass.wake);
            self.memory.set_wake(id, wake);
            for change in changes {
                let _: bool = draft.add(change);
            }
            let gone = reap::history(&draft.state, &service);
            if !gone.is_empty() {
                let _: bool = draft.add(Change::RemoveTasks { tasks: gone });
            }
        }
        if std::mem::take(&mut self.due.leftovers) {
            let gone = reap::leftovers(&draft.state);
            if !gone.is_empty() {
                let _: bool = draft.add(Change::RemoveTasks { tasks: gone });
            }
        }
    }

    fn draft_schedule(&self, draft: &mut Draft<'_>, mut decisions: Vec<Decision>) {
        // Saying again why a task still waits is no news.
        decisions.retain(|decision| {
            decision.node.is_some()
                || draft
                    .state
                    .task(&decision.task)
                    .is_some_and(|task| task.status.error != decision.error)
        });
        for chunk in decisions.chunks(DECISIONS_PER_COMMAND) {
            let _: bool = draft.add(Change::Schedule { decisions: chunk.to_vec() });
        }
    }
}

/// How many reports one command holds: about 200 KB of them.
const REPORTS_PER_COMMAND: usize = 512;

/// How many scheduling decisions one command holds: about 100 KB of them.
const DECISIONS_PER_COMMAND: usize = 1_024;

/// Names the next command of a request, so that a retry repeats none.
fn derived_request(id: &RequestId) -> RequestId {
    let digit = |c: char| u128::from(c.to_digit(36).unwrap_or(0));
    let bits =
        id.as_str().chars().fold(0_u128, |bits, c| bits.wrapping_mul(36).wrapping_add(digit(c)));
    // Not by XOR: the third command is named by this again, and would have the first one's name.
    RequestId::from_bits(bits.wrapping_add(0x6d_6964_6765 << 64))
}
