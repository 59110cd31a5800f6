//! The requests that wait for an answer.
//!
//! Knows who waits and until when; knows nothing of what a request means.

use crate::{
    cluster::{Class, Refusal, Request, Response, Ticket},
    types::Moment,
};
use async_channel::Sender;
use std::collections::BTreeMap;

/// How many requests wait at once. Each is a user, a joiner or a program that holds a connection;
/// at about 1 KB each this stays below a megabyte.
const REQUESTS_MAX: usize = 512;

/// One request.
#[derive(Debug)]
struct Pending {
    /// Kept until the leader has it.
    held: Option<Request>,
    /// The signing request, kept until the answer, which a certificate goes into.
    csr: Option<Vec<u8>>,
    is_read: bool,
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
    pub(super) csr: Option<Vec<u8>>,
    pub(super) reply: Sender<Result<Response, Refusal>>,
}

impl Requests {
    /// Takes a request in and gives it a ticket, or refuses it where too many wait.
    pub(super) fn hold(
        &mut self,
        request: Request,
        deadline: Moment,
        reply: Sender<Result<Response, Refusal>>,
    ) -> Option<Ticket> {
        if self.pending.len() >= REQUESTS_MAX {
            let text = format!("the manager is busy: {REQUESTS_MAX} requests wait; try again");
            answer(&reply, Err(Refusal::new(Class::Unavailable, text)));
            return None;
        }
        self.last += 1;
        let csr = match &request {
            Request::Join(join) => Some(join.csr.clone()),
            Request::Renew(renew) => Some(renew.csr.clone()),
            _ => None,
        };
        let is_read = matches!(request, Request::Read(_));
        let pending = Pending { held: Some(request), csr, is_read, deadline, reply };
        self.pending.insert(self.last, pending);
        Some(self.last)
    }

    /// Returns the request that a ticket stands for, once: the leader gets it next.
    pub(super) fn release(&mut self, ticket: Ticket) -> Option<Request> {
        self.pending.get_mut(&ticket)?.held.take()
    }

    /// Returns the tickets of all requests that no leader has got.
    pub(super) fn held(&self) -> Vec<Ticket> {
        let held = self.pending.iter().filter(|(_, pending)| pending.held.is_some());
        held.map(|(ticket, _)| *ticket).collect()
    }

    /// Tells whether the request only reads.
    pub(super) fn is_read(&self, ticket: Ticket) -> bool {
        let held = self.pending.get(&ticket).and_then(|pending| pending.held.as_ref());
        matches!(held, Some(Request::Read(_)))
    }

    /// Returns until when somebody waits for this one.
    pub(super) fn deadline_of(&self, ticket: Ticket) -> Option<Moment> {
        self.pending.get(&ticket).map(|pending| pending.deadline)
    }

    /// Takes out whoever waits for this answer.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        let Pending { csr, reply, .. } = self.pending.remove(&ticket)?;
        Some(Waiting { csr, reply })
    }

    /// Refuses one.
    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        if let Some(waiting) = self.take(ticket) {
            answer(&waiting.reply, Err(refusal));
        }
    }

    /// Refuses everything that is more than a read.
    pub(super) fn refuse_changes(&mut self, refusal: &Refusal) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| !pending.is_read) {
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
