//! Test hosts: network namespaces on one switch, each with a containerd and a midge of its own.
//!
//! Everything that is made bears a name of this process and is removed when dropped, also after a
//! failure; what is ended is ended by pid.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]
#![expect(clippy::print_stderr, reason = "tests say why they skip, and what a failed node logged")]

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long a condition may take to come true. Generous: machines of continuous integration are
/// slow and shared; a test that waits for it in vain fails anyway.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Waits until `condition` gives a value, at most [`LIMIT`].
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "gave up waiting for {what}");
        std::thread::sleep(POLL);
    }
}

/// Waits until `condition` is so, at most [`LIMIT`]; says what it was last told where it never is.
pub(crate) fn eventually_so<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match condition() {
            Ok(value) => return value,
            Err(reason) => last = reason,
        }
        std::thread::sleep(POLL);
    }
    panic!("gave up waiting for {what}: {last}");
}

/// Says something to whoever reads the output of the tests.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Tells whether this machine can run hosts; prints why not.
pub(crate) fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = ["ip", "nsenter", "containerd", "runc", "busybox"];
    let missing: Vec<&&str> = tools.iter().filter(|tool| which(tool).is_none()).collect();
    if !root || !missing.is_empty() {
        eprintln!("skipped: needs root (have it: {root}) and {missing:?}");
    }
    root && missing.is_empty()
}

pub(crate) fn which(tool: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(tool))
        .find(|path| path.exists())
}

/// The program under test: the static one where `make test` built it.
pub(crate) fn midge_binary() -> PathBuf {
    std::env::var_os("MIDGE_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_midge")), PathBuf::from)
}

/// Returns the processes whose command line holds all of `words`.
pub(crate) fn processes(words: &[&str]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        words.iter().all(|word| line.contains(word))
    })
    .collect()
}

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

/// A process that is ended when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts a command with nothing to read, whose output is added to a file, and which no signal
    /// of this terminal's reaches.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.process_group(0);
        Self(command.spawn().unwrap())
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        if self.0.try_wait().unwrap().is_none() {
            let pid = rustix::process::Pid::from_child(&self.0);
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    pub(crate) fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.0.wait().unwrap();
    }

    fn terminate(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let start = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < LIMIT, "a process does not end on SIGTERM");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended where this is the second time.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A switch and the hosts on it.
pub(crate) struct Network {
    /// Names everything of this network.
    tag: String,
    subnet: String,
    dir: tempfile::TempDir,
    pub(crate) hosts: Vec<Host>,
}

