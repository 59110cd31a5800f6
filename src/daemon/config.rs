//! What a daemon is told: on its command line, and in its configuration file.

use crate::{
    agent::garbage::GcLimits,
    types::{GenericResource, Labels},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where the configuration is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/midge/config.toml";

/// The largest configuration that is read.
const SIZE_MAX: u64 = 1 << 20;

/// What `midge daemon` was asked for.
#[derive(Debug)]
pub struct Options {
    /// Where the node keeps what must survive a restart.
    pub data_dir: PathBuf,
    /// Where the node keeps what must not survive one of the machine.
    pub run_dir: PathBuf,
    /// Where the API listens.
    pub socket: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// The configuration file, where one was named.
    pub config: Option<PathBuf>,
    /// Whether the log is one JSON object a line.
    pub json_log: bool,
    /// How much is logged.
    pub log_level: tracing::Level,
}

/// What an operator configures of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// `node.labels.*` that this node asks for when it joins.
    pub(crate) node_labels: Labels,
    /// `engine.labels.*`.
    pub(crate) engine_labels: Labels,
    /// What other nodes are told to reach this one at, before what `swarm init` and `swarm join`
    /// say: an address, a DNS name or an interface, and a port; `auto` is one of the machine's.
    pub(crate) advertise_addr: String,
    /// What starts containers: `auto` (or empty) is runc, or crun where there is no runc; or one
    /// of both by name, or the path of another. Containers keep the one they were made with.
    pub(crate) runtime: String,
    /// What this node has besides CPU and memory, `KIND=NAME` or `KIND=COUNT` each.
    #[serde(deserialize_with = "generic_resources")]
    pub(crate) generic_resources: Vec<GenericResource>,
    /// Where images come from.
    pub(crate) registry: RegistryConfig,
    /// When images that nothing uses are removed.
    pub(crate) image_gc: ImageGc,
}

fn generic_resources<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<GenericResource>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    GenericResource::parse_list(&entries).map_err(D::Error::custom)
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RegistryConfig {
    /// For a registry's host, the mirrors to try before it, in order.
    pub(crate) mirrors: BTreeMap<String, Vec<String>>,
    /// Registries spoken to without TLS. Those on loopback always are.
    pub(crate) plain_http: Vec<String>,
}

/// When images that nothing uses are removed: `"off"`, or `{ high = "85%", low = "75%" }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(crate) struct ImageGc(pub(crate) Option<GcLimits>);

impl Default for ImageGc {
    /// The thresholds that the kubelet has, moved down a little on the low side: cards of 16 GB
    /// get slow when nearly full, and one run should last for a while.
    fn default() -> Self {
        Self(Some(GcLimits { high: 85, low: 75 }))
    }
}

impl TryFrom<toml::Value> for ImageGc {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let expected = "image_gc is \"off\" or { high = \"85%\", low = \"75%\" }";
        let table = match value {
            toml::Value::String(word) if word == "off" => return Ok(Self(None)),
            toml::Value::Table(table) => table,
            _ => return Err(expected.to_owned()),
        };
        let Some(default) = Self::default().0 else { return Err(expected.to_owned()) };
        let mut limits = default;
        for (name, value) in table {
            let percent = value.as_str().and_then(|text| text.strip_suffix('%'));
            let percent = percent.and_then(|text| text.parse::<u8>().ok());
            let percent = percent.filter(|percent| (1..=100).contains(percent));
            let percent = percent.ok_or_else(|| {
                format!("{name} of image_gc must be between \"1%\" and \"100%\": {expected}")
            })?;
            match name.as_str() {
                "high" => limits.high = percent,
                "low" => limits.low = percent,
                other => return Err(format!("unknown field `{other}` in image_gc: {expected}")),
            }
        }
        if limits.low >= limits.high {
            return Err(format!(
                "low of image_gc ({}%) must be below high ({}%)",
                limits.low, limits.high
            ));
        }
        Ok(Self(Some(limits)))
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any configuration is.
    #[error("the configuration {path} is larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or says something midge does not know.
    #[error("the configuration {path} is wrong: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

impl Config {
    /// Reads `path`, or the default file where none is named; only that one may be missing.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path.is_some();
        let path = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        let error = |source| ConfigError::Read { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Self::default());
            }
            Err(source) => return Err(error(source)),
            Ok(metadata) if metadata.len() > SIZE_MAX => {
                return Err(ConfigError::TooLarge { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(error)?;
        Self::parse(&text).map_err(|message| ConfigError::Parse { path: path.to_owned(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_set() {
        let config = Config::parse(
            r#"
            node_labels = { zone = "a" }
            engine_labels = { gpu = "yes" }
            runtime = "runc"
            advertise_addr = "auto"
            generic_resources = ["gpu=GPU-2", "gpu=GPU-1", "ssd=3"]
            [registry]
            mirrors = { "docker.io" = ["mirror.local:5000"] }
            plain_http = ["mirror.local:5000"]
            "#,
        )
        .unwrap();
        assert_eq!(config.node_labels["zone"], "a");
        assert_eq!(config.runtime, "runc");
        assert_eq!(config.advertise_addr, "auto");
        let resources: Vec<String> =
            config.generic_resources.iter().map(ToString::to_string).collect();
        assert_eq!(resources, ["gpu=GPU-1", "gpu=GPU-2", "ssd=3"]);
        assert_eq!(config.registry.mirrors["docker.io"], ["mirror.local:5000"]);
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn thresholds_of_image_removal_are_checked() {
        let gc = |text: &str| Config::parse(text).map(|config| config.image_gc.0);
        let limits = |high, low| Ok(Some(GcLimits { high, low }));
        assert_eq!(gc(""), limits(85, 75));
        assert_eq!(gc(r#"image_gc = "off""#), Ok(None));
        assert_eq!(gc(r#"image_gc = { high = "90%", low = "50%" }"#), limits(90, 50));
        assert_eq!(gc(r#"image_gc = { high = "80%" }"#), limits(80, 75));
        for (text, why) in [
            (r#"image_gc = "on""#, "image_gc is \"off\" or"),
            (r#"image_gc = { high = "70%" }"#, "low of image_gc (75%) must be below high (70%)"),
            (r#"image_gc = { high = "101%" }"#, "high of image_gc must be between"),
            (r#"image_gc = { low = 5 }"#, "low of image_gc must be between"),
            (r#"image_gc = { mid = "5%" }"#, "unknown field `mid` in image_gc"),
        ] {
            let error = gc(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn wrong_resources_are_errors() {
        let error = Config::parse("generic_resources = [\"gpu\"]").unwrap_err();
        assert!(error.contains("invalid generic-resource format `gpu`"), "{error}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = Config::parse("[registry]\nmirror = 1").unwrap_err();
        assert!(error.contains("unknown field `mirror`"), "{error}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let missing = Path::new("/nonexistent/midge.toml");
        assert!(matches!(Config::read(Some(missing)), Err(ConfigError::Read { .. })));
    }
}
