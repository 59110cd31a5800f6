//! Who may ask what: the one place where it is decided.

use crate::{pki::Identity, types::Role, wire::StreamRequest};

/// How far a peer that showed a certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trusted {
    /// The certificate is good.
    Fully,
    /// It ran out, but the state knows the node as a manager, and not too much time has passed: it
    /// takes part in the consensus group, so that managers which were all off for long can agree on
    /// new certificates. Or it is a manager's whom the state does not know yet, or not any more.
    ToElect,
    /// It ran out, a root of before signed it, or the state may have forgotten its node: it serves to
    /// get another.
    ToRenew,
}

/// A peer that showed a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is. Its role is the certificate's, as far as the state agrees.
    pub identity: Identity,
    /// How far it is believed.
    pub trusted: Trusted,
}

/// Tells whether `peer` may open a stream for `request` to a node of the role `own`. None is a
/// peer without a certificate. That the certificate is this cluster's, and its node not removed,
/// was checked when the connection was made. A worker that others connect to takes all of them for
/// workers (`Holder::into_worker`).
#[must_use]
pub fn may(own: Role, peer: Option<&Peer>, request: &StreamRequest) -> bool {
    let full = peer.filter(|peer| peer.trusted == Trusted::Fully);
    let from_manager = full.is_some_and(is_manager);
    match request {
        // The root is public, and a node that joins has nothing to show yet.
        StreamRequest::Root => own == Role::Manager,
        StreamRequest::Join(_) => own == Role::Manager && peer.is_none(),
        // Of itself only: all are answered for the node that the certificate names.
        StreamRequest::Session
        | StreamRequest::TakeRole { .. }
        | StreamRequest::Certified { .. } => own == Role::Manager && full.is_some(),
        StreamRequest::Renew { .. } | StreamRequest::Trust => {
            own == Role::Manager && peer.is_some()
        }
        // Of any node, since it may have been a manager once, and be all that the peer knows. What
        // it learns are addresses, and there it is told the rest: also that it was removed.
        StreamRequest::Managers => peer.is_some(),
        StreamRequest::Raft => {
            let elects = |peer: &Peer| is_manager(peer) && peer.trusted != Trusted::ToRenew;
            own == Role::Manager && peer.is_some_and(elects)
        }
        StreamRequest::Relay(_) | StreamRequest::SessionOf { .. } => {
            own == Role::Manager && from_manager
        }
        StreamRequest::Via { request, .. } => {
            let of_any_node = matches!(
                **request,
                StreamRequest::Logs(_)
                    | StreamRequest::LoadImage { .. }
                    | StreamRequest::Container(_)
                    | StreamRequest::Chore(_)
            );
            own == Role::Manager && from_manager && of_any_node
        }
        StreamRequest::Logs(_)
        | StreamRequest::LoadImage { .. }
        | StreamRequest::Container(_)
        | StreamRequest::Chore(_) => from_manager,
    }
}

fn is_manager(peer: &Peer) -> bool {
    peer.identity.role == Role::Manager
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        cluster::{JoinRequest, Query, Request},
        types::{
            Availability, Chore, ClusterId, ExecSpec, JoinToken, NodeDescription, NodeId, TaskId,
        },
        wire::{ContainerOp, ContainerRequest},
    };

    pub(in crate::transport) fn join_request() -> JoinRequest {
        JoinRequest {
            labels: std::collections::BTreeMap::new(),
            secret: JoinToken(1),
            csr: Vec::new(),
            key_digest: [0; 32],
            description: NodeDescription::default(),
            availability: Availability::Active,
            address: String::new(),
            advertise: String::new(),
        }
    }

    fn exec() -> ContainerRequest {
        let op = ContainerOp::Exec { spec: ExecSpec::default(), detach: false, size: None };
        ContainerRequest { task: TaskId::from_bits(1), op }
    }

    fn via(request: StreamRequest) -> StreamRequest {
        StreamRequest::Via { node: NodeId::from_bits(2), request: Box::new(request) }
    }

    #[test]
    fn every_request_has_its_row() {
        let peer = |role| {
            let (node, cluster) = (NodeId::from_bits(1), ClusterId::from_bits(1));
            Peer { identity: Identity { node, role, cluster }, trusted: Trusted::Fully }
        };
        let (worker, manager) = (peer(Role::Worker), peer(Role::Manager));
        // To a manager: stranger, worker, manager. To a worker: the same.
        let table = [
            (StreamRequest::Root, [true, true, true], [false, false, false]),
            (
                StreamRequest::Join(Box::new(join_request())),
                [true, false, false],
                [false, false, false],
            ),
            (StreamRequest::Session, [false, true, true], [false, false, false]),
            (
                StreamRequest::Relay(Box::new(Request::Read(Query::Nodes))),
                [false, false, true],
                [false, false, false],
            ),
            (StreamRequest::Raft, [false, false, true], [false, false, false]),
            (StreamRequest::Managers, [false, true, true], [false, true, true]),
            (StreamRequest::Renew { csr: Vec::new() }, [false, true, true], [false, false, false]),
            (StreamRequest::Logs(Box::default()), [false, false, true], [false, false, true]),
            (StreamRequest::LoadImage { size: 1 }, [false, false, true], [false, false, true]),
            (
                StreamRequest::Container(Box::new(exec())),
                [false, false, true],
                [false, false, true],
            ),
            (
                StreamRequest::Chore(Box::new(Chore::Usage)),
                [false, false, true],
                [false, false, true],
            ),
            (
                StreamRequest::TakeRole { csr: Vec::new(), advertise: String::new(), member: 1 },
                [false, true, true],
                [false, false, false],
            ),
            (
                StreamRequest::SessionOf { node: NodeId::from_bits(2), address: String::new() },
                [false, false, true],
                [false, false, false],
            ),
            (
                via(StreamRequest::Chore(Box::new(Chore::Usage))),
                [false, false, true],
                [false, false, false],
            ),
            (via(StreamRequest::Raft), [false; 3], [false; 3]),
            (via(via(StreamRequest::Logs(Box::default()))), [false; 3], [false; 3]),
        ];
        for (request, to_manager, to_worker) in table {
            let peers = [None, Some(&worker), Some(&manager)];
            assert_eq!(peers.map(|p| may(Role::Manager, p, &request)), to_manager, "{request:?}");
            assert_eq!(peers.map(|p| may(Role::Worker, p, &request)), to_worker, "{request:?}");
        }
    }
}
