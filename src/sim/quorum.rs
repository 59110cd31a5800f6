//! No manager is let go where that leaves the others without a majority that answers.
//!
//! The leader refuses such a demotion (`cluster::managers`); here it is judged by what was committed,
//! which is what the leader went by: it has one proposal under way at a time.

use super::world::World;
use crate::{
    cluster::State,
    types::{Node, NodeId, NodeState, Role},
};
use std::collections::BTreeMap;

/// The managers that are to vote, and whether each is held for silent.
pub(super) fn voters(state: &State) -> BTreeMap<NodeId, bool> {
    let votes = |node: &&Node| node.spec.role == Role::Manager && node.manager.is_some();
    let silent = |node: &Node| (node.id.clone(), node.status.state == NodeState::Down);
    state.nodes().filter(votes).map(silent).collect()
}

/// A change was committed that made these voters of those.
pub(super) fn check_voters(before: &BTreeMap<NodeId, bool>, after: &BTreeMap<NodeId, bool>) {
    let Some(gone) = before.keys().find(|node| !after.contains_key(*node)) else { return };
    let silent = after.values().filter(|silent| **silent).count();
    let answering = after.len() - silent;
    assert!(
        answering > silent,
        "{gone} is let go, and of the managers that are left {answering} answer and {silent} do not"
    );
}

/// A manager goes on alone: nobody else is to vote, whoever was to before.
pub(super) fn check_alone(voters: &BTreeMap<NodeId, bool>, manager: &NodeId) {
    assert!(voters.keys().eq([manager]), "{manager} goes on alone, and {voters:?} are to vote");
}

impl World {
    /// Returns a manager that answers, while another one does not: what a user demotes by mistake.
    pub(super) fn demoted_by_mistake(&self) -> Option<Node> {
        let checks = self.checks();
        let voters = voters(&checks.state);
        let answering: Vec<_> = voters.iter().filter(|(_, silent)| !**silent).collect();
        if answering.len() == voters.len() || answering.is_empty() {
            return None;
        }
        let drawn = self.0.executor.below(u64::try_from(answering.len()).ok()?);
        let (id, _) = answering.get(usize::try_from(drawn).ok()?)?;
        checks.state.node(id).cloned()
    }
}
