//! Real QUIC on loopback.

mod ask;
mod moves;
mod newer;
mod trust;

use super::{authorise::tests::join_request, tls::explain, *};
use crate::{
    cluster::{Admission, Class, Refusal},
    pki::{self, Identity, TokenText, TrustedClock},
    types::{
        ClusterId, Date, FromManager, FromWorker, JoinToken, LeaderAt, NodeId, PeerInput, Role,
        RootCa, Sequence, Trust,
    },
    util::{deadline, dns::Resolver},
    wire::{RaftAnswer, RaftCall, StreamReply, StreamRequest},
};
use async_channel::Receiver;
use futures_lite::FutureExt as _;
use smol::net::UdpSocket;
use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

const NOW: Date = Date::from_unix_seconds(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);
/// Many times what anything here takes, on a machine that is busy.
const BOUND: Duration = Duration::from_secs(30);

fn root_only(root: &[u8]) -> Trust {
    Trust { roots: vec![root.to_vec()], cross_signed: Vec::new() }
}

struct Cluster {
    root: RootCa,
    id: ClusterId,
}

impl Cluster {
    fn new(id: u128) -> Self {
        Self { root: pki::create_root(NOW).unwrap(), id: ClusterId::from_bits(id) }
    }

    fn credentials(&self, node: u128, role: Role) -> Credentials {
        self.credentials_from(node, role, NOW)
    }

    fn credentials_from(&self, node: u128, role: Role, date: Date) -> Credentials {
        let (key, csr) = pki::new_key_and_request(None).unwrap();
        let subject = Identity { node: NodeId::from_bits(node), role, cluster: self.id.clone() };
        let certificate = pki::sign(&self.root, &csr, &subject, date, 90 * DAY).unwrap();
        Credentials { certificate, key, trust: root_only(&self.root.certificate) }
    }

    fn token(&self) -> TokenText {
        TokenText { root_digest: self.root.digest, secret: JoinToken(77) }
    }
}

fn endpoint_at(listen: &str, credentials: Option<&Credentials>, now: Date) -> Endpoint {
    let listen = listen.parse().unwrap();
    let config = Config { listen, clock: TrustedClock::fixed(now), resolver: Resolver::system() };
    let endpoint = Endpoint::bind(config).unwrap();
    endpoint.set_identity(credentials).unwrap();
    endpoint.set_leader(LeaderAt::Here);
    endpoint
}

fn endpoint(credentials: Option<&Credentials>) -> Endpoint {
    endpoint_at("127.0.0.1:0", credentials, NOW)
}

fn manager(cluster: &Cluster) -> Endpoint {
    endpoint(Some(&cluster.credentials(1, Role::Manager)))
}

/// A manager that follows `leader`.
fn follower(cluster: &Cluster, node: u128, leader: &Endpoint) -> Endpoint {
    let follower = endpoint(Some(&cluster.credentials(node, Role::Manager)));
    follower.set_leader(LeaderAt::There(address(leader)[0].clone()));
    follower
}

fn address(endpoint: &Endpoint) -> Vec<String> {
    vec![endpoint.local_address().unwrap().to_string()]
}

/// A worker that looks for `manager`.
fn worker(cluster: &Cluster, node: u128, manager: &Endpoint) -> Endpoint {
    let worker = endpoint(Some(&cluster.credentials(node, Role::Worker)));
    worker.set_managers(Managers::Remote(address(manager)));
    worker
}

#[track_caller]
fn bounded<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    let done = deadline::within(BOUND, future);
    async move { done.await.unwrap_or_else(|| panic!("nothing within {BOUND:?} at {caller}")) }
}

async fn next(endpoint: &Endpoint) -> PeerInput {
    bounded(endpoint.inputs().recv()).await.unwrap()
}

/// Passes inputs over until one that `fits`.
async fn until(endpoint: &Endpoint, fits: impl Fn(&PeerInput) -> bool) -> PeerInput {
    bounded(async {
        loop {
            let input = endpoint.inputs().recv().await.unwrap();
            if fits(&input) {
                return input;
            }
        }
    })
    .await
}

fn beat(number: u64) -> FromWorker {
    FromWorker::Heartbeat { session: number, applied: Sequence::default() }
}

