//! The configuration file.

use crate::types::{GenericResource, Labels};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where the configuration is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/midge/config.toml";

/// The largest configuration that is read.
const SIZE_MAX: u64 = 1 << 20;

/// What an operator configures of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// `node.labels.*` that this node asks for when it joins.
    pub(crate) node_labels: Labels,
    /// `engine.labels.*`.
    pub(crate) engine_labels: Labels,
    /// What this node has besides CPU and memory, `KIND=NAME` or `KIND=COUNT` each.
    #[serde(deserialize_with = "generic_resources")]
    pub(crate) generic_resources: Vec<GenericResource>,
    /// Where images come from.
    pub(crate) registry: RegistryConfig,
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

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
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
            generic_resources = ["gpu=GPU-2", "gpu=GPU-1", "ssd=3"]
            [registry]
            mirrors = { "docker.io" = ["mirror.local:5000"] }
            plain_http = ["mirror.local:5000"]
            "#,
        )
        .unwrap();
        assert_eq!(config.node_labels["zone"], "a");
        let resources: Vec<String> =
            config.generic_resources.iter().map(ToString::to_string).collect();
        assert_eq!(resources, ["gpu=GPU-1", "gpu=GPU-2", "ssd=3"]);
        assert_eq!(config.registry.mirrors["docker.io"], ["mirror.local:5000"]);
        assert_eq!(Config::parse("").unwrap(), Config::default());
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
