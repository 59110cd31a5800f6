//! The package and `install.sh` on a Debian of their own, with a systemd that runs it.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    host::{LIMIT, Process, busybox_archive, can_run, eventually, midge_binary, note, which},
    install::{repository, run},
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};
use tempfile::TempDir;

/// A Debian with containerd and systemd and without midge, as `tests/tools.sh` makes it.
fn base() -> PathBuf {
    repository().join("target/debian")
}

/// A machine with that system, until dropped.
struct Machine {
    dir: TempDir,
    /// What the machine runs in, from outside.
    container: Process,
    /// Its init's process.
    init: u32,
}

impl Machine {
    /// Boots; none, with a word, where this machine lacks something for it.
    fn boot() -> Option<Self> {
        let lacks = [which("systemd-nspawn"), Some(base())]
            .into_iter()
            .any(|path| path.is_none_or(|path| !path.exists()));
        if !can_run() || lacks {
            note("skipped: needs systemd-nspawn and the Debian of `tests/tools.sh root`");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("midge-it-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // What is mounted on an overlay cannot be another's upper layer.
        for folder in ["upper", "work", "root", "images"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            base().display(),
            at("upper"),
            at("work")
        );
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers, &at("root")]));
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--register=no", "--keep-unit", "--boot", "--private-network", "--quiet"])
            // What containers are made with; a machine of its own allows it.
            .args(["--capability=all", "--system-call-filter=@keyring", "--directory"])
            .arg(at("root"))
            .arg(format!("--bind={}:/var/lib/containerd", at("images")));
        let container = Process::start(command, &dir.path().join("boot.log"));
        let mut machine = Self { dir, container, init: 0 };
        let init = eventually("the machine's init", || {
            if machine.container.0.try_wait().unwrap().is_some() {
                return Some(None);
            }
            let parent = machine.container.0.id().to_string();
            let found = Command::new("pgrep").args(["-P", &parent]).output().unwrap();
            String::from_utf8(found.stdout).unwrap().trim().parse().ok().map(Some)
        });
        let Some(init) = init else {
            let said = fs::read_to_string(machine.dir.path().join("boot.log")).unwrap();
            note(&format!("skipped: no machine can be booted here: {said}"));
            return None;
        };
        machine.init = init;
        eventually("the machine to be up", || {
            let state = machine.inside("systemctl is-system-running");
            let state = String::from_utf8(state.stdout).unwrap();
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
        machine.ok("for m in $(awk '$3 ~ /cgroup/ {print $2}' /proc/mounts); do \
             mount -o remount,rw,bind $m; done; ip link set lo up");
        Some(machine)
    }

    fn inside(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-p", "-n", "-i", "-u", "-C", "-t"]).arg(self.init.to_string());
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.args(["--", "env", "-i", path, "HOME=/root", "bash", "-ec", script]);
        command.output().unwrap()
    }

    /// Runs a script, which must succeed, on the machine; returns what it printed.
    fn ok(&self, script: &str) -> String {
        let output = self.inside(script);
        let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8_lossy(out).into_owned();
        assert!(output.status.success(), "{script}: {out}{err}");
        out
    }

    /// Puts a file of ours into the machine's `/root`.
    fn give(&self, file: &std::path::Path) -> String {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::copy(file, self.dir.path().join("root/root").join(name)).unwrap();
        format!("/root/{name}")
    }

    fn daemon(&self) -> String {
        self.ok("systemctl show -p MainPID --value midge").trim().to_owned()
    }

    /// Returns each running container's id and process, as containerd knows them.
    fn containers(&self) -> Vec<String> {
        let list =
            "for n in $(ctr namespaces ls -q); do ctr -n $n tasks ls | grep RUNNING || true; done";
        let mut found: Vec<String> = self.ok(list).lines().map(str::to_owned).collect();
        found.sort();
        found
    }

    /// Makes a cluster of this node with two containers, and returns these.
    fn form_cluster(&self) -> Vec<String> {
        let archive = self.give(&busybox_archive(self.dir.path(), &["bb:1"]));
        self.ok("midge swarm init --advertise-addr 127.0.0.1");
        self.ok(&format!("midge image load -q -i {archive}"));
        self.ok("midge service create -q --name web --replicas 2 --publish mode=host,target=80 \
             --mount type=volume,source=data,target=/data bb:1 sleep 100000");
        let containers = self.containers();
        assert_eq!(containers.len(), 2, "{containers:?}");
        containers
    }

    /// Waits until the daemon is another process, and answers.
    fn await_daemon_after(&self, before: &str) {
        eventually("another daemon", || {
            let is_another = ![before, "0"].contains(&self.daemon().as_str());
            (is_another && self.inside("midge node ls").status.success()).then_some(())
        });
    }

    /// Looks for anything of midge.
    fn assert_gone(&self) {
        assert_eq!(self.containers(), [""; 0]);
        assert_eq!(self.ok("ctr namespaces ls -q"), "");
        let folders = "ls -d /var/lib/midge /run/midge /etc/midge 2>/dev/null || true";
        assert_eq!(self.ok(folders), "");
        let links = self.ok("ip -o link");
        assert_eq!(links.lines().count(), 1, "{links}");
        assert_eq!(self.ok("nft list tables"), "");
        assert!(!self.ok("cat /proc/mounts").contains("/run/midge"));
        assert_eq!(self.ok("command -v midge || true"), "");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.inside("journalctl -u midge -u containerd --no-pager | tail -60");
            note(&String::from_utf8_lossy(&log.stdout));
        }
        // It has the machine power off; what takes too long is killed.
        let kill = |signal: &str, pid: u32| {
            Command::new("kill").arg(signal).arg(pid.to_string()).output().ok();
        };
        let mut asked = false;
        let begun = Instant::now();
        while matches!(self.container.0.try_wait(), Ok(None)) {
            if !asked {
                kill("-TERM", self.container.0.id());
            } else if begun.elapsed() > LIMIT / 3 {
                if self.init != 0 {
                    kill("-KILL", self.init);
                }
                self.container.0.kill().ok();
            }
            asked = true;
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Command::new("umount").arg("-l").arg(self.dir.path().join("root")).output().ok();
    }
}

/// Builds the package of the program under test.
fn package(machine: &Machine) -> PathBuf {
    let dist = machine.dir.path().join("dist");
    run(Command::new(repository().join("cross/package.sh"))
        .arg("x86_64")
        .env("MIDGE_BINARY", midge_binary())
        .env("DIST", &dist));
    dist
}

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let Some(machine) = Machine::boot() else { return };
    let dist = package(&machine);
    let version = env!("CARGO_PKG_VERSION");
    let deb = machine.give(&dist.join(format!("midge_{version}_amd64.deb")));
    let said = machine.ok(&format!("dpkg --install {deb} 2>&1"));
    assert!(!said.contains("Failed"), "{said}");
    assert_eq!(
        machine.ok("systemctl is-active midge; systemctl is-enabled midge"),
        "active\nenabled\n"
    );
    let before = machine.form_cluster();