/// Sends a heartbeat until the manager has it: a session that is only beginning drops what comes
/// too early.
async fn heard(worker: &Endpoint, manager: &Endpoint, number: u64) -> (NodeId, String) {
    worker.send_to_manager(beat(number));
    match until(manager, |input| matches!(input, PeerInput::FromWorker { .. })).await {
        PeerInput::FromWorker { node, address, message, .. } => {
            assert_eq!(message, beat(number));
            (node, address)
        }
        other => panic!("{other:?}"),
    }
}

async fn connected(endpoint: &Endpoint) {
    let _input = until(endpoint, |input| matches!(input, PeerInput::Connected)).await;
}

/// What one attempt of a worker says.
async fn attempt(worker: &Endpoint, manager: &Endpoint) -> String {
    let ready = worker.inner.state().ready.clone().unwrap();
    let target = manager.local_address().unwrap();
    match bounded(uplink::attempt(&worker.inner, target, &ready)).await {
        Ok(_) => "connected".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Admits whoever knows the secret 77.
fn admit(cluster: &Cluster) -> Handler {
    let (root, id) = (cluster.root.clone(), cluster.id.clone());
    Arc::new(move |stream: IncomingStream| {
        let (root, id) = (root.clone(), id.clone());
        Box::pin(async move {
            let StreamRequest::Join(join) = stream.request.clone() else { panic!("{stream:?}") };
            assert_eq!((stream.peer.clone(), join.address.as_str()), (None, "127.0.0.1"));
            assert_eq!(join.key_digest, pki::request_key_digest(&join.csr).unwrap());
            if join.secret != JoinToken(77) {
                let refusal = Refusal::new(Class::Unauthorized, "the token was rotated");
                return stream.refuse(refusal).await.unwrap();
            }
            let subject = Identity { node: NodeId::from_bits(9), role: Role::Worker, cluster: id };
            let certificate = pki::sign(&root, &join.csr, &subject, NOW, DAY).unwrap();
            let Identity { node, role, cluster } = subject;
            let admission = Admission { node, role, cluster, certificate };
            stream.answer(&StreamReply::Admitted(Box::new(admission))).await.unwrap();
        })
    })
}

fn request() -> (Vec<u8>, crate::cluster::JoinRequest) {
    let (key, csr) = pki::new_key_and_request(None).unwrap();
    (key, crate::cluster::JoinRequest { csr, ..join_request() })
}

#[test]
fn a_node_joins_and_then_has_a_session() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        manager.set_handler(admit(&cluster));
        let joiner = endpoint(None);
        let (key, request) = request();
        let managers = address(&manager);
        let joined = bounded(joiner.join(&managers, &cluster.token(), request)).await.unwrap();
        assert_eq!(joined.admission.node, NodeId::from_bits(9));
        assert_eq!(joined.root, cluster.root.certificate);
        let certificate = joined.admission.certificate;
        joiner.set_managers(Managers::Remote(managers));
        let credentials = Credentials { certificate, key, trust: root_only(&joined.root) };
        joiner.set_identity(Some(&credentials)).unwrap();
        connected(&joiner).await;
        let (node, address) = heard(&joiner, &manager, 1).await;
        assert_eq!((node.clone(), address.as_str()), (NodeId::from_bits(9), "127.0.0.1"));
        manager.send_to_worker(&node, FromManager::NoSession { session: 1 });
        let answer = next(&joiner).await;
        assert!(
            matches!(answer, PeerInput::FromManager(FromManager::NoSession { session: 1 })),
            "{answer:?}"
        );
        joiner.close().await;
        let gone = until(&manager, |input| matches!(input, PeerInput::WorkerGone { .. })).await;
        assert!(matches!(gone, PeerInput::WorkerGone { node } if node == NodeId::from_bits(9)));
    });
}

#[test]
fn a_join_does_not_wait_for_managers_that_are_off() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        manager.set_handler(admit(&cluster));
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let off = silent.local_addr().unwrap().to_string();
        let named = ["no.such.name.invalid:x".to_owned(), off, address(&manager).remove(0)];
        let begun = std::time::Instant::now();
        let joined = bounded(endpoint(None).join(&named, &cluster.token(), request().1)).await;
        assert_eq!(joined.unwrap().manager, manager.local_address().unwrap());
        assert!(begun.elapsed() < super::CONNECT_LIMIT, "it waited for the one that is off");
        // What answers and turns out to be no manager is not asked again, and the next one is.
        let other = Cluster::new(2);
        let mut credentials = other.credentials(1, Role::Manager);
        credentials.trust = root_only(&cluster.root.certificate);
        let impostor = endpoint(Some(&credentials));
        impostor.set_handler(Arc::new(|stream| panic!("the secret was sent: {stream:?}")));
        let named = [address(&impostor).remove(0), address(&manager).remove(0)];
        let joined = bounded(endpoint(None).join(&named, &cluster.token(), request().1)).await;
        assert_eq!(joined.unwrap().manager, manager.local_address().unwrap());
    });
}

