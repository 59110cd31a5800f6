//! What Docker's own client sent to Docker's engine, sent to midge: it is taken, whatever is unknown
//! in it is passed over, and the answers have every field that the engine's had.

use super::fake::Server;
use serde_json::{Value, json};

const RECORDED: &str = include_str!("../../../tests/data/requests.txt");

/// Fields of the engine's answers that midge leaves out.
const LEFT_OUT: &[&str] = &[
    // Of features that Docker has dropped itself since.
    ".KernelMemory",
    ".KernelMemoryTCP",
    ".RegistryConfig.AllowNondistributableArtifactsCIDRs",
    ".RegistryConfig.AllowNondistributableArtifactsHostnames",
    ".ContainerdCommit.Expected",
    ".InitCommit.Expected",
    ".RuncCommit.Expected",
    // When it was built says nothing: builds are reproducible.
    ".BuildTime",
    ".GenericResources",
    // What this test's node does not have: a certificate, an address, a kernel.
    ".TLSInfo.CertIssuerPublicKey",
    ".TLSInfo.CertIssuerSubject",
    ".Description.TLSInfo.CertIssuerPublicKey",
    ".Description.TLSInfo.CertIssuerSubject",
    ".Status.Addr",
    ".KernelVersion",
];

pub(in crate::api) struct Exchange {
    pub(in crate::api) request: String,
    pub(in crate::api) body: String,
    status: u16,
    fields: Vec<(String, String)>,
}

pub(in crate::api) fn exchanges() -> Vec<Exchange> {
    let mut found: Vec<Exchange> = Vec::new();
    let mut answered = true;
    for line in RECORDED.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(request) = line.strip_prefix("> ") {
            let (request, body) = (request.to_owned(), String::new());
            found.push(Exchange { request, body, status: 0, fields: Vec::new() });
            answered = false;
        } else if let Some(status) = line.strip_prefix("< ") {
            found.last_mut().unwrap().status = status.parse().unwrap();
            answered = true;
        } else if answered {
            let (path, kind) = line.rsplit_once(' ').unwrap();
            found.last_mut().unwrap().fields.push((path.to_owned(), kind.to_owned()));
        } else {
            found.last_mut().unwrap().body.push_str(line);
        }
    }
    found
}

/// Collects what is at a path such as `.A[].B`.
fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let path = path.replace("[]", ".[]");
    path.split('.').filter(|part| !part.is_empty()).fold(vec![value], |values, part| {
        let inner = values.into_iter().flat_map(|value| match (part, value) {
            ("[]", Value::Array(items)) => items.iter().collect(),
            (name, value) => value.get(name).into_iter().collect::<Vec<_>>(),
        });
        inner.collect()
    })
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_number(),
        "truth" => value.is_boolean(),
        "object" => value.is_object(),
        "list" => value.is_array() || value.is_null(),
        // Of what was nothing the type is not known.
        _ => true,
    }
}

#[test]
fn what_dockers_client_sends_is_taken_and_answered_in_full() {
    let server = Server::start();
    let (mut id, mut version) = (String::new(), 0);
    let mut missing = Vec::new();
    for exchange in exchanges() {
        let request =
            exchange.request.replace("{id}", &id).replace("{version}", &version.to_string());
        let mut body = exchange.body.clone();
        if !body.is_empty() {
            // A later client sends fields that nobody here knows.
            let mut value: Value = serde_json::from_str(&body).unwrap();
            value["FromTheFuture"] = json!({"a": [1]});
            body = value.to_string();
        }
        let (status, answer) = server.send(&request, &body);
        assert_eq!(status, exchange.status, "{request}: {answer}");
        if request.contains("/services/create") {
            answer["ID"].as_str().unwrap().clone_into(&mut id);
        }
        if let Some(index) = answer["Version"]["Index"].as_u64() {
            version = index;
        }
        for (path, kind) in &exchange.fields {
            let values = at(&answer, path);
            // An entry of an empty list has no fields to look at.
            let list = path.rsplit_once("[]").map(|(list, _)| at(&answer, list));
            let none = list.is_some_and(|lists| {
                lists.iter().all(|list| list.as_array().is_none_or(Vec::is_empty))
            });
            let fits = values.iter().any(|value| is(value, kind) || value.is_null());
            if !fits && !none && !LEFT_OUT.contains(&path.as_str()) {
                missing.push(format!("{request}: {path} {kind}"));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn nothing_is_left_out_that_nobody_sent() {
    let exchanges = exchanges();
    let recorded: Vec<&str> = exchanges
        .iter()
        .flat_map(|exchange| exchange.fields.iter().map(|(path, _)| path.as_str()))
        .collect();
    for path in LEFT_OUT {
        assert!(recorded.contains(path), "{path}");
    }
}

#[test]
fn older_clients_are_answered() {
    let server = Server::start();
    for version in ["1.24", "1.30", "1.41", "1.45", "1.47"] {
        for path in ["info", "version", "nodes", "services", "tasks", "swarm"] {
            let (status, answer) = server.send(&format!("GET /v{version}/{path}"), "");
            assert_eq!(status, 200, "{version} {path}: {answer}");
        }
    }
}
