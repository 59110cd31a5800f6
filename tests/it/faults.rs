//! What is done to a cluster, and what it makes of it.

use crate::host::{Host, Network, can_run, eventually, midge_binary, which};
use std::{fs, os::unix::fs::symlink};

const SLEEP: &[&str] = &["sh", "-c", "while :; do sleep 1; done"];

fn create(network: &Network, name: &str, replicas: &str) {
    let options = ["service", "create", "-d", "--name", name, "--replicas", replicas];
    network.manager().ok(&[&options[..], &["--restart-delay", "100ms", "bb:1"], SLEEP].concat());
}

#[test]
fn a_killed_container_is_replaced() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    network.load_busybox();
    let host = network.manager();
    create(&network, "web", "2");
    host.wait_running("web", 2);
    let before = host.containers();
    host.sh(&format!("kill -9 {}", before[0].1));
    eventually("a replacement", || {
        let now = host.containers();
        (now.len() == 2 && now != before && now.contains(&before[1])).then_some(())
    });
    let history = host.ok(&["service", "ps", "--no-trunc", "web"]);
    assert!(history.contains("task: non-zero exit (137)"), "{history}");
}

#[test]
fn containers_outlive_the_daemon() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    create(&network, "web", "4");
    network.manager().wait_running("web", 4);
    for host in 0..2 {
        let before = network.hosts[host].containers();
        assert_eq!(before.len(), 2);
        network.hosts[host].kill_daemon();
        network.hosts[host].start_daemon();
        eventually("the same containers to be adopted", || {
            (network.hosts[host].containers() == before).then_some(())
        });
        network.manager().wait_running("web", 4);
        network.hosts[host].stop_daemon();
        network.hosts[host].start_daemon();
        eventually("the same containers to be adopted", || {
            (network.hosts[host].containers() == before).then_some(())
        });
    }
    network.manager().wait_running("web", 4);
    let table = network.manager().ok(&["service", "ps", "web"]);
    assert!(!table.contains("\\_"), "nothing was replaced: {table}");
}

#[test]
fn containerd_dies_and_returns() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(1);
    network.load_busybox();
    create(&network, "web", "2");
    network.manager().wait_running("web", 2);
    let before = network.manager().containers();
    network.hosts[0].kill_containerd();
    network.hosts[0].start_containerd();
    let host = network.manager();
    host.ok(&["service", "scale", "-d", "web=3"]);
    host.wait_running("web", 3);
    let now = host.containers();
    assert!(before.iter().all(|container| now.contains(container)), "{before:?} {now:?}");
}

#[test]
fn a_manager_whose_containerd_hangs_answers_for_the_cluster() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    create(&network, "web", "2");
    network.manager().wait_running("web", 2);
    network.hosts[0].stall_containerd();
    let host = network.manager();
    // Long before the daemon gives up asking its containerd.
    let midge = format!(
        "timeout 5 {} -H unix://{}/midge.sock",
        midge_binary().display(),
        host.dir.display()
    );
    assert!(host.sh(&format!("{midge} node ls")).contains("Leader"));
    assert!(host.sh(&format!("{midge} service scale -d web=4")).contains("web scaled to 4"));
    let ping = "curl -s --max-time 5 -D - --unix-socket";
    let answer = host.sh(&format!("{ping} {}/midge.sock http://d/_ping", host.dir.display()));
    assert!(answer.to_lowercase().contains("swarm: active/manager"), "{answer}");
}

#[test]
fn a_lost_node_is_replaced_and_its_surplus_stopped() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(3);
    network.load_busybox();
    create(&network, "web", "6");
    let manager = network.manager();
    manager.wait_running("web", 6);
    network.hosts[2].link(false);
    let start = std::time::Instant::now();
    eventually("n3 to be down", || {
        let nodes = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        nodes.contains("n3 Down").then_some(())
    });
    let took = start.elapsed();
    eventually("all six on the others", || {
        let running = manager.running("web");
        let elsewhere = running.iter().filter(|task| !task.starts_with("n3")).count();
        (elsewhere == 6).then_some(())
    });
    eprintln!("a cut node was Down after {took:?}");
    assert_eq!(network.hosts[2].containers().len(), 2, "it goes on running what it has");
    network.hosts[2].link(true);
    eventually("the surplus to be stopped", || {
        network.hosts[2].containers().is_empty().then_some(())
    });
    eventually("n3 to be ready", || {
        let nodes = manager.ok(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        nodes.contains("n3 Ready").then_some(())
    });
    manager.wait_running("web", 6);
}