#[test]
fn a_join_that_fails_says_why() {
    smol::block_on(async {
        let (cluster, other) = (Cluster::new(1), Cluster::new(2));
        let manager = manager(&cluster);
        manager.set_handler(Arc::new(|stream| panic!("the secret was sent: {stream:?}")));
        let managers = address(&manager);
        let target = manager.local_address().unwrap();
        let joiner = endpoint(None);
        let error = bounded(joiner.join(&managers, &other.token(), request().1)).await.unwrap_err();
        assert_eq!(error, JoinError::OtherCluster { address: target });
        let late = endpoint_at("127.0.0.1:0", None, NOW - 3 * DAY);
        let error = bounded(late.join(&managers, &cluster.token(), request().1)).await.unwrap_err();
        assert!(
            error.to_string().starts_with("this machine's clock is 3 days behind the manager's"),
            "{error}"
        );
        manager.set_handler(admit(&cluster));
        let rotated = TokenText { secret: JoinToken(78), ..cluster.token() };
        let error = bounded(joiner.join(&managers, &rotated, request().1)).await.unwrap_err();
        assert_eq!(error, JoinError::Refused("the token was rotated".to_owned()));
        let nowhere = ["no.such.name.invalid:x".to_owned()];
        let error = bounded(joiner.join(&nowhere, &rotated, request().1)).await.unwrap_err();
        assert!(matches!(error, JoinError::Unresolved { .. }), "{error}");
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let nobody = [silent.local_addr().unwrap().to_string()];
        let error = bounded(joiner.join(&nobody, &rotated, request().1)).await.unwrap_err();
        assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
        let none = bounded(joiner.join(&[], &rotated, request().1)).await;
        assert_eq!(none, Err(JoinError::NoAddress));
    });
}

#[test]
fn whoever_shows_the_root_without_standing_under_it_gets_no_secret() {
    smol::block_on(async {
        let (cluster, other) = (Cluster::new(1), Cluster::new(2));
        // Its own certificate is of another root; it shows the one that the token names.
        let mut credentials = other.credentials(1, Role::Manager);
        credentials.trust = root_only(&cluster.root.certificate);
        let impostor = endpoint(Some(&credentials));
        impostor.set_handler(Arc::new(|stream| panic!("the secret was sent: {stream:?}")));
        let joiner = endpoint(None);
        let managers = address(&impostor);
        let error =
            bounded(joiner.join(&managers, &cluster.token(), request().1)).await.unwrap_err();
        assert!(matches!(error, JoinError::NoManager { .. }), "{error}");
    });
}

#[test]
fn certificates_that_do_not_fit_are_refused_with_a_reason() {
    smol::block_on(async {
        // The same cluster by name, but not by its root.
        let (cluster, other) = (Cluster::new(1), Cluster::new(1));
        let manager = manager(&cluster);
        let says =
            async |credentials: &Credentials| attempt(&endpoint(Some(credentials)), &manager).await;
        let mut foreign = other.credentials(5, Role::Worker);
        assert_eq!(
            says(&foreign).await,
            "the stream was cut off: the manager's certificate is of another cluster, or of another \
             of its root certificates"
        );
        // Trusts this cluster's managers, but is not one of its nodes.
        foreign.trust = root_only(&cluster.root.certificate);
        assert_eq!(
            says(&foreign).await,
            "the stream was cut off: this node's certificate is of another cluster, or of another of \
             its root certificates"
        );
        let expired = cluster.credentials_from(5, Role::Worker, NOW - 91 * DAY);
        assert_eq!(
            says(&expired).await,
            "the stream was cut off: the manager wants this node's certificate renewed first"
        );
        let early = cluster.credentials_from(5, Role::Worker, NOW + DAY);
        assert_eq!(
            says(&early).await,
            "the stream was cut off: this node's certificate has expired or is not yet valid; \
             check both clocks"
        );
        // Both ends see this one, and either may say it first.
        let same_root = Cluster { root: cluster.root.clone(), id: ClusterId::from_bits(3) };
        let said = says(&same_root.credentials(5, Role::Worker)).await;
        let words = ["the peer is no manager", "the certificate is not of a node"];
        assert!(words.iter().any(|words| said.contains(words)), "{said}");
        let good = cluster.credentials(5, Role::Worker);
        assert_eq!(says(&good).await, "connected");
        manager.disconnect(&NodeId::from_bits(5));
        assert_eq!(
            says(&good).await,
            "the stream was cut off: the node was removed from the cluster"
        );
    });
}

