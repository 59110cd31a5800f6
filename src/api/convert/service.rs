//! Services: every option is taken, or refused by name.

use super::{container::to_container, duration, job, show, update::to_update};
use crate::{
    api::{
        dto::{self, is_unset},
        error::{invalid, unsupported},
    },
    cluster::Refusal,
    types::{
        Constraint, Endpoint, EndpointMode, LogConfig, NetworkMode, Placement, Platform,
        PortConfig, PortProtocol, PublishMode, RESTART_MAX_DELAY, ResourceLimits, Resources,
        RestartCondition, RestartPolicy, STOP_GRACE, ServiceSpec, TaskSpec,
    },
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// The driver that options without one are for.
const LOG_DRIVER: &str = "json-file";

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
    let fields = [
        (&container.secrets, "--secret", "ContainerSpec.Secrets"),
        (&container.configs, "--config", "ContainerSpec.Configs"),
        (&container.open_stdin, "--interactive", "ContainerSpec.OpenStdin"),
        (&task.plugin_spec, "plugin service", "TaskTemplate.PluginSpec"),
        (&task.network_attachment_spec, "attachment", "TaskTemplate.NetworkAttachmentSpec"),
    ];
    for (value, flag, field) in fields {
        refuse(!is_unset(value), flag, field)?;
    }
    let limited = !resources.limits.generic_resources.is_empty();
    refuse(limited, "--generic-resource", "Resources.Limits.GenericResources")?;
    refuse(
        !matches!(task.runtime.as_str(), "" | "container"),
        "--runtime",
        "TaskTemplate.Runtime",
    )?;
    refuse(resources.reservations.pids != 0, "--reserve-pids", "Resources.Reservations.Pids")
}

/// Makes the spec that a client asks for; whether it holds together is the leader's to judge. With the `previous` one, what clients lose on the way
/// from GET to POST is kept: the registry login, the cut of the restart delay, the time that
/// replacements have to run, midge's own options of the container and its limit of swap, the
/// addresses of ports, the variants of platforms and, while the image stays the same, its pin.
///
/// # Errors
///
/// An option is not supported, or no value for it.
pub fn to_spec(
    dto: &dto::ServiceSpec,
    previous: Option<&ServiceSpec>,
) -> Result<ServiceSpec, Refusal> {
    let mode = job::to_mode(&dto.mode)?;
    refuse_unsupported(dto)?;
    let template = &dto.task_template;
    let mut container =
        to_container(&template.container_spec, previous.map(|old| &old.task.container))?;
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
        limits: to_limits(resources, previous.map(|old| &old.task.limits))?,
        restart: to_restart(template.restart_policy.as_ref(), previous)?,
        placement: to_placement(&template.placement, same_image)?,
        network: to_network(networks)?,
        log: template.log_driver.as_ref().and_then(to_log),
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
        endpoint: to_endpoint(&dto.endpoint_spec, previous.map(|old| &old.endpoint))?,
        update: to_update(dto.update_config.as_ref(), "update", previous.map(|old| &old.update))?,
        rollback: to_update(
            dto.rollback_config.as_ref(),
            "rollback",
            previous.map(|old| &old.rollback),
        )?,
    })
}

fn to_limits(
    dto: &dto::ResourceRequirements,
    previous: Option<&ResourceLimits>,
) -> Result<ResourceLimits, Refusal> {
    let memory_bytes = to_memory(dto.limits.memory_bytes)?;
    // Clients older than these two fields drop them.
    let kept = previous.filter(|_| memory_bytes != 0).and_then(show::swap_bytes);
    let memory_swap = match dto.swap_bytes.or(kept) {
        None => None,
        Some(-1) => Some(-1),
        Some(swap) if swap < 0 => {
            return Err(invalid(format!("invalid swap value {swap}: at least -1 is expected")));
        }
        Some(swap) => {
            let memory = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
            Some(memory.saturating_add(swap))
        }
    };
    let swappiness = match dto.memory_swappiness {
        None => previous.and_then(|limits| limits.swappiness),
        Some(-1) => None,
        Some(value) => Some(u8::try_from(value).map_err(|_| {
            invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100"))
        })?),
    };
    Ok(ResourceLimits {
        nano_cpus: to_cpus(dto.limits.nano_cpus)?,
        memory_bytes,
        // As Docker reads it: -1 is no limit, as 0 is.
        pids: u64::try_from(dto.limits.pids).unwrap_or(0),
        memory_swap,
        swappiness,
    })
}

/// None where it says nothing.
fn to_log(dto: &dto::Driver) -> Option<LogConfig> {
    if *dto == dto::Driver::default() {
        return None;
    }
    let driver = if dto.name.is_empty() { LOG_DRIVER } else { &dto.name };
    Some(LogConfig { driver: driver.to_owned(), options: dto.options.clone() })
}

fn to_cpus(nano_cpus: i64) -> Result<u64, Refusal> {
    u64::try_from(nano_cpus).map_err(|_| {
        let (whole, rest) = (nano_cpus / 1_000_000_000, nano_cpus % 1_000_000_000);
        let text = if rest == 0 { whole.to_string() } else { format!("{nano_cpus}e-9") };
        invalid(format!("invalid cpu value {text}: Must be at least 0.001"))
    })
}

fn to_memory(bytes: i64) -> Result<u64, Refusal> {
    u64::try_from(bytes)
        .map_err(|_| invalid(format!("invalid memory value {bytes}: Must be at least 4MiB")))
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

fn to_endpoint(dto: &dto::EndpointSpec, previous: Option<&Endpoint>) -> Result<Endpoint, Refusal> {
    let mode = match dto.mode.as_str() {
        "" | "vip" => EndpointMode::Vip,
        "dnsrr" => EndpointMode::DnsRoundRobin,
        other => return Err(invalid(format!("invalid resolution mode: {other:?}"))),
    };
    let ingress = |port: &dto::Port| matches!(port.publish_mode.as_str(), "" | "ingress");
    if mode == EndpointMode::DnsRoundRobin && dto.ports.iter().any(ingress) {
        return Err(invalid(
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ));
    }
    let mut ports = dto.ports.iter().map(to_port).collect::<Result<Vec<_>, _>>()?;
    let mut old: Vec<&PortConfig> = previous.map_or(Vec::new(), |old| old.ports.iter().collect());
    // What says its address is accounted for first: the others are those of a client that dropped
    // theirs.
    let (said, unsaid): (Vec<_>, Vec<_>) =
        ports.iter_mut().zip(&dto.ports).partition(|(_, dto)| dto.host_ip.is_some());
    for (port, _) in said {
        if let Some(at) =
            old.iter().position(|old| same_port(old, port) && old.host_ip == port.host_ip)
        {
            old.remove(at);
        }
    }
    for (port, _) in unsaid {
        if let Some(at) = old.iter().position(|old| same_port(old, port)) {
            port.host_ip = old.remove(at).host_ip;
        }
    }
    Ok(Endpoint { mode, ports })
}

/// Tells whether two ports are one to a client that knows no addresses.
fn same_port(one: &PortConfig, other: &PortConfig) -> bool {
    (one.protocol, one.target, one.published, one.mode)
        == (other.protocol, other.target, other.published, other.mode)
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
    let host_ip = match dto.host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => {
            let address: IpAddr =
                text.parse().map_err(|_| invalid(format!("invalid IP address: {text}")))?;
            (address != Ipv4Addr::UNSPECIFIED).then_some(address)
        }
    };
    Ok(PortConfig {
        name: dto.name.clone(),
        host_ip,
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
