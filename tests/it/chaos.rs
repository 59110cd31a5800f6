//! Several managers, and everything that can go wrong with them, while a client keeps writing.
//!
//! Whatever happens: nothing that was acknowledged is lost, nothing runs twice for ever, and the
//! containers of machines that were not hit do not notice.
//!
//! `MIDGE_CHAOS_ROUNDS` is how many faults are drawn, `MIDGE_CHAOS_SEED` from where; `make chaos`
//! draws many.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

mod client;
pub(crate) mod fault;
mod relay;

use crate::{
    disks::give_disk,
    host::{Host, Network, can_run, eventually, eventually_so, note},
};
use client::{Client, Dice, Record};
use fault::Fault;
use relay::Relays;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How many faults are drawn by default.
const ROUNDS: u64 = 5;

/// How many writes show that the cluster goes on.
const WRITES: usize = 4;

/// A service with a task on every node, which nobody changes.
const STEADY: &str = "steady";

/// A cluster to which things happen, and the client that uses it.
struct Chaos {
    network: Network,
    managers: usize,
    relays: Option<Relays>,
    client: Option<Client>,
    /// The machines that were hit.
    hit: BTreeSet<usize>,
    /// The containers of every machine, before anything went wrong.
    steady: Vec<BTreeSet<String>>,
    begun: Instant,
}

impl Chaos {
    /// Makes a cluster of so many managers and one worker, each prepared before its daemon starts,
    /// and lets the client begin.
    fn start(managers: usize, seed: u64, prepare: impl Fn(&mut Host)) -> Self {
        Self::start_with(managers, seed, |network| {
            network.hosts.iter_mut().for_each(prepare);
            None
        })
    }

    /// The same, with relays between all hosts.
    fn start_relayed(managers: usize, seed: u64, prepare: impl Fn(&mut Host)) -> Self {
        Self::start_with(managers, seed, |network| {
            network.hosts.iter_mut().for_each(prepare);
            Some(Relays::between(&network.hosts))
        })
    }

