//! midge: one program that turns Linux boxes into one cluster that runs containers.
//!
//! # Code map
//!
//! Decisions are pure and live in three modules; everything else carries them out.
//!
//! - [`types`]: nouns and their rules. Pure.
//! - [`cluster`]: the manager: state, commands, scheduling, reconciliation. Pure.
//! - [`agent`]: the worker: assignments against containers. Pure.
//! - [`wire`]: what nodes say to each other, as bytes. Pure.
//! - [`consensus`]: the replicated log, behind our own interface.
//! - [`store`]: what is on disk.
//! - [`pki`]: certificates and join tokens.
//! - [`transport`]: QUIC between nodes.
//! - [`runtime`]: containers and images, by containerd.
//! - [`network`]: bridges, namespaces, packet filter, names.
//! - [`api`]: the Docker-compatible HTTP interface.
//! - [`node`]: the loop of one node, generic over everything it touches.
//! - [`daemon`]: puts the real parts together.
//! - [`doctor`]: what is wrong with a machine, and what to do about it.
//! - [`cli`]: the command line.
//! - [`util`]: missing batteries.
//!
//! # Invariants
//!
//! - `types`, `cluster`, `agent` and `wire` hold no clock, no randomness, no I/O and no `async`.
//! - Cluster state changes only by [`cluster::State::apply`] of a committed command.
//! - Adapters (`store`, `pki`, `transport`, `runtime`, `network`, `api`) never name one another.
//! - Docker's JSON stays in `api`, protobuf in `runtime::containerd`, clap in `cli`, netlink in
//!   `network`.
//!
//! `tests/it/tidy.rs` reads the source and enforces all of this.

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod consensus;
pub mod daemon;
pub mod doctor;
pub mod network;
pub mod node;
pub mod pki;
pub mod runtime;
#[cfg(test)]
mod sim;
pub mod store;
pub mod transport;
pub mod types;
pub mod util;
pub mod wire;

pub use cli::run;
