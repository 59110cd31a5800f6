//! How a new epoch of the cluster begins: with one manager, on what a lost group or a backup left.
//!
//! The epoch is part of the replicated state ([`State::epoch`]), so that entries which are applied
//! anew after a restart get the versions that they had, and a manager that joins learns it with the
//! rest.
//!
//! One older state may begin anew more than once: a backup that is restored again knows nothing of
//! the time before. Nodes do, and follow nobody whose epoch and term are below those that they have
//! followed. So both begin by the calendar where that is ahead: the epoch with the ten minutes, the
//! term with the second in them. Where the clock is behind they rise by one, as they would without it.

use super::{
    State,
    apply::{At, not_found},
};
use crate::{
    cluster::{
        command::{Applied, Change, Command, Rejected},
        state::encode_entry,
    },
    types::{Date, ManagerStatus, Node, NodeId, Role, Version},
};
use std::sync::Arc;

/// How long one epoch lasts where they go by the calendar: [`Version::EPOCH_MAX`] of them are forty
/// years.
const EPOCH_SECONDS: u64 = 600;

/// 2026-01-01, when the first of those began.
const CALENDAR_BEGINS: u64 = 1_767_225_600;

/// Returns the log entry by which a manager goes on alone, in a group that begins with this term.
#[must_use]
pub fn forced_anew(manager: NodeId, status: ManagerStatus, term: u64, date: Date) -> Vec<u8> {
    begun_anew(Change::ForceNewCluster { manager, status }, term, date)
}

/// Returns the log entry by which the cluster begins on a machine that it is restored to, in a group
/// that begins with this term.
#[must_use]
pub fn restored_anew(node: Node, replaces: NodeId, term: u64, date: Date) -> Vec<u8> {
    begun_anew(Change::RestoreCluster { node: Box::new(node), replaces }, term, date)
}

/// Returns how many terms a group passes over that begins now, so that its first one is above those
/// of another that began within the same ten minutes: nobody elects leaders faster than one a second.
#[must_use]
pub fn terms_passed(date: Date) -> u64 {
    date.unix_seconds().saturating_sub(CALENDAR_BEGINS) % EPOCH_SECONDS
}

fn begun_anew(change: Change, term: u64, date: Date) -> Vec<u8> {
    let last = date.unix_seconds().saturating_sub(CALENDAR_BEGINS) / EPOCH_SECONDS;
    let changes = [Change::PassEpochs { last }, change];
    encode_entry(&changes.map(|change| Command { request: None, term, date, change }))
}

impl State {
    /// Returns the epoch that the next entry belongs to: 1, until the cluster was restored or forced
    /// anew.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.tables.applied.epoch.max(1)
    }

    /// Tells whether the cluster was restored or forced: nodes may have joined, and roots been begun
    /// with, that it has forgotten.
    #[must_use]
    pub fn is_made_anew(&self) -> bool {
        self.epoch() > 1
    }

    pub(super) fn force_new(
        &mut self,
        at: At,
        manager: &NodeId,
        status: &ManagerStatus,
    ) -> Result<Applied, Rejected> {
        if self.node(manager).is_none() {
            return Err(not_found("node", manager.as_str()));
        }
        let at = self.begin_epoch(at);
        self.demote_managers(at, manager);
        self.change_node(at, manager, |node| {
            node.role = Role::Manager;
            node.spec.role = Role::Manager;
            node.manager = Some(status.clone());
            Ok(())
        })
    }

    pub(super) fn restore_to(
        &mut self,
        at: At,
        node: &Node,
        replaces: &NodeId,
    ) -> Result<Applied, Rejected> {
        if self.cluster().is_none() {
            return Err(not_found("cluster", ""));
        }
        if self.node(&node.id).is_some() || self.is_removed(&node.id) {
            let text = format!("node {} was a member before", node.id);
            return Err(Rejected::Precondition(text));
        }
        if self.nodes().any(|other| other.key_digest == node.key_digest) {
            return Err(Rejected::Precondition("a node has this key already".to_owned()));
        }
        let at = self.begin_epoch(at);
        self.demote_managers(at, &node.id);
        if self.node(replaces).is_some() {
            self.remove_node(at, replaces, true)?;
        }
        self.create_node(at, node)
    }

    /// Passes over epochs, but for those that no calendar should have come to: a clock that is years
    /// ahead leaves room for the next.
    pub(super) fn pass_epochs(&mut self, at: At, last: u64) -> Applied {
        let epoch = self.epoch().max(last.min(Version::EPOCH_MAX - 1));
        self.tables.applied = Version { epoch, index: at.version.index };
        Applied::Done
    }

    /// Raises the epoch. What is written from here on has a version above all that any manager of
    /// the epoch before may have written.
    fn begin_epoch(&mut self, at: At) -> At {
        let version = Version { epoch: self.epoch() + 1, index: at.version.index };
        self.tables.applied = version;
        At { version, ..at }
    }

    fn demote_managers(&mut self, at: At, except: &NodeId) {
        let managers = self.tables.nodes.values_mut().filter(|node| {
            let manages = [node.role, node.spec.role].contains(&Role::Manager);
            node.id != *except && (manages || node.manager.is_some())
        });
        let mut demoted = Vec::new();
        for node in managers {
            let node = Arc::make_mut(node);
            node.role = Role::Worker;
            node.spec.role = Role::Worker;
            node.manager = None;
            node.version = at.version;
            node.updated = at.date;
            demoted.push(node.id.clone());
        }
        for id in demoted {
            self.remember_demotion(at, &id);
        }
    }
}
