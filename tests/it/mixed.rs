//! One cluster of several architectures: midge and containers of the others run by emulation.
//!
//! Each node has a containerd of its own, which says that it is of the node's platform, as one that
//! was built for it does. The emulator knows no packet filter, so what runs on such a node has the
//! node's own network.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    host::{Host, Network, can_run, eventually, eventually_so, midge_binary, note, which},
    registry::{Access, Part, push_index, start_registry},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// An architecture that midge is built for.
struct Architecture {
    /// The compiler's word for it.
    name: &'static str,
    /// What its programs are built by.
    compiler: &'static str,
    target: &'static str,
    emulator: &'static str,
    /// The architecture and the variant of its images.
    image: (&'static str, &'static str),
}

const X86_64: Architecture = Architecture {
    name: "x86_64",
    compiler: "x86_64-linux-gnu-gcc",
    target: "x86_64-unknown-linux-gnu",
    emulator: "qemu-x86_64",
    image: ("amd64", ""),
};
const AARCH64: Architecture = Architecture {
    name: "aarch64",
    compiler: "aarch64-linux-gnu-gcc",
    target: "aarch64-unknown-linux-gnu",
    emulator: "qemu-aarch64",
    image: ("arm64", ""),
};
const ARMV7: Architecture = Architecture {
    name: "arm",
    compiler: "arm-linux-gnueabihf-gcc",
    target: "armv7-unknown-linux-gnueabihf",
    emulator: "qemu-arm",
    image: ("arm", "v7"),
};

/// The registrations of this process.
struct Registered {
    /// How many there are.
    now: u32,
    /// How many there have been: each has a name of its own.
    ever: u32,
    /// What they are made in was mounted for them.
    mounted: bool,
}

static REGISTERED: Mutex<Registered> = Mutex::new(Registered { now: 0, ever: 0, mounted: false });

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

