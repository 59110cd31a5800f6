//! Containers on a containerd of the tests' own, seen from inside and outside.

mod daemon;
mod exec;
mod options;

use super::*;
use crate::{
    agent::{Event, Failure, Phase},
    types::{BindOptions, Mount, MountKind, Task, TaskSpec, TmpfsOptions, VolumeOptions},
};
use containerd::{link::Link, snapshot};
use daemon::{Daemon, until, within};
use futures_lite::future;
use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ALL: LogOptions =
    LogOptions { stdout: true, stderr: true, follow: true, tail: None, since: None };

pub(super) fn task(number: u128, script: &str) -> Task {
    let mut spec = TaskSpec::default();
    spec.container.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    Task { spec: spec.into(), ..Task::sample(number) }
}

async fn run(runtime: &Runtime, daemon: &Daemon, task: &Task) -> Result<u32, Failure> {
    runtime.prepare(task, &daemon.setup(), &daemon.image()).await?;
    runtime.start(task).await
}

async fn output(runtime: &Runtime, task: &Task) -> String {
    let lines = runtime.logs(&task.id, ALL);
    let mut text = String::new();
    while let Some(Ok(line)) = within(lines.recv()).await.map(Some).unwrap_or(None) {
        text.push_str(&String::from_utf8_lossy(&line.line));
    }
    text
}

async fn exit(runtime: &Runtime, task: &Task) -> Phase {
    let events = runtime.events();
    loop {
        match within(events.recv()).await.expect("an exit in time").expect("a watcher") {
            Event::Exited { task: ended, phase } if ended == task.id => return phase,
            _ => {}
        }
    }
}

async fn inventory(runtime: &Runtime) -> Vec<crate::agent::Observed> {
    let events = runtime.events();
    loop {
        let event = within(events.recv()).await.expect("an inventory in time");
        if event.expect("a watcher") == Event::RuntimeFound {
            return runtime.inventory().await.expect("an inventory");
        }
    }
}

fn code(phase: &Phase) -> (Option<i32>, bool) {
    match phase {
        Phase::Exited { code, out_of_memory, .. } => (*code, *out_of_memory),
        other => panic!("{other:?}"),
    }
}

/// A task that uses every option, and prints what it sees of them.
fn curious_task(bound: &Path) -> Task {
    let mut task = task(
        1,
        "echo $FOO $PATH $HOSTNAME; pwd; id; hostname; cat /etc/hostname; cat /bound/file; \
         touch /bound/x 2>&1; cat /vol/seed; stat -c '%u:%g %a' /vol/seed; cat /anon/seed; \
         touch /x 2>&1; touch /tmp/y && echo tmp; grep Cap /proc/self/status; \
         grep Seccomp: /proc/self/status; unshare -m true 2>&1; ls -A /sys/firmware; \
         echo 1 2>&1 > /proc/sys/kernel/hostname; grep -c ' /sys ' /proc/mounts; \
         grep shm /proc/mounts; cat /proc/self/oom_score_adj; cd /sys/fs/cgroup; \
         cat pids/pids.max 2>/dev/null || cat pids.max; \
         cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max; \
         read q p < cpu/cpu.cfs_quota_us 2>/dev/null || read q p < cpu.max; echo $q; \
         read x || echo no input; echo err >&2; exit 3",
    );
    let mount = |kind, target: &str, read_only| Mount { kind, target: target.into(), read_only };
    let spec = task.spec_mut();
    spec.container.env = vec!["FOO=bar".into()];
    spec.container.dir = "/srv/deep".into();
    spec.container.user = "web".into();
    spec.container.hostname = "unused".into();
    spec.container.read_only = true;
    spec.container.labels.insert("a".into(), "b".into());
    spec.limits.memory_bytes = 64 << 20;
    spec.limits.pids = 20;
    spec.limits.nano_cpus = 500_000_000;
    spec.container.mounts = vec![
        mount(
            MountKind::Bind {
                source: bound.display().to_string(),
                options: BindOptions::default(),
            },
            "/bound",
            true,
        ),
        mount(
            MountKind::Volume { name: "named".into(), options: VolumeOptions::default() },
            "/vol",
            false,
        ),
        mount(MountKind::Tmpfs { options: TmpfsOptions::default() }, "/tmp", false),
    ];
    task
}

