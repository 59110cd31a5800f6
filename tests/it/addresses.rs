//! Machines whose addresses change: nobody is there to help, and the cluster heals by itself.

use crate::host::{Host, Network, can_run, eventually, eventually_so};
use std::fs;

const BUSY: [&str; 3] = ["bb:1", "sleep", "3600"];

/// Makes a service with a task on every node, and waits until so many run.
fn everywhere(host: &Host, name: &str, nodes: usize) {
    let create = ["service", "create", "-d", "-q", "--name", name, "--mode", "global"];
    eventually_so("a service to be made", || {
        let output = host.midge(&[&create[..], &BUSY].concat());
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success() || says.contains("already exists")).then_some(()).ok_or(says)
    });
    host.wait_running(name, nodes);
}

/// What a manager shows of a node: whether it is in touch, where it is seen, where it is reached as
/// a manager, and what is wrong with it.
fn shown(host: &Host, node: &str) -> Option<[String; 4]> {
    let output = host.midge(&["node", "inspect", "--format", "json", node]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (status, manager) = (&found[0]["Status"], &found[0]["ManagerStatus"]);
    Some([
        text(&status["State"]),
        text(&status["Addr"]),
        text(&manager["Addr"]),
        text(&manager["Message"]),
    ])
}

/// Waits until a manager shows a node as ready, at this address in both places.
fn await_manager_at(host: &Host, node: &str, address: &str) {
    let reached = match address.contains(':') {
        true => format!("[{address}]:2377"),
        false => format!("{address}:2377"),
    };
    let wanted = ["ready", address, &reached, ""];
    eventually_so(&format!("{node} at {address}"), || match shown(host, node) {
        Some(shown) if shown == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn await_worker_at(host: &Host, node: &str, address: &str) {
    eventually_so(&format!("{node} at {address}"), || match shown(host, node) {
        Some([state, at, ..]) if state == "ready" && at == address => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// What runs where, by its processes.
fn running(network: &Network) -> Vec<Vec<(String, u32)>> {
    network.hosts.iter().map(Host::containers).collect()
}

/// Checks that no container noticed anything.
fn still_runs(network: &Network, before: &[Vec<(String, u32)>]) {
    for (now, before) in running(network).iter().zip(before) {
        assert!(before.iter().all(|it| now.contains(it)), "of {before:?} there is {now:?}");
    }
}

/// Nobody says here which address to tell the others, so that each is found.
fn found(network: &mut Network, managers: usize, remote: &str) {
    for host in &mut network.hosts {
        host.start_daemon();
    }
    network.form(managers, &[], remote);
}

/// Gives the hosts names of their own; what is returned says where `manager.test` is.
fn naming(network: &mut Network) -> impl Fn(&str) + use<> {
    let files: Vec<_> = network.hosts.iter_mut().map(Host::own_names).collect();
    move |address| {
        for file in &files {
            fs::write(file, format!("{address} manager.test\n")).expect("a names file is written");
        }
    }
}

#[test]
fn a_worker_that_is_carried_to_another_network_is_shown_there() {
    if !can_run() {
        return;
    }
    let mut network = Network::cluster(3);
    network.load_busybox();
    everywhere(network.manager(), "web", 3);
    let before = running(&network);
    for host in &network.hosts {
        host.sh("ip route add 10.98.7.0/24 dev eth0");
    }
    network.hosts[1].link(false);
    network.hosts[1].readdress("10.98.7.2/24");
    network.hosts[1].sh("ip route add default dev eth0");
    network.hosts[1].link(true);
    // Without having been missed, on the session that it has: it gets another address.
    network.hosts[2].readdress("10.98.6.33/24");
    await_worker_at(network.manager(), "n2", "10.98.7.2");
    await_worker_at(network.manager(), "n3", "10.98.6.33");
    still_runs(&network, &before);
    everywhere(network.manager(), "after", 3);
}

#[test]
fn a_manager_that_moves_tells_the_others_and_so_does_the_leader() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(4);
    found(&mut network, 3, "10.98.6.1:2377");
    network.load_busybox();
    everywhere(network.manager(), "web", 4);
    let before = running(&network);
    let leads = network.hosts[0].leader().unwrap();
    let follows = if leads == 3 { 2 } else { 3 };

    network.hosts[follows - 1].readdress("10.98.6.30/24");
    await_manager_at(network.manager(), &format!("n{follows}"), "10.98.6.30");

    let leads = eventually("a leader", || network.hosts[0].leader());
    let asked = if leads == 1 { 1 } else { 0 };
    network.hosts[leads - 1].link(false);
    network.hosts[leads - 1].readdress("10.98.6.40/24");
    network.hosts[leads - 1].link(true);
    await_manager_at(&network.hosts[asked], &format!("n{leads}"), "10.98.6.40");

    network.await_nodes(3, 1);
    still_runs(&network, &before);
    for (number, manager) in network.hosts[..3].iter().enumerate() {
        everywhere(manager, &format!("after-{number}"), 4);
    }
    // What was learned outlives a restart of everybody.
    for host in &mut network.hosts {
        host.stop_daemon();
    }
    for host in &mut network.hosts {
        host.start_daemon();
    }
    network.await_nodes(3, 1);
    still_runs(&network, &before);
}

#[test]
fn the_only_manager_moves_and_is_found_by_its_name() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(3);
    let name = naming(&mut network);
    name("10.98.6.1");
    found(&mut network, 1, "manager.test:2377");
    network.load_busybox();
    everywhere(network.manager(), "web", 3);
    let before = running(&network);

    network.hosts[0].readdress("10.98.6.50/24");
    name("10.98.6.50");
    await_manager_at(network.manager(), "n1", "10.98.6.50");
    network.await_nodes(1, 2);
    still_runs(&network, &before);
    everywhere(network.manager(), "after", 3);

    // While nobody is there to see it.
    for host in &mut network.hosts {
        host.stop_daemon();
    }
    network.hosts[0].readdress("10.98.6.60/24");
    name("10.98.6.60");
    for host in &mut network.hosts {
        host.start_daemon();
    }
    await_manager_at(network.manager(), "n1", "10.98.6.60");
    network.await_nodes(1, 2);
    still_runs(&network, &before);
}

#[test]
fn managers_that_all_move_at_once_find_each_other_by_name() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(4);
    let name = naming(&mut network);
    name("10.98.6.1");
    found(&mut network, 3, "manager.test:2377");
    network.load_busybox();
    everywhere(network.manager(), "web", 4);
    let before = running(&network);

    for (index, host) in network.hosts.iter_mut().enumerate() {
        host.link(false);
        host.readdress(&format!("10.98.6.{}/24", 101 + index));
    }
    name("10.98.6.101");
    for host in &network.hosts {
        host.link(true);
    }
    for number in 1..=3 {
        let address = format!("10.98.6.{}", 100 + number);
        await_manager_at(network.manager(), &format!("n{number}"), &address);
    }
    await_worker_at(network.manager(), "n4", "10.98.6.104");
    network.await_nodes(3, 1);
    still_runs(&network, &before);
    everywhere(network.manager(), "after", 4);
}

#[test]
fn an_address_that_a_user_set_stays_and_is_complained_of() {
    if !can_run() {
        return;
    }
    let mut network = Network::managers(3, 0);
    for host in &network.hosts[1..] {
        // Those that joined were told nothing, so theirs was found.
        assert!(
            fs::read_to_string(host.dir.join("data/membership.json")).unwrap().contains("found")
        );
    }
    network.load_busybox();
    everywhere(network.manager(), "web", 3);
    let before = running(&network);
    network.hosts[0].readdress("10.98.6.70/24");
    let lost = "no longer has the address 10.98.6.1";
    eventually_so("the complaint", || match shown(&network.hosts[1], "n1") {
        Some([state, _, manager, message])
            if state == "ready" && manager == "10.98.6.1:2377" && message.contains(lost) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    assert!(network.hosts[0].api("/info").contains(lost));
    let log = fs::read_to_string(network.hosts[0].dir.join("midge.log")).unwrap();
    assert!(log.contains(lost) && log.contains("advertise_addr"), "{log}");
    let listed =
        network.hosts[1].ok(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    assert_eq!(listed.matches("(address lost)").count(), 1, "{listed}");
    // It is a manager for all that.
    still_runs(&network, &before);
    everywhere(&network.hosts[1], "after", 3);

    // What it says to do helps.
    let path = network.folder().join("config.toml");
    fs::write(&path, "advertise_addr = \"auto\"\n").unwrap();
    network.hosts[0].stop_daemon();
    network.hosts[0].start_daemon_with(&["--config", path.to_str().unwrap()]);
    await_manager_at(&network.hosts[1], "n1", "10.98.6.70");
}

#[test]
fn a_network_of_version_6_alone_is_enough() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(3);
    for (number, host) in network.hosts.iter().enumerate() {
        host.sh(&format!(
            "ip addr flush dev eth0 scope global; \
             ip addr add fd98:6::{}/64 dev eth0 nodad",
            number + 1
        ));
    }
    found(&mut network, 3, "[fd98:6::1]");
    network.load_busybox();
    everywhere(network.manager(), "web", 3);
    let before = running(&network);
    let (moved, sees) = (&network.hosts[0], &network.hosts[1]);
    for (number, node) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        await_manager_at(sees, node, &format!("fd98:6::{number}"));
    }
    moved.sh("ip addr add fd98:6::11/64 dev eth0 nodad; ip addr del fd98:6::1/64 dev eth0");
    await_manager_at(sees, "n1", "fd98:6::11");
    let create = "service create -d -q --name page --mode global --publish [::]:8080:80 bb:1 sh -c";
    let create = create.split(' ').chain(["hostname >i; httpd -f -h ."]);
    moved.ok(&create.collect::<Vec<_>>());
    moved.wait_running("page", 3);
    for to in [11, 2, 3] {
        let ask = format!("curl -sS --max-time 5 http://[fd98:6::{to}]:8080/i 2>&1 || true");
        let page = |host: &Host| host.sh(&ask);
        eventually_so("a page", || {
            let pages = [page(moved), page(sees)];
            pages
                .iter()
                .all(|page| page.trim().len() == 12)
                .then_some(())
                .ok_or_else(|| pages.concat())
        });
    }
    still_runs(&network, &before);
}

#[test]
fn a_node_without_the_address_that_it_listens_at_runs_its_containers() {
    if !can_run() {
        return;
    }
    let mut network = Network::new(3);
    for host in &mut network.hosts {
        host.start_daemon();
    }
    let init = ["swarm", "init", "--listen-addr", "10.98.6.1", "--advertise-addr", "10.98.6.1"];
    network.hosts[0].ok(&init);
    let token = network.hosts[0].ok(&["swarm", "join-token", "-q", "worker"]).trim().to_owned();
    for (host, listen) in network.hosts[1..].iter().zip(["10.98.6.2", "eth0"]) {
        let join = ["swarm", "join", "--token", &token, "--listen-addr", listen, "10.98.6.1"];
        host.ok(&join);
    }
    network.await_nodes(1, 2);
    network.load_busybox();
    everywhere(network.manager(), "web", 3);
    let before = running(&network);

    // One has its power cut, so that its container is to be started, not only taken over.
    network.hosts[1].power_off();
    network.hosts[0].kill_daemon();
    network.hosts[2].kill_daemon();
    for host in &mut network.hosts {
        host.sh("ip address flush dev eth0 scope global");
    }
    network.hosts[1].start_containerd();
    for host in &mut network.hosts {
        host.start_daemon();
    }
    for index in [0, 2] {
        assert_eq!(network.hosts[index].containers(), before[index]);
    }
    eventually("the container that lost its power", || {
        (!network.hosts[1].containers().is_empty()).then_some(())
    });

    for (index, host) in network.hosts.iter_mut().enumerate() {
        host.readdress(&format!("10.98.6.{}/24", index + 1));
    }
    network.await_nodes(1, 2);
    for index in [0, 2] {
        assert_eq!(network.hosts[index].containers(), before[index]);
    }

    // The subnet is another now: the only manager says how it goes on.
    network.hosts[0].readdress("10.98.6.80/24");
    let says = "midge swarm init --force-new-cluster --listen-addr";
    eventually("the complaint", || network.hosts[0].api("/info").contains(says).then_some(()));
    let mut anew = init.map(|word| if word == "10.98.6.1" { "10.98.6.80" } else { word }).to_vec();
    anew.push("--force-new-cluster");
    network.hosts[0].ok(&anew);
    await_manager_at(network.manager(), "n1", "10.98.6.80");
}
