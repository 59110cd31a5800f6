//! Options that Swarm has and midge does not yet: refused by name, never ignored.

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

/// Swarm's commands that are not there yet.
const COMMANDS: &[&str] = &["stack", "secret", "config", "network", "run", "build", "compose"];

/// Returns what to say about an unknown option or command that Swarm has.
pub(super) fn explain(error: &clap::Error) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else { return None };
    let word = word.split('=').next().unwrap_or(word);
    let known = SERVICE.contains(&word) || SWARM.contains(&word) || COMMANDS.contains(&word);
    known.then(|| format!("error: {word} is not supported yet"))
}
