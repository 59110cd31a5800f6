//! containerd's exec'd processes: what runs in a container beside its first process.

use super::link::{CALL_LIMIT, CallError, Link, RUN_LIMIT, found};
use crate::types::TerminalSize;
use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest,
    StartRequest, WaitRequest, tasks_client::TasksClient,
};
use std::time::Duration;

/// How containerd names the OCI description of a process among its types.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Names an exec'd process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct Key {
    pub(in crate::runtime) container: String,
    pub(in crate::runtime) exec: String,
}

/// Where a process's streams are: paths of fifos, empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Stdio {
    pub(in crate::runtime) stdin: String,
    pub(in crate::runtime) stdout: String,
    pub(in crate::runtime) stderr: String,
    pub(in crate::runtime) terminal: bool,
}

/// Records a process, without letting it run. `process` is its OCI description, as JSON.
pub(in crate::runtime) async fn create(
    link: &Link,
    key: &Key,
    process: Vec<u8>,
    stdio: Stdio,
) -> Result<(), CallError> {
    let spec = prost_types::Any { type_url: PROCESS_TYPE.to_owned(), value: process };
    let request = link.request(ExecProcessRequest {
        container_id: key.container.clone(),
        exec_id: key.exec.clone(),
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: stdio.terminal,
        spec: Some(spec),
    });
    let made = link.call("tasks.exec", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).exec(request).await
    });
    made.await.map(|_| ())
}

/// Lets the process run; returns its id.
pub(in crate::runtime) async fn start(link: &Link, key: &Key) -> Result<u32, CallError> {
    let (container_id, exec_id) = (key.container.clone(), key.exec.clone());
    let request = link.request(StartRequest { container_id, exec_id });
    let started = link.call("tasks.start", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).start(request).await
    });
    Ok(started.await?.pid)
}

/// Sends a signal. None where nothing is there to take it.
pub(in crate::runtime) async fn kill(
    link: &Link,
    key: &Key,
    signal: u32,
) -> Result<Option<()>, CallError> {
    let (container_id, exec_id) = (key.container.clone(), key.exec.clone());
    let request = link.request(KillRequest { container_id, exec_id, signal, all: false });
    let sent = link.call("tasks.kill", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).kill(request).await
    });
    found(sent.await)
}

/// Waits until the process ends, at most for `limit`; returns its exit status. None where there is
/// no such process; an error of the kind [`CallError::Late`] where it still runs.
pub(in crate::runtime) async fn wait(
    link: &Link,
    key: &Key,
    limit: Duration,
) -> Result<Option<i32>, CallError> {
    let (container_id, exec_id) = (key.container.clone(), key.exec.clone());
    let request = link.request(WaitRequest { container_id, exec_id });
    let ended = link.call("tasks.wait", limit, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).wait(request).await
    });
    Ok(found(ended.await)?.map(|response| response.exit_status.cast_signed()))
}

/// Tells the process's terminal its size.
pub(in crate::runtime) async fn resize(
    link: &Link,
    key: &Key,
    size: TerminalSize,
) -> Result<(), CallError> {
    let request = link.request(ResizePtyRequest {
        container_id: key.container.clone(),
        exec_id: key.exec.clone(),
        width: size.width.into(),
        height: size.height.into(),
    });
    let resized = link.call("tasks.resize", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).resize_pty(request).await
    });
    resized.await.map(|_| ())
}

/// Lets the process see the end of its input, once nobody else holds the fifo for writing.
pub(in crate::runtime) async fn close_stdin(link: &Link, key: &Key) -> Result<(), CallError> {
    let (container_id, exec_id) = (key.container.clone(), key.exec.clone());
    let request = link.request(CloseIoRequest { container_id, exec_id, stdin: true });
    let closed = link.call("tasks.close_io", CALL_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).close_io(request).await
    });
    found(closed.await).map(|_| ())
}

/// Forgets a process that ended; one that is not there is forgotten.
pub(in crate::runtime) async fn delete(link: &Link, key: &Key) -> Result<(), CallError> {
    let (container_id, exec_id) = (key.container.clone(), key.exec.clone());
    let request = link.request(DeleteProcessRequest { container_id, exec_id });
    let deleted = link.call("tasks.delete_process", RUN_LIMIT, |channel| async move {
        TasksClient::with_origin(channel, Link::origin()).delete_process(request).await
    });
    found(deleted.await).map(|_| ())
}
