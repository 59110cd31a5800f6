//! From an archive to a tree.

use super::{Root, join, look, os};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};
use tar::{Entry, EntryType};

/// Folders inside one another that are removed: deeper ones are somebody's trap.
const DEPTH_MAX: usize = 256;

/// An archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The folder to unpack in is not there.
    #[error("could not find the file {0}")]
    NotFound(String),
    /// It is no folder.
    #[error("extraction point is not a directory: {0}")]
    NotAFolder(String),
    /// Nothing can be written there.
    #[error("{0} is marked read-only")]
    ReadOnly(String),
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Archive(#[source] io::Error),
    /// An entry would leave the folder.
    #[error("the archive's entry {0:?} leads out of its folder")]
    Escapes(String),
    /// A file is where a folder should be, or the other way round.
    #[error("cannot overwrite {0}")]
    OtherKind(String),
    /// Something cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whose the unpacked things become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whom the archive names, by number.
    Archived,
    /// This user and group.
    Fixed(u32, u32),
    /// Whoever unpacks.
    Own,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Refuse to put a file where a folder is, and the other way round.
    pub keep_kinds: bool,
    /// Whose everything becomes.
    pub owner: Owner,
    /// What the first part of every path is to be instead: from, to. From `.` or `/` puts it
    /// before every path.
    pub rename: Option<(String, String)>,
}

/// Unpacks the archive in the folder at `path`. Symbolic links on the way are followed as the
/// tree's own processes would. Blocks.
///
/// # Errors
///
/// There is no such folder, the archive is broken or leads out of it, or the disk refuses.
pub fn unpack(root: &Root, path: &str, rules: &Rules, input: impl Read) -> Result<(), UnpackError> {
    let opened = root.open_at(path, OFlags::PATH | OFlags::DIRECTORY);
    let base = opened.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => UnpackError::NotFound(path.to_owned()),
        io::ErrorKind::NotADirectory => UnpackError::NotAFolder(path.to_owned()),
        _ => UnpackError::Write { path: path.to_owned(), source },
    })?;
    let unpacker = Unpacker { root, base, path, rules };
    let mut archive = tar::Archive::new(input);
    // A folder's time changes with what is put in it, so it comes last.
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        unpacker.entry(&mut entry, &mut folders)?;
    }
    for (parts, times) in folders.iter().rev() {
        // Gone, or another thing by now.
        if let Ok(folder) = unpacker.open(parts) {
            let kept = rustix::fs::utimensat(folder, os(b"."), times, AtFlags::empty());
            kept.map_err(|error| unpacker.writing(parts, error.into()))?;
        }
    }
    Ok(())
}

type Folders = Vec<(Vec<u8>, Timestamps)>;

struct Unpacker<'a> {
    root: &'a Root,
    base: OwnedFd,
    path: &'a str,
    rules: &'a Rules,
}