impl Network {
    /// Makes a switch with so many hosts, containerd running on each, and no daemon yet.
    pub(crate) fn new(hosts: usize) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("mt{}x{number}", std::process::id() % 100_000);
        let dir = tempfile::Builder::new().prefix("midge-it-").tempdir().unwrap();
        sh(&format!(
            "ip netns add {tag}s; ip -n {tag}s link add br0 type bridge; \
             ip -n {tag}s link set br0 up"
        ));
        let subnet = "10.98.6".to_owned();
        let mut network = Self { tag, subnet, dir, hosts: Vec::new() };
        for _ in 0..hosts {
            network.add_host();
        }
        network
    }

    /// Adds a host, with containerd running and no daemon.
    pub(crate) fn add_host(&mut self) -> &mut Host {
        let number = self.hosts.len() + 1;
        let (tag, subnet) = (&self.tag, &self.subnet);
        sh(&format!(
            "ip netns add {tag}n{number}; \
             ip -n {tag}s link add p{number} type veth peer name eth0 netns {tag}n{number}; \
             ip -n {tag}s link set p{number} master br0 up; \
             ip -n {tag}n{number} link set lo up; \
             ip -n {tag}n{number} addr add {subnet}.{number}/24 dev eth0; \
             ip -n {tag}n{number} link set eth0 up"
        ));
        let dir = self.dir.path().join(format!("n{number}"));
        fs::create_dir_all(&dir).unwrap();
        let mut host = Host {
            number,
            namespace: format!("{tag}n{number}"),
            switch: format!("{tag}s"),
            address: format!("{subnet}.{number}"),
            dir,
            containerd: None,
            daemon: None,
            beside: Vec::new(),
            binary: midge_binary(),
            platform: None,
            environment: Vec::new(),
            groups: Vec::new(),
            names: None,
        };
        host.start_containerd();
        self.hosts.push(host);
        self.hosts.last_mut().unwrap()
    }

    /// Makes a cluster of so many nodes: the first is its manager.
    pub(crate) fn cluster(nodes: usize) -> Self {
        Self::configured_cluster(nodes, |_| String::new())
    }

    /// The same, with every node's configuration file; it is given the manager's address.
    pub(crate) fn configured_cluster(nodes: usize, config: impl Fn(&str) -> String) -> Self {
        let mut network = Self::new(nodes);
        let path = network.dir.path().join("config.toml");
        fs::write(&path, config(&network.hosts[0].address)).unwrap();
        network.found_with(1, &["--config", path.to_str().unwrap()]);
        network
    }

    /// A cluster whose first nodes are managers, and the rest workers.
    pub(crate) fn managers(managers: usize, workers: usize) -> Self {
        let mut network = Self::new(managers + workers);
        network.found(managers);
        network
    }

    /// Starts the daemons and makes a cluster of them, whose first nodes are managers.
    pub(crate) fn found(&mut self, managers: usize) {
        self.found_with(managers, &[]);
    }

    /// The same, with what each daemon is told besides.
    pub(crate) fn found_with(&mut self, managers: usize, extra: &[&str]) {
        for host in &mut self.hosts {
            host.start_daemon_with(extra);
        }
        let address = &self.hosts[0].address;
        self.form(managers, &["--advertise-addr", address], &format!("{address}:2377"));
    }

    /// Makes a cluster of daemons that run, whose first nodes are managers: the first with these
    /// options, the others by joining at `remote`.
    pub(crate) fn form(&self, managers: usize, init: &[&str], remote: &str) {
        let first = &self.hosts[0];
        first.ok(&[&["swarm", "init"], init].concat());
        let token = |role| first.ok(&["swarm", "join-token", "-q", role]).trim().to_owned();
        let tokens = [token("manager"), token("worker")];
        for (index, host) in self.hosts.iter().enumerate().skip(1) {
            let token = &tokens[usize::from(index >= managers)];
            host.ok(&["swarm", "join", "--token", token, remote]);
        }
        self.await_nodes(managers, self.hosts.len() - managers);
    }

    /// Waits until the first node that answers shows so many managers that vote, and so many ready
    /// nodes.
    pub(crate) fn await_nodes(&self, managers: usize, workers: usize) {
        eventually(&format!("{managers} managers and {workers} workers"), || {
            let format = "{{.Status}} {{.ManagerStatus}}";
            let shown = self.hosts[0].midge(&["node", "ls", "--format", format]);
            let shown = String::from_utf8(shown.stdout).unwrap();
            let ready = shown.lines().filter(|line| line.starts_with("Ready")).count();
            let standing = |line: &&str| line.ends_with("Leader") || line.ends_with("Reachable");
            let standing = shown.lines().filter(standing).count();
            (ready == managers + workers && standing == managers).then_some(())
        });
    }

    /// Runs a shell command on the switch.
    pub(crate) fn on_switch(&self, command: &str) {
        let tag = &self.tag;
        sh(&format!("nsenter --net=/run/netns/{tag}s -- sh -ec '{command}'"));
    }

    /// The folder that everything of this network is in.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Brings the test image to every node as `bb:1` and `bb:2`.
    pub(crate) fn load_busybox(&self) {
        let archive = busybox_archive(self.dir.path(), &["bb:1", "bb:2"]);
        let archive = archive.to_str().unwrap();
        // A node that has just become a manager begins its connections anew.
        eventually_so("the image to be loaded", || {
            let load = ["image", "load", "-q", "--nodes", "all", "-i", archive];
            let output = self.hosts[0].midge(&load);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or(error)
        });
    }

    /// The first manager.
    pub(crate) fn manager(&self) -> &Host {
        &self.hosts[0]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.hosts {
                eprintln!("--- the last lines of node {}'s log", host.number);
                let log = fs::read_to_string(host.dir.join("midge.log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(40).collect();
                for line in lines.into_iter().rev() {
                    eprintln!("{line}");
                }
                if let Some(kept) = std::env::var_os("MIDGE_TEST_LOGS") {
                    let path = Path::new(&kept).join(format!("{}n{}.log", self.tag, host.number));
                    fs::write(path, log).ok();
                }
            }
        }
        for host in &mut self.hosts {
            host.clean_up();
        }
        for name in self.hosts.iter().map(|h| h.namespace.clone()).chain([format!("{}s", self.tag)])
        {
            Command::new("ip").args(["netns", "del", &name]).output().ok();
        }
    }
}

