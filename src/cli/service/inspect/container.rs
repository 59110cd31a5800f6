//! What a service runs, for people: Docker's lines in Docker's order, and after those of a block
//! what Docker leaves out.

use crate::cli::human::{binary_size, go_duration, list, number, text};
use serde_json::Value;
use std::time::Duration;

/// Takes a label and what stands behind it.
pub(super) trait Line: FnMut(&str, &str) {}

impl<F: FnMut(&str, &str)> Line for F {}

fn words<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

/// Prints what runs and where its output goes.
pub(super) fn template(task: &Value, line: &mut impl Line) {
    let container = &task["ContainerSpec"];
    line("ContainerSpec:", "");
    line(" Image:\t\t", text(container, "/Image"));
    for (title, field) in
        [(" Command:\t", "/Command"), (" Args:\t\t", "/Args"), (" Env:\t\t", "/Env")]
    {
        let words = words(container, field);
        if !words.is_empty() {
            line(title, &format!("{} ", words.join(" ")));
        }
    }
    if !text(container, "/Dir").is_empty() {
        line(" Dir:\t\t", text(container, "/Dir"));
    }
    if let Some(init) = container["Init"].as_bool() {
        line(" Init:\t\t", &init.to_string());
    }
    for (title, field) in [
        (" User: ", "/User"),
        (" Hostname:\t", "/Hostname"),
        (" Stop Signal:\t", "/StopSignal"),
        (" PID Mode:\t", "/PidMode"),
        (" IPC Mode:\t", "/IpcMode"),
    ] {
        if !text(container, field).is_empty() {
            line(title, text(container, field));
        }
    }
    for (title, field) in
        [(" TTY:\t\t", "TTY"), (" Read Only:\t", "ReadOnly"), (" Privileged:\t", "Privileged")]
    {
        if container[field] == true {
            line(title, "true");
        }
    }
    if number(container, "/ShmSize") > 0 {
        line(" Shm Size:\t", &binary_size(number(container, "/ShmSize")));
    }
    if let Some(score) = container["OomScoreAdj"].as_i64().filter(|score| *score != 0) {
        line(" OOM Score:\t", &score.to_string());
    }
    names(container, line);
    confinement(container, line);
    kernel(container, line);
    mounts(list(container, "/Mounts"), line);
    log(&task["LogDriver"], line);
}

fn names(container: &Value, line: &mut impl Line) {
    for (title, field) in [
        (" Groups:\t", "/Groups"),
        (" Hosts:\t\t", "/Hosts"),
        (" Nameservers:\t", "/DNSConfig/Nameservers"),
        (" DNS Search:\t", "/DNSConfig/Search"),
        (" DNS Options:\t", "/DNSConfig/Options"),
    ] {
        let words = words(container, field);
        if !words.is_empty() {
            line(title, &words.join(", "));
        }
    }
}

fn confinement(container: &Value, line: &mut impl Line) {
    let (add, drop) = (words(container, "/CapabilityAdd"), words(container, "/CapabilityDrop"));
    if !add.is_empty() || !drop.is_empty() {
        line("Capabilities:", "");
        for (title, names) in [(" Add: ", add), (" Drop: ", drop)] {
            if !names.is_empty() {
                line(title, &names.join(", "));
            }
        }
    }
    let privileges = &container["Privileges"];
    let mut options: Vec<String> = Vec::new();
    if privileges["NoNewPrivileges"] == true {
        options.push("no-new-privileges".to_owned());
    }
    for (name, mode) in [("seccomp", "/Seccomp/Mode"), ("apparmor", "/AppArmor/Mode")] {
        if !matches!(text(privileges, mode), "" | "default") {
            options.push(format!("{name}={}", text(privileges, mode)));
        }
    }
    options.extend(words(container, "/SecurityOpt").into_iter().map(str::to_owned));
    if !options.is_empty() {
        line("Security Options:", "");
        options.iter().for_each(|option| line(" ", option));
    }
    let devices = list(container, "/Devices");
    if !devices.is_empty() {
        line("Devices:", "");
    }
    for device in devices {
        let cdi = text(device, "/CDI");
        if cdi.is_empty() {
            let (source, target) = (text(device, "/PathOnHost"), text(device, "/PathInContainer"));
            let permissions = text(device, "/CgroupPermissions");
            line(" ", &format!("{source}:{target}:{permissions}"));
        } else {
            line(" ", cdi);
        }
    }
}

fn kernel(container: &Value, line: &mut impl Line) {
    if let Some(sysctls) = container["Sysctls"].as_object().filter(|all| !all.is_empty()) {
        line("SysCtls:", "");
        for (key, value) in sysctls {
            line(&format!(" {key}: "), value.as_str().unwrap_or(""));
        }
    }
    let ulimits = list(container, "/Ulimits");
    if !ulimits.is_empty() {
        line("Ulimits:", "");
    }
    let mut shown: Vec<(&str, String)> = ulimits
        .iter()
        .map(|limit| (text(limit, "/Name"), format!("{}:{}", limit["Soft"], limit["Hard"])))
        .collect();
    shown.sort_unstable();
    for (name, limits) in shown {
        line(&format!(" {name}: "), &limits);
    }
}

