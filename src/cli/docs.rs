//! `docs/cli.md`: the help of every command, kept by a test. `UPDATE_EXPECT=1` writes it anew.

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
