//! Signals to containers, their end by a user's wish, and waiting for it: the asking side, and the
//! side of the container's node.
//!
//! Signals go past the agent, as if the program had got them from anywhere: it sees the container end
//! and has the task end so, and the service's restart policy decides what follows. Nothing here waits
//! for a stop that the agent has under way, nor the other way round: whoever kills first has.

use super::{
    container::{Done, Stop, gone},
    exec,
};
use crate::{
    api::local::{BoxFuture, ContainerExit, Place, StopOptions},
    cluster::{Class, Refusal},
    daemon::{
        remote::{Line, Unanswered},
        shared::{Shared, not_in_swarm},
    },
    runtime::ExecError,
    transport::ByteReceiver,
    types::{EXIT_UNKNOWN, TaskId, TaskStatus, signal},
    util::deadline::within,
    wire::{ContainerFrame, ContainerOp},
};
use async_channel::Receiver;
use futures_lite::FutureExt as _;
use smol::lock::SemaphoreGuardArc;
use std::{sync::Arc, time::Duration};

/// How long the agent may take to say whether it has a task.
const AGENT_LIMIT: Duration = Duration::from_secs(5);

/// How long a container may take to be seen to end after SIGKILL: it may hang in a dead disk or network
/// mount, and its end is noted on a slow card.
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// What a node of the version before is told of.
const OLDER: &str = "the container's node runs an older version of midge, which does not know this: \
     upgrade it, or use midge exec TASK kill";

/// Waits for a container of this node to end, from now on.
async fn end_of(
    shared: &Shared,
    task: &TaskId,
    removed: bool,
) -> Result<Receiver<TaskStatus>, Stop> {
    let member = shared.member().ok_or_else(|| Stop::Refused(not_in_swarm(), None))?;
    let end = member.handle.watch_end(task.clone(), removed, AGENT_LIMIT).await;
    let end = end.map_err(|refusal| Stop::Refused(refusal, None))?;
    end.ok_or_else(|| ExecError::NoContainer(task.clone()).into())
}

/// Sends a signal to a container of this node, and tells so; none is the one it is stopped with.
async fn send(shared: &Shared, task: &TaskId, number: Option<u32>) -> Result<(), ExecError> {
    let number = shared.containers.runtime().signal(task, number).await?;
    shared.containers.teller().container(task, "kill", &[("signal", number.to_string())]);
    Ok(())
}

/// Waits for the end of a container that was killed.
async fn killed(task: &TaskId, end: &Receiver<TaskStatus>) -> Result<(), Stop> {
    match within(KILL_LIMIT, end.recv()).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err(shutting_down()),
        None => {
            let text =
                format!("container {task} was killed, and its end not seen within {KILL_LIMIT:?}");
            Err(Stop::Refused(Refusal::new(Class::Unavailable, text), None))
        }
    }
}

fn shutting_down() -> Stop {
    let text = "the daemon of the container's node is shutting down";
    Stop::Refused(Refusal::new(Class::Unavailable, text), None)
}

/// Sends a signal to a container of this node.
pub(super) async fn signal(shared: &Shared, task: &TaskId, number: u32) -> Done {
    if number == signal::KILL {
        let end = end_of(shared, task, false).await?;
        send(shared, task, Some(number)).await?;
        killed(task, &end).await?;
    } else {
        send(shared, task, Some(number)).await?;
    }
    Ok(ContainerFrame::Done)
}

/// Ends a container of this node. It is killed at the end of its grace period also where nobody waits
/// for that any more.
pub(super) async fn stop(
    shared: &Arc<Shared>,
    task: &TaskId,
    number: Option<u32>,
    grace: Option<Duration>,
    receiver: ByteReceiver,
    turn: SemaphoreGuardArc,
) -> Done {
    let end = end_of(shared, task, false).await?;
    send(shared, task, number).await?;
    let (shared, task) = (Arc::clone(shared), task.clone());
    let mut work = smol::spawn(async move {
        let _turn = turn;
        see_to_end(&shared, &task, &end, grace).await
    });
    let left = async { Err(gone(receiver).await) };
    let ended = async { (&mut work).await }.or(left).await;
    if grace.is_some() && matches!(ended, Err(Stop::Broken(_))) {
        work.detach();
    }
    ended.map(|()| ContainerFrame::Done)
}