#[test]
fn every_option_is_seen_from_inside() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let bound = daemon.dir().join("bound");
        fs::create_dir(&bound).unwrap();
        fs::write(bound.join("file"), "from the node\n").unwrap();
        let task = curious_task(&bound);
        run(&runtime, &daemon, &task).await.unwrap();
        let text = output(&runtime, &task).await;
        assert_eq!(code(&exit(&runtime, &task).await), (Some(3), false), "{text}");
        let text = text.replace('\t', " ");
        expect_test::expect![[r#"
            bar /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin inside
            /srv/deep
            uid=33(web) gid=33(web) groups=33(web),44(log)
            inside
            inside
            from the node
            touch: /bound/x: Read-only file system
            seed of vol
            33:44 644
            seed of anon
            touch: /x: Read-only file system
            tmp
            CapInh: 0000000000000000
            CapPrm: 0000000000000000
            CapEff: 0000000000000000
            CapBnd: 00000000a80425fb
            CapAmb: 0000000000000000
            Seccomp: 2
            unshare: unshare(0x20000): Operation not permitted
            /bin/sh: can't create /proc/sys/kernel/hostname: Read-only file system
            1
            shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0
            0
            20
            67108864
            50000
            no input
            err
        "#]]
        .assert_eq(&text);
        let list = runtime.list().await.unwrap();
        assert_eq!(list[0].labels["com.docker.swarm.task.name"], task.full_name());
        assert_eq!(list[0].labels["a"], "b");
        assert_eq!(list[0].command[..2], ["/bin/sh", "-c"]);
        assert!(daemon.data().join("volumes/named/_data/seed").exists());
        runtime.remove(&task.id).await.unwrap();
        runtime.remove(&task.id).await.unwrap();
        assert_eq!(runtime.inventory().await.unwrap(), []);
        assert!(daemon.data().join("volumes/named/_data/seed").exists());
        assert!(!daemon.data().join("containers").join(task.id.as_str()).exists());
    });
}

#[test]
fn failures_say_what_is_wrong_and_whether_it_may_pass() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let mut refused = task(1, "true");
        refused.spec_mut().container.user = "nobody-knows".into();
        let failure = run(&runtime, &daemon, &refused).await.unwrap_err();
        assert!(failure.message.contains("unable to find user nobody-knows"), "{failure:?}");
        assert!(!failure.temporary);
        runtime.remove(&refused.id).await.unwrap();

        let mut missing = task(2, "true");
        missing.spec_mut().container.command = vec!["/no/such/program".into()];
        let failure = run(&runtime, &daemon, &missing).await.unwrap_err();
        assert!(failure.message.contains("/no/such/program"), "{failure:?}");
        assert!(!failure.temporary, "{failure:?}");
        runtime.remove(&missing.id).await.unwrap();

        let mut hungry = task(3, "dd if=/dev/zero of=/dev/null bs=64M count=1");
        hungry.spec_mut().limits.memory_bytes = 8 << 20;
        run(&runtime, &daemon, &hungry).await.unwrap();
        let phase = exit(&runtime, &hungry).await;
        assert!(code(&phase).1, "{phase:?}");
        runtime.remove(&hungry.id).await.unwrap();
    });
}

#[test]
fn containers_stop_with_their_signal_or_after_their_grace() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let mut polite = task(1, "trap 'exit 7' USR1; echo up; while :; do sleep 0.05; done");
        polite.spec_mut().container.stop_signal = "SIGUSR1".into();
        let mut rude = task(2, "trap '' TERM; echo up; while :; do sleep 0.05; done");
        rude.spec_mut().container.tty = true;
        let fast = task(3, "echo hi");
        let also = task(4, "echo hi; sleep 100");
        let began = Instant::now();
        let all = [&polite, &rude, &fast, &also].map(|task| run(&runtime, &daemon, task));
        for result in futures_util::future::join_all(all).await {
            result.unwrap();
        }
        println!("four containers took {:?}", began.elapsed());
        for task in [&polite, &rude, &also] {
            let first = within(runtime.logs(&task.id, ALL).recv()).await.expect("a line in time");
            assert!(first.unwrap().line.ends_with(b"\n"));
        }
        let grace = Duration::from_secs(20);
        let phase = runtime.stop(&polite.id, "", grace).await.unwrap();
        assert_eq!(code(&phase), (Some(7), false));
        assert_eq!(runtime.stop(&polite.id, "", grace).await.unwrap(), phase);
        let phase = runtime.stop(&rude.id, "TERM", Duration::from_millis(200)).await.unwrap();
        assert_eq!(code(&phase), (Some(137), false));
        assert_eq!(output(&runtime, &rude).await, "up\r\n");
        runtime.remove(&also.id).await.unwrap();
        for task in [&polite, &rude, &fast] {
            runtime.remove(&task.id).await.unwrap();
        }
        assert_eq!(runtime.list().await.unwrap(), []);
    });
}

