//! The driver of one node: the loop that steps the pure parts and carries out what they return.
//!
//! Generic over [`ports`]: the daemon gives it the real ones, the simulator its own, and both run
//! this same code.

pub mod ports;
