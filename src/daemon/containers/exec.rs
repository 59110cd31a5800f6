//! What users do with containers, wherever these run: the asking side of `wire`'s container
//! streams, and the commands that were made and are not yet forgotten.

use super::logs::streams_of;
use crate::{
    api::local::{
        Archive, BoxStream, ExecInput, ExecItem, ExecState, ExecStream, Place, StartOptions,
        Started,
    },
    cluster::{Class, Refusal},
    daemon::{
        remote::{self, Answers, Line},
        shared::{Shared, not_in_swarm},
    },
    types::{EXIT_UNKNOWN, ExecSpec, PathStat, ProcessTable, TerminalSize, UnpackOptions, Usage},
    wire::{ContainerFrame, ContainerInput, ContainerOp, ContainerRequest, StreamRequest},
};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{FutureExt as _, StreamExt as _};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long the first answer may take: runc on a board that starts everything at once.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Pieces between a stream and the client: a slow one makes the command wait.
const PIECES_MAX: usize = 8;

/// Sizes of a terminal that wait to be told: only the last matters, and a window that is dragged
/// sends many.
const SIZES_MAX: usize = 4;

/// How many commands are remembered. Clients ask how one ended right after it did.
const EXECS_MAX: usize = 1_000;

/// How long one that ended, or was never started, is remembered; Docker's five minutes.
const REMEMBERED: Duration = Duration::from_secs(300);

/// A command.
#[derive(Debug)]
struct Entry {
    place: Place,
    spec: ExecSpec,
    state: Life,
}

#[derive(Debug)]
enum Life {
    Made(Instant),
    Starting,
    Running { pid: u32, sizes: Sender<TerminalSize> },
    Ended { code: i32, at: Instant },
}

/// The commands that were made on this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Execs {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a command, to be started.
    pub(crate) fn add(&self, place: Place, spec: ExecSpec) -> Result<String, Refusal> {
        let mut entries = self.lock();
        entries.retain(|_, entry| match entry.state {
            Life::Made(at) | Life::Ended { at, .. } => at.elapsed() < REMEMBERED,
            Life::Starting | Life::Running { .. } => true,
        });
        if entries.len() >= EXECS_MAX {
            let text = format!("{EXECS_MAX} commands run or have just ended; try again later");
            return Err(Refusal::new(Class::Unavailable, text));
        }
        let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        entries.insert(id.clone(), Entry { place, spec, state: Life::Made(Instant::now()) });
        Ok(id)
    }

    fn set(&self, id: &str, state: Life) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.state = state;
        }
    }

    /// Takes a command that was made, to start it.
    fn take(&self, id: &str) -> Result<(Place, ExecSpec), Refusal> {
        let mut entries = self.lock();
        let entry = entries.get_mut(id).ok_or_else(|| no_exec(id))?;
        match entry.state {
            Life::Made(_) => {}
            Life::Ended { .. } => {
                let text = format!("exec command {id} has already run");
                return Err(Refusal::new(Class::Conflict, text));
            }
            Life::Starting | Life::Running { .. } => {
                let text = format!("exec command {id} is already running");
                return Err(Refusal::new(Class::Conflict, text));
            }
        }
        entry.state = Life::Starting;
        Ok((entry.place.clone(), entry.spec.clone()))
    }

    /// Shows a command.
    pub(crate) fn show(&self, id: &str) -> Result<ExecState, Refusal> {
        let entries = self.lock();
        let entry = entries.get(id).ok_or_else(|| no_exec(id))?;
        let (running, pid, exit_code) = match &entry.state {
            Life::Made(_) | Life::Starting => (false, 0, None),
            Life::Running { pid, .. } => (true, *pid, None),
            Life::Ended { code, .. } => (false, 0, Some(*code)),
        };
        let (task, spec) = (entry.place.task.clone(), entry.spec.clone());
        Ok(ExecState { task, spec, running, pid, exit_code })
    }

    /// Gives the terminal of one that runs another size.
    pub(crate) fn resize(&self, id: &str, size: TerminalSize) -> Result<(), Refusal> {
        let entries = self.lock();
        match &entries.get(id).ok_or_else(|| no_exec(id))?.state {
            Life::Running { sizes, .. } => {
                // Full: the next one will tell.
                let _told = sizes.try_send(size);
                Ok(())
            }
            _ => {
                let text = format!("exec command {id} is not running");
                Err(Refusal::new(Class::Conflict, text))
            }
        }
    }
}

fn no_exec(id: &str) -> Refusal {
    Refusal::new(Class::NotFound, format!("No such exec instance: {id}"))
}

