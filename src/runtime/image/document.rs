//! The documents an image is made of: index, manifest, configuration. OCI and Docker schema 2.
//!
//! Pure parsing of foreign bytes: every list has a limit, nothing panics.

use crate::{
    runtime::ImageConfig,
    types::{Date, HealthCheck, HealthTest, ImageHealth, Labels, Platform, image::is_digest},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};

/// The largest index or manifest that is read; registries themselves accept no larger ones.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The largest configuration that is read: it holds one line of history a layer, and labels.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// The most entries of an index; the largest official images have about 30.
const INDEX_ENTRIES_MAX: usize = 1_000;

/// The most layers; overlayfs mounts no more than 500, and Docker stops at 127.
const LAYERS_MAX: usize = 500;

/// OCI's index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's layer, not compressed; `+gzip` and `+zstd` are.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A document is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of that shape.
    #[error("{what} cannot be read: {why}")]
    Shape {
        /// Which document.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// The format Docker left in 2019.
    #[error(
        "it is in Docker's schema 1 format, which is no longer supported; \
         push it again with a recent client"
    )]
    Schema1,
    /// Something that is no container image.
    #[error("{0} is not an image")]
    NotAnImage(String),
    /// A digest that cannot be checked.
    #[error("{0:?} is not a digest that can be verified")]
    Digest(String),
    /// A size below zero or missing.
    #[error("{0} has no valid size")]
    Size(String),
    /// Too long a list.
    #[error("{what} has {count} entries, at most {limit} are supported")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// The configuration does not describe the layers of the manifest.
    #[error("the manifest has {layers} layers and the configuration {diff_ids}")]
    Layers {
        /// Of the manifest.
        layers: usize,
        /// Of the configuration.
        diff_ids: usize,
    },
}

/// What points to a piece of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:...`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// For the entries of an index: what it runs on.
    pub platform: Option<Platform>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An index: one manifest a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// All entries, attestations included.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Returns the entries that run on `platform`, the best first; equals in the index's order.
    #[must_use]
    pub fn choose(&self, platform: &Platform) -> Vec<&Descriptor> {
        let mut fitting: Vec<_> = self
            .images()
            .filter_map(|(entry, image)| Some((platform.preference(&image)?, entry)))
            .collect();
        fitting.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
        fitting.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Returns the platforms of the index, without what is no image (attestations call
    /// themselves `unknown`).
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = self.images().map(|(_, platform)| platform).collect();
        platforms.sort();
        platforms.dedup();
        platforms
    }

    /// Iterates over the entries that are images, with their platforms.
    pub fn images(&self) -> impl Iterator<Item = (&Descriptor, Platform)> {
        self.manifests.iter().filter_map(|entry| {
            let platform = entry.platform.clone().unwrap_or_default();
            let attestation = platform.os == "unknown" || platform.architecture == "unknown";
            (!attestation).then_some((entry, platform))
        })
    }
}

/// The manifest of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a registry or an archive gives for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// Several platforms.
    Index(Index),
    /// One.
    Manifest(Manifest),
}

