use super::fake::{Server, eventually};
use crate::{
    api::error,
    cluster::{Class, Request},
    types::{HeldImage, Platform},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    sync::atomic::Ordering,
};

/// What `docker service create` sends, with the options that midge has.
const CREATE: &str = r#"{"Name":"hw","Labels":{"k":"v"},"TaskTemplate":{"ContainerSpec":{"Image":"bb:1","Args":["sh","-c","sleep 3600 \u0026 wait"],"Env":["A=1","B=two"],"Init":false,"Mounts":[{"Type":"volume","Source":"vv","Target":"/v"}],"DNSConfig":{}},"Resources":{"Limits":{"MemoryBytes":67108864},"Reservations":{"NanoCPUs":100000000}},"RestartPolicy":{"Condition":"any","Delay":5000000000,"MaxAttempts":5},"Placement":{"Constraints":["node.role!=manager"],"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.zone"}}],"MaxReplicas":2},"ForceUpdate":0},"Mode":{"Replicated":{"Replicas":3}},"EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8055,"PublishMode":"host"}]},"NobodyKnowsThis":{"a":[1]}}"#;

fn create(server: &Server, body: &str) -> Value {
    let (status, answer) = server.send("POST /v1.41/services/create", body);
    assert_eq!(status, 201, "{answer}");
    answer
}

#[test]
fn every_version_prefix_and_none_is_answered() {
    let server = Server::start();
    for path in ["/_ping", "/v1.24/_ping", "/v1.47/_ping"] {
        let (status, head, body) = server.raw(&format!("GET {path} HTTP/1.1\r\nHost: d"), b"");
        assert_eq!((status, body.as_slice()), (200, &b"OK"[..]));
        assert!(head.contains("api-version: 1.47"), "{head}");
    }
    let (status, _, body) = server.raw("HEAD /_ping HTTP/1.1\r\nHost: d", b"");
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(server.send("GET /v1.48/info", "").0, 400);
    assert_eq!(server.send("GET /v1.12/info", "").0, 400);
    assert_eq!(server.send("GET /nope", ""), (404, json!({"message": "page not found"})));
    assert_eq!(server.send("DELETE /version", "").0, 405);
    for list in ["secrets", "configs?filters=%7B%7D", "plugins"] {
        assert_eq!(server.send(&format!("GET /v1.41/{list}"), ""), (200, json!([])), "{list}");
    }
    for (request, advice) in [
        ("POST /v1.41/containers/create?name=a", "use midge service create"),
        ("POST /containers/web.1.abc/pause", "midge service update"),
        ("DELETE /containers/abc?force=1", "service update --force"),
        ("POST /v1.47/networks/create", "publish mode=host"),
        ("POST /secrets/create", "--mount type=bind"),
        ("POST /images/reg.lan:5000/app/push?tag=1", "where there is a Docker"),
        ("POST /build?t=a", "midge image load --nodes all"),
    ] {
        let (status, answer) = server.send(request, "");
        let message = answer["message"].as_str().unwrap();
        assert!(status == 501 && message.contains(advice), "{request}: {status} {message}");
    }
    assert_eq!(server.send("GET /v1.24/distribution/a/json", "").0, 404, "came with 1.30");
}

#[test]
fn a_refusal_is_read_by_a_client_that_first_sends_its_whole_body() {
    let server = Server::start();
    let body = vec![b' '; 1 << 20];
    for path in ["/nope", "/v1.12/services/create", "/v1.41/secrets/create"] {
        let mut stream = server.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {}", body.len());
        let next = "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
        for part in [head.as_bytes(), b"\r\n\r\n", &body, next.as_bytes()] {
            stream.write_all(part).unwrap();
        }
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert!(answers.contains("\"message\"") && answers.ends_with("OK"), "{path}: {answers}");
    }
}

#[test]
fn each_class_has_its_status() {
    for (class, status) in [
        (Class::NotFound, 404),
        (Class::Invalid, 400),
        (Class::Conflict, 409),
        (Class::Forbidden, 403),
        (Class::Unauthorized, 401),
        (Class::Unavailable, 503),
        (Class::Unsupported, 501),
        (Class::Internal, 500),
    ] {
        assert_eq!(error::status(class).as_u16(), status);
        let server = Server::start();
        server.node.refuse(class);
        assert_eq!(server.send("GET /services", ""), (status, json!({"message": "no"})));
    }
}

