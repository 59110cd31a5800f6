use super::*;
use crate::types::{
    BindOptions, PortConfig, PortProtocol, ResourceLimits, Resources, TmpfsOptions, VolumeOptions,
};
use expect_test::{Expect, expect};

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
    refused(
        |s| s.task.restart.delay = Duration::from_secs(301),
        expect!["Invalid: restart-max-delay 300s is below restart-delay 301s"],
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
            )]
        },
        expect!["Invalid: invalid bind mount source, must be an absolute path: rel"],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Bind { source: String::new(), options: BindOptions::default() },
                "/x",
            )]
        },
        expect!["Invalid: invalid bind mount source, must not be empty (target /x)"],
    );
    refused(
        |s| {
            s.task.container.mounts = vec![mount(
                MountKind::Volume { name: "/v".into(), options: VolumeOptions::default() },
                "/x",
            )]
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
            )]
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
}

#[test]
fn signals_have_names_and_numbers() {
    for (text, number) in [
        ("SIGTERM", Some(15)),
        ("term", Some(15)),
        ("9", Some(9)),
        ("SIGSYS", Some(31)),
        ("SIGRTMIN", Some(34)),
        ("RTMIN+3", Some(37)),
        ("SIGRTMAX-1", Some(63)),
        ("SIGRTMIN+40", None),
        ("0", None),
        ("65", None),
        ("SIG", None),
    ] {
        assert_eq!(signal_number(text), number, "{text}");
    }
}
