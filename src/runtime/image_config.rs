//! What a container takes from its image.

use crate::types::{ImageHealth, Labels};

/// The part of an image's configuration that its containers are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// `name|uid[:group|gid]`; empty is root.
    pub user: String,
    /// The working directory; empty is `/`.
    pub working_dir: String,
    /// The paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// The signal that asks it to stop; empty is SIGTERM.
    pub stop_signal: String,
    /// How the health of its containers is found out.
    pub health: ImageHealth,
    /// Labels.
    pub labels: Labels,
}

/// An image whose layers are unpacked: what a container can be made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PreparedImage {
    /// The name containerd stores it under (`docker.io/library/nginx:1.27`).
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: String,
    /// The snapshotter that holds the layers (`overlayfs`).
    pub snapshotter: String,
    /// The key of the committed snapshot of the topmost layer; empty for an image without layers.
    pub chain_id: String,
    /// Its configuration.
    pub config: ImageConfig,
}
