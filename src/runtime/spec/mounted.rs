//! What is mounted in a container, read back from its specification.

use super::INIT_PATH;
use serde_json::Value;

/// Where what every container has is mounted.
const COMMON: [&str; 11] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/sys",
    "/sys/fs/cgroup",
    "/dev/mqueue",
    "/dev/shm",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    INIT_PATH,
];

/// A mount that the task or the image asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The path on the node; none is memory.
    pub source: Option<String>,
    /// The path inside.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// Lists the mounts of a specification, without those that every container has.
pub(in crate::runtime) fn mounted(spec: &Value) -> Vec<Mounted> {
    let mount = |mount: &Value| {
        let target = mount["destination"].as_str()?;
        if COMMON.contains(&target) {
            return None;
        }
        let memory = mount["type"] == "tmpfs";
        let source = mount["source"].as_str().filter(|_| !memory).map(str::to_owned);
        let options = mount["options"].as_array();
        let read_only = options.is_some_and(|options| options.iter().any(|option| option == "ro"));
        Some(Mounted { source, target: target.to_owned(), read_only })
    };
    spec["mounts"].as_array().into_iter().flatten().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_asked_for_is_listed() {
        let spec = json!({"mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/v", "type": "bind", "source": "/s", "options": ["rbind", "ro"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["rw"]},
        ]});
        let at = |target: &str, source: Option<&str>, read_only| Mounted {
            source: source.map(str::to_owned),
            target: target.to_owned(),
            read_only,
        };
        assert_eq!(mounted(&spec), [at("/v", Some("/s"), true), at("/t", None, false)]);
        assert_eq!(mounted(&json!({})), []);
    }
}
