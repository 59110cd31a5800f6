//! Machines as they come, and what the doctor says of them.

use super::{
    super::{
        facts::{
            Answer, AppArmor, BootFile, BootKind, Cgroups, Chain, Clock, Config, Containerd,
            Daemon, Disk, FEATURES, Facts, Firewall, Hook, Identity, Keeper, Kernel, Memory, Port,
            Presence, Program, Role, Route, Socket, SocketState, Sync, System,
        },
        finding::Level,
    },
    Init, Packages, diagnose,
};
use crate::runtime::apparmor;
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
        kernel: kernel(),
        cgroups: Cgroups { version: 2, cpu: true, memory: true, pids: true, boot: None },
        apparmor: AppArmor {
            state: Some(apparmor::AppArmor::Profile("midge-default".to_owned())),
            parser: true,
            installed: true,
        },
        containerd: Containerd {
            socket: "/run/containerd/containerd.sock".to_owned(),
            answer: Answer::Version("1.6.20~ds1".to_owned()),
            installed: true,
        },
        oci_runtimes: vec![("/usr/sbin/runc".to_owned(), Ok("runc version 1.1.5".to_owned()))],
        oci_configured: None,
        cluster_port: 2377,
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
        firewall: Firewall { chains: Ok(Vec::new()), keepers: Vec::new(), sees_bridges: false },
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

