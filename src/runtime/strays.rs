//! Shims that containerd has forgotten.
//!
//! Where containerd is killed in the midst of making or deleting a container, its shim may stay for ever,
//! 10 MiB with a process that waits to be started, and stand in no list of containerd's. One whose
//! command line names our namespace, and whose container has no record, is such a stray: what it holds
//! is freed by its own `delete`, as containerd itself frees what a dead shim left.

use super::{
    containerd::{container, link::CallError},
    engine::Shared,
};
use crate::util::{command, unblock::unblock};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Weak,
    time::Duration,
};

/// How often shims are looked for: faults that leave one are rare.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How long a shim has to be without a record before it is ended: one that is being deleted lives on
/// for a moment.
const SURE_AFTER: Duration = Duration::from_secs(10);

/// How many seconds a shim may take to end once it is killed: it may hang in a dead disk.
const END_LIMIT: i64 = 10;

/// How long the `delete` of a shim may take: it runs runc, which ends processes.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// How much of what it says is read.
const SAID_MAX: u64 = 4 << 10;

/// What the name of a shim's program begins with.
const PROGRAM: &str = "containerd-shim-";

/// Looks for strays, first in a moment: whoever killed containerd has just started it again. Until the
/// runtime is dropped.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut strays = Strays::default();
    let mut wait = SURE_AFTER;
    loop {
        smol::Timer::after(wait).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = strays.look(&shared).await {
            tracing::debug!(%error, "cannot look for forgotten shims");
        }
        wait = if strays.doubtful.is_empty() { LOOK_EVERY } else { SURE_AFTER };
    }
}

/// The shims that had no record when they were looked at.
#[derive(Debug, Default)]
pub(super) struct Strays {
    doubtful: Vec<u32>,
}

impl Strays {
    /// Looks at each shim, and ends those that had no record the last time either.
    pub(super) async fn look(&mut self, shared: &Shared) -> Result<(), CallError> {
        let namespace = shared.config.namespace.clone();
        let shims = unblock(move || shims(Path::new("/proc"), &namespace)).await;
        let before = std::mem::take(&mut self.doubtful);
        if shims.is_empty() {
            return Ok(());
        }
        let records = container::list(&shared.link).await?;
        let known: BTreeSet<String> = records.into_iter().map(|record| record.id).collect();
        for shim in shims.into_iter().filter(|shim| !known.contains(&shim.id)) {
            if !before.contains(&shim.pid) {
                self.doubtful.push(shim.pid);
                continue;
            }
            let _guard = shared.lock(&shim.id).await;
            if shared.is_of_use(&shim.id).await? {
                continue;
            }
            let id = shim.id.clone();
            match unblock(move || shim.end()).await {
                Ok(()) => tracing::info!(container = id, "ended a shim that containerd forgot"),
                Err(error) => {
                    tracing::warn!(container = id, %error, "cannot end a forgotten shim");
                }
            }
        }
        Ok(())
    }
}

/// A shim that runs.
#[derive(Debug)]
struct Shim {
    pid: u32,
    /// As it was started.
    arguments: Vec<String>,
    namespace: String,
    /// The container's.
    id: String,
    /// Where it works: the container's bundle.
    bundle: PathBuf,
}

/// Returns the shims of a namespace.
fn shims(proc: &Path, namespace: &str) -> Vec<Shim> {
    let Ok(processes) = fs::read_dir(proc) else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Shim::of(proc, pid)).filter(|shim| shim.namespace == namespace).collect()
}

