//! What registries send.

use super::{
    image::document::{OCI_MANIFEST, Root, chain_ids, check_layers, parse_config, parse_root},
    registry::auth::{TokenRequest, parse_challenges, parse_token},
};
use crate::{types::Platform, util::fuzz};

#[test]
fn manifests() {
    fuzz::check("manifests", &[], |bytes| {
        let (root, media_type) = parse_root(bytes, OCI_MANIFEST).ok()?;
        assert!(media_type.starts_with("application/vnd."));
        match root {
            Root::Index(index) => {
                let chosen = index.choose(&Platform::normalized("linux", "arm", "v7"));
                assert!(chosen.len() <= index.manifests.len());
                assert!(index.platforms().len() <= index.manifests.len());
            }
            Root::Manifest(manifest) => {
                let _differ = check_layers(&manifest, &Default::default());
            }
        }
        Some(())
    });
}

#[test]
fn image_configs() {
    fuzz::check("image_configs", &[], |bytes| {
        let config = parse_config(bytes).ok()?;
        assert_eq!(chain_ids(&config.diff_ids).len(), config.diff_ids.len());
        Some(())
    });
}

#[test]
fn challenges() {
    let seeds = [
        r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull""#,
        r#"Basic realm="a\"b", Bearer realm=http://x/y"#,
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    fuzz::check("challenges", &seeds, |bytes| {
        let challenges = parse_challenges(std::str::from_utf8(bytes).ok()?);
        assert!(challenges.len() <= bytes.len());
        let mut requests = challenges.iter().map(|one| TokenRequest::from_challenge(one, "s"));
        requests.find_map(|request| request).map(drop)
    });
}

#[test]
fn registry_tokens() {
    let seeds =
        [br#"{"token":"abc","expires_in":300}"#.to_vec(), br#"{"access_token":"x"}"#.to_vec()];
    fuzz::check("registry_tokens", &seeds, |bytes| parse_token(bytes).map(drop));
}
