//! What is on disk: the manager's log and snapshots, the agent's tasks. One file each, so that
//! neither waits for the other's writer.
//!
//! Knows redb and how records are sealed; knows nothing of what the log's bytes mean, of the engine
//! behind it, or of when to write. Every call blocks until it is on disk.

mod agent;
mod backup;
mod file;
mod manager;
mod notes;
mod seal;

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod tests;

pub use agent::AgentStore;
pub use backup::{CONTENT_MAX, OpenFileError, open_file, seal_file};
pub use file::{FORMAT, OpenError};
pub use manager::ManagerStore;
pub use seal::Sealer;
