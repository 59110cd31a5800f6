//! The only place that prints: data on stdout, everything else on stderr.

use super::{
    exit::CliError,
    style::{self, Tone},
    template,
};
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
    // A reader that has seen enough (`| head`) is no failure.
    if !raw_while_read(bytes)? {
        std::process::exit(0);
    }
    Ok(())
}

/// Prints bytes of data as they are, where there is something to be done before the program ends;
/// tells whether anybody still reads.
pub(crate) fn raw_while_read(bytes: &[u8]) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::failure(format!("cannot write to standard output: {error}"))),
    }
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
    let colour = style::enabled(&io::stderr());
    note(&style::paint(colour, Tone::Bad, &error.message));
    if let Some(hint) = &error.hint {
        note(&format!("{} {hint}", style::paint(colour, Tone::Hint, "hint:")));
    }
}

/// Tells whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns height and width of the terminal that stdout is; none where it is none.
pub(crate) fn stdout_size() -> Option<(u16, u16)> {
    if !stdout_is_terminal() {
        return None;
    }
    // One that does not tell is a terminal nevertheless.
    let size = rustix::termios::tcgetwinsize(io::stdout());
    Some(size.map_or((0, 0), |size| (size.ws_row, size.ws_col)))
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

/// Tells whether rows are shown as the table that they are without `--format`.
pub(crate) fn is_table(format: Option<&str>) -> bool {
    matches!(format, None | Some("" | "table"))
}

/// Prints rows as `--format` asks: a table (the default), `json` (one object a line), or a
/// template a row.
pub(crate) fn rows(
    format: Option<&str>,
    columns: &[Column],
    rows: &[Map<String, Value>],
) -> Result<(), CliError> {
    let text = match format.map(str::trim_start) {
        None | Some("" | "table") => return table(columns, rows),
        Some("json") => "{{json .}}",
        Some(text) => text,
    };
    // Docker shows the fields of a row by name.
    let rows: Vec<Value> = rows.iter().map(|row| Value::Object(sorted(row))).collect();
    match text.strip_prefix("table ") {
        Some(text) => template_table(text, columns, &rows),
        None => {
            let template = template::parse_row(text)?;
            rows.iter().try_for_each(|row| line(&template.render(row)?))
        }
    }
}

fn sorted(row: &Map<String, Value>) -> Map<String, Value> {
    let mut fields: Vec<_> = row.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.into_iter().collect()
}

fn template_table(text: &str, columns: &[Column], rows: &[Value]) -> Result<(), CliError> {
    let template = template::parse_row(text)?;
    let mut headings: Map<String, Value> =
        columns.iter().map(|c| (c.key.to_owned(), Value::from(c.heading))).collect();
    // A field that is in no column of the usual table has its own name as heading.
    for field in rows.first().and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        headings.entry(field.clone()).or_insert_with(|| Value::from(field.to_uppercase()));
    }
    let mut text = template.render_headings(&Value::Object(headings))? + "\n";
    for row in rows {
        text.push_str(&template.render(row)?);
        text.push('\n');
    }
    let lines: Vec<Vec<Cell>> = text
        .lines()
        .map(|line| line.split('\t').map(|cell| (cell.to_owned(), None)).collect())
        .collect();
    print_cells(&lines)
}

fn table(columns: &[Column], rows: &[Map<String, Value>]) -> Result<(), CliError> {
    let mut lines: Vec<Vec<Cell>> =
        vec![columns.iter().map(|c| (c.heading.to_owned(), None)).collect()];
    for row in rows {
        let cells = columns.iter().map(|c| {
            let cell = cell(row.get(c.key));
            let tone = style::of_cell(c.key, &cell);
            (cell, tone)
        });
        lines.push(cells.collect());
    }
    print_cells(&lines)
}

/// A text of a table, and how it is shown.
type Cell = (String, Option<Tone>);

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        // Nothing of an answer may break the table, nor move a terminal's cursor.
        Some(Value::String(text)) => {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        }
        Some(other) => other.to_string(),
    }
}

fn print_cells(lines: &[Vec<Cell>]) -> Result<(), CliError> {
    let text = aligned(lines, style::enabled(&io::stdout()));
    raw(text.as_bytes())
}

/// Aligns cells: each column is as wide as its widest cell in the lines, without a break between
/// them, that have a further cell.
fn aligned(lines: &[Vec<Cell>], colour: bool) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len()]).collect();
    for column in 0..columns {
        let mut at = 0;
        while at < lines.len() {
            let run = lines[at..].iter().take_while(|line| line.len() > column + 1).count();
            let block = &lines[at..at + run];
            let widest = block.iter().map(|line| line[column].0.chars().count()).max().unwrap_or(0);
            let width = (widest + COLUMN_GAP).max(COLUMN_MIN);
            widths[at..at + run].iter_mut().for_each(|line| line[column] = width);
            at += run.max(1);
        }
    }
    let mut text = String::new();
    for (cells, widths) in lines.iter().zip(&widths) {
        for ((cell, tone), width) in cells.iter().zip(widths) {
            match tone {
                Some(tone) => text.push_str(&style::paint(colour, *tone, cell)),
                None => text.push_str(cell),
            }
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push('\n');
    }
    text
}

/// Prints inspected objects as `--format` asks: a JSON list (the default), the same on one line
/// (`json`), or a template each.
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
        Some("json") => line(&Value::from(objects).to_string()),
        Some(text) => {
            let template = template::parse(text)?;
            objects.iter().try_for_each(|object| line(&template.render(object)?))
        }
    }
}

/// Prints one object as `--format` asks: `json`, or a template.
pub(crate) fn object(format: &str, object: &Value) -> Result<(), CliError> {
    if format == "json" {
        return line(&object.to_string());
    }
    line(&template::parse(format)?.render(object)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: &str) {
        let lines: Vec<Vec<Cell>> = lines
            .iter()
            .map(|line| line.split('|').map(|cell| (cell.to_owned(), None)).collect())
            .collect();
        assert_eq!(aligned(&lines, false), expected);
    }

    #[test]
    fn columns_are_as_wide_as_dockers() {
        check(
            &["ID|NAME|PORTS", "abc|a-rather-long-name|", "é|b|x"],
            "ID        NAME                 PORTS\nabc       a-rather-long-name   \né         b                    x\n",
        );
        // A line with fewer cells ends a block of columns.
        check(
            &["a|b", "alone", "a-long-first-cell|b"],
            "a         b\nalone\na-long-first-cell   b\n",
        );
        check(&[], "");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let lines = [vec![("Down".to_owned(), Some(Tone::Bad)), ("x".to_owned(), None)]];
        assert_eq!(aligned(&lines, true), "\x1b[31mDown\x1b[0m      x\n");
        assert_eq!(aligned(&lines, false), "Down      x\n");
    }

    #[test]
    fn answers_cannot_move_the_cursor() {
        assert_eq!(cell(Some(&Value::from("a\x1b[2Jb\nc"))), "a [2Jb c");
    }
}
