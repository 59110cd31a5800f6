//! `midge info`.

use super::{
    client::Client,
    exit::{CliError, Exit},
    human::{binary_size, duration, list, number, text},
    output,
};
use clap::Args;
use serde_json::Value;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// `json`, or a template such as '{{.Swarm.LocalNodeState}}'
    #[arg(short, long)]
    format: Option<String>,
}

pub(super) fn run(client: &Client, args: &InfoArgs) -> Result<Exit, CliError> {
    let info = client.get("/info")?;
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        output::object(format, &info)?;
        return Ok(Exit::Ok);
    }
    let mut page = Page(String::new());
    page.0.push_str("Client: midge\n");
    page.line(1, "Version", env!("CARGO_PKG_VERSION"));
    page.0.push_str("\nServer:\n");
    engine(&mut page, &info);
    swarm(&mut page, &info["Swarm"]);
    machine(&mut page, &info);
    output::raw(page.0.as_bytes())?;
    for warning in list(&info, "/Warnings") {
        output::note(warning.as_str().unwrap_or(""));
    }
    Ok(Exit::Ok)
}

/// Lines with labels, indented as Docker indents them.
struct Page(String);

impl Page {
    fn line(&mut self, indent: usize, label: &str, value: &str) {
        let space = if value.is_empty() { "" } else { " " };
        self.0.push_str(&format!("{:indent$}{label}:{space}{value}\n", ""));
    }

    /// A line only where there is something to say.
    fn some(&mut self, indent: usize, label: &str, value: &str) {
        if !value.is_empty() {
            self.line(indent, label, value);
        }
    }

    fn count(&mut self, indent: usize, label: &str, value: &Value, pointer: &str) {
        self.line(indent, label, &number(value, pointer).to_string());
    }

    fn flag(&mut self, indent: usize, label: &str, value: &Value, pointer: &str) {
        let set = value.pointer(pointer) == Some(&Value::Bool(true));
        self.line(indent, label, if set { "true" } else { "false" });
    }

    fn item(&mut self, indent: usize, value: &str) {
        self.0.push_str(&format!("{:indent$}{value}\n", ""));
    }
}

fn engine(page: &mut Page, info: &Value) {
    page.count(1, "Containers", info, "/Containers");
    page.count(2, "Running", info, "/ContainersRunning");
    page.count(2, "Paused", info, "/ContainersPaused");
    page.count(2, "Stopped", info, "/ContainersStopped");
    page.count(1, "Images", info, "/Images");
    page.line(1, "Server Version", text(info, "/ServerVersion"));
    page.line(1, "Storage Driver", text(info, "/Driver"));
    for pair in list(info, "/DriverStatus") {
        page.line(2, text(pair, "/0"), text(pair, "/1"));
    }
    page.line(1, "Logging Driver", text(info, "/LoggingDriver"));
    page.line(1, "Cgroup Driver", text(info, "/CgroupDriver"));
    page.line(1, "Cgroup Version", text(info, "/CgroupVersion"));
    page.line(1, "Plugins", "");
    for kind in ["Volume", "Network", "Log"] {
        page.line(2, kind, &words(info, &format!("/Plugins/{kind}")).join(" "));
    }
}

fn words<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

fn swarm(page: &mut Page, swarm: &Value) {
    page.line(1, "Swarm", text(swarm, "/LocalNodeState"));
    page.some(2, "Error", text(swarm, "/Error"));
    if text(swarm, "/NodeID").is_empty() {
        return;
    }
    page.line(2, "NodeID", text(swarm, "/NodeID"));
    page.flag(2, "Is Manager", swarm, "/ControlAvailable");
    let cluster = &swarm["Cluster"];
    if swarm["ControlAvailable"] == true && cluster.is_object() {
        page.line(2, "ClusterID", text(cluster, "/ID"));
        page.count(2, "Managers", swarm, "/Managers");
        page.count(2, "Nodes", swarm, "/Nodes");
        let pools = words(cluster, "/DefaultAddrPool");
        if !pools.is_empty() {
            page.line(2, "Default Address Pool", &pools.join("  "));
            page.count(2, "SubnetSize", cluster, "/SubnetSize");
        }
        page.count(2, "Data Path Port", cluster, "/DataPathPort");
        let spec = &cluster["Spec"];
        page.line(2, "Orchestration", "");
        page.count(
            3,
            "Task History Retention Limit",
            spec,
            "/Orchestration/TaskHistoryRetentionLimit",
        );
        page.line(2, "Raft", "");
        page.count(3, "Snapshot Interval", spec, "/Raft/SnapshotInterval");
        page.count(3, "Number of Old Snapshots to Retain", spec, "/Raft/KeepOldSnapshots");
        page.count(3, "Heartbeat Tick", spec, "/Raft/HeartbeatTick");
        page.count(3, "Election Tick", spec, "/Raft/ElectionTick");
        let nanos = |pointer: &str| duration(Duration::from_nanos(number(spec, pointer)));
        page.line(2, "Dispatcher", "");
        page.line(3, "Heartbeat Period", &nanos("/Dispatcher/HeartbeatPeriod"));
        page.line(2, "CA Configuration", "");
        page.line(3, "Expiry Duration", &nanos("/CAConfig/NodeCertExpiry"));
        page.count(3, "Force Rotate", spec, "/CAConfig/ForceRotate");
        page.flag(2, "Autolock Managers", spec, "/EncryptionConfig/AutoLockManagers");
        page.flag(2, "Root Rotation In Progress", cluster, "/RootRotationInProgress");
    }
    if swarm["LastEntry"].is_object() {
        let count = |pointer: &str| number(swarm, pointer).to_string();
        page.line(2, "Last Entry", "");
        page.line(3, "Term", &count("/LastEntry/Term"));
        page.line(3, "Index", &count("/LastEntry/Index"));
    }
    page.line(2, "Node Address", text(swarm, "/NodeAddr"));
    let managers = list(swarm, "/RemoteManagers");
    if !managers.is_empty() {
        page.line(2, "Manager Addresses", "");
        let mut addresses: Vec<&str> = managers.iter().map(|m| text(m, "/Addr")).collect();
        addresses.sort_unstable();
        addresses.iter().for_each(|address| page.item(3, address));
    }
}