fn kernel() -> Kernel {
    Kernel {
        release: "6.1.0-18-amd64".to_owned(),
        machine: "x86_64".to_owned(),
        features: FEATURES.map(|feature| (feature, Presence::Loadable)).into(),
        namespaces_missing: Vec::new(),
        seccomp: Some(true),
        modules_gone: false,
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
        assert!(finding.what.ends_with('.'), "{finding:?}");
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
    check(
        &debian(),
        &expect![[r#"
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    let all: Vec<String> =
        diagnose(&debian()).into_iter().map(|f| format!("{}: {}", f.name, f.what)).collect();
    expect![[r#"
        kernel: Linux 6.1.0-18-amd64 on x86_64, Debian GNU/Linux 12 (bookworm).
        kernel-features: overlay, veth, bridge, nf-tables, nft-nat, nft-masq, nft-fib, nft-ct, ct-netlink, vxlan are loaded when needed.
        cgroups: Version 2, with cpu, memory, pids.
        apparmor: AppArmor confines containers by midge-default.
        architecture: midge for x86_64 on x86_64.
        containerd: containerd 1.6.20~ds1 answers at /run/containerd/containerd.sock.
        oci-runtime: runc version 1.1.5, at /usr/sbin/runc.
        memory: 8.0 GiB of memory, no swap.
        clock: It is 2027-01-15, and the clock is kept right.
        machine-id: The machine's id is 0123456789abcdef0123456789abcdef.
        hostname: The host name is edge-7.
        data-file-system: /var/lib/midge is on ext4.
        data-space: 80.0 GiB of 100.0 GiB are free at /var/lib/midge.
        data-fsync: A write that outlives a power cut takes 2.1 ms at /var/lib/midge, 9.0 ms at worst.
        images-file-system: /var/lib/containerd is on ext4.
        images-space: 80.0 GiB of 100.0 GiB are free at /var/lib/containerd.
        port-2377: UDP port 2377 is free.
        port-4789: UDP port 4789 is free.
        firewall-forward: Nothing drops what goes through this machine by default.
        subnets: There is room for containers in 172.30.0.0/16 and 10.210.0.0/16.
        daemon: No daemon runs: there is no /run/midge/midge.sock."#]].assert_eq(&all.join("\n"));
}

#[test]
fn a_fresh_raspberry_pi_needs_words_in_its_command_line() {
    check(
        &raspberry_pi(),
        &expect![[r#"
            warning cgroup-memory: The memory controller is off: this node gets no task with --limit-memory, and a container can take all memory.
              add cgroup_enable=memory cgroup_memory=1 to the end of the one line in /boot/firmware/cmdline.txt, then reboot
            problem containerd: containerd is not installed: there is no /run/containerd/containerd.sock.
              apt install containerd runc
            problem oci-runtime: Neither runc nor crun is installed: containers do not start.
              apt install runc
            note swap: There is swap at /var/swap, and this machine runs on a memory card, which it wears out.
              swap into compressed memory: install zram-tools, or systemd-zram-generator
            note clock-battery: There is no clock that goes on without power: after a power cut the time is wrong until the network is there.
              nothing: midge judges certificates by the last time that it knows
            note hostname: The host name is raspberrypi, which other machines have too: `midge node ls` does not tell them apart.
              hostnamectl set-hostname NAME
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
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
    expect!["The system's programs have 32 bits and the kernel (aarch64) has 64: the node is what its containerd is, and images that are built for arm64 alone do not run."].assert_eq(&found.what);
    changed(
        |facts| facts.program.architecture = "arm".to_owned(),
        &expect![[r#"
            warning architecture: This midge was built for 32 bits (arm), the system for 64.
              install midge for amd64
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.kernel.machine = "armv6l".to_owned(),
        &expect![[r#"
            problem architecture: The processor is an ARMv6, as of the first Raspberry Pi and the Zero: midge needs ARMv7.
              use a newer board
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
}

#[test]
fn apparmor_without_a_profile_for_containers() {
    let unconfined = |parser, installed| AppArmor {
        state: Some(apparmor::AppArmor::Unconfined),
        parser,
        installed,
    };
    for (parser, installed, mend) in [
        (false, true, "apt install apparmor"),
        (true, true, "apparmor_parser --replace /etc/apparmor.d/midge-default"),
        (true, false, "install midge by its package or its install.sh, which bring the profile"),
    ] {
        let mut facts = debian();
        facts.apparmor = unconfined(parser, installed);
        let findings = diagnose(&facts);
        let found = findings.iter().find(|finding| finding.name == "apparmor").unwrap();
        assert_eq!((found.level, found.mend.as_str()), (Level::Warning, mend));
    }
    let mut facts = debian();
    facts.apparmor.state = Some(apparmor::AppArmor::Off);
    assert!(diagnose(&facts).iter().all(|finding| finding.name != "apparmor"));
    facts.apparmor.state = None;
    let findings = diagnose(&facts);
    let found = findings.iter().find(|finding| finding.name == "apparmor").unwrap();
    assert_eq!(
        found.what,
        "Which profiles AppArmor has loaded could not be checked: only root may know."
    );
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
            facts.kernel.features[9].1 = Presence::Missing;
        },
        &expect![[r#"
            note kernel-vxlan: The kernel has no vxlan, for networks that span nodes, which this version does not make yet.
              apk add linux-lts, and boot that kernel
            problem cgroups: Control groups are not mounted at /sys/fs/cgroup: containers do not start.
              rc-update add cgroups && rc-service cgroups start
            problem containerd: containerd is not installed: there is no /run/containerd/containerd.sock.
              apk add containerd containerd-openrc runc && rc-update add containerd && rc-service containerd start
            problem oci-runtime: Neither runc nor crun is installed: containers do not start.
              apk add runc
            warning clock: The clock says 2027-01-15, and nothing keeps it right.
              apk add chrony && rc-update add chronyd && rc-service chronyd start
            note machine-id: There is no /etc/machine-id, by which a cloned disk is told.
              apk add dbus && dbus-uuidgen > /etc/machine-id
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              rc-update add midge && rc-service midge start; or, to try it, midge daemon
        "#]],
    );
}

#[test]
fn alpine_has_its_own_words_for_users_logs_and_restarts() {
    let alpine = || {
        let mut facts = debian();
        facts.system.packages = Packages::Apk;
        facts.system.init = Init::OpenRc;
        facts
    };
    let mut denied = alpine();
    denied.socket.state = SocketState::Denied;
    denied.containerd.answer = Answer::Silent("no answer within 5s".to_owned());
    check(
        &denied,
        &expect![[r#"
        problem containerd: containerd does not answer at /run/containerd/containerd.sock: no answer within 5s.
          look at its log: grep containerd /var/log/messages, and /var/log/containerd*
        note daemon: The daemon could not be asked: only root and the group midge may use /run/midge/midge.sock.
          run `midge doctor` as root, or let yourself in: addgroup USER midge
    "#]],
    );
    let mut older = alpine();
    older.socket.state = SocketState::Listens;
    older.daemon = Ok(Some(Daemon {
        version: "0.0.9".to_owned(),
        swarm: "active".to_owned(),
        namesakes: 1,
        ..Daemon::default()
    }));
    check(
        &older,
        &expect![[r#"
        warning daemon-version: The daemon is 0.0.9, and this program 0.1.0.
          rc-service midge restart, once the newer program is the one it starts; containers go on
        warning cluster-hostname: 1 other nodes of the cluster have this node's host name.
          echo NAME > /etc/hostname && hostname -F /etc/hostname, then rc-service midge restart
    "#]],
    );
    older.daemon = Err("no answer to /version within 5 s".to_owned());
    check(
        &older,
        &expect![[r#"
        problem daemon: What listens at /run/midge/midge.sock does not answer as midge: no answer to /version within 5 s.
          look at its log: grep midge /var/log/messages, and /var/log/midge*
    "#]],
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
            facts.cgroups.pids = false;
        },
        &expect![[r#"
            problem kernel: Linux 4.9.337 on x86_64, Debian GNU/Linux 12 (bookworm). midge needs 4.18 or newer.
              upgrade the kernel, or the distribution
            problem kernel-overlay: The kernel has no overlay, for files of containers.
              use a kernel with CONFIG_OVERLAY_FS, such as your distribution's own
            note kernel-unknown: Nothing here tells whether the kernel has nf-tables: no /proc/config.gz, no /boot/config, no /lib/modules.
              nothing, unless containers do not start
            problem kernel-namespaces: The kernel has no namespaces for net.
              use a kernel with CONFIG_NAMESPACES and CONFIG_NET_NS, such as your distribution's own
            problem kernel-seccomp: The kernel cannot filter system calls: containers do not start.
              use a kernel with CONFIG_SECCOMP_FILTER, such as your distribution's own
            warning cgroup-pids: The pids controller is off: such limits of services have no effect.
              use a kernel with CONFIG_CGROUP_PIDS, and remove cgroup_disable=pids from its command line
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| {
            facts.kernel.modules_gone = true;
            facts.kernel.features[0].1 = Presence::Missing;
        },
        &expect![[r#"
            problem kernel-modules: The modules of the running kernel 6.1.0-18-amd64 are gone, as after an upgrade: none can be loaded.
              reboot
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.kernel.release = "5.4.0-1-amd64".to_owned(),
        &expect![[r#"
            warning kernel: Linux 5.4.0-1-amd64 on x86_64, Debian GNU/Linux 12 (bookworm). Before 5.6 `midge cp` and parts of volumes do not work.
              upgrade the kernel, or the distribution
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
}

/// A chain that drops what no rule of it accepts.
fn dropping(family: &'static str, table: &str, name: &str, hook: Hook) -> Chain {
    Chain {
        family,
        table: table.to_owned(),
        name: name.to_owned(),
        legacy: false,
        hook,
        drops: true,
        lets_midge_through: false,
    }
}

/// A server whose firewall drops what goes through it, and what comes to it.
fn forward(keeper: Option<Keeper>) -> Facts {
    let mut facts = debian();
    facts.firewall.chains = Ok(vec![
        dropping("ip", "filter", "FORWARD", Hook::Forward),
        dropping("ip", "filter", "INPUT", Hook::Input),
    ]);
    facts.firewall.keepers = keeper.into_iter().collect();
    facts
}

#[test]
fn rules_of_the_older_iptables_are_mended_by_its_command() {
    let mut legacy = forward(None);
    if let Ok(chains) = &mut legacy.firewall.chains {
        chains.iter_mut().for_each(|chain| chain.legacy = true);
    }
    let mends: Vec<String> = diagnose(&legacy).into_iter().map(|finding| finding.mend).collect();
    assert!(mends.iter().any(|mend| mend.starts_with("iptables-legacy -I FORWARD")), "{mends:?}");
    assert!(mends.iter().any(|mend| mend.starts_with("iptables-legacy -I INPUT")), "{mends:?}");
}

#[test]
fn firewalls_that_drop_what_goes_through() {
    check(
        &forward(Some(Keeper::Docker)),
        &expect![[r#"
            warning firewall-forward: Docker's firewall (table filter) drops what goes through this machine: containers reach nothing outside, published ports do not answer.
              iptables -I DOCKER-USER -s 172.30.0.0/16 -j ACCEPT && iptables -I DOCKER-USER -d 172.30.0.0/16 -j ACCEPT, at every boot once Docker runs
            note firewall-input: The firewall drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
              iptables -I INPUT -p udp --dport 2377 -j ACCEPT, at every boot
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    check(
        &forward(Some(Keeper::Ufw)),
        &expect![[r#"
            warning firewall-forward: ufw (table filter) drops what goes through this machine: containers reach nothing outside, published ports do not answer.
              ufw route allow from 172.30.0.0/16 && ufw route allow to 172.30.0.0/16
            note firewall-input: ufw drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
              ufw allow 2377/udp
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    let mut firewalld = forward(Some(Keeper::Firewalld));
    firewalld.firewall.chains = Ok(vec![
        dropping("inet", "firewalld", "filter_FORWARD", Hook::Forward),
        dropping("inet", "firewalld", "filter_INPUT", Hook::Input),
    ]);
    firewalld.bridge_block = Some((Ipv4Addr::new(172, 30, 16, 0), 20));
    check(
        &firewalld,
        &expect![[r#"
            warning firewall-forward: firewalld (table inet firewalld) drops what goes through this machine: containers reach nothing outside, published ports do not answer.
              firewall-cmd --permanent --zone=trusted --add-source=172.30.16.0/20 && firewall-cmd --reload
            note firewall-input: firewalld drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
              firewall-cmd --permanent --add-port=2377/udp && firewall-cmd --reload
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    let mut nobodys = forward(None);
    nobodys.firewall.sees_bridges = true;
    check(
        &nobodys,
        &expect![[r#"
            warning firewall-forward: The firewall (table filter) drops what goes through this machine: containers reach nothing outside, published ports do not answer, nor between containers of one node.
              iptables -I FORWARD -s 172.30.0.0/16 -j ACCEPT && iptables -I FORWARD -d 172.30.0.0/16 -j ACCEPT, at every boot; or the same in the rules of your firewall
            note firewall-input: The firewall drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
              iptables -I INPUT -p udp --dport 2377 -j ACCEPT, at every boot
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    let mut mended = forward(Some(Keeper::Docker));
    if let Ok(chains) = &mut mended.firewall.chains {
        chains[0].lets_midge_through = true;
    }
    check(
        &mended,
        &expect![[r#"
            note firewall-input: The firewall drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
              iptables -I INPUT -p udp --dport 2377 -j ACCEPT, at every boot
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
}

#[test]
fn every_chain_that_drops_has_a_fix_of_its_own() {
    // An accept in Docker's chain, which counts for nothing in the others.
    let mut beside = forward(Some(Keeper::Docker));
    if let Ok(chains) = &mut beside.firewall.chains {
        chains[0].lets_midge_through = true;
        chains.push(dropping("inet", "filter", "forward", Hook::Forward));
        chains.push(dropping("ip6", "filter", "FORWARD", Hook::Forward));
        chains.push(dropping("inet", "filter", "input", Hook::Input));
    }
    beside.bridge_block = Some((Ipv4Addr::new(172, 30, 16, 0), 20));
    beside.cluster_port = 7000;
    beside.ports[0].number = 7000;
    check(
        &beside,
        &expect![[r#"
        warning firewall-forward: The firewall (table inet filter) drops what goes through this machine: containers reach nothing outside, published ports do not answer.
          nft insert rule inet filter forward ip saddr 172.30.16.0/20 accept && nft insert rule inet filter forward ip daddr 172.30.16.0/20 accept, and the same in /etc/nftables.conf, for every boot
        note firewall-input: The firewall drops what comes to this machine unless a rule accepts it: a manager needs UDP 7000, a worker no port.
          iptables -I INPUT -p udp --dport 7000 -j ACCEPT, at every boot; and nft insert rule inet filter input udp dport 7000 accept, and the same in /etc/nftables.conf, for every boot
        note daemon: No daemon runs: there is no /run/midge/midge.sock.
          systemctl enable --now midge; or, to try it, midge daemon
    "#]],
    );
    let mut both = forward(Some(Keeper::Docker));
    both.firewall.keepers.push(Keeper::Firewalld);
    if let Ok(chains) = &mut both.firewall.chains {
        chains.push(dropping("inet", "firewalld", "filter_FORWARD", Hook::Forward));
    }
    check(
        &both,
        &expect![[r#"
        warning firewall-forward: Docker's firewall (table filter) and firewalld (table inet firewalld) drop what goes through this machine: containers reach nothing outside, published ports do not answer.
          iptables -I DOCKER-USER -s 172.30.0.0/16 -j ACCEPT && iptables -I DOCKER-USER -d 172.30.0.0/16 -j ACCEPT, at every boot once Docker runs; and firewall-cmd --permanent --zone=trusted --add-source=172.30.0.0/16 && firewall-cmd --reload
        note firewall-input: The firewall drops what comes to this machine unless a rule accepts it: a manager needs UDP 2377, a worker no port.
          iptables -I INPUT -p udp --dport 2377 -j ACCEPT, at every boot
        note daemon: No daemon runs: there is no /run/midge/midge.sock.
          systemctl enable --now midge; or, to try it, midge daemon
    "#]],
    );
}

#[test]
fn ports_and_who_holds_them() {
    changed(
        |facts| {
            facts.ports[0].holders = Ok(vec![Some(("socat".to_owned(), 812))]);
            facts.ports[1].holders = Ok(vec![None]);
        },
        &expect![[r#"
            problem port-2377: UDP port 2377 is held by socat (process 812).
              end that program, or give midge another port on this node: midge swarm init --listen-addr 0.0.0.0:PORT (the same for join)
            note port-4789: UDP port 4789 is held by the kernel, or by a program of another container.
              nothing: this version does not use it
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.ports[0].holders = Ok(vec![Some(("midge".to_owned(), 1))]),
        &expect![[r#"
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
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
    changed(
        vpn,
        &expect![[r#"
            problem subnets: Containers get addresses of 172.30.0.0/16 and 10.210.0.0/16, and routes of this machine cover all of them (172.16.0.0/12 behind wg0, for one).
              narrow those routes, so that a /20 is left for containers
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| {
            vpn(facts);
            facts.bridge_block = Some((Ipv4Addr::new(172, 30, 16, 0), 20));
        },
        &expect![[r#"
            warning subnets: Containers here have 172.30.16.0/20, and so has what is behind wg0 (172.16.0.0/12): they cannot reach that.
              reboot: where the route is there first, midge takes another block
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
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
        &expect![[r#"
            warning data-space: 100 MiB of 100.0 GiB are free at /var/lib/midge.
              make room: du -xh / | sort -h | tail shows where it goes
            warning data-fsync: A write that outlives a power cut takes 201 ms at /var/lib/midge, 900 ms at worst.
              use another disk; do not make this node a manager
            problem images-file-system: /var/lib/containerd is an overlay itself, on which containerd can make no other.
              mount a disk with ext4 at /var/lib/containerd, or set root = "DIR" in /etc/containerd/config.toml
            note images-space: 10.0 GiB of 100.0 GiB are free at /var/lib/containerd. Above 85 % midge removes images that nothing uses.
              make room: midge image prune -a, midge system df
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| {
            facts.disks[0].file_system = Some("tmpfs".to_owned());
            facts.disks[0].sync = Some(Ok(Sync { median: 1_200_000, worst: 2_000_000 }));
            facts.disks[1].read_only = true;
            facts.disks[1].free = GIB;
        },
        &expect![[r#"
            problem data-file-system: /var/lib/midge is in memory: what midge remembers of its cluster is lost with the power.
              mount a disk with ext4 at /var/lib/midge, or give another folder: midge daemon --data-dir DIR
            problem data-fsync: A write that outlives a power cut takes 1200 ms at /var/lib/midge, 2000 ms at worst.
              use another disk; do not make this node a manager
            problem images-file-system: /var/lib/containerd is read-only.
              mount it writable; after errors of the disk check it first: dmesg, fsck
            warning images-space: 1.0 GiB of 100.0 GiB are free at /var/lib/containerd.
              make room: midge image prune -a, midge system df
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.disks[0].file_system = Some("nfs4".to_owned()),
        &expect![[r#"
            problem data-file-system: /var/lib/midge is on nfs4, over the network: what midge remembers of its cluster must be on a disk of this machine.
              mount a disk with ext4 at /var/lib/midge, or give another folder: midge daemon --data-dir DIR
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
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
        &expect![[r#"
            note memory: 380 MiB of memory, no swap. containerd and midge take some 80 MiB of it.
              swap into compressed memory: install zram-tools, or systemd-zram-generator
            problem clock: The clock says 1970-01-02, which cannot be: certificates and logs are wrong.
              timedatectl set-ntp true
            note machine-id: /etc/machine-id is not made yet: systemd does so at the first boot.
              reboot, or rm -f /etc/machine-id && systemd-machine-id-setup
            note hostname: The host name is localhost.localdomain, which other machines have too: `midge node ls` does not tell them apart.
              hostnamectl set-hostname NAME
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| {
            facts.clock.synchronised = None;
            facts.identity.machine_id = Some("0".repeat(32));
            facts.memory.total = 64 << 20;
        },
        &expect![[r#"
            problem memory: 64 MiB of memory, no swap. containerd, midge and one container do not fit.
              use a machine with 256 MiB or more
            note clock: The clock says 2027-01-15; the kernel does not tell whether something keeps it right.
              if nothing does: timedatectl set-ntp true
            warning machine-id: /etc/machine-id is 00000000000000000000000000000000, which other machines have too.
              rm -f /etc/machine-id && systemd-machine-id-setup, then reboot; on an image that is cloned, empty the file before
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.identity.dbus_machine_id = Some("f".repeat(32)),
        &expect![[r#"
            warning machine-id: /var/lib/dbus/machine-id is another than /etc/machine-id, as on a disk that was cloned and given one of them anew: other machines may have the older.
              ln -sf /etc/machine-id /var/lib/dbus/machine-id
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
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
        &expect![[r#"
            note containerd: containerd could not be asked: only root may use /run/containerd/containerd.sock.
              run `midge doctor` as root
            note data-fsync: How fast /var/lib/midge is could not be checked: only root may write to /var/lib.
              run `midge doctor` as root
            note port-2377: UDP port 2377 is in use, and only root sees by which program.
              run `midge doctor` as root
            note firewall-forward: The packet filter could not be checked: only root may ask the kernel for it.
              run `midge doctor` as root
            note config: The configuration could not be checked: permission denied.
              run `midge doctor` as root
            note daemon: The daemon could not be asked: only root and the group midge may use /run/midge/midge.sock.
              run `midge doctor` as root, or let yourself in: usermod -aG midge USER
        "#]],
    );
}

#[test]
fn containerd_that_does_not_serve() {
    let answer = |answer, expected: Expect| {
        changed(|facts| facts.containerd.answer = answer, &expected);
    };
    answer(
        Answer::Version("1.4.13".to_owned()),
        expect![[r#"
            problem containerd: containerd is 1.4.13; midge needs 1.6 or newer.
              upgrade containerd, if need be by the packages that Docker keeps: containerd.io
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    answer(
        Answer::Version("v2.0.1".to_owned()),
        expect![[r#"
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    answer(
        Answer::Absent,
        expect![[r#"
            problem containerd: containerd does not run: there is no /run/containerd/containerd.sock.
              systemctl enable --now containerd
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    answer(
        Answer::Silent("no answer within 5s".to_owned()),
        expect![[r#"
            problem containerd: containerd does not answer at /run/containerd/containerd.sock: no answer within 5s.
              look at its log: journalctl -u containerd
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| {
            facts.oci_configured = Some("/opt/kata".to_owned());
            facts.oci_runtimes[0].1 = Err("there is no such program".to_owned());
        },
        &expect![[r#"
            problem oci-runtime: The configuration has /opt/kata start containers, which does not work: there is no such program.
              install it; or remove the line `runtime` from the configuration, then systemctl restart midge
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
    changed(
        |facts| facts.oci_runtimes[0].1 = Err("exec format error".to_owned()),
        &expect![[r#"
            problem oci-runtime: /usr/sbin/runc does not work: exec format error.
              apt install runc
            note daemon: No daemon runs: there is no /run/midge/midge.sock.
              systemctl enable --now midge; or, to try it, midge daemon
        "#]],
    );
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
        expect![[r#"
            warning daemon-version: The daemon is 0.0.9, and this program 0.1.0.
              systemctl restart midge, once the newer program is the one it starts; containers go on
            note cluster: This node is in no cluster.
              midge swarm init, or the `midge swarm join` that another node's `midge swarm join-token worker` prints
        "#]],
    );
    says(
        Daemon { swarm: "locked".to_owned(), ..active() },
        expect![[r#"
        problem cluster: This manager is locked since its restart.
          midge swarm unlock
    "#]],
    );
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
        expect![[r#"
            problem cluster: This node is a manager, and says: there is no leader.
              midge node ls
            warning daemon-warning: The daemon warns: the log cannot be written: disk full.
              midge info
            warning cluster-hostname: 2 other nodes of the cluster have this node's host name.
              hostnamectl set-hostname NAME, then systemctl restart midge
        "#]],
    );
    changed(
        |facts| {
            facts.socket.state = SocketState::Listens;
            facts.daemon = Err("no answer to /version within 5 s".to_owned());
            facts.config = Config::Wrong("unknown field `colour`".to_owned());
        },
        &expect![[r#"
            problem config: The daemon does not start: unknown field `colour`.
              correct that file; midge's README lists what it may hold
            problem daemon: What listens at /run/midge/midge.sock does not answer as midge: no answer to /version within 5 s.
              look at its log: journalctl -u midge
        "#]],
    );
    changed(
        |facts| facts.socket.state = SocketState::NotASocket,
        &expect![[r#"
        problem daemon: The daemon does not start: /run/midge/midge.sock is no socket.
          move /run/midge/midge.sock away
    "#]],
    );
}
