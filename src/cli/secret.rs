//! Secrets that a person or a script hands to a command: never as an argument, which everybody on
//! the machine can read.

use super::{
    exit::{CliError, Exit},
    output,
};
use crate::util::unblock::unblock;
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt as _, future::or};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _},
    path::Path,
};

/// The longest that is read: beyond any passphrase, and short enough to notice a wrong file.
const LEN_MAX: u64 = 4096;

/// The longest that is read where it may have several lines; a key file of a cloud has some 3 KiB.
const INPUT_MAX: u64 = 64 << 10;

/// Reads a secret: from the first line of `file`, else from the environment, else from the terminal,
/// `twice` where a mistake would only show when it is too late.
pub(super) fn read(
    file: Option<&Path>,
    variable: &str,
    name: &str,
    twice: bool,
) -> Result<String, CliError> {
    let secret = if let Some(path) = file {
        first_line(path).map_err(|error| {
            CliError::failure(format!("cannot read {}: {error}", path.display()))
        })?
    } else if let Some(value) = std::env::var_os(variable) {
        let text = value.into_string();
        text.map_err(|_| CliError::usage(format!("{variable} is not text")))?
    } else if io::stdin().is_terminal() {
        let secret = ask(&format!("Enter the {name}: "))?;
        if twice && ask(&format!("Repeat the {name}: "))? != secret {
            return Err(CliError::failure(format!("the two {name}s differ")));
        }
        secret
    } else {
        return Err(CliError::usage(format!("no {name} was given"))
            .hint(format!("set {variable}, name a file, or run the command on a terminal")));
    };
    if secret.is_empty() {
        return Err(CliError::usage(format!("the {name} is empty")));
    }
    Ok(secret)
}

/// Reads a secret from the terminal after `question`, or else the first line of standard input.
pub(super) fn from_input(question: &str) -> Result<String, CliError> {
    if io::stdin().is_terminal() {
        return ask(question);
    }
    next_line()
}

/// Reads all of standard input as one secret, without the line's end after it: some registries take a
/// file of several lines as the password.
pub(super) fn all_input() -> Result<String, CliError> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(INPUT_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| unread(&error))?;
    if read as u64 > INPUT_MAX {
        return Err(CliError::usage(format!("standard input has more than {INPUT_MAX} bytes")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

/// Reads what need not be hidden from the terminal.
pub(super) fn visible(question: &str) -> Result<String, CliError> {
    output::raw_note(question.as_bytes());
    next_line()
}

fn next_line() -> Result<String, CliError> {
    let mut line = String::new();
    let _read =
        io::stdin().lock().take(LEN_MAX).read_line(&mut line).map_err(|error| unread(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn unread(error: &io::Error) -> CliError {
    CliError::failure(format!("cannot read standard input: {error}"))
}

fn first_line(path: &Path) -> io::Result<String> {
    let mut line = String::new();
    let _read = BufReader::new(File::open(path)?.take(LEN_MAX)).read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// A terminal that does not show what is typed, until it is dropped.
struct Silent(Termios);

impl Silent {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}

fn ask(question: &str) -> Result<String, CliError> {
    let failed =
        |error: io::Error| CliError::failure(format!("cannot read from the terminal: {error}"));
    // Whatever ends the program here must not leave a terminal behind that shows nothing.
    let ends = [Signal::Int, Signal::Quit, Signal::Term, Signal::Hup];
    let mut signals = Signals::new(ends).map_err(failed)?;
    let silent = Silent::new().map_err(failed)?;
    output::raw_note(question.as_bytes());
    let line = unblock(|| {
        let mut line = String::new();
        io::stdin().lock().take(LEN_MAX).read_line(&mut line).map(|_| Some(line))
    });
    let ended = async {
        signals.next().await;
        Ok(None)
    };
    let line = smol::block_on(or(line, ended));
    drop(silent);
    let Some(line) = line.map_err(failed)? else {
        let message = "\ninterrupted".to_owned();
        return Err(CliError { exit: Exit::Interrupted, message, hint: None });
    };
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (text, secret) in [("a b \n", "a b "), ("x\r\ny\n", "x"), ("x", "x")] {
            std::fs::write(&path, text).unwrap();
            let read = read(Some(&path), "MIDGE_TEST_NONE", "passphrase", false);
            assert_eq!(read.map_err(|error| error.message), Ok(secret.to_owned()));
        }
        std::fs::write(&path, "\nsecond").unwrap();
        assert!(read(Some(&path), "MIDGE_TEST_NONE", "passphrase", false).is_err());
        let missing = dir.path().join("missing");
        assert!(read(Some(&missing), "MIDGE_TEST_NONE", "passphrase", false).is_err());
    }
}
