//! midge on a machine with a kernel of its own, as it comes from Debian: control groups of version 2,
//! AppArmor, systemd, and a power switch.
//!
//! The processor is emulated, which makes all of it slow: `make vm` runs this, `make test` does not.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::{
    host::{Process, busybox_archive_of, eventually, note},
    install::{repository, run},
};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long the machine may take to boot, or for a command.
const LIMIT: Duration = Duration::from_secs(300);

/// What a machine may be.
struct Kind {
    /// As `make vm` and `cross/build.sh` call it.
    name: &'static str,
    /// As Debian and images call it.
    debian: &'static str,
    image: &'static str,
    triple: &'static str,
    emulator: &'static str,
    machine: &'static [&'static str],
    console: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "x86_64",
        debian: "amd64",
        image: "amd64",
        triple: "x86_64-unknown-linux-gnu",
        emulator: "qemu-system-x86_64",
        // Emulators have got these features wrong, and code that one processor changes under another.
        machine: &["-machine", "q35,accel=tcg", "-cpu", "max,-cx16,-la57,-smap,-smep", "-smp", "1"],
        console: "ttyS0",
    },
    Kind {
        name: "aarch64",
        debian: "arm64",
        image: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        emulator: "qemu-system-aarch64",
        machine: &["-machine", "virt,accel=tcg", "-cpu", "cortex-a72", "-smp", "2"],
        console: "ttyAMA0",
    },
    Kind {
        name: "armv7",
        debian: "armhf",
        image: "arm",
        triple: "armv7-unknown-linux-gnueabihf",
        emulator: "qemu-system-arm",
        machine: &["-machine", "virt,highmem=off,accel=tcg", "-cpu", "cortex-a15", "-smp", "2"],
        console: "ttyAMA0",
    },
];

impl Kind {
    /// What `tests/tools.sh vm` makes: a disk, its kernel, its initial file system and its busybox.
    fn base(&self, file: &str) -> PathBuf {
        repository().join("target/vm").join(self.name).join(file)
    }

    fn boot(&self, dir: &Path) -> (Process, UnixStream) {
        let at = |name: &str| dir.join(name).display().to_string();
        let from = |name: &str| self.base(name).display().to_string();
        let drive = |file: String| format!("file={file},if=virtio,format=raw");
        let append = format!("root=/dev/vda rw console={} systemd.show_status=0", self.console);
        let shell = format!("socket,id=shell,path={},server=on,wait=off", at("shell.sock"));
        let socket = dir.join("shell.sock");
        fs::remove_file(&socket).ok();
        let mut command = Command::new(self.emulator);
        command
            .args(self.machine)
            .args(["-m", "1024", "-display", "none", "-monitor", "none"])
            .args(["-kernel", &from("kernel"), "-initrd", &from("initrd"), "-append", &append])
            .args(["-drive", &drive(at("disk.img")), "-drive", &drive(at("files.tar"))])
            .args(["-serial", &format!("file:{}", at("console.log"))])
            .args(["-device", "virtio-serial-pci", "-chardev", &shell])
            .args(["-device", "virtconsole,chardev=shell"])
            .args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]);
        let mut machine = Process::start(command, &dir.join("qemu.log"));
        let serial = eventually("the emulator", || {
            let said = || fs::read_to_string(dir.join("qemu.log")).unwrap();
            assert!(machine.0.try_wait().unwrap().is_none(), "{}", said());
            UnixStream::connect(&socket).ok()
        });
        (machine, serial)
    }
}

/// A machine, until dropped.
struct Vm {
    kind: &'static Kind,
    dir: TempDir,
    machine: Process,
    /// A shell of root's.
    serial: UnixStream,
    /// Numbers the commands.
    next: u32,
}

impl Vm {
    /// Makes a machine with these files in its `/root`, and boots it.
    fn with(kind: &'static Kind, files: &[&Path]) -> Self {
        let dir = tempfile::Builder::new().prefix("midge-it-").tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        run(Command::new("cp").arg("--sparse=always").arg(kind.base("disk.img")).arg(disk));
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(dir.path().join("files.tar"));
        for file in files {
            tar.arg("-C").arg(file.parent().unwrap()).arg(file.file_name().unwrap());
        }
        run(&mut tar);
        let (machine, serial) = kind.boot(dir.path());
        let mut vm = Self { kind, dir, machine, serial, next: 0 };
        vm.await_shell();
        vm.ok("tar -xf /dev/vdb");
        vm
    }

    /// Cuts the power, and switches it on again.
    fn cut_power(&mut self) {
        self.machine.kill();
        (self.machine, self.serial) = self.kind.boot(self.dir.path());
        self.await_shell();
    }

