//! Signals to containers, their end by a user's wish, and waiting for it.

use super::{
    super::{
        error::invalid,
        local::{BoxFuture, Container, ContainerExit, ContainerState, LocalNode, StopOptions},
        route::{Call, Reply, empty, json, streaming},
        stream::streamed,
    },
    target::{self, Target},
};
use crate::{
    cluster::{Class, Refusal},
    types::{EXIT_UNKNOWN, STOP_GRACE, signal},
};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::stream;
use http::StatusCode;
use serde_json::{Value, json as value};
use std::time::Duration;

/// How long after its node was lost from sight a container that is waited for is asked after again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What stands for the exit status where waiting failed, as Docker has it.
const NO_END: i32 = -1;

/// Says in Docker's words what came to nothing.
fn cannot(verb: &str, call: &Call, refusal: Refusal) -> Refusal {
    let message = format!("cannot {verb} container: {}: {}", call.name(), refusal.message);
    Refusal { message, ..refusal }
}

pub(crate) async fn kill(call: Call) -> Reply {
    match killed(&call).await {
        Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
        Err(refusal) => Err(cannot("kill", &call, refusal)),
    }
}

async fn killed(call: &Call) -> Result<(), Refusal> {
    let number = number(call)?.unwrap_or(signal::KILL);
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    call.node.signal(found.place, number).await
}

/// Returns the signal that is asked for.
fn number(call: &Call) -> Result<Option<u32>, Refusal> {
    let Some(text) = call.query.get("signal") else { return Ok(None) };
    match signal::parse(text) {
        Some(number) => Ok(Some(number)),
        None => Err(invalid(format!("invalid signal: {text}"))),
    }
}

/// Returns how a container is to be ended: as it is asked for, else as its task has it.
fn options(call: &Call, container: &Container) -> Result<StopOptions, Refusal> {
    let spec = &container.spec.container;
    let signal = number(call)?.or_else(|| signal::parse(&spec.stop_signal));
    let grace = match call.query.get("t") {
        None => Some(spec.stop_grace.unwrap_or(STOP_GRACE)),
        Some(text) => {
            let seconds: i64 = text
                .parse()
                .map_err(|_| invalid(format!("invalid number of seconds: {text:?}")))?;
            u64::try_from(seconds).ok().map(Duration::from_secs)
        }
    };
    Ok(StopOptions { signal, grace })
}

pub(crate) async fn stop(call: Call) -> Reply {
    let found = target::find(call.node.as_ref(), call.name()).await?;
    match stopped(&call, found).await {
        Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
        // It does not run.
        Err(refusal) if refusal.class == Class::Conflict => Ok(empty(StatusCode::NOT_MODIFIED)),
        Err(refusal) => Err(cannot("stop", &call, refusal)),
    }
}

async fn stopped(call: &Call, found: Target) -> Result<(), Refusal> {
    let options = options(call, &found.container)?;
    found.must_run()?;
    call.node.stop(found.place, options).await
}

/// Ends a container whose place another one takes: a task is never started twice.
pub(crate) async fn restart(call: Call) -> Reply {
    let found = target::find(call.node.as_ref(), call.name()).await?;
    match restarted(&call, found).await {
        Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
        Err(refusal) => Err(cannot("restart", &call, refusal)),
    }
}

async fn restarted(call: &Call, found: Target) -> Result<(), Refusal> {
    found.must_run()?;
    if !found.container.is_replaced {
        let text = "its service's restart policy may leave its place empty; use midge service \
                    update --force SERVICE, which makes all its containers anew";
        return Err(Refusal::new(Class::Conflict, text));
    }
    stopped(call, found).await
}

pub(crate) async fn wait(call: Call) -> Reply {
    let removed = match call.query.text("condition").as_str() {
        // What has ended does not run again: its next exit is the one that it had.
        "" | "not-running" | "next-exit" => false,
        "removed" => true,
        other => return Err(invalid(format!("invalid condition: {other:?}"))),
    };
    let found = target::find(call.node.as_ref(), call.name()).await?;
    if !removed && let Some(exit) = past(&found.container) {
        return json(&shown(&Ok(exit)));
    }
    let end = call.node.end(found.place.clone(), removed).await?;
    // Nothing is left to do for a client that leaves: the wait is dropped with the answer's body.
    let node = call.node;
    let line = async move {
        let outcome = outlast(node.as_ref(), found, removed, end).await;
        Bytes::from(format!("{}\n", shown(&outcome)))
    };
    Ok(streaming("application/json", streamed(stream::once_future(line))))
}

type End = BoxFuture<'static, Result<ContainerExit, Refusal>>;

/// Waits also past a restart of the daemon on the container's node and past a cut link.
async fn outlast(
    node: &dyn LocalNode,
    mut found: Target,
    removed: bool,
    mut end: End,
) -> Result<ContainerExit, Refusal> {
    loop {
        match end.await {
            // A node may not have heard yet of a task that is assigned to it.
            Err(refusal) if matches!(refusal.class, Class::Unavailable | Class::NotFound) => {}
            outcome => return outcome,
        }
        end = loop {
            Timer::after(LOOK_AGAIN).await;
            match target::find(node, &found.container.id).await {
                Ok(again) => found = again,
                Err(refusal) if refusal.class != Class::NotFound => continue,
                Err(_) if removed => return Ok(past(&found.container).unwrap_or_else(unseen)),
                Err(refusal) => return Err(refusal),
            }
            if !removed && let Some(exit) = past(&found.container) {
                return Ok(exit);
            }
            match node.end(found.place.clone(), removed).await {
                Ok(end) => break end,
                Err(refusal) if refusal.class == Class::Unavailable => {}
                Err(refusal) => return Err(refusal),
            }
        };
    }
}

/// Returns how a container ended that is known to have.
fn past(container: &Container) -> Option<ContainerExit> {
    (container.state == ContainerState::Exited).then(|| match container.exit_code {
        Some(code) => ContainerExit { code, reason: String::new() },
        None => unseen(),
    })
}

fn unseen() -> ContainerExit {
    ContainerExit { code: EXIT_UNKNOWN, reason: "its exit status is not known".to_owned() }
}

fn shown(outcome: &Result<ContainerExit, Refusal>) -> Value {
    let (code, reason) = match outcome {
        Ok(exit) => (exit.code, &exit.reason),
        Err(refusal) => (NO_END, &refusal.message),
    };
    let mut shown = value!({ "StatusCode": code });
    if !reason.is_empty() {
        shown["Error"] = value!({ "Message": reason });
    }
    shown
}
