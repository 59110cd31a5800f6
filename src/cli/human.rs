//! Numbers and times as people read and write them.

use super::exit::CliError;
use crate::types::Date;
use serde_json::Value;
use std::{cmp::Ordering, time::Duration};

/// Says a duration roughly, as Docker does: `11 seconds`, `About a minute`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = ((seconds + 30) / 60, (seconds + 1_800) / 3_600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..90 => "About a minute".to_owned(),
        90..3_600 => format!("{} minutes", seconds / 60),
        _ if minutes < 90 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Says how long ago a time of the API is.
pub(crate) fn ago(text: &Value) -> String {
    let Some(date) = text.as_str().and_then(parse_date) else { return String::new() };
    format!("{} ago", duration(now().since(date)))
}

/// Says how long ago a time in seconds since 1970 is.
pub(crate) fn ago_unix(seconds: u64) -> String {
    format!("{} ago", duration(now().since(Date::from_unix_seconds(seconds))))
}

/// Returns the wall-clock time.
pub(crate) fn now() -> Date {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Date::EPOCH + since
}

/// Reads RFC 3339 in UTC, as the API writes it.
pub(crate) fn parse_date(text: &str) -> Option<Date> {
    Date::parse(text)
}

/// Says bytes in powers of 1024: `23.54GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

/// Says bytes in powers of 1000: `4.26MB`.
pub(crate) fn decimal_size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

fn scaled(bytes: u64, base: u64, units: &[&str], digits: usize) -> String {
    let (mut unit, mut scale) = (0, 1_u64);
    while bytes / scale >= base && unit + 1 < units.len() {
        scale *= base;
        unit += 1;
    }
    // In hundredths: sizes need no more, and whole numbers need no rounding rules of floats.
    let hundredths = u128::from(bytes) * 100 / u128::from(scale);
    let (whole, fraction) = (hundredths / 100, hundredths % 100);
    let left = digits.saturating_sub(whole.to_string().len()).min(2);
    let fraction = format!("{fraction:02}");
    let fraction = fraction[..left].trim_end_matches('0');
    if fraction.is_empty() {
        format!("{whole}{}", units[unit])
    } else {
        format!("{whole}.{fraction}{}", units[unit])
    }
}

/// Reads a duration in Go's notation: `1h30m`, `5s`, `100ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?} (examples: 10s, 1m30s, 500ms)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0_f64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let unit_end = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| number + end);
        let value: f64 = rest[..number].parse().map_err(|_| invalid())?;
        nanos += value
            * match &rest[number..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3_600e9,
                _ => return Err(invalid()),
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() || !nanos.is_finite() {
        return Err(invalid());
    }
    Duration::try_from_secs_f64(nanos / 1e9).map_err(|_| invalid())
}

/// Writes a duration in Go's notation: `1h30m0s`, `5s`, `1.5s`, `100ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let fraction = |value: u64, part: u32, digits: usize, unit: &str| {
        let part = format!("{part:0digits$}");
        match part.trim_end_matches('0') {
            "" => format!("{value}{unit}"),
            part => format!("{value}.{part}{unit}"),
        }
    };
    match duration.as_secs() {
        0 if nanos == 0 => "0s".to_owned(),
        0 if nanos < 1_000 => format!("{nanos}ns"),
        0 if nanos < 1_000_000 => fraction(u64::from(nanos / 1_000), nanos % 1_000, 3, "µs"),
        0 => fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6, "ms"),
        seconds => {
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            let rest = fraction(seconds % 60, nanos, 9, "s");
            match (hours, minutes) {
                (0, 0) => rest,
                (0, _) => format!("{minutes}m{rest}"),
                _ => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

/// Reads bytes: `64m`, `1.5g`, `512k`, `1024`, `64MiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: {text:?} (examples: 64m, 1.5g)");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let value: f64 = text[..split].parse().map_err(|_| invalid())?;
    let unit = text[split..].trim().to_ascii_lowercase();
    let unit = unit.trim_end_matches('b').trim_end_matches('i');
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(invalid()),
    };
    let scale = 1_u64 << shift;
    let bytes = value
        * f64::from(u32::try_from(scale >> shift.min(20)).map_err(|_| invalid())?)
        * f64::from(1_u32 << shift.min(20));
    format!("{bytes:.0}").parse().map_err(|_| invalid())
}

