//! Machines as they come, and what the doctor says of them.

use super::{
    super::{
        facts::{
            Answer, BootFile, BootKind, Cgroups, Chain, Clock, Config, Containerd, Daemon, Disk,
            FEATURES, Facts, Firewall, Hook, Identity, Keeper, Kernel, Memory, Port, Presence,
            Program, Role, Route, Socket, SocketState, Sync, System,
        },
        finding::Level,
    },
    Init, Packages, diagnose,
};
use expect_test::{Expect, expect};
use std::net::Ipv4Addr;

const GIB: u64 = 1 << 30;

/// A fresh Debian on a server, with containerd, on which nothing is wrong.
fn debian() -> Facts {
    let disk = |role, path: &str, sync| Disk {
        role,
        path: path.to_owned(),
        file_system: Some("ext4".to_owned()),
        read_only: false,
        card: false,
        total: 100 * GIB,
        free: 80 * GIB,
        sync,
    };
    let id = "0123456789abcdef0123456789abcdef".to_owned();
    Facts {
        program: Program {
            version: "0.1.0".to_owned(),
            architecture: "x86_64".to_owned(),
            root: true,
        },
        system: System {
            name: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
            board: None,
            packages: Packages::Apt,
            init: Init::Systemd,
            bits: Some(64),
        },
        kernel: Kernel {
            release: "6.1.0-18-amd64".to_owned(),
            machine: "x86_64".to_owned(),
            features: FEATURES.map(|feature| (feature, Presence::Loadable)).into(),
            namespaces_missing: Vec::new(),
            seccomp: Some(true),
            modules_gone: false,
        },
        cgroups: Cgroups { version: 2, cpu: true, memory: true, pids: true, boot: None },
        containerd: Containerd {
            socket: "/run/containerd/containerd.sock".to_owned(),
            answer: Answer::Version("1.6.20~ds1".to_owned()),
            installed: true,
        },
        oci_runtimes: vec![("/usr/sbin/runc".to_owned(), Ok("runc version 1.1.5".to_owned()))],
        ports: [2377, 4789].map(|number| Port { number, holders: Ok(Vec::new()) }).into(),
        socket: Socket { path: "/run/midge/midge.sock".to_owned(), state: SocketState::Absent },
        clock: Clock {
            now: 1_800_000_000,
            built: 1_793_491_200,
            synchronised: Some(true),
            battery: true,
        },
        disks: vec![
            disk(Role::Data, "/var/lib/midge", Some(Ok(Sync { median: 2_150, worst: 9_000 }))),
            disk(Role::Images, "/var/lib/containerd", None),
        ],
        firewall: Firewall {
            chains: Ok(Vec::new()),
            keepers: Vec::new(),
            lets_midge_through: false,
            sees_bridges: false,
        },
        routes: Ok(vec![route("eth0", [0, 0, 0, 0], 0), route("eth0", [192, 168, 1, 0], 24)]),
        bridge_block: None,
        identity: Identity {
            machine_id: Some(format!("{id}\n")),
            dbus_machine_id: None,
            hostname: "edge-7".to_owned(),
        },
        memory: Memory { total: 8 * GIB, swaps: Vec::new() },
        config: Config::Usable,
        daemon: Ok(None),
    }
}

fn route(interface: &str, to: [u8; 4], prefix_len: u8) -> Route {
    Route { interface: interface.to_owned(), to: Ipv4Addr::from(to), prefix_len }
}

/// A Raspberry Pi as it comes.
fn raspberry_pi() -> Facts {
    let mut facts = debian();
    facts.program.architecture = "aarch64".to_owned();
    facts.system.board = Some("Raspberry Pi 4 Model B Rev 1.4".to_owned());
    facts.kernel.release = "6.6.51+rpt-rpi-v8".to_owned();
    facts.kernel.machine = "aarch64".to_owned();
    facts.cgroups.memory = false;
    facts.cgroups.boot = Some(BootFile {
        path: "/boot/firmware/cmdline.txt".to_owned(),
        kind: BootKind::Line,
        text: "console=tty1 root=PARTUUID=1-02 rootwait\n".to_owned(),
    });
    facts.containerd.answer = Answer::Absent;
    facts.containerd.installed = false;
    facts.oci_runtimes.clear();
    facts.clock.battery = false;
    facts.disks.iter_mut().for_each(|disk| disk.card = true);
    facts.identity.hostname = "raspberrypi".to_owned();
    facts.memory.swaps = vec![("/var/swap".to_owned(), 512 << 20)];
    facts
}

