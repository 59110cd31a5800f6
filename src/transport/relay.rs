//! What a manager passes on between two other nodes, byte for byte: a worker's session to the
//! leader, and a manager's stream to a node.

use super::{
    HEADER_LIMIT,
    endpoint::{Inner, Route, open},
    peers,
    serve::IncomingStream,
    stream::{ByteReceiver, ByteSender, StreamError, within},
};
use crate::{
    cluster::{Class, Refusal},
    pki::{Identity, Standing},
    types::NodeId,
    wire::{StreamReply, StreamRequest},
};
use futures_lite::FutureExt as _;
use std::sync::Arc;

/// Opens the worker's session with the leader at `leader`.
pub(super) async fn session(
    inner: &Arc<Inner>,
    leader: &str,
    node: NodeId,
    address: String,
) -> Result<(ByteSender, ByteReceiver), StreamError> {
    within(HEADER_LIMIT, async {
        let connection = peers::connection(inner, leader).await?;
        let (mut sender, mut receiver) = open(&connection).await?;
        sender.send(&StreamRequest::SessionOf { node, address }).await?;
        match receiver.receive::<StreamReply>().await? {
            Some(StreamReply::Ready) => Ok((sender, receiver)),
            Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
            _ => Err(StreamError::Unexpected),
        }
    })
    .await
}

/// Passes a manager's stream on to a node that has a session here, or is this one.
pub(super) async fn via(
    inner: &Arc<Inner>,
    peer: Option<Identity>,
    node: NodeId,
    request: StreamRequest,
    (sender, receiver): (ByteSender, ByteReceiver),
) -> Result<(), StreamError> {
    let stream = IncomingStream { peer, standing: Standing::default(), request, sender, receiver };
    let (connection, request) = match inner.route_to(&node) {
        None => {
            let text = format!("node {node} is not connected");
            return stream.refuse(Refusal::new(Class::Unavailable, text)).await;
        }
        Some((Route::Own(_), _)) => {
            let Some(handler) = inner.state().handler.clone() else {
                let text = "the node is only starting; try again";
                return stream.refuse(Refusal::new(Class::Unavailable, text)).await;
            };
            handler(stream).await;
            return Ok(());
        }
        Some((Route::Peer(connection), false)) => (connection, stream.request),
        Some((Route::Peer(connection), true)) => {
            let request = Box::new(stream.request);
            (connection, StreamRequest::Via { node, request })
        }
    };
    let (mut to, from) = open(&connection).await?;
    to.send(&request).await?;
    pipe((stream.sender, stream.receiver), (to, from)).await
}

/// Passes on what either end sends, until both have ended or broken off. A command that ends reads no
/// more of its input, and what it printed is passed on all the same.
async fn pipe(
    (to_one, mut from_one): (ByteSender, ByteReceiver),
    (to_other, mut from_other): (ByteSender, ByteReceiver),
) -> Result<(), StreamError> {
    let forth = copy(&mut from_one, to_other);
    let back = copy(&mut from_other, to_one);
    let (forth, back) = futures_lite::future::zip(forth, back).await;
    back.and(forth)
}

/// Passes on what either end sends, until one has ended, or the first one sends something when
/// `stays` says no more.
pub(super) async fn while_so(
    (to_one, mut from_one): (ByteSender, ByteReceiver),
    (to_other, mut from_other): (ByteSender, ByteReceiver),
    stays: impl Fn() -> bool,
) -> Result<(), StreamError> {
    copy_while(&mut from_one, to_other, stays).or(copy(&mut from_other, to_one)).await
}

async fn copy(from: &mut ByteReceiver, to: ByteSender) -> Result<(), StreamError> {
    copy_while(from, to, || true).await
}

async fn copy_while(
    from: &mut ByteReceiver,
    mut to: ByteSender,
    stays: impl Fn() -> bool,
) -> Result<(), StreamError> {
    while let Some(bytes) = from.read().await?.filter(|_| stays()) {
        to.write_all(&bytes).await?;
    }
    to.finish().await
}

#[cfg(test)]
mod tests {
    use super::{super::stream::local_pair, *};

    #[test]
    fn what_was_printed_arrives_though_the_input_is_no_longer_read() {
        let [(mut caller, mut output), near] = local_pair();
        let [far, (mut command, input)] = local_pair();
        let relayed = async {
            let ended = pipe(near, far).await;
            assert!(ended.is_err(), "the input went nowhere");
        };
        let talk = async {
            drop(input);
            caller.write_all(b"more input").await.unwrap();
            // The relay finds out before anything is printed.
            for _ in 0..10 {
                futures_lite::future::yield_now().await;
            }
            command.write_all(b"printed").await.unwrap();
            command.finish().await.unwrap();
            drop(caller);
            let mut got = Vec::new();
            while let Some(bytes) = output.read().await.unwrap() {
                got.extend_from_slice(&bytes);
            }
            assert_eq!(got, b"printed");
        };
        smol::block_on(futures_lite::future::zip(relayed, talk));
    }
}
