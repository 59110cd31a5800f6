//! Other machines, as files below a folder.

use super::{
    super::facts::{
        Answer, BootKind, Facts, Hook, Init, Keeper, Packages, Presence, Role, SocketState,
    },
    Where, gather, network,
};
use std::{fs, os::unix::net::UnixListener, path::Path};

fn write(root: &Path, file: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn look(root: &Path) -> Facts {
    look_for(root, "auto")
}

fn look_for(root: &Path, runtime: &str) -> Facts {
    gather(&Where {
        root: root.to_owned(),
        data_dir: "/var/lib/midge".into(),
        containerd: "/run/containerd/containerd.sock".into(),
        socket: "/run/midge/midge.sock".into(),
        runtime: runtime.to_owned(),
        cluster_port: 2377,
    })
}

fn presence(facts: &Facts, name: &str) -> Presence {
    facts.kernel.features.iter().find(|(feature, _)| feature.name == name).unwrap().1
}

/// Raspberry Pi OS of 32 bits on its kernel of 64.
fn raspberry_pi(root: &Path) {
    write(root, "proc/sys/kernel/osrelease", "6.6.51+rpt-rpi-v8\n");
    write(root, "proc/sys/kernel/arch", "aarch64\n");
    write(root, "proc/sys/kernel/hostname", "raspberrypi\n");
    write(root, "proc/device-tree/model", "Raspberry Pi 3 Model B Rev 1.2\0");
    write(root, "etc/os-release", "PRETTY_NAME=\"Raspbian GNU/Linux 12\"\nID=raspbian\n");
    write(root, "lib/systemd/systemd", b"\x7fELF\x01");
    write(root, "usr/bin/dash", b"\x7fELF\x01\x01");
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    std::os::unix::fs::symlink("dash", root.join("usr/bin/sh")).unwrap();
    write(root, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
    write(root, "boot/firmware/cmdline.txt", "console=tty1 rootwait\n");
    write(root, "proc/modules", "bridge 290816 0 - Live 0x0\n");
    let modules = "lib/modules/6.6.51+rpt-rpi-v8";
    write(root, &format!("{modules}/modules.builtin"), "kernel/net/netfilter/nft_ct.ko\n");
    write(
        root,
        &format!("{modules}/modules.dep"),
        "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/net/nf-tables.ko.zst: kernel/a.ko\n",
    );
    write(root, "proc/meminfo", "MemTotal:         908000 kB\nMemFree: 1 kB\n");
    write(root, "proc/swaps", "Filename Type Size Used Priority\n/var/swap file 102396 0 -2\n");
    write(
        root,
        "proc/self/mountinfo",
        "22 1 179:2 / / rw - ext4 /dev/root rw\n23 22 0:20 / /run rw - tmpfs tmpfs rw\n",
    );
    fs::create_dir_all(root.join("sys/dev/block")).unwrap();
    std::os::unix::fs::symlink(
        "../../devices/platform/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p2",
        root.join("sys/dev/block/179:2"),
    )
    .unwrap();
    write(root, "sys/block/mmcblk0/device/type", "SD\n");
    write(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
}

#[test]
fn a_raspberry_pi_is_seen_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    raspberry_pi(dir.path());
    let facts = look(dir.path());
    assert_eq!(facts.kernel.machine, "aarch64");
    assert_eq!(facts.system.board.as_deref(), Some("Raspberry Pi 3 Model B Rev 1.2"));
    assert_eq!((facts.system.packages, facts.system.init), (Packages::Apt, Init::Systemd));
    assert_eq!(facts.system.bits, Some(32));
    assert_eq!(presence(&facts, "overlay"), Presence::Loadable);
    assert_eq!(presence(&facts, "nf-tables"), Presence::Loadable);
    assert_eq!(presence(&facts, "bridge"), Presence::Loaded);
    assert_eq!(presence(&facts, "nft-ct"), Presence::BuiltIn);
    assert_eq!(presence(&facts, "vxlan"), Presence::Missing);
    let cgroups = &facts.cgroups;
    assert_eq!((cgroups.version, cgroups.cpu, cgroups.memory), (2, true, false));
    let boot = cgroups.boot.as_ref().unwrap();
    assert_eq!((boot.path.as_str(), boot.kind), ("/boot/firmware/cmdline.txt", BootKind::Line));
    assert_eq!(facts.memory.total, 908_000 * 1024);
    assert_eq!(facts.memory.swaps, [("/var/swap".to_owned(), 102_396 * 1024)]);
    assert!(facts.disks.iter().all(|disk| disk.card), "{:?}", facts.disks);
    assert_eq!(facts.disks[0].file_system.as_deref(), Some("ext4"));
    assert!(matches!(facts.disks[0].sync, Some(Ok(_))), "measured, in that folder");
    assert_eq!(facts.containerd.answer, Answer::Absent);
    assert_eq!(facts.socket.state, SocketState::Absent);
    assert!(facts.routes.is_err() && facts.firewall.chains.is_err());
    assert!(facts.ports.iter().all(|port| port.holders.is_err()));
    let left = fs::read_dir(dir.path()).unwrap().flatten();
    assert!(left.into_iter().all(|e| !e.file_name().to_string_lossy().contains("doctor")));
}

#[test]
fn a_kernel_that_was_upgraded_has_lost_its_modules() {
    let dir = tempfile::tempdir().unwrap();
    raspberry_pi(dir.path());
    assert!(!look(dir.path()).kernel.modules_gone);
    write(dir.path(), "proc/sys/kernel/osrelease", "6.1.0-old\n");
    let facts = look(dir.path());
    assert!(facts.kernel.modules_gone);
    assert_eq!(presence(&facts, "bridge"), Presence::Loaded);
    assert_eq!(presence(&facts, "veth"), Presence::Unknown);
    write(dir.path(), "boot/config-6.1.0-old", "CONFIG_VETH=m\nCONFIG_OVERLAY_FS=y\n");
    let facts = look(dir.path());
    assert_eq!(presence(&facts, "veth"), Presence::Missing);
    assert_eq!(presence(&facts, "overlay"), Presence::BuiltIn);
    assert_eq!(presence(&facts, "vxlan"), Presence::Missing);
}

#[test]
fn an_empty_folder_is_a_machine_of_which_nothing_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let facts = look(dir.path());
    assert!(facts.kernel.features.iter().all(|(_, presence)| *presence == Presence::Unknown));
    assert_eq!((facts.cgroups.version, facts.system.bits), (0, None));
    assert_eq!(facts.identity.machine_id, None);
    assert!(!super::super::diagnose(&facts).is_empty());
}

#[test]
fn sockets_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/midge/midge.sock");
    write(dir.path(), "run/midge/midge.sock", "");
    let state = || look(dir.path()).socket.state;
    assert_eq!(state(), SocketState::NotASocket);
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(state(), SocketState::Listens);
    // Closed alone, it would go on in a child that another test is just starting.
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    drop(listener);
    assert_eq!(state(), SocketState::Stale);
}

