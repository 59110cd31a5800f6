//! Every option of a service on its way from JSON to the spec and back.

use super::fake::port;
use crate::{
    api::{
        convert::{older, service, show},
        dto,
    },
    types::*,
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a client of Docker's drops between reading and writing a service.
const OWN: [&str; 12] = [
    "Privileged",
    "Devices",
    "ShmSize",
    "PidMode",
    "IpcMode",
    "SecurityOpt",
    "HostIP",
    "MaxDelay",
    "ProgressDeadline",
    "Variant",
    "SwapBytes",
    "MemorySwappiness",
];

fn without_own(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN.contains(&name.as_str()));
            fields.values_mut().for_each(without_own);
        }
        Value::Array(items) => items.iter_mut().for_each(without_own),
        _ => {}
    }
}

/// What came to Docker's API by a version, which a client of an older one drops as well.
const SINCE: [(&str, (u16, u16)); 9] = [
    ("OomScoreAdj", (1, 46)),
    ("Subpath", (1, 45)),
    ("Seccomp", (1, 44)),
    ("AppArmor", (1, 44)),
    ("NoNewPrivileges", (1, 44)),
    ("StartInterval", (1, 44)),
    ("ReadOnlyNonRecursive", (1, 44)),
    ("ReadOnlyForceRecursive", (1, 44)),
    ("CreateMountpoint", (1, 42)),
];

fn without_newer(value: &mut Value, version: (u16, u16)) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                SINCE.iter().all(|(since, first)| name != *since || version >= *first)
            });
            fields.values_mut().for_each(|value| without_newer(value, version));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| without_newer(value, version)),
        _ => {}
    }
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z]{1,4}", 0..3)
}

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..3)
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), (1_u64..100_000).prop_map(Duration::from_millis)]
}

fn mount() -> impl Strategy<Value = Mount> {
    let propagation = prop_oneof![
        Just(Propagation::RPrivate),
        Just(Propagation::Private),
        Just(Propagation::RShared),
        Just(Propagation::Shared),
        Just(Propagation::RSlave),
        Just(Propagation::Slave),
    ];
    let bind = ("/[a-z]{0,4}", propagation, any::<(bool, bool, bool, bool)>()).prop_map(
        |(source, propagation, flags)| MountKind::Bind {
            source,
            options: BindOptions {
                propagation,
                non_recursive: flags.0,
                read_only_non_recursive: flags.1,
                read_only_force_recursive: flags.2,
                create_source: flags.3,
            },
        },
    );
    let volume = ("[a-z]{0,4}", any::<bool>(), "[a-z]{0,3}", pairs(), "(local)?", pairs())
        .prop_map(|(name, no_copy, subpath, labels, driver, options)| MountKind::Volume {
            name,
            options: VolumeOptions { no_copy, subpath, labels, driver, options },
        });
    let tmpfs = (0..u64::MAX / 4, option::of(1_u32..0o7777)).prop_map(|(size_bytes, mode)| {
        MountKind::Tmpfs { options: TmpfsOptions { size_bytes, mode } }
    });
    let kind = prop_oneof![bind, volume, tmpfs];
    (kind, "/[a-z]{1,4}", any::<bool>()).prop_map(|(kind, target, read_only)| Mount {
        kind,
        target,
        read_only,
    })
}

fn health() -> impl Strategy<Value = Option<HealthCheck>> {
    let test = prop_oneof![
        Just(HealthTest::Inherit),
        Just(HealthTest::Disabled),
        vec("[a-z]{1,4}", 1..3).prop_map(HealthTest::Command),
        "[a-z ]{1,9}".prop_map(HealthTest::Shell),
    ];
    let check = (test, time(), time(), time(), time(), 0_u32..9).prop_map(
        |(test, interval, timeout, start_period, start_interval, retries)| HealthCheck {
            test,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        },
    );
    // One that says nothing is none.
    option::of(check).prop_map(|check| check.filter(|check| *check != HealthCheck::default()))
}