fn mounts(mounts: &[Value], line: &mut impl Line) {
    if !mounts.is_empty() {
        line("Mounts:", "");
    }
    for mount in mounts {
        line(" Target:\t", text(mount, "/Target"));
        line("  Source:\t", text(mount, "/Source"));
        let read_only = mount["ReadOnly"].as_bool().unwrap_or(false);
        line("  ReadOnly:\t", &read_only.to_string());
        line("  Type:\t\t", text(mount, "/Type"));
        let options = ["BindOptions", "VolumeOptions", "TmpfsOptions"];
        for options in options.iter().filter_map(|field| mount[*field].as_object()) {
            let shown: Vec<String> =
                options.iter().map(|(key, value)| option(key, value)).collect();
            if !shown.is_empty() {
                line("  Options:\t", &shown.join(", "));
            }
        }
    }
}

fn option(key: &str, value: &Value) -> String {
    match value {
        // Modes are read in base eight.
        Value::Number(mode) if key == "Mode" => {
            format!("Mode={:o}", mode.as_u64().unwrap_or_default())
        }
        Value::Bool(true) => key.to_owned(),
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    }
}

fn log(driver: &Value, line: &mut impl Line) {
    if driver.is_null() {
        return;
    }
    line("Log Driver:", "");
    if !text(driver, "/Name").is_empty() {
        line(" Name:\t\t", text(driver, "/Name"));
    }
    if let Some(options) = driver["Options"].as_object().filter(|options| !options.is_empty()) {
        line(" LogOpts:", "");
        for (key, value) in options {
            match value.as_str().unwrap_or("") {
                "" => line(&format!("  {key}"), ""),
                value => line(&format!("  {key}:       "), value),
            }
        }
    }
    line("", "");
}

/// Prints published ports.
pub(super) fn ports(ports: &[Value], line: &mut impl Line) {
    if !ports.is_empty() {
        line("Ports:", "");
    }
    for port in ports {
        line(" PublishedPort = ", &number(port, "/PublishedPort").to_string());
        line("  Protocol = ", text(port, "/Protocol"));
        line("  TargetPort = ", &number(port, "/TargetPort").to_string());
        line("  PublishMode = ", text(port, "/PublishMode"));
        if !text(port, "/HostIP").is_empty() {
            line("  HostIP = ", text(port, "/HostIP"));
        }
    }
}

/// Prints how health is found out.
pub(super) fn health(health: &Value, line: &mut impl Line) {
    if health.is_null() {
        return;
    }
    let time = |field: &str| go_duration(Duration::from_nanos(number(health, field)));
    line(" Healthcheck:", "");
    line("  Interval = ", &time("/Interval"));
    line("  Retries = ", &number(health, "/Retries").to_string());
    line("  StartPeriod =\t", &time("/StartPeriod"));
    line("  Timeout =\t", &time("/Timeout"));
    if number(health, "/StartInterval") > 0 {
        line("  StartInterval =\t", &time("/StartInterval"));
    }
    let test = words(health, "/Test");
    if !test.is_empty() {
        line("  Tests:", "");
        test.iter().for_each(|word| line("\t Test = ", word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_prints_as_dockers() {
        let task = json!({
            "ContainerSpec": {
                "Image": "bb:1", "Args": ["sh", "-c"], "Dir": "/w", "User": "u", "Init": false,
                "CapabilityAdd": ["CAP_A", "CAP_B"], "CapabilityDrop": ["CAP_C"],
                "Sysctls": {"net.a": "1"},
                "Ulimits": [{"Name": "nofile", "Soft": 4, "Hard": 5},
                            {"Name": "core", "Soft": -1, "Hard": -1}],
                "Mounts": [{"Type": "tmpfs", "Target": "/t",
                            "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}}],
                "Privileges": {"Seccomp": {"Mode": "unconfined"}},
                "Devices": [{"CDI": "v.com/c=1"}],
            },
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m", "tag": ""}},
        });
        let mut out = String::new();
        template(&task, &mut |label: &str, value: &str| out.push_str(&format!("{label}{value}\n")));
        let expected = "ContainerSpec:\n Image:\t\tbb:1\n Args:\t\tsh -c \n Dir:\t\t/w\n \
             Init:\t\tfalse\n User: u\nCapabilities:\n Add: CAP_A, CAP_B\n Drop: CAP_C\n\
             Security Options:\n seccomp=unconfined\nDevices:\n v.com/c=1\n\
             SysCtls:\n net.a: 1\nUlimits:\n core: -1:-1\n nofile: 4:5\n\
             Mounts:\n Target:\t/t\n  Source:\t\n  ReadOnly:\tfalse\n  Type:\t\ttmpfs\n  \
             Options:\tMode=700, SizeBytes=1024\n\
             Log Driver:\n Name:\t\tjson-file\n LogOpts:\n  max-size:       1m\n  tag\n\n";
        assert_eq!(out, expected);
    }
}
