//! What confines a container: Docker's `Privileges` and the words of `docker run --security-opt`,
//! kept as one list of words in one order.
//!
//! What `Privileges` can say is shown there, the rest in midge's own `SecurityOpt`, so that no
//! client can change one and send the other back unchanged.

use crate::{
    api::{
        dto::{self, is_unset},
        error::{invalid, unsupported},
    },
    cluster::Refusal,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The options, each at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Security {
    no_new_privileges: bool,
    /// `unconfined`, or a profile's JSON.
    seccomp: Option<String>,
    /// `unconfined`, or a profile's name.
    apparmor: Option<String>,
    systempaths_unconfined: bool,
}

impl Security {
    /// Adds one word.
    fn add(&mut self, word: &str) -> Result<(), Refusal> {
        let (key, value) = match word.find(['=', ':']) {
            Some(at) => (&word[..at], &word[at + 1..]),
            None => (word, ""),
        };
        match (key, value) {
            ("no-new-privileges", "" | "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "builtin" | "default") => self.seccomp = None,
            ("seccomp", "unconfined") => self.seccomp = Some(value.to_owned()),
            ("seccomp", profile) => self.seccomp = Some(checked_profile(profile)?),
            ("apparmor", name) if !name.is_empty() => self.apparmor = Some(name.to_owned()),
            ("systempaths", "unconfined") => self.systempaths_unconfined = true,
            ("label", _) => {
                let message = "\"--security-opt label\" (SELinux) is not supported yet";
                return Err(unsupported(message));
            }
            _ => return Err(invalid(format!("invalid --security-opt: {word:?}"))),
        }
        Ok(())
    }

    fn words(self) -> Vec<String> {
        let mut words = Vec::new();
        if self.no_new_privileges {
            words.push("no-new-privileges".to_owned());
        }
        words.extend(self.seccomp.map(|profile| format!("seccomp={profile}")));
        words.extend(self.apparmor.map(|name| format!("apparmor={name}")));
        if self.systempaths_unconfined {
            words.push("systempaths=unconfined".to_owned());
        }
        words
    }

    /// Takes what is stored, which was checked when it came.
    fn stored(words: &[String]) -> Self {
        let mut security = Self::default();
        for word in words {
            security.add(word).ok();
        }
        security
    }
}

fn checked_profile(profile: &str) -> Result<String, Refusal> {
    match serde_json::from_str::<serde_json::Value>(profile) {
        Ok(serde_json::Value::Object(_)) => Ok(profile.to_owned()),
        Ok(_) => Err(invalid("invalid seccomp profile: a JSON object is expected")),
        Err(error) => Err(invalid(format!("invalid seccomp profile: {error}"))),
    }
}

/// Returns the list that a request asks for. Without midge's own `words`, what only they can say
/// is `kept`.
pub(super) fn to_options(
    privileges: Option<&dto::Privileges>,
    words: Option<&[String]>,
    kept: &[String],
) -> Result<Vec<String>, Refusal> {
    let mut security = match privileges {
        Some(privileges) => from_privileges(privileges)?,
        None => Security::default(),
    };
    match words {
        Some(words) => words.iter().try_for_each(|word| security.add(word))?,
        None => {
            let kept = Security::stored(kept);
            let named = kept.apparmor.filter(|name| name != "unconfined");
            security.apparmor = security.apparmor.or(named);
            security.systempaths_unconfined = kept.systempaths_unconfined;
        }
    }
    Ok(security.words())
}

fn from_privileges(privileges: &dto::Privileges) -> Result<Security, Refusal> {
    for (value, flag, field) in [
        (&privileges.credential_spec, "--credential-spec", "Privileges.CredentialSpec"),
        (&privileges.selinux_context, "SELinux", "Privileges.SELinuxContext"),
    ] {
        if !is_unset(value) {
            return Err(unsupported(format!("\"{flag}\" ({field}) is not supported yet")));
        }
    }
    let seccomp = match &privileges.seccomp {
        None => None,
        Some(seccomp) => match seccomp.mode.as_str() {
            "" | "default" => None,
            "unconfined" => Some("unconfined".to_owned()),
            "custom" => {
                let bytes = STANDARD.decode(&seccomp.profile).ok();
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                let text = text.ok_or_else(|| invalid("invalid seccomp profile: not in base64"))?;
                Some(checked_profile(&text)?)
            }
            other => return Err(invalid(format!("unknown seccomp mode: {other:?}"))),
        },
    };
    let apparmor = match privileges.app_armor.as_ref().map_or("", |armor| armor.mode.as_str()) {
        "" | "default" => None,
        "disabled" => Some("unconfined".to_owned()),
        other => return Err(invalid(format!("unknown AppArmor mode: {other:?}"))),
    };
    let no_new_privileges = privileges.no_new_privileges;
    Ok(Security { no_new_privileges, seccomp, apparmor, systempaths_unconfined: false })
}

/// Shows a stored list: what Docker can say, and the rest.
pub(super) fn from_options(stored: &[String]) -> (Option<dto::Privileges>, Option<Vec<String>>) {
    let mut rest = Security::stored(stored);
    let seccomp = rest.seccomp.take().map(|profile| {
        if profile == "unconfined" {
            dto::SeccompOptions { mode: profile, profile: String::new() }
        } else {
            dto::SeccompOptions { mode: "custom".to_owned(), profile: STANDARD.encode(profile) }
        }
    });
    let disabled = rest.apparmor.as_deref() == Some("unconfined");
    if disabled {
        rest.apparmor = None;
    }
    let privileges = dto::Privileges {
        seccomp,
        app_armor: disabled.then(|| dto::AppArmorOptions { mode: "disabled".to_owned() }),
        no_new_privileges: std::mem::take(&mut rest.no_new_privileges),
        ..Default::default()
    };
    let words = rest.words();
    let says = privileges != dto::Privileges::default();
    (says.then_some(privileges), (!words.is_empty()).then_some(words))
}
