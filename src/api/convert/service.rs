//! Services: every option is taken, or refused by name.

use super::{duration, job};
use crate::{
    api::{
        dto::{self, is_unset},
        error::{invalid, unsupported},
    },
    cluster::Refusal,
    types::{
        Constraint, ContainerSpec, Endpoint, EndpointMode, Mount, MountKind, NetworkMode,
        Placement, Platform, PortConfig, PortProtocol, PublishMode, RESTART_MAX_DELAY,
        ResourceLimits, Resources, RestartCondition, RestartPolicy, STOP_GRACE, ServiceSpec,
        TaskSpec, image::Reference,
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Docker's smallest share of a processor, 0.001.
const NANO_CPUS_MIN: i64 = 1_000_000;

/// Docker's smallest amount of memory.
const MEMORY_MIN: i64 = 4 * 1024 * 1024;

/// What a flag of the command line and the field it becomes are called, for refusals.
fn refuse(set: bool, flag: &str, field: &str) -> Result<(), Refusal> {
    if set {
        return Err(unsupported(format!("\"{flag}\" ({field}) is not supported yet")));
    }
    Ok(())
}

/// Refuses every option that midge does not have.
fn refuse_unsupported(spec: &dto::ServiceSpec) -> Result<(), Refusal> {
    let task = &spec.task_template;
    let container = &task.container_spec;
    let resources = &task.resources;
    let fields: [(&Value, &str, &str); 20] = [
        (&container.healthcheck, "--health-cmd", "ContainerSpec.Healthcheck"),
        (&container.secrets, "--secret", "ContainerSpec.Secrets"),
        (&container.configs, "--config", "ContainerSpec.Configs"),
        (&container.capability_add, "--cap-add", "ContainerSpec.CapabilityAdd"),
        (&container.capability_drop, "--cap-drop", "ContainerSpec.CapabilityDrop"),
        (&container.sysctls, "--sysctl", "ContainerSpec.Sysctls"),
        (&container.ulimits, "--ulimit", "ContainerSpec.Ulimits"),
        (&container.hosts, "--host", "ContainerSpec.Hosts"),
        (&container.groups, "--group", "ContainerSpec.Groups"),
        (&container.privileges, "--credential-spec", "ContainerSpec.Privileges"),
        (&container.open_stdin, "--interactive", "ContainerSpec.OpenStdin"),
        (&container.oom_score_adj, "--oom-score-adj", "ContainerSpec.OomScoreAdj"),
        (&container.dns_config["Nameservers"], "--dns", "ContainerSpec.DNSConfig.Nameservers"),
        (&container.dns_config["Search"], "--dns-search", "ContainerSpec.DNSConfig.Search"),
        (&container.dns_config["Options"], "--dns-option", "ContainerSpec.DNSConfig.Options"),
        (&task.log_driver, "--log-driver", "TaskTemplate.LogDriver"),
        (&task.plugin_spec, "plugin service", "TaskTemplate.PluginSpec"),
        (&task.network_attachment_spec, "attachment", "TaskTemplate.NetworkAttachmentSpec"),
        (&resources.swap_bytes, "--memory-swap", "Resources.SwapBytes"),
        (&resources.memory_swappiness, "--memory-swappiness", "Resources.MemorySwappiness"),
    ];
    for (value, flag, field) in fields {
        refuse(!is_unset(value), flag, field)?;
    }
    let limited = !resources.limits.generic_resources.is_empty();
    refuse(limited, "--generic-resource", "Resources.Limits.GenericResources")?;
    let isolation = container.isolation.as_str();
    refuse(!matches!(isolation, "" | "default"), "--isolation", "ContainerSpec.Isolation")?;
    refuse(
        !matches!(task.runtime.as_str(), "" | "container"),
        "--runtime",
        "TaskTemplate.Runtime",
    )?;
    refuse(resources.reservations.pids != 0, "--reserve-pids", "Resources.Reservations.Pids")?;
    refuse_order(&spec.update_config, "update", "UpdateConfig")?;
    refuse_order(&spec.rollback_config, "rollback", "RollbackConfig")
}

/// What `insertDefaults` shows, and all that is taken for now.
pub(super) fn order_defaults() -> Value {
    json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64,
        "MaxFailureRatio": 0, "Order": "stop-first",
    })
}

