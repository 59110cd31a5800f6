//! containerd by gRPC; the only place that knows protobuf.

pub mod client;
pub(super) mod container;
pub(super) mod events;
pub(super) mod exec;
pub mod image;
pub(super) mod labels;
pub(super) mod link;
pub mod probe;
pub(super) mod snapshot;
pub(super) mod task;
