//! A look into a container's root file system before it runs.
//!
//! The layers are mounted on a thread that has a mount namespace and a root of its own: an
//! image's symbolic links cannot lead out of the image, and the kernel takes everything down with
//! the thread, also when midge is killed. Knows mounts; must not know what is looked for.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
    thread::UnshareFlags,
};
use std::{ffi::CString, fs::File, io, path::Path};

/// The longest option string that mount(2) takes is a page; beyond this the lower layers are named
/// relative to their common folder.
const OPTIONS_MAX: usize = 4_000;

/// How many bytes of `/etc/passwd` or `/etc/group` are read: a foreign file must not fill memory.
const FILE_MAX: u64 = 4 << 20;

/// A file system to mount, as containerd describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FsMount {
    /// `overlay`, `bind`, ...
    pub(super) kind: String,
    /// The device or folder.
    pub(super) source: String,
    /// Options, flags among them.
    pub(super) options: Vec<String>,
}

/// Runs `work` with the file system of `mounts` as its root, read-only. Blocks; the folder `at` is
/// made and is where the file system is mounted, unseen by everything else.
pub(super) fn with_root<T: Send>(
    mounts: &[FsMount],
    at: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::fs::create_dir_all(at)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rootfs".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            enter(mounts, at)?;
            work()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a look into the image panicked")))
    })
}

/// Reads a text file of the image; empty where there is no plain file.
pub(super) fn read_text(path: &str) -> io::Result<String> {
    use io::Read;
    // A fifo in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // The last is a socket's.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[expect(unsafe_code, reason = "rustix marks unshare as unsafe for CLONE_FILES, which is not used")]
fn enter(mounts: &[FsMount], at: &Path) -> io::Result<()> {
    // SAFETY: neither CLONE_FILES nor CLONE_VM is given, so no descriptor or memory that other
    // code relies on changes under it; the thread is ours alone and ends after the work.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    for mount in mounts {
        mount_one(mount, at)?;
    }
    rustix::process::chdir(at)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn mount_one(mount: &FsMount, at: &Path) -> io::Result<()> {
    let known = ["ro", "rw", "rbind", "bind", "rprivate", "private"];
    let data: Vec<&str> =
        mount.options.iter().map(String::as_str).filter(|option| !known.contains(option)).collect();
    if mount.kind == "bind" || mount.options.iter().any(|option| option.ends_with("bind")) {
        rustix::mount::mount_bind(&mount.source, at)?;
        return Ok(());
    }
    let data = data.join(",");
    let (folder, data) = if data.len() > OPTIONS_MAX { relative(&data) } else { (None, data) };
    if let Some(folder) = folder {
        rustix::process::chdir(folder)?;
    }
    let data = CString::new(data).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    rustix::mount::mount(&mount.source, at, &mount.kind, MountFlags::RDONLY, data.as_c_str())?;
    Ok(())
}

/// Shortens the `lowerdir` of an overlay by its layers' common folder.
fn relative(data: &str) -> (Option<String>, String) {
    let Some(lower) = data.split(',').find_map(|option| option.strip_prefix("lowerdir=")) else {
        return (None, data.to_owned());
    };
    let first = lower.split(':').next().unwrap_or("");
    let mut folder = first;
    while !lower.split(':').all(|layer| layer.starts_with(&format!("{folder}/"))) {
        let Some((parent, _)) = folder.rsplit_once('/') else { return (None, data.to_owned()) };
        folder = parent;
    }
    let strip = |layer: &str| layer[folder.len() + 1..].to_owned();
    let short: Vec<String> = lower.split(':').map(strip).collect();
    (Some(folder.to_owned()), data.replace(lower, &short.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_overlays_name_their_layers_relative_to_a_folder() {
        let data = "workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=/s/2/fs:/s/1/fs";
        let (folder, short) = relative(data);
        assert_eq!(folder.as_deref(), Some("/s"));
        assert_eq!(short, "workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=2/fs:1/fs");
        assert_eq!(relative("a=b"), (None, "a=b".to_owned()));
    }

    #[test]
    fn what_is_no_plain_file_has_no_text_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (mode, fifo) = (Mode::from_raw_mode(0o600), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "text").unwrap();
        for (name, text) in [
            ("fifo", ""),
            ("socket", ""),
            (".", ""),
            ("none", ""),
            ("file/x", ""),
            ("file", "text"),
        ] {
            assert_eq!(read_text(&path(name)).unwrap(), text, "{name}");
        }
    }
}