/// One host.
pub(crate) struct Host {
    number: usize,
    /// The name of its network namespace.
    pub(crate) namespace: String,
    switch: String,
    pub(crate) address: String,
    pub(crate) dir: PathBuf,
    containerd: Option<Process>,
    pub(crate) daemon: Option<Process>,
    /// What else runs on this host.
    beside: Vec<Process>,
    /// The program that its daemon is.
    pub(crate) binary: PathBuf,
    /// The platform that its containerd says it is, where that is not this machine's.
    pub(crate) platform: Option<String>,
    /// What its daemon has in its environment.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// The control groups that its daemon alone is put into, as by a service manager.
    pub(crate) groups: Vec<PathBuf>,
    /// The hosts file that its daemon sees, where it is not the machine's.
    names: Option<PathBuf>,
}

impl Host {
    /// Returns a command that runs a program on this host.
    pub(crate) fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("--").arg(program);
        command
    }

    /// Runs a shell command on this host and returns what it printed.
    pub(crate) fn sh(&self, command: &str) -> String {
        let output = self.inside(Path::new("sh")).args(["-ec", command]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn start_containerd(&mut self) {
        let dir = self.dir.display();
        let mut config = String::new();
        writeln!(config, "version = 2\nroot = \"{dir}/ctd\"\nstate = \"{dir}/ctd-run\"").unwrap();
        writeln!(config, "[grpc]\naddress = \"{dir}/containerd.sock\"").unwrap();
        if let Some(platform) = &self.platform {
            let plugin = r#"[plugins."io.containerd.runtime.v2.task"]"#;
            writeln!(config, "{plugin}\nplatforms = [\"{platform}\"]").unwrap();
        }
        let path = self.dir.join("containerd.toml");
        fs::write(&path, config).unwrap();
        let mut command = self.inside(Path::new("containerd"));
        command.arg("-c").arg(path);
        self.containerd = Some(Process::start(command, &self.dir.join("containerd.log")));
        let socket = self.dir.join("containerd.sock");
        eventually("containerd", || std::os::unix::net::UnixStream::connect(&socket).ok());
    }

    /// Has containerd stand still: it takes connections and answers nothing.
    pub(crate) fn stall_containerd(&mut self) {
        self.containerd.as_mut().unwrap().signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn kill_containerd(&mut self) {
        self.containerd.take().unwrap().kill();
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start_daemon(&mut self) {
        self.start_daemon_with(&[]);
    }

    pub(crate) fn start_daemon_with(&mut self, extra: &[&str]) {
        let command = self.daemon_command(extra);
        self.daemon = Some(Process::start(command, &self.dir.join("midge.log")));
        eventually("the daemon to answer", || {
            self.midge(&["version"]).status.success().then_some(())
        });
    }

    /// Returns the command that is this host's daemon.
    pub(crate) fn daemon_command(&self, extra: &[&str]) -> Command {
        let dir = self.dir.display();
        let groups = self.groups.iter().map(|group| format!("{}/cgroup.procs", group.display()));
        // A host name of its own, as on machines of their own.
        let script = "for group in $GROUPS_OF_DAEMON; do echo $$ >$group; done; \
                      hostname \"$0\" && exec \"$@\"";
        let mut command = self.inside(Path::new("unshare"));
        command.arg("--uts");
        let mut script = script.to_owned();
        if let Some(names) = &self.names {
            command.args(["--mount", "--propagation", "unchanged"]);
            // The folder of the host stays shared with containerd; the rest is this daemon's alone.
            script = format!(
                "mount --make-private /; mount --make-private /etc/hosts 2>/dev/null || true; \
                 mount --bind {} /etc/hosts; {script}",
                names.display()
            );
        }
        command.args(["sh", "-ec", &script]);
        command.env("GROUPS_OF_DAEMON", groups.collect::<Vec<_>>().join(" "));
        command.arg(format!("n{}", self.number)).arg(&self.binary).arg("daemon");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(format!("--data-dir={dir}/data")).arg(format!("--run-dir={dir}/run"));
        command.arg(format!("--socket={dir}/midge.sock"));
        command.arg(format!("--containerd={dir}/containerd.sock")).args(extra);
        command
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().0.id()
    }

    pub(crate) fn kill_daemon(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    /// Ends everything on this host at once, as when its power goes; what is on disk stays.
    pub(crate) fn power_off(&mut self) {
        let dir = self.dir.display().to_string();
        for mut process in self.daemon.take().into_iter().chain(self.containerd.take()) {
            process.kill();
        }
        sh(&format!(
            "for shim in $(pgrep -f '[c]ontainerd-shim.*{dir}/containerd.sock'); do \
             pkill -KILL -P $shim || true; kill -KILL $shim || true; done"
        ));
    }

    /// Returns the running containers of this host, as containerd knows them.
    pub(crate) fn running_in_containerd(&self) -> BTreeSet<String> {
        let socket = self.dir.join("containerd.sock");
        let ctr = |args: &[&str]| {
            let mut ctr = Command::new("timeout");
            ctr.args(["10", "ctr", "-a"]).arg(&socket).args(args);
            String::from_utf8(ctr.output().unwrap().stdout).unwrap()
        };
        let namespaces = ctr(&["namespaces", "ls", "-q"]);
        let mut running = BTreeSet::new();
        for namespace in namespaces.lines() {
            let tasks = ctr(&["-n", namespace, "tasks", "ls"]);
            let tasks = tasks.lines().filter(|line| line.trim_end().ends_with("RUNNING"));
            running
                .extend(tasks.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())));
        }
        running
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.daemon.take().unwrap().terminate();
    }

    /// Runs a program on this host until the test ends.
    pub(crate) fn run_beside(&mut self, program: &str, args: &[&str]) {
        let mut command = self.inside(Path::new(program));
        command.args(args);
        let log = self.dir.join(format!("{program}.log"));
        self.beside.push(Process::start(command, &log));
    }

    /// Has the daemon, from its next start on, look up names in a hosts file of its own, and returns
    /// that.
    pub(crate) fn own_names(&mut self) -> PathBuf {
        let (dir, names) = (self.dir.display(), self.dir.join("hosts"));
        fs::write(&names, "").unwrap();
        sh(&format!("mount --bind {dir} {dir} && mount --make-shared {dir}"));
        self.names = Some(names.clone());
        names
    }

    /// Gives the host another address in place of the one it has, `ADDRESS/PREFIX`.
    pub(crate) fn readdress(&mut self, to: &str) {
        self.sh(&format!("ip addr flush dev eth0 && ip addr add {to} dev eth0"));
        to.split('/').next().unwrap().clone_into(&mut self.address);
    }

    /// Takes the host off the switch, or puts it back.
    pub(crate) fn link(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        sh(&format!("ip -n {} link set p{} {state}", self.switch, self.number));
    }

    /// Runs a midge command against this host's daemon.
    pub(crate) fn midge(&self, args: &[&str]) -> Output {
        self.midge_with(&[], args)
    }

    /// Returns a midge command against this host's daemon, which reads nothing.
    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(midge_binary());
        command.args(args).stdin(Stdio::null());
        command.env("MIDGE_HOST", format!("unix://{}/midge.sock", self.dir.display()));
        command
    }

    fn midge_with(&self, env: &[(&str, &str)], args: &[&str]) -> Output {
        self.command(args).envs(env.iter().copied()).output().unwrap()
    }

    /// Runs a midge command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.ok_with(&[], args)
    }

    /// The same, with these in its environment.
    pub(crate) fn ok_with(&self, env: &[(&str, &str)], args: &[&str]) -> String {
        let output = self.midge_with(env, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "midge {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a midge command that must fail, and returns what it said.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.midge(args);
        assert!(!output.status.success(), "midge {args:?} should fail");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Inspects something as JSON.
    pub(crate) fn inspect(&self, noun: &str, name: &str) -> Value {
        let text = self.ok(&[noun, "inspect", "--format", "json", name]);
        let found: Value = serde_json::from_str(&text).unwrap();
        found[0].clone()
    }

    /// Returns `node name` of each running task of a service, sorted.
    pub(crate) fn running(&self, service: &str) -> Vec<String> {
        let filter = ["service", "ps", service, "--filter", "desired-state=running"];
        let format = ["--format", "{{.CurrentState}} {{.Node}} {{.Name}}"];
        let text = self.ok(&[&filter[..], &format[..]].concat());
        let mut tasks: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("Running "))
            .filter_map(|line| line.split_once("ago ").map(|(_, task)| task.to_owned()))
            .collect();
        tasks.sort();
        tasks
    }

    /// Waits until so many tasks of a service run.
    pub(crate) fn wait_running(&self, service: &str, count: usize) -> Vec<String> {
        eventually_so(&format!("{count} tasks of {service} to run"), || {
            let running = self.running(service);
            if running.len() == count {
                return Ok(running);
            }
            Err(self.ok(&["service", "ps", "--no-trunc", service]))
        })
    }

    /// Returns the number of the host that leads, as this one sees it; they count from 1.
    pub(crate) fn leader(&self) -> Option<usize> {
        let output = self.midge(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.ends_with(" Leader"))?;
        line.split(' ').next()?.trim_start_matches('n').parse().ok()
    }

    /// Asks this host's daemon for `path`, and returns what it answered.
    pub(crate) fn api(&self, path: &str) -> String {
        let socket = self.dir.join("midge.sock");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "30", "--unix-socket"])
            .arg(socket)
            .arg(format!("http://midge{path}"));
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    }

    /// Returns the processes of this host's containers of a service: `task id`, `pid`.
    pub(crate) fn containers(&self) -> Vec<(String, u32)> {
        let ids = self.ok(&["ps", "-q", "--no-trunc"]);
        let mut found: Vec<(String, u32)> = ids
            .lines()
            .filter_map(|id| {
                let socket = self.dir.join("midge.sock");
                let output = Command::new("curl")
                    .arg("-sS")
                    .arg("--unix-socket")
                    .arg(socket)
                    .arg(format!("http://midge/containers/{id}/json"))
                    .output()
                    .unwrap();
                let value: Value = serde_json::from_slice(&output.stdout).unwrap();
                let Some(pid) = value["State"]["Pid"].as_u64() else {
                    // It was removed since it was listed; anything else is no answer.
                    let message = value["message"].as_str().unwrap_or_default();
                    assert!(message.contains("No such container"), "{value}");
                    return None;
                };
                // Without a process while it is being started.
                (pid > 0).then(|| (id.to_owned(), u32::try_from(pid).unwrap()))
            })
            .collect();
        found.sort();
        found
    }

    /// Ends whatever runs on this host, by force: what is asked to leave waits for containers that
    /// take their time, and a test that failed has nobody to ask.
    fn clean_up(&mut self) {
        self.daemon.take();
        self.containerd.take();
        self.beside.clear();
        let installation = fs::read_to_string(self.dir.join("data/installation"));
        // Where the daemon never ran, or its disk was full, a name that nothing has: an empty one would
        // stand for every installation of this machine.
        let installation = installation.ok().filter(|name| !name.trim().is_empty());
        let installation = installation.as_deref().map_or("none", str::trim);
        let mut script = Command::new("sh");
        script.args(["-c", CLEAN_UP]).arg(&self.dir).arg(installation);
        script.output().ok();
        if self.names.is_some() {
            Command::new("umount").arg("-l").arg(&self.dir).output().ok();
        }
    }
}

