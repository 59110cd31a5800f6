//! Commands, files, counters and processes of running containers, from anywhere in the cluster.

use crate::host::{Host, Network, can_run, eventually, midge_binary, which};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
};

fn feed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let input = input.to_vec();
    // Side by side: what comes back may be as much as goes there.
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the program ends");
    // A command that reads nothing ends first.
    drop(feeder.join());
    output
}

fn midge(host: &Host, args: &[&str], input: &[u8]) -> Output {
    feed(host.command(args), input)
}

fn docker(host: &Host, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(which("docker").expect("looked for before"));
    let socket = format!("unix://{}/midge.sock", host.dir.display());
    command.args(args).env("DOCKER_HOST", socket);
    feed(command, input)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts how a command ended and what it printed.
fn check(output: &Output, code: i32, stdout: &str) {
    let error = text(&output.stderr);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(code), stdout),
        "{error}"
    );
}

/// Two nodes, and a service with a task on each: `web.1` is the name of one.
fn cluster() -> Network {
    let network = Network::cluster(2);
    network.load_busybox();
    let create = ["service", "create", "-q", "--name", "web", "--mode", "global"];
    let mount = ["--mount", "type=volume,src=data,dst=/data"];
    network.manager().ok(&[&create[..], &mount, &["bb:1", "sleep", "10000"]].concat());
    network.manager().wait_running("web", 2);
    network
}

/// Returns the name of the service's task on a node.
fn task_on(network: &Network, node: usize) -> String {
    let host = network.manager();
    let id = network.hosts[node].ok(&["ps", "-q", "--no-trunc"]);
    let id = id.trim();
    let found =
        host.ok(&["service", "ps", "web", "--no-trunc", "-q", "--filter", &format!("id={id}")]);
    assert_eq!(found.trim(), id);
    id.to_owned()
}

fn commands(network: &Network, task: &str) {
    let host = network.manager();
    check(&midge(host, &["exec", task, "hostname"], b""), 0, &format!("{}\n", &task[..12]));
    check(
        &midge(host, &["exec", task, "sh", "-c", "echo out; echo err >&2; exit 9"], b""),
        9,
        "out\n",
    );
    let both = midge(host, &["exec", &task[..10], "sh", "-c", "echo err >&2"], b"");
    assert_eq!(text(&both.stderr), "err\n");
    let large: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let echoed = midge(host, &["exec", "-i", task, "cat"], &large);
    assert!(echoed.status.success() && echoed.stdout == large, "{} bytes", echoed.stdout.len());
    let asks = ["exec", "-u", "user", "-w", "/tmp", "-e", "A=1", task, "sh", "-c"];
    check(&midge(host, &[&asks[..], &["id -u; pwd; echo $A"]].concat(), b""), 0, "1000\n/tmp\n1\n");
    check(&midge(host, &["exec", "-t", task, "tty"], b""), 0, "/dev/pts/0\r\n");
    let missing = midge(host, &["exec", task, "no-such-program"], b"");
    check(&missing, 127, "");
    assert!(text(&missing.stderr).contains("executable file not found"), "{missing:?}");
    check(&midge(host, &["exec", task, "/etc/passwd"], b""), 126, "");
    check(&midge(host, &["exec", "-d", task, "touch", "/tmp/detached"], b""), 0, "");
    eventually("the detached command", || {
        midge(host, &["exec", task, "ls", "/tmp/detached"], b"").status.success().then_some(())
    });
    let nothing = host.refused(&["exec", "nothing", "true"]);
    assert!(nothing.contains("No such container: nothing"), "{nothing}");
}

/// A session at a terminal, with keys and a size of its own.
fn terminal(host: &Host, program: &str, task: &str) {
    let Some(script) = which("script") else { return };
    let socket = format!("unix://{}/midge.sock", host.dir.display());
    let program = match program {
        "midge" => midge_binary(),
        other => which(other).expect("looked for before"),
    };
    let line = format!(
        "stty rows 33 cols 99; {} exec -it {task} sh -c 'stty size; read x; echo got-$x; exit 6'",
        program.display()
    );
    let mut command = Command::new(script);
    command.args(["-qec", &line, "/dev/null"]);
    command.env("MIDGE_HOST", &socket).env("DOCKER_HOST", &socket).env("SHELL", "/bin/sh");
    let output = feed(command, b"word\n");
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(6), "{shown}");
    assert!(shown.contains("33 99\r\n") && shown.contains("got-word\r\n"), "{shown}");
}

