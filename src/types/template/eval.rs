//! From the tree to the text.

use super::{EXPANDED_MAX, Expression, InvalidTemplate, Node, Value, invalid};
use std::borrow::Cow;

/// The widest field that `printf` pads to: a host name is shorter.
const WIDTH_MAX: usize = 256;

pub(super) fn nodes(
    nodes: &[Node],
    root: &Value<'_>,
    out: &mut String,
) -> Result<(), InvalidTemplate> {
    for node in nodes {
        match node {
            Node::Text(text) => append(out, text)?,
            Node::Print(expression) => append(out, &printed(&eval(expression, root)?)?)?,
            Node::If(test, then, otherwise) => {
                let branch = if truth(&eval(test, root)?) { then } else { otherwise };
                self::nodes(branch, root, out)?;
            }
        }
    }
    Ok(())
}

fn append(out: &mut String, text: &str) -> Result<(), InvalidTemplate> {
    if out.len() + text.len() > EXPANDED_MAX {
        return Err(invalid(format!("the result is longer than {EXPANDED_MAX} bytes")));
    }
    out.push_str(text);
    Ok(())
}

fn eval<'a>(expression: &'a Expression, root: &Value<'a>) -> Result<Value<'a>, InvalidTemplate> {
    match expression {
        Expression::Text(text) => Ok(Value::text(text)),
        Expression::Number(number) => Ok(Value::Number(*number)),
        Expression::Bool(set) => Ok(Value::Bool(*set)),
        Expression::Field(path) => walk(root.clone(), path),
        Expression::FieldOf(inner, path) => walk(eval(inner, root)?, path),
        Expression::Call(name, arguments) => {
            let values = arguments.iter().map(|argument| eval(argument, root));
            call(name, values.collect::<Result<_, _>>()?)
        }
    }
}

fn walk<'a>(mut value: Value<'a>, path: &[String]) -> Result<Value<'a>, InvalidTemplate> {
    for name in path {
        value = match value {
            Value::Record(fields) => {
                let field = fields.into_iter().find(|(field, _)| field == name);
                field.map(|(_, value)| value).ok_or_else(|| {
                    invalid(format!("can't evaluate field {name}: there is no such field"))
                })?
            }
            // As Swarm sets Go's templates up: `index` is how one asks for what may be missing.
            Value::Map(map) => match map.get(name) {
                Some(value) => Value::text(value),
                None => return Err(invalid(format!("map has no entry for key {name:?}"))),
            },
            Value::Text(_) | Value::Number(_) | Value::Bool(_) => {
                return Err(invalid(format!("can't evaluate field {name} in a plain value")));
            }
        };
    }
    Ok(value)
}

fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Number(number) => *number != 0,
        Value::Bool(set) => *set,
        Value::Map(map) => !map.is_empty(),
        Value::Record(_) => true,
    }
}

/// Returns what a value looks like in the text.
fn printed<'v>(value: &'v Value<'_>) -> Result<Cow<'v, str>, InvalidTemplate> {
    Ok(match value {
        Value::Text(text) => Cow::Borrowed(text.as_ref()),
        Value::Number(number) => number.to_string().into(),
        Value::Bool(set) => set.to_string().into(),
        Value::Map(map) => {
            let mut out = "map[".to_owned();
            for (index, (key, value)) in map.iter().enumerate() {
                append(&mut out, if index == 0 { "" } else { " " })?;
                append(&mut out, key)?;
                append(&mut out, ":")?;
                append(&mut out, value)?;
            }
            append(&mut out, "]")?;
            out.into()
        }
        Value::Record(_) => return Err(invalid("a group of fields has no text: name a field")),
    })
}

