//! What is acknowledged is there after a crash, and nothing half-written is ever read.

use super::{
    AgentStore, ManagerStore, OpenError, Sealer,
    faulty::FaultyDisk,
    file::{StoreFile, disk, migrate, read_format},
};
use crate::{
    agent::{Record, StoredTask},
    consensus::{LogStore, SNAPSHOT_MAX},
    types::{Sequence, TaskId, TaskState},
    util::sample::Sampler,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::mpsc;

fn sealer() -> Sealer {
    Sealer::new(1, &[3; 32], || [9; 12])
}

fn entry(index: u64) -> (u64, Bytes) {
    (index, format!("entry number {index}").into())
}

fn entries(indices: impl Iterator<Item = u64>) -> Vec<(u64, Bytes)> {
    indices.map(entry).collect()
}

/// A seeded stream good enough to choose faults with.
fn stream(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

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
            store.append(&entries(next..next + batch)).unwrap();
            store.save_vote(next.to_le_bytes().to_vec()).unwrap();
            next += batch;
            if torn {
                // Never acknowledged: may be there or not, but never in part.
                disk.break_writes(true);
                prop_assert!(store.append(&[entry(next), entry(next + 1)]).is_err());
                prop_assert!(store.failure().is_some());
            }
            drop(store);
            disk.crash(&mut random);
        }
        let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
        let read = store.read(1, next).unwrap();
        let expected: Vec<Bytes> = (1..next).map(|index| entry(index).1).collect();
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
    store.append(&entries(1..=10)).unwrap();
    store.truncate(9).unwrap();
    store.purge(3, b"mark".to_vec()).unwrap();
    let extent = store.log_state().unwrap();
    assert_eq!(extent.last, Some(entry(8).1.to_vec()));
    assert_eq!(extent.purged, Some(b"mark".to_vec()));
    assert_eq!(store.read(0, u64::MAX).unwrap().len(), 5);
}

