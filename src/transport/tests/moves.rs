//! Nodes whose addresses change.

use super::*;
use crate::types::Roster;
use std::net::UdpSocket as BlockingSocket;

/// Gives an endpoint another address, as its machine gets one.
fn move_to(endpoint: &Endpoint, ip: &str) -> SocketAddr {
    let socket = BlockingSocket::bind((ip, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    endpoint.inner.quic.rebind(socket).unwrap();
    at
}

/// Beats until the manager sees the worker at `address`.
async fn seen_at(worker: &Endpoint, manager: &Endpoint, address: &str) {
    for number in 1..=200 {
        worker.send_to_manager(beat(number));
        let beat = async { manager.inputs().recv().await.ok() };
        // A session that only begins drops what comes too early.
        let late = async {
            let _at = smol::Timer::after(Duration::from_millis(100)).await;
            None
        };
        if let Some(PeerInput::FromWorker { address: seen, .. }) = beat.or(late).await
            && seen == address
        {
            return;
        }
    }
    panic!("never seen at {address}");
}

#[test]
fn a_worker_that_moves_is_seen_where_it_is_on_the_session_that_it_has() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        let worker = worker(&cluster, 2, &manager);
        connected(&worker).await;
        bounded(seen_at(&worker, &manager, "127.0.0.1")).await;
        let before = manager.inner.state().workers[&NodeId::from_bits(2)].session;
        move_to(&worker, "127.0.0.2");
        bounded(seen_at(&worker, &manager, "127.0.0.2")).await;
        assert_eq!(manager.inner.state().workers[&NodeId::from_bits(2)].session, before);
    });
}

#[test]
fn the_leader_learns_where_a_worker_moved_that_another_manager_is_connected_to() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let leader = manager(&cluster);
        let other = follower(&cluster, 3, &leader);
        let worker = worker(&cluster, 2, &other);
        connected(&worker).await;
        bounded(seen_at(&worker, &leader, "127.0.0.1")).await;
        move_to(&worker, "127.0.0.2");
        bounded(seen_at(&worker, &leader, "127.0.0.2")).await;
    });
}

/// Answers calls of the consensus group.
fn member() -> Handler {
    Arc::new(|stream: IncomingStream| {
        Box::pin(async move {
            let answer = async |call: RaftCall| RaftAnswer(Ok(call.bytes));
            stream.serve_call(answer).await.unwrap();
        })
    })
}

fn roster(addresses: &[(u128, &str)]) -> Roster {
    let addresses =
        addresses.iter().map(|(node, at)| (NodeId::from_bits(*node), (*at).to_owned())).collect();
    Roster { addresses, ..Roster::default() }
}

#[test]
fn a_manager_that_moved_is_called_where_it_calls_from() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let stays = manager(&cluster);
        let moved = endpoint(Some(&cluster.credentials(3, Role::Manager)));
        // What is there now takes everything in and never answers.
        let silent = BlockingSocket::bind("127.0.0.1:0").unwrap();
        let before = silent.local_addr().unwrap().to_string();
        stays.set_roster(roster(&[(3, &before)]));
        for endpoint in [&stays, &moved] {
            endpoint.set_handler(member());
        }
        let call = |from: &Endpoint, to: String| {
            let from = from.clone();
            bounded(async move { from.call_member(1, &to, vec![1]).await })
        };
        assert!(call(&stays, before.clone()).await.is_err(), "nobody knows where it is");
        assert_eq!(call(&moved, address(&stays)[0].clone()).await, Ok(vec![1]));
        // What failed just now is not tried again at once.
        bounded(async { while call(&stays, before.clone()).await.is_err() {} }).await;
    });
}

#[test]
fn managers_that_got_each_others_addresses_find_each_other() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let caller = manager(&cluster);
        let [one, two] =
            [3, 4].map(|node| endpoint(Some(&cluster.credentials(node, Role::Manager))));
        let [at_one, at_two] = [&one, &two].map(|endpoint| address(endpoint)[0].clone());
        caller.set_roster(roster(&[(3, &at_two), (4, &at_one)]));
        let asked = Arc::new(Mutex::new(Vec::new()));
        for (number, endpoint) in [(3, &one), (4, &two)] {
            let asked = Arc::clone(&asked);
            endpoint.set_handler(Arc::new(move |stream: IncomingStream| {
                asked.lock().unwrap().push(number);
                member()(stream)
            }));
        }
        // Whoever is called first is not there; the next call tells where it is.
        bounded(async {
            let mut left = vec![&at_two, &at_one];
            while let Some(to) = left.pop() {
                if caller.call_member(1, to, vec![1]).await.is_err() {
                    left.insert(0, to);
                }
            }
        })
        .await;
        asked.lock().unwrap().sort_unstable();
        assert_eq!(*asked.lock().unwrap(), [3, 4]);
    });
}
