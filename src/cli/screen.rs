//! Shows how far something has come while a command waits for it.
//!
//! What is to be seen comes as a list of lines. A terminal shows the present ones, drawn over those
//! before; elsewhere a line is printed when it has news, and none twice in a row.

use super::{exit::CliError, output};
use std::collections::BTreeSet;

/// With more things than this there is no line for each, as Docker's.
pub(super) const BARS_MAX: usize = 20;

/// What an error is cut to, as Docker's.
const ERROR_MAX: usize = 75;

/// How many different errors plain output tells; one that counts up in its text would else fill
/// any log.
const ERRORS_MAX: usize = 100;

/// How wide the longest state is.
const STATE_WIDTH: usize = 9;

/// How many signs a full bar has.
const BAR_WIDTH: usize = 50;

/// What is known of a terminal that does not tell its size.
const DEFAULT_SIZE: (usize, usize) = (24, 80);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// What a terminal shows.
    shown: String,
    plain: Plain,
}

/// What of a line is printed where nothing can be drawn over.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plain {
    Nothing,
    /// This, unless the lines before had it as well.
    Changed(String),
    /// This, unless the error was told before.
    Error {
        text: String,
        error: String,
    },
}

impl Line {
    /// Makes a line of the whole.
    pub(super) fn head(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { shown: text.clone(), plain: Plain::Changed(text) }
    }

    /// Makes a line that changes by the second; elsewhere than on a terminal, `plain` is enough.
    pub(super) fn ticking(text: String, plain: String) -> Self {
        Self { shown: text, plain: Plain::Changed(plain) }
    }

    /// Makes the line of one thing among many: the state, and the `step` that it is among `steps`.
    pub(super) fn bar(name: &str, state: &str, step: usize, steps: usize) -> Self {
        let filled = BAR_WIDTH * step.min(steps) / steps.max(1);
        let (full, rest) = ("=".repeat(filled), " ".repeat(BAR_WIDTH - filled));
        let shown = format!("{name}: {state:<STATE_WIDTH$} [{full}>{rest}]");
        Self { shown, plain: Plain::Nothing }
    }

    /// Makes the line of one thing of which nothing is known yet.
    pub(super) fn blank(name: &str) -> Self {
        Self { shown: format!("{name}:"), plain: Plain::Nothing }
    }

    /// Makes a line that says what is wrong with something.
    pub(super) fn error(name: &str, error: &str) -> Self {
        let (short, text) = (cut(error, ERROR_MAX), format!("{name}: {}", cut(error, usize::MAX)));
        Self {
            shown: format!("{name}: {short}"),
            plain: Plain::Error { text, error: error.to_owned() },
        }
    }

    /// Makes the lines of so many things that there is none for each: their errors, the most common
    /// first, and no more than fit beside the rest.
    pub(super) fn errors<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Self> {
        const SHOWN: usize = 3;
        let mut groups: Vec<(&str, &str, usize)> = Vec::new();
        for (name, error) in all {
            match groups.iter_mut().find(|(_, known, _)| *known == error) {
                Some((.., count)) => *count += 1,
                None => groups.push((name, error, 1)),
            }
        }
        groups.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        let line = |(name, error, count): (&str, &str, usize)| {
            let alone = Self::error(name, error);
            if count == 1 {
                return alone;
            }
            Self { shown: format!("{count} tasks: {}", cut(error, ERROR_MAX)), ..alone }
        };
        groups.into_iter().take(SHOWN).map(line).collect()
    }

    /// Returns what a terminal shows.
    #[cfg(test)]
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

/// Cuts a text; nothing of it may move the cursor.
fn cut(text: &str, max: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= max {
        return clean.collect();
    }
    clean.take(max.saturating_sub(1)).chain(['…']).collect()
}

/// What was shown last, so that it can be drawn over, or left alone where nothing changed.
#[derive(Debug, Default)]
pub(super) struct Screen {
    quiet: bool,
    last: Vec<Line>,
    /// How many rows of the terminal the last lines took.
    rows: usize,
    /// The errors that plain output told.
    told: BTreeSet<String>,
}

impl Screen {
    /// Makes one that shows nothing where `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    /// Shows the lines.
    pub(super) fn show(&mut self, lines: Vec<Line>) -> Result<(), CliError> {
        if self.quiet || lines == self.last {
            return Ok(());
        }
        let text = match output::stdout_size() {
            Some((rows, columns)) => {
                let or = |size: u16, default| if size == 0 { default } else { usize::from(size) };
                let size = (or(rows, DEFAULT_SIZE.0), or(columns, DEFAULT_SIZE.1));
                self.drawn(&lines, size)
            }
            None => self.news(&lines),
        };
        self.last = lines;
        if text.is_empty() { Ok(()) } else { output::raw(text.as_bytes()) }
    }

    /// Prints something below what is shown, which stays.
    pub(super) fn say(&self, text: &str) -> Result<(), CliError> {
        if self.quiet {
            return Ok(());
        }
        // What was typed meanwhile, the `^C` of an interruption among it.
        let clear = if output::stdout_is_terminal() { "\r\x1b[K" } else { "" };
        output::line(&format!("{clear}{text}"))
    }