#[test]
fn containers_outlive_midge_and_containerd() {
    let Some(mut daemon) = Daemon::start() else { return };
    let first = daemon.runtime();
    let (stays, ends, waits) =
        (task(1, "sleep 1000"), task(2, "sleep 1000; exit 5"), task(3, "true"));
    smol::block_on(async {
        assert_eq!(inventory(&first).await.len(), 0);
        run(&first, &daemon, &stays).await.unwrap();
        let pid = run(&first, &daemon, &ends).await.unwrap();
        first.prepare(&waits, &daemon.setup(), &daemon.image()).await.unwrap();
        let second = daemon.runtime();
        let found = inventory(&second).await;
        let running = found.iter().filter(|o| matches!(o.phase, Phase::Running { .. })).count();
        assert_eq!((found.len(), running), (3, 2));

        daemon.kill();
        let events = second.events();
        assert_eq!(within(events.recv()).await.expect("in time"), Ok(Event::RuntimeLost));
        let failure = second.start(&waits).await.unwrap_err();
        assert!(failure.temporary, "{failure:?}");
        // Ends while nobody looks.
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        daemon.restart();
        let found = inventory(&second).await;
        let phase = |task: &Task| &found.iter().find(|o| o.task == task.id).unwrap().phase;
        assert!(matches!(phase(&stays), Phase::Running { .. }), "{found:?}");
        assert_eq!(code(phase(&ends)), (Some(137), false));
        assert_eq!(phase(&waits), &Phase::Created);
        second.start(&waits).await.unwrap();
        assert_eq!(code(&exit(&second, &waits).await), (Some(0), false));
        for task in [&stays, &ends, &waits] {
            second.remove(&task.id).await.unwrap();
        }
    });
}

#[test]
fn a_shim_that_nobody_knows_is_ended_with_all_it_holds() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let (known, forgotten) = (task(1, "exec sleep 1000"), task(2, "exec sleep 1000"));
    smol::block_on(async {
        assert_eq!(inventory(&runtime).await.len(), 0);
        for task in [&known, &forgotten] {
            run(&runtime, &daemon, task).await.unwrap();
        }
        let link = Link::new(daemon.socket(), &daemon.name());
        containerd::container::delete(&link, forgotten.id.as_str()).await.unwrap();
        let mut strays = strays::Strays::default();
        strays.look(&runtime.shared).await.unwrap();
        assert_eq!(
            daemon.shims(),
            2,
            "one that is being deleted has no record for a moment either"
        );
        strays.look(&runtime.shared).await.unwrap();
        // This containerd does know the shim, and deletes as well: its helper is counted for a moment.
        until("the shim's end", || daemon.shims() == 1).await;
        let tasks = daemon.dir().join("state/io.containerd.runtime.v2.task").join(daemon.name());
        let bundles = || -> Vec<_> {
            fs::read_dir(&tasks).unwrap().map(|it| it.unwrap().file_name()).collect()
        };
        until("the bundle's end", || bundles() == [known.id.as_str()]).await;
        let phase = &runtime.inventory().await.unwrap()[0].phase;
        assert!(matches!(phase, Phase::Running { .. }), "{phase:?}");
        runtime.remove(&known.id).await.unwrap();
        // Its snapshot is what a crash left, and goes when containerd is found the next time.
        let next = daemon.runtime();
        assert_eq!(inventory(&next).await.len(), 0);
    });
}

