//! Signals to tasks' containers, their end by a user's wish, and waiting for it: from a manager, on any
//! node.

use crate::host::{Host, Network, can_run, eventually, which};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Says what it gets, and ends with a status of its own.
const SCRIPT: &str = "trap 'echo got-hup' HUP; trap 'exit 3' TERM; trap 'exit 5' QUIT; echo up; \
                      while :; do sleep 0.1; done";

/// Two nodes, and a service with a task on each.
fn cluster() -> Network {
    let network = Network::cluster(2);
    network.load_busybox();
    let create = ["service", "create", "-q", "--name", "web", "--mode", "global"];
    let delay = ["--restart-delay", "100ms"];
    network.manager().ok(&[&create[..], &delay, &["bb:1", "sh", "-c", SCRIPT]].concat());
    network.manager().wait_running("web", 2);
    network
}

/// Returns the task of a node whose script is ready for signals, other than `before`.
fn task_on(network: &Network, node: usize, before: &str) -> String {
    let found = eventually("a task", || {
        let id = network.hosts[node].ok(&["ps", "-q", "--no-trunc"]).trim().to_owned();
        (!id.is_empty() && !id.contains('\n') && id != before).then_some(id)
    });
    said(network, &found, "up");
    found
}

fn said(network: &Network, task: &str, line: &str) {
    eventually(line, || {
        let log = network.manager().ok(&["service", "logs", "--raw", task]);
        log.lines().any(|said| said == line).then_some(())
    });
}

fn state(network: &Network, task: &str) -> String {
    let task = network.manager().inspect("task", task);
    let status = &task["Status"];
    format!("{} {}", status["State"], status["ContainerStatus"]["ExitCode"])
}

/// Begins a command that is waited for later.
fn begin(host: &Host, args: &[&str]) -> std::process::Child {
    let mut command = host.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// What holds of a task, wherever it is.
fn ends(network: &Network, node: usize) {
    let host = network.manager();
    let first = task_on(network, node, "");
    assert_eq!(host.ok(&["kill", "-s", "hup", &first]), format!("{first}\n"));
    said(network, &first, "got-hup");
    assert!(state(network, &first).starts_with("\"running\""), "it goes on");
    let wrong = host.refused(&["kill", "-s", "NOPE", &first]);
    assert!(wrong.contains("invalid signal: NOPE"), "{wrong}");

    let waiting = begin(host, &["wait", &first]);
    assert_eq!(host.ok(&["stop", &first]), format!("{first}\n"));
    let ended = waiting.wait_with_output().expect("it was started here");
    assert_eq!(printed(&ended), "3\n");
    assert_eq!(host.ok(&["wait", &first]), "3\n", "of what has ended as well");
    eventually("the task's end", || (state(network, &first) == "\"failed\" 3").then_some(()));
    assert_eq!(host.ok(&["stop", &first]), format!("{first}\n"), "it is stopped");
    let over = host.refused(&["kill", &first]);
    assert!(over.contains(&format!("container {first} is not running")), "{over}");

    let second = task_on(network, node, &first);
    host.ok(&["stop", "-s", "QUIT", &second]);
    assert_eq!(host.ok(&["wait", &second]), "5\n");
    let third = task_on(network, node, &second);
    host.ok(&["kill", &third]);
    assert_eq!(host.ok(&["wait", &third]), "137\n");
    let fourth = task_on(network, node, &third);
    host.ok(&["restart", &fourth]);
    assert_eq!(host.ok(&["wait", &fourth]), "3\n");
    task_on(network, node, &fourth);
}

#[test]
fn containers_are_signalled_stopped_and_waited_for_wherever_they_run() {
    if !can_run() {
        return;
    }
    let network = cluster();
    ends(&network, 0);
    ends(&network, 1);
    // A worker has its own and no others.
    let (worker, own) = (&network.hosts[1], task_on(&network, 1, ""));
    let other = worker.refused(&["kill", &task_on(&network, 0, "")]);
    assert!(other.contains("No such container"), "{other}");
    assert_eq!(worker.ok(&["kill", "-s", "1", &own]), format!("{own}\n"));
    said(&network, &own, "got-hup");
}

#[test]
fn what_does_not_end_is_killed_though_nobody_waits() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let host = network.manager();
    let script = "trap 'echo got-term' TERM; echo up; while :; do sleep 0.1; done";
    let create = ["service", "create", "-q", "--name", "deaf", "--constraint"];
    let options = ["node.hostname==n2", "--restart-condition", "none", "--replicas", "2"];
    host.ok(&[&create[..], &options, &["bb:1", "sh", "-c", script]].concat());
    host.wait_running("deaf", 2);
    let ids = host.ok(&["service", "ps", "-q", "--no-trunc", "deaf"]);
    let ids: Vec<&str> = ids.lines().collect();
    said(&network, ids[0], "up");
    said(&network, ids[1], "up");
    let refused = host.refused(&["restart", ids[0]]);
    assert!(refused.contains("midge service update --force"), "{refused}");
    host.ok(&["stop", "-t", "1", ids[0]]);
    assert_eq!(host.ok(&["wait", ids[0]]), "137\n");
    // Who asked leaves; the container is killed in time all the same.
    let mut stop = begin(host, &["stop", "-t", "5", ids[1]]);
    said(&network, ids[1], "got-term");
    stop.kill().expect("it runs");
    stop.wait().expect("it was started here");
    assert_eq!(host.ok(&["wait", ids[1]]), "137\n");
}

