//! Containers and images, by containerd.

pub mod containerd;
pub mod fake;
