//! Options seen from inside their containers, and what is left where one cannot be.

use super::{
    super::{containerd::snapshot, engine::Runtime, prepare::Step},
    ALL,
    daemon::Daemon,
    exit, output, run, task, within,
};
use crate::types::{
    BindOptions, Device, LogConfig, Mount, MountKind, NamespaceMode, Propagation, TaskSpec,
    TmpfsOptions, Ulimit, VolumeOptions,
};
use expect_test::expect;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A network namespace, as long as this lives.
struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--kill-child", "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut word = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
        Self(child)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn mount(kind: MountKind, target: &str, read_only: bool) -> Mount {
    Mount { kind, target: target.into(), read_only }
}

fn bind(source: &Path, options: BindOptions) -> MountKind {
    MountKind::Bind { source: source.display().to_string(), options }
}

fn volume(name: &str, options: VolumeOptions) -> MountKind {
    MountKind::Volume { name: name.into(), options }
}

fn tmpfs_at(path: &Path) {
    fs::create_dir_all(path).unwrap();
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    fs::write(path.join("file"), "below\n").unwrap();
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// A device that no container has by itself: that of loop devices, 10:237.
fn make_device(path: &Path) {
    let (mode, kind) =
        (rustix::fs::Mode::from_raw_mode(0o600), rustix::fs::FileType::CharacterDevice);
    let device = rustix::fs::makedev(10, 237);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).unwrap();
}

