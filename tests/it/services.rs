//! Services: placed, replaced, scaled, drained.

use crate::host::{Network, can_run, eventually};

const SLEEP: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];

#[test]
fn services_run_spread_scale_and_end() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(3);
    network.load_busybox();
    let manager = network.manager();
    manager
        .ok(&[&["service", "create", "-q", "--name", "web", "--replicas", "6", "bb:1"], SLEEP]
            .concat());
    let running = manager.wait_running("web", 6);
    for node in ["n1", "n2", "n3"] {
        let here = running.iter().filter(|task| task.starts_with(node)).count();
        assert_eq!(here, 2, "spread evenly: {running:?}");
    }
    manager.ok(&[&["service", "create", "-q", "--name", "all", "--mode", "global", "bb:1"], SLEEP]
        .concat());
    manager.wait_running("all", 3);

    manager.ok(&["service", "scale", "-d", "web=2"]);
    manager.wait_running("web", 2);
    manager.ok(&["service", "update", "-q", "--image", "bb:2", "web"]);
    let images = manager.ok(&[
        "service",
        "ps",
        "web",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.Image}}",
    ]);
    assert_eq!(images, "bb:2\nbb:2\n");
    let table = manager.ok(&["service", "ps", "web"]);
    assert!(table.contains(" \\_ web.1"), "history is shown: {table}");

    manager.ok(&["service", "rm", "web", "all"]);
    eventually("every container to be gone", || {
        let left: usize = network.hosts.iter().map(|host| host.containers().len()).sum();
        (left == 0).then_some(())
    });
    assert!(manager.refused(&["service", "ps", "web"]).contains("no such service: web"));
}

#[test]
fn drain_pause_and_constraints_move_tasks() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(3);
    network.load_busybox();
    let manager = network.manager();
    let create = ["service", "create", "-q", "--name", "web", "--replicas", "3"];
    manager.ok(&[&create[..], &["--constraint", "node.labels.no!=yes", "bb:1"], SLEEP].concat());
    manager.wait_running("web", 3);
    let nodes = |wanted: &[&str]| {
        eventually(&format!("tasks on {wanted:?} only"), || {
            let running = manager.running("web");
            let fits = |task: &String| wanted.iter().any(|node| task.starts_with(node));
            (running.len() == 3 && running.iter().all(fits)).then_some(())
        });
    };
    let drained = manager.ok(&["node", "update", "--availability", "drain", "--wait", "n3"]);
    assert!(drained.ends_with("n3 is drained\n"), "{drained}");
    nodes(&["n1", "n2"]);
    manager.ok(&["node", "update", "--availability", "active", "n3"]);
    manager.ok(&["node", "update", "--label-add", "no=yes", "n2"]);
    nodes(&["n1", "n3"]);
    manager.ok(&["node", "update", "--availability", "pause", "n3"]);
    manager.ok(&["service", "scale", "-d", "web=5"]);
    manager.wait_running("web", 5);
    let on_paused = manager.running("web").iter().filter(|task| task.starts_with("n3")).count();
    assert!(on_paused <= 2, "a paused node keeps what it has and takes nothing new");

    manager.ok(&["service", "update", "-d", "--constraint-add", "node.labels.zone==mars", "web"]);
    let says = eventually("a task to say why it waits", || {
        let errors = manager.ok(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", "web"]);
        errors.lines().find(|line| line.contains("no suitable node")).map(str::to_owned)
    });
    assert!(says.contains("scheduling constraints not satisfied"), "{says}");

    let pinned = ["service", "create", "-q", "--name", "db", "--constraint", "node.hostname==n2"];
    manager.ok(&[&pinned[..], &["bb:1"], SLEEP].concat());
    let drain = ["node", "update", "--availability", "drain", "--wait", "--timeout", "3s", "n2"];
    let says = manager.refused(&drain);
    assert!(says.contains("db.1: cannot be placed elsewhere: no suitable node"), "{says}");
}

#[test]
fn logs_of_all_tasks_come_from_all_nodes() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    let script = "echo out; echo err >&2; while :; do sleep 1; done";
    manager.ok(&[
        "service", "create", "-q", "--name", "talk", "--mode", "global", "bb:1", "sh", "-c", script,
    ]);
    manager.wait_running("talk", 2);
    eventually("both nodes' lines", || {
        let output = manager.midge(&["service", "logs", "talk"]);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        let both = |text: &str, word: &str| {
            ["@n1", "@n2"]
                .iter()
                .all(|node| text.lines().any(|line| line.contains(node) && line.ends_with(word)))
        };
        (both(&out, "| out") && both(&err, "| err")).then_some(())
    });
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    let manager = network.manager();
    for option in [&["--config", "x"][..], &["--secret", "x"], &["--credential-spec", "x"]] {
        let says = manager.refused(&[&["service", "create"], option, &["bb:1"]].concat());
        assert!(says.contains(option[0]) && says.contains("not supported yet"), "{says}");
    }
    let says = manager.refused(&["service", "create", "-p", "80:80", "bb:1"]);
    assert!(says.contains("ingress") && says.contains("not supported yet"), "{says}");
    assert_eq!(manager.ok(&["service", "ls", "-q"]), "");
}
