//! Words that users and registries send.

use super::{
    Constraint, Date, Labels,
    image::Reference,
    template::{Template, Value},
};
use crate::util::fuzz;

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[test]
fn image_references() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let pinned = [format!("a@{digest}"), format!("localhost:5000/a/b:1@{digest}")];
    let mut texts = vec!["nginx", "nginx:1.27", "example.com/a/b", "index.docker.io/a/b:c"];
    texts.extend(pinned.iter().map(String::as_str));
    fuzz::check("image_references", &seeds(&texts), |bytes| {
        let reference = Reference::parse(text(bytes)?).ok()?;
        let written = Reference::parse(&reference.to_string());
        assert_eq!(written.as_ref(), Ok(&reference));
        let canonical = Reference::parse(&reference.canonical()).expect("a whole name is one too");
        assert_eq!(canonical.repository, reference.repository);
        assert_eq!(canonical.registry, reference.registry);
        Some(())
    });
}

#[test]
fn constraints() {
    let texts = ["node.labels.zone==a", "node.role != manager", "node.ip==10.0.0.0/8"];
    fuzz::check("constraints", &seeds(&texts), |bytes| {
        let constraint = Constraint::parse(text(bytes)?).ok()?;
        assert_eq!(Constraint::parse(&constraint.to_string()), Ok(constraint));
        Some(())
    });
}

#[test]
fn dates() {
    let texts = ["2026-01-02T03:04:05Z", "1970-01-01T00:00:00.000000001Z"];
    fuzz::check("dates", &seeds(&texts), |bytes| {
        let date = Date::parse(text(bytes)?)?;
        assert_eq!(Date::parse(&date.to_string()), Some(date));
        Some(())
    });
}

#[test]
fn service_templates() {
    let texts = [
        "{{.Service.Name}}-{{ .Task.Slot }}",
        "{{if .Service.Labels}}{{index .Service.Labels \"x\"}}{{else}}a {{- print 1 2 -}} b{{end}}",
        "{{printf \"%05s|%-3q\" .Task.Slot (join .Service.Name \",\" | upper)}}",
    ];
    fuzz::check("service_templates", &seeds(&texts[..2]), |bytes| {
        let template = Template::parse(text(bytes)?).ok()?;
        let labels = Labels::from([("x".to_owned(), "1".to_owned())]);
        let service = vec![("Name", Value::text("web")), ("Labels", Value::Map(&labels))];
        let root = Value::Record(vec![
            ("Service", Value::Record(service)),
            ("Task", Value::Record(vec![("Slot", Value::text("3"))])),
        ]);
        let expanded = template.expand(&root).unwrap_or_default();
        assert!(expanded.len() <= super::template::EXPANDED_MAX);
        Some(())
    });
}
