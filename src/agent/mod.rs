//! The worker: assignments against observed containers, one task's life, local restarts.
//!
//! Pure: [`Agent::step`] turns an event and a time into actions. It knows nothing of containerd,
//! sockets or disks; whoever drives it carries the actions out and tells what came of them.

pub mod event;

pub use event::{Action, Event, Failure, Observed, Phase, Record, StoredTask};