#[test]
fn everything_is_killed_and_comes_back() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    create(&network, "web", "4");
    network.manager().wait_running("web", 4);
    network.hosts.iter_mut().for_each(Host::power_off);
    for host in &mut network.hosts {
        host.start_containerd();
        host.start_daemon();
    }
    let manager = network.manager();
    eventually("the manager to lead", || {
        manager.midge(&["node", "ls"]).status.success().then_some(())
    });
    eventually("four containers", || {
        let found: usize = network.hosts.iter().map(|host| host.containers().len()).sum();
        (found == 4 && manager.running("web").len() == 4).then_some(())
    });
}

#[test]
fn a_worker_without_its_manager_restarts_its_tasks() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(2);
    network.load_busybox();
    let options = ["service", "create", "-d", "--name", "web", "--restart-delay", "100ms"];
    let place = ["--constraint", "node.hostname==n2", "bb:1"];
    network.manager().ok(&[&options[..], &place, SLEEP].concat());
    network.manager().wait_running("web", 1);
    network.hosts[0].kill_daemon();
    let worker = &network.hosts[1];
    let before = worker.containers();
    worker.sh(&format!("kill -9 {}", before[0].1));
    let after = eventually("a local restart", || {
        let started = |now: &Vec<(String, u32)>| now.len() == 1 && now[0].1 != 0;
        Some(worker.containers()).filter(|now| started(now) && now[0].0 != before[0].0)
    });
    network.hosts[0].start_daemon();
    let (container, _) = &after[0];
    eventually("the manager to take it over", || {
        let listed = network.manager().midge(&["service", "ps", "web", "-q", "--no-trunc"]);
        let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
        (listed.status.success() && ids.contains(container.as_str())).then_some(())
    });
    network.manager().wait_running("web", 1);
    assert_eq!(network.hosts[1].containers(), after, "the manager takes it over as it is");
}

#[test]
fn a_node_whose_oci_runtime_is_gone_keeps_its_containers_and_makes_new_ones_once_it_is_back() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(1);
    let (own, config) = (network.folder().join("oci"), network.folder().join("config.toml"));
    let runc = which("runc").unwrap();
    symlink(&runc, &own).unwrap();
    fs::write(&config, format!("runtime = {own:?}\n")).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    network.found_with(1, &config);
    network.load_busybox();
    create(&network, "old", "1");
    network.manager().wait_running("old", 1);
    let before = network.manager().containers();

    fs::remove_file(&own).unwrap();
    let host = &mut network.hosts[0];
    host.stop_daemon();
    host.start_daemon_with(&config);
    let why = format!("cannot find the OCI runtime {own:?}: install it, or set runtime = \"auto\"");
    let warnings = |host: &Host| {
        let info = host.midge(&["info"]);
        assert!(info.status.success(), "{info:?}");
        String::from_utf8(info.stderr).unwrap()
    };
    let text = warnings(host);
    assert!(text.contains(&format!("WARNING: no container can be made: {why}")), "{text}");
    network.manager().wait_running("old", 1);
    assert_eq!(network.manager().containers(), before);
    create(&network, "new", "1");
    eventually("the task to say what it lacks", || {
        let tasks = network.manager().ok(&["service", "ps", "--no-trunc", "new"]);
        tasks.contains(&why).then_some(())
    });

    symlink(&runc, &own).unwrap();
    network.manager().wait_running("new", 1);
    let text = warnings(network.manager());
    assert!(!text.contains("no container can be made"), "{text}");
    assert_eq!(network.manager().containers().len(), 2);
}