impl Architecture {
    fn is_here(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// The program as `cross/build.sh` builds it; the one under test where it is this machine's.
    fn midge(&self) -> PathBuf {
        if self.is_here() {
            return midge_binary();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("target").join(self.target).join("release/midge")
    }

    /// The platform as containerd writes it.
    fn platform(&self) -> String {
        match self.image {
            (name, "") => format!("linux/{name}"),
            (name, variant) => format!("linux/{name}/{variant}"),
        }
    }

    fn format(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/binfmt.d/{}.conf", self.emulator))
    }

    /// Builds the program that images are made of.
    fn build_program(&self, dir: &Path) -> PathBuf {
        let program = dir.join(self.name);
        let compiler = if self.is_here() { "cc" } else { self.compiler };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mixed/program.c");
        let mut command = Command::new(compiler);
        let built = command.args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(source);
        assert!(built.status().unwrap().success(), "{compiler}");
        program
    }
}

fn registered() -> MutexGuard<'static, Registered> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs of another architecture, which the kernel hands to an emulator; until dropped.
struct Emulated(String);

impl Emulated {
    /// None where the kernel takes none here.
    fn register(architecture: &Architecture) -> Option<Self> {
        let mut registered = registered();
        if registered.now == 0 && !Path::new(BINFMT).join("register").exists() {
            let mount = ["-t", "binfmt_misc", "binfmt_misc", BINFMT];
            registered.mounted = Command::new("mount").args(mount).status().unwrap().success();
        }
        let format = fs::read_to_string(architecture.format()).unwrap();
        let name = format!("midge-it-{}-{}", std::process::id(), registered.ever);
        let format = format.trim().replacen(architecture.emulator, &name, 1);
        let written = fs::write(Path::new(BINFMT).join("register"), format);
        // Counted all the same: what was mounted for it is unmounted when it is dropped.
        registered.now += 1;
        registered.ever += 1;
        drop(registered);
        let emulated = Self(name);
        written.is_ok().then_some(emulated)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let mut registered = registered();
        fs::write(Path::new(BINFMT).join(&self.0), "-1").ok();
        registered.now -= 1;
        if registered.now == 0 && std::mem::take(&mut registered.mounted) {
            Command::new("umount").arg(BINFMT).output().ok();
        }
    }
}

/// Hosts of these architectures, with containerd and no daemon yet.
struct Mixed {
    network: Network,
    // After the network: what is left of it is ended by commands of its own architecture.
    _emulated: Vec<Emulated>,
}

impl Mixed {
    /// None, with a word, where this machine lacks something for it.
    fn new(architectures: &[&Architecture]) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let others: Vec<_> = architectures.iter().filter(|one| !one.is_here()).collect();
        let lacks = others.iter().find_map(|one| {
            [one.midge(), one.format()]
                .into_iter()
                .find(|path| !path.exists())
                .or_else(|| which(one.compiler).is_none().then(|| PathBuf::from(one.compiler)))
        });
        if let Some(lacks) = lacks {
            note(&format!("skipped: needs {}", lacks.display()));
            return None;
        }
        let Some(emulated) = others.iter().map(|one| Emulated::register(one)).collect() else {
            note("skipped: the kernel hands programs to no emulator here");
            return None;
        };
        let mut network = Network::new(architectures.len());
        for (host, architecture) in network.hosts.iter_mut().zip(architectures) {
            become_of(host, architecture);
        }
        Some(Self { network, _emulated: emulated })
    }
}

/// Makes a host one of this architecture; its containerd is begun anew.
fn become_of(host: &mut Host, architecture: &Architecture) {
    host.binary = architecture.midge();
    host.platform = Some(architecture.platform());
    host.kill_containerd();
    host.start_containerd();
}

/// What runs on its node's own network; the emulator makes calls of this machine's, which the profile
/// of another lacks.
const CREATE: [&str; 7] =
    ["service", "create", "-d", "--network=host", "--security-opt", "seccomp=unconfined", "--name"];

/// Returns `node built for ARCHITECTURE` of each line that a service's tasks printed, sorted.
fn printed(manager: &Host, service: &str) -> Vec<String> {
    let mut lines: Vec<String> = manager
        .ok(&["service", "logs", service])
        .lines()
        .filter_map(|line| {
            let (task, said) = line.split_once('|')?;
            Some(format!("{} {}", task.trim().rsplit_once('@')?.1, said.trim()))
        })
        .collect();
    lines.sort();
    lines
}

/// Fills a registry: `all` in two versions for every architecture, `amd64` and `arm` for some, and
/// `nobodys` for none. Returns its address.
fn fill_registry(network: &mut Network, all: &[&Architecture]) -> String {
    let registry = start_registry(&mut network.hosts[0], Access::Open);
    let dir = network.folder().to_owned();
    let programs: Vec<PathBuf> = all.iter().map(|one| one.build_program(&dir)).collect();
    let parts: Vec<Part<'_>> = all
        .iter()
        .zip(&programs)
        .map(|(one, program)| Part { architecture: one.image.0, variant: one.image.1, program })
        .collect();
    let host = network.manager();
    push_index(host, &registry, "all", "1", &parts);
    push_index(host, &registry, "all", "2", &parts);
    push_index(host, &registry, "amd64", "1", &parts[..1]);
    push_index(host, &registry, "arm", "1", &parts[1..]);
    let program = &programs[0];
    let nobodys = Part { architecture: "riscv64", variant: "", program };
    push_index(host, &registry, "nobodys", "1", &[nobodys]);
    registry
}

#[test]
fn every_node_runs_its_own_variant_of_an_image() {
    let all = [&X86_64, &AARCH64, &ARMV7];
    let Some(mut mixed) = Mixed::new(&all) else { return };
    let network = &mut mixed.network;
    let config = network.folder().join("config.toml");
    let first = network.hosts[0].address.clone();
    fs::write(&config, format!("[registry]\nplain_http = [\"{first}:5000\"]\n")).unwrap();
    let registry = fill_registry(network, &all);
    network.found_with(1, &["--config", config.to_str().unwrap()]);
    let manager = network.manager();
    let shown = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Platform}}"]);
    assert_eq!(shown, "n1 linux/x86_64\nn2 linux/aarch64\nn3 linux/armv7l/v7\n");

    let image = |name: &str| format!("{registry}/{name}");
    let create = |more: &[&str]| manager.ok(&[&CREATE[..], more].concat());
    create(&["every", "--mode", "global", &image("all:1")]);
    manager.wait_running("every", 3);
    let wanted = ["n1 built for amd64", "n2 built for arm64", "n3 built for arm"];
    eventually_so("each node's line", || {
        let lines = printed(manager, "every");
        (lines == wanted).then_some(()).ok_or_else(|| format!("{lines:?}"))
    });
    let task = manager.ok(&["service", "ps", "every", "-q", "--no-trunc", "--filter", "node=n3"]);
    assert_eq!(manager.ok(&["exec", task.trim(), "/program", "once"]), "built for arm\n");

    create(&["server", "--replicas", "3", &image("amd64:1")]);
    create(&["boards", "--replicas", "4", &image("arm:1")]);
    create(&["nowhere", &image("nobodys:1")]);
    let on = |service: &str, count: usize| {
        let tasks = manager.wait_running(service, count);
        tasks.iter().map(|task| task[..2].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(on("server", 3), ["n1", "n1", "n1"]);
    assert_eq!(on("boards", 4), ["n2", "n2", "n3", "n3"]);
    let says = eventually("the reason to be told", || {
        let says = manager.ok(&["service", "ps", "nowhere", "--no-trunc"]);
        says.contains("no suitable node").then_some(says)
    });
    assert!(says.contains("unsupported platform on 3 nodes"), "{says}");

    // An update goes round, and what is drained goes where its image runs.
    manager.ok(&["service", "update", "-q", "--image", &image("all:2"), "every"]);
    let shown = manager.ok(&[
        "service",
        "ps",
        "every",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.Image}} {{.Node}}",
    ]);
    assert_eq!(
        shown.lines().filter(|line| line.starts_with(&image("all:2"))).count(),
        3,
        "{shown}"
    );
    manager.ok(&["node", "update", "--availability", "drain", "--wait", "n3"]);
    assert_eq!(on("boards", 4), ["n2", "n2", "n2", "n2"]);
    assert_eq!(on("every", 2), ["n1", "n2"]);
    manager.ok(&["node", "update", "--availability", "active", "n3"]);
    assert_eq!(on("every", 3), ["n1", "n2", "n3"]);

    // A board's state is read by another board's midge, and back; nothing that runs is touched.
    let before = network.hosts[1].running_in_containerd();
    assert_eq!(before.len(), 5, "{before:?}");
    for binary in [X86_64.midge(), ARMV7.midge(), AARCH64.midge()] {
        let host = &mut network.hosts[1];
        host.stop_daemon();
        host.binary = binary;
        host.start_daemon_with(&["--config", config.to_str().unwrap()]);
        network.await_nodes(1, 2);
        assert_eq!(network.hosts[1].running_in_containerd(), before);
    }
}

