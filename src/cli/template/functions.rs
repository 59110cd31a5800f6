//! The functions of templates: Go's own, and those that Docker adds.

use super::{OUTPUT_MAX, eval::Val, printf};
use serde_json::{Map, Value};
use std::{borrow::Cow, cmp::Ordering};

/// The widest padding: a table is for people.
const PAD_MAX: u64 = 4_096;

/// The functions, in the order of the documentation.
const NAMES: &[&str] = &[
    "json", "join", "split", "lower", "upper", "title", "pad", "truncate", "print", "printf",
    "println", "index", "slice", "len", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
    "html", "js", "urlquery",
];

/// Docker's functions that leave headings alone.
const LOOKS: &[&str] = &["json", "lower", "upper", "title", "truncate"];

/// Returns the names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

/// Tells whether there is such a function.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function.
pub(super) fn call<'a>(
    name: &str,
    arguments: &[Val<'a>],
    headings: bool,
) -> Result<Val<'a>, String> {
    if headings && LOOKS.contains(&name) {
        return arguments.first().cloned().ok_or_else(|| "no value given".to_owned());
    }
    let text = |text: String| Ok(Some(Cow::Owned(Value::String(text))));
    match (name, arguments) {
        ("json", [value]) => text(value.as_deref().unwrap_or(&Value::Null).to_string()),
        ("lower", [value]) => text(string(value)?.to_lowercase()),
        ("upper", [value]) => text(string(value)?.to_uppercase()),
        ("title", [value]) => text(title(string(value)?)),
        ("join", [list, separator]) => text(join(list, string(separator)?)?),
        ("split", [value, separator]) => {
            Ok(Some(Cow::Owned(split(string(value)?, string(separator)?)?)))
        }
        ("pad", [value, before, after]) => {
            let value = string(value)?;
            let spaces = |count: &Val<'_>| -> Result<String, String> {
                Ok(" ".repeat(usize::try_from(count_of(count)?.min(PAD_MAX)).unwrap_or(0)))
            };
            if value.is_empty() {
                return text(String::new());
            }
            text(format!("{}{value}{}", spaces(before)?, spaces(after)?))
        }
        ("truncate", [value, length]) => {
            let length = usize::try_from(count_of(length)?).unwrap_or(usize::MAX);
            text(string(value)?.chars().take(length).collect())
        }
        ("print", values) => text(print(values)),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(|value| plain(value.as_deref())).collect();
            text(words.join(" ") + "\n")
        }
        ("printf", [format, values @ ..]) => text(printf::format(string(format)?, values)),
        ("html", values) => text(escape_html(&print(values))),
        ("js", values) => text(escape_js(&print(values))),
        ("urlquery", values) => {
            text(crate::cli::client::encode(&print(values)).replace("%20", "+"))
        }
        ("index", [container, keys @ ..]) => index(container, keys),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("len", [value]) => Ok(Some(Cow::Owned(Value::from(length(value)?)))),
        ("and" | "or", [.., last]) => Ok(last.clone()),
        ("not", [value]) => Ok(Some(Cow::Owned(Value::Bool(!truth(value.as_deref()))))),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut same = false;
            for other in others {
                same |= equal(first, other)?;
            }
            Ok(Some(Cow::Owned(Value::Bool(same))))
        }
        ("ne", [a, b]) => Ok(Some(Cow::Owned(Value::Bool(!equal(a, b)?)))),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            let order = order(a, b)?;
            let holds = match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            };
            Ok(Some(Cow::Owned(Value::Bool(holds))))
        }
        _ => Err(format!("wrong number of args: got {}", arguments.len())),
    }
}

/// Says what kind of value it is, for errors.
pub(super) fn short(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "type bool",
        Value::Number(_) => "type number",
        Value::String(_) => "type string",
        Value::Array(_) => "type list",
        Value::Object(_) => "type map",
    }
}

fn string<'v>(value: &'v Val<'_>) -> Result<&'v str, String> {
    match value.as_deref() {
        Some(Value::String(text)) => Ok(text),
        None => Ok(""),
        Some(other) => Err(format!("wrong type for value; expected string; got {}", short(other))),
    }
}

fn count_of(value: &Val<'_>) -> Result<u64, String> {
    match value.as_deref() {
        Some(Value::Number(number)) => Ok(number.as_u64().unwrap_or(0)),
        Some(other) => Err(format!("wrong type for value; expected int; got {}", short(other))),
        None => Err("expected int; got nothing".to_owned()),
    }
}

/// Capitalises each word.
fn title(text: &str) -> String {
    let mut begins = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn join(list: &Val<'_>, separator: &str) -> Result<String, String> {
    let items = match list.as_deref() {
        None | Some(Value::Null) => return Ok(String::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(format!("expected a list; got {}", short(other))),
    };
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(&plain(Some(item)));
        if out.len() > OUTPUT_MAX {
            return Err("the result is too long".to_owned());
        }
    }
    Ok(out)
}

fn split(text: &str, separator: &str) -> Result<Value, String> {
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|c| Value::from(c.to_string())).collect()
    } else {
        text.split(separator).map(Value::from).collect()
    };
    Ok(Value::Array(parts))
}

