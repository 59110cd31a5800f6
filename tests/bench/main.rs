//! What midge costs, beside Docker Swarm and the bare runtime: `make bench`; what several managers
//! cost: `make bench BENCH=managers`; what many nodes cost: `make bench BENCH=growth`.
//!
//! Each prints one table of this machine, now. Absolute figures mean little anywhere else: the ratios
//! between columns of one run do. Swarm's column is empty where `dockerd` is not installed. Needs
//! root; uses the test hosts, and the static binary where `MIDGE_TEST_BINARY` names one.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot measure stops")]
#![expect(clippy::print_stdout, reason = "it prints a table")]

mod agents;
mod engine;
mod growth;
#[path = "../it/host.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod host;
mod managers;
mod process;

use engine::{Docker, Engine, Midge, Updated, floor, update};
use host::{Network, can_run, midge_binary, which};
use process::{Counted, Process};
use std::{
    fs,
    time::{Duration, Instant},
};

/// How many tasks the larger measurements run.
const MANY: usize = 100;

/// How many tasks an update replaces.
const UPDATED: usize = 10;

/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(60);

/// How long a cluster may take to fall silent after it was busy.
const SETTLE: Duration = Duration::from_secs(15);

/// How often short measurements are repeated; the median counts.
const REPEAT: usize = 3;

/// One line of the table.
struct Row {
    what: &'static str,
    midge: f64,
    beside: Option<(&'static str, f64)>,
    target: String,
    unit: &'static str,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn main() {
    if !can_run() {
        return;
    }
    // The harness of cargo adds a flag of its own.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    match args.next().as_deref() {
        None | Some("cost") => cost(),
        Some("growth") => growth::run(),
        Some("managers") => managers::run(),
        Some(growth::AGENTS) => {
            let rest: Vec<String> = args.collect();
            agents::run(&rest[0], &rest[1], rest[2].parse().unwrap());
        }
        Some(other) => println!("no such benchmark: {other}; there are cost, managers and growth"),
    }
}

fn cost() {
    let mut rows = vec![size()];
    idle(&mut rows);
    busy(&mut rows);
    println!("{:<52} {:>9} {:>22}  target", "", "midge", "beside it");
    for Row { what, midge, beside, target, unit } in rows {
        let beside = beside.map_or(String::new(), |(who, value)| format!("{who} {value:.2}"));
        println!("{what:<52} {midge:>9.2} {beside:>22}  {target} {unit}");
    }
}

fn size() -> Row {
    let bytes = fs::metadata(midge_binary()).unwrap().len();
    Row {
        what: "the binary, stripped",
        midge: bytes as f64 / 1_048_576.0,
        beside: None,
        target: "<= 9".to_owned(),
        unit: "MiB",
    }
}

/// Three nodes and thirty tasks, left alone.
fn idle(rows: &mut Vec<Row>) {
    let network = Network::cluster(3);
    network.load_busybox();
    let midge = Midge(network.manager());
    midge.create("idle", 30, None);
    midge.wait("idle", 30);
    let swarm = which("dockerd").map(|_| Docker::idle_memory());
    std::thread::sleep(SETTLE);
    let [manager, worker] =
        [0, 1].map(|n| Process::of(network.hosts[n].daemon.as_ref().unwrap().0.id()));
    let before = [manager.counted(), worker.counted(), network.hosts[1].link_counted()];
    std::thread::sleep(IDLE);
    let after = [manager.counted(), worker.counted(), network.hosts[1].link_counted()];
    let mut row = |what, midge, beside, target: &str, unit| {
        let target = target.to_owned();
        rows.push(Row { what, midge, beside, target, unit });
    };
    let swarm_manager = swarm.map(|(manager, _)| ("swarm", manager));
    let swarm_worker = swarm.map(|(_, worker)| ("swarm", worker));
    row(
        "idle manager of 3 nodes, 30 tasks: resident",
        manager.resident(),
        swarm_manager,
        "<= 20",
        "MiB",
    );
    row("idle worker: resident", worker.resident(), swarm_worker, "<= 12", "MiB");
    let loggers = Process::named(&["__logger", &network.hosts[1].dir.display().to_string()]);
    let shims = Process::named(&["containerd-shim", &network.hosts[1].dir.display().to_string()]);
    let containerd =
        Process::named(&["containerd.toml", &network.hosts[1].dir.display().to_string()]);
    let mean = |all: &[Process], of: fn(&Process) -> f64| {
        all.iter().map(of).sum::<f64>() / all.len().max(1) as f64
    };
    row("a logger: private memory", mean(&loggers, Process::private), None, "<= 1", "MiB");
    row("a shim beside it: proportional", mean(&shims, Process::proportional), None, "-", "MiB");
    row("containerd beside it: resident", mean(&containerd, Process::resident), None, "-", "MiB");
    let Counted { written, .. } = Counted::between(&before[0], &after[0]);
    row("idle manager: written to disk in 60 s", written, None, "0", "bytes");
    let Counted { written, .. } = Counted::between(&before[1], &after[1]);
    row("idle worker: written to disk in 60 s", written, None, "0", "bytes");
    let link = Counted::between(&before[2], &after[2]);
    row("idle worker: sent in 60 s, at IP level", link.sent / 1000.0, None, "<= 6", "KB");
    row("idle worker: received in 60 s, at IP level", link.received / 1000.0, None, "<= 6", "KB");
    let cpu = |index: usize| Counted::between(&before[index], &after[index]).cpu;
    row("idle manager: CPU in 60 s", cpu(0), None, "-", "s");
    row("idle worker: CPU in 60 s", cpu(1), None, "-", "s");
}

