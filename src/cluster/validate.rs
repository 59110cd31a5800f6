//! What a service's spec must satisfy before it is accepted.
//!
//! Knows only the spec itself: names taken by other services, versions and platforms are checked
//! elsewhere. Texts are Swarm's where it has one, so that scripts that read them keep working.

use super::request::{Class, Refusal};
use crate::types::{
    ContainerSpec, Endpoint, GenericReservations, GenericResource, Labels, Mode, Mount, MountKind,
    NetworkMode, Placement, PublishMode, RestartPolicy, ServiceSpec, TaskSpec, constraint,
    image::Reference, validate_hostname, validate_service_name,
};
use std::{collections::BTreeSet, time::Duration};

/// The least CPU that can be asked for, as Swarm's: one thousandth of a processor.
pub const NANO_CPUS_MIN: u64 = 1_000_000;

/// The least memory that can be asked for, as Swarm's: below it no container starts.
pub const MEMORY_MIN: u64 = 4 * 1024 * 1024;

/// The most slots of one service. A cluster of small boards runs a few thousand tasks; a typing
/// error of three digits must not fill the managers' memory with pending tasks.
pub const REPLICAS_MAX: u64 = 20_000;

/// The most mounts, published ports, constraints or spread preferences of one service: each is
/// looked at for every task and node, and nobody writes so many by hand.
pub const LIST_MAX: usize = 256;

/// The most environment entries, arguments or labels.
pub const ENTRIES_MAX: usize = 1_024;

/// The most bytes of environment, arguments and labels together. The kernel starts no process with
/// more than 128 KiB in one argument, every task carries a copy, and a log entry takes 1.5 MB.
pub const TEXT_MAX: usize = 256 * 1024;

/// The longest path, user, key or other single word: the kernel's `PATH_MAX`.
pub const WORD_MAX: usize = 4_096;

/// The longest wait of any kind: a year. More is a typing error, and keeps sums of waits far from
/// their types' bounds.
pub const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// The signals Linux has names for, with their numbers being 1 to 31 in this order.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The highest signal number.
const SIGNAL_MAX: u32 = 64;

/// Checks everything of a service's spec that can be judged without the cluster.
///
/// # Errors
///
/// The first rule that it breaks: [`Class::Unsupported`] for what midge does not do yet, otherwise
/// [`Class::Invalid`].
pub fn service_spec(spec: &ServiceSpec) -> Result<(), Refusal> {
    validate_service_name(&spec.name).map_err(|error| invalid(error.to_string()))?;
    labels(&spec.labels)?;
    if let Mode::Replicated { replicas } = spec.mode
        && replicas > REPLICAS_MAX
    {
        return Err(invalid(format!("{replicas} replicas are more than {REPLICAS_MAX}")));
    }
    if let Mode::ReplicatedJob { max_concurrent, total_completions } = spec.mode {
        for (what, count) in
            [("completions", total_completions), ("tasks at a time", max_concurrent)]
        {
            if count > REPLICAS_MAX {
                return Err(invalid(format!("{count} {what} are more than {REPLICAS_MAX}")));
            }
        }
    }
    if spec.mode.is_per_node() && spec.task.placement.max_replicas_per_node > 0 {
        return Err(invalid(
            "replicas-max-per-node can only be used with replicated or replicated-job mode",
        ));
    }
    task_spec(&spec.task)?;
    endpoint(&spec.endpoint, spec.task.network)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Class::Invalid, message)
}

fn count(what: &str, have: usize, max: usize) -> Result<(), Refusal> {
    if have > max {
        return Err(invalid(format!("{have} {what} are more than {max}")));
    }
    Ok(())
}

fn word(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > WORD_MAX {
        return Err(invalid(format!("{what} is longer than {WORD_MAX} bytes")));
    }
    if text.contains('\0') {
        return Err(invalid(format!("{what} holds a NUL character")));
    }
    Ok(())
}

fn wait(what: &str, duration: Duration) -> Result<(), Refusal> {
    if duration > WAIT_MAX {
        return Err(invalid(format!("{what} is longer than a year")));
    }
    Ok(())
}

fn labels(labels: &Labels) -> Result<(), Refusal> {
    count("labels", labels.len(), ENTRIES_MAX)?;
    if labels.keys().any(String::is_empty) {
        return Err(invalid("invalid label: empty name"));
    }
    texts("labels", labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))
}

fn texts<'a>(what: &str, entries: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut total = 0;
    for entry in entries {
        if entry.contains('\0') {
            return Err(invalid(format!("{what} hold a NUL character")));
        }
        total += entry.len();
    }
    if total > TEXT_MAX {
        return Err(invalid(format!("{what} take {total} bytes, more than {TEXT_MAX}")));
    }
    Ok(())
}

