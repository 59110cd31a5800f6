//! `midge node`.

use super::{
    client::{self, Client, encode},
    drain,
    exit::{CliError, Exit},
    human::{self, capitalized, list, natural, number, parse_duration, parse_label, text},
    output::{self, column},
    service::shown_generic,
    swarm::Availability,
    task,
};
use crate::types::ADDRESS_LOST;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Look at nodes and change them
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the nodes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about nodes
    Inspect(InspectArgs),
    /// List the tasks of nodes
    Ps(task::NodePsArgs),
    /// Change a node
    Update(UpdateArgs),
    /// Make nodes managers: they hold the cluster's state as well
    Promote {
        /// Ids, prefixes of ids, host names, or `self`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Make managers workers again
    Demote {
        /// Ids, prefixes of ids, host names, or `self`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Remove nodes from the cluster
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove a node even while it is in touch
        #[arg(short, long)]
        force: bool,
        /// Ids, prefixes of ids, or host names
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only nodes that fit: id, label, node.label, membership, name, role (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.ID}} {{.Status}}'
    #[arg(long)]
    format: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Ids, prefixes of ids, host names, or `self`
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// `json`, or a template such as '{{.Status.State}}'
    #[arg(short, long, conflicts_with = "pretty")]
    format: Option<String>,
    /// Print for people
    #[arg(long)]
    pretty: bool,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// The id, a prefix of it, or the host name
    node: String,
    /// Whether it takes tasks
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// What it does for the cluster
    #[arg(long, value_parser = ["worker", "manager"])]
    role: Option<String>,
    /// Add or change a label (can be repeated)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label_add: Vec<(String, String)>,
    /// Remove a label (can be repeated)
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// With `--availability drain`: wait until no task is left on the node, and each that moves has
    /// another one
    #[arg(long)]
    wait: bool,
    /// How long to wait; 0 is without end
    #[arg(
        long,
        requires = "wait",
        default_value = "10m",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    timeout: Duration,
}

pub(super) fn run(client: &Client, command: NodeCommand) -> Result<Exit, CliError> {
    match command {
        NodeCommand::Ls(args) => ls(client, &args),
        NodeCommand::Inspect(args) => inspect(client, &args),
        NodeCommand::Ps(args) => task::node_ps(client, args),
        NodeCommand::Update(args) => update(client, &args),
        NodeCommand::Promote { nodes } => super::each(&nodes, |node| {
            output::line(&if set_role(client, node, "manager")? {
                format!("Node {node} promoted to a manager in the swarm.")
            } else {
                format!("Node {node} is already a manager.")
            })
        }),
        NodeCommand::Demote { nodes } => super::each(&nodes, |node| {
            output::line(&if set_role(client, node, "worker")? {
                format!("Manager {node} demoted in the swarm.")
            } else {
                format!("Node {node} is already a worker.")
            })
        }),
        NodeCommand::Rm { force, nodes } => super::each(&nodes, |node| {
            client.delete(&format!("/nodes/{}?force={force}", encode(node)))?;
            output::line(node)
        }),
    }
}

