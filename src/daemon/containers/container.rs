//! What is done with this node's containers, for whoever may ask: commands, archives, counters,
//! processes. The answering side of `wire`'s container streams, of this node's own API, too.
//!
//! Knows streams and the runtime; must not know who asked.

use super::ending;
use crate::{
    cluster::{Class, Refusal},
    daemon::shared::Shared,
    runtime::{Exec, ExecError, ExecEvent, ExecOutput, ExecStdin},
    transport::{ByteReceiver, ByteSender, StreamError},
    types::{Date, ExecSpec, PathStat, TaskId, TerminalSize, UnpackOptions},
    util::{
        deadline::within,
        error::chain,
        tree::{self, Asked, Owner, PackError, PieceReader, PieceWriter, Rules, UnpackError},
        unblock::unblock,
    },
    wire::{ContainerFrame, ContainerInput, ContainerOp, ContainerRequest},
};
use futures_lite::FutureExt as _;
use smol::lock::SemaphoreGuardArc;
use std::{fs::Metadata, io, os::unix::fs::MetadataExt as _, sync::Arc, time::Duration};

/// How many things are done with a node's containers at once. Each holds a thread or some pipes,
/// and a small board has 1,024 descriptors; nobody types so many commands.
pub(crate) const WORK_MAX: usize = 128;

/// Pieces between the thread that packs or unpacks and the stream.
const PIECES_MAX: usize = 4;

/// How often counters are read, as Docker reads them.
const USAGE_EVERY: Duration = Duration::from_secs(1);

/// How long a command may go on after its terminal was gone, before it is killed.
const HANG_UP_LIMIT: Duration = Duration::from_secs(10);

/// A failure as it is told to whoever asked.
fn refusal(error: &ExecError) -> Refusal {
    let class = match error {
        ExecError::NoContainer(_) => Class::NotFound,
        ExecError::NotRunning(_) => Class::Conflict,
        ExecError::NoCommand | ExecError::User(_) | ExecError::Program { .. } => Class::Invalid,
        ExecError::Failed { temporary: true, .. } => Class::Unavailable,
        ExecError::Failed { temporary: false, .. } => Class::Internal,
    };
    Refusal::new(class, error.to_string())
}

/// Does what a stream asks for, to its end.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    request: ContainerRequest,
    mut sender: ByteSender,
    receiver: ByteReceiver,
) -> Result<(), StreamError> {
    let Some(turn) = shared.work.try_acquire_arc() else {
        let text = format!("this node does {WORK_MAX} things with its containers; try again later");
        let refusal = Refusal::new(Class::Unavailable, text);
        return end(sender, &ContainerFrame::Refused { refusal, code: None }).await;
    };
    let task = request.task;
    let done = match request.op {
        ContainerOp::Exec { spec, detach: true, .. } => {
            detached(shared, &task, &spec, &mut sender).await
        }
        ContainerOp::Exec { spec, detach: false, size } => {
            return attached(shared, &task, spec, size, (sender, receiver), turn).await;
        }
        ContainerOp::Stat { path } => stat(shared, &task, path).await,
        ContainerOp::Pack { path } => pack(shared, &task, path, &mut sender).await,
        ContainerOp::Unpack { path, options } => {
            unpack(shared, &task, path, options, receiver).await
        }
        ContainerOp::Usage { times } => usage(shared, &task, times, &mut sender, receiver).await,
        ContainerOp::Processes { options } => processes(shared, &task, &options).await,
        ContainerOp::Signal { number } => ending::signal(shared, &task, number).await,
        ContainerOp::Stop { signal, grace } => {
            ending::stop(shared, &task, signal, grace, receiver, turn).await
        }
        ContainerOp::Wait { removed } => ending::wait(shared, &task, removed, receiver).await,
    };
    let frame = match done {
        Ok(frame) => frame,
        Err(Stop::Refused(refusal, code)) => ContainerFrame::Refused { refusal, code },
        Err(Stop::Broken(error)) => return Err(error),
    };
    end(sender, &frame).await
}