/// Compares what is not ok with the text.
fn check(facts: &Facts, expected: &Expect) {
    let findings = diagnose(facts);
    let mut names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|a, b| a < b), "each name is there once: {names:?}");
    let mut text = String::new();
    for finding in &findings {
        assert!(
            finding.what.ends_with(['.', ')']) || finding.what.contains("could not"),
            "{finding:?}"
        );
        assert_eq!(finding.mend.is_empty(), finding.level == Level::Ok, "{finding:?}");
        if finding.level != Level::Ok {
            let level = finding.level.as_str();
            text.push_str(&format!(
                "{level} {}: {}\n  {}\n",
                finding.name, finding.what, finding.mend
            ));
        }
    }
    expected.assert_eq(&text);
}

/// The same, of a machine that differs from the fresh Debian.
fn changed(change: impl FnOnce(&mut Facts), expected: &Expect) {
    let mut facts = debian();
    change(&mut facts);
    check(&facts, expected);
}

#[test]
fn a_fresh_debian_lacks_only_the_daemon() {
    check(&debian(), &expect![[""]]);
    let all: Vec<String> =
        diagnose(&debian()).into_iter().map(|f| format!("{}: {}", f.name, f.what)).collect();
    expect![[""]].assert_eq(&all.join("\n"));
}

#[test]
fn a_fresh_raspberry_pi_needs_words_in_its_command_line() {
    check(&raspberry_pi(), &expect![[""]]);
    let mut facts = raspberry_pi();
    if let Some(boot) = &mut facts.cgroups.boot {
        boot.text = "rootwait cgroup_enable=memory cgroup_memory=1".to_owned();
    }
    let findings = diagnose(&facts);
    let memory = findings.iter().find(|finding| finding.name == "cgroup-memory").unwrap();
    assert_eq!(memory.mend, "reboot: /boot/firmware/cmdline.txt has the words already");
}

#[test]
fn a_32_bit_system_on_a_64_bit_kernel() {
    let mut facts = raspberry_pi();
    facts.program.architecture = "arm".to_owned();
    facts.system.bits = Some(32);
    let findings = diagnose(&facts);
    let found = findings.iter().find(|finding| finding.name == "architecture").unwrap();
    assert_eq!(found.level, Level::Warning);
    expect![[""]].assert_eq(&found.what);
    changed(|facts| facts.program.architecture = "arm".to_owned(), &expect![[""]]);
    changed(|facts| facts.kernel.machine = "armv6l".to_owned(), &expect![[""]]);
}

#[test]
fn alpine_names_its_own_commands() {
    changed(
        |facts| {
            facts.system.packages = Packages::Apk;
            facts.system.init = Init::OpenRc;
            facts.cgroups =
                Cgroups { version: 0, cpu: false, memory: false, pids: false, boot: None };
            facts.containerd.answer = Answer::Absent;
            facts.containerd.installed = false;
            facts.oci_runtimes.clear();
            facts.clock.synchronised = Some(false);
            facts.identity.machine_id = None;
            facts.kernel.release = "6.6.14-0-virt".to_owned();
            facts.kernel.features[8].1 = Presence::Missing;
        },
        &expect![[""]],
    );
}

#[test]
fn kernels_that_lack_something() {
    changed(
        |facts| {
            facts.kernel.release = "4.9.337".to_owned();
            facts.kernel.features[0].1 = Presence::Missing;
            facts.kernel.features[3].1 = Presence::Unknown;
            facts.kernel.namespaces_missing = vec!["net".to_owned()];
            facts.kernel.seccomp = Some(false);
            facts.kernel.modules_gone = true;
            facts.cgroups.pids = false;
        },
        &expect![[""]],
    );
    changed(|facts| facts.kernel.release = "5.4.0-1-amd64".to_owned(), &expect![[""]]);
}

#[test]
fn firewalls_that_drop_what_goes_through() {
    let forward = |keeper: Option<Keeper>| {
        let mut facts = debian();
        let chain = |hook| Chain { table: "filter".to_owned(), hook, drops: true };
        facts.firewall.chains = Ok(vec![chain(Hook::Forward), chain(Hook::Input)]);
        facts.firewall.keepers = keeper.into_iter().collect();
        facts
    };
    check(&forward(Some(Keeper::Docker)), &expect![[""]]);
    check(&forward(Some(Keeper::Ufw)), &expect![[""]]);
    let mut firewalld = forward(Some(Keeper::Firewalld));
    firewalld.firewall.chains = Ok(Vec::new());
    firewalld.bridge_block = Some((Ipv4Addr::new(172, 30, 16, 0), 20));
    check(&firewalld, &expect![[""]]);
    let mut nobodys = forward(None);
    nobodys.firewall.sees_bridges = true;
    check(&nobodys, &expect![[""]]);
    let mut mended = forward(Some(Keeper::Docker));
    mended.firewall.lets_midge_through = true;
    check(&mended, &expect![[""]]);
}

#[test]
fn ports_and_who_holds_them() {
    changed(
        |facts| {
            facts.ports[0].holders = Ok(vec![Some(("socat".to_owned(), 812))]);
            facts.ports[1].holders = Ok(vec![None]);
        },
        &expect![[""]],
    );
    changed(
        |facts| facts.ports[0].holders = Ok(vec![Some(("midge".to_owned(), 1))]),
        &expect![[""]],
    );
}

