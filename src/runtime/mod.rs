//! Containers and images, by containerd.
//!
//! Knows containerd, the OCI formats and how a task becomes a container. Must not know the
//! network (it is handed a namespace and files to mount), the node loop or Docker's JSON.

pub mod containerd;
mod image_config;

pub use image_config::{ImageConfig, PreparedImage};
