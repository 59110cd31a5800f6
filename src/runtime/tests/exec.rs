//! Commands in running containers, on a real containerd.

use super::{
    super::{Exec, ExecError, ExecEvent, ExecExit, Runtime},
    daemon::{Daemon, until, within},
    run, task,
};
use crate::types::{ExecSpec, Task, TerminalSize};
use std::{fs, time::Duration};

fn command(args: &[&str]) -> ExecSpec {
    ExecSpec {
        command: args.iter().map(|arg| (*arg).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..ExecSpec::default()
    }
}

fn shell(script: &str) -> ExecSpec {
    command(&["sh", "-c", script])
}

/// Returns what the command printed on either stream, and how it ended.
async fn rest(exec: &mut Exec) -> (String, String, ExecExit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match within(exec.output.next()).await.expect("an event in time") {
            ExecEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecEvent::Exited(exit) => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), exit.unwrap());
            }
        }
    }
}

async fn outcome(runtime: &Runtime, task: &Task, spec: &ExecSpec) -> (String, String, i32) {
    let mut exec = runtime.exec(&task.id, spec, None).await.unwrap();
    let (out, err, exit) = rest(&mut exec).await;
    (out, err, exit.code)
}

/// Tells whether nothing is left of any command below the run directory.
fn is_clean(daemon: &Daemon) -> bool {
    let folder = daemon.dir().join("run/exec");
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn commands_run_as_their_container_does_and_as_they_ask() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let mut host = task(1, "sleep 1000");
        host.spec_mut().container.env = vec!["FOO=bar".into()];
        host.spec_mut().container.dir = "/tmp".into();
        run(&runtime, &daemon, &host).await.unwrap();
        let script = "echo $FOO $HOSTNAME; pwd; id -u; echo bad >&2; \
                      grep CapEff /proc/self/status; tty; exit 7";
        let (out, err, code) = outcome(&runtime, &host, &shell(script)).await;
        assert_eq!(out, "bar inside\n/tmp\n0\nCapEff:\t00000000a80425fb\nnot a tty\n");
        assert_eq!((err.as_str(), code), ("bad\n", 7));

        let asks = ExecSpec {
            env: vec!["FOO=other".into()],
            user: "web:log".into(),
            dir: "/etc".into(),
            ..shell("echo $FOO; pwd; id; grep CapEff /proc/self/status")
        };
        let (out, ..) = outcome(&runtime, &host, &asks).await;
        let id = "uid=33(web) gid=44(log) groups=44(log)";
        assert_eq!(out, format!("other\n/etc\n{id}\nCapEff:\t0000000000000000\n"));

        let all = ExecSpec { privileged: true, ..shell("grep CapEff /proc/self/status") };
        let status = fs::read_to_string("/proc/1/status").unwrap();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        let effective = format!("CapEff:\t{bounding}\n");
        assert_eq!(outcome(&runtime, &host, &all).await.0, effective);

        let tty = ExecSpec { tty: true, ..shell("tty; busybox stty size; echo $TERM; echo e >&2") };
        let size = TerminalSize { width: 99, height: 33 };
        let mut exec = runtime.exec(&host.id, &tty, Some(size)).await.unwrap();
        let (out, err, _) = rest(&mut exec).await;
        assert_eq!((out.as_str(), err.as_str()), ("/dev/pts/0\r\n33 99\r\nxterm\r\ne\r\n", ""));

        for (args, expected) in [
            (command(&["no-such-program"]), Some(127)),
            (command(&["/etc/passwd"]), Some(126)),
            (ExecSpec { user: "nobody-knows".into(), ..command(&["true"]) }, None),
            (command(&[]), None),
        ] {
            let error = runtime.exec(&host.id, &args, None).await.unwrap_err();
            assert_eq!(error.exit_code(), expected, "{error}");
        }
        until("what the commands left to go", || is_clean(&daemon)).await;
        let stopped = task(2, "true");
        let refused = runtime.exec(&stopped.id, &command(&["true"]), None).await;
        assert_eq!(refused.unwrap_err(), ExecError::NoContainer(stopped.id.clone()));
        runtime.prepare(&stopped, &daemon.setup(), &daemon.image()).await.unwrap();
        let refused = runtime.exec(&stopped.id, &command(&["true"]), None).await;
        assert_eq!(refused.unwrap_err(), ExecError::NotRunning(stopped.id.clone()));
        for task in [&host, &stopped] {
            runtime.remove(&task.id).await.unwrap();
        }
    });
}

