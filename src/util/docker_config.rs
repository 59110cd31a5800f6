//! Docker's client configuration: which login belongs to a registry, and putting one there.
//!
//! For the command line, which runs as the user whose file it is.

use super::disk;
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// The largest file that is read; a hundred logins have some 20 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The Docker Hub, as references name it.
const HUB: &str = "docker.io";

/// Under which names the Docker Hub's login is kept; the first is the one that Docker writes.
const HUB_KEYS: [&str; 4] =
    ["https://index.docker.io/v1/", "index.docker.io", HUB, "registry-1.docker.io"];

/// The mode of the file, and of its folder where that is made: base64 hides nothing.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

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

/// The login of a registry could not be read or written.
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
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no place for it.
    #[error("neither DOCKER_CONFIG nor HOME is set: there is no place for a login")]
    NoHome,
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
    path().map_or(Ok(None), |path| credential_in(&path, registry))
}

/// Returns where the user's configuration is, or would be; `None` where nothing says so.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = set("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| set("HOME").map(|home| Path::new(&home).join(".docker")));
    dir.map(|dir| dir.join("config.json"))
}

/// Returns the registry that an address stands for, as Docker's users and its client write it: the
/// Docker Hub's old URL, a scheme before the name, a path behind it.
#[must_use]
pub fn registry_of(address: &str) -> &str {
    let host = host(address);
    if address.is_empty() || HUB_KEYS.contains(&address) || HUB_KEYS.contains(&host) {
        return HUB;
    }
    host
}

/// As [`credential_for`], from a file of that name.
///
/// # Errors
///
/// As [`credential_for`].
pub fn credential_in(path: &Path, registry: &str) -> Result<Option<Login>, DockerConfigError> {
    let Some(bytes) = content(path)? else { return Ok(None) };
    login(&parse(path, &bytes)?, path, registry)
}

/// Puts the login for a registry into the user's configuration, in the place of any that is there;
/// `None` only removes that. All else in the file stays. Returns the file, and whether there was a
/// login before.
///
/// # Errors
///
/// The file cannot be read, understood or written, or says that a credential helper keeps the logins
/// of this registry.
pub fn store(registry: &str, login: Option<&Login>) -> Result<(PathBuf, bool), DockerConfigError> {
    let path = path().ok_or(DockerConfigError::NoHome)?;
    let had = store_in(&path, registry, login)?;
    Ok((path, had))
}

fn store_in(path: &Path, registry: &str, login: Option<&Login>) -> Result<bool, DockerConfigError> {
    let bytes = content(path)?.unwrap_or_else(|| b"{}".to_vec());
    // What is no configuration is not written over.
    let known: File = parse(path, &bytes)?;
    if let Some(helper) = known.helper(registry) {
        return Err(helped(path, registry, helper));
    }
    let mut file: Map<String, Value> = parse(path, &bytes)?;
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut().expect("it was read as a map of logins");
    let before = auths.len();
    let keys = keys(registry);
    auths.retain(|key, _| !is_for(key, &keys));
    let had = auths.len() < before;
    if let Some(login) = login {
        let plain = if login.is_token { "" } else { &login.secret };
        let mut entry = json!({"auth": STANDARD.encode(format!("{}:{plain}", login.username))});
        if login.is_token {
            entry["identitytoken"] = json!(login.secret);
        }
        auths.insert(keys[0].clone(), entry);
    } else if !had {
        return Ok(false);
    }
    let text = serde_json::to_string_pretty(&file).expect("a map of texts is JSON") + "\n";
    // The name may lead elsewhere, to where somebody keeps all such files.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or_else(|| Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.and_then(|()| disk::replace(&real, text.as_bytes(), FILE_MODE))
        .map_err(|source| DockerConfigError::Write { path: path.to_owned(), source })?;
    Ok(had)
}

