//! Volumes: folders of the node that outlive or belong to a task, filled from the image when they
//! are first used, as Docker does.
//!
//! Runs on the thread that has the image as its root, so the volume is reached through a
//! descriptor that was opened before.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};
use std::{ffi::CStr, io, path::Path};

/// How deep folders may lie in each other; every level holds two descriptors open.
const DEPTH_MAX: usize = 200;

/// Makes the folder of a volume, where it is missing, and opens it, locked against others who
/// would fill it at the same time. Blocks while they do.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(path)?;
    let folder = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Fills the volume with what the image has at `target`, if the volume is empty. Called with the
/// image as root. A copy that a crash cut short is done again.
pub(super) fn copy_up(volume: &OwnedFd, target: &str) -> io::Result<()> {
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
    copy_folder(source.as_fd(), volume.as_fd(), 0)?;
    copy_owner(source.as_fd(), volume.as_fd())?;
    mark(volume, false)
}

/// Filling is under way: seen after a crash as a sign that the content is not complete.
const FILLING: &str = "user.midge.filling";

fn mark(volume: &OwnedFd, on: bool) -> io::Result<()> {
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

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    let filling = rustix::fs::fgetxattr(folder, FILLING, &mut [0_u8; 8][..]).is_ok();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if !is_self(entry.file_name()) && !filling {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_self(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn copy_folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("folders lie too deep in each other"));
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        if !is_self(entry.file_name()) {
            copy_entry(from, to, entry.file_name(), depth)?;
        }
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    depth: usize,
) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            present(rustix::fs::mkdirat(to, name, Mode::RWXU))?;
            let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_folder(source.as_fd(), target.as_fd(), depth + 1)?;
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
