use super::*;
use crate::types::{
    BindOptions, ContainerSpec, Device, DnsConfig, EndpointMode, FailureAction, HealthCheck,
    HealthTest, LogConfig, Mount, MountKind, NamespaceMode, NetworkMode, PortConfig, PortProtocol,
    Propagation, PublishMode, ResourceLimits, Resources, TmpfsOptions, Ulimit, VolumeOptions,
};
use expect_test::{Expect, expect};
use std::collections::BTreeMap;

fn good() -> ServiceSpec {
    let container = ContainerSpec { image: "bb:1".into(), ..ContainerSpec::default() };
    let task = TaskSpec { container, ..TaskSpec::default() };
    ServiceSpec { name: "web".into(), task, ..ServiceSpec::default() }
}

fn refused(change: impl FnOnce(&mut ServiceSpec), expected: Expect) {
    let mut spec = good();
    change(&mut spec);
    let refusal = service_spec(&spec).expect_err("it breaks a rule");
    expected.assert_eq(&format!("{:?}: {}", refusal.class, refusal.message));
}

fn port(target: u16, published: u16) -> PortConfig {
    let mode = PublishMode::Host;
    PortConfig {
        name: String::new(),
        protocol: PortProtocol::Tcp,
        target,
        published,
        host_ip: None,
        mode,
    }
}

fn mount(kind: MountKind, target: &str) -> Mount {
    Mount { kind, target: target.into(), read_only: false }
}

#[test]
fn a_plain_service_is_accepted() {
    assert_eq!(service_spec(&good()), Ok(()));
    let mut spec = good();
    spec.task.limits = ResourceLimits {
        nano_cpus: NANO_CPUS_MIN,
        memory_bytes: MEMORY_MIN,
        pids: 1,
        ..ResourceLimits::default()
    };
    spec.task.reservations = Resources { nano_cpus: NANO_CPUS_MIN, memory_bytes: MEMORY_MIN };
    spec.task.container.mounts = vec![
        mount(MountKind::Bind { source: "/a".into(), options: BindOptions::default() }, "/x"),
        mount(MountKind::Volume { name: "vv".into(), options: VolumeOptions::default() }, "/y"),
        mount(MountKind::Volume { name: String::new(), options: VolumeOptions::default() }, "/z"),
        mount(MountKind::Tmpfs { options: TmpfsOptions::default() }, "/t"),
    ];
    spec.task.container.env = vec!["A=b".into(), "PASSED".into()];
    spec.task.container.stop_signal = "sigquit".into();
    spec.endpoint.ports = vec![port(80, 8080), port(80, 0), port(81, 0)];
    assert_eq!(service_spec(&spec), Ok(()));
}

#[test]
fn names_and_counts_are_bounded() {
    refused(|s| s.name = String::new(), expect!["Invalid: name must be provided"]);
    refused(
        |s| s.name = "a.b".into(),
        expect!["Invalid: name must be valid as a DNS name component"],
    );
    refused(
        |s| s.mode = Mode::Replicated { replicas: REPLICAS_MAX + 1 },
        expect!["Invalid: 20001 replicas are more than 20000"],
    );
    refused(
        |s| {
            s.mode = Mode::Global;
            s.task.placement.max_replicas_per_node = 1;
        },
        expect![
            "Invalid: replicas-max-per-node can only be used with replicated or replicated-job mode"
        ],
    );
    refused(
        |s| s.labels = Labels::from([(String::new(), "x".into())]),
        expect!["Invalid: invalid label: empty name"],
    );
}

#[test]
fn resources_have_swarms_bounds_and_fit_their_limits() {
    refused(
        |s| s.task.limits.nano_cpus = NANO_CPUS_MIN - 1,
        expect!["Invalid: invalid cpu value 0.000999999: Must be at least 0.001"],
    );
    refused(
        |s| s.task.reservations.memory_bytes = 1,
        expect!["Invalid: invalid memory value 1: Must be at least 4MiB"],
    );
    refused(
        |s| {
            s.task.limits.nano_cpus = 500_000_000;
            s.task.reservations.nano_cpus = 2_000_000_000;
        },
        expect!["Invalid: reserved cpu 2 is above its limit 0.5"],
    );
    refused(
        |s| {
            s.task.limits.memory_bytes = MEMORY_MIN;
            s.task.reservations.memory_bytes = MEMORY_MIN + 1;
        },
        expect!["Invalid: reserved memory 4194305 is above its limit 4194304"],
    );
}