#[test]
fn streams_carry_everything_in_both_directions() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let host = task(1, "sleep 1000");
        run(&runtime, &daemon, &host).await.unwrap();
        // Far more than the pipes hold, while nobody reads at first.
        let echo = ExecSpec { stdin: true, ..command(&["cat"]) };
        let mut exec = runtime.exec(&host.id, &echo, None).await.unwrap();
        let mut stdin = exec.stdin.take().unwrap();
        let given: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let feeder = {
            let given = given.clone();
            smol::spawn(async move {
                for piece in given.chunks(100_000) {
                    stdin.write_all(piece).await.unwrap();
                }
                stdin.close().await.unwrap();
            })
        };
        let mut got = Vec::new();
        let exit = loop {
            match within(exec.output.next()).await.unwrap() {
                ExecEvent::Stdout(bytes) => got.extend_from_slice(&bytes),
                ExecEvent::Stderr(bytes) => panic!("{bytes:?}"),
                ExecEvent::Exited(exit) => break exit.unwrap(),
            }
        };
        feeder.await;
        assert!(got == given, "{} bytes of {}", got.len(), given.len());
        assert_eq!(exit, ExecExit { code: 0, container_ended: false });

        // An input that is empty from the start.
        let mut exec = runtime.exec(&host.id, &echo, None).await.unwrap();
        exec.stdin.take().unwrap().close().await.unwrap();
        assert_eq!(rest(&mut exec).await.2.code, 0);

        // A child that holds the output open does not hold up the end.
        let (out, _, code) = outcome(&runtime, &host, &shell("sleep 900 & echo hi; exit 3")).await;
        assert_eq!((out.as_str(), code), ("hi\n", 3));

        // A terminal that is resized while it is used, and hung up.
        let spec = "trap 'busybox stty size' WINCH; echo up; while :; do sleep 0.05; done";
        let tty = ExecSpec { tty: true, stdin: true, ..shell(spec) };
        let mut exec = runtime.exec(&host.id, &tty, None).await.unwrap();
        assert_eq!(within(exec.output.next()).await, Some(ExecEvent::Stdout("up\r\n".into())));
        exec.control.resize(TerminalSize { width: 50, height: 20 }).await.unwrap();
        assert_eq!(within(exec.output.next()).await, Some(ExecEvent::Stdout("20 50\r\n".into())));
        exec.control.hang_up().await.unwrap();
        assert_eq!(rest(&mut exec).await.2.code, 129);
        until("what the commands left to go", || is_clean(&daemon)).await;
        runtime.remove(&host.id).await.unwrap();
    });
}

#[test]
fn probes_end_in_time_and_keep_the_beginning() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let host = task(1, "sleep 1000");
        run(&runtime, &daemon, &host).await.unwrap();
        let argv = |script: &str| -> Vec<String> { ["sh", "-c", script].map(str::to_owned).into() };
        let long = Duration::from_secs(20);
        let probe = runtime.probe(&host.id, &argv("echo well; exit 2"), long).await.unwrap();
        assert_eq!((probe.code, probe.output.as_slice()), (Some(2), &b"well\n"[..]));
        let flood = argv("busybox yes | busybox head -c 100000");
        let probe = runtime.probe(&host.id, &flood, long).await.unwrap();
        assert_eq!((probe.code, probe.output.len()), (Some(0), super::super::PROBE_OUTPUT_MAX));
        let hangs = argv("echo begun; exec sleep 555");
        let probe = runtime.probe(&host.id, &hangs, Duration::from_secs(2)).await.unwrap();
        assert_eq!((probe.code, probe.output.as_slice()), (None, &b"begun\n"[..]));
        until("what the probes left to go", || is_clean(&daemon)).await;
        let ps = shell("busybox ps | grep -c '[s]leep 555'");
        assert_eq!(outcome(&runtime, &host, &ps).await.0, "0\n");
        let missing = vec!["nope".to_owned()];
        let error = runtime.probe(&host.id, &missing, long).await.unwrap_err();
        assert_eq!(error.exit_code(), Some(127));
        runtime.remove(&host.id).await.unwrap();
    });
}