/// Puts values together as Go's `Sprint`: a space only between two that are no texts.
fn print(values: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for (at, value) in values.iter().enumerate() {
        let is_text = matches!(value.as_deref(), Some(Value::String(_)));
        if at > 0 && !is_text && !before_is_text {
            out.push(' ');
        }
        out.push_str(&plain(value.as_deref()));
        before_is_text = is_text;
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn index<'a>(container: &Val<'a>, keys: &[Val<'a>]) -> Result<Val<'a>, String> {
    let mut value = container.clone();
    for (number, key) in keys.iter().enumerate() {
        // What a map of texts does not have is the empty text: all maps whose keys users choose are
        // such, and one that is empty or left out may be.
        let is_last = number + 1 == keys.len();
        let empty = || is_last.then(|| Cow::Owned(Value::from("")));
        let missing =
            |map: &Map<String, Value>| empty().filter(|_| map.values().all(Value::is_string));
        let position = |length: usize| -> Result<usize, String> {
            let Some(Value::Number(number)) = key.as_deref() else {
                return Err("cannot index a list with a value that is no number".to_owned());
            };
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            at.filter(|at| *at < length).ok_or_else(|| format!("index out of range: {number}"))
        };
        value = match value {
            None => return Err("index of untyped nil".to_owned()),
            Some(Cow::Borrowed(Value::Object(map))) => {
                map.get(string(key)?).map(Cow::Borrowed).or_else(|| missing(map))
            }
            Some(Cow::Borrowed(Value::Array(list))) => {
                Some(Cow::Borrowed(&list[position(list.len())?]))
            }
            Some(found) => match found.as_ref() {
                Value::Null => empty().filter(|_| string(key).is_ok()),
                Value::Object(map) => {
                    map.get(string(key)?).cloned().map(Cow::Owned).or_else(|| missing(map))
                }
                Value::Array(list) => Some(Cow::Owned(list[position(list.len())?].clone())),
                Value::String(text) => {
                    let at = position(text.len())?;
                    Some(Cow::Owned(Value::from(text.as_bytes()[at])))
                }
                other => return Err(format!("can't index item of {}", short(other))),
            },
        };
    }
    Ok(value)
}

fn slice<'a>(value: &Val<'a>, bounds: &[Val<'a>]) -> Result<Val<'a>, String> {
    let size = length(value)?;
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => count_of(bound).map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    };
    let (from, to) = (bound(0, 0)?, bound(1, size)?);
    if from > to || to > size {
        return Err(format!("slice bounds out of range: {from}:{to} of {size}"));
    }
    match value.as_deref() {
        Some(Value::Array(list)) => Ok(Some(Cow::Owned(Value::from(&list[from..to])))),
        Some(Value::String(text)) => {
            let bytes = &text.as_bytes()[from..to];
            Ok(Some(Cow::Owned(Value::from(String::from_utf8_lossy(bytes).into_owned()))))
        }
        other => Err(format!("can't slice item of {}", other.map_or("nil", short))),
    }
}

fn length(value: &Val<'_>) -> Result<usize, String> {
    match value.as_deref() {
        Some(Value::Array(items)) => Ok(items.len()),
        Some(Value::Object(map)) => Ok(map.len()),
        Some(Value::String(text)) => Ok(text.len()),
        other => Err(format!("len of {}", other.map_or("nil", short))),
    }
}

fn equal(a: &Val<'_>, b: &Val<'_>) -> Result<bool, String> {
    let nothing = |value: &Val<'_>| matches!(value.as_deref(), None | Some(Value::Null));
    if nothing(a) || nothing(b) {
        return Ok(nothing(a) && nothing(b));
    }
    match (a.as_deref(), b.as_deref()) {
        (Some(Value::Array(_) | Value::Object(_)), _)
        | (_, Some(Value::Array(_) | Value::Object(_))) => {
            Err("non-comparable type: lists and maps have no order".to_owned())
        }
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => Ok(a == b),
        _ => Ok(order(a, b)? == Ordering::Equal),
    }
}

fn order(a: &Val<'_>, b: &Val<'_>) -> Result<Ordering, String> {
    match (a.as_deref(), b.as_deref()) {
        (Some(Value::String(a)), Some(Value::String(b))) => Ok(a.cmp(b)),
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            let whole = |n: &serde_json::Number| {
                n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from))
            };
            match (whole(a), whole(b)) {
                (Some(a), Some(b)) => Ok(a.cmp(&b)),
                _ => Ok(a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0))),
            }
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

/// Tells whether a value counts as true.
pub(super) fn truth(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Array(a)) => !a.is_empty(),
        Some(Value::Object(o)) => !o.is_empty(),
    }
}

/// Returns a value as Go prints it.
pub(super) fn plain(value: Option<&Value>) -> String {
    match value {
        None => "<no value>".to_owned(),
        Some(Value::Null) => "<nil>".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| plain(Some(item))).collect();
            format!("[{}]", items.join(" "))
        }
        Some(Value::Object(map)) => {
            let mut entries: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}:{}", plain(Some(v)))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        Some(other) => other.to_string(),
    }
}

/// Returns about how many bytes a value is.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 8 + weight(item)).sum(),
        Value::Object(map) => map.iter().map(|(key, item)| 8 + key.len() + weight(item)).sum(),
        _ => 8,
    }
}