#[test]
fn a_snapshot_that_could_not_be_read_back_is_not_written() {
    let disk = FaultyDisk::default();
    let store = ManagerStore::open_on(disk.backend(), sealer()).unwrap();
    store.save_snapshot(b"one".to_vec(), b"state one".to_vec()).unwrap();
    let refused = store.save_snapshot(b"two".to_vec(), vec![0; SNAPSHOT_MAX + 1]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(store.snapshot().unwrap(), Some((b"one".to_vec(), b"state one".to_vec())));
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

/// Opens the log on a disk that may fail and come back.
fn open(disk: &FaultyDisk) -> ManagerStore {
    ManagerStore::open_on(disk.backend(), sealer()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_disk_that_breaks_anywhere_in_a_commit_loses_nothing(
        seed: u64,
        steps in prop::collection::vec(0..14_u64, 1..8),
        cut in any::<bool>(),
    ) {
        let disk = FaultyDisk::default();
        let mut random = stream(seed);
        let mut store = open(&disk);
        let mut acknowledged = 0;
        for step in steps {
            disk.break_after(step);
            // The last one may have reached the disk all the same; appending it again is the same.
            let outcome = store.append(&[entry(acknowledged + 1)]);
            let written = acknowledged + 1;
            if outcome.is_ok() {
                acknowledged += 1;
            } else {
                prop_assert!(store.failure().is_some());
            }
            if cut {
                drop(store);
                disk.crash(&mut random);
                store = open(&disk);
            } else {
                disk.break_after(u64::MAX);
                disk.break_writes(false);
            }
            let read = store.read(1, u64::MAX).unwrap();
            let count = u64::try_from(read.len()).unwrap();
            prop_assert!(count == acknowledged || count == written, "{count} of {acknowledged}");
            for (index, bytes) in (1..).zip(read) {
                prop_assert_eq!(&bytes, &entry(index).1);
            }
        }
    }

    #[test]
    fn what_was_tampered_with_is_an_error_and_never_a_panic(
        seed: u64,
        changes in prop::collection::vec((any::<u64>(), 1..=255_u8), 1..40),
    ) {
        let disk = FaultyDisk::default();
        {
            let store = open(&disk);
            store.append(&entries(1..=50)).unwrap();
            store.save_snapshot(b"meta".to_vec(), vec![5; 600 << 10]).unwrap();
        }
        disk.crash(stream(seed));
        for (at, mask) in changes {
            disk.tamper(at, mask);
        }
        let Ok(store) = ManagerStore::open_on(disk.backend(), sealer()) else {
            return Ok(());
        };
        // redb may lose a page; that an entry is missing is then for the engine to see.
        for bytes in store.read(1, u64::MAX).unwrap_or_default() {
            prop_assert!((1..=50).any(|index| entry(index).1 == bytes));
        }
        if let Ok(Some((meta, data))) = store.snapshot() {
            prop_assert_eq!(meta, b"meta".to_vec());
            prop_assert!(data == vec![5; 600 << 10]);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_passes_without_a_restart() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    store.append(&[entry(1)]).unwrap();
    disk.limit_room(Some(0));
    let large = vec![7; 8 << 20];
    let error = store.append(&[(2, large.into())]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(store.failure().is_some());
    let again = store.append(&[(2, vec![7; 8 << 20].into())]).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::StorageFull, "it stays what it is: {again}");
    disk.limit_room(None);
    store.append(&[entry(2)]).unwrap();
    assert_eq!(store.failure(), None);
    assert_eq!(store.read(1, 3).unwrap().len(), 2);
}

#[test]
fn a_file_that_failed_is_opened_again_once_its_readers_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let file = StoreFile::open(&folder.path().join("store.redb")).unwrap();
    let (reading, is_reading) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    let (writing, is_writing) = mpsc::channel();
    std::thread::scope(|scope| {
        let file = &file;
        scope.spawn(move || {
            file.read(|_| {
                reading.send(()).unwrap();
                is_done.recv().map_err(std::io::Error::other)
            })
        });
        is_reading.recv().unwrap();
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        file.write(|_| Err::<(), _>(full())).unwrap_err();
        let writer = scope.spawn(move || {
            writing.send(()).unwrap();
            file.write(|_| Ok(()))
        });
        is_writing.recv().unwrap();
        // A write that did not wait would have failed by now.
        for _ in 0..1_000 {
            std::thread::yield_now();
        }
        done.send(()).unwrap();
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn reading_writes_nothing() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    store.append(&entries(1..=10)).unwrap();
    let writes = disk.writes();
    store.read(1, 11).unwrap();
    store.log_state().unwrap();
    store.snapshot().unwrap();
    assert_eq!(disk.writes(), writes);
}

#[test]
fn pieces_of_another_snapshot_do_not_pass_for_this_ones() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let large = |byte: u8| vec![byte; 700 << 10];
    store.save_snapshot(b"1".to_vec(), large(1)).unwrap();
    store.save_snapshot(b"2".to_vec(), large(2)).unwrap();
    assert!(store.snapshot().unwrap() == Some((b"2".to_vec(), large(2))));
    store.save_snapshot(b"3".to_vec(), Vec::new()).unwrap();
    assert_eq!(store.snapshot().unwrap(), Some((b"3".to_vec(), Vec::new())));
}

#[test]
fn what_a_power_cut_left_of_making_a_file_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent.redb.new"), [7; 5_000]).unwrap();
    let path = dir.path().join("agent.redb");
    AgentStore::open(&path).unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn an_older_format_is_brought_up_to_date_or_left_alone() {
    const VALUE: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("value");
    let steps: &[super::file::Migration] = &[
        |_| unreachable!("the file is past this one"),
        |write| {
            write.open_table(VALUE).map_err(disk)?.insert("a", 1).map_err(disk)?;
            Ok(())
        },
        |_| Err(std::io::Error::other("no")),
    ];
    let memory = redb::backends::InMemoryBackend::new();
    let database = redb::Database::builder().create_with_backend(memory).unwrap();
    assert!(migrate(&database, 2, steps).is_err());
    assert_eq!(read_format(&database).unwrap(), None, "all of it or nothing");
    migrate(&database, 2, &steps[..2]).unwrap();
    assert_eq!(read_format(&database).unwrap(), Some(3));
    assert!(migrate(&database, 0, steps).is_err(), "there is no format 0");
}

#[test]
fn nothing_readable_is_on_the_disk_and_another_key_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manager.redb");
    let store = ManagerStore::open(&path, sealer()).unwrap();
    store.append(&[(1, Bytes::from_static(b"a very secret thing"))]).unwrap();
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
fn that_a_task_runs_is_noted_beside_the_disk() {
    let disk = FaultyDisk::default();
    let notes = tempfile::tempdir().unwrap();
    let open = || AgentStore::open_on(disk.backend()).unwrap().noting_in(notes.path().join("it"));
    let sample = Sampler::default().samples::<StoredTask>("StoredTask").swap_remove(0).1;
    let stored = |number: u8, state| {
        let mut stored = sample.clone();
        stored.task.id = TaskId::from_bits(number.into());
        stored.status.state = state;
        Box::new(stored)
    };
    let states = |store: AgentStore| -> Vec<TaskState> {
        store.load().unwrap().1.into_iter().map(|stored| stored.status.state).collect()
    };
    let (assigned, running) = (TaskState::Assigned, TaskState::Running);
    let store = open();
    let put = |number, state| Record::PutTask(stored(number, state));
    let note = |number, state| Record::NoteTask(stored(number, state));
    store.commit(&[put(1, assigned), put(2, assigned), put(3, assigned)]).unwrap();
    let written = disk.writes();
    store.commit(&[note(1, running), note(2, running), note(3, running)]).unwrap();
    assert_eq!(disk.writes(), written, "none of it on the disk");
    let file = std::fs::metadata(notes.path().join("it").join(stored(1, running).task.id.as_str()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds the task's environment");
    store
        .commit(&[put(2, TaskState::Failed), Record::RemoveTask(stored(3, running).task.id)])
        .unwrap();
    drop(store);
    assert_eq!(states(open()), [running, TaskState::Failed]);
    // The machine starts anew.
    std::fs::remove_dir_all(notes.path().join("it")).unwrap();
    assert_eq!(states(open()), [assigned, TaskState::Failed]);
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
