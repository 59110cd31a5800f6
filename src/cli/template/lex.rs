//! From the text of a template to tokens.

use super::Fault;
use serde_json::{Number, Value};

/// A piece of a template, and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.` alone.
    Dot,
    /// `.A.B`; `joined` tells whether it follows what is before it without a space.
    Fields {
        names: Vec<String>,
        joined: bool,
    },
    /// `$` or `$name`, without the `$`.
    Variable(String),
    /// A function or a keyword.
    Word(String),
    /// A string, a number, a truth value.
    Literal(Value),
    Pipe,
    LeftParen,
    RightParen,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Comma,
}

/// Cuts a template into tokens.
pub(super) fn tokens(text: &str, unescape: bool) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    let mut trim = false;
    loop {
        let rest = &text[lexer.at..];
        let (piece, found) = match rest.find("{{") {
            Some(open) => (&rest[..open], true),
            None => (rest, false),
        };
        let begin = lexer.at;
        lexer.at += piece.len();
        let action = &text[lexer.at..];
        let trims = found && action[2..].starts_with('-') && is_space(action.as_bytes().get(3));
        let piece = if trim { piece.trim_start_matches(SPACES) } else { piece };
        let piece = if trims { piece.trim_end_matches(SPACES) } else { piece };
        if !piece.is_empty() {
            let piece = if unescape { unescaped(piece) } else { piece.to_owned() };
            lexer.push(begin, Kind::Text(piece));
        }
        if !found {
            return Ok(lexer.tokens);
        }
        let open = lexer.at;
        lexer.at += if trims { 3 } else { 2 };
        trim = match lexer.comment(open)? {
            Some(trim) => trim,
            None => {
                lexer.push(open, Kind::Open);
                lexer.action(open)?
            }
        };
    }
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_space(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| b" \t\r\n".contains(byte))
}

fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, at: usize, kind: Kind) {
        self.tokens.push(Token { kind, at });
    }

    fn skip_spaces(&mut self) -> bool {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(SPACES);
        self.at += rest.len() - trimmed.len();
        rest.len() != trimmed.len()
    }

    /// Skips a comment; tells whether the text after it is trimmed, or that there is none.
    fn comment(&mut self, open: usize) -> Result<Option<bool>, Fault> {
        let start = self.at;
        if self.text[..start].ends_with('-') {
            self.skip_spaces();
        }
        if !self.rest().starts_with("/*") {
            self.at = start;
            return Ok(None);
        }
        let end = self.rest().find("*/").ok_or_else(|| Fault::new(open, "unclosed comment"))?;
        self.at += end + 2;
        let spaced = self.skip_spaces();
        let (trim, close) = match self.rest().strip_prefix('-') {
            Some(rest) if spaced => (true, rest),
            _ => (false, self.rest()),
        };
        if !close.starts_with("}}") || (spaced && !trim) {
            return Err(Fault::new(open, "comment ends before closing delimiter"));
        }
        self.at += if trim { 3 } else { 2 };
        Ok(Some(trim))
    }

    /// Cuts up to `}}`; tells whether the text after it is trimmed.
    fn action(&mut self, open: usize) -> Result<bool, Fault> {
        loop {
            let spaced = self.skip_spaces();
            let (at, rest) = (self.at, self.rest());
            let trims = spaced && rest.starts_with("-}}");
            if trims || rest.starts_with("}}") {
                self.at += if trims { 3 } else { 2 };
                self.push(at, Kind::Close);
                return Ok(trims);
            }
            let Some(first) = rest.chars().next() else {
                return Err(Fault::new(open, "unclosed action"));
            };
            let next = rest[first.len_utf8()..].chars().next();
            let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            let (length, kind) = match first {
                '|' => (1, Kind::Pipe),
                '(' => (1, Kind::LeftParen),
                ')' => (1, Kind::RightParen),
                ',' => (1, Kind::Comma),
                ':' if next == Some('=') => (2, Kind::Declare),
                '=' => (1, Kind::Assign),
                '"' => quoted(rest, at)?,
                '`' => {
                    let end = rest[1..].find('`');
                    let end =
                        end.ok_or_else(|| Fault::new(at, "unterminated raw quoted string"))?;
                    (end + 2, Kind::Literal(Value::from(&rest[1..=end])))
                }
                '\'' => character(rest, at)?,
                '$' => {
                    let name: String = rest[1..].chars().take_while(|c| is_word(*c)).collect();
                    (1 + name.len(), Kind::Variable(name))
                }
                '.' if !digit(next) => fields(rest, !spaced),
                c if c.is_ascii_digit()
                    || (c == '.' && digit(next))
                    || (matches!(c, '+' | '-') && (digit(next) || next == Some('.'))) =>
                {
                    number(rest, at)?
                }
                c if is_word(c) => {
                    let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
                    let length = word.len();
                    let kind = match word.as_str() {
                        "true" => Kind::Literal(Value::Bool(true)),
                        "false" => Kind::Literal(Value::Bool(false)),
                        _ => Kind::Word(word),
                    };
                    (length, kind)
                }
                c => return Err(Fault::new(at, format!("unexpected {c:?} in action"))),
            };
            self.at += length;
            self.push(at, kind);
        }
    }
}

