//! Every peer request, asked with every kind of certificate; and getting the next one.

use super::*;
use crate::{
    cluster::{Query, Request},
    transport::tls::Ready,
    types::{Chore, Roster},
    wire::ContainerOp,
};

/// A manager that grants whatever reaches its handler.
fn granting(credentials: &Credentials) -> Endpoint {
    let endpoint = endpoint(Some(credentials));
    endpoint.set_handler(Arc::new(|stream: IncomingStream| {
        Box::pin(async move {
            let _gone = stream.answer(&StreamReply::Ready).await;
        })
    }));
    endpoint
}

/// Every request there is. A new variant does not compile here before it has a number.
fn requests(csr: &[u8]) -> Vec<StreamRequest> {
    let (csr, node) = (csr.to_vec(), NodeId::from_bits(2));
    let container = crate::wire::ContainerRequest {
        task: crate::types::TaskId::from_bits(1),
        op: ContainerOp::Processes { options: String::new() },
    };
    let (_, join) = request();
    let all = vec![
        StreamRequest::Root,
        StreamRequest::Join(Box::new(join)),
        StreamRequest::Session,
        StreamRequest::Relay(Box::new(Request::Read(Query::Nodes))),
        StreamRequest::Raft,
        StreamRequest::Renew { csr: csr.clone() },
        StreamRequest::Logs(Box::default()),
        StreamRequest::LoadImage { size: 1 },
        StreamRequest::Container(Box::new(container)),
        StreamRequest::Chore(Box::new(Chore::Usage)),
        StreamRequest::SessionOf { node: node.clone(), address: "10.0.0.2".to_owned() },
        StreamRequest::Via { node, request: Box::new(StreamRequest::Logs(Box::default())) },
        StreamRequest::TakeRole { csr, advertise: String::new(), member: 1 },
        StreamRequest::Trust,
        StreamRequest::Certified { root: [0; 32] },
        StreamRequest::Managers,
    ];
    let numbers: Vec<_> = all.iter().map(|request| name(request).0).collect();
    assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    all
}

fn name(request: &StreamRequest) -> (usize, &'static str) {
    match request {
        StreamRequest::Root => (0, "root"),
        StreamRequest::Join(_) => (1, "join"),
        StreamRequest::Session => (2, "session"),
        StreamRequest::Relay(_) => (3, "relay"),
        StreamRequest::Raft => (4, "raft"),
        StreamRequest::Renew { .. } => (5, "renew"),
        StreamRequest::Logs(_) => (6, "logs"),
        StreamRequest::LoadImage { .. } => (7, "load"),
        StreamRequest::Container(_) => (8, "container"),
        StreamRequest::Chore(_) => (9, "chore"),
        StreamRequest::SessionOf { .. } => (10, "session of"),
        StreamRequest::Via { .. } => (11, "via"),
        StreamRequest::TakeRole { .. } => (12, "take role"),
        StreamRequest::Trust => (13, "trust"),
        StreamRequest::Certified { .. } => (14, "certified"),
        StreamRequest::Managers => (15, "managers"),
    }
}

/// Tells whether a request is granted.
async fn granted(from: &Endpoint, to: &Endpoint, request: &StreamRequest) -> bool {
    let ready = from.inner.state().ready.clone();
    let stranger = from.inner.stranger.clone();
    let own = to.inner.state().ready.clone().unwrap();
    let config = ready.map_or(stranger, |ready| match own.identity.role {
        Role::Manager => ready.client.clone(),
        Role::Worker => ready.asking.clone(),
    });
    let target = to.local_address().unwrap();
    let reply = bounded(async {
        let connection = uplink::connect(&from.inner, target, &config).await?;
        let (mut sender, mut receiver) = endpoint::open(&connection).await?;
        sender.send(request).await?;
        let reply = receiver.receive::<StreamReply>().await;
        connection.close(0u32.into(), b"");
        reply
    });
    match reply.await {
        Ok(Some(StreamReply::Refused(refusal))) => refusal.class != Class::Forbidden,
        Ok(Some(StreamReply::RenewFirst) | None) | Err(_) => false,
        Ok(Some(_)) => true,
    }
}

/// Lists what is granted to whoever has these credentials.
async fn allowed(credentials: Option<&Credentials>, to: &Endpoint) -> Vec<&'static str> {
    let from = endpoint(credentials);
    let csr = match credentials {
        Some(own) => pki::new_key_and_request(Some(&own.key)).unwrap().1,
        None => pki::new_key_and_request(None).unwrap().1,
    };
    let mut allowed = Vec::new();
    for request in requests(&csr) {
        if granted(&from, to, &request).await {
            allowed.push(name(&request).1);
        }
    }
    allowed
}

const OF_WORKERS: [&str; 7] =
    ["root", "session", "renew", "take role", "trust", "certified", "managers"];
