//! What happens is told; what nobody uses goes; what does not fit is refused.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]
#![expect(clippy::print_stderr, reason = "a test says why it skips")]

use crate::host::{Host, Network, can_run, eventually, which};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

const SLEEP: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];

/// A client that follows events; ended when dropped.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    /// Follows with `midge events`, or with `docker events` where that is wanted.
    fn start(host: &Host, docker: bool, args: &[&str]) -> Self {
        let socket = format!("unix://{}/midge.sock", host.dir.display());
        let mut command = if docker {
            let mut command = Command::new("docker");
            command.env("DOCKER_HOST", socket);
            command
        } else {
            let mut command = Command::new(crate::host::midge_binary());
            command.env("MIDGE_HOST", socket);
            command
        };
        command.arg("events").args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits for a line that fits, and returns it.
    fn wait_for(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            // Bounded by the follower's own `--until`.
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "no {what} among:\n{seen}");
            if fits(&line) {
                return line;
            }
            seen.push_str(&line);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Already ended where its time is over.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn until() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_secs() + 90).to_string()
}

#[test]
fn a_services_life_is_told_to_docker_and_to_midge() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let (manager, worker) = (&network.hosts[0], &network.hosts[1]);
    let until = until();
    let docker = which("docker").is_some();
    if !docker {
        eprintln!("no docker command here: midge follows alone");
    }
    let args = ["--since", "1", "--until", &until, "--filter", "scope=swarm"];
    let mut swarm = Follower::start(manager, docker, &args);
    let mut local = Follower::start(worker, false, &["--until", &until, "--format", "json"]);
    let create = ["service", "create", "-q", "--name", "ev", "--constraint", "node.hostname==n2"];
    manager.ok(&[&create[..], &["bb:1"], SLEEP].concat());
    manager.wait_running("ev", 1);
    let id = manager.inspect("service", "ev")["ID"].as_str().unwrap().to_owned();
    let has = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        move |line: &str| words.iter().all(|word| line.contains(word.as_str()))
    };
    swarm.wait_for("creation", has(&[&format!("service create {id} (name=ev)")]));

    let json = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let of = |action: &str| {
        let action = format!("\"Action\":\"{action}\"");
        move |line: &str| line.contains(&action)
    };
    let made = json(local.wait_for("a container", of("create")));
    assert_eq!((&made["Type"], &made["scope"]), (&json!("container"), &json!("local")));
    let attributes = &made["Actor"]["Attributes"];
    assert_eq!(attributes["com.docker.swarm.service.name"], "ev");
    assert_eq!(attributes["com.docker.swarm.service.id"], id);
    assert!(attributes["image"].as_str().unwrap().starts_with("bb"), "{attributes}");
    local.wait_for("its start", of("start"));

    let (_, pid) = worker.containers()[0].clone();
    worker.sh(&format!("kill -KILL {pid}"));
    let died = json(local.wait_for("its death", of("die")));
    assert_eq!(died["Actor"]["Attributes"]["exitCode"], "137");
    assert_eq!(died["Actor"]["ID"], made["Actor"]["ID"]);
    assert!(died["timeNano"].as_u64() > made["timeNano"].as_u64());

    manager.ok(&["service", "update", "-q", "--image", "bb:2", "ev"]);
    swarm.wait_for("the image", has(&["service update", "image.new=bb:2", "image.old=bb:1"]));
    swarm.wait_for("the end of the update", has(&["updatestate.new=completed"]));
    manager.ok(&["service", "scale", "-d", "ev=2"]);
    swarm.wait_for("the scale", has(&["name=ev", "replicas.new=2", "replicas.old=1"]));
    manager.ok(&["node", "update", "--availability", "drain", "n2"]);
    swarm.wait_for("the drain", has(&["availability.new=drain", "name=n2"]));
    manager.ok(&["service", "rm", "ev"]);
    swarm.wait_for("the removal", has(&[&format!("service remove {id} (name=ev)")]));
    for action in ["kill", "stop", "destroy"] {
        local.wait_for(action, of(action));
    }
    let past =
        manager.ok(&["events", "--since", "10m", "--until", "0s", "--filter", "event=create"]);
    assert!(past.contains("service create") && !past.contains("remove"), "{past}");
}

