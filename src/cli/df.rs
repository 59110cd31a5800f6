//! `midge system`: what takes the disk.

use super::{
    client::Client,
    exit::{CliError, Exit},
    human::{ago_unix, decimal_size, list, number, short_id, text},
    nodes::ask,
    output::{self, Column, column},
};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

/// Look at what takes the disk
#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
    /// Show what images, containers and volumes take
    Df(DfArgs),
}

#[derive(Debug, Args)]
pub(super) struct DfArgs {
    /// `table`, `json`, or a template such as '{{.Type}} {{.Size}}'
    #[arg(long)]
    format: Option<String>,
    /// Ask these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
    /// List each image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

type Row = Map<String, Value>;

pub(super) fn run(client: &Client, command: &SystemCommand) -> Result<Exit, CliError> {
    let SystemCommand::Df(args) = command;
    let nodes = args.nodes.as_deref();
    let (answers, exit) = ask(client, Method::GET, "/system/df", "", None, nodes)?;
    if args.verbose {
        for answer in &answers {
            verbose(answer.node.as_deref(), &answer.value, args.format.as_deref())?;
        }
        return Ok(exit);
    }
    let mut rows = Vec::new();
    for answer in &answers {
        rows.extend(summary(&answer.value).into_iter().map(|mut row| {
            row.insert("Node".to_owned(), json!(answer.node));
            row
        }));
    }
    let mut columns = vec![
        column("Type", "TYPE"),
        column("TotalCount", "TOTAL"),
        column("Active", "ACTIVE"),
        column("Size", "SIZE"),
        column("Reclaimable", "RECLAIMABLE"),
    ];
    if nodes.is_some() {
        columns.insert(0, column("Node", "NODE"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(exit)
}

/// Adds up one node's answer: a line each for images, containers and volumes, as Docker's.
fn summary(usage: &Value) -> Vec<Row> {
    let (images, containers, volumes) =
        (list(usage, "/Images"), list(usage, "/Containers"), list(usage, "/Volumes"));
    let is_used = |image: &&Value| number(image, "/Containers") > 0;
    let own = |image: &Value| {
        number(image, "/Size").saturating_sub(image["SharedSize"].as_u64().unwrap_or(0))
    };
    let total = number(usage, "/LayersSize");
    let unused: u64 = images.iter().filter(|image| !is_used(image)).map(own).sum();
    let runs = |container: &&Value| text(container, "/State") == "running";
    let size_rw = |container: &Value| number(container, "/SizeRw");
    let users = |volume: &&Value| number(volume, "/UsageData/RefCount") > 0;
    let size = |volume: &Value| volume["UsageData"]["Size"].as_u64().unwrap_or(0);
    vec![
        row("Images", images.len(), images.iter().filter(is_used).count(), total, unused),
        row(
            "Containers",
            containers.len(),
            containers.iter().filter(runs).count(),
            containers.iter().map(size_rw).sum(),
            containers.iter().filter(|c| !runs(c)).map(size_rw).sum(),
        ),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(users).count(),
            volumes.iter().map(size).sum(),
            volumes.iter().filter(|v| !users(v)).map(size).sum(),
        ),
        row("Build Cache", 0, 0, 0, 0),
    ]
}

fn row(kind: &str, total: usize, active: usize, size: u64, free: u64) -> Row {
    let share = (free * 100).checked_div(size).map(|percent| format!(" ({percent}%)"));
    let share = share.unwrap_or_default();
    let row = json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": decimal_size(size),
        "Reclaimable": format!("{}{share}", decimal_size(free)),
    });
    row.as_object().cloned().unwrap_or_default()
}

/// Lists everything of one node.
fn verbose(node: Option<&str>, usage: &Value, format: Option<&str>) -> Result<(), CliError> {
    if format.is_some() {
        return output::objects(format, std::slice::from_ref(usage));
    }
    if let Some(node) = node {
        output::line(&format!("Node {node}:\n"))?;
    }
    table(
        "Images",
        &images(usage),
        &[
            column("Repository", "REPOSITORY"),
            column("Tag", "TAG"),
            column("ID", "IMAGE ID"),
            column("CreatedSince", "CREATED"),
            column("Size", "SIZE"),
            column("SharedSize", "SHARED SIZE"),
            column("UniqueSize", "UNIQUE SIZE"),
            column("Containers", "CONTAINERS"),
        ],
    )?;
    table(
        "\nContainers",
        &containers(usage),
        &[
            column("ID", "CONTAINER ID"),
            column("Image", "IMAGE"),
            column("Command", "COMMAND"),
            column("LocalVolumes", "LOCAL VOLUMES"),
            column("Size", "SIZE"),
            column("CreatedSince", "CREATED"),
            column("Status", "STATUS"),
            column("Names", "NAMES"),
        ],
    )?;
    table(
        "\nLocal Volumes",
        &volumes(usage),
        &[column("Name", "VOLUME NAME"), column("Links", "LINKS"), column("Size", "SIZE")],
    )?;
    if node.is_some() { output::line("") } else { Ok(()) }
}

fn table(heading: &str, rows: &[Row], columns: &[Column]) -> Result<(), CliError> {
    output::line(&format!("{heading} space usage:\n"))?;
    output::rows(None, columns, rows)
}

fn rows_of(items: &[Value], row: impl Fn(&Value) -> Value) -> Vec<Row> {
    items.iter().filter_map(|item| row(item).as_object().cloned()).collect()
}

fn images(usage: &Value) -> Vec<Row> {
    rows_of(list(usage, "/Images"), |image| {
        let name = list(image, "/RepoTags").first().and_then(Value::as_str);
        let (repository, tag) =
            name.and_then(|n| n.rsplit_once(':')).unwrap_or(("<none>", "<none>"));
        let (size, shared) = (number(image, "/Size"), number(image, "/SharedSize"));
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": short_id(text(image, "/Id"), false),
            "CreatedSince": ago_unix(number(image, "/Created")),
            "Size": decimal_size(size),
            "SharedSize": decimal_size(shared),
            "UniqueSize": decimal_size(size.saturating_sub(shared)),
            "Containers": number(image, "/Containers").to_string(),
        })
    })
}

