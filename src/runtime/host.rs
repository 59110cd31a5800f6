//! What this node's kernel has, as far as the containers on it depend on it.

use super::{apparmor, cgroups, spec::Facts};
use std::{fs, path::Path};

/// Looks at the kernel.
pub(super) fn facts() -> Facts {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Facts {
        controllers: cgroups::controllers(Path::new(cgroups::ROOT)),
        capabilities: capabilities(),
        kernel: version(&release),
        apparmor: apparmor::here(),
        masked: throttles(Path::new("/sys/devices/system/cpu")),
    }
}

/// Returns the capabilities that a container here can be given, a bit each.
pub(super) fn capabilities() -> u64 {
    // What the first process cannot have nobody here can; our own set may be smaller by our unit.
    let first = fs::read_to_string("/proc/1/status").unwrap_or_default();
    bounding_set(&first).unwrap_or(u64::MAX)
}

/// Lists where processors tell how often they were slowed down for their heat, which says what else
/// runs on the node.
fn throttles(processors: &Path) -> Vec<String> {
    let names = fs::read_dir(processors).into_iter().flatten().flatten();
    let folders = names.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse::<u32>().ok()?;
        let folder = entry.path().join("thermal_throttle");
        folder.exists().then(|| (number, folder.to_string_lossy().into_owned()))
    });
    let mut folders: Vec<(u32, String)> = folders.collect();
    folders.sort();
    folders.into_iter().map(|(_, folder)| folder).collect()
}

/// Reads `6.1.0-18-amd64`; what cannot be read counts as old.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

/// Reads which capabilities a process may ever have.
fn bounding_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_capabilities_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("5.12-rc1"), (5, 12));
        assert_eq!(version("next"), (0, 0));
        assert_eq!(bounding_set("Name:\tx\nCapBnd:\t000001ff\n"), Some(0x1ff));
        assert_eq!(bounding_set(""), None);
        assert_ne!(facts().capabilities, 0);
    }

    #[test]
    fn throttles_of_the_processors_there_are_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["cpu10/thermal_throttle", "cpu2/thermal_throttle", "cpu1", "cpufreq"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let path = |cpu: &str| dir.path().join(cpu).join("thermal_throttle").display().to_string();
        assert_eq!(throttles(dir.path()), [path("cpu2"), path("cpu10")]);
        assert_eq!(throttles(&dir.path().join("none")), Vec::<String>::new());
    }
}
