//! Files that are whole or not there, and what is wrong with a disk, as far as it can be told from
//! an error.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// What follows the name of a file in that of the one which is to take its place.
const FRESH: &str = ".new";

/// Gives the file at `path` this content and this mode, less what the process masks. Whoever reads
/// it, also after a power cut, finds all of the old content or all of the new; the new is on disk
/// when this returns. The folder must be there.
///
/// # Errors
///
/// It cannot be written: nothing has changed then, or what failed was only to make sure that the
/// change is on disk. The error does not name the path.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_by(path, |fresh| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode).open(fresh)?.write_all(content)
    })
}

/// As [`replace`], with a file that `make` puts at the path it is given, where nothing is. `make`
/// must not replace the same file.
///
/// # Errors
///
/// As [`replace`], or `make` fails.
pub fn replace_by(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let _alone = Alone::with(path);
    let fresh = beside(path);
    // What a crash left there may have another mode, and may be another name of a file in use.
    remove_one(&fresh)?;
    let placed = make(&fresh)
        .and_then(|()| File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, path));
    if placed.is_err() {
        // On a full disk it only takes up room.
        drop(fs::remove_file(&fresh));
    }
    placed?;
    sync_folder_of(path)
}

/// Has the disk know by which name the file at `path` is found. What is renamed or made is on disk only
/// after this.
///
/// # Errors
///
/// The folder cannot be opened or written. The error does not name it.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Removes a file, where there is one, and what a crash may have left of its replacement.
///
/// # Errors
///
/// It cannot be removed. The error does not name the path.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_one(path)?;
    remove_one(&beside(path))
}

fn beside(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(FRESH);
    fresh.into()
}

fn remove_one(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files that this process is replacing.
static UNDER_WAY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Woken when one of them is done with.
static DONE: Condvar = Condvar::new();

fn under_way() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // Each change of the set is one call.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds off whoever would replace the same file: both would write to the same place beside it.
struct Alone<'a>(&'a Path);

impl<'a> Alone<'a> {
    fn with(path: &'a Path) -> Self {
        let mut files = DONE
            .wait_while(under_way(), |files| files.contains(path))
            .unwrap_or_else(PoisonError::into_inner);
        files.insert(path.to_owned());
        Self(path)
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        under_way().remove(self.0);
        DONE.notify_all();
    }
}

/// Tells whether this may pass without anything being started anew: there is no room, which somebody
/// may make, or it may only be read, which somebody may change. What was written stays readable.
#[must_use]
pub fn may_pass(kind: io::ErrorKind) -> bool {
    no_room(kind) || kind == io::ErrorKind::ReadOnlyFilesystem
}

fn no_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns what a person can do about a disk that cannot be written, where that is known.
#[must_use]
pub fn advice(kind: io::ErrorKind) -> Option<&'static str> {
    if kind == io::ErrorKind::ReadOnlyFilesystem {
        Some(
            "the kernel makes a file system read-only when its disk fails: see `dmesg`, check the \
             file system or replace the disk, mount it for writing, and start again",
        )
    } else if no_room(kind) {
        Some("make room on the disk and start again")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind::{InvalidData, NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_may_pass_has_an_advice() {
        for kind in [StorageFull, QuotaExceeded, ReadOnlyFilesystem] {
            assert!(may_pass(kind) && advice(kind).is_some(), "{kind}");
        }
        assert!(!may_pass(InvalidData) && advice(InvalidData).is_none());
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| name(e).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_has_its_content_and_mode_whatever_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.txt");
        fs::write(&path, "old, and longer").unwrap();
        fs::write(dir.path().join("key.txt.new"), "cut sh").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), ("new".to_owned(), 0o600));
        assert_eq!(names(dir.path()), ["key.txt"]);
        fs::write(dir.path().join("key.txt.new"), "cut sh").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"old", 0o600).unwrap();
        let full = |fresh: &Path| {
            fs::write(fresh, "a part")?;
            Err(StorageFull.into())
        };
        assert_eq!(replace_by(&path, full).unwrap_err().kind(), StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["file"]);
        assert_eq!(replace(&dir.path().join("no/file"), b"", 0o600).unwrap_err().kind(), NotFound);
    }

    #[test]
    fn many_at_once_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || replace(path, &[writer; 4096], 0o600).unwrap());
            }
        });
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 4096 && content.iter().all(|byte| *byte == content[0]));
    }
}