fn containers(usage: &Value) -> Vec<Row> {
    rows_of(list(usage, "/Containers"), |container| {
        let command: String = text(container, "/Command").chars().take(20).collect();
        let names = list(container, "/Names").iter().filter_map(Value::as_str);
        let names: Vec<&str> = names.map(|name| name.trim_start_matches('/')).collect();
        json!({
            "ID": short_id(text(container, "/Id"), false),
            "Image": super::service::shown_image(text(container, "/Image")),
            "Command": format!("\"{command}\""),
            "LocalVolumes": list(container, "/Mounts").len().to_string(),
            "Size": decimal_size(number(container, "/SizeRw")),
            "CreatedSince": ago_unix(number(container, "/Created")),
            "Status": text(container, "/Status"),
            "Names": names.join(","),
        })
    })
}

fn volumes(usage: &Value) -> Vec<Row> {
    rows_of(list(usage, "/Volumes"), |volume| {
        let size = volume["UsageData"]["Size"].as_u64();
        json!({
            "Name": text(volume, "/Name"),
            "Links": number(volume, "/UsageData/RefCount").to_string(),
            "Size": size.map_or_else(|| "N/A".to_owned(), decimal_size),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_adds_up() {
        let usage = json!({
            "LayersSize": 1000,
            "Images": [
                {"Size": 600, "SharedSize": 100, "Containers": 2},
                {"Size": 500, "SharedSize": 100, "Containers": 0},
            ],
            "Containers": [
                {"State": "running", "SizeRw": 30}, {"State": "exited", "SizeRw": 10},
            ],
            "Volumes": [
                {"UsageData": {"RefCount": 1, "Size": 5}},
                {"UsageData": {"RefCount": 0, "Size": 15}},
                {"UsageData": {"RefCount": 0, "Size": -1}},
            ],
        });
        let lines: Vec<String> = summary(&usage)
            .iter()
            .map(|row| {
                ["Type", "TotalCount", "Active", "Size", "Reclaimable"]
                    .map(|key| row[key].as_str().unwrap_or_default())
                    .join("|")
            })
            .collect();
        assert_eq!(
            lines,
            [
                "Images|2|1|1kB|400B (40%)",
                "Containers|2|1|40B|10B (25%)",
                "Local Volumes|3|1|20B|15B (75%)",
                "Build Cache|0|0|0B|0B",
            ]
        );
    }
}
