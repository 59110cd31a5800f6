//! The cluster in a file, and a machine that it is restored to, as `midge cluster backup` and `restore`
//! have it: what was written after the backup never was.

use super::{
    check::Checks,
    on_sim::OnSim,
    trust::Papers,
    world::{Crash, World},
};
use crate::{
    cluster::{State, restored_anew, terms_passed},
    consensus::make_from_snapshot,
    node::ports::Host as _,
    store::{ManagerStore, faulty::FaultyDisk},
    types::{Date, ManagerStatus, Node, NodeId, NodeSpec, Role, Version},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long after the backup was written the managers are lost, at most.
const AGE_MAX: Duration = Duration::from_secs(60);

/// How long it may take in bad weather until a leader is found to write it.
const BACKUP_LIMIT: Duration = Duration::from_secs(1_800);

/// Tells whether the cluster of a run is restored. Such seeds come with every number of managers, and
/// with and without new roots and roles.
pub(super) fn strikes(seed: u64) -> bool {
    seed % 7 == 6
}

/// What is in the file, and what users had been told when it was written.
pub(super) struct Backup {
    node: NodeId,
    address: String,
    state: State,
    checks: Checks,
}

impl Backup {
    /// Returns the numbers of the roots that count in it.
    pub(super) fn roots(&self) -> Vec<u8> {
        self.state.cluster().expect("there is a cluster").trust().roots.concat()
    }
}

impl World {
    /// Has the leader write a backup, as soon as there is one.
    pub(super) async fn backup(&self) -> Backup {
        loop {
            let node = self.leader();
            let state = match self.handle(&node) {
                Some(handle) => handle.state().await,
                None => None,
            };
            let Some(state) = state.filter(|state| state.cluster().is_some()) else {
                self.0.executor.sleep(Duration::from_millis(500)).await;
                continue;
            };
            let address = self.machines()[&node].address.clone();
            let checks = self.checks().as_of(&state);
            return Backup { node, address, state, checks };
        }
    }

    /// Writes a backup, and restores it after a while, of which nothing stays.
    pub(super) fn lose_what_is_not_in_a_backup(&self) {
        let executor = &self.0.executor;
        let backup = loop {
            let backup = self.write_backup();
            executor.run(executor.now() + executor.between(Duration::ZERO, AGE_MAX), || false);
            // Nodes follow no manager of a root that was replaced: that calls for another backup.
            let root = |state: &State| state.cluster().expect("there is a cluster").root.digest;
            if root(&backup.state) == root(&self.checks().state) {
                break backup;
            }
        };
        self.restore(backup);
    }

    fn write_backup(&self) -> Backup {
        let executor = &self.0.executor;
        let (world, file) = (self.clone(), Arc::new(Mutex::new(None)));
        let written = Arc::clone(&file);
        executor.spawn(async move {
            let backup = world.backup().await;
            *written.lock().unwrap() = Some(backup);
        });
        let is_there = || file.lock().unwrap().is_some();
        assert!(executor.run(executor.now() + BACKUP_LIMIT, is_there), "nobody writes a backup");
        file.lock().unwrap().take().expect("it is there")
    }

    /// All managers are lost, and a machine with the address of the one that wrote the backup takes
    /// its place.
    pub(super) fn restore(&self, backup: Backup) {
        let Backup { node: replaces, mut address, state, checks } = backup;
        if !self.managers().contains(&replaces) {
            // Nodes know the managers of now.
            let leader = self.leader();
            address = self.machines()[&leader].address.clone();
        }
        let mut lost: BTreeSet<NodeId> = self.managers().into_iter().collect();
        // Whatever it is by now.
        lost.insert(replaces.clone());
        lost.extend(self.at(&address));
        for node in lost {
            self.crash(&node, Crash::Power);
            let mut machines = self.machines();
            let machine = machines.get_mut(&node).expect("it is a machine");
            machine.retired = true;
            machine.address = format!("{} once", machine.address);
        }
        let executor = &self.0.executor;
        let node = NodeId::from_bits(u128::from(executor.random()));
        let mut key_digest = [0; 32];
        key_digest[..8].copy_from_slice(&executor.random().to_le_bytes());
        let papers = Papers::of_restored(state.cluster().expect("there is a cluster"));
        self.add(&node, Role::Manager, address.clone(), Vec::new(), (key_digest, papers));
        let (disk, key) = (FaultyDisk::default(), node.member());
        let store = ManagerStore::open_on(disk.backend(), self.sealer()).expect("its disk is well");
        let before = state.node(&replaces).expect("it wrote the backup");
        let row = Node {
            id: node.clone(),
            version: Version::ZERO,
            manager: Some(ManagerStatus { address: address.clone(), raft_id: key }),
            role: Role::Manager,
            key_digest,
            description: self.description(&node),
            spec: NodeSpec { role: Role::Manager, ..before.spec.clone() },
            ..before.clone()
        };
        let date = self.machine_date(&node);
        let snapshot = (state.applied().index, state.encode_snapshot());
        let passed = terms_passed(date);
        make_from_snapshot::<OnSim>(&store, key, address, snapshot, passed, |term| {
            restored_anew(row, replaces, term, date)
        })
        .expect("its disk is well");
        drop(store);
        if let Some(machine) = self.machines().get_mut(&node) {
            machine.log_disk = Some(disk);
        }
        self.checks().go_back_to(checks);
        self.trace(|| format!("the cluster is restored on {}", self.name(&node)));
        self.start(&node);
    }

    /// Returns a machine's wall clock.
    pub(super) fn machine_date(&self, node: &NodeId) -> Date {
        let number = self.number(node) as u64;
        self.host(number, &self.machines()[node]).date()
    }
}