#[test]
fn a_worker_is_no_manager() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let fake = endpoint(Some(&cluster.credentials(1, Role::Worker)));
        // What the endpoint itself would never do.
        let ready = fake.inner.state().ready.clone().unwrap();
        fake.inner.quic.set_server_config(Some(ready.server.clone()));
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        let said = attempt(&worker, &fake).await;
        assert!(said.contains("not valid for name") || said.contains("not accepted"), "{said}");
    });
}

#[test]
fn a_stranger_may_only_join() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let stranger = endpoint(None);
        let target = manager.local_address().unwrap();
        let config = stranger.inner.stranger.clone();
        let connection = uplink::connect(&stranger.inner, target, &config).await.unwrap();
        for request in [StreamRequest::Session, StreamRequest::Renew { csr: vec![1] }] {
            let (mut sender, mut receiver) = endpoint::open(&connection).await.unwrap();
            sender.send(&request).await.unwrap();
            let reply = bounded(receiver.receive::<StreamReply>()).await.unwrap();
            assert!(
                matches!(&reply, Some(StreamReply::Refused(r)) if r.class == Class::Forbidden),
                "{reply:?}"
            );
        }
        // More than a stranger may say is refused before it is read.
        let (mut sender, mut receiver) = endpoint::open(&connection).await.unwrap();
        sender.write_all(&[0, 2, 0, 0]).await.unwrap();
        let reply = bounded(receiver.receive::<StreamReply>()).await.unwrap();
        assert!(
            matches!(&reply, Some(StreamReply::Refused(r)) if r.class == Class::Invalid),
            "{reply:?}"
        );
        // An unusable request to join never reaches the handler.
        let (mut sender, mut receiver) = endpoint::open(&connection).await.unwrap();
        sender.send(&StreamRequest::Join(Box::new(join_request()))).await.unwrap();
        let reply = bounded(receiver.receive::<StreamReply>()).await.unwrap();
        assert!(matches!(reply, Some(StreamReply::Refused(_))), "{reply:?}");
    });
}

/// What a stranger can make a manager hold is little: the streams of a member are for members.
#[test]
fn a_stranger_has_a_few_streams_at_once_and_a_member_many() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let target = manager.local_address().unwrap();
        let (stranger, member) =
            (endpoint(None), endpoint(Some(&cluster.credentials(2, Role::Worker))));
        let config = stranger.inner.stranger.clone();
        let guest = uplink::connect(&stranger.inner, target, &config).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..tls::GUEST_STREAMS_MAX {
            let (mut sender, receiver) = bounded(endpoint::open(&guest)).await.unwrap();
            // The beginning of a frame, whose rest never comes.
            sender.write_all(&[0, 0]).await.unwrap();
            held.push((sender, receiver));
        }
        // A member has many more by the time the stranger might have had one.
        let ready = member.inner.state().ready.clone().unwrap();
        let known = uplink::connect(&member.inner, target, &ready.client).await.unwrap();
        for _ in 0..8 * tls::GUEST_STREAMS_MAX {
            held.push(bounded(endpoint::open(&known)).await.unwrap());
        }
        let one_more = async { Some(endpoint::open(&guest).await.is_ok()) };
        assert_eq!(one_more.or(async { None }).await, None, "a stranger had one more");
        // Those that it ends make room for the next.
        drop(held);
        bounded(endpoint::open(&guest)).await.unwrap();
    });
}

#[test]
fn a_removed_worker_is_told_at_once() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let worker = worker(&cluster, 2, &manager);
        connected(&worker).await;
        let (node, _) = heard(&worker, &manager, 1).await;
        manager.disconnect(&node);
        let told = next(&worker).await;
        assert!(matches!(told, PeerInput::FromManager(FromManager::Removed)), "{told:?}");
        let ended = next(&worker).await;
        assert!(matches!(ended, PeerInput::Disconnected), "{ended:?}");
        let gone = until(&manager, |input| matches!(input, PeerInput::WorkerGone { .. })).await;
        assert!(matches!(gone, PeerInput::WorkerGone { node: gone } if gone == node));
    });
}