/// Reads a number of processors, up to nine decimals, as billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid number of CPUs {text:?} (examples: 0.5, 2)");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    let digits = format!("{whole}{fraction:0<9}");
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    digits.parse().map_err(|_| invalid())
}

/// Reads a truth value as Go does.
pub(crate) fn parse_truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("must be one of true, false".to_owned()),
    }
}

/// Reads `KEY=VALUE`, or `KEY` alone as an empty value.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid label {text:?}: a label is written KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Cuts an id as tables show it.
pub(crate) fn short_id(id: &str, no_trunc: bool) -> String {
    let id = if no_trunc { id } else { id.strip_prefix("sha256:").unwrap_or(id) };
    if no_trunc { id.to_owned() } else { id.chars().take(12).collect() }
}

/// Returns a text field of an answer, empty where it is missing.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// Returns a number of an answer, 0 where it is missing.
pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Returns a list of an answer, empty where it is missing.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the items of an answer that is a list.
pub(crate) fn items(value: Value) -> Result<Vec<Value>, CliError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        _ => Err(CliError::failure("unreadable answer: a list was expected")),
    }
}

/// Capitalises the first letter.
pub(crate) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Orders names as people do: `web2` before `web10`; digits before other characters, as Docker.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (Some(x), Some(y)) = (a.first(), b.first()) else { return a.len().cmp(&b.len()) };
        match (x.is_ascii_digit(), y.is_ascii_digit()) {
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) if x != y => return x.cmp(y),
            (false, false) => (a, b) = (&a[1..], &b[1..]),
            (true, true) => {
                let (first, second) = (digits(a), digits(b));
                let significant =
                    |number: &[u8]| number.iter().position(|d| *d != b'0').unwrap_or(number.len());
                let (zeros_a, zeros_b) = (significant(first), significant(second));
                let (nonzero_a, nonzero_b) = (&first[zeros_a..], &second[zeros_b..]);
                let order = nonzero_a.len().cmp(&nonzero_b.len()).then(nonzero_a.cmp(nonzero_b));
                if order.then(zeros_a.cmp(&zeros_b)).is_ne() {
                    return order.then(zeros_a.cmp(&zeros_b));
                }
                (a, b) = (&a[first.len()..], &b[second.len()..]);
            }
        }
    }
}

/// Returns the digits that a text begins with.
fn digits(text: &[u8]) -> &[u8] {
    &text[..text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("1.5h", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1s2"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for text in ["0s", "5s", "1.5s", "100ms", "2.5ms", "7µs", "12ns", "1m30s", "2h0m0.25s"] {
            assert_eq!(go_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_and_processors() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("512"), Ok(512));
        assert!(parse_bytes("x").is_err());
        assert_eq!(parse_cpus("0.5"), Ok(500_000_000));
        assert_eq!(parse_cpus("2"), Ok(2_000_000_000));
        assert!(parse_cpus("1.0000000001").is_err() && parse_cpus("-1").is_err());
        assert_eq!(binary_size(25_276_514_304), "23.54GiB");
        assert_eq!(decimal_size(4_261_550), "4.26MB");
    }

    #[test]
    fn names_are_ordered_as_people_do() {
        let sorted = ["n1", "n2", "n10", "web", "web2.1", "web10", "web.1", "web.02", "web.10"];
        for pair in sorted.windows(2) {
            assert_eq!(natural(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(natural(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(natural("a1", "a1"), Ordering::Equal);
    }

    #[test]
    fn dates_read_as_they_print() {
        for text in ["2026-11-21T03:24:29.69473524Z", "2000-02-29T00:00:00.5Z"] {
            assert_eq!(parse_date(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_date("nope"), None);
    }

    #[test]
    fn durations_print_as_gos() {
        for (nanos, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_000_001, "1.000001ms"),
            (5_500_000_000, "5.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
        }
    }
}