    fn start_with(
        managers: usize,
        seed: u64,
        prepare: impl FnOnce(&mut Network) -> Option<Relays>,
    ) -> Self {
        let mut network = Network::new(managers + 1);
        let relays = prepare(&mut network);
        network.found(managers);
        network.load_busybox();
        let create = ["service", "create", "-q", "--name", STEADY, "--mode", "global"];
        let quick = ["--stop-signal", "KILL", "bb:1", "sleep", "99999"];
        network.manager().ok(&[&create[..], &quick].concat());
        let steady = network.hosts.iter().map(Host::running_in_containerd).collect();
        let client = Some(Client::start(&network, managers, seed));
        let (hit, begun) = (BTreeSet::new(), Instant::now());
        let chaos = Self { network, managers, relays, client, hit, steady, begun };
        chaos.client().await_progress(WRITES);
        chaos
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// Waits until somebody leads whom these machines are not, as the others see it; returns who.
    fn leader_but(&self, but: &[usize]) -> usize {
        eventually("a leader", || {
            let others = (0..self.managers).filter(|host| !but.contains(host));
            others.filter_map(|host| self.leader_seen_by(host)).find(|host| !but.contains(host))
        })
    }

    fn leader_seen_by(&self, host: usize) -> Option<usize> {
        Some(self.network.hosts[host].leader()? - 1)
    }

    /// Lets it go wrong, waits until the cluster goes on without those that are hit, and mends it.
    /// Returns who led meanwhile.
    fn outlives(&mut self, fault: &Fault) -> usize {
        self.begin(fault);
        let leader = self.leader_but(&fault.hits());
        self.client().await_progress(WRITES);
        self.end(fault);
        leader
    }

    /// Waits until everything is as it should be, with the client at rest.
    fn finish(mut self) {
        let record = self.client.take().unwrap().stop();
        self.settle(&record);
        let Record { attempts, acknowledged, .. } = record;
        let took = self.begun.elapsed();
        note(&format!("{acknowledged} of {attempts} writes were acknowledged in {took:?}"));
    }

    fn settle(&self, record: &Record) {
        let begun = Instant::now();
        eventually_so("everything to be as it should be", || self.check(record));
        note(&format!("{:?}: all is well after {:?}", self.begun.elapsed(), begun.elapsed()));
    }

    /// Says what is not as it should be.
    fn check(&self, record: &Record) -> Result<(), String> {
        let managers = &self.network.hosts[..self.managers];
        for host in managers {
            self.check_nodes(host)?;
            record.check(&api(host, "/services")?)?;
        }
        let running: Vec<_> = self.network.hosts.iter().map(Host::running_in_containerd).collect();
        self.check_containers(&running)?;
        for (index, steady) in self.steady.iter().enumerate() {
            let untouched = self.hit.contains(&index) || steady.is_subset(&running[index]);
            assert!(untouched, "the machine {index} was not hit: {steady:?}, {:?}", running[index]);
        }
        Ok(())
    }

    fn check_nodes(&self, host: &Host) -> Result<(), String> {
        let nodes = api(host, "/nodes")?;
        let nodes = nodes.as_array().ok_or_else(|| format!("no list of nodes: {nodes}"))?;
        let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
        let managers = nodes.iter().filter_map(|node| node.get("ManagerStatus"));
        let reachable = managers.filter(|it| it["Reachability"] == "reachable").count();
        if (ready, reachable) == (self.network.hosts.len(), self.managers) {
            return Ok(());
        }
        Err(format!("{ready} nodes are ready, {reachable} managers reachable"))
    }

    /// Says where containers and what is wanted differ, on all machines together.
    fn check_containers(&self, running: &[BTreeSet<String>]) -> Result<(), String> {
        let manager = self.network.manager();
        let wanted =
            api(manager, "/tasks?filters=%7B%22desired-state%22%3A%5B%22running%22%5D%7D")?;
        let wanted = wanted.as_array().ok_or_else(|| format!("no list of tasks: {wanted}"))?;
        let id = |task: &Value| task["ID"].as_str().unwrap().to_owned();
        let wanted_ids: BTreeSet<String> = wanted.iter().map(id).collect();
        let all: Vec<&String> = running.iter().flatten().collect();
        let distinct: BTreeSet<String> = all.iter().map(|id| (*id).clone()).collect();
        if all.len() != distinct.len() || distinct != wanted_ids {
            let surplus: Vec<_> = distinct.difference(&wanted_ids).collect();
            let missing: Vec<_> = wanted_ids.difference(&distinct).collect();
            return Err(format!("containers too many: {surplus:?}, missing: {missing:?}"));
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for task in wanted {
            if task["Status"]["State"] != "running" {
                return Err(format!("a task does not run: {task}"));
            }
            *counts.entry(task["ServiceID"].as_str().unwrap()).or_default() += 1;
        }
        for service in api(manager, "/services")?.as_array().unwrap() {
            let wanted = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64();
            let wanted = wanted.unwrap_or(self.network.hosts.len() as u64);
            let found = counts.get(service["ID"].as_str().unwrap()).copied().unwrap_or(0);
            if found != wanted {
                return Err(format!("{found} of {wanted} tasks of {}", service["Spec"]["Name"]));
            }
        }
        Ok(())
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        // First, since it may wait for a daemon.
        self.client.take();
        for host in &mut self.network.hosts {
            if host.dir.join("data.img").exists() {
                fault::thaw(host);
            }
            // Managers that leave one after another have to agree on each.
            host.power_off();
        }
    }
}

/// Returns what a manager answers.
fn api(host: &Host, path: &str) -> Result<Value, String> {
    serde_json::from_str(&host.api(path)).map_err(|error| format!("{path}: {error}"))
}

#[test]
fn managers_outlive_each_of_them() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 1, |_| {});
    let mut leader = chaos.leader_but(&[]);
    for _ in 0..3 {
        leader = chaos.outlives(&Fault::Kill(leader));
    }
    chaos.finish();
}

#[test]
fn three_of_five_managers_go_on() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(5, 2, |_| {});
    let leader = chaos.leader_but(&[]);
    let dead = [Fault::Kill(leader), Fault::Kill((leader + 1) % 5)];
    dead.iter().for_each(|fault| chaos.begin(fault));
    let hits = dead.iter().flat_map(Fault::hits).collect::<Vec<_>>();
    let leader = chaos.leader_but(&hits);
    chaos.client().await_progress(WRITES);
    // A third: nothing is changed until one of them is back.
    let third = Fault::Kill(leader);
    chaos.begin(&third);
    chaos.client().await_refusal();
    chaos.end(&dead[0]);
    chaos.client().await_progress(WRITES);
    chaos.end(&third);
    chaos.end(&dead[1]);
    chaos.finish();
}

