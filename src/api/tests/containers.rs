//! What is done with running containers: framing, upgrades, archives, and the `docker` command.

use super::fake::{Server, archive};
use crate::{
    api::local::{Container, MountPoint},
    types::{LogConfig, TaskState, TaskStatus},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};

/// Runs a service; its first task is `web.1`.
fn serve() -> Server {
    let server = Server::start();
    let body = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"bb:1"}},"Mode":{"Replicated":{"Replicas":1}}}"#;
    assert_eq!(server.send("POST /services/create", body).0, 201);
    server
}

fn create(server: &Server, body: &Value) -> (u16, Value) {
    server.send("POST /containers/web.1/exec", &body.to_string())
}

/// Starts the command on a connection that becomes its own; sends `input`, closes that direction
/// and returns head and body of the answer.
fn hijack(server: &Server, input: &[u8]) -> (String, Vec<u8>) {
    let mut stream = server.connect();
    let body = br#"{"Detach":false,"Tty":false}"#;
    let head = format!(
        "POST /v1.41/exec/e1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    // Without waiting for the answer: what came too early must not be lost.
    stream.write_all(input).unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    // Only now, as Docker's clients do it: before, it would be a client that has gone.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..split]).into_owned(), answer[split + 4..].to_vec())
}

#[test]
fn commands_take_the_connection_over() {
    let server = serve();
    let command = json!({"AttachStdin": true, "AttachStdout": true, "Cmd": ["cat"]});
    assert_eq!(create(&server, &command), (201, json!({"Id": "e1"})));
    let (head, body) = hijack(&server, b"hello");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("application/vnd.docker.multiplexed-stream"), "{head}");
    assert_eq!(body, b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x04end\n");
    let mut tty = command.clone();
    tty["Tty"] = json!(true);
    create(&server, &tty);
    let (head, body) = hijack(&server, b"hello");
    assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
    assert_eq!(body, b"helloend\n");
    let (status, _, body) = server
        .raw("POST /exec/e1/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json", b"{}");
    assert_eq!((status, body.as_slice()), (200, &b"end\n"[..]), "without an upgrade, no input");
    create(&server, &json!({"Cmd": ["nope"]}));
    let (head, body) = hijack(&server, b"");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(body, b"\x02\0\0\0\0\0\0\x11nope: not found\r\n");
    let shown = server.send("GET /exec/e1/json", "").1;
    assert_eq!((&shown["ExitCode"], &shown["Running"]), (&json!(127), &json!(false)));
}

#[test]
fn commands_are_refused_for_what_is_wrong() {
    let server = serve();
    assert_eq!(create(&server, &json!({"Cmd": []})).0, 400);
    let missing = server.send("POST /containers/nope/exec", r#"{"Cmd":["a"]}"#);
    assert_eq!(missing, (404, json!({"message": "No such container: nope"})));
    assert_eq!(server.send("GET /exec/e9/json", "").0, 404);
    create(&server, &json!({"Cmd": ["a"]}));
    assert_eq!(server.send("POST /exec/e1/resize?w=80&h=25", "").0, 200);
    assert_eq!(server.send("POST /exec/e1/resize?w=81&h=25", "").0, 409);
    assert_eq!(server.send("POST /exec/e1/resize?w=x&h=25", "").0, 400);
    assert_eq!(server.send("POST /exec/e1/start", r#"{"Detach":true}"#).0, 200);
}

#[test]
fn archives_come_whole_or_break() {
    let server = serve();
    let get = |path: &str| {
        server.raw(&format!("GET /containers/web.1/archive?path={path} HTTP/1.1\r\nHost: d"), b"")
    };
    let (status, head, body) = get("/file");
    assert_eq!((status, body), (200, archive()));
    assert!(head.contains("x-docker-container-path-stat: eyJ"), "{head}");
    assert!(head.contains("application/x-tar"), "{head}");
    let mut stream = server.connect();
    write!(stream, "GET /containers/web.1/archive?path=/cut HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Reset, or just closed: in neither case does the last, empty chunk come.
    let _read = stream.read_to_end(&mut answer);
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.send("GET /containers/web.1/archive", "").0, 400);
    let put = "PUT /containers/web.1/archive?path=/tmp&noOverwriteDirNonDir=true HTTP/1.1\r\n\
               Host: d\r\nContent-Type: application/x-tar";
    assert_eq!(server.raw(put, b"bytes").0, 200);
    assert_eq!(*server.node.uploaded.lock().unwrap(), b"bytes");
    let none = "HEAD /containers/web.1/archive?path=/none HTTP/1.1\r\nHost: d";
    assert_eq!(server.raw(none, b"").0, 404);
}

#[test]
fn counters_come_with_those_before() {
    let server = serve();
    let lines = |query: &str| -> Vec<Value> {
        let (status, _, body) =
            server.raw(&format!("GET /containers/web.1/stats?{query} HTTP/1.1\r\nHost: d"), b"");
        assert_eq!(status, 200);
        let text = String::from_utf8(body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let used = |stats: &Value, part: &str| stats[part]["cpu_usage"]["total_usage"].clone();
    let all = lines("stream=1");
    assert_eq!(all.len(), 3);
    assert_eq!(used(&all[0], "precpu_stats"), 0);
    assert_eq!(used(&all[2], "precpu_stats"), used(&all[1], "cpu_stats"));
    let twice = lines("stream=0");
    assert_eq!((twice.len(), used(&twice[0], "precpu_stats")), (1, json!(100)));
    let once = lines("stream=false&one-shot=true");
    assert_eq!((once.len(), used(&once[0], "cpu_stats")), (1, json!(100)));
    let top = server.send("GET /containers/web.1/top?ps_args=aux", "");
    assert_eq!(top, (200, json!({"Titles": ["PID", "CMD"], "Processes": [["1", "sh aux"]]})));
}

/// Runs `docker` against the server; returns exit status, output and error output.
fn docker(server: &Server, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new("docker")
        .args(["-H", &format!("unix://{}", server.path.display())])
        .args(arguments)
        .env("DOCKER_CONFIG", server.path.parent().unwrap())
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_API_VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Where the command does not read it, it has ended.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_docker_command_works() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: docker is not installed");
        return;
    }
    let server = serve();
    let ran = docker(&server, &["exec", "-i", "-e", "A=1", "web.1", "cat", "-n"], "hello");
    assert_eq!(ran, (7, "hello".into(), "end\n".into()));
    let (_, spec) = server.node.execs.lock().unwrap().last().cloned().unwrap();
    assert_eq!((spec.command, spec.env), (vec!["cat".into(), "-n".into()], vec!["A=1".into()]));
    assert!(spec.stdin && spec.stdout && spec.stderr && !spec.tty);
    assert_eq!(docker(&server, &["exec", "web.1", "nope"], "").0, 127);
    assert_eq!(docker(&server, &["exec", "-d", "web.1", "a"], "").0, 0);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    let (code, _, text) = docker(&server, &["cp", "web.1:/file", to.to_str().unwrap()], "");
    assert_eq!((code, std::fs::read_to_string(&to).unwrap()), (0, "hi".into()), "{text}");
    let (code, _, text) = docker(&server, &["cp", to.to_str().unwrap(), "web.1:/tmp"], "");
    assert_eq!(code, 0, "{text}");
    assert!(!server.node.uploaded.lock().unwrap().is_empty());
    let stats = docker(&server, &["stats", "--no-stream", "web.1"], "");
    assert!(stats.1.contains("20.00%") && stats.1.contains("1MiB / 4MiB"), "{stats:?}");
    let top = docker(&server, &["top", "web.1", "-o", "pid"], "");
    assert!(top.1.contains("sh -o pid"), "{top:?}");
    let shown = docker(&server, &["inspect", "-f", "{{.HostConfig.NetworkMode}}", "web.1"], "");
    assert_eq!(shown.1, "bridge\n");
    // By the id of a task, which `docker service ps -q` prints, people ask for the task.
    let id = server.node.tasks.lock().unwrap()[0].id.to_string();
    let format = "{{.Status.State}} {{.DesiredState}} {{.Spec.ContainerSpec.Image}} {{.NodeID}}";
    let shown = docker(&server, &["inspect", "-f", format, &id[..12]], "");
    let node = &server.node.tasks.lock().unwrap()[0].node.clone().unwrap();
    assert_eq!(shown.1, format!("running running bb:1 {node}\n"), "{}", shown.2);
    for ending in [&["kill", "-s", "HUP"][..], &["stop", "-t", "1"], &["restart"]] {
        let ended = docker(&server, &[ending, &["web.1"]].concat(), "");
        assert_eq!((ended.0, ended.1.as_str()), (0, "web.1\n"), "{ending:?}: {}", ended.2);
    }
    server.node.tasks.lock().unwrap()[0].status =
        TaskStatus { state: TaskState::Failed, exit_code: Some(9), ..TaskStatus::default() };
    assert_eq!(docker(&server, &["wait", "web.1"], "").1, "9\n");
    let (code, _, text) = docker(&server, &["kill", "web.1"], "");
    assert!(code == 1 && text.contains("is not running"), "{text}");
}

/// Puts a container on the node whose task is `web.1`.
fn with_container(server: &Server) {
    let task = server.node.tasks.lock().unwrap()[0].clone();
    let mount = MountPoint {
        kind: "volume",
        name: "data".to_owned(),
        source: "/volumes/data".to_owned(),
        target: "/data".to_owned(),
        read_only: false,
    };
    let mut container = Container {
        image_id: format!("sha256:{}", "a".repeat(64)),
        addresses: vec!["10.200.0.2".parse().unwrap()],
        mounts: vec![mount],
        ..Container::of_task(&task, &task.status)
    };
    let spec = Arc::make_mut(&mut container.spec);
    spec.container.privileged = true;
    spec.log = Some(LogConfig { driver: "none".to_owned(), options: BTreeMap::new() });
    server.node.containers.lock().unwrap().push(container);
}

#[test]
fn lists_and_inspect_tell_the_same_of_a_container() {
    let server = serve();
    with_container(&server);
    let list = server.send("GET /containers/json", "").1;
    let shown = server.send("GET /containers/web.1/json", "").1;
    let id = format!("sha256:{}", "a".repeat(64));
    assert_eq!((&list[0]["ImageID"], &shown["Image"]), (&json!(id), &json!(id)));
    assert_eq!(list[0]["HostConfig"]["NetworkMode"], "bridge");
    let network =
        json!({"NetworkID": "bridge", "IPAddress": "10.200.0.2", "GlobalIPv6Address": ""});
    assert_eq!(list[0]["NetworkSettings"]["Networks"], json!({ "bridge": network }));
    assert_eq!(shown["NetworkSettings"]["Networks"], list[0]["NetworkSettings"]["Networks"]);
    assert_eq!(list[0]["Mounts"][0]["Name"], "data");
    assert_eq!(shown["Mounts"], list[0]["Mounts"]);
    assert_eq!(shown["HostConfig"]["Privileged"], true);
    assert_eq!(shown["HostConfig"]["LogConfig"], json!({"Type": "none", "Config": {}}));
    // Of a task elsewhere the image's id is not known.
    server.node.containers.lock().unwrap().clear();
    let shown = server.send("GET /containers/web.1/json", "").1;
    assert_eq!((&shown["Image"], &shown["Mounts"]), (&Value::Null, &json!([])));
}

#[test]
fn the_docker_command_lists_containers() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: docker is not installed");
        return;
    }
    let server = serve();
    with_container(&server);
    let format = "{{.Image}} {{.Networks}} {{.Mounts}}";
    let ps = |filter: &str| docker(&server, &["ps", "-f", filter, "--format", format], "").1;
    assert_eq!(ps(r"name=^web\.1"), "bb:1 bridge data\n");
    assert_eq!(ps(r"name=^eb"), "");
    assert_eq!(ps("ancestor=bb:1"), "bb:1 bridge data\n");
}