const OF_RENEWAL: [&str; 4] = ["root", "renew", "trust", "managers"];
const OF_ELECTION: [&str; 5] = ["root", "raft", "renew", "trust", "managers"];
const OF_MANAGERS: [&str; 15] = [
    "root",
    "session",
    "relay",
    "raft",
    "renew",
    "logs",
    "load",
    "container",
    "chore",
    "session of",
    "via",
    "take role",
    "trust",
    "certified",
    "managers",
];

/// A manager of a cluster whose root was rotated once: nodes of before trust the old root, and are
/// shown why they may trust the new one.
struct Rotated {
    old: Cluster,
    new: Cluster,
    manager: Endpoint,
}

impl Rotated {
    fn new(roster: Roster) -> Self {
        let (old, new) = (Cluster::new(1), Cluster::new(1));
        let cross_signed = vec![pki::cross_sign(&old.root, &new.root, NOW).unwrap()];
        let mut own = new.credentials(1, Role::Manager);
        own.trust.cross_signed = cross_signed;
        let manager = granting(&own);
        let former_roots = vec![(old.root.certificate.clone(), NOW)];
        manager.set_roster(Roster { former_roots, ..roster });
        Self { old, new, manager }
    }
}

#[test]
fn each_kind_of_certificate_opens_what_it_should_and_nothing_else() {
    smol::block_on(async {
        let id = NodeId::from_bits;
        let roster = Roster {
            managers: [id(1), id(3), id(6)].into(),
            demoted: [(id(4), NOW)].into(),
            grace: 10 * DAY,
            ..Roster::default()
        };
        let Rotated { old, new, manager } = Rotated::new(roster);
        let (worker, leads) = (Role::Worker, Role::Manager);
        assert_eq!(allowed(None, &manager).await, ["root", "join"]);
        let is = async |credentials: &Credentials| allowed(Some(credentials), &manager).await;
        assert_eq!(is(&new.credentials(2, worker)).await, OF_WORKERS);
        assert_eq!(is(&new.credentials(3, leads)).await, OF_MANAGERS);
        assert_eq!(is(&new.credentials(9, leads)).await, OF_MANAGERS, "unknown: this state is old");
        assert_eq!(is(&new.credentials(4, leads)).await, OF_WORKERS, "demoted");
        let again = new.credentials_from(4, leads, NOW + Duration::from_secs(60));
        assert_eq!(is(&again).await, OF_MANAGERS, "manager once more, and this state is old");
        let ended = |ago: u32, node, role| new.credentials_from(node, role, NOW - (90 + ago) * DAY);
        assert_eq!(is(&ended(1, 2, worker)).await, OF_RENEWAL);
        assert_eq!(is(&ended(100, 2, worker)).await, OF_RENEWAL, "how late, the leader says");
        assert_eq!(is(&ended(1, 6, leads)).await, OF_ELECTION);
        assert_eq!(is(&ended(11, 6, leads)).await, OF_RENEWAL, "beyond the grace");
        assert_eq!(is(&ended(1, 9, leads)).await, OF_RENEWAL, "no manager that is known");
        assert_eq!(is(&ended(1, 4, leads)).await, OF_RENEWAL, "demoted");
        for role in [worker, leads] {
            assert_eq!(is(&old.credentials(3, role)).await, OF_RENEWAL, "of the root of before");
            // Trusts the cluster, but is signed by a root of the same name.
            let mut foreign = Cluster::new(1).credentials(3, role);
            foreign.trust = root_only(&new.root.certificate);
            assert!(is(&foreign).await.is_empty());
            let elsewhere = Cluster { root: new.root.clone(), id: ClusterId::from_bits(3) };
            assert!(is(&elsewhere.credentials(3, role)).await.is_empty());
        }
        let mut own = new.credentials(3, leads);
        (own.certificate, own.key) = (new.root.certificate.clone(), new.root.key.clone());
        let unusable = Ready::new(&own, &TrustedClock::fixed(NOW), &manager.inner.judge);
        assert!(matches!(unusable, Err(TlsError::Identity(_))), "the root itself is no node");
        manager.disconnect(&id(3));
        assert!(is(&new.credentials(3, leads)).await.is_empty(), "removed");
        assert!(is(&old.credentials(3, leads)).await.is_empty(), "removed");
    });
}

