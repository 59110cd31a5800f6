//! A container's mounts, in the words of the OCI specification.

use super::{INIT_PATH, Input, edits::EditMount};
use crate::types::{NamespaceMode, Propagation};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Docker's size of `/dev/shm`.
const SHM_SIZE: u64 = 64 << 20;

/// A mount that the task or the node asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct MountPoint {
    /// What.
    pub(in crate::runtime) source: MountSource,
    /// The path inside.
    pub(in crate::runtime) target: String,
    /// Whether it can be written to.
    pub(in crate::runtime) access: Access,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) enum MountSource {
    /// A file or folder of the node.
    Path {
        /// Where it is.
        path: PathBuf,
        /// Whether mounts below it come along.
        recursive: bool,
        /// How mounts show on the other side.
        propagation: Propagation,
    },
    /// Memory.
    Memory {
        /// At most so many bytes; 0 is the kernel's choice.
        size: u64,
        /// The mode of its root.
        mode: Option<u32>,
    },
}

/// Whether a mount can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Access {
    /// It can.
    Write,
    /// It cannot, but mounts below it can.
    Read,
    /// Neither it nor what is mounted below it can.
    ReadAll,
}

impl MountPoint {
    /// A folder of the node, as volumes are mounted.
    pub(in crate::runtime) fn folder(path: PathBuf, target: String, read_only: bool) -> Self {
        let source =
            MountSource::Path { path, recursive: true, propagation: Propagation::default() };
        Self { source, target, access: if read_only { Access::Read } else { Access::Write } }
    }

    fn to_json(&self) -> Value {
        let access = match self.access {
            Access::Write => "rw",
            Access::Read => "ro",
            Access::ReadAll => "rro",
        };
        match &self.source {
            MountSource::Path { path, recursive, propagation } => {
                let bind = if *recursive { "rbind" } else { "bind" };
                let mut options = vec![bind, propagation.as_str(), access];
                if self.access == Access::ReadAll {
                    // Where the runtime cannot do it below, the mount itself is closed at least.
                    options.push("ro");
                }
                json!({
                    "destination": self.target, "type": "bind", "source": path, "options": options,
                })
            }
            MountSource::Memory { size, mode } => {
                let mut options: Vec<String> =
                    ["noexec", "nosuid", "nodev", "rprivate", access].map(str::to_owned).into();
                if *size > 0 {
                    options.push(format!("size={size}"));
                }
                options.extend(mode.map(|mode| format!("mode={mode:o}")));
                json!({
                    "destination": self.target, "type": "tmpfs", "source": "tmpfs",
                    "options": options,
                })
            }
        }
    }
}

/// Returns all mounts in the order they are to be made in.
pub(super) fn all(input: &Input<'_>) -> Value {
    let wanted = |target: &str| input.mounts.iter().any(|mount| mount.target == target);
    let mut all = defaults(input);
    all.retain(|mount| !wanted(mount["destination"].as_str().unwrap_or_default()));
    let files = [
        ("/etc/hosts", input.setup.hosts.as_ref()),
        ("/etc/resolv.conf", input.setup.resolv_conf.as_ref()),
        ("/etc/hostname", input.setup.hostname_file.as_ref()),
    ];
    let files = files.into_iter().filter(|(target, _)| !wanted(target));
    let files =
        files.filter_map(|(target, source)| Some((depth(target), bind(source?, target, "rw"))));
    let own = input.mounts.iter().map(|mount| (depth(&mount.target), mount.to_json()));
    let edits = input.edits.mounts.iter().filter(|mount| !wanted(&mount.target));
    let edits = edits.map(|mount| (depth(&mount.target), edited(mount)));
    // The files among the others: one that is mounted at /etc must not hide them.
    let mut asked: Vec<(usize, Value)> = files.chain(own).chain(edits).collect();
    asked.sort_by_key(|(depth, _)| *depth);
    all.extend(asked.into_iter().map(|(_, mount)| mount));
    all.extend(input.init.map(|init| bind(init, INIT_PATH, "ro")));
    Value::Array(all)
}

/// Outer paths come before inner ones.
fn depth(target: &str) -> usize {
    target.split('/').filter(|part| !part.is_empty()).count()
}

fn defaults(input: &Input<'_>) -> Vec<Value> {
    let spec = &input.task.spec.container;
    // A privileged container may write here, unless nothing at all can be written.
    let system = if spec.privileged && !spec.read_only { "rw" } else { "ro" };
    let cgroup = if spec.privileged { "rw" } else { "ro" };
    let size = if spec.shm_size == 0 { SHM_SIZE } else { spec.shm_size };
    let system = format!("nosuid,noexec,nodev,{system}");
    let cgroup = format!("{cgroup},nosuid,noexec,nodev");
    let shared = format!("nosuid,noexec,nodev,mode=1777,size={size}");
    let table: [(&str, &str, &str, &str); 7] = [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/sys", "sysfs", "sysfs", &system),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "tmpfs", "shm", &shared),
    ];
    let mount = |(target, kind, source, options): &(&str, &str, &str, &str)| {
        if spec.ipc == NamespaceMode::Host && *target == "/dev/shm" {
            return bind(Path::new("/dev/shm"), target, "rw");
        }
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": target, "type": kind, "source": source, "options": options })
    };
    table.iter().map(mount).collect()
}

fn bind(source: &Path, target: &str, access: &str) -> Value {
    let options = ["rbind", "rprivate", access];
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

fn edited(mount: &EditMount) -> Value {
    let mut value = json!({
        "destination": mount.target, "source": mount.source, "options": mount.options,
    });
    let binds = mount.options.iter().any(|option| option == "bind" || option == "rbind");
    match mount.kind.as_str() {
        "" if !binds => {
            let mut options = vec!["rbind".to_owned()];
            options.extend(mount.options.iter().cloned());
            value["options"] = json!(options);
            value["type"] = json!("bind");
        }
        "" => value["type"] = json!("bind"),
        kind => value["type"] = json!(kind),
    }
    value
}
