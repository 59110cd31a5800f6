//! Ping, version, info.

use super::super::{
    API_VERSION, API_VERSION_MIN,
    convert::cluster,
    dto,
    local::{Info, LocalNode, Standing},
    route::{Call, Reply, bytes_with, json},
};
use crate::{
    cluster::{Query, Refusal},
    types::{Cluster, Date, Node, Role},
};
use http::{HeaderValue, StatusCode, header};
use std::{collections::BTreeMap, net::IpAddr, time::SystemTime};

/// Docker's own registry, which its client shows.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// The name by which that client knows it.
const OFFICIAL_REGISTRY: &str = "docker.io";

pub(crate) fn now() -> Date {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Date::from_unix_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) async fn ping(call: Call) -> Reply {
    let standing = call.node.standing();
    let swarm = match (standing.swarm.as_str(), standing.control_available) {
        ("active", true) => "active/manager",
        ("active", false) => "active/worker",
        (other, _) => other,
    };
    let mut response = bytes_with(StatusCode::OK, "text/plain; charset=utf-8", "OK");
    let headers = response.headers_mut();
    let quiet = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    headers.insert(header::CACHE_CONTROL, quiet);
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert("swarm", HeaderValue::from_static(swarm));
    Ok(response)
}

pub(crate) async fn version(call: Call) -> Reply {
    let info = call.node.info().await;
    let (api, low) = (API_VERSION, API_VERSION_MIN);
    let (api, low) = (format!("{}.{}", api.0, api.1), format!("{}.{}", low.0, low.1));
    let arch = info.platform.architecture.clone();
    let details = [
        ("ApiVersion", api.as_str()),
        ("MinAPIVersion", low.as_str()),
        ("Arch", arch.as_str()),
        ("Os", "linux"),
        ("KernelVersion", info.kernel.as_str()),
        ("Experimental", "false"),
        ("GitCommit", ""),
        ("GoVersion", "none"),
    ];
    let component = |name: &str, version: &str, details: &[(&str, &str)]| dto::Component {
        name: name.to_owned(),
        version: version.to_owned(),
        details: details
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let mut components = vec![component("Engine", &info.version, &details)];
    if !info.containerd_version.is_empty() {
        components.push(component("containerd", &info.containerd_version, &[("GitCommit", "")]));
    }
    json(&dto::Version {
        platform: dto::PlatformName { name: "midge".to_owned() },
        components,
        version: info.version,
        api_version: api,
        min_api_version: low,
        git_commit: String::new(),
        go_version: "none".to_owned(),
        os: "linux".to_owned(),
        arch,
        kernel_version: info.kernel,
    })
}

/// Lists what there is none of: clients that tidy up look through every list.
pub(crate) async fn none(_call: Call) -> Reply {
    json(&[(); 0])
}

pub(crate) async fn info(call: Call) -> Reply {
    let info = call.node.info().await;
    let swarm = swarm_info(&call, &info.standing).await;
    json(&render(info, swarm))
}

async fn swarm_info(call: &Call, standing: &Standing) -> dto::SwarmInfo {
    let node = call.node.as_ref();
    let mut swarm = dto::SwarmInfo {
        node_id: standing.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        node_addr: standing.node_address.clone(),
        local_node_state: standing.swarm.as_str().to_owned(),
        control_available: standing.control_available,
        error: standing.swarm_error.clone(),
        remote_managers: (!standing.managers.is_empty()).then(|| {
            let manager = |(id, addr): &(crate::types::NodeId, String)| dto::RemoteManager {
                node_id: id.to_string(),
                addr: addr.clone(),
            };
            standing.managers.iter().map(manager).collect()
        }),
        last_entry: standing
            .last_entry
            .map(|last| dto::LastEntry { term: last.term, index: last.index }),
        ..Default::default()
    };
    if !standing.control_available {
        return swarm;
    }
    // A manager without a leader still answers `info`, and says what is wrong.
    match cluster_and_nodes(node).await {
        Ok((found, nodes)) => {
            swarm.cluster = Some(cluster::from_cluster(&found, node, false));
            swarm.managers = nodes.iter().filter(|node| node.role == Role::Manager).count();
            swarm.nodes = nodes.len();
        }
        Err(refusal) => {
            if swarm.error.is_empty() {
                swarm.error = refusal.message;
            }
        }
    }
    swarm
}

/// Without a leader only the first of them is waited for.
async fn cluster_and_nodes(node: &dyn LocalNode) -> Result<(Cluster, Vec<Node>), Refusal> {
    Ok((super::cluster(node).await?, super::nodes(node, Query::Nodes).await?))
}

/// Shows the registries that are set up. Docker's client reads nothing of the whole answer where one
/// of the networks is none, so what is named goes to the other registries with names.
fn registries(mirrors: Vec<String>, plain_http: &[String]) -> dto::RegistryConfig {
    let official = dto::IndexConfig {
        name: OFFICIAL_REGISTRY.to_owned(),
        mirrors: mirrors.clone(),
        secure: true,
        official: true,
    };
    let mut networks = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    let mut named = BTreeMap::from([(OFFICIAL_REGISTRY.to_owned(), official)]);
    for entry in plain_http {
        if is_network(entry) {
            networks.push(entry.clone());
            continue;
        }
        let registry = dto::IndexConfig { name: entry.clone(), ..Default::default() };
        named.entry(entry.clone()).or_insert(registry).secure = false;
    }
    dto::RegistryConfig { insecure_registry_cidrs: networks, index_configs: named, mirrors }
}

/// Tells whether a text is a network as Go reads one: an address, a slash and the prefix's length.
fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let widest = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|byte| byte.is_ascii_digit())
        && bits.parse().is_ok_and(|bits: u32| bits <= widest)
}

