//! Go's templates, as far as `--format` needs them: fields, variables, pipelines, conditions,
//! loops and Docker's functions, over JSON.
//!
//! [`lex`] cuts the text, [`parse`] makes a tree of it, [`eval`] fills values in with the help of
//! [`functions`] and [`printf`]; [`zero`] knows the fields that Docker leaves out where they are
//! empty. Knows JSON and nothing of what it describes. Every text ends in output or in an error
//! that names the place: size, depth, steps and output are bounded.

mod eval;
mod functions;
#[cfg(test)]
mod fuzz;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod zero;

use super::exit::CliError;
use serde_json::Value;

/// The longest template: people type them.
const TEXT_MAX: usize = 64 << 10;

/// How deep blocks and parentheses may nest: nobody reads more, and each level costs stack.
const DEPTH_MAX: usize = 64;

/// How much work one rendering may be: a list of 10,000 services with 30 actions each is a third.
const STEPS_MAX: usize = 1_000_000;

/// How much text one rendering may make, intermediate results counted: a hundred times what the
/// largest object fills, and bearable on the smallest board.
const OUTPUT_MAX: usize = 16 << 20;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

/// What is wrong with a template, and where: a byte of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    at: usize,
    why: String,
}

impl Fault {
    fn new(at: usize, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }

    /// Says it as Docker does, with the line, counted from one, and the column, counted from zero.
    fn told(&self, text: &str) -> String {
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        format!("template parsing error: template: :{line}:{column}: {}", self.why)
    }
}

/// Parses the template of an object: its text is taken as it is.
pub(crate) fn parse(text: &str) -> Result<Template, CliError> {
    build(text.to_owned(), false)
}

/// Parses the template of rows: `\t` and `\n`, which shells hand over as two characters, are read
/// as one, as Docker does.
pub(crate) fn parse_row(text: &str) -> Result<Template, CliError> {
    build(text.to_owned(), true)
}

fn build(text: String, unescape: bool) -> Result<Template, CliError> {
    if text.len() > TEXT_MAX {
        return Err(CliError::failure(format!(
            "template parsing error: the template is longer than {TEXT_MAX} bytes"
        )));
    }
    let parsed = lex::tokens(&text, unescape).and_then(parse::nodes);
    match parsed {
        Ok(nodes) => Ok(Template { text, nodes }),
        Err(fault) => Err(CliError::failure(fault.told(&text))
            .hint("midge --help shows how to write --format; docs/cli.md has the functions")),
    }
}

impl Template {
    /// Fills in `data`.
    pub(crate) fn render(&self, data: &Value) -> Result<String, CliError> {
        eval::render(&self.nodes, data).map_err(|fault| CliError::failure(fault.told(&self.text)))
    }

    /// Fills in the headings of a table: the functions that change how a value looks leave them
    /// alone, as Docker's do.
    pub(crate) fn render_headings(&self, headings: &Value) -> Result<String, CliError> {
        eval::render_headings(&self.nodes, headings)
            .map_err(|fault| CliError::failure(fault.told(&self.text)))
    }
}
