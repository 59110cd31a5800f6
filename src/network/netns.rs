//! Network namespaces, kept alive by a bind mount. Knows namespaces and mounts, nothing of tasks.

use super::error::NetworkError;
use rustix::{
    fs::{FsWord, statfs},
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    thread,
};

/// The file system that namespaces live in.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// Tells whether a namespace is mounted at `path`.
pub(super) fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.f_type == NSFS_MAGIC)
}

/// Makes a namespace and mounts it at `path`. Does nothing where there is one.
///
/// A thread of its own moves into the new namespace and ends: namespaces belong to threads, so
/// nothing is forked and the rest of the process stays where it is.
pub(super) fn create(path: &Path) -> Result<(), NetworkError> {
    if is_mounted(path) {
        return Ok(());
    }
    let _file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o444)
        .open(path)
        .map_err(NetworkError::file("create", path))?;
    on_thread(|| {
        #[expect(unsafe_code, reason = "rustix has no safe call: unsharing files would be unsound")]
        // SAFETY: only the network namespace is unshared, which invalidates no file descriptor.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        unshared.map_err(|error| match error {
            Errno::INVAL => NetworkError::Unsupported {
                what: "give a task a network of its own".into(),
                module: "network namespaces (CONFIG_NET_NS)",
            },
            other => NetworkError::file("make a network namespace for", path)(other.into()),
        })?;
        mount_bind("/proc/thread-self/ns/net", path)
            .map_err(|error| NetworkError::file("mount a network namespace on", path)(error.into()))
    })
}

/// Unmounts and removes the namespace at `path`. The kernel frees it with its last process.
pub(super) fn delete(path: &Path) -> Result<(), NetworkError> {
    while is_mounted(path) {
        match unmount(path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(error) => return Err(NetworkError::file("unmount", path)(error.into())),
        }
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Runs `f` inside the namespace at `path`, on a thread of its own.
pub(super) fn run_inside<T: Send>(
    path: &Path,
    f: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let file = File::open(path).map_err(NetworkError::file("open", path))?;
    on_thread(|| {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            |error| NetworkError::file("enter the network namespace", path)(error.into()),
        )?;
        f()
    })
}

/// Runs `f` on a thread that ends afterwards.
fn on_thread<T: Send>(
    f: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("midge-netns".into())
            .spawn_scoped(scope, f)
            .map_err(|source| NetworkError::Link { what: "start a thread".into(), source })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
