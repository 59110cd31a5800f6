//! What one task runs.

use super::{ENTRIES_MAX, LIST_MAX, count, device, invalid, labels, resolver, texts, wait, word};
use crate::{
    cluster::request::{Class, Refusal},
    types::{
        ContainerSpec, HealthCheck, HealthTest, Mount, MountKind, NamespaceMode, NetworkMode,
        ServiceSpec, TemplateContext, ULIMITS, Ulimit, expand_container, image::Reference,
        is_capability, is_ipc_sysctl, signal, validate_hostname, validate_mounts,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The least and the most of the kernel's scale of who is ended first for want of memory.
const OOM_SCORE: std::ops::RangeInclusive<i32> = -1_000..=1_000;

/// The shortest time of a health check, as Swarm's: probes in a tighter loop would be all a small
/// board does.
const HEALTH_TIME_MIN: Duration = Duration::from_millis(1);

/// The most supplementary groups: the kernel takes 65,536, nobody names more than a few.
const GROUPS_MAX: usize = 64;

/// The options of the volume driver `local`.
const VOLUME_OPTIONS: [&str; 3] = ["device", "o", "type"];

/// The keys of `--security-opt` that are known; checked in full where the option is read.
const SECURITY_KEYS: [&str; 4] = ["no-new-privileges", "seccomp", "apparmor", "systempaths"];

/// How much of an option that may be a whole profile a refusal repeats: a line.
const SHOWN_MAX: usize = 80;

pub(super) fn check(service: &ServiceSpec) -> Result<(), Refusal> {
    let spec = &service.task.container;
    if spec.image.is_empty() {
        return Err(invalid("ContainerSpec: image reference must be provided"));
    }
    if Reference::parse(&spec.image).is_err() {
        return Err(invalid(format!(
            "ContainerSpec: {:?} is not a valid repository/tag",
            spec.image
        )));
    }
    count("arguments", spec.command.len() + spec.args.len(), ENTRIES_MAX)?;
    texts("arguments", spec.command.iter().chain(&spec.args).map(String::as_str))?;
    count("environment variables", spec.env.len(), ENTRIES_MAX)?;
    texts("environment variables", spec.env.iter().map(String::as_str))?;
    labels(&spec.labels)?;
    word("the working directory", &spec.dir)?;
    if !spec.dir.is_empty() && !spec.dir.starts_with('/') {
        return Err(invalid(format!("the working directory {:?} is not absolute", spec.dir)));
    }
    word("the user", &spec.user)?;
    groups(&spec.groups)?;
    stop_signal(&spec.stop_signal)?;
    wait("stop-grace-period", spec.stop_grace.unwrap_or_default())?;
    mount_texts(&spec.mounts)?;
    templated(service)?;
    spec.health.as_ref().map_or(Ok(()), health)?;
    resolver::check(spec)?;
    capabilities(spec)?;
    sysctls(&spec.sysctls, service.task.network, spec.ipc)?;
    ulimits(&spec.ulimits)?;
    if !OOM_SCORE.contains(&spec.oom_score_adj) {
        let score = spec.oom_score_adj;
        return Err(invalid(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        )));
    }
    device::check(&spec.devices)?;
    if i64::try_from(spec.shm_size).is_err() {
        return Err(invalid(format!("a /dev/shm of {} bytes cannot be", spec.shm_size)));
    }
    security(&spec.security)
}

/// Checks what is only known once templates are expanded, with a task and a node as they might be.
fn templated(service: &ServiceSpec) -> Result<(), Refusal> {
    let spec = &service.task.container;
    word("the host name", &spec.hostname)?;
    let context = TemplateContext::imagined(service);
    let expanded = expand_container(spec, &context).map_err(|error| invalid(error.to_string()))?;
    if !expanded.hostname.is_empty() {
        validate_hostname(&expanded.hostname).map_err(|error| invalid(error.to_string()))?;
    }
    for entry in &expanded.env {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(invalid(format!("invalid environment variable: {entry}")));
        }
    }
    validate_mounts(&expanded.mounts).map_err(|error| invalid(error.to_string()))
}

fn stop_signal(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || signal::parse(text).is_some() {
        return Ok(());
    }
    Err(invalid(format!("invalid stop signal: {text}")))
}

fn groups(groups: &[String]) -> Result<(), Refusal> {
    count("groups", groups.len(), GROUPS_MAX)?;
    for group in groups {
        word("a group", group)?;
        if group.is_empty() || group.contains([':', ' ', '\n', '\t']) {
            return Err(invalid(format!("invalid group: {group:?}")));
        }
    }
    Ok(())
}

