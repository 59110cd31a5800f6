//! `midge exec`.

use super::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::text,
    output,
    pieces::{Pieces, STDERR},
};
use crate::util::unblock::unblock;
use clap::Args;
use futures_lite::{FutureExt as _, StreamExt as _};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use smol::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::UnixStream,
};
use std::{
    io::{self, IsTerminal, Read},
    time::Duration,
};

/// What is read at once of the terminal and of the command.
const READ_MAX: usize = 32 << 10;

/// Pieces of input between the thread that reads and the connection.
const INPUT_MAX: usize = 4;

/// How often the daemon is asked how a command ended that has just closed its streams, and the
/// pause between: it notes the end before it closes them.
const END_ATTEMPTS: u32 = 50;
const END_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Run the command without waiting for it
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable (can be repeated)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command every capability
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run as this user: NAME|UID[:GROUP|GID]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Run in this folder of the container
    #[arg(short, long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// A task of any node (id, SERVICE.SLOT), or a container of this one
    #[arg(value_name = "TASK|CONTAINER")]
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(client: &Client, args: &ExecArgs) -> Result<Exit, CliError> {
    let attached = !args.detach;
    let stdin = attached && args.interactive;
    if args.tty && stdin && !io::stdin().is_terminal() {
        return Err(CliError::failure("the input device is not a TTY")
            .hint("leave --tty out where input comes from a file or a pipe"));
    }
    // As Docker: a name without a value takes the value from here.
    let env: Vec<String> = args.env.iter().filter_map(|variable| resolved(variable)).collect();
    let body = json!({
        "AttachStdin": stdin,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": args.tty,
        "Cmd": args.command,
        "Env": env,
        "User": args.user,
        "WorkingDir": args.workdir,
        "Privileged": args.privileged,
    });
    let made = client.post(&format!("/containers/{}/exec", encode(&args.container)), body)?;
    let id = text(&made, "/Id").to_owned();
    let path = format!("/exec/{id}/start");
    if args.detach {
        client.post(&path, json!({ "Detach": true, "Tty": args.tty }))?;
        return Ok(Exit::Ok);
    }
    let mut start = json!({ "Detach": false, "Tty": args.tty });
    if let Some((height, width)) = size().filter(|_| args.tty) {
        start["ConsoleSize"] = json!([height, width]);
    }
    let raw = if args.tty && stdin { Raw::enter()? } else { None };
    let session = Session { client: client.clone(), id: id.clone(), tty: args.tty, stdin };
    let carried = smol::block_on(session.run(&path, &start));
    drop(raw);
    let is_read = carried?;
    match ended(client, &id)? {
        Some(exit) => Ok(exit),
        // Nobody read what the command printed, and it has not noticed yet.
        None if !is_read => Ok(Exit::Ok),
        None => Err(CliError::failure("the connection ended before the command did")),
    }
}

fn resolved(variable: &str) -> Option<String> {
    if variable.contains('=') {
        return Some(variable.to_owned());
    }
    std::env::var(variable).ok().map(|value| format!("{variable}={value}"))
}

/// Returns height and width of the terminal, where there is one.
fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    Some((size.ws_row, size.ws_col)).filter(|(height, width)| *height > 0 && *width > 0)
}

/// Waits for the exit status of a command that has ended; none where it goes on.
fn ended(client: &Client, id: &str) -> Result<Option<Exit>, CliError> {
    for _ in 0..END_ATTEMPTS {
        let state = client.get(&format!("/exec/{id}/json"))?;
        if state["Running"] == Value::Bool(false)
            && let Some(code) = state["ExitCode"].as_i64()
        {
            return Ok(Some(match u8::try_from(code) {
                Ok(0) => Exit::Ok,
                Ok(code) => Exit::Of(code),
                Err(_) => Exit::Failure,
            }));
        }
        std::thread::sleep(END_PAUSE);
    }
    Ok(None)
}

/// The terminal while every key goes to the command; as it was before, once dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Option<Self>, CliError> {
        let failed = |error: rustix::io::Errno| {
            CliError::failure(format!("cannot set the terminal: {error}"))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal is gone where it cannot be set.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}

struct Session {
    client: Client,
    id: String,
    tty: bool,
    stdin: bool,
}

impl Session {
    /// Carries input and output until the command ends, or until nobody reads what it prints: tells
    /// whether somebody still does.
    async fn run(&self, path: &str, start: &Value) -> Result<bool, CliError> {
        let (stream, early) = self.client.hijack(path, start).await?;
        let down = self.show(stream.clone(), &early);
        let up = async {
            if let Err(error) = self.feed(stream.clone()).await {
                tracing::debug!(%error, "the command takes no more input");
            }
            futures_lite::future::pending().await
        };
        let sizes = async {
            if let Err(error) = self.follow_size().await {
                tracing::debug!(%error, "the terminal's size is not followed");
            }
            futures_lite::future::pending().await
        };
        down.or(up).or(sizes).await
    }

    async fn show(&self, mut stream: UnixStream, early: &[u8]) -> Result<bool, CliError> {
        let mut pieces = Pieces::default();
        let mut print = |bytes: &[u8]| {
            if self.tty {
                return output::raw_while_read(bytes);
            }
            for (stream, piece) in pieces.feed(bytes)? {
                if stream == STDERR {
                    output::raw_note(&piece);
                } else if !output::raw_while_read(&piece)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let mut is_read = print(early)?;
        let mut buffer = vec![0; READ_MAX];
        while is_read {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(true),
                Ok(n) => is_read = print(&buffer[..n])?,
                Err(error) => {
                    let text = format!("the connection to the midge daemon broke: {error}");
                    return Err(CliError { exit: Exit::Unreachable, message: text, hint: None });
                }
            }
        }
        Ok(false)
    }

    /// Hands standard input on, and its end.
    async fn feed(&self, mut stream: UnixStream) -> io::Result<()> {
        if self.stdin {
            let (sender, pieces) = async_channel::bounded(INPUT_MAX);
            // A thread of its own: a read of a terminal cannot be given up.
            std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
                let mut buffer = vec![0; READ_MAX];
                loop {
                    match io::stdin().lock().read(&mut buffer) {
                        Ok(n) if n > 0 => {
                            if sender.send_blocking(buffer[..n].to_vec()).is_err() {
                                return;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => return,
                    }
                }
            })?;
            while let Ok(piece) = pieces.recv().await {
                stream.write_all(&piece).await?;
            }
        }
        stream.shutdown(std::net::Shutdown::Write)
    }

    /// Tells the command's terminal whenever this one changes its size.
    async fn follow_size(&self) -> Result<(), CliError> {
        if !self.tty {
            return Ok(());
        }
        let signals = async_signal::Signals::new([async_signal::Signal::Winch]);
        let mut signals = signals
            .map_err(|error| CliError::failure(format!("cannot wait for signals: {error}")))?;
        while signals.next().await.is_some() {
            let Some((height, width)) = size() else { continue };
            let path = format!("/exec/{}/resize?h={height}&w={width}", self.id);
            let client = self.client.clone();
            // It waits for its answer, which the streams must not.
            unblock(move || client.post(&path, Value::Null)).await.map(|_| ())?;
        }
        Ok(())
    }
}
