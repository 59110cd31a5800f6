//! Templates in a service's options: the part of Go's that Swarm's users write.
//!
//! Fields (`{{.Node.Hostname}}`), `index`, `join`, `print`, `printf`, `len`, `eq`, `ne`, `and`,
//! `or`, `not`, pipelines, parentheses, `if`/`else`/`end`, comments and trimmed spaces. Loops and
//! variables are refused: an expansion is bounded by what was written. Knows nothing of tasks:
//! what the fields are is an argument.

mod eval;
mod parse;

use super::Labels;
use std::borrow::Cow;

/// The longest expansion of one text: the kernel starts no process with a longer argument or
/// environment entry (`MAX_ARG_STRLEN`), and a text of many fields cannot fill the memory.
pub const EXPANDED_MAX: usize = 128 * 1024;

/// How deep parentheses and conditions nest: nobody writes three.
const DEPTH_MAX: usize = 16;

/// Why a text is no template, or cannot be expanded. In Go's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: expansion: {0}")]
pub struct InvalidTemplate(String);

fn invalid(message: impl Into<String>) -> InvalidTemplate {
    InvalidTemplate(message.into())
}

/// What a field or a function gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(i64),
    /// True or false.
    Bool(bool),
    /// Keys and values that users chose.
    Map(&'a Labels),
    /// Fields with fixed names.
    Record(Vec<(&'static str, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Makes a text.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// One argument, or a call, of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Text(String),
    Number(i64),
    Bool(bool),
    /// A path of fields from the root; empty is the root itself.
    Field(Vec<String>),
    /// A function with its arguments; the result of the stage before comes last.
    Call(String, Vec<Expression>),
    /// `(PIPELINE).Field`
    FieldOf(Box<Expression>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Print(Expression),
    If(Expression, Vec<Node>, Vec<Node>),
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Node>);

impl Template {
    /// Parses a template. A text without `{{` is one that expands to itself.
    ///
    /// # Errors
    ///
    /// It is not well-formed, or uses what midge does not know.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        parse::template(text).map(Self)
    }

    /// Expands the template with these fields.
    ///
    /// # Errors
    ///
    /// There is no such field, a function cannot take its arguments, or the result is longer than
    /// [`EXPANDED_MAX`].
    pub fn expand(&self, root: &Value<'_>) -> Result<String, InvalidTemplate> {
        let mut out = String::new();
        eval::nodes(&self.0, root, &mut out)?;
        Ok(out)
    }
}

/// Tells whether a text holds an action at all.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{")
}

#[cfg(test)]
mod tests;
