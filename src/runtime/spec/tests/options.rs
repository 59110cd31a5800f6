//! What each option of a service changes in the specification, and nothing else.

use super::{
    super::{
        edits::{DeviceNode, EditMount},
        mount::Access,
        *,
    },
    facts, task,
};
use crate::types::{CgroupSupport, TaskSpec, Ulimit};
use expect_test::{Expect, expect};

/// A container on a node, before the option is used.
struct World {
    spec: TaskSpec,
    facts: Facts,
    user: User,
    mounts: Vec<MountPoint>,
    edits: Edits,
    host_network: bool,
}

impl World {
    fn new() -> Self {
        let mut spec = TaskSpec::default();
        spec.container.command = vec!["/run".into()];
        let (user, mounts, edits) = (User::default(), Vec::new(), Edits::default());
        Self { spec, facts: facts(true), user, mounts, edits, host_network: false }
    }

    fn build(&self) -> Result<Value, SpecError> {
        let setup = ContainerSetup {
            netns: (!self.host_network).then(|| "/n".into()),
            hosts: Some("/node/hosts".into()),
            resolv_conf: Some("/node/resolv.conf".into()),
            cgroup_parent: "/midge".into(),
            ..ContainerSetup::default()
        };
        build(&Input {
            id: "c1",
            task: &task(self.spec.clone()),
            setup: &setup,
            image: &ImageConfig::default(),
            user: self.user.clone(),
            mounts: self.mounts.clone(),
            edits: self.edits.clone(),
            facts: &self.facts,
            architecture: "amd64",
            init: None,
        })
    }
}

/// Checks what an option changes: what is gone begins with `-`, what is new with `+`.
fn check(change: impl FnOnce(&mut World), expected: &Expect) {
    let mut world = World::new();
    let before = world.build().unwrap();
    change(&mut world);
    let after = match world.build() {
        Ok(after) => after,
        Err(error) => return expected.assert_eq(&format!("{error}\n")),
    };
    let (mut old, mut new) = (Vec::new(), Vec::new());
    leaves("", &before, &mut old);
    leaves("", &after, &mut new);
    let mut text = String::new();
    for (sign, these, those) in [('-', &old, &new), ('+', &new, &old)] {
        let mut last = "";
        for (path, leaf) in these.iter().filter(|leaf| !those.contains(leaf)) {
            if path == last {
                text.push_str(&format!(", {leaf}"));
            } else {
                text.push_str(&format!("\n{sign}{path}: {leaf}"));
            }
            last = path;
        }
    }
    expected.assert_eq(&format!("{}\n", text.trim_start()));
}

/// Lists the leaves of a value with their paths; entries of lists are leaves.
fn leaves(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                leaves(&format!("{path} {key}"), value, out);
            }
        }
        Value::Array(list) => out.extend(list.iter().map(|value| (path.to_owned(), leaf(value)))),
        other => out.push((path.to_owned(), leaf(other))),
    }
}

/// Writes a leaf; the long list of calls that everybody may make is only named.
fn leaf(value: &Value) -> String {
    match value.get("names").and_then(Value::as_array) {
        Some(names) if names.len() > 100 => "what everybody may call".to_owned(),
        _ => value.to_string(),
    }
}

