//! Options and commands that Swarm has and midge does not yet: refused by name, never ignored.

use super::exit::CliError;
use crate::types::absent;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Swarm's options of `service create` and `service update` that are not there yet.
const SERVICE: &[&str] = &[
    "--config",
    "--config-add",
    "--config-rm",
    "--credential-spec",
    "--secret",
    "--secret-add",
    "--secret-rm",
];

/// The same of `swarm init`, `swarm join` and `swarm update`.
const SWARM: &[&str] = &[
    "--data-path-addr",
    "--data-path-port",
    "--default-addr-pool",
    "--default-addr-pool-mask-length",
    "--external-ca",
    "--max-snapshots",
    "--ca-cert",
    "--ca-key",
];

/// Below these words Docker has the same commands as above them.
const NOUNS: &[&str] = &["midge", "midge image"];

/// Returns what to say about an unknown option or command that Swarm has; `path` is the command that
/// the known words before it name.
pub(super) fn explain(error: &clap::Error, path: &str) -> Option<CliError> {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else { return None };
    let word = word.split('=').next().unwrap_or(word);
    if kind == ContextKind::InvalidSubcommand {
        let absent = absent::command(word).filter(|_| NOUNS.contains(&path))?;
        return Some(CliError::usage(format!("there is no {path} {word}")).hint(absent.advice));
    }
    let known = SERVICE.contains(&word) || SWARM.contains(&word);
    let error = CliError::usage(format!("{word} is not supported yet"));
    // `--secret-add` is about secrets.
    let noun = word.trim_start_matches('-').split('-').next().unwrap_or_default();
    known.then(|| match absent::command(noun) {
        Some(absent) => error.hint(absent.advice),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definition;

    #[test]
    fn what_there_is_is_not_called_absent() {
        for command in definition::command().get_subcommands() {
            assert!(absent::command(command.get_name()).is_none(), "{}", command.get_name());
        }
    }
}