fn render(info: Info, swarm: dto::SwarmInfo) -> dto::Info {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut security = words(&["name=seccomp,profile=builtin"]);
    if info.has_apparmor {
        security.insert(0, "name=apparmor".to_owned());
    }
    let runtime = dto::RuntimePath { path: "runc".to_owned() };
    let warnings = [info.warnings, info.standing.warnings].concat();
    dto::Info {
        id: info.machine_id,
        containers: info.containers_running + info.containers_stopped,
        containers_running: info.containers_running,
        containers_paused: 0,
        containers_stopped: info.containers_stopped,
        images: info.images,
        driver: "overlayfs".to_owned(),
        driver_status: vec![("driver-type".to_owned(), "io.containerd.snapshotter.v1".to_owned())],
        plugins: dto::Plugins {
            volume: words(&["local"]),
            network: words(&["bridge", "host", "null"]),
            authorization: None,
            log: words(&["json-file"]),
        },
        memory_limit: info.cgroups.memory,
        swap_limit: info.cgroups.memory,
        cpu_cfs_period: info.cgroups.cpu,
        cpu_cfs_quota: info.cgroups.cpu,
        pids_limit: info.cgroups.pids,
        ipv4_forwarding: true,
        system_time: now().to_string(),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: info.cgroups.version.to_string(),
        kernel_version: info.kernel,
        operating_system: info.operating_system,
        os_version: info.os_version,
        os_type: "linux".to_owned(),
        architecture: info.platform.kernel_name(),
        index_server_address: INDEX_SERVER.to_owned(),
        registry_config: registries(info.mirrors, &info.plain_http_registries),
        ncpu: info.resources.nano_cpus / 1_000_000_000,
        mem_total: info.resources.memory_bytes,
        docker_root_dir: info.data_dir,
        name: info.hostname,
        labels: info.labels.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        server_version: info.version,
        runtimes: [("runc".to_owned(), runtime)].into(),
        default_runtime: "runc".to_owned(),
        swarm,
        live_restore_enabled: true,
        init_binary: "midge".to_owned(),
        containerd_commit: dto::Commit { id: info.containerd_version },
        security_options: security,
        warnings: (!warnings.is_empty()).then_some(warnings),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_are_told_as_networks() {
        let plain =
            ["mirror.local:5000", "10.1.0.0/16", "fd00::/8", "10.0.0.1", "bad/99", "10.0.0.0/33"];
        let shown = registries(vec!["m:1".to_owned()], &plain.map(str::to_owned));
        let networks = ["127.0.0.0/8", "::1/128", "10.1.0.0/16", "fd00::/8"];
        assert_eq!(shown.insecure_registry_cidrs, networks);
        let secure: Vec<_> = shown
            .index_configs
            .values()
            .map(|registry| (registry.name.as_str(), registry.secure, registry.official))
            .collect();
        let named = |name| (name, false, false);
        let expected = [
            named("10.0.0.0/33"),
            named("10.0.0.1"),
            named("bad/99"),
            ("docker.io", true, true),
            named("mirror.local:5000"),
        ];
        assert_eq!(secure, expected);
        for text in ["10.0.0.0/+8", "10.0.0.0/", "10.0.0/8", "/8", "::/129", "a/8"] {
            assert!(!is_network(text), "{text}");
        }
    }
}
