//! The unmodified docker command against midge's socket.

use crate::host::{Host, Network, can_run, eventually, which};
use std::process::{Command, Output, Stdio};

fn run(host: &Host, args: &[&str]) -> Output {
    Command::new(which("docker").expect("looked for before"))
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}/midge.sock", host.dir.display()))
        .stdin(Stdio::null())
        .output()
        .expect("docker starts")
}

fn docker(host: &Host, args: &[&str]) -> String {
    let output = run(host, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8(output.stdout).expect("docker prints text")
}

#[test]
fn the_docker_command_works() {
    if !can_run() {
        return;
    }
    if which("docker").is_none() {
        eprintln!("skipped: the docker command is not installed");
        return;
    }
    let mut network = Network::new(2);
    for host in &mut network.hosts {
        host.start_daemon();
    }
    let [first, second] = &network.hosts[..] else { unreachable!("two hosts") };
    assert!(docker(first, &["version"]).contains("Server:"));
    docker(first, &["swarm", "init", "--advertise-addr", &first.address]);
    let token = docker(first, &["swarm", "join-token", "-q", "worker"]);
    let manager = format!("{}:2377", first.address);
    docker(second, &["swarm", "join", "--token", token.trim(), &manager]);
    assert!(docker(first, &["info"]).contains("Swarm: active"));
    let archive = crate::host::busybox_archive(&first.dir, &["bb:1", "bb:2"]);
    let archive = archive.to_str().expect("a plain path");
    for host in [first, second] {
        docker(host, &["load", "-q", "-i", archive]);
        assert!(docker(host, &["images"]).contains("bb"));
    }
    eventually("both nodes to be ready", || {
        (docker(first, &["node", "ls"]).matches("Ready").count() == 2).then_some(())
    });
    docker(
        first,
        &["service", "create", "--name", "web", "--replicas", "2", "bb:1", "sleep", "1000"],
    );
    assert!(docker(first, &["service", "ls"]).contains("2/2"));
    assert!(docker(first, &["service", "ps", "web"]).contains("Running"));
    assert!(docker(first, &["service", "inspect", "--pretty", "web"]).contains("Replicas:\t2"));
    assert!(docker(first, &["ps"]).contains("bb:1"));
    docker(first, &["service", "scale", "web=3"]);
    let said = docker(first, &["service", "update", "--image", "bb:2", "--env-add", "A=1", "web"]);
    assert!(said.contains("overall progress: 1 out of 3 tasks"), "one after the other: {said}");
    assert!(said.contains("verify: Service web converged"), "{said}");
    let image = ["service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "web"];
    assert!(docker(first, &image).starts_with("bb:2"));
    let failed = run(first, &["service", "update", "--args", "sh -c false", "web"]);
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(error.contains("service update paused: update paused due to failure"), "{error}");
    assert_eq!(failed.status.code(), Some(1));
    let said = docker(first, &["service", "rollback", "web"]);
    assert!(said.contains("rollback: manually requested rollback"), "{said}");
    assert!(said.contains("overall progress: rolling back update: 3 out of 3 tasks"), "{said}");
    docker(first, &["service", "logs", "web"]);
    logs_and_ports_of_containers(first, second);
    docker(first, &["node", "update", "--availability", "drain", "n2"]);
    assert!(docker(first, &["node", "inspect", "--pretty", "n2"]).contains("Drain"));
    eventually("n2 to be empty", || {
        let tasks = docker(first, &["node", "ps", "n2", "--filter", "desired-state=running", "-q"]);
        tasks.trim().is_empty().then_some(())
    });
    docker(first, &["service", "rm", "web"]);
    docker(second, &["swarm", "leave"]);
    eventually("n2 to be down", || docker(first, &["node", "ls"]).contains("Down").then_some(()));
    docker(first, &["node", "rm", "n2"]);
}

fn logs_and_ports_of_containers(first: &Host, second: &Host) {
    docker(
        first,
        &[
            &["service", "create", "-q", "--name", "say", "--mode", "global"][..],
            &["--publish", "mode=host,target=80,published=8080", "bb:1"],
            &["sh", "-c", "echo out; echo err >&2; exec sleep 1000"],
        ]
        .concat(),
    );
    for host in [first, second] {
        let own = docker(host, &["ps", "-q", "--filter", "name=say"]);
        let said = run(host, &["logs", own.trim()]);
        assert_eq!(String::from_utf8_lossy(&said.stdout), "out\n");
        assert_eq!(String::from_utf8_lossy(&said.stderr), "err\n");
        // The same, of another node's container, where this one is a manager.
        assert_eq!(docker(first, &["logs", own.trim()]), "out\n");
        assert!(docker(host, &["port", own.trim()]).starts_with("80/tcp -> 0.0.0.0:8080\n"));
        let listed = docker(host, &["ps", "--filter", "name=say", "--format", "{{.Ports}}"]);
        assert!(listed.starts_with("0.0.0.0:8080->80/tcp"), "{listed}");
        let image = docker(host, &["inspect", "-f", "{{.Image}}", own.trim()]);
        assert_eq!(image, docker(host, &["image", "inspect", "-f", "{{.Id}}", "bb:1"]));
        assert!(image.starts_with("sha256:"), "{image}");
    }
}