    fn await_shell(&mut self) {
        let begun = Instant::now();
        self.serial.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let (mut heard, mut tries) = (String::new(), 0);
        while !heard.contains("the shell is there") {
            let log = || fs::read_to_string(self.dir.path().join("console.log")).unwrap();
            assert!(begun.elapsed() < LIMIT, "the machine does not boot: {}", log());
            // Split, so that the terminal's echo is no answer. What comes too early is lost, or read
            // later: no more of it than need be.
            if tries % 10 == 0 {
                let ask = b"stty -echo cols 500; echo the shell\" is there\"\n";
                self.serial.write_all(ask).unwrap();
            }
            tries += 1;
            heard.push_str(&self.hear());
        }
        self.ok("systemctl is-system-running --wait || true");
    }

    fn hear(&mut self) -> String {
        let mut bytes = [0; 4096];
        // Nothing within a second is no error.
        let length = self.serial.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).replace('\r', "")
    }

    /// Runs a script; returns its exit code and what it printed.
    fn run(&mut self, script: &str) -> (i32, String) {
        self.next += 1;
        let (begin, end) = (format!("<<{}", self.next), format!(">>{}:", self.next));
        let line = format!(
            "echo '<''<{n}'; (set -e; {script}) </dev/null 2>&1; echo; echo '>''>{n}:'$?:\n",
            n = self.next
        );
        self.serial.write_all(line.as_bytes()).unwrap();
        let (begun, mut heard) = (Instant::now(), String::new());
        loop {
            heard.push_str(&self.hear());
            let rest = heard.split_once(&begin).map_or("", |(_, rest)| rest);
            if let Some((said, code)) = rest.split_once(&end)
                && let Some((code, _)) = code.split_once(':')
            {
                return (code.parse().unwrap(), said.trim().to_owned());
            }
            assert!(begun.elapsed() < LIMIT, "{script} takes too long: {heard}");
        }
    }

    /// Runs a script, which must succeed; returns what it printed.
    fn ok(&mut self, script: &str) -> String {
        let (code, said) = self.run(script);
        assert_eq!(code, 0, "{script}: {said}");
        said
    }

    /// Runs a condition until it is true.
    fn wait(&mut self, condition: &str) {
        let limit = LIMIT.as_secs();
        let (code, said) = self.run(&format!(
            "for i in $(seq {limit}); do if {condition}; then exit 0; fi; sleep 1; done; exit 1"
        ));
        if code != 0 {
            let state = self.run(
                "midge service ls; midge service ps $(midge service ls -q); \
                                  journalctl -u midge -u containerd --no-pager -n 40",
            );
            panic!("gave up waiting for {condition}: {said}\n{}", state.1);
        }
    }

    /// Waits until so many containers run, and returns them.
    fn containers(&mut self, count: usize) -> String {
        self.wait(&format!("[ \"$(midge ps -q 2>/dev/null | wc -l)\" = {count} ]"));
        self.ok("midge ps -q --no-trunc | sort")
    }
}

#[test]
fn a_machine_of_its_own() {
    let Some(asked) = std::env::var_os("MIDGE_VM") else {
        return note("skipped: `make vm` runs it");
    };
    let kind = KINDS.iter().find(|kind| asked == kind.name);
    let kind = kind.expect("MIDGE_VM is x86_64, aarch64 or armv7");
    let work = tempfile::tempdir().unwrap();
    let dist = work.path().join("dist");
    run(Command::new(repository().join("cross/package.sh"))
        .arg(kind.name)
        .env("MIDGE_BINARY", repository().join("target").join(kind.triple).join("release/midge"))
        .env("DIST", &dist));
    let deb = format!("midge_{}_{}.deb", env!("CARGO_PKG_VERSION"), kind.debian);
    let config = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
    let busybox = kind.base("busybox");
    let image = busybox_archive_of(work.path(), &["bb:1"], &config, (&busybox, kind.image));
    let mut vm = Vm::with(kind, &[&dist.join(deb), &image]);

    vm.ok("dpkg --install midge_*.deb");
    vm.ok("midge swarm init --advertise-addr 127.0.0.1 && midge image load -q -i bb.tar");
    let doctor = vm.ok("midge doctor --format '{{.Level}} {{.Name}}: {{.What}}'");
    for line in [
        "ok cgroups: Version 2, with cpu, memory, pids.",
        "ok apparmor: AppArmor confines containers by midge-default.",
    ] {
        assert!(doctor.contains(line), "{line}: {doctor}");
    }
    assert!(!doctor.contains("problem "), "{doctor}");

    limits(&mut vm);
    confinement(&mut vm);
    let before = faults(&mut vm);

    let node = vm.ok("midge node ls -q");
    vm.cut_power();
    vm.wait("midge node ls >/dev/null 2>&1");
    assert_eq!(vm.ok("midge node ls -q"), node);
    vm.wait("[ \"$(midge service ls --format '{{.Replicas}}' --filter name=web)\" = 2/2 ]");
    let after = vm.containers(2);
    assert!(after.lines().all(|id| !before.contains(id)), "{after}: {before}");

    vm.ok("dpkg --purge midge");
    let left = vm.ok("ls -d /var/lib/midge /run/midge /etc/midge /etc/apparmor.d/midge* \
                      /sys/fs/cgroup/midge 2>/dev/null; ip -o link | grep mdg; \
                      grep midge /proc/mounts /sys/kernel/security/apparmor/profiles; \
                      ctr namespaces ls -q; pgrep -a midge; true");
    assert_eq!(left, "");
}