fn security() -> impl Strategy<Value = Vec<String>> {
    let seccomp = prop_oneof![
        Just("seccomp=unconfined"),
        Just("seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"),
    ];
    let apparmor = prop_oneof![Just("apparmor=unconfined"), Just("apparmor=profile")];
    (
        option::of(Just("no-new-privileges")),
        option::of(seccomp),
        option::of(apparmor),
        option::of(Just("systempaths=unconfined")),
    )
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().map(str::to_owned).collect())
}

fn device() -> impl Strategy<Value = Device> {
    prop_oneof![
        ("/dev/[a-z]{1,3}", "/dev/[a-z]{1,3}", "(r|rw|rwm)")
            .prop_map(|(source, target, permissions)| Device::Path { source, target, permissions }),
        "v[.]com/c=[0-9]".prop_map(|name| Device::Cdi { name }),
    ]
}

fn namespace() -> impl Strategy<Value = NamespaceMode> {
    prop_oneof![Just(NamespaceMode::Private), Just(NamespaceMode::Host)]
}

fn container() -> impl Strategy<Value = ContainerSpec> {
    let ulimit = ("[a-z]{1,4}", -1_i64..9, -1_i64..9).prop_map(|(name, soft, hard)| Ulimit {
        name,
        soft,
        hard,
    });
    let first = (
        (words(), words(), "[a-z]{0,3}", words(), "(/a)?", "[a-z]{0,3}", words(), pairs()),
        vec(mount(), 0..3),
        ("[A-Z]{0,4}", option::of(time()), any::<(bool, bool, bool)>(), health()),
    );
    let second = (
        (words(), words(), words(), words()),
        (vec("CAP_[A-C]", 0..3), vec("CAP_[A-C]", 0..3), pairs(), vec(ulimit, 0..3)),
        (-1_000_i32..=1_000, any::<bool>(), vec(device(), 0..3), 0_u64..1 << 40),
        (namespace(), namespace(), security()),
    );
    (first, second).prop_map(|((plain, mounts, life), (names, kernel, own, confined))| {
        ContainerSpec {
            image: "bb:1".into(),
            command: plain.0,
            args: plain.1,
            hostname: plain.2,
            env: plain.3,
            dir: plain.4,
            user: plain.5,
            groups: plain.6,
            labels: plain.7,
            mounts,
            stop_signal: life.0,
            stop_grace: life.1,
            read_only: life.2.0,
            init: life.2.1,
            tty: life.2.2,
            health: life.3,
            hosts: names.0,
            dns: DnsConfig { nameservers: names.1, search: names.2, options: names.3 },
            capability_add: kernel.0,
            capability_drop: kernel.1,
            sysctls: kernel.2,
            ulimits: kernel.3,
            oom_score_adj: own.0,
            privileged: own.1,
            devices: own.2,
            shm_size: own.3,
            pid: confined.0,
            ipc: confined.1,
            security: confined.2,
        }
    })
}

fn limits() -> impl Strategy<Value = ResourceLimits> {
    let memory = prop_oneof![Just(0_u64), (4_u64 << 20..1 << 40)];
    let swap = prop_oneof![Just(None), Just(Some(-1)), (0_i64..1 << 40).prop_map(Some)];
    (memory, swap, option::of(0_u8..=100), 0_u64..99).prop_map(
        |(memory_bytes, swap, swappiness, pids)| ResourceLimits {
            nano_cpus: 0,
            memory_bytes,
            pids,
            memory_swap: swap.filter(|_| memory_bytes != 0).map(|swap| match swap {
                -1 => -1,
                swap => i64::try_from(memory_bytes).unwrap() + swap,
            }),
            swappiness,
        },
    )
}

