//! Images: from a registry that asks for a login, and by hand to nodes of one's choice.

use crate::{
    host::{Host, Network, busybox_archive, can_run, eventually, midge_binary, which},
    registry::{Access, push, start_registry},
};
use std::path::Path;

/// Runs `client login` as the user `fleet`, with this password on standard input, and returns what it
/// says.
fn log_in(host: &Host, client: &Path, config: &str, registry: &str, password: &str) -> String {
    host.sh(&format!(
        "printf '{password}\n' | DOCKER_CONFIG={config} MIDGE_HOST=unix://{dir}/midge.sock \
           DOCKER_HOST=unix://{dir}/midge.sock \
           {client} login --username fleet --password-stdin {registry} 2>&1 || echo \"exit $?\"",
        dir = host.dir.display(),
        client = client.display(),
    ))
}

#[test]
fn a_service_pulls_from_a_registry_with_the_users_login() {
    if !can_run() {
        return;
    }
    if which("docker-registry").is_none() {
        eprintln!("skipped: needs docker-registry");
        return;
    }
    let mut network = Network::configured_cluster(2, |first| {
        format!("[registry]\nplain_http = [\"{first}:5000\"]\n")
    });
    let registry = start_registry(&mut network.hosts[0], Access::Login);
    push(network.manager(), &registry, "app", "1");
    let image = format!("{registry}/app:1");
    let manager = network.manager();

    let says = manager.refused(&["image", "pull", &image]);
    assert!(says.contains("unauthorized") || says.contains("denied"), "{says}");
    let says = manager.refused(&["image", "pull", &format!("{registry}/app:none")]);
    assert!(says.contains("app:none"), "{says}");

    let login = manager.dir.join("docker").display().to_string();
    for client in [Some(midge_binary()), which("docker")].into_iter().flatten() {
        let says = log_in(manager, &client, &login, &registry, "wrong");
        assert!(says.contains("exit 1") && says.contains("denied"), "{says}");
        let says = log_in(manager, &client, &login, &registry, "secret");
        assert!(says.contains("Login Succeeded"), "{says}");
        let says = manager.ok_with(&[("DOCKER_CONFIG", &login)], &["logout", &registry]);
        assert!(says.contains("Removed"), "{says}");
    }
    let says = manager.refused(&["login", "--username", "fleet", "--password", "x", &registry]);
    assert!(says.contains("--password-stdin"), "{says}");
    log_in(manager, &midge_binary(), &login, &registry, "secret");
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global"];
    let what = ["--with-registry-auth", &image, "sh", "-c", "while :; do sleep 1; done"];
    manager.ok_with(&[("DOCKER_CONFIG", login.as_str())], &[&create[..], &what[..]].concat());
    let tasks = manager.wait_running("web", 2);
    assert!(tasks[0].starts_with("n1") && tasks[1].starts_with("n2"), "{tasks:?}");
    let spec = manager.inspect("service", "web").to_string();
    assert!(spec.contains("/app:1@sha256:"), "the tag is pinned: {spec}");
    assert!(!spec.contains("c2VjcmV0") && !spec.contains("secret"), "no login is shown: {spec}");

    // A node that comes later needs nothing but the service.
    manager.ok_with(
        &[("DOCKER_CONFIG", login.as_str())],
        &["service", "update", "-d", "--with-registry-auth", "--env-add", "A=1", "web"],
    );
    eventually("the changed tasks", || {
        let shown = manager.ok(&["service", "inspect", "--format", "json", "web"]);
        (shown.contains("A=1") && manager.running("web").len() == 2).then_some(())
    });
}

#[test]
fn an_image_goes_to_the_nodes_that_are_named_and_its_tasks_with_it() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    let (manager, worker) = (&network.hosts[0], &network.hosts[1]);
    let archive = busybox_archive(&manager.dir, &["only:1"]);
    let archive = archive.to_str().unwrap();
    let says = manager.refused(&["image", "load", "--nodes", "n9", "-i", archive]);
    assert!(says.contains("n9"), "{says}");
    manager.ok(&["image", "load", "-q", "--nodes", "n2", "-i", archive]);
    let list = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
    assert!(worker.ok(&list).contains("only:1"));
    assert!(!manager.ok(&list).contains("only:1"));
    // Only the node that holds it can run what no registry has.
    let create = ["service", "create", "-d", "--name", "here", "--replicas", "3", "only:1"];
    manager.ok(&[&create[..], &["sh", "-c", "while :; do sleep 1; done"]].concat());
    let tasks = manager.wait_running("here", 3);
    assert!(tasks.iter().all(|task| task.starts_with("n2 ")), "{tasks:?}");
    let says = worker.refused(&["image", "rm", "only:1"]);
    assert!(says.contains("is using its referenced image"), "{says}");
    manager.ok(&["service", "rm", "here"]);
    eventually("the image to be free", || {
        worker.midge(&["image", "rm", "only:1"]).status.success().then_some(())
    });
    assert!(!worker.ok(&list).contains("only:1"));
}