pub(super) fn oddly() -> Refusal {
    Refusal::new(Class::Internal, "the container's node answered oddly")
}

/// Asks the node of a container.
pub(super) async fn ask(shared: &Shared, place: &Place, op: ContainerOp) -> Result<Line, Refusal> {
    let own = || shared.member().map(|member| member.membership.node.clone());
    let node = place.node.clone().or_else(own).ok_or_else(not_in_swarm)?;
    let request = ContainerRequest { task: place.task.clone(), op };
    Ok(remote::ask(shared, &node, StreamRequest::Container(Box::new(request))).await?)
}

/// Takes a refusal among the frames for one.
pub(super) fn granted(frame: ContainerFrame) -> Result<ContainerFrame, Refusal> {
    match frame {
        ContainerFrame::Refused { refusal, .. } => Err(refusal),
        frame => Ok(frame),
    }
}

/// Waits for the first frame, but not for ever.
async fn first(answers: &mut Answers) -> Result<ContainerFrame, Refusal> {
    granted(answers.within(ANSWER_LIMIT).await?)
}

/// Waits for the next one.
pub(super) async fn next(answers: &mut Answers) -> Result<ContainerFrame, Refusal> {
    granted(answers.more().await?)
}

/// Starts a command that was made, and carries its streams.
pub(crate) async fn start(
    shared: &Shared,
    execs: Execs,
    id: String,
    options: StartOptions,
) -> Result<Started, Refusal> {
    let (place, spec) = execs.take(&id)?;
    // Also where nobody waits for the start any more. What cannot be run exits with this, as in a
    // shell.
    let mut ending = Ending { execs, id, code: NOT_STARTED };
    let tty = spec.tty;
    let op = ContainerOp::Exec { spec, detach: options.detach, size: options.size };
    let mut line = ask(shared, &place, op).await?;
    // Not taken apart: a refusal may hold what the command counts as having exited with.
    match line.answers().within(ANSWER_LIMIT).await? {
        ContainerFrame::Started { pid } => {
            let (sizes, queue) = async_channel::bounded(SIZES_MAX);
            ending.execs.set(&ending.id, Life::Running { pid, sizes });
            ending.code = EXIT_UNKNOWN;
            if options.detach {
                smol::spawn(wait_for(line, ending)).detach();
                return Ok(Started::Detached);
            }
            Ok(Started::Attached(attach(line, queue, tty, ending)))
        }
        ContainerFrame::Refused { refusal, code: Some(code) } => {
            ending.code = code;
            Ok(Started::Failed { message: refusal.message, tty })
        }
        ContainerFrame::Refused { refusal, code: None } => Err(refusal),
        _ => Err(oddly()),
    }
}

/// Looks at a path in a container.
pub(crate) async fn stat(shared: &Shared, place: Place, path: String) -> Result<PathStat, Refusal> {
    let mut line = ask(shared, &place, ContainerOp::Stat { path }).await?;
    match first(line.answers()).await? {
        ContainerFrame::Stat(stat) => Ok(stat),
        _ => Err(oddly()),
    }
}

/// Packs a path of a container into an archive.
pub(crate) async fn pack(
    shared: &Shared,
    place: Place,
    path: String,
) -> Result<(PathStat, Archive), Refusal> {
    let mut line = ask(shared, &place, ContainerOp::Pack { path }).await?;
    let ContainerFrame::Stat(stat) = first(line.answers()).await? else {
        return Err(oddly());
    };
    let (pieces, queue) = async_channel::bounded(PIECES_MAX);
    let work = smol::spawn(async move {
        loop {
            let piece = match next(line.answers()).await {
                Ok(ContainerFrame::Data(bytes)) => Ok(Bytes::from(bytes)),
                Ok(ContainerFrame::Done) => return,
                Ok(_) => Err(io::Error::other(oddly())),
                Err(refusal) => Err(io::Error::other(refusal)),
            };
            let ended = piece.is_err();
            if pieces.send(piece).await.is_err() || ended {
                return;
            }
        }
    });
    Ok((stat, streams_of(queue, work)))
}

/// Unpacks an archive into a container.
pub(crate) async fn unpack(
    shared: &Shared,
    place: Place,
    path: String,
    options: UnpackOptions,
    mut archive: Archive,
) -> Result<(), Refusal> {
    let op = ContainerOp::Unpack { path, options };
    let (mut sender, mut answers) = ask(shared, &place, op).await?.split();
    let up = async {
        while let Some(piece) = archive.next().await {
            let piece = piece.map_err(|error| {
                Refusal::new(Class::Invalid, format!("the archive was cut off: {error}"))
            })?;
            if sender.send(&ContainerInput::Data(piece.into())).await.is_err() {
                break;
            }
        }
        // Where the stream broke, the other direction tells why.
        let _sent = sender.send(&ContainerInput::End).await;
        futures_lite::future::pending::<Result<(), Refusal>>().await
    };
    let down = async {
        match next(&mut answers).await? {
            ContainerFrame::Done => Ok(()),
            _ => Err(oddly()),
        }
    };
    down.or(up).await
}

