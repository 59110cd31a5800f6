//! `install.sh` and the packages: what they put where, on roots that are made for it.
//!
//! A root has this machine's tools, or busybox alone; what asks or changes the machine (`uname`,
//! `systemctl`, `apt-get`) is a script of the test that writes down how it was called.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{self, LIMIT, Network, midge_binary, note, which};
use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// What `install.sh` says it needs, and what the fakes use.
const TOOLS: &[&str] = &[
    "sh",
    "awk",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dd",
    "dirname",
    "grep",
    "gzip",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "od",
    "rm",
    "sed",
    "sha256sum",
    "sync",
    "tar",
    "touch",
    "tr",
    "groupadd",
];

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing: Vec<_> =
        ["unshare", "chroot", "busybox"].into_iter().filter(|tool| which(tool).is_none()).collect();
    if !root || !missing.is_empty() {
        note(&format!("skipped: needs root (have it: {root}) and {missing:?}"));
    }
    root && missing.is_empty()
}

fn write_script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    output
}

/// What is after its `interface` line is of that interface alone.
const DHCPCD: &str = "hostname\n\ninterface eth0\nstatic ip_address=192.168.1.10/24\n";

/// A machine to install on, as far as `install.sh` sees.
struct Root {
    dir: TempDir,
    busybox: bool,
}

impl Root {
    fn new() -> Self {
        let root = Self::bare(false);
        for tool in TOOLS {
            // Not by way of /etc, which is the root's own.
            symlink(
                which(tool).unwrap().canonicalize().unwrap(),
                root.path(&format!("/tools/{tool}")),
            )
            .unwrap();
        }
        root.fake("uname", "cat /machine");
        root.fake("getconf", "cat /bits");
        root.be("x86_64", 64);
        root
    }

    /// With nothing but busybox, as Alpine has it.
    fn busybox() -> Self {
        let root = Self::bare(true);
        fs::copy(which("busybox").unwrap(), root.path("/bin/busybox")).unwrap();
        run(Command::new("chroot").arg(root.dir.path()).args([
            "/bin/busybox",
            "--install",
            "-s",
            "/bin",
        ]));
        // Debian's busybox has none.
        root.fake("addgroup", "echo \"$2:x:101:\" >>/etc/group");
        root
    }

