//! The security options, as `docker run --security-opt` has them.

use super::SpecError;

/// What a container's security options say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Security {
    /// Whether no program may gain privileges by its file.
    pub(super) no_new_privileges: bool,
    /// Which calls are let through.
    pub(super) seccomp: Seccomp,
    /// The AppArmor profile; none is the node's default.
    pub(super) apparmor: Option<String>,
    /// Whether nothing below /proc and /sys is hidden.
    pub(super) open_paths: bool,
}

/// Which calls are let through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Seccomp {
    /// Those that Docker allows.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those that a profile in Docker's format allows.
    Profile(String),
}

/// What takes a restriction away.
pub(super) const UNCONFINED: &str = "unconfined";

/// Reads the options; the last of a kind wins.
pub(super) fn parse(options: &[String]) -> Result<Security, SpecError> {
    let mut security = Security::default();
    for option in options {
        let refused = |why| SpecError::Security { option: option.clone(), why };
        let at = option.find('=').or_else(|| option.find(':'));
        let (name, value) = match at {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option.as_str(), None),
        };
        match (name, value) {
            ("no-new-privileges", None) => security.no_new_privileges = true,
            ("no-new-privileges", Some(value)) => {
                security.no_new_privileges =
                    value.parse().map_err(|_| refused("it is either true or false"))?;
            }
            ("seccomp", Some(UNCONFINED)) => security.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin" | "default")) => security.seccomp = Seccomp::Default,
            ("seccomp", Some(profile)) => security.seccomp = Seccomp::Profile(profile.to_owned()),
            ("apparmor", Some(profile)) => security.apparmor = Some(profile.to_owned()),
            ("systempaths", Some(UNCONFINED)) => security.open_paths = true,
            // No container is given a label.
            ("label", Some("disable")) => {}
            ("label", _) => return Err(refused("SELinux labels are not supported")),
            _ => {
                return Err(refused(
                    "known are no-new-privileges, seccomp, apparmor and systempaths",
                ));
            }
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Result<Security, String> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        parse(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_in_every_form() {
        assert_eq!(parsed(&[]).unwrap(), Security::default());
        let security = parsed(&[
            "no-new-privileges",
            "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}",
            "apparmor:mine",
            "systempaths=unconfined",
            "label=disable",
        ]);
        let expected = Security {
            no_new_privileges: true,
            seccomp: Seccomp::Profile("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}".into()),
            apparmor: Some("mine".into()),
            open_paths: true,
        };
        assert_eq!(security.unwrap(), expected);
        assert!(
            !parsed(&["no-new-privileges", "no-new-privileges:false"]).unwrap().no_new_privileges
        );
        assert_eq!(parsed(&["seccomp:unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        for option in ["fly", "no-new-privileges=maybe", "label=type:x", "systempaths=some"] {
            let error = parsed(&[option]).unwrap_err();
            assert!(error.starts_with(&format!("invalid --security-opt {option:?}: ")), "{error}");
        }
    }
}
