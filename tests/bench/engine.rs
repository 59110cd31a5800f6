//! The engines that are measured, each by its own command line or API.

use crate::{
    host::{Host, Network, eventually, midge_binary, which},
    process::Process,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// What each container runs: it ends at once when it is asked to.
const SCRIPT: &str = "trap 'exit 0' TERM; sleep 3600 & wait";

/// Something that runs services.
pub(crate) trait Engine {
    /// The API's socket.
    fn socket(&self) -> PathBuf;

    /// Runs a command of the engine's command line.
    fn command(&self, args: &[&str]);

    /// Makes a service.
    fn create(&self, name: &str, replicas: usize, restart_delay: Option<&str>) {
        let replicas = replicas.to_string();
        let mut args = vec!["service", "create", "-d", "-q", "--name", name, "--replicas"];
        args.extend([replicas.as_str(), "--no-resolve-image"]);
        if let Some(delay) = restart_delay {
            args.extend(["--restart-delay", delay]);
        }
        args.extend(["bb:1", "sh", "-c", SCRIPT]);
        self.command(&args);
    }

    fn scale(&self, name: &str, replicas: usize) {
        self.command(&["service", "scale", "-d", &format!("{name}={replicas}")]);
    }

    fn remove(&self, name: &str) {
        self.command(&["service", "rm", name]);
        self.wait_containers(0);
    }

    /// Asks the API.
    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let start = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[start..]).ok()
    }

    /// Returns the tasks of a service, as the API shows them.
    fn tasks(&self, name: &str) -> Vec<Value> {
        let path = format!("/tasks?filters=%7B%22service%22%3A%5B%22{name}%22%5D%7D");
        let tasks = self.get(&path).unwrap_or_default();
        tasks.as_array().cloned().unwrap_or_default()
    }

    /// Returns the containers of the running tasks of a service, and their processes.
    fn running(&self, name: &str) -> Vec<(String, u64)> {
        let tasks = self.tasks(name);
        tasks
            .iter()
            .filter(|task| {
                task["Status"]["State"] == "running" && task["DesiredState"] == "running"
            })
            .filter_map(|task| {
                let status = &task["Status"]["ContainerStatus"];
                Some((status["ContainerID"].as_str()?.to_owned(), status["PID"].as_u64()?))
            })
            .collect()
    }

    /// Waits until so many tasks run. Asks for their number alone: a hundred tasks, many times a
    /// second, would cost what is measured.
    fn wait(&self, name: &str, count: usize) {
        let path = format!("/services?status=true&filters=%7B%22name%22%3A%5B%22{name}%22%5D%7D");
        eventually("all tasks to run", || {
            let services = self.get(&path)?;
            (services[0]["ServiceStatus"]["RunningTasks"] == count).then_some(())
        });
    }

    /// Waits until so many containers are left.
    fn wait_containers(&self, count: usize) {
        eventually("containers to go", || {
            let containers = self.get("/containers/json?all=1")?;
            (containers.as_array()?.len() <= count).then_some(())
        });
    }

    /// Kills the container of a service of one; returns the time until its replacement runs.
    fn crash(&self, name: &str) -> f64 {
        let before = eventually("the task to run", || self.running(name).pop());
        let start = Instant::now();
        let pid = rustix::process::Pid::from_raw(i32::try_from(before.1).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        eventually("the replacement", || {
            self.running(name).pop().filter(|now| now.0 != before.0).map(|_| ())
        });
        start.elapsed().as_secs_f64()
    }
}

/// How long an update takes, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Updated {
    /// Until every task is a new one that runs.
    pub(crate) all: f64,
    /// That a slot is without a running task, on average.
    pub(crate) gap: f64,
}

/// Replaces every task of a service of so many, one at a time.
pub(crate) fn update(engine: &dyn Engine, name: &str, count: usize, order: &str) -> Updated {
    let before: Vec<String> = engine.running(name).into_iter().map(|(id, _)| id).collect();
    let order = ["--update-order", order];
    let start = Instant::now();
    engine.command(&[&["service", "update", "-d", "-q", "--force"][..], &order, &[name]].concat());
    let (mut last, mut empty) = (Instant::now(), 0.0);
    let all = eventually("all tasks to be replaced", || {
        let tasks = engine.tasks(name);
        let up: BTreeSet<u64> = tasks
            .iter()
            .filter(|task| task["Status"]["State"] == "running")
            .filter_map(|task| task["Slot"].as_u64())
            .collect();
        let now = Instant::now();
        let idle = u32::try_from(count - up.len().min(count)).unwrap();
        empty += f64::from(idle) * now.duration_since(last).as_secs_f64();
        last = now;
        let running = engine.running(name);
        let new = running.len() == count && running.iter().all(|(id, _)| !before.contains(id));
        new.then(|| start.elapsed().as_secs_f64())
    });
    Updated { all, gap: empty / f64::from(u32::try_from(count).unwrap()) }
}

