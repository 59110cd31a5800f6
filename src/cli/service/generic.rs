//! Generic resources, as options write them and people read them.

use crate::cli::{
    exit::CliError,
    human::{list, text},
};
use serde_json::{Value, json};

/// Reads `--generic-resource`: `KIND=N`. The texts are Docker's.
pub(super) fn parse(entry: &str) -> Result<Value, String> {
    let (kind, value) = entry.split_once('=').ok_or_else(|| {
        format!("invalid generic-resource format `{entry}` expected `name=value`")
    })?;
    let Ok(count) = value.parse::<i64>() else {
        return Err(format!(
            "invalid generic-resource request `{kind}={value}`, Named Generic Resources is not \
             supported for service create or update"
        ));
    };
    Ok(json!({"DiscreteResourceSpec": {"Kind": kind, "Value": count}}))
}

fn kind(resource: &Value) -> &str {
    match text(resource, "/DiscreteResourceSpec/Kind") {
        "" => text(resource, "/NamedResourceSpec/Kind"),
        kind => kind,
    }
}

/// Returns reservations with these added, one of each kind, and those of the removed kinds gone.
pub(super) fn merge(
    old: &[Value],
    add: &[Value],
    remove: &[String],
) -> Result<Vec<Value>, CliError> {
    let removed: Vec<&str> =
        remove.iter().map(|entry| entry.split('=').next().unwrap_or(entry)).collect();
    for gone in &removed {
        if !old.iter().any(|resource| kind(resource) == *gone) {
            return Err(CliError::failure(format!(
                "could not find generic-resource `{gone}` to remove it"
            )));
        }
    }
    let mut merged: Vec<Value> = old
        .iter()
        .filter(|resource| !removed.contains(&kind(resource)))
        .filter(|resource| !add.iter().any(|new| kind(new) == kind(resource)))
        .cloned()
        .collect();
    merged.extend(add.iter().cloned());
    merged.sort_by(|a, b| kind(a).cmp(kind(b)));
    Ok(merged)
}

/// Returns what `owner` has at `GenericResources` for people: `gpu=a, ssd=3`.
pub(in crate::cli) fn shown(owner: &Value) -> String {
    let show = |resource: &Value| {
        let count = &resource["DiscreteResourceSpec"]["Value"];
        let value = match count.as_i64() {
            Some(count) => count.to_string(),
            None => text(resource, "/NamedResourceSpec/Value").to_owned(),
        };
        format!("{}={value}", kind(resource))
    };
    let all: Vec<String> = list(owner, "/GenericResources").iter().map(show).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_the_key() {
        let old = [parse("gpu=1").unwrap(), parse("ssd=2").unwrap()];
        let merged = merge(&old, &[parse("gpu=3").unwrap()], &["ssd".to_owned()]).unwrap();
        assert_eq!(shown(&json!({"GenericResources": merged})), "gpu=3");
        let missing = merge(&old, &[], &["fpga=1".to_owned()]).unwrap_err();
        assert_eq!(missing.message, "could not find generic-resource `fpga` to remove it");
    }

    #[test]
    fn names_are_the_schedulers_affair() {
        assert!(parse("gpu").unwrap_err().contains("expected `name=value`"));
        assert!(parse("gpu=a").unwrap_err().contains("Named Generic Resources is not supported"));
        let named = json!({"GenericResources":
            [{"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]});
        assert_eq!(shown(&named), "gpu=a");
    }
}
