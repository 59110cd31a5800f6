//! What goes wrong: daemons and machines crash, disks and containerd fail, links part.

use super::{
    executor::Latency,
    network::Loss,
    world::{Crash, World},
};
use crate::{runtime::fake::Faults, types::NodeId};
use std::{sync::Arc, time::Duration};

impl World {
    /// Draws how bad the weather is for this whole run.
    pub(super) fn draw_weather(&self) {
        let executor = &self.0.executor;
        self.network().loss = Loss {
            drop: executor.below(200),
            double: executor.below(100),
            delay: Duration::from_millis(5 + executor.below(400)),
        };
        executor.set_latency(Latency {
            most: Duration::from_millis(1 + executor.below(200)),
            stalls: executor.below(10),
            stall: Duration::from_secs(executor.below(15)),
            only: None,
        });
        let faults = Faults {
            temporary: u32::try_from(executor.below(100)).expect("it is below 100"),
            permanent: u32::try_from(executor.below(30)).expect("it is below 30"),
            crash: u32::try_from(executor.below(300)).expect("it is below 300"),
            inventory: (Duration::ZERO, Duration::from_secs(executor.below(20))),
            sick: u32::try_from(executor.below(200)).expect("it is below 200"),
            crash_after: (Duration::from_millis(10), Duration::from_secs(30)),
            ..Faults::default()
        };
        for machine in self.machines().values() {
            machine.fake.lock().unwrap().set_faults(faults.clone());
        }
    }

    /// Lets one thing go wrong, and mends it after a while.
    pub(super) async fn disturb(&self) {
        let executor = self.0.executor.clone();
        let nodes: Vec<NodeId> = self.machines().keys().cloned().collect();
        let drawn = usize::try_from(executor.below(nodes.len() as u64)).expect("it is an index");
        let mut node = nodes[drawn].clone();
        if executor.chance(200) {
            node = self.leader();
        }
        let wait = executor.between(Duration::from_millis(100), Duration::from_secs(20));
        match executor.below(10) {
            0..=2 => {
                let crash = if executor.chance(500) { Crash::Kill } else { Crash::Power };
                self.crash(&node, crash);
                executor.sleep(wait).await;
                self.start(&node);
            }
            3..=4 => self.part(&node, wait * 4).await,
            5 => self.lose_containerd(&node, wait).await,
            6 => {
                let running = {
                    let fake = Arc::clone(&self.machines()[&node].fake);
                    let running = fake.lock().unwrap().running();
                    running.into_iter().next()
                };
                if let Some(task) = running {
                    self.kill_container(&node, &task);
                }
            }
            7 => self.fail_disk(&node, wait).await,
            8 => {
                let leader = self.leader();
                match executor.below(3) {
                    0 => {
                        self.trace(|| "the leader lets another lead".to_owned());
                        self.hand_over(&leader, Duration::from_secs(1)).await;
                    }
                    1 => {
                        self.trace(|| format!("the disk of {} hangs", self.name(&leader)));
                        self.hang(&leader, true);
                        executor.sleep(wait * 2).await;
                        self.hang(&leader, false);
                    }
                    _ => {
                        if let Some(handle) = self.handle(&leader) {
                            self.trace(|| "the leader is rebuilt".to_owned());
                            handle.rebuild_leader();
                        }
                    }
                }
            }
            _ => {
                let owner = self.machines().get(&node).and_then(|machine| machine.owner);
                if let Some(owner) = owner {
                    self.trace(|| format!("{} is held up for {wait:?}", self.name(&node)));
                    executor.pause(owner, wait);
                }
            }
        }
    }

    /// Parts machines for a while: one from all others, or two, or the managers from each other;
    /// one way or both.
    async fn part(&self, node: &NodeId, time: Duration) {
        let executor = &self.0.executor;
        let (up, down) = (executor.chance(700), executor.chance(700));
        let (near, far): (Vec<NodeId>, Vec<NodeId>) = match executor.below(3) {
            0 => (vec![node.clone()], self.machines().keys().cloned().collect()),
            1 => (vec![node.clone()], vec![self.leader()]),
            _ => self.managers().into_iter().partition(|_| executor.chance(500)),
        };
        let mut cuts = Vec::new();
        for (one, other) in near.iter().flat_map(|one| far.iter().map(move |other| (one, other))) {
            let ways = [(up, (one, other)), (down, (other, one))];
            let cut = ways.into_iter().filter(|(cut, (from, to))| *cut && from != to);
            cuts.extend(cut.map(|(_, (from, to))| (from.clone(), to.clone())));
        }
        self.trace(|| {
            let names = |nodes: &[NodeId]| nodes.iter().map(|n| self.name(n)).collect::<Vec<_>>();
            format!("{:?} parted from {:?}: {up} {down}", names(&near), names(&far))
        });
        self.network().cuts.extend(cuts.iter().cloned());
        if executor.chance(500) {
            self.hang_up(node);
        }
        executor.sleep(time).await;
        let mut network = self.network();
        network.cuts.retain(|cut| !cuts.contains(cut));
    }

