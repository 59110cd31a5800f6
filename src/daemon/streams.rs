//! What other nodes ask over streams: to join, for logs, to take an image, to do
//! something with a container.

use super::{Shared, chores, container, images, logs, membership::Membership};
use crate::{
    cluster::{Class, JoinRequest, Refusal, RenewRequest, Request, Response},
    node::Handle,
    pki::{self, Identity},
    transport::{Handler, IncomingStream},
    types::Role,
    wire::{StreamReply, StreamRequest},
};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// How long a join may take on the manager: two commits on the slowest card.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// Returns what answers other nodes' streams.
pub(super) fn handler(shared: &Arc<Shared>, handle: &Handle, membership: &Membership) -> Handler {
    // Weak: the endpoint holds the handler, and is held by what it would hold.
    let shared = Arc::downgrade(shared);
    let (handle, role) = (handle.clone(), membership.role);
    Arc::new(move |stream| {
        let (shared, handle) = (Weak::clone(&shared), handle.clone());
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
            let reply = renew(handle, stream.peer.as_ref(), csr).await;
            stream.answer(&reply).await
        }
        StreamRequest::Relay(_)
        | StreamRequest::Raft
        | StreamRequest::Root
        | StreamRequest::Session => {
            let text = "this node does not answer that";
            stream.refuse(Refusal::new(Class::Unsupported, text)).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?peer, %error, "a stream of another node broke off");
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

/// Gives a member its next certificate. Who it is, its present certificate says.
async fn renew(handle: &Handle, peer: Option<&Identity>, csr: Vec<u8>) -> StreamReply {
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
    let renew = RenewRequest { node: peer.node.clone(), csr, key_digest };
    match handle.request(Request::Renew(Box::new(renew)), JOIN_LIMIT).await {
        Ok(Response::Admitted(admission)) => StreamReply::Certificate(admission.certificate),
        Ok(_) => StreamReply::Refused(Refusal::new(Class::Internal, "the leader answered oddly")),
        Err(refusal) => StreamReply::Refused(refusal),
    }
}
