//! A disk that hangs or is full: noticed, named, and not waited for by users.
//!
//! Knows how long the log's disk has been busy with one write; takes no decision about the
//! cluster. While it hangs this manager changes nothing: with several voters it steps down, and
//! alone it says why it cannot. Reads go on, and so do sessions.
//!
//! The engine stands still with its disk, and may hear only then that another leads. Where there
//! are others, nothing is led from here meanwhile, and this node looks for the leader as a worker
//! does: it stays in touch, and says what is wrong.

use super::{Manager, PROPOSE_LIMIT, unavailable};
use crate::{
    cluster::Refusal,
    node::ports::{Authority, Host, Log, Peers, Write},
    types::Moment,
};
use std::time::Duration;

/// From when on a write counts as one that hangs: an SD card stalls for seconds when it collects
/// garbage, and a proposal is given up after as long.
const HANG_LIMIT: Duration = PROPOSE_LIMIT;

/// How often a disk that is written to is looked at. One that is full says so at once.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is known of the log's disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The write that hangs or cannot be done, as it was last seen.
    stuck: Option<Write>,
    /// When to look; none while nothing is written.
    look_at: Option<Moment>,
}

impl Disk {
    /// Something is about to be written.
    pub(super) fn expect(&mut self, now: Moment) {
        self.look_at.get_or_insert(now + LOOK_AGAIN);
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.look_at
    }

    /// Returns what to tell whoever wants a change.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.stuck.as_ref().map(|write| unavailable(&describe(write)))
    }
}

fn describe(write: &Write) -> String {
    let seconds = write.time.as_secs();
    match &write.failure {
        Some(failure) => format!("the disk of this manager cannot be written: {failure}"),
        None => format!("the disk of this manager has not finished a write for {seconds} s"),
    }
}

impl<H: Host, L: Log, P: Peers, A: Authority> Manager<H, L, P, A> {
    /// Looks at the disk where that is due.
    pub(super) fn look_at_disk(&mut self) {
        let now = self.host.now();
        if self.disk.look_at.is_none_or(|at| at > now) {
            return;
        }
        let write = self.log.write_under_way();
        let busy = write.is_some() || self.proposals.under_way.is_some();
        let stuck = write.filter(|it| it.failure.is_some() || it.time >= HANG_LIMIT);
        let before = std::mem::replace(&mut self.disk.stuck, stuck);
        self.disk.look_at = busy.then(|| now + LOOK_AGAIN);
        match (before, &self.disk.stuck) {
            (None, Some(write)) => {
                let text = describe(write);
                tracing::error!("{text}; the cluster is not changed until it is");
                let refusal = format!("{text}; a change that waited may be carried out yet");
                self.requests.refuse_changes(&unavailable(&refusal));
                self.step_down();
                if self.has_fallen_out() {
                    self.drop_leader();
                    self.point_at_leader();
                }
            }
            (Some(write), None) => {
                tracing::info!(time = ?write.time, "the disk of this manager is written again");
                self.shared.set(|status| status.manager_health = None);
                if let Some(commands) = self.proposals.next.take() {
                    self.propose(commands);
                }
                self.point_at_leader();
                self.begin_leading();
            }
            // Whoever was to lead may not have caught up then. The engine goes on leading, and
            // nothing is led from here.
            (Some(_), Some(_)) if self.leadership.leading => self.step_down(),
            _ => {}
        }
        if let Some(write) = &self.disk.stuck {
            let text = describe(write);
            self.shared.set(|status| status.manager_health = Some(text));
        }
    }

    /// Tells whether a read must do without the barrier. The engine does not answer while it
    /// writes; but where this manager is the only one, nothing was committed that it has not
    /// applied.
    pub(super) fn reads_at_once(&self) -> bool {
        let alone = self.state.nodes().filter(|node| node.manager.is_some()).count() == 1;
        alone && self.log.write_under_way().is_some_and(|write| write.time >= LOOK_AGAIN)
    }
}
