//! The node's device files, for containers that ask for them by path.
//!
//! Reads the node's file system; must not know how a container is made.

use super::spec::edits::{DeviceNode, Edits};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// What a privileged container is not given of `/dev`: it has its own of these, or they are no
/// devices.
const OWN: [&str; 7] = ["console", "fd", "mqueue", "pts", "shm", ".lxc", ".udev"];

/// How many device files one container is given at most: a node with every disk and terminal that
/// Linux can name has a few thousand; the specification must fit one message to containerd.
const NODES_MAX: usize = 4096;

/// How deep folders of devices are looked into: `/dev/bus/usb/001/002` is four deep.
const DEPTH_MAX: usize = 8;

/// What is allowed where nothing is said.
const EVERYTHING: &str = "rwm";

/// A device cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    /// There is none, or it cannot be looked at. The wording is Docker's.
    #[error("error gathering device information while adding custom device {path:?}")]
    Look {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is an ordinary file, or a folder without devices.
    #[error(
        "error gathering device information while adding custom device {0:?}: not a device node"
    )]
    NotADevice(String),
    /// Permissions that are none.
    #[error("invalid device mode {permissions:?} of {path:?}: it is made of r, w and m")]
    Permissions {
        /// Of which device.
        path: String,
        /// What was given.
        permissions: String,
    },
    /// A path that no device can be at.
    #[error("invalid device path {0:?}: it is not absolute")]
    Path(String),
    /// More than a container is given.
    #[error("more than {NODES_MAX} devices are below {0:?}")]
    TooMany(String),
}

/// Finds the device at `source`, or all below it, and names them as they are to be inside.
pub(super) fn by_path(source: &str, target: &str, permissions: &str) -> Result<Edits, DeviceError> {
    let access = if permissions.is_empty() { EVERYTHING } else { permissions };
    if !access.chars().all(|character| EVERYTHING.contains(character)) {
        let permissions = permissions.to_owned();
        return Err(DeviceError::Permissions { path: source.to_owned(), permissions });
    }
    let target = if target.is_empty() { source } else { target };
    for path in [source, target] {
        if !path.starts_with('/') {
            return Err(DeviceError::Path(path.to_owned()));
        }
    }
    let look = |error| DeviceError::Look { path: source.to_owned(), source: error };
    // Links such as /dev/serial/by-id are followed: what they lead to is what is meant.
    let metadata = fs::metadata(source).map_err(look)?;
    let mut edits = Edits::default();
    if metadata.is_dir() {
        let target = target.trim_end_matches('/');
        walk(Path::new(source), target, access, 0, &[], &mut edits.nodes).map_err(look)?;
    } else {
        edits.nodes.extend(node(&metadata, target.to_owned(), access));
    }
    match edits.nodes.len() {
        0 => Err(DeviceError::NotADevice(source.to_owned())),
        count if count > NODES_MAX => Err(DeviceError::TooMany(source.to_owned())),
        _ => Ok(edits),
    }
}

/// Returns every device of the node, for a privileged container.
pub(super) fn every(root: &Path) -> Result<Edits, DeviceError> {
    let mut edits = Edits::default();
    let path = root.display().to_string();
    walk(root, &path, EVERYTHING, 0, &OWN, &mut edits.nodes)
        .map_err(|source| DeviceError::Look { path, source })?;
    edits.nodes.truncate(NODES_MAX);
    Ok(edits)
}

/// Returns the device at `path`, to complete what a specification leaves out.
pub(super) fn at(path: &str, target: String, access: &str) -> Result<DeviceNode, DeviceError> {
    let look = |source| DeviceError::Look { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(look)?;
    node(&metadata, target, access).ok_or_else(|| DeviceError::NotADevice(path.to_owned()))
}

/// Adds the devices below a folder. Links are left out: what they lead to is found by itself, or
/// was not asked for.
fn walk(
    folder: &Path,
    target: &str,
    access: &str,
    depth: usize,
    without: &[&str],
    nodes: &mut Vec<DeviceNode>,
) -> io::Result<()> {
    if depth > DEPTH_MAX || nodes.len() > NODES_MAX {
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if without.contains(&name.as_str()) {
            continue;
        }
        let inside = format!("{target}/{name}");
        // One that went away meanwhile was not there.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), &inside, access, depth + 1, &[], nodes)?;
        } else {
            nodes.extend(node(&metadata, inside, access));
        }
    }
    Ok(())
}

fn node(metadata: &fs::Metadata, path: String, access: &str) -> Option<DeviceNode> {
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => 'b',
        kind if kind.is_char_device() => 'c',
        _ => return None,
    };
    Some(DeviceNode {
        path,
        kind,
        major: i64::from(rustix::fs::major(metadata.rdev())),
        minor: i64::from(rustix::fs::minor(metadata.rdev())),
        mode: Some(metadata.mode() & 0o7777),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_path_and_below_folders() {
        let edits = by_path("/dev/null", "/dev/nothing", "r").unwrap();
        let node = &edits.nodes[0];
        assert_eq!((node.path.as_str(), node.kind), ("/dev/nothing", 'c'));
        assert_eq!((node.major, node.minor, node.access.as_str()), (1, 3, "r"));
        let dir = tempfile::tempdir().unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let (mode, kind) = (rustix::fs::Mode::RUSR, rustix::fs::FileType::CharacterDevice);
        let device = rustix::fs::makedev(1, 5);
        rustix::fs::mknodat(rustix::fs::CWD, deep.join("zero"), kind, mode, device).unwrap();
        std::os::unix::fs::symlink("zero", deep.join("link")).unwrap();
        let source = dir.path().display().to_string();
        let edits = by_path(&source, "/dev/mine/", "").unwrap();
        assert_eq!(edits.nodes.len(), 1);
        assert_eq!(edits.nodes[0].path, "/dev/mine/a/b/zero");
        assert_eq!(edits.nodes[0].access, "rwm");
        let through = by_path(&format!("{source}/a/b/link"), "/dev/z", "").unwrap();
        assert_eq!((through.nodes[0].major, through.nodes[0].minor), (1, 5));
        assert_eq!(every(dir.path()).unwrap().nodes.len(), 1);
        assert!(every(Path::new("/dev")).unwrap().nodes.iter().any(|n| n.path == "/dev/null"));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().display().to_string();
        for (source, target, access, why) in [
            ("/dev/no-such", "", "", "while adding custom device \"/dev/no-such\""),
            ("/etc/passwd", "", "", "not a device node"),
            (empty.as_str(), "", "", "not a device node"),
            ("/dev/null", "", "rx", "invalid device mode \"rx\""),
            ("/dev/null", "null", "", "not absolute"),
        ] {
            let error = by_path(source, target, access).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
