//! Processes that are run inside a container beside its first one.
//!
//! Knows containerd's exec'd processes, their fifos and how they end; must not know who asked for
//! them. [`Runtime::exec`] runs one with its streams, [`Runtime::exec_detached`] one that nobody
//! listens to, [`Runtime::probe`] one that must answer in time. What a daemon that died left
//! behind is ended by [`sweep`].

mod fifo;
mod leftover;
mod process;
mod streams;

pub(super) use leftover::sweep;
pub use streams::{ExecControl, ExecEvent, ExecExit, ExecOutput, ExecStdin};

use super::{
    containerd::{
        container::{self, Record},
        exec::{self, Key},
        link::{CallError, Link},
        task::{self, State},
    },
    engine::{Runtime, Shared, permanent},
    host,
    spec::user::{self, UserError},
};
use crate::{
    agent::Failure,
    types::{ExecSpec, TaskId, TerminalSize},
    util::{deadline::within, tree::Root, unblock::unblock, unbroken::to_its_end},
};
use async_channel::Receiver;
use fifo::{Ends, Folder, Wanted};
use std::{io, path::Path, sync::Arc, time::Duration};
use streams::Guard;

/// What our processes' ids begin with, so that they are told from those of other programs.
const PREFIX: &str = "midge-";

/// Draws what the ids of this program's processes begin with.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{:08x}-", rand::random::<u32>())
}

/// How much of what a probe prints is kept, as Docker keeps of its health checks.
pub const PROBE_OUTPUT_MAX: usize = 4096;

/// How many bytes of `/etc/passwd` or `/etc/group` are read: a foreign file must not fill memory.
const ACCOUNTS_MAX: u64 = 4 << 20;

/// The exit status of a program that is there but cannot be executed, as shells have it.
const NOT_EXECUTABLE: i32 = 126;

/// The exit status of a program that is not there.
const NOT_FOUND: i32 = 127;

/// A process could not be run in a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// There is no such container.
    #[error("No such container: {0}")]
    NoContainer(TaskId),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(TaskId),
    /// Nothing to run was named.
    #[error("no exec command specified")]
    NoCommand,
    /// The container knows no such user or group.
    #[error("{0}")]
    User(String),
    /// The program cannot be started.
    #[error("{message}")]
    Program {
        /// Why, in runc's words.
        message: String,
        /// What a shell would exit with: 126 or 127.
        code: i32,
    },
    /// The node failed.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
        /// Whether trying again may help.
        temporary: bool,
    },
}

impl ExecError {
    /// Returns the exit status that stands for it, where the program was the reason.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Program { code, .. } => Some(*code),
            _ => None,
        }
    }

    fn io(what: &str, error: &io::Error) -> Self {
        Self::Failed { message: format!("{what}: {error}"), temporary: true }
    }
}

impl From<Failure> for ExecError {
    fn from(failure: Failure) -> Self {
        Self::Failed { message: failure.message, temporary: failure.temporary }
    }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        let temporary = matches!(error, ExecError::Failed { temporary: true, .. });
        Self { message: error.to_string(), temporary }
    }
}

/// A process that runs.
#[derive(Debug)]
pub struct Exec {
    /// Its id on the node.
    pub pid: u32,
    /// To do something to it.
    pub control: ExecControl,
    /// Its input, where that was wanted.
    pub stdin: Option<ExecStdin>,
    /// What it prints and how it ends. Dropped before the end, the process is killed.
    pub output: ExecOutput,
}

/// The files of a running container.
#[derive(Debug)]
pub struct Inside {
    /// Its root folder.
    pub root: Root,
    /// The user and group that it runs as.
    pub user: (u32, u32),
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutput {
    /// Its exit status; none where it did not end in time and was killed.
    pub code: Option<i32>,
    /// The first [`PROBE_OUTPUT_MAX`] bytes of what it printed, both streams as they came.
    pub output: Vec<u8>,
}

impl Runtime {
    /// Runs a process in the task's container, with its streams.
    ///
    /// # Errors
    ///
    /// The container does not run, or the program cannot be started.
    pub async fn exec(
        &self,
        task: &TaskId,
        spec: &ExecSpec,
        size: Option<TerminalSize>,
    ) -> Result<Exec, ExecError> {
        let wanted = Wanted {
            stdin: spec.stdin,
            stdout: true,
            // A terminal has one stream.
            stderr: !spec.tty,
            detached: false,
        };
        self.run(task, spec, size, wanted).await
    }