#[test]
fn managers_outlive_cut_links_in_either_direction() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 3, |_| {});
    for cut in [Fault::Unplug, Fault::Deaf, Fault::Mute] {
        let leader = chaos.leader_but(&[]);
        chaos.outlives(&cut(leader));
    }
    let leader = chaos.leader_but(&[]);
    // Whoever follows and is cut off does not unseat the leader.
    let follower = (0..3).find(|host| *host != leader).unwrap();
    let part = Fault::Part(vec![follower]);
    assert_eq!(chaos.outlives(&part), leader);
    chaos.client().await_progress(WRITES);
    assert_eq!(chaos.leader_but(&[]), leader);
    chaos.finish();
}

#[test]
fn managers_go_on_over_links_that_lose_and_delay() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start_relayed(3, 4, |_| {});
    for fault in [Fault::Lossy, Fault::Slow(Duration::from_millis(100))] {
        chaos.begin(&fault);
        chaos.client().await_progress(2 * WRITES);
        chaos.end(&fault);
    }
    // Further away than the managers are set up for: nothing is lost, and it passes.
    let far = Fault::Slow(Duration::from_millis(300));
    chaos.begin(&far);
    chaos.client().await_refusal();
    chaos.end(&far);
    chaos.client().await_progress(WRITES);
    // Set up for it, they go on.
    chaos.network.manager().ok(&["swarm", "update", "--election-timeout", "3s"]);
    for host in &chaos.network.hosts[..3] {
        eventually("the engine to begin anew", || {
            let kept = std::fs::read_to_string(host.dir.join("data/membership.json")).unwrap();
            kept.contains("\"election_millis\": 3000").then_some(())
        });
    }
    chaos.client().await_progress(WRITES);
    chaos.begin(&far);
    chaos.client().await_progress(2 * WRITES);
    chaos.end(&far);
    chaos.finish();
}

#[test]
fn a_leader_that_stands_still_is_replaced() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 5, |_| {});
    let stop = Fault::Stop(chaos.leader_but(&[]));
    chaos.begin(&stop);
    let leader = chaos.leader_but(&stop.hits());
    chaos.client().await_progress(WRITES);
    // Long enough for its tasks to run elsewhere.
    let stopped = format!("n{} Down", stop.hits()[0] + 1);
    eventually("the node to be down", || {
        let format = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];
        let nodes = chaos.network.hosts[leader].midge(&format).stdout;
        String::from_utf8(nodes).unwrap().contains(&stopped).then_some(())
    });
    chaos.client().await_progress(WRITES);
    chaos.end(&stop);
    chaos.finish();
}

/// Returns the day it is for a daemon.
fn date(host: &Host) -> String {
    let info = api(host, "/info").unwrap();
    let date = info["SystemTime"].as_str().unwrap_or_else(|| panic!("{info}"));
    date[..10].to_owned()
}

#[test]
fn a_wall_clock_that_steps_by_a_day_changes_nothing() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 6, fault::give_clock);
    let leader = chaos.leader_but(&[]);
    for seconds in [86_400, -86_400] {
        for host in [leader, (leader + 1) % 3] {
            let step = Fault::Clock(host, seconds);
            chaos.begin(&step);
            chaos.client().await_progress(WRITES);
            let dates = chaos.network.hosts[..3].iter().map(date).collect::<BTreeSet<_>>();
            assert_eq!(dates.len(), 2, "one is wrong: {dates:?}");
            assert_eq!(chaos.leader_but(&[]), leader, "nobody had to take over");
            chaos.end(&step);
        }
    }
    chaos.client().await_progress(WRITES);
    assert_eq!(chaos.leader_but(&[]), leader, "nobody had to take over");
    chaos.finish();
}