#[test]
fn blocks_that_meet_routes() {
    let vpn = |facts: &mut Facts| {
        facts.routes = Ok(vec![
            route("wg0", [10, 0, 0, 0], 8),
            route("wg0", [172, 16, 0, 0], 12),
            route("mdg01", [172, 30, 16, 0], 20),
        ]);
    };
    changed(vpn, &expect![[""]]);
    changed(
        |facts| {
            vpn(facts);
            facts.bridge_block = Some((Ipv4Addr::new(172, 30, 16, 0), 20));
        },
        &expect![[""]],
    );
}

#[test]
fn disks_that_are_full_slow_or_unfit() {
    changed(
        |facts| {
            facts.disks[0].free = 100 << 20;
            facts.disks[0].sync = Some(Ok(Sync { median: 201_000, worst: 900_000 }));
            facts.disks[1].file_system = Some("overlay".to_owned());
            facts.disks[1].free = 10 * GIB;
        },
        &expect![[""]],
    );
    changed(
        |facts| {
            facts.disks[0].file_system = Some("tmpfs".to_owned());
            facts.disks[0].sync = Some(Ok(Sync { median: 1_200_000, worst: 2_000_000 }));
            facts.disks[1].read_only = true;
            facts.disks[1].free = GIB;
        },
        &expect![[""]],
    );
    changed(|facts| facts.disks[0].file_system = Some("nfs4".to_owned()), &expect![[""]]);
}

#[test]
fn clocks_ids_and_small_memories() {
    changed(
        |facts| {
            facts.clock.now = 86_400;
            facts.identity.machine_id = Some("uninitialized\n".to_owned());
            facts.identity.hostname = "localhost.localdomain".to_owned();
            facts.memory.total = 380 << 20;
        },
        &expect![[""]],
    );
    changed(
        |facts| {
            facts.clock.synchronised = None;
            facts.identity.machine_id = Some("0".repeat(32));
            facts.memory.total = 64 << 20;
        },
        &expect![[""]],
    );
    changed(|facts| facts.identity.dbus_machine_id = Some("f".repeat(32)), &expect![[""]]);
}

#[test]
fn without_root_it_says_what_it_did_not_see() {
    changed(
        |facts| {
            facts.program.root = false;
            facts.containerd.answer = Answer::Denied;
            facts.ports[0].holders = Ok(vec![None]);
            facts.socket.state = SocketState::Denied;
            facts.config = Config::Unseen("permission denied".to_owned());
            facts.firewall.chains = Err("only root may ask the kernel for it".to_owned());
            facts.disks[0].sync = Some(Err("only root may write to /var/lib".to_owned()));
        },
        &expect![[""]],
    );
}

#[test]
fn containerd_that_does_not_serve() {
    let answer = |answer, expected: Expect| {
        changed(|facts| facts.containerd.answer = answer, &expected);
    };
    answer(Answer::Version("1.4.13".to_owned()), expect![[""]]);
    answer(Answer::Version("v2.0.1".to_owned()), expect![[""]]);
    answer(Answer::Absent, expect![[""]]);
    answer(Answer::Silent("no answer within 5s".to_owned()), expect![[""]]);
    changed(|facts| facts.oci_runtimes[0].1 = Err("exec format error".to_owned()), &expect![[""]]);
}

#[test]
fn what_the_daemon_says_of_itself() {
    let says = |daemon: Daemon, expected: Expect| {
        changed(
            |facts| {
                facts.socket.state = SocketState::Listens;
                facts.daemon = Ok(Some(daemon));
            },
            &expected,
        );
    };
    let active =
        || Daemon { version: "0.1.0".to_owned(), swarm: "active".to_owned(), ..Daemon::default() };
    says(active(), expect![[""]]);
    says(
        Daemon { version: "0.0.9".to_owned(), swarm: "inactive".to_owned(), ..active() },
        expect![[""]],
    );
    says(Daemon { swarm: "locked".to_owned(), ..active() }, expect![[""]]);
    says(
        Daemon {
            manager: true,
            error: "there is no leader".to_owned(),
            warnings: vec![
                "WARNING: there is no leader".to_owned(),
                "WARNING: the log cannot be written: disk full".to_owned(),
                "WARNING: containerd does not answer".to_owned(),
            ],
            namesakes: 2,
            ..active()
        },
        expect![[""]],
    );
    changed(
        |facts| {
            facts.socket.state = SocketState::Listens;
            facts.daemon = Err("no answer to /version within 5 s".to_owned());
            facts.config = Config::Wrong("unknown field `colour`".to_owned());
        },
        &expect![[""]],
    );
    changed(|facts| facts.socket.state = SocketState::NotASocket, &expect![[""]]);
}
