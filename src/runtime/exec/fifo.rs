//! The fifos between a process and us, in a folder that also notes that the process is ours: what
//! a daemon that died leaves is found by it.

use crate::runtime::containerd::exec::{Key, Stdio};
use rustix::fs::{FileType, Mode, OFlags};
use smol::Async;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The mark of a process that nobody waits for.
const DETACHED: &str = "detached";

/// How long the shim may take to open its end of the input after the process was started: it does
/// so at once, on a thread of its own.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// The pause before it is looked at again.
const OPEN_PAUSE: Duration = Duration::from_millis(2);

/// The folder of one process below the run directory.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Which streams there are to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// The process goes on without us.
    pub(super) detached: bool,
}

/// Our ends, open before the process runs.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdout: Option<Async<File>>,
    pub(super) stderr: Option<Async<File>>,
    /// Hold the output open until the shim does: without a writer it would seem to have ended.
    pub(super) keepers: Vec<File>,
}

/// Returns the folder that holds one folder a container.
pub(super) fn root(run_dir: &Path) -> PathBuf {
    run_dir.join("exec")
}

impl Folder {
    /// Names the folder; touches nothing.
    pub(super) fn new(run_dir: &Path, key: &Key) -> Self {
        Self { path: root(run_dir).join(&key.container).join(&key.exec) }
    }

    /// Makes it with the fifos that are wanted. Blocks, shortly.
    pub(super) fn create(&self, wanted: Wanted) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let fifos = [("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr)];
        for (name, _) in fifos.iter().filter(|(_, wanted)| *wanted) {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, self.path.join(name), FileType::Fifo, mode, 0)?;
        }
        if wanted.detached {
            File::create(self.path.join(DETACHED))?;
        }
        Ok(())
    }

    pub(super) fn stdin(&self) -> PathBuf {
        self.path.join("stdin")
    }

    pub(super) fn is_detached(&self) -> bool {
        self.path.join(DETACHED).exists()
    }

    /// Returns what containerd is told of the streams.
    pub(super) fn stdio(&self, wanted: Wanted, terminal: bool) -> Stdio {
        let path = |name: &str, wanted: bool| {
            let path = self.path.join(name).to_string_lossy().into_owned();
            if wanted { path } else { String::new() }
        };
        Stdio {
            stdin: path("stdin", wanted.stdin),
            stdout: path("stdout", wanted.stdout),
            stderr: path("stderr", wanted.stderr),
            terminal,
        }
    }

    /// Opens our ends of the output that is there. Blocks, shortly.
    pub(super) fn open(&self) -> io::Result<Ends> {
        let mut ends = Ends::default();
        for (name, end) in [("stdout", &mut ends.stdout), ("stderr", &mut ends.stderr)] {
            let path = self.path.join(name);
            if !path.exists() {
                continue;
            }
            *end = Some(Async::new(open(&path, OFlags::RDONLY)?)?);
            ends.keepers.push(open(&path, OFlags::WRONLY)?);
        }
        Ok(ends)
    }

    /// Removes everything. Blocks, shortly.
    pub(super) fn remove(&self) {
        // Gone, or a mount that went read-only: either way nothing more can be done.
        drop(fs::remove_dir_all(&self.path));
        if let Some(parent) = self.path.parent() {
            // Refused while another process of the container is there.
            drop(fs::remove_dir(parent));
        }
    }
}

fn open(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Opens a fifo for writing once the shim reads it: an input that is closed before would never be
/// seen to end.
pub(super) async fn open_stdin(path: &Path) -> io::Result<Async<File>> {
    let deadline = std::time::Instant::now() + OPEN_LIMIT;
    loop {
        match open(path, OFlags::WRONLY) {
            Ok(file) => return Async::new(file),
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                return Err(error);
            }
            Err(_) if std::time::Instant::now() >= deadline => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Err(_) => drop(smol::Timer::after(OPEN_PAUSE).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::io::AsyncWriteExt;

    fn wanted() -> Wanted {
        Wanted { stdin: true, stdout: true, stderr: false, detached: true }
    }

    #[test]
    fn folders_hold_what_was_wanted_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key { container: "c".into(), exec: "e".into() };
        let folder = Folder::new(dir.path(), &key);
        folder.create(wanted()).unwrap();
        assert!(folder.is_detached());
        let stdio = folder.stdio(wanted(), true);
        assert!(stdio.stdin.ends_with("/exec/c/e/stdin") && stdio.stdout.ends_with("/stdout"));
        assert_eq!(stdio.stderr, "");
        let ends = folder.open().unwrap();
        assert!(ends.stdout.is_some() && ends.stderr.is_none());
        folder.remove();
        folder.remove();
        assert!(!root(dir.path()).join("c").exists());
    }

    #[test]
    fn output_ends_with_its_last_writer_and_input_waits_for_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key { container: "c".into(), exec: "e".into() };
        let folder = Folder::new(dir.path(), &key);
        folder.create(wanted()).unwrap();
        smol::block_on(async {
            let mut ends = folder.open().unwrap();
            let mut out = ends.stdout.take().unwrap();
            let shim = open(&folder.path.join("stdout"), OFlags::WRONLY).unwrap();
            ends.keepers.clear();
            std::io::Write::write_all(&mut &shim, b"hi").unwrap();
            drop(shim);
            let mut text = String::new();
            smol::io::AsyncReadExt::read_to_string(&mut out, &mut text).await.unwrap();
            assert_eq!(text, "hi");

            let path = folder.stdin();
            let opening = smol::spawn(async move { open_stdin(&path).await });
            let reader = open(&folder.stdin(), OFlags::RDONLY).unwrap();
            let mut writer = opening.await.unwrap();
            writer.write_all(b"there").await.unwrap();
            drop(writer);
            let mut reader = Async::new(reader).unwrap();
            let mut text = String::new();
            smol::io::AsyncReadExt::read_to_string(&mut reader, &mut text).await.unwrap();
            assert_eq!(text, "there");
        });
    }
}
