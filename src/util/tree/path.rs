//! Paths as `cp` reads them: what a slash or a dot at the end means.

use super::{Root, link_target, look, os};
use rustix::fs::OFlags;
use std::{fs::Metadata, io, os::fd::OwnedFd};

/// A path in a tree, as somebody asked for it. All but its last part is followed through symbolic
/// links; the last one only where a `/` or `/.` at the end asks for a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where the last part is.
    pub(super) folder: String,
    /// The last part; empty where the folder itself is meant.
    pub(super) last: String,
    name: String,
}

impl Asked {
    /// Reads a path; a relative one begins at the root.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let dot = path == "." || path.ends_with("/.");
        let whole = dot || path.is_empty() || path.ends_with('/');
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let last = parts.last().copied().unwrap_or("").to_owned();
        let name = match (dot, last.as_str()) {
            (true, _) => ".".to_owned(),
            (false, "") => "/".to_owned(),
            (false, last) => last.to_owned(),
        };
        if whole || parts.is_empty() {
            return Self { folder: format!("/{}", parts.join("/")), last: String::new(), name };
        }
        parts.pop();
        Self { folder: format!("/{}", parts.join("/")), last, name }
    }

    /// What the thing is called in an archive: the last part, `.` where the path ends in a dot, and
    /// `/` for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path, in its shortest form and without what its end said.
    #[must_use]
    pub fn path(&self) -> String {
        match (self.folder.as_str(), self.last.as_str()) {
            (folder, "") => folder.to_owned(),
            ("/", last) => format!("/{last}"),
            (folder, last) => format!("{folder}/{last}"),
        }
    }

    /// Opens the folder that holds the thing, or is it.
    pub(super) fn open_folder(&self, root: &Root) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        root.open_at(&self.folder, flags)
    }

    /// Returns the thing's name in its folder; `.` where it is the folder.
    pub(super) fn last(&self) -> &[u8] {
        if self.last.is_empty() { b"." } else { self.last.as_bytes() }
    }

    /// Looks at the thing. Returns what it is and, of a symbolic link, where that leads.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn stat(&self, root: &Root) -> io::Result<(Metadata, String)> {
        let folder = self.open_folder(root)?;
        let metadata = look(&folder, os(self.last()))?;
        let target = if metadata.is_symlink() {
            let target = link_target(&folder, os(self.last()))?;
            let target = String::from_utf8_lossy(&target).into_owned();
            // As seen from the root: whoever asks has no folder to be relative to.
            let whole = match target.starts_with('/') {
                true => target,
                false => format!("{}/{target}", self.folder),
            };
            Self::new(&whole).path()
        } else {
            String::new()
        };
        Ok((metadata, target))
    }
}
