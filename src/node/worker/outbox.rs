//! What the agent wants done, in order, behind what has to be on disk first.
//!
//! Knows which actions wait for a commit and which may pass it; knows nothing of how either is
//! carried out. Records that gather while a commit is under way go into the next one together, so
//! a slow disk is written to less often and never more. Of what the agent asks for and says again
//! meanwhile only the last is kept.

use super::lanes;
use crate::{
    agent::{Action, Record},
    types::{FromWorker, Register, Sequence},
};
use std::collections::VecDeque;

/// How many actions are held back while the disk does not answer. A node runs some hundred tasks
/// with a handful of actions each, repetitions aside; beyond this the agent is not asked for more
/// until there is room.
const HELD_MAX: usize = 4_096;

/// The actions that are to be carried out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    actions: VecDeque<Action>,
    /// What is being written, kept for another try.
    writing: Option<Vec<Record>>,
    /// The last sequence that is on disk.
    stored: Sequence,
    /// The session that was begun while something was being written.
    introduced: Option<u64>,
}

impl Outbox {
    pub(super) fn new(stored: Sequence) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Takes in the actions of one step.
    pub(super) fn push(&mut self, actions: Vec<Action>) {
        for action in actions {
            // A disk can be full for days, and what waits for it is not answered: without this a
            // node that only waits would hold more and more, and fall silent.
            if self.is_writing() {
                self.actions.retain(|held| !repeats(&action, held));
            }
            self.actions.push_back(action);
        }
    }

    /// Tells whether the agent should not be asked for more.
    pub(super) fn is_full(&self) -> bool {
        self.actions.len() > HELD_MAX
    }

    /// Tells whether a commit is under way or has to be tried again.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Returns what to do next, if anything. After [`Action::Persist`], call [`Outbox::written`],
    /// or [`Outbox::again`] where that failed.
    pub(super) fn next(&mut self) -> Option<Action> {
        if self.is_writing() {
            return self.next_sign_of_life();
        }
        let mut next = self.actions.pop_front()?;
        if let Action::Persist(records) = &mut next {
            records.append(&mut self.gather());
            self.writing = Some(records.clone());
        }
        Some(next)
    }

    /// The node lives while its disk does not answer, so heartbeats pass, and where its manager is
    /// lost meanwhile, the search for another and a register; but they claim nothing that is not on
    /// disk: the whole register follows when it is. One with tasks of the node's own making has to
    /// wait: without them they would be stopped.
    fn next_sign_of_life(&mut self) -> Option<Action> {
        let lives = |action: &Action| match action {
            Action::Send(FromWorker::Heartbeat { .. }) | Action::Reconnect { .. } => true,
            Action::Send(FromWorker::Register(register)) => {
                register.successors.is_empty() && self.introduced != Some(register.session)
            }
            _ => false,
        };
        let at = self.actions.iter().position(lives)?;
        if let Action::Send(FromWorker::Register(register)) = &self.actions[at] {
            self.introduced = Some(register.session);
            let register = Register { tasks: Vec::new(), ..(**register).clone() };
            return Some(Action::Send(FromWorker::Register(Box::new(register))));
        }
        let mut sign = self.actions.remove(at)?;
        if let Action::Send(FromWorker::Heartbeat { applied, .. }) = &mut sign {
            *applied = self.stored.min(*applied);
        }
        Some(sign)
    }

    /// What was being written is on disk.
    pub(super) fn written(&mut self) {
        let records = self.writing.take().unwrap_or_default();
        for record in records {
            if let Record::Sequence(sequence) = record {
                self.stored = self.stored.max(sequence);
            }
        }
    }

    /// Returns what to write after a failure: the same, and what gathered meanwhile.
    pub(super) fn again(&mut self) -> Vec<Record> {
        let mut gathered = self.gather();
        let writing = self.writing.get_or_insert_default();
        writing.append(&mut gathered);
        writing.clone()
    }

    /// Takes every record out of the queue: to be on disk earlier than asked does no harm.
    fn gather(&mut self) -> Vec<Record> {
        let mut gathered = Vec::new();
        self.actions.retain_mut(|action| match action {
            Action::Persist(records) => {
                gathered.append(records);
                false
            }
            _ => true,
        });
        gathered
    }
}

/// Tells whether what `held` asks for or says is asked for or said anew by `action`.
fn repeats(action: &Action, held: &Action) -> bool {
    match (action, held) {
        (Action::Send(new), Action::Send(old)) => {
            std::mem::discriminant(new) == std::mem::discriminant(old)
        }
        (Action::Perform(new), Action::Perform(old)) => lanes::repeats(new, old),
        _ => false,
    }
}
