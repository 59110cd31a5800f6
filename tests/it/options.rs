//! Each option of a service, as seen from inside its container.

use crate::host::{Host, Network, can_run, eventually};

/// Runs a script in a service with these options until it has printed everything up to `end`, and
/// returns that.
fn seen_inside(host: &Host, name: &str, options: &[&str], script: &str) -> String {
    let script = format!("{{ {script}; }} 2>&1; echo end; while :; do sleep 1; done");
    let create = ["service", "create", "-d", "--name", name, "--restart-condition", "none"];
    host.ok(&[&create[..], options, &["bb:1", "sh", "-c", &script]].concat());
    let text = eventually(&format!("{name} to print"), || {
        let output = host.midge(&["service", "logs", "--raw", name]);
        let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
        text.ends_with("end\n").then_some(text)
    });
    host.ok(&["service", "rm", name]);
    text.strip_suffix("end\n").unwrap_or("").to_owned()
}

#[test]
fn a_container_is_as_its_options_say() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    network.load_busybox();
    let host = network.manager();
    let folder = host.dir.join("bound");
    std::fs::create_dir(&folder).expect("a new folder");
    std::fs::write(folder.join("file"), "from the node").expect("a new file");
    let bind = format!("type=bind,src={},dst=/bound,ro", folder.display());
    let cases: &[(&str, &[&str], &str, &str)] = &[
        ("env", &["-e", "A=1", "-e", "B=x y"], "echo $A-$B", "1-x y\n"),
        ("dir", &["-w", "/tmp"], "pwd", "/tmp\n"),
        ("user", &["-u", "user"], "id -u; id -g", "1000\n1000\n"),
        ("host", &["--hostname", "mars"], "hostname; grep -c mars /etc/hosts", "mars\n1\n"),
        (
            "ro",
            &["--read-only"],
            "touch /x || echo refused",
            "touch: /x: Read-only file system\nrefused\n",
        ),
        (
            "bind",
            &["--mount", &bind],
            "cat /bound/file; echo; touch /bound/x 2>/dev/null || echo ro",
            "from the node\nro\n",
        ),
        (
            "volume",
            &["--mount", "type=volume,src=kept,dst=/v"],
            "echo kept >/v/f; cat /v/f",
            "kept\n",
        ),
        ("again", &["--mount", "type=volume,src=kept,dst=/w,ro"], "cat /w/f", "kept\n"),
        ("tmpfs", &["--mount", "type=tmpfs,dst=/t"], "grep -c ' /t tmpfs ' /proc/mounts", "1\n"),
        ("tty", &["-t"], "tty", "/dev/pts/0\n"),
        (
            "init",
            &["--init"],
            "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f1",
            "/sbin/docker-init\n",
        ),
        ("none", &["--network", "none"], "ls /sys/class/net", "lo\n"),
        ("net", &["--network", "host"], "ip addr show eth0 | grep -c 10.98.6.1/", "1\n"),
        ("caps", &[], "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb\n"),
        (
            "seccomp",
            &[],
            "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null || echo no",
            "Seccomp:\t2\nno\n",
        ),
        (
            "masked",
            &[],
            "cat /proc/timer_list | wc -c; touch /proc/sys/x 2>/dev/null || echo ro",
            "0\nro\n",
        ),
        (
            "entry",
            &["--entrypoint", "sh -c 'echo \"entry $0\"; exec \"$@\"' zero"],
            "true",
            "entry zero\n",
        ),
    ];
    for (name, options, script, expected) in cases {
        assert_eq!(seen_inside(host, name, options, script), *expected, "{name} {options:?}");
    }
}

#[test]
fn limits_hold() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    network.load_busybox();
    let host = network.manager();
    let node = host.inspect("node", "self");
    let script = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null";
    let pids = seen_inside(host, "pids", &["--limit-pids", "50"], script);
    assert_eq!(pids, "50\n");
    if node["Description"]["Cgroups"]["memory"] == true {
        let script = "cat /sys/fs/cgroup/memory.max \
                      /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
        let memory = seen_inside(host, "memory", &["--limit-memory", "64m"], script);
        assert_eq!(memory, format!("{}\n", 64 << 20));
        let hungry = ["service", "create", "-d", "--name", "hungry", "--limit-memory", "16m"];
        let eat = ["--restart-condition", "none", "bb:1", "sh", "-c", "tail /dev/zero"];
        host.ok(&[&hungry[..], &eat].concat());
        eventually("the hungry task to fail", || {
            let tasks = host.ok(&["service", "ps", "--no-trunc", "hungry"]);
            tasks.contains("Failed").then_some(())
        });
    }
}

#[test]
fn ports_are_published_on_the_node() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    let serve = "mkdir -p /tmp/w; hostname >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w";
    manager.ok(&[
        "service",
        "create",
        "-q",
        "--name",
        "web",
        "--mode",
        "global",
        "--publish",
        "mode=host,target=80,published=8080",
        "bb:1",
        "sh",
        "-c",
        serve,
    ]);
    manager.wait_running("web", 2);
    let [first, second] = &network.hosts[..] else { unreachable!("two hosts") };
    for (from, to) in [(first, second), (second, first), (first, first)] {
        let url = format!("curl -sS --max-time 5 http://{}:8080/", to.address);
        eventually("an answer", || {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| from.sh(&url)))
                .ok()
                .filter(|answer| answer.trim().len() >= 2)
        });
    }
    assert!(!first.sh("curl -sS --max-time 5 http://127.0.0.1:8080/").trim().is_empty());
    let taken = ["service", "create", "-d", "--name", "too", "--publish"];
    manager.ok(&[&taken[..], &["mode=host,target=80,published=8080", "bb:1"]].concat());
    eventually("the port to be missed", || {
        let error = manager.ok(&["service", "ps", "--no-trunc", "too"]);
        error.contains("host-mode port already in use on 2 nodes").then_some(())
    });
}
