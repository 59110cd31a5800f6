//! Tasks: `midge task`, and the tables of `midge service ps` and `midge node ps`.

use super::{
    client::{self, Client, encode},
    each,
    exit::{CliError, Exit},
    human::{self, capitalized, items, list, natural, number, short_id, text},
    node,
    output::{self, column},
    service::{ports, shown_image},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::{cmp::Reverse, collections::BTreeMap};

/// What an error is cut to in a table, as Docker's.
const ERROR_MAX: usize = 30;

/// Look at tasks, and ask why they are as they are
#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Show everything about tasks
    Inspect {
        /// Ids, prefixes of ids, or names such as `web.1`
        #[arg(required = true, value_name = "TASK")]
        tasks: Vec<String>,
        /// `json`, or a template such as '{{.Status.State}}'
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Say in plain words why tasks are where they are, wait, or ended
    Why {
        /// Ids, prefixes of ids, or names such as `web.1`
        #[arg(required = true, value_name = "TASK")]
        tasks: Vec<String>,
    },
}

pub(super) fn run(client: &Client, command: &TaskCommand) -> Result<Exit, CliError> {
    match command {
        TaskCommand::Inspect { tasks, format } => {
            let mut found = Vec::new();
            let exit = each(tasks, |name| {
                found.push(client.get(&format!("/tasks/{}", encode(name)))?);
                Ok(())
            });
            output::objects(format.as_deref(), &found)?;
            exit
        }
        TaskCommand::Why { tasks } => why(client, "tasks", tasks),
    }
}

/// Says why each of these `tasks` or `services` is as it is.
pub(super) fn why(client: &Client, kind: &str, names: &[String]) -> Result<Exit, CliError> {
    each(names, |name| {
        let answer = client.get(&format!("/{kind}/{}/why", encode(name)))?;
        list(&answer, "/Why").iter().try_for_each(|line| output::line(line.as_str().unwrap_or("")))
    })
}

#[derive(Debug, Args)]
pub(super) struct ServicePsArgs {
    /// Ids, prefixes of ids, or names
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    table: TableArgs,
}

#[derive(Debug, Args)]
pub(super) struct NodePsArgs {
    /// Ids, prefixes of ids, host names, or `self`
    #[arg(default_value = "self", value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    table: TableArgs,
}

#[derive(Debug, Args)]
struct TableArgs {
    /// Only tasks that fit: id, name, node, label, desired-state (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}} {{.CurrentState}}'
    #[arg(long)]
    format: Option<String>,
    /// Print ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Do not cut anything
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn service_ps(client: &Client, args: ServicePsArgs) -> Result<Exit, CliError> {
    let mut filter = Vec::new();
    let mut missing: Vec<CliError> = Vec::new();
    for name in &args.services {
        match client.get(&format!("/services/{}", encode(name))) {
            Ok(service) => filter.push(format!("service={}", text(&service, "/ID"))),
            Err(error) if error.message.ends_with("not found") => {
                missing.push(CliError { message: format!("no such service: {name}"), ..error });
            }
            Err(error) => return Err(error),
        }
    }
    if !filter.is_empty() {
        table(client, filter, &args.table)?;
    }
    missing.iter().for_each(output::error);
    Ok(if missing.is_empty() { Exit::Ok } else { Exit::Failure })
}

pub(super) fn node_ps(client: &Client, args: NodePsArgs) -> Result<Exit, CliError> {
    let mut filter = Vec::new();
    for name in &args.nodes {
        let id = node::resolve_self(client, name)?;
        let node = client.get(&format!("/nodes/{}", encode(&id)))?;
        filter.push(format!("node={}", text(&node, "/ID")));
    }
    table(client, filter, &args.table)?;
    Ok(Exit::Ok)
}

fn table(client: &Client, mut filter: Vec<String>, args: &TableArgs) -> Result<(), CliError> {
    let mut user = args.filter.clone();
    for option in &mut user {
        if let Some(name) = option.strip_prefix("node=") {
            let id = node::resolve_self(client, name)?;
            let found = client.get(&format!("/nodes/{}", encode(&id)))?;
            *option = format!("node={}", text(&found, "/ID"));
        }
    }
    filter.append(&mut user);
    let mut tasks = items(client.get(&format!("/tasks?{}", client::filters(&filter)?))?)?;
    let names = Names::read(client, args.no_resolve)?;
    // By name, then newest first: the rows under the first of a slot are its history.
    tasks.sort_by_cached_key(|task| Reverse(created(task)));
    tasks.sort_by(|a, b| natural(&names.task(a), &names.task(b)));
    if args.quiet && output::is_table(args.format.as_deref()) {
        return tasks.iter().try_for_each(|task| output::line(text(task, "/ID")));
    }
    let mut rows = Vec::new();
    let mut last = None;
    let plain = output::is_table(args.format.as_deref());
    for task in &tasks {
        let name = names.task(task);
        let history = last.as_ref() == Some(&name);
        last = Some(name);
        rows.push(row(task, &names, args.no_trunc, history && plain));
    }
    let columns = [
        column("ID", "ID"),
        column("Name", "NAME"),
        column("Image", "IMAGE"),
        column("Node", "NODE"),
        column("DesiredState", "DESIRED STATE"),
        column("CurrentState", "CURRENT STATE"),
        column("Error", "ERROR"),
        column("Ports", "PORTS"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)
}

/// Returns the last part of a task's name: its slot, or its node. A job's slots begin at 0, which
/// only the name tells from none.
pub(super) fn place(task: &Value) -> String {
    match (text(task, "/Name").rsplit_once('.'), number(task, "/Slot")) {
        (Some((_, place)), _) => place.to_owned(),
        (None, 0) => text(task, "/NodeID").to_owned(),
        (None, slot) => slot.to_string(),
    }
}

/// When a task was made. Compared as a time: the fraction of a second has as many digits as it
/// needs.
fn created(task: &Value) -> Option<crate::types::Date> {
    human::parse_date(text(task, "/CreatedAt"))
}

/// Names of services and nodes by id.
struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

impl Names {
    fn read(client: &Client, no_resolve: bool) -> Result<Self, CliError> {
        let map = |values: Vec<Value>, pointer: &str| {
            let pair = |v: &Value| (text(v, "/ID").to_owned(), text(v, pointer).to_owned());
            values.iter().map(pair).collect()
        };
        if no_resolve {
            let (services, nodes) = (BTreeMap::new(), BTreeMap::new());
            return Ok(Self { services, nodes });
        }
        let services = map(items(client.get("/services")?)?, "/Spec/Name");
        let nodes = map(items(client.get("/nodes")?)?, "/Description/Hostname");
        Ok(Self { services, nodes })
    }

    fn service(&self, task: &Value) -> String {
        let id = text(task, "/ServiceID");
        self.services.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    /// The name of a task: its service's, and its slot or, for a global one, its node.
    fn task(&self, task: &Value) -> String {
        format!("{}.{}", self.service(task), place(task))
    }

    fn node(&self, task: &Value) -> String {
        let id = text(task, "/NodeID");
        self.nodes.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }
}

fn row(task: &Value, names: &Names, no_trunc: bool, history: bool) -> Map<String, Value> {
    let name = names.task(task);
    let error = match text(task, "/Status/Err") {
        "" => String::new(),
        error if !no_trunc && error.chars().count() > ERROR_MAX => {
            let cut: String = error.chars().take(ERROR_MAX - 1).collect();
            format!("\"{cut}…\"")
        }
        error => format!("\"{error}\""),
    };
    let since = human::ago(&task["Status"]["Timestamp"]).to_lowercase();
    let state = format!("{} {since}", capitalized(text(task, "/Status/State")));
    let image = text(task, "/Spec/ContainerSpec/Image");
    let row = json!({
        "ID": short_id(text(task, "/ID"), no_trunc),
        "Name": if history { format!(" \\_ {name}") } else { name },
        "Image": if no_trunc { image.to_owned() } else { shown_image(image) },
        "Node": names.node(task),
        "DesiredState": capitalized(text(task, "/DesiredState")),
        "CurrentState": state,
        "Error": error,
        "Ports": ports(list(task, "/Status/PortStatus/Ports")).replace(", ", ","),
    });
    row.as_object().cloned().unwrap_or_default()
}