#[test]
fn a_wait_outlives_the_daemon_of_the_containers_node() {
    if !can_run() {
        return;
    }
    let mut network = cluster();
    let task = task_on(&network, 1, "");
    let socket = network.manager().dir.join("midge.sock");
    let mut waiting = UnixStream::connect(socket).expect("the daemon listens");
    let request = format!("POST /containers/{task}/wait HTTP/1.1\r\nHost: d\r\n\r\n");
    waiting.write_all(request.as_bytes()).expect("it reads");
    let mut head = [0; 15];
    waiting.read_exact(&mut head).expect("it says that it waits");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    network.hosts[1].kill_daemon();
    eventually("the node to be missed", || {
        let output = network.manager().midge(&["kill", "-s", "HUP", &task]);
        (!output.status.success()).then_some(())
    });
    let refused = network.manager().refused(&["stop", &task]);
    assert!(refused.contains("is not available"), "{refused}");
    network.hosts[1].start_daemon();
    eventually("the node", || {
        network.manager().midge(&["stop", &task]).status.success().then_some(())
    });
    let mut answer = String::new();
    waiting.set_read_timeout(Some(Duration::from_secs(60))).expect("it is some time");
    while !answer.ends_with("0\r\n\r\n") {
        let mut byte = [0];
        waiting.read_exact(&mut byte).expect("the answer goes on");
        answer.push(char::from(byte[0]));
    }
    assert!(answer.contains("{\"StatusCode\":3}"), "{answer}");
}

#[test]
fn a_containerd_that_hangs_is_told_of() {
    if !can_run() {
        return;
    }
    let mut network = cluster();
    let task = task_on(&network, 1, "");
    network.hosts[1].stall_containerd();
    let refused = network.manager().refused(&["kill", "-s", "HUP", &task]);
    assert!(
        refused.contains("cannot kill container") && refused.contains("did not answer"),
        "{refused}"
    );
}

#[test]
fn the_docker_command_ends_containers() {
    if !can_run() || which("docker").is_none() {
        return;
    }
    let network = cluster();
    let host = network.manager();
    let docker = |args: &[&str]| {
        let socket = format!("unix://{}/midge.sock", host.dir.display());
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", socket).stdin(Stdio::null());
        let output = command.output().expect("it starts");
        (output.status.code(), printed(&output))
    };
    let task = task_on(&network, 1, "");
    assert_eq!(docker(&["kill", "-s", "HUP", &task]), (Some(0), format!("{task}\n")));
    said(&network, &task, "got-hup");
    assert_eq!(docker(&["stop", &task]), (Some(0), format!("{task}\n")));
    assert_eq!(docker(&["wait", &task]), (Some(0), "3\n".to_owned()));
    let task = task_on(&network, 1, &task);
    assert_eq!(docker(&["restart", "-t", "2", &task]), (Some(0), format!("{task}\n")));
    let (code, text) = docker(&["kill", &task]);
    assert!(code == Some(1) && text.contains("is not running"), "{text}");
}