/// Refuses each field of an update order that is set to something else than the default.
fn refuse_order(config: &Value, verb: &str, field: &str) -> Result<(), Refusal> {
    let defaults = order_defaults();
    for (name, flag) in [
        ("Parallelism", "parallelism"),
        ("Delay", "delay"),
        ("FailureAction", "failure-action"),
        ("Monitor", "monitor"),
        ("MaxFailureRatio", "max-failure-ratio"),
        ("Order", "order"),
    ] {
        let (value, default) = (&config[name], &defaults[name]);
        let same = match (value.as_f64(), default.as_f64()) {
            (Some(value), Some(default)) => (value - default).abs() < f64::EPSILON,
            _ => value == default,
        };
        // Parallelism 0 means "all at once": it says something although it is zero.
        let silent = if name == "Parallelism" { value.is_null() } else { is_unset(value) };
        refuse(!same && !silent, &format!("--{verb}-{flag}"), &format!("{field}.{name}"))?;
    }
    Ok(())
}

/// Makes the spec that a client asks for. With the `previous` one, what clients lose on the way
/// from GET to POST is kept: the registry login, the cut of the restart delay, the variants of
/// platforms and, while the image stays the same, its pin.
///
/// # Errors
///
/// An option is not supported, or no value for it.
pub fn to_spec(
    dto: &dto::ServiceSpec,
    previous: Option<&ServiceSpec>,
) -> Result<ServiceSpec, Refusal> {
    let mode = job::to_mode(&dto.mode)?;
    job::refuse_orders(dto, mode)?;
    refuse_unsupported(dto)?;
    let template = &dto.task_template;
    let mut container = to_container(&template.container_spec)?;
    // A client that read the defaults sends them back: they change nothing.
    let unset = previous.is_some_and(|old| old.task.container.stop_grace.is_none());
    if unset && container.stop_grace == Some(STOP_GRACE) {
        container.stop_grace = None;
    }
    let same_image = previous.filter(|old| old.task.container.image == container.image);
    let networks = if template.networks.is_empty() { &dto.networks } else { &template.networks };
    let resources = &template.resources;
    let task = TaskSpec {
        reservations: Resources {
            nano_cpus: to_cpus(resources.reservations.nano_cpus)?,
            memory_bytes: to_memory(resources.reservations.memory_bytes)?,
        },
        generic: job::to_generic(&resources.reservations.generic_resources)?,
        limits: ResourceLimits {
            nano_cpus: to_cpus(resources.limits.nano_cpus)?,
            memory_bytes: to_memory(resources.limits.memory_bytes)?,
            pids: u64::try_from(resources.limits.pids)
                .map_err(|_| invalid("limit-pids cannot be negative"))?,
        },
        restart: to_restart(template.restart_policy.as_ref(), previous)?,
        placement: to_placement(&template.placement, same_image)?,
        network: to_network(networks)?,
        force_update: template.force_update,
        credential: previous.and_then(|old| old.task.credential.clone()),
        pin: same_image.and_then(|old| old.task.pin.clone()),
        container,
    };
    Ok(ServiceSpec {
        name: dto.name.clone(),
        labels: dto.labels.clone(),
        task,
        mode,
        endpoint: to_endpoint(&dto.endpoint_spec)?,
    })
}

fn to_cpus(nano_cpus: i64) -> Result<u64, Refusal> {
    match u64::try_from(nano_cpus) {
        Ok(0) => Ok(0),
        Ok(cpus) if nano_cpus >= NANO_CPUS_MIN => Ok(cpus),
        _ => {
            let (whole, rest) = (nano_cpus / 1_000_000_000, nano_cpus % 1_000_000_000);
            let text = if rest == 0 { whole.to_string() } else { format!("{nano_cpus}e-9") };
            Err(invalid(format!("invalid cpu value {text}: Must be at least 0.001")))
        }
    }
}

fn to_memory(bytes: i64) -> Result<u64, Refusal> {
    match u64::try_from(bytes) {
        Ok(0) => Ok(0),
        Ok(fits) if bytes >= MEMORY_MIN => Ok(fits),
        _ => Err(invalid(format!("invalid memory value {bytes}: Must be at least 4MiB"))),
    }
}

