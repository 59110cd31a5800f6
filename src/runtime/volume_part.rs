//! Parts of volumes: a task may ask for a folder or file inside a volume only.
//!
//! A part is mounted in the node's own mount namespace, where containerd finds it, before the
//! container starts. What is taken away there stays in the containers that were started with it.

use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::UnmountFlags,
};
use std::{fs, io, path::Path};

/// Opens a part of a volume. Links inside the volume are followed as long as they stay inside:
/// whoever writes to the volume must not lead the node out of it.
pub(super) fn open(root: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, path | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, subpath, path, Mode::empty(), resolve) {
        Ok(part) => Ok(part),
        Err(Errno::XDEV) => Err(io::Error::other("a link leads out of the volume")),
        Err(Errno::NOSYS) => {
            Err(io::Error::other("parts of volumes need kernel 5.6 or later (openat2)"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Mounts an opened part of a volume at `at`, in the place of what was mounted there before.
pub(super) fn mount(part: &OwnedFd, at: &Path) -> io::Result<()> {
    unmount(at)?;
    let is_folder = {
        let stat = rustix::fs::fstat(part)?;
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
    };
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_folder {
        fs::create_dir_all(at)?;
    } else {
        drop(fs::File::create(at)?);
    }
    // By the descriptor, so that nobody changes what is meant between the look and the mount.
    let source = format!("/proc/self/fd/{}", part.as_fd().as_raw_fd());
    rustix::mount::mount_bind(source, at)?;
    Ok(())
}

/// Takes away every part that was mounted below `parts`, and the folder.
pub(super) fn unmount_all(parts: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parts).into_iter().flatten() {
        let path = entry?.path();
        unmount(&path)?;
        if path.is_dir() { fs::remove_dir(&path)? } else { fs::remove_file(&path)? }
    }
    match fs::remove_dir(parts) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes away what is mounted at a path, if anything is.
fn unmount(at: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_cannot_lead_out_of_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for (link, to) in [("up", "../.."), ("abs", "/etc"), ("in", "a/b"), ("deep", "a/../../x")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        for inside in ["a", "a/b", "in", "."] {
            assert!(open(&root, inside).is_ok(), "{inside}");
        }
        for outside in ["up", "abs", "deep", "abs/passwd", "none"] {
            assert!(open(&root, outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn parts_are_mounted_and_taken_away() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v/_data");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "x").unwrap();
        let parts = dir.path().join("parts");
        let (one, two) = (open(&root, "sub").unwrap(), open(&root, "sub/file").unwrap());
        mount(&one, &parts.join("0")).unwrap();
        mount(&one, &parts.join("0")).unwrap();
        mount(&two, &parts.join("1")).unwrap();
        let seen = fs::read_to_string(parts.join("0/file")).unwrap();
        let also = fs::read_to_string(parts.join("1")).unwrap();
        unmount_all(&parts).unwrap();
        unmount_all(&parts).unwrap();
        assert_eq!((seen.as_str(), also.as_str()), ("x", "x"));
        assert!(!parts.exists() && root.join("sub/file").exists());
    }
}
