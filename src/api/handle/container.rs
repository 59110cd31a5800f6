//! The containers of tasks on this node.

use super::{
    super::{
        convert::{self, date},
        dto,
        local::{Container, ContainerState, MountPoint},
        route::{Call, Reply, json},
    },
    select,
    system::now,
    target,
};
use crate::types::{Date, Health, HealthState, PortConfig, Task, TaskSpec};
use serde_json::{Value, json as value};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

pub(crate) async fn list(call: Call) -> Reply {
    let containers = select::select(&call.query, call.node.containers_with_images().await?)?;
    json(&containers.iter().map(|container| summary(container, now())).collect::<Vec<_>>())
}

fn summary(container: &Container, now: Date) -> dto::ContainerSummary {
    dto::ContainerSummary {
        id: container.id.clone(),
        names: vec![format!("/{}", container.name)],
        image: container.image().to_owned(),
        image_id: image_id(container),
        command: container.command.join(" "),
        created: container.created.unix_seconds(),
        ports: container.ports.iter().map(listed).collect(),
        labels: container.labels.clone(),
        state: container.state.as_str().to_owned(),
        status: match container.state {
            ContainerState::Created => "Created".to_owned(),
            ContainerState::Running => {
                let up = format!("Up {}", human(now.since(container.started)));
                match &container.health {
                    None => up,
                    Some(Health { state: HealthState::Starting, .. }) => {
                        format!("{up} (health: starting)")
                    }
                    Some(Health { state, .. }) => format!("{up} ({state})"),
                }
            }
            ContainerState::Exited => {
                let code =
                    container.exit_code.map_or_else(|| "?".to_owned(), |code| code.to_string());
                format!("Exited ({code}) {} ago", human(now.since(container.finished)))
            }
        },
        host_config: dto::ListedHostConfig { network_mode: container.network().to_owned() },
        network_settings: dto::ListedNetworks { networks: networks(container) },
        mounts: container.mounts.iter().map(mount_point).collect(),
    }
}

/// Returns the id of a container's image; none where it is not known, which clients take better
/// than an empty text.
fn image_id(container: &Container) -> Option<String> {
    Some(container.image_id.clone()).filter(|id| !id.is_empty())
}

/// Returns the networks of a container. It has one.
fn networks(container: &Container) -> BTreeMap<String, dto::EndpointSettings> {
    let address = |fits: fn(&IpAddr) -> bool| {
        let found = container.addresses.iter().find(|address| fits(address));
        found.map(ToString::to_string).unwrap_or_default()
    };
    let name = container.network().to_owned();
    let settings = dto::EndpointSettings {
        network_id: name.clone(),
        ip_address: address(IpAddr::is_ipv4),
        global_ipv6_address: address(IpAddr::is_ipv6),
    };
    [(name, settings)].into()
}

/// Returns a port as lists show it.
fn listed(port: &PortConfig) -> dto::ContainerPort {
    dto::ContainerPort {
        ip: place(port),
        private_port: port.target,
        public_port: port.published,
        r#type: port.protocol.as_str().to_owned(),
    }
}

/// Returns where a port is published on its node.
fn place(port: &PortConfig) -> String {
    port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_string()
}

/// Returns Docker's word for a container's health.
pub(super) fn health_of(container: &Container) -> &'static str {
    container.health.as_ref().map_or("none", |health| health.state.as_str())
}

/// Shows what probes came to; nothing where there are none, as Docker.
fn show_health(health: &Health) -> Value {
    let log = health.log.iter().map(|probe| {
        value!({
            "Start": date(probe.start),
            "End": date(probe.end),
            "ExitCode": probe.code,
            "Output": probe.output,
        })
    });
    value!({
        "Status": health.state.as_str(),
        "FailingStreak": health.streak,
        "Log": log.collect::<Vec<_>>(),
    })
}