fn update(actions: &'static [FailureAction]) -> impl Strategy<Value = UpdateConfig> {
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let ratio = (0.0_f64..=1.0).prop_map(|fraction| Ratio::from_fraction(fraction).unwrap());
    let times = (time(), 1_u64..100_000, time());
    (0_u64..9, times, proptest::sample::select(actions), ratio, order).prop_map(
        |(parallelism, (delay, monitor, deadline), failure_action, max_failure_ratio, order)| {
            UpdateConfig {
                parallelism,
                delay,
                failure_action,
                // No time at all cannot be asked for.
                monitor: Duration::from_millis(monitor),
                max_failure_ratio,
                order,
                progress_deadline: deadline,
            }
        },
    )
}

/// How a service is updated and rolled back: as any other, or as it says.
fn updates() -> impl Strategy<Value = (UpdateConfig, UpdateConfig)> {
    use FailureAction::{Continue, Pause, Rollback};
    let forth = update(&[Pause, Continue, Rollback]);
    let back = update(&[Pause, Continue]);
    let or_default = |config: Option<UpdateConfig>| config.unwrap_or_default();
    (option::of(forth).prop_map(or_default), option::of(back).prop_map(or_default))
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let log = ("(json-file|local|none)", pairs())
        .prop_map(|(driver, options)| LogConfig { driver, options });
    let address = option::of("10[.]0[.]0[.][1-9]".prop_map(|text| text.parse().unwrap()));
    let port = (1_u16..9, 0_u16..3, any::<bool>(), address, "[a-z]{0,2}").prop_map(
        |(target, published, udp, host_ip, name)| PortConfig {
            name,
            protocol: if udp { PortProtocol::Udp } else { PortProtocol::Tcp },
            target,
            published,
            host_ip,
            mode: PublishMode::Host,
        },
    );
    let task = (container(), limits(), option::of(log));
    (task, vec(port, 0..5), any::<bool>(), pairs(), updates()).prop_map(
        |((container, limits, log), ports, rotate, labels, (update, rollback))| ServiceSpec {
            name: "web".into(),
            labels,
            task: TaskSpec { container, limits, log, ..TaskSpec::default() },
            mode: Mode::default(),
            endpoint: Endpoint {
                mode: if rotate { EndpointMode::DnsRoundRobin } else { EndpointMode::Vip },
                ports,
            },
            update,
            rollback,
        },
    )
}

/// What a client reads, as JSON.
fn shown(spec: &ServiceSpec, defaults: bool) -> Value {
    serde_json::to_value(show::from_spec(spec, defaults)).unwrap()
}

fn read(json: Value, previous: Option<&ServiceSpec>) -> ServiceSpec {
    let dto: dto::ServiceSpec = serde_json::from_value(json).unwrap();
    service::to_spec(&dto, previous).unwrap()
}

proptest! {
    #[test]
    fn a_spec_comes_back_as_it_went(spec in spec()) {
        prop_assert_eq!(&read(shown(&spec, false), None), &spec);
        prop_assert_eq!(&read(shown(&spec, false), Some(&spec)), &spec);
        prop_assert_eq!(&read(shown(&spec, true), Some(&spec)), &spec);
    }

    #[test]
    fn a_client_of_dockers_loses_nothing(spec in spec()) {
        let mut json = shown(&spec, false);
        without_own(&mut json);
        prop_assert_eq!(&read(json, Some(&spec)), &spec);
    }
}

proptest! {
    #[test]
    fn a_client_of_an_older_docker_loses_nothing(mut spec in spec(), minor in 41_u16..=47) {
        let mut targets = BTreeSet::new();
        spec.task.container.mounts.retain(|mount| targets.insert(mount.target.clone()));
        let mut json = shown(&spec, false);
        without_own(&mut json);
        without_newer(&mut json, (1, minor));
        let dto: dto::ServiceSpec = serde_json::from_value(json).unwrap();
        let mut read = service::to_spec(&dto, Some(&spec)).unwrap();
        older::keep_unknown(&mut read, &dto, &spec, (1, minor));
        prop_assert_eq!(&read, &spec);
    }
}