#[test]
fn a_probe_that_is_late_in_the_midst_of_its_start_leaves_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let host = task(1, "sleep 1000");
        run(&runtime, &daemon, &host).await.unwrap();
        let hangs = ["sleep".to_owned(), "555".to_owned()];
        let late = |millis: u64| {
            let (runtime, host, hangs) = (&runtime, &host.id, &hangs);
            async move { runtime.probe(host, hangs, Duration::from_millis(millis)).await }
        };
        for probe in futures_util::future::join_all((1..=40).map(|n| late(n * 5))).await {
            assert_eq!(probe.unwrap().code, None);
        }
        until("what the probes left to go", || is_clean(&daemon)).await;
        let ps = shell("busybox ps | grep -c '[s]leep 555'");
        assert_eq!(outcome(&runtime, &host, &ps).await.0, "0\n");
        runtime.remove(&host.id).await.unwrap();
    });
}

#[test]
fn a_container_that_ends_takes_its_commands_along() {
    let Some(daemon) = Daemon::start() else { return };
    let runtime = daemon.runtime();
    smol::block_on(async {
        let host = task(1, "sleep 1000");
        run(&runtime, &daemon, &host).await.unwrap();
        let mut exec = runtime.exec(&host.id, &shell("echo up; sleep 1000"), None).await.unwrap();
        assert_eq!(within(exec.output.next()).await, Some(ExecEvent::Stdout("up\n".into())));
        let stop = runtime.stop(&host.id, "KILL", Duration::from_secs(5));
        stop.await.unwrap();
        let exit = rest(&mut exec).await.2;
        assert_eq!(exit, ExecExit { code: 137, container_ended: true });
        runtime.remove(&host.id).await.unwrap();
        until("what the command left to go", || is_clean(&daemon)).await;
    });
}

#[test]
fn what_a_daemon_that_died_left_is_ended() {
    let Some(daemon) = Daemon::start() else { return };
    let first = daemon.runtime();
    smol::block_on(async {
        let host = task(1, "sleep 1000");
        run(&first, &daemon, &host).await.unwrap();
        let attached = first.exec(&host.id, &shell("exec sleep 777"), None).await.unwrap();
        let tty = ExecSpec { tty: true, ..shell("busybox yes; exec sleep 1000") };
        let (_, ended) = first.exec_detached(&host.id, &tty).await.unwrap();
        let (_, done) = first.exec_detached(&host.id, &shell("exit 4")).await.unwrap();
        assert_eq!(within(done.recv()).await.unwrap().unwrap().code, 4);
        assert!(ended.is_empty());
        // As if the process had died: nothing is cleaned up.
        std::mem::forget((attached, ended));
        let second = daemon.runtime();
        let count = async |text: &str| {
            let ps = shell(&format!("busybox ps | grep -c '{text}'"));
            outcome(&second, &host, &ps).await.0
        };
        let gone = async { while count("[s]leep 777").await != "0\n" {} };
        within(gone).await.expect("the leftover to be ended");
        // The shell and what it runs.
        assert_eq!(count("busybox [y]es").await, "2\n");
        second.remove(&host.id).await.unwrap();
        until("what the commands left to go", || is_clean(&daemon)).await;
    });
}
