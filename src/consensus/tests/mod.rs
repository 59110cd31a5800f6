//! Whole groups on one thread under a virtual clock, and the engine's own tests of its storage.

pub(crate) mod group;
mod memory;
mod suite;
