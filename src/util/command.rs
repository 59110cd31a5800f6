//! Programs that are asked something: they end, within a time, and what they print fits.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often it is looked whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a program to its end, which must be a success, and returns the first `len_max` bytes of what
/// it printed. Blocks.
///
/// # Errors
///
/// It cannot be run, does not end within `limit`, or fails; then with what it said of that.
pub fn output(command: &mut Command, limit: Duration, len_max: u64) -> io::Result<Vec<u8>> {
    let printed = unnamed()?;
    let errors = unnamed()?;
    command.stdin(Stdio::null()).stdout(printed.try_clone()?).stderr(errors.try_clone()?);
    let mut child = command.spawn()?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("it did not end within {limit:?}")));
        }
        thread::sleep(LOOK_EVERY);
    };
    if !status.success() {
        let errors = content(errors, len_max)?;
        let errors = String::from_utf8_lossy(&errors).trim().to_owned();
        return Err(io::Error::other(format!("{status}: {errors}")));
    }
    content(printed, len_max)
}

/// Makes a file without a name: what is printed fits it, however much it is, while nobody reads.
fn unnamed() -> io::Result<fs::File> {
    Ok(rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn content(mut file: fs::File, len_max: u64) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(len_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<String> {
        let printed = output(Command::new("sh").args(["-c", script]), limit, 4)?;
        Ok(String::from_utf8(printed).unwrap())
    }

    #[test]
    fn what_it_prints_is_returned_as_far_as_it_may() {
        let minute = Duration::from_mins(1);
        assert_eq!(shell("printf 123", minute).unwrap(), "123");
        assert_eq!(shell("printf 123456", minute).unwrap(), "1234");
        let error = shell("echo why >&2; exit 3", minute).unwrap_err().to_string();
        assert_eq!(error, "exit status: 3: why");
        assert_eq!(
            output(&mut Command::new("/nowhere"), minute, 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let error = shell("exec sleep 600", Duration::from_millis(1)).unwrap_err().to_string();
        assert_eq!(error, "it did not end within 1ms");
    }
}
