//! Query strings: percent-decoding, Docker's booleans and times.

use super::error::invalid;
use crate::{cluster::Refusal, types::Date};
use std::collections::BTreeMap;

/// The parameters of a request; of a repeated one the last counts, except where all are asked for.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(name, true)).or_default().push(decode(value, true));
        }
        Self(values)
    }

    /// The value, where it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let values = self.0.get(name)?;
        values.last().map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// Docker's idea of a boolean: anything but these words is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            )
        })
    }

    /// A time in seconds with an optional fraction, as Docker's clients send it.
    pub(crate) fn date(&self, name: &str) -> Result<Option<Date>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || invalid(format!("invalid value for \"{name}\": {text:?} is no time"));
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        let date =
            Date::from_unix_nanos(seconds.saturating_mul(1_000_000_000) + nanos % 1_000_000_000);
        Ok((date != Date::EPOCH).then_some(date))
    }
}

/// Decodes `%xx`, and `+` as a space where `plus` says so. What is no escape stays as it is.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = (*byte == b'%').then(|| (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))));
        match escape {
            Some((Some(high), Some(low))) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                decoded.push(if plus && *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&b=%7B%22x%22%3Atrue%7D&c=a+b&d=%zz&e=0&f=true&since=1.5&g");
        assert_eq!(query.get("b"), Some("{\"x\":true}"));
        assert_eq!(query.get("c"), Some("a b"));
        assert_eq!(query.get("d"), Some("%zz"));
        assert!(query.flag("a") && query.flag("f") && !query.flag("e") && !query.flag("g"));
        assert_eq!(query.date("since").unwrap(), Some(Date::from_unix_nanos(1_500_000_000)));
        assert!(query.date("c").is_err());
    }
}
