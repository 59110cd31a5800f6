//! What midge keeps of one container on disk: log, volumes it uses, whether it was started and how it
//! ended.
//!
//! containerd forgets how a process ended when its shim is deleted or the machine restarts; these
//! files are what survives.

use crate::{agent::Phase, types::Date, util::disk};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of one container.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Names the folder of container `id` below the data directory; touches nothing.
    pub(super) fn new(data_dir: &Path, id: &str) -> Self {
        Self { path: data_dir.join("containers").join(id) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the newest log file.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log.json")
    }

    pub(super) fn hostname(&self) -> PathBuf {
        self.path.join("hostname")
    }

    /// Makes it and notes what cannot be asked of containerd before the container is recorded: a
    /// snapshotter that is not the usual one. Makes a file of the host name where one is given.
    pub(super) fn create(
        &self,
        snapshotter: Option<&str>,
        hostname: Option<&str>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        if let Some(snapshotter) = snapshotter {
            disk::replace(&self.path.join("snapshotter"), snapshotter.as_bytes(), 0o644)?;
        }
        match hostname {
            Some(hostname) => fs::write(self.hostname(), format!("{hostname}\n")),
            None => Ok(()),
        }
    }

    /// Returns the snapshotter that holds the container's snapshot, where it was noted.
    pub(super) fn snapshotter(&self) -> Option<String> {
        fs::read_to_string(self.path.join("snapshotter")).ok().filter(|name| !name.is_empty())
    }

    /// Notes, durably, that the container is about to be started: after a power cut it is known
    /// not to be a fresh one.
    pub(super) fn mark_started(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        fs::File::create(self.path.join("started"))?.sync_all()?;
        fs::File::open(&self.path)?.sync_all()
    }

    /// Takes that back: the start failed before anything ran.
    pub(super) fn unmark_started(&self) -> io::Result<()> {
        disk::remove(&self.path.join("started"))
    }

    pub(super) fn was_started(&self) -> bool {
        self.path.join("started").exists()
    }

    /// Notes, durably, how the container ended; the first note stays.
    pub(super) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        if self.read_exit().is_some() {
            return Ok(());
        }
        let date = exit.date.map_or(0, Date::unix_nanos);
        let text = format!("{} {date} {}\n", exit.code, u8::from(exit.out_of_memory));
        disk::replace(&self.path.join("exit"), text.as_bytes(), 0o644)
    }

    /// Returns how the container ended, where that was noted.
    pub(super) fn read_exit(&self) -> Option<Exit> {
        let text = fs::read_to_string(self.path.join("exit")).ok()?;
        let mut words = text.split_ascii_whitespace();
        let code = words.next()?.parse().ok()?;
        let nanos = words.next()?.parse().ok()?;
        let out_of_memory = words.next()? == "1";
        let date = (nanos > 0).then(|| Date::from_unix_nanos(nanos));
        Some(Exit { code, date, out_of_memory })
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) date: Option<Date>,
    pub(super) out_of_memory: bool,
}

impl From<Exit> for Phase {
    fn from(exit: Exit) -> Self {
        Self::Exited { code: Some(exit.code), date: exit.date, out_of_memory: exit.out_of_memory }
    }
}

/// An end that nobody saw.
pub(super) const LOST: Phase = Phase::Exited { code: None, date: None, out_of_memory: false };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exit_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "a");
        assert_eq!(folder.read_exit(), None);
        assert_eq!(folder.snapshotter(), None);
        folder.create(Some("native"), Some("host")).unwrap();
        assert_eq!(folder.snapshotter().as_deref(), Some("native"));
        let date = Some(Date::from_unix_nanos(7));
        let exit = Exit { code: 3, date, out_of_memory: true };
        folder.write_exit(&exit).unwrap();
        folder.write_exit(&Exit { code: 0, date: None, out_of_memory: false }).unwrap();
        assert_eq!(folder.read_exit(), Some(exit));
        assert!(!folder.was_started());
        folder.mark_started().unwrap();
        assert!(folder.was_started());
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(!folder.was_started());
    }
}
