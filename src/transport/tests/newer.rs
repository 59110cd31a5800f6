//! What a node of a newer version may say.

use super::*;
use crate::{
    transport::stream::local_pair,
    wire::{HEADER_LEN, Message, VERSION},
};

/// A frame of a variant that this version does not know.
fn unknown<M: Message>() -> Vec<u8> {
    let payload = [VERSION, u8::try_from(M::VARIANTS).unwrap(), 7, 7];
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    assert_eq!(len.len(), HEADER_LEN);
    [&len[..], &payload].concat()
}

/// A manager, a worker that is not connected yet, and what that one connects by.
fn apart() -> (Endpoint, Endpoint, Arc<tls::Ready>, SocketAddr) {
    let cluster = Cluster::new(1);
    let manager = manager(&cluster);
    let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
    let ready = worker.inner.state().ready.clone().unwrap();
    let target = manager.local_address().unwrap();
    (manager, worker, ready, target)
}

#[test]
fn a_session_goes_on_where_the_peer_says_what_is_not_known() {
    smol::block_on(async {
        let (manager, worker, ready, target) = apart();
        let opened = bounded(uplink::attempt(&worker.inner, target, &ready)).await;
        let (_connection, mut sender, _receiver) = opened.unwrap();
        sender.write_all(&unknown::<FromWorker>()).await.unwrap();
        sender.send(&beat(3)).await.unwrap();
        let PeerInput::FromWorker { message, .. } = next(&manager).await else { panic!() };
        assert_eq!(message, beat(3));
        // The other way.
        let [(mut sender, _), (_, mut receiver)] = local_pair();
        sender.write_all(&unknown::<FromManager>()).await.unwrap();
        sender.send(&FromManager::NoSession { session: 1 }).await.unwrap();
        let heard = receiver.receive_known::<FromManager>().await;
        assert_eq!(heard, Ok(Some(FromManager::NoSession { session: 1 })));
    });
}

#[test]
fn a_request_that_is_not_known_is_refused_and_the_next_one_is_not() {
    smol::block_on(async {
        let (_manager, worker, ready, target) = apart();
        let connection = bounded(uplink::connect(&worker.inner, target, &ready.client)).await;
        let connection = connection.unwrap();
        let mut of_next_version = unknown::<StreamRequest>();
        of_next_version[HEADER_LEN] = VERSION + 1;
        for (frame, says) in [
            (unknown::<StreamRequest>(), "that this version of midge does not know"),
            (of_next_version, "the message is of version 2, but only version 1 is known"),
        ] {
            let (mut sender, mut receiver) = endpoint::open(&connection).await.unwrap();
            sender.write_all(&frame).await.unwrap();
            let reply = bounded(receiver.receive::<StreamReply>()).await.unwrap();
            let Some(StreamReply::Refused(refusal)) = reply else { panic!("{reply:?}") };
            assert_eq!(refusal.class, Class::Unsupported);
            assert!(refusal.message.contains(says), "{refusal}");
        }
        let (mut sender, mut receiver) = endpoint::open(&connection).await.unwrap();
        sender.send(&StreamRequest::Trust).await.unwrap();
        let reply = bounded(receiver.receive::<StreamReply>()).await.unwrap();
        assert!(matches!(reply, Some(StreamReply::Trust(_))), "{reply:?}");
    });
}

#[test]
fn peers_without_a_version_in_common_say_so() {
    smol::block_on(async {
        let manager = manager(&Cluster::new(1));
        let newer = endpoint(None);
        let config = tls::stranger_of(b"midge/2", &newer.inner.clock).unwrap();
        let target = manager.local_address().unwrap();
        let error = bounded(uplink::connect(&newer.inner, target, &config)).await.unwrap_err();
        assert!(error.to_string().contains("different versions of midge's protocol"), "{error}");
    });
}
