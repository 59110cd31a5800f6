//! A folder as the root of a tree that nothing leads out of, whatever symbolic links it holds:
//! paths are resolved in it by the kernel. Packed into archives, and unpacked from them.
//!
//! Knows files and archives; must not know whose tree it is.

mod pack;
mod path;
mod pipe;
mod unpack;

pub use pack::{PackError, pack};
pub use path::Asked;
pub use pipe::{PIECE, PieceReader, PieceWriter};
pub use unpack::{Owner, Rules, UnpackError, unpack};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// The longest target of a symbolic link that the kernel has.
const LINK_MAX: usize = 4096;

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
    pub fn open_at(&self, path: impl AsRef<OsStr>, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let path = if path.is_empty() { OsStr::new(".") } else { path };
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
    pub fn read(&self, path: impl AsRef<OsStr>, max: u64) -> io::Result<Vec<u8>> {
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

/// What is at a name in an open folder, nothing followed.
fn look(folder: impl AsFd, name: &OsStr) -> io::Result<Metadata> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?).metadata()
}

/// Returns where a symbolic link in an open folder leads.
fn link_target(folder: impl AsFd, name: &OsStr) -> io::Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(folder, name, Vec::with_capacity(LINK_MAX))?;
    Ok(target.into_bytes())
}

/// Joins two parts of a path; an absolute second one stays below the first.
fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if folder.is_empty() || folder.ends_with(b"/") { b"" } else { b"/" };
    [folder, slash, name].concat()
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
