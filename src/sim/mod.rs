//! The deterministic simulation: a whole cluster in one thread under a virtual clock.
//!
//! The driver, the consensus engine, the store and all decisions are the real ones; clock, disks,
//! network, containers and users are virtual and drawn from a seed. A failure names its seed;
//! `MIDGE_SIM_SEED=n MIDGE_SIM_TRACE=1 cargo test --lib sim::tests::seeds` replays it with
//! everything that happened on stderr, `MIDGE_SIM_SEEDS=from..to` runs many, and `from..to/7` every
//! seventh of them.
//!
//! The same cluster plays the scripts in `tests/data/scenario`; `UPDATE_EXPECT=1` rewrites what they
//! expect.

mod chaos;
mod check;
mod disaster;
pub(crate) mod executor;
mod group;
mod host;
mod jobs;
mod load;
mod network;
pub(crate) mod on_sim;
mod peers;
mod quorum;
mod restore;
mod run;
mod scenario;
mod tests;
mod trust;
mod updates;
mod world;
