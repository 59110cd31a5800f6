//! The part of Go's templates that `--format` needs: fields, `json`, `index`, `len`, `join`,
//! `lower`, `upper`, and `range`.

use super::exit::CliError;
use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Value(Vec<String>),
    Range(Vec<String>, Vec<Piece>),
    If(Vec<String>, Vec<Piece>, Vec<Piece>),
}

/// Parses a template.
pub(crate) fn parse(text: &str) -> Result<Template, CliError> {
    let mut tokens = tokenize(text)?.into_iter().peekable();
    let (pieces, end) = block(&mut tokens)?;
    match end {
        None => Ok(Template(pieces)),
        Some(word) => Err(invalid(&format!("unexpected {{{{{word}}}}}"))),
    }
}

fn invalid(why: &str) -> CliError {
    CliError::usage(format!("template parsing error: {why}")).hint(
        "midge knows {{.Field}}, {{json .Field}}, {{index .Field \"key\"}}, {{len}}, {{join}}, \
         {{lower}}, {{upper}}, {{range}} and {{if}}",
    )
}

enum Token {
    Text(String),
    Action(Vec<String>),
}

fn tokenize(text: &str) -> Result<Vec<Token>, CliError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        tokens.push(Token::Text(unescape(&rest[..start])));
        let end = rest[start..].find("}}").ok_or_else(|| invalid("unclosed action"))? + start;
        let inside = rest[start + 2..end].trim_matches('-').trim();
        tokens.push(Token::Action(words(inside)?));
        rest = &rest[end + 2..];
    }
    tokens.push(Token::Text(unescape(rest)));
    Ok(tokens)
}

/// Shells hand over `\t` and `\n` as two characters; Docker reads them as one, and so do we.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn words(text: &str) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.find('"').ok_or_else(|| invalid("unclosed quote"))? + 2
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        words.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    if words.is_empty() {
        return Err(invalid("missing value for command"));
    }
    Ok(words)
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// Reads pieces until the end or a word that ends a block (`end`, `else`), which is returned.
fn block(tokens: &mut Tokens) -> Result<(Vec<Piece>, Option<String>), CliError> {
    let mut pieces = Vec::new();
    while let Some(token) = tokens.next() {
        let words = match token {
            Token::Text(text) => {
                pieces.push(Piece::Text(text));
                continue;
            }
            Token::Action(words) => words,
        };
        match words[0].as_str() {
            "end" | "else" => return Ok((pieces, Some(words[0].clone()))),
            "range" => {
                let (inner, end) = block(tokens)?;
                require_end(end.as_deref())?;
                pieces.push(Piece::Range(words[1..].to_vec(), inner));
            }
            "if" => {
                let (then, end) = block(tokens)?;
                let mut otherwise = Vec::new();
                if end.as_deref() == Some("else") {
                    let (inner, end) = block(tokens)?;
                    require_end(end.as_deref())?;
                    otherwise = inner;
                } else {
                    require_end(end.as_deref())?;
                }
                pieces.push(Piece::If(words[1..].to_vec(), then, otherwise));
            }
            _ => pieces.push(Piece::Value(words)),
        }
    }
    Ok((pieces, None))
}

fn require_end(end: Option<&str>) -> Result<(), CliError> {
    if end == Some("end") { Ok(()) } else { Err(invalid("unexpected EOF: {{end}} is missing")) }
}

impl Template {
    /// Fills in `data`.
    pub(crate) fn render(&self, data: &Value) -> Result<String, CliError> {
        let mut out = String::new();
        render(&self.0, data, &mut out)?;
        Ok(out)
    }
}

fn render(pieces: &[Piece], data: &Value, out: &mut String) -> Result<(), CliError> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Value(words) => out.push_str(&plain(&evaluate(words, data)?)),
            Piece::Range(words, inner) => match evaluate(words, data)? {
                Value::Array(items) => {
                    items.iter().try_for_each(|item| render(inner, item, out))?;
                }
                Value::Object(map) => map.values().try_for_each(|v| render(inner, v, out))?,
                _ => {}
            },
            Piece::If(words, then, otherwise) => {
                let branch = if truthy(&evaluate(words, data)?) { then } else { otherwise };
                render(branch, data, out)?;
            }
        }
    }
    Ok(())
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

fn evaluate(words: &[String], data: &Value) -> Result<Value, CliError> {
    let [first, rest @ ..] = words else { return Err(invalid("missing value for command")) };
    let one = || match rest {
        [only] => operand(only, data),
        _ => Err(invalid(&format!("{first} takes one value"))),
    };
    match first.as_str() {
        "json" => Ok(Value::String(one()?.to_string())),
        "lower" => Ok(Value::String(plain(&one()?).to_lowercase())),
        "upper" => Ok(Value::String(plain(&one()?).to_uppercase())),
        "len" => Ok(Value::from(match one()? {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        })),
        "join" => match rest {
            [list, separator] => {
                let separator = plain(&operand(separator, data)?);
                let Value::Array(items) = operand(list, data)? else { return Ok(Value::Null) };
                let items: Vec<String> = items.iter().map(plain).collect();
                Ok(Value::String(items.join(&separator)))
            }
            _ => Err(invalid("join takes a list and a separator")),
        },
        "index" => {
            let [container, keys @ ..] = rest else {
                return Err(invalid("index takes a value and a key"));
            };
            keys.iter().try_fold(operand(container, data)?, |value, key| {
                let key = operand(key, data)?;
                let found = match (&value, &key) {
                    (Value::Object(map), Value::String(key)) => map.get(key),
                    (Value::Array(items), Value::Number(n)) => {
                        n.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| items.get(n))
                    }
                    _ => None,
                };
                Ok(found.cloned().unwrap_or(Value::Null))
            })
        }
        _ if rest.is_empty() => operand(first, data),
        _ => Err(invalid(&format!("function {first:?} not defined"))),
    }
}

fn operand(word: &str, data: &Value) -> Result<Value, CliError> {
    if let Some(text) = word.strip_prefix('"') {
        return Ok(Value::String(text.trim_end_matches('"').to_owned()));
    }
    if let Ok(number) = word.parse::<u64>() {
        return Ok(Value::from(number));
    }
    let Some(path) = word.strip_prefix('.') else {
        return Err(invalid(&format!("function {word:?} not defined")));
    };
    let mut value = data;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        match value.get(field) {
            Some(inner) => value = inner,
            // A field that the object leaves out is empty; one that no row has is a mistake, which
            // only tables can tell: there every row has every field.
            None => return Ok(Value::Null),
        }
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let data = json!({"A": {"B": "x"}, "L": ["a", "b"], "N": 3, "M": {"k.v": "dotted"}});
        assert_eq!(parse(template).unwrap().render(&data).unwrap(), expected, "{template}");
    }

    #[test]
    fn fields_functions_and_blocks() {
        check("plain", "plain");
        check("{{.A.B}}-{{ .N }}", "x-3");
        check("{{json .A}}", r#"{"B":"x"}"#);
        check("{{range .L}}<{{.}}>{{end}}", "<a><b>");
        check("{{index .M \"k.v\"}} {{index .L 1}}", "dotted b");
        check("{{if .None}}yes{{else}}no{{end}}", "no");
        check("{{len .L}} {{join .L \",\"}} {{upper .A.B}}", "2 a,b X");
        check(".A\\t{{.A}}", ".A\tmap[B:x]");
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["{{.A", "{{}}", "{{range .L}}", "{{nope .A}}", "{{end}}", "{{word}}"] {
            let result = parse(text).and_then(|t| t.render(&json!({})));
            assert!(result.is_err(), "{text}");
        }
    }
}
