//! Volumes that are more than a folder of the node: the local driver's options name a file system
//! that is mounted at the volume's folder (`type`, `device`, `o`), and a task may ask for a part
//! of a volume only.
//!
//! Everything is mounted in the node's own mount namespace, where containerd finds it. A mount
//! that is taken away there stays in the containers that were started with it.

use super::mountinfo;
use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};
use std::{collections::BTreeMap, ffi::CString, fs, io, os::fd::AsFd, path::Path};

/// What is mounted at a volume's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// The file system's type; `none` for a folder of the node.
    kind: String,
    /// The device, folder or server.
    device: String,
    /// As mount(8) takes them.
    options: Vec<String>,
}

/// The options cannot be. The wordings are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeviceError {
    /// Another than `type`, `device`, `o`.
    #[error("invalid option: {0:?}")]
    Option(String),
    /// One that another needs.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
}

impl Device {
    /// Reads a volume's options; none where the volume is a folder of the node.
    pub(super) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>, DeviceError> {
        if let Some(other) = options.keys().find(|key| !["type", "device", "o"].contains(&&***key))
        {
            return Err(DeviceError::Option(other.clone()));
        }
        let get = |key: &str| options.get(key).filter(|value| !value.is_empty()).cloned();
        match (get("type"), get("device")) {
            (None, None) if get("o").is_none() => Ok(None),
            (Some(kind), Some(device)) => {
                let options = get("o").unwrap_or_default();
                let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned);
                Ok(Some(Self { kind, device, options: options.collect() }))
            }
            (None, _) => Err(DeviceError::Missing("type")),
            (Some(_), None) => Err(DeviceError::Missing("device")),
        }
    }

    /// Mounts it at a volume's folder, unless something is mounted there. Blocks, as long as a
    /// server makes it.
    pub(super) fn mount(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        // Two tasks must not mount it upon each other.
        let parent = fs::File::open(root.parent().unwrap_or(root))?;
        rustix::fs::flock(&parent, rustix::fs::FlockOperation::LockExclusive)?;
        let root = fs::canonicalize(root)?;
        if mountinfo::is_mounted(&root)? {
            return Ok(());
        }
        let (flags, data) = split(&self.options);
        if flags.contains(MountFlags::BIND) {
            let recursive = flags.contains(MountFlags::REC);
            let bind = if recursive {
                rustix::mount::mount_bind_recursive(&*self.device, &root)
            } else {
                rustix::mount::mount_bind(&*self.device, &root)
            };
            bind?;
            let rest = flags.difference(MountFlags::BIND | MountFlags::REC);
            if !rest.is_empty() {
                let again = MountFlags::BIND | rest;
                rustix::mount::mount_remount(&root, again, c"")?;
            }
            return Ok(());
        }
        let data = CString::new(data).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        rustix::mount::mount(&*self.device, &root, &*self.kind, flags, data.as_c_str())?;
        Ok(())
    }
}

/// Parts mount(8)'s options into flags and what the file system reads itself.
fn split(options: &[String]) -> (MountFlags, String) {
    let table = [
        ("ro", MountFlags::RDONLY),
        ("nosuid", MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC),
        ("noatime", MountFlags::NOATIME),
        ("nodiratime", MountFlags::NODIRATIME),
        ("relatime", MountFlags::RELATIME),
        ("strictatime", MountFlags::STRICTATIME),
        ("sync", MountFlags::SYNCHRONOUS),
        ("dirsync", MountFlags::DIRSYNC),
        ("bind", MountFlags::BIND),
        ("rbind", MountFlags::BIND.union(MountFlags::REC)),
    ];
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match table.iter().find(|(name, _)| name == option) {
            Some((_, flag)) => flags |= *flag,
            None if ["rw", "suid", "dev", "exec", "async", "defaults"].contains(&&**option) => {}
            None => data.push(option.as_str()),
        }
    }
    (flags, data.join(","))
}

/// Opens a part of a volume. Links inside the volume are followed as long as they stay inside:
/// whoever writes to the volume must not lead the node out of it.
pub(super) fn open_part(root: &Path, subpath: &str) -> io::Result<OwnedFd> {
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
pub(super) fn mount_part(part: &OwnedFd, at: &Path) -> io::Result<()> {
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
pub(super) fn unmount_parts(parts: &Path) -> io::Result<()> {
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
pub(super) fn unmount(at: &Path) -> io::Result<()> {
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

    fn parse(options: &[(&str, &str)]) -> Result<Option<Device>, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Device::parse(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_the_local_drivers() {
        assert_eq!(parse(&[]), Ok(None));
        let device = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,ro,uid=5")]);
        let (flags, data) = split(&device.unwrap().unwrap().options);
        assert_eq!((flags, data.as_str()), (MountFlags::RDONLY, "size=1m,uid=5"));
        assert_eq!(parse(&[("size", "1")]), Err("invalid option: \"size\"".into()));
        let missing = |option: &str| Err(format!("missing required option: {option:?}"));
        assert_eq!(parse(&[("o", "bind"), ("device", "/x")]), missing("type"));
        assert_eq!(parse(&[("type", "nfs")]), missing("device"));
    }

    #[test]
    fn a_part_cannot_lead_out_of_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for (link, to) in [("up", "../.."), ("abs", "/etc"), ("in", "a/b"), ("deep", "a/../../x")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        for inside in ["a", "a/b", "in", "."] {
            assert!(open_part(&root, inside).is_ok(), "{inside}");
        }
        for outside in ["up", "abs", "deep", "abs/passwd", "none"] {
            assert!(open_part(&root, outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn mounts_are_made_once_and_taken_away() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap().join("v/_data");
        let device = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nosuid")]);
        let device = device.unwrap().unwrap();
        device.mount(&root).unwrap();
        device.mount(&root).unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "x").unwrap();
        let parts = dir.path().join("parts");
        let (one, two) = (open_part(&root, "sub").unwrap(), open_part(&root, "sub/file").unwrap());
        mount_part(&one, &parts.join("0")).unwrap();
        mount_part(&one, &parts.join("0")).unwrap();
        mount_part(&two, &parts.join("1")).unwrap();
        let seen = fs::read_to_string(parts.join("0/file")).unwrap();
        let also = fs::read_to_string(parts.join("1")).unwrap();
        unmount_parts(&parts).unwrap();
        unmount_parts(&parts).unwrap();
        unmount(&root).unwrap();
        assert_eq!((seen.as_str(), also.as_str()), ("x", "x"));
        assert!(!parts.exists() && !root.join("sub").exists());
        assert!(!mountinfo::is_mounted(&root).unwrap());
    }
}
