//! From the text to the tree.

use super::{DEPTH_MAX, Expression, InvalidTemplate, Node, invalid};
use std::collections::VecDeque;

/// The functions there are.
pub(super) const FUNCTIONS: [&str; 10] =
    ["index", "join", "print", "printf", "len", "eq", "ne", "and", "or", "not"];

/// Go's words for what midge leaves out.
const UNKNOWN: [&str; 8] =
    ["range", "with", "define", "template", "block", "break", "continue", "nil"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Field(Vec<String>),
    Word(String),
    Text(String),
    Number(i64),
    Open,
    Close,
    Pipe,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Action(VecDeque<Token>),
}

pub(super) fn template(text: &str) -> Result<Vec<Node>, InvalidTemplate> {
    let mut pieces = pieces(text)?;
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(End::End) => Err(invalid("unexpected {{end}}")),
        Some(End::Else(_)) => Err(invalid("unexpected {{else}}")),
    }
}

/// What closed a block.
enum End {
    End,
    /// With the tokens behind it: an `if`, or nothing.
    Else(VecDeque<Token>),
}

fn block(
    pieces: &mut VecDeque<Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Option<End>), InvalidTemplate> {
    if depth > DEPTH_MAX {
        return Err(invalid(format!("conditions nest deeper than {DEPTH_MAX}")));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.pop_front() {
        let mut tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = match tokens.front() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" | "else" => {
                tokens.pop_front();
                let end = if keyword == "end" { End::End } else { End::Else(tokens) };
                return Ok((nodes, Some(end)));
            }
            "if" => {
                tokens.pop_front();
                nodes.push(condition(tokens, pieces, depth + 1)?);
            }
            _ => nodes.push(Node::Print(whole_pipeline(tokens)?)),
        }
    }
    Ok((nodes, None))
}

/// Reads an `if` whose keyword was taken, to its `end`.
fn condition(
    tokens: VecDeque<Token>,
    pieces: &mut VecDeque<Piece>,
    depth: usize,
) -> Result<Node, InvalidTemplate> {
    if tokens.is_empty() {
        return Err(invalid("missing value for if"));
    }
    let test = whole_pipeline(tokens)?;
    let (then, end) = block(pieces, depth)?;
    let otherwise = match end {
        None => return Err(invalid("unexpected EOF")),
        Some(End::End) => Vec::new(),
        Some(End::Else(mut tokens)) => match tokens.pop_front() {
            None => match block(pieces, depth)? {
                (nodes, Some(End::End)) => nodes,
                (_, Some(End::Else(_))) => return Err(invalid("expected end; found {{else}}")),
                (_, None) => return Err(invalid("unexpected EOF")),
            },
            // The chain's own `end` closes it all.
            Some(Token::Word(word)) if word == "if" => vec![condition(tokens, pieces, depth + 1)?],
            Some(_) => return Err(invalid("unexpected value behind else")),
        },
    };
    Ok(Node::If(test, then, otherwise))
}

fn whole_pipeline(mut tokens: VecDeque<Token>) -> Result<Expression, InvalidTemplate> {
    let expression = pipeline(&mut tokens, 0)?;
    match tokens.front() {
        None => Ok(expression),
        Some(_) => Err(invalid("unexpected right paren")),
    }
}

/// Reads stages up to the end or a closing parenthesis, which stays.
fn pipeline(tokens: &mut VecDeque<Token>, depth: usize) -> Result<Expression, InvalidTemplate> {
    if depth > DEPTH_MAX {
        return Err(invalid(format!("parentheses nest deeper than {DEPTH_MAX}")));
    }
    let mut result: Option<Expression> = None;
    loop {
        let mut stage = stage(tokens, depth)?;
        if let Some(before) = result.take() {
            match &mut stage {
                Expression::Call(_, arguments) => arguments.push(before),
                _ => return Err(invalid("non executable command in pipeline")),
            }
        }
        match tokens.front() {
            Some(Token::Pipe) => {
                tokens.pop_front();
                result = Some(stage);
            }
            _ => return Ok(stage),
        }
    }
}

fn stage(tokens: &mut VecDeque<Token>, depth: usize) -> Result<Expression, InvalidTemplate> {
    let mut terms = Vec::new();
    let mut function = None;
    loop {
        let term = match tokens.front() {
            None | Some(Token::Pipe | Token::Close) => break,
            Some(_) => tokens.pop_front().unwrap_or(Token::Pipe),
        };
        let term = match term {
            Token::Field(path) => Expression::Field(path),
            Token::Text(text) => Expression::Text(text),
            Token::Number(number) => Expression::Number(number),
            Token::Open => parenthesis(tokens, depth)?,
            Token::Word(word) => match word.as_str() {
                "true" | "false" => Expression::Bool(word == "true"),
                known if FUNCTIONS.contains(&known) => {
                    if terms.is_empty() && function.is_none() {
                        function = Some(word);
                        continue;
                    }
                    // A function as an argument is called without arguments of its own.
                    Expression::Call(word, Vec::new())
                }
                unknown if UNKNOWN.contains(&unknown) => {
                    return Err(invalid(format!("{{{{{unknown}}}}} is not supported")));
                }
                _ => return Err(invalid(format!("function {word:?} not defined"))),
            },
            Token::Close | Token::Pipe => break,
        };
        terms.push(term);
    }
    match (function, terms.len()) {
        (Some(name), _) => Ok(Expression::Call(name, terms)),
        (None, 0) => Err(invalid("missing value for command")),
        (None, 1) => Ok(terms.swap_remove(0)),
        (None, _) => Err(invalid("can't give argument to non-function")),
    }
}

