//! Most managers are lost for ever, and the one that is left is made to go on alone, as `swarm init
//! --force-new-cluster` makes it.

use super::{
    on_sim::OnSim,
    world::{Crash, World},
};
use crate::{
    cluster::{forced_anew, terms_passed},
    consensus::{make_alone, newest_place},
    store::ManagerStore,
    types::{ManagerStatus, NodeId},
};
use std::{io, time::Duration};

/// After how many writes and syncs, at most, a disk fails that does so while the group is made: it
/// may be made by then.
const STEPS_MAX: u64 = 60;

/// How often, in a thousand, the disk fails while the new group is made, so that it is made again.
const FAILURES: u64 = 300;

/// How often, in a thousand, one of the others comes back after all.
const RETURNS: u64 = 400;

/// After how long it does at most.
const ABSENCE_MAX: Duration = Duration::from_secs(120);

/// Tells whether the managers of a run are lost. Such seeds come with every number of managers, and
/// with and without new roots and roles.
pub(super) fn strikes(seed: u64) -> bool {
    seed % 7 == 4
}

impl World {
    /// Draws how long the bad weather lasts before it: half of the time users, and other troubles,
    /// go on after it.
    pub(super) fn draw_disaster(&self) -> Duration {
        let executor = &self.0.executor;
        if executor.chance(500) {
            return Duration::from_secs(1_800);
        }
        executor.between(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// All managers but one are given up, and most of their machines destroyed. That one has the newest log, so that nothing
    /// that was acknowledged is lost, and goes on with it.
    pub(super) fn lose_most_managers(&self) {
        let managers = self.managers();
        if managers.len() < 2 {
            return;
        }
        let crash = if self.0.executor.chance(500) { Crash::Kill } else { Crash::Power };
        managers.iter().for_each(|node| self.crash(node, crash));
        let logs = managers.iter().filter_map(|node| Some((self.newest_place(node)?, node)));
        let (_, left) = logs.max().expect("a manager has a log");
        let lost: Vec<NodeId> = managers.iter().filter(|node| *node != left).cloned().collect();
        let back = self.comes_back(&lost, left);
        for node in &lost {
            self.trace(|| format!("{} is lost", self.name(node)));
            self.crash(node, Crash::Power);
            if let Some(machine) = self.machines().get_mut(node) {
                machine.retired = Some(node) != back.as_ref();
            }
        }
        self.force_new_cluster(left);
        self.start(left);
        if let Some(node) = back {
            self.come_back(node);
        }
    }

    /// Draws which of the managers that were given up comes back after all, if any. It is one, which
    /// nobody of its group is left to vote for, and knows where the manager is that went on.
    fn comes_back(&self, lost: &[NodeId], left: &NodeId) -> Option<NodeId> {
        if !self.0.executor.chance(RETURNS) {
            return None;
        }
        let there = self.machines()[left].address.clone();
        let knows = |node: &&NodeId| self.known_managers(node).contains(&there);
        lost.iter().find(knows).cloned()
    }

    /// Switches on a manager of the lost group after a while, with its log and certificate of
    /// before: it is to become a worker of the new cluster.
    fn come_back(&self, node: NodeId) {
        if let Some(machine) = self.machines().get_mut(&node) {
            machine.stray = true;
        }
        let (world, executor) = (self.clone(), self.0.executor.clone());
        executor.clone().spawn_for(0, async move {
            executor.sleep(executor.between(Duration::ZERO, ABSENCE_MAX)).await;
            world.start(&node);
        });
    }

    /// Returns where the log on a manager's disk ends.
    fn newest_place(&self, node: &NodeId) -> Option<(u64, u64)> {
        let disk = self.machines()[node].log_disk.clone()?;
        // Whoever forces a new cluster sees to the disk first.
        disk.limit_room(None);
        disk.break_writes(false);
        let store = ManagerStore::open_on(disk.backend(), self.sealer());
        newest_place::<OnSim>(&store.expect("a log can be opened")).expect("a log can be read")
    }

    /// Makes a group of this manager alone on its disk, on which nothing runs, as the daemon does:
    /// then it knows of no other manager.
    fn force_new_cluster(&self, node: &NodeId) {
        let disk = self.machines()[node].log_disk.clone().expect("it is a manager");
        let executor = &self.0.executor;
        if executor.chance(FAILURES) {
            disk.break_after(executor.below(STEPS_MAX));
            let made = self.make_alone(node);
            self.trace(|| format!("the disk of {} failed meanwhile: {made:?}", self.name(node)));
            self.crash(node, Crash::Power);
            disk.crash(|| executor.random());
        }
        self.make_alone(node).expect("its disk is well");
        self.trace(|| format!("{} goes on alone", self.name(node)));
        self.checks().group.is_made_anew();
        if let Some(machine) = self.machines().get_mut(node) {
            machine.managers = vec![machine.address.clone()];
        }
    }

    fn make_alone(&self, node: &NodeId) -> io::Result<()> {
        let date = self.machine_date(node);
        let (disk, address, key) = {
            let machine = &self.machines()[node];
            (machine.log_disk.clone(), machine.address.clone(), machine.member)
        };
        let disk = disk.expect("it is a manager");
        let store = ManagerStore::open_on(disk.backend(), self.sealer());
        let store = store.map_err(|error| io::Error::other(error.to_string()))?;
        let status = ManagerStatus { address: address.clone(), raft_id: key };
        make_alone::<OnSim>(&store, key, address, terms_passed(date), |term| {
            forced_anew(node.clone(), status, term, date)
        })
    }
}