/// Why something was not done.
pub(super) enum Stop {
    Refused(Refusal, Option<i32>),
    Broken(StreamError),
}

impl From<ExecError> for Stop {
    fn from(error: ExecError) -> Self {
        Self::Refused(refusal(&error), error.exit_code())
    }
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        Self::Broken(error)
    }
}

pub(super) type Done = Result<ContainerFrame, Stop>;

async fn end(mut sender: ByteSender, frame: &ContainerFrame) -> Result<(), StreamError> {
    sender.send(frame).await?;
    sender.finish().await
}

async fn detached(
    shared: &Shared,
    task: &TaskId,
    spec: &ExecSpec,
    sender: &mut ByteSender,
) -> Done {
    let (pid, ended) = shared.containers.runtime().exec_detached(task, spec).await?;
    let teller = shared.containers.teller();
    teller.exec_started(task, &spec.command);
    sender.send(&ContainerFrame::Started { pid }).await?;
    match ended.recv().await {
        Ok(exit) => {
            teller.exec_ended(task, exit.code);
            Ok(ContainerFrame::Exited { code: exit.code, reason: String::new() })
        }
        Err(_) => {
            let text = "the command was lost sight of";
            Err(Stop::Refused(Refusal::new(Class::Internal, text), None))
        }
    }
}

async fn attached(
    shared: &Shared,
    task: &TaskId,
    spec: ExecSpec,
    size: Option<TerminalSize>,
    (mut sender, receiver): (ByteSender, ByteReceiver),
    turn: SemaphoreGuardArc,
) -> Result<(), StreamError> {
    let Exec { pid, control, stdin, mut output } =
        match shared.containers.runtime().exec(task, &spec, size).await {
            Ok(exec) => exec,
            Err(error) => {
                let (refusal, code) = (refusal(&error), error.exit_code());
                return end(sender, &ContainerFrame::Refused { refusal, code }).await;
            }
        };
    let teller = Arc::clone(shared.containers.teller());
    teller.exec_started(task, &spec.command);
    let resize = control.clone();
    let up = async { Err::<ContainerFrame, _>(feed(stdin, resize, receiver).await) };
    let down = async {
        sender.send(&ContainerFrame::Started { pid }).await?;
        loop {
            let frame = match output.next().await {
                ExecEvent::Stdout(bytes) if spec.stdout => ContainerFrame::Stdout(bytes.into()),
                ExecEvent::Stderr(bytes) if spec.stderr => ContainerFrame::Stderr(bytes.into()),
                ExecEvent::Stdout(_) | ExecEvent::Stderr(_) => continue,
                ExecEvent::Exited(exit) => {
                    if let Ok(exit) = &exit {
                        teller.exec_ended(task, exit.code);
                    }
                    return Ok(exited(task, exit));
                }
            };
            sender.send(&frame).await?;
        }
    };
    match down.or(up).await {
        Ok(last) => end(sender, &last).await,
        Err(error) => {
            // Whoever listened is gone. The input has ended with it; a terminal hangs up, and
            // without one the command goes on as Docker's does, its output being nobody's.
            smol::spawn(async move {
                if spec.tty {
                    drop(control.hang_up().await);
                }
                abandon(output, spec.tty).await;
                drop(turn);
            })
            .detach();
            Err(error)
        }
    }
}

fn exited(task: &TaskId, exit: Result<crate::runtime::ExecExit, ExecError>) -> ContainerFrame {
    match exit {
        Ok(exit) if exit.container_ended => {
            let reason = format!("the command ended since the container of task {task} did");
            ContainerFrame::Exited { code: exit.code, reason }
        }
        Ok(exit) => ContainerFrame::Exited { code: exit.code, reason: String::new() },
        Err(error) => ContainerFrame::Refused { refusal: refusal(&error), code: None },
    }
}

