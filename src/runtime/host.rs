//! What this node's kernel has, as far as the containers on it depend on it.

use super::{cgroups, spec::Facts};
use std::{fs, path::Path};

/// The profiles that other engines load for containers that name none, both with Docker's
/// content. midge takes one that is there; it loads none itself.
const DEFAULT_PROFILES: [&str; 2] = ["docker-default", "cri-containerd.apparmor.d"];

/// Looks at the kernel.
pub(super) fn facts() -> Facts {
    // What the first process cannot have nobody here can; our own set may be smaller by our unit.
    let first = fs::read_to_string("/proc/1/status").unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let has_apparmor = enabled.is_ok_and(|text| text.trim() == "Y");
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    Facts {
        controllers: cgroups::controllers(Path::new(cgroups::ROOT)),
        capabilities: bounding_set(&first).unwrap_or(u64::MAX),
        kernel: version(&release),
        has_apparmor,
        default_apparmor: if has_apparmor { default_profile(&loaded) } else { None },
    }
}

/// Reads `6.1.0-18-amd64`; what cannot be read counts as old.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

/// Reads which capabilities a process may ever have.
pub(super) fn bounding_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn default_profile(loaded: &str) -> Option<String> {
    let names: Vec<&str> = loaded.lines().filter_map(|line| line.split(' ').next()).collect();
    let default = DEFAULT_PROFILES.iter().find(|name| names.contains(*name));
    default.map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_profiles_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("5.12-rc1"), (5, 12));
        assert_eq!(version("next"), (0, 0));
        let loaded = "/usr/bin/man (enforce)\ndocker-default (enforce)\n";
        assert_eq!(default_profile(loaded).as_deref(), Some("docker-default"));
        assert_eq!(default_profile("docker-default-2 (enforce)\n"), None);
        assert_eq!(bounding_set("Name:\tx\nCapBnd:\t000001ff\n"), Some(0x1ff));
        assert_eq!(bounding_set(""), None);
        assert_ne!(facts().capabilities, 0);
    }
}
