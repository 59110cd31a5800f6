//! Signals to containers, their end by a user's wish, and waiting for it.

use super::fake::{Server, eventually};
use crate::{
    api::local::{ContainerExit, StopOptions},
    cluster::{Class, Refusal},
    types::TaskState,
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

/// Runs a service with these options of its container and this restart policy; its task is `web.1`.
fn serve(container: &Value, policy: &Value) -> Server {
    let server = Server::start();
    let mut container = container.clone();
    container["Image"] = json!("bb:1");
    let body = json!({
        "Name": "web",
        "TaskTemplate": { "ContainerSpec": container, "RestartPolicy": policy },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    assert_eq!(server.send("POST /services/create", &body.to_string()).0, 201);
    server
}

fn plain() -> Server {
    serve(&json!({}), &json!({}))
}

fn set(server: &Server, state: TaskState, exit_code: Option<i32>) {
    let mut tasks = server.node.tasks.lock().unwrap();
    tasks[0].status.state = state;
    tasks[0].status.exit_code = exit_code;
}

fn message(text: &str) -> Value {
    json!({ "message": text })
}

fn id(server: &Server) -> String {
    server.node.tasks.lock().unwrap()[0].id.to_string()
}

#[test]
fn signals_go_to_the_containers_node() {
    let server = plain();
    for (query, number) in
        [("", 9), ("?signal=HUP", 1), ("?signal=sigusr1", 10), ("?signal=64", 64), ("?signal=", 9)]
    {
        assert_eq!(server.send(&format!("POST /v1.41/containers/web.1/kill{query}"), "").0, 204);
        let (place, sent) = server.node.signals.lock().unwrap().pop().unwrap();
        assert_eq!((place.node.as_ref(), sent), (Some(&server.node.nodes[0].id), number));
    }
    let rtmin = server.send("POST /containers/web.1/kill?signal=SIGRTMIN%2B3", "");
    assert_eq!((rtmin.0, server.node.signals.lock().unwrap().pop().unwrap().1), (204, 37));
    for wrong in ["0", "65", "NOPE", "-1"] {
        let text = format!("cannot kill container: web.1: invalid signal: {wrong}");
        let answer = server.send(&format!("POST /containers/web.1/kill?signal={wrong}"), "");
        assert_eq!(answer, (400, message(&text)));
    }
    let text = "cannot kill container: nope: No such container: nope";
    assert_eq!(server.send("POST /containers/nope/kill", ""), (404, message(text)));
    set(&server, TaskState::Failed, Some(1));
    let text = format!("cannot kill container: web.1: container {} is not running", id(&server));
    assert_eq!(server.send("POST /containers/web.1/kill", ""), (409, message(&text)));
    assert!(server.node.signals.lock().unwrap().is_empty());
}

#[test]
fn a_container_is_stopped_as_asked_for_or_as_its_service_has_it() {
    let spec = json!({ "StopSignal": "SIGQUIT", "StopGracePeriod": 3_000_000_000_u64 });
    let server = serve(&spec, &json!({}));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (query, signal, grace) in [
        ("", Some(3), seconds(3)),
        ("?t=0", Some(3), seconds(0)),
        ("?t=60&signal=INT", Some(2), seconds(60)),
        ("?t=-1", Some(3), None),
    ] {
        assert_eq!(server.send(&format!("POST /containers/web.1/stop{query}"), "").0, 204);
        let (_, options) = server.node.stops.lock().unwrap().pop().unwrap();
        assert_eq!(options, StopOptions { signal, grace }, "{query}");
    }
    assert_eq!(server.send("POST /containers/web.1/stop?t=soon", "").0, 400);
    let wrong = server.send("POST /containers/web.1/stop?signal=NOPE", "");
    assert_eq!(wrong, (400, message("cannot stop container: web.1: invalid signal: NOPE")));
    let missing = server.send("POST /containers/nope/stop", "");
    assert_eq!(missing, (404, message("No such container: nope")));
    for state in [TaskState::Complete, TaskState::Preparing] {
        set(&server, state, None);
        assert_eq!(server.send("POST /containers/web.1/stop", "").0, 304);
    }
    assert!(server.node.stops.lock().unwrap().is_empty());
    let other = plain();
    assert_eq!(other.send("POST /containers/web.1/stop", "").0, 204);
    let (_, options) = other.node.stops.lock().unwrap().pop().unwrap();
    assert_eq!(options, StopOptions { signal: None, grace: seconds(10) }, "the image's signal");
}

#[test]
fn only_what_is_surely_replaced_is_restarted() {
    let server = plain();
    assert_eq!(server.send("POST /containers/web.1/restart?t=5", "").0, 204);
    let (_, options) = server.node.stops.lock().unwrap().pop().unwrap();
    assert_eq!(options.grace, Some(Duration::from_secs(5)));
    set(&server, TaskState::Failed, Some(1));
    assert_eq!(server.send("POST /containers/web.1/restart", "").0, 409);
    for policy in [
        json!({ "Condition": "on-failure" }),
        json!({ "Condition": "none" }),
        json!({ "Condition": "any", "MaxAttempts": 3 }),
    ] {
        let server = serve(&json!({}), &policy);
        let (status, answer) = server.send("POST /containers/web.1/restart", "");
        let text = answer["message"].as_str().unwrap();
        assert!(status == 409 && text.contains("midge service update --force"), "{policy}: {text}");
        assert!(server.node.stops.lock().unwrap().is_empty());
    }
}

/// Waits for a container's end, of which the node says `outcome`.
fn waited(server: &Server, query: &str, outcome: Result<ContainerExit, Refusal>) -> (u16, Value) {
    std::thread::scope(|scope| {
        let request = format!("POST /v1.41/containers/web.1/wait{query}");
        let asked = scope.spawn(move || server.send(&request, ""));
        eventually("a waiter", || !server.node.waiters.lock().unwrap().is_empty());
        let (removed, waiter) = server.node.waiters.lock().unwrap().pop().unwrap();
        assert_eq!(removed, query == "?condition=removed");
        waiter.try_send(outcome).unwrap();
        asked.join().unwrap()
    })
}

fn exit(code: i32, reason: &str) -> ContainerExit {
    ContainerExit { code, reason: reason.to_owned() }
}

#[test]
fn the_end_of_a_container_is_waited_for() {
    let server = plain();
    for query in ["", "?condition=not-running", "?condition=next-exit", "?condition=removed"] {
        let ended = waited(&server, query, Ok(exit(7, "")));
        assert_eq!(ended, (200, json!({ "StatusCode": 7 })), "{query}");
    }
    let lost = waited(&server, "", Ok(exit(255, "exit status lost")));
    let shown = json!({ "StatusCode": 255, "Error": { "Message": "exit status lost" } });
    assert_eq!(lost, (200, shown));
    let failed = waited(&server, "", Err(Refusal::new(Class::Unsupported, "too old")));
    assert_eq!(failed.1, json!({ "StatusCode": -1, "Error": { "Message": "too old" } }));
    let wrong = server.send("POST /containers/web.1/wait?condition=x", "");
    assert_eq!(wrong, (400, message("invalid condition: \"x\"")));
    let missing = server.send("POST /containers/nope/wait", "");
    assert_eq!(missing, (404, message("No such container: nope")));
    set(&server, TaskState::Preparing, None);
    let ended = waited(&server, "", Ok(exit(0, "")));
    assert_eq!(ended, (200, json!({ "StatusCode": 0 })), "also of what is yet to start");
    set(&server, TaskState::Complete, Some(0));
    let past = server.send("POST /containers/web.1/wait", "");
    assert_eq!(past, (200, json!({ "StatusCode": 0 })), "at once");
    assert!(server.node.waiters.lock().unwrap().is_empty());
}

#[test]
fn a_wait_outlives_that_its_node_is_out_of_sight() {
    let server = plain();
    let lost = || Err(Refusal::new(Class::Unavailable, "the stream was cut off"));
    let said = |outcome: Result<ContainerExit, Refusal>| {
        eventually("a waiter", || !server.node.waiters.lock().unwrap().is_empty());
        let (_, waiter) = server.node.waiters.lock().unwrap().pop().unwrap();
        waiter.try_send(outcome).unwrap();
    };
    let wait = || server.send("POST /containers/web.1/wait", "");
    std::thread::scope(|scope| {
        let asked = scope.spawn(wait);
        said(lost());
        // Asked again, the node tells.
        said(Ok(exit(3, "")));
        assert_eq!(asked.join().unwrap(), (200, json!({ "StatusCode": 3 })));

        let asked = scope.spawn(wait);
        eventually("a waiter", || !server.node.waiters.lock().unwrap().is_empty());
        // By then the cluster knows.
        set(&server, TaskState::Failed, Some(4));
        said(lost());
        assert_eq!(asked.join().unwrap(), (200, json!({ "StatusCode": 4 })));
    });
}

#[test]
fn a_client_that_leaves_waits_no_more() {
    let server = plain();
    let mut client = server.connect();
    write!(client, "POST /containers/web.1/wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    // The head comes before the end, so that a client knows that it waits.
    let mut head = [0; 15];
    client.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let (_, waiter) = server.node.waiters.lock().unwrap().pop().unwrap();
    assert!(!waiter.is_closed());
    drop(client);
    eventually("the wait to be given up", || waiter.is_closed());
}
