//! What a registry asks for before it answers: challenges, and what answers them.
//!
//! Pure: parses header values and token answers. Must not know how they are sent.

use crate::types::RegistryCredential;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// The longest challenge that is read; real ones have some 200 characters.
const CHALLENGE_MAX: usize = 4 << 10;

/// How long a token is good for that does not say so: the token protocol's default.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How long a token is believed at most: a wrong `expires_in` must not keep a dead one.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(3_600);

/// How much earlier than it says a token counts as expired, for a request that is under way.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Its parameters, names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// Reads the challenges of one header value. What cannot be read is left out: the caller looks
/// for a scheme it knows and reports the whole header where there is none.
#[must_use]
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    if header.len() > CHALLENGE_MAX {
        return challenges;
    }
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = take_token(rest);
        if word.is_empty() {
            break;
        }
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=')
            && let Some(challenge) = challenges.last_mut()
        {
            let (value, after) = take_value(value.trim_start());
            challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            rest = after;
        } else {
            let scheme = word.to_ascii_lowercase();
            challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn take_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | ',' | '"'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Takes a token or a quoted string, with its escapes; an unclosed quote ends with the text.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // An unquoted value may hold `=` and `:` (base64, URLs): some registries do not quote.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// What a token is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Where.
    pub realm: String,
    /// The registry's name for itself; may be empty.
    pub service: String,
    /// What the token must allow.
    pub scope: String,
}

impl TokenRequest {
    /// Reads a bearer challenge; `scope` where it names none.
    #[must_use]
    pub fn from_challenge(challenge: &Challenge, scope: &str) -> Option<Self> {
        let get = |name: &str| challenge.parameters.get(name).cloned().unwrap_or_default();
        let realm = get("realm");
        if !realm.starts_with("https://") && !realm.starts_with("http://") {
            return None;
        }
        let asked = get("scope");
        let scope = if asked.is_empty() { scope.to_owned() } else { asked };
        Some(Self { realm, service: get("service"), scope })
    }
}

#[derive(Deserialize)]
struct RawToken {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Reads a token server's answer: the token, and how long to use it.
#[must_use]
pub fn parse_token(body: &[u8]) -> Option<(String, Duration)> {
    let raw: RawToken = serde_json::from_slice(body).ok()?;
    let token = [raw.token, raw.access_token].into_iter().flatten().find(|t| !t.is_empty())?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let life = raw.expires_in.map_or(TOKEN_LIFE, Duration::from_secs).min(TOKEN_LIFE_MAX);
    Some((token, life.saturating_sub(TOKEN_MARGIN)))
}

/// Returns the value of an `Authorization` header for user and password.
#[must_use]
pub fn basic(credential: &RegistryCredential) -> String {
    let plain = format!("{}:{}", credential.username, credential.secret);
    format!("Basic {}", STANDARD.encode(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(header: &str) -> String {
        let challenges = parse_challenges(header);
        let lines = challenges.iter().map(|c| format!("{} {:?}", c.scheme, c.parameters));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_are_read_in_every_shape_registries_send() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                r#"bearer {"realm": "https://auth.docker.io/token", "scope": "repository:a/b:pull,push", "service": "registry.docker.io"}"#,
            ),
            (r#"Basic realm="a \"b\" c""#, r#"basic {"realm": "a \"b\" c"}"#),
            ("BASIC", "basic {}"),
            (
                r#"Negotiate, Basic realm=x , Bearer realm = "http://t/?a=b" , service=s"#,
                r#"negotiate {}; basic {"realm": "x"}; bearer {"realm": "http://t/?a=b", "service": "s"}"#,
            ),
            (
                r#"Bearer realm=http://t/?a=b,service=s"#,
                r#"bearer {"realm": "http://t/?a=b", "service": "s"}"#,
            ),
            (r#"Bearer realm="unclosed"#, r#"bearer {"realm": "unclosed"}"#),
            ("", ""),
            ("=,=", ""),
            (r#""quoted""#, ""),
        ] {
            assert_eq!(show(header), expected, "{header}");
        }
        assert_eq!(parse_challenges(&"a ".repeat(5_000)), []);
    }

    #[test]
    fn a_realm_that_is_no_url_asks_for_nothing() {
        let ask = |header: &str| {
            TokenRequest::from_challenge(&parse_challenges(header)[0], "repository:a:pull")
        };
        assert_eq!(ask(r#"Bearer realm="file:///etc/passwd""#), None);
        assert_eq!(ask("Bearer"), None);
        assert_eq!(ask(r#"Bearer realm="https://t""#).unwrap().scope, "repository:a:pull");
        assert_eq!(ask(r#"Bearer realm="https://t",scope="x""#).unwrap().scope, "x");
    }

    #[test]
    fn tokens_live_as_long_as_they_say_within_limits() {
        let life = |text: &str| parse_token(text.as_bytes()).map(|(token, l)| (token, l.as_secs()));
        assert_eq!(life(r#"{"token":"a"}"#), Some(("a".into(), 50)));
        assert_eq!(life(r#"{"access_token":"b","expires_in":300}"#), Some(("b".into(), 290)));
        assert_eq!(life(r#"{"token":"a","expires_in":9999999}"#), Some(("a".into(), 3590)));
        assert_eq!(life(r#"{"token":"a","expires_in":1}"#), Some(("a".into(), 0)));
        assert_eq!(life(r#"{"token":"","access_token":"c"}"#), Some(("c".into(), 50)));
        assert_eq!(life(r#"{"token":"a\r\nX: y"}"#), None);
        assert_eq!(life("{}"), None);
        assert_eq!(life("no"), None);
    }
}
