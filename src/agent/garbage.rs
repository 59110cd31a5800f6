//! Which images go where a node runs short of space.
//!
//! Knows sizes, uses and thresholds; must not know how an image is removed nor how full the disk
//! is: whoever carries this out measures again after each.

use crate::types::Date;
use std::{collections::BTreeSet, time::Duration};

/// How long an image that came or was used is left alone where only a threshold is passed: it was
/// brought for something, and whoever brought it may need minutes to say for what.
pub const AGE_MIN: Duration = Duration::from_secs(600);

/// From when on images are removed, and until when, in percent of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcLimits {
    /// Above this.
    pub high: u8,
    /// Below this.
    pub low: u8,
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes that are used.
    pub used: u64,
    /// Bytes that are free for us.
    pub free: u64,
}

impl Fill {
    fn percent(self, percent: u8) -> u64 {
        let total = u128::from(self.used) + u128::from(self.free);
        u64::try_from(total * u128::from(percent) / 100).unwrap_or(u64::MAX)
    }

    /// Returns how many bytes must go: those between here and the low threshold where the high one
    /// is passed, and those that `needed` lacks.
    #[must_use]
    pub fn excess(self, limits: Option<GcLimits>, needed: u64) -> u64 {
        let over = limits.filter(|limits| self.used > self.percent(limits.high));
        let over = over.map_or(0, |limits| self.used.saturating_sub(self.percent(limits.low)));
        over.max(needed.saturating_sub(self.free))
    }
}

/// An image, as far as its removal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What names it.
    pub target: String,
    /// How many bytes go with it: what it shares with others stays.
    pub own: u64,
    /// When it was last used, or came.
    pub last_used: Date,
    /// Whether a task, a container or a service needs it.
    pub in_use: bool,
}

/// Returns which images go so that `excess` bytes are free again, in order: those not used for
/// longest first. All of them, where that is not enough.
#[must_use]
pub fn victims(images: &[Candidate], excess: u64, now: Date, age_min: Duration) -> Vec<String> {
    if excess == 0 {
        return Vec::new();
    }
    let unused = images.iter().filter(|image| !image.in_use);
    let mut old: Vec<&Candidate> =
        unused.filter(|image| now.since(image.last_used) >= age_min).collect();
    old.sort_by(|a, b| (a.last_used, b.own, &a.target).cmp(&(b.last_used, a.own, &b.target)));
    let mut left = excess;
    let mut chosen = Vec::new();
    for image in old {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(image.own);
        chosen.push(image.target.clone());
    }
    chosen
}

/// Returns which of the names and digests that tasks of this node refer to stand for an image of
/// these names, of this digest.
#[must_use]
pub fn is_wanted(wanted: &BTreeSet<String>, names: &[String], digest: &str) -> bool {
    wanted.contains(digest) || names.iter().any(|name| wanted.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: GcLimits = GcLimits { high: 85, low: 75 };
    const NOW: Date = Date::from_unix_seconds(100_000);

    fn image(target: &str, own: u64, last_used: u64, in_use: bool) -> Candidate {
        let last_used = Date::from_unix_seconds(last_used);
        Candidate { target: target.to_owned(), own, last_used, in_use }
    }

    #[test]
    fn what_must_go_follows_from_both_thresholds_and_the_need() {
        let fill = |used| Fill { used, free: 1_000 - used };
        for (used, needed, excess) in [
            (850, 0, 0),
            (851, 0, 101),
            (1_000, 0, 250),
            (700, 300, 0),
            (700, 301, 1),
            (860, 500, 360),
            (860, 150, 110),
        ] {
            assert_eq!(fill(used).excess(Some(LIMITS), needed), excess, "{used} {needed}");
        }
        assert_eq!(fill(990).excess(None, 0), 0, "off");
        assert_eq!(fill(990).excess(None, 50), 40, "but what a pull lacks is still looked for");
        let huge = Fill { used: u64::MAX, free: u64::MAX };
        assert_eq!(huge.excess(Some(LIMITS), 0), 0, "and nothing overflows");
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let images = [
            image("new", 50, 500, false),
            image("old", 50, 100, false),
            image("used", 900, 50, true),
            image("mid", 50, 300, false),
        ];
        let names = |excess| victims(&images, excess, NOW, AGE_MIN).join(" ");
        assert_eq!(names(0), "");
        assert_eq!(names(1), "old");
        assert_eq!(names(50), "old");
        assert_eq!(names(51), "old mid");
        assert_eq!(names(10_000), "old mid new", "what is in use stays, whatever is lacking");
        let fresh = [image("fresh", 50, NOW.unix_seconds() - 60, false)];
        assert_eq!(victims(&fresh, 1, NOW, AGE_MIN), [""; 0]);
        assert_eq!(victims(&fresh, 1, NOW, Duration::ZERO), ["fresh"]);
    }

    proptest! {
        #[test]
        fn nothing_in_use_ever_goes_and_enough_goes_where_there_is_enough(
            images in proptest::collection::vec((0_u64..100, 0_u64..1_000, any::<bool>()), 0..20),
            excess in 0_u64..1_000,
        ) {
            let images: Vec<Candidate> = images
                .into_iter()
                .enumerate()
                .map(|(n, (own, used, in_use))| image(&format!("i{n}"), own, used, in_use))
                .collect();
            let chosen = victims(&images, excess, NOW, AGE_MIN);
            let of = |target: &String| images.iter().find(|i| i.target == *target).unwrap();
            prop_assert!(chosen.iter().all(|target| !of(target).in_use));
            let own: u64 = chosen.iter().map(|target| of(target).own).sum();
            let all: u64 = images.iter().filter(|i| !i.in_use).map(|i| i.own).sum();
            prop_assert!(own >= excess.min(all), "{own} of {excess}");
            let last = chosen.last().map_or(0, |target| of(target).own);
            prop_assert!(chosen.is_empty() || own - last < excess, "one too many: {chosen:?}");
        }
    }
}