    /// Lets the disk of a manager's log hang, or go on.
    pub(super) fn hang(&self, node: &NodeId, hangs: bool) {
        let since = hangs.then(|| self.0.executor.now());
        if let Some(machine) = self.machines().get(node) {
            *machine.hang.lock().unwrap() = since;
        }
    }

    pub(super) fn kill_container(&self, node: &NodeId, task: &crate::types::TaskId) {
        let machines = self.machines();
        let machine = &machines[node];
        let date = crate::types::Date::from_unix_seconds(1_800_000_000);
        let event = machine.fake.lock().unwrap().kill(task, date);
        self.trace(|| format!("{}: the container of {task} is killed", self.name(node)));
        if let (Some(event), Some(events)) = (event, &machine.events) {
            let _full = events.try_send(event);
        }
    }

    async fn lose_containerd(&self, node: &NodeId, wait: Duration) {
        self.trace(|| format!("{} loses containerd", self.name(node)));
        let tell = |event| {
            let machines = self.machines();
            if let Some(events) = machines.get(node).and_then(|machine| machine.events.as_ref()) {
                let _full = events.try_send(event);
            }
        };
        let fake = Arc::clone(&self.machines()[node].fake);
        let lost = fake.lock().unwrap().lose_runtime();
        tell(lost);
        self.0.executor.sleep(wait).await;
        let now = self.0.executor.now();
        let date = crate::types::Date::from_unix_seconds(1_800_000_000);
        let back = fake.lock().unwrap().restore_runtime(now, date);
        tell(back);
    }

    async fn fail_disk(&self, node: &NodeId, wait: Duration) {
        let disks = {
            let machines = self.machines();
            let machine = &machines[node];
            match &machine.log_disk {
                Some(log) if self.0.executor.chance(500) => log.clone(),
                _ => machine.agent_disk.clone(),
            }
        };
        if self.0.executor.chance(500) {
            self.trace(|| format!("the disk of {} is full", self.name(node)));
            disks.limit_room(Some(0));
            self.0.executor.sleep(wait).await;
        } else {
            self.trace(|| format!("the disk of {} fails", self.name(node)));
            disks.break_writes(true);
            self.0.executor.sleep(wait / 4).await;
        }
        disks.limit_room(None);
        disks.break_writes(false);
    }

    /// Mends everything, and switches everything on.
    pub(super) fn heal(&self) {
        self.trace(|| "everything is mended".to_owned());
        self.0.executor.set_latency(Latency::default());
        {
            let mut network = self.network();
            network.loss = Loss::NONE;
            network.cuts.clear();
            network.cut_up.clear();
            network.cut_down.clear();
        }
        let nodes: Vec<NodeId> = self.machines().keys().cloned().collect();
        for node in nodes {
            if let Some(machine) = self.machines().get(&node) {
                machine.fake.lock().unwrap().set_faults(Faults::default());
                for disk in machine.log_disk.iter().chain([&machine.agent_disk]) {
                    disk.limit_room(None);
                    disk.break_writes(false);
                }
            }
            self.hang(&node, false);
            self.start(&node);
        }
        self.point_out_managers();
    }

    /// Tells nodes where managers are that know none any more, nor anybody who was one: all that
    /// they knew are gone, and went while nothing reached the node. Nothing in the cluster can tell
    /// it, and its operator has to.
    fn point_out_managers(&self) {
        let managers = self.managers();
        let there: Vec<String> =
            managers.iter().map(|node| self.machines()[node].address.clone()).collect();
        let nodes: Vec<NodeId> = self.machines().keys().cloned().collect();
        for node in nodes.iter().filter(|node| !managers.contains(node)) {
            let heard = self.hearsay(node, |other| !self.machines()[other].retired);
            let known = [self.known_managers(node), heard].concat();
            if !known.iter().any(|it| there.contains(it)) {
                self.trace(|| format!("{} is told where managers are", self.name(node)));
                if let Some(machine) = self.machines().get_mut(node) {
                    machine.joined.clone_from(&there);
                }
            }
        }
    }
}
