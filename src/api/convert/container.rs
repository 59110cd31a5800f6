//! The container of a service, both ways.
//!
//! What Docker's JSON cannot say (see [`dto::ContainerSpec`]) is kept from the spec before, where
//! there is one, unless the request says it.

use super::{
    duration,
    mount::{from_mount, to_mount},
    nanos, security,
};
use crate::{
    api::{dto, error::invalid},
    cluster::Refusal,
    types::{
        ContainerSpec, Device, DnsConfig, HealthCheck, HealthTest, Mount, NamespaceMode, Ulimit,
        capability_name,
    },
};
use std::time::Duration;

pub(super) fn to_container(
    dto: &dto::ContainerSpec,
    previous: Option<&ContainerSpec>,
) -> Result<ContainerSpec, Refusal> {
    if !matches!(dto.isolation.as_str(), "" | "default") {
        let isolation = &dto.isolation;
        return Err(invalid(format!(
            "invalid isolation ({isolation}): linux only supports 'default'"
        )));
    }
    let mounts: Vec<Mount> = dto.mounts.iter().map(to_mount).collect::<Result<_, _>>()?;
    let mounts = in_order_of(previous.map(|old| &old.mounts), mounts);
    let grace = dto.stop_grace_period;
    let kept = previous.cloned().unwrap_or_default();
    Ok(ContainerSpec {
        image: dto.image.clone(),
        command: dto.command.clone(),
        args: dto.args.clone(),
        hostname: dto.hostname.clone(),
        env: dto.env.clone(),
        dir: dto.dir.clone(),
        user: dto.user.clone(),
        groups: dto.groups.clone(),
        labels: dto.labels.clone(),
        mounts,
        stop_signal: dto.stop_signal.clone(),
        stop_grace: grace.map(|nanos| duration(nanos, "stop-grace-period")).transpose()?,
        read_only: dto.read_only,
        init: dto.init,
        tty: dto.tty,
        health: dto.healthcheck.as_ref().map(to_health).transpose()?.flatten(),
        hosts: dto.hosts.clone(),
        dns: DnsConfig {
            nameservers: dto.dns_config.nameservers.clone(),
            search: dto.dns_config.search.clone(),
            options: dto.dns_config.options.clone(),
        },
        capability_add: to_capabilities(&dto.capability_add),
        capability_drop: to_capabilities(&dto.capability_drop),
        sysctls: dto.sysctls.clone(),
        ulimits: dto.ulimits.iter().map(to_ulimit).collect(),
        oom_score_adj: i32::try_from(dto.oom_score_adj).map_err(|_| {
            let score = dto.oom_score_adj;
            invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"))
        })?,
        privileged: dto.privileged.unwrap_or(kept.privileged),
        devices: match &dto.devices {
            Some(devices) => devices.iter().map(to_device).collect::<Result<_, _>>()?,
            None => kept.devices,
        },
        shm_size: match dto.shm_size {
            Some(size) => {
                u64::try_from(size).map_err(|_| invalid("SHM size can not be less than 0"))?
            }
            None => kept.shm_size,
        },
        pid: to_namespace("PID", dto.pid_mode.as_deref(), kept.pid)?,
        ipc: to_namespace("IPC", dto.ipc_mode.as_deref(), kept.ipc)?,
        security: security::to_options(
            dto.privileges.as_ref(),
            dto.security_opt.as_deref(),
            &kept.security,
        )?,
    })
}

fn to_capabilities(names: &[String]) -> Vec<String> {
    names.iter().map(|name| capability_name(name)).collect()
}

/// Docker's client sorts the mounts of whatever it updates: the same ones in another order are no
/// change, and replace no task.
pub(super) fn in_order_of(old: Option<&Vec<Mount>>, new: Vec<Mount>) -> Vec<Mount> {
    let same = |old: &&Vec<Mount>| old.len() == new.len() && old.iter().all(|m| new.contains(m));
    old.filter(same).cloned().unwrap_or(new)
}

fn to_ulimit(dto: &dto::Ulimit) -> Ulimit {
    Ulimit { name: dto.name.clone(), soft: dto.soft, hard: dto.hard }
}

fn to_device(dto: &dto::Device) -> Result<Device, Refusal> {
    let path = &dto.path_on_host;
    match (path.is_empty(), dto.cdi.is_empty()) {
        (true, false) => Ok(Device::Cdi { name: dto.cdi.clone() }),
        (false, true) => {
            let or = |text: &str, default: &str| {
                if text.is_empty() { default.to_owned() } else { text.to_owned() }
            };
            Ok(Device::Path {
                source: path.clone(),
                target: or(&dto.path_in_container, path),
                permissions: or(&dto.cgroup_permissions, "rwm"),
            })
        }
        _ => Err(invalid("invalid device: either PathOnHost or CDI must be given")),
    }
}

