//! Admitting nodes: the token is compared here, before any certificate is signed.

use super::{
    Admission, Change, Class, JoinRequest, Refusal, RenewRequest, Response, State,
    leader::{Answer, Prepared},
    managers,
};
use crate::types::{
    Availability, Cluster, Date, Entropy, Labels, ManagerStatus, Node, NodeDescription, NodeId,
    NodeSpec, NodeStatus, Role, Version,
};

/// The most nodes that a cluster takes: the leader's beats and tables are made for a tenth of it.
const NODES_MAX: usize = 10_000;

pub(super) fn cluster(state: &State) -> Result<&Cluster, Refusal> {
    let none = || Refusal::new(Class::Unavailable, "the cluster is not made yet");
    state.cluster().ok_or_else(none)
}

/// Returns what an admitted node is told; the certificate is added by who signs it.
pub(super) fn admission(state: &State, id: &NodeId) -> Result<Response, Refusal> {
    let cluster = cluster(state)?.id.clone();
    let gone = || Refusal::new(Class::Conflict, format!("node {id} was removed meanwhile"));
    let role = state.node(id).ok_or_else(gone)?.role;
    let admission = Admission { node: id.clone(), role, cluster, certificate: Vec::new() };
    Ok(Response::Admitted(Box::new(admission)))
}

/// Tells whether a manager asks to join.
pub(super) fn is_of_manager(state: &State, join: &JoinRequest) -> bool {
    let role = state.cluster().and_then(|cluster| cluster.tokens.admits(join.secret));
    role == Some(Role::Manager)
}

pub(super) fn prepare(
    state: &State,
    entropy: &mut dyn Entropy,
    date: Date,
    join: &JoinRequest,
) -> Result<Prepared, Refusal> {
    let Some(role) = cluster(state)?.tokens.admits(join.secret) else {
        let message = "the join token does not fit this cluster: it is wrong, or the token may \
                       have been rotated since it was printed";
        return Err(Refusal::new(Class::Unauthorized, message));
    };
    if let Some(known) = state.nodes().find(|node| node.key_digest == join.key_digest) {
        return repeat(state, known, join);
    }
    if role == Role::Manager {
        managers::check_count(state)?;
        if join.advertise.is_empty() {
            let message = "a manager says at which address other nodes reach it";
            return Err(Refusal::new(Class::Invalid, message));
        }
    }
    check_room(state)?;
    let id = NodeId::generate(entropy);
    let (address, raft_id) = (join.advertise.clone(), id.member());
    let manager = (role == Role::Manager).then_some(ManagerStatus { address, raft_id });
    let node = Box::new(Node {
        id,
        version: Version::ZERO,
        created: date,
        updated: date,
        spec: NodeSpec { labels: join.labels.clone(), role, availability: join.availability },
        description: join.description.clone(),
        status: NodeStatus { address: join.address.clone(), ..NodeStatus::default() },
        manager,
        role,
        key_digest: join.key_digest,
    });
    Ok(Prepared::Propose {
        id: None,
        changes: vec![Change::CreateNode { node }],
        answer: Answer::Admitted,
    })
}

fn check_room(state: &State) -> Result<(), Refusal> {
    if state.nodes().count() < NODES_MAX {
        return Ok(());
    }
    let message = format!("the cluster has {NODES_MAX} nodes, which is all it takes");
    Err(Refusal::new(Class::Unavailable, message))
}

/// Takes a node in again that the cluster was restored to before: as a worker, of which it is known
/// only who it is. Nobody is at hand at the edge to join it once more.
///
/// A node that was removed stays out for as long as it may have a certificate. One that was removed, and
/// had joined, after the backup was written is forgotten in both: it is to be removed once more.
pub(super) fn readmit(
    state: &State,
    date: Date,
    renew: &RenewRequest,
) -> Result<Prepared, Refusal> {
    if state.node(&renew.node).is_some()
        || state.is_removed(&renew.node)
        || renew.expired.is_some()
        || !state.is_made_anew()
    {
        return self::renew(state, date, renew).map(Prepared::Answer);
    }
    check_room(state)?;
    let (labels, role) = (Labels::default(), Role::Worker);
    let node = Box::new(Node {
        id: renew.node.clone(),
        version: Version::ZERO,
        created: date,
        updated: date,
        spec: NodeSpec { labels, role, availability: Availability::Active },
        description: NodeDescription::default(),
        status: NodeStatus::default(),
        manager: None,
        role,
        key_digest: renew.key_digest,
    });
    let changes = vec![Change::CreateNode { node }];
    Ok(Prepared::Propose { id: None, changes, answer: Answer::Admitted })
}

/// Answers a member that asks for its next certificate: with the role it has by now.
///
/// One that ran out still tells who the node is, since the key was proved and is the one that it
/// joined with. For how long, the operator decides; a node that should not come back is removed.
pub(super) fn renew(state: &State, date: Date, renew: &RenewRequest) -> Result<Response, Refusal> {
    check_key(state, &renew.node, renew.key_digest)?;
    let grace = cluster(state)?.spec.rejoin_grace;
    if let Some(expired) = renew.expired
        && date > expired + grace
    {
        let message = format!(
            "the certificate of node {} ran out on {expired}, longer ago than the cluster's rejoin \
             grace of {} days: take the node out with `midge swarm leave`, remove it, and join it \
             again with a token",
            renew.node,
            grace.as_secs() / 86_400
        );
        return Err(Refusal::new(Class::Unauthorized, message));
    }
    admission(state, &renew.node)
}

/// Returns the member of this id, where the key is the one it joined with.
pub(super) fn check_key<'a>(
    state: &'a State,
    id: &NodeId,
    key_digest: [u8; 32],
) -> Result<&'a Node, Refusal> {
    let Some(node) = state.node(id) else {
        let message =
            format!("node {id} is no longer part of this cluster; join it again with a token");
        return Err(Refusal::new(Class::Unauthorized, message));
    };
    if node.key_digest != key_digest {
        let message = format!(
            "node {id} asks for a certificate of another key than it joined with; remove the node \
             and join it again"
        );
        return Err(Refusal::new(Class::Unauthorized, message));
    }
    Ok(node)
}

/// Answers a join whose node exists by the time it is applied.
pub(super) fn repeated(state: &State, join: &JoinRequest) -> Result<Response, Refusal> {
    let known = state.nodes().find(|node| node.key_digest == join.key_digest);
    let known = known.ok_or_else(|| {
        Refusal::new(Class::Unavailable, "the node's id was taken meanwhile; try again")
    })?;
    match repeat(state, known, join)? {
        Prepared::Answer(response) => Ok(response),
        Prepared::Propose { .. } => {
            Err(Refusal::new(Class::Internal, "a node that is known was to be made again"))
        }
    }
}

/// A key that is known: the same machine lost its answer, or a disk was cloned.
fn repeat(state: &State, known: &Node, join: &JoinRequest) -> Result<Prepared, Refusal> {
    let (here, there) = (&known.description.machine_id, &join.description.machine_id);
    if !here.is_empty() && !there.is_empty() && here != there {
        let message = format!(
            "this node's key belongs to node {} ({}), which is another machine: was its disk \
             cloned? Remove midge's data directory on the copy and join again",
            known.id, known.description.hostname
        );
        return Err(Refusal::new(Class::Conflict, message));
    }
    admission(state, &known.id).map(Prepared::Answer)
}
