//! Updates with real containers and a real registry: what takes nothing down, what goes back, what
//! goes on after a manager was killed.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    host::{Host, Network, can_run, eventually, note, which},
    registry::{Access, push, start_registry},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

/// Serves HTTP, and ends when it is told to.
const SERVE: &str = "mkdir -p /www; echo well > /www/index.html; \
                     trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait";

/// A cluster whose nodes pull from a registry on the first one, which has these tags of `app`.
fn cluster_with_registry(nodes: usize, tags: &[&str]) -> Option<(Network, String)> {
    if !can_run() {
        return None;
    }
    if which("docker-registry").is_none() {
        note("skipped: needs docker-registry");
        return None;
    }
    let mut network = Network::configured_cluster(nodes, |first| {
        format!("[registry]\nplain_http = [\"{first}:5000\"]\n")
    });
    let registry = start_registry(&mut network.hosts[0], Access::Open);
    for tag in tags {
        push(network.manager(), &registry, "app", tag);
    }
    Some((network, format!("{registry}/app")))
}

/// Makes a service that answers on a port of each task's node, and is well once it does.
fn create_web(manager: &Host, image: &str, replicas: &str, options: &[&str]) {
    let create = ["service", "create", "-q", "--name", "web", "--replicas", replicas];
    let publish = ["--publish", "mode=host,target=80", "--restart-delay", "100ms"];
    let check = [
        "--health-cmd",
        "wget -q -O /dev/null http://127.0.0.1/",
        "--health-interval",
        "1s",
        "--health-start-period",
        "20s",
        "--health-start-interval",
        "100ms",
    ];
    let what = [image, "sh", "-c", SERVE];
    manager.ok(&[&create[..], &publish, &check, options, &what].concat());
}

/// The tasks of `web` that are wanted, as the API shows them.
fn wanted(manager: &Host) -> Vec<Value> {
    let filter = "%7B%22service%22:%7B%22web%22:true%7D%7D";
    let answer = manager.api(&format!("/tasks?filters={filter}"));
    let all: Vec<Value> = serde_json::from_str(&answer).unwrap();
    all.into_iter().filter(|task| task["DesiredState"] == "running").collect()
}

fn is_running(task: &Value) -> bool {
    task["Status"]["State"] == "running"
}

/// The addresses where running tasks answer, with the id of each task.
fn addresses(network: &Network, tasks: &[Value]) -> Vec<(String, String)> {
    let nodes: Vec<Value> = serde_json::from_str(&network.manager().api("/nodes")).unwrap();
    let address = |task: &Value| {
        let node = nodes.iter().find(|node| node["ID"] == task["NodeID"])?;
        let host = node["Description"]["Hostname"].as_str()?;
        let number: usize = host.trim_start_matches('n').parse().ok()?;
        let port = task["Status"]["PortStatus"]["Ports"][0]["PublishedPort"].as_u64()?;
        let id = task["ID"].as_str()?.to_owned();
        Some((format!("{}:{port}", network.hosts.get(number - 1)?.address), id))
    };
    tasks.iter().filter(|task| is_running(task)).filter_map(address).collect()
}

/// What a client saw that asked every task without pause.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    /// What failed of tasks that nobody had told to stop.
    failed: Vec<String>,
    /// The fewest slots with a running task.
    least: usize,
}

/// Asks every running task again and again until `stop`.
fn ask_all(network: &Network, stop: &AtomicBool) -> Seen {
    let manager = network.manager();
    let mut seen = Seen { least: usize::MAX, ..Seen::default() };
    while !stop.load(Ordering::Relaxed) {
        let tasks = wanted(manager);
        let up: BTreeSet<u64> = tasks
            .iter()
            .filter(|task| is_running(task))
            .filter_map(|t| t["Slot"].as_u64())
            .collect();
        seen.least = seen.least.min(up.len());
        for (address, task) in addresses(network, &tasks) {
            seen.requests += 1;
            let body = manager.sh(&format!("curl -s --max-time 5 http://{address}/ || true"));
            if body.trim() == "well" {
                continue;
            }
            let now: Value = serde_json::from_str(&manager.api(&format!("/tasks/{task}"))).unwrap();
            if now["DesiredState"] == "running" {
                seen.failed.push(format!("{address} of {task}: {body:?}"));
            }
        }
    }
    seen
}