fn set_limits(spec: &mut TaskSpec) {
    spec.limits.memory_bytes = 64 << 20;
    spec.limits.memory_swap = Some(80 << 20);
    spec.limits.swappiness = Some(10);
    let container = &mut spec.container;
    container.capability_add = words(&["SYS_TIME"]);
    container.capability_drop = words(&["CAP_CHOWN"]);
    container.groups = words(&["log", "777"]);
    container.sysctls = [("net.core.somaxconn", "77"), ("kernel.msgmax", "4444")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    container.ulimits = vec![Ulimit { name: "nofile".into(), soft: 55, hard: 66 }];
    container.oom_score_adj = 123;
    container.shm_size = 1 << 20;
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#;
    container.security = vec!["no-new-privileges".into(), format!("seccomp={profile}")];
}

fn set_devices(spec: &mut TaskSpec, dir: &Path) {
    make_device(&dir.join("device"));
    let cdi = format!(
        "cdiVersion: 0.6.0\nkind: acme.com/gpu\ndevices:\n- name: g\n  containerEdits:\n    \
         env: [GPU=yes]\n    deviceNodes:\n    - path: /dev/gpu\n      hostPath: /dev/null\n    \
         mounts:\n    - hostPath: {dir}/lib\n      containerPath: /lib/gpu\n      \
         options: [ro]\n    hooks:\n    - hookName: createRuntime\n      path: /bin/touch\n      \
         args: [touch, {dir}/hooked]\n",
        dir = dir.display()
    );
    fs::create_dir(dir.join("cdi")).unwrap();
    fs::write(dir.join("cdi/acme.yaml"), cdi).unwrap();
    fs::write(dir.join("lib"), "library\n").unwrap();
    spec.container.devices = vec![
        Device::Path {
            source: dir.join("device").display().to_string(),
            target: "/dev/mine".into(),
            permissions: "r".into(),
        },
        Device::Cdi { name: "acme.com/gpu=g".into() },
    ];
}

fn set_mounts(spec: &mut TaskSpec, daemon: &Daemon) {
    let dir = daemon.dir();
    tmpfs_at(&dir.join("tree/sub"));
    let parts = daemon.data().join("volumes/parts/_data");
    fs::create_dir_all(parts.join("a/b")).unwrap();
    fs::write(parts.join("a/b/file"), "part\n").unwrap();
    std::os::unix::fs::symlink("a/b", parts.join("link")).unwrap();
    let tree = dir.join("tree");
    let plain = BindOptions::default();
    let no_copy = VolumeOptions { no_copy: true, ..VolumeOptions::default() };
    let subpath = VolumeOptions { subpath: "link".into(), ..VolumeOptions::default() };
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=128k,mode=0750")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let memory = VolumeOptions { options, ..VolumeOptions::default() };
    spec.container.mounts = vec![
        mount(bind(&tree, plain), "/closed", true),
        mount(bind(&tree, BindOptions { read_only_non_recursive: true, ..plain }), "/open", true),
        mount(bind(&tree, BindOptions { non_recursive: true, ..plain }), "/flat", false),
        mount(
            bind(&dir.join("made/deep"), BindOptions { create_source: true, ..plain }),
            "/made",
            false,
        ),
        mount(volume("bare", no_copy), "/vol", false),
        mount(volume("parts", subpath), "/part", false),
        mount(volume("memory", memory), "/memory", false),
        mount(
            MountKind::Tmpfs { options: TmpfsOptions { size_bytes: 65536, mode: Some(0o700) } },
            "/tmp",
            false,
        ),
    ];
}

const LOOK: &str = "grep -E 'CapBnd|NoNewPrivs' /proc/self/status; id -G; \
    cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/self/oom_score_adj; \
    ulimit -Sn; ulimit -Hn; busybox mkdir /tmp/x 2>&1; \
    cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory/memory.swappiness; \
    : < /dev/mine && echo reads; \
    { : > /dev/mine; } 2>&1 | busybox sed 's/.*: //'; echo x > /dev/gpu && echo $GPU; \
    cat /lib/gpu; touch /lib/gpu 2>&1; \
    grep -E ' /(dev/shm|tmp|memory) ' /proc/mounts; \
    touch /closed/x /closed/sub/x 2>&1; touch /open/x 2>&1; touch /open/sub/x && echo open; \
    ls -A /flat/sub; touch /made/file; ls -A /vol; cat /part/file; touch /part/mine; \
    touch /memory/kept; ls -ld /memory | busybox cut -c1-10";

#[test]
fn many_options_are_seen_from_inside_one_container() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let netns = Netns::new();
    let mut curious = task(1, LOOK);
    set_limits(curious.spec_mut());
    set_devices(curious.spec_mut(), daemon.dir());
    set_mounts(curious.spec_mut(), &daemon);
    let options = [("tag", "{{.Name}}"), ("labels", "tier"), ("env", "FOO")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    curious.spec_mut().log = Some(LogConfig { driver: "json-file".into(), options });
    curious.spec_mut().container.labels.insert("tier".into(), "front".into());
    let setup = super::super::ContainerSetup { netns: Some(netns.path()), ..daemon.setup() };
    smol::block_on(async {
        runtime.prepare(&curious, &setup, &daemon.image()).await.unwrap();
        runtime.start(&curious).await.unwrap();
        let text = output(&runtime, &curious).await.replace('\t', " ");
        expect![[r#"
            CapBnd: 00000000aa0425fa
            NoNewPrivs: 1
            0 44 777
            77
            4444
            123
            55
            66
            mkdir: can't create directory '/tmp/x': Input/output error
            83886080
            10
            reads
            Operation not permitted
            yes
            library
            touch: /lib/gpu: Read-only file system
            shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k 0 0
            tmpfs /memory tmpfs rw,relatime,size=128k,mode=750 0 0
            tmpfs /tmp tmpfs rw,nosuid,nodev,noexec,relatime,size=64k,mode=700 0 0
            touch: /closed/x: Read-only file system
            touch: /closed/sub/x: Read-only file system
            touch: /open/x: Read-only file system
            open
            part
            drwxr-x---
        "#]]
        .assert_eq(&text);
        exit(&runtime, &curious).await;
        assert!(daemon.dir().join("hooked").exists(), "the hook ran");
        assert!(daemon.dir().join("made/deep/file").exists());
        assert!(daemon.data().join("volumes/parts/_data/a/b/mine").exists());
        let line = within(runtime.logs(&curious.id, ALL).recv()).await.unwrap().unwrap();
        let attributes = format!("{:?}", line.attributes);
        let name = curious.full_name();
        assert_eq!(attributes, format!(r#"{{"FOO": "image", "tag": "{name}", "tier": "front"}}"#));
        runtime.remove(&curious.id).await.unwrap();
        assert_eq!(mounts_below(&daemon), ["tree/sub"], "only what the test made is left");
    });
}

/// Returns what is mounted in the node's own namespace below the test's folder.
fn mounts_below(daemon: &Daemon) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let own = format!("{}/", daemon.dir().display());
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1)?.strip_prefix(&own));
    let own = |path: &&str| ["tree", "data", "run/parts"].iter().any(|part| path.starts_with(part));
    paths.filter(own).map(str::to_owned).collect()
}

#[test]
fn a_privileged_container_sees_the_node() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let mut open = task(
        1,
        "grep Seccomp: /proc/self/status; grep -c ' /proc/.* ro' /proc/mounts; \
         grep ' /sys ' /proc/mounts | busybox cut -d' ' -f4 | busybox cut -d, -f1; \
         ls /dev | busybox wc -l; unshare -m true && echo free; \
         ls -d /proc/$NODE_PID >/dev/null && echo sees; busybox readlink /proc/self/ns/ipc; \
         cat /proc/self/mountinfo | grep -c ' /dev/shm '; busybox ls /dev/shm/$SHARED",
    );
    let shared = format!("midge-test-{}", std::process::id());
    fs::write(Path::new("/dev/shm").join(&shared), "").unwrap();
    let container = &mut open.spec_mut().container;
    container.privileged = true;
    container.pid = NamespaceMode::Host;
    container.ipc = NamespaceMode::Host;
    container.init = true;
    container.env = vec![format!("NODE_PID={}", std::process::id()), format!("SHARED={shared}")];
    let text = smol::block_on(async {
        run(&runtime, &daemon, &open).await.unwrap();
        let text = output(&runtime, &open).await.replace('\t', " ");
        exit(&runtime, &open).await;
        runtime.remove(&open.id).await.unwrap();
        text
    });
    fs::remove_file(Path::new("/dev/shm").join(&shared)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["Seccomp: 0", "0", "rw"], "{text}");
    let devices: usize = lines[3].trim().parse().unwrap();
    let here = fs::read_dir("/dev").unwrap().count();
    assert!(devices > 10 && devices + 10 > here.min(4096) / 2, "{devices} of {here}");
    let shared_memory = fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    assert_eq!(lines[4..7], ["free", "sees", &shared_memory], "{text}");
    assert!(text.ends_with(&format!("1\n/dev/shm/{shared}\n")), "{text}");
}

#[test]
fn mounts_of_the_node_show_inside_where_they_are_to() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let tree = daemon.dir().join("tree");
    fs::create_dir(&tree).unwrap();
    rustix::mount::mount_bind(&tree, &tree).unwrap();
    let private = MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change(&tree, private).unwrap();
    let mut waits = task(
        1,
        "echo up; n=0; until cat /tree/sub/file 2>/dev/null || [ $n = 400 ]; \
         do n=$((n+1)); sleep 0.05; done",
    );
    let slave = BindOptions { propagation: Propagation::RSlave, ..BindOptions::default() };
    waits.spec_mut().container.mounts = vec![mount(bind(&tree, slave), "/tree", false)];
    smol::block_on(async {
        let refused = run(&runtime, &daemon, &waits).await.unwrap_err();
        assert!(refused.message.ends_with("it is not a shared or slave mount"), "{refused:?}");
        rustix::mount::mount_change(&tree, MountPropagationFlags::SHARED).unwrap();
        fs::create_dir(tree.join("sub")).unwrap();
        run(&runtime, &daemon, &waits).await.unwrap();
        let lines = runtime.logs(&waits.id, ALL);
        assert_eq!(within(lines.recv()).await.unwrap().unwrap().line, b"up\n");
        tmpfs_at(&tree.join("sub"));
        let line = within(lines.recv()).await.unwrap();
        exit(&runtime, &waits).await;
        runtime.remove(&waits.id).await.unwrap();
        for path in [tree.join("sub"), tree.clone()] {
            rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap();
        }
        assert_eq!(line.unwrap().line, b"below\n");
    });
}

