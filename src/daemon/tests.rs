//! What older midges left on disk is read by this one.

use super::{
    life::start::open_store,
    membership::{Membership, lock::SealLock},
};
use crate::{
    cluster::{State, decode_entry},
    consensus::{Consensus, LogStore, NoPeers, Notice, OnSmol, Settings, SnapshotInterval},
    pki::CertificateFiles,
    store::AgentStore,
    types::{ClusterSpec, Role, Version},
};
use std::{path::Path, sync::Arc, time::Duration};

/// The data directory of a manager that an older midge left: with a service that runs, a job that
/// is done, a service that was removed, and a label on the node.
const FORMAT_1: &[u8] = include_bytes!("../../tests/data/format-1/manager.tar.gz");

fn unpack(archive: &[u8], to: &Path) {
    tar::Archive::new(flate2::read::GzDecoder::new(archive)).unpack(to).unwrap();
}

/// Follows the log until this member leads, and returns the state it has come to.
pub(super) fn state_of(store: Arc<dyn LogStore>, id: u64) -> State {
    let channel = Consensus::<OnSmol>::channel();
    let notices = channel.1.clone();
    let settings = Settings {
        id,
        heartbeat: Duration::from_millis(200),
        election: Duration::from_millis(500),
        snapshot_interval: SnapshotInterval::new(10_000),
    };
    let follow = smol::spawn(async move {
        let mut state = State::default();
        while let Ok(notice) = notices.recv().await {
            match notice {
                Notice::Apply { entries, done } => {
                    for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
                        let at = Version { epoch: state.epoch(), index: entry.index };
                        for command in decode_entry(&entry.data).unwrap() {
                            state.apply(at, entry.term, &command).ok();
                        }
                    }
                    done.send(()).await.unwrap();
                }
                Notice::Snapshot { reply } => reply.send(state.encode_snapshot()).await.unwrap(),
                Notice::Install { data, done, .. } => {
                    state = State::decode_snapshot(&data).unwrap();
                    done.send(()).await.unwrap();
                }
                Notice::Leadership(leadership) if leadership.leading => break,
                Notice::Leadership(_) => {}
                Notice::Fatal { error } => panic!("{error}"),
            }
        }
        state
    });
    smol::block_on(async move {
        let engine =
            Consensus::<OnSmol>::start(&settings, store, Arc::new(NoPeers), channel).await.unwrap();
        let state = follow.await;
        engine.shutdown().await;
        state
    })
}

#[test]
fn the_data_directory_of_the_first_format_is_read() {
    let dir = tempfile::tempdir().unwrap();
    unpack(FORMAT_1, dir.path());
    let membership = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!(membership.role, Role::Manager);
    assert!(CertificateFiles::under(dir.path()).load().unwrap().is_some());
    let (_, tasks) = AgentStore::open(&dir.path().join("agent.redb")).unwrap().load().unwrap();
    assert!(!tasks.is_empty(), "what the agent must bring back");

    let seal = SealLock::new(dir.path()).open().unwrap().unwrap();
    let store = open_store(dir.path(), &seal).unwrap();
    assert!(store.snapshot().unwrap().is_some(), "it holds a snapshot and entries after it");
    let state = state_of(store, 1);
    let cluster = state.cluster().unwrap();
    assert_eq!(cluster.id, membership.cluster);
    let spec = ClusterSpec { snapshot_interval: 12, ..ClusterSpec::default() };
    assert_eq!((&cluster.spec, cluster.unlock_key), (&spec, None));
    let node = state.node(&membership.node).unwrap();
    assert_eq!((node.role, node.description.hostname.as_str()), (Role::Manager, "n1"));
    assert_eq!(node.spec.labels.get("disk").map(String::as_str), Some("ssd"));
    let names: Vec<&str> = state.services().map(|service| service.spec.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let web = state.service_by_name("web").unwrap();
    assert_eq!(web.spec.labels.get("n").map(String::as_str), Some("3"));
    assert_eq!(state.tasks_of_service(&web.id).count(), 2);
    assert_eq!(state.epoch(), 1);
}
