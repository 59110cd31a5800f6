//! The requests that wait for an answer.
//!
//! Knows who waits, until when, and who has the request; knows nothing of what it means. A request
//! is kept until it is answered: when the leader changes, the next one gets it. That is safe, since
//! the state remembers what became of each.

use crate::{
    cluster::{Class, Refusal, Request, Response, Ticket},
    types::Moment,
};
use async_channel::Sender;
use std::collections::BTreeMap;

/// How many requests wait at once. Each is a user, a joiner or a program that holds a connection;
/// at about 1 KB each this stays below a megabyte.
const REQUESTS_MAX: usize = 512;

/// Who has a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    /// Nobody who could answer it.
    Nobody,
    /// This node's leader.
    Us,
    /// Another node, which was asked for the so-manieth time.
    Other(u32),
}

/// One request.
#[derive(Debug)]
struct Pending {
    request: Request,
    with: With,
    /// Another manager asks for somebody: it is told at once where this one does not lead.
    relayed: bool,
    asked: u32,
    since: Moment,
    deadline: Moment,
    reply: Sender<Result<Response, Refusal>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: Ticket,
    pending: BTreeMap<Ticket, Pending>,
}

/// Somebody who waits for an answer, taken out of the table.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The signing request that a certificate is made of.
    pub(super) csr: Option<Vec<u8>>,
    pub(super) reply: Sender<Result<Response, Refusal>>,
}

/// The refusal of a manager that is asked by another and does not lead.
pub(super) fn not_leader() -> Refusal {
    Refusal::new(Class::NotLeader, "this manager does not lead")
}

impl Requests {
    /// Takes a request in and gives it a ticket, or refuses it where too many wait.
    pub(super) fn hold(
        &mut self,
        request: Request,
        (since, deadline): (Moment, Moment),
        relayed: bool,
        reply: Sender<Result<Response, Refusal>>,
    ) -> Option<Ticket> {
        if self.pending.len() >= REQUESTS_MAX {
            let text = format!("the manager is busy: {REQUESTS_MAX} requests wait; try again");
            answer(&reply, Err(Refusal::new(Class::Unavailable, text)));
            return None;
        }
        self.last += 1;
        let with = With::Nobody;
        let pending = Pending { request, with, relayed, asked: 0, since, deadline, reply };
        self.pending.insert(self.last, pending);
        Some(self.last)
    }

    /// Returns the request that a ticket stands for, once: this node's leader gets it next.
    pub(super) fn release(&mut self, ticket: Ticket) -> Option<Request> {
        let pending = self.pending.get_mut(&ticket).filter(|p| p.with == With::Nobody)?;
        pending.with = With::Us;
        Some(pending.request.clone())
    }

    /// Returns the request that a ticket stands for, and the number of this attempt: another node
    /// is asked next.
    pub(super) fn send_away(&mut self, ticket: Ticket) -> Option<(Request, u32)> {
        let pending = self.pending.get_mut(&ticket).filter(|p| p.with == With::Nobody)?;
        pending.asked += 1;
        pending.with = With::Other(pending.asked);
        Some((pending.request.clone(), pending.asked))
    }

    /// Another node was asked in vain. Returns since when the request waits; none where somebody
    /// else has it by now.
    pub(super) fn sent_back(&mut self, ticket: Ticket, attempt: u32) -> Option<Moment> {
        let pending = self.pending.get_mut(&ticket).filter(|p| p.with == With::Other(attempt))?;
        pending.with = With::Nobody;
        Some(pending.since)
    }

    /// Whoever has a request leads no longer: the next leader gets them all. Those that another
    /// manager asked are refused instead, since that one knows whom to ask now.
    pub(super) fn take_back(&mut self) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.relayed) {
            answer(&pending.reply, Err(not_leader()));
        }
        for pending in self.pending.values_mut() {
            pending.with = With::Nobody;
        }
    }

    /// Returns the tickets of all requests that nobody has.
    pub(super) fn held(&self) -> Vec<Ticket> {
        let held = self.pending.iter().filter(|(_, pending)| pending.with == With::Nobody);
        held.map(|(ticket, _)| *ticket).collect()
    }

    /// Tells whether the request waits for the barrier.
    pub(super) fn needs_barrier(&self, ticket: Ticket) -> bool {
        self.pending.get(&ticket).is_some_and(|pending| pending.request.needs_barrier())
    }

    /// Returns until when somebody waits for this one.
    pub(super) fn deadline_of(&self, ticket: Ticket) -> Option<Moment> {
        self.pending.get(&ticket).map(|pending| pending.deadline)
    }

    /// Takes out whoever waits for this answer.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        let Pending { request, reply, .. } = self.pending.remove(&ticket)?;
        Some(Waiting { csr: request.into_csr(), reply })
    }

    /// Refuses one.
    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        if let Some(waiting) = self.take(ticket) {
            answer(&waiting.reply, Err(refusal));
        }
    }

    /// Refuses everything that is more than a read.
    pub(super) fn refuse_changes(&mut self, refusal: &Refusal) {
        let changes = self.pending.extract_if(.., |_, pending| !pending.request.is_read());
        for (_, pending) in changes {
            answer(&pending.reply, Err(refusal.clone()));
        }
    }

    /// Refuses what nobody has.
    pub(super) fn refuse_held(&mut self, refusal: &Refusal) {
        for (_, pending) in self.pending.extract_if(.., |_, p| p.with == With::Nobody) {
            answer(&pending.reply, Err(refusal.clone()));
        }
    }

    /// Tells whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Refuses what waits since that time or longer.
    pub(super) fn refuse_since(&mut self, since: Moment, refusal: &Refusal) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.since <= since) {
            answer(&pending.reply, Err(refusal.clone()));
        }
    }

    /// Refuses all.
    pub(super) fn refuse_all(&mut self, refusal: &Refusal) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            answer(&pending.reply, Err(refusal.clone()));
        }
    }

    /// Refuses those whose time is up.
    pub(super) fn expire(&mut self, now: Moment, refusal: &Refusal) {
        let late = self.pending.extract_if(.., |_, pending| pending.deadline <= now);
        for (_, pending) in late {
            answer(&pending.reply, Err(refusal.clone()));
        }
    }

    /// Returns when the first one's time is up.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.pending.values().map(|pending| pending.deadline).min()
    }
}

/// Gives an answer. Whoever asked may be gone, and then nobody wants it.
pub(super) fn answer<T>(reply: &Sender<T>, result: T) {
    let _gone = reply.try_send(result);
}