impl Unpacker<'_> {
    fn entry(
        &self,
        entry: &mut Entry<'_, impl Read>,
        folders: &mut Folders,
    ) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let parts = self.place(&clean(&entry.path_bytes())?);
        let Some((last, parents)) = parts.split_last() else { return Ok(()) };
        let parents = parents.join(&b'/');
        let whole = parts.join(&b'/');
        let writing = |source: io::Error| self.writing(&whole, source);
        let folder = self.make(&parents).map_err(writing)?;
        let name = os(last);
        self.make_room(&folder, name, &whole, kind)?;
        match kind {
            EntryType::Directory => {
                match rustix::fs::mkdirat(&folder, name, Mode::RWXU) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(writing(error.into())),
                }
                folders.push((whole.clone(), times(entry)));
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = self.place(&clean(&target)?);
                let (last, parents) =
                    target.split_last().ok_or_else(|| UnpackError::Escapes(display(&whole)))?;
                let from = self.open(&parents.join(&b'/')).map_err(writing)?;
                let flags = AtFlags::empty();
                let linked = rustix::fs::linkat(&from, os(last), &folder, name, flags);
                // It is another name of what was given its attributes before.
                return linked.map_err(|error| writing(error.into()));
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let linked = rustix::fs::symlinkat(os(&target), &folder, name);
                linked.map_err(|error| writing(error.into()))?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                make_node(&folder, name, kind, entry).map_err(writing)?;
            }
            _ => self.file(&folder, name, entry).map_err(|error| match error {
                Copy::Read(source) => UnpackError::Archive(source),
                Copy::Write(source) => writing(source),
            })?,
        }
        self.attributes(&folder, name, kind, entry).map_err(writing)
    }

    /// Puts the path where the rules want it.
    fn place(&self, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let Some((from, to)) = &self.rules.rename else { return parts.to_vec() };
        let rest = match parts.split_first() {
            Some((first, rest)) if first == from.as_bytes() => rest,
            _ => parts,
        };
        [&[to.as_bytes().to_vec()], rest].concat()
    }

    /// Takes away what is in an entry's place, unless both are folders.
    fn make_room(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        whole: &[u8],
        kind: EntryType,
    ) -> Result<(), UnpackError> {
        let found = match look(folder, name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.writing(whole, source)),
        };
        let (old, new) = (found.is_dir(), kind.is_dir());
        if old && new {
            return Ok(());
        }
        if self.rules.keep_kinds && old {
            let text = format!("directory {:?} with non-directory", display(whole));
            return Err(UnpackError::OtherKind(text));
        }
        if self.rules.keep_kinds && new {
            let text = format!("non-directory {:?} with directory", display(whole));
            return Err(UnpackError::OtherKind(text));
        }
        remove(folder, name, old, DEPTH_MAX).map_err(|source| self.writing(whole, source))
    }

    fn file(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<(), Copy> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(made.map_err(|error| Copy::Write(error.into()))?);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match entry.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Copy::Read(error)),
            };
            io::Write::write_all(&mut file, &buffer[..n]).map_err(Copy::Write)?;
        }
    }

    /// Gives a thing its owner, permissions and time, in this order: a new owner takes some
    /// permissions away.
    fn attributes(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        kind: EntryType,
        entry: &Entry<'_, impl Read>,
    ) -> io::Result<()> {
        let header = entry.header();
        let id = |id: io::Result<u64>| u32::try_from(id.unwrap_or_default()).unwrap_or_default();
        let owner = match self.rules.owner {
            Owner::Archived => Some((id(header.uid()), id(header.gid()))),
            Owner::Fixed(user, group) => Some((user, group)),
            Owner::Own => None,
        };
        if let Some((user, group)) = owner {
            let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            rustix::fs::chownat(folder, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if kind != EntryType::Symlink {
            let mut mode = header.mode().unwrap_or(0o644) & 0o7777;
            if owner.is_none() {
                // Nothing that somebody else made runs with more than its caller's rights.
                mode &= 0o777;
            }
            self.permissions(folder, name, Mode::from_raw_mode(mode))?;
        }
        if kind != EntryType::Directory {
            rustix::fs::utimensat(folder, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "it is one step of what the others do")]
    fn permissions(&self, folder: &OwnedFd, name: &OsStr, mode: Mode) -> io::Result<()> {
        // The kernel has no chmod that follows nothing: what was just made is opened as what it
        // is, and a symbolic link that took its place is refused.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        let file = File::from(found);
        if file.metadata()?.is_symlink() {
            return Ok(());
        }
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        Ok(rustix::fs::chmod(own, mode)?)
    }

    /// Opens a folder below the one that is unpacked in.
    fn open(&self, below: &[u8]) -> io::Result<OwnedFd> {
        if below.is_empty() {
            return self.base.try_clone();
        }
        let path = join(self.path.as_bytes(), below);
        self.root.open_at(os(&path), OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a folder, and makes what is missing of it.
    fn make(&self, below: &[u8]) -> io::Result<OwnedFd> {
        match self.open(below) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut done: Vec<u8> = Vec::new();
        for part in below.split(|byte| *byte == b'/') {
            let folder = self.open(&done)?;
            let mode = Mode::from_raw_mode(0o755);
            match rustix::fs::mkdirat(&folder, os(part), mode) {
                Ok(()) => {
                    if let Owner::Fixed(user, group) = self.rules.owner {
                        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        rustix::fs::chownat(&folder, os(part), user, group, flags)?;
                    }
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            done = join(&done, part);
        }
        self.open(below)
    }

    fn writing(&self, below: &[u8], source: io::Error) -> UnpackError {
        let path = display(&join(self.path.as_bytes(), below));
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => UnpackError::ReadOnly(path),
            _ => UnpackError::Write { path, source },
        }
    }
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Returns the parts of an entry's path; refuses what leads up.
fn clean(path: &[u8]) -> Result<Vec<Vec<u8>>, UnpackError> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(UnpackError::Escapes(display(path))),
            part => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

fn make_node(
    folder: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
    entry: &Entry<'_, impl Read>,
) -> io::Result<()> {
    let header = entry.header();
    let kind = match kind {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    // Some leave the numbers of a fifo blank.
    let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
    let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
    Ok(rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device)?)
}

/// Removes a thing with all it holds, following nothing.
fn remove(folder: impl AsFd, name: &OsStr, is_folder: bool, depth: usize) -> io::Result<()> {
    if !is_folder {
        return Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?);
    }
    if depth == 0 {
        return Err(io::Error::other("its folders lie too deep in one another"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let child = os(entry.file_name().to_bytes());
        if child != "." && child != ".." {
            let is_folder = look(&inner, child)?.is_dir();
            remove(&inner, child, is_folder, depth - 1)?;
        }
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn times(entry: &Entry<'_, impl Read>) -> Timestamps {
    let seconds = entry.header().mtime().unwrap_or_default();
    let modified = Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 };
    Timestamps { last_access: modified, last_modification: modified }
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
