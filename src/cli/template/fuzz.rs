//! Go's templates, which people type.

use super::{OUTPUT_MAX, parse, parse_row};
use crate::util::fuzz;
use serde_json::json;

#[test]
fn templates() {
    let seeds = [
        "{{.A}} {{json .}} {{.L}}",
        "{{range $i, $x := .L}}{{if gt $x 1}}{{$i}}={{$x}}{{else}}-{{end}}{{end}}",
        "{{with .M}}{{.k | upper | printf \"%-5s|%q\"}}{{end}}{{/* no */}}",
        "{{index .M \"k\"}}{{len .L}}{{slice .A 1 2}}{{join (split .A \"b\") \",\"}}",
        "table {{.A}}\\t{{.N}}",
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    fuzz::check("templates", &seeds, |bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        let data = json!({"A": "abc", "L": [1, 2, 3], "M": {"k": "v"}, "N": null});
        if let Ok(template) = parse_row(text) {
            let _headings = template.render_headings(&data);
        }
        let rendered = parse(text).ok()?.render(&data).unwrap_or_default();
        assert!(rendered.len() <= OUTPUT_MAX);
        Some(())
    });
}