#[test]
fn a_second_connection_of_a_node_replaces_the_first() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let first = worker(&cluster, 2, &manager);
        connected(&first).await;
        let _heard = heard(&first, &manager, 1).await;
        let second = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        let ready = second.inner.state().ready.clone().unwrap();
        let target = manager.local_address().unwrap();
        let (_connection, mut sender, mut receiver) =
            uplink::attempt(&second.inner, target, &ready).await.unwrap();
        first.set_managers(Managers::None);
        let ended = until(&first, |input| matches!(input, PeerInput::Disconnected)).await;
        assert!(matches!(ended, PeerInput::Disconnected));
        sender.send(&beat(2)).await.unwrap();
        // The one before is gone without a word to the loop: the node itself is not.
        let input = next(&manager).await;
        assert!(matches!(&input, PeerInput::FromWorker { message, .. } if *message == beat(2)));
        manager.send_to_worker(&NodeId::from_bits(2), FromManager::Removed);
        let answer = bounded(receiver.receive::<FromManager>()).await.unwrap();
        assert_eq!(answer, Some(FromManager::Removed));
    });
}

#[test]
fn a_worker_comes_back_after_its_manager_was_restarted() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let credentials = cluster.credentials(1, Role::Manager);
        let manager = endpoint(Some(&credentials));
        let worker = worker(&cluster, 2, &manager);
        connected(&worker).await;
        let _heard = heard(&worker, &manager, 1).await;
        let listen = manager.local_address().unwrap().to_string();
        bounded(manager.close()).await;
        drop(manager);
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        // The socket is free once the last task of the old endpoint has ended.
        let again = bounded(async {
            loop {
                let config = Config {
                    listen: listen.parse().unwrap(),
                    clock: TrustedClock::fixed(NOW),
                    resolver: Resolver::system(),
                };
                match Endpoint::bind(config) {
                    Ok(endpoint) => return endpoint,
                    Err(BindError::Socket { .. }) => smol::future::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        again.set_identity(Some(&credentials)).unwrap();
        again.set_leader(LeaderAt::Here);
        connected(&worker).await;
        let _heard = heard(&worker, &again, 2).await;
    });
}

#[test]
fn renewed_credentials_drop_no_session() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let worker = worker(&cluster, 2, &manager);
        connected(&worker).await;
        let _heard = heard(&worker, &manager, 1).await;
        manager.set_identity(Some(&cluster.credentials(1, Role::Manager))).unwrap();
        worker.set_identity(Some(&cluster.credentials(2, Role::Worker))).unwrap();
        let mut managers = address(&manager);
        managers.push("192.0.2.1:2377".to_owned());
        worker.set_managers(Managers::Remote(managers));
        let _heard = heard(&worker, &manager, 2).await;
        assert!(worker.inputs().is_empty(), "no reconnection");
        worker.reconnect();
        let ended = next(&worker).await;
        assert!(matches!(ended, PeerInput::Disconnected), "{ended:?}");
        connected(&worker).await;
        worker.set_identity(None).unwrap();
        let ended = next(&worker).await;
        assert!(matches!(ended, PeerInput::Disconnected), "{ended:?}");
    });
}

#[test]
fn a_manager_talks_to_itself_without_a_packet() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let own = NodeId::from_bits(1);
        let (address, others) = ("10.0.0.1".to_owned(), Vec::new());
        manager.set_managers(Managers::Local { address, others });
        connected(&manager).await;
        let (node, address) = heard(&manager, &manager, 1).await;
        assert_eq!((node, address.as_str()), (own.clone(), "10.0.0.1"));
        manager.send_to_worker(&own, FromManager::Removed);
        assert!(matches!(next(&manager).await, PeerInput::FromManager(FromManager::Removed)));
        manager.set_handler(echo());
        let request = StreamRequest::LoadImage { size: 3 };
        let (mut sender, mut receiver) = manager.open_stream(&own, request, BOUND).await.unwrap();
        sender.write_all(b"abc").await.unwrap();
        sender.finish().await.unwrap();
        assert_eq!(receiver.read().await.unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(receiver.read().await.unwrap(), None);
        manager.reconnect();
        assert!(matches!(next(&manager).await, PeerInput::Disconnected));
        assert!(matches!(next(&manager).await, PeerInput::Connected));
        // A loop that is behind loses messages and is never waited for.
        for number in 0..3_000 {
            manager.send_to_manager(beat(number));
        }
        assert!(manager.inputs().len() < 3_000);
    });
}