fn ls(client: &Client, args: &LsArgs) -> Result<Exit, CliError> {
    let query = client::filters(&args.filter)?;
    let mut nodes = human::items(client.get(&format!("/nodes?{query}"))?)?;
    nodes.sort_by(|a, b| {
        let name = |node| text(node, "/Description/Hostname");
        natural(name(a), name(b)).then_with(|| text(a, "/ID").cmp(text(b, "/ID")))
    });
    if args.quiet && output::is_table(args.format.as_deref()) {
        nodes.iter().try_for_each(|node| output::line(text(node, "/ID")))?;
        return Ok(Exit::Ok);
    }
    let info = client.get("/info")?;
    let own = text(&info, "/Swarm/NodeID");
    let mut rows: Vec<Map<String, Value>> = nodes.iter().map(|node| row(node, own)).collect();
    let plain = output::is_table(args.format.as_deref());
    for row in &mut rows {
        if plain && row["Self"] == true {
            row["ID"] = json!(format!("{} *", row["ID"].as_str().unwrap_or("")));
        }
    }
    for (node, row) in nodes.iter().zip(&mut rows).filter(|_| plain) {
        // A manager's column says it already.
        let message = text(node, "/Status/Message");
        if node.get("ManagerStatus").is_none() && row["Status"] == "Ready" && !message.is_empty() {
            row.insert("Status".to_owned(), json!(format!("Ready, but {message}")));
        }
    }
    let columns = [
        column("ID", "ID"),
        column("Hostname", "HOSTNAME"),
        column("Status", "STATUS"),
        column("Availability", "AVAILABILITY"),
        column("ManagerStatus", "MANAGER STATUS"),
        column("Platform", "PLATFORM"),
        column("EngineVersion", "ENGINE VERSION"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(Exit::Ok)
}

/// Returns what a manager is among the managers, and what is wrong with it.
fn standing(status: &Value) -> String {
    let message = text(status, "/Message");
    let moved = message.starts_with(ADDRESS_LOST);
    if !message.is_empty() && !moved {
        return format!("Blocked: {message}");
    }
    let leads = status["Leader"] == true;
    let standing =
        if leads { "Leader".to_owned() } else { capitalized(text(status, "/Reachability")) };
    // What to do about it is more than a column holds: `inspect` says it.
    if moved { format!("{standing} (address lost)") } else { standing }
}

fn row(node: &Value, own: &str) -> Map<String, Value> {
    let manager = node.get("ManagerStatus").map(standing).unwrap_or_default();
    let platform = &node["Description"]["Platform"];
    let mut shown = format!("{}/{}", text(platform, "/OS"), text(platform, "/Architecture"));
    if let Some(variant) = platform["Variant"].as_str().filter(|v| !v.is_empty()) {
        shown.push('/');
        shown.push_str(variant);
    }
    let row = json!({
        "ID": node["ID"],
        "Self": text(node, "/ID") == own,
        "Hostname": text(node, "/Description/Hostname"),
        "Status": capitalized(text(node, "/Status/State")),
        "Availability": capitalized(text(node, "/Spec/Availability")),
        "ManagerStatus": manager,
        "Platform": if shown == "/" { "" } else { shown.as_str() },
        "EngineVersion": text(node, "/Description/Engine/EngineVersion"),
        "TLSStatus": "Ready",
    });
    row.as_object().cloned().unwrap_or_default()
}

/// Replaces `self` by the id of this node.
pub(super) fn resolve_self(client: &Client, name: &str) -> Result<String, CliError> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let info = client.get("/info")?;
    match text(&info, "/Swarm/NodeID") {
        "" => Err(CliError::failure("this node is not part of a swarm")
            .hint("midge swarm init makes one, midge swarm join joins one")),
        id => Ok(id.to_owned()),
    }
}

fn inspect(client: &Client, args: &InspectArgs) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    let exit = super::each(&args.nodes, |name| {
        let id = resolve_self(client, name)?;
        found.push(client.get(&format!("/nodes/{}", encode(&id)))?);
        Ok(())
    });
    if args.pretty {
        found.iter().try_for_each(pretty)?;
    } else {
        output::objects(args.format.as_deref(), &found)?;
    }
    exit
}

fn pretty(node: &Value) -> Result<(), CliError> {
    let mut out = String::new();
    let mut line = |label: &str, value: &str| out.push_str(&format!("{label}{value}\n"));
    line("ID:\t\t\t", text(node, "/ID"));
    if let Some(labels) = node["Spec"]["Labels"].as_object().filter(|labels| !labels.is_empty()) {
        line("Labels:", "");
        for (key, value) in labels {
            line(&format!(" - {key}="), value.as_str().unwrap_or(""));
        }
    }
    line("Hostname:              \t", text(node, "/Description/Hostname"));
    let joined = text(node, "/CreatedAt").replace('T', " ").replace('Z', " +0000 utc");
    line("Joined at:             \t", &joined);
    line("Status:", "");
    line(" State:\t\t\t", &capitalized(text(node, "/Status/State")));
    if !text(node, "/Status/Message").is_empty() {
        line(" Message:\t\t", text(node, "/Status/Message"));
    }
    line(" Availability:         \t", &capitalized(text(node, "/Spec/Availability")));
    line(" Address:\t\t", text(node, "/Status/Addr"));
    if let Some(manager) = node.get("ManagerStatus") {
        line("Manager Status:", "");
        line(" Address:\t\t", text(manager, "/Addr"));
        line(" Raft Status:\t\t", &capitalized(text(manager, "/Reachability")));
        line(" Leader:\t\t", if manager["Leader"] == true { "Yes" } else { "No" });
        if !text(manager, "/Message").is_empty() {
            line(" Message:\t\t", text(manager, "/Message"));
        }
    }
    let description = &node["Description"];
    line("Platform:", "");
    line(" Operating System:\t", text(description, "/Platform/OS"));
    line(" Architecture:\t\t", text(description, "/Platform/Architecture"));
    if !text(description, "/Platform/Variant").is_empty() {
        line(" Variant:\t\t", text(description, "/Platform/Variant"));
    }
    line("Resources:", "");
    line(" CPUs:\t\t\t", &(number(description, "/Resources/NanoCPUs") / 1_000_000_000).to_string());
    line(" Memory:\t\t", &human::binary_size(number(description, "/Resources/MemoryBytes")));
    let others = shown_generic(&description["Resources"]);
    if !others.is_empty() {
        line(" Generic:\t\t", &others);
    }
    let controllers = list(description, "/Cgroups/Controllers");
    if !controllers.is_empty() {
        let there: Vec<&str> = controllers.iter().filter_map(Value::as_str).collect();
        line(" Cgroup controllers:\t", &there.join(", "));
    }
    plugins(list(description, "/Engine/Plugins"), &mut line);
    line("Engine Version:\t\t", text(description, "/Engine/EngineVersion"));
    if let Some(labels) = description["Engine"]["Labels"].as_object().filter(|l| !l.is_empty()) {
        line("Engine Labels:", "");
        for (key, value) in labels {
            line(&format!(" - {key}="), value.as_str().unwrap_or(""));
        }
    }
    line("TLS Info:", "");
    line(" TrustRoot:\n", text(description, "/TLSInfo/TrustRoot"));
    line(" Issuer Subject:\t", text(description, "/TLSInfo/CertIssuerSubject"));
    line(" Issuer Public Key:\t", text(description, "/TLSInfo/CertIssuerPublicKey"));
    output::raw(out.as_bytes())
}