async fn see_to_end(
    shared: &Shared,
    task: &TaskId,
    end: &Receiver<TaskStatus>,
    grace: Option<Duration>,
) -> Result<(), Stop> {
    let ended = match grace {
        Some(grace) => within(grace, end.recv()).await,
        None => Some(end.recv().await),
    };
    match ended {
        Some(Ok(_)) => {}
        Some(Err(_)) => return Err(shutting_down()),
        None => {
            match send(shared, task, Some(signal::KILL)).await {
                // It has ended at the last moment, which is still to be seen.
                Ok(()) | Err(ExecError::NotRunning(_) | ExecError::NoContainer(_)) => {}
                Err(error) => {
                    tracing::warn!(%task, %error, "a container outlives its grace period");
                    return Err(error.into());
                }
            }
            killed(task, end).await?;
        }
    }
    shared.containers.teller().container(task, "stop", &[]);
    Ok(())
}

/// Waits for the end of a container of this node.
pub(super) async fn wait(
    shared: &Shared,
    task: &TaskId,
    removed: bool,
    receiver: ByteReceiver,
) -> Done {
    let end = end_of(shared, task, removed).await?;
    let ended = async {
        let status = end.recv().await.map_err(|_| shutting_down())?;
        let reason = match status.exit_code {
            Some(_) => String::new(),
            None if status.error.is_empty() => format!("it did not run: {}", status.message),
            None => status.error,
        };
        Ok(ContainerFrame::Exited { code: status.exit_code.unwrap_or(EXIT_UNKNOWN), reason })
    };
    ended.or(async { Err(gone(receiver).await) }).await
}

/// Asks a container's node. What one of the version before cannot read, it refuses as unreadable.
async fn ask(shared: &Shared, place: &Place, op: ContainerOp) -> Result<Line, Refusal> {
    exec::ask(shared, place, op).await.map_err(explained)
}

fn explained(refusal: Refusal) -> Refusal {
    if refusal.may_be_of_an_older_peer() {
        Refusal::new(Class::Unsupported, OLDER)
    } else {
        refusal
    }
}

/// Asks a container's node for something that it says it has done.
async fn ask_to_do(
    shared: &Shared,
    place: &Place,
    op: ContainerOp,
    limit: Option<Duration>,
) -> Result<(), Refusal> {
    let mut line = ask(shared, place, op).await?;
    let answer = match limit {
        Some(limit) => line.answers().within(limit).await,
        None => line.answers().more().await,
    };
    let lost = |error: Unanswered| {
        let text = format!("{error}; whether the container got the signal is not known");
        Refusal::new(Class::Unavailable, text)
    };
    match exec::granted(answer.map_err(lost)?)? {
        ContainerFrame::Done => Ok(()),
        _ => Err(exec::oddly()),
    }
}

/// Sends a signal to a container, wherever it is.
pub(crate) async fn ask_signal(shared: &Shared, place: Place, number: u32) -> Result<(), Refusal> {
    let op = ContainerOp::Signal { number };
    ask_to_do(shared, &place, op, Some(exec::ANSWER_LIMIT)).await
}

/// Ends a container, wherever it is.
pub(crate) async fn ask_stop(
    shared: &Shared,
    place: Place,
    options: StopOptions,
) -> Result<(), Refusal> {
    let StopOptions { signal, grace } = options;
    // Twice: a containerd that is slow is asked at the beginning and at the end.
    let limit = grace.map(|grace| grace.saturating_add(2 * exec::ANSWER_LIMIT));
    ask_to_do(shared, &place, ContainerOp::Stop { signal, grace }, limit).await
}

/// Waits for the end of a container, wherever it is.
pub(crate) async fn ask_end(
    shared: &Shared,
    place: Place,
    removed: bool,
) -> Result<BoxFuture<'static, Result<ContainerExit, Refusal>>, Refusal> {
    let mut line = ask(shared, &place, ContainerOp::Wait { removed }).await?;
    Ok(Box::pin(async move {
        match exec::next(line.answers()).await? {
            ContainerFrame::Exited { code, reason } => Ok(ContainerExit { code, reason }),
            _ => Err(exec::oddly()),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ContainerRequest, DecodeError, HEADER_LEN, StreamRequest, decode, encode};

    #[test]
    fn that_a_node_is_older_is_said() {
        let op = ContainerOp::Wait { removed: true };
        let request = ContainerRequest { task: TaskId::from_bits(1), op };
        let mut frame = encode(&StreamRequest::Container(Box::new(request))).unwrap();
        // As that node reads it: an operation that it does not know.
        let at = frame.len() - 2;
        frame[at] = 99;
        let unread = decode::<StreamRequest>(&frame[HEADER_LEN..]).unwrap_err();
        assert!(matches!(unread, DecodeError::Malformed(_)), "which is refused as invalid");
        let told = explained(Refusal::new(Class::Invalid, unread.to_string()));
        assert_eq!(told, Refusal::new(Class::Unsupported, OLDER));
        let away = Refusal::new(Class::Unavailable, "the node is not connected");
        assert_eq!(explained(away.clone()), away);
    }
}
