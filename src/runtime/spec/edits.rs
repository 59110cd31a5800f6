//! What devices of the node add to a container's specification.

use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

/// Additions to a specification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::runtime) struct Edits {
    /// Device files; the last of a path wins.
    pub(in crate::runtime) nodes: Vec<DeviceNode>,
    /// `NAME=value`.
    pub(in crate::runtime) env: Vec<String>,
    /// Mounts of files and folders of the node.
    pub(in crate::runtime) mounts: Vec<EditMount>,
    /// Programs of the node to run, by when they run (`createRuntime`).
    pub(in crate::runtime) hooks: BTreeMap<String, Vec<Value>>,
    /// Supplementary groups.
    pub(in crate::runtime) groups: Vec<u32>,
}

/// A device file inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct DeviceNode {
    /// Its path inside.
    pub(in crate::runtime) path: String,
    /// `b`, `c`, `p` or `u`.
    pub(in crate::runtime) kind: char,
    pub(in crate::runtime) major: i64,
    pub(in crate::runtime) minor: i64,
    /// Its permission bits; none is the runtime's choice.
    pub(in crate::runtime) mode: Option<u32>,
    pub(in crate::runtime) uid: Option<u32>,
    pub(in crate::runtime) gid: Option<u32>,
    /// What may be done with it: of `r`, `w`, `m`.
    pub(in crate::runtime) access: String,
}

/// A mount that a device brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct EditMount {
    pub(in crate::runtime) source: PathBuf,
    pub(in crate::runtime) target: String,
    pub(in crate::runtime) options: Vec<String>,
    /// The file system; empty is that of the source.
    pub(in crate::runtime) kind: String,
}

impl DeviceNode {
    /// Returns how the specification writes it.
    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({
            "path": self.path,
            "type": self.kind.to_string(),
            "major": self.major,
            "minor": self.minor,
        });
        for (key, number) in [("fileMode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if let Some(number) = number {
                value[key] = number.into();
            }
        }
        value
    }

    /// Returns the rule that lets the container use it; what is no device needs none.
    pub(super) fn rule(&self) -> Option<Value> {
        matches!(self.kind, 'b' | 'c' | 'u').then(|| {
            let kind = if self.kind == 'u' { 'c' } else { self.kind };
            json!({
                "allow": true,
                "type": kind.to_string(),
                "major": self.major,
                "minor": self.minor,
                "access": self.access,
            })
        })
    }
}

impl Edits {
    /// Adds those of another, which win.
    pub(in crate::runtime) fn extend(&mut self, other: Self) {
        for node in other.nodes {
            self.nodes.retain(|known| known.path != node.path);
            self.nodes.push(node);
        }
        self.env.extend(other.env);
        for mount in other.mounts {
            self.mounts.retain(|known| known.target != mount.target);
            self.mounts.push(mount);
        }
        for (when, hooks) in other.hooks {
            self.hooks.entry(when).or_default().extend(hooks);
        }
        self.groups.extend(other.groups);
    }
}
