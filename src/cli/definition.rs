//! The command line as one definition: what clap derives from the types, with examples, with
//! completion of names, and with the errors that a wrong command line ends in.
//!
//! Help, completions, the man page and `docs/cli.md` are all made of it.

use super::{
    Cli, complete, examples, exit::Exit, human::parse_truth, output, style, suggest, unsupported,
};
use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory, Error, Id,
    builder::{PossibleValue, TypedValueParser, ValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
};

/// Returns the definition of the whole command line.
pub(super) fn command() -> Command {
    let mut notes = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        // Writing to a string cannot fail.
        writeln!(notes, "  {:<4}{}", exit.code(), exit.meaning()).ok();
    }
    notes.push_str(FORMATS);
    // As Docker: of an option with one value that is given twice, the last one counts.
    decorated(Cli::command().after_long_help(notes).args_override_self(true), "")
}

/// Reads a command line.
pub(super) fn parse(words: &[OsString]) -> Result<ArgMatches, Error> {
    let matches = match command().try_get_matches_from(words) {
        Err(error) if is_flag_with_value(&error) => {
            with_truths(command()).try_get_matches_from(words)?
        }
        parsed => parsed?,
    };
    check_rollback(&matches)?;
    Ok(matches)
}

/// Refuses whatever goes with `--rollback` but how to wait: the previous spec comes back as it was.
/// That it is not wanted may be said beside anything.
fn check_rollback(matches: &ArgMatches) -> Result<(), Error> {
    const FITS: [&str; 4] = ["service", "rollback", "detach", "quiet"];
    let path = ["service", "update"];
    let Some(given) =
        path.iter().try_fold(matches, |matches, name| matches.subcommand_matches(name))
    else {
        return Ok(());
    };
    let definition = command();
    let update = path.iter().try_fold(&definition, |command, name| command.find_subcommand(name));
    let mut options = update.into_iter().flat_map(Command::get_arguments).map(Arg::get_id);
    let is_given = |id: &Id| given.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    if !given.get_flag("rollback")
        || !options.any(|id| !FITS.contains(&id.as_str()) && is_given(id))
    {
        return Ok(());
    }
    let mut error = Error::new(ErrorKind::ArgumentConflict);
    error.insert(ContextKind::InvalidArg, ContextValue::String("--rollback".to_owned()));
    Err(error)
}

/// Tells whether a command line was refused for the value of a flag: `--force=true`, `-f=true`.
fn is_flag_with_value(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::TooManyValues => true,
        ErrorKind::UnknownArgument => {
            text(error, ContextKind::InvalidArg).is_some_and(|word| word == "-=")
        }
        _ => false,
    }
}

/// Lets every flag take a truth value as well, as Docker's do. Only a line that gives one is read by
/// this: help and completions would show `--force[=<FORCE>]` for `--force`.
fn with_truths(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(Truth),
        _ => argument,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_truths))
}

/// Reads the words that Go has for truth values; the usual two are shown.
#[derive(Debug, Clone)]
struct Truth;

impl TypedValueParser for Truth {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<bool, Error> {
        TypedValueParser::parse_ref(&parse_truth, command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(["true", "false"].into_iter().map(PossibleValue::new)))
    }
}

/// Returns the definition for completing: each command by one name.
pub(super) fn for_completion() -> Command {
    fn without_aliases(command: Command) -> Command {
        let names: Vec<String> =
            command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        names.into_iter().fold(command.visible_alias(None), |command, name| {
            command.mut_subcommand(name, without_aliases)
        })
    }
    without_aliases(command())
}

/// Lets an option take what follows as its value, also what begins with a hyphen, as Docker does.
fn as_dockers(argument: Arg) -> Arg {
    let argument = argument.hide_env_values(true);
    let takes = argument.get_action().takes_values() && !argument.is_require_equals_set();
    let is_truth = argument.get_value_parser().type_id() == ValueParser::bool().type_id();
    if is_truth && argument.get_action().takes_values() {
        return argument.value_parser(Truth);
    }
    if argument.is_positional() || !takes { argument } else { argument.allow_hyphen_values(true) }
}

/// How lists and objects can be printed.
const FORMATS: &str = "
Formats:
  table              aligned columns (the usual form of a list)
  table TEMPLATE     columns of your own, separated by \\t, with headings
  json               JSON: a line an entry of a list, one list of what is inspected
  TEMPLATE           a Go template: fields, pipelines, if, with, range, variables, functions

Functions:
  json join split lower upper title pad truncate print printf println index slice len
  eq ne lt le gt ge and or not html js urlquery";

fn decorated(command: Command, path: &str) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    let mut command = command.mut_args(|argument| complete::attach(as_dockers(argument)));
    if let Some(text) = examples::of(path) {
        command = command.after_help(text);
    }
    for name in names {
        let inner = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |command| decorated(command, &inner));
    }
    command
}