    fn bare(busybox: bool) -> Self {
        let root = Self { dir: tempfile::tempdir().unwrap(), busybox };
        let own_bin: &[&str] = if busybox { &["bin"] } else { &["usr"] };
        for dir in [
            "dev",
            "tmp",
            "tools",
            "fake",
            "dist",
            "run/systemd/system",
            "etc/systemd/network",
            "etc/apparmor.d",
            "var/lib/midge",
            "etc/midge",
            "run/midge",
            "proc",
        ]
        .iter()
        .chain(own_bin)
        {
            fs::create_dir_all(root.dir.path().join(dir)).unwrap();
        }
        if !busybox {
            for name in ["bin", "lib", "lib64", "lib32", "sbin"] {
                symlink(format!("usr/{name}"), root.dir.path().join(name)).unwrap();
            }
        }
        fs::write(root.path("/dev/null"), "").unwrap();
        for (file, text) in [
            ("/etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/etc/dhcpcd.conf", DHCPCD),
        ] {
            fs::write(root.path(file), text).unwrap();
        }
        root.fake("systemctl", "");
        for manager in ["apt-get", "apk"] {
            let provide = "case \"$*\" in *containerd*) touch /fake/containerd /fake/runc; \
                           chmod 755 /fake/containerd /fake/runc ;; esac";
            if (manager == "apk") == busybox {
                root.fake(manager, provide);
            }
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Makes a command that writes down its call and does `body`.
    fn fake(&self, name: &str, body: &str) {
        let path = self.path(&format!("/fake/{name}"));
        write_script(&path, &format!("echo {name} \"$@\" >>/calls\n{body}"));
    }

    fn be(&self, machine: &str, bits: u32) {
        fs::write(self.path("/machine"), format!("{machine}\n")).unwrap();
        fs::write(self.path("/bits"), format!("{bits}\n")).unwrap();
    }

    /// Puts an archive into /dist whose midge says it is `version`.
    fn release(&self, version: &str, arch: &str) -> String {
        let name = format!("midge-{version}-linux-{arch}");
        let work = tempfile::tempdir().unwrap();
        let tree = work.path().join(&name);
        fs::create_dir_all(tree.join("completions")).unwrap();
        fs::create_dir_all(tree.join("man")).unwrap();
        write_script(&tree.join("midge"), &format!("echo midge {version} {arch}"));
        for file in ["man/midge.1", "completions/midge.bash", "completions/_midge"] {
            fs::write(tree.join(file), version).unwrap();
        }
        fs::write(tree.join("completions/midge.fish"), version).unwrap();
        for folder in ["systemd", "openrc"] {
            run(Command::new("cp").arg("-r").arg(repository().join(folder)).arg(&tree));
        }
        for file in ["install.sh", "LICENSE"] {
            fs::copy(repository().join(file), tree.join(file)).unwrap();
        }
        let dist = self.path("/dist");
        run(Command::new("tar")
            .arg("-czf")
            .arg(dist.join(format!("{name}.tar.gz")))
            .arg("-C")
            .arg(work.path())
            .arg(&name));
        fs::copy(repository().join("install.sh"), dist.join("install.sh")).unwrap();
        run(Command::new("sh").current_dir(&dist).args(["-c", "sha256sum *.tar.gz >SHA256SUMS"]));
        format!("/dist/{name}.tar.gz")
    }

    fn sh(&self, script: &str) -> Output {
        let enter = if self.busybox {
            "exec chroot \"$0\" /bin/sh -c \"$1\""
        } else {
            "mount --bind /usr \"$0/usr\"; \
             mount -o remount,bind,ro \"$0/usr\"; mkdir -p \"$0/local\"; \
             mount --bind \"$0/local\" \"$0/usr/local\"; \
             exec chroot \"$0\" /bin/sh -c \"$1\""
        };
        let path = if self.busybox { "/fake:/bin" } else { "/fake:/tools" };
        let inner = format!("export PATH={path}; {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", enter]).arg(self.dir.path()).arg(inner);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
    }

    fn succeeds(&self, script: &str) -> String {
        let output = self.sh(script);
        let error = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {out}{error}");
        out
    }

    fn fails(&self, script: &str) -> String {
        let output = self.sh(script);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{script}: {out}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns what the fakes were called with since the last time, without questions.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("/calls")).unwrap_or_default();
        fs::remove_file(self.path("/calls")).ok();
        let asks = ["uname", "getconf"];
        let calls = calls.lines().filter(|line| !asks.iter().any(|ask| line.starts_with(ask)));
        calls.map(str::to_owned).collect()
    }

    /// Returns a file below /usr/local.
    fn local(&self, path: &str) -> PathBuf {
        let base = if self.busybox { "/usr/local" } else { "/local" };
        self.path(base).join(path)
    }

    fn version(&self) -> Option<String> {
        fs::read_to_string(self.local("bin/midge"))
            .ok()
            .map(|text| text.rsplit("echo midge ").next().unwrap().trim().to_owned())
    }

    fn programs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.local("bin")).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn installs_upgrades_and_goes(root: &Root) {
    let first = root.release("1.0.0", "x86_64");
    let out = root.succeeds(&format!("sh /dist/install.sh --archive {first}"));
    assert!(out.contains("installed midge 1.0.0 x86_64 at /usr/local/bin/midge"), "{out}");
    assert_eq!(root.version().unwrap(), "1.0.0 x86_64");
    let unit = fs::read_to_string(root.path("/etc/systemd/system/midge.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/midge daemon\n"), "{unit}");
    assert!(root.path("/etc/systemd/network/10-midge.network").exists());
    assert!(root.path("/etc/apparmor.d/midge-default").exists());
    assert!(!root.path("/etc/NetworkManager").exists(), "it is not there");
    assert!(fs::read_to_string(root.path("/etc/group")).unwrap().contains("\nmidge:"));
    let calls = root.calls().join("\n");
    for call in [
        "containerd runc",
        "systemctl daemon-reload",
        "systemctl enable midge.service",
        "systemctl restart midge.service",
    ] {
        assert!(calls.contains(call), "{call}: {calls}");
    }

    let dhcpcd = || fs::read_to_string(root.path("/etc/dhcpcd.conf")).unwrap();
    let installed = dhcpcd();
    let (ours, theirs) = installed.split_at(installed.len() - DHCPCD.len());
    assert!(ours.contains("\ndenyinterfaces mdg") && theirs == DHCPCD, "{installed}");
    // As it was put once, where it has no effect.
    fs::write(root.path("/etc/dhcpcd.conf"), format!("{theirs}{ours}")).unwrap();

    let second = root.release("1.1.0", "x86_64");
    let out = root.succeeds(&format!("sh /dist/install.sh --archive {second}"));
    assert!(out.contains("1.1.0 x86_64, before it midge 1.0.0 x86_64"), "{out}");
    assert_eq!(root.version().unwrap(), "1.1.0 x86_64");
    assert_eq!(root.programs(), ["midge"]);
    let calls = root.calls().join("\n");
    assert!(calls.contains("systemctl restart midge.service"), "{calls}");
    assert!(!calls.contains("containerd runc"), "{calls}");
    assert_eq!(dhcpcd(), installed);

    let out = root.succeeds("sh /usr/local/share/midge/install.sh --uninstall");
    assert!(out.contains("/var/lib/midge and /etc/midge stay"), "{out}");
    let calls = root.calls().join("\n");
    assert!(calls.contains("systemctl disable --now midge.service"), "{calls}");
    assert_eq!(root.version(), None);
    for gone in [
        "/etc/systemd/system/midge.service",
        "/etc/systemd/network/10-midge.network",
        "/etc/apparmor.d/midge-default",
    ] {
        assert!(!root.path(gone).exists(), "{gone}");
    }
    assert!(!root.local("share/midge").exists());
    assert!(!root.local("share/man/man1/midge.1").exists());
    assert_eq!(dhcpcd(), DHCPCD);
    assert!(root.path("/var/lib/midge").exists() && root.path("/etc/midge").exists());
}

