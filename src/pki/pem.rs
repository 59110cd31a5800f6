//! Keys and certificates as text.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Returns the text of what `label` says that it is, as `CERTIFICATE`.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Reads what stands one after another in a text; none where that is nothing, or anything else.
pub(super) fn from_pem(label: &str, text: &str) -> Option<Vec<Vec<u8>>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (body, after) = rest.strip_prefix(&begin)?.split_once(&end)?;
        let body: String = body.split_whitespace().collect();
        found.push(STANDARD.decode(body).ok()?);
        rest = after.trim_start();
    }
    (!found.is_empty()).then_some(found)
}