    // However the daemon ends, systemd brings it back, and containers never notice.
    for end in ["systemctl restart midge", "kill -KILL $(systemctl show -p MainPID --value midge)"]
    {
        let daemon = machine.daemon();
        machine.ok(end);
        machine.await_daemon_after(&daemon);
        assert_eq!(machine.containers(), before, "{end}");
    }
    machine.ok("systemctl restart containerd");
    eventually("containerd to be found again", || {
        let ps = machine.inside("midge ps -q");
        (String::from_utf8(ps.stdout).unwrap().lines().count() == 2).then_some(())
    });
    assert_eq!(machine.containers(), before);

    let daemon = machine.daemon();
    machine.ok(&format!("dpkg --install {deb}"));
    machine.await_daemon_after(&daemon);
    assert_eq!(machine.containers(), before);

    // Removed, the node's containers run on, and it is the same node when it comes back.
    let node = machine.ok("midge node ls -q");
    machine.ok("dpkg --remove midge");
    assert_eq!(machine.containers(), before);
    machine.ok(&format!("dpkg --install {deb}"));
    machine.await_daemon_after("0");
    assert_eq!(machine.ok("midge node ls -q"), node);
    assert_eq!(machine.containers(), before);

    // Without containerd the containers would be left, and nothing would tell whose they are.
    machine.ok("systemctl stop containerd");
    let purge = machine.inside("dpkg --purge midge");
    let error = String::from_utf8_lossy(&purge.stderr);
    assert!(!purge.status.success() && error.contains("start containerd"), "{error}");
    machine.ok("systemctl start containerd && test -e /var/lib/midge/installation");
    machine.ok("dpkg --purge midge");
    machine.assert_gone();
}

#[test]
fn the_script_installs_and_takes_away_what_it_installed() {
    let Some(machine) = Machine::boot() else { return };
    let dist = package(&machine);
    let version = env!("CARGO_PKG_VERSION");
    let archive = machine.give(&dist.join(format!("midge-{version}-linux-x86_64.tar.gz")));
    let script = machine.give(&dist.join("install.sh"));
    machine.give(&dist.join("SHA256SUMS"));
    machine.ok(&format!("sh {script} --archive {archive}"));
    assert_eq!(
        machine.ok("systemctl is-active midge; systemctl is-enabled midge"),
        "active\nenabled\n"
    );
    let deb = machine.give(&dist.join(format!("midge_{version}_amd64.deb")));
    let refused = machine.inside(&format!("dpkg --install {deb}"));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("install.sh --uninstall"), "{error}");
    let before = machine.form_cluster();
    let daemon = machine.daemon();
    machine.ok(&format!("sh {script} --archive {archive}"));
    machine.await_daemon_after(&daemon);
    assert_eq!(machine.containers(), before);
    machine.ok("sh /usr/local/share/midge/install.sh --uninstall");
    assert_eq!(machine.containers(), before, "containers run on, and the state is there");
    machine.ok(&format!("sh {script} --archive {archive}"));
    machine.await_daemon_after("0");
    assert_eq!(machine.containers(), before);
    machine.ok("sh /usr/local/share/midge/install.sh --uninstall --purge");
    machine.assert_gone();
}