#[test]
fn a_machine_gets_midge_a_newer_one_and_none() {
    if can_run() {
        installs_upgrades_and_goes(&Root::new());
    }
}

#[test]
fn busybox_is_enough_to_install_with() {
    if can_run() && std::env::consts::ARCH == "x86_64" {
        installs_upgrades_and_goes(&Root::busybox());
    }
}

#[test]
fn openrc_starts_it_where_there_is_no_systemd() {
    if !can_run() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let root = Root::busybox();
    fs::remove_dir_all(root.path("/run/systemd")).unwrap();
    fs::create_dir(root.path("/run/openrc")).unwrap();
    fs::create_dir(root.path("/etc/init.d")).unwrap();
    root.fake("rc-service", "");
    root.fake("rc-update", "");
    let archive = root.release("1.0.0", "x86_64");
    root.succeeds(&format!("sh /dist/install.sh --archive {archive}"));
    let script = fs::read_to_string(root.path("/etc/init.d/midge")).unwrap();
    assert!(script.contains("\ncommand=/usr/local/bin/midge\n"), "{script}");
    run(Command::new("sh").arg("-n").arg(root.path("/etc/init.d/midge")));
    let mode = fs::metadata(root.path("/etc/init.d/midge")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let calls = root.calls();
    for call in [
        "rc-update add midge default",
        "rc-update add containerd default",
        "rc-service --ifstopped containerd start",
        "rc-service midge restart",
    ] {
        assert!(calls.iter().any(|it| it == call), "{call}: {calls:?}");
    }

    root.succeeds(&format!("sh /dist/install.sh --archive {archive} --no-start"));
    assert!(!root.calls().iter().any(|it| it.starts_with("rc-service")));
    root.succeeds("sh /usr/local/share/midge/install.sh --uninstall");
    assert_eq!(root.calls(), ["rc-service --ifstarted midge stop", "rc-update del midge default"]);
    assert!(!root.path("/etc/init.d/midge").exists());

    root.fake("rc-service", "[ \"$1\" != midge ]");
    let error = root.fails(&format!("sh /dist/install.sh --archive {archive}"));
    assert!(error.contains("its log says why: /var/log/messages or"), "{error}");
}

/// Runs what OpenRC's service does before it starts the daemon, with that configuration and an
/// OpenRC whose supervisor has these options; returns how it went and where the log goes.
fn before_openrc_starts(config: &str, options: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("config.toml"), config).unwrap();
    write_script(&dir.path().join("supervise-daemon"), &format!("echo '{options}'"));
    let script = format!(
        "PATH={}:$PATH; eerror() {{ echo \"$@\"; }}; checkpath() {{ touch \"$4\"; }}; . {}; \
         command={} midge_config={} midge_empty={} midge_log={}; \
         start_pre || exit 1; echo \"${{output_logger:-}}>${{output_log:-}}\"",
        dir.path().display(),
        repository().join("openrc/midge.initd").display(),
        midge_binary().display(),
        path("config.toml"),
        dir.path().display(),
        path("midge.log"),
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), said.replace(&path(""), ""))
}