#[test]
fn one_volume_at_two_paths_is_filled_once_and_seen_at_both() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let shared = daemon.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    let device = shared.display().to_string();
    let options = [("type", "none"), ("o", "bind"), ("device", device.as_str())];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let same = VolumeOptions { options, ..VolumeOptions::default() };
    let mut twice = task(1, "cat /vol/seed /also/seed /anon/seed /four/seed; touch /also/x 2>&1");
    twice.spec_mut().container.mounts = vec![
        mount(volume("data", VolumeOptions::default()), "/vol", false),
        mount(volume("data", VolumeOptions::default()), "/also", true),
        mount(volume("three", same.clone()), "/anon", false),
        mount(volume("four", same), "/four", false),
    ];
    smol::block_on(async {
        within(run(&runtime, &daemon, &twice)).await.expect("nothing waits for itself").unwrap();
        expect![[r#"
            seed of vol
            seed of vol
            seed of anon
            seed of anon
            touch: /also/x: Read-only file system
        "#]]
        .assert_eq(&output(&runtime, &twice).await);
        exit(&runtime, &twice).await;
        runtime.remove(&twice.id).await.unwrap();
    });
}

#[test]
fn what_is_not_to_be_kept_is_not() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        for (number, tty) in [(1, false), (2, true)] {
            let mut silent = task(number, "echo one; echo two >&2; exit 4");
            silent.spec_mut().container.tty = tty;
            silent.spec_mut().log = Some(LogConfig { driver: "none".into(), options: [].into() });
            run(&runtime, &daemon, &silent).await.unwrap();
            assert_eq!(super::code(&exit(&runtime, &silent).await), (Some(4), false));
            assert!(!runtime.keeps_log(&silent.id));
            assert!(!runtime.folder(silent.id.as_str()).log().exists());
            runtime.remove(&silent.id).await.unwrap();
        }
    });
}