#[test]
fn a_service_survives_get_modify_post() {
    let server = Server::start();
    create(&server, CREATE);
    let (status, shown) = server.send("GET /v1.41/services/hw?insertDefaults=false", "");
    assert_eq!(status, 200);
    let wanted: Value = serde_json::from_str(CREATE).unwrap();
    let spec = &shown["Spec"];
    for path in [
        "/Name",
        "/Labels",
        "/TaskTemplate/ContainerSpec/Args",
        "/TaskTemplate/ContainerSpec/Env",
        "/TaskTemplate/ContainerSpec/Mounts",
        "/TaskTemplate/Resources",
        "/TaskTemplate/Placement",
        "/Mode",
        "/EndpointSpec",
    ] {
        assert_eq!(spec.pointer(path), wanted.pointer(path), "{path}");
    }
    let before = server.node.services.lock().unwrap()[0].spec.clone();
    for query in ["", "?insertDefaults=true"] {
        let (_, shown) = server.send(&format!("GET /services/hw{query}"), "");
        let (id, version) = (&shown["ID"], &shown["Version"]["Index"]);
        let id = id.as_str().unwrap();
        let path = format!("POST /services/{id}/update?registryAuthFrom=spec&version={version}");
        let answer = server.send(&path, &shown["Spec"].to_string());
        assert_eq!(answer, (200, json!({"Warnings": null})), "{query}");
        assert_eq!(server.node.services.lock().unwrap()[0].spec, before, "{query}");
        let (status, answer) = server.send(&path, &shown["Spec"].to_string());
        assert_eq!((status, &answer["message"]), (409, &json!("update out of sequence")));
    }
}

#[test]
fn an_update_cannot_rename_or_change_the_mode() {
    let server = Server::start();
    create(&server, CREATE);
    let (_, shown) = server.send("GET /services/hw", "");
    let path = format!("POST /services/hw/update?version={}", shown["Version"]["Index"]);
    let mut renamed = shown["Spec"].clone();
    renamed["Name"] = json!("other");
    assert_eq!(server.send(&path, &renamed.to_string()).0, 501);
    let mut global = shown["Spec"].clone();
    global["Mode"] = json!({"Global": {}});
    assert_eq!(server.send(&path, &global.to_string()).0, 501);
    assert_eq!(server.send("POST /services/hw/update?version=x", "{}").0, 400);
    assert_eq!(server.send("POST /services/hw/update?version=1&rollback=previous", "{}").0, 409);
    assert_eq!(server.send("POST /services/hw/update?version=1&rollback=next", "{}").0, 400);
    let same = shown["Spec"].to_string();
    assert_eq!(server.send(&format!("{path}&rollback=none"), &same).0, 200);
}

#[test]
fn logins_are_kept_and_never_shown() {
    let server = Server::start();
    // {"username":"u","password":"hidden","serveraddress":"x"}
    let auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6ImhpZGRlbiIsInNlcnZlcmFkZHJlc3MiOiJ4In0=";
    let head = format!("POST /services/create HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: {auth}");
    assert_eq!(server.raw(&head, CREATE.as_bytes()).0, 201);
    let held = || server.node.services.lock().unwrap()[0].spec.task.credential.clone();
    assert_eq!(held().unwrap().secret, "hidden");
    let (_, shown) = server.send("GET /services/hw", "");
    assert!(!shown.to_string().contains("hidden"));
    let path = format!("POST /services/hw/update?version={}", shown["Version"]["Index"]);
    assert_eq!(server.send(&path, &shown["Spec"].to_string()).0, 200);
    assert_eq!(held().unwrap().secret, "hidden");
}

