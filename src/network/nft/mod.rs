//! The packet filter: one nftables table, and the connections that the kernel tracks for it, spoken
//! to the kernel in its own netlink dialect.
//!
//! Knows bytes and addresses, nothing of tasks. The table is always written as a whole, in one
//! transaction: there is no state in it that could differ from what we think.

mod closed;
mod connections;
mod expr;
mod message;
mod read;
mod table;

pub(super) use closed::close_between;
pub(super) use connections::forget;
pub(super) use read::{chains, rules};
pub(super) use table::{Forward, Table};
