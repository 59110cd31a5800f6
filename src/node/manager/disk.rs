//! A disk that hangs: noticed, named, and not waited for by users.
//!
//! Knows how long the log's disk has been busy with one write; takes no decision about the
//! cluster. While it hangs this manager changes nothing: with several voters it would step down,
//! and alone it says why it cannot. Reads go on, and so do sessions.

use super::{Manager, PROPOSE_LIMIT, unavailable};
use crate::{
    cluster::Refusal,
    node::ports::{Authority, Host, Log, Peers},
    types::Moment,
};
use std::time::Duration;

/// From when on a write counts as one that hangs: an SD card stalls for seconds when it collects
/// garbage, and a proposal is given up after as long.
pub(super) const HANG_LIMIT: Duration = PROPOSE_LIMIT;

/// How often a disk that hangs, or is written to, is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is known of the log's disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// How long the write that hangs had been going on when it was last looked at.
    hangs: Option<Duration>,
    /// When to look; none while nothing is written.
    look_at: Option<Moment>,
}

impl Disk {
    /// Something is about to be written.
    pub(super) fn expect(&mut self, now: Moment) {
        self.look_at.get_or_insert(now + HANG_LIMIT);
    }

    pub(super) fn hangs(&self) -> bool {
        self.hangs.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.look_at
    }

    /// Returns what to tell whoever wants a change.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.hangs.map(|time| unavailable(&describe(time)))
    }
}

fn describe(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("the disk of this manager has not finished a write for {seconds} s")
}

impl<H: Host, L: Log, P: Peers, A: Authority> Manager<H, L, P, A> {
    /// Looks at the disk where that is due.
    pub(super) fn look_at_disk(&mut self) {
        let now = self.host.now();
        if self.disk.look_at.is_none_or(|at| at > now) {
            return;
        }
        let busy = self.log.commit_under_way();
        let before = self.disk.hangs;
        self.disk.hangs = busy.filter(|time| *time >= HANG_LIMIT);
        self.disk.look_at = match busy {
            _ if self.disk.hangs() => Some(now + LOOK_AGAIN),
            Some(time) => Some(now + (HANG_LIMIT - time).max(LOOK_AGAIN)),
            None => self.proposals.under_way.map(|_| now + LOOK_AGAIN),
        };
        match (before, self.disk.hangs) {
            (None, Some(time)) => {
                let text = describe(time);
                tracing::error!("{text}; the cluster is not changed until it has");
                let refusal = format!("{text}; a change that waited may be carried out yet");
                self.requests.refuse_changes(&unavailable(&refusal));
            }
            (Some(time), None) => {
                tracing::info!(?time, "the disk of this manager has finished its write");
                self.shared.set(|status| status.manager_health = None);
                if let Some(commands) = self.proposals.next.take() {
                    self.propose(commands);
                }
            }
            _ => {}
        }
        if let Some(time) = self.disk.hangs {
            self.shared.set(|status| status.manager_health = Some(describe(time)));
        }
    }
}