#[test]
fn a_login_is_tried_at_the_registry_that_its_address_stands_for() {
    let server = Server::start();
    let login = |body: Value| server.send("POST /auth", &body.to_string());
    let good = json!({"Status": "Login Succeeded", "IdentityToken": ""});
    for address in ["reg.example", "https://reg.example", "http://reg.example/v2/"] {
        let body = json!({"username": "fleet", "password": "secret", "serveraddress": address});
        assert_eq!(login(body), (200, good.clone()), "{address}");
    }
    for address in ["", "https://index.docker.io/v1/"] {
        let body = json!({"IdentityToken": "token", "ServerAddress": address});
        assert_eq!(login(body), (200, good.clone()), "{address}");
    }
    let wrong = json!({"username": "fleet", "password": "x", "serveraddress": "reg.example"});
    assert_eq!(login(wrong).0, 401);
    assert_eq!(login(json!({"password": "secret"})).0, 400);
}

#[test]
fn logins_are_read_as_docker_py_spells_them() {
    let server = Server::start();
    // {"ServerAddress":"x","Username":"u","Password":"hidden"}
    let password = "eyJTZXJ2ZXJBZGRyZXNzIjoieCIsIlVzZXJuYW1lIjoidSIsIlBhc3N3b3JkIjoiaGlkZGVuIn0=";
    // {"IdentityToken":"hidden"}
    let token = "eyJJZGVudGl0eVRva2VuIjoiaGlkZGVuIn0=";
    for (auth, is_token) in [(password, false), (token, true)] {
        server.node.services.lock().unwrap().clear();
        let head = format!("POST /services/create HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: {auth}");
        assert_eq!(server.raw(&head, CREATE.as_bytes()).0, 201);
        let held = server.node.services.lock().unwrap()[0].spec.task.credential.clone().unwrap();
        assert_eq!((held.secret.as_str(), held.is_token), ("hidden", is_token));
    }
}

/// docker-py writes the mode in small letters, and Docker's engine reads it.
#[test]
fn modes_are_read_as_docker_py_spells_them() {
    let server = Server::start();
    for (mode, expected) in [
        (json!({"replicated": {"Replicas": 5}}), json!({"Replicated": {"Replicas": 5}})),
        (json!({"global": {}}), json!({"Global": {}})),
    ] {
        server.node.services.lock().unwrap().clear();
        let mut spec: Value = serde_json::from_str(CREATE).unwrap();
        spec["Mode"] = mode;
        spec["TaskTemplate"]["Placement"]["MaxReplicas"] = json!(0);
        spec["Labels"] = json!({"Tier": "a", "tier": "b"});
        create(&server, &spec.to_string());
        let (_, shown) = server.send("GET /services/hw", "");
        assert_eq!(shown["Spec"]["Mode"], expected);
        assert_eq!(shown["Spec"]["Labels"], spec["Labels"]);
    }
}

