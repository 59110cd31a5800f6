//! Jobs with real containers, and what a node has besides CPU and memory.

use crate::host::{Host, Network, can_run, eventually, which};
use serde_json::Value;
use std::{
    fs,
    process::{Command, Output, Stdio},
};

/// Says when it begins, works a little, and ends.
const WORK: &[&str] = &["sh", "-c", "echo begins; sleep 1"];

fn docker(host: &Host, args: &[&str]) -> Output {
    Command::new(which("docker").expect("looked for before"))
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}/midge.sock", host.dir.display()))
        .stdin(Stdio::null())
        .output()
        .expect("docker starts")
}

/// Returns a column of each task of a service, sorted.
fn column(host: &Host, service: &str, format: &str) -> Vec<String> {
    let text = host.ok(&["service", "ps", service, "--format", format]);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn replicas(host: &Host, service: &str) -> String {
    let name = format!("name={service}");
    let text = host.ok(&["service", "ls", "--filter", &name, "--format", "{{.Replicas}}"]);
    text.trim().to_owned()
}

#[test]
fn jobs_run_to_their_end_and_again() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    let create = ["service", "create", "--name", "six", "--mode", "replicated-job", "--replicas"];
    let said = manager.ok(&[&create[..], &["6", "--max-concurrent", "2", "bb:1"], WORK].concat());
    assert!(
        said.ends_with(
            "job progress: 6 out of 6 complete\nactive tasks: 0 out of 0 tasks\njob complete\n"
        ),
        "{said}"
    );
    let most = said.lines().filter_map(|line| line.strip_prefix("active tasks: "));
    assert!(most.filter_map(|line| line.split(' ').next()).all(|n| n.parse::<u8>().unwrap() <= 2));
    assert_eq!(replicas(manager, "six"), "0/2 (6/6 completed)");
    let names: Vec<String> = (0..6).map(|slot| format!("six.{slot} Complete")).collect();
    assert_eq!(column(manager, "six", "{{.Name}} {{.DesiredState}}"), names);
    let logs = manager.ok(&["service", "logs", "six"]);
    assert_eq!(logs.matches("| begins").count(), 6, "{logs}");

    // More of it runs only what is missing; force runs all of it.
    manager.ok(&["service", "scale", "six=7"]);
    assert_eq!(column(manager, "six", "{{.Name}}").len(), 7);
    manager.ok(&["service", "update", "-q", "--force", "six"]);
    assert_eq!(column(manager, "six", "{{.Name}}").len(), 14);
    let pretty = manager.ok(&["service", "inspect", "--pretty", "six"]);
    assert!(pretty.contains("Service Mode:\tReplicated Job\n Max Concurrent:\t2\n"), "{pretty}");
    assert!(pretty.contains(" Total Completions:\t7\n Iteration:\t1\n"), "{pretty}");

    manager.ok(&[
        &["service", "create", "-q", "--name", "each", "--mode", "global-job", "bb:1"],
        WORK,
    ]
    .concat());
    assert_eq!(replicas(manager, "each"), "0/0 (2/2 completed)");
    assert_eq!(column(manager, "each", "{{.Node}}"), ["n1", "n2"]);

    failing(manager);
    refused(manager);
    if which("docker").is_some() {
        by_docker(manager);
    }
    manager.ok(&["service", "rm", "six", "each", "bad"]);
    eventually("no task to be left", || {
        (manager.ok(&["node", "ps", "n1", "n2", "-q"]).is_empty()).then_some(())
    });
}

/// A job that fails is tried again as often as it may, and then given up.
fn failing(manager: &Host) {
    let create = ["service", "create", "--name", "bad", "--mode", "replicated-job"];
    let policy = ["--restart-max-attempts", "2", "--restart-delay", "100ms", "bb:1"];
    let said = manager.refused(&[&create[..], &policy, &["sh", "-c", "exit 3"]].concat());
    assert!(
        said.contains("job failed: 1 of 1 task was given up: task: non-zero exit (3)"),
        "{said}"
    );
    assert!(said.contains("hint: midge service ps bad"), "{said}");
    assert_eq!(replicas(manager, "bad"), "0/1 (0/1 completed, 1 given up)");
    assert_eq!(column(manager, "bad", "{{.Name}} {{.DesiredState}}"), ["bad.0 Shutdown"; 3]);
}

fn refused(manager: &Host) {
    let job = ["service", "create", "--mode", "replicated-job"];
    for (args, text) in [
        (
            &["service", "create", "--mode", "global-job", "--replicas", "2", "bb:1"][..],
            "replicas can only be used with replicated or replicated-job mode",
        ),
        (
            &["service", "create", "--max-concurrent", "2", "bb:1"],
            "max-concurrent can only be used with replicated-job mode",
        ),
        (
            &[&job[..], &["--generic-resource", "gpu=a", "bb:1"]].concat(),
            "Named Generic Resources is not supported for service create or update",
        ),
        (
            &["service", "scale", "each=3"],
            "each: scale can only be used with replicated or replicated-job mode",
        ),
        (
            &["service", "update", "--replicas", "3", "each"],
            "replicas can only be used with replicated mode",
        ),
    ] {
        let said = manager.refused(args);
        assert!(said.contains(text), "{args:?}: {said}");
    }
}