    /// Returns what draws the lines over the last ones on a terminal of so many rows and columns.
    fn drawn(&mut self, lines: &[Line], (rows, columns): (usize, usize)) -> String {
        // A row that was scrolled away, or that took two, could not be drawn over any more.
        let room = rows.saturating_sub(1).max(1);
        let mut bars = lines.len().saturating_sub(room);
        let mut fitting: Vec<&Line> = lines.iter().rev().collect();
        fitting.retain(|line| {
            let leave = bars > 0 && matches!(line.plain, Plain::Nothing);
            bars -= usize::from(leave);
            !leave
        });
        fitting.reverse();
        fitting.truncate(room);
        let mut text = String::new();
        if self.rows > 0 {
            text.push_str(&format!("\x1b[{}A", self.rows));
        }
        for line in &fitting {
            text.push_str(&format!("\r{}\x1b[K\n", cut(&line.shown, columns.saturating_sub(1))));
        }
        if fitting.len() < self.rows {
            text.push_str("\x1b[J");
        }
        self.rows = fitting.len();
        text
    }

    /// Returns what the lines have to tell where nothing can be drawn over.
    fn news(&mut self, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            let new = match &line.plain {
                Plain::Nothing => None,
                Plain::Changed(text) => {
                    self.last.iter().all(|before| before.plain != line.plain).then_some(text)
                }
                Plain::Error { text, error } => {
                    let new = self.told.len() < ERRORS_MAX && self.told.insert(error.clone());
                    new.then_some(text)
                }
            };
            if let Some(new) = new {
                text.push_str(new);
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(views: &[&[Line]], size: Option<(usize, usize)>, expected: &Expect) {
        let mut screen = Screen::default();
        let mut all = String::new();
        for view in views {
            all += &match size {
                Some(size) => screen.drawn(view, size),
                None => screen.news(view),
            };
            screen.last = view.to_vec();
            all += "--\n";
        }
        expected.assert_eq(&all.replace('\x1b', "^").replace('\r', ""));
    }

    fn lines(running: usize, second: Line) -> Vec<Line> {
        vec![
            Line::head(format!("overall progress: {running} out of 2 tasks")),
            Line::bar("1/2", "preparing", 6, 9),
            second,
        ]
    }

    #[test]
    fn a_terminal_shows_what_is() {
        let verify = Line::ticking("verify: 2 s".into(), "verify".into());
        check(
            &[
                &lines(0, Line::blank("2/2")),
                &[lines(1, Line::error("2/2", "no\nway \x1b[2J")), vec![verify]].concat(),
                &lines(2, Line::bar("2/2", "running", 9, 9))[..1],
            ],
            Some((24, 80)),
            &expect![[r#"
                overall progress: 0 out of 2 tasks^[K
                1/2: preparing [=================================>                 ]^[K
                2/2:^[K
                --
                ^[3Aoverall progress: 1 out of 2 tasks^[K
                1/2: preparing [=================================>                 ]^[K
                2/2: no way  [2J^[K
                verify: 2 s^[K
                --
                ^[4Aoverall progress: 2 out of 2 tasks^[K
                ^[J--
            "#]],
        );
    }

    #[test]
    fn a_small_terminal_shows_what_fits() {
        let verify = Line::head("verify: Waiting 5 seconds");
        let view = [lines(1, Line::bar("2/2", "running", 9, 9)), vec![verify]].concat();
        check(
            &[&view, &view],
            Some((4, 20)),
            &expect![[r#"
                overall progress: …^[K
                1/2: preparing [==…^[K
                verify: Waiting 5 …^[K
                --
                ^[3Aoverall progress: …^[K
                1/2: preparing [==…^[K
                verify: Waiting 5 …^[K
                --
            "#]],
        );
    }

    #[test]
    fn elsewhere_only_news_are_told() {
        let verify = |left: u32| {
            let text = format!("verify: Waiting {left} seconds");
            vec![Line::ticking(text, "verify: Waiting 5 seconds".into())]
        };
        let failing = || Line::error("2/2", "task: non-zero exit (1)");
        check(
            &[
                &lines(0, Line::blank("2/2")),
                &lines(1, failing()),
                &[lines(2, Line::bar("2/2", "running", 9, 9)), verify(5)].concat(),
                &[lines(2, Line::bar("2/2", "running", 9, 9)), verify(4)].concat(),
                &lines(1, failing()),
                &lines(1, Line::error("1/2", "another")),
                &[lines(2, Line::bar("2/2", "running", 9, 9)), verify(5)].concat(),
            ],
            None,
            &expect![[r#"
                overall progress: 0 out of 2 tasks
                --
                overall progress: 1 out of 2 tasks
                2/2: task: non-zero exit (1)
                --
                overall progress: 2 out of 2 tasks
                verify: Waiting 5 seconds
                --
                --
                overall progress: 1 out of 2 tasks
                --
                1/2: another
                --
                overall progress: 2 out of 2 tasks
                verify: Waiting 5 seconds
                --
            "#]],
        );
    }

    #[test]
    fn many_errors_are_counted() {
        let all = (0..30).map(|n| if n % 3 == 0 { ("a", "rare") } else { ("b", "common") });
        let lines = Line::errors(all);
        let shown: Vec<&str> = lines.iter().map(Line::shown).collect();
        assert_eq!(shown, ["20 tasks: common", "10 tasks: rare"]);
        check(
            &[&lines, &lines],
            None,
            &expect![[r#"
                b: common
                a: rare
                --
                --
            "#]],
        );
        let mut screen = Screen::default();
        for number in 0..ERRORS_MAX {
            assert!(!screen.news(&[Line::error("x", &number.to_string())]).is_empty());
        }
        assert_eq!(screen.news(&[Line::error("x", "more")]), "");
    }

    #[test]
    fn a_bar_is_as_long_as_it_has_come() {
        for (step, filled) in [(0, 0), (1, 5), (4, 22), (7, 38), (9, 50), (12, 50)] {
            let bar = Line::bar("1/3", "x", step, 9);
            assert_eq!(bar.shown.matches('=').count(), filled);
            assert_eq!(bar.shown.len(), 68);
        }
    }
}