#[test]
fn an_older_docker_keeps_a_start_interval_that_is_all_there_is() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task.container.image = "bb:1".into();
    let start_interval = Duration::from_secs(1);
    spec.task.container.health = Some(HealthCheck { start_interval, ..HealthCheck::default() });
    let mut json = shown(&spec, false);
    without_newer(&mut json, (1, 43));
    let mut without = json.clone();
    without["TaskTemplate"]["ContainerSpec"].as_object_mut().unwrap().remove("Healthcheck");
    for (json, expected) in [(json, spec.task.container.health.clone()), (without, None)] {
        let dto: dto::ServiceSpec = serde_json::from_value(json).unwrap();
        let mut read = service::to_spec(&dto, Some(&spec)).unwrap();
        older::keep_unknown(&mut read, &dto, &spec, (1, 43));
        assert_eq!(read.task.container.health, expected);
    }
}

/// A client that knows a field takes away what it does not send.
#[test]
fn what_a_newer_docker_leaves_out_is_gone() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    let container = &mut spec.task.container;
    container.image = "bb:1".into();
    container.oom_score_adj = 5;
    container.security = vec!["no-new-privileges".into()];
    let mut json = shown(&spec, false);
    without_own(&mut json);
    without_newer(&mut json, (1, 41));
    let dto: dto::ServiceSpec = serde_json::from_value(json).unwrap();
    let as_by = |version| {
        let mut read = service::to_spec(&dto, Some(&spec)).unwrap();
        older::keep_unknown(&mut read, &dto, &spec, version);
        (read.task.container.oom_score_adj, read.task.container.security.len())
    };
    assert_eq!(as_by((1, 45)), (5, 0));
    assert_eq!(as_by((1, 43)), (5, 1));
    assert_eq!(as_by((1, 47)), (0, 0));
}

#[test]
fn what_is_said_is_meant() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task.limits.memory_bytes = 1 << 30;
    spec.task.limits.memory_swap = Some(-1);
    spec.task.limits.swappiness = Some(5);
    let container = &mut spec.task.container;
    container.image = "bb:1".into();
    container.privileged = true;
    container.devices = vec![Device::Cdi { name: "v.com/c=1".into() }];
    container.shm_size = 5;
    container.pid = NamespaceMode::Host;
    container.ipc = NamespaceMode::Host;
    container.security = vec!["no-new-privileges".into(), "apparmor=profile".into()];
    let host_ip = Some("10.0.0.1".parse().unwrap());
    spec.endpoint.ports = vec![PortConfig { host_ip, ..port(8080, 80) }];
    let mut json = shown(&spec, false);
    let own = &mut json["TaskTemplate"]["ContainerSpec"];
    for (field, value) in [
        ("Privileged", json!(false)),
        ("Devices", json!([])),
        ("ShmSize", json!(0)),
        ("PidMode", json!("")),
        ("IpcMode", json!("private")),
        ("SecurityOpt", json!([])),
        ("Privileges", Value::Null),
    ] {
        own[field] = value;
    }
    json["TaskTemplate"]["Resources"]["SwapBytes"] = json!(0);
    json["TaskTemplate"]["Resources"]["MemorySwappiness"] = json!(-1);
    json["EndpointSpec"]["Ports"][0]["HostIP"] = json!("");
    let changed = read(json, Some(&spec));
    let plain = ContainerSpec { image: "bb:1".into(), ..ContainerSpec::default() };
    assert_eq!(changed.task.container, plain);
    assert_eq!(changed.task.limits.memory_swap, Some(1 << 30), "no swap at all");
    assert_eq!((changed.task.limits.swappiness, changed.endpoint.ports[0].host_ip), (None, None));
    // Without a limit of memory there is none of swap to keep.
    let mut json = shown(&spec, false);
    without_own(&mut json);
    json["TaskTemplate"]["Resources"]["Limits"] = json!({});
    assert_eq!(read(json, Some(&spec)).task.limits.memory_swap, None);
}

