//! The Docker-compatible HTTP interface on a unix socket.
//!
//! A request goes through [`server`] (connections, limits, panics), [`route`] (one table) and one
//! function of `handle`, which asks the local node through [`local::LocalNode`] and puts the answer
//! into Docker's JSON (`dto`) by `convert`. It knows Docker's shapes, statuses and texts; it must
//! not know how a node is made, nor hold any state of the cluster.

pub mod convert;
mod decode;
pub mod dto;
pub mod error;
pub mod filter;
mod handle;
pub mod local;
mod pattern;
mod query;
pub mod route;
pub mod server;
mod stall;
pub mod stream;
mod upgrade;

pub use local::LocalNode;
pub use server::{BindError, bind, serve};

/// The newest API version that is spoken, and the one a request without a version gets.
pub const API_VERSION: (u16, u16) = (1, 47);

/// The oldest API version that is spoken; what Docker itself still takes.
pub const API_VERSION_MIN: (u16, u16) = (1, 24);

#[cfg(test)]
mod tests;