fn machine(page: &mut Page, info: &Value) {
    let runtimes: Vec<&String> =
        info["Runtimes"].as_object().into_iter().flat_map(|r| r.keys()).collect();
    let runtimes: Vec<&str> = runtimes.into_iter().map(String::as_str).collect();
    page.line(1, "Runtimes", &runtimes.join(" "));
    page.line(1, "Default Runtime", text(info, "/DefaultRuntime"));
    page.line(1, "Init Binary", text(info, "/InitBinary"));
    page.line(1, "containerd version", text(info, "/ContainerdCommit/ID"));
    page.some(1, "runc version", text(info, "/RuncCommit/ID"));
    page.line(1, "Security Options", "");
    for option in words(info, "/SecurityOptions") {
        for field in option.split(',') {
            match field.split_once('=') {
                Some(("name", name)) => page.item(2, name),
                Some((key, value)) => {
                    page.line(3, &super::human::capitalized(key), value);
                }
                None => page.item(2, field),
            }
        }
    }
    for (label, pointer) in [
        ("Kernel Version", "/KernelVersion"),
        ("Operating System", "/OperatingSystem"),
        ("OSType", "/OSType"),
        ("Architecture", "/Architecture"),
    ] {
        page.line(1, label, text(info, pointer));
    }
    page.count(1, "CPUs", info, "/NCPU");
    page.line(1, "Total Memory", &binary_size(number(info, "/MemTotal")));
    page.line(1, "Name", text(info, "/Name"));
    page.line(1, "ID", text(info, "/ID"));
    page.line(1, "Docker Root Dir", text(info, "/DockerRootDir"));
    page.flag(1, "Debug Mode", info, "/Debug");
    let labels = words(info, "/Labels");
    if !labels.is_empty() {
        page.line(1, "Labels", "");
        labels.iter().for_each(|label| page.item(2, label));
    }
    page.flag(1, "Experimental", info, "/ExperimentalBuild");
    let registries = info["RegistryConfig"]["IndexConfigs"].as_object();
    let mut insecure: Vec<&str> = registries
        .into_iter()
        .flat_map(|registries| registries.values())
        .filter(|registry| registry["Secure"] == false)
        .map(|registry| text(registry, "/Name"))
        .collect();
    insecure.extend(words(info, "/RegistryConfig/InsecureRegistryCIDRs"));
    if !insecure.is_empty() {
        page.line(1, "Insecure Registries", "");
        insecure.iter().for_each(|registry| page.item(2, registry));
    }
    let mirrors = words(info, "/RegistryConfig/Mirrors");
    if !mirrors.is_empty() {
        page.line(1, "Registry Mirrors", "");
        mirrors.iter().for_each(|mirror| page.item(2, mirror));
    }
    page.flag(1, "Live Restore Enabled", info, "/LiveRestoreEnabled");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries_are_told_by_name_and_by_network() {
        let mut page = Page(String::new());
        let registries = serde_json::json!({
            "IndexConfigs": {
                "docker.io": { "Name": "docker.io", "Secure": true },
                "mirror.local:5000": { "Name": "mirror.local:5000", "Secure": false },
            },
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        });
        machine(&mut page, &serde_json::json!({ "RegistryConfig": registries }));
        let expected = " Insecure Registries:\n  mirror.local:5000\n  127.0.0.0/8\n Live";
        assert!(page.0.contains(expected), "{}", page.0);
    }
}
