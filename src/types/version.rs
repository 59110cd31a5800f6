//! Versions: where in the history of the cluster an object was last written.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The place of one write: the cluster epoch, then the index in the consensus log.
///
/// A restore from a backup or a forced new cluster raises the epoch, so that nothing written
/// before it can ever look newer than what came after, whatever the log index says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// The cluster epoch, from 1.
    pub epoch: u64,
    /// The index of the log entry.
    pub index: u64,
}

impl Version {
    /// Below every version that was ever written.
    pub const ZERO: Self = Self { epoch: 0, index: 0 };

    /// How far the epoch is shifted in [`Version::to_api`]: the log would have to hold 2^32
    /// entries, ten a second for 13 years, before two versions looked alike. An idle cluster writes
    /// none, and a busy one some a minute.
    const EPOCH_SHIFT: u32 = 32;

    /// The newest epoch that is begun by the calendar. With it the number of [`Version::to_api`]
    /// stays below 2^53, beyond which clients in JavaScript lose its last digits.
    pub const EPOCH_MAX: u64 = 1 << (53 - Self::EPOCH_SHIFT);

    /// Returns the version as the one number that Docker's API knows. Epoch 1 gives the bare log
    /// index, so that an ordinary cluster shows small numbers.
    #[must_use]
    pub fn to_api(self) -> u64 {
        (self.epoch.saturating_sub(1) << Self::EPOCH_SHIFT) | self.index
    }

    /// Returns the version that [`Version::to_api`] made `number` of.
    #[must_use]
    pub fn from_api(number: u64) -> Self {
        Self {
            epoch: (number >> Self::EPOCH_SHIFT) + 1,
            index: number & ((1 << Self::EPOCH_SHIFT) - 1),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_api_is_read_back_and_rises_with_the_epoch() {
        let version = |epoch, index| Version { epoch, index };
        assert_eq!(version(1, 77).to_api(), 77);
        let last = (1 << Version::EPOCH_SHIFT) - 1;
        let rising = [version(1, 5), version(1, last), version(2, 1), version(9, 0)];
        let rising = [&rising[..], &[version(Version::EPOCH_MAX, last)]].concat();
        assert!(rising.is_sorted_by_key(|version| version.to_api()));
        for version in rising {
            assert_eq!(Version::from_api(version.to_api()), version);
            assert!(version.to_api() < 1 << 53, "{version} is more than a double holds");
        }
    }
}
