//! From a tree to an archive.

use super::{Asked, Root, join, link_target, look, os};
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
};
use tar::{EntryType, Header};

/// What fits a header's own fields for names.
const NAME_MAX: usize = 100;

/// The name of the entry that holds a longer one, as GNU tar writes it.
const LONG_NAME: &[u8] = b"././@LongLink";

/// File systems that hold no files but what the kernel tells of itself.
const PSEUDO: [u64; 10] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
];

/// An archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// What was asked for is not there.
    #[error("could not find the file {0}")]
    NotFound(String),
    /// Something in the tree cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written on: whoever took it is gone.
    #[error("cannot hand the archive over")]
    Write(#[source] io::Error),
}

/// Packs what was asked for, folders with all they hold, as an archive in which it bears `name`.
/// Sockets are left out, and what vanishes meanwhile; of file systems of the kernel's own only the
/// folder they are mounted on. Blocks.
///
/// # Errors
///
/// It is not there, cannot be read, or nobody takes the archive.
pub fn pack(root: &Root, asked: &Asked, name: &str, out: impl Write) -> Result<(), PackError> {
    let reading = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PackError::NotFound(asked.path()),
        _ => PackError::Read { path: asked.path(), source },
    };
    let folder = asked.open_folder(root).map_err(reading)?;
    let metadata = look(&folder, os(asked.last())).map_err(reading)?;
    let archive = tar::Builder::new(out);
    let mut packer = Packer { base: folder, archive, links: BTreeMap::new() };
    let mut folders = Vec::new();
    packer.entry(asked.last(), name.as_bytes(), &metadata, &mut folders)?;
    // Folders still to be read, by their paths: one open at a time, however deep they lie.
    while let Some((path, name, device)) = folders.pop() {
        packer.folder(&path, &name, device, &mut folders)?;
    }
    packer.archive.into_inner().and_then(|mut out| out.flush()).map_err(PackError::Write)
}

/// Path from the base, name in the archive, device.
type Folder = (Vec<u8>, Vec<u8>, u64);

struct Packer<W: Write> {
    base: OwnedFd,
    archive: tar::Builder<W>,
    /// Where a file with several names was put first.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    /// Packs what a folder holds.
    fn folder(
        &mut self,
        path: &[u8],
        name: &[u8],
        device: u64,
        folders: &mut Vec<Folder>,
    ) -> Result<(), PackError> {
        let opened = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let folder = match opened {
            Ok(folder) => folder,
            Err(error) if vanished(&error) => return Ok(()),
            Err(source) => return Err(read_error(name, source)),
        };
        let metadata = look(&folder, os(b".")).map_err(|source| read_error(name, source))?;
        if metadata.dev() != device && is_hidden(&folder, path) {
            return Ok(());
        }
        let names = names(&folder).map_err(|source| read_error(name, source))?;
        let mut inner = Vec::new();
        for child in names {
            match look(&folder, os(&child)) {
                Ok(found) => {
                    self.entry(&join(path, &child), &join(name, &child), &found, &mut inner)?;
                }
                Err(error) if vanished(&error) => {}
                Err(source) => return Err(read_error(&join(name, &child), source)),
            }
        }
        for entry in inner.into_iter().rev() {
            folders.push((entry.0, entry.1, metadata.dev()));
        }
        Ok(())
    }