pub(crate) struct Midge<'a>(pub(crate) &'a Host);

impl Engine for Midge<'_> {
    fn socket(&self) -> PathBuf {
        self.0.dir.join("midge.sock")
    }

    fn command(&self, args: &[&str]) {
        self.0.ok(args);
    }
}

/// One Swarm node on a host of its own.
pub(crate) struct Docker {
    // Dropped before the host it runs on.
    daemon: Daemon,
    network: Network,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Dockerd ends its containerd with it only where it is asked to, and not when killed.
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

impl Docker {
    /// Starts a node with the test image, alone in its swarm.
    pub(crate) fn start() -> Self {
        let network = Network::new(1);
        let host = network.manager();
        let dir = host.dir.display();
        let log = std::fs::File::create(host.dir.join("dockerd.log")).unwrap();
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", host.namespace))
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs run /run && exec dockerd --data-root {dir}/docker \
                 --exec-root {dir}/docker-run -p {dir}/docker.pid -H unix://{dir}/docker.sock"
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { daemon: Daemon(daemon), network };
        eventually("dockerd", || docker.get("/version"));
        let archive = crate::host::busybox_archive(&docker.network.manager().dir, &["bb:1"]);
        docker.command(&["load", "-q", "-i", archive.to_str().unwrap()]);
        docker.command(&["swarm", "init", "--advertise-addr", &docker.network.manager().address]);
        docker
    }

    /// Returns the resident memory of a fresh manager and of a fresh node in no swarm, in MiB.
    pub(crate) fn idle_memory() -> (f64, f64) {
        let docker = Self::start();
        docker.create("idle", 10, None);
        docker.wait("idle", 10);
        std::thread::sleep(crate::SETTLE);
        let resident = Process::of(docker.daemon.0.id()).resident();
        docker.remove("idle");
        docker.command(&["swarm", "leave", "--force"]);
        (resident, Process::of(docker.daemon.0.id()).resident())
    }
}

impl Engine for Docker {
    fn socket(&self) -> PathBuf {
        self.network.manager().dir.join("docker.sock")
    }

    fn command(&self, args: &[&str]) {
        let docker = which("docker").unwrap();
        let host = format!("unix://{}", self.socket().display());
        let output = Command::new(docker).arg("-H").arg(host).args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {error}");
    }
}

/// Runs as many containers with containerd's own `ctr`, four at a time, each with what midge's have: a
/// network namespace, a pair of interfaces, midge's logger, and a seccomp profile. Returns the seconds
/// it took.
pub(crate) fn floor(host: &Host, count: usize) -> f64 {
    let dir = host.dir.display().to_string();
    let ctr = format!("ctr -a {dir}/containerd.sock -n floor");
    let archive = crate::host::busybox_archive(&host.dir, &["docker.io/library/bb:floor"]);
    let logger = midge_binary().canonicalize().unwrap();
    let logger = logger.display();
    host.sh(&format!("{ctr} images import {} >/dev/null", archive.display()));
    let script = format!(
        r#"
i=$1
ip netns add mbf$i
ip link add mbf$i type veth peer name eth0 netns mbf$i
ip link set mbf$i up; ip -n mbf$i link set eth0 up; ip -n mbf$i link set lo up
{ctr} run -d --log-uri "binary://{logger}?__logger={dir}/floor-$i.log" --seccomp \
  --with-ns network:/run/netns/mbf$i docker.io/library/bb:floor floor-$i sh -c "{SCRIPT}"
"#
    );
    let path = host.dir.join("floor.sh");
    std::fs::write(&path, script).unwrap();
    let start = Instant::now();
    host.sh(&format!("seq {count} | xargs -P 4 -n 1 sh -e {}", path.display()));
    let took = start.elapsed().as_secs_f64();
    clean_floor(host, &ctr, count, &path);
    took
}

fn clean_floor(host: &Host, ctr: &str, count: usize, script: &Path) {
    host.sh(&format!(
        "seq {count} | xargs -P 4 -I% sh -c '{ctr} task delete -f floor-% || true; \
         {ctr} container delete floor-%; \
         ip netns del mbf%' >/dev/null 2>&1; rm {}",
        script.display()
    ));
}
