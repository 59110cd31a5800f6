use super::*;
use proptest::prelude::*;

fn expand(text: &str) -> Result<String, String> {
    let labels = Labels::from([
        ("x".to_owned(), "1".to_owned()),
        ("com.example/zone".to_owned(), "north".to_owned()),
    ]);
    let root = Value::Record(vec![
        (
            "Service",
            Value::Record(vec![
                ("Name", Value::text("web")),
                ("Labels", Value::Map(&labels)),
                ("Empty", Value::text("")),
            ]),
        ),
        ("Task", Value::Record(vec![("Slot", Value::text("3"))])),
    ]);
    let template = Template::parse(text).map_err(|error| error.to_string())?;
    template.expand(&root).map_err(|error| error.to_string())
}

#[test]
fn what_expands() {
    for (text, expected) in [
        ("", ""),
        ("plain } { }} text", "plain } { }} text"),
        ("{{.Service.Name}}-{{ .Task.Slot }}", "web-3"),
        ("a {{- .Service.Name -}} b", "awebb"),
        ("a{{/* note }} */}}b {{- /* c */ -}} c", "abc"),
        (r#"{{index .Service.Labels "com.example/zone"}}"#, "north"),
        (r#"[{{index .Service.Labels "nope"}}]"#, "[]"),
        ("{{.Service.Labels.x}}", "1"),
        ("{{.Service.Labels}}", "map[com.example/zone:north x:1]"),
        (r#"{{join "-" .Service.Name .Task.Slot}}"#, "web-3"),
        (r#"{{.Task.Slot | printf "%03s"}}"#, "003"),
        (r#"{{printf "%-4s|%d%%|%q" .Task.Slot 7 "a"}}"#, "3   |7%|\"a\""),
        ("{{print \"a}}\" `b\"`}}", "a}}b\""),
        (r#"{{if eq .Task.Slot "3"}}yes{{else}}no{{end}}"#, "yes"),
        (r#"{{if eq .Task.Slot "1"}}a{{else if ne .Task.Slot "4"}}b{{else}}c{{end}}d"#, "bd"),
        (r#"{{if and .Service.Name (not .Service.Empty)}}x{{end}}"#, "x"),
        (r#"{{or .Service.Empty "fallback"}}"#, "fallback"),
        ("{{len .Service.Name}}{{len .Service.Labels}}", "32"),
        ("{{(index .Service.Labels \"x\") | print}}", "1"),
        ("{{true}}{{-5}}", "true-5"),
        ("{{(.Service).Name}}", "web"),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_refused() {
    for (text, message) in [
        ("{{", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{.Service.Nope}}", "can't evaluate field Nope"),
        ("{{.Service.Labels.nope}}", "map has no entry for key \"nope\""),
        ("{{.Service}}", "name a field"),
        ("{{.Service.Name.x}}", "can't evaluate field x"),
        ("{{env \"HOME\"}}", "function \"env\" not defined"),
        ("{{secret \"a\"}}", "function \"secret\" not defined"),
        ("{{range .Service.Labels}}{{end}}", "{{range}} is not supported"),
        ("{{$x := 1}}", "variables are not supported"),
        ("{{if .Task.Slot}}a", "unexpected EOF"),
        ("{{if}}a{{end}}", "missing value for if"),
        ("a{{end}}", "unexpected {{end}}"),
        ("a{{else}}", "unexpected {{else}}"),
        ("{{if true}}{{else}}{{else}}{{end}}", "expected end"),
        ("{{(print 1}}", "unclosed left paren"),
        ("{{print 1)}}", "unexpected right paren"),
        ("{{\"a}}", "unterminated quoted string"),
        ("{{`a}}", "unterminated raw"),
        ("{{1x}}", "bad number syntax"),
        ("{{\"a\"\"b\"}}", "in operand"),
        ("{{/* a }}", "unclosed comment"),
        ("{{.Task.Slot 1}}", "can't give argument to non-function"),
        ("{{1 | .Task.Slot}}", "non executable command"),
        ("{{eq .Task.Slot 3}}", "incompatible types"),
        ("{{printf \"%d\" .Task.Slot}}", "wrong type"),
        ("{{printf \"%s\"}}", "no argument"),
        ("{{printf \"%999s\" \"a\"}}", "a width above"),
        ("{{index .Task.Slot \"a\"}}", "can't index"),
        ("{{len}}", "wrong number of args for len: got 0"),
    ] {
        let error = expand(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn nothing_grows_without_bound() {
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(expand(&deep).unwrap_err().contains("nest deeper"));
    let deep = "{{if true}}".repeat(10_000) + &"{{end}}".repeat(10_000);
    assert!(expand(&deep).unwrap_err().contains("nest deeper"));
    let deep = "{{if true}}{{else if true}}".to_owned() + &"{{else if true}}".repeat(10_000);
    assert!(expand(&deep).is_err());
    let long = "{{.Service.Labels}}".repeat(10_000);
    assert!(expand(&long).unwrap_err().contains("is longer than"));
    let long = format!("{{{{print {}}}}}", "\"0123456789\" ".repeat(20_000));
    assert!(expand(&long).unwrap_err().contains("is longer than"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-{}.a-z|()\"` %$/*0-9A-Z]{0,40}") {
        expand(&text).ok();
    }

    #[test]
    fn no_action_panics(
        words in proptest::collection::vec(
            prop_oneof![
                Just("if"), Just("else"), Just("end"), Just("index"), Just("printf"), Just("("),
                Just(")"), Just("|"), Just(".Service.Labels"), Just(".Task.Slot"), Just("\"%5s\""),
                Just("}}{{"), Just("- }}"), Just("{{- "), Just("."), Just("eq"), Just("\"é"),
            ],
            0..12,
        ),
    ) {
        expand(&format!("{{{{{}}}}}", words.join(" "))).ok();
    }

    #[test]
    fn a_text_without_actions_is_itself(text in "[^{]{0,60}") {
        prop_assert_eq!(expand(&text), Ok(text));
    }
}
