//! What is acknowledged is there after a crash, and nothing half-written is ever read.

use super::{AgentStore, ManagerStore, OpenError, Sealer, faulty::FaultyDisk};
use crate::{agent::Record, consensus::LogStore, types::Sequence};
use proptest::prelude::*;

fn sealer() -> Sealer {
    Sealer::new(1, &[3; 32], || [9; 12])
}

fn entry(index: u64) -> (u64, Vec<u8>) {
    (index, format!("entry number {index}").into_bytes())
}

/// A seeded stream good enough to choose faults with.
fn stream(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn acknowledged_entries_survive_power_cuts(
        seed: u64,
        batches in prop::collection::vec(1..4_u64, 1..6),
        torn in any::<bool>(),
    ) {
        let disk = FaultyDisk::default();
        let mut random = stream(seed);
        let mut next = 1;
        for batch in batches {
            let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
            store.append((next..next + batch).map(entry).collect()).unwrap();
            store.save_vote(next.to_le_bytes().to_vec()).unwrap();
            next += batch;
            if torn {
                // Never acknowledged: may be there or not, but never in part.
                disk.break_writes(true);
                prop_assert!(store.append(vec![entry(next), entry(next + 1)]).is_err());
                prop_assert!(store.failure().is_some());
            }
            drop(store);
            disk.crash(&mut random);
        }
        let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
        let read = store.read(1, next).unwrap();
        let expected: Vec<Vec<u8>> = (1..next).map(|index| entry(index).1).collect();
        prop_assert_eq!(read, expected);
        let beyond = store.read(next, u64::MAX).unwrap().len();
        prop_assert!(beyond == 0 || beyond == 2);
    }
}

#[test]
fn the_log_is_cut_at_both_ends() {
    let disk = FaultyDisk::default();
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    assert_eq!(store.log_state().unwrap(), Default::default());
    store.append((1..=10).map(entry).collect()).unwrap();
    store.truncate(9).unwrap();
    store.purge(3, b"mark".to_vec()).unwrap();
    let extent = store.log_state().unwrap();
    assert_eq!(extent.last, Some(entry(8).1));
    assert_eq!(extent.purged, Some(b"mark".to_vec()));
    assert_eq!(store.read(0, u64::MAX).unwrap().len(), 5);
}

#[test]
fn snapshots_replace_each_other() {
    let disk = FaultyDisk::default();
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    assert_eq!(store.snapshot().unwrap(), None);
    store.save_snapshot(b"one".to_vec(), b"state one".to_vec()).unwrap();
    store.save_snapshot(b"two".to_vec(), b"state two".to_vec()).unwrap();
    drop(store);
    disk.crash(stream(1));
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    assert_eq!(store.snapshot().unwrap(), Some((b"two".to_vec(), b"state two".to_vec())));
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    let disk = FaultyDisk::default();
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    store.append(vec![entry(1)]).unwrap();
    disk.limit_room(Some(0));
    let large = vec![7; 8 << 20];
    assert!(store.append(vec![(2, large)]).is_err());
    disk.limit_room(None);
    drop(store);
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    store.append(vec![entry(2)]).unwrap();
    assert_eq!(store.read(1, 3).unwrap().len(), 2);
}

#[test]
fn nothing_readable_is_on_the_disk_and_another_key_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manager.redb");
    let store = ManagerStore::open(&path, sealer()).unwrap();
    store.append(vec![(1, b"a very secret thing".to_vec())]).unwrap();
    store.save_snapshot(b"meta".to_vec(), b"a very secret thing".to_vec()).unwrap();
    let second = ManagerStore::open(&path, sealer());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"very secret"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let other = Sealer::new(1, &[4; 32], || [9; 12]);
    assert!(ManagerStore::open(&path, other).unwrap().read(1, 2).is_err());
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        write.open_table(meta).unwrap().insert("format", 2).unwrap();
        write.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let error = AgentStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("newer midge (format 2)"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "the file was touched");
}

#[test]
fn the_agent_reads_what_it_wrote() {
    let disk = FaultyDisk::default();
    let store = AgentStore::open_on(disk.backend()).unwrap();
    assert_eq!(store.load().unwrap(), (Sequence::default(), Vec::new()));
    let sequence = Sequence { epoch: 1, term: 2, number: 3 };
    store.commit(&[Record::Sequence(sequence)]).unwrap();
    drop(store);
    disk.crash(stream(2));
    let store = AgentStore::open_on(disk.backend()).unwrap();
    assert_eq!(store.load().unwrap().0, sequence);
}