/// One node, and a hundred tasks at once.
fn busy(rows: &mut Vec<Row>) {
    let network = Network::cluster(1);
    network.load_busybox();
    let midge = Midge(network.manager());
    let bare = floor(network.manager(), MANY);
    let ours = Figures::of(&midge);
    drop(network);
    let swarm = which("dockerd").map(|_| {
        let docker = Docker::start();
        Figures::of(&docker)
    });
    let mut row = |what, midge: f64, beside: Option<(&'static str, f64)>, factor: f64| {
        let target = match beside {
            Some((_, value)) => format!("<= {:.2}", value * factor),
            None => "-".to_owned(),
        };
        rows.push(Row { what, midge, beside, target, unit: "s" });
    };
    row("100 tasks on one node until all run, over ctr", ours.create, Some(("ctr", bare)), 1.25);
    let of = |figure: fn(&Figures) -> f64| swarm.as_ref().map(|swarm| ("swarm", figure(swarm)));
    row("the same, over Swarm", ours.create, of(|figures| figures.create), 1.0);
    row("crash to replacement, restart delay 1 ms", ours.crash, of(|figures| figures.crash), 0.56);
    row("scale 100 to 0", ours.remove, of(|figures| figures.remove), 0.6);
    let stop = (ours.stop_first.all, of(|figures| figures.stop_first.all));
    row("update of 10 tasks, one at a time, stop-first", stop.0, stop.1, 0.5);
    let gap = (ours.stop_first.gap, of(|figures| figures.stop_first.gap));
    row("the same: a slot is empty for", gap.0, gap.1, 1.0);
    let start = (ours.start_first.all, of(|figures| figures.start_first.all));
    row("update of 10 tasks, one at a time, start-first", start.0, start.1, 1.0);
}

/// What is measured of each engine alike.
struct Figures {
    create: f64,
    remove: f64,
    crash: f64,
    stop_first: Updated,
    start_first: Updated,
}

impl Figures {
    fn of(engine: &dyn Engine) -> Self {
        let runs: Vec<(f64, f64)> = (0..REPEAT)
            .map(|run| {
                let name = format!("many{run}");
                let create = seconds(|| {
                    engine.create(&name, MANY, None);
                    engine.wait(&name, MANY);
                });
                let remove = seconds(|| {
                    engine.scale(&name, 0);
                    engine.wait_containers(0);
                });
                engine.remove(&name);
                (create, remove)
            })
            .collect();
        engine.create("crash", 1, Some("1ms"));
        engine.wait("crash", 1);
        let crash = (0..REPEAT).map(|_| engine.crash("crash")).collect();
        engine.remove("crash");
        engine.create("updated", UPDATED, None);
        let updated = |order| {
            let runs: Vec<Updated> = (0..REPEAT)
                .map(|_| {
                    engine.wait("updated", UPDATED);
                    update(engine, "updated", UPDATED, order)
                })
                .collect();
            Updated {
                all: median(runs.iter().map(|run| run.all).collect()),
                gap: median(runs.iter().map(|run| run.gap).collect()),
            }
        };
        let (stop_first, start_first) = (updated("stop-first"), updated("start-first"));
        engine.remove("updated");
        let (create, remove) = runs.into_iter().unzip();
        let (create, remove, crash) = (median(create), median(remove), median(crash));
        Self { create, remove, crash, stop_first, start_first }
    }
}
