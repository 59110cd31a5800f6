use super::{mount::Access, *};
use crate::types::{CgroupSupport, TaskSpec};
use expect_test::{Expect, expect};

mod options;

fn task(spec: TaskSpec) -> Task {
    Task { spec: spec.into(), ..Task::sample(1) }
}

fn facts(memory: bool) -> Facts {
    let support = CgroupSupport { version: 2, cpu: true, memory, pids: true };
    Facts { controllers: Controllers { support, swap: true }, ..Facts::default() }
}

fn built(task: &Task, setup: &ContainerSetup, image: &ImageConfig) -> Result<Value, SpecError> {
    build(&Input {
        id: task.id.as_str(),
        task,
        setup,
        image,
        user: User { uid: 33, gid: 33, groups: vec![33, 44] },
        mounts: vec![
            MountPoint::folder("/data".into(), "/in".into(), true),
            MountPoint {
                source: MountSource::Memory { size: 0, mode: None },
                target: "/dev/shm".into(),
                access: Access::Write,
            },
        ],
        edits: Edits::default(),
        facts: &facts(true),
        architecture: "amd64",
        init: task.spec.container.init.then_some(Path::new("/lib/midge")),
    })
}

fn check_part(value: &Value, expected: &Expect) {
    expected.assert_eq(&serde_json::to_string(value).unwrap());
}

#[test]
fn the_process_has_dockers_defaults() {
    let mut spec = TaskSpec::default();
    spec.container.env = vec!["A=2".into(), "C".into(), "HOSTNAME".into()];
    spec.container.args = vec!["-x".into()];
    spec.container.init = true;
    spec.limits.memory_bytes = 1 << 20;
    spec.limits.nano_cpus = 1_500_000_000;
    spec.limits.pids = 9;
    let image = ImageConfig {
        env: vec!["A=1".into(), "C=1".into()],
        entrypoint: vec!["/run".into()],
        cmd: vec!["dropped".into()],
        working_dir: "/w".into(),
        ..ImageConfig::default()
    };
    let setup = ContainerSetup {
        netns: Some("/n".into()),
        hosts: Some("/hosts".into()),
        cgroup_parent: "/midge/n1".into(),
        ..ContainerSetup::default()
    };
    let mut value = built(&task(spec), &setup, &image).unwrap();
    let allowed = value["linux"]["seccomp"]["syscalls"][0]["names"].take();
    assert!(allowed.as_array().unwrap().len() > 300);
    for name in ["mount", "unshare", "bpf", "clone", "io_uring_setup", "keyctl", "setns"] {
        assert!(!allowed.as_array().unwrap().contains(&Value::from(name)), "{name}");
    }
    let mut process = value["process"].take();
    process["capabilities"].take();
    check_part(
        &process,
        &expect![[
            r#"{"args":["/sbin/docker-init","__init","--","/run","-x"],"capabilities":null,"cwd":"/w","env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=2"],"noNewPrivileges":false,"oomScoreAdj":0,"terminal":false,"user":{"additionalGids":[33,44],"gid":33,"uid":33}}"#
        ]],
    );
    check_part(
        &value["mounts"].take(),
        &expect![[
            r#"[{"destination":"/proc","options":["nosuid","noexec","nodev"],"source":"proc","type":"proc"},{"destination":"/dev","options":["nosuid","strictatime","mode=755","size=65536k"],"source":"tmpfs","type":"tmpfs"},{"destination":"/dev/pts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"],"source":"devpts","type":"devpts"},{"destination":"/sys","options":["nosuid","noexec","nodev","ro"],"source":"sysfs","type":"sysfs"},{"destination":"/sys/fs/cgroup","options":["ro","nosuid","noexec","nodev"],"source":"cgroup","type":"cgroup"},{"destination":"/dev/mqueue","options":["nosuid","noexec","nodev"],"source":"mqueue","type":"mqueue"},{"destination":"/in","options":["rbind","rprivate","ro"],"source":"/data","type":"bind"},{"destination":"/etc/hosts","options":["rbind","rprivate","rw"],"source":"/hosts","type":"bind"},{"destination":"/dev/shm","options":["noexec","nosuid","nodev","rprivate","rw"],"source":"tmpfs","type":"tmpfs"},{"destination":"/sbin/docker-init","options":["rbind","rprivate","ro"],"source":"/lib/midge","type":"bind"}]"#
        ]],
    );
    check_part(
        &value,
        &expect![[
            r#"{"hostname":"000000000000","linux":{"cgroupsPath":"/midge/n1/0000000000000000000000001","maskedPaths":["/proc/acpi","/proc/asound","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/sched_debug","/proc/scsi","/proc/timer_list","/proc/timer_stats","/sys/devices/virtual/powercap","/sys/firmware"],"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"pid"},{"path":"/n","type":"network"},{"type":"cgroup"}],"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"],"resources":{"cpu":{"period":100000,"quota":150000},"devices":[{"access":"rwm","allow":false}],"memory":{"limit":1048576,"swap":2097152},"pids":{"limit":9}},"seccomp":{"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[{"action":"SCMP_ACT_ALLOW","names":null},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_LT","value":38}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":39}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":41}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":42}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":43}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":44}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":45}],"names":["socket"]},{"action":"SCMP_ACT_ALLOW","names":["chroot"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_MASKED_EQ","value":2114060288}],"names":["clone"]},{"action":"SCMP_ACT_ERRNO","errnoRet":38,"names":["clone3"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":0}],"names":["personality"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":8}],"names":["personality"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131072}],"names":["personality"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":131080}],"names":["personality"]},{"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_EQ","value":4294967295}],"names":["personality"]}]},"sysctl":{"net.ipv4.ip_unprivileged_port_start":"0","net.ipv4.ping_group_range":"0 2147483647"}},"mounts":null,"ociVersion":"1.0.2","process":null,"root":{"path":"rootfs","readonly":false}}"#
        ]],
    );
}