/// Ends the containers of the installation `$1`, the shims of the containerd in the folder `$0`, which
/// outlive it on purpose, and takes off what is mounted below that folder.
const CLEAN_UP: &str = r#"
groups() { find /sys/fs/cgroup -depth -type d -path "*/midge/$1*"; }
for group in $(groups "$1"); do kill -KILL $(cat "$group/cgroup.procs"); done
for shim in $(pgrep -f "[c]ontainerd-shim.*$0/containerd.sock"); do
  pkill -KILL -P "$shim"
  kill -KILL "$shim"
done
awk -v dir="$0/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r |
  while read -r mount; do umount -l "$mount"; done
# Processes that were killed leave their groups a moment later.
for _ in $(seq 100); do
  left=$(groups "$1")
  [ -n "$left" ] || break
  rmdir $left || sleep 0.05
done
"#;

/// Makes a docker-archive of busybox under these names; all its applets are in /bin.
pub(crate) fn busybox_archive(dir: &Path, names: &[&str]) -> PathBuf {
    let config = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
    busybox_archive_with(dir, names, &config)
}

/// The same, with what the image says of its containers.
pub(crate) fn busybox_archive_with(dir: &Path, names: &[&str], config: &Value) -> PathBuf {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    busybox_archive_of(dir, names, config, (&which("busybox").unwrap(), architecture))
}

