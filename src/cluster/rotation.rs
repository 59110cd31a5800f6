//! How the leader brings the cluster from one root to the next.
//!
//! From the moment that a rotation begins the next root signs, and every node is told both roots; it
//! gets another certificate and says so. Once all that are not Down have, the next root counts
//! alone. A node that is Down holds nothing up: it comes back with a certificate of a root of
//! before, which gets it another, and checks its managers by what that root said of its successor.

use super::{Effect, Leader, State, dispatch::RootDigests};
use crate::types::{Cluster, FromManager, NodeId, NodeState};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// After so many heartbeats a node is told again: either message may be lost. At the usual pace this
/// is every nine seconds; of one that has said that it follows, each time after twice as long, since
/// that it let go of the root of before it does not say.
const TELL_AGAIN: u32 = 5;

/// What a node was told of the roots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    digests: RootDigests,
    /// How many heartbeats ago.
    age: u32,
    /// After how many it is told again.
    again: u32,
}

impl Told {
    /// The node has beaten once more.
    pub(super) fn grow_older(&mut self) {
        self.age = self.age.saturating_add(1);
    }
}

/// What the cluster's nodes spread their requests over, for each of them: a manager signs several
/// hundred certificates a second, and does other things besides.
const SPREAD_PER_NODE: Duration = Duration::from_millis(20);

/// The longest such spread.
const SPREAD_MAX: Duration = Duration::from_secs(10);

fn digests(cluster: &Cluster) -> RootDigests {
    (cluster.root.digest, cluster.rotation.as_ref().map(|rotation| rotation.root.digest))
}

/// Returns the digest of the next root, where it can count alone from now on: every node that is not
/// Down goes by it. One that was not heard of yet is waited for, since it soon is, or is Down.
pub(super) fn is_done(state: &State, certified: &BTreeMap<NodeId, [u8; 32]>) -> Option<[u8; 32]> {
    let next = state.cluster()?.rotation.as_ref()?.root.digest;
    let mut awake = state.nodes().filter(|node| node.status.state != NodeState::Down).peekable();
    awake.peek()?;
    awake.all(|node| certified.get(&node.id) == Some(&next)).then_some(next)
}

impl Leader {
    /// Tells these nodes of the roots, where they may not know: the first root of a cluster is what
    /// they joined by, unless it has forgotten another that it had begun with.
    pub(super) fn tell_trust(
        &mut self,
        state: &State,
        told: &BTreeSet<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cluster) = state.cluster() else { return };
        let ever = cluster.rotation.is_some() || !cluster.former_roots.is_empty();
        if !ever && !state.is_made_anew() {
            return;
        }
        let digests = digests(cluster);
        let newest = digests.1.unwrap_or(digests.0);
        let nodes = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let within = SPREAD_PER_NODE.saturating_mul(nodes).min(SPREAD_MAX);
        for id in told {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            let follows = self.certified.get(id) == Some(&newest);
            let before = session.trust.filter(|told| told.digests == digests);
            if before.is_none_or(|told| told.age >= told.again) {
                let again = match before {
                    Some(told) if follows => told.again.saturating_mul(2),
                    _ => TELL_AGAIN,
                };
                session.trust = Some(Told { digests, age: 0, again });
                let message = FromManager::Trust { trust: Box::new(cluster.trust()), within };
                effects.push(Effect::Send { node: id.clone(), message });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Change, ClusterUpdate, Request, leader::tests::World},
        types::{JoinToken, JoinTokens, RootCa, RootRotation},
    };

    fn rotation(byte: u8) -> Box<RootRotation> {
        let token = JoinToken(u128::from(byte));
        let root = RootCa { certificate: vec![byte; 3], key: vec![byte; 2], digest: [byte; 32] };
        let tokens = JoinTokens { worker: token, manager: token };
        Box::new(RootRotation { root, cross_signed: vec![byte; 4], tokens })
    }

    #[test]
    fn a_rotation_waits_for_those_who_are_there_and_for_nobody_else() {
        let mut state = World::new(3).state;
        let nodes: Vec<NodeId> = state.nodes().map(|node| node.id.clone()).collect();
        let (last, others) = nodes.split_last().expect("nodes");
        let apply = |state: &mut State, change| {
            let mut at = state.applied();
            at.index += 1;
            let date = crate::types::Date::from_unix_seconds(3_000_000);
            let command = crate::cluster::Command { request: None, term: 1, date, change };
            state.apply(at, 1, &command).expect("it fits");
        };
        let node_is = |id: &NodeId, state| Change::SetNodeState {
            id: id.clone(),
            state,
            message: String::new(),
        };
        let mut certified = BTreeMap::new();
        assert_eq!(is_done(&state, &certified), None, "nothing is under way");
        let base = state.cluster().expect("a cluster").root.digest;
        apply(&mut state, Change::RotateRoot { base, rotation: rotation(80) });
        apply(&mut state, node_is(last, NodeState::Down));
        for id in others {
            apply(&mut state, node_is(id, NodeState::Ready));
            assert_eq!(is_done(&state, &certified), None);
            certified.insert(id.clone(), [80; 32]);
        }
        assert_eq!(is_done(&state, &certified), Some([80; 32]), "a dead node blocks nothing");
        apply(&mut state, node_is(last, NodeState::Unknown));
        assert_eq!(is_done(&state, &certified), None, "it may be there");
        certified.insert(last.clone(), [79; 32]);
        assert_eq!(is_done(&state, &certified), None, "that is another root");
        apply(&mut state, Change::RotateRoot { base, rotation: rotation(79) });
        assert_eq!(is_done(&state, &certified), None, "a rotation took its place");
        certified.values_mut().for_each(|root| *root = [79; 32]);
        assert_eq!(is_done(&state, &certified), Some([79; 32]));
        for id in &nodes {
            apply(&mut state, node_is(id, NodeState::Down));
        }
        assert_eq!(is_done(&state, &certified), None, "nobody is there to go by it");
    }

    #[test]
    fn the_leader_ends_a_rotation_once_all_nodes_have_said_that_they_follow() {
        let mut world = World::new(2);
        let cluster = world.state.cluster().expect("a cluster").clone();
        let spec = crate::types::ClusterSpec { force_rotate: 1, ..cluster.spec.clone() };
        let asked = Request::UpdateCluster(Box::new(ClusterUpdate {
            request: crate::types::RequestId::from_bits(9_001),
            version: cluster.version,
            spec,
            rotate_worker_token: true,
            rotate_manager_token: false,
            rotate_unlock_key: false,
            fresh_unlock_key: crate::types::UnlockKey([9; 32]),
            next_root: Some(rotation(80)),
        }));
        assert!(world.request(asked).is_ok());
        let during = world.state.cluster().expect("a cluster").clone();
        assert_ne!(during.tokens.worker, cluster.tokens.worker, "no change of a request is lost");
        assert_eq!(during.signing_root().digest, [80; 32]);
        let nodes: Vec<NodeId> = world.state.nodes().map(|node| node.id.clone()).collect();
        for node in nodes {
            assert!(world.state.cluster().expect("a cluster").rotation.is_some());
            let asked = Request::Certified { node, root: [80; 32] };
            assert!(world.request(asked).is_ok());
        }
        world.run(Duration::from_secs(1));
        let after = world.state.cluster().expect("a cluster").clone();
        assert_eq!((after.root.digest, after.rotation), ([80; 32], None));
    }
}
