//! What nodes store: volumes, disk use, what pruning took.

use super::{ImageRemoved, ImageSummary, nullable};
use crate::types::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// RFC 3339.
    pub created_at: String,
    /// `local`.
    pub driver: String,
    /// Labels; null where there are none.
    pub labels: Option<Labels>,
    /// Where its content is.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// The driver's options; null where there are none.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// Only where disk use was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// What a volume takes, and how many use it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeUsage {
    /// How many containers use it.
    pub ref_count: i64,
    /// Bytes; -1 where unknown.
    pub size: i64,
}

/// `GET /volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Null.
    pub warnings: Option<Vec<String>>,
}

/// `POST /volumes/create`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeCreate {
    /// Its name; empty for one that nobody names.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// The driver.
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    /// The driver's options.
    #[serde(deserialize_with = "nullable")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    /// A volume of the cluster, which midge does not have.
    pub cluster_volume_spec: Value,
}

/// `POST /volumes/prune`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumesPruned {
    /// Names.
    #[serde(deserialize_with = "nullable")]
    pub volumes_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// `POST /images/prune`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagesPruned {
    /// Names and ids.
    #[serde(deserialize_with = "nullable")]
    pub images_deleted: Vec<ImageRemoved>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// `GET /system/df`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    /// Bytes of all images, what they share counted once.
    pub layers_size: u64,
    /// Images.
    #[serde(deserialize_with = "nullable")]
    pub images: Vec<ImageSummary>,
    /// Containers.
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<ContainerUsage>,
    /// Volumes.
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    /// Empty: midge builds nothing.
    pub build_cache: Vec<Value>,
}

/// A container, with what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerUsage {
    /// Its id.
    pub id: String,
    /// `/NAME`.
    pub names: Vec<String>,
    /// The image's name.
    pub image: String,
    /// The image's id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// What it runs.
    pub command: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes of its own files.
    pub size_rw: u64,
    /// Bytes of its image's.
    pub size_root_fs: u64,
    /// Labels.
    pub labels: Labels,
    /// `running`.
    pub state: String,
    /// The same, for people.
    pub status: String,
    /// One for each volume; only their number is told.
    pub mounts: Vec<ContainerMount>,
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerMount {
    /// `volume`.
    pub r#type: String,
}

/// midge's own: what one of several nodes answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FromNode {
    /// The node's id; empty outside of a cluster.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Why it did nothing; empty where it did.
    pub error: String,
    /// What it answered, as it would on its own socket.
    pub answer: Value,
}