fn to_namespace(
    what: &str,
    mode: Option<&str>,
    kept: NamespaceMode,
) -> Result<NamespaceMode, Refusal> {
    match mode {
        None => Ok(kept),
        Some("" | "private") => Ok(NamespaceMode::Private),
        Some("host") => Ok(NamespaceMode::Host),
        Some(other) => Err(invalid(format!("invalid {what} mode: {other:?}: only host is known"))),
    }
}

/// None where it says nothing.
fn to_health(dto: &dto::Healthcheck) -> Result<Option<HealthCheck>, Refusal> {
    let time = |nanos: i64, what: &str| {
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| {
            invalid(format!("ContainerSpec: {what} in HealthConfig cannot be less than 1ms"))
        })
    };
    let words: Vec<&str> = dto.test.iter().map(String::as_str).collect();
    let test = match words.as_slice() {
        [] | [""] => HealthTest::Inherit,
        ["NONE"] => HealthTest::Disabled,
        ["CMD", program, ..] if !program.is_empty() => HealthTest::Command(dto.test[1..].to_vec()),
        ["CMD-SHELL", line] if !line.is_empty() => HealthTest::Shell((*line).to_owned()),
        _ => {
            return Err(invalid(format!(
                "ContainerSpec: Test in HealthConfig must be NONE, CMD with a program, or \
                 CMD-SHELL with a command line: {words:?}"
            )));
        }
    };
    let health = HealthCheck {
        test,
        interval: time(dto.interval, "Interval")?,
        timeout: time(dto.timeout, "Timeout")?,
        start_period: time(dto.start_period, "StartPeriod")?,
        start_interval: time(dto.start_interval, "StartInterval")?,
        retries: u32::try_from(dto.retries)
            .map_err(|_| invalid("ContainerSpec: Retries in HealthConfig cannot be negative"))?,
    };
    Ok((health != HealthCheck::default()).then_some(health))
}

fn from_health(health: &HealthCheck) -> dto::Healthcheck {
    let test = match &health.test {
        HealthTest::Inherit => Vec::new(),
        HealthTest::Disabled => vec!["NONE".to_owned()],
        HealthTest::Command(words) => {
            std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
        }
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    dto::Healthcheck {
        test,
        interval: nanos(health.interval),
        timeout: nanos(health.timeout),
        start_period: nanos(health.start_period),
        start_interval: nanos(health.start_interval),
        retries: health.retries.into(),
    }
}

pub(super) fn from_container(container: &ContainerSpec) -> dto::ContainerSpec {
    let own_namespace = |mode| (mode == NamespaceMode::Host).then(|| "host".to_owned());
    let (privileges, security_opt) = security::from_options(&container.security);
    dto::ContainerSpec {
        image: container.image.clone(),
        labels: container.labels.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        hostname: container.hostname.clone(),
        env: container.env.clone(),
        dir: container.dir.clone(),
        user: container.user.clone(),
        groups: container.groups.clone(),
        privileges,
        stop_signal: container.stop_signal.clone(),
        tty: container.tty,
        read_only: container.read_only,
        init: container.init,
        mounts: container.mounts.iter().map(from_mount).collect(),
        stop_grace_period: container.stop_grace.map(nanos),
        healthcheck: container.health.as_ref().map(from_health),
        hosts: container.hosts.clone(),
        dns_config: dto::DnsConfig {
            nameservers: container.dns.nameservers.clone(),
            search: container.dns.search.clone(),
            options: container.dns.options.clone(),
        },
        isolation: "default".to_owned(),
        sysctls: container.sysctls.clone(),
        capability_add: container.capability_add.clone(),
        capability_drop: container.capability_drop.clone(),
        ulimits: container.ulimits.iter().map(from_ulimit).collect(),
        oom_score_adj: container.oom_score_adj.into(),
        privileged: container.privileged.then_some(true),
        devices: (!container.devices.is_empty())
            .then(|| container.devices.iter().map(from_device).collect()),
        shm_size: (container.shm_size != 0)
            .then(|| i64::try_from(container.shm_size).unwrap_or(i64::MAX)),
        pid_mode: own_namespace(container.pid),
        ipc_mode: own_namespace(container.ipc),
        security_opt,
        ..Default::default()
    }
}

fn from_ulimit(ulimit: &Ulimit) -> dto::Ulimit {
    dto::Ulimit { name: ulimit.name.clone(), hard: ulimit.hard, soft: ulimit.soft }
}

fn from_device(device: &Device) -> dto::Device {
    match device {
        Device::Path { source, target, permissions } => dto::Device {
            path_on_host: source.clone(),
            path_in_container: target.clone(),
            cgroup_permissions: permissions.clone(),
            cdi: String::new(),
        },
        Device::Cdi { name } => dto::Device { cdi: name.clone(), ..Default::default() },
    }
}