#[test]
fn containerd_may_keep_its_images_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "etc/containerd/config.toml", "version = 2\nroot = \"/data/images\"\n");
    let facts = look(dir.path());
    let images = facts.disks.iter().find(|disk| disk.role == Role::Images).unwrap();
    assert_eq!(images.path, "/data/images");
}

#[test]
fn this_machine_is_looked_at_without_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let facts = gather(&Where {
        root: "/".into(),
        data_dir: dir.path().join("data"),
        containerd: dir.path().join("containerd.sock"),
        socket: dir.path().join("midge.sock"),
        runtime: String::new(),
        cluster_port: 7000,
    });
    let ports: Vec<u16> = facts.ports.iter().map(|port| port.number).collect();
    assert_eq!(ports, [7000, 4789]);
    assert!(facts.memory.total > 1 << 20 && facts.kernel.namespaces_missing.is_empty());
    assert!(facts.system.bits.is_some() && facts.disks[0].total > 0);
    assert!(facts.routes.is_ok());
}

#[test]
fn routes_and_rules_are_read() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "proc/net/route",
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
         eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n\
         eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n",
    );
    let routes = look(dir.path()).routes.unwrap();
    if cfg!(target_endian = "little") {
        let lens: Vec<(String, u8)> =
            routes.iter().map(|route| (route.to.to_string(), route.prefix_len)).collect();
        assert_eq!(lens, [("0.0.0.0".to_owned(), 0), ("192.168.1.0".to_owned(), 24)]);
    }
    let rules = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n\
                 -A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n";
    let drops = |rules: &str| {
        let (chains, keepers) = network::legacy(rules);
        assert_eq!((chains.len(), keepers), (2, vec![Keeper::Docker]));
        let forward = chains.into_iter().find(|chain| chain.hook == Hook::Forward).unwrap();
        assert_eq!((forward.name.as_str(), forward.drops), ("FORWARD", true));
        !forward.lets_midge_through
    };
    assert!(drops(rules));
    let with = |rule: &str| rules.replace("COMMIT", &format!("{rule}\nCOMMIT"));
    assert!(!drops(&with("-A DOCKER-USER -s 172.30.0.0/16 -j ACCEPT")));
    assert!(drops(&with("-A INPUT -s 172.30.0.0/16 -j ACCEPT")), "it sees other packets");
}

#[test]
fn the_runtime_that_is_configured_is_the_one_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "usr/sbin/runc", "");
    write(dir.path(), "opt/kata", "");
    let found = |wanted: &str| look_for(dir.path(), wanted).oci_runtimes;
    assert_eq!(found(""), [("runc".to_owned(), Ok("runc".to_owned()))]);
    assert_eq!(found("/opt/kata"), [("kata".to_owned(), Ok("kata".to_owned()))]);
    for gone in ["crun", "/opt/gone"] {
        assert!(matches!(&found(gone)[..], [(name, Err(_))] if name == gone));
    }
}
