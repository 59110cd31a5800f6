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
    types::{Date, ManagerStatus, Node, NodeId, Role, Version},
};

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
    /// Has the leader write a backup.
    pub(super) async fn backup(&self) -> Backup {
        let node = self.leader();
        let handle = self.handle(&node).expect("the leader runs");
        let state = handle.state().await.expect("the manager answers");
        let address = self.machines()[&node].address.clone();
        let checks = self.checks().as_of(&state);
        Backup { node, address, state, checks }
    }

    /// All managers are lost, and a machine with the address of the one that wrote the backup takes
    /// its place.
    pub(super) fn restore(&self, backup: Backup) {
        let Backup { node: replaces, address, state, checks } = backup;
        for node in self.managers() {
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
