//! The time by which certificates are judged.
//!
//! A board without a clock chip wakes up years in the past and would refuse every certificate as
//! not yet valid, and so never reach the network time that sets it right. So the wall clock counts
//! only where it is later than what is known to have passed: the date of the build, and the last
//! date that the daemon wrote to disk.

use crate::types::Date;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// No clock can be right that says less: the reproducible build's own date where one was set
/// (`SOURCE_DATE_EPOCH`), or the day before the first release.
pub const BUILD_DATE: Date = Date::from_unix_seconds(match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => parse_seconds(text),
    None => 1_793_491_200, // 2026-11-01
});

/// Parses decimal digits at compile time; anything else ends the build.
const fn parse_seconds(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut seconds = 0;
    let mut at = 0;
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "SOURCE_DATE_EPOCH is a number of seconds");
        seconds = seconds * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    seconds
}

/// A wall clock that never falls behind what is known to have passed. Cheap to clone; all clones
/// are one clock.
#[derive(Debug, Clone)]
pub struct TrustedClock {
    source: Source,
    floor: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
enum Source {
    System,
    Fixed(Date),
}

impl TrustedClock {
    /// Returns the system's clock, not before [`BUILD_DATE`] nor `persisted`.
    #[must_use]
    pub fn system(persisted: Date) -> Self {
        Self::new(Source::System, persisted)
    }

    /// Returns a clock that stands still, for decisions about another time and for tests.
    #[must_use]
    pub fn fixed(date: Date) -> Self {
        Self::new(Source::Fixed(date), Date::EPOCH)
    }

    fn new(source: Source, persisted: Date) -> Self {
        let floor = match source {
            Source::System => persisted.max(BUILD_DATE),
            Source::Fixed(_) => persisted,
        };
        Self { source, floor: Arc::new(AtomicU64::new(floor.unix_nanos())) }
    }

    /// Returns the date by which to judge a certificate.
    #[must_use]
    pub fn date(&self) -> Date {
        let wall = match self.source {
            Source::System => system_date(),
            Source::Fixed(date) => date,
        };
        wall.max(Date::from_unix_nanos(self.floor.load(Ordering::Relaxed)))
    }

    /// Learns that `date` has passed: it was written to disk, or an authenticated manager said so.
    pub fn raise(&self, date: Date) {
        let _before = self.floor.fetch_max(date.unix_nanos(), Ordering::Relaxed);
    }
}

fn system_date() -> Date {
    // A clock before 1970 is as wrong as one at 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::from_unix_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl rustls::time_provider::TimeProvider for TrustedClock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = std::time::Duration::from_secs(self.date().unix_seconds());
        Some(rustls_pki_types::UnixTime::since_unix_epoch(seconds))
    }
}
