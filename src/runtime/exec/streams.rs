//! The running side of an exec'd process: its input, its output and its end.

use super::{
    ExecError,
    fifo::{self, Folder},
};
use crate::{
    runtime::containerd::{
        exec::{self, Key},
        link::{CallError, Link},
        task::{self, State},
    },
    types::{TerminalSize, signal},
    util::unblock::unblock,
};
use bytes::Bytes;
use futures_lite::{AsyncWriteExt as _, future};
use smol::Async;
use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    time::{Duration, Instant},
};

/// What is read of a stream at once: half of what a pipe holds.
const READ_MAX: usize = 32 << 10;

/// How long the output may stand still after the process ended before it counts as ended, too: a
/// child that the process left behind may hold it open for ever. Docker waits as long.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// How long one call waits for the end of a process; then it is asked anew.
const WAIT_LIMIT: Duration = Duration::from_secs(3_600);

/// How long containerd may be away before a process counts as lost: a restart takes seconds.
const AWAY_LIMIT: Duration = Duration::from_secs(60);

/// The pause before containerd is asked again.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// How long after a process was killed its container is looked at: containerd tells of both ends
/// within milliseconds of each other.
const CONTAINER_LIMIT: Duration = Duration::from_secs(1);

/// The pause before it is looked at again.
const CONTAINER_PAUSE: Duration = Duration::from_millis(50);

/// How long a process may take to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What a process exits with that SIGKILL ended.
const KILLED: i32 = 137;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecExit {
    /// Its exit status.
    pub code: i32,
    /// Whether it ended since its container did.
    pub container_ended: bool,
}

/// What a process does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// It printed; everything of a terminal.
    Stdout(Bytes),
    /// It printed an error.
    Stderr(Bytes),
    /// It ended, and everything that it printed has been told. The last of all.
    Exited(Result<ExecExit, ExecError>),
}

/// Does something to a running process. Clones are the same process.
#[derive(Debug, Clone)]
pub struct ExecControl {
    link: Link,
    key: Key,
}

impl ExecControl {
    pub(super) fn new(link: &Link, key: &Key) -> Self {
        Self { link: link.clone(), key: key.clone() }
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    ///
    /// It has ended, or has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), ExecError> {
        let resized = exec::resize(&self.link, &self.key, size).await;
        resized.map_err(|error| error.failure("cannot resize the terminal").into())
    }

    /// Tells it that its terminal is gone.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn hang_up(&self) -> Result<(), ExecError> {
        let sent = exec::kill(&self.link, &self.key, signal::HANG_UP).await;
        sent.map(|_| ()).map_err(|error| error.failure("cannot end the command").into())
    }
}

/// The input of a process.
#[derive(Debug)]
pub struct ExecStdin {
    control: ExecControl,
    path: PathBuf,
    writer: Option<Async<File>>,
}

impl ExecStdin {
    pub(super) fn new(control: ExecControl, path: PathBuf) -> Self {
        Self { control, path, writer: None }
    }

    /// Hands the bytes over; waits while the process does not read.
    ///
    /// # Errors
    ///
    /// The process reads no more.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open().await?.write_all(bytes).await
    }

    /// Lets the process see the end of its input.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn close(mut self) -> Result<(), ExecError> {
        // Where it cannot be opened any more, nobody reads it.
        let opened = self.open().await.is_ok();
        drop(self.writer.take());
        let ExecControl { link, key } = &self.control;
        match exec::close_stdin(link, key).await {
            Err(error) if opened && error.is_temporary() => {
                Err(error.failure("cannot end the input").into())
            }
            // Refused where the process has ended.
            _ => Ok(()),
        }
    }

    async fn open(&mut self) -> io::Result<&mut Async<File>> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => fifo::open_stdin(&self.path).await?,
        };
        Ok(self.writer.insert(writer))
    }
}

/// Ends the process and removes what it left, unless that was done.
#[derive(Debug)]
pub(super) struct Guard {
    link: Link,
    key: Key,
    folder: Folder,
    ended: bool,
    /// Nobody needs to listen to the process: it goes on.
    released: bool,
}

impl Guard {
    pub(super) fn new(link: &Link, key: &Key, folder: &Folder) -> Self {
        Self {
            link: link.clone(),
            key: key.clone(),
            folder: folder.clone(),
            ended: false,
            released: false,
        }
    }

    /// Lets the process go on without us, where it is `detached`: what is left of it is found by
    /// the next start.
    pub(super) fn release(&mut self, detached: bool) {
        self.released = detached;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.released && !self.ended {
            return;
        }
        let (link, key, folder) = (self.link.clone(), self.key.clone(), self.folder.clone());
        let ended = self.ended;
        smol::spawn(async move { reap(&link, &key, folder, ended).await }).detach();
    }
}

