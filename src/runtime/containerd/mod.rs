//! containerd by gRPC; the only place that knows protobuf.

pub mod client;
pub mod image;
