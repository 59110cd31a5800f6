//! The API against a node that is none: real requests over a real socket, and the `docker` command
//! where it is installed.

mod containers;
mod contract;
mod docker;
mod ending;
pub(super) mod fake;
mod fuzz;
mod jobs;
mod options;
pub(super) mod recorded;
mod refusals;
mod storage;