#[test]
fn a_manager_of_before_says_where_managers_are_and_serves_nobody_else() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let (worker, leads) = (Role::Worker, Role::Manager);
        let own = cluster.credentials(1, worker);
        let asked = granting(&own);
        asked.set_was_manager();
        asked.set_identity(Some(&own)).unwrap();
        let is = async |credentials: &Credentials| allowed(Some(credentials), &asked).await;
        assert!(allowed(None, &asked).await.is_empty(), "a stranger");
        assert_eq!(is(&cluster.credentials(2, worker)).await, ["managers"]);
        // It cannot tell a manager from one whose certificate outlived its being one.
        assert_eq!(is(&cluster.credentials(3, leads)).await, ["managers"]);
        // Where managers are, it needs to know to get its next one.
        assert_eq!(is(&cluster.credentials_from(2, worker, NOW - 91 * DAY)).await, ["managers"]);
        let mut foreign = Cluster::new(1).credentials(2, worker);
        foreign.trust = root_only(&cluster.root.certificate);
        assert!(is(&foreign).await.is_empty(), "of another root");
        let elsewhere = Cluster { root: cluster.root.clone(), id: ClusterId::from_bits(3) };
        assert!(is(&elsewhere.credentials(2, worker)).await.is_empty(), "of another cluster");
    });
}

#[test]
fn a_certificate_that_a_node_signed_itself_opens_nothing() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = granting(&cluster.credentials(1, Role::Manager));
        // The node's own key is its authority, under the name of the real one.
        let mut selfmade = cluster.credentials(5, Role::Manager);
        let own = RootCa { key: selfmade.key.clone(), ..cluster.root.clone() };
        let (_, csr) = pki::new_key_and_request(Some(&selfmade.key)).unwrap();
        let subject = Identity {
            node: NodeId::from_bits(1),
            role: Role::Manager,
            cluster: cluster.id.clone(),
        };
        selfmade.certificate = pki::sign(&own, &csr, &subject, NOW, 90 * DAY).unwrap();
        assert!(allowed(Some(&selfmade), &manager).await.is_empty());
    });
}

#[test]
fn nobody_gets_a_certificate_or_a_session_in_anothers_name() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = endpoint(Some(&cluster.credentials(1, Role::Manager)));
        let (seen, asked) = async_channel::unbounded();
        manager.set_handler(Arc::new(move |stream: IncomingStream| {
            seen.try_send((stream.peer.clone(), stream.standing.expired)).unwrap();
            Box::pin(async move {
                let _gone = stream.answer(&StreamReply::Ready).await;
            })
        }));
        let thief = cluster.credentials(5, Role::Worker);
        let from = endpoint(Some(&thief));
        // The request of another node, as it may have been seen somewhere: of another key.
        let (_, csr) = pki::new_key_and_request(None).unwrap();
        for request in requests(&csr) {
            let of_a_key =
                matches!(request, StreamRequest::Renew { .. } | StreamRequest::TakeRole { .. });
            if of_a_key {
                assert!(!granted(&from, &manager, &request).await, "{request:?}");
            }
        }
        assert!(asked.is_empty());
        let (_, csr) = pki::new_key_and_request(Some(&thief.key)).unwrap();
        assert!(granted(&from, &manager, &StreamRequest::Renew { csr: csr.clone() }).await);
        let (peer, expired) = bounded(asked.recv()).await.unwrap();
        assert_eq!((peer.unwrap().node, expired), (NodeId::from_bits(5), None));
        let late = cluster.credentials_from(5, Role::Worker, NOW - 91 * DAY);
        let (_, csr) = pki::new_key_and_request(Some(&late.key)).unwrap();
        let from = endpoint(Some(&late));
        assert!(granted(&from, &manager, &StreamRequest::Renew { csr }).await);
        let (peer, expired) = bounded(asked.recv()).await.unwrap();
        assert_eq!((peer.unwrap().node, expired), (NodeId::from_bits(5), Some(NOW - DAY)));
    });
}

#[test]
fn managers_that_all_ran_out_reach_each_other_and_workers_wait() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let expired = |node, role| cluster.credentials_from(node, role, NOW - 100 * DAY);
        let roster = || Roster {
            managers: [NodeId::from_bits(1), NodeId::from_bits(3)].into(),
            grace: 30 * DAY,
            ..Roster::default()
        };
        let one = granting(&expired(1, Role::Manager));
        let other = endpoint(Some(&expired(3, Role::Manager)));
        let raft = StreamRequest::Raft;
        assert!(!granted(&other, &one, &raft).await, "neither knows the other");
        other.set_roster(roster());
        assert!(!granted(&other, &one, &raft).await, "one end does not");
        one.set_roster(roster());
        assert!(granted(&other, &one, &raft).await);
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        assert!(!granted(&worker, &one, &StreamRequest::Root).await, "it is no manager to trust");
    });
}