#[test]
fn a_manager_whose_disk_is_full_is_done_without() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 7, |host| give_disk(host));
    let leader = chaos.leader_but(&[]);
    let full = Fault::FullDisk(leader);
    chaos.begin(&full);
    let large = format!("large={}", "x".repeat(60_000));
    let other = (leader + 1) % 3;
    let mut number = 0;
    eventually("the disk to be full", || {
        number += 1;
        let name = format!("large{number}");
        let create = ["service", "create", "-d", "-q", "--replicas", "0", "--label", &large];
        chaos.network.hosts[other].midge(&[&create[..], &["--name", &name, "bb:1"]].concat());
        let info = chaos.network.hosts[leader].midge(&["info"]);
        let info = String::from_utf8([info.stdout, info.stderr].concat()).unwrap();
        info.contains("No space left on device").then_some(())
    });
    chaos.leader_but(&[leader]);
    chaos.client().await_progress(WRITES);
    chaos.end(&full);
    chaos.finish();
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_named() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 8, |host| give_disk(host));
    let leader = chaos.leader_but(&[]);
    let hung = Fault::HungDisk(leader);
    chaos.begin(&hung);
    let other = chaos.leader_but(&[leader]);
    chaos.client().await_progress(WRITES);
    let row = |chaos: &Chaos| {
        let format = ["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"];
        let rows = String::from_utf8(chaos.network.hosts[other].midge(&format).stdout).unwrap();
        let name = format!("n{} ", leader + 1);
        rows.lines().find(|row| row.starts_with(&name)).unwrap_or_default().to_owned()
    };
    let named = "Ready Blocked: the disk of this manager has not finished a write";
    eventually_so("the disk to be named", || {
        let row = row(&chaos);
        if row.contains(named) { Ok(()) } else { Err(row) }
    });
    let node = chaos.network.hosts[other].inspect("node", &format!("n{}", leader + 1));
    assert_eq!(node["ManagerStatus"]["Reachability"], "reachable");
    assert!(node["Status"]["Message"].as_str().unwrap().contains("has not finished"), "{node}");
    chaos.end(&hung);
    let well = format!("n{} Ready Reachable", leader + 1);
    eventually("the disk to be well", || (row(&chaos) == well).then_some(()));
    chaos.finish();
}

#[test]
fn a_cluster_comes_back_after_a_power_cut_in_any_order() {
    if !can_run() {
        return;
    }
    let mut chaos = Chaos::start(3, 9, |_| {});
    for order in [vec![0, 1, 2, 3], vec![2, 3, 1, 0]] {
        let off = Fault::PowerOff(order);
        chaos.begin(&off);
        chaos.end(&off);
        chaos.client().await_progress(WRITES);
    }
    chaos.finish();
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Draws what goes wrong next.
fn draw(dice: &mut Dice, managers: usize, leader: usize) -> Fault {
    // Leaders are hit as often as all others together.
    let host = if dice.below(2) == 0 { leader } else { dice.index(managers) };
    match dice.below(11) {
        0 | 1 => Fault::Kill(host),
        2 => Fault::Stop(host),
        3 => Fault::Unplug(host),
        4 => Fault::Deaf(host),
        5 => Fault::Mute(host),
        6 => Fault::Part(vec![host, managers]),
        7 => Fault::Lossy,
        8 => Fault::Slow(Duration::from_millis(100)),
        9 => Fault::Clock(host, if dice.below(2) == 0 { 86_400 } else { -86_400 }),
        _ => {
            let mut off: Vec<usize> = (0..=managers).collect();
            for index in (1..off.len()).rev() {
                off.swap(index, dice.index(index + 1));
            }
            Fault::PowerOff(off)
        }
    }
}

#[test]
fn rounds_at_random_lose_and_double_nothing() {
    if !can_run() {
        return;
    }
    let rounds = variable("MIDGE_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let seed = variable("MIDGE_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    note(&format!("MIDGE_CHAOS_SEED={seed} MIDGE_CHAOS_ROUNDS={rounds} draws the same faults"));
    let mut dice = Dice(seed);
    let mut chaos = Chaos::start_relayed(3, seed + 1, fault::give_clock);
    for _ in 0..rounds {
        let leader = chaos.leader_but(&[]);
        let fault = draw(&mut dice, 3, leader);
        let all_off = matches!(fault, Fault::PowerOff(_));
        // Lost packets come beside what else there is.
        let lossy = fault != Fault::Lossy && dice.below(4) == 0;
        if lossy {
            chaos.begin(&Fault::Lossy);
        }
        chaos.begin(&fault);
        if all_off {
            chaos.client().await_refusal();
        } else {
            // Now and then long enough for a node to be given up.
            chaos.client().await_progress(WRITES * (1 + dice.index(8)));
        }
        chaos.end(&fault);
        if lossy {
            chaos.end(&Fault::Lossy);
        }
        chaos.client().await_progress(WRITES);
    }
    chaos.finish();
}
