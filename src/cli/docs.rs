//! `docs/cli.md`: the help of every command, kept by a test. `UPDATE_EXPECT=1` writes it anew. The
//! commands that other pages show are read by one as well.

use super::definition;
use clap::Command;

/// How wide the help is printed there.
const WIDTH: usize = 96;

const INTRODUCTION: &str = "# The command line\n\n\
    Every word below is printed by `midge COMMAND --help` as well; `midge man COMMAND` makes a \
    manual page of it.\n\n\
    All commands but `daemon`, `completion` and `man` are clients of the daemon's API. They find it \
    by `-H unix:///PATH`, else by `MIDGE_HOST`, else at `/run/midge/midge.sock`.\n\n\
    Data goes to standard output, everything else to standard error. Colours and bars are shown \
    on terminals only, and no colours where `NO_COLOR` is set.\n";

fn write(command: &Command, level: usize, out: &mut String) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let title = name.replace("midge-", "midge ").replacen('-', " ", usize::from(level > 3));
    let title = if level == 2 { "midge".to_owned() } else { title };
    let mut shown = command.clone().term_width(WIDTH);
    // The long form is for what has more to say than its options.
    let help = if level == 2 { shown.render_long_help() } else { shown.render_help() };
    let help = help.to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    out.push_str(&format!(
        "\n{} {title}\n\n```text\n{}\n```\n",
        "#".repeat(level.min(3)),
        help.join("\n").trim_end()
    ));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write(inner, level + 1, out);
    }
}

#[test]
fn the_documentation_is_the_help() {
    let mut command = definition::command();
    command.build();
    let mut text = INTRODUCTION.to_owned();
    write(&command, 2, &mut text);
    expect_test::expect_file!["../../docs/cli.md"].assert_eq(&text);
}

/// The pages whose commands are read; `cli.md` is the help itself.
const PAGES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../README.md")),
    ("docs/from-swarm.md", include_str!("../../docs/from-swarm.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
];

/// Returns the lines of code blocks, fenced or indented; those that go on after `\` as one.
fn code_lines(page: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut open) = (Vec::<String>::new(), false, false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            let part = line.trim().trim_end_matches('\\');
            match lines.last_mut().filter(|_| open) {
                Some(last) => last.push_str(part),
                None => lines.push(part.to_owned()),
            }
            open = line.ends_with('\\');
        }
    }
    lines
}

/// Returns what stands between single backticks outside of code blocks.
fn code_spans(page: &str) -> Vec<String> {
    let (mut text, mut fenced) = (String::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            text.push_str(line.trim());
            text.push(' ');
        }
    }
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the words of each command in a line of shell, without comments.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut chars = line.chars().peekable();
    let (mut quote, mut is_word) = (None, false);
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, is_word) = (Some(c), true),
            (None, '$') if chars.peek() == Some(&'(') => {
                let inner: String = chars.by_ref().skip(1).take_while(|c| *c != ')').collect();
                found.extend(commands(&inner));
                (word, is_word) = (word + "X", true);
            }
            (None, '#') if !is_word => break,
            (None, ' ' | '|' | '&' | ';') => {
                if std::mem::take(&mut is_word) {
                    words.push(std::mem::take(&mut word));
                }
                if c != ' ' {
                    found.push(std::mem::take(&mut words));
                }
            }
            (None, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    found.push(words);
    found
}

/// Returns the commands of midge in a line, from the word `midge` on. What has brackets is a form and
/// no command.
fn of_midge(line: &str) -> Vec<Vec<String>> {
    let from = |words: Vec<String>| {
        let at = words.iter().position(|word| word == "midge")?;
        // Not an argument of that name: what comes first, or after a variable or the times of a timer.
        let is_time = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '*');
        let leads = |word: &String| word == "root" || word.contains('=') || is_time(word);
        words[..at].iter().all(leads).then(|| words[at..].to_vec())
    };
    if line.contains('[') {
        Vec::new()
    } else {
        commands(line).into_iter().filter_map(from).collect()
    }
}

/// Returns whether a command line is only cut short, as in a sentence: an argument or a value is left
/// out.
fn is_cut_short(error: &clap::Error) -> bool {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    match error.kind() {
        ErrorKind::MissingRequiredArgument
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion => true,
        ErrorKind::InvalidValue => matches!(
            error.get(ContextKind::InvalidValue),
            Some(ContextValue::String(value)) if value.is_empty()
        ),
        _ => false,
    }
}

#[test]
fn pages_show_command_lines_that_can_be_meant() {
    let (mut read, mut wrong) = (0, Vec::new());
    let mut check = |place: &str, line: &str, is_sentence: bool| {
        for words in of_midge(line) {
            read += 1;
            let Err(error) = definition::command().try_get_matches_from(words) else { continue };
            if !(is_sentence && is_cut_short(&error)) {
                wrong.push(format!("{place}: {line}: {error}"));
            }
        }
    };
    for (page, text) in PAGES {
        code_lines(text).iter().for_each(|line| check(page, line, false));
        let spans = code_spans(text);
        let whole = spans.iter().filter(|span| !span.contains("..."));
        whole.for_each(|span| check(page, span, true));
    }
    assert_eq!(wrong, [""; 0]);
    assert!(read > 100, "only {read} were found: are they looked for in the right places?");
}

#[test]
fn commands_are_found_in_lines_of_shell() {
    let show = |line: &str| -> Vec<String> {
        of_midge(line).iter().map(|words| words.join("|")).collect()
    };
    assert_eq!(show("midge node ls   # all"), ["midge|node|ls"]);
    assert_eq!(show("docker save app | midge image load && cat midge"), ["midge|image|load"]);
    assert_eq!(
        show("midge service rm $(midge service ls -q)"),
        ["midge|service|ls|-q", "midge|service|rm|X"]
    );
    assert_eq!(show("A=b midge ps --format '{{.ID}} #'"), ["midge|ps|--format|{{.ID}} #"]);
    assert_eq!(show("apt install ./midge_1.deb; cd midge"), [""; 0]);
    assert_eq!(code_lines("    a \\\n      b\n\n```sh\nc\n```\nd\n"), ["a b", "c"]);
    assert_eq!(code_spans("a `b` c\n    `d`\n`e\nf`"), ["b", "e f"]);
}
