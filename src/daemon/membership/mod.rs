//! What a node remembers of the cluster it belongs to, in one small file; beside it, who the managers
//! are and the key that seals their log.
//!
//! Replaced as a whole, so that a power cut leaves the old one or the new. Secrets are elsewhere: this
//! holds names and addresses only. Nothing here knows whether the node runs.

pub(crate) mod address;
pub(crate) mod lock;
pub(crate) mod roster;

use crate::{
    types::{ClusterId, Date, ELECTION_TIMEOUT, NodeId, Role, Version},
    util::{disk, error::chain},
};
use address::{Advertised, Origin};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The format that this version writes, and the newest it reads.
const FORMAT: u32 = 1;

/// The largest file that is read.
const SIZE_MAX: u64 = 1 << 20;

/// A node's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The format of this file.
    pub(crate) format: u32,
    /// The node.
    pub(crate) node: NodeId,
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The role it has.
    pub(crate) role: Role,
    /// Its key in the consensus group, as a manager; none is 1, that of the first managers there
    /// were.
    #[serde(default)]
    pub(crate) member: Option<u64>,
    /// The UDP address it listens on.
    pub(crate) listen: String,
    /// `host:port` told to others.
    pub(crate) advertise: String,
    /// How that came about; none is not known: then it stays whatever happens.
    #[serde(default)]
    pub(crate) advertise_by: Option<Origin>,
    /// `host:port` of the managers it knows, best first; names are looked up anew each time.
    pub(crate) managers: Vec<String>,
    /// How long the consensus group does without a leader, in milliseconds, as it was last told;
    /// none is the default.
    #[serde(default)]
    pub(crate) election_millis: Option<u64>,
    /// The version of the cluster's row that told it.
    #[serde(default)]
    pub(crate) election_as_of: Option<Version>,
    /// `host:port` of the managers that the user named when the node joined.
    #[serde(default)]
    pub(crate) joined: Vec<String>,
    /// Whether it was a manager before: others may know it as one, and ask it for the present ones.
    #[serde(default)]
    pub(crate) was_manager: bool,
    /// The latest wall-clock time the node has seen: certificates are judged against it after a
    /// power cut on a board without a clock.
    pub(crate) last_seen: Date,
}

/// The membership cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The disk failed.
    #[error("cannot {verb} {path}")]
    Io {
        /// `read`, `write`, `remove`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one of ours.
    #[error("{path} is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        message: String,
    },
    /// The file is of a newer midge.
    #[error("{path} was written by a newer midge (format {found}); this one reads up to {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

/// Returns where the membership is kept.
fn path_under(data_dir: &Path) -> PathBuf {
    data_dir.join("membership.json")
}

impl Membership {
    /// Makes the membership of a node that just joined.
    pub(crate) fn new(node: NodeId, cluster: ClusterId, role: Role, date: Date) -> Self {
        let (listen, advertise) = (String::new(), String::new());
        let managers = Vec::new();
        let format = FORMAT;
        let member = Some(node.member());
        Self {
            format,
            node,
            cluster,
            role,
            member,
            listen,
            advertise,
            advertise_by: None,
            managers,
            election_millis: None,
            election_as_of: None,
            joined: Vec::new(),
            was_manager: false,
            last_seen: date,
        }
    }

    /// Returns its key in the consensus group.
    pub(crate) fn key(&self) -> u64 {
        self.member.unwrap_or(1)
    }

    /// Returns how long the consensus group does without a leader.
    pub(crate) fn election_timeout(&self) -> Duration {
        self.election_millis.map_or(ELECTION_TIMEOUT, Duration::from_millis)
    }

    /// Returns where managers may be found: those that a manager named last, then those that the
    /// node joined through, since names outlive addresses.
    pub(crate) fn known_managers(&self) -> Vec<String> {
        let mut known = self.managers.clone();
        known
            .extend(self.joined.iter().filter(|address| !self.managers.contains(address)).cloned());
        known
    }

    /// Takes over what to tell others, and where it is itself one of the managers, that it moved.
    pub(crate) fn set_advertised(&mut self, told: Advertised) {
        let before = std::mem::replace(&mut self.advertise, told.address);
        for address in self.managers.iter_mut().filter(|address| **address == before) {
            address.clone_from(&self.advertise);
        }
        self.advertise_by = Some(told.origin);
    }

    /// Returns where the other managers are found.
    pub(crate) fn other_managers(&self) -> Vec<String> {
        self.managers.iter().filter(|address| **address != self.advertise).cloned().collect()
    }

    /// Reads it; none where the node belongs to no cluster.
    pub(crate) fn load(data_dir: &Path) -> Result<Option<Self>, MembershipError> {
        let path = path_under(data_dir);
        let text = match fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > SIZE_MAX {
                return Err(io::Error::other("it is larger than 1 MiB"));
            }
            fs::read_to_string(&path)
        }) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MembershipError::Io { verb: "read", path, source }),
        };
        let damaged = |error: serde_json::Error| MembershipError::Damaged {
            path: path.clone(),
            message: error.to_string(),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        let found = value["format"].as_u64().unwrap_or(0);
        if found > u64::from(FORMAT) {
            return Err(MembershipError::Newer { path, found });
        }
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    /// Writes it; on disk when it returns.
    pub(crate) fn save(&self, data_dir: &Path) -> Result<(), MembershipError> {
        let path = path_under(data_dir);
        let text = serde_json::to_string_pretty(self).expect("what it holds is JSON") + "\n";
        disk::replace(&path, text.as_bytes(), 0o644).map_err(|source| MembershipError::Io {
            verb: "write",
            path,
            source,
        })
    }

    /// Forgets it.
    pub(crate) fn remove(data_dir: &Path) -> Result<(), MembershipError> {
        let path = path_under(data_dir);
        disk::remove(&path).map_err(|source| MembershipError::Io { verb: "remove", path, source })
    }
}

/// Writes down how late it has become, for a board that starts without a clock, where what is
/// written is older than `age`.
pub(crate) fn remember(data_dir: &Path, now: Date, age: Duration) {
    let write = || -> Result<(), MembershipError> {
        let Some(mut membership) = Membership::load(data_dir)? else { return Ok(()) };
        if now.since(membership.last_seen) < age {
            return Ok(());
        }
        membership.last_seen = now;
        membership.save(data_dir)
    };
    if let Err(error) = write() {
        tracing::warn!(error = chain(&error), "cannot write down the time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Membership::load(dir.path()).unwrap(), None);
        let membership = Membership::new(
            NodeId::from_bits(1),
            ClusterId::from_bits(2),
            Role::Manager,
            Date::from_unix_seconds(3),
        );
        membership.save(dir.path()).unwrap();
        assert_eq!(Membership::load(dir.path()).unwrap(), Some(membership));
        Membership::remove(dir.path()).unwrap();
        Membership::remove(dir.path()).unwrap();
        assert_eq!(Membership::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("membership.json"), r#"{"format": 9}"#).unwrap();
        let error = Membership::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}