/// Sends back what comes.
fn echo() -> Handler {
    Arc::new(|stream: IncomingStream| {
        Box::pin(async move {
            let (mut sender, mut receiver) = stream.accept().await.unwrap();
            while let Some(bytes) = receiver.read().await.unwrap() {
                sender.write_all(&bytes).await.unwrap();
            }
            sender.finish().await.unwrap();
        })
    })
}

/// Waits for the gate, then counts what comes and says how it ended.
fn count(gate: Receiver<()>, outcome: async_channel::Sender<Result<usize, String>>) -> Handler {
    Arc::new(move |stream: IncomingStream| {
        let (gate, outcome) = (gate.clone(), outcome.clone());
        Box::pin(async move {
            let (_sender, mut receiver) = stream.accept().await.unwrap();
            gate.recv().await.unwrap();
            let mut total = 0;
            let result = loop {
                match receiver.read().await {
                    Ok(Some(bytes)) => total += bytes.len(),
                    Ok(None) => break Ok(total),
                    Err(error) => break Err(error.to_string()),
                }
            };
            outcome.send(result).await.unwrap();
        })
    })
}

#[test]
fn a_large_stream_waits_for_its_reader() {
    const LEN: usize = 24 * 1024 * 1024;
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let worker = worker(&cluster, 2, &manager);
        let (open, gate) = async_channel::bounded(2);
        let (result, outcome) = async_channel::bounded(2);
        worker.set_handler(count(gate, result));
        connected(&worker).await;
        let (node, _) = heard(&worker, &manager, 1).await;
        let request = StreamRequest::LoadImage { size: LEN as u64 };
        let (mut sender, _receiver) =
            manager.open_stream(&node, request.clone(), BOUND).await.unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let writer = smol::spawn(async move {
            let piece = vec![7; 64 * 1024];
            for _ in 0..LEN / piece.len() {
                sender.write_all(&piece).await.unwrap();
                counted.fetch_add(piece.len(), Ordering::Relaxed);
            }
            sender.finish().await.unwrap();
        });
        // Meanwhile the session lives. What goes out before anybody reads comes to an end.
        let (mut stuck, mut rounds) = (0, 0);
        for number in 2..2_000 {
            let _heard = heard(&worker, &manager, number).await;
            let before = std::mem::replace(&mut stuck, sent.load(Ordering::Relaxed));
            rounds = if stuck > 0 && stuck == before { rounds + 1 } else { 0 };
            if rounds == 50 {
                break;
            }
        }
        assert!(stuck > 0 && stuck < LEN / 2, "{stuck} bytes went out to a reader that waits");
        open.send(()).await.unwrap();
        bounded(writer).await;
        assert_eq!(bounded(outcome.recv()).await.unwrap(), Ok(LEN));
        // A sender that goes away early is no end.
        let (mut sender, _receiver) = manager.open_stream(&node, request, BOUND).await.unwrap();
        sender.write_all(b"part").await.unwrap();
        drop(sender);
        open.send(()).await.unwrap();
        let cut = bounded(outcome.recv()).await.unwrap();
        assert!(cut.as_ref().is_err_and(|e| e.contains("cut off")), "{cut:?}");
        let unknown = manager.open_stream(&NodeId::from_bits(8), StreamRequest::Raft, BOUND).await;
        assert_eq!(unknown.err(), Some(StreamError::NotConnected));
    });
}

#[test]
fn a_worker_asks_its_manager_and_is_refused_what_is_not_its_own() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        manager.set_handler(Arc::new(|stream: IncomingStream| {
            Box::pin(async move {
                assert_eq!(stream.peer.as_ref().unwrap().node, NodeId::from_bits(2));
                assert!(matches!(stream.request, StreamRequest::Renew { .. }));
                stream.answer(&StreamReply::Certificate(vec![2])).await.unwrap();
            })
        }));
        let credentials = cluster.credentials(2, Role::Worker);
        let worker = endpoint(Some(&credentials));
        worker.set_managers(Managers::Remote(address(&manager)));
        connected(&worker).await;
        let (_, csr) = pki::new_key_and_request(Some(&credentials.key)).unwrap();
        let renew = StreamRequest::Renew { csr };
        let answer = worker.ask_manager(renew, BOUND).await;
        assert_eq!(answer, Ok(StreamReply::Certificate(vec![2])));
        let refused = worker.ask_manager(StreamRequest::LoadImage { size: 1 }, BOUND).await;
        assert!(
            matches!(&refused, Err(StreamError::Refused(r)) if r.class == Class::Forbidden),
            "{refused:?}"
        );
        let alone = endpoint(Some(&cluster.credentials(3, Role::Worker)));
        let nobody = alone.ask_manager(StreamRequest::Raft, BOUND).await;
        assert_eq!(nobody, Err(StreamError::NotConnected));
    });
}

