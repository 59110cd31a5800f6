//! containerd's tasks: the running side of a container. (Not the cluster's tasks, of which each
//! has at most one container and so at most one of these.)

use super::{
    link::{CALL_LIMIT, CallError, Link, RUN_LIMIT, date, found},
    snapshot::to_wire,
};
use crate::{runtime::rootfs::FsMount, types::Date};
use containerd_client::{
    services::v1::{
        CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest,
        StartRequest, WaitRequest, tasks_client::TasksClient,
    },
    types::v1::{Process, Status},
};
use std::time::Duration;

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum State {
    /// runc made it; it waits for the start.
    Created,
    /// It runs, or is paused.
    Running { pid: u32 },
    /// It ended.
    Stopped { code: i32, date: Option<Date> },
}

/// Makes the process of container `id`, without letting it run.
pub(in crate::runtime) async fn create(
    link: &Link,
    id: &str,
    rootfs: Vec<FsMount>,
    log_uri: &str,
    terminal: bool,
) -> Result<(), CallError> {
    let request = link.request(CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs: rootfs.into_iter().map(to_wire).collect(),
        stdout: log_uri.to_owned(),
        stderr: if terminal { String::new() } else { log_uri.to_owned() },
        terminal,
        ..CreateTaskRequest::default()
    });
    let made = link.call("tasks.create", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).create(request).await
    });
    made.await.map(|_| ())
}

/// Lets the process run; returns its id.
pub(in crate::runtime) async fn start(link: &Link, id: &str) -> Result<u32, CallError> {
    let message = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
    let request = link.request(message);
    let started = link.call("tasks.start", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).start(request).await
    });
    Ok(started.await?.pid)
}

/// Sends a signal; to all processes of the container where `all`. None where nothing is there to
/// take it.
pub(in crate::runtime) async fn kill(
    link: &Link,
    id: &str,
    signal: u32,
    all: bool,
) -> Result<Option<()>, CallError> {
    let request = link.request(KillRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
        signal,
        all,
    });
    let sent = link.call("tasks.kill", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).kill(request).await
    });
    found(sent.await)
}

/// Waits until the process ends, at most for `limit`. None where there is no such process; an
/// error of the kind [`CallError::Late`] where it still runs.
pub(in crate::runtime) async fn wait(
    link: &Link,
    id: &str,
    limit: Duration,
) -> Result<Option<State>, CallError> {
    let message = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
    let request = link.request(message);
    let ended = link.call("tasks.wait", limit, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).wait(request).await
    });
    let response = found(ended.await)?;
    Ok(response.map(|response| State::Stopped {
        code: response.exit_status.cast_signed(),
        date: date(response.exited_at),
    }))
}

/// Returns how the process is, where there is one.
pub(in crate::runtime) async fn get(link: &Link, id: &str) -> Result<Option<State>, CallError> {
    let message = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
    let request = link.request(message);
    let response = link.call("tasks.get", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).get(request).await
    });
    Ok(found(response.await)?.and_then(|response| response.process).map(|p| state(&p)))
}

/// Returns every container's process of the namespace, with the container's id.
pub(in crate::runtime) async fn list(link: &Link) -> Result<Vec<(String, State)>, CallError> {
    let request = link.request(ListTasksRequest { filter: String::new() });
    let response = link.call("tasks.list", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).list(request).await
    });
    // containerd 1.6 leaves `container_id` empty in lists and gives the container as `id`.
    let named = |p: Process| {
        let state = state(&p);
        (if p.container_id.is_empty() { p.id } else { p.container_id }, state)
    };
    Ok(response.await?.tasks.into_iter().map(named).collect())
}

/// Deletes a process that ended, and with it the shim.
pub(in crate::runtime) async fn delete(link: &Link, id: &str) -> Result<(), CallError> {
    let request = link.request(DeleteTaskRequest { container_id: id.to_owned() });
    let deleted = link.call("tasks.delete", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).delete(request).await
    });
    found(deleted.await).map(|_| ())
}

fn state(process: &Process) -> State {
    match process.status() {
        Status::Stopped => State::Stopped {
            code: process.exit_status.cast_signed(),
            date: date(process.exited_at),
        },
        Status::Created => State::Created,
        Status::Unknown | Status::Running | Status::Paused | Status::Pausing => {
            State::Running { pid: process.pid }
        }
    }
}
