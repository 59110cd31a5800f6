//! Workers whose managers have become workers.

use super::*;

/// A manager of before, told that managers are at `managers`.
fn demoted(cluster: &Cluster, node: u128, managers: Vec<String>) -> Endpoint {
    let own = cluster.credentials(node, Role::Worker);
    let endpoint = endpoint(Some(&own));
    endpoint.set_was_manager();
    endpoint.set_identity(Some(&own)).unwrap();
    endpoint.set_managers(Managers::Remote(managers));
    endpoint
}

/// Waits until a worker has heard of managers, or has forgotten what it heard.
async fn has_heard(worker: &Endpoint, anything: bool) {
    bounded(async {
        while worker.inner.state().hearsay.is_empty() == anything {
            smol::Timer::after(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[test]
fn a_worker_finds_managers_through_those_that_were_managers() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        // One that knew the next one alone, and that one knows who manages now.
        let second = demoted(&cluster, 4, address(&manager));
        let first = demoted(&cluster, 3, address(&second));
        let worker = worker(&cluster, 2, &first);
        connected(&worker).await;
        let (node, _) = heard(&worker, &manager, 1).await;
        assert_eq!(node, NodeId::from_bits(2));
        assert_eq!(worker.inner.state().managers, Managers::Remote(address(&first)));
        // What was hearsay is forgotten with the session: the manager says better.
        manager.close().await;
        let _ended = until(&worker, |input| matches!(input, PeerInput::Disconnected)).await;
        has_heard(&worker, false).await;
    });
}

#[test]
fn hearsay_makes_nobody_a_manager_and_hides_none() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let foreign = endpoint(Some(&Cluster::new(1).credentials(1, Role::Manager)));
        let other = demoted(&cluster, 5, Vec::new());
        let lies = [
            address(&foreign),
            address(&other),
            vec![silent.local_addr().unwrap().to_string(), "no address".to_owned()],
        ];
        let liar = demoted(&cluster, 4, lies.concat());
        let honest = demoted(&cluster, 3, Vec::new());
        let known = [address(&liar), address(&honest)].concat();
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        worker.set_managers(Managers::Remote(known.clone()));
        has_heard(&worker, true).await;
        let manager = manager(&cluster);
        honest.set_managers(Managers::Remote(address(&manager)));
        let met = until(&worker, |_| true).await;
        assert!(matches!(met, PeerInput::Connected), "nobody else was believed: {met:?}");
        let _heard = heard(&worker, &manager, 1).await;
        assert_eq!(worker.inner.state().managers, Managers::Remote(known));
    });
}

#[test]
fn a_removed_node_that_knows_managers_of_before_is_told() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let manager = manager(&cluster);
        manager.disconnect(&NodeId::from_bits(2));
        let worker = worker(&cluster, 2, &demoted(&cluster, 3, address(&manager)));
        let told = next(&worker).await;
        assert!(matches!(told, PeerInput::FromManager(FromManager::Removed)), "{told:?}");
    });
}

#[test]
fn a_worker_that_never_was_a_manager_takes_no_connections() {
    smol::block_on(async {
        let cluster = Cluster::new(1);
        let other = endpoint(Some(&cluster.credentials(3, Role::Worker)));
        let worker = endpoint(Some(&cluster.credentials(2, Role::Worker)));
        let ready = worker.inner.state().ready.clone().unwrap();
        let target = other.local_address().unwrap();
        let refused = bounded(uplink::connect(&worker.inner, target, &ready.asking)).await;
        assert!(refused.is_err());
    });
}