/// Docker's rounded durations.
fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1_800) / 3_600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let target = target::find_with_image(call.node.as_ref(), call.name()).await?;
    let found = target.container;
    let running = found.state == ContainerState::Running;
    let mut shown = value!({
        "Id": found.id,
        "Created": date(found.created),
        "Path": found.command.first(),
        "Args": found.command.get(1..).unwrap_or_default(),
        "State": {
            "Status": found.state.as_str(),
            "Running": running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": found.out_of_memory,
            "Dead": false,
            "Pid": found.pid,
            "ExitCode": found.exit_code.unwrap_or(0),
            "Error": "",
            "StartedAt": date(found.started),
            "FinishedAt": date(found.finished),
        },
        "Image": image_id(&found),
        "LogPath": found.log_path,
        "Name": format!("/{}", found.name),
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "ExecIDs": null,
        "HostConfig": host_config(&found),
        "Mounts": found.mounts.iter().map(mount_point).collect::<Vec<_>>(),
        "Config": {
            "Hostname": found.spec.container.hostname,
            "User": found.spec.container.user,
            "Tty": found.spec.container.tty,
            "Env": found.spec.container.env,
            "Cmd": found.command,
            "Image": found.image(),
            "WorkingDir": found.spec.container.dir,
            "Labels": found.labels,
        },
        "NetworkSettings": {
            "Ports": ports(&found),
            "Networks": networks(&found),
        },
    });
    if let Some(health) = &found.health {
        shown["State"]["Health"] = show_health(health);
    }
    if let Some(task) = &target.task {
        add_task(&mut shown, task);
    }
    json(&shown)
}

/// Adds what `docker inspect` of a task shows to what it shows of a container: a task has the id of
/// its container, and for an id Docker's client asks for a container first. None of the names that
/// are added means anything else of a container.
fn add_task(container: &mut Value, task: &Task) {
    let task = value!(convert::task::from_task(task));
    let (Value::Object(container), Value::Object(task)) = (container, task) else { return };
    for (name, value) in task {
        container.entry(name).or_insert(value);
    }
}

/// Returns where each port of the container is reached, as `docker port` shows it.
fn ports(found: &Container) -> Value {
    let mut ports = serde_json::Map::new();
    for port in &found.ports {
        let at = value!({ "HostIp": place(port), "HostPort": port.published.to_string() });
        let name = format!("{}/{}", port.target, port.protocol.as_str());
        if let Value::Array(list) = ports.entry(name).or_insert_with(|| value!([])) {
            list.push(at);
        }
    }
    Value::Object(ports)
}

/// What the container was asked to be, in the words of `docker run`.
fn host_config(found: &Container) -> Value {
    let spec = &found.spec;
    let binds: Vec<String> = found
        .mounts
        .iter()
        .filter(|mount| mount.kind == "bind")
        .map(|mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            format!("{}:{}:{access}", mount.source, mount.target)
        })
        .collect();
    value!({
        "Binds": binds,
        "NetworkMode": found.network(),
        // Tasks are one-shot: what replaces one is another container.
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": false,
        "Privileged": spec.container.privileged,
        "ReadonlyRootfs": spec.container.read_only,
        "Init": spec.container.init,
        "LogConfig": log_config(spec),
        "Memory": spec.limits.memory_bytes,
        "MemoryReservation": spec.reservations.memory_bytes,
        "NanoCpus": spec.limits.nano_cpus,
        "PidsLimit": (spec.limits.pids > 0).then_some(spec.limits.pids),
    })
}

/// Returns where a container's output goes; a node's default is to keep it.
fn log_config(spec: &TaskSpec) -> Value {
    match &spec.log {
        Some(log) => value!({ "Type": log.driver, "Config": log.options }),
        None => value!({ "Type": "json-file", "Config": {} }),
    }
}

fn mount_point(mount: &MountPoint) -> dto::MountPoint {
    let is_volume = mount.kind == "volume";
    dto::MountPoint {
        r#type: mount.kind.to_owned(),
        name: mount.name.clone(),
        source: mount.source.clone(),
        destination: mount.target.clone(),
        driver: if is_volume { "local" } else { "" }.to_owned(),
        mode: String::new(),
        rw: !mount.read_only,
        propagation: if mount.kind == "bind" { "rprivate" } else { "" }.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake;

    #[test]
    fn durations_are_rounded_as_docker_does() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3_000, "50 minutes"),
            (3_700, "About an hour"),
            (7_300, "2 hours"),
            (3 * 86_400, "3 days"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_port_is_listed_where_it_listens() {
        let mut port = fake::port(8080, 80);
        assert_eq!(listed(&port).ip, "0.0.0.0");
        for at in ["127.0.0.1", "::"] {
            port.host_ip = Some(at.parse().expect("an address"));
            assert_eq!(listed(&port).ip, at);
        }
    }
}
