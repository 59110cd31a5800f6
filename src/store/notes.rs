//! What has to survive the daemon, and not the machine: a file for each, in a folder that a restart
//! of the machine empties, as it does `/run`.
//!
//! On flash a commit costs some thirty kilobytes; this costs none, since such a folder is in memory.

use crate::util::disk;
use std::{collections::BTreeSet, fs, io, path::PathBuf};

/// The folder.
#[derive(Debug)]
pub(super) struct Notes(pub(super) PathBuf);

impl Notes {
    /// Replaces what is noted of `id`: a reader, also after the daemon was killed, sees either the
    /// old note or the new one.
    pub(super) fn write(&self, id: &str, note: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        // A task's environment may hold secrets.
        disk::replace(&self.0.join(id), note, 0o600)
    }

    /// Returns what is noted of `id`, where anything is.
    pub(super) fn read(&self, id: &str) -> Option<Vec<u8>> {
        fs::read(self.0.join(id)).ok()
    }

    /// Removes what is noted of anything but `known`.
    pub(super) fn retain(&self, known: &BTreeSet<&str>) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                // What stays is removed another time.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// Removes what is noted of `id`.
    pub(super) fn remove(&self, id: &str) {
        drop(fs::remove_file(self.0.join(id)));
    }
}