#[test]
fn volumes_are_made_listed_and_pruned_on_every_node() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(2);
    network.load_busybox();
    let manager = network.manager();
    let made = manager.ok(&["volume", "create", "--nodes", "all", "--label", "a=1", "data"]);
    assert_eq!(made.lines().count(), 2, "{made}");
    let anonymous = manager.ok(&["volume", "create"]);
    assert_eq!(anonymous.trim().len(), 64);
    let memory = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m"];
    manager.ok(&[&["volume", "create"], &memory[..], &["mem"]].concat());
    let table = manager.ok(&["volume", "ls", "--nodes", "all", "--filter", "label=a=1"]);
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["n1", "local", "data"], ["n2", "local", "data"]]);

    let mount = ["--mount", "type=volume,src=mem,dst=/m", "--constraint", "node.hostname==n1"];
    let create = ["service", "create", "-q", "--name", "uses"];
    manager.ok(&[&create[..], &mount, &["bb:1"], SLEEP].concat());
    manager.wait_running("uses", 1);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = manager.dir.join("data/volumes/mem/_data").display().to_string();
    assert!(mounts().contains(&place), "mounted with its first task");
    let refused = manager.refused(&["volume", "rm", "mem"]);
    assert!(refused.contains("remove mem: volume is in use - ["), "{refused}");
    let usage = manager.ok(&["system", "df"]);
    let volumes = usage.lines().find(|line| line.starts_with("Local Volumes")).unwrap();
    let words: Vec<&str> = volumes.split_whitespace().collect();
    assert_eq!(words[2..4], ["3", "1"], "{usage}");
    manager.ok(&["service", "rm", "uses"]);
    eventually("the volume to be unmounted", || (!mounts().contains(&place)).then_some(()));

    let pruned = manager.ok(&["volume", "prune", "--force"]);
    assert!(pruned.contains(anonymous.trim()) && !pruned.contains("data"), "{pruned}");
    eventually("nothing to use a volume", || {
        manager.midge(&["volume", "rm", "mem"]).status.success().then_some(())
    });
    let pruned = manager.ok(&["volume", "prune", "--all", "--force", "--nodes", "n2"]);
    assert!(pruned.contains("n2: data"), "{pruned}");
    assert_eq!(manager.ok(&["volume", "ls", "-q", "--nodes", "all"]), "data\n");
    assert!(manager.refused(&["volume", "inspect", "none"]).contains("no such volume"));
    let refused =
        manager.refused(&["service", "create", "--mount", "type=volume,src=v,dst=/m", "bb:1"]);
    assert!(refused.contains("at least 2 characters"), "{refused}");
}

/// A file system of its own in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no file system can be mounted here");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Gone already where its host has ended.
        Command::new("umount").arg("-l").arg(&self.0).output().ok();
    }
}

/// Writes an image as the files of a registry that only serves files: one layer of so many
/// bytes that do not compress, on top of nothing.
fn serve_image(root: &Path, name: &str, bytes: usize) {
    let digest = |data: &[u8]| {
        let file = root.join("blob");
        fs::write(&file, data).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        format!("sha256:{}", sum.split_whitespace().next().unwrap())
    };
    let dir = root.join("v2").join(name);
    fs::create_dir_all(dir.join("blobs")).unwrap();
    fs::create_dir_all(dir.join("manifests")).unwrap();
    let work = root.join(format!("{name}-layer"));
    fs::create_dir_all(work.join("bin")).unwrap();
    fs::copy(which("busybox").unwrap(), work.join("bin/busybox")).unwrap();
    let filler = format!(
        "head -c {bytes} /dev/urandom >{0}/filler; ln -sf busybox {0}/bin/sh; \
         ln -sf busybox {0}/bin/sleep; tar -C {0} --owner=0 --group=0 -cf {0}.tar .",
        work.display()
    );
    assert!(Command::new("sh").args(["-ec", &filler]).status().unwrap().success());
    let layer = fs::read(root.join(format!("{name}-layer.tar"))).unwrap();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
    .to_string();
    let config_digest = digest(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer_digest, "size": layer.len()}],
    })
    .to_string();
    let manifest_digest = digest(manifest.as_bytes());
    fs::write(dir.join("blobs").join(config_digest), config).unwrap();
    fs::write(dir.join("blobs").join(layer_digest), layer).unwrap();
    for name in ["1", &manifest_digest] {
        fs::write(dir.join("manifests").join(name), &manifest).unwrap();
    }
    fs::remove_dir_all(work).unwrap();
}

