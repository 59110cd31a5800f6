//! Volumes: folders of the node that outlive or belong to a task, filled from the image when they
//! are first used, as Docker does.
//!
//! Runs on the thread that has the image as its root, so the volume is reached through a
//! descriptor that was opened before.

use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid},
    io::Errno,
};
use std::{
    ffi::CStr,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How deep folders may lie in each other; every level holds two descriptors open.
const DEPTH_MAX: usize = 200;

/// How often a volume that another fills is looked at: a person does not notice it, and ten looks a
/// second are nothing to a board.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Volumes that one container fills, locked against others who would fill them at the same time
/// until this is dropped.
#[derive(Debug)]
pub(super) struct Filling {
    folders: Vec<Folder>,
}

/// The folder of a volume: several mounts may show the same one, by one volume's name or by several
/// that are made of the same folder.
#[derive(Debug)]
struct Folder {
    file: File,
    device: u64,
    inode: u64,
    /// Where it is mounted, whichever comes first in the image first.
    targets: Vec<String>,
}

impl Filling {
    /// Makes the volumes' folders, where they are missing, opens and locks them. `wanted` are
    /// folders and where in the container they are mounted. Blocks while others fill one of them,
    /// but each no longer than `patience`.
    ///
    /// # Errors
    ///
    /// The disk fails, or another took longer.
    pub(super) fn open(wanted: &[(PathBuf, String)], patience: Duration) -> io::Result<Self> {
        let mut folders: Vec<Folder> = Vec::new();
        for (path, target) in wanted {
            let file = open(path)?;
            let metadata = file.metadata()?;
            let (device, inode, target) = (metadata.dev(), metadata.ino(), target.clone());
            // Locks of two descriptors of one folder keep each other out, ours too.
            let same = |folder: &&mut Folder| folder.device == device && folder.inode == inode;
            match folders.iter_mut().find(same) {
                Some(folder) => folder.targets.push(target),
                None => folders.push(Folder { file, device, inode, targets: vec![target] }),
            }
        }
        // Everybody takes them in the same order: else two would wait for each other.
        folders.sort_by_key(|folder| (folder.device, folder.inode));
        for folder in &folders {
            lock(&folder.file, Instant::now() + patience)?;
        }
        Ok(Self { folders })
    }

    /// Fills each volume that is empty with what the image has where it is mounted. Called with
    /// the image as root. A copy that a crash or `until` cut short is done again.
    ///
    /// # Errors
    ///
    /// The disk fails, or it is later than `until`.
    pub(super) fn copy_up(&self, until: Instant) -> io::Result<()> {
        for folder in &self.folders {
            for target in &folder.targets {
                copy_up(&folder.file, target, until)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    std::fs::create_dir_all(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn lock(folder: &File, until: Instant) -> io::Result<()> {
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOOK_AGAIN),
            Err(Errno::WOULDBLOCK) => {
                let why = "another container is still filling it from its image";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn copy_up(volume: &File, target: &str, until: Instant) -> io::Result<()> {
    let open = rustix::fs::open(
        target,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let source = match open {
        Ok(source) => source,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_empty(volume)? {
        return Ok(());
    }
    mark(volume, true)?;
    Copy { until }.folder(source.as_fd(), volume.as_fd(), 0)?;
    copy_owner(source.as_fd(), volume.as_fd())?;
    if has_entries(source.as_fd())? {
        // The mark's end may be on disk long before what was copied: a power cut in between would
        // leave empty files in a volume that counts as filled.
        rustix::fs::syncfs(volume)?;
    }
    mark(volume, false)
}

/// Filling is under way: seen after a crash as a sign that the content is not complete.
const FILLING: &str = "user.midge.filling";

fn mark(volume: &File, on: bool) -> io::Result<()> {
    let done = if on {
        rustix::fs::fsetxattr(volume, FILLING, b"1", rustix::fs::XattrFlags::empty())
    } else {
        rustix::fs::fremovexattr(volume, FILLING)
    };
    match done {
        // tmpfs and some boards' kernels know no user attributes.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_empty(folder: &File) -> io::Result<bool> {
    let filling = rustix::fs::fgetxattr(folder, FILLING, &mut [0_u8; 8][..]).is_ok();
    Ok(filling || !has_entries(folder.as_fd())?)
}

fn has_entries(folder: BorrowedFd<'_>) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        if !is_self(entry?.file_name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_self(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// A copy, given up when it is later than `until`.
#[derive(Debug, Clone, Copy)]
struct Copy {
    until: Instant,
}

impl Copy {
    fn folder(self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("folders lie too deep in each other"));
        }
        for entry in rustix::fs::Dir::read_from(from)? {
            let entry = entry?;
            if !is_self(entry.file_name()) {
                self.entry(from, to, entry.file_name(), depth)?;
            }
        }
        Ok(())
    }

    fn entry(
        self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> io::Result<()> {
        if Instant::now() > self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "copying takes too long"));
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                present(rustix::fs::mkdirat(to, name, Mode::RWXU))?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                self.folder(source.as_fd(), target.as_fd(), depth + 1)?;
                return copy_owner(source.as_fd(), target.as_fd());
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::TRUNC
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                let (mut source, mut target) =
                    (std::fs::File::from(source), std::fs::File::from(target));
                io::copy(&mut source, &mut target)?;
                return copy_owner(source.as_fd(), target.as_fd());
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                present(rustix::fs::symlinkat(link.as_c_str(), to, name))?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                present(rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev))?;
            }
            _ => return Ok(()),
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

fn copy_owner(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(())
}

/// What a copy that was cut short has left is no error.
fn present(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LATER: Duration = Duration::from_secs(60);

    fn wanted(dir: &Path, folders: &[(&str, &str)]) -> Vec<(PathBuf, String)> {
        let target = |target: &str| dir.join("image").join(target).display().to_string();
        folders.iter().map(|(folder, at)| (dir.join(folder), target(at))).collect()
    }

    #[test]
    fn a_volume_that_is_mounted_twice_is_filled_once() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a", "b", "c"] {
            fs::create_dir_all(dir.path().join("image").join(folder)).unwrap();
            fs::write(dir.path().join("image").join(folder).join("seed"), folder).unwrap();
        }
        std::os::unix::fs::symlink("one", dir.path().join("also")).unwrap();
        let all = [("one", "none"), ("two", "c"), ("also", "a"), ("one", "b")];
        let filling = Filling::open(&wanted(dir.path(), &all), Duration::ZERO).unwrap();
        filling.copy_up(Instant::now() + LATER).unwrap();
        let seed = |folder: &str| fs::read_to_string(dir.path().join(folder).join("seed")).unwrap();
        assert_eq!((seed("one").as_str(), seed("two").as_str()), ("a", "c"));
    }

    #[test]
    fn volumes_are_locked_in_one_order_by_all_and_waited_for_no_longer_than_said() {
        let dir = tempfile::tempdir().unwrap();
        let order = |folders: &[(&str, &str)], patience| {
            let filling = Filling::open(&wanted(dir.path(), folders), patience)?;
            let order = filling.folders.iter().map(|folder| folder.inode).collect::<Vec<u64>>();
            Ok::<_, io::Error>((filling, order))
        };
        let (first, one) = order(&[("a", "x"), ("b", "y")], LATER).unwrap();
        let busy = order(&[("b", "x")], Duration::ZERO).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::TimedOut, "{busy}");
        drop(first);
        let (_second, other) = order(&[("b", "x"), ("a", "y")], Duration::ZERO).unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn a_copy_that_takes_too_long_is_given_up_and_done_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("image/a")).unwrap();
        fs::write(dir.path().join("image/a/seed"), "a").unwrap();
        let wanted = wanted(dir.path(), &[("one", "a")]);
        let filling = Filling::open(&wanted, Duration::ZERO).unwrap();
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let late = filling.copy_up(past).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{late}");
        filling.copy_up(Instant::now() + LATER).unwrap();
        assert!(dir.path().join("one/seed").exists());
    }
}