/// Hands input over until the stream ends; returns why it did.
async fn feed(
    mut stdin: Option<ExecStdin>,
    control: crate::runtime::ExecControl,
    mut receiver: ByteReceiver,
) -> StreamError {
    loop {
        match receiver.receive::<ContainerInput>().await {
            Ok(Some(ContainerInput::Data(bytes))) => {
                if let Some(input) = &mut stdin
                    && input.write_all(&bytes).await.is_err()
                {
                    // It reads no more, which is its own affair.
                    stdin = None;
                }
            }
            Ok(Some(ContainerInput::End)) => {
                if let Some(input) = stdin.take()
                    && let Err(error) = input.close().await
                {
                    tracing::debug!(%error, "cannot end a command's input");
                }
            }
            Ok(Some(ContainerInput::Resize(size))) => {
                if let Err(error) = control.resize(size).await {
                    tracing::debug!(%error, "cannot resize a command's terminal");
                }
            }
            Ok(None) => return StreamError::Broken("the client is gone".to_owned()),
            Err(error) => {
                if let Some(input) = stdin.take() {
                    drop(input.close().await);
                }
                return error;
            }
        }
    }
}

/// Takes what a command prints, for nobody, until it ends; one that hung up soon must.
async fn abandon(mut output: ExecOutput, hung_up: bool) {
    let drain = async { while !matches!(output.next().await, ExecEvent::Exited(_)) {} };
    if !hung_up {
        return drain.await;
    }
    // Dropped at the limit, the output takes the command along.
    let _ended = within(HANG_UP_LIMIT, drain).await;
}

fn path_stat(asked: &Asked, metadata: &Metadata, link_target: String) -> PathStat {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or_default();
    let nanos = u64::try_from(metadata.mtime_nsec()).unwrap_or_default();
    PathStat {
        name: asked.name().to_owned(),
        size: metadata.len(),
        mode: metadata.mode(),
        modified: Date::from_unix_nanos(seconds.saturating_mul(1_000_000_000) + nanos),
        link_target,
    }
}

fn missing(task: &TaskId, path: &str, error: &io::Error) -> Stop {
    let refusal = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::new(
            Class::NotFound,
            format!("Could not find the file {path} in container {task}"),
        ),
        _ => Refusal::new(
            Class::Internal,
            format!("cannot look at {path} in the container: {error}"),
        ),
    };
    Stop::Refused(refusal, None)
}

async fn stat(shared: &Shared, task: &TaskId, path: String) -> Done {
    let inside = shared.containers.runtime().inside(task).await?;
    let asked = Asked::new(&path);
    let looked = unblock(move || {
        let found = asked.stat(&inside.root);
        found.map(|(metadata, target)| path_stat(&asked, &metadata, target))
    });
    let stat = looked.await.map_err(|error| missing(task, &path, &error))?;
    Ok(ContainerFrame::Stat(stat))
}

async fn pack(shared: &Shared, task: &TaskId, path: String, sender: &mut ByteSender) -> Done {
    let inside = shared.containers.runtime().inside(task).await?;
    let asked = Asked::new(&path);
    let (first, looked) = async_channel::bounded(1);
    let (pieces, queue) = async_channel::bounded(PIECES_MAX);
    let worker = unblock(move || {
        let found = asked.stat(&inside.root);
        let there = found.is_ok();
        let stat = found.map(|(metadata, target)| path_stat(&asked, &metadata, target));
        // Nobody waits for it where the stream broke meanwhile.
        drop(first.send_blocking(stat));
        if !there {
            return Ok(());
        }
        tree::pack(&inside.root, &asked, asked.name(), PieceWriter::new(pieces))
    });
    let gone = || io::Error::other("the thread that packs ended early");
    let stat = looked.recv().await.unwrap_or_else(|_| Err(gone()));
    let stat = stat.map_err(|error| missing(task, &path, &error))?;
    sender.send(&ContainerFrame::Stat(stat)).await?;
    while let Ok(Ok(piece)) = queue.recv().await {
        sender.send(&ContainerFrame::Data(piece)).await?;
    }
    match worker.await {
        Ok(()) => Ok(ContainerFrame::Done),
        Err(error @ PackError::NotFound(_)) => {
            Err(Stop::Refused(Refusal::new(Class::NotFound, error.to_string()), None))
        }
        Err(error) => Err(Stop::Refused(Refusal::new(Class::Internal, chain(&error)), None)),
    }
}

