//! The managers among the nodes: who is to be in the consensus group, and what a node is told of
//! its role.
//!
//! A role changes in small steps, each committed. To manager: the user wants it; the node fetches
//! its certificate and says where it is reached ([`Change::SetManagerStatus`]); the group takes it
//! in. Back: the user wants it; the group lets it go; only then is it a worker, so that a group of
//! two never waits for a member that has already left.

use super::{
    Change, Class, Effect, Leader, Refusal, RoleRequest, State, join,
    leader::{Answer, Prepared},
};
use crate::types::{FromManager, ManagerStatus, Node, NodeId, NodeState, Role};
use std::collections::{BTreeMap, BTreeSet};

/// How many managers there may be. Each write waits for a majority of them, and more than seven
/// survive no fault that seven do not in practice.
const MANAGERS_MAX: usize = 9;

/// After so many heartbeats a node is told its place again: a message to a node that is slow may be
/// dropped, and nobody else would ever tell it. At the usual pace this is once in half a minute.
const PLACE_AGAIN: u32 = 16;

/// Tells whether the node is to vote: it is a manager, and the user wants it to be.
fn votes(node: &Node) -> bool {
    node.manager.is_some() && node.spec.role == Role::Manager
}

/// Returns the consensus group as it should be: each member with its address.
pub(super) fn wanted(state: &State) -> BTreeMap<u64, String> {
    let managers = state.nodes().filter(|node| votes(node));
    let member = |node: &Node| node.manager.as_ref().map(|m| (m.raft_id, m.address.clone()));
    managers.filter_map(member).collect()
}

/// Refuses a change of role that would leave the cluster without a manager, or without a majority
/// of managers that answer.
pub(super) fn check_role(state: &State, node: &Node, to: Role) -> Result<(), Refusal> {
    match (node.spec.role, to) {
        (Role::Worker, Role::Manager) => check_count(state),
        (Role::Manager, Role::Worker) => {
            let others = || state.nodes().filter(|other| votes(other) && other.id != node.id);
            let left = others().count();
            if left == 0 {
                let message = "attempting to demote the last manager of the swarm";
                return Err(Refusal::new(Class::Conflict, message));
            }
            let answering = others().filter(|o| o.status.state != NodeState::Down).count();
            let needed = left / 2 + 1;
            if answering < needed {
                let message = format!(
                    "can't remove member from the raft: this would result in a loss of quorum: of \
                     the {left} managers that would be left {answering} answer, and {needed} are \
                     needed"
                );
                return Err(Refusal::new(Class::Conflict, message));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses one manager more where there are as many as there may be.
pub(super) fn check_count(state: &State) -> Result<(), Refusal> {
    let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
    if managers < MANAGERS_MAX {
        return Ok(());
    }
    let message = format!("the cluster has {managers} managers, which is all it takes");
    Err(Refusal::new(Class::Conflict, message))
}

/// Answers a member that asks for a certificate of the role it should have, and is ready for it.
///
/// A manager that was let go without hearing of it, and is wanted again, is made a worker first: it
/// still holds the log of the member that it was, under a key that must not come back.
pub(super) fn take_role(state: &State, asked: &RoleRequest) -> Result<Prepared, Refusal> {
    let node = join::check_key(state, &asked.node, asked.key_digest)?;
    let own = node.manager.as_ref().map(|manager| manager.raft_id);
    let anew = asked.certified == Role::Worker && own != Some(asked.member);
    if node.spec.role == Role::Manager && anew {
        if asked.advertise.is_empty() {
            let message = "a manager says at which address other nodes reach it";
            return Err(Refusal::new(Class::Invalid, message));
        }
        let others = || state.nodes().filter(|other| other.id != node.id);
        if others().any(|it| it.manager.as_ref().is_some_and(|m| m.raft_id == asked.member)) {
            let message = "another manager has this key in the group";
            return Err(Refusal::new(Class::Conflict, message));
        }
        let status = ManagerStatus { address: asked.advertise.clone(), raft_id: asked.member };
        let change = Change::SetManagerStatus { id: node.id.clone(), status: Some(status) };
        let (changes, answer) = (vec![change], Answer::Admitted);
        return Ok(Prepared::Propose { id: None, changes, answer });
    }
    if let Some(status) = moved(node, asked) {
        let change = Change::SetManagerStatus { id: node.id.clone(), status: Some(status) };
        let (changes, answer) = (vec![change], Answer::Admitted);
        return Ok(Prepared::Propose { id: None, changes, answer });
    }
    if node.spec.role == Role::Worker && node.manager.is_some() {
        let message = "the node is still being taken out of the group of managers; try again";
        return Err(Refusal::new(Class::Unavailable, message));
    }
    join::admission(state, &node.id).map(Prepared::Answer)
}

/// Returns the standing of a manager that is reached elsewhere than is written here. Who asks is the
/// node itself, by the key that it joined with, and the member that is in the group.
///
/// Two managers may name one address for a while, where one got the other's: whoever calls a member
/// there says which one is meant.
fn moved(node: &Node, asked: &RoleRequest) -> Option<ManagerStatus> {
    let known = node.manager.as_ref().filter(|known| known.raft_id == asked.member)?;
    let moved = asked.certified == Role::Manager
        && !asked.advertise.is_empty()
        && known.address != asked.advertise;
    moved.then(|| ManagerStatus { address: asked.advertise.clone(), ..known.clone() })
}

impl Leader {
    /// Has the group made what it should be, where that changed.
    pub(super) fn follow_group(&mut self, state: &State, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.due.group) {
            return;
        }
        let wanted = wanted(state);
        self.managers = wanted.values().cloned().collect();
        if !wanted.is_empty() && self.group.as_ref() != Some(&wanted) {
            self.group = Some(wanted.clone());
            effects.push(Effect::SetGroup(wanted));
        }
    }

    /// The group has these members by now: whoever was to leave and has left is a worker.
    pub(super) fn take_group(&mut self, state: &State, members: &BTreeSet<u64>) {
        let left = |node: &&Node| {
            let member = node.manager.as_ref().map(|manager| manager.raft_id);
            node.spec.role == Role::Worker && member.is_some_and(|id| !members.contains(&id))
        };
        self.wanted.workers = state.nodes().filter(left).map(|node| node.id.clone()).collect();
    }

    /// Tells these nodes what role they should have and where the managers are, where they were
    /// told something else before, or long ago. One that has its role, and joined where the only
    /// manager is, knows.
    pub(super) fn tell_places(
        &mut self,
        state: &State,
        nodes: &BTreeSet<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        let managers = &self.managers;
        for id in nodes {
            let Some(node) = state.node(id) else { continue };
            let Some(session) = self.sessions.get_mut(id) else { continue };
            // Until the group has let it go, a manager goes on as one.
            let role = if node.manager.is_some() { Role::Manager } else { node.spec.role };
            let place = (role, managers.clone());
            let news = match &session.place {
                Some(told) => *told != place || session.place_age >= PLACE_AGAIN,
                // One that was a manager may not know yet that it is none any more.
                None => {
                    role == Role::Manager
                        || managers.len() > 1
                        || state.was_manager(id)
                        || session.place_age >= PLACE_AGAIN
                }
            };
            if news {
                session.place = Some(place);
                session.place_age = 0;
                let managers = managers.clone();
                let message = FromManager::Place { role, managers };
                effects.push(Effect::Send { node: id.clone(), message });
            }
        }
    }
}
