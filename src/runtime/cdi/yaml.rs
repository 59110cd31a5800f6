//! YAML into the values of JSON: all that a specification needs of it.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// How deep values may lie in each other; a specification's lie five deep.
const DEPTH_MAX: usize = 32;

/// How many values a file may hold, repeated ones counted each time: a large GPU's has some
/// thousand, and a few lines of aliases could stand for billions.
const VALUES_MAX: usize = 100_000;

/// A list or a table that is not complete yet.
enum Open {
    List(Vec<Value>),
    Table(Map<String, Value>, Option<String>),
}

/// Reads the first document of a text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut count = 0;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let value = match event {
            Event::Scalar(text, style, _, _) => scalar(&text, style),
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                if open.len() > DEPTH_MAX {
                    return Err(format!("values lie more than {DEPTH_MAX} deep in each other"));
                }
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Table(Map::new(), None));
                if open.len() > DEPTH_MAX {
                    return Err(format!("values lie more than {DEPTH_MAX} deep in each other"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Table(table, _)) => Value::Object(table),
                None => return Err("a list or table ends that never began".to_owned()),
            },
            Event::Alias(_) => return Err("aliases are not supported".to_owned()),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        count += 1;
        if count > VALUES_MAX {
            return Err(format!("it holds more than {VALUES_MAX} values"));
        }
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Table(table, key)) => match key.take() {
                Some(key) => drop(table.insert(key, value)),
                None => *key = Some(name(&value)?),
            },
        }
    }
    Ok(Value::Null)
}

fn name(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => Err("a key is neither text nor number".to_owned()),
    }
}

/// Only what stands there plainly can be something else than text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if !matches!(style, ScalarStyle::Plain) {
        return Value::from(text);
    }
    let octal = text.strip_prefix("0o").and_then(|digits| i64::from_str_radix(digits, 8).ok());
    let hex = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok());
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match octal.or(hex).or_else(|| text.parse().ok()) {
            Some(number) => Value::from(number),
            None => Value::from(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_specification_is_read() {
        let text = "---\n# c\nkind: a/b\nlist:\n- name: \"0\"\n  mode: 0o644\n- [x, 7, true, ~]\n\
                    empty: {}\ntext: |\n  one\n  two\n";
        let expected = json!({
            "kind": "a/b", "list": [{"name": "0", "mode": 420}, ["x", 7, true, null]],
            "empty": {}, "text": "one\ntwo\n",
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn bombs_and_nonsense_are_errors() {
        assert!(parse("a: &x [1]\nb: *x\n").unwrap_err().contains("aliases"));
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse("a: [").is_err());
        assert!(parse("? [a]\n: b\n").unwrap_err().contains("key"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[-a-z0-9:\\[\\]{}\"'&*!|>?~#\\n ]{0,200}") {
            drop(parse(&text));
        }
    }
}
