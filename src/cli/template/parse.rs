//! From tokens to a tree.

use super::{
    DEPTH_MAX, Fault, functions,
    lex::{Kind, Token},
};
use serde_json::Value;

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// A pipeline that decides, and what follows from it.
#[derive(Debug, PartialEq)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `$a, $b := first | second`
#[derive(Debug, PartialEq)]
pub(super) struct Pipe {
    /// The variables that take the value.
    pub(super) variables: Vec<String>,
    /// Whether the variables are there already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
    pub(super) at: usize,
}

/// A value, or a function with its arguments.
#[derive(Debug, PartialEq)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
    pub(super) at: usize,
}

#[derive(Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// The fields that are looked up in the base, one in the other.
    pub(super) fields: Vec<String>,
    pub(super) at: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Base {
    Dot,
    Nil,
    Variable(String),
    Function(String),
    Literal(Value),
    Paren(Box<Pipe>),
}

/// What ended a list of nodes.
enum End {
    /// The end of the text.
    Text,
    /// `{{end}}`
    Block,
    /// `{{else}}`, or `{{else if ...` and `{{else with ...` with the keyword.
    Else(Option<String>),
}

/// Makes a tree of tokens.
pub(super) fn nodes(tokens: Vec<Token>) -> Result<Vec<Node>, Fault> {
    let last = tokens.last().map_or(0, |token| token.at);
    let mut parser = Parser {
        tokens: tokens.into_iter(),
        last,
        depth: 0,
        loops: 0,
        variables: vec![String::new()],
    };
    match parser.list()? {
        (nodes, End::Text, _) => Ok(nodes),
        (_, End::Block, at) => Err(Fault::new(at, "unexpected {{end}}")),
        (_, End::Else(_), at) => Err(Fault::new(at, "unexpected {{else}}")),
    }
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    /// Where the last token begins: errors about a missing one name it.
    last: usize,
    depth: usize,
    /// How many loops surround this place.
    loops: usize,
    /// The variables that can be named here.
    variables: Vec<String>,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.as_slice().first()
    }

    fn next_if(&mut self, wanted: impl Fn(&Kind) -> bool) -> Option<Token> {
        if self.peek().is_some_and(|token| wanted(&token.kind)) { self.tokens.next() } else { None }
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::new(at, format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn close(&mut self, context: &str) -> Result<(), Fault> {
        match self.tokens.next() {
            Some(Token { kind: Kind::Close, .. }) => Ok(()),
            Some(token) => Err(unexpected(&token, context)),
            None => Err(Fault::new(self.last, "unclosed action")),
        }
    }

    /// Reads nodes up to what ends them; also says where that is.
    fn list(&mut self) -> Result<(Vec<Node>, End, usize), Fault> {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.next() {
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => match self.keyword().as_deref() {
                    Some("end") => {
                        self.close("end")?;
                        return Ok((nodes, End::Block, token.at));
                    }
                    Some("else") => {
                        let chained = self.keyword();
                        if chained.is_none() {
                            self.close("else")?;
                        }
                        return Ok((nodes, End::Else(chained), token.at));
                    }
                    Some(word) => nodes.push(self.block(word, token.at)?),
                    None => {
                        let pipe = self.pipe("command")?;
                        self.close("command")?;
                        nodes.push(Node::Action(pipe));
                    }
                },
                _ => return Err(unexpected(&token, "template")),
            }
        }
        Ok((nodes, End::Text, self.last))
    }

    /// Takes a keyword, where one comes.
    fn keyword(&mut self) -> Option<String> {
        const KEYWORDS: [&str; 10] = [
            "if", "else", "end", "range", "with", "break", "continue", "define", "template",
            "block",
        ];
        let is_keyword =
            |kind: &Kind| matches!(kind, Kind::Word(word) if KEYWORDS.contains(&word.as_str()));
        match self.next_if(is_keyword)?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn block(&mut self, word: &str, at: usize) -> Result<Node, Fault> {
        match word {
            "if" => Ok(Node::If(self.branch("if", at)?)),
            "with" => Ok(Node::With(self.branch("with", at)?)),
            "range" => Ok(Node::Range(self.branch("range", at)?)),
            "break" | "continue" if self.loops == 0 => {
                Err(Fault::new(at, format!("{{{{{word}}}}} outside {{{{range}}}}")))
            }
            "break" | "continue" => {
                self.close(word)?;
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            _ => Err(Fault::new(at, format!("{{{{{word}}}}} is not supported in --format"))),
        }
    }

    fn branch(&mut self, word: &str, at: usize) -> Result<Branch, Fault> {
        self.deeper(at)?;
        let scope = self.variables.len();
        let pipe = self.pipe(word)?;
        let most = if word == "range" { 2 } else { 1 };
        if pipe.variables.len() > most {
            return Err(Fault::new(pipe.at, format!("too many declarations in {word}")));
        }
        self.close(word)?;
        let inner = self.variables.len();
        self.loops += usize::from(word == "range");
        let then = self.list();
        self.loops -= usize::from(word == "range");
        let (then, end, end_at) = then?;
        self.variables.truncate(inner);
        let otherwise = match end {
            End::Block => Vec::new(),
            End::Text => {
                return Err(Fault::new(
                    at,
                    format!("unexpected EOF: {{{{{word}}}}} has no {{{{end}}}}"),
                ));
            }
            // The end of the inner block is the end of this one as well.
            End::Else(Some(inner)) if inner == word && word != "range" => {
                let branch = self.branch(word, end_at)?;
                vec![if word == "if" { Node::If(branch) } else { Node::With(branch) }]
            }
            End::Else(Some(inner)) => {
                return Err(Fault::new(
                    end_at,
                    format!("unexpected {{{{else {inner}}}}} in {word}"),
                ));
            }
            End::Else(None) => match self.list()? {
                (nodes, End::Block, _) => nodes,
                (_, End::Else(_), at) => {
                    return Err(Fault::new(at, "expected end; found {{else}}"));
                }
                (_, End::Text, _) => {
                    return Err(Fault::new(
                        at,
                        format!("unexpected EOF: {{{{{word}}}}} has no {{{{end}}}}"),
                    ));
                }
            },
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Branch { pipe, then, otherwise })
    }

    fn pipe(&mut self, context: &str) -> Result<Pipe, Fault> {
        let at = self.peek().map_or(self.last, |token| token.at);
        let (variables, assigns) = self.declaration(context)?;
        let mut commands = vec![self.command(context)?];
        while self.next_if(|kind| *kind == Kind::Pipe).is_some() {
            let command = self.command(context)?;
            if !matches!(command.operands[0].base, Base::Function(_)) {
                return Err(Fault::new(
                    command.at,
                    "only a function can take the value of a pipeline",
                ));
            }
            commands.push(command);
        }
        for name in &variables {
            if assigns && !self.variables.contains(name) {
                return Err(Fault::new(at, format!("undefined variable \"${name}\"")));
            }
        }
        // A variable can be named only after its own declaration.
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe { variables, assigns, commands, at })
    }

    /// Reads `$a :=`, `$a =`, `$a, $b :=`, where one of them comes.
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), Fault> {
        let mut ahead = self.tokens.as_slice().iter();
        let mut names = Vec::new();
        let (at, assigns) = loop {
            match ahead.next().map(|token| &token.kind) {
                Some(Kind::Variable(name)) => names.push(name.clone()),
                _ => return Ok((Vec::new(), false)),
            }
            match ahead.next() {
                Some(Token { kind: Kind::Comma, .. }) if context == "range" && names.len() == 1 => {
                }
                Some(Token { kind: Kind::Declare, at }) => break (*at, false),
                Some(Token { kind: Kind::Assign, at }) => break (*at, true),
                _ => return Ok((Vec::new(), false)),
            }
        };
        if names.iter().any(String::is_empty) {
            return Err(Fault::new(at, "$ cannot be set"));
        }
        // Names and what separates them, and the sign.
        self.tokens.nth(names.len() * 2 - 1);
        Ok((names, assigns))
    }

    fn command(&mut self, context: &str) -> Result<Command, Fault> {
        let at = self.peek().map_or(self.last, |token| token.at);
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        match operands.as_slice() {
            [] => match self.peek() {
                Some(token) if !matches!(token.kind, Kind::Close | Kind::Pipe) => {
                    Err(unexpected(token, context))
                }
                _ => Err(Fault::new(at, format!("missing value for {context}"))),
            },
            [first, _, ..] if !matches!(first.base, Base::Function(_)) => {
                Err(Fault::new(first.at, "can't give argument to non-function"))
            }
            _ => Ok(Command { operands, at }),
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>, Fault> {
        let Some(token) = self.next_if(|kind| {
            !matches!(
                kind,
                Kind::Text(_)
                    | Kind::Open
                    | Kind::Close
                    | Kind::Pipe
                    | Kind::RightParen
                    | Kind::Declare
                    | Kind::Assign
                    | Kind::Comma
            )
        }) else {
            return Ok(None);
        };
        let at = token.at;
        let base = match token.kind {
            Kind::Fields { names, .. } => {
                return Ok(Some(Operand { base: Base::Dot, fields: names, at }));
            }
            Kind::Dot => Base::Dot,
            Kind::Variable(name) if self.variables.contains(&name) => Base::Variable(name),
            Kind::Variable(name) => {
                return Err(Fault::new(at, format!("undefined variable \"${name}\"")));
            }
            Kind::Word(word) if word == "nil" => Base::Nil,
            Kind::Word(word) if functions::is_known(&word) => Base::Function(word),
            Kind::Word(word) => return Err(Fault::new(at, not_defined(&word))),
            Kind::Literal(value) => Base::Literal(value),
            Kind::LeftParen => {
                self.deeper(at)?;
                let pipe = self.pipe("parenthesized pipeline")?;
                match self.tokens.next() {
                    Some(Token { kind: Kind::RightParen, .. }) => {}
                    Some(token) => return Err(unexpected(&token, "parenthesized pipeline")),
                    None => return Err(Fault::new(at, "unclosed left paren")),
                }
                self.depth -= 1;
                Base::Paren(Box::new(pipe))
            }
            _ => return Err(unexpected(&token, "operand")),
        };
        let takes = matches!(base, Base::Variable(_) | Base::Paren(_));
        let joined = |kind: &Kind| takes && matches!(kind, Kind::Fields { joined: true, .. });
        let fields = match self.next_if(joined).map(|token| token.kind) {
            Some(Kind::Fields { names, .. }) => names,
            _ => Vec::new(),
        };
        Ok(Some(Operand { base, fields, at }))
    }
}

fn not_defined(word: &str) -> String {
    let near = crate::cli::suggest::nearest(word, functions::names());
    let near = near.first().map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("function {word:?} not defined{near}")
}

fn unexpected(token: &Token, context: &str) -> Fault {
    let what = match &token.kind {
        Kind::Text(_) => "text".to_owned(),
        Kind::Open => "{{".to_owned(),
        Kind::Close => "}}".to_owned(),
        Kind::Dot => ".".to_owned(),
        Kind::Fields { names, .. } => format!(".{}", names.join(".")),
        Kind::Variable(name) => format!("${name}"),
        Kind::Word(word) => word.clone(),
        Kind::Literal(value) => value.to_string(),
        Kind::Pipe => "|".to_owned(),
        Kind::LeftParen => "(".to_owned(),
        Kind::RightParen => ")".to_owned(),
        Kind::Declare => ":=".to_owned(),
        Kind::Assign => "=".to_owned(),
        Kind::Comma => ",".to_owned(),
    };
    Fault::new(token.at, format!("unexpected {what:?} in {context}"))
}