#[test]
fn containers_are_checked() {
    refused(
        |s| s.task.container.image = String::new(),
        expect!["Invalid: ContainerSpec: image reference must be provided"],
    );
    refused(
        |s| s.task.container.image = "BAD IMAGE".into(),
        expect![[r#"Invalid: ContainerSpec: "BAD IMAGE" is not a valid repository/tag"#]],
    );
    refused(
        |s| s.task.container.env = vec!["=x".into()],
        expect!["Invalid: invalid environment variable: =x"],
    );
    let mut spec = good();
    spec.task.container.env = strings(&["A B=c", "a.b-c", "A="]);
    assert_eq!(service_spec(&spec), Ok(()));
    refused(
        |s| s.task.container.stop_signal = "SIGNOPE".into(),
        expect!["Invalid: invalid stop signal: SIGNOPE"],
    );
    refused(
        |s| s.task.container.dir = "rel".into(),
        expect![[r#"Invalid: the working directory "rel" is not absolute"#]],
    );
    refused(
        |s| s.task.container.args = vec!["x".repeat(TEXT_MAX + 1)],
        expect!["Invalid: arguments take 262145 bytes, more than 262144"],
    );
}

#[test]
fn mounts_are_checked() {
    let tmpfs = |target: &str| mount(MountKind::Tmpfs { options: TmpfsOptions::default() }, target);
    refused(
        |s| s.task.container.mounts = vec![tmpfs("/x"), tmpfs("/x/")],
        expect!["Invalid: ContainerSpec: duplicate mount point: /x/"],
    );
    refused(
        |s| s.task.container.mounts = vec![tmpfs("rel")],
        expect!["Invalid: invalid mount target, must be an absolute path: rel"],
    );
    refused(
        |s| s.task.container.mounts = vec![tmpfs("/")],
        expect!["Invalid: invalid mount target: the container's root cannot be replaced"],
    );
    refused(
        |s| s.task.container.mounts = vec![tmpfs("/a/../..")],
        expect![[r#"Invalid: invalid mount target, must not climb with "..": /a/../.."#]],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Bind { source: "rel".into(), options: BindOptions::default() },
                "/x",
            )];
        },
        expect!["Invalid: invalid bind mount source, must be an absolute path: rel"],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Bind { source: String::new(), options: BindOptions::default() },
                "/x",
            )];
        },
        expect!["Invalid: invalid bind mount source, must not be empty (target /x)"],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Volume { name: "/v".into(), options: VolumeOptions::default() },
                "/x",
            )];
        },
        expect![
            "Invalid: invalid volume mount source, must not be an absolute path and only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed: /v"
        ],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Volume { name: "v".into(), options: VolumeOptions::default() },
                "/x",
            )];
        },
        expect!["Invalid: invalid volume mount source, must have at least 2 characters: v"],
    );
}

#[test]
fn ports_are_checked() {
    refused(
        |s| s.endpoint.ports = vec![port(80, 1), port(81, 1)],
        expect!["Invalid: EndpointSpec: duplicate published ports provided: 1/tcp"],
    );
    refused(
        |s| s.endpoint.ports = vec![PortConfig { mode: PublishMode::Ingress, ..port(80, 1) }],
        expect![
            "Unsupported: publishing port 80 with mode=ingress is not supported yet: use mode=host"
        ],
    );
    refused(
        |s| s.endpoint.ports = vec![port(0, 1)],
        expect!["Invalid: EndpointSpec: invalid target port 0"],
    );
    refused(
        |s| {
            s.task.network = NetworkMode::Host;
            s.endpoint.ports = vec![port(80, 8080)];
        },
        expect![
            "Invalid: port 80/tcp cannot be published as 8080: on network host a container's port is the host's"
        ],
    );
    refused(
        |s| {
            s.task.network = NetworkMode::None;
            s.endpoint.ports = vec![port(80, 8080)];
        },
        expect!["Invalid: port 80/tcp cannot be published: network none has no address"],
    );
}

