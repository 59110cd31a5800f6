//! Whole groups on one thread under a virtual clock.

mod executor;
mod group;
mod memory;
