//! Times as people write them for `--since` and `--until`.

use super::{
    exit::CliError,
    human::{now, parse_date, parse_duration},
};
use crate::types::Date;
use std::time::Duration;

/// Reads how long ago (`10m`), a time (`2026-01-31T12:00:00Z`, `2026-01-31T12:00`, `2026-01-31`; in
/// UTC where it names no zone), or seconds since 1970 (`1769860800.5`), and returns it as Docker's
/// API takes it: seconds and nanoseconds since 1970.
pub(crate) fn parse(option: &str, text: &str) -> Result<String, CliError> {
    let date = match parse_duration(text) {
        Ok(ago) if text != "0" => Some(now() - ago),
        _ => unix(text).or_else(|| calendar(text)),
    };
    let date = date.ok_or_else(|| {
        CliError::usage(format!("invalid value for {option}: {text:?}")).hint(
            "a duration (10m), a time (2026-01-31T12:00:00Z) or seconds since 1970 is expected",
        )
    })?;
    Ok(format!("{}.{:09}", date.unix_seconds(), date.unix_nanos() % 1_000_000_000))
}

fn unix(text: &str) -> Option<Date> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(Date::from_unix_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

fn calendar(text: &str) -> Option<Date> {
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let (time, offset) = zone(time)?;
    let time = match time.matches(':').count() {
        0 => format!("{time}:00:00"),
        1 => format!("{time}:00"),
        _ => time.to_owned(),
    };
    let (hour, _) = time.split_once(':')?;
    // Days that the calendar does not have are no times.
    let two = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = day.split('-').collect();
    if parts.len() != 3 || parts[0].len() != 4 || !two(parts[1]) || !two(parts[2]) || !two(hour) {
        return None;
    }
    let local = parse_date(&format!("{day}T{time}Z"))?;
    if offset < 0 {
        local.unix_nanos().checked_add(nanos(offset.unsigned_abs())).map(Date::from_unix_nanos)
    } else {
        local.unix_nanos().checked_sub(nanos(offset.unsigned_abs())).map(Date::from_unix_nanos)
    }
}

fn nanos(seconds: u64) -> u64 {
    u64::try_from(Duration::from_secs(seconds).as_nanos()).unwrap_or(u64::MAX)
}

/// Splits the zone off a time, as seconds to the east.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    let east = hours * 3_600 + minutes * 60;
    Some((&time[..at], if time.as_bytes()[at] == b'-' { -east } else { east }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("0", "0.000000000"),
            ("1769860800", "1769860800.000000000"),
            ("1769860800.5", "1769860800.500000000"),
            ("2026-01-31T12:00:00Z", "1769860800.000000000"),
            ("2026-01-31T12:00:00.25Z", "1769860800.250000000"),
            ("2026-01-31T12:00:00", "1769860800.000000000"),
            ("2026-01-31T12:00", "1769860800.000000000"),
            ("2026-01-31T12", "1769860800.000000000"),
            ("2026-01-31T13:30:00+01:30", "1769860800.000000000"),
            ("2026-01-31T09:00:00-03:00", "1769860800.000000000"),
            ("2026-01-31", "1769817600.000000000"),
        ] {
            assert_eq!(parse("--since", text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "yesterday", "10", "2026-1-31", "12:00", "1.2.3", "2026-01-31T12:00:00+1"]
        {
            let result = parse("--since", text);
            assert!(result.is_err() || text == "10", "{text}: {result:?}");
        }
    }

    #[test]
    fn a_duration_is_so_long_ago() {
        let seconds: u64 =
            parse("--since", "1h").unwrap().split('.').next().unwrap().parse().unwrap();
        let wanted = now().unix_seconds() - 3_600;
        assert!(seconds.abs_diff(wanted) <= 2);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            parse("--since", &text).ok();
        }

        #[test]
        fn nor_does_what_looks_like_a_time(text in "[0-9TZ:.+-]{0,30}") {
            parse("--since", &text).ok();
        }
    }
}
