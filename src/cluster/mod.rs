//! The manager: the cluster's state, the only way to change it, and every decision about it.
//!
//! Pure: decisions are synchronous functions of state, event and time. [`State`] is replicated and
//! changes only by [`State::apply`]; [`Leader`] is volatile, derived from it, and returns what
//! should be done as [`Effect`]s. It knows nothing of sockets, disks, clocks or containers.

pub mod command;
mod dispatch;
pub mod enforce;
pub mod event;
#[cfg(test)]
mod fuzz;
pub mod invariants;
mod join;
mod keep;
pub mod leader;
mod liveness;
mod managers;
pub mod occurrences;
mod read;
mod reap;
mod reconcile;
mod rehearse;
pub mod request;
mod restart;
mod rotation;
pub mod schedule;
pub mod state;
mod update;
pub mod validate;
mod why;

pub use command::{Applied, Change, Command, Decision, Rejected};
pub use event::{Effect, Event, Ticket};
pub use leader::{Leader, check_cluster_spec};
pub use request::{
    Admission, Class, ClusterUpdate, JoinRequest, NOT_A_MANAGER, Planned, PlannedTask, Query,
    Refusal, RenewRequest, Request, Response, RoleRequest,
};
pub use state::{
    SlotKey, State, decode_entry, decode_snapshot, encode_entry, forced_anew, restored_anew,
    terms_passed,
};
pub use update::is_outdated;