/// Says what is wrong with a command line, and what may have been meant; help and version, which
/// clap hands over as errors too, are data.
pub(super) fn usage(error: &Error, words: &[OsString]) -> Exit {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let rendered = error.render();
    if !error.use_stderr() {
        let colour = style::enabled(&std::io::stdout());
        let text = if colour { rendered.ansi().to_string() } else { rendered.to_string() };
        return match output::raw(text.as_bytes()) {
            Ok(()) => Exit::Ok,
            Err(error) => error.exit,
        };
    }
    let (path, mut named) = named(&words);
    if let Some(error) = unsupported::explain(error, &path) {
        output::error(&error);
        return error.exit;
    }
    let Some(message) = told(error, &words) else {
        output::raw_note(rendered.to_string().as_bytes());
        return Exit::Usage;
    };
    output::note(&style::paint(style::enabled(&std::io::stderr()), style::Tone::Bad, &message));
    if let Some(hint) = hint(error) {
        let word = style::paint(style::enabled(&std::io::stderr()), style::Tone::Hint, "hint:");
        output::note(&format!("{word} {hint}"));
    }
    let usage = named.render_usage().to_string();
    let usage = usage.trim().strip_prefix("Usage:").unwrap_or(&usage).trim();
    output::note(&format!("\nUsage:  {usage}\n\nRun '{path} --help' for more information"));
    Exit::Usage
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(" ")),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Says in Docker's words what is wrong, for the mistakes that Docker has words for.
fn told(error: &Error, words: &[String]) -> Option<String> {
    let (path, command) = named(words);
    let argument = || text(error, ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let argument = argument()?;
            Some(match argument.strip_prefix('-') {
                Some(rest) if rest.starts_with('-') => format!("unknown flag: {argument}"),
                Some(rest) => format!("unknown shorthand flag: {rest:?} in {argument}"),
                None => format!("unexpected argument: {argument}"),
            })
        }
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand)?;
            Some(format!("unknown command: {path} {word}"))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let argument = argument()?;
            let flag = argument.split([' ', '=', '[']).next()?.to_owned();
            let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
            let reason = match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => match text(error, ContextKind::ValidValue) {
                    Some(values) => format!("must be one of {}", values.replace(' ', ", ")),
                    None => "a value is missing".to_owned(),
                },
            };
            let kind = if flag.starts_with('-') { " flag" } else { "" };
            let flag = with_short(&command, &flag);
            Some(format!("invalid argument {value:?} for \"{flag}\"{kind}: {reason}"))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = argument()?;
            let usage = text(error, ContextKind::Usage).unwrap_or_default();
            let flags: Vec<&str> =
                missing.split(' ').filter(|word| word.starts_with("--")).collect();
            if flags.is_empty() {
                let more = if usage.contains("...") { "at least " } else { "" };
                let count = missing.matches('<').count().max(1);
                let plural = if count > 1 { "s" } else { "" };
                Some(format!("'{path}' requires {more}{count} argument{plural}"))
            } else {
                Some(format!("required flag not set: {}", flags.join(", ")))
            }
        }
        ErrorKind::ArgumentConflict => {
            let rollback = argument()? == "--rollback";
            rollback.then(|| "other flags may not be combined with --rollback".to_owned())
        }
        _ => None,
    }
}

fn hint(error: &Error) -> Option<String> {
    let near = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
        ContextKind::SuggestedCommand,
    ];
    let near = near.into_iter().find_map(|kind| text(error, kind))?;
    let wrong =
        [ContextKind::InvalidSubcommand, ContextKind::InvalidValue, ContextKind::InvalidArg];
    let wrong = wrong.into_iter().find_map(|kind| text(error, kind)).unwrap_or_default();
    // clap's idea of what is alike is wide; the nearest is enough.
    let names: Vec<&str> = near.split(' ').collect();
    let nearest = suggest::nearest(&wrong, names.iter().copied());
    let name = nearest.first().or_else(|| names.last())?;
    Some(format!("did you mean {name}?"))
}

/// Returns a flag of a command as Docker names it: with its short form.
fn with_short(command: &Command, flag: &str) -> String {
    let long = flag.trim_start_matches('-');
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(long));
    match argument.and_then(Arg::get_short) {
        Some(short) => format!("-{short}, {flag}"),
        None => flag.to_owned(),
    }
}

