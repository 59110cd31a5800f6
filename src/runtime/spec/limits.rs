//! Limits of a container: of its processes one by one, of the kernel's parameters, and of its
//! group as a whole.

use super::{SpecError, cgroups_of, edits::Edits};
use crate::{
    runtime::cgroups::Controllers,
    types::{ContainerSpec, NamespaceMode, Task, ULIMITS, is_ipc_sysctl},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The period that CPU quotas are counted in, in microseconds; the kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The shortest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN_MICROS: u64 = 1_000;

/// Returns the limits of each process.
pub(super) fn ulimits(spec: &ContainerSpec) -> Result<Value, SpecError> {
    let mut all: BTreeMap<&str, Value> = BTreeMap::new();
    for limit in &spec.ulimits {
        let refused = |why: String| SpecError::Ulimit { name: limit.name.clone(), why };
        let name = limit.name.as_str();
        if !ULIMITS.contains(&name) {
            return Err(refused("there is no such limit".to_owned()));
        }
        if limit.soft < -1 || limit.hard < -1 {
            return Err(refused("a limit is a number from 0, or -1 for none".to_owned()));
        }
        // -1 is no limit, which the kernel writes as the largest number.
        let (soft, hard) = (limit.soft.cast_unsigned(), limit.hard.cast_unsigned());
        let (soft, hard) = (
            if limit.soft < 0 { u64::MAX } else { soft },
            if limit.hard < 0 { u64::MAX } else { hard },
        );
        if soft > hard {
            return Err(refused(format!(
                "the soft limit must be less than or equal to the hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        all.insert(name, json!({ "type": kind, "soft": soft, "hard": hard }));
    }
    Ok(all.into_values().collect())
}

/// Returns the kernel parameters to set. Only those that belong to a namespace of the container's
/// own may be: others would be the node's.
pub(super) fn sysctls(
    spec: &ContainerSpec,
    has_own_network: bool,
) -> Result<BTreeMap<String, String>, SpecError> {
    let mut all = BTreeMap::new();
    if has_own_network {
        // As Docker: in a network of its own a container may use low ports and ping unprivileged.
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    for (given, value) in &spec.sysctls {
        let refused = |why| SpecError::Sysctl { name: given.clone(), why };
        let name = dotted(given);
        if name.starts_with("net.") {
            if !has_own_network {
                return Err(refused("the task uses the node's own network"));
            }
        } else if is_ipc_sysctl(&name) {
            if spec.ipc == NamespaceMode::Host {
                return Err(refused("the task uses the node's own shared memory"));
            }
        } else if name == "kernel.hostname" {
            return Err(refused("use the host name of the container instead"));
        } else if name != "kernel.domainname" {
            return Err(refused("it is not of a container but of the whole node"));
        }
        all.insert(name, value.clone());
    }
    Ok(all)
}

/// Writes a parameter's name with dots, as sysctl(8) reads it: where the first separator is a
/// slash, slashes and dots have changed places.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|character| match character {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Returns the limits of the container's group.
pub(super) fn resources(
    task: &Task,
    controllers: &Controllers,
    edits: &Edits,
) -> Result<Value, SpecError> {
    let limits = &task.spec.limits;
    let support = &controllers.support;
    let mut all = json!({ "devices": devices(&task.spec.container, edits) });
    let memory = memory(task, controllers)?;
    if memory.as_object().is_some_and(|memory| !memory.is_empty()) {
        if !support.memory {
            return Err(SpecError::NoController("memory"));
        }
        all["memory"] = memory;
    }
    if limits.nano_cpus > 0 {
        if !support.cpu {
            return Err(SpecError::NoController("cpu"));
        }
        let quota = u128::from(limits.nano_cpus) * u128::from(CPU_PERIOD_MICROS) / 1_000_000_000;
        let quota = u64::try_from(quota).unwrap_or(u64::MAX).max(CPU_QUOTA_MIN_MICROS);
        all["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD_MICROS });
    }
    if limits.pids > 0 {
        if !support.pids {
            return Err(SpecError::NoController("pids"));
        }
        all["pids"] = json!({ "limit": limits.pids });
    }
    Ok(all)
}

/// The specification counts memory and swap together for both versions of the group file system.
/// A node that cannot count swap limits memory alone, and one whose groups have no swappiness of
/// their own (version 2) leaves it out: a hint must not keep a task from a node. Docker has it so.
fn memory(task: &Task, controllers: &Controllers) -> Result<Value, SpecError> {
    let limits = &task.spec.limits;
    let mut memory = json!({});
    if limits.memory_bytes > 0 {
        memory["limit"] = json!(limits.memory_bytes);
    }
    let limit = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    let swap = match limits.memory_swap {
        None | Some(0) => (limit > 0).then(|| limit.saturating_mul(2)),
        Some(_) if limit == 0 => return Err(SpecError::SwapAlone),
        Some(-1) => Some(-1),
        Some(swap) if swap < limit => return Err(SpecError::SwapTooSmall),
        Some(swap) => Some(swap),
    };
    if let Some(swap) = swap.filter(|_| controllers.swap) {
        memory["swap"] = json!(swap);
    }
    if let Some(swappiness) = limits.swappiness {
        if swappiness > 100 {
            return Err(SpecError::Swappiness(swappiness));
        }
        if cgroups_of(controllers) == 1 {
            memory["swappiness"] = json!(swappiness);
        }
    }
    Ok(memory)
}

/// runc adds the devices that every container has.
fn devices(spec: &ContainerSpec, edits: &Edits) -> Value {
    if spec.privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut all = vec![json!({ "allow": false, "access": "rwm" })];
    all.extend(edits.nodes.iter().filter_map(|node| node.rule()));
    Value::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Ulimit;

    #[test]
    fn parameters_of_the_node_are_refused() {
        let check = |name: &str, own_network, ipc| {
            let sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            let spec = ContainerSpec { sysctls, ipc, ..ContainerSpec::default() };
            sysctls_text(&spec, own_network)
        };
        fn sysctls_text(spec: &ContainerSpec, own_network: bool) -> Result<String, String> {
            let all = sysctls(spec, own_network).map_err(|error| error.to_string())?;
            Ok(all.keys().map(String::as_str).collect::<Vec<_>>().join(" "))
        }
        use NamespaceMode::{Host, Private};
        assert_eq!(
            check("net.core.somaxconn", true, Host).unwrap(),
            "net.core.somaxconn net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range"
        );
        assert_eq!(
            check("net/ipv4/conf/eth0.100/rp_filter", true, Private).unwrap().split(' ').next(),
            Some("net.ipv4.conf.eth0/100.rp_filter")
        );
        for (name, own_network, ipc, why) in [
            ("net.core.somaxconn", false, Private, "the node's own network"),
            ("kernel.shmmax", true, Host, "the node's own shared memory"),
            ("fs.mqueue.msg_max", true, Host, "the node's own shared memory"),
            ("kernel.panic", true, Private, "of the whole node"),
            ("vm.swappiness", true, Private, "of the whole node"),
            ("kernel.hostname", true, Private, "host name of the container"),
            ("netx", true, Private, "of the whole node"),
        ] {
            let error = check(name, own_network, ipc).unwrap_err();
            assert!(error.contains(why) && error.contains(name), "{error}");
        }
        assert_eq!(check("kernel.shmmax", false, Private).unwrap(), "kernel.shmmax");
    }

    #[test]
    fn limits_of_processes_are_checked() {
        let check = |name: &str, soft, hard| {
            let ulimits = vec![Ulimit { name: name.into(), soft, hard }];
            let spec = ContainerSpec { ulimits, ..ContainerSpec::default() };
            super::ulimits(&spec).map(|value| value.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(
            check("nofile", 10, -1).unwrap(),
            r#"[{"hard":18446744073709551615,"soft":10,"type":"RLIMIT_NOFILE"}]"#
        );
        for (name, soft, hard) in [("fly", 1, 1), ("core", 2, 1), ("core", -1, 1), ("core", 1, -2)]
        {
            let error = check(name, soft, hard).unwrap_err();
            assert!(error.starts_with(&format!("invalid ulimit {name:?}: ")), "{error}");
        }
    }
}
