//! The time by which certificates are judged.
//!
//! A board without a clock chip wakes up years in the past and would refuse every certificate as
//! not yet valid, and so never reach the network time that sets it right. So the wall clock counts
//! only where it is later than what is known to have passed: the date of the build, and the last
//! date that the daemon wrote to disk.

use crate::types::Date;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// A wall clock that never falls behind what is known to have passed.
#[derive(Debug, Clone)]
pub struct TrustedClock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// The system's, not before the date.
    System(Date),
    Fixed(Date),
}

impl TrustedClock {
    /// Returns the system's clock, not before [`BUILD_DATE`] nor `persisted`.
    #[must_use]
    pub fn system(persisted: Date) -> Self {
        Self(Source::System(persisted.max(BUILD_DATE)))
    }

    /// Returns a clock that stands still, for decisions about another time and for tests.
    #[must_use]
    pub fn fixed(date: Date) -> Self {
        Self(Source::Fixed(date))
    }

    /// Returns the date by which to judge a certificate.
    #[must_use]
    pub fn date(&self) -> Date {
        match self.0 {
            Source::System(least) => system_date().max(least),
            Source::Fixed(date) => date,
        }
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
