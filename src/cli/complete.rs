//! Completions for shells, and the man page: both are made of the definition.
//!
//! The shell asks this program for what may come next, so that what a script completes is what this
//! version understands, and names of services and nodes are those of the moment.

use super::{
    client::{Client, DEFAULT_HOST},
    definition,
    exit::{CliError, Exit},
    output, suggest,
};
use clap::{Arg, Args, Command, ValueEnum};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::{Bash, EnvCompleter, Fish, Zsh},
};
use std::{path::PathBuf, time::Duration};

/// By this variable a shell's script asks for completions; its value is the shell.
const VARIABLE: &str = "MIDGE_COMPLETE";

/// How long a person at the keyboard is made to wait for names; without them the rest is completed.
const NAMES_LIMIT: Duration = Duration::from_millis(800);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command, for example `service create`; midge itself where none is named
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the page of every command into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Answers a shell that asks for completions; tells whether one did.
pub(super) fn answer() -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(definition::for_completion)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), folder.as_deref())
}

pub(super) fn completion(args: &CompletionArgs) -> Result<Exit, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "midge", "midge", "midge", &mut script)
        .map_err(|error| CliError::failure(format!("cannot make the script: {error}")))?;
    output::raw(&script)?;
    Ok(Exit::Ok)
}

pub(super) fn man(args: &ManArgs) -> Result<Exit, CliError> {
    let mut command = definition::command().disable_help_subcommand(true);
    command.build();
    if let Some(dir) = &args.dir {
        let failed = |error| {
            CliError::failure(format!("cannot write the pages to {}: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(command, dir).map_err(failed)?;
        return Ok(Exit::Ok);
    }
    let mut found: &Command = &command;
    for word in &args.command {
        found = found.find_subcommand(word).ok_or_else(|| {
            CliError::usage(format!("unknown command: {} {word}", found.get_name()))
                .hint("midge --help lists the commands")
        })?;
    }
    output::raw(&page(found.clone())?)?;
    Ok(Exit::Ok)
}

fn page(command: Command) -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .manual("midge")
        .source(concat!("midge ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|error| CliError::failure(format!("cannot make the page: {error}")))?;
    Ok(page)
}

/// Lets an option or argument that takes names complete those there are: what it takes is told by
/// the name of its value.
pub(super) fn attach(argument: Arg) -> Arg {
    let Some(value) = argument.get_value_names().and_then(|names| names.first()) else {
        return argument;
    };
    // `SERVICE=REPLICAS`, `CONTAINER:PATH` and `SERVICE|TASK` begin with names as well.
    let nouns = value.split(['=', ':']).next().unwrap_or("").to_lowercase();
    let kinds: Vec<&'static suggest::Kind> = suggest::KINDS
        .iter()
        .filter(|kind| nouns.split('|').any(|noun| noun == kind.noun))
        .collect();
    if kinds.is_empty() {
        return argument;
    }
    argument.add(ArgValueCandidates::new(move || names(&kinds)))
}

fn names(kinds: &[&suggest::Kind]) -> Vec<CompletionCandidate> {
    let host = std::env::var("MIDGE_HOST").unwrap_or_else(|_| DEFAULT_HOST.to_owned());
    let Ok(client) = Client::new(&host) else { return Vec::new() };
    let mut names = Vec::new();
    for kind in kinds {
        if let Some(answer) = client.get_within(kind.list, NAMES_LIMIT) {
            names.extend(kind.names(&answer));
        }
    }
    names.into_iter().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_its_script() {
        for shell in [&Bash as &dyn EnvCompleter, &Zsh, &Fish] {
            let mut script = Vec::new();
            shell.write_registration(VARIABLE, "midge", "midge", "midge", &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("midge"), "{script}");
        }
    }

    fn check(words: &[&str], expected: &[&str]) {
        let mut command = definition::for_completion();
        let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        let last = words.len() - 1;
        let found = clap_complete::engine::complete(&mut command, words, last, None).unwrap();
        let found: Vec<String> =
            found.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect();
        for word in expected {
            assert!(found.iter().any(|found| found == word), "{word} is not among {found:?}");
        }
    }

    #[test]
    fn commands_options_and_values_are_completed() {
        check(&["midge", "ser"], &["service"]);
        check(&["midge", "service", ""], &["create", "ls", "ps"]);
        check(&["midge", "service", "ls", "--f"], &["--filter", "--format"]);
        check(&["midge", "node", "update", "--availability", ""], &["active", "pause", "drain"]);
    }

    #[test]
    fn what_takes_names_completes_names() {
        let command = definition::command();
        let takes = |path: &[&str], id: &str| {
            let found = path.iter().try_fold(&command, |at, name| at.find_subcommand(name));
            let found = found.unwrap().get_arguments().find(|argument| argument.get_id() == id);
            found.unwrap().get::<ArgValueCandidates>().is_some()
        };
        assert!(takes(&["service", "rm"], "services"));
        assert!(takes(&["service", "scale"], "scales"));
        assert!(takes(&["service", "logs"], "name"));
        assert!(takes(&["node", "update"], "node"));
        assert!(!takes(&["service", "create"], "name"));
    }

    #[test]
    fn every_command_has_a_page() {
        let mut command = definition::command();
        command.build();
        let text = String::from_utf8(page(command.clone()).unwrap()).unwrap();
        assert!(text.contains(".TH midge 1") && text.contains("Exit codes"), "{text}");
        for noun in command.get_subcommands() {
            for verb in noun.get_subcommands() {
                let text = String::from_utf8(page(verb.clone()).unwrap()).unwrap();
                let name = format!("{}\\-{}", noun.get_name(), verb.get_name());
                assert!(text.contains(verb.get_name()), "{name}: {text}");
            }
        }
    }
}
