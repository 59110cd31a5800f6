//! The init of containers that ask for one: hands signals on and reaps orphans, as Docker's does.
//!
//! Runs as process 1 of a container, before any runtime is started; the kernel ends what is left
//! in the container when it ends.

use super::signals;
use rustix::process::{Pid, WaitOptions};
use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// What shells answer where the command is not there, or may not be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// What shells add to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;

/// Runs the command in `args` (an optional `--` first) and returns its exit status.
#[must_use]
pub fn init_main(args: &[OsString]) -> ExitCode {
    ExitCode::from(run(args))
}

pub(super) fn run(args: &[OsString]) -> u8 {
    let args = args.strip_prefix(&[OsString::from("--")]).unwrap_or(args);
    let Some((program, rest)) = args.split_first() else {
        complain("no command was given");
        return NOT_FOUND;
    };
    signals::block_all();
    // The standard library gives the child an empty signal mask again.
    let child = match Command::new(program).args(rest).process_group(0).spawn() {
        Ok(child) => child,
        Err(error) => {
            complain(&format!("cannot run {}: {error}", program.display()));
            let missing = error.kind() == io::ErrorKind::NotFound;
            return if missing { NOT_FOUND } else { NOT_EXECUTABLE };
        }
    };
    let process = child.id().cast_signed();
    if let Some(group) = Pid::from_raw(process) {
        // Fails where there is no terminal, which needs no foreground then.
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    }
    loop {
        match signals::wait() {
            libc::SIGCHLD => {
                if let Some(code) = reap(process) {
                    return code;
                }
            }
            signal if signal > 0 => signals::send(process, signal),
            _ => {}
        }
    }
}

/// Takes every process that ended; returns the command's exit status once it is among them.
fn reap(command: i32) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if process.as_raw_nonzero().get() == command {
            let by_signal = status.terminating_signal().map(|signal| BY_SIGNAL + signal);
            let exit = status.exit_status().or(by_signal).unwrap_or(BY_SIGNAL);
            code = Some(u8::try_from(exit & 0xff).unwrap_or(u8::MAX));
        }
    }
    code
}

#[expect(clippy::print_stderr, reason = "the container's own log is where its user looks")]
fn complain(message: &str) {
    eprintln!("midge init: {message}");
}