#[test]
fn placement_is_checked() {
    let constraint = |key: &str| constraint::Constraint {
        key: key.into(),
        operator: constraint::Operator::Equal,
        value: "x".into(),
    };
    let mut spec = good();
    spec.task.placement.constraints = vec![constraint("foo")];
    let refusal = service_spec(&spec).expect_err("the key is unknown");
    assert!(refusal.message.starts_with("constraint key \"foo\" is unknown"), "{refusal}");
    refused(
        |s| s.task.placement.spread = vec!["zone".into()],
        expect![[
            r#"Invalid: cannot spread over "zone": node.labels.NAME or engine.labels.NAME is expected"#
        ]],
    );
    let mut spec = good();
    spec.task.placement.spread = vec!["node.hostname".into(), "node.id".into()];
    assert_eq!(service_spec(&spec), Ok(()));
}

fn volume(name: &str, options: VolumeOptions) -> Mount {
    mount(MountKind::Volume { name: name.into(), options }, "/x")
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_service_with_every_option_is_accepted() {
    let mut spec = good();
    let container = &mut spec.task.container;
    container.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
    container.env = strings(&["NODE={{.Node.Hostname}}", "{{.Service.Name}}=1"]);
    container.groups = strings(&["audio", "44"]);
    container.hosts = strings(&["10.0.0.1 db db.local", "::1 x"]);
    container.dns = DnsConfig {
        nameservers: strings(&["10.0.0.1", "::1"]),
        search: strings(&["example.com", "."]),
        options: strings(&["ndots:2"]),
    };
    container.health = Some(HealthCheck {
        test: HealthTest::Command(strings(&["true"])),
        interval: Duration::from_millis(1),
        ..HealthCheck::default()
    });
    container.capability_add = strings(&["CAP_NET_ADMIN", "ALL"]);
    container.sysctls = BTreeMap::from([("net.core.somaxconn".into(), "64".into())]);
    container.ulimits = vec![Ulimit { name: "nofile".into(), soft: 5, hard: -1 }];
    container.oom_score_adj = -1_000;
    container.devices = vec![
        Device::Path { source: "/dev/a".into(), target: "/dev/b".into(), permissions: "rw".into() },
        Device::Cdi { name: "nvidia.com/gpu=all".into() },
    ];
    container.security = strings(&["no-new-privileges", "seccomp={}", "apparmor=unconfined"]);
    let options = VolumeOptions {
        driver: "local".into(),
        options: BTreeMap::from([
            ("type".into(), "nfs".into()),
            ("device".into(), ":/x".into()),
            ("o".into(), "addr=10.0.0.1".into()),
        ]),
        ..VolumeOptions::default()
    };
    container.mounts = vec![volume("data-{{.Task.Slot}}", options)];
    spec.task.limits.memory_bytes = MEMORY_MIN;
    spec.task.limits.memory_swap = Some(i64::try_from(MEMORY_MIN).unwrap());
    spec.task.log = Some(LogConfig {
        driver: "json-file".into(),
        options: BTreeMap::from([
            ("max-size".into(), "10m".into()),
            ("max-file".into(), "3".into()),
            ("tag".into(), "x".into()),
        ]),
    });
    spec.endpoint.ports = vec![
        PortConfig { host_ip: Some("127.0.0.1".parse().unwrap()), ..port(80, 8080) },
        PortConfig { host_ip: Some("10.0.0.1".parse().unwrap()), ..port(80, 8080) },
    ];
    assert_eq!(service_spec(&spec), Ok(()));
}

#[test]
fn how_updates_go_is_checked() {
    refused(
        |s| s.rollback.failure_action = FailureAction::Rollback,
        expect![
            "Invalid: rollback-failure-action cannot be rollback: pause or continue is expected"
        ],
    );
    let long = WAIT_MAX + Duration::from_nanos(1);
    refused(|s| s.update.delay = long, expect!["Invalid: update-delay is longer than a year"]);
    refused(
        |s| s.rollback.monitor = long,
        expect!["Invalid: rollback-monitor is longer than a year"],
    );
    refused(
        |s| s.update.progress_deadline = long,
        expect!["Invalid: update-progress-deadline is longer than a year"],
    );
    for mode in [Mode::GlobalJob, Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 }] {
        let job = || ServiceSpec { mode, ..good() };
        assert_eq!(service_spec(&job()), Ok(()));
        let text = "update and rollback configuration is not supported for jobs";
        let (mut forth, mut back) = (job(), job());
        forth.update.parallelism = 2;
        back.rollback.delay = Duration::from_secs(1);
        for spec in [forth, back] {
            assert_eq!(service_spec(&spec), Err(Refusal::new(Class::Invalid, text)));
        }
    }
    let mut spec = good();
    spec.update.failure_action = FailureAction::Rollback;
    (spec.update.parallelism, spec.update.progress_deadline) = (0, Duration::ZERO);
    assert_eq!(service_spec(&spec), Ok(()));
}