/// None for one that is gone.
fn arguments(proc: &Path, pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(proc.join(pid.to_string()).join("cmdline")).ok()?;
    Some(line.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
}

impl Shim {
    fn of(proc: &Path, pid: u32) -> Option<Self> {
        let arguments = arguments(proc, pid)?;
        let program = Path::new(arguments.first()?).file_name()?.to_str()?;
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        if !program.starts_with(PROGRAM) {
            return None;
        }
        let (namespace, id) = (value("-namespace")?, value("-id")?);
        let bundle = fs::read_link(proc.join(pid.to_string()).join("cwd")).ok()?;
        Some(Self { pid, namespace, id, bundle, arguments })
    }

    /// Ends it and what it has started, and frees what they hold. Blocks.
    fn end(self) -> io::Result<()> {
        let proc = Path::new("/proc");
        let itself = open(self.pid)?;
        // The number may have become another's before it was opened.
        if arguments(proc, self.pid).as_ref() != Some(&self.arguments) {
            return Ok(());
        }
        let children: Vec<OwnedFd> = children(proc, self.pid).into_iter().flat_map(open).collect();
        pidfd_send_signal(&itself, Signal::KILL)?;
        let limit = Timespec { tv_sec: END_LIMIT, tv_nsec: 0 };
        poll(&mut [PollFd::new(&itself, PollFlags::IN)], Some(&limit))?;
        // Without a bundle there is nothing left to delete by.
        let bundled = self.bundle.exists();
        let mut deleted = if bundled { self.delete() } else { Ok(()) };
        if deleted.is_err() || !bundled {
            for child in children {
                // One that has ended meanwhile needs none.
                let _ended = pidfd_send_signal(&child, Signal::KILL);
            }
        }
        // A containerd that does know the shim deletes too, and takes the bundle from under us.
        if !self.bundle.exists() {
            deleted = Ok(());
        }
        clear(&self.bundle)?;
        deleted
    }

    fn delete(&self) -> io::Result<()> {
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).arg("-bundle").arg(&self.bundle).arg("delete");
        command.current_dir(&self.bundle);
        command::output(&mut command, DELETE_LIMIT, SAID_MAX).map(drop)
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

/// Returns the processes that a process has started, from any of its threads.
fn children(proc: &Path, pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(proc.join(pid.to_string()).join("task")) else {
        return Vec::new();
    };
    let lists =
        threads.flatten().filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Removes a bundle and its place on disk, and nothing below them: a root file system that is still
/// mounted there is somebody's data.
fn clear(bundle: &Path) -> io::Result<()> {
    let work = fs::read_link(bundle.join("work"));
    for dir in [Some(bundle.to_owned()), work.ok()].into_iter().flatten() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let remove = if is_dir { fs::remove_dir } else { fs::remove_file };
            unless_gone(remove(entry.path()))?;
        }
        unless_gone(fs::remove_dir(&dir))?;
    }
    Ok(())
}

/// Somebody else may have been faster.
fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn process(proc: &Path, pid: u32, line: &str) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(dir.join("task").join(pid.to_string())).unwrap();
        fs::write(dir.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
        symlink("/bundle", dir.join("cwd")).unwrap();
        fs::write(dir.join("task").join(pid.to_string()).join("children"), "8 9 ").unwrap();
    }

    #[test]
    fn shims_are_known_by_their_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace ours -id a -address /s";
        process(dir.path(), 7, shim);
        process(dir.path(), 8, &shim.replace("ours", "others"));
        process(dir.path(), 9, &format!("/usr/bin/tail {shim}"));
        process(dir.path(), 10, "/usr/bin/containerd-shim-runc-v2 -namespace ours");
        process(dir.path(), 11, "");
        fs::write(dir.path().join("uptime"), "1").unwrap();
        let found = shims(dir.path(), "ours");
        let [shim] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((shim.pid, shim.id.as_str()), (7, "a"));
        assert_eq!((shim.bundle.as_path(), shim.arguments.len()), (Path::new("/bundle"), 7));
        assert_eq!(children(dir.path(), 7), [8, 9]);
    }

    #[test]
    fn a_bundle_is_cleared_but_for_what_is_in_its_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, work) = (dir.path().join("bundle"), dir.path().join("work"));
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::create_dir_all(&work).unwrap();
        symlink(&work, bundle.join("work")).unwrap();
        fs::write(bundle.join("config.json"), "{}").unwrap();
        fs::write(bundle.join("rootfs").join("data"), "dear").unwrap();
        clear(&bundle).unwrap_err();
        assert!(bundle.join("rootfs").join("data").exists());
        symlink(&work, bundle.join("work")).ok();
        fs::remove_file(bundle.join("rootfs").join("data")).unwrap();
        clear(&bundle).unwrap();
        assert!(!bundle.exists() && !work.exists());
        clear(&bundle).unwrap();
    }
}
