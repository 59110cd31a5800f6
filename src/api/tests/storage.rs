//! Volumes, pruning, disk use and events, as Docker's clients ask for them.

use super::fake::Server;
use crate::{
    api::local::NodeSelector,
    cluster::{Class, Refusal},
    types::{
        Chore, ChoreDone, Date, Labels, NewVolume, Occurrence, OccurrenceKind, Prune, RemovedImage,
        StorageUse, StoredContainer, StoredImage, StoredVolume, VolumeOptions,
    },
};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};

fn says(server: &Server, done: ChoreDone) {
    *server.node.done.lock().unwrap() = Some(Ok(done));
}

fn refuses(server: &Server, class: Class, text: &str) {
    *server.node.done.lock().unwrap() = Some(Err(Refusal::new(class, text)));
}

fn asked(server: &Server) -> (NodeSelector, Chore) {
    server.node.chores.lock().unwrap().pop().expect("a chore")
}

/// Percent-encodes filters, as clients do.
fn encoded(filters: &str) -> String {
    let encode = |byte: u8| match byte {
        b'?' | b'=' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    match filters.split_once('=') {
        Some((name, value)) => {
            let value: String = value.replace('=', "%3D").bytes().map(encode).collect();
            format!("{name}={}", value.replace("%253D", "%3D"))
        }
        None => filters.to_owned(),
    }
}

fn volume(name: &str, users: &[&str]) -> StoredVolume {
    StoredVolume {
        name: name.to_owned(),
        path: format!("/v/{name}/_data"),
        created: Date::from_unix_seconds(1),
        users: users.iter().map(|user| (*user).to_owned()).collect(),
        size: Some(7),
        ..StoredVolume::default()
    }
}

#[test]
fn volumes_are_dockers() {
    let server = Server::start();
    let mut labelled = volume("data", &["c1"]);
    labelled.labels.insert("a".to_owned(), "1".to_owned());
    says(&server, ChoreDone::Volumes(vec![labelled.clone(), volume("other", &[])]));
    let (status, list) = server.send("GET /v1.41/volumes", "");
    assert_eq!((status, list["Volumes"].as_array().unwrap().len()), (200, 2));
    assert_eq!(
        list["Volumes"][0],
        json!({
            "CreatedAt": "1970-01-01T00:00:01Z", "Driver": "local", "Labels": {"a": "1"},
            "Mountpoint": "/v/data/_data", "Name": "data", "Options": null, "Scope": "local",
        })
    );
    for (filters, names) in [
        (r#"{"dangling":["true"]}"#, vec!["other"]),
        (r#"{"dangling":{"false":true}}"#, vec!["data"]),
        (r#"{"name":["at"]}"#, vec!["data"]),
        (r#"{"label":["a=1"]}"#, vec!["data"]),
        (r#"{"driver":["nfs"]}"#, vec![]),
    ] {
        let (_, list) =
            server.send(&format!("GET /volumes{}", encoded(&format!("?filters={filters}"))), "");
        let found: Vec<&str> = list["Volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["Name"].as_str().unwrap())
            .collect();
        assert_eq!(found, names, "{filters}");
    }
    assert_eq!(
        server.send(&format!("GET /volumes{}", encoded("?filters={\"x\":[\"1\"]}")), "").0,
        400
    );

    says(&server, ChoreDone::Volume(Box::new(labelled)));
    assert_eq!(server.send("GET /volumes/data", "").1["Name"], "data");
    assert_eq!(asked(&server).1, Chore::Volume { name: "data".to_owned() });
    let body = r#"{"Name":"data","Driver":"local","DriverOpts":{"type":"tmpfs"},"Labels":null}"#;
    assert_eq!(server.send("POST /v1.47/volumes/create", body).0, 201);
    let options = VolumeOptions {
        driver: "local".to_owned(),
        options: [("type".to_owned(), "tmpfs".to_owned())].into(),
        ..VolumeOptions::default()
    };
    assert_eq!(
        asked(&server).1,
        Chore::CreateVolume(NewVolume { name: "data".to_owned(), options })
    );
    let body = r#"{"ClusterVolumeSpec":{"Group":"g"}}"#;
    assert_eq!(server.send("POST /volumes/create", body).0, 501);

    says(&server, ChoreDone::Done);
    assert_eq!(server.send("DELETE /volumes/data?force=1", ""), (204, Value::Null));
    assert_eq!(asked(&server).1, Chore::RemoveVolume { name: "data".to_owned(), force: true });
    refuses(&server, Class::Conflict, "remove data: volume is in use - [c1]");
    let (status, error) = server.send("DELETE /volumes/data", "");
    assert_eq!((status, &error["message"]), (409, &json!("remove data: volume is in use - [c1]")));
}

#[test]
fn pruning_is_dockers() {
    let server = Server::start();
    let removed = vec![
        RemovedImage::Untagged("bb:1".to_owned()),
        RemovedImage::Deleted("sha256:1".to_owned()),
    ];
    says(&server, ChoreDone::ImagesRemoved { removed, freed: 9 });
    for (filters, prune) in [
        ("", Prune::default()),
        (r#"?filters={"dangling":{"true":true}}"#, Prune::default()),
        (r#"?filters={"dangling":["false"]}"#, Prune { all: true, ..Prune::default() }),
        (
            r#"?filters={"until":["100"],"label":["a"],"label!":["b=1"]}"#,
            Prune {
                all: false,
                until: Some(Date::from_unix_seconds(100)),
                labels: vec!["a".to_owned()],
                without: vec!["b=1".to_owned()],
            },
        ),
    ] {
        let (status, answer) = server.send(&format!("POST /images/prune{}", encoded(filters)), "");
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["ImagesDeleted"][0], json!({"Untagged": "bb:1"}));
        assert_eq!(answer["SpaceReclaimed"], 9);
        assert_eq!(asked(&server), (NodeSelector::Local, Chore::PruneImages(prune)), "{filters}");
    }
    assert_eq!(
        server
            .send(&format!("POST /images/prune{}", encoded("?filters={\"until\":[\"x\"]}")), "")
            .0,
        400
    );

    says(&server, ChoreDone::VolumesRemoved { removed: vec!["data".to_owned()], freed: 3 });
    let answer =
        server.send(&format!("POST /volumes/prune{}", encoded(r#"?filters={"all":["true"]}"#)), "");
    assert_eq!(answer, (200, json!({"VolumesDeleted": ["data"], "SpaceReclaimed": 3})));
    let all = Prune { all: true, ..Prune::default() };
    assert_eq!(asked(&server).1, Chore::PruneVolumes(all));
}

#[test]
fn disk_use_is_dockers() {
    let server = Server::start();
    let image = StoredImage {
        id: "sha256:1".to_owned(),
        size: 100,
        shared: Some(40),
        containers: 1,
        ..StoredImage::default()
    };
    let container = StoredContainer {
        id: "c1".to_owned(),
        name: "web.1.x".to_owned(),
        image_id: image.id.clone(),
        state: "running".to_owned(),
        size: 5,
        volumes: 2,
        ..StoredContainer::default()
    };
    let usage = StorageUse {
        images_size: 160,
        images: vec![image],
        containers: vec![container],
        volumes: vec![volume("data", &["c1"]), StoredVolume { size: None, ..volume("nfs", &[]) }],
    };
    says(&server, ChoreDone::Usage(Box::new(usage)));
    let (status, shown) = server.send("GET /v1.43/system/df", "");
    assert_eq!((status, &shown["LayersSize"]), (200, &json!(160)));
    assert_eq!(shown["Images"][0]["SharedSize"], 40);
    let container = &shown["Containers"][0];
    assert_eq!((&container["SizeRw"], &container["SizeRootFs"]), (&json!(5), &json!(105)));
    assert_eq!(
        (&container["Names"], &container["State"]),
        (&json!(["/web.1.x"]), &json!("running"))
    );
    assert_eq!(container["Mounts"].as_array().unwrap().len(), 2);
    assert_eq!(shown["Volumes"][0]["UsageData"], json!({"RefCount": 1, "Size": 7}));
    assert_eq!(shown["Volumes"][1]["UsageData"], json!({"RefCount": 0, "Size": -1}));
    assert_eq!(shown["BuildCache"], json!([]));
}

#[test]
fn several_nodes_answer_one_after_another() {
    let server = Server::start();
    says(&server, ChoreDone::Volume(Box::new(volume("data", &[]))));
    let (status, answers) = server.send("GET /midge/volumes/data?nodes=all", "");
    assert_eq!((status, answers.as_array().unwrap().len()), (200, 3));
    assert_eq!((&answers[0]["Hostname"], &answers[0]["Error"]), (&json!("m1"), &json!("")));
    assert_eq!(answers[1]["Answer"]["Name"], "data");
    assert_eq!(asked(&server).0, NodeSelector::All);
    refuses(&server, Class::NotFound, "get data: no such volume");
    let (status, answers) = server.send("DELETE /midge/volumes/data?nodes=m1,twin", "");
    assert_eq!((status, &answers[2]["Error"]), (200, &json!("get data: no such volume")));
    let names = vec!["m1".to_owned(), "twin".to_owned()];
    assert_eq!(asked(&server).0, NodeSelector::Named(names));
    says(&server, ChoreDone::Images(vec![StoredImage::default()]));
    let (_, answers) = server.send("GET /midge/images/json?nodes=m1", "");
    assert_eq!(answers[0]["Answer"][0]["SharedSize"], -1);
    assert_eq!(server.send("GET /midge/volumes?nodes=,", "").0, 400);
}

fn occurrence(kind: OccurrenceKind, action: &str) -> Occurrence {
    Occurrence {
        date: Date::from_unix_seconds(5),
        kind,
        action: action.to_owned(),
        id: "x1".to_owned(),
        attributes: Labels::from([("name".to_owned(), "web".to_owned())]),
    }
}

#[test]
fn events_are_told_as_they_happen() {
    let server = Server::start();
    let board = &server.node.board;
    board.post(occurrence(OccurrenceKind::Service, "create"));
    let filters = encoded("filters={\"type\":[\"service\"]}");
    let mut stream = server.connect();
    write!(stream, "GET /events?since=4&{filters} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = || loop {
        let line = lines.next().expect("another event");
        if let Some(text) = line.strip_prefix('{') {
            return serde_json::from_str::<Value>(&format!("{{{text}")).unwrap();
        }
    };
    assert_eq!(next()["Action"], "create", "what was before");
    board.post(occurrence(OccurrenceKind::Container, "die"));
    board.post(occurrence(OccurrenceKind::Service, "remove"));
    let removed = next();
    assert_eq!((&removed["Action"], &removed["scope"]), (&json!("remove"), &json!("swarm")));
    assert_eq!(removed["timeNano"], 5_000_000_000_u64);

    let (status, _, body) = server.raw("GET /events?until=6 HTTP/1.1\r\nHost: d", b"");
    assert_eq!(
        (status, body.iter().filter(|b| **b == b'\n').count()),
        (200, 3),
        "ends at its time"
    );
    assert_eq!(server.send("GET /events?since=9&until=6", "").0, 400);
    assert_eq!(
        server.send(&format!("GET /events{}", encoded("?filters={\"x\":[\"1\"]}")), "").0,
        400
    );
}

#[test]
fn a_backup_is_bytes_and_a_restore_is_a_line_and_bytes() {
    let server = Server::start();
    let (status, _, file) =
        server.raw("POST /midge/backup HTTP/1.1\r\nHost: d", br#"{"Passphrase":"horse"}"#);
    assert_eq!((status, file.as_slice()), (200, &b"horse"[..]));
    let (status, answer) = server.send("POST /v1.41/midge/backup", r#"{"Passphrase":""}"#);
    assert_eq!((status, answer["message"].as_str()), (400, Some("a backup needs a passphrase")));
    for (body, status, says) in [
        ("{\"Passphrase\":\"horse\"}\nhorse", 200, None),
        ("{\"Passphrase\":\"horse\"}\ncow", 400, Some("the passphrase is wrong")),
        ("{\"Passphrase\":\"\"}\nhorse", 400, Some("a backup needs a passphrase")),
        ("horse", 400, Some("one line of JSON is expected before the backup")),
    ] {
        let (found, answer) = server.send("POST /v1.41/midge/restore", body);
        assert_eq!((found, answer["message"].as_str()), (status, says), "{body}");
    }
}