fn call<'a>(name: &str, arguments: Vec<Value<'a>>) -> Result<Value<'a>, InvalidTemplate> {
    let wrong = || invalid(format!("wrong number of args for {name}: got {}", arguments.len()));
    let value = match name {
        "index" => index(&arguments).ok_or_else(wrong)??,
        "len" => match arguments.as_slice() {
            [Value::Text(text)] => number(text.len()),
            [Value::Map(map)] => number(map.len()),
            [_] => return Err(invalid("error calling len: a text or a map is expected")),
            _ => return Err(wrong()),
        },
        "not" => match arguments.as_slice() {
            [value] => Value::Bool(!truth(value)),
            _ => return Err(wrong()),
        },
        "eq" | "ne" => match arguments.as_slice() {
            [first, rest @ ..] if !rest.is_empty() && (name == "eq" || rest.len() == 1) => {
                let kinds = std::mem::discriminant(first);
                if rest.iter().any(|value| std::mem::discriminant(value) != kinds) {
                    return Err(invalid(format!(
                        "error calling {name}: incompatible types for comparison"
                    )));
                }
                Value::Bool(rest.contains(first) == (name == "eq"))
            }
            _ => return Err(wrong()),
        },
        "and" | "or" => {
            let decides = |value: &Value<'_>| truth(value) == (name == "or");
            let found = arguments.iter().find(|value| decides(value));
            found.or_else(|| arguments.last()).cloned().ok_or_else(wrong)?
        }
        "print" => text(&arguments, "")?,
        "join" => match arguments.as_slice() {
            [Value::Text(separator), rest @ ..] => text(rest, separator)?,
            [_, ..] => return Err(invalid("error calling join: a text is expected first")),
            [] => return Err(wrong()),
        },
        "printf" => match arguments.as_slice() {
            [Value::Text(format), rest @ ..] => Value::Text(formatted(format, rest)?.into()),
            [_, ..] => return Err(invalid("error calling printf: a text is expected first")),
            [] => return Err(wrong()),
        },
        other => return Err(invalid(format!("function {other:?} not defined"))),
    };
    Ok(value)
}

fn number<'a>(length: usize) -> Value<'a> {
    Value::Number(i64::try_from(length).unwrap_or(i64::MAX))
}

/// None where the number of arguments is wrong.
fn index<'a>(arguments: &[Value<'a>]) -> Option<Result<Value<'a>, InvalidTemplate>> {
    let [map, Value::Text(key)] = arguments else {
        return match arguments.len() {
            2 => Some(Err(invalid("error calling index: a map and a text are expected"))),
            _ => None,
        };
    };
    Some(match map {
        Value::Map(map) => Ok(Value::text(map.get(key.as_ref()).map_or("", String::as_str))),
        _ => Err(invalid("error calling index: can't index item of this type")),
    })
}

fn text<'a>(values: &[Value<'_>], separator: &str) -> Result<Value<'a>, InvalidTemplate> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        append(&mut out, if index == 0 { "" } else { separator })?;
        append(&mut out, &printed(value)?)?;
    }
    Ok(Value::Text(out.into()))
}

/// `printf` with the verbs `%s`, `%v`, `%d`, `%q`, `%%`, a width and the flags `-` and `0`.
fn formatted(format: &str, arguments: &[Value<'_>]) -> Result<String, InvalidTemplate> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        append(&mut out, &rest[..start])?;
        let flags = &rest[start + 1..];
        let end = flags.find(|c: char| !matches!(c, '-' | '0'..='9')).unwrap_or(flags.len());
        let verb =
            flags[end..].chars().next().ok_or_else(|| invalid("error calling printf: no verb"))?;
        rest = &flags[end + verb.len_utf8()..];
        if verb == '%' {
            append(&mut out, "%")?;
            continue;
        }
        let missing = || invalid(format!("error calling printf: no argument for %{verb}"));
        let argument = arguments.next().ok_or_else(missing)?;
        let shown = match (verb, argument) {
            ('s' | 'v', value) => printed(value)?,
            ('d', Value::Number(number)) => number.to_string().into(),
            ('q', Value::Text(text)) => format!("{text:?}").into(),
            _ => return Err(invalid(format!("error calling printf: wrong type for %{verb}"))),
        };
        append(&mut out, &padded(&shown, &flags[..end])?)?;
    }
    append(&mut out, rest)?;
    if arguments.next().is_some() {
        return Err(invalid("error calling printf: too many arguments"));
    }
    Ok(out)
}

fn padded(text: &str, flags: &str) -> Result<String, InvalidTemplate> {
    let digits = flags.trim_start_matches(['-', '0']);
    let width: usize = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(usize::MAX) };
    if width > WIDTH_MAX {
        return Err(invalid(format!("error calling printf: a width above {WIDTH_MAX}")));
    }
    let before = &flags[..flags.len() - digits.len()];
    let missing = width.saturating_sub(text.chars().count());
    Ok(if before.contains('-') {
        format!("{text}{}", " ".repeat(missing))
    } else {
        let fill = if before.contains('0') { "0" } else { " " };
        format!("{}{text}", fill.repeat(missing))
    })
}