async fn unpack(
    shared: &Shared,
    task: &TaskId,
    path: String,
    options: UnpackOptions,
    mut receiver: ByteReceiver,
) -> Done {
    let inside = shared.containers.runtime().inside(task).await?;
    let owner = match options.own_to_user {
        true => Owner::Fixed(inside.user.0, inside.user.1),
        false => Owner::Archived,
    };
    let rules = Rules { keep_kinds: options.keep_kinds, owner, rename: None };
    let (pieces, queue) = async_channel::bounded(PIECES_MAX);
    let worker = unblock(move || {
        tree::unpack(&inside.root, &Asked::new(&path).path(), &rules, PieceReader::new(queue))
    });
    let feed = async move {
        loop {
            let piece = match receiver.receive::<ContainerInput>().await {
                Ok(Some(ContainerInput::Data(bytes))) => Ok(bytes),
                Ok(Some(ContainerInput::End)) => break,
                Ok(Some(ContainerInput::Resize(_))) => continue,
                Ok(None) => Err(io::Error::other("the archive was cut off")),
                Err(error) => Err(io::Error::other(error)),
            };
            let cut = piece.is_err();
            // Full of what follows an archive's end, or refused: the worker tells.
            if pieces.send(piece).await.is_err() || cut {
                break;
            }
        }
        drop(pieces);
        futures_lite::future::pending().await
    };
    let class = |error: &UnpackError| match error {
        UnpackError::NotFound(_) => Class::NotFound,
        UnpackError::Write { .. } => Class::Internal,
        _ => Class::Invalid,
    };
    match worker.or(feed).await {
        Ok(()) => Ok(ContainerFrame::Done),
        Err(error) => Err(Stop::Refused(Refusal::new(class(&error), chain(&error)), None)),
    }
}

async fn usage(
    shared: &Shared,
    task: &TaskId,
    times: Option<u32>,
    sender: &mut ByteSender,
    receiver: ByteReceiver,
) -> Done {
    let runtime = shared.containers.runtime();
    let work = async {
        let mut left = times;
        let mut usage = runtime.usage(task).await?;
        loop {
            sender.send(&ContainerFrame::Usage(Box::new(usage))).await?;
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) {
                return Ok(ContainerFrame::Done);
            }
            smol::Timer::after(USAGE_EVERY).await;
            usage = match runtime.usage(task).await {
                Ok(usage) => usage,
                Err(ExecError::NotRunning(_) | ExecError::NoContainer(_)) => {
                    return Ok(ContainerFrame::Done);
                }
                Err(error) => return Err(error.into()),
            };
        }
    };
    work.or(async { Err(gone(receiver).await) }).await
}

/// Waits until whoever asked has gone, who has nothing more to say.
pub(super) async fn gone(mut receiver: ByteReceiver) -> Stop {
    while let Ok(Some(_)) = receiver.receive::<ContainerInput>().await {}
    Stop::Broken(StreamError::Broken("the client is gone".to_owned()))
}

async fn processes(shared: &Shared, task: &TaskId, options: &str) -> Done {
    match shared.containers.runtime().processes(task, options).await? {
        Ok(table) => Ok(ContainerFrame::Processes(table)),
        Err(text) => Err(Stop::Refused(Refusal::new(Class::Invalid, text), None)),
    }
}
