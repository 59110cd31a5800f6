use super::*;
use proptest::prelude::*;

fn hex(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn index(entries: &[(&str, char)]) -> Index {
    let entries: Vec<_> = entries
        .iter()
        .map(|(platform, digit)| {
            let mut parts = platform.split('/');
            let mut next = || parts.next().unwrap_or("");
            serde_json::json!({
                "mediaType": OCI_MANIFEST, "digest": hex(*digit), "size": 3,
                "platform": {"os": next(), "architecture": next(), "variant": next()},
            })
        })
        .collect();
    let text = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
    let (root, media_type) = parse_root(text.as_bytes(), "").unwrap();
    assert_eq!(media_type, OCI_INDEX);
    let Root::Index(index) = root else { panic!("an index is an index") };
    index
}

#[test]
fn the_best_variant_that_runs_is_chosen() {
    let index = index(&[
        ("linux/amd64", '1'),
        ("linux/arm/v5", '2'),
        ("linux/arm/v7", '3'),
        ("linux/arm/v6", '4'),
        ("linux/arm64/v8", '5'),
        ("unknown/unknown", '6'),
        ("windows/amd64", '7'),
    ]);
    for (node, chosen) in
        [("amd64/", "1"), ("arm/v7", "342"), ("arm/v6", "42"), ("arm64/", "5"), ("riscv64/", "")]
    {
        let (architecture, variant) = node.split_once('/').unwrap();
        let node = Platform::normalized("linux", architecture, variant);
        let found: String = index.choose(&node).iter().map(|e| &e.digest[7..8]).collect();
        assert_eq!(found, chosen, "{node}");
    }
    assert_eq!(index.platforms().len(), 6);
}

#[test]
fn documents_are_told_apart_by_what_they_are() {
    let config = serde_json::json!({"mediaType": "c", "digest": hex('1'), "size": 1});
    let manifest = |extra: serde_json::Value| {
        let mut value =
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [config]});
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        value.to_string()
    };
    let kind = |text: &str, content_type: &str| match parse_root(text.as_bytes(), content_type) {
        Ok((_, media_type)) => media_type,
        Err(error) => error.to_string(),
    };
    let plain = manifest(serde_json::json!({}));
    assert_eq!(kind(&plain, ""), OCI_MANIFEST);
    assert_eq!(kind(&plain, &format!("{DOCKER_MANIFEST}; charset=utf-8")), DOCKER_MANIFEST);
    let named = manifest(serde_json::json!({"mediaType": DOCKER_MANIFEST}));
    assert_eq!(kind(&named, "application/json"), DOCKER_MANIFEST);
    assert_eq!(kind(r#"{"manifests":[]}"#, DOCKER_LIST), DOCKER_LIST);
    let schema1 = "it is in Docker's schema 1 format";
    assert!(kind(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").starts_with(schema1));
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert!(kind("{}", signed).starts_with(schema1));
    assert_eq!(kind("{}", "x/y"), "x/y is not an image");
    assert!(kind("[", "").starts_with("the manifest cannot be read"));
    let bad = plain.replace(&hex('1'), "sha256:1");
    assert!(kind(&bad, "").contains("is not a digest"));
    let bad = plain.replace("\"size\":1", "\"size\":-1");
    assert!(kind(&bad, "").contains("has no valid size"));
    let many = vec![config.clone(); LAYERS_MAX + 1];
    assert!(kind(&manifest(serde_json::json!({"layers": many})), "").contains("at most 500"));
}

#[test]
fn configurations_may_leave_out_nearly_everything() {
    let config = parse_config(br#"{"rootfs":{}}"#).unwrap();
    assert_eq!(config, Config::default());
    let full = format!(
        r#"{{"os":"linux","architecture":"arm","variant":"v7","created":"2024-05-06T07:08:09+02:00",
        "config":{{"Env":null,"Cmd":["a"],"Volumes":{{"/v":{{}}}},"Labels":{{"k":"v"}},"User":"1"}},
        "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        hex('a')
    );
    let config = parse_config(full.as_bytes()).unwrap();
    assert_eq!(config.platform.to_string(), "linux/arm/v7");
    assert_eq!(config.created.to_string(), "2024-05-06T05:08:09Z");
    assert_eq!(config.container.cmd, ["a"]);
    assert_eq!(config.container.volumes, ["/v"]);
    assert!(parse_config(b"{}").unwrap_err().to_string().contains("is not an image"));
    assert!(parse_config(br#"{"rootfs":{"diff_ids":["x"]}}"#).is_err());
}

#[test]
fn dates_are_read_as_they_are_written() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("2000-02-29T23:59:59.000000001Z", "2000-02-29T23:59:59.000000001Z"),
        ("2024-12-31T23:30:00-01:00", "2025-01-01T00:30:00Z"),
        ("2024-03-01T00:00:00.5+00:00", "2024-03-01T00:00:00.5Z"),
    ] {
        assert_eq!(parse_date(text).unwrap().to_string(), expected);
    }
    for text in ["", "0001-01-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-01", "ä024-01-01T"] {
        assert_eq!(parse_date(text), None, "{text}");
    }
}

#[test]
fn chains_are_the_specifications() {
    let ids = [hex('a'), hex('b')];
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(chain[1], digest(format!("{} {}", ids[0], ids[1]).as_bytes()));
    assert_eq!(chain_ids(&[]), Vec::<String>::new());
}

proptest! {
    #[test]
    fn nothing_foreign_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,40}") {
        let _parsed = parse_root(&bytes, &text);
        let _parsed = parse_config(&bytes);
        let _parsed = parse_date(&text);
        let _parsed = crate::runtime::registry::auth::parse_challenges(&text);
        let _parsed = crate::runtime::registry::auth::parse_token(&bytes);
    }
}
