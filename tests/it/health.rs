//! Health checks: what runs, what is replaced, and what is seen of it.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, busybox_archive_with, can_run, eventually};
use serde_json::{Value, json};

const SLEEP: &[&str] = &["sh", "-c", "while :; do sleep 1; done"];

/// Well as long as there is `/ok`; looked at often.
const CHECK: &[&str] = &[
    "--health-cmd",
    "test -f /ok || { echo no /ok; exit 1; }",
    "--health-interval",
    "300ms",
    "--health-retries",
    "2",
    "--health-start-period",
    "60s",
    "--health-start-interval",
    "300ms",
];

fn create(host: &Host, name: &str, image: &str, options: &[&str]) {
    let begin = ["service", "create", "-d", "--name", name, "--restart-delay", "100ms"];
    host.ok(&[&begin[..], options, &[image], SLEEP].concat());
}

/// Returns what `service ps` says of the state of the newest task.
fn state(host: &Host, service: &str) -> String {
    let format = "{{.CurrentState}} {{.Error}}";
    let filter = "desired-state=running";
    let text = host.ok(&["service", "ps", service, "--filter", filter, "--format", format]);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Waits for the container of the only task, and returns its id and process.
fn container(host: &Host) -> (String, u32) {
    eventually("one container with a process", || match host.containers().as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    })
}

fn inspect(host: &Host, container: &str) -> Value {
    serde_json::from_str(&host.api(&format!("/containers/{container}/json"))).unwrap()
}

#[test]
fn a_task_runs_once_it_is_healthy_and_is_replaced_when_it_no_longer_is() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(1);
    network.load_busybox();
    create(network.manager(), "web", "bb:1", CHECK);
    let (id, pid) = container(network.manager());
    eventually("the reason why it does not run yet", || {
        let state = state(network.manager(), "web");
        (state.starts_with("Starting") && state.contains("health check: no /ok")).then_some(())
    });
    assert!(network.manager().ok(&["ps"]).contains("(health: starting)"));
    assert_eq!(network.manager().running("web"), Vec::<String>::new());

    network.manager().sh(&format!("touch /proc/{pid}/root/ok"));
    network.manager().wait_running("web", 1);
    assert!(network.manager().ok(&["ps"]).contains("(healthy)"));
    let shown = inspect(network.manager(), &id);
    assert_eq!(shown["State"]["Health"]["Status"], "healthy", "{shown}");
    let log = shown["State"]["Health"]["Log"].as_array().unwrap();
    assert!(log.iter().any(|probe| probe["ExitCode"] == 0), "{shown}");
    assert!(log.len() <= 5, "{shown}");

    // A daemon that is killed amid its probes finds the container as it was.
    network.hosts[0].kill_daemon();
    network.hosts[0].start_daemon();
    let host = network.manager();
    eventually("the container to be found well again", || {
        let shown = inspect(host, &id);
        let log = shown["State"]["Health"]["Log"].as_array().cloned().unwrap_or_default();
        log.iter().any(|probe| probe["ExitCode"] == 0).then_some(())
    });
    assert_eq!(container(host), (id.clone(), pid));

    host.sh(&format!("rm /proc/{pid}/root/ok"));
    eventually("it to fail", || {
        let history = host.ok(&["service", "ps", "--no-trunc", "web"]);
        let failed = history.lines().find(|line| line.contains("Failed"))?;
        failed.contains("unhealthy container: no /ok").then_some(())
    });
    eventually("its replacement to begin anew", || {
        let one = container(host);
        (one.0 != id && state(host, "web").starts_with("Starting")).then_some(())
    });
}

#[test]
fn what_the_image_says_is_done_unless_it_is_turned_off() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(1);
    let second = 1_000_000_000_u64;
    let config = json!({
        "Cmd": ["sh"],
        "Env": ["PATH=/bin"],
        "Shell": ["/bin/ash", "-ec"],
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -f /ok"],
            "Interval": second / 2,
            "StartPeriod": 60 * second,
            "StartInterval": second / 2,
            "Retries": 1,
        },
    });
    let dir = network.manager().dir.clone();
    let archive = busybox_archive_with(&dir, &["hc:1"], &config);
    network.manager().ok(&["image", "load", "-q", "-i", archive.to_str().unwrap()]);
    create(network.manager(), "off", "hc:1", &["--no-healthcheck"]);
    network.manager().wait_running("off", 1);
    network.manager().ok(&["service", "rm", "off"]);
    eventually("it to be gone", || network.manager().containers().is_empty().then_some(()));

    create(network.manager(), "on", "hc:1", &[]);
    let (id, pid) = container(network.manager());
    eventually("a probe", || {
        let shown = inspect(network.manager(), &id);
        (!shown["State"]["Health"]["Log"].as_array()?.is_empty()).then_some(())
    });
    assert!(state(network.manager(), "on").starts_with("Starting"));
    // What the image says stays with the container, also where the daemon was away meanwhile.
    network.hosts[0].kill_daemon();
    network.hosts[0].start_daemon();
    let host = network.manager();
    eventually("a probe by the new daemon", || {
        let shown = inspect(host, &id);
        (!shown["State"]["Health"]["Log"].as_array()?.is_empty()).then_some(())
    });
    eventually("the new manager to know", || {
        state(host, "on").starts_with("Starting").then_some(())
    });
    host.sh(&format!("touch /proc/{pid}/root/ok"));
    host.wait_running("on", 1);
    assert_eq!(container(host), (id, pid));
}
