//! Docker's client configuration: which login belongs to a registry.
//!
//! For the command line, which runs as the user whose file it is.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

/// The largest file that is read; a hundred logins have some 20 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Under which names the Docker Hub's login is kept.
const HUB_KEYS: [&str; 4] =
    ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"];

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; empty with an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
    /// Whether `secret` is an identity token.
    pub is_token: bool,
}

impl std::fmt::Debug for Login {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The login of a registry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what Docker writes.
    #[error("cannot parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is too large to be one.
    #[error("{0} is too large to be Docker's configuration")]
    TooLarge(PathBuf),
    /// The login is with a program that we do not run.
    #[error(
        "the login for {registry} is with the credential helper docker-credential-{helper}, \
         which is not supported; put it into \"auths\" of {path}"
    )]
    Helper {
        /// The registry.
        registry: String,
        /// Its helper.
        helper: String,
        /// The file.
        path: PathBuf,
    },
    /// The login is not `user:password` in base64.
    #[error("the login for {registry} in {path} is broken; log in again")]
    Login {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Returns the login that the user has for a registry (`docker.io`, `host:port`), from
/// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`; `None` where there is none.
///
/// # Errors
///
/// The file cannot be read or understood, or names a credential helper.
pub fn credential_for(registry: &str) -> Result<Option<Login>, DockerConfigError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = set("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| set("HOME").map(|home| Path::new(&home).join(".docker")));
    match dir {
        Some(dir) => credential_in(&dir.join("config.json"), registry),
        None => Ok(None),
    }
}

/// As [`credential_for`], from a file of that name.
///
/// # Errors
///
/// As [`credential_for`].
pub fn credential_in(path: &Path, registry: &str) -> Result<Option<Login>, DockerConfigError> {
    let read = |source| DockerConfigError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(DockerConfigError::TooLarge(path.to_owned()));
    }
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|source| DockerConfigError::Parse { path: path.to_owned(), source })?;
    login(&file, path, registry)
}

fn login(file: &File, path: &Path, registry: &str) -> Result<Option<Login>, DockerConfigError> {
    let keys = keys(registry);
    let helper = keys.iter().find_map(|key| file.cred_helpers.get(key)).filter(|h| !h.is_empty());
    let helped = |helper: &str| DockerConfigError::Helper {
        registry: registry.to_owned(),
        helper: helper.to_owned(),
        path: path.to_owned(),
    };
    if let Some(helper) = helper {
        return Err(helped(helper));
    }
    let entry = keys.iter().find_map(|key| file.auths.get(key)).or_else(|| {
        // Older clients wrote the host with scheme and path.
        let mut entries = file.auths.iter();
        entries.find(|(key, _)| keys.iter().any(|k| k == host(key))).map(|(_, entry)| entry)
    });
    let Some(entry) = entry else { return Ok(None) };
    if !entry.identitytoken.is_empty() {
        let secret = entry.identitytoken.clone();
        return Ok(Some(Login { username: String::new(), secret, is_token: true }));
    }
    if !entry.username.is_empty() && !entry.password.is_empty() {
        let (username, secret) = (entry.username.clone(), entry.password.clone());
        return Ok(Some(Login { username, secret, is_token: false }));
    }
    if entry.auth.is_empty() {
        // With a store, "auths" only lists the registries that have a login there.
        return if file.creds_store.is_empty() { Ok(None) } else { Err(helped(&file.creds_store)) };
    }
    let broken =
        || DockerConfigError::Login { registry: registry.to_owned(), path: path.to_owned() };
    let plain = decode(entry.auth.trim()).ok_or_else(broken)?;
    let (username, secret) = plain.split_once(':').ok_or_else(broken)?;
    // Docker's own client once padded with zero bytes.
    let secret = secret.trim_end_matches('\0').to_owned();
    Ok(Some(Login { username: username.to_owned(), secret, is_token: false }))
}

fn decode(text: &str) -> Option<String> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    String::from_utf8(engine.decode(text).ok()?).ok()
}

fn keys(registry: &str) -> Vec<String> {
    if HUB_KEYS.contains(&registry) {
        return HUB_KEYS.map(String::from).to_vec();
    }
    vec![registry.to_owned()]
}

fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split_once('/').map_or(key, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, registry: &str) -> Result<Option<(String, String, bool)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        let found = credential_in(&path, registry).map_err(|error| error.to_string())?;
        Ok(found.map(|login| (login.username, login.secret, login.is_token)))
    }

    #[test]
    fn logins_are_found_under_every_name() {
        let text = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpwOnE="},
            "reg.lan:5000":{"auth":"dTpw"},
            "https://old.lan/v2/":{"username":"a","password":"b"},
            "tok.lan":{"auth":"dTp4","identitytoken":"t"},
            "empty.lan":{}, "bad.lan":{"auth":"!"}}, "unknown": 1}"#;
        let user = |name: &str, secret: &str| Ok(Some((name.into(), secret.into(), false)));
        assert_eq!(find(text, "docker.io"), user("u", "p:q"));
        assert_eq!(find(text, "reg.lan:5000"), user("u", "p"));
        assert_eq!(find(text, "old.lan"), user("a", "b"));
        assert_eq!(find(text, "tok.lan"), Ok(Some((String::new(), "t".into(), true))));
        assert_eq!(find(text, "empty.lan"), Ok(None));
        assert_eq!(find(text, "reg.lan"), Ok(None));
        assert!(find(text, "bad.lan").unwrap_err().contains("is broken"));
    }

    #[test]
    fn helpers_are_named_and_not_run() {
        let text =
            r#"{"credHelpers":{"a.lan":"pass"},"credsStore":"desktop","auths":{"b.lan":{}}}"#;
        assert!(find(text, "a.lan").unwrap_err().contains("docker-credential-pass"));
        assert!(find(text, "b.lan").unwrap_err().contains("docker-credential-desktop"));
        assert_eq!(find(text, "c.lan"), Ok(None));
    }

    #[test]
    fn no_file_is_no_login_and_a_broken_one_is_an_error() {
        assert_eq!(credential_in(Path::new("/nonexistent/config.json"), "a").unwrap(), None);
        assert!(find("{", "a").unwrap_err().contains("cannot parse"));
        assert!(find(&" ".repeat(2 << 20), "a").unwrap_err().contains("too large"));
    }
}
