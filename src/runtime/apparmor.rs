//! AppArmor: what confines a container that names no profile.

use std::fs;

/// The profiles for containers that name none, the first that is loaded: midge's own, which its
/// packages bring (`systemd/midge.apparmor`), and those of other engines, both with Docker's content.
const DEFAULTS: [&str; 3] = ["midge-default", "docker-default", "cri-containerd.apparmor.d"];

/// Where the kernel says whether AppArmor is on: `Y`.
pub const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// Where the kernel lists the profiles that are loaded, for root alone.
pub const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Where midge's own profile is installed.
pub const OWN_PROFILE: &str = "/etc/apparmor.d/midge-default";

/// What AppArmor does for containers that name no profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has none, or it is switched off.
    Off,
    /// It is on, and none of the profiles for containers is loaded: they are unconfined.
    Unconfined,
    /// It is on, and confines them by this profile.
    Profile(String),
}

/// Reads what the kernel says in [`ENABLED`] and [`LOADED`]; none where there is no such file.
#[must_use]
pub fn read(enabled: Option<&str>, loaded: Option<&str>) -> AppArmor {
    if enabled.is_none_or(|text| text.trim() != "Y") {
        return AppArmor::Off;
    }
    let is_loaded = |name: &&str| {
        // "midge-default (enforce)"; one that only complains confines nobody.
        let line = format!("{name} (enforce)");
        loaded.unwrap_or_default().lines().any(|loaded| loaded == line)
    };
    let default = DEFAULTS.into_iter().find(is_loaded);
    default.map_or(AppArmor::Unconfined, |name| AppArmor::Profile(name.to_owned()))
}

/// Asks this kernel.
#[must_use]
pub fn here() -> AppArmor {
    let text = |path: &str| fs::read_to_string(path).ok();
    read(text(ENABLED).as_deref(), text(LOADED).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_profile_that_is_loaded_confines_containers() {
        let loaded = "/usr/bin/man (enforce)\ndocker-default (enforce)\n";
        let by = |name: &str| AppArmor::Profile(name.to_owned());
        assert_eq!(read(Some("Y\n"), Some(loaded)), by("docker-default"));
        let both = format!("{loaded}midge-default (enforce)\n");
        assert_eq!(read(Some("Y\n"), Some(&both)), by("midge-default"));
        for (enabled, loaded, expected) in [
            (None, None, AppArmor::Off),
            (Some("N\n"), Some(loaded), AppArmor::Off),
            (Some("Y\n"), None, AppArmor::Unconfined),
            (Some("Y\n"), Some("docker-default-2 (enforce)\n"), AppArmor::Unconfined),
            (Some("Y\n"), Some("midge-default (complain)\n"), AppArmor::Unconfined),
        ] {
            assert_eq!(read(enabled, loaded), expected, "{enabled:?} {loaded:?}");
        }
    }
}