fn task_spec(spec: &TaskSpec) -> Result<(), Refusal> {
    container(&spec.container)?;
    resources(spec)?;
    restart(&spec.restart)?;
    placement(&spec.placement)
}

fn resources(spec: &TaskSpec) -> Result<(), Refusal> {
    let (reserved, limits) = (&spec.reservations, &spec.limits);
    generic(&spec.generic)?;
    for nano_cpus in [reserved.nano_cpus, limits.nano_cpus] {
        if nano_cpus != 0 && nano_cpus < NANO_CPUS_MIN {
            let cpus = Cpus(nano_cpus);
            return Err(invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
        }
    }
    for bytes in [reserved.memory_bytes, limits.memory_bytes] {
        if bytes != 0 && bytes < MEMORY_MIN {
            return Err(invalid(format!("invalid memory value {bytes}: Must be at least 4MiB")));
        }
    }
    if limits.nano_cpus != 0 && reserved.nano_cpus > limits.nano_cpus {
        let (reserved, limit) = (Cpus(reserved.nano_cpus), Cpus(limits.nano_cpus));
        return Err(invalid(format!("reserved cpu {reserved} is above its limit {limit}")));
    }
    if limits.memory_bytes != 0 && reserved.memory_bytes > limits.memory_bytes {
        return Err(invalid(format!(
            "reserved memory {} is above its limit {}",
            reserved.memory_bytes, limits.memory_bytes
        )));
    }
    Ok(())
}

fn generic(wanted: &GenericReservations) -> Result<(), Refusal> {
    count("generic resources", wanted.len(), LIST_MAX)?;
    for (kind, count) in wanted {
        GenericResource::parse(&format!("{kind}={count}"))
            .map_err(|error| invalid(error.to_string()))?;
        if *count == 0 {
            return Err(invalid(format!(
                "invalid argument for resource {kind}: at least 1 is expected"
            )));
        }
    }
    Ok(())
}

/// Billionths of a processor, printed as processors.
struct Cpus(u64);

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn restart(policy: &RestartPolicy) -> Result<(), Refusal> {
    wait("restart-delay", policy.delay)?;
    wait("restart-window", policy.window)?;
    wait("restart-max-delay", policy.max_delay)?;
    if policy.max_delay < policy.delay {
        return Err(invalid(format!(
            "restart-max-delay {:?} is below restart-delay {:?}",
            policy.max_delay, policy.delay
        )));
    }
    Ok(())
}

fn placement(placement: &Placement) -> Result<(), Refusal> {
    count("constraints", placement.constraints.len(), LIST_MAX)?;
    count("placement preferences", placement.spread.len(), LIST_MAX)?;
    count("platforms", placement.platforms.len(), LIST_MAX)?;
    for expression in &placement.constraints {
        constraint::Constraint::parse(&expression.to_string())
            .map_err(|error| invalid(error.to_string()))?;
    }
    for descriptor in &placement.spread {
        let known = ["node.labels.", "engine.labels."]
            .iter()
            .any(|prefix| constraint::label_name(descriptor, prefix).is_some());
        if !known {
            return Err(invalid(format!(
                "cannot spread over {descriptor:?}: node.labels.NAME or engine.labels.NAME is \
                 expected"
            )));
        }
    }
    Ok(())
}

fn container(spec: &ContainerSpec) -> Result<(), Refusal> {
    if spec.image.is_empty() {
        return Err(invalid("ContainerSpec: image reference must be provided"));
    }
    if Reference::parse(&spec.image).is_err() {
        return Err(invalid(format!(
            "ContainerSpec: {:?} is not a valid repository/tag",
            spec.image
        )));
    }
    if !spec.hostname.is_empty() {
        validate_hostname(&spec.hostname).map_err(|error| invalid(error.to_string()))?;
    }
    count("arguments", spec.command.len() + spec.args.len(), ENTRIES_MAX)?;
    texts("arguments", spec.command.iter().chain(&spec.args).map(String::as_str))?;
    environment(&spec.env)?;
    labels(&spec.labels)?;
    word("the working directory", &spec.dir)?;
    if !spec.dir.is_empty() && !spec.dir.starts_with('/') {
        return Err(invalid(format!("the working directory {:?} is not absolute", spec.dir)));
    }
    word("the user", &spec.user)?;
    signal(&spec.stop_signal)?;
    wait("stop-grace-period", spec.stop_grace.unwrap_or_default())?;
    mounts(&spec.mounts)
}

fn environment(env: &[String]) -> Result<(), Refusal> {
    count("environment variables", env.len(), ENTRIES_MAX)?;
    for entry in env {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(invalid(format!("invalid environment variable: {entry}")));
        }
    }
    texts("environment variables", env.iter().map(String::as_str))
}