/// Carries packets between one client and `server`, like a box that translates addresses.
struct Nat {
    address: SocketAddr,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    server: SocketAddr,
    inside: Arc<UdpSocket>,
    client: Arc<Mutex<Option<SocketAddr>>>,
    cut: Arc<AtomicBool>,
}

impl Nat {
    async fn new(server: SocketAddr) -> Self {
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let nat = Self {
            address: inside.local_addr().unwrap(),
            outside: Arc::new(Mutex::new(outside.clone())),
            server,
            inside: inside.clone(),
            client: Arc::default(),
            cut: Arc::default(),
        };
        nat.carry_back(outside);
        let (out, client, cut) = (nat.outside.clone(), nat.client.clone(), nat.cut.clone());
        smol::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((len, from)) = inside.recv_from(&mut buffer).await {
                *client.lock().unwrap() = Some(from);
                let out = out.lock().unwrap().clone();
                if !cut.load(Ordering::Relaxed) {
                    let _sent = out.send_to(&buffer[..len], server).await;
                }
            }
        })
        .detach();
        nat
    }

    fn carry_back(&self, outside: Arc<UdpSocket>) {
        let (inside, client, cut) = (self.inside.clone(), self.client.clone(), self.cut.clone());
        let current = self.outside.clone();
        smol::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((len, _)) = outside.recv_from(&mut buffer).await {
                let to = *client.lock().unwrap();
                // A box that gave the connection another port knows the old one no more.
                let known = Arc::ptr_eq(&outside, &current.lock().unwrap());
                if let Some(to) = to
                    && known
                    && !cut.load(Ordering::Relaxed)
                {
                    let _sent = inside.send_to(&buffer[..len], to).await;
                }
            }
        })
        .detach();
    }

    /// From now on the server sees another port.
    async fn rebind(&self) {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        assert_ne!(outside.local_addr().unwrap(), self.server);
        *self.outside.lock().unwrap() = outside.clone();
        self.carry_back(outside);
    }
}

#[test]
fn a_session_survives_another_port_but_not_silence() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let nat = Nat::new(manager.local_address().unwrap()).await;
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        worker.set_managers(Managers::Remote(vec![nat.address.to_string()]));
        connected(&worker).await;
        let (node, _) = heard(&worker, &manager, 1).await;
        nat.rebind().await;
        let _heard = heard(&worker, &manager, 2).await;
        manager.send_to_worker(&node, FromManager::NoSession { session: 2 });
        let answer = next(&worker).await;
        assert!(
            matches!(answer, PeerInput::FromManager(FromManager::NoSession { .. })),
            "{answer:?}"
        );
        nat.cut.store(true, Ordering::Relaxed);
        let since = std::time::Instant::now();
        let ended = next(&worker).await;
        assert!(matches!(ended, PeerInput::Disconnected), "{ended:?}");
        let gone = next(&manager).await;
        assert!(matches!(gone, PeerInput::WorkerGone { .. }), "{gone:?}");
        let took = since.elapsed();
        assert!(took < tls::IDLE_TIMEOUT * 2, "silence was noticed only after {took:?}");
        nat.cut.store(false, Ordering::Relaxed);
        connected(&worker).await;
    });
}

#[test]
fn a_minute_of_heartbeats_takes_about_five_kilobytes() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let worker = worker(&cluster, 2, &manager);
        connected(&worker).await;
        let sent = || match &worker.inner.state().uplink {
            endpoint::Uplink::Up { connection, .. } => connection.stats().udp_tx.bytes,
            _ => panic!("no session"),
        };
        let (node, _) = heard(&worker, &manager, 0).await;
        let before = sent();
        for session in 1..=40 {
            let _heard = heard(&worker, &manager, session).await;
            let heartbeat = Duration::from_millis(1_500);
            manager.send_to_worker(&node, FromManager::Beat { session, heartbeat });
            let _beat = next(&worker).await;
        }
        let bytes = sent() - before;
        println!("{bytes} bytes");
        // Discovery of the path's packet size, once a connection, is a few KB of it.
        assert!(bytes < 16_000, "{bytes} bytes");
    });
}