#[test]
fn managers_of_three_architectures_are_one_control_plane() {
    let Some(mut mixed) = Mixed::new(&[&AARCH64, &X86_64, &ARMV7, &X86_64]) else { return };
    let network = &mut mixed.network;
    network.found(3);
    let first = network.manager();
    let leader =
        |network: &Network, of: usize| eventually("a leader", || network.hosts[of].leader());
    assert_eq!(leader(network, 0), 1, "the one that founded it");
    network.load_busybox();
    // Nodes of this machine's own architecture run it.
    let create = ["service", "create", "-d", "--name", "web", "--replicas", "2", "bb:1"];
    let sleep = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];
    first.ok(&[&create[..], &sleep].concat());
    let before = first.wait_running("web", 2);

    // Whoever leads next has the state from bytes that another architecture wrote.
    network.hosts[0].kill_daemon();
    let second = eventually("another leader", || network.hosts[1].leader().filter(|it| *it != 1));
    let other = &network.hosts[second - 1];
    assert_eq!(other.running("web"), before);
    eventually_so("a change", || {
        let update = other.midge(&["service", "update", "-d", "--label-add", "a=b", "web"]);
        update.status.success().then_some(()).ok_or_else(|| format!("{update:?}"))
    });
    network.hosts[0].start_daemon();
    network.await_nodes(3, 1);
    for host in &network.hosts[..3] {
        assert_eq!(host.inspect("service", "web")["Spec"]["Labels"]["a"], "b");
    }
    assert_eq!(network.manager().running("web"), before);

    // The same state, read by the program of another architecture.
    for (host, binary) in [(0, ARMV7.midge()), (2, X86_64.midge()), (1, AARCH64.midge())] {
        let host = &mut network.hosts[host];
        host.stop_daemon();
        host.binary = binary;
        host.start_daemon();
        network.await_nodes(3, 1);
    }
    for host in &network.hosts[..3] {
        assert_eq!(host.inspect("service", "web")["Spec"]["Labels"]["a"], "b");
    }
}

/// Unwinding is by tables that each architecture's linker makes, and nothing else in a run needs them.
/// The database that makes one necessary is one whose pages are not what they should be: the crate
/// that reads it panics.
#[test]
fn a_panic_ends_one_request_and_no_daemon_of_any_architecture() {
    let Some(mut mixed) = Mixed::new(&[&X86_64, &X86_64, &AARCH64, &ARMV7]) else { return };
    let network = &mut mixed.network;
    network.hosts[0].start_daemon();
    let first = &network.hosts[0];
    first.ok(&["swarm", "init", "--advertise-addr", &first.address]);
    let token = first.ok(&["swarm", "join-token", "-q", "worker"]);
    network.hosts[0].stop_daemon();
    let mut damaged = fs::read(network.hosts[0].dir.join("data/agent.redb")).unwrap();
    for page in damaged.chunks_mut(4096).skip(1) {
        // A leaf, or what leads to leaves.
        if matches!(page[0], 1 | 2) {
            page[0] = 0x7f;
        }
    }
    network.hosts[0].start_daemon();
    let manager = format!("{}:2377", network.hosts[0].address);
    for host in &mut network.hosts[1..] {
        let database = host.dir.join("data/agent.redb");
        fs::create_dir_all(database.parent().unwrap()).unwrap();
        fs::write(&database, &damaged).unwrap();
        host.start_daemon();
        let join = ["swarm", "join", "--token", token.trim(), &manager];
        for _ in 0..2 {
            let says = host.refused(&join);
            assert!(says.contains("the database contradicts itself"), "{says}");
            let state = host.ok(&["info", "--format", "{{.Swarm.LocalNodeState}}"]);
            assert_eq!(state, "inactive\n");
        }
        fs::remove_file(&database).unwrap();
        host.ok(&join);
    }
    network.await_nodes(1, 3);
}