#[test]
fn openrc_does_not_start_it_over_and_over_with_a_wrong_configuration() {
    let loggers = "--stdout --stdout-logger --stderr-logger";
    let right = "runtime = \"auto\"\n";
    let (started, said) = before_openrc_starts(right, loggers);
    assert_eq!((started, said.trim()), (true, "logger -t midge -p daemon.info>"));
    let (started, said) = before_openrc_starts(right, "--stdout");
    assert_eq!((started, said.trim()), (true, ">midge.log"));
    let (started, said) = before_openrc_starts("colour = \"red\"\n", loggers);
    assert!(!started && said.contains("unknown field `colour`"), "{said}");
}

#[test]
fn an_archive_that_is_not_what_it_says_changes_nothing() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    let archive = root.release("1.0.0", "x86_64");
    root.succeeds(&format!("sh /dist/install.sh --archive {archive}"));
    root.calls();

    let archive = root.release("2.0.0", "x86_64");
    let error = root.fails(&format!("echo >>{archive}; sh /dist/install.sh --archive {archive}"));
    assert!(error.contains("damaged or not what it says"), "{error}");
    let hash = "0".repeat(64);
    let archive = root.release("2.0.0", "x86_64");
    let error = root.fails(&format!("sh /dist/install.sh --archive {archive} --sha256 {hash}"));
    assert!(error.contains("damaged or not what it says"), "{error}");
    let error =
        root.fails(&format!("rm /dist/SHA256SUMS; sh /dist/install.sh --archive {archive}"));
    assert!(error.contains("no SHA256SUMS"), "{error}");
    assert_eq!(root.version().unwrap(), "1.0.0 x86_64");
    assert_eq!(root.calls(), [""; 0]);
}

#[test]
fn a_disk_that_is_full_leaves_the_old_program() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    let archive = root.release("1.0.0", "x86_64");
    root.succeeds(&format!("sh /dist/install.sh --archive {archive}"));
    let cp = which("cp").unwrap();
    let half = format!(
        "case \"$2\" in */bin/midge.new.*) echo half >\"$2\"; exit 1 ;; esac; {} \"$@\"",
        cp.display()
    );
    root.fake("cp", &half);
    let archive = root.release("2.0.0", "x86_64");
    let error = root.fails(&format!("sh /dist/install.sh --archive {archive}"));
    assert!(error.contains("is the disk full?"), "{error}");
    assert_eq!(root.version().unwrap(), "1.0.0 x86_64");
    assert_eq!(root.programs(), ["midge"]);
}

#[test]
fn the_build_is_the_one_that_the_system_runs() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    for arch in ["x86_64", "aarch64", "armv7"] {
        root.release("1.0.0", arch);
    }
    for (machine, bits, arch) in [
        ("aarch64", 64, "aarch64"),
        // Raspberry Pi OS with 32 bits starts a kernel of 64.
        ("aarch64", 32, "armv7"),
        ("armv7l", 32, "armv7"),
        ("x86_64", 64, "x86_64"),
    ] {
        root.be(machine, bits);
        root.succeeds("sh /dist/install.sh --no-start");
        assert_eq!(root.version().unwrap(), format!("1.0.0 {arch}"));
        let calls = root.calls().join("\n");
        assert!(!calls.contains("restart midge"), "{calls}");
    }
    for (machine, bits) in [("armv6l", 32), ("riscv64", 64), ("x86_64", 32)] {
        root.be(machine, bits);
        let error = root.fails("sh /dist/install.sh --from /dist");
        assert!(error.contains("there is no build for"), "{error}");
    }
    root.be("x86_64", 64);
    let error = root.fails("sh /dist/install.sh --archive /dist/midge-1.0.0-linux-armv7.tar.gz");
    assert!(error.contains("for another machine"), "{error}");
    root.release("1.1.0", "x86_64");
    let error = root.fails("sh /dist/install.sh --from /dist");
    assert!(error.contains("say which with --version"), "{error}");
    root.succeeds("sh /dist/install.sh --from /dist --version 1.1.0 --prefix /opt/midge");
    assert!(root.path("/opt/midge/bin/midge").exists());
}