#[test]
fn an_unpinned_image_is_pinned_to_what_nodes_hold() {
    let server = Server::start();
    let held = |digest: &str| HeldImage {
        name: "bb:1".to_owned(),
        digest: format!("sha256:{}", digest.repeat(64)),
        platforms: vec![Platform::normalized("linux", "arm", "v7")],
    };
    let ids: Vec<_> = server.node.nodes.iter().map(|node| node.id.clone()).collect();
    *server.node.held.lock().unwrap() =
        vec![(ids[0].clone(), held("b")), (ids[1].clone(), held("c")), (ids[2].clone(), held("c"))];
    let answer = create(&server, CREATE);
    assert!(answer["Warnings"][0].as_str().unwrap().contains("different images"), "{answer}");
    let spec = server.node.services.lock().unwrap()[0].spec.clone();
    let pin = spec.task.pin.clone().unwrap();
    assert_eq!((pin.digest, pin.nodes), (format!("sha256:{}", "c".repeat(64)), ids[1..].to_vec()));
    assert_eq!(spec.task.placement.platforms, [Platform::normalized("linux", "arm", "v7")]);
    // Scaling through a client that drops the variant changes neither pin nor platforms.
    server.node.held.lock().unwrap().clear();
    let (_, shown) = server.send("GET /services/hw", "");
    let mut scaled = shown["Spec"].clone();
    scaled["Mode"]["Replicated"]["Replicas"] = json!(9);
    let platform = &mut scaled["TaskTemplate"]["Placement"]["Platforms"][0];
    platform.as_object_mut().unwrap().remove("Variant");
    let path = format!("POST /services/hw/update?version={}", shown["Version"]["Index"]);
    assert_eq!(server.send(&path, &scaled.to_string()).0, 200);
    assert_eq!(server.node.services.lock().unwrap()[0].spec.task, spec.task);
    // Another variable keeps the digest and learns who holds it; force takes today's content.
    *server.node.held.lock().unwrap() =
        vec![(ids[0].clone(), held("c")), (ids[1].clone(), held("d")), (ids[2].clone(), held("d"))];
    for (path, value, digest, nodes) in [
        ("/TaskTemplate/ContainerSpec/Env", json!(["C=3"]), "c", &ids[..1]),
        ("/TaskTemplate/ForceUpdate", json!(1), "d", &ids[1..]),
    ] {
        let (_, shown) = server.send("GET /services/hw", "");
        let mut changed = shown["Spec"].clone();
        *changed.pointer_mut(path).unwrap() = value;
        let update = format!("POST /services/hw/update?version={}", shown["Version"]["Index"]);
        assert_eq!(server.send(&update, &changed.to_string()).0, 200);
        let pin = server.node.services.lock().unwrap()[0].spec.task.pin.clone().unwrap();
        let digest = format!("sha256:{}", digest.repeat(64));
        assert_eq!((pin.digest, pin.nodes), (digest, nodes.to_vec()), "{path}");
    }
}

#[test]
fn nodes_are_found_by_id_prefix_and_name() {
    let server = Server::start();
    let ids: Vec<String> = server.node.nodes.iter().map(|node| node.id.to_string()).collect();
    let (status, found) = server.send("GET /nodes/m1", "");
    assert_eq!((status, &found["ID"]), (200, &json!(ids[0])));
    assert_eq!(found["ManagerStatus"]["Leader"], true);
    assert_eq!(found["Description"]["Platform"]["Architecture"], "armv7l");
    let (status, refused) = server.send("GET /nodes/twin", "");
    let message = refused["message"].as_str().unwrap();
    assert!(status == 400 && message.contains(&ids[1]) && message.contains(&ids[2]), "{message}");
    let (status, refused) = server.send("DELETE /nodes/nope", "");
    assert_eq!((status, &refused["message"]), (404, &json!("node nope not found")));
    let (_, list) =
        server.send("GET /nodes?filters=%7B%22role%22%3A%7B%22worker%22%3Atrue%7D%7D", "");
    assert_eq!(list.as_array().unwrap().len(), 2);
    let body = r#"{"Labels":{"a":"b"},"Role":"manager","Availability":"drain"}"#;
    assert_eq!(server.send("POST /nodes/m1/update?version=7", body).0, 200);
    let requests = server.node.requests.lock().unwrap();
    let Some(Request::UpdateNode { version, spec, .. }) = requests.last() else { panic!() };
    assert_eq!((version.index, spec.labels.len()), (7, 1));
}

#[test]
fn no_limit_of_processes_has_two_names() {
    let server = Server::start();
    let body = r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"bb:1"},
        "Resources":{"Limits":{"Pids":-1}}}}"#;
    create(&server, body);
    assert_eq!(server.node.services.lock().unwrap()[0].spec.task.limits.pids, 0);
}