/// Copies a tree there and back, and single files under other names.
fn copies(host: &Host, task: &str, folder: &Path) {
    fs::create_dir_all(folder.join("tree/deep")).expect("a new folder");
    let content = vec![b'x'; 700_000];
    fs::write(folder.join("tree/deep/file"), &content).expect("a new file");
    std::os::unix::fs::symlink("deep/file", folder.join("tree/link")).expect("a new link");
    let path = |name: &str| folder.join(name).display().to_string();
    let there = |name: &str| format!("{task}:{name}");
    host.ok(&["cp", &path("tree"), &there("/data")]);
    host.ok(&["cp", &path("tree/deep/file"), &there("/tmp/renamed")]);
    let sizes = [
        "exec",
        task,
        "sh",
        "-c",
        "wc -c </data/tree/deep/file; wc -c </data/tree/link; wc -c </tmp/renamed",
    ];
    assert_eq!(host.ok(&sizes), "700000\n700000\n700000\n");
    host.ok(&["cp", &there("/data/tree"), &path("back")]);
    assert_eq!(fs::read(folder.join("back/deep/file")).expect("it is there"), content);
    assert!(folder.join("back/link").is_symlink());
    fs::create_dir(folder.join("into")).expect("a new folder");
    host.ok(&["cp", &there("/data/tree/."), &path("into")]);
    assert!(folder.join("into/deep/file").exists());
    let archive = midge(host, &["cp", &there("/data/tree"), "-"], b"");
    assert!(archive.status.success() && archive.stdout.len() > 700_000);
    let unpacked = midge(host, &["cp", "-", &there("/tmp")], &archive.stdout);
    check(&unpacked, 0, "");
    assert_eq!(host.ok(&["exec", task, "ls", "/tmp/tree"]), "deep\nlink\n");
    let missing = host.refused(&["cp", &there("/none"), &path("x")]);
    assert!(missing.contains("Could not find the file /none"), "{missing}");
    let onto = host.refused(&["cp", &path("tree"), &there("/tmp/renamed")]);
    assert!(onto.contains("cannot copy directory"), "{onto}");
    // A link inside must not lead to the node's own files.
    host.ok(&["exec", task, "ln", "-s", "/../../../../etc/hostname", "/tmp/wicked"]);
    host.ok(&["cp", "-L", &there("/tmp/wicked"), &path("wicked")]);
    let inside = host.ok(&["exec", task, "cat", "/etc/hostname"]);
    assert_eq!(fs::read_to_string(folder.join("wicked")).expect("it is there"), inside);
}

fn counters(network: &Network, tasks: &[String]) {
    let host = network.manager();
    let format = ["--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}"];
    let all = host.ok(&[&["stats", "--no-stream"][..], &format].concat());
    for task in tasks {
        let line = all.lines().find(|line| line.contains(task.as_str()));
        let line = line.unwrap_or_else(|| panic!("{task} in {all}"));
        assert!(line.contains(" 1 ") && !line.contains(" 0B / "), "{line}");
    }
    let top = host.ok(&["top", &tasks[1]]);
    assert!(top.starts_with("UID ") && top.contains("sleep 10000"), "{top}");
    let chosen = host.ok(&["top", &tasks[1], "-o", "pid,args"]);
    assert!(chosen.starts_with("PID "), "{chosen}");
    let refused = host.refused(&["top", &tasks[1], "--forest"]);
    assert!(refused.contains("is not supported"), "{refused}");
}

#[test]
fn tasks_of_other_nodes_are_within_reach() {
    if !can_run() {
        return;
    }
    let network = cluster();
    let tasks = [task_on(&network, 0), task_on(&network, 1)];
    for task in &tasks {
        commands(&network, task);
        let folder = network.hosts[0].dir.join(format!("cp-{task}"));
        copies(network.manager(), task, &folder);
    }
    counters(&network, &tasks);
    terminal(network.manager(), "midge", &tasks[1]);
    // A worker has its own and no others.
    let worker = &network.hosts[1];
    check(&midge(worker, &["exec", &tasks[1], "echo", "mine"], b""), 0, "mine\n");
    let other = worker.refused(&["exec", &tasks[0], "echo", "yours"]);
    assert!(other.contains("No such container"), "{other}");
}

/// Posts to a host's daemon; the answer is on the connection that is returned.
fn post(host: &Host, path: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(host.dir.join("midge.sock")).expect("the daemon listens");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: midge\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("the daemon reads");
    stream
}

