//! Fills values into a parsed template.

use super::{
    Fault, OUTPUT_MAX, STEPS_MAX, functions,
    parse::{Base, Branch, Command, Node, Operand, Pipe},
    zero,
};
use crate::cli::human;
use serde_json::Value;
use std::{borrow::Cow, time::Duration};

/// A value while a template is filled in; `None` is what Go calls no value: a key that a map of
/// free keys does not have.
pub(super) type Val<'a> = Option<Cow<'a, Value>>;

/// Fills `data` into `nodes`.
pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, Fault> {
    run(nodes, data, false)
}

/// Fills headings into `nodes`: functions that change how a value looks leave them alone.
pub(super) fn render_headings(nodes: &[Node], data: &Value) -> Result<String, Fault> {
    run(nodes, data, true)
}

fn run(nodes: &[Node], data: &Value, headings: bool) -> Result<String, Fault> {
    let root = Some(Cow::Borrowed(data));
    let mut renderer = Renderer {
        out: String::new(),
        made: 0,
        steps: 0,
        headings,
        variables: vec![("", root.clone())],
    };
    renderer.list(nodes, &root)?;
    Ok(renderer.out)
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Renderer<'a> {
    out: String,
    /// How many bytes of results were made, printed or not.
    made: usize,
    steps: usize,
    headings: bool,
    variables: Vec<(&'a str, Val<'a>)>,
}

