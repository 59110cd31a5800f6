//! Fields between commas, where a field that holds a comma stands in quotes.

/// Splits `type=volume,"volume-opt=o=a,b"` into its fields.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let behind;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut chars = quoted.char_indices().peekable();
            loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some((at, '"')) => {
                        behind = &quoted[at + 1..];
                        break;
                    }
                    Some((_, c)) => field.push(c),
                    None => return Err(format!("unclosed quote in {text:?}")),
                }
            }
            fields.push(field);
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(format!("bare \" in non-quoted field of {text:?}"));
            }
            fields.push(rest[..end].to_owned());
            behind = &rest[end..];
        }
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Ok(fields),
            None => return Err(format!("text behind a closing quote in {text:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_keep_commas() {
        let split = |text| fields(text).unwrap();
        assert_eq!(split("a,b=c,"), ["a", "b=c", ""]);
        assert_eq!(
            split(r#"type=volume,"volume-opt=o=a,b",x"#),
            ["type=volume", "volume-opt=o=a,b", "x"]
        );
        assert_eq!(split(r#""a""b""#), ["a\"b"]);
        assert_eq!(split(""), [""]);
        for bad in [r#""a"#, r#"a"b"#, r#""a"b"#] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(parts in proptest::collection::vec("[a,\"=é ]{0,6}", 1..5)) {
            let quoted: Vec<String> =
                parts.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
            prop_assert_eq!(fields(&quoted.join(",")), Ok(parts));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            fields(&text).ok();
        }
    }
}