fn to_container(dto: &dto::ContainerSpec) -> Result<ContainerSpec, Refusal> {
    if dto.image.is_empty() {
        return Err(invalid("ContainerSpec: image reference must be provided"));
    }
    Reference::parse(&dto.image).map_err(|_| {
        invalid(format!("ContainerSpec: {:?} is not a valid repository/tag", dto.image))
    })?;
    let mounts: Vec<Mount> = dto.mounts.iter().map(to_mount).collect::<Result<_, _>>()?;
    let mut targets = BTreeSet::new();
    for mount in &mounts {
        if !targets.insert(mount.target.trim_end_matches('/')) {
            let target = &mount.target;
            return Err(invalid(format!("ContainerSpec: duplicate mount point: {target}")));
        }
    }
    let grace = dto.stop_grace_period;
    Ok(ContainerSpec {
        image: dto.image.clone(),
        command: dto.command.clone(),
        args: dto.args.clone(),
        hostname: dto.hostname.clone(),
        env: dto.env.clone(),
        dir: dto.dir.clone(),
        user: dto.user.clone(),
        labels: dto.labels.clone(),
        mounts,
        stop_signal: dto.stop_signal.clone(),
        stop_grace: grace.map(|nanos| duration(nanos, "stop-grace-period")).transpose()?,
        read_only: dto.read_only,
        init: dto.init,
        tty: dto.tty,
    })
}

fn to_mount(dto: &dto::Mount) -> Result<Mount, Refusal> {
    // What Docker does anyway may be said.
    let mut bind = dto.bind_options.clone();
    if bind["Propagation"] == "rprivate" {
        bind["Propagation"] = Value::Null;
    }
    for (value, flag, field) in [
        (&bind, "--mount bind-propagation/bind-recursive", "Mounts.BindOptions"),
        (&dto.volume_options, "--mount volume-*", "Mounts.VolumeOptions"),
        (&dto.tmpfs_options, "--mount tmpfs-*", "Mounts.TmpfsOptions"),
        (&dto.image_options, "--mount image-*", "Mounts.ImageOptions"),
        (&dto.cluster_options, "--mount type=cluster", "Mounts.ClusterOptions"),
    ] {
        refuse(!is_unset(value), flag, field)?;
    }
    let consistency = dto.consistency.as_str();
    let known = is_unset(&dto.consistency) || consistency == Some("default");
    refuse(!known, "--mount consistency", "Mounts.Consistency")?;
    let source = dto.source.clone();
    let kind = match dto.r#type.as_str() {
        "bind" if source.starts_with('/') => MountKind::Bind { source },
        "bind" => {
            return Err(invalid(format!(
                "invalid bind mount source {source:?}, must be an absolute path"
            )));
        }
        "" | "volume" if source.starts_with('/') => {
            return Err(invalid(format!(
                "invalid volume name {source:?}: use type=bind to mount a path of the node"
            )));
        }
        "" | "volume" => MountKind::Volume { name: source },
        "tmpfs" if source.is_empty() => MountKind::Tmpfs,
        "tmpfs" => return Err(invalid("invalid tmpfs source, source must be empty")),
        kind @ ("npipe" | "cluster" | "image") => {
            return Err(unsupported(format!(
                "\"--mount type={kind}\" (Mounts.Type) is not supported yet"
            )));
        }
        other => return Err(invalid(format!("invalid MountType: {other:?}"))),
    };
    if !dto.target.starts_with('/') {
        let target = &dto.target;
        return Err(invalid(format!("invalid mount target {target:?}, must be an absolute path")));
    }
    Ok(Mount { kind, target: dto.target.clone(), read_only: dto.read_only })
}

fn to_restart(
    dto: Option<&dto::RestartPolicy>,
    previous: Option<&ServiceSpec>,
) -> Result<RestartPolicy, Refusal> {
    let kept = previous.map_or(RESTART_MAX_DELAY, |old| old.task.restart.max_delay);
    let default = RestartPolicy { max_delay: kept, ..RestartPolicy::default() };
    let Some(dto) = dto else { return Ok(default) };
    let read = |nanos: Option<i64>, what: &str, default: Duration| {
        nanos.map_or(Ok(default), |nanos| duration(nanos, what))
    };
    Ok(RestartPolicy {
        condition: match dto.condition.as_str() {
            "" | "any" => RestartCondition::Any,
            "on-failure" => RestartCondition::OnFailure,
            "none" => RestartCondition::None,
            other => return Err(invalid(format!("invalid RestartCondition: {other:?}"))),
        },
        delay: read(dto.delay, "restart-delay", default.delay)?,
        max_delay: read(dto.max_delay, "restart-max-delay", default.max_delay)?,
        max_attempts: dto.max_attempts.unwrap_or(0),
        window: read(dto.window, "restart-window", default.window)?,
    })
}

