//! Updates: how the tasks of a service are replaced, and how far that has come.

use super::{Date, NodeId, TaskId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// How many tasks are replaced at a time, as Swarm's.
pub const UPDATE_PARALLELISM: u64 = 1;

/// How long a replaced task is watched for failure, as Swarm's.
pub const UPDATE_MONITOR: Duration = Duration::from_secs(5);

/// How long a replacement may take until it runs: a large image over a slow link, and no more.
pub const UPDATE_PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// What happens when more replaced tasks fail than are allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FailureAction {
    /// The update stops and waits for the user.
    #[default]
    Pause,
    /// The update goes on.
    Continue,
    /// The service goes back to its previous spec. Not for a rollback itself.
    Rollback,
}

impl FailureAction {
    /// Returns the name that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Rollback => "rollback",
        }
    }
}

/// Which of two tasks of a slot gives way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old task stops once the new one is prepared; the new one starts when it has stopped.
    #[default]
    StopFirst,
    /// The old task stops once the new one runs, healthy where it says so.
    StartFirst,
}

impl UpdateOrder {
    /// Returns the name that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StopFirst => "stop-first",
            Self::StartFirst => "start-first",
        }
    }
}

/// A part of a whole, from 0 to 1, in billionths: fine enough to give back any fraction that
/// Docker's single precision tells apart from its neighbours, down to a hundredth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Ratio(u32);

const RATIO_ONE: u32 = 1_000_000_000;

impl Ratio {
    /// Takes a fraction; none where it is not between 0 and 1.
    #[must_use]
    pub fn from_fraction(fraction: f64) -> Option<Self> {
        let billionths = (fraction * f64::from(RATIO_ONE)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "was checked")]
        (0.0..=f64::from(RATIO_ONE)).contains(&billionths).then_some(Self(billionths as u32))
    }

    /// Returns the fraction.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(RATIO_ONE)
    }

    /// Tells whether `part` of `whole` is more than this.
    #[must_use]
    pub fn is_exceeded(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(RATIO_ONE) > u128::from(whole) * u128::from(self.0)
    }
}

/// How the tasks of a service are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// How many at a time; 0 is all at once.
    pub parallelism: u64,
    /// How long to wait after a replaced task runs, before its place goes to the next.
    pub delay: Duration,
    /// What happens when more than `max_failure_ratio` fail.
    pub failure_action: FailureAction,
    /// How long a task is watched once it runs. Zero is no time at all.
    pub monitor: Duration,
    /// Which part of the replaced tasks may fail.
    pub max_failure_ratio: Ratio,
    /// Which task gives way first.
    pub order: UpdateOrder,
    /// How long a replacement may take until it runs; then it counts as failed. Zero is for ever.
    pub progress_deadline: Duration,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: UPDATE_PARALLELISM,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: UPDATE_MONITOR,
            max_failure_ratio: Ratio::default(),
            order: UpdateOrder::StopFirst,
            progress_deadline: UPDATE_PROGRESS_DEADLINE,
        }
    }
}

/// How far the replacement of a service's tasks by a changed spec has come. The names are Swarm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Slots are being replaced.
    Updating,
    /// All slots run the new spec.
    Completed,
    /// Stopped, waiting for the user.
    Paused,
    /// Slots are being replaced by the previous spec.
    RollbackStarted,
    /// All slots run the previous spec.
    RollbackCompleted,
    /// The rollback stopped, waiting for the user.
    RollbackPaused,
}

impl UpdateState {
    /// Returns the name that Docker's API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Completed => "completed",
            Self::Paused => "paused",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackCompleted => "rollback_completed",
            Self::RollbackPaused => "rollback_paused",
        }
    }

    /// Tells whether tasks are being replaced.
    #[must_use]
    pub fn is_moving(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// Tells whether it stopped and waits for the user.
    #[must_use]
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::RollbackPaused)
    }

    /// Tells whether it goes, or went, back to the previous spec.
    #[must_use]
    pub fn is_rollback(self) -> bool {
        matches!(self, Self::RollbackStarted | Self::RollbackCompleted | Self::RollbackPaused)
    }
}

/// A place of a service that an update replaces a task in: its slot, or its node where it has one
/// task a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpdatePlace {
    /// The slot, from 1; 0 for global services.
    pub slot: u64,
    /// The node of a global service's task; none otherwise.
    pub node: Option<NodeId>,
}

/// The state of a service's update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// How far it has come.
    pub state: UpdateState,
    /// When it began, or went on after it had stopped.
    pub started: Date,
    /// When it ended; [`Date::EPOCH`] before.
    pub completed: Date,
    /// In words.
    pub message: String,
    /// How many places it replaces tasks in; 0 while they were not counted yet.
    pub total: u64,
    /// Where the task it made failed, and which that was. Not tried again before somebody says so.
    pub failed: BTreeSet<(UpdatePlace, TaskId)>,
}

impl UpdateStatus {
    /// Returns one that has just begun.
    #[must_use]
    pub fn begun(state: UpdateState, started: Date, message: &str) -> Self {
        assert!(state.is_moving(), "what begins moves");
        Self {
            state,
            started,
            completed: Date::EPOCH,
            message: message.to_owned(),
            total: 0,
            failed: BTreeSet::new(),
        }
    }

    /// Tells whether a task failed in this place.
    #[must_use]
    pub fn failed_in(&self, place: &UpdatePlace) -> bool {
        self.failed.iter().any(|(failed, _)| failed == place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_give_back_what_single_precision_tells_apart() {
        for fraction in [0.0_f32, 0.01, 0.1, 0.25, 1.0 / 3.0, 0.5, 0.999_999, 1.0] {
            let ratio = Ratio::from_fraction(f64::from(fraction)).unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "this is what is tested")]
            let back = ratio.fraction() as f32;
            assert_eq!(back.to_bits(), fraction.to_bits());
        }
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::from_fraction(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_ratio_is_exceeded_by_more_than_it() {
        let third = Ratio::from_fraction(0.3).unwrap();
        assert!(!third.is_exceeded(3, 10) && third.is_exceeded(4, 10));
        assert!(!Ratio::default().is_exceeded(0, 10) && Ratio::default().is_exceeded(1, 10));
        let all = Ratio::from_fraction(1.0).unwrap();
        assert!(!all.is_exceeded(10, 10));
    }
}
