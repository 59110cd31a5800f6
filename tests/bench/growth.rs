//! What a manager costs as its cluster grows: `make bench BENCH=growth`.
//!
//! The manager is the real one. The nodes are agents on the real transport with no containers, all
//! of them in one process on another test host.

use crate::{
    engine::{Engine as _, Midge},
    host::{Host, Network},
    process::{Counted, Process},
    seconds,
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// How many nodes there are, in turn.
const NODES: [usize; 3] = [100, 1_000, 5_000];

/// How many tasks each of them gets.
const TASKS: usize = 10;

/// How many of them are of one service; services are created one after another.
const REPLICAS: usize = 10_000;

/// How long the cluster is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// How long thousands may take to join, or to start what they are given, on two processors.
const LIMIT: Duration = Duration::from_secs(1_800);

/// How often a condition is looked at. The manager pays for each look.
const POLL: Duration = Duration::from_millis(500);

/// The argument that makes this program one of many agents.
pub(crate) const AGENTS: &str = "__agents";

pub(crate) fn run() {
    println!(
        "{:>6} {:>8} {:>9} {:>9} {:>8} {:>8} {:>10} {:>9} {:>9} {:>9}",
        "nodes",
        "join s",
        "MiB",
        "CPU s/min",
        "B in",
        "B out",
        "10 tasks s",
        "CPU s",
        "MiB",
        "KB node"
    );
    let nodes = std::env::var("MIDGE_BENCH_NODES").ok();
    match nodes.and_then(|nodes| nodes.parse().ok()) {
        Some(nodes) => grow(nodes),
        None => NODES.into_iter().for_each(grow),
    }
    println!("MiB: the manager's resident memory, idle, then with all tasks. CPU: the manager's.");
    println!("B: bytes a node a minute while idle, IP level. KB node: sent to each for its tasks.");
}

fn grow(nodes: usize) {
    let mut network = Network::cluster(1);
    network.add_host();
    let [manager, beside] = &network.hosts[..] else { unreachable!("there are two") };
    let process = Process::of(manager.pid());
    let mut agents = None;
    let joining = seconds(|| agents = Some(Agents::start(manager, beside, nodes)));
    patiently("every node to be ready", || {
        let nodes_seen = Midge(manager).get("/nodes")?;
        let ready = |node: &&Value| node["Status"]["State"] == "ready";
        (nodes_seen.as_array()?.iter().filter(ready).count() == nodes + 1).then_some(())
    });
    std::thread::sleep(IDLE / 4);
    let idle_memory = process.resident();
    let before = (process.counted(), manager.link_counted());
    std::thread::sleep(IDLE);
    let after = (process.counted(), manager.link_counted());
    let idle = Counted::between(&before.0, &after.0);
    let link = Counted::between(&before.1, &after.1);
    let each = |bytes: f64| bytes / nodes as f64;
    let minute = 60.0 / IDLE.as_secs_f64();

    let before = (process.counted(), manager.link_counted());
    let tasks = seconds(|| converge(manager, nodes * TASKS));
    let after = (process.counted(), manager.link_counted());
    let busy = Counted::between(&before.0, &after.0);
    let sent = Counted::between(&before.1, &after.1).sent;
    println!(
        "{nodes:>6} {joining:>8.1} {idle_memory:>9.1} {:>9.2} {:>8.0} {:>8.0} {tasks:>10.1} {:>9.1} \
         {:>9.1} {:>9.1}",
        idle.cpu * minute,
        each(link.received) * minute,
        each(link.sent) * minute,
        busy.cpu,
        process.resident(),
        each(sent) / 1_000.0,
    );
}

/// Has every agent run its tasks.
fn converge(manager: &Host, tasks: usize) {
    for service in 0..tasks.div_ceil(REPLICAS) {
        let name = format!("many-{service}");
        let replicas = REPLICAS.min(tasks - service * REPLICAS).to_string();
        let mut args = vec!["service", "create", "-d", "-q", "--no-resolve-image"];
        args.extend(["--name", &name, "--replicas", &replicas]);
        args.extend(["--constraint", "node.role==worker", "bb:1"]);
        manager.ok(&args);
        let wanted = tasks.min((service + 1) * REPLICAS);
        patiently("every task to run", || {
            let services: Value = Midge(manager).get("/services?status=true")?;
            let running = |service: &Value| service["ServiceStatus"]["RunningTasks"].as_u64();
            let running: u64 = services.as_array()?.iter().filter_map(running).sum();
            (usize::try_from(running).ok()? == wanted).then_some(())
        });
    }
}

/// Waits for a condition, at most [`LIMIT`].
fn patiently(what: &str, mut condition: impl FnMut() -> Option<()>) {
    let start = Instant::now();
    while condition().is_none() {
        assert!(start.elapsed() < LIMIT, "gave up waiting for {what}");
        std::thread::sleep(POLL);
    }
}

/// The process of all agents. They end with it.
struct Agents(Child);

impl Agents {
    /// Starts them on a host of their own, and waits until all are members.
    fn start(manager: &Host, host: &Host, count: usize) -> Self {
        let token = manager.ok(&["swarm", "join-token", "-q", "worker"]);
        let address = format!("{}:2377", manager.address);
        let own = std::env::current_exe().unwrap();
        let mut command = host.inside(&PathBuf::from("sh"));
        let script = "ulimit -n $(ulimit -H -n); exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(own);
        command.args([AGENTS, &address, token.trim(), &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "joined\n", "the agents join");
        Self(child)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // Ended already where it failed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
