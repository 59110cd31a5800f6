//! What `midge service update --dry-run` prints.

use crate::cli::{
    client::Client,
    exit::{CliError, Exit},
    human::{items, list, text},
    output::{self, column},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What an update is asked with that is to change nothing.
pub(super) const QUERY: &str = "&dryRun=1";

/// Prints what the daemon says that an update would do.
pub(super) fn show(client: &Client, answer: &Value) -> Result<Exit, CliError> {
    let plan = list(answer, "/Plan");
    if plan.is_empty() {
        output::line("no task would be replaced")?;
        return Ok(Exit::Ok);
    }
    let name = |node: &Value| {
        (text(node, "/ID").to_owned(), text(node, "/Description/Hostname").to_owned())
    };
    let names: BTreeMap<String, String> = items(client.get("/nodes")?)?.iter().map(name).collect();
    let columns = [
        column("Task", "TASK"),
        column("Action", "ACTION"),
        column("From", "FROM"),
        column("To", "TO"),
        column("Error", "ERROR"),
    ];
    let rows: Vec<_> = plan.iter().filter_map(|planned| row(planned, &names)).collect();
    output::rows(None, &columns, &rows)?;
    Ok(Exit::Ok)
}

fn row(
    planned: &Value,
    names: &BTreeMap<String, String>,
) -> Option<serde_json::Map<String, Value>> {
    let node = |pointer: &str| {
        let id = text(planned, pointer);
        names.get(id).cloned().unwrap_or_else(|| id.to_owned())
    };
    // The last part of a global service's task is its node.
    let task = text(planned, "/Name");
    let task = match task.rsplit_once('.') {
        Some((service, id)) => {
            format!("{service}.{}", names.get(id).map_or(id, String::as_str))
        }
        None => task.to_owned(),
    };
    let row = json!({
        "Task": task,
        "Action": text(planned, "/Action"),
        "From": node("/FromNodeID"),
        "To": node("/ToNodeID"),
        "Error": text(planned, "/Error"),
    });
    row.as_object().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_shown_by_name() {
        let names = BTreeMap::from([("n1id".to_owned(), "pi1".to_owned())]);
        let planned = json!({"Name": "agent.n1id", "Action": "replace", "FromNodeID": "n1id",
            "ToNodeID": "", "Error": "no suitable node"});
        let shown = row(&planned, &names).unwrap();
        assert_eq!(
            Value::Object(shown),
            json!({"Task": "agent.pi1", "Action": "replace", "From": "pi1", "To": "",
                "Error": "no suitable node"})
        );
    }
}
