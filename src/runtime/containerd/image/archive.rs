//! Reads an image archive as a stream of entries: the tar format, its compression, and limits.
//!
//! Nothing is ever written under a name that the archive chose; names are only compared.

use crate::runtime::image::LoadError;
use async_channel::Sender;
use flate2::read::MultiGzDecoder;
use std::{
    io::{self, Read},
    path::{Component, Path},
};

/// The most entries of an archive: 500 layers of a hundred images with three files each.
const ENTRIES_MAX: usize = 150_000;

/// The most bytes of all entries: more than any node of ours has room for, and an end to a
/// compressed archive that unpacks for ever.
const BYTES_MAX: u64 = 256 << 30;

/// The longest path that is kept; `blobs/sha256/...` has 77 characters.
const PATH_MAX: usize = 512;

/// A part of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A file begins.
    File {
        /// Its path, normalized: no `.`, no leading slash.
        path: String,
        /// Its size.
        size: u64,
    },
    /// Bytes of the file that began last.
    Data(Vec<u8>),
    /// The file's bytes are complete.
    End,
    /// One path means another.
    Link {
        /// This one.
        path: String,
        /// Means this one.
        target: String,
    },
}

/// Reads an archive to its end and sends its parts. Blocks; ends early when nobody listens.
///
/// # Errors
///
/// It cannot be read, is no tar archive, is beyond a limit, or has paths that leave it.
pub(super) fn read(
    archive: impl Read,
    chunk: usize,
    parts: &Sender<Part>,
) -> Result<(), LoadError> {
    let mut tar = tar::Archive::new(Limited { inner: decompress(archive)?, left: BYTES_MAX });
    let mut count = 0;
    for entry in tar.entries().map_err(LoadError::Read)? {
        let mut entry = entry.map_err(invalid)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(LoadError::Invalid(format!("more than {ENTRIES_MAX} entries")));
        }
        let kind = entry.header().entry_type();
        let path = entry.path().map_err(invalid)?.into_owned();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let path = normalize(&path)?;
        if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name().map_err(invalid)?;
            let link = link.ok_or_else(|| LoadError::Invalid(format!("{path} links nowhere")))?;
            // A symbolic link counts from its own folder, a hard link from the archive's root.
            let parent = Path::new(&path).parent().filter(|_| kind.is_symlink());
            let target = parent.unwrap_or_else(|| Path::new("")).join(&link);
            let target = normalize(&target)?;
            if parts.send_blocking(Part::Link { path, target }).is_err() {
                return Ok(());
            }
            continue;
        }
        if !kind.is_file() {
            return Err(LoadError::Invalid(format!("{path} is neither file nor link")));
        }
        if !send_file(&mut entry, path, chunk, parts)? {
            return Ok(());
        }
    }
    if count == 0 {
        return Err(LoadError::Invalid("it is empty".to_owned()));
    }
    Ok(())
}

/// Sends one file; `false` where nobody listens any more.
fn send_file(
    entry: &mut tar::Entry<'_, impl Read>,
    path: String,
    chunk: usize,
    parts: &Sender<Part>,
) -> Result<bool, LoadError> {
    let size = entry.size();
    let mut left = size;
    let truncated = format!("{path} is cut off");
    if parts.send_blocking(Part::File { path, size }).is_err() {
        return Ok(false);
    }
    while left > 0 {
        let wanted = left.min(chunk as u64);
        let mut data = Vec::new();
        entry.take(wanted).read_to_end(&mut data).map_err(LoadError::Read)?;
        if data.len() as u64 != wanted {
            return Err(LoadError::Invalid(truncated));
        }
        left -= wanted;
        if parts.send_blocking(Part::Data(data)).is_err() {
            return Ok(false);
        }
    }
    Ok(parts.send_blocking(Part::End).is_ok())
}

/// Returns the plain bytes of an archive that may be compressed.
fn decompress<'a>(mut archive: impl Read + 'a) -> Result<Box<dyn Read + 'a>, LoadError> {
    let mut magic = Vec::new();
    (&mut archive).take(6).read_to_end(&mut magic).map_err(LoadError::Read)?;
    let compression = compression(&magic);
    let whole = io::Cursor::new(magic).chain(archive);
    match compression {
        None => Ok(Box::new(whole)),
        Some("gzip") => Ok(Box::new(MultiGzDecoder::new(whole))),
        Some(other) => Err(LoadError::Invalid(format!(
            "it is compressed with {other}, which is not supported; unpack it first, or use gzip"
        ))),
    }
}

