//! Which resources the kernel of this node can limit, and what it counted of a container.
//!
//! Knows the two versions of the cgroup file system; must not know what asks for limits.

use crate::types::CgroupSupport;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where every distribution mounts the cgroup file system.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// What the kernel can limit, swap included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Controllers {
    /// The part that other nodes hear of.
    pub(super) support: CgroupSupport,
    /// Whether memory and swap together can be limited.
    pub(super) swap: bool,
}

/// Returns which cgroup controllers this node has.
#[must_use]
pub fn cgroups() -> CgroupSupport {
    cgroups_at(Path::new(ROOT))
}

/// Returns which cgroup controllers the hierarchy at `root` has.
#[must_use]
pub fn cgroups_at(root: &Path) -> CgroupSupport {
    controllers(root).support
}

/// Returns where groups may be: one place for each hierarchy, or one for all.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mounted = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    mounted.chain([PathBuf::from(ROOT)])
}

/// Removes the group `parent` (`/midge/<id>`) with the empty ones in it, and the one above it, in every
/// hierarchy, as far as nothing is in them any more.
pub fn remove_cgroup(parent: &str) {
    let parent = Path::new(parent.trim_start_matches('/'));
    for hierarchy in hierarchies() {
        for left in fs::read_dir(hierarchy.join(parent)).into_iter().flatten().flatten() {
            // The files in it are the kernel's own.
            drop(fs::remove_dir(left.path()));
        }
        for group in parent.ancestors().filter(|group| !group.as_os_str().is_empty()) {
            // Refused where something is in it: it is not ours alone.
            if fs::remove_dir(hierarchy.join(group)).is_err() {
                break;
            }
        }
    }
}

/// Removes the group `path` in every hierarchy where it is empty: runc leaves it where it is killed, or
/// never got to know the container.
pub(super) fn remove_empty(path: &str) {
    for hierarchy in hierarchies() {
        drop(fs::remove_dir(hierarchy.join(path.trim_start_matches('/'))));
    }
}

pub(super) fn controllers(root: &Path) -> Controllers {
    match fs::read_to_string(root.join("cgroup.controllers")) {
        Ok(text) => unified(root, &text),
        Err(_) => split(root),
    }
}

fn unified(root: &Path, text: &str) -> Controllers {
    let has = |name: &str| text.split_ascii_whitespace().any(|word| word == name);
    let support =
        CgroupSupport { version: 2, cpu: has("cpu"), memory: has("memory"), pids: has("pids") };
    // The root group itself has no limits; any group below it shows whether swap is counted.
    let groups = fs::read_dir(root).into_iter().flatten().flatten();
    let swap = groups.map(|group| group.path()).any(|group| group.join("memory.swap.max").exists());
    Controllers { support, swap }
}

fn split(root: &Path) -> Controllers {
    let has = |file: &str| root.join(file).exists();
    let support = CgroupSupport {
        version: 1,
        cpu: has("cpu/cpu.cfs_quota_us"),
        memory: has("memory/memory.limit_in_bytes"),
        pids: has("pids/cgroup.procs"),
    };
    Controllers { support, swap: has("memory/memory.memsw.limit_in_bytes") }
}

/// Tells whether the kernel ended a process of the group `path` for want of memory. The group is
/// there until its container is deleted from containerd.
pub(super) fn ran_out_of_memory(root: &Path, path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let files = [
        root.join(path).join("memory.events"),
        root.join("memory").join(path).join("memory.oom_control"),
    ];
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| {
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn version_2_is_told_by_its_controllers_file() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cgroup.controllers", "cpuset cpu io pids\n");
        let found = controllers(dir.path());
        let support = CgroupSupport { version: 2, cpu: true, memory: false, pids: true };
        assert_eq!(found, Controllers { support, swap: false });
        write(dir.path(), "system.slice/memory.swap.max", "max\n");
        assert!(controllers(dir.path()).swap);
    }

    #[test]
    fn version_1_is_told_by_each_controllers_files() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "memory/memory.limit_in_bytes", "1");
        write(dir.path(), "pids/cgroup.procs", "");
        let found = controllers(dir.path());
        let support = CgroupSupport { version: 1, cpu: false, memory: true, pids: true };
        assert_eq!(found, Controllers { support, swap: false });
    }

    #[test]
    fn kills_are_read_from_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/b/memory.events", "low 0\noom 1\noom_kill 0\n");
        assert!(!ran_out_of_memory(dir.path(), "/a/b"));
        write(dir.path(), "a/b/memory.events", "low 0\noom 1\noom_kill 2\n");
        assert!(ran_out_of_memory(dir.path(), "/a/b"));
        write(dir.path(), "memory/c/memory.oom_control", "under_oom 0\noom_kill 1\n");
        assert!(ran_out_of_memory(dir.path(), "c"));
        assert!(!ran_out_of_memory(dir.path(), "none"));
    }
}