/// The unmodified docker command makes jobs, waits for them and shows them.
fn by_docker(manager: &Host) {
    let ok = |args: &[&str]| {
        let output = docker(manager, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {error}");
        String::from_utf8(output.stdout).expect("docker prints text")
    };
    let create = ["service", "create", "--name", "dj", "--mode", "replicated-job"];
    let said =
        ok(&[&create[..], &["--replicas", "3", "--max-concurrent", "2", "bb:1"], WORK].concat());
    assert!(said.contains("job complete"), "{said}");
    let listed = ok(&["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"]);
    assert!(listed.contains("dj replicated job 0/2 (3/3 completed)"), "{listed}");
    let said = ok(&["service", "scale", "dj=2"]);
    assert!(said.contains("job complete"), "{said}");
    let said = ok(&["service", "update", "--force", "dj"]);
    assert!(said.contains("job complete"), "{said}");
    let states = ok(&["service", "ps", "dj", "--format", "{{.DesiredState}} {{.CurrentState}}"]);
    assert_eq!(states.lines().filter(|line| line.starts_with("Complete Complete")).count(), 4);
    let said =
        ok(&[&["service", "create", "--name", "dg", "--mode", "global-job", "bb:1"], WORK]
            .concat());
    assert!(said.contains("job complete"), "{said}");
    let order = ["--mode", "replicated-job", "--update-delay", "1s", "bb:1"];
    let refused = docker(manager, &[&["service", "create"], &order[..]].concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("update and rollback configuration is not supported for jobs"), "{said}");
    ok(&["service", "rm", "dj", "dg"]);
}

#[test]
fn generic_resources_are_given_out_and_told_to_the_container() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(1);
    let host = &mut network.hosts[0];
    let config = host.dir.join("config.toml");
    let declared = r#"generic_resources = ["gpu=GPU-1", "gpu=GPU-2", "ssd=3"]"#;
    fs::write(&config, declared).unwrap();
    host.start_daemon_with(&[&format!("--config={}", config.display())]);
    let address = host.address.clone();
    host.ok(&["swarm", "init", "--advertise-addr", &address]);
    network.load_busybox();
    let host = network.manager();
    let pretty = host.ok(&["node", "inspect", "--pretty", "self"]);
    assert!(pretty.contains("Generic:\t\tgpu=GPU-1, gpu=GPU-2, ssd=3"), "{pretty}");
    let node = host.inspect("node", "self");
    let there = &node["Description"]["Resources"]["GenericResources"];
    assert_eq!(there[0]["NamedResourceSpec"]["Value"], "GPU-1", "{there}");
    assert_eq!(there[2]["DiscreteResourceSpec"]["Value"], 3, "{there}");

    let script = "env | grep DOCKER_RESOURCE | sort; trap 'exit 0' TERM; while :; do sleep 1; done";
    let create = ["service", "create", "-d", "--name", "train", "--replicas", "3"];
    let wants = ["--generic-resource", "gpu=1", "--generic-resource", "ssd=1", "bb:1"];
    host.ok(&[&create[..], &wants, &["sh", "-c", script]].concat());
    host.wait_running("train", 2);
    let waits = eventually("the third to say why it waits", || {
        let text = host.ok(&["service", "ps", "--no-trunc", "train", "--format", "{{.Error}}"]);
        text.lines().find(|line| !line.is_empty()).map(str::to_owned)
    });
    assert_eq!(waits, "\"no suitable node (insufficient resources on 1 node)\"");
    let logs = eventually("both to say what they have", || {
        // Exits with 1: one task has no log, since it waits.
        let logs = host.midge(&["service", "logs", "train"]).stdout;
        let logs = String::from_utf8(logs).unwrap();
        (logs.matches("DOCKER_RESOURCE_SSD=1").count() == 2).then_some(logs)
    });
    for gpu in ["GPU-1", "GPU-2"] {
        let told = format!("DOCKER_RESOURCE_GPU={gpu}");
        assert_eq!(logs.matches(&told).count(), 1, "each has its own: {logs}");
    }

    // One of them ends: what it had goes to the one that waits.
    host.ok(&["service", "update", "-d", "--generic-resource-rm", "ssd", "train"]);
    host.ok(&["service", "scale", "-d", "train=2"]);
    eventually("two tasks that have one GPU each and no disk", || {
        let tasks = tasks(host, "train");
        let has: Vec<&Value> = tasks.iter().map(|task| &task["GenericResources"]).collect();
        let one = |has: &&&Value| has.as_array().is_some_and(|list| list.len() == 1);
        (has.len() == 2 && has.iter().filter(one).count() == 2 && has[0] != has[1]).then_some(())
    });
    let missing = host.refused(&["service", "update", "--generic-resource-rm", "ssd", "train"]);
    assert!(missing.contains("could not find generic-resource `ssd` to remove it"), "{missing}");
    let shown = host.ok(&["service", "inspect", "--pretty", "train"]);
    assert!(shown.contains("Generic:\tgpu=1"), "{shown}");
    host.ok(&["service", "rm", "train"]);
}

/// Returns the tasks of a service that run and are to.
fn tasks(host: &Host, service: &str) -> Vec<Value> {
    let filter =
        ["service", "ps", service, "--filter", "desired-state=running", "-q", "--no-trunc"];
    let ids = host.ok(&filter);
    let socket = host.dir.join("midge.sock");
    let read = |id: &str| {
        let output = Command::new("curl")
            .args(["-sS", "--unix-socket"])
            .arg(&socket)
            .arg(format!("http://midge/tasks/{id}"))
            .output()
            .expect("curl starts");
        serde_json::from_slice::<Value>(&output.stdout).expect("a task is JSON")
    };
    let all = ids.lines().map(read);
    all.filter(|task| task["Status"]["State"] == "running").collect()
}