fn to_placement(
    dto: &dto::Placement,
    same_image: Option<&ServiceSpec>,
) -> Result<Placement, Refusal> {
    let constraints = dto
        .constraints
        .iter()
        .map(|text| Constraint::parse(text).map_err(|error| invalid(error.to_string())));
    let spread = dto.preferences.iter().map(|preference| {
        let label = preference.spread.as_ref().map(|spread| spread.spread_descriptor.clone());
        label
            .filter(|label| !label.is_empty())
            .ok_or_else(|| invalid("placement preference: only spread=LABEL is known"))
    });
    let platforms = dto.platforms.iter().map(|platform| {
        Platform::normalized(&platform.os, &platform.architecture, &platform.variant)
    });
    let mut platforms: Vec<Platform> = platforms.collect();
    let bare = |list: &[Platform]| -> Vec<(String, String)> {
        list.iter().map(|p| (p.os.clone(), p.architecture.clone())).collect()
    };
    if let Some(old) = same_image.map(|old| &old.task.placement.platforms)
        && bare(old) == bare(&platforms)
    {
        platforms.clone_from(old);
    }
    Ok(Placement {
        constraints: constraints.collect::<Result<_, _>>()?,
        spread: spread.collect::<Result<_, _>>()?,
        max_replicas_per_node: dto.max_replicas,
        platforms,
    })
}

fn to_network(networks: &[dto::NetworkAttachment]) -> Result<NetworkMode, Refusal> {
    let network = match networks {
        [] => return Ok(NetworkMode::Bridge),
        [network] => network,
        _ => return Err(unsupported("more than one \"--network\" is not supported yet")),
    };
    refuse(!is_unset(&network.aliases), "--network alias=", "Networks.Aliases")?;
    refuse(!is_unset(&network.driver_opts), "--network driver-opt=", "Networks.DriverOpts")?;
    match network.target.as_str() {
        "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(unsupported(format!(
            "network {other:?}: overlay networks are not supported yet; use bridge, host or none"
        ))),
    }
}

fn to_endpoint(dto: &dto::EndpointSpec) -> Result<Endpoint, Refusal> {
    let mode = match dto.mode.as_str() {
        "" | "vip" => EndpointMode::Vip,
        "dnsrr" => EndpointMode::DnsRoundRobin,
        other => return Err(invalid(format!("invalid resolution mode: {other:?}"))),
    };
    let ports = dto.ports.iter().map(to_port).collect::<Result<_, _>>()?;
    Ok(Endpoint { mode, ports })
}

fn to_port(dto: &dto::Port) -> Result<PortConfig, Refusal> {
    let number =
        |port: u32| u16::try_from(port).map_err(|_| invalid(format!("invalid port number {port}")));
    if dto.target_port == 0 {
        return Err(invalid("EndpointSpec: a target port must be given"));
    }
    match dto.publish_mode.as_str() {
        "host" => {}
        "" | "ingress" => {
            return Err(unsupported(format!(
                "publish mode ingress is not supported yet: use --publish mode=host,target={},\
                 published={}",
                dto.target_port, dto.published_port
            )));
        }
        other => return Err(invalid(format!("invalid publish mode: {other:?}"))),
    }
    Ok(PortConfig {
        name: dto.name.clone(),
        protocol: match dto.protocol.as_str() {
            "" | "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            "sctp" => {
                let message = "\"--publish protocol=sctp\" (Ports.Protocol) is not supported yet";
                return Err(unsupported(message));
            }
            other => return Err(invalid(format!("invalid protocol: {other:?}"))),
        },
        target: number(dto.target_port)?,
        published: number(dto.published_port)?,
        mode: PublishMode::Host,
    })
}
