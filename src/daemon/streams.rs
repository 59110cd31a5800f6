//! What other nodes ask over streams: to join, for logs, to take an image, to do
//! something with a container.

use super::{
    containers::{chores, container, images, logs},
    membership::Membership,
    shared::Shared,
};
use crate::{
    cluster::{Class, JoinRequest, Refusal, RenewRequest, Request, Response, RoleRequest},
    consensus::{Consensus, OnSmol},
    node::Handle,
    pki::{self, Identity, Standing},
    transport::{Handler, IncomingStream, StreamError},
    types::Role,
    wire::{RaftAnswer, RaftCall, StreamReply, StreamRequest},
};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// How long a join may take on the manager: two commits on the slowest card.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// How long the leader may take to answer another manager, which keeps to its own limit besides.
const RELAY_LIMIT: Duration = Duration::from_secs(30);

/// Returns what answers other nodes' streams.
pub(super) fn handler(
    shared: &Arc<Shared>,
    handle: &Handle,
    membership: &Membership,
    consensus: Option<Consensus<OnSmol>>,
) -> Handler {
    // Weak: the endpoint holds the handler, and is held by what it would hold.
    let shared = Arc::downgrade(shared);
    let (handle, role) = (handle.clone(), membership.role);
    let consensus = consensus.map(|consensus| (membership.key(), consensus));
    Arc::new(move |stream| {
        let (shared, handle) = (Weak::clone(&shared), handle.clone());
        if matches!(stream.request, StreamRequest::Raft) {
            let consensus = consensus.clone();
            return Box::pin(async move {
                if let Err(error) = raft(consensus, stream).await {
                    tracing::debug!(%error, "a call of another manager broke off");
                }
            });
        }
        Box::pin(async move {
            let Some(shared) = shared.upgrade() else { return };
            answer(&shared, &handle, role, stream).await;
        })
    })
}

async fn answer(shared: &Arc<Shared>, handle: &Handle, role: Role, stream: IncomingStream) {
    let peer = stream.peer.as_ref().map(|peer| peer.node.to_string());
    let result = match stream.request.clone() {
        StreamRequest::Join(request) => {
            let reply = join(handle, role, request).await;
            stream.answer(&reply).await
        }
        StreamRequest::Logs(request) => match stream.accept().await {
            Ok((sender, _)) => logs::serve(shared, &request, sender).await,
            Err(error) => Err(error),
        },
        StreamRequest::LoadImage { .. } => match stream.accept().await {
            Ok((sender, receiver)) => images::serve_load(shared, sender, receiver).await,
            Err(error) => Err(error),
        },
        StreamRequest::Container(request) => match stream.accept().await {
            Ok((sender, receiver)) => container::serve(shared, *request, sender, receiver).await,
            Err(error) => Err(error),
        },
        StreamRequest::Chore(chore) => match stream.accept().await {
            Ok((sender, _)) => chores::serve(shared, *chore, sender).await,
            Err(error) => Err(error),
        },
        StreamRequest::Renew { csr } => {
            let reply = renew(handle, stream.peer.as_ref(), stream.standing, csr).await;
            stream.answer(&reply).await
        }
        StreamRequest::Certified { root } => {
            let reply = certified(handle, stream.peer.as_ref(), root).await;
            stream.answer(&reply).await
        }
        StreamRequest::TakeRole { csr, advertise, member } => {
            let reply = take_role(handle, stream.peer.as_ref(), (csr, advertise, member)).await;
            stream.answer(&reply).await
        }
        StreamRequest::Relay(request) => {
            let reply = match handle.relayed(*request, RELAY_LIMIT).await {
                Ok(response) => StreamReply::Response(Box::new(response)),
                Err(refusal) => StreamReply::Refused(refusal),
            };
            stream.answer(&reply).await
        }
        // The transport's own affair.
        StreamRequest::Raft
        | StreamRequest::Root
        | StreamRequest::Trust
        | StreamRequest::Managers
        | StreamRequest::Session
        | StreamRequest::SessionOf { .. }
        | StreamRequest::Via { .. } => {
            let text = "this node does not answer that";
            stream.refuse(Refusal::new(Class::Unsupported, text)).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?peer, %error, "a stream of another node broke off");
    }
}