#[test]
fn unusable_credentials_are_refused_and_the_ones_before_stay() {
    let cluster = Cluster::new(1);
    let manager = manager(&cluster);
    let mut damaged = cluster.credentials(1, Role::Manager);
    damaged.key = vec![1, 2, 3];
    assert!(matches!(manager.set_identity(Some(&damaged)), Err(TlsError::Rejected(_))));
    damaged.certificate = cluster.root.certificate.clone();
    assert!(matches!(manager.set_identity(Some(&damaged)), Err(TlsError::Identity(_))));
    assert!(manager.inner.state().ready.is_some());
    assert_eq!(explain(&quinn::ConnectionError::TimedOut), "the peer fell silent");
}

/// Has what one end says echoed by a node.
async fn echoed(from: &Endpoint, node: &NodeId) {
    let request = StreamRequest::LoadImage { size: 3 };
    let (mut sender, mut receiver) = from.open_stream(node, request, BOUND).await.unwrap();
    sender.write_all(b"abc").await.unwrap();
    sender.finish().await.unwrap();
    assert_eq!(receiver.read().await.unwrap().as_deref(), Some(&b"abc"[..]));
    assert_eq!(receiver.read().await.unwrap(), None);
}

#[test]
fn a_worker_reaches_the_leader_through_any_manager_and_any_manager_the_worker() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let leader = manager(&cluster);
        let (other, third) = (follower(&cluster, 3, &leader), follower(&cluster, 4, &leader));
        let worker = worker(&cluster, 2, &other);
        worker.set_handler(echo());
        connected(&worker).await;
        let (node, seen_at) = heard(&worker, &leader, 1).await;
        assert_eq!((&node, seen_at.as_str()), (&NodeId::from_bits(2), "127.0.0.1"));
        leader.send_to_worker(&node, FromManager::Removed);
        assert!(matches!(next(&worker).await, PeerInput::FromManager(FromManager::Removed)));
        for manager in [&leader, &other, &third] {
            echoed(manager, &node).await;
        }
        // Another leads: the session begins again, on the same connection.
        other.set_leader(LeaderAt::Nowhere);
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        other.set_leader(LeaderAt::Here);
        leader.set_leader(LeaderAt::There(address(&other)[0].clone()));
        connected(&worker).await;
        let _heard = heard(&worker, &other, 2).await;
        echoed(&leader, &node).await;
        assert_eq!(
            other.inner.state().connections.len(),
            2,
            "the worker's and one of the leader's"
        );
    });
}

#[test]
fn a_member_is_called_by_its_key_and_a_request_reaches_the_leader() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let leader = manager(&cluster);
        leader.set_handler(Arc::new(|stream: IncomingStream| {
            Box::pin(async move {
                if let StreamRequest::Relay(_) = stream.request {
                    let reply = StreamReply::Response(Box::new(crate::cluster::Response::Done));
                    return stream.answer(&reply).await.unwrap();
                }
                let (mut sender, mut receiver) = stream.accept().await.unwrap();
                let call: RaftCall = receiver.receive().await.unwrap().unwrap();
                let fits = if call.target == 7 { Ok(call.bytes) } else { Err("no".to_owned()) };
                sender.send(&RaftAnswer(fits)).await.unwrap();
                sender.finish().await.unwrap();
            })
        }));
        let other = endpoint(Some(&cluster.credentials(3, Role::Manager)));
        let to = address(&leader)[0].clone();
        let call = |target| bounded(other.call_member(target, &to, vec![1, 2]));
        assert_eq!(call(7).await, Ok(vec![1, 2]));
        assert_eq!(call(8).await, Err(StreamError::Broken("no".to_owned())));
        let read = || {
            let request = crate::cluster::Request::Read(crate::cluster::Query::Nodes);
            bounded(other.relay(request, BOUND))
        };
        other.set_leader(LeaderAt::Nowhere);
        assert_eq!(read().await, Err(StreamError::NotConnected));
        other.set_leader(LeaderAt::There(to.clone()));
        assert_eq!(read().await, Ok(crate::cluster::Response::Done));
        // A worker's certificate opens neither.
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        // It is told so, also where it would have gone on sending for longer than anybody reads.
        for len in [1, 4 << 20] {
            let refused = bounded(worker.call_member(7, &to, vec![1; len])).await.unwrap_err();
            assert!(refused.to_string().contains("only managers may ask for that"), "{refused}");
        }
    });
}
