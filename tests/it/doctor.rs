//! `midge doctor` on hosts, and on folders that stand for machines.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{self, Host, Network, midge_binary};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::{
    fs,
    net::UdpSocket,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Returns the findings of a run with `--format json`, by name: the level and the whole of each.
fn findings(output: &Output) -> Vec<(String, String, Value)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let field = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    lines.map(|value| (field(&value, "Name"), field(&value, "Level"), value)).collect()
}

fn level(found: &[(String, String, Value)], name: &str) -> String {
    found.iter().find(|(other, ..)| other == name).map_or(String::new(), |f| f.1.clone())
}

/// Runs the doctor on a host, on that host's folders.
fn doctor(host: &Host, extra: &[&str]) -> Output {
    let dir = host.dir.display();
    let mut command = host.inside(&midge_binary());
    command.arg("-H").arg(format!("unix://{dir}/midge.sock")).arg("doctor");
    command.arg(format!("--data-dir={dir}/data"));
    command.arg(format!("--containerd={dir}/containerd.sock")).args(extra);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_host_is_looked_at_before_and_after() {
    if !host::can_run() {
        return;
    }
    let mut network = Network::new(1);
    let host = &mut network.hosts[0];
    let json = ["--format", "json"];
    let before = findings(&doctor(host, &json));
    assert_eq!(level(&before, "containerd"), "ok", "{before:?}");
    assert_eq!(level(&before, "port-2377"), "ok", "{before:?}");
    assert_eq!(level(&before, "daemon"), "note", "{before:?}");
    assert!(!host.dir.join("data").exists(), "looking makes nothing");

    host.start_daemon();
    host.ok(&["swarm", "init", "--advertise-addr", &host.address]);
    let after = findings(&doctor(host, &json));
    for name in ["daemon", "daemon-version", "cluster", "port-2377"] {
        assert_eq!(level(&after, name), "ok", "{name}: {after:?}");
    }
    let held = after.iter().find(|(name, ..)| name == "port-2377").unwrap();
    assert!(held.2["What"].as_str().unwrap().contains("held by midge"), "{held:?}");
    let quiet = doctor(host, &["--quiet", "--format", "json"]);
    assert!(findings(&quiet).iter().all(|(_, level, _)| level != "ok"));
    let exit = i32::from(after.iter().any(|(_, level, _)| level == "problem"));
    assert_eq!(quiet.status.code(), Some(exit));

    host.sh("nft add table ip t; nft add chain ip t f \"{ type filter hook forward priority 0; policy drop; }\"");
    let dropping = findings(&doctor(host, &json));
    assert_eq!(level(&dropping, "firewall-forward"), "warning", "{dropping:?}");
    host.sh("nft add rule ip t f ip saddr 172.30.0.0/16 accept");
    let mended = findings(&doctor(host, &json));
    assert_eq!(level(&mended, "firewall-forward"), "ok", "{mended:?}");
    // What one chain accepts another drops all the same. What is said to help does.
    host.sh("nft add table inet u; nft add chain inet u f \"{ type filter hook forward priority 5; policy drop; }\"");
    let again = findings(&doctor(host, &json));
    let (_, level_now, finding) = again.iter().find(|it| it.0 == "firewall-forward").unwrap();
    assert_eq!(level_now, "warning", "{again:?}");
    let rules = finding["Mend"].as_str().unwrap().split(", and").next().unwrap();
    assert!(rules.starts_with("nft insert rule inet u f ip saddr 172.30."), "{rules}");
    host.sh(rules);
    let mended = findings(&doctor(host, &json));
    assert_eq!(level(&mended, "firewall-forward"), "ok", "{mended:?}");
}

#[test]
fn what_is_configured_is_what_is_looked_at() {
    if !host::can_run() {
        return;
    }
    let mut network = Network::new(1);
    let host = &mut network.hosts[0];
    host.start_daemon();
    let address = format!("{}:7000", host.address);
    host.ok(&["swarm", "init", "--listen-addr", &address, "--advertise-addr", &address]);
    let _held = bind_on(host, 2377);
    let config = host.dir.join("config.toml");
    fs::write(&config, "runtime = \"/opt/gone\"\n").unwrap();
    let found = findings(&doctor(host, &["--format=json", "--config", config.to_str().unwrap()]));
    assert_eq!(level(&found, "port-7000"), "ok", "{found:?}");
    assert_eq!(level(&found, "port-2377"), "", "{found:?}");
    let (_, level, runtime) = found.iter().find(|(name, ..)| name == "oci-runtime").unwrap();
    assert_eq!(level, "problem", "{found:?}");
    assert!(runtime["What"].as_str().unwrap().contains("/opt/gone"), "{runtime}");
}

#[test]
fn a_port_that_another_program_holds_is_a_problem_with_its_name() {
    if !host::can_run() {
        return;
    }
    let network = Network::new(1);
    let host = &network.hosts[0];
    let _held = bind_on(host, 2377);
    let output = doctor(host, &["--format", "json"]);
    let found = findings(&output);
    let (_, level, held) = found.iter().find(|(name, ..)| name == "port-2377").unwrap();
    assert_eq!((level.as_str(), output.status.code()), ("problem", Some(1)), "{found:?}");
    let own = fs::read_to_string("/proc/self/comm").unwrap();
    let expected =
        format!("UDP port 2377 is held by {} (process {}).", own.trim(), std::process::id());
    assert_eq!(held["What"], expected.as_str());
    assert!(held["Mend"].as_str().unwrap().contains("--listen-addr"), "{held}");
}

/// Holds a UDP port of a host, in this very process.
fn bind_on(host: &Host, port: u16) -> UdpSocket {
    let namespace = fs::File::open(format!("/run/netns/{}", host.namespace)).unwrap();
    let bind = move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).unwrap();
        UdpSocket::bind(("0.0.0.0", port)).unwrap()
    };
    // A thread that ends: this one stays where it is.
    std::thread::spawn(bind).join().unwrap()
}

/// Runs the doctor on a folder that stands for a machine.
fn folder(root: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(midge_binary());
    command.args(["doctor", "--root"]).arg(root).args(extra).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn a_raspberry_pi_without_its_memory_controller_is_told_the_words() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("boot/firmware/cmdline.txt", "rootwait\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu pids\n"),
        ("etc/os-release", "ID=debian\n"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let output = folder(dir.path(), &["--quiet"]);
    assert_eq!(output.status.code(), Some(1), "there is no containerd");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = "fix: add cgroup_enable=memory cgroup_memory=1 to the end of the one line in \
                 /boot/firmware/cmdline.txt, then reboot";
    assert!(text.contains(words), "{text}");
    assert!(text.contains("fix: apt install containerd runc"), "{text}");
    assert!(!text.contains('\x1b'), "no colours: this is no terminal");
    assert!(text.lines().all(|line| !line.starts_with("ok")), "{text}");
}

#[test]
fn what_is_mistyped_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for (args, says) in
        [(&["--quite"][..], "did you mean --quiet"), (&["now"], "now"), (&["--format"], "--format")]
    {
        let output = folder(dir.path(), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(says) && output.stdout.is_empty(), "{args:?}: {said}");
    }
    let output = folder(&dir.path().join("none"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is no folder"));
}