/// Runs a command while a client asks every task; returns what each saw.
fn while_asked<T>(network: &Network, command: impl FnOnce() -> T) -> (T, Seen) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_all(network, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(command));
        stop.store(true, Ordering::Relaxed);
        let seen = client.join().unwrap();
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), seen)
    })
}

/// The image tags that run, one a slot.
fn tags(manager: &Host) -> Vec<String> {
    let tag = |task: &Value| {
        let image = task["Spec"]["ContainerSpec"]["Image"].as_str().unwrap();
        image.split('@').next().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    wanted(manager).iter().filter(|task| is_running(task)).map(tag).collect()
}

fn status(manager: &Host) -> (String, String) {
    let update = &manager.inspect("service", "web")["UpdateStatus"];
    let text = |key: &str| update[key].as_str().unwrap_or_default().to_owned();
    (text("State"), text("Message"))
}

#[test]
fn an_update_that_starts_first_loses_no_request() {
    let Some((network, app)) = cluster_with_registry(3, &["1", "2", "3"]) else { return };
    let manager = network.manager();
    create_web(manager, &format!("{app}:1"), "6", &["--update-monitor", "1s"]);
    let update = ["service", "update", "-q", "--update-parallelism", "2"];
    let (_, seen) = while_asked(&network, || {
        let image = format!("{app}:2");
        manager
            .ok(&[&update[..], &["--update-order", "start-first", "--image", &image, "web"]]
                .concat())
    });
    assert_eq!(tags(manager), ["2"; 6]);
    assert!(seen.failed.is_empty(), "{seen:?}");
    assert!(seen.requests > 6 && seen.least == 6, "a task runs in each slot at any time: {seen:?}");
    assert_eq!(status(manager), ("completed".to_owned(), "update completed".to_owned()));

    // Stop-first: no more places are without a task than are under way, though every node has to
    // pull the image.
    let (_, seen) = while_asked(&network, || {
        let image = format!("{app}:3");
        manager
            .ok(&[&update[..], &["--update-order", "stop-first", "--image", &image, "web"]]
                .concat())
    });
    assert_eq!(tags(manager), ["3"; 6]);
    assert!(seen.failed.is_empty() && seen.least >= 4, "{seen:?}");

    // Back by hand, and forth.
    manager.ok(&["service", "rollback", "-q", "web"]);
    assert_eq!(tags(manager), ["2"; 6]);
    assert_eq!(status(manager).0, "rollback_completed");
    let before: BTreeSet<String> = ids(manager);
    manager.ok(&["service", "update", "-q", "--force", "--update-parallelism", "0", "web"]);
    assert!(ids(manager).is_disjoint(&before), "--force replaces every task");
}

/// The ids of the tasks that run.
fn ids(manager: &Host) -> BTreeSet<String> {
    let running = wanted(manager);
    running
        .iter()
        .filter(|task| is_running(task))
        .map(|t| t["ID"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_fails_takes_nothing_down_and_goes_back() {
    let Some((network, app)) = cluster_with_registry(2, &["1", "2"]) else { return };
    let manager = network.manager();
    create_web(manager, &format!("{app}:1"), "4", &["--update-monitor", "1s"]);
    let before = ids(manager);

    // The registry has no such tag, and nobody asked it before.
    let missing = format!("{app}:later");
    let update = ["service", "update", "-q", "--no-resolve-image", "--image", &missing, "web"];
    let (says, seen) = while_asked(&network, || manager.refused(&update));
    assert!(says.contains("service update paused: update paused due to failure"), "{says}");
    assert!(seen.failed.is_empty() && seen.least == 4, "{seen:?}");
    assert_eq!(ids(manager), before, "no task was taken down");
    assert_eq!(status(manager).0, "paused");
    let why = manager.ok(&["service", "why", "web"]);
    assert!(why.contains("later") && why.contains("goes back"), "{why}");
    let plan = manager.ok(&["service", "update", "--dry-run", "--force", "web"]);
    assert_eq!(plan.lines().filter(|line| line.contains("replace")).count(), 4, "{plan}");
    assert_eq!(ids(manager), before, "a plan changes nothing");

    // Once it is there, a plain update goes on.
    push(manager, app.rsplit_once('/').unwrap().0, "app", "later");
    manager.ok(&["service", "update", "-q", "web"]);
    assert_eq!(tags(manager), ["later"; 4]);
    assert_eq!(status(manager).0, "completed");

    // Never well: it goes back by itself, and the other places were never touched.
    let before = ids(manager);
    let sick = ["--health-cmd", "false", "--health-retries", "1", "--health-start-period", "0s"];
    let back = ["--update-failure-action", "rollback", "--update-order", "start-first", "web"];
    let update = [&["service", "update", "-q"][..], &sick, &back].concat();
    let (says, seen) = while_asked(&network, || manager.refused(&update));
    assert!(says.contains("service rolled back"), "{says}");
    assert!(seen.failed.is_empty() && seen.least == 4, "{seen:?}");
    assert_eq!(ids(manager), before);
    eventually("the rollback to be over", || {
        (status(manager).0 == "rollback_completed").then_some(())
    });
}

#[test]
fn an_update_goes_on_after_its_manager_was_killed() {
    let Some((mut network, app)) = cluster_with_registry(3, &["1", "2"]) else { return };
    let options = ["--update-delay", "1s", "--update-monitor", "1s"];
    create_web(network.manager(), &format!("{app}:1"), "6", &options);
    let image = format!("{app}:2");
    network.manager().ok(&["service", "update", "-d", "--image", &image, "web"]);
    let replaced = |network: &Network, count: usize| {
        eventually(&format!("{count} tasks to be replaced"), || {
            let tags = tags(network.manager());
            (tags.iter().filter(|tag| *tag == "2").count() >= count).then_some(())
        });
    };
    replaced(&network, 2);
    let early: BTreeSet<String> = {
        let running = wanted(network.manager());
        let new = running.iter().filter(|task| is_running(task));
        let new =
            new.filter(|t| t["Spec"]["ContainerSpec"]["Image"].as_str().unwrap().contains(":2@"));
        new.map(|task| task["ID"].as_str().unwrap().to_owned()).collect()
    };
    network.hosts[0].kill_daemon();
    network.hosts[0].start_daemon();
    eventually("the manager to lead", || {
        network.manager().midge(&["node", "ls"]).status.success().then_some(())
    });
    replaced(&network, 6);
    eventually("the update to be over", || {
        (status(network.manager()).0 == "completed").then_some(())
    });
    let late = ids(network.manager());
    assert!(late.len() == 6 && early.is_subset(&late), "{early:?} were replaced once: {late:?}");
    let made = network.manager().ok(&["service", "ps", "web", "--format", "{{.Image}}"]);
    let new = made.lines().filter(|image| image.ends_with(":2")).count();
    assert_eq!(new, 6, "no task is replaced twice: {made}");
}

#[test]
fn a_global_service_with_a_port_of_its_node_is_updated_in_place() {
    let Some((network, app)) = cluster_with_registry(2, &["1", "2"]) else { return };
    let manager = network.manager();
    let image = format!("{app}:1");
    let create = ["service", "create", "-q", "--name", "web", "--mode", "global"];
    let publish = ["--publish", "mode=host,published=8080,target=80", "--update-monitor", "1s"];
    manager.ok(&[&create[..], &publish, &[image.as_str(), "sh", "-c", SERVE]].concat());
    // One holds the port while the other is prepared for it.
    let image = format!("{app}:2");
    manager.ok(&["service", "update", "-q", "--image", &image, "web"]);
    assert_eq!(tags(manager), ["2"; 2]);
    for host in &network.hosts {
        let body = eventually("the new task to answer", || {
            let body = manager.sh(&format!("curl -s http://{}:8080/ || true", host.address));
            (!body.is_empty()).then_some(body)
        });
        assert_eq!(body.trim(), "well");
    }
}