/// The same, with a busybox that was built for some architecture.
pub(crate) fn busybox_archive_of(
    dir: &Path,
    names: &[&str],
    config: &Value,
    (program, architecture): (&Path, &str),
) -> PathBuf {
    let root = dir.join("bb-root");
    let script = format!(
        "mkdir -p {root}/bin {root}/etc {root}/tmp; cp {program} {root}/bin/busybox; \
         for a in $({busybox} --list | grep -vx busybox); do ln -sf busybox {root}/bin/$a; done; \
         printf 'root:x:0:0:root:/:/bin/sh\\nuser:x:1000:1000:u:/:/bin/sh\\n' >{root}/etc/passwd; \
         printf 'root:x:0:\\nuser:x:1000:\\n' >{root}/etc/group; \
         tar -C {root} --owner=0 --group=0 --mtime=@0 --sort=name -cf {dir}/layer.tar .",
        root = root.display(),
        dir = dir.display(),
        program = program.display(),
        busybox = which("busybox").unwrap().display(),
    );
    sh(&script);
    let sum = Command::new("sha256sum").arg(dir.join("layer.tar")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let digest = sum.split_whitespace().next().unwrap();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}
    ]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let dir = dir.display();
    sh(&format!("tar -C {dir} -cf {dir}/bb.tar manifest.json config.json layer.tar"));
    PathBuf::from(format!("{dir}/bb.tar"))
}