fn parenthesis(tokens: &mut VecDeque<Token>, depth: usize) -> Result<Expression, InvalidTemplate> {
    let inner = pipeline(tokens, depth + 1)?;
    match tokens.pop_front() {
        Some(Token::Close) => {}
        _ => return Err(invalid("unclosed left paren")),
    }
    match tokens.front() {
        Some(Token::Field(path)) if !path.is_empty() => {
            let path = path.clone();
            tokens.pop_front();
            Ok(Expression::FieldOf(Box::new(inner), path))
        }
        _ => Ok(inner),
    }
}

/// Takes text and actions apart.
fn pieces(text: &str) -> Result<VecDeque<Piece>, InvalidTemplate> {
    let mut pieces = VecDeque::new();
    let mut rest = text;
    // Whether the action before ended in `-}}`.
    let mut trim = false;
    loop {
        let start = rest.find("{{");
        let mut plain = &rest[..start.unwrap_or(rest.len())];
        if trim {
            plain = plain.trim_start();
        }
        let Some(start) = start else {
            pieces.push_back(Piece::Text(plain.to_owned()));
            return Ok(pieces);
        };
        rest = &rest[start + 2..];
        if let Some(inside) = rest.strip_prefix('-').filter(|r| r.starts_with(char::is_whitespace))
        {
            plain = plain.trim_end();
            rest = inside;
        }
        pieces.push_back(Piece::Text(plain.to_owned()));
        if let Some(comment) = rest.trim_start().strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| invalid("unclosed comment"))?;
            let behind = comment[end + 2..].trim_start();
            trim = behind.starts_with('-');
            rest = behind
                .strip_prefix('-')
                .unwrap_or(behind)
                .strip_prefix("}}")
                .ok_or_else(|| invalid("comment ends before closing delimiter"))?;
            continue;
        }
        let (tokens, trimmed, behind) = action(rest)?;
        pieces.push_back(Piece::Action(tokens));
        trim = trimmed;
        rest = behind;
    }
}

/// Reads an action up to and with its `}}`: its tokens, whether it trims, and what follows it.
fn action(text: &str) -> Result<(VecDeque<Token>, bool, &str), InvalidTemplate> {
    let mut tokens = VecDeque::new();
    let mut rest = text;
    loop {
        let spaced = rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((tokens, false, behind));
        }
        if let Some(behind) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((tokens, true, behind));
        }
        let first = rest.chars().next().ok_or_else(|| invalid("unclosed action"))?;
        // Values stand apart: `"a"b` is a typing error.
        let value = !matches!(first, '(' | ')' | '|');
        let after_value =
            matches!(tokens.back(), Some(Token::Word(_) | Token::Text(_) | Token::Number(_)));
        if value && after_value && !spaced {
            return Err(invalid(format!("unexpected {first:?} in operand")));
        }
        let (token, behind) = token(first, rest)?;
        tokens.push_back(token);
        rest = behind;
    }
}

fn token(first: char, rest: &str) -> Result<(Token, &str), InvalidTemplate> {
    let word_end =
        |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let token = match first {
        '(' => (Token::Open, &rest[1..]),
        ')' => (Token::Close, &rest[1..]),
        '|' => (Token::Pipe, &rest[1..]),
        '.' => {
            let (mut path, mut behind) = (Vec::new(), rest);
            while let Some(name) = behind.strip_prefix('.') {
                let end = word_end(name);
                if end == 0 {
                    if path.is_empty() {
                        behind = name;
                        break;
                    }
                    return Err(invalid(format!("unexpected '.' in {rest:?}")));
                }
                path.push(name[..end].to_owned());
                behind = &name[end..];
            }
            (Token::Field(path), behind)
        }
        '"' => quoted(rest)?,
        '`' => {
            let end =
                rest[1..].find('`').ok_or_else(|| invalid("unterminated raw quoted string"))?;
            (Token::Text(rest[1..=end].to_owned()), &rest[end + 2..])
        }
        '$' => return Err(invalid("variables are not supported")),
        '-' | '+' | '0'..='9' => {
            let end = 1 + rest[1..].find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len() - 1);
            let number = rest[..end].parse();
            let number =
                number.map_err(|_| invalid(format!("bad number syntax: {:?}", &rest[..end])))?;
            (Token::Number(number), &rest[end..])
        }
        c if c.is_alphabetic() || c == '_' => {
            let end = word_end(rest);
            (Token::Word(rest[..end].to_owned()), &rest[end..])
        }
        c => return Err(invalid(format!("unexpected {c:?} in command"))),
    };
    Ok(token)
}

/// Reads a text in double quotes, with Go's common escapes.
fn quoted(rest: &str) -> Result<(Token, &str), InvalidTemplate> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(text), &rest[at + 1..])),
            '\n' => break,
            '\\' => text.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, 'r')) => '\r',
                Some((_, c @ ('"' | '\\' | '\''))) => c,
                _ => return Err(invalid("unknown escape in a quoted string")),
            }),
            c => text.push(c),
        }
    }
    Err(invalid("unterminated quoted string"))
}