/// busybox's server of files, ended when dropped.
struct FileServer(Child);

impl FileServer {
    fn start(host: &Host, root: &Path) -> Self {
        let busybox = which("busybox").unwrap();
        let mut command = host.inside(&busybox);
        command.args(["httpd", "-f", "-p", "127.0.0.1:5000", "-h"]).arg(root);
        let server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("the server of files", || {
            let get =
                "busybox wget -q -O /dev/null http://127.0.0.1:5000/ready && echo yes || true";
            (host.sh(get).trim() == "yes").then_some(())
        });
        server
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const MIB: usize = 1 << 20;

#[test]
fn a_full_disk_loses_what_is_unused_and_refuses_what_does_not_fit() {
    if !can_run() {
        return;
    }
    // Declared first, so that it is unmounted after the host has ended.
    let disk;
    let mut network = Network::new(0);
    disk = SmallDisk::mount(&network.folder().join("n1/ctd"), 200);
    if disk.is_none() {
        return;
    }
    let web = network.folder().join("web");
    fs::create_dir_all(&web).unwrap();
    fs::write(web.join("ready"), "").unwrap();
    for (name, size) in [("old", 30), ("kept", 30), ("next", 30), ("huge", 120)] {
        serve_image(&web, name, size * MIB);
    }
    let host = network.add_host();
    host.start_daemon();
    let host = &network.hosts[0];
    let _server = FileServer::start(host, &web);
    host.ok(&["swarm", "init", "--advertise-addr", &host.address]);
    let image = |name: &str| format!("127.0.0.1:5000/{name}:1");
    for name in ["old", "kept"] {
        host.ok(&["image", "pull", "-q", &image(name)]);
    }
    // No task runs, yet the service refers to its image.
    host.ok(&["service", "create", "-q", "-d", "--name", "web", "--replicas", "0", &image("kept")]);
    let list = || host.ok(&["image", "ls", "--format", "{{.Repository}}"]);
    assert!(list().contains("/old"), "{}", list());

    // 30 MiB packed and unpacked each, a fifth of the disk is left: there is no room beside both.
    let create = ["service", "create", "-q", "--name", "next", "--restart-delay", "1s"];
    let next = image("next");
    host.ok(&[&create[..], &[&next], SLEEP].concat());
    host.wait_running("next", 1);
    let left = list();
    assert!(!left.contains("/old"), "the one that nothing uses made room: {left}");
    assert!(left.contains("/kept") && left.contains("/next"), "{left}");

    let refused = host.refused(&["image", "pull", "-q", &image("huge")]);
    assert!(refused.contains("no room for image 127.0.0.1:5000/huge:1"), "{refused}");
    assert!(refused.contains("it needs about") && refused.contains("free"), "{refused}");
    assert!(!list().contains("/huge"));
    assert_eq!(host.running("next").len(), 1, "and what runs goes on");
    let huge = image("huge");
    host.ok(&[&["service", "create", "-q", "-d", "--name", "huge", &huge][..], SLEEP].concat());
    eventually("the task to say why", || {
        let errors = host.ok(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", "huge"]);
        errors.contains("no room for image").then_some(())
    });
    let log = fs::read_to_string(host.dir.join("midge.log")).unwrap();
    assert!(log.contains("removed images that nothing uses"), "{log}");
    let pruned = host.ok(&["image", "prune", "--all", "--force"]);
    assert!(pruned.contains("kept") && pruned.contains("Total reclaimed space:"), "{pruned}");
    assert!(list().contains("/next") && !list().contains("/kept"), "what a container uses stays");
}