/// Returns what came back on a connection until it was closed.
fn answer(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn a_command_whose_client_hung_up_is_not_being_started_for_ever() {
    if !can_run() {
        return;
    }
    let network = cluster();
    let host = network.manager();
    let task = task_on(&network, 0);
    for later in 0..10 {
        let body = r#"{"Cmd": ["sleep", "5"]}"#;
        let made = answer(post(host, &format!("/containers/{task}/exec"), body));
        let (_, id) = made.split_once(r#""Id":""#).expect(&made);
        let id = id.split('"').next().expect("an id");
        let start = format!("/exec/{id}/start");
        let client = post(host, &start, "{}");
        // Before the daemon begins with it, in its midst, or when it runs.
        for _ in 0..later {
            host.api(&format!("/exec/{id}/json"));
        }
        drop(client);
        eventually("the end of the start", || {
            let again = answer(post(host, &start, r#"{"Detach": true}"#));
            (!again.contains("is already running")).then_some(())
        });
    }
}

#[test]
fn a_container_that_ends_ends_its_commands() {
    if !can_run() {
        return;
    }
    let network = cluster();
    let (host, task) = (network.manager(), task_on(&network, 1));
    let (_, pid) = network.hosts[1].containers()[0].clone();
    let name = task.clone();
    std::thread::scope(|scope| {
        let session = scope
            .spawn(|| midge(host, &["exec", &name, "sh", "-c", "touch /tmp/up; sleep 1000"], b""));
        eventually("the command to run", || {
            midge(host, &["exec", &task, "ls", "/tmp/up"], b"").status.success().then_some(())
        });
        host.sh(&format!("kill -9 {pid}"));
        let output = session.join().expect("no panic");
        assert_eq!(output.status.code(), Some(137), "{output:?}");
        assert!(text(&output.stderr).contains("the container of task"), "{output:?}");
    });
    // A client that goes away takes its terminal's command along.
    let task = eventually("the successor", || {
        network.manager().wait_running("web", 2);
        let id = network.hosts[1].ok(&["ps", "-q", "--no-trunc"]).trim().to_owned();
        (id != task && !id.is_empty() && !id.contains('\n')).then_some(id)
    });
    let mut client = host.command(&["exec", "-t", &task, "sleep", "777"]);
    let mut client = client.stdout(Stdio::null()).spawn().expect("it starts");
    let count = || host.ok(&["top", &task, "-o", "args"]).matches("sleep 777").count();
    eventually("the command to run", || (count() == 1).then_some(()));
    client.kill().expect("it runs");
    client.wait().expect("it was started here");
    eventually("the command to end", || (count() == 0).then_some(()));
}

#[test]
fn the_docker_command_reaches_into_containers() {
    if !can_run() || which("docker").is_none() {
        return;
    }
    let network = cluster();
    let tasks = [task_on(&network, 0), task_on(&network, 1)];
    let host = network.manager();
    for task in &tasks {
        let script = ["exec", "-i", task, "sh", "-c", "cat; exit 5"];
        check(&docker(host, &script, b"through docker"), 5, "through docker");
        check(&docker(host, &["exec", task, "nope"], b""), 127, "");
        let folder = host.dir.join(format!("docker-{task}"));
        fs::create_dir_all(folder.join("tree")).expect("a new folder");
        fs::write(folder.join("tree/file"), "text").expect("a new file");
        let (from, back) = (folder.join("tree"), folder.join("back"));
        let (from, back) = (from.display().to_string(), back.display().to_string());
        check(&docker(host, &["cp", "-q", &from, &format!("{task}:/tmp/new")], b""), 0, "");
        check(&docker(host, &["cp", "-q", &format!("{task}:/tmp/new"), &back], b""), 0, "");
        assert_eq!(fs::read_to_string(folder.join("back/file")).expect("it is there"), "text");
        let stats =
            docker(host, &["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", task], b"");
        assert!(text(&stats.stdout).trim().ends_with(" 1"), "{stats:?}");
        let top = docker(host, &["top", task], b"");
        assert!(text(&top.stdout).contains("sleep 10000"), "{top:?}");
    }
    let format =
        "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}}{{end}} {{.HostConfig.NetworkMode}}";
    let shown = docker(host, &["inspect", "-f", format, &tasks[0]], b"");
    check(&shown, 0, "volume data /data bridge\n");
}

/// As its unit has it: the daemon has no right to set the clock, but containerd has.
#[test]
fn a_privileged_command_is_given_what_the_node_has_not_what_the_daemon_has() {
    if !can_run() || which("setpriv").is_none() {
        return;
    }
    let mut network = cluster();
    let host = &mut network.hosts[0];
    let script = host.dir.join("confined");
    let own = midge_binary().display().to_string();
    let text = format!("#!/bin/sh\nexec setpriv --bounding-set=-sys_time {own} \"$@\"\n");
    fs::write(&script, text).expect("a new file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is there");
    host.binary = script;
    host.stop_daemon();
    host.start_daemon();
    let bounding = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
        line.expect("the kernel tells").to_owned()
    };
    assert_ne!(bounding(&host.pid().to_string()), bounding("1"));
    network.manager().wait_running("web", 2);
    let (task, host) = (task_on(&network, 0), network.manager());
    let status = ["grep", "CapEff", "/proc/self/status"];
    let given = midge(host, &[&["exec", "--privileged", &task], &status[..]].concat(), b"");
    check(&given, 0, &format!("CapEff:\t{}\n", bounding("1")));
}