fn signal(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || signal_number(text).is_some() {
        return Ok(());
    }
    Err(invalid(format!("invalid stop signal: {text}")))
}

/// Returns the number of a signal named `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`, in any case.
#[must_use]
pub fn signal_number(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=SIGNAL_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(above) = name.strip_prefix("RTMIN") {
        // glibc and musl keep the first two (32, 33) for themselves.
        return offset(above, '+').map(|n| 34 + n).filter(|n| *n <= SIGNAL_MAX);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        return offset(below, '-').and_then(|n| SIGNAL_MAX.checked_sub(n)).filter(|n| *n >= 34);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    let index = SIGNALS.iter().position(|known| *known == name)?;
    u32::try_from(index + 1).ok()
}

/// Returns the number behind `sign`, or 0 where there is nothing at all.
fn offset(text: &str, sign: char) -> Option<u32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok().filter(|n| *n <= SIGNAL_MAX)
}

fn mounts(mounts: &[Mount]) -> Result<(), Refusal> {
    count("mounts", mounts.len(), LIST_MAX)?;
    let mut targets = BTreeSet::new();
    for mount in mounts {
        word("a mount target", &mount.target)?;
        if mount.target.is_empty() {
            return Err(invalid("ContainerSpec: mount target must be provided"));
        }
        if !mount.target.starts_with('/') {
            return Err(invalid(format!(
                "invalid mount target, must be an absolute path: {}",
                mount.target
            )));
        }
        let Some(target) = lexical(&mount.target) else {
            return Err(invalid(format!(
                "invalid mount target, must not climb with \"..\": {}",
                mount.target
            )));
        };
        if target.is_empty() {
            return Err(invalid("invalid mount target: the container's root cannot be replaced"));
        }
        if !targets.insert(target) {
            return Err(invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target)));
        }
        source(mount)?;
    }
    Ok(())
}

/// Returns the path's parts, so that `/a`, `/a/` and `/./a` are known as one; none where it climbs.
fn lexical(path: &str) -> Option<Vec<&str>> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.map(|part| (part != "..").then_some(part)).collect()
}

fn source(mount: &Mount) -> Result<(), Refusal> {
    match &mount.kind {
        MountKind::Bind { source } => {
            word("a bind source", source)?;
            if source.is_empty() {
                return Err(invalid(format!(
                    "invalid bind mount source, must not be empty (target {})",
                    mount.target
                )));
            }
            if !source.starts_with('/') {
                return Err(invalid(format!(
                    "invalid bind mount source, must be an absolute path: {source}"
                )));
            }
        }
        MountKind::Volume { name } => {
            let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
            let fits = name.len() <= 255
                && edge(name.as_bytes().first())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !fits {
                return Err(invalid(format!(
                    "invalid volume mount source, must not be an absolute path and only \
                     [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed: {name}"
                )));
            }
        }
        MountKind::Tmpfs => {}
    }
    Ok(())
}

fn endpoint(endpoint: &Endpoint, network: NetworkMode) -> Result<(), Refusal> {
    count("published ports", endpoint.ports.len(), LIST_MAX)?;
    let mut taken = BTreeSet::new();
    for port in &endpoint.ports {
        let protocol = port.protocol.as_str();
        if port.target == 0 {
            return Err(invalid("EndpointSpec: invalid target port 0"));
        }
        if port.mode == PublishMode::Ingress {
            return Err(Refusal::new(
                Class::Unsupported,
                format!(
                    "publishing port {} with mode=ingress is not supported yet: use mode=host",
                    port.target
                ),
            ));
        }
        match network {
            NetworkMode::Bridge => {}
            NetworkMode::None => {
                return Err(invalid(format!(
                    "port {}/{protocol} cannot be published: network none has no address",
                    port.target
                )));
            }
            NetworkMode::Host if port.published != 0 && port.published != port.target => {
                return Err(invalid(format!(
                    "port {}/{protocol} cannot be published as {}: on network host a container's \
                     port is the host's",
                    port.target, port.published
                )));
            }
            NetworkMode::Host => {}
        }
        let published = match (network, port.published) {
            (NetworkMode::Host, 0) => port.target,
            (_, published) => published,
        };
        if published != 0 && !taken.insert((port.protocol, published)) {
            return Err(invalid(format!(
                "EndpointSpec: duplicate published ports provided: {published}/{protocol}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