/// Reads the file; `None` where there is none.
fn content(path: &Path) -> Result<Option<Vec<u8>>, DockerConfigError> {
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
    Ok(Some(bytes))
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, DockerConfigError> {
    serde_json::from_slice(bytes)
        .map_err(|source| DockerConfigError::Parse { path: path.to_owned(), source })
}

impl File {
    /// Returns the program that keeps the logins of this registry alone.
    fn helper(&self, registry: &str) -> Option<&str> {
        let keys = keys(registry);
        let helper = keys.iter().find_map(|key| self.cred_helpers.get(key));
        helper.map(String::as_str).filter(|helper| !helper.is_empty())
    }
}

fn helped(path: &Path, registry: &str, helper: &str) -> DockerConfigError {
    DockerConfigError::Helper {
        registry: registry.to_owned(),
        helper: helper.to_owned(),
        path: path.to_owned(),
    }
}

fn login(file: &File, path: &Path, registry: &str) -> Result<Option<Login>, DockerConfigError> {
    let keys = keys(registry);
    if let Some(helper) = file.helper(registry) {
        return Err(helped(path, registry, helper));
    }
    let entry = keys.iter().find_map(|key| file.auths.get(key)).or_else(|| {
        let mut entries = file.auths.iter();
        entries.find(|(key, _)| is_for(key, &keys)).map(|(_, entry)| entry)
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
        return if file.creds_store.is_empty() {
            Ok(None)
        } else {
            Err(helped(path, registry, &file.creds_store))
        };
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

/// Tells whether a login under `key` is one for the registry of `keys`: older clients wrote the host
/// with scheme and path.
fn is_for(key: &str, keys: &[String]) -> bool {
    keys.iter().any(|known| known == key || known == host(key))
}

fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split_once('/').map_or(key, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_login_takes_the_place_of_any_before_it_and_nothing_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let login = |secret: &str, is_token| {
            let username = if is_token { "" } else { "u" };
            Login { username: username.to_owned(), secret: secret.to_owned(), is_token }
        };
        assert!(!store_in(&path, "reg.lan:5000", None).unwrap());
        assert!(!path.exists(), "to remove nothing makes no file");
        assert!(!store_in(&path, "reg.lan:5000", Some(&login("p:q", false))).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, FILE_MODE);
        let found = |registry: &str| credential_in(&path, registry).unwrap();
        assert_eq!(found("reg.lan:5000"), Some(login("p:q", false)));

        let text = r#"{"auths":{"https://reg.lan/v2/":{"auth":"dTpw"},"docker.io":{"auth":"dTpw"},
            "index.docker.io":{}},"currentContext":"x","HttpHeaders":{"A":"b"}}"#;
        std::fs::write(&path, text).unwrap();
        assert!(store_in(&path, "reg.lan", Some(&login("new", false))).unwrap());
        assert!(store_in(&path, "docker.io", Some(&login("token", true))).unwrap());
        let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = json!({
            "auths": {
                "reg.lan": {"auth": "dTpuZXc="},
                "https://index.docker.io/v1/": {"auth": "Og==", "identitytoken": "token"},
            },
            "currentContext": "x", "HttpHeaders": {"A": "b"},
        });
        assert_eq!(written, expected);
        assert_eq!(found("docker.io"), Some(login("token", true)));
        assert!(store_in(&path, "docker.io", None).unwrap());
        assert!(!store_in(&path, "docker.io", None).unwrap());
        assert_eq!(found("docker.io"), None);
    }

    #[test]
    fn a_file_that_is_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("config.json"), dir.path().join("real"));
        std::fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let login = Login { username: "u".into(), secret: "p".into(), is_token: false };
        store_in(&path, "a.lan", Some(&login)).unwrap();
        assert!(path.is_symlink());
        assert_eq!(credential_in(&real, "a.lan").unwrap(), Some(login));
    }

    #[test]
    fn what_cannot_be_kept_right_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let login = Login { username: "u".into(), secret: "p".into(), is_token: false };
        for (text, complaint) in [
            ("no json", "cannot parse"),
            (r#"{"auths":[]}"#, "cannot parse"),
            (r#"{"credHelpers":{"a.lan":"pass"}}"#, "docker-credential-pass"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = store_in(&path, "a.lan", Some(&login)).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn addresses_stand_for_registries() {
        for (address, registry) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://docker.io", "docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("http://reg.lan:5000/v2/", "reg.lan:5000"),
        ] {
            assert_eq!(registry_of(address), registry, "{address}");
        }
    }

    #[test]
    fn no_file_is_no_login_and_a_broken_one_is_an_error() {
        assert_eq!(credential_in(Path::new("/nonexistent/config.json"), "a").unwrap(), None);
        assert!(find("{", "a").unwrap_err().contains("cannot parse"));
        assert!(find(&" ".repeat(2 << 20), "a").unwrap_err().contains("too large"));
    }
}
