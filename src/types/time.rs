//! The two kinds of time, which never mix.
//!
//! A [`Moment`] is monotonic and drives every timer. A [`Date`] is wall-clock time, for people and
//! for certificates: a board without a clock chip may be years off, so no decision waits for one.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// A point of one node's monotonic clock: nanoseconds since an origin that only that node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// Returns the moment that lies `since_origin` after the origin.
    #[must_use]
    pub fn from_origin(since_origin: Duration) -> Self {
        Self(u64::try_from(since_origin.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the time since the origin.
    #[must_use]
    pub fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Returns the time from `earlier` to this moment, or zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a deadline too far away to count is simply never reached.
    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, back: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(back.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A wall-clock time: nanoseconds since 1970-01-01T00:00:00Z. Good until the year 2554.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Date(u64);

impl Date {
    /// 1970-01-01T00:00:00Z, also what an unset date is.
    pub const EPOCH: Self = Self(0);

    /// Returns the date this many nanoseconds after [`Date::EPOCH`].
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the date this many seconds after [`Date::EPOCH`].
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Returns the nanoseconds since [`Date::EPOCH`].
    #[must_use]
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since [`Date::EPOCH`].
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Returns the time from `earlier` to this date, or zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Date {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Date {
    type Output = Self;

    fn sub(self, back: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(back.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Date {
    /// Writes RFC 3339 with as many digits of the second as needed, as Docker's API does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.unix_seconds();
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        let nanos = self.0 % 1_000_000_000;
        if nanos != 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Date {
    /// Reads RFC 3339 in UTC, as [`Date`] prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut day = day.split('-').map(str::parse::<i64>);
        let (year, month, date) = (day.next()?.ok()?, day.next()?.ok()?, day.next()?.ok()?);
        let mut time = time.splitn(3, ':');
        let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
        let second = time.next()?;
        let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
        let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        let seconds = hour * 3_600 + minute * 60 + second.parse::<i64>().ok()?;
        let whole = u64::try_from(days_from_civil(year, month, date) * 86_400 + seconds).ok()?;
        Some(Self::from_unix_seconds(whole) + Duration::from_nanos(nanos))
    }
}

/// Returns year, month and day of the day this many days after 1970-01-01, in the Gregorian
/// calendar (Howard Hinnant's `civil_from_days`, for dates after the epoch only).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Returns how many days after 1970-01-01 a day is, the inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_as_rfc_3339() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_795_231_469_694_735_240, "2026-11-21T03:24:29.69473524Z"),
            (4_102_444_799_000_000_001, "2099-12-31T23:59:59.000000001Z"),
        ] {
            assert_eq!(Date::from_unix_nanos(nanos).to_string(), text);
            assert_eq!(Date::parse(text), Some(Date::from_unix_nanos(nanos)));
        }
        for wrong in ["", "Z", "2026-11-21", "2026-11-21T03:24Z", "2026-11-21T03:24:29"] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        assert_eq!(Moment::ZERO.since(Moment::ZERO + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(Moment::ZERO - Duration::from_secs(1), Moment::ZERO);
        assert!(Moment::ZERO + Duration::MAX > Moment::ZERO);
    }
}