#[test]
fn a_node_that_ran_out_gets_its_next_certificate_and_then_a_session() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = endpoint(Some(&cluster.credentials(1, Role::Manager)));
        let (root, id) = (cluster.root.clone(), cluster.id.clone());
        manager.set_handler(Arc::new(move |stream: IncomingStream| {
            let (root, id) = (root.clone(), id.clone());
            Box::pin(async move {
                assert_eq!(stream.standing.expired, Some(NOW - 10 * DAY));
                let StreamRequest::Renew { csr } = stream.request.clone() else { panic!() };
                let node = stream.peer.clone().unwrap().node;
                let subject = Identity { node, role: Role::Worker, cluster: id };
                let certificate = pki::sign(&root, &csr, &subject, NOW, 90 * DAY).unwrap();
                stream.answer(&StreamReply::Certificate(certificate)).await.unwrap();
            })
        }));
        let mut credentials = cluster.credentials_from(2, Role::Worker, NOW - 100 * DAY);
        let worker = endpoint(Some(&credentials));
        worker.set_managers(Managers::Remote(address(&manager)));
        bounded(worker.outdated().recv()).await.unwrap();
        let (_, csr) = pki::new_key_and_request(Some(&credentials.key)).unwrap();
        let renewed = bounded(worker.renew(csr, BOUND)).await.unwrap();
        assert_eq!(renewed.trust, Some(root_only(&cluster.root.certificate)));
        credentials.certificate = renewed.certificate;
        worker.set_identity(Some(&credentials)).unwrap();
        connected(&worker).await;
        let (node, _) = heard(&worker, &manager, 1).await;
        assert_eq!(node, NodeId::from_bits(2));
    });
}

#[test]
fn a_node_that_the_state_does_not_know_is_to_renew_its_certificate_first() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = granting(&cluster.credentials(1, Role::Manager));
        let members = Some([NodeId::from_bits(1)].into());
        manager.set_roster(Roster { members, ..Roster::default() });
        let worker = worker(&cluster, 2, &manager);
        bounded(worker.outdated().recv()).await.unwrap();
        assert!(!granted(&worker, &manager, &StreamRequest::Session).await);
        // Who is a manager may know more than this state: it may bring it up to date, and no more.
        let other = endpoint(Some(&cluster.credentials(3, Role::Manager)));
        assert!(granted(&other, &manager, &StreamRequest::Raft).await);
        let relay = StreamRequest::Relay(Box::new(Request::Read(Query::Nodes)));
        assert!(!granted(&other, &manager, &relay).await);
    });
}

#[test]
fn a_removed_node_and_a_demoted_manager_lose_what_is_passed_on() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let leader = manager(&cluster);
        let other = follower(&cluster, 3, &leader);
        let worker = worker(&cluster, 2, &other);
        connected(&worker).await;
        let (node, _) = heard(&worker, &leader, 1).await;
        let demoted = [(NodeId::from_bits(3), NOW)].into();
        leader.set_roster(Roster { demoted, ..Roster::default() });
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        leader.set_roster(Roster::default());
        connected(&worker).await;
        let _heard = heard(&worker, &leader, 2).await;
        // The leader knows first that the worker is removed.
        leader.disconnect(&node);
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        other.disconnect(&node);
        let removed =
            |input: &PeerInput| matches!(input, PeerInput::FromManager(FromManager::Removed));
        let _told = until(&worker, removed).await;
    });
}

#[test]
fn connections_end_with_the_root_that_they_were_made_by() {
    smol::block_on(async {
        let (old, new) = (Cluster::new(1), Cluster::new(1));
        let cross_signed = vec![pki::cross_sign(&old.root, &new.root, NOW).unwrap()];
        let both = Trust {
            roots: vec![old.root.certificate.clone(), new.root.certificate.clone()],
            cross_signed: cross_signed.clone(),
        };
        let last = Trust { roots: vec![new.root.certificate.clone()], cross_signed };
        let with = |mut credentials: Credentials, trust: &Trust| {
            credentials.trust = trust.clone();
            credentials
        };
        let manager = endpoint(Some(&old.credentials(1, Role::Manager)));
        let worker = worker(&old, 2, &manager);
        connected(&worker).await;
        let _heard = heard(&worker, &manager, 1).await;
        // A rotation begins: each side has the new certificate at its own time.
        let own = new.credentials(1, Role::Manager);
        manager.set_identity(Some(&with(own.clone(), &both))).unwrap();
        let _heard = heard(&worker, &manager, 2).await;
        worker.reconnect();
        connected(&worker).await;
        let _heard = heard(&worker, &manager, 3).await;
        let mine = new.credentials(2, Role::Worker);
        worker.set_identity(Some(&with(mine.clone(), &both))).unwrap();
        let _heard = heard(&worker, &manager, 4).await;
        assert!(worker.inputs().is_empty(), "no session ended meanwhile");
        // It ends: what was made by the old root is made anew.
        manager.set_identity(Some(&with(own, &last))).unwrap();
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        worker.set_identity(Some(&with(mine, &last))).unwrap();
        connected(&worker).await;
        let _heard = heard(&worker, &manager, 5).await;
    });
}
