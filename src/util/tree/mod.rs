//! A folder as the root of a tree that nothing leads out of, whatever symbolic links it holds:
//! paths are resolved in it by the kernel. Packed into archives, and unpacked from them.
//!
//! Knows files and archives; must not know whose tree it is.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// A folder that paths are resolved in.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
}

impl Root {
    /// Opens the folder.
    ///
    /// # Errors
    ///
    /// It is not there, or no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens what `path` leads to inside; an absolute one begins at the root, and so does an
    /// absolute symbolic link.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be opened so.
    pub fn open_at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        // Inside a root of one's own, nothing of /proc leads out of it either.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile: the kernel could not be sure.
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Reads at most the first `max` bytes of a plain file.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    pub fn read(&self, path: &str, max: u64) -> io::Result<Vec<u8>> {
        // A fifo in its place must not hold us up.
        let file = File::from(self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        fs::create_dir(&inside).unwrap();
        fs::write(dir.path().join("secret"), "out").unwrap();
        fs::write(inside.join("file"), "in").unwrap();
        symlink("/file", inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        symlink("../../../file", inside.join("up")).unwrap();
        let root = Root::open(&inside).unwrap();
        for path in ["file", "/file", "absolute", "up", "../file", "./../../absolute"] {
            assert_eq!(root.read(path, 100).unwrap(), b"in", "{path}");
        }
        for path in ["out", "../secret", "/../secret", "/proc/self/root"] {
            assert!(root.read(path, 100).is_err(), "{path}");
        }
        assert_eq!(root.read("file", 1).unwrap(), b"i");
        assert!(root.read("", 100).is_err());
    }
}
