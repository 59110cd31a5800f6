//! What is asked of what nodes store: of this one, in Docker's shape, or of several, each with its
//! name.

use super::super::{
    dto,
    error::invalid,
    filter::Filters,
    local::{NodeAnswer, NodeSelector},
    route::{Call, Reply, json, json_with},
};
use crate::{
    cluster::{Class, Refusal},
    types::{Chore, ChoreDone, Date, Prune},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// How many nodes may be named at once: far more than anyone types.
const NODES_MAX: usize = 1_000;

/// Returns which nodes are meant; none where the request says nothing of nodes.
pub(super) fn nodes(call: &Call) -> Result<Option<NodeSelector>, Refusal> {
    Ok(match call.query.get("nodes") {
        None => None,
        Some("all") => Some(NodeSelector::All),
        Some(names) => {
            let names: Vec<String> =
                names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            if names.is_empty() || names.len() > NODES_MAX {
                return Err(invalid(format!("between 1 and {NODES_MAX} nodes must be named")));
            }
            Some(NodeSelector::Named(names))
        }
    })
}

/// Has a chore done and renders what came of it: as `render` says for this node; for several, a
/// list of answers, among which may be refusals.
pub(super) async fn ask<T: Serialize>(
    call: &Call,
    chore: Chore,
    render: impl Fn(ChoreDone) -> Result<T, Refusal>,
) -> Reply {
    ask_with(call, chore, StatusCode::OK, render).await
}

/// The same with another status than 200 for this node's success.
pub(super) async fn ask_with<T: Serialize>(
    call: &Call,
    chore: Chore,
    success: StatusCode,
    render: impl Fn(ChoreDone) -> Result<T, Refusal>,
) -> Reply {
    let Some(nodes) = nodes(call)? else {
        let answers = call.node.chore(NodeSelector::Local, chore).await?;
        let answer = answers.into_iter().next().ok_or_else(|| odd("a chore"))?;
        return json_with(success, &render(answer.result?)?);
    };
    let answers = call.node.chore(nodes, chore).await?;
    let shown = answers.into_iter().map(|NodeAnswer { node, name, result }| {
        let id = node.map(|node| node.to_string()).unwrap_or_default();
        let rendered = result
            .and_then(&render)
            .and_then(|answer| serde_json::to_value(answer).map_err(|_| odd("an answer")));
        let (error, answer) = match rendered {
            Ok(answer) => (String::new(), answer),
            Err(refusal) => (refusal.message, Value::Null),
        };
        dto::FromNode { id, hostname: name, error, answer }
    });
    json(&shown.collect::<Vec<_>>())
}

/// For an answer of a node that does not fit the question.
pub(super) fn odd(question: &str) -> Refusal {
    Refusal::new(Class::Internal, format!("unexpected answer of a node to {question}"))
}

/// Reads what is to be pruned out of the filters `until`, `label` and `label!`.
pub(super) fn prune(filters: &Filters, all: bool) -> Result<Prune, Refusal> {
    let until = match filters.values("until") {
        [] => None,
        [text] => Some(until(text)?),
        _ => return Err(invalid("more than one until filter specified")),
    };
    let labels = filters.values("label").to_vec();
    Ok(Prune { all, until, labels, without: filters.values("label!").to_vec() })
}

/// Reads a time as Docker's filters have it: seconds, a date, or how long ago.
fn until(text: &str) -> Result<Date, Refusal> {
    let wrong = || invalid(format!("invalid filter 'until': {text:?} is no time"));
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Date::from_unix_seconds(seconds));
    }
    if let Some(date) = Date::parse(text) {
        return Ok(date);
    }
    let mut ago = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = match rest[end..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            _ => return Err(wrong()),
        };
        ago = ago.saturating_add(Duration::from_secs(number.saturating_mul(unit)));
        rest = &rest[end + 1..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(super::system::now() - ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_pruning_are_dockers() {
        assert_eq!(until("100").unwrap(), Date::from_unix_seconds(100));
        assert_eq!(until("1970-01-01T00:01:40Z").unwrap(), Date::from_unix_seconds(100));
        let ago = super::super::system::now() - Duration::from_secs(5_400);
        let given = until("1h30m").unwrap();
        assert!(given >= ago && given.since(ago) < Duration::from_secs(60));
        for wrong in ["", "h", "1", "1d", "yesterday"] {
            assert_eq!(until(wrong).is_err(), wrong != "1", "{wrong}");
        }
    }

    #[test]
    fn filters_say_what_is_pruned() {
        let filters = |text| Filters::parse(Some(text), &["label", "label!", "until"]).unwrap();
        let text = r#"{"label":["a=1"],"label!":{"b":true},"until":["7"]}"#;
        let wanted = Prune {
            all: true,
            until: Some(Date::from_unix_seconds(7)),
            labels: vec!["a=1".to_owned()],
            without: vec!["b".to_owned()],
        };
        assert_eq!(prune(&filters(text), true).unwrap(), wanted);
        assert!(prune(&filters(r#"{"until":["7","8"]}"#), true).is_err());
    }
}