/// Reads a container's counters, so many times or until nobody listens.
pub(crate) async fn usage(
    shared: &Shared,
    place: Place,
    times: Option<u32>,
) -> Result<BoxStream<Usage>, Refusal> {
    let mut line = ask(shared, &place, ContainerOp::Usage { times }).await?;
    let ContainerFrame::Usage(first) = first(line.answers()).await? else {
        return Err(oddly());
    };
    let (items, queue) = async_channel::bounded(1);
    let work = smol::spawn(async move {
        let mut usage = *first;
        loop {
            if items.send(usage).await.is_err() {
                return;
            }
            match next(line.answers()).await {
                Ok(ContainerFrame::Usage(next)) => usage = *next,
                _ => return,
            }
        }
    });
    Ok(streams_of(queue, work))
}

/// Lists a container's processes.
pub(crate) async fn processes(
    shared: &Shared,
    place: Place,
    options: String,
) -> Result<ProcessTable, Refusal> {
    let mut line = ask(shared, &place, ContainerOp::Processes { options }).await?;
    match first(line.answers()).await? {
        ContainerFrame::Processes(table) => Ok(table),
        _ => Err(oddly()),
    }
}

/// What a command counts as having exited with that could not be run at all, as Docker has it.
const NOT_STARTED: i32 = 126;

/// Waits for the end of a command that nobody listens to.
async fn wait_for(mut line: Line, mut ending: Ending) {
    if let Ok(ContainerFrame::Exited { code, .. }) = next(line.answers()).await {
        ending.code = code;
    }
}

/// Carries a command's streams between its node and the client.
fn attach(line: Line, sizes: Receiver<TerminalSize>, tty: bool, ending: Ending) -> ExecStream {
    let (input, queue) = async_channel::bounded(PIECES_MAX);
    let (items, output) = async_channel::bounded(PIECES_MAX);
    let work = smol::spawn(async move { carry(line, queue, sizes, items, ending).await });
    ExecStream { tty, input, output: streams_of(output, work) }
}

/// Notes how a command ended, also where nobody waited for that.
struct Ending {
    execs: Execs,
    id: String,
    code: i32,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.execs.set(&self.id, Life::Ended { code: self.code, at: Instant::now() });
    }
}

async fn carry(
    line: Line,
    input: Receiver<ExecInput>,
    sizes: Receiver<TerminalSize>,
    items: Sender<ExecItem>,
    mut ending: Ending,
) {
    let (mut sender, mut answers) = line.split();
    let up = async {
        let mut open = true;
        loop {
            let data = async {
                if !open {
                    return futures_lite::future::pending().await;
                }
                match input.recv().await {
                    Ok(ExecInput::Data(bytes)) => ContainerInput::Data(bytes.into()),
                    Ok(ExecInput::End) | Err(_) => ContainerInput::End,
                }
            };
            let size = async {
                match sizes.recv().await {
                    Ok(size) => ContainerInput::Resize(size),
                    Err(_) => futures_lite::future::pending().await,
                }
            };
            let frame = size.or(data).await;
            open &= frame != ContainerInput::End;
            if sender.send(&frame).await.is_err() {
                // The other direction tells why.
                return futures_lite::future::pending().await;
            }
        }
    };
    let down = async {
        loop {
            let item = match next(&mut answers).await {
                Ok(ContainerFrame::Stdout(bytes)) => ExecItem::Stdout(bytes.into()),
                Ok(ContainerFrame::Stderr(bytes)) => ExecItem::Stderr(bytes.into()),
                Ok(ContainerFrame::Exited { code, reason }) => return (code, reason),
                Ok(_) => return (EXIT_UNKNOWN, oddly().message),
                Err(refusal) => return (EXIT_UNKNOWN, refusal.message),
            };
            if items.send(item).await.is_err() {
                return (EXIT_UNKNOWN, String::new());
            }
        }
    };
    let (code, reason) = down.or(up).await;
    ending.code = code;
    // Noted before the client is told: it asks at once.
    drop(ending);
    if !reason.is_empty() {
        // The client has gone where nobody takes it.
        items.send(ExecItem::Failed(reason)).await.ok();
    }
}