/// The configuration of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// What it runs on.
    pub platform: Platform,
    /// When it was built.
    pub created: Date,
    /// The digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<String>,
    /// What containers are made from.
    pub container: ImageConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRoot {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: i64,
    platform: Option<RawPlatform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    created: Option<String>,
    config: Option<RawContainer>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawContainer {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    stop_signal: Option<String>,
    healthcheck: Option<RawHealth>,
    shell: Option<Vec<String>>,
    labels: Option<Labels>,
}

/// A HEALTHCHECK, an extension that Docker's images bring to OCI's format. Times are nanoseconds.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealth {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

impl RawHealth {
    /// Returns what it says; none where it tells nothing that could be run.
    fn check(self) -> Option<HealthCheck> {
        let time = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
        let mut words = self.test?.into_iter();
        let test = match words.next()?.as_str() {
            "NONE" => HealthTest::Disabled,
            "CMD" => HealthTest::Command(words.collect()),
            "CMD-SHELL" => HealthTest::Shell(words.next()?),
            _ => return None,
        };
        Some(HealthCheck {
            test,
            interval: time(self.interval),
            timeout: time(self.timeout),
            start_period: time(self.start_period),
            start_interval: time(self.start_interval),
            retries: u32::try_from(self.retries).unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

/// Reads an index or a manifest and returns it with its media type. What the document says of
/// itself wins over `content_type`, and its shape decides where neither helps.
///
/// # Errors
///
/// It is neither, is too large a list, or holds digests that cannot be verified.
pub fn parse_root(bytes: &[u8], content_type: &str) -> Result<(Root, String), DocumentError> {
    let shape = |why: serde_json::Error| DocumentError::Shape {
        what: "the manifest",
        why: why.to_string(),
    };
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    if content_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err(DocumentError::Schema1);
    }
    let raw: RawRoot = serde_json::from_slice(bytes).map_err(shape)?;
    if raw.schema_version == 1 {
        return Err(DocumentError::Schema1);
    }
    let named = if raw.media_type.is_empty() { content_type } else { raw.media_type.as_str() };
    match (raw.manifests, raw.config, raw.layers) {
        (Some(entries), None, None) => {
            let media_type = if named == DOCKER_LIST { DOCKER_LIST } else { OCI_INDEX };
            limit("the index", entries.len(), INDEX_ENTRIES_MAX)?;
            let manifests =
                entries.into_iter().map(Descriptor::try_from).collect::<Result<_, _>>()?;
            Ok((Root::Index(Index { manifests }), media_type.to_owned()))
        }
        (None, Some(config), Some(layers)) => {
            let media_type = if named == DOCKER_MANIFEST { DOCKER_MANIFEST } else { OCI_MANIFEST };
            limit("the manifest", layers.len(), LAYERS_MAX)?;
            let config = Descriptor::try_from(config)?;
            let layers = layers.into_iter().map(Descriptor::try_from).collect::<Result<_, _>>()?;
            Ok((Root::Manifest(Manifest { config, layers }), media_type.to_owned()))
        }
        _ if named.is_empty() => Err(DocumentError::NotAnImage("this document".to_owned())),
        _ => Err(DocumentError::NotAnImage(named.to_owned())),
    }
}

/// Reads the configuration of an image.
///
/// # Errors
///
/// It is not one (other artifacts share the manifest's format), or too long.
pub fn parse_config(bytes: &[u8]) -> Result<Config, DocumentError> {
    let raw: RawConfig = serde_json::from_slice(bytes)
        .map_err(|why| DocumentError::Shape { what: "the configuration", why: why.to_string() })?;
    let Some(rootfs) = raw.rootfs else {
        return Err(DocumentError::NotAnImage("an artifact without a root file system".to_owned()));
    };
    let diff_ids = rootfs.diff_ids.unwrap_or_default();
    limit("the configuration", diff_ids.len(), LAYERS_MAX)?;
    if let Some(bad) = diff_ids.iter().find(|id| !is_digest(id)) {
        return Err(DocumentError::Digest(bad.clone()));
    }
    let c = raw.config.unwrap_or_default();
    Ok(Config {
        platform: Platform { os: raw.os, architecture: raw.architecture, variant: raw.variant },
        created: raw.created.as_deref().and_then(parse_date).unwrap_or_default(),
        diff_ids,
        container: ImageConfig {
            env: c.env.unwrap_or_default(),
            entrypoint: c.entrypoint.unwrap_or_default(),
            cmd: c.cmd.unwrap_or_default(),
            user: c.user.unwrap_or_default(),
            working_dir: c.working_dir.unwrap_or_default(),
            volumes: c.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: c.stop_signal.unwrap_or_default(),
            health: ImageHealth {
                check: c.healthcheck.and_then(RawHealth::check),
                shell: c.shell.unwrap_or_default(),
            },
            labels: c.labels.unwrap_or_default(),
        },
    })
}

/// Checks that a configuration describes the layers of a manifest.
///
/// # Errors
///
/// Their numbers differ.
pub fn check_layers(manifest: &Manifest, config: &Config) -> Result<(), DocumentError> {
    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
    if layers == diff_ids { Ok(()) } else { Err(DocumentError::Layers { layers, diff_ids }) }
}

/// Returns the chain ids of the layers, lowest first: the names of their snapshots.
#[must_use]
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let next = match chain.last() {
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        chain.push(next);
    }
    chain
}

/// Returns the digest of bytes: `sha256:...`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Returns the first 12 digits of a digest, as Docker shows it.
#[must_use]
pub fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), DocumentError> {
    if count <= limit { Ok(()) } else { Err(DocumentError::TooMany { what, count, limit }) }
}

impl TryFrom<RawDescriptor> for Descriptor {
    type Error = DocumentError;

    fn try_from(raw: RawDescriptor) -> Result<Self, DocumentError> {
        if !is_digest(&raw.digest) {
            return Err(DocumentError::Digest(raw.digest));
        }
        let size = u64::try_from(raw.size).map_err(|_| DocumentError::Size(raw.digest.clone()))?;
        let platform = raw.platform.map(|p| Platform {
            os: p.os,
            architecture: p.architecture,
            variant: p.variant,
        });
        Ok(Self {
            media_type: raw.media_type,
            digest: raw.digest,
            size,
            platform,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

/// Reads an RFC 3339 date at UTC or with an offset; `None` for anything else.
fn parse_date(text: &str) -> Option<Date> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1970..2554).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let rest = text.get(19..)?;
    let fraction = rest.strip_prefix('.').map_or("", |rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..end]
    });
    let zone = rest.strip_prefix('.').map_or(rest, |rest| &rest[fraction.len()..]);
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match zone.as_bytes().first()? {
        b'Z' | b'z' => 0,
        sign @ (b'+' | b'-') => {
            let hours = zone.get(1..3)?.parse::<i64>().ok()?;
            let minutes = zone.get(4..6)?.parse::<i64>().ok()?;
            (hours * 3_600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    // Howard Hinnant's days_from_civil, for years after 0.
    let shifted = if month <= 2 { year - 1 } else { year };
    let year_of_era = shifted % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = shifted / 400 * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    let nanos_total = u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?;
    Some(Date::from_unix_nanos(nanos_total.checked_add(nanos)?))
}

#[cfg(test)]
mod tests;
