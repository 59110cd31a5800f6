//! Images, distribution and containers.

use super::is_default;
use crate::types::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /auth`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoggedIn {
    /// `Login Succeeded`.
    pub status: String,
    /// Empty.
    pub identity_token: String,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// The digest of its configuration.
    pub id: String,
    /// Empty.
    pub parent_id: String,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with digests.
    pub repo_digests: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that other images have as well; -1 where that was not counted.
    pub shared_size: i64,
    /// Labels.
    pub labels: Labels,
    /// How many containers use it.
    pub containers: u64,
    /// midge's own: the platforms that are complete here, as `linux/arm/v7`.
    pub platforms: Vec<String>,
}

/// All of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    /// The digest of its configuration.
    pub id: String,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with digests.
    pub repo_digests: Vec<String>,
    /// Empty.
    pub parent: String,
    /// RFC 3339.
    pub created: String,
    /// Who made it.
    pub author: String,
    /// What it runs.
    pub config: ImageConfig,
    /// The processor.
    pub architecture: String,
    /// Its variant.
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
    /// The operating system.
    pub os: String,
    /// Bytes.
    pub size: u64,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// midge's own: the platforms that are complete here.
    pub platforms: Vec<String>,
}

/// What an image runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The user.
    pub user: String,
    /// Ports it listens on.
    #[serde(skip_serializing_if = "is_default")]
    pub exposed_ports: BTreeMap<String, super::Empty>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The arguments.
    pub cmd: Vec<String>,
    /// Folders that become volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: BTreeMap<String, super::Empty>,
    /// The working directory.
    pub working_dir: String,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Labels.
    pub labels: Labels,
    /// The stop signal.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// `layers`.
    pub r#type: String,
    /// Their digests.
    pub layers: Vec<String>,
}

/// What became of an image that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageRemoved {
    /// This name is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub untagged: String,
    /// This content is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub deleted: String,
}

/// `GET /distribution/NAME/json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Distribution {
    /// What the name stands for.
    pub descriptor: Descriptor,
    /// What it runs on.
    pub platforms: Vec<OciPlatform>,
}

/// A descriptor of the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A platform of the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OciPlatform {
    /// The processor.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// The processor's variant.
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

/// A step of a pull or a load, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressLine {
    /// Text for people.
    #[serde(skip_serializing_if = "is_default")]
    pub stream: String,
    /// What is done.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// What it is about.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<super::ErrorBody>,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummary {
    /// Its id.
    pub id: String,
    /// With a slash before.
    pub names: Vec<String>,
    /// The image.
    pub image: String,
    /// The image's id; null where it is not known.
    #[serde(rename = "ImageID")]
    pub image_id: Option<String>,
    /// The command line.
    pub command: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Host ports.
    pub ports: Vec<ContainerPort>,
    /// Labels.
    pub labels: Labels,
    /// `running`.
    pub state: String,
    /// `Up 5 minutes`.
    pub status: String,
    /// What lists tell of how it was asked for.
    pub host_config: ListedHostConfig,
    /// Its networks.
    pub network_settings: ListedNetworks,
    /// What is mounted in it.
    pub mounts: Vec<MountPoint>,
}

/// What lists tell of how a container was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListedHostConfig {
    /// The network's name.
    pub network_mode: String,
}

/// The networks of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListedNetworks {
    /// By name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Its address of version 4; empty where it has none of its own.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// The same of version 6.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub r#type: String,
    /// The volume's name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The path on the node; empty for memory.
    pub source: String,
    /// The path inside.
    pub destination: String,
    /// Of a volume: `local`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// Empty.
    pub mode: String,
    /// Whether it can be written to.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Of what is no volume: `rprivate`.
    pub propagation: String,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerPort {
    /// Where it listens.
    #[serde(rename = "IP")]
    pub ip: String,
    /// Inside.
    pub private_port: u16,
    /// On the node.
    pub public_port: u16,
    /// `tcp`, `udp`.
    pub r#type: String,
}
