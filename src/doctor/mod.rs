//! What `midge doctor` finds on a machine, before midge is installed and after.
//!
//! Two halves: [`gather`] looks, and fills [`Facts`], a plain structure; [`diagnose`] decides, and
//! does nothing else. Neither changes the machine, but for a file that measures the disk and is
//! removed again. What could not be looked at is a fact too: it says why.
//!
//! Knows the machine and what midge needs of it; must not know the command line, nor how findings
//! are shown.

mod diagnose;
mod facts;
mod finding;
mod gather;

pub use diagnose::diagnose;
pub use facts::{Config, Daemon, Facts, SocketState};
pub use finding::{Finding, Level};
pub use gather::{Where, gather};