#[test]
fn what_cannot_be_limited_is_refused() {
    let mut spec = TaskSpec::default();
    spec.container.command = vec!["x".into()];
    spec.limits.memory_bytes = 1;
    let task = task(spec);
    let image = ImageConfig::default();
    let setup = ContainerSetup::default();
    assert_eq!(check(&task, &setup, &image, &facts(true), "amd64"), Ok(()));
    let refused = check(&task, &setup, &image, &facts(false), "amd64");
    assert_eq!(refused, Err(SpecError::NoController("memory")));
}

#[test]
fn a_command_takes_the_place_of_the_images_arguments() {
    let image = ImageConfig {
        entrypoint: vec!["e".into()],
        cmd: vec!["c".into()],
        ..ImageConfig::default()
    };
    let words = |command: &[&str], args: &[&str]| {
        let mut spec = TaskSpec::default();
        spec.container.command = command.iter().map(|s| (*s).to_owned()).collect();
        spec.container.args = args.iter().map(|s| (*s).to_owned()).collect();
        arguments(&task(spec), &image).unwrap().join(" ")
    };
    assert_eq!(words(&[], &[]), "e c");
    assert_eq!(words(&[], &["a"]), "e a");
    assert_eq!(words(&["x"], &[]), "x");
    assert_eq!(words(&["x"], &["a"]), "x a");
    let nothing = arguments(&task(TaskSpec::default()), &ImageConfig::default());
    assert_eq!(nothing, Err(SpecError::NoCommand));
}

#[test]
fn every_processor_has_its_calls() {
    let names = |architecture: &str| {
        let profile = seccomp::profile(architecture, &[]);
        (profile["architectures"].clone(), profile["syscalls"][0]["names"].to_string())
    };
    assert!(names("arm").1.contains("set_tls") && !names("amd64").1.contains("set_tls"));
    assert_eq!(names("arm64").0, json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]));
    assert_eq!(names("riscv64").0, Value::Null);
}

/// Tells whether a profile lets a program make a socket of a family, as the kernel sees it: by all
/// bits of the argument.
fn allows_socket(profile: &Value, family: u64) -> bool {
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let mut rules =
        rules.filter(|rule| rule["names"].as_array().unwrap().contains(&json!("socket")));
    rules.any(|rule| {
        let argument = &rule["args"][0];
        let value = argument["value"].as_u64().unwrap();
        match argument["op"].as_str().unwrap() {
            "SCMP_CMP_LT" => family < value,
            "SCMP_CMP_EQ" => family == value,
            other => panic!("{other}"),
        }
    })
}

#[test]
fn sockets_of_ciphers_and_of_the_hypervisor_are_refused() {
    let profile = seccomp::profile("amd64", &[]);
    for family in 1..=45 {
        let refused = [38, 40].contains(&family);
        assert_eq!(allows_socket(&profile, family), !refused, "{family}");
        // The kernel takes the lower half only.
        assert!(!allows_socket(&profile, family | (1 << 32)), "{family}");
    }
}