/// Checks that nothing of a container is left on the node.
async fn nothing_is_left(runtime: &Runtime, daemon: &Daemon, id: &str) {
    assert_eq!(runtime.inventory().await.unwrap(), []);
    let snapshots = snapshot::of_tasks(&runtime.shared.link, "overlayfs").await.unwrap();
    assert_eq!(snapshots, Vec::<String>::new());
    for path in ["data/containers", "run/rootfs", "run/parts"] {
        let path = daemon.dir().join(path).join(id);
        assert!(!path.exists(), "{}", path.display());
    }
    assert_eq!(mounts_below(daemon), Vec::<String>::new());
}

#[test]
fn a_preparation_that_fails_leaves_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let mut whole = task(1, "true");
    let options = [("type", "tmpfs"), ("device", "tmpfs")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let memory = VolumeOptions { options, ..VolumeOptions::default() };
    whole.spec_mut().container.mounts = vec![mount(volume("memory", memory), "/memory", false)];
    smol::block_on(async {
        for step in [Step::Folder, Step::Snapshot, Step::Look, Step::Record] {
            *runtime.shared.fault.lock().unwrap() = Some(step);
            let failure = run(&runtime, &daemon, &whole).await.unwrap_err();
            assert!(failure.message.contains("injected"), "{failure:?}");
            nothing_is_left(&runtime, &daemon, whole.id.as_str()).await;
        }
        *runtime.shared.fault.lock().unwrap() = None;
        run(&runtime, &daemon, &whole).await.unwrap();
        exit(&runtime, &whole).await;
        runtime.remove(&whole.id).await.unwrap();
        nothing_is_left(&runtime, &daemon, whole.id.as_str()).await;
    });
}

#[test]
fn what_cannot_be_is_rejected_by_the_name_of_its_option() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    fs::set_permissions(daemon.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    type Change = fn(&mut TaskSpec);
    let cases: [(&str, Change); 12] = [
        ("unable to find group nobody-knows", |s| s.container.groups = words(&["nobody-knows"])),
        ("adding custom device \"/dev/no-such\"", |s| {
            s.container.devices = vec![Device::Path {
                source: "/dev/no-such".into(),
                target: String::new(),
                permissions: String::new(),
            }];
        }),
        ("unresolvable CDI devices acme.com/gpu=g: no specification in ", |s| {
            s.container.devices = vec![Device::Cdi { name: "acme.com/gpu=g".into() }];
        }),
        (
            "sysctl \"net.core.somaxconn\" cannot be set: the task uses the node's own network",
            |s| {
                s.container.sysctls.insert("net.core.somaxconn".into(), "1".into());
            },
        ),
        ("unknown capability \"CAP_FLY\"", |s| s.container.capability_add = words(&["fly"])),
        ("invalid ulimit \"fly\"", |s| {
            s.container.ulimits = vec![Ulimit { name: "fly".into(), soft: 1, hard: 1 }];
        }),
        ("invalid --security-opt \"fly\"", |s| s.container.security = words(&["fly"])),
        ("cannot read the seccomp profile", |s| s.container.security = words(&["seccomp={"])),
        ("no log driver named 'syslog'", |s| {
            s.log = Some(LogConfig { driver: "syslog".into(), options: [].into() });
        }),
        ("volume plugin \"nfs\" not found", |s| {
            let options = VolumeOptions { driver: "nfs".into(), ..VolumeOptions::default() };
            s.container.mounts = vec![mount(volume("v1", options), "/v", false)];
        }),
        ("of the volume \"v1\": No such file", |s| {
            let options = VolumeOptions { subpath: "none".into(), ..VolumeOptions::default() };
            s.container.mounts = vec![mount(volume("v1", options), "/v", false)];
        }),
        ("range for oom score adj", |s| s.container.oom_score_adj = 5000),
    ];
    smol::block_on(async {
        for (expected, change) in cases {
            let mut refused = task(1, "true");
            change(refused.spec_mut());
            let failure = run(&runtime, &daemon, &refused).await.unwrap_err();
            let message =
                failure.message.replace("plugin nfs: plugin \"nfs\"", "volume plugin \"nfs\"");
            assert!(message.contains(expected), "{failure:?}");
            assert!(!failure.temporary, "{failure:?}");
            nothing_is_left(&runtime, &daemon, refused.id.as_str()).await;
        }
    });
}
