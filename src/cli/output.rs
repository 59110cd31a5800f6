//! The only place that prints: data on stdout, everything else on stderr.

use super::{exit::CliError, template};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};

/// The space between two columns of a table, as Docker's.
const COLUMN_GAP: usize = 3;

/// The narrowest column, as Docker's.
const COLUMN_MIN: usize = 10;

/// Prints a line of data.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes of data as they are.
#[expect(clippy::exit, reason = "a reader that has seen enough ends the program, as `yes` ends")]
pub(crate) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| {
        // A reader that has seen enough (`| head`) is no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        CliError::failure(format!("cannot write to standard output: {error}"))
    })
}

/// Prints a line for the person at the terminal. Nothing can be done where that fails.
pub(crate) fn note(text: &str) {
    raw_note(format!("{text}\n").as_bytes());
}

/// Prints bytes for the person at the terminal.
pub(crate) fn raw_note(bytes: &[u8]) {
    io::stderr().lock().write_all(bytes).ok();
}

/// Prints an error with its hint.
pub(crate) fn error(error: &CliError) {
    note(&error.message);
    if let Some(hint) = &error.hint {
        note(&format!("hint: {hint}"));
    }
}

/// Tells whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// One column of a table: the field of a row and the heading over it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// The field.
    pub(crate) key: &'static str,
    /// The heading.
    pub(crate) heading: &'static str,
}

/// Returns the columns with these fields and headings.
pub(crate) const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading }
}

/// Prints rows as `--format` asks: a table (the default), `json` (one object a line), or a
/// template a row.
pub(crate) fn rows(
    format: Option<&str>,
    columns: &[Column],
    rows: &[Map<String, Value>],
) -> Result<(), CliError> {
    match format {
        None | Some("" | "table") => table(columns, rows),
        Some("json") => {
            for row in rows {
                line(&Value::Object(row.clone()).to_string())?;
            }
            Ok(())
        }
        Some(text) => match text.strip_prefix("table ") {
            Some(text) => template_table(text, columns, rows),
            None => {
                let template = template::parse(text)?;
                for row in rows {
                    line(&template.render(&Value::Object(row.clone()))?)?;
                }
                Ok(())
            }
        },
    }
}

fn template_table(
    text: &str,
    columns: &[Column],
    rows: &[Map<String, Value>],
) -> Result<(), CliError> {
    let template = template::parse(text)?;
    let headings: Map<String, Value> =
        columns.iter().map(|c| (c.key.to_owned(), Value::from(c.heading))).collect();
    let split = |line: String| {
        line.split("\\t").flat_map(|cell| cell.split('\t')).map(str::to_owned).collect()
    };
    let mut lines: Vec<Vec<String>> = vec![split(template.render(&Value::Object(headings))?)];
    for row in rows {
        lines.push(split(template.render(&Value::Object(row.clone()))?));
    }
    print_cells(&lines)
}

fn table(columns: &[Column], rows: &[Map<String, Value>]) -> Result<(), CliError> {
    let mut lines = vec![columns.iter().map(|c| c.heading.to_owned()).collect::<Vec<_>>()];
    for row in rows {
        lines.push(columns.iter().map(|c| cell(row.get(c.key))).collect());
    }
    print_cells(&lines)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn print_cells(lines: &[Vec<String>]) -> Result<(), CliError> {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        (widest + COLUMN_GAP).max(COLUMN_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        for (index, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            let last = index + 1 == cells.len();
            let pad = widths.get(index).map_or(0, |w| w.saturating_sub(cell.chars().count()));
            if !last {
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    raw(text.as_bytes())
}

/// Prints inspected objects as `--format` asks: a JSON list (the default), or a template each.
pub(crate) fn objects(format: Option<&str>, objects: &[Value]) -> Result<(), CliError> {
    match format {
        None | Some("") => {
            let mut text = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
            serde::Serialize::serialize(objects, &mut serializer)
                .map_err(|error| CliError::failure(format!("cannot print the answer: {error}")))?;
            text.push(b'\n');
            raw(&text)
        }
        Some("json") => objects.iter().try_for_each(|object| line(&object.to_string())),
        Some(text) => {
            let template = template::parse(text)?;
            objects.iter().try_for_each(|object| line(&template.render(object)?))
        }
    }
}
