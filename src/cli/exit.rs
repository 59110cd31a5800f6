//! Exit codes, in one table, and the error that carries them.

use std::fmt;

/// How a command ends. The numbers are an interface: scripts test them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// The request failed, or was refused.
    Failure,
    /// The command line is invalid.
    Usage,
    /// The daemon does not answer.
    Unreachable,
    /// The daemon's configuration is wrong; nothing was started.
    Config,
    /// Ctrl-C, before it was known how what goes on in the background ends.
    Interrupted,
    /// As the command ended that was run in a container.
    Of(u8),
}

impl Exit {
    /// Every way of midge's own to end, in the order of the numbers.
    pub(crate) const ALL: [Self; 6] =
        [Self::Ok, Self::Failure, Self::Usage, Self::Unreachable, Self::Config, Self::Interrupted];

    /// Says what the number means, for the documentation.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failure => "the request failed or was refused",
            Self::Usage => "invalid command line",
            Self::Unreachable => "the daemon does not answer",
            Self::Config => "the daemon's configuration is wrong; nothing was started",
            Self::Interrupted => {
                "interrupted; what was asked for by then goes on in the background"
            }
            Self::Of(_) => "as the command ended that was run in a container",
        }
    }

    /// Returns the number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Config => 64,
            Self::Interrupted => 130,
            Self::Of(code) => code,
        }
    }
}

/// What went wrong, for people, with what to do about it where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    /// How the command ends.
    pub(crate) exit: Exit,
    /// What went wrong.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl CliError {
    /// Makes an error of a request that failed.
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failure, message: message.into(), hint: None }
    }

    /// Makes an error of an invalid command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn every_number_stands_for_one_thing() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }
}