#[test]
fn tasks_are_filtered_and_counted() {
    let server = Server::start();
    create(&server, CREATE);
    let (_, services) = server.send("GET /services?status=true", "");
    let status = json!({"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0});
    assert_eq!(services[0]["ServiceStatus"], status);
    let count = |filters: &str| {
        let filters = filters.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let (status, tasks) = server.send(&format!("GET /tasks?filters={filters}"), "");
        (status, tasks.as_array().map_or(0, Vec::len))
    };
    assert_eq!(count("{\"service\":{\"hw\":true},\"_up-to-date\":{\"true\":true}}"), (200, 1));
    assert_eq!(count("{\"service\":{\"nope\":true}}"), (200, 0));
    assert_eq!(count("{\"node\":[\"m1\"],\"desired-state\":[\"running\"]}"), (200, 1));
    assert_eq!(count("{\"node\":[\"m1\",\"nope\"]}").0, 404);
    assert_eq!(count("{\"desired-state\":[\"shutdown\"]}"), (200, 0));
    assert_eq!(count("{\"desired-state\":[\"nope\"]}").0, 400);
    assert_eq!(count("{\"nope\":[\"a\"]}").0, 400);
    server.node.tasks.lock().unwrap()[0].spec_version.index = 1;
    // What an update leaves alone, as of another platform learnt of since, is up to date.
    let learnt = vec![Platform::normalized("linux", "riscv64", "")];
    server.node.tasks.lock().unwrap()[0].spec_mut().placement.platforms = learnt;
    assert_eq!(count("{\"_up-to-date\":[\"true\"]}"), (200, 1));
    server.node.tasks.lock().unwrap()[0].spec_mut().force_update = 7;
    assert_eq!(count("{\"_up-to-date\":[\"true\"]}"), (200, 0));
}

#[test]
fn names_are_found_by_an_older_leader_too() {
    let server = Server::start();
    let id = create(&server, CREATE)["ID"].as_str().unwrap().to_owned();
    let task = server.node.tasks.lock().unwrap()[0].id.clone();
    let paths = [
        "GET /services/hw".to_owned(),
        format!("GET /services/{id}"),
        "GET /nodes/m1".to_owned(),
        format!("GET /tasks/{task}"),
        format!("GET /containers/{task}/json"),
        "GET /tasks?filters=%7B%22service%22:[%22hw%22],%22node%22:[%22m1%22]%7D".to_owned(),
    ];
    let answers = || paths.iter().map(|path| server.send(path, "")).collect::<Vec<_>>();
    let before = answers();
    assert!(before.iter().all(|(status, _)| *status == 200), "{before:?}");
    server.node.leads_older.store(true, Ordering::Relaxed);
    assert_eq!(answers(), before);
    assert_eq!(server.send("GET /services/h", "").0, 404);
    assert_eq!(server.send("GET /nodes/twin", "").0, 400, "ambiguous");
}

#[test]
fn nodes_are_filtered_by_what_they_can_be() {
    let server = Server::start();
    let count = |filters: &str| {
        let filters = filters.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let (status, nodes) = server.send(&format!("GET /nodes?filters={filters}"), "");
        (status, nodes.as_array().map_or(0, Vec::len))
    };
    let (_, all) = count("{\"membership\":[\"accepted\"]}");
    let (_, managers) = count("{\"role\":[\"manager\"]}");
    let (_, workers) = count("{\"role\":[\"worker\"]}");
    assert_eq!((all, managers + workers), (server.node.nodes.len(), server.node.nodes.len()));
    assert_eq!(count("{\"membership\":[\"pending\"]}"), (200, 0));
    assert_eq!(count("{\"membership\":[\"nope\"]}").0, 400);
    assert_eq!(count("{\"role\":[\"nope\"]}").0, 400);
}

#[test]
fn the_tail_of_a_service_is_a_number_or_all() {
    let server = Server::start();
    create(&server, CREATE);
    let status = |tail: &str| {
        let head = format!("GET /services/hw/logs?stdout=1&tail={tail} HTTP/1.1\r\nHost: d");
        server.raw(&head, b"").0
    };
    for (tail, expected) in [("all", 200), ("", 200), ("3", 200), ("x", 400), ("-1", 400)] {
        assert_eq!(status(tail), expected, "{tail}");
    }
}

#[test]
fn logs_are_framed_and_name_what_is_missing() {
    let server = Server::start();
    create(&server, CREATE);
    let head = "GET /services/hw/logs?details=1&stderr=1&stdout=1&tail=all&timestamps=1 \
                HTTP/1.1\r\nHost: d";
    let (status, _, body) = server.raw(head, b"");
    assert_eq!(status, 200);
    let length = usize::try_from(u32::from_be_bytes(body[4..8].try_into().unwrap())).unwrap();
    let line = std::str::from_utf8(&body[8..8 + length]).unwrap();
    let start = "1970-01-01T00:00:00.000000001Z com.docker.swarm.node.id=";
    assert!(body[0] == 2 && line.starts_with(start) && line.ends_with(" hello\n"), "{line}");
    let rest = &body[8 + length..];
    assert_eq!(rest[0], 3);
    assert!(String::from_utf8_lossy(rest).contains("node twin is away"));
    assert_eq!(server.send("GET /services/hw/logs", "").0, 400, "no stream was chosen");
}

#[test]
fn a_client_that_leaves_ends_its_stream() {
    let server = Server::start();
    create(&server, CREATE);
    let mut stream = server.connect();
    write!(stream, "GET /services/hw/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut some = [0; 64];
    assert!(stream.read(&mut some).unwrap() > 0);
    eventually("a stream", || server.node.following.load(Ordering::SeqCst) == 1);
    drop(stream);
    eventually("an end", || server.node.following.load(Ordering::SeqCst) == 0);
}

#[test]
fn uploads_and_progress_stream() {
    let server = Server::start();
    // Larger than any JSON body may be.
    let archive = vec![7; 5 * 1024 * 1024];
    let head = "POST /midge/images/load?nodes=a,b HTTP/1.1\r\nHost: d";
    let (status, _, body) = server.raw(head, &archive);
    assert_eq!(status, 200);
    assert_eq!(*server.node.uploaded.lock().unwrap(), archive);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        "{\"stream\":\"Loaded image: Named([\\\"a\\\", \\\"b\\\"])\\n\"}\r\n"
    );
    let head = "POST /images/create?fromImage=reg.example%2Fa&tag=1 HTTP/1.1\r\nHost: d";
    let (_, _, body) = server.raw(head, b"");
    let text = String::from_utf8(body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["status"], "Pulling reg.example/a:1");
    assert_eq!(lines[1]["errorDetail"]["message"], "cut");
}

#[test]
fn variants_travel_through_dockers_client() {
    let server = Server::start();
    let (status, found) = server.send("GET /distribution/reg.example/a:1/json", "");
    assert_eq!(status, 200);
    assert_eq!(found["Platforms"][0]["architecture"], "armv6");
    assert_eq!(server.send("GET /distribution/bb:1/json", "").0, 500);
    let read = Platform::normalized("linux", "armv6", "");
    assert_eq!(read, Platform::normalized("linux", "arm", "v6"));
}

#[test]
fn a_panic_answers_500_and_ends_nothing() {
    let server = Server::start();
    let mut stream = server.connect();
    write!(stream, "GET /images/json HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 500 "));
    write!(stream, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "on the same connection");
}

#[test]
fn what_is_too_large_is_refused() {
    let server = Server::start();
    let large = vec![b' '; 5 * 1024 * 1024];
    let (status, _, _) = server.raw("POST /services/create HTTP/1.1\r\nHost: d", &large);
    assert_eq!(status, 400);
    let long = "a".repeat(100 * 1024);
    let (status, _, _) = server.raw(&format!("GET /_ping HTTP/1.1\r\nX: {long}"), b"");
    assert_eq!(status, 431);
    for bad in ["", "{", "[]", "{\"Name\":1}"] {
        assert_eq!(server.send("POST /services/create", bad).0, 400, "{bad}");
    }
}

#[test]
fn the_socket_is_private_and_taken_only_when_stale() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start();
    let mode = std::fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let refused = crate::api::bind(&server.path).unwrap_err();
    let text = format!("another daemon listens on {}", server.path.display());
    assert_eq!(refused.to_string(), text);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    crate::api::bind(&path).expect("a stale socket is replaced");
    let file = folder.path().join("f");
    std::fs::write(&file, "").unwrap();
    assert!(crate::api::bind(&file).unwrap_err().to_string().ends_with("is not a socket"));
}

#[test]
fn an_end_waits_for_nobody_for_long() {
    let server = Server::start();
    let mut follower = server.connect();
    write!(follower, "GET /events HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut some = [0; 64];
    assert!(follower.read(&mut some).unwrap() > 0);
    let start = std::time::Instant::now();
    server.stop();
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
}