    /// Packs one thing; a folder is noted, to be read later.
    fn entry(
        &mut self,
        path: &[u8],
        name: &[u8],
        found: &Metadata,
        folders: &mut Vec<Folder>,
    ) -> Result<(), PackError> {
        let kind = found.file_type();
        let mut header = header(found);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let shown = if name.ends_with(b"/") { name.to_vec() } else { [name, b"/"].concat() };
            folders.push((path.to_vec(), name.to_vec(), found.dev()));
            return self.write(header, &shown, None, io::empty());
        }
        if found.nlink() > 1 && !kind.is_symlink() {
            if let Some(first) = self.links.get(&(found.dev(), found.ino())).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.write(header, name, Some(&first), io::empty());
            }
            self.links.insert((found.dev(), found.ino()), name.to_vec());
        }
        if kind.is_file() {
            return self.file(path, name);
        }
        if kind.is_symlink() {
            let (folder, last) = split(path);
            let target = self
                .open(folder, OFlags::PATH | OFlags::DIRECTORY)
                .and_then(|folder| link_target(folder, os(last)));
            let target = match target {
                Ok(target) => target,
                Err(error) if vanished(&error) => return Ok(()),
                Err(source) => return Err(read_error(name, source)),
            };
            header.set_entry_type(EntryType::Symlink);
            return self.write(header, name, Some(&target), io::empty());
        }
        let device = |header: &mut Header| {
            let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
            header.set_device_major(major).and_then(|()| header.set_device_minor(minor))
        };
        if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
        } else if kind.is_char_device() {
            header.set_entry_type(EntryType::Char);
            device(&mut header).map_err(PackError::Write)?;
        } else if kind.is_block_device() {
            header.set_entry_type(EntryType::Block);
            device(&mut header).map_err(PackError::Write)?;
        } else {
            return Ok(());
        }
        self.write(header, name, None, io::empty())
    }

    fn file(&mut self, path: &[u8], name: &[u8]) -> Result<(), PackError> {
        let opened = self.open(path, OFlags::RDONLY | OFlags::NOFOLLOW).map(File::from);
        let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            // Something else by now.
            Ok((metadata, _)) if !metadata.is_file() => return Ok(()),
            Ok(opened) => opened,
            Err(error) if vanished(&error) => return Ok(()),
            Err(source) => return Err(read_error(name, source)),
        };
        let mut header = header(&metadata);
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        // A file that shrinks meanwhile is filled up: the archive has promised its size.
        let mut content = Content { file, failed: None };
        let data = Read::by_ref(&mut content).chain(io::repeat(0)).take(metadata.len());
        self.write(header, name, None, data)?;
        content.failed.map_or(Ok(()), |source| Err(read_error(name, source)))
    }

    /// Writes one entry, with entries before it for names that its header cannot hold.
    fn write(
        &mut self,
        mut header: Header,
        name: &[u8],
        link: Option<&[u8]>,
        data: impl Read,
    ) -> Result<(), PackError> {
        let write = || {
            if let Some(link) = link.filter(|link| link.len() > NAME_MAX) {
                self.long(EntryType::GNULongLink, link)?;
            }
            if name.len() > NAME_MAX {
                self.long(EntryType::GNULongName, name)?;
            }
            let fields = header.as_old_mut();
            put(&mut fields.name, name);
            put(&mut fields.linkname, link.unwrap_or_default());
            header.set_cksum();
            self.archive.append(&header, data)
        };
        write().map_err(PackError::Write)
    }

    fn long(&mut self, kind: EntryType, text: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        put(&mut header.as_old_mut().name, LONG_NAME);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(u64::try_from(text.len()).map_err(io::Error::other)? + 1);
        header.set_cksum();
        self.archive.append(&header, text.chain(&[0][..]))
    }

    /// Opens something below the base; nothing on the way is followed.
    fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        // A fifo must not hold us up; what is only pointed at takes no such flag.
        let waits = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | waits | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(&self.base, os(path), flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// A file whose failure to be read is told after the archive's entry is complete.
struct Content {
    file: File,
    failed: Option<io::Error>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.failed = Some(error);
                Ok(0)
            }
            other => other,
        }
    }
}

fn header(found: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(found.uid().into());
    header.set_gid(found.gid().into());
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or_default());
    header.set_size(0);
    header
}

fn put(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    field[len..].fill(0);
}

/// Splits a path below the base into folder and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

/// Lists what a folder holds, in order.
fn names(folder: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// Tells whether what is mounted on a folder is none of the tree's files: the kernel's own, or the
/// devices that every container is given.
fn is_hidden(folder: impl AsFd, path: &[u8]) -> bool {
    if path == b"dev" || path == b"./dev" {
        return true;
    }
    let kind = rustix::fs::fstatfs(folder).map(|stat| stat.f_type);
    // The type of the number differs between architectures.
    kind.is_ok_and(|kind| PSEUDO.iter().any(|known| format!("{kind:x}") == format!("{known:x}")))
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn read_error(name: &[u8], source: io::Error) -> PackError {
    PackError::Read { path: String::from_utf8_lossy(name).into_owned(), source }
}
