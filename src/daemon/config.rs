//! The configuration file.

use crate::types::Labels;
use serde::Deserialize;
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
    /// What starts containers: `auto` (or empty) is crun where it works, else runc; or one of
    /// both by name, or the path of another. Containers keep the one they were made with.
    pub(crate) runtime: String,
    /// Where images come from.
    pub(crate) registry: RegistryConfig,
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
            runtime = "runc"
            [registry]
            mirrors = { "docker.io" = ["mirror.local:5000"] }
            plain_http = ["mirror.local:5000"]
            "#,
        )
        .unwrap();
        assert_eq!(config.node_labels["zone"], "a");
        assert_eq!(config.runtime, "runc");
        assert_eq!(config.registry.mirrors["docker.io"], ["mirror.local:5000"]);
        assert_eq!(Config::parse("").unwrap(), Config::default());
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