#[test]
fn templates_are_tried() {
    refused(
        |s| s.task.container.hostname = "{{.Nope}}".into(),
        expect![
            "Invalid: expanding hostname failed: template: expansion: can't evaluate field Nope: there is no such field"
        ],
    );
    refused(
        |s| s.task.container.env = vec!["A={{env \"HOME\"}}".into()],
        expect![[
            r#"Invalid: expanding env failed: expanding env "A={{env \"HOME\"}}": template: expansion: function "env" not defined"#
        ]],
    );
    refused(
        |s| s.task.container.hostname = "bad host".into(),
        expect![[
            r#"Invalid: hostname "bad host" is not valid: letters, digits, '-' and '.' are allowed"#
        ]],
    );
    refused(
        |s| s.task.container.mounts = vec![volume("/{{.Task.ID}}", VolumeOptions::default())],
        expect![
            "Invalid: expanding mounts failed: invalid volume mount source, must not be an absolute path and only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed: /taskid"
        ],
    );
}

#[test]
fn what_is_mounted_how_is_checked() {
    let one = |mount: Mount| move |s: &mut ServiceSpec| s.task.container.mounts = vec![mount];
    let bind = |options: BindOptions, read_only: bool| Mount {
        kind: MountKind::Bind { source: "/a".into(), options },
        target: "/x".into(),
        read_only,
    };
    let forced = BindOptions { read_only_force_recursive: true, ..BindOptions::default() };
    refused(
        one(bind(forced, false)),
        expect![
            "Invalid: invalid bind options for /x: bind-recursive=writable and bind-recursive=readonly need readonly"
        ],
    );
    refused(
        one(bind(BindOptions { propagation: Propagation::Shared, ..forced }, true)),
        expect![
            "Invalid: invalid bind options for /x: bind-recursive=readonly needs bind-propagation=rprivate"
        ],
    );
    refused(
        one(bind(BindOptions { read_only_non_recursive: true, ..forced }, true)),
        expect![
            "Invalid: invalid bind options for /x: ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other"
        ],
    );
    refused(
        one(Mount { read_only: true, ..volume("", VolumeOptions::default()) }),
        expect!["Invalid: must not set ReadOnly mode when using anonymous volumes (target /x)"],
    );
    refused(
        one(volume("vv", VolumeOptions { subpath: "a/../../b".into(), ..Default::default() })),
        expect![[
            r#"Invalid: invalid volume subpath, must be relative and must not climb with "..": a/../../b"#
        ]],
    );
    let options = |key: &str| VolumeOptions {
        options: BTreeMap::from([(key.to_owned(), "x".to_owned())]),
        ..VolumeOptions::default()
    };
    refused(one(volume("vv", options("foo"))), expect![[r#"Invalid: invalid option: "foo""#]]);
    refused(
        one(volume("vv", options("o"))),
        expect![[r#"Invalid: missing required option: "device""#]],
    );
    refused(
        one(volume("vv", VolumeOptions { driver: "nfs".into(), ..VolumeOptions::default() })),
        expect![[r#"Unsupported: volume driver "nfs" is not supported yet: only local is known"#]],
    );
    refused(
        one(mount(
            MountKind::Tmpfs { options: TmpfsOptions { size_bytes: 0, mode: Some(0o10_000) } },
            "/x",
        )),
        expect!["Invalid: invalid tmpfs mode 10000: at most 7777"],
    );
}

#[test]
fn the_kernel_s_side_of_a_container_is_checked() {
    let sysctl = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
    for key in ["vm.swappiness", "kernel.hostname", "net.", "net/../vm", "net..x"] {
        let mut spec = good();
        spec.task.container.sysctls = sysctl(key);
        let refusal = service_spec(&spec).expect_err(key);
        assert_eq!(refusal.message, format!("sysctl '{key}' is not allowed"));
    }
    refused(
        |s| {
            s.task.container.sysctls = sysctl("net.core.somaxconn");
            s.task.network = NetworkMode::Host;
        },
        expect!["Invalid: sysctl 'net.core.somaxconn' not allowed in host network namespace"],
    );
    refused(
        |s| {
            s.task.container.sysctls = sysctl("kernel.shmmax");
            s.task.container.ipc = NamespaceMode::Host;
        },
        expect!["Invalid: sysctl 'kernel.shmmax' not allowed in host ipc namespace"],
    );
    refused(
        |s| s.task.container.capability_drop = strings(&["CAP_NOPE"]),
        expect![[r#"Invalid: invalid CapDrop: unknown capability: "CAP_NOPE""#]],
    );
    let ulimit = |name: &str, soft, hard| vec![Ulimit { name: name.into(), soft, hard }];
    refused(
        |s| s.task.container.ulimits = ulimit("nope", 1, 1),
        expect!["Invalid: invalid ulimit type: nope"],
    );
    refused(
        |s| s.task.container.ulimits = ulimit("core", -1, 5),
        expect!["Invalid: ulimit soft limit must be less than or equal to hard limit: -1 > 5"],
    );
    refused(
        |s| s.task.container.ulimits = [ulimit("core", 1, 1), ulimit("core", 1, 1)].concat(),
        expect!["Invalid: ContainerSpec: duplicate ulimit: core"],
    );
    refused(
        |s| s.task.container.oom_score_adj = 1_001,
        expect!["Invalid: Invalid value 1001, range for oom score adj is [-1000, 1000]"],
    );
    refused(
        |s| s.task.container.security = strings(&["foo=bar"]),
        expect![[r#"Invalid: invalid --security-opt: "foo=bar""#]],
    );
    let device = |source: &str, permissions: &str| Device::Path {
        source: source.into(),
        target: "/dev/x".into(),
        permissions: permissions.into(),
    };
    refused(
        |s| s.task.container.devices = vec![device("/dev/a", "rwx")],
        expect!["Invalid: invalid device mode: rwx"],
    );
    refused(
        |s| s.task.container.devices = vec![device("/dev/../a", "r")],
        expect![[r#"Invalid: invalid device "/dev/../a": an absolute path is expected"#]],
    );
    refused(
        |s| s.task.container.devices = vec![device("/dev/a", "r"), device("/dev/b", "r")],
        expect!["Invalid: duplicate device: /dev/x"],
    );
    refused(
        |s| s.task.container.devices = vec![Device::Cdi { name: "gpu=0".into() }],
        expect![[
            r#"Invalid: invalid device "gpu=0": an absolute path or vendor.com/class=name is expected"#
        ]],
    );
}

#[test]
fn names_inside_are_checked() {
    for (hosts, message) in [
        ("10.0.0.1", "bad format for add-host: \"10.0.0.1\""),
        ("", "bad format for add-host: \"\""),
        ("10.0.0.1 a\n10.0.0.2 b", "bad format for add-host: \"10.0.0.1 a\\n10.0.0.2 b\""),
        ("10.0.0.1 a#b", "bad format for add-host: \"10.0.0.1 a#b\""),
        ("x a", "invalid IP address in add-host: \"x\""),
    ] {
        let mut spec = good();
        spec.task.container.hosts = strings(&[hosts]);
        assert_eq!(service_spec(&spec).expect_err(hosts).message, message);
    }
    refused(
        |s| s.task.container.dns.nameservers = strings(&["nope"]),
        expect!["Invalid: IP address is not correctly formatted: nope"],
    );
    refused(
        |s| s.task.container.dns.search = strings(&["a b"]),
        expect!["Invalid: a b is not a valid domain"],
    );
    refused(
        |s| s.task.container.dns.options = strings(&["a\nb"]),
        expect![[r#"Invalid: invalid resolver option: "a\nb""#]],
    );
    refused(
        |s| s.task.container.groups = strings(&["a:b"]),
        expect![[r#"Invalid: invalid group: "a:b""#]],
    );
}

#[test]
fn health_logs_and_swap_are_checked() {
    let health = |interval, words: &[&str]| {
        let test = HealthTest::Command(strings(words));
        Some(HealthCheck { test, interval, ..HealthCheck::default() })
    };
    refused(
        |s| s.task.container.health = health(Duration::from_nanos(1), &["x"]),
        expect!["Invalid: ContainerSpec: Interval in HealthConfig cannot be less than 1ms"],
    );
    refused(
        |s| s.task.container.health = health(Duration::ZERO, &[]),
        expect!["Invalid: ContainerSpec: Test in HealthConfig names no program"],
    );
    let log = |driver: &str, key: &str, value: &str| {
        let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Some(LogConfig { driver: driver.into(), options })
    };
    refused(
        |s| s.task.log = log("syslog", "a", "b"),
        expect![[
            r#"Unsupported: log driver "syslog" (--log-driver) is not supported yet: json-file, local and none are known"#
        ]],
    );
    refused(
        |s| s.task.log = log("none", "max-size", "1m"),
        expect!["Invalid: unknown log opt 'max-size' for none log driver"],
    );
    for bad in ["", "x", "0", "1x", "1mm", "-5", "inf", "1e9"] {
        let mut spec = good();
        spec.task.log = log("local", "max-size", bad);
        assert!(service_spec(&spec).is_err(), "{bad}");
    }
    refused(
        |s| s.task.log = log("local", "max-file", "0"),
        expect!["Invalid: invalid value for max-file: 0: 1 to 1000 is expected"],
    );
    refused(
        |s| s.task.limits.memory_swap = Some(-1),
        expect![
            "Invalid: You should always set the Memory limit when using Memoryswap limit, see usage"
        ],
    );
    refused(
        |s| {
            s.task.limits.memory_bytes = MEMORY_MIN;
            s.task.limits.memory_swap = Some(1);
        },
        expect!["Invalid: Minimum memoryswap limit should be larger than memory limit, see usage"],
    );
}

#[test]
fn addresses_of_ports_are_checked() {
    let at = |ip: &str| PortConfig { host_ip: Some(ip.parse().unwrap()), ..port(80, 1) };
    refused(
        |s| s.endpoint.ports = vec![at("10.0.0.1"), port(81, 1)],
        expect!["Invalid: EndpointSpec: duplicate published ports provided: 1/tcp"],
    );
    refused(
        |s| {
            s.task.network = NetworkMode::Host;
            s.endpoint.ports = vec![PortConfig { published: 0, ..at("10.0.0.1") }];
        },
        expect![
            "Invalid: port 80/tcp cannot be published at one address: on network host a container listens where it likes"
        ],
    );
    refused(
        |s| {
            s.endpoint.mode = EndpointMode::DnsRoundRobin;
            s.endpoint.ports = vec![PortConfig { mode: PublishMode::Ingress, ..port(80, 1) }];
        },
        expect![
            "Invalid: EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
        ],
    );
}

proptest::proptest! {
    /// Whatever a client sends is judged, not died of.
    #[test]
    fn no_text_panics(text in "[-{}.a-z|=/ :,\"\n\\PC]{0,30}") {
        let mut spec = good();
        let container = &mut spec.task.container;
        container.hostname = text.clone();
        container.hosts = vec![text.clone()];
        container.devices = vec![Device::Cdi { name: text.clone() }];
        container.security = vec![text.clone()];
        container.ulimits = vec![Ulimit { name: text.clone(), soft: 1, hard: 2 }];
        for only in 0..5 {
            let mut spec = spec.clone();
            let container = &mut spec.task.container;
            if only != 0 { container.hostname.clear(); }
            if only != 1 { container.hosts.clear(); }
            if only != 2 { container.devices.clear(); }
            if only != 3 { container.security.clear(); }
            if only != 4 { container.ulimits.clear(); }
            service_spec(&spec).ok();
        }
        spec.task.container = ContainerSpec { image: text, ..ContainerSpec::default() };
        service_spec(&spec).ok();
    }
}