fn fields(rest: &str, joined: bool) -> (usize, Kind) {
    let (mut names, mut length) = (Vec::new(), 0);
    while let Some(tail) = rest[length..].strip_prefix('.') {
        let name: String = tail.chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            break;
        }
        length += 1 + name.len();
        names.push(name);
    }
    if names.is_empty() { (1, Kind::Dot) } else { (length, Kind::Fields { names, joined }) }
}

fn quoted(rest: &str, at: usize) -> Result<(usize, Kind), Fault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((index + 1, Kind::Literal(Value::String(text)))),
            '\n' => break,
            '\\' => text.push(escape(&mut chars).ok_or_else(|| {
                Fault::new(at + index, "unknown escape sequence in quoted string")
            })?),
            c => text.push(c),
        }
    }
    Err(Fault::new(at, "unterminated quoted string"))
}

/// Reads what follows a backslash, as in Go.
fn escape(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let hex = |chars: &mut dyn Iterator<Item = (usize, char)>, digits: usize| {
        let mut value = 0_u32;
        for _ in 0..digits {
            value = value.checked_mul(16)?.checked_add(chars.next()?.1.to_digit(16)?)?;
        }
        char::from_u32(value)
    };
    match chars.next()?.1 {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'v' => Some('\x0b'),
        c @ ('\\' | '"' | '\'') => Some(c),
        'x' => hex(chars, 2),
        'u' => hex(chars, 4),
        'U' => hex(chars, 8),
        _ => None,
    }
}

/// A character constant, which is a number in Go.
fn character(rest: &str, at: usize) -> Result<(usize, Kind), Fault> {
    let wrong = || Fault::new(at, "unterminated character constant");
    let mut chars = rest.char_indices().skip(1);
    let value = match chars.next().ok_or_else(wrong)?.1 {
        '\\' => escape(&mut chars).ok_or_else(wrong)?,
        '\'' => return Err(wrong()),
        c => c,
    };
    match chars.next() {
        Some((index, '\'')) => Ok((index + 1, Kind::Literal(Value::from(u32::from(value))))),
        _ => Err(wrong()),
    }
}

fn number(rest: &str, at: usize) -> Result<(usize, Kind), Fault> {
    let mut length = 0;
    let mut before = ' ';
    for c in rest.chars() {
        let sign = matches!(c, '+' | '-') && (length == 0 || matches!(before, 'e' | 'E'));
        if !(sign || c == '.' || is_word(c)) {
            break;
        }
        length += c.len_utf8();
        before = c;
    }
    let text = &rest[..length];
    let wrong = || Fault::new(at, format!("bad number syntax: {text:?}"));
    let digits = text.trim_start_matches(['+', '-']).replace('_', "").to_ascii_lowercase();
    let integer = match digits.get(..2) {
        Some("0x") => i64::from_str_radix(&digits[2..], 16).ok(),
        Some("0o") => i64::from_str_radix(&digits[2..], 8).ok(),
        Some("0b") => i64::from_str_radix(&digits[2..], 2).ok(),
        _ => digits.parse().ok(),
    };
    let negative = text.starts_with('-');
    let value = match integer {
        Some(value) => Number::from(if negative { -value } else { value }),
        // `inf` and `nan` read as floats in Rust, but are no numbers of Go's.
        None if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            let value: f64 = digits.parse().map_err(|_| wrong())?;
            Number::from_f64(if negative { -value } else { value }).ok_or_else(wrong)?
        }
        None => return Err(wrong()),
    };
    Ok((length, Kind::Literal(Value::Number(value))))
}