/// What a service may use is what the kernel lets it use.
fn limits(vm: &mut Vm) {
    vm.ok("midge service create -q --name web --replicas 2 --stop-signal KILL \
           --limit-memory 32m --limit-cpu 0.5 --limit-pids 20 bb:1 sleep 100000");
    let containers = vm.containers(2);
    for id in containers.lines() {
        let group = format!("/sys/fs/cgroup/midge/*/{id}");
        let limits = vm.ok(&format!("cd {group}; cat memory.max memory.swap.max cpu.max pids.max"));
        let swap = 32 << 20;
        assert_eq!(limits, format!("{}\n{swap}\n50000 100000\n20", 32 << 20));
    }
    let stats = vm.ok("midge stats --no-stream --format '{{.MemUsage}}'");
    assert!(stats.lines().all(|line| line.ends_with("/ 32MiB")), "{stats}");
    vm.ok("midge service create -q --detach --name greedy --restart-condition none \
           --limit-memory 16m bb:1 dd if=/dev/zero of=/dev/null bs=64M count=1");
    vm.wait("midge service ps greedy --no-trunc | grep -q 'exit (137): out of memory'");
    vm.ok("midge service rm greedy");
}

/// What a service may do is what AppArmor lets it do.
fn confinement(vm: &mut Vm) {
    let of = |vm: &mut Vm, options: &str, script: &str| {
        vm.ok(&format!(
            "midge service create -q --name it --stop-signal KILL {options} bb:1 sleep 100000"
        ));
        vm.wait("[ -n \"$(midge ps -q --filter name=it.)\" ]");
        let said = vm.ok(&format!(
            "midge exec $(midge ps -q --filter name=it.) sh -c '{script}' || true; \
             cat /proc/$(midge top $(midge ps -q --filter name=it.) -o pid | tail -n 1)/attr/current"
        ));
        vm.ok("midge service rm it");
        vm.wait("[ -z \"$(midge ps -aq --filter name=it.)\" ]");
        said
    };
    let script =
        "cat /proc/self/attr/current; mount -t tmpfs x /tmp 2>&1; echo 1 >/proc/sysrq-trigger";
    let confined = of(vm, "", script);
    // The command's and the container's own.
    assert_eq!(confined.matches("midge-default (enforce)").count(), 2, "{confined}");
    // A capability alone does not open what the profile closes.
    let able = of(vm, "--cap-add SYS_ADMIN --security-opt seccomp=unconfined", script);
    assert!(able.contains("mount: mounting x on /tmp failed: Permission denied"), "{able}");
    let mount = "mount -t tmpfs x /tmp && echo mounted; cat /proc/self/attr/current";
    let free = of(vm, "--cap-add SYS_ADMIN --security-opt apparmor=unconfined", mount);
    assert!(free.starts_with("mounted\nunconfined"), "{free}");
    let privileged = of(vm, "--privileged", mount);
    assert!(privileged.starts_with("mounted\nunconfined"), "{privileged}");
}

/// Containers run on, whatever happens to those who watch them.
fn faults(vm: &mut Vm) -> String {
    let before = vm.containers(2);
    for fault in [
        // systemd tidies the control groups that it knows.
        "systemctl daemon-reload; systemctl daemon-reexec",
        "systemctl restart midge",
        "systemctl kill --kill-whom=main --signal=KILL midge",
        "systemctl restart containerd",
        "systemctl kill --kill-whom=main --signal=KILL containerd",
        "systemctl restart apparmor",
    ] {
        vm.ok(fault);
        vm.wait("midge node ls 2>/dev/null | grep -q Ready");
        assert_eq!(vm.containers(2), before, "{fault}");
    }
    let groups = vm.ok("cat /sys/fs/cgroup/midge/*/cgroup.subtree_control");
    for controller in ["cpu", "memory", "pids"] {
        assert!(groups.split(' ').any(|word| word == controller), "{groups}");
    }
    before
}