    /// Runs a process in the task's container that nobody listens to: it stays when this program
    /// ends. Returns its id on the node, and who is told how it ended.
    ///
    /// # Errors
    ///
    /// As [`Runtime::exec`].
    pub async fn exec_detached(
        &self,
        task: &TaskId,
        spec: &ExecSpec,
    ) -> Result<(u32, Receiver<ExecExit>), ExecError> {
        // A terminal needs somebody who reads it; without one there are no streams at all.
        let wanted = Wanted { stdin: false, stdout: spec.tty, stderr: false, detached: true };
        let spec = ExecSpec { stdin: false, ..spec.clone() };
        let exec = self.run(task, &spec, None, wanted).await?;
        let mut output = exec.output;
        let (sender, ended) = async_channel::bounded(1);
        smol::spawn(async move {
            loop {
                if let ExecEvent::Exited(exit) = output.next().await {
                    // Where nobody wants to know any more, that is as good.
                    drop(exit.map(|exit| sender.try_send(exit)));
                    return;
                }
            }
        })
        .detach();
        Ok((exec.pid, ended))
    }

    /// Runs a process in the task's container that must end before `deadline` has passed; at the
    /// deadline it is killed.
    ///
    /// # Errors
    ///
    /// The container does not run, the program cannot be started, or the node fails.
    pub async fn probe(
        &self,
        task: &TaskId,
        command: &[String],
        deadline: Duration,
    ) -> Result<ProbeOutput, ExecError> {
        let spec = ExecSpec {
            command: command.to_vec(),
            stdout: true,
            stderr: true,
            ..ExecSpec::default()
        };
        let mut output = Vec::new();
        let ran = async {
            let mut exec = self.exec(task, &spec, None).await?;
            loop {
                match exec.output.next().await {
                    ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => {
                        let room = PROBE_OUTPUT_MAX.saturating_sub(output.len());
                        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                    ExecEvent::Exited(exit) => return Ok::<_, ExecError>(exit?.code),
                }
            }
        };
        // What is dropped at the deadline kills and reaps the process.
        let code = within(deadline, ran).await.transpose()?;
        Ok(ProbeOutput { code, output })
    }

    async fn run(
        &self,
        task: &TaskId,
        spec: &ExecSpec,
        size: Option<TerminalSize>,
        wanted: Wanted,
    ) -> Result<Exec, ExecError> {
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(ExecError::NoCommand);
        }
        let shared = &self.shared;
        let link = &shared.link;
        let described = describe(shared, task, spec, size).await?;
        let exec = format!("{}{:016x}", shared.exec_prefix, rand::random::<u64>());
        let key = Key { container: task.as_str().to_owned(), exec };
        let folder = Folder::new(&shared.config.run_dir, &key);
        // From here on, dropping the guard undoes everything; but not in the midst of it, or a part
        // would come about after that.
        let guard = Guard::new(link, &key, &folder);
        let making = {
            let (link, key, folder) = (link.clone(), key.clone(), folder.clone());
            let (task, stdio) = (task.clone(), folder.stdio(wanted, spec.tty));
            async move {
                let made = unblock(move || {
                    folder.create(wanted)?;
                    folder.open()
                });
                let ends =
                    made.await.map_err(|error| ExecError::io("cannot make the streams", &error))?;
                let failed = |error: CallError| refused(&task, &error);
                exec::create(&link, &key, described, stdio).await.map_err(failed)?;
                let pid = exec::start(&link, &key).await.map_err(failed)?;
                Ok((pid, guard, ends))
            }
        };
        let panicked =
            || Err(ExecError::from(permanent("internal error: starting ended early".to_owned())));
        let (pid, mut guard, ends) = to_its_end(making).await.unwrap_or_else(panicked)?;
        guard.release(wanted.detached);
        let Ends { stdout, stderr, keepers } = ends;
        // The shim has opened its ends now: the output ends with its writers.
        drop(keepers);
        let control = ExecControl::new(link, &key);
        let stdin = wanted.stdin.then(|| ExecStdin::new(control.clone(), folder.stdin()));
        let output = ExecOutput::new(guard, stdout, stderr);
        Ok(Exec { pid, control, stdin, output })
    }