/// Ends a process, where it has not `ended`, and removes what it left.
pub(super) async fn reap(link: &Link, key: &Key, folder: Folder, ended: bool) {
    if !ended {
        // Refused where it never ran or has just ended.
        drop(exec::kill(link, key, signal::KILL).await);
        if let Err(error) = exec::wait(link, key, KILL_LIMIT).await {
            tracing::warn!(%error, container = key.container, "a command cannot be ended");
        }
    }
    if let Err(error) = exec::delete(link, key).await {
        // It goes with its container's shim.
        tracing::debug!(%error, container = key.container, "cannot forget a command");
    }
    unblock(move || folder.remove()).await;
}

/// What a process prints, and how it ends.
#[derive(Debug)]
pub struct ExecOutput {
    stdout: Option<Async<File>>,
    stderr: Option<Async<File>>,
    exit: Option<Result<ExecExit, ExecError>>,
    waiter: smol::Task<Result<ExecExit, ExecError>>,
    /// Until the end was told.
    guard: Option<Guard>,
}

enum Step {
    Stdout(io::Result<Bytes>),
    Stderr(io::Result<Bytes>),
    Exit(Result<ExecExit, ExecError>),
    Still,
}

impl ExecOutput {
    pub(super) fn new(
        guard: Guard,
        stdout: Option<Async<File>>,
        stderr: Option<Async<File>>,
    ) -> Self {
        let (link, key) = (guard.link.clone(), guard.key.clone());
        let waiter = smol::spawn(async move { ended(&link, &key).await });
        Self { stdout, stderr, exit: None, waiter, guard: Some(guard) }
    }

    /// Waits for what the process does next. Nothing is lost where the wait is given up. A process
    /// that nobody waits for is held up once its pipe is full.
    pub async fn next(&mut self) -> ExecEvent {
        loop {
            if self.stdout.is_none() && self.stderr.is_none() {
                let exit = match self.exit.take() {
                    Some(exit) => exit,
                    None => (&mut self.waiter).await,
                };
                self.exit = Some(exit.clone());
                if let Some(mut guard) = self.guard.take() {
                    guard.ended = exit.is_ok();
                }
                return ExecEvent::Exited(exit);
            }
            match self.step().await {
                Step::Stdout(Ok(bytes)) if !bytes.is_empty() => return ExecEvent::Stdout(bytes),
                Step::Stderr(Ok(bytes)) if !bytes.is_empty() => return ExecEvent::Stderr(bytes),
                Step::Stdout(_) => self.stdout = None,
                Step::Stderr(_) => self.stderr = None,
                Step::Exit(exit) => self.exit = Some(exit),
                Step::Still => (self.stdout, self.stderr) = (None, None),
            }
        }
    }

    async fn step(&mut self) -> Step {
        let (stdout, stderr) = (self.stdout.as_ref(), self.stderr.as_ref());
        let out = async { Step::Stdout(read(stdout).await) };
        let err = async { Step::Stderr(read(stderr).await) };
        let (exit, waiter) = (self.exit.as_ref(), &mut self.waiter);
        let end = async {
            if exit.is_none() {
                return Step::Exit(waiter.await);
            }
            smol::Timer::after(DRAIN_LIMIT).await;
            Step::Still
        };
        // By turns, so that neither stream can starve the other; what was printed comes before
        // the end.
        future::or(future::race(out, err), end).await
    }
}

/// Reads what is there; nothing at the end. Waits for ever for a stream that is not there.
async fn read(stream: Option<&Async<File>>) -> io::Result<Bytes> {
    let Some(stream) = stream else { return future::pending().await };
    let mut buffer = vec![0; READ_MAX];
    let n = stream.read_with(|mut file| file.read(&mut buffer)).await?;
    buffer.truncate(n);
    buffer.shrink_to_fit();
    Ok(Bytes::from(buffer))
}

/// Waits for the end of a process, through restarts of containerd.
async fn ended(link: &Link, key: &Key) -> Result<ExecExit, ExecError> {
    let mut away_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        match exec::wait(link, key, WAIT_LIMIT).await {
            Ok(Some(code)) => {
                let container_ended = code == KILLED && container_ended(link, key).await;
                return Ok(ExecExit { code, container_ended });
            }
            // The shim that knew it is gone, and everything with it.
            Ok(None) => return Ok(ExecExit { code: KILLED, container_ended: true }),
            Err(CallError::Late { .. }) => away_since = None,
            Err(error) => {
                if container_ended(link, key).await {
                    return Ok(ExecExit { code: KILLED, container_ended: true });
                }
                let since = *away_since.get_or_insert(asked);
                if since.elapsed() >= AWAY_LIMIT {
                    return Err(error.failure("the command was lost sight of").into());
                }
                smol::Timer::after(AWAY_PAUSE).await;
            }
        }
    }
}

/// Tells whether the container ends with the process that was killed in it.
async fn container_ended(link: &Link, key: &Key) -> bool {
    let deadline = Instant::now() + CONTAINER_LIMIT;
    loop {
        match task::get(link, &key.container).await {
            Ok(Some(State::Running { .. })) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
        if Instant::now() >= deadline {
            return false;
        }
        smol::Timer::after(CONTAINER_PAUSE).await;
    }
}