/// Answers one call of another member of the consensus group.
async fn raft(
    consensus: Option<(u64, Consensus<OnSmol>)>,
    stream: IncomingStream,
) -> Result<(), StreamError> {
    let Some((own, consensus)) = consensus else {
        let text = "this node is no manager";
        return stream.refuse(Refusal::new(Class::Unavailable, text)).await;
    };
    let answer = async |RaftCall { target, bytes }| {
        RaftAnswer(if target == own {
            consensus.handle(&bytes).await.map_err(|error| error.to_string())
        } else {
            Err(format!("this is member {own}, not {target}"))
        })
    };
    stream.serve_call(answer).await
}

/// Gives a member a certificate of the role that it should have.
async fn take_role(
    handle: &Handle,
    peer: Option<&Identity>,
    (csr, advertise, member): (Vec<u8>, String, u64),
) -> StreamReply {
    let Some(peer) = peer else {
        let text = "only a member takes another role";
        return StreamReply::Refused(Refusal::new(Class::Forbidden, text));
    };
    let key_digest = match pki::request_key_digest(&csr) {
        Ok(digest) => digest,
        Err(error) => {
            return StreamReply::Refused(Refusal::new(Class::Invalid, error.to_string()));
        }
    };
    let (node, certified) = (peer.node.clone(), peer.role);
    let asked = RoleRequest { node, certified, csr, key_digest, advertise, member };
    match handle.request(Request::TakeRole(Box::new(asked)), JOIN_LIMIT).await {
        Ok(Response::Admitted(admission)) => StreamReply::Admitted(admission),
        Ok(_) => StreamReply::Refused(Refusal::new(Class::Internal, "the leader answered oddly")),
        Err(refusal) => StreamReply::Refused(refusal),
    }
}

/// Lets a node join. What its connection proves, the transport wrote into the request.
async fn join(handle: &Handle, role: Role, request: Box<JoinRequest>) -> StreamReply {
    if role != Role::Manager {
        let text = "this node is no manager";
        return StreamReply::Refused(Refusal::new(Class::Unavailable, text));
    }
    match handle.request(Request::Join(request), JOIN_LIMIT).await {
        Ok(Response::Admitted(admission)) => StreamReply::Admitted(admission),
        Ok(_) => StreamReply::Refused(Refusal::new(Class::Internal, "the leader answered oddly")),
        Err(refusal) => StreamReply::Refused(refusal),
    }
}

/// Takes in that a member goes by a root.
async fn certified(handle: &Handle, peer: Option<&Identity>, root: [u8; 32]) -> StreamReply {
    let Some(peer) = peer else {
        let text = "only a member says that of itself";
        return StreamReply::Refused(Refusal::new(Class::Forbidden, text));
    };
    let node = peer.node.clone();
    match handle.request(Request::Certified { node, root }, JOIN_LIMIT).await {
        Ok(_) => StreamReply::Ready,
        Err(refusal) => StreamReply::Refused(refusal),
    }
}

/// Gives a member its next certificate. Who it is, its present certificate says.
async fn renew(
    handle: &Handle,
    peer: Option<&Identity>,
    standing: Standing,
    csr: Vec<u8>,
) -> StreamReply {
    let Some(peer) = peer else {
        let text = "only a member's certificate is renewed";
        return StreamReply::Refused(Refusal::new(Class::Forbidden, text));
    };
    let key_digest = match pki::request_key_digest(&csr) {
        Ok(digest) => digest,
        Err(error) => {
            return StreamReply::Refused(Refusal::new(Class::Invalid, error.to_string()));
        }
    };
    let (node, expired) = (peer.node.clone(), standing.expired);
    let asked = RenewRequest { node, csr, key_digest, expired };
    match handle.renew(asked, standing == Standing::default(), JOIN_LIMIT).await {
        Ok(admission) => StreamReply::Certificate(admission.certificate),
        Err(refusal) => StreamReply::Refused(refusal),
    }
}
