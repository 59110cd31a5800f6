//! One line of a log, as Docker's `json-file` writes it:
//! `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`.
//!
//! Written by hand, since the logger must stay small; read with the JSON parser.

use super::LogStream;
use crate::types::Date;
use serde::Deserialize;
use std::{collections::BTreeMap, io::Write};

/// What the lines of a log have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// `stdout` or `stderr`.
    pub(super) stream: &'a str,
    /// A JSON object that every line bears; empty is none.
    pub(super) attributes: &'a str,
    /// When the line was read.
    pub(super) date: Date,
}

/// Appends a line to `out`. `complete` is false for all but the last piece of a line that was too
/// long.
pub(super) fn write_line(out: &mut Vec<u8>, frame: Frame<'_>, text: &[u8], complete: bool) {
    let Frame { stream, attributes, date } = frame;
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        chunk.valid().chars().for_each(|character| escape(out, character));
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    if complete {
        out.extend_from_slice(b"\\n");
    }
    // Writing to memory cannot fail.
    drop(write!(out, "\",\"stream\":\"{stream}\""));
    if !attributes.is_empty() {
        drop(write!(out, ",\"attrs\":{attributes}"));
    }
    drop(writeln!(out, ",\"time\":\"{date}\"}}"));
}

fn escape(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            drop(write!(out, "\\u{:04x}", u32::from(character)));
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where the container wrote it.
    pub stream: LogStream,
    /// When the logger read it.
    pub date: Date,
    /// What it wrote, with the line break; without one where the line was split.
    pub line: Vec<u8>,
    /// Labels, environment and tag that the log was asked to keep with each line.
    pub attributes: BTreeMap<String, String>,
}

/// Reads a line; none for what is no such line, as the end of a file that a crash cut short.
pub(super) fn read_line(text: &[u8]) -> Option<LogLine> {
    #[derive(Deserialize)]
    struct Line {
        log: String,
        stream: LogStream,
        time: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let line: Line = serde_json::from_slice(text).ok()?;
    Some(LogLine {
        stream: line.stream,
        date: parse_date(&line.time)?,
        line: line.log.into_bytes(),
        attributes: line.attrs,
    })
}

/// Parses what [`Date`] prints: RFC 3339 in UTC.
fn parse_date(text: &str) -> Option<Date> {
    let text = text.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut numbers = seconds.split(['-', 'T', ':']).map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's days_from_civil, for dates after the epoch only.
    let year = year - u64::from(month <= 2);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + (153 * shifted + 2) / 5 + day - 1;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let nanos: u64 =
        if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").get(..9)?.parse().ok()? };
    Some(Date::from_unix_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_as_docker_writes_them() {
        let mut out = Vec::new();
        let date = Date::from_unix_nanos(1_795_231_469_694_735_240);
        let frame = Frame { stream: "stdout", attributes: "", date };
        write_line(&mut out, frame, b"a\"<\x01\xff\te\xcc\x81", true);
        let expected = "{\"log\":\"a\\\"\\u003c\\u0001\\ufffd\\te\u{301}\\n\",\"stream\":\"stdout\",\
                        \"time\":\"2026-11-21T03:24:29.69473524Z\"}\n";
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        let line = read_line(&out).unwrap();
        assert_eq!(line.date, date);
        assert_eq!(line.line, "a\"<\u{1}\u{fffd}\te\u{301}\n".as_bytes());
        assert!(line.attributes.is_empty());
        let mut out = Vec::new();
        let attributes = r#"{"tag":"t"}"#;
        write_line(&mut out, Frame { attributes, ..frame }, b"x", false);
        let expected = "{\"log\":\"x\",\"stream\":\"stdout\",\"attrs\":{\"tag\":\"t\"},\
                        \"time\":\"2026-11-21T03:24:29.69473524Z\"}\n";
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        assert_eq!(read_line(&out).unwrap().attributes["tag"], "t");
    }

    #[test]
    fn dates_survive_being_printed() {
        for nanos in [0, 1, 951_782_400_000_000_000, 1_795_231_469_694_735_240] {
            let date = Date::from_unix_nanos(nanos);
            assert_eq!(parse_date(&date.to_string()), Some(date));
        }
        for text in ["", "2026", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "x-1-1T1:1:1Z"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