/// Returns the command that a command line names, and its words.
fn named(words: &[String]) -> (String, Command) {
    let (mut path, mut found) = ("midge".to_owned(), command());
    found.build();
    for word in words.iter().skip(1) {
        if let Some(inner) = found.find_subcommand(word).cloned() {
            path.push_str(&format!(" {}", inner.get_name()));
            found = inner;
        } else if !found.has_subcommands() {
            break;
        }
    }
    (path, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, message: &str, hinted: Option<&str>) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = command().try_get_matches_from(&words).expect_err(line);
        assert_eq!(told(&error, &words).as_deref(), Some(message), "{line}");
        assert_eq!(hint(&error).as_deref(), hinted, "{line}");
    }

    #[test]
    fn wrong_command_lines_are_told_in_dockers_words() {
        check("midge service ls --nope", "unknown flag: --nope", None);
        check(
            "midge service ls --fliter a=b",
            "unknown flag: --fliter",
            Some("did you mean --filter?"),
        );
        check("midge service ls -x", "unknown shorthand flag: \"x\" in -x", None);
        check("midge servcie ls", "unknown command: midge servcie", Some("did you mean service?"));
        check("midge service lss", "unknown command: midge service lss", Some("did you mean ls?"));
        check("midge service rm", "'midge service rm' requires at least 1 argument", None);
        check("midge service update", "'midge service update' requires 1 argument", None);
        check("midge service create", "'midge service create' requires at least 1 argument", None);
        check(
            "midge service create -e =x bb:1",
            "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x",
            None,
        );
        check("midge swarm join 10.0.0.1:2377", "required flag not set: --token", None);
        check(
            "midge service create --replicas x bb:1",
            "invalid argument \"x\" for \"--replicas\" flag: invalid digit found in string",
            None,
        );
        check(
            "midge node update --availability dran n1",
            "invalid argument \"dran\" for \"--availability\" flag: must be one of active, pause, drain",
            Some("did you mean drain?"),
        );
    }

    #[test]
    fn nothing_goes_with_a_rollback_but_how_to_wait() {
        let message = "other flags may not be combined with --rollback";
        for option in ["--image bb:2", "--force", "--replicas 1", "--update-delay 1s", "-t"] {
            check_parsed(&format!("midge service update --rollback {option} web"), message);
            check_parsed(&format!("midge service update {option} --rollback=true web"), message);
            let line = format!("midge service update {option} --rollback=false web");
            read(&line).expect("it is a command line");
        }
        for options in ["", "-d ", "--quiet "] {
            let line = format!("midge service update {options}--rollback web");
            read(&line).expect("it is a command line");
        }
    }

    fn read(line: &str) -> Result<ArgMatches, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&words).map_err(|error| error.to_string())
    }

    /// Returns whether a flag of the innermost command is set.
    fn flag(line: &str, id: &str) -> bool {
        let mut matches = read(line).unwrap();
        while let Some((_, inner)) = matches.remove_subcommand() {
            matches = inner;
        }
        *matches.get_one(id).unwrap()
    }

    #[test]
    fn flags_take_truth_values_as_dockers() {
        for (line, id, expected) in [
            ("midge service create --detach=false bb:1", "detach", false),
            ("midge service create -d=false bb:1", "detach", false),
            ("midge service create --detach=false -d bb:1", "detach", true),
            ("midge service create -d --detach=0 bb:1", "detach", false),
            ("midge service create --with-registry-auth=true bb:1", "with_registry_auth", true),
            ("midge service create --with-registry-auth=true bb:1", "detach", false),
            ("midge service create --read-only=T -q bb:1", "read_only", true),
            ("midge service update --tty=0 web", "tty", false),
            ("midge service ps --no-trunc=true web", "no_trunc", true),
            ("midge node rm --force=True n1", "force", true),
            ("midge node rm --force=f n1", "force", false),
            ("midge exec -it=false c sh", "tty", false),
            ("midge exec -it=false c sh", "interactive", true),
            ("midge exec --interactive c sh --tty=false", "tty", false),
        ] {
            assert_eq!(flag(line, id), expected, "{line}");
        }
        check_parsed(
            "midge service create --detach=maybe bb:1",
            "invalid argument \"maybe\" for \"-d, --detach\" flag: must be one of true, false",
        );
    }

    fn check_parsed(line: &str, message: &str) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let told_words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = parse(&words).expect_err(line);
        assert_eq!(told(&error, &told_words).as_deref(), Some(message), "{line}");
    }

    #[test]
    fn every_command_line_is_consistent_with_truth_values() {
        with_truths(command()).debug_assert();
    }

    #[test]
    fn of_what_is_given_twice_the_last_counts() {
        let last = |line: &str, id: &str| {
            let mut matches = read(line).unwrap();
            while let Some((_, inner)) = matches.remove_subcommand() {
                matches = inner;
            }
            let values = matches.get_raw(id).unwrap();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let twice = "midge service create --replicas 1 -e A=1 --replicas 3 -e B=2 -d -d bb:1 a b";
        assert_eq!(last(twice, "replicas"), ["3"]);
        assert_eq!(last(twice, "env"), ["A=1", "B=2"]);
        assert_eq!(last(twice, "image"), ["bb:1", "a", "b"]);
        assert_eq!(last("midge service update --init=false --init web", "init"), ["true"]);
        assert_eq!(last("midge service rm a b", "services"), ["a", "b"]);
    }

    #[test]
    fn a_word_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let mut words: Vec<OsString> = ["midge", "service", "rm"].map(OsString::from).to_vec();
        words.push(OsString::from_vec(vec![b'a', 0xff]));
        let error = parse(&words).unwrap_err();
        assert_eq!(usage(&error, &words), Exit::Usage);
    }

    #[test]
    fn the_command_is_found_among_options() {
        let words = ["midge", "-H", "unix:///x", "service", "--nope", "rm", "ls"];
        assert_eq!(named(&words.map(str::to_owned)).0, "midge service rm");
    }
}