impl<'a> Renderer<'a> {
    fn step(&mut self, at: usize) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Fault::new(at, format!("this takes more than {STEPS_MAX} steps")));
        }
        Ok(())
    }

    fn made(&mut self, at: usize, bytes: usize) -> Result<(), Fault> {
        self.made = self.made.saturating_add(bytes);
        if self.made > OUTPUT_MAX {
            return Err(Fault::new(at, format!("this makes more than {OUTPUT_MAX} bytes")));
        }
        Ok(())
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow, Fault> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.made(0, text.len())?;
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        let duration = duration(pipe, value.as_deref());
                        let text = duration.unwrap_or_else(|| functions::plain(value.as_deref()));
                        self.made(pipe.at, text.len())?;
                        self.out.push_str(&text);
                    }
                    Flow::Next
                }
                Node::If(branch) => self.choice(branch, dot, false)?,
                Node::With(branch) => self.choice(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn choice(&mut self, branch: &'a Branch, dot: &Val<'a>, with: bool) -> Result<Flow, Fault> {
        let scope = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = if functions::truth(value.as_deref()) {
            self.list(&branch.then, if with { &value } else { dot })
        } else {
            self.list(&branch.otherwise, dot)
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, branch: &'a Branch, dot: &Val<'a>) -> Result<Flow, Fault> {
        let scope = self.variables.len();
        let over = self.pipe_value(&branch.pipe, dot)?;
        let at = branch.pipe.at;
        let items: Vec<(Value, Val<'a>)> = match over {
            None => Vec::new(),
            Some(Cow::Borrowed(value)) => items(value, at, Cow::Borrowed)?,
            Some(Cow::Owned(value)) => {
                // A value that was made on the way is copied item by item.
                items(&value, at, |item| Cow::Owned(item.clone()))?
            }
        };
        let mut flow = Flow::Next;
        if items.is_empty() {
            flow = self.list(&branch.otherwise, dot)?;
        }
        for (key, item) in items {
            self.step(at)?;
            self.range_variables(&branch.pipe, key, &item);
            let inner = self.list(&branch.then, &item)?;
            if !branch.pipe.assigns {
                self.variables.truncate(scope);
            }
            if inner == Flow::Break {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range_variables(&mut self, pipe: &'a Pipe, key: Value, item: &Val<'a>) {
        let values = match pipe.variables.as_slice() {
            [] => return,
            [one] => vec![(one, item.clone())],
            [first, second, ..] => {
                vec![(first, Some(Cow::Owned(key))), (second, item.clone())]
            }
        };
        for (name, value) in values {
            self.set(name, value, pipe.assigns);
        }
    }

    fn set(&mut self, name: &'a str, value: Val<'a>, assigns: bool) {
        if assigns {
            let found = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
            if let Some((_, old)) = found {
                *old = value;
                return;
            }
        }
        self.variables.push((name, value));
    }

    /// Evaluates a pipeline and sets its variables.
    fn pipe(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        let value = self.pipe_value(pipe, dot)?;
        for name in &pipe.variables {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn pipe_value(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        let mut value: Option<Val<'a>> = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.flatten())
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Val<'a>,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, Fault> {
        self.step(command.at)?;
        let first = &command.operands[0];
        let Base::Function(name) = &first.base else { return self.operand(first, dot) };
        let mut arguments = Vec::new();
        for operand in &command.operands[1..] {
            let value = self.operand(operand, dot)?;
            // The rest of these two is not even looked at once the answer is known.
            let decided = match name.as_str() {
                "and" => !functions::truth(value.as_deref()),
                "or" => functions::truth(value.as_deref()),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        let value = functions::call(name, &arguments, self.headings)
            .map_err(|why| Fault::new(first.at, format!("error calling {name}: {why}")))?;
        if let Some(value) = value.as_deref() {
            self.made(first.at, functions::weight(value))?;
        }
        Ok(value)
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Val<'a>) -> Result<Val<'a>, Fault> {
        self.step(operand.at)?;
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => None,
            Base::Literal(value) => Some(Cow::Borrowed(value)),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| {
                    Fault::new(operand.at, format!("undefined variable \"${name}\""))
                })?
            }
            Base::Function(name) => functions::call(name, &[], self.headings)
                .map_err(|why| Fault::new(operand.at, format!("error calling {name}: {why}")))?,
            Base::Paren(pipe) => self.pipe(pipe, dot)?,
        };
        if let Some(Cow::Owned(value)) = &base {
            self.made(operand.at, functions::weight(value))?;
        }
        let mut value = base;
        let mut path = String::new();
        for (index, name) in operand.fields.iter().enumerate() {
            path.push('.');
            path.push_str(name);
            let parent = index.checked_sub(1).map(|before| operand.fields[before].as_str());
            value = field(value, name, parent).map_err(|why| {
                Fault::new(operand.at, format!("executing \"\" at <{path}>: {why}"))
            })?;
        }
        Ok(value)
    }
}

/// Returns the duration that a field holds, where nothing is done with it but to print it.
fn duration(pipe: &Pipe, value: Option<&Value>) -> Option<String> {
    let [Command { operands, .. }] = pipe.commands.as_slice() else { return None };
    let [operand] = operands.as_slice() else { return None };
    let nanos = value?.as_u64()?;
    zero::is_duration(operand.fields.last()?)
        .then(|| human::go_duration(Duration::from_nanos(nanos)))
}

/// The items of what `range` goes over, with their keys or numbers.
fn items<'a, 'v>(
    value: &'v Value,
    at: usize,
    take: impl Fn(&'v Value) -> Cow<'a, Value>,
) -> Result<Vec<(Value, Val<'a>)>, Fault> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list
            .iter()
            .enumerate()
            .map(|(n, item)| (Value::from(n), Some(take(item))))
            .collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries = entries.into_iter();
            Ok(entries.map(|(key, item)| (Value::from(key.as_str()), Some(take(item)))).collect())
        }
        Value::Number(number) => {
            let count = number.as_i64().unwrap_or(0);
            if count > i64::try_from(STEPS_MAX).unwrap_or(i64::MAX) {
                return Err(Fault::new(at, format!("this takes more than {STEPS_MAX} steps")));
            }
            let number = |n: i64| (Value::from(n), Some(Cow::Owned(Value::from(n))));
            Ok((0..count.max(0)).map(number).collect())
        }
        other => {
            Err(Fault::new(at, format!("range can't iterate over {}", functions::short(other))))
        }
    }
}

/// Looks a field up. One that Docker leaves out where it is empty is empty; a key of a map whose
/// keys users choose is no value; any other is a mistake.
fn field<'a>(value: Val<'a>, name: &str, parent: Option<&str>) -> Result<Val<'a>, String> {
    let missing = |value: &Value| match value {
        Value::Object(_) if parent.is_some_and(zero::has_free_keys) => Ok(None),
        Value::Object(_) => match zero::empty(name) {
            Some(empty) => Ok(Some(Cow::Owned(empty))),
            None => Err(format!("can't evaluate field {name}")),
        },
        Value::Null => Err(format!("nil pointer evaluating field {name}")),
        other => Err(format!("can't evaluate field {name} in {}", functions::short(other))),
    };
    match value {
        None => Err(format!("nil pointer evaluating field {name}")),
        Some(Cow::Borrowed(value)) => match value.get(name) {
            Some(found) => Ok(Some(Cow::Borrowed(found))),
            None => missing(value),
        },
        Some(Cow::Owned(mut value)) => match value.get_mut(name) {
            Some(found) => Ok(Some(Cow::Owned(found.take()))),
            None => missing(&value),
        },
    }
}