#[test]
fn what_is_missing_is_said() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    let archive = root.release("1.0.0", "x86_64");
    fs::remove_file(root.path("/fake/apt-get")).unwrap();
    let error = root.fails(&format!("sh /dist/install.sh --archive {archive}"));
    assert!(error.contains("please install containerd runc"), "{error}");
    assert_eq!(root.version(), None);
    fs::remove_dir_all(root.path("/run/systemd")).unwrap();
    let out = root.succeeds(&format!("sh /dist/install.sh --archive {archive} --no-deps"));
    assert!(out.contains("neither systemd nor OpenRC"), "{out}");
    for (arguments, why) in [
        ("--purge", "--purge goes with --uninstall"),
        ("--archive", "--archive needs a value"),
        ("--all", "no such option"),
        ("--prefix local", "has to begin with /"),
        ("--from /nowhere", "there is no /nowhere/SHA256SUMS"),
    ] {
        let error = root.fails(&format!("sh /dist/install.sh {arguments}"));
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_purge_takes_the_state_along() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    let archive = root.release("1.0.0", "x86_64");
    root.succeeds(&format!("sh /dist/install.sh --archive {archive}"));
    fs::write(root.path("/var/lib/midge/installation"), "5wzxl8pmau53y2hmvte13v2nu").unwrap();
    let purge = "mkdir -p /proc; sh /usr/local/share/midge/install.sh --uninstall --purge";
    let stays = |says: &str| {
        let error = root.fails(purge);
        assert!(error.contains(says), "{error}");
        assert!(root.path("/var/lib/midge/installation").exists(), "by which its containers go");
        assert_eq!(root.version().unwrap(), "1.0.0 x86_64");
    };
    stays("on\nAlpine containerd-ctr");
    root.fake("ctr", "exit 1");
    stays("containerd does not answer");
    root.fake("ctr", "case \"$*\" in *'containers ls'*) echo web ;; esac");
    stays("containers are left");
    root.fake("ctr", "");
    let out = root.succeeds(purge);
    assert!(out.contains("removing containers and images of this node, /var/lib/midge"), "{out}");
    for gone in ["/var/lib/midge", "/etc/midge", "/run/midge"] {
        assert!(!root.path(gone).exists(), "{gone}");
    }
    assert_eq!(root.version(), None);
}

#[test]
fn the_package_does_not_come_on_top_of_what_the_script_installed() {
    if !can_run() {
        return;
    }
    let root = Root::new();
    fs::copy(repository().join("cross/debian/preinst"), root.path("/preinst")).unwrap();
    root.succeeds("sh /preinst install");
    let archive = root.release("1.0.0", "x86_64");
    for (option, says) in [
        ("", "sh /usr/local/share/midge/install.sh --uninstall"),
        (" --prefix /opt/m", "sh /opt/m/share/midge/install.sh --prefix /opt/m --uninstall"),
    ] {
        root.succeeds(&format!("sh /dist/install.sh --archive {archive}{option}"));
        let error = root.fails("sh /preinst install");
        let command = error.lines().last().unwrap().trim();
        assert_eq!(command, says, "{error}");
        root.succeeds(command);
        root.succeeds("sh /preinst install");
    }
}

/// Packs what stands for the program under test into a folder: packing all of it takes long.
fn package(dist: &Path) {
    let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    write_script(&program, &format!("exec '{}' \"$@\"", midge_binary().display()));
    run(Command::new(repository().join("cross/package.sh"))
        .arg("x86_64")
        .env("MIDGE_BINARY", &program)
        .env("DIST", dist)
        .env("SOURCE_DATE_EPOCH", "1700000000"));
}

