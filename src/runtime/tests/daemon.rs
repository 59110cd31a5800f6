//! A containerd of the test's own, with one image, gone without a trace afterwards.

use super::super::{
    Config, ContainerSetup, ImageConfig, OciChoice, PreparedImage, Runtime,
    containerd::{link::Link, snapshot},
    spec,
};
use crate::util::deadline;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, snapshots_client::SnapshotsClient,
};
use std::{
    fs,
    future::Future,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long anything may take on a machine that is busy with other tests.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Names the OCI runtime that the tests run with.
const OCI: &str = "MIDGE_TEST_OCI_RUNTIME";

/// The key of the image's only layer.
const LAYER: &str = "test-layer";

pub(super) async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    deadline::within(LIMIT, work).await
}

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            smol::Timer::after(Duration::from_millis(10)).await;
        }
    };
    within(wait).await.unwrap_or_else(|| panic!("gave up waiting for {what}"));
}

pub(super) struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Starts it; none, with the reason printed, where containerd cannot be run.
    pub(super) fn start() -> Option<Self> {
        let installed = ["containerd", "runc", "busybox"]
            .iter()
            .all(|program| Command::new(program).arg("--help").output().is_ok());
        if !installed || !rustix::process::geteuid().is_root() {
            println!("skipped: needs root, containerd, runc and busybox");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("midge-rt").tempdir().unwrap();
        let path = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{path}/containerd.sock\"\n"
        );
        fs::write(dir.path().join("containerd.toml"), config).unwrap();
        write_helper(dir.path());
        let child = spawn(dir.path());
        let daemon = Self { dir, child };
        smol::block_on(daemon.make_layer());
        Some(daemon)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.child = spawn(self.dir.path());
    }

    pub(super) fn runtime(&self) -> Runtime {
        Runtime::new(Config {
            socket: self.socket(),
            namespace: self.name(),
            data_dir: self.data(),
            run_dir: self.dir().join("run"),
            helper: self.dir().join("helper"),
            // Another than the shim's own where the tests are told so.
            oci: Arc::new(OciChoice::new(
                &std::env::var(OCI).unwrap_or_else(|_| "runc".into()),
                Path::new("/bin/busybox"),
                self.dir(),
            )),
            cdi_dirs: vec![self.dir().join("cdi")],
        })
    }

    /// Counts the shims of this containerd.
    pub(super) fn shims(&self) -> usize {
        let of = format!(" -namespace {} ", self.name());
        processes(|cmdline, _| cmdline.contains(&of)).len()
    }

    pub(super) fn socket(&self) -> String {
        self.dir().join("containerd.sock").display().to_string()
    }

    /// Names the namespace too: runc's own state lies under it, the same for every containerd.
    pub(super) fn name(&self) -> String {
        let name = self.dir().file_name().unwrap().to_str().unwrap();
        name.trim_start_matches('.').to_owned()
    }

    fn cgroup(&self) -> String {
        format!("/{}", self.name())
    }

    pub(super) fn setup(&self) -> ContainerSetup {
        ContainerSetup {
            hostname: "inside".into(),
            cgroup_parent: self.cgroup(),
            ..ContainerSetup::default()
        }
    }

    pub(super) fn image(&self) -> PreparedImage {
        PreparedImage {
            name: "docker.io/library/test:1".into(),
            snapshotter: "overlayfs".into(),
            chain_id: LAYER.into(),
            config: ImageConfig {
                env: vec!["FOO=image".into()],
                volumes: vec!["/anon".into(), "/vol/".into()],
                ..ImageConfig::default()
            },
            ..PreparedImage::default()
        }
    }

    async fn make_layer(&self) {
        let link = Link::new(self.socket(), &self.name());
        let deadline = Instant::now() + LIMIT;
        let mounts = loop {
            match snapshot::prepare(&link, "overlayfs", "making", "").await {
                Ok(mounts) => break mounts,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            smol::Timer::after(Duration::from_millis(20)).await;
        };
        let root = PathBuf::from(&mounts[0].source);
        for folder in ["bin", "etc", "tmp", "vol", "anon", "proc", "sys", "dev", "sbin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "ls", "id", "touch", "grep", "hostname", "sleep", "dd", "tail", "mount",
            "unshare", "stat", "true", "pwd", "echo",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nlog:x:44:web\n").unwrap();
        for folder in ["vol", "anon"] {
            fs::write(root.join(folder).join("seed"), format!("seed of {folder}\n")).unwrap();
            chown(root.join(folder).join("seed"), Some(33), Some(44)).unwrap();
        }
        let request = link.request(CommitSnapshotRequest {
            snapshotter: "overlayfs".into(),
            name: LAYER.into(),
            key: "making".into(),
            labels: [("containerd.io/gc.root".to_owned(), "x".to_owned())].into(),
        });
        link.call("commit", LIMIT, |channel| async move {
            SnapshotsClient::with_origin(channel, Link::origin()).commit(request).await
        })
        .await
        .unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // What a failed test left: shims that serve our socket, and what they started.
        let own = self.dir().display().to_string();
        let mut doomed = processes(|cmdline, _| cmdline.contains(&own));
        doomed.extend(processes(|_, parent| doomed.contains(&parent)));
        for pid in doomed {
            let pid = rustix::process::Pid::from_raw(pid);
            let _ = pid.map(|pid| {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
            });
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if path.starts_with(&own) {
                let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
            }
        }
        drop(fs::remove_dir_all(Path::new("/run/containerd/runc").join(self.name())));
        let group = spec::cgroup_path(&self.cgroup(), "");
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let group = controller.path().join(group.trim_matches('/'));
            for leaf in fs::read_dir(&group).into_iter().flatten().flatten() {
                drop(fs::remove_dir(leaf.path()));
            }
            drop(fs::remove_dir(group));
        }
    }
}

fn processes(wanted: impl Fn(&str, i32) -> bool) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        if pid != own && wanted(&cmdline, parent.unwrap_or(0)) {
            all.push(pid);
        }
    }
    all
}

fn spawn(dir: &Path) -> Child {
    let log = fs::File::create(dir.join("containerd.log")).unwrap();
    Command::new("containerd")
        .args(["--config", &dir.join("containerd.toml").display().to_string()])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Puts a script in the executable's place that starts this test binary in the mode asked for.
fn write_helper(dir: &Path) {
    let path = dir.join("helper");
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nmode=$1; shift\nIFS=$(printf '\\037')\nexec env {}=\"$mode\" {}=\"$*\" {} \
         --exact runtime::tests::helper_entry --nocapture --test-threads=1\n",
        super::MODE,
        super::ARGS,
        own.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}