/// Names the compression that bytes begin with.
pub(super) fn compression(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        _ => None,
    }
}

fn normalize(path: &Path) -> Result<String, LoadError> {
    let shown = || path.display().to_string().chars().take(PATH_MAX).collect::<String>();
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => (),
            Component::Normal(part) => {
                let part = part.to_str();
                parts.push(part.ok_or_else(|| {
                    LoadError::Invalid(format!("path {:?} is not UTF-8", shown()))
                })?);
            }
            Component::ParentDir if parts.pop().is_some() => (),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(LoadError::Invalid(format!("path {:?} leaves the archive", shown())));
            }
        }
    }
    let path = parts.join("/");
    if path.is_empty() || path.len() > PATH_MAX {
        return Err(LoadError::Invalid(format!("path {:?} is empty or too long", shown())));
    }
    Ok(path)
}

fn invalid(error: io::Error) -> LoadError {
    LoadError::Invalid(error.to_string())
}

/// Fails, instead of ending, when there is more than the limit.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("the archive has more than {BYTES_MAX} bytes"))
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn raw(path: &str, kind: tar::EntryType, link: &str, data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        // The builder refuses such paths; an attacker's does not.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn file(path: &str, data: &[u8]) -> Vec<u8> {
        raw(path, tar::EntryType::Regular, "", data)
    }

    fn parts(archive: &[u8]) -> Result<String, String> {
        let (sender, receiver) = async_channel::unbounded();
        let result = read(archive, 4, &sender);
        drop(sender);
        let mut text = String::new();
        while let Ok(part) = receiver.recv_blocking() {
            text.push_str(&match part {
                Part::File { path, size } => format!("{path} {size}:"),
                Part::Data(data) => format!("{}|", String::from_utf8(data).unwrap()),
                Part::End => ";".to_owned(),
                Part::Link { path, target } => format!("{path}->{target};"),
            });
        }
        result.map(|()| text).map_err(|error| error.to_string())
    }

    #[test]
    fn files_come_in_chunks_and_links_by_what_they_mean() {
        let mut archive = file("./a/layer.tar", b"123456");
        archive.extend(raw("b/layer.tar", tar::EntryType::Symlink, "../a/layer.tar", b""));
        archive.extend(raw("c", tar::EntryType::Link, "a/layer.tar", b""));
        archive.extend(file("e", b""));
        let expected = "a/layer.tar 6:1234|56|;b/layer.tar->a/layer.tar;c->a/layer.tar;e 0:;";
        assert_eq!(parts(&archive).unwrap(), expected);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&archive).unwrap();
        assert_eq!(parts(&gz.finish().unwrap()).unwrap(), expected);
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        for archive in [
            file("../etc/passwd", b"x"),
            file("/etc/passwd", b"x"),
            file("a/../../b", b"x"),
            raw("a", tar::EntryType::Symlink, "/etc/passwd", b""),
            raw("a/b", tar::EntryType::Symlink, "../../c", b""),
            raw("a", tar::EntryType::Link, "../c", b""),
        ] {
            assert!(parts(&archive).unwrap_err().contains("leaves the archive"));
        }
        let device = raw("a", tar::EntryType::Char, "", b"");
        assert!(parts(&device).unwrap_err().contains("neither file nor link"));
    }

    #[test]
    fn what_is_cut_or_no_archive_is_refused() {
        let whole = file("a", &[b'x'; 2_000]);
        assert!(parts(&whole[..1_000]).unwrap_err().contains("cut off"));
        assert!(parts(&whole[..100]).is_err());
        assert!(parts(&[b'x'; 4_096]).is_err());
        assert!(parts(b"").unwrap_err().contains("empty"));
        assert!(parts(b"BZh91AY").unwrap_err().contains("bzip2"));
        // A header that promises more than there is must not be believed.
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(u64::MAX >> 1);
        header.set_cksum();
        assert!(parts(header.as_bytes()).is_err());
    }
}
