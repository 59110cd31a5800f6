//! What a service's spec must satisfy before it is accepted.
//!
//! Knows only the spec itself: names taken by other services, versions and platforms are checked
//! elsewhere. Split by topic: the container and what it sees of its node, ports, logs, updates.
//! Texts are Swarm's where it has one, so that scripts that read them keep working.

mod container;
mod device;
mod endpoint;
mod log;
mod resolver;
mod update;

use super::request::{Class, Refusal};
use crate::types::{
    GenericReservations, GenericResource, Labels, Mode, Placement, RestartPolicy, ServiceSpec,
    TaskSpec, constraint, validate_service_name,
};
use std::time::Duration;

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

/// The kernel's greatest swappiness for a group of processes.
const SWAPPINESS_MAX: u8 = 100;

/// The most processes there can be on Linux (`PID_MAX_LIMIT`).
const PIDS_MAX: u64 = 4_194_304;

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
    task_spec(spec)?;
    update::check(spec)?;
    endpoint::check(&spec.endpoint, spec.task.network)
}

/// Checks everything of what a service's spec is to be replaced by that can be judged without the
/// cluster.
///
/// # Errors
///
/// As [`service_spec`]; what no update changes is [`Class::Unsupported`].
pub fn service_update(before: &ServiceSpec, after: &ServiceSpec) -> Result<(), Refusal> {
    fixed(before, after).map_err(|text| Refusal::new(Class::Unsupported, text))?;
    service_spec(after)
}

/// Refuses to change what a service has for good.
pub(super) fn fixed(before: &ServiceSpec, after: &ServiceSpec) -> Result<(), &'static str> {
    if before.name != after.name {
        return Err("renaming services is not supported");
    }
    if !before.mode.is_like(after.mode) {
        return Err("service mode change is not allowed");
    }
    Ok(())
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

fn task_spec(service: &ServiceSpec) -> Result<(), Refusal> {
    let spec = &service.task;
    container::check(service)?;
    resources(spec)?;
    restart(&spec.restart)?;
    log::check(spec.log.as_ref())?;
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
    match limits.memory_swap {
        None => {}
        Some(_) if limits.memory_bytes == 0 => {
            return Err(invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ));
        }
        Some(-1) => {}
        Some(both) if u64::try_from(both).is_ok_and(|both| both >= limits.memory_bytes) => {}
        Some(_) => {
            return Err(invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
    }
    if let Some(value) = limits.swappiness.filter(|value| *value > SWAPPINESS_MAX) {
        return Err(invalid(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )));
    }
    if limits.pids > PIDS_MAX {
        let pids = limits.pids;
        return Err(invalid(format!("a limit of {pids} processes is above {PIDS_MAX}")));
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
    wait("restart-max-delay", policy.max_delay)
}

fn placement(placement: &Placement) -> Result<(), Refusal> {
    count("constraints", placement.constraints.len(), LIST_MAX)?;
    count("placement preferences", placement.spread.len(), LIST_MAX)?;
    count("platforms", placement.platforms.len(), LIST_MAX)?;
    for expression in &placement.constraints {
        constraint::Constraint::parse(&expression.to_string())
            .map_err(|error| invalid(error.to_string()))?;
    }
    // Each node by itself is what tasks are spread over anyway.
    let is_node = |descriptor: &&String| {
        ["node.id", "node.hostname"].iter().any(|key| descriptor.eq_ignore_ascii_case(key))
    };
    for descriptor in placement.spread.iter().filter(|it| !is_node(it)) {
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

#[cfg(test)]
mod tests;
