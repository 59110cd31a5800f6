//! Go's `printf`, as far as JSON has values for it.

use super::{OUTPUT_MAX, eval::Val, functions::plain};
use serde_json::Value;
use std::fmt::Write as _;

/// The widest field and the longest precision that is believed.
const WIDTH_MAX: usize = 4_096;

/// What stands between `%` and the verb.
#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Puts values into a format. As in Go, what does not fit is said in the result and is no error.
pub(super) fn format(format: &str, values: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = directive(&mut chars);
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&one(verb, &directive, value.as_deref())),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
        if out.len() > OUTPUT_MAX {
            // The renderer refuses what is longer than this.
            return out;
        }
    }
    let extra: Vec<String> = values.map(|value| named(value.as_deref())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn directive(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Directive {
    let mut directive = Directive::default();
    while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
        match flag {
            '-' => directive.minus = true,
            '+' => directive.plus = true,
            '#' => directive.sharp = true,
            '0' => directive.zero = true,
            _ => directive.space = true,
        }
    }
    directive.width = digits(chars);
    if chars.next_if_eq(&'.').is_some() {
        directive.precision = Some(digits(chars).unwrap_or(0));
    }
    directive
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let digit = usize::try_from(digit).unwrap_or(0);
        number = Some((number.unwrap_or(0) * 10 + digit).min(WIDTH_MAX));
    }
    number
}

/// A value with the name of its type, as Go says what does not fit.
fn named(value: Option<&Value>) -> String {
    let kind = match value {
        None | Some(Value::Null) => return "<nil>".to_owned(),
        Some(Value::Bool(_)) => "bool",
        Some(Value::Number(n)) if n.is_f64() => "float64",
        Some(Value::Number(_)) => "int",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "[]interface {}",
        Some(Value::Object(_)) => "map[string]interface {}",
    };
    format!("{kind}={}", plain(value))
}

fn one(verb: char, directive: &Directive, value: Option<&Value>) -> String {
    // A list is formatted item by item.
    if let (Some(Value::Array(items)), true) = (value, verb != 'v' || directive.sharp) {
        let items: Vec<String> =
            items.iter().map(|item| one(verb, directive, Some(item))).collect();
        return format!("[{}]", items.join(" "));
    }
    let text = match (verb, value) {
        ('v' | 's', Some(Value::String(text))) if !directive.sharp => cut(text, directive),
        ('v', Some(Value::Number(_))) => return number('d', directive, value),
        ('v', value) => match value {
            None => "<nil>".to_owned(),
            value => plain(value),
        },
        ('s', Some(value @ Value::Object(_))) => plain(Some(value)),
        ('q', Some(Value::String(text))) => quoted(&cut(text, directive)),
        ('t', Some(Value::Bool(truth))) => truth.to_string(),
        ('x', Some(Value::String(text))) => hex(text, false),
        ('X', Some(Value::String(text))) => hex(text, true),
        (_, Some(Value::Number(_))) => return number(verb, directive, value),
        _ => format!("%!{verb}({})", named(value)),
    };
    padded(&text, directive)
}

fn hex(text: &str, upper: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") }.ok();
        out
    })
}

fn quoted(text: &str) -> String {
    // JSON's quotes are Go's, but for what neither prints.
    Value::from(text).to_string()
}

fn cut(text: &str, directive: &Directive) -> String {
    match directive.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    }
}

fn padded(text: &str, directive: &Directive) -> String {
    let lacking = directive.width.unwrap_or(0).saturating_sub(text.chars().count());
    let spaces = " ".repeat(lacking);
    if directive.minus { format!("{text}{spaces}") } else { format!("{spaces}{text}") }
}

fn number(verb: char, directive: &Directive, value: Option<&Value>) -> String {
    let Some(Value::Number(number)) = value else { return String::new() };
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let float = number.as_f64().unwrap_or(0.0);
    let (negative, digits) = match (verb, whole) {
        ('d', Some(n)) => (n < 0, n.unsigned_abs().to_string()),
        ('x', Some(n)) => (n < 0, format!("{:x}", n.unsigned_abs())),
        ('X', Some(n)) => (n < 0, format!("{:X}", n.unsigned_abs())),
        ('o', Some(n)) => (n < 0, format!("{:o}", n.unsigned_abs())),
        ('b', Some(n)) => (n < 0, format!("{:b}", n.unsigned_abs())),
        ('c', Some(n)) => {
            let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return padded(&c.to_string(), directive);
        }
        // %v of a number that is no integer comes here as %d.
        ('d' | 'g', None) => (float < 0.0, float.abs().to_string()),
        ('f' | 'F', None) => {
            (float < 0.0, format!("{:.*}", directive.precision.unwrap_or(6), float.abs()))
        }
        ('e', None) => {
            let text = format!("{:.*e}", directive.precision.unwrap_or(6), float.abs());
            (float < 0.0, go_exponent(&text))
        }
        _ => return padded(&format!("%!{verb}({})", named(value)), directive),
    };
    let sign = match (negative, directive.plus, directive.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    if directive.zero && !directive.minus {
        let width = directive.width.unwrap_or(0);
        let lacking = width.saturating_sub(sign.len() + digits.len());
        return format!("{sign}{}{digits}", "0".repeat(lacking));
    }
    padded(&format!("{sign}{digits}"), directive)
}

/// Go writes at least two digits of an exponent, and its sign.
fn go_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}
