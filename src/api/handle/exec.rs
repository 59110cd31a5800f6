//! Commands in running containers.

use super::{
    super::{
        error::invalid,
        local::{ExecState, StartOptions, Started},
        route::{Call, Reply, empty, json, json_with, streaming},
        stream::{ExecBytes, streamed},
        upgrade,
    },
    target,
};
use crate::{
    cluster::Refusal,
    types::{ExecSpec, TerminalSize},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json as value;

/// Docker's body of a new command.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: String,
    working_dir: String,
    privileged: bool,
}

/// Docker's body of a command's start.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Start {
    detach: bool,
    /// Height and width.
    console_size: Option<[u16; 2]>,
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let body: Create = call.json().await?;
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    let command = body.cmd.unwrap_or_default();
    if command.is_empty() {
        return Err(invalid("No exec command specified"));
    }
    let spec = ExecSpec {
        command,
        env: body.env.unwrap_or_default(),
        user: body.user,
        dir: body.working_dir,
        privileged: body.privileged,
        tty: body.tty,
        stdin: body.attach_stdin,
        stdout: body.attach_stdout,
        stderr: body.attach_stderr,
    };
    let id = call.node.exec_create(found.place, spec).await?;
    json_with(StatusCode::CREATED, &value!({ "Id": id }))
}

pub(crate) async fn start(mut call: Call) -> Reply {
    let body: Start = call.json().await?;
    let size = body.console_size.map(|[height, width]| TerminalSize { width, height });
    let options = StartOptions { detach: body.detach, size };
    let started = call.node.exec_start(call.name().to_owned(), options).await?;
    let exec = match started {
        Started::Detached => return Ok(empty(StatusCode::OK)),
        Started::Failed { message, .. } if body.detach => return Err(invalid(message)),
        Started::Failed { message, tty } => ExecBytes::failed(&message, tty),
        Started::Attached(exec) => ExecBytes::running(exec),
    };
    match call.upgrade.take() {
        Some(upgrade) => Ok(upgrade::hijack(upgrade, exec)),
        None => {
            // Without a connection of its own, the command gets no input.
            let kind = exec.kind();
            Ok(streaming(kind, streamed(exec.output_only())))
        }
    }
}

pub(crate) async fn resize(call: Call) -> Reply {
    let size = size(&call)?;
    call.node.exec_resize(call.name().to_owned(), size).await?;
    Ok(empty(StatusCode::OK))
}

fn size(call: &Call) -> Result<TerminalSize, Refusal> {
    let number = |name: &str| {
        let text = call.query.text(name);
        text.parse::<u16>().map_err(|_| invalid(format!("invalid terminal size {name}={text:?}")))
    };
    Ok(TerminalSize { width: number("w")?, height: number("h")? })
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let id = call.name().to_owned();
    let ExecState { task, spec, running, pid, exit_code } =
        call.node.exec_state(id.clone()).await?;
    json(&value!({
        "ID": id,
        "Running": running,
        "ExitCode": exit_code,
        "ProcessConfig": {
            "tty": spec.tty,
            "entrypoint": spec.command.first(),
            "arguments": spec.command.get(1..).unwrap_or_default(),
            "privileged": spec.privileged,
            "user": spec.user,
        },
        "OpenStdin": spec.stdin,
        "OpenStdout": spec.stdout,
        "OpenStderr": spec.stderr,
        "CanRemove": exit_code.is_some(),
        "ContainerID": task,
        "DetachKeys": "",
        "Pid": pid,
    }))
}