    /// Opens the files of the task's container, as its own processes see them: with its volumes,
    /// and read-only where they are.
    ///
    /// # Errors
    ///
    /// The container does not run.
    pub async fn inside(&self, task: &TaskId) -> Result<Inside, ExecError> {
        let record = record(&self.shared.link, task).await?;
        let root = root(&self.shared.link, task).await?;
        Ok(Inside { root, user: process::user(&record.spec) })
    }
}

/// Returns the description of the process.
async fn describe(
    shared: &Arc<Shared>,
    task: &TaskId,
    spec: &ExecSpec,
    size: Option<TerminalSize>,
) -> Result<Vec<u8>, ExecError> {
    let record = record(&shared.link, task).await?;
    let root = root(&shared.link, task).await?;
    let wanted = spec.user.clone();
    let looked = unblock(move || {
        let user = if wanted.is_empty() { None } else { Some(resolve(&root, &wanted)?) };
        Ok((user, host::capabilities()))
    });
    let (user, bounding) =
        looked.await.map_err(|error: UserError| ExecError::User(error.to_string()))?;
    let input = process::Input { container: &record.spec, exec: spec, user, bounding, size };
    process::build(&input).ok_or_else(|| ExecError::Failed {
        message: "containerd's record of the container cannot be read".to_owned(),
        temporary: false,
    })
}

async fn record(link: &Link, task: &TaskId) -> Result<Record, ExecError> {
    let record = container::get(link, task.as_str()).await.map_err(|error| asking(&error))?;
    record.ok_or_else(|| ExecError::NoContainer(task.clone()))
}

async fn root(link: &Link, task: &TaskId) -> Result<Root, ExecError> {
    let pid = running(link, task).await?;
    let open = unblock(move || Root::open(Path::new(&format!("/proc/{pid}/root"))));
    let opened = open.await;
    // The process may have ended before, and its number be another's by now.
    if running(link, task).await? != pid {
        return Err(ExecError::NotRunning(task.clone()));
    }
    opened.map_err(|error| ExecError::io("cannot enter the container", &error))
}

/// Returns the container's first process.
pub(super) async fn running(link: &Link, task: &TaskId) -> Result<u32, ExecError> {
    match task::get(link, task.as_str()).await.map_err(|error| asking(&error))? {
        Some(State::Running { pid }) => Ok(pid),
        Some(State::Created | State::Stopped { .. }) | None => {
            Err(ExecError::NotRunning(task.clone()))
        }
    }
}

fn resolve(root: &Root, wanted: &str) -> Result<user::User, UserError> {
    let text = |path: &str| {
        // As Docker: an image without such a file has no names.
        let bytes = root.read(path, ACCOUNTS_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    user::resolve(wanted, &[], &text("/etc/passwd"), &text("/etc/group"))
}

pub(super) fn asking(error: &CallError) -> ExecError {
    error.failure("cannot ask for the container").into()
}

/// Judges why a process could not be started.
fn refused(task: &TaskId, error: &CallError) -> ExecError {
    if error.is_not_found() {
        return ExecError::NotRunning(task.clone());
    }
    let message = error.to_string();
    match program_code(&message) {
        Some(code) => ExecError::Program { message, code },
        None => error.failure("cannot run the command").into(),
    }
}

/// Tells from runc's words whether the program is missing or cannot be executed, as Docker does.
fn program_code(message: &str) -> Option<i32> {
    let text = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["permission denied", "exec format error", "is a directory"]) {
        Some(NOT_EXECUTABLE)
    } else if says(&["executable file not found", "no such file or directory", "not a directory"]) {
        Some(NOT_FOUND)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runcs_words_are_understood() {
        let runc =
            "OCI runtime exec failed: exec failed: unable to start container process: exec: ";
        for (text, code) in [
            ("\"nope\": executable file not found in $PATH: unknown", Some(127)),
            ("\"/nope\": stat /nope: no such file or directory: unknown", Some(127)),
            ("\"/etc/passwd\": permission denied: unknown", Some(126)),
            ("\"/tmp\": is a directory: unknown", Some(126)),
            ("something else", None),
        ] {
            assert_eq!(program_code(&format!("{runc}{text}")), code, "{text}");
        }
    }
}