/// Names the plugins, those of one kind on one line.
fn plugins(plugins: &[Value], line: &mut impl FnMut(&str, &str)) {
    if !plugins.is_empty() {
        line("Plugins:", "");
    }
    let mut kinds: Vec<&str> = plugins.iter().map(|plugin| text(plugin, "/Type")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind = plugins.iter().filter(|plugin| text(plugin, "/Type") == kind);
        let names: Vec<&str> = of_kind.map(|plugin| text(plugin, "/Name")).collect();
        line(&format!(" {kind}:\t\t"), &names.join(", "));
    }
}

/// How often a node is read again that was written meanwhile: its state changes by itself.
const TRIES_MAX: u32 = 10;

/// Sets what a node is to be; false where it is that already.
fn set_role(client: &Client, node: &str, role: &str) -> Result<bool, CliError> {
    let id = resolve_self(client, node)?;
    let mut tries = 0;
    let mut refused: Option<(u64, CliError)> = None;
    loop {
        let node = client.get(&format!("/nodes/{}", encode(&id)))?;
        if text(&node, "/Spec/Role") == role {
            return Ok(false);
        }
        let version = number(&node, "/Version/Index");
        match refused.take() {
            // Nobody wrote it meanwhile: that is not why.
            Some((before, error)) if before == version || tries == TRIES_MAX => return Err(error),
            _ => tries += 1,
        }
        let mut spec = node["Spec"].clone();
        spec["Role"] = json!(role);
        let path = format!("/nodes/{}/update?version={version}", encode(text(&node, "/ID")));
        match client.post(&path, spec) {
            Ok(_) => return Ok(true),
            Err(error) if error.exit == Exit::Failure => refused = Some((version, error)),
            Err(error) => return Err(error),
        }
    }
}

fn update(client: &Client, args: &UpdateArgs) -> Result<Exit, CliError> {
    let id = resolve_self(client, &args.node)?;
    let node = client.get(&format!("/nodes/{}", encode(&id)))?;
    let mut spec = node["Spec"].clone();
    if let Some(availability) = args.availability {
        spec["Availability"] = json!(availability.as_str());
    }
    if let Some(role) = &args.role {
        spec["Role"] = json!(role);
    }
    let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
    for (key, value) in &args.label_add {
        labels.insert(key.clone(), json!(value));
    }
    for key in &args.label_rm {
        if labels.remove(key).is_none() {
            return Err(CliError::failure(format!("key {key} doesn't exist in node's labels")));
        }
    }
    spec["Labels"] = Value::Object(labels);
    if args.wait && spec["Availability"] != "drain" {
        return Err(CliError::usage(
            "--wait waits until a node is drained, and this one will not be",
        )
        .hint("give --availability drain as well"));
    }
    let version = number(&node, "/Version/Index");
    let path = format!("/nodes/{}/update?version={version}", encode(text(&node, "/ID")));
    client.post(&path, spec)?;
    output::line(&args.node)?;
    if !args.wait {
        return Ok(Exit::Ok);
    }
    let (id, hostname) = (text(&node, "/ID"), text(&node, "/Description/Hostname"));
    let name = if args.node == "self" { hostname } else { &args.node };
    drain::wait(client, id, name, args.timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_whose_address_is_lost_is_none_that_is_blocked() {
        let shown = |leads: bool, message: &str| {
            let message = message.to_owned();
            standing(&json!({"Leader": leads, "Reachability": "reachable", "Message": message}))
        };
        assert_eq!(shown(true, ""), "Leader");
        assert_eq!(shown(true, "the disk is full"), "Blocked: the disk is full");
        let lost = format!("{ADDRESS_LOST}it is gone");
        assert_eq!(shown(true, &lost), "Leader (address lost)");
        assert_eq!(shown(false, &lost), "Reachable (address lost)");
    }
}
