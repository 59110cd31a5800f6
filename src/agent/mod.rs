//! The worker: assignments against observed containers, one task's life, health, local restarts.
//!
//! Pure: [`Agent::step`] turns an event and a time into actions. It knows nothing of containerd,
//! sockets or disks; whoever drives it carries the actions out and tells what came of them.
//!
//! Events only change what is known; after each, every task is looked at as a whole and the next
//! action follows from what is known of it. So an event that is lost, doubled or late changes when
//! something happens, never what.

mod assign;
pub mod event;
mod expand;
pub mod garbage;
mod health;
mod probe;
mod report;
mod restart;
mod session;
mod step;
mod task;

pub use event::{
    Action, Event, Failure, Observed, Operation, Phase, Prepared, ProbeResult, Record, StoredTask,
};
pub use probe::PROBES_MAX;
pub use restart::{LOCAL_HISTORY_MAX, OFFLINE_AFTER};
pub use step::{Agent, Options, PREPARES_MAX, STARTS_MAX};

#[cfg(test)]
mod tests;
