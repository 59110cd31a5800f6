//! The engine on this store, on disks that break in the midst of a commit and lose their power: what
//! was acknowledged is never lost, whoever leads.

use super::{ManagerStore, Sealer, faulty::FaultyDisk};
use crate::consensus::{LogStore, tests::group::Group};
use std::{sync::Arc, time::Duration};

/// How many steps (writes and syncs of the disk) a commit takes, and some more.
const STEPS: u64 = 40;

/// How long a group that has a quorum may take to commit something, elections included.
const LIMIT: Duration = Duration::from_secs(60);

fn group(seed: u64, members: u64, disks: &[FaultyDisk]) -> Group {
    let disks = disks.to_vec();
    let open = move |id: u64| -> Arc<dyn LogStore> {
        let disk = &disks[usize::try_from(id).unwrap()];
        let sealer = Sealer::new(1, &[8; 32], move || [u8::try_from(id).unwrap(); 12]);
        Arc::new(ManagerStore::open_on(disk.backend(), sealer).unwrap())
    };
    Group::with(seed, members, Some(Box::new(open)))
}

/// Proposes to whoever leads until something is acknowledged; what was tried before may be there.
fn propose(group: &Group, members: &[u64], data: &[u8]) -> bool {
    let Some(leader) = group.leader_among(members) else { return false };
    group.propose(leader, data).is_ok()
}

fn restart_failed(group: &mut Group, members: &[u64], disks: &[FaultyDisk]) {
    // Whoever waits for a write hears of a broken disk before the driver does.
    group.run(Duration::from_millis(100), || false);
    for &id in members {
        if group.failed(id) {
            group.crash(id);
            disks[usize::try_from(id).unwrap()].crash(|| group.executor.random());
            group.start(id);
        }
    }
}

fn one_run(seed: u64, members: &[u64], rounds: u16) -> usize {
    // Members count from 1.
    let disks: Vec<_> = (0..4).map(|_| FaultyDisk::default()).collect();
    let count = u64::try_from(members.len()).unwrap();
    let mut group = group(seed, count, &disks);
    if count == 1 {
        group.initialize(1);
    } else {
        group = group.grow();
    }
    let mut acknowledged: Vec<Vec<u8>> = Vec::new();
    for round in 0..rounds {
        let id = members[usize::try_from(group.executor.random() % count).unwrap()];
        disks[usize::try_from(id).unwrap()].break_after(group.executor.random() % STEPS);
        for n in 0..3_u8 {
            let data = [&round.to_le_bytes()[..], &[n]].concat();
            if propose(&group, members, &data) {
                acknowledged.push(data);
            }
        }
        restart_failed(&mut group, members, &disks);
        let ready = group.run(LIMIT, || group.leader_among(members).is_some());
        if !ready {
            // A disk broke since; nobody can lead before it is replaced.
            restart_failed(&mut group, members, &disks);
        }
    }
    for disk in &disks {
        disk.break_after(u64::MAX);
    }
    // Writes go on beside everything else: what they met is known a moment later.
    group.run(LIMIT, || false);
    restart_failed(&mut group, members, &disks);
    // A write may have met a broken disk since: each member once.
    let mut ended = false;
    for _ in 0..=members.len() {
        group.elect(members);
        ended = ended || propose(&group, members, b"the end");
        restart_failed(&mut group, members, &disks);
    }
    assert!(ended, "seed {seed}: whole disks, and yet nothing is committed");
    let leader = group.elect(members);
    let held = group.data(leader);
    let mut rest = held.iter();
    for data in &acknowledged {
        assert!(rest.any(|held| held == data), "seed {seed}: {data:?} was lost or out of order");
    }
    acknowledged.len()
}

#[test]
fn one_member_loses_nothing_that_it_acknowledged() {
    let acknowledged: usize = (0..40).map(|seed| one_run(seed, &[1], 12)).sum();
    assert!(acknowledged > 40 * 12, "too little is acknowledged to prove anything");
}

#[test]
fn three_members_lose_nothing_that_they_acknowledged() {
    let acknowledged: usize = (0..12).map(|seed| one_run(seed, &[1, 2, 3], 10)).sum();
    assert!(acknowledged > 12 * 10, "too little is acknowledged to prove anything");
}
