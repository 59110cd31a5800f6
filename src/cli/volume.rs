//! `midge volume`.

use super::{
    client::{self, Client, encode},
    exit::{CliError, Exit},
    human::{list, text},
    nodes::{self, Pruning, ask},
    output::{self, column},
};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

/// Look at volumes, make them, remove them
#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// Show everything about volumes
    Inspect {
        /// `json`, or a template such as '{{.Mountpoint}}'
        #[arg(short, long)]
        format: Option<String>,
        /// Ask these nodes instead of this one
        #[arg(long, value_name = "all|NODE,...")]
        nodes: Option<String>,
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove volumes that no container uses
    Prune(PruneArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not fail where there is no such volume
        #[arg(short, long)]
        force: bool,
        /// On these nodes instead of this one
        #[arg(long, value_name = "all|NODE,...")]
        nodes: Option<String>,
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The volume driver
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// A label (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// An option of the driver: type, device, o (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// On these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
    /// Its name; one is made up where none is given
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only volumes that fit (can be repeated): name, label, driver, dangling
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}}'
    #[arg(long)]
    format: Option<String>,
    /// Ask these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Also volumes that have a name
    #[arg(short, long)]
    all: bool,
    /// Only volumes that fit (can be repeated): label, label!
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// On these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
}

pub(super) fn run(client: &Client, command: VolumeCommand) -> Result<Exit, CliError> {
    match command {
        VolumeCommand::Create(args) => create(client, &args),
        VolumeCommand::Inspect { format, nodes, volumes } => {
            nodes::inspect(client, &volumes, path, nodes.as_deref(), format.as_deref())
        }
        VolumeCommand::Ls(args) => ls(client, &args),
        VolumeCommand::Prune(args) => prune(client, &args),
        VolumeCommand::Rm { force, nodes, volumes } => {
            let query = format!("force={force}");
            nodes::remove(client, &volumes, path, &query, nodes.as_deref(), |name, _| {
                Ok(vec![name.to_owned()])
            })
        }
    }
}

/// Returns where the API has a volume.
fn path(name: &str) -> String {
    format!("/volumes/{}", encode(name))
}

fn pairs(option: &str, given: &[String]) -> Result<Map<String, Value>, CliError> {
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::from(value))),
            None if option == "label" && !pair.is_empty() => Ok((pair.clone(), Value::from(""))),
            _ => Err(CliError::usage(format!("invalid value for --{option}: {pair:?}"))
                .hint("KEY=VALUE is expected")),
        })
        .collect()
}

fn create(client: &Client, args: &CreateArgs) -> Result<Exit, CliError> {
    let body = json!({
        "Name": args.name.clone().unwrap_or_default(),
        "Driver": args.driver,
        "DriverOpts": pairs("opt", &args.opt)?,
        "Labels": pairs("label", &args.label)?,
    });
    let nodes = args.nodes.as_deref();
    let (answers, exit) = ask(client, Method::POST, "/volumes/create", "", Some(body), nodes)?;
    for answer in &answers {
        answer.line(text(&answer.value, "/Name"))?;
    }
    Ok(exit)
}

fn ls(client: &Client, args: &LsArgs) -> Result<Exit, CliError> {
    let query = client::filters(&args.filter)?;
    let nodes = args.nodes.as_deref();
    let (answers, exit) = ask(client, Method::GET, "/volumes", &query, None, nodes)?;
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for answer in answers {
        for volume in list(&answer.value, "/Volumes") {
            let labels = volume["Labels"].as_object().into_iter().flatten();
            let labels: Vec<String> = labels
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            let row = json!({
                "Node": answer.node,
                "Driver": volume["Driver"],
                "Name": volume["Name"],
                "Mountpoint": volume["Mountpoint"],
                "Scope": volume["Scope"],
                "Labels": labels.join(","),
            });
            rows.extend(row.as_object().cloned());
        }
    }
    if args.quiet {
        for row in &rows {
            output::line(row["Name"].as_str().unwrap_or_default())?;
        }
        return Ok(exit);
    }
    let mut columns = vec![column("Driver", "DRIVER"), column("Name", "VOLUME NAME")];
    if nodes.is_some() {
        columns.insert(0, column("Node", "NODE"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(exit)
}

fn prune(client: &Client, args: &PruneArgs) -> Result<Exit, CliError> {
    let which = if args.all { "all" } else { "anonymous" };
    let mut filter = args.filter.clone();
    if args.all {
        filter.push("all=true".to_owned());
    }
    let pruning = Pruning {
        what: format!("{which} local volumes not used by at least one container"),
        force: args.force,
        path: "/volumes/prune",
        filter,
        nodes: args.nodes.as_deref(),
        heading: "Deleted Volumes:",
    };
    nodes::prune(client, &pruning, |answer| {
        let names = list(answer, "/VolumesDeleted").iter();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    })
}
