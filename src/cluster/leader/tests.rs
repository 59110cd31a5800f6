//! Scenarios: a leader, its state and some workers, on a clock that jumps.

mod bounds;
mod jobs;
mod local;
mod nodes;
mod random;
mod reads;
mod services;
mod updates;
mod world;

pub(crate) use world::{World, id, replicated};