/// Checks the texts of mounts; what they mean is judged once they are expanded.
fn mount_texts(mounts: &[Mount]) -> Result<(), Refusal> {
    count("mounts", mounts.len(), LIST_MAX)?;
    for mount in mounts {
        word("a mount target", &mount.target)?;
        match &mount.kind {
            MountKind::Bind { source, .. } => word("a bind source", source)?,
            MountKind::Volume { name, options } => {
                word("a volume's name", name)?;
                word("a volume's subpath", &options.subpath)?;
                labels(&options.labels)?;
                volume_driver(&options.driver, &options.options)?;
            }
            MountKind::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn volume_driver(driver: &str, options: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if !matches!(driver, "" | "local") {
        return Err(Refusal::new(
            Class::Unsupported,
            format!("volume driver {driver:?} is not supported yet: only local is known"),
        ));
    }
    texts("volume options", options.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]))?;
    if let Some(unknown) = options.keys().find(|key| !VOLUME_OPTIONS.contains(&key.as_str())) {
        return Err(invalid(format!("invalid option: {unknown:?}")));
    }
    let needs: [(&str, &[&str]); 3] =
        [("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];
    for (given, needed) in needs {
        let missing = needed.iter().find(|key| !options.contains_key(**key));
        if let (true, Some(missing)) = (options.contains_key(given), missing) {
            return Err(invalid(format!("missing required option: {missing:?}")));
        }
    }
    Ok(())
}

fn health(health: &HealthCheck) -> Result<(), Refusal> {
    for (what, time) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if !time.is_zero() && time < HEALTH_TIME_MIN {
            return Err(invalid(format!(
                "ContainerSpec: {what} in HealthConfig cannot be less than 1ms"
            )));
        }
        wait(what, time)?;
    }
    match &health.test {
        HealthTest::Inherit | HealthTest::Disabled => Ok(()),
        HealthTest::Shell(line) => texts("the health check's words", std::iter::once(&**line)),
        HealthTest::Command(words) => {
            count("words of a health check", words.len(), ENTRIES_MAX)?;
            if words.first().is_none_or(String::is_empty) {
                return Err(invalid("ContainerSpec: Test in HealthConfig names no program"));
            }
            texts("the health check's words", words.iter().map(String::as_str))
        }
    }
}

fn capabilities(spec: &ContainerSpec) -> Result<(), Refusal> {
    for (list, names) in [("CapAdd", &spec.capability_add), ("CapDrop", &spec.capability_drop)] {
        count("capabilities", names.len(), LIST_MAX)?;
        if let Some(unknown) = names.iter().find(|name| !is_capability(name)) {
            word("a capability", unknown)?;
            return Err(invalid(format!("invalid {list}: unknown capability: {unknown:?}")));
        }
    }
    Ok(())
}

fn sysctls(
    sysctls: &BTreeMap<String, String>,
    network: NetworkMode,
    ipc: NamespaceMode,
) -> Result<(), Refusal> {
    count("kernel parameters", sysctls.len(), LIST_MAX)?;
    texts("kernel parameters", sysctls.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]))?;
    for key in sysctls.keys() {
        let net = key.starts_with("net.");
        let shared = is_ipc_sysctl(key);
        let plain = !key.contains(['/', ' ']) && !key.contains("..") && !key.ends_with('.');
        if !plain || !(net || shared) {
            return Err(invalid(format!("sysctl '{key}' is not allowed")));
        }
        if net && network == NetworkMode::Host {
            return Err(invalid(format!("sysctl '{key}' not allowed in host network namespace")));
        }
        if shared && ipc == NamespaceMode::Host {
            return Err(invalid(format!("sysctl '{key}' not allowed in host ipc namespace")));
        }
    }
    Ok(())
}

fn ulimits(ulimits: &[Ulimit]) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    for Ulimit { name, soft, hard } in ulimits {
        if !ULIMITS.contains(&name.as_str()) {
            word("a ulimit", name)?;
            return Err(invalid(format!("invalid ulimit type: {name}")));
        }
        if !names.insert(name) {
            return Err(invalid(format!("ContainerSpec: duplicate ulimit: {name}")));
        }
        if *soft < -1 || *hard < -1 {
            return Err(invalid(format!("invalid ulimit {name}: {soft}:{hard}")));
        }
        // -1 is without limit: above every number.
        let above = |limit: i64| if limit == -1 { i64::MAX } else { limit };
        if above(*soft) > above(*hard) {
            return Err(invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
    }
    Ok(())
}

fn security(options: &[String]) -> Result<(), Refusal> {
    texts("security options", options.iter().map(String::as_str))?;
    let mut keys = BTreeSet::new();
    for option in options {
        let key = option.split('=').next().unwrap_or_default();
        if !SECURITY_KEYS.contains(&key) || !keys.insert(key) {
            let shown: String = option.chars().take(SHOWN_MAX).collect();
            return Err(invalid(format!("invalid --security-opt: {shown:?}")));
        }
    }
    Ok(())
}