#[test]
fn a_group_that_a_killed_runc_left_goes_with_its_container() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let task = task(1, "true");
    smol::block_on(async {
        assert_eq!(inventory(&runtime).await.len(), 0);
        runtime.prepare(&task, &daemon.setup(), &daemon.image()).await.unwrap();
        let root = Path::new("/sys/fs/cgroup");
        let root = if root.join("pids").exists() { root.join("pids") } else { root.to_owned() };
        let all = root.join(daemon.setup().cgroup_parent.trim_start_matches('/'));
        let own = all.join(task.id.as_str());
        fs::create_dir_all(&own).unwrap();
        runtime.remove(&task.id).await.unwrap();
        assert!(!own.exists() && all.exists(), "others may be made in the group above it");
        fs::create_dir(&own).unwrap();
        remove_cgroup(&daemon.setup().cgroup_parent);
        assert!(!all.exists());
    });
}

#[test]
fn no_shim_outlives_its_container() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        assert_eq!(inventory(&runtime).await.len(), 0);
        // Whoever sees the exit frees the shim, and whoever removes the container does.
        for round in 0..6 {
            let one = async |number: u128| {
                let task = task(round * 10 + number, "exec sleep 1000");
                run(&runtime, &daemon, &task).await.unwrap();
                runtime.remove(&task.id).await.unwrap();
            };
            futures_util::future::join_all((1..=8).map(one)).await;
        }
        let none_left = async {
            while daemon.shims() > 0 {
                smol::Timer::after(Duration::from_millis(50)).await;
            }
        };
        assert!(within(none_left).await.is_some(), "{} shims are left", daemon.shims());
    });
}

#[test]
fn a_container_whose_making_nobody_waits_for_is_removed_whole() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    let kept = |folder: &str| fs::read_dir(daemon.data().join(folder)).unwrap().count();
    smol::block_on(async {
        for number in 1..=20 {
            let task = task(number, "true");
            let (setup, image) = (daemon.setup(), daemon.image());
            let prepared = async { drop(runtime.prepare(&task, &setup, &image).await) };
            // Containerd and the disk are being asked for the rest.
            let begun = async {
                while !runtime.folder(task.id.as_str()).path().exists() {
                    future::yield_now().await;
                }
            };
            future::or(prepared, begun).await;
            runtime.remove(&task.id).await.unwrap();
        }
        let snapshots = snapshot::of_tasks(&runtime.shared.link, engine::SNAPSHOTTER).await;
        assert_eq!(snapshots.unwrap(), Vec::<String>::new());
    });
    assert_eq!((kept("containers"), kept("volumes")), (0, 0));
}

#[test]
fn cgroups_here_are_found() {
    if Path::new(cgroups::ROOT).join("memory").exists() {
        assert_eq!(cgroups().version, 1);
    }
}

/// Set for the process that plays one of the executable's modes.
const MODE: &str = "MIDGE_TEST_MODE";

/// Its arguments, each ended by this character.
const ARGS: &str = "MIDGE_TEST_ARGS";

/// Does nothing as a test: it is what a script starts this binary for, as logger or init.
#[test]
#[expect(clippy::exit, reason = "the exit status is what the caller looks at")]
fn helper_entry() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let args = std::env::var(ARGS).unwrap();
    let args: Vec<std::ffi::OsString> = args.split('\u{1f}').map(Into::into).collect();
    match mode.as_str() {
        LOGGER_MODE => drop(logger_main(&args)),
        INIT_MODE => std::process::exit(init::run(&args).into()),
        other => panic!("{other}"),
    }
    std::process::exit(0);
}

#[expect(unsafe_code, reason = "signals must be blocked before the test harness starts threads")]
fn init(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "runtime::tests::helper_entry", "--nocapture", "--test-threads=1"]);
    command.env(MODE, INIT_MODE).env(ARGS, ["--", "/bin/sh", "-c", script].join("\u{1f}"));
    command.stdout(Stdio::piped());
    // SAFETY: changing the signal mask is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            signals::block_all();
            Ok(())
        });
    }
    command
}

#[test]
fn the_init_passes_the_exit_status_on() {
    let output = init("echo $$; exit 9").output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let output = init("kill -9 $$").output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    let output = init("exec /no/such/file").output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
}
