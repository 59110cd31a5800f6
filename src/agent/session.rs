//! The agent's side of a session: register until registered, beat until unanswered.
//!
//! Knows when to say something, not what tasks are.

use crate::types::{HEARTBEAT_PERIOD, Moment};
use std::time::Duration;

/// The first wait for an answer to a register; doubles. A slow link's round trip and a leader's
/// commit fit.
const REGISTER_RETRY: Duration = Duration::from_secs(2);

/// What the doubling wait is cut to. The link itself is watched by the transport, so this only
/// bridges a manager that has no leader; election takes seconds.
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(15);

/// After so many heartbeats without an answer the connection is given up: as many as the manager
/// waits for before it calls the node Down.
const UNANSWERED_MAX: u32 = 3;

/// The shortest period taken from a manager, so that a wrong one cannot make a node spin.
const PERIOD_MIN: Duration = Duration::from_millis(100);

/// The wait before a node registers again after it was told that another machine has its key.
const DUPLICATE_WAIT: Duration = Duration::from_secs(60);

/// Where the node stands with its manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// No connection.
    Away,
    /// Connected; the register is sent at `at` and then again until answered.
    Registering { session: u64, at: Moment, tries: u32 },
    /// The session stands.
    Registered { session: u64, period: Duration, beat_at: Moment, unanswered: u32 },
}

/// What the session wants said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Nothing,
    Register {
        session: u64,
    },
    Heartbeat {
        session: u64,
    },
    /// The manager does not answer.
    GiveUp,
}

/// The session.
#[derive(Debug)]
pub(super) struct Session {
    link: Link,
    /// When the node was last without one; it is now, unless registered.
    lost_at: Moment,
    /// Nothing is registered before this.
    hold_until: Moment,
}

impl Session {
    pub(super) fn new(now: Moment) -> Self {
        Self { link: Link::Away, lost_at: now, hold_until: now }
    }

    /// Returns the session's number where it stands.
    pub(super) fn registered(&self) -> Option<u64> {
        match self.link {
            Link::Registered { session, .. } => Some(session),
            Link::Away | Link::Registering { .. } => None,
        }
    }

    /// Returns since when there is no session; none where there is one.
    pub(super) fn lost_at(&self) -> Option<Moment> {
        self.registered().is_none().then_some(self.lost_at)
    }

    fn lose(&mut self, now: Moment) {
        if self.registered().is_some() {
            self.lost_at = now;
        }
    }

    /// There is a connection: begin a session of this number.
    pub(super) fn connected(&mut self, session: u64, now: Moment) {
        self.lose(now);
        self.link = Link::Registering { session, at: now.max(self.hold_until), tries: 0 };
    }

    pub(super) fn disconnected(&mut self, now: Moment) {
        self.lose(now);
        self.link = Link::Away;
    }

    /// The manager accepted the register. Tells whether that was news.
    pub(super) fn accepted(&mut self, session: u64, period: Duration, now: Moment) -> bool {
        match self.link {
            Link::Registering { session: mine, .. } if mine == session => {
                let period = period.max(PERIOD_MIN);
                let beat_at = now + period;
                self.link = Link::Registered { session, period, beat_at, unanswered: 0 };
                true
            }
            _ => false,
        }
    }

    /// The manager answered a heartbeat. Where it wants them more often from now on, it waits for the
    /// next one no longer than that.
    pub(super) fn answered(&mut self, session: u64, new_period: Duration, now: Moment) {
        if let Link::Registered { session: mine, period, beat_at, unanswered } = &mut self.link
            && *mine == session
        {
            *period = new_period.max(PERIOD_MIN);
            *beat_at = (*beat_at).min(now + *period);
            *unanswered = 0;
        }
    }

    /// The manager does not know `session`: begin another one.
    pub(super) fn unknown(&mut self, session: u64, fresh: u64, now: Moment) {
        match self.link {
            Link::Registered { session: mine, .. } if mine == session => {
                self.lose(now);
                self.link = Link::Registering { session: fresh, at: now, tries: 0 };
            }
            // The register itself is refused: somebody else will lead soon.
            Link::Registering { session: mine, tries, .. } if mine == session => {
                let at = now + retry(tries);
                self.link = Link::Registering { session: fresh, at, tries: tries + 1 };
            }
            _ => {}
        }
    }

    /// What a register says has changed: one that is under way must not be answered as if it had
    /// said so, since what it left out would be stopped.
    pub(super) fn renew(&mut self, fresh: u64) {
        if let Link::Registering { session, .. } = &mut self.link {
            *session = fresh;
        }
    }

    /// Another machine has this node's key.
    pub(super) fn refuse(&mut self, now: Moment) {
        self.lose(now);
        self.hold_until = now + DUPLICATE_WAIT;
        self.link = Link::Away;
    }

    /// Returns what is to be said now. `ready` tells whether there is something to register with.
    pub(super) fn poll(&mut self, ready: bool, now: Moment) -> Say {
        match &mut self.link {
            Link::Registering { session, at, tries } if ready && *at <= now => {
                *at = now + retry(*tries);
                *tries = tries.saturating_add(1);
                Say::Register { session: *session }
            }
            Link::Registered { unanswered, beat_at, .. }
                if *beat_at <= now && *unanswered >= UNANSWERED_MAX =>
            {
                self.disconnected(now);
                Say::GiveUp
            }
            Link::Registered { session, period, beat_at, unanswered } if *beat_at <= now => {
                *beat_at = now + *period;
                *unanswered += 1;
                Say::Heartbeat { session: *session }
            }
            _ => Say::Nothing,
        }
    }

    pub(super) fn deadline(&self, ready: bool) -> Option<Moment> {
        match self.link {
            Link::Registering { at, .. } => ready.then_some(at),
            Link::Registered { beat_at, .. } => Some(beat_at),
            Link::Away => None,
        }
    }

    /// Returns how often the manager wants to hear of the node.
    pub(super) fn period(&self) -> Duration {
        match self.link {
            Link::Registered { period, .. } => period,
            Link::Away | Link::Registering { .. } => HEARTBEAT_PERIOD,
        }
    }
}

fn retry(tries: u32) -> Duration {
    (REGISTER_RETRY * (1 << tries.min(4))).min(REGISTER_RETRY_MAX)
}