#[test]
fn packages_hold_what_they_say_and_are_made_alike() {
    if which("dpkg-deb").is_none() || std::env::consts::ARCH != "x86_64" {
        note("skipped: needs dpkg-deb");
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    package(one.path());
    package(two.path());
    let sums = |dist: &Path| fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(one.path()), sums(two.path()));
    let version = env!("CARGO_PKG_VERSION");
    for name in
        [format!("midge-{version}-linux-x86_64.tar.gz"), format!("midge_{version}_amd64.deb")]
    {
        assert!(sums(one.path()).contains(&name), "{name}");
    }
    let list = run(Command::new("tar")
        .arg("-tzf")
        .arg(one.path().join(format!("midge-{version}-linux-x86_64.tar.gz"))));
    let list = String::from_utf8(list.stdout).unwrap();
    for file in
        ["midge", "install.sh", "LICENSE", "systemd/purge.sh", "openrc/midge.initd", "man/midge.1"]
    {
        let path = format!("midge-{version}-linux-x86_64/{file}");
        assert!(list.lines().any(|line| line == path), "{path}: {list}");
    }

    let deb = one.path().join(format!("midge_{version}_amd64.deb"));
    let said = |option: &str| {
        let output = run(Command::new("dpkg-deb").arg(option).arg(&deb));
        String::from_utf8(output.stdout).unwrap()
    };
    let control = said("--info");
    for line in ["Architecture: amd64", "Depends: containerd (>= 1.6~)", "Recommends: nftables"] {
        assert!(control.contains(line), "{line}: {control}");
    }
    let contents = said("--contents");
    for file in [
        "./usr/bin/midge",
        "./usr/lib/systemd/system/midge.service",
        "./usr/lib/systemd/network/10-midge.network",
        "./usr/lib/NetworkManager/conf.d/midge.conf",
        "./usr/lib/sysusers.d/midge.conf",
        "./etc/apparmor.d/midge-default",
        "./usr/share/man/man1/midge.1.gz",
        "./usr/share/bash-completion/completions/midge",
        "./usr/share/doc/midge/copyright",
        "./usr/share/doc/midge/docs/operations.md",
    ] {
        assert!(contents.lines().any(|line| line.ends_with(file)), "{file}: {contents}");
    }
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let text = run(Command::new("dpkg-deb").arg("--info").arg(&deb).arg(script)).stdout;
        let path = one.path().join(script);
        fs::write(&path, &text).unwrap();
        run(Command::new("sh").arg("-n").arg(&path));
        let purges = String::from_utf8(text).unwrap().contains("rm -rf \"$state\"");
        assert_eq!(purges, script == "postrm", "{script}");
    }
}

#[test]
fn systemd_takes_the_unit_as_it_is() {
    if which("systemd-analyze").is_none() {
        note("skipped: needs systemd-analyze");
        return;
    }
    let unit = fs::read_to_string(repository().join("systemd/midge.service")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("midge.service");
    // It looks for the program; any will do.
    fs::write(&path, unit.replace("ExecStart=/usr/bin/midge", "ExecStart=/bin/sh")).unwrap();
    let output = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // Each of these would hide what the daemon mounts from containerd.
    for option in ["Private", "Protect", "ReadOnlyPaths", "ReadWritePaths", "BindPaths", "RootDir"]
    {
        assert!(!unit.lines().any(|line| line.starts_with(option)), "{option}");
    }
}

#[test]
fn the_service_manager_hears_how_the_daemon_is() {
    if !host::can_run() {
        return;
    }
    let mut network = Network::new(1);
    let node = &mut network.hosts[0];
    let path = node.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = || {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    node.environment.push(("NOTIFY_SOCKET", path));
    node.environment.push(("WATCHDOG_USEC", "200000".into()));
    node.start_daemon();
    assert_eq!(hear(), "READY=1");
    assert_eq!([hear(), hear()], ["WATCHDOG=1", "WATCHDOG=1"]);
    node.stop_daemon();
    let last = std::iter::repeat_with(hear).find(|state| state != "WATCHDOG=1");
    assert_eq!(last.unwrap(), "STOPPING=1");
}

#[test]
fn a_purge_leaves_nothing_of_a_node_with_containers() {
    if !host::can_run() || which("ctr").is_none() {
        return;
    }
    let mut network = Network::cluster(1);
    network.load_busybox();
    let node = &mut network.hosts[0];
    node.ok(&[
        "service",
        "create",
        "-q",
        "--name",
        "web",
        "--replicas",
        "2",
        "--publish",
        "mode=host,target=80",
        "--mount",
        "type=volume,source=data,target=/data",
        "bb:1",
        "sleep",
        "1000",
    ]);
    node.wait_running("web", 2);
    node.stop_daemon();
    assert_eq!(node.running_in_containerd().len(), 2, "containers outlive the daemon");
    assert!(node.sh("ip link").contains("mdg"));

    let dir = node.dir.display().to_string();
    let purge = repository().join("systemd/purge.sh");
    node.sh(&format!(
        "CONTAINERD_ADDRESS={dir}/containerd.sock sh {} {dir}/data {dir}/run {dir}/config",
        purge.display()
    ));
    assert_eq!(node.running_in_containerd().len(), 0);
    let namespaces = node.sh(&format!("ctr -a {dir}/containerd.sock namespaces ls -q"));
    assert!(!namespaces.contains("midge-"), "{namespaces}");
    assert!(!node.dir.join("data").exists() && !node.dir.join("run").exists());
    let links = node.sh("ip link");
    assert!(!links.contains("mdg") && !links.contains("mv"), "{links}");
}