#[test]
fn capabilities() {
    check(
        |world| {
            world.spec.container.capability_add = vec!["SYS_TIME".into()];
            world.spec.container.capability_drop = vec!["CAP_CHOWN".into(), "SYS_CHROOT".into()];
        },
        &expect![[r#"
            - linux seccomp syscalls: {"action":"SCMP_ACT_ALLOW","names":["chroot"]}
            - process capabilities bounding: "CAP_CHOWN", "CAP_SYS_CHROOT"
            - process capabilities effective: "CAP_CHOWN", "CAP_SYS_CHROOT"
            - process capabilities permitted: "CAP_CHOWN", "CAP_SYS_CHROOT"
            + linux seccomp syscalls: {"action":"SCMP_ACT_ALLOW","names":["clock_settime","clock_settime64","settimeofday","stime"]}
            + process capabilities bounding: "CAP_SYS_TIME"
            + process capabilities effective: "CAP_SYS_TIME"
            + process capabilities permitted: "CAP_SYS_TIME"
        "#]],
    );
    check(
        |world| world.spec.container.capability_drop = vec!["ALL".into()],
        &expect![[r#"
            - linux seccomp syscalls: {"action":"SCMP_ACT_ALLOW","names":["chroot"]}
            - process capabilities bounding: "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process capabilities effective: "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process capabilities permitted: "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
        "#]],
    );
    check(
        |world| world.user.uid = 33,
        &expect![[r#"
            - process capabilities effective: "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process capabilities permitted: "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process user uid: 0
            + process user uid: 33
        "#]],
    );
}

#[test]
fn an_administrator_may_make_namespaces() {
    check(
        |world| world.spec.container.capability_add = vec!["SYS_ADMIN".into()],
        &expect![[r#"
            - linux seccomp syscalls: {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_MASKED_EQ","value":2114060288}],"names":["clone"]}, {"action":"SCMP_ACT_ERRNO","errnoRet":38,"names":["clone3"]}
            + linux seccomp syscalls: {"action":"SCMP_ACT_ALLOW","names":["bpf","clone","clone3","fanotify_init","fsconfig","fsmount","fsopen","fspick","lookup_dcookie","mount","mount_setattr","move_mount","open_tree","perf_event_open","quotactl","quotactl_fd","setdomainname","sethostname","setns","syslog","umount","umount2","unshare"]}
            + process capabilities bounding: "CAP_SYS_ADMIN"
            + process capabilities effective: "CAP_SYS_ADMIN"
            + process capabilities permitted: "CAP_SYS_ADMIN"
        "#]],
    );
}

#[test]
fn sysctls_ulimits_and_oom_score() {
    check(
        |world| {
            let spec = &mut world.spec.container;
            spec.sysctls.insert("net.core.somaxconn".into(), "9".into());
            spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "1024".into());
            spec.sysctls.insert("kernel.msgmax".into(), "1".into());
            spec.ulimits = vec![
                Ulimit { name: "nofile".into(), soft: 5, hard: -1 },
                Ulimit { name: "core".into(), soft: 0, hard: 0 },
            ];
            spec.oom_score_adj = -500;
        },
        &expect![[r#"
            - linux sysctl net.ipv4.ip_unprivileged_port_start: "0"
            - process oomScoreAdj: 0
            + linux sysctl kernel.msgmax: "1"
            + linux sysctl net.core.somaxconn: "9"
            + linux sysctl net.ipv4.ip_unprivileged_port_start: "1024"
            + process oomScoreAdj: -500
            + process rlimits: {"hard":0,"soft":0,"type":"RLIMIT_CORE"}, {"hard":18446744073709551615,"soft":5,"type":"RLIMIT_NOFILE"}
        "#]],
    );
    check(
        |world| world.spec.container.oom_score_adj = 1001,
        &expect![[r#"
        Invalid value 1001, range for oom score adj is [-1000, 1000]
    "#]],
    );
    check(
        |world| {
            world.host_network = true;
            world.spec.container.sysctls.insert("net.core.somaxconn".into(), "9".into());
        },
        &expect![[r#"
            sysctl "net.core.somaxconn" cannot be set: the task uses the node's own network
        "#]],
    );
    check(
        |world| world.host_network = true,
        &expect![[r#"
        - linux namespaces: {"path":"/n","type":"network"}
        - linux sysctl net.ipv4.ip_unprivileged_port_start: "0"
        - linux sysctl net.ipv4.ping_group_range: "0 2147483647"
    "#]],
    );
}

#[test]
fn namespaces_of_the_node() {
    check(
        |world| {
            world.spec.container.pid = NamespaceMode::Host;
            world.spec.container.ipc = NamespaceMode::Host;
            world.spec.container.shm_size = 9;
        },
        &expect![[r#"
            - linux namespaces: {"type":"ipc"}, {"type":"pid"}
            - mounts: {"destination":"/dev/shm","options":["nosuid","noexec","nodev","mode=1777","size=67108864"],"source":"shm","type":"tmpfs"}
            + mounts: {"destination":"/dev/shm","options":["rbind","rprivate","rw"],"source":"/dev/shm","type":"bind"}
        "#]],
    );
    check(
        |world| world.spec.container.shm_size = 1 << 20,
        &expect![[r#"
        - mounts: {"destination":"/dev/shm","options":["nosuid","noexec","nodev","mode=1777","size=67108864"],"source":"shm","type":"tmpfs"}
        + mounts: {"destination":"/dev/shm","options":["nosuid","noexec","nodev","mode=1777","size=1048576"],"source":"shm","type":"tmpfs"}
    "#]],
    );
}

#[test]
fn security_options() {
    check(
        |world| {
            world.spec.container.security =
                vec!["no-new-privileges".into(), "systempaths=unconfined".into()];
        },
        &expect![[r#"
            - linux maskedPaths: "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"
            - linux readonlyPaths: "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            - process noNewPrivileges: false
            + process noNewPrivileges: true
        "#]],
    );
    check(
        |world| {
            let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":
                [{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#;
            world.spec.container.security = vec![format!("seccomp={profile}")];
        },
        &expect![[r#"
            - linux seccomp architectures: "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"
            - linux seccomp defaultAction: "SCMP_ACT_ERRNO"
            - linux seccomp defaultErrnoRet: 1
            - linux seccomp syscalls: what everybody may call, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_LT","value":38}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":39}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":41}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":42}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":43}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":44}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":45}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","names":["chroot"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_MASKED_EQ","value":2114060288}],"names":["clone"]}, {"action":"SCMP_ACT_ERRNO","errnoRet":38,"names":["clone3"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":0}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":8}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131072}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131080}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":4294967295}],"names":["personality"]}
            + linux seccomp defaultAction: "SCMP_ACT_ALLOW"
            + linux seccomp syscalls: {"action":"SCMP_ACT_ERRNO","errnoRet":5,"names":["mkdir"]}
        "#]],
    );
    check(
        |world| world.spec.container.security = vec!["apparmor=mine".into()],
        &expect![[r#"
            cannot confine the container by the AppArmor profile "mine": this node's kernel has no AppArmor
        "#]],
    );
    check(
        |world| {
            world.facts.apparmor = AppArmor::Profile("midge-default".into());
        },
        &expect![[r#"
            + process apparmorProfile: "midge-default"
        "#]],
    );
    check(
        |world| {
            world.facts.apparmor = AppArmor::Profile("midge-default".into());
            world.spec.container.security = vec!["apparmor=mine".into()];
        },
        &expect![[r#"
            + process apparmorProfile: "mine"
        "#]],
    );
}

#[test]
fn a_privileged_container() {
    let mut world = World::new();
    world.spec.container.privileged = true;
    let built = world.build().unwrap();
    assert!(built["linux"].get("seccomp").is_none());
    check(
        |world| {
            world.spec.container.privileged = true;
            world.spec.container.security = vec![r#"seccomp={"defaultAction":"A"}"#.into()];
            world.facts.apparmor = AppArmor::Unconfined;
            world.facts.capabilities = 0b11;
        },
        &expect![[r#"
            - linux maskedPaths: "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"
            - linux readonlyPaths: "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            - linux resources devices: {"access":"rwm","allow":false}
            - linux seccomp architectures: "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"
            - linux seccomp defaultAction: "SCMP_ACT_ERRNO"
            - linux seccomp defaultErrnoRet: 1
            - linux seccomp syscalls: what everybody may call, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_LT","value":38}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":39}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":41}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":42}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":43}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":44}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":45}],"names":["socket"]}, {"action":"SCMP_ACT_ALLOW","names":["chroot"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_MASKED_EQ","value":2114060288}],"names":["clone"]}, {"action":"SCMP_ACT_ERRNO","errnoRet":38,"names":["clone3"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":0}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":8}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131072}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131080}],"names":["personality"]}, {"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":4294967295}],"names":["personality"]}
            - mounts: {"destination":"/sys","options":["nosuid","noexec","nodev","ro"],"source":"sysfs","type":"sysfs"}, {"destination":"/sys/fs/cgroup","options":["ro","nosuid","noexec","nodev"],"source":"cgroup","type":"cgroup"}
            - process capabilities bounding: "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process capabilities effective: "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            - process capabilities permitted: "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"
            + linux resources devices: {"access":"rwm","allow":true}
            + linux seccomp defaultAction: "A"
            + mounts: {"destination":"/sys","options":["nosuid","noexec","nodev","rw"],"source":"sysfs","type":"sysfs"}, {"destination":"/sys/fs/cgroup","options":["rw","nosuid","noexec","nodev"],"source":"cgroup","type":"cgroup"}
            + process apparmorProfile: "unconfined"
        "#]],
    );
}

#[test]
fn memory_swap_and_swappiness() {
    let version_1 = |world: &mut World| {
        let support = CgroupSupport { version: 1, cpu: true, memory: true, pids: true };
        world.facts.controllers = Controllers { support, swap: true };
    };
    check(
        |world| {
            version_1(world);
            world.spec.limits.memory_bytes = 100;
            world.spec.limits.memory_swap = Some(-1);
            world.spec.limits.swappiness = Some(7);
        },
        &expect![[r#"
            - linux namespaces: {"type":"cgroup"}
            + linux resources memory limit: 100
            + linux resources memory swap: -1
            + linux resources memory swappiness: 7
        "#]],
    );
    check(
        |world| {
            world.spec.limits.memory_bytes = 100;
            world.spec.limits.memory_swap = Some(150);
            world.spec.limits.swappiness = Some(7);
        },
        &expect![[r#"
            + linux resources memory limit: 100
            + linux resources memory swap: 150
        "#]],
    );
    check(
        |world| {
            world.facts.controllers.swap = false;
            world.spec.limits.memory_bytes = 100;
            world.spec.limits.memory_swap = Some(150);
        },
        &expect![[r#"
            + linux resources memory limit: 100
        "#]],
    );
    check(
        |world| world.spec.limits.memory_swap = Some(1),
        &expect![[r#"
        You should always set the Memory limit when using Memoryswap limit, see usage
    "#]],
    );
    check(
        |world| {
            world.spec.limits.memory_bytes = 100;
            world.spec.limits.memory_swap = Some(99);
        },
        &expect![[r#"
            Minimum memoryswap limit should be larger than memory limit, see usage
        "#]],
    );
    check(
        |world| world.spec.limits.swappiness = Some(101),
        &expect![[r#"
        Invalid value: 101, valid memory swappiness range is 0-100
    "#]],
    );
}

#[test]
fn mounts() {
    let path =
        |propagation, recursive| MountSource::Path { path: "/src".into(), recursive, propagation };
    let mount = |source, target: &str, access| MountPoint { source, target: target.into(), access };
    check(
        |world| {
            world.mounts = vec![
                mount(path(Propagation::RSlave, false), "/a/b", Access::Write),
                mount(path(Propagation::RPrivate, true), "/a", Access::ReadAll),
                mount(MountSource::Memory { size: 5, mode: Some(0o700) }, "/t", Access::Read),
            ];
        },
        &expect![[r#"
            + linux rootfsPropagation: "rslave"
            + mounts: {"destination":"/a","options":["rbind","rprivate","rro","ro"],"source":"/src","type":"bind"}, {"destination":"/t","options":["noexec","nosuid","nodev","rprivate","ro","size=5","mode=700"],"source":"tmpfs","type":"tmpfs"}, {"destination":"/a/b","options":["bind","rslave","rw"],"source":"/src","type":"bind"}
        "#]],
    );
    check(
        |world| {
            world.mounts = vec![
                mount(path(Propagation::RSlave, true), "/a", Access::Write),
                mount(path(Propagation::Shared, true), "/b", Access::Write),
            ];
        },
        &expect![[r#"
            + linux rootfsPropagation: "shared"
            + mounts: {"destination":"/a","options":["rbind","rslave","rw"],"source":"/src","type":"bind"}, {"destination":"/b","options":["rbind","shared","rw"],"source":"/src","type":"bind"}
        "#]],
    );
}

#[test]
fn what_is_mounted_at_etc_hides_no_file_of_the_network() {
    let folder = |target: &str| MountPoint::folder("/src".into(), target.into(), false);
    let mut world = World::new();
    world.mounts = vec![folder("/etc"), folder("/etc/ssl/certs"), folder("/etc/hostname")];
    let built = world.build().unwrap();
    let mounts = built["mounts"].as_array().unwrap().iter();
    let targets: Vec<&str> = mounts.filter_map(|mount| mount["destination"].as_str()).collect();
    let own = targets.iter().position(|target| *target == "/etc").unwrap();
    let expected = ["/etc", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/ssl/certs"];
    assert_eq!(targets[own..], expected);
}

#[test]
fn devices_and_what_they_bring_along() {
    let node = |path: &str, kind| DeviceNode {
        path: path.into(),
        kind,
        major: 1,
        minor: 3,
        mode: Some(0o660),
        uid: None,
        gid: Some(5),
        access: "rw".into(),
    };
    check(
        |world| {
            world.user.groups = vec![0, 44];
            world.edits = Edits {
                nodes: vec![node("/dev/a", 'c'), node("/dev/p", 'p')],
                env: vec!["GPU=1".into()],
                mounts: vec![EditMount {
                    source: "/lib/gpu".into(),
                    target: "/lib/gpu".into(),
                    options: vec!["ro".into()],
                    kind: String::new(),
                }],
                hooks: [("prestart".to_owned(), vec![json!({"path": "/bin/true"})])].into(),
                groups: vec![44, 45],
            };
        },
        &expect![[r#"
            + hooks prestart: {"path":"/bin/true"}
            + linux devices: {"fileMode":432,"gid":5,"major":1,"minor":3,"path":"/dev/a","type":"c"}, {"fileMode":432,"gid":5,"major":1,"minor":3,"path":"/dev/p","type":"p"}
            + linux resources devices: {"access":"rw","allow":true,"major":1,"minor":3,"type":"c"}
            + mounts: {"destination":"/lib/gpu","options":["rbind","ro"],"source":"/lib/gpu","type":"bind"}
            + process env: "GPU=1"
            + process user additionalGids: 0, 44, 45
        "#]],
    );
}