#[test]
fn an_update_is_read_as_swarm_reads_it() {
    let spec = |config: Value| {
        read(
            json!({
                "TaskTemplate": {"ContainerSpec": {"Image": "bb:1"}},
                "UpdateConfig": config,
                "RollbackConfig": config,
            }),
            None,
        )
    };
    let default = UpdateConfig::default();
    assert_eq!((spec(Value::Null).update, spec(Value::Null).rollback), (default, default));
    // Zeros of Go's client, and what other clients leave out.
    let all_at_once = UpdateConfig { parallelism: 0, ..default };
    let zeros = json!({"Parallelism": 0, "Delay": 0, "FailureAction": "", "Monitor": 0,
        "MaxFailureRatio": 0, "Order": ""});
    for config in [json!({}), zeros] {
        assert_eq!(
            (spec(config.clone()).update, spec(config).rollback),
            (all_at_once, all_at_once)
        );
    }
    let said = json!({"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
        "Monitor": 2_000_000_000, "MaxFailureRatio": 0.2, "Order": "start-first",
        "ProgressDeadline": 3_000_000_000_u64});
    let found = spec(said.clone());
    assert_eq!(found.update.max_failure_ratio, Ratio::from_fraction(0.2).unwrap());
    assert_eq!(found.update.progress_deadline, Duration::from_secs(3));
    assert_eq!(shown(&found, false)["UpdateConfig"], said);
    // Whole numbers are Go's, also in the defaults, which are shown to those who ask for them.
    assert_eq!(shown(&spec(Value::Null), false).get("UpdateConfig"), None);
    assert_eq!(
        shown(&spec(Value::Null), true)["RollbackConfig"].to_string(),
        json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64,
            "MaxFailureRatio": 0, "Order": "stop-first", "ProgressDeadline": 600_000_000_000_u64})
        .to_string()
    );
}

#[test]
fn a_deadline_is_kept_until_somebody_says_another() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task.container.image = "bb:1".into();
    spec.update = UpdateConfig {
        parallelism: 3,
        progress_deadline: Duration::from_secs(7),
        ..UpdateConfig::default()
    };
    let mut json = shown(&spec, false);
    json.as_object_mut().unwrap().remove("UpdateConfig");
    let kept = UpdateConfig { parallelism: 1, ..spec.update };
    assert_eq!(read(json.clone(), Some(&spec)).update, kept, "the rest is Docker's default again");
    json["UpdateConfig"] = json!({"Parallelism": 1, "ProgressDeadline": 0});
    let forever = UpdateConfig { progress_deadline: Duration::ZERO, ..kept };
    assert_eq!(read(json, Some(&spec)).update, forever);
}

#[test]
fn words_are_read_in_all_their_forms() {
    let container = |fields: Value| {
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": fields}});
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("bb:1");
        read(spec, None).task.container
    };
    let security = |words: Value| container(json!({"SecurityOpt": words})).security;
    assert_eq!(
        security(json!(["apparmor:x", "no-new-privileges:true", "seccomp:unconfined"])),
        ["no-new-privileges", "seccomp=unconfined", "apparmor=x"]
    );
    assert!(security(json!(["no-new-privileges=false", "seccomp=builtin"])).is_empty());
    let found = container(json!({"CapabilityAdd": ["net_admin", "all"], "CapabilityDrop": null}));
    assert_eq!(found.capability_add, ["CAP_NET_ADMIN", "ALL"]);
    let found = container(json!({"Devices": [{"PathOnHost": "/dev/a"}]}));
    let same = |text: &str| text.to_owned();
    let device =
        Device::Path { source: same("/dev/a"), target: same("/dev/a"), permissions: same("rwm") };
    assert_eq!(found.devices, [device]);
    let log = json!({"TaskTemplate": {"ContainerSpec": {"Image": "bb:1"},
                                      "LogDriver": {"Options": {"max-size": "1m"}}}});
    assert_eq!(read(log, None).task.log.unwrap().driver, "json-file");
}
