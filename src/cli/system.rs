//! `midge version`, `midge info`, `midge ps`, and what no user types.

use super::{
    client::{self, Client},
    exit::{CliError, Exit},
    human::{self, binary_size, list, number, short_id, text},
    output::{self, column},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// `json`, or a template such as '{{.Server.Version}}'
    #[arg(short, long)]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// `json`, or a template such as '{{.Swarm.LocalNodeState}}'
    #[arg(short, long)]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Also containers that ended
    #[arg(short, long)]
    all: bool,
    /// Only containers that fit (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.ID}} {{.Names}}'
    #[arg(long)]
    format: Option<String>,
    /// Do not cut anything
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

/// Commands for midge's own tools.
#[derive(Debug, Subcommand)]
pub(super) enum HiddenCommand {
    /// Answer HTTP requests with this container's name: what the demonstration runs
    #[command(hide = true)]
    Hello(HelloArgs),
}

#[derive(Debug, Args)]
pub(super) struct HelloArgs {
    /// The TCP port
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// What to say
    #[arg(long, default_value = "hello")]
    text: String,
}

pub(super) fn hidden(command: HiddenCommand) -> Result<Exit, CliError> {
    let HiddenCommand::Hello(args) = command;
    crate::util::hello::serve(args.port, &args.text).map_err(|error| {
        CliError::failure(format!("cannot answer on port {}: {error}", args.port))
    })?;
    Ok(Exit::Ok)
}

pub(super) fn version(client: &Client, args: &VersionArgs) -> Result<Exit, CliError> {
    let own = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": std::env::consts::ARCH,
    });
    let server = client.get("/version");
    let value = json!({
        "Client": own,
        "Server": server.as_ref().ok().cloned().unwrap_or(Value::Null),
    });
    if args.format.is_some() {
        output::objects(args.format.as_deref(), &[value])?;
        return server.map(|_| Exit::Ok);
    }
    let mut lines = vec![
        "Client: midge".to_owned(),
        format!(" Version:           {}", text(&value, "/Client/Version")),
        format!(
            " OS/Arch:           {}/{}",
            text(&value, "/Client/Os"),
            text(&value, "/Client/Arch")
        ),
    ];
    if let Ok(server) = &server {
        lines.push("\nServer: midge".to_owned());
        lines.push(format!(" Version:           {}", text(server, "/Version")));
        lines.push(format!(" API version:       {}", text(server, "/ApiVersion")));
        lines.push(format!(
            " OS/Arch:           {}/{}",
            text(server, "/Os"),
            text(server, "/Arch")
        ));
        for component in list(server, "/Components").iter().skip(1) {
            lines.push(format!(
                " {:<18} {}",
                format!("{}:", text(component, "/Name")),
                text(component, "/Version")
            ));
        }
    }
    output::line(&lines.join("\n"))?;
    server.map(|_| Exit::Ok)
}

pub(super) fn info(client: &Client, args: &InfoArgs) -> Result<Exit, CliError> {
    let info = client.get("/info")?;
    if args.format.is_some() {
        output::objects(args.format.as_deref(), &[info])?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    let mut line = |label: &str, value: &str| out.push_str(&format!("{label}: {value}\n"));
    line("Name", text(&info, "/Name"));
    line("Version", text(&info, "/ServerVersion"));
    line("Containers", &number(&info, "/Containers").to_string());
    line(" Running", &number(&info, "/ContainersRunning").to_string());
    line(" Stopped", &number(&info, "/ContainersStopped").to_string());
    line("Images", &number(&info, "/Images").to_string());
    line("Swarm", text(&info, "/Swarm/LocalNodeState"));
    if !text(&info, "/Swarm/NodeID").is_empty() {
        line(" NodeID", text(&info, "/Swarm/NodeID"));
        line(" Is Manager", &(info["Swarm"]["ControlAvailable"] == true).to_string());
        line(" Node Address", text(&info, "/Swarm/NodeAddr"));
        for manager in list(&info, "/Swarm/RemoteManagers") {
            line(" Manager", text(manager, "/Addr"));
        }
    }
    if !text(&info, "/Swarm/Error").is_empty() {
        line(" Error", text(&info, "/Swarm/Error"));
    }
    line("Operating System", text(&info, "/OperatingSystem"));
    line("Kernel Version", text(&info, "/KernelVersion"));
    line("Architecture", text(&info, "/Architecture"));
    line("CPUs", &number(&info, "/NCPU").to_string());
    line("Total Memory", &binary_size(number(&info, "/MemTotal")));
    line("Cgroup Version", text(&info, "/CgroupVersion"));
    line("Root Dir", text(&info, "/DockerRootDir"));
    output::raw(out.as_bytes())?;
    for warning in list(&info, "/Warnings") {
        output::note(warning.as_str().unwrap_or(""));
    }
    Ok(Exit::Ok)
}

pub(super) fn ps(client: &Client, args: &PsArgs) -> Result<Exit, CliError> {
    let query = client::filters(&args.filter)?;
    let path = format!("/containers/json?all={}&{query}", args.all);
    let containers = human::items(client.get(&path)?)?;
    if args.quiet {
        containers.iter().try_for_each(|container| {
            output::line(&short_id(text(container, "/Id"), args.no_trunc))
        })?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Map<String, Value>> =
        containers.iter().map(|container| row(container, args.no_trunc)).collect();
    let columns = [
        column("ID", "CONTAINER ID"),
        column("Image", "IMAGE"),
        column("Command", "COMMAND"),
        column("CreatedSince", "CREATED"),
        column("Status", "STATUS"),
        column("Ports", "PORTS"),
        column("Names", "NAMES"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(Exit::Ok)
}

fn row(container: &Value, no_trunc: bool) -> Map<String, Value> {
    let created = crate::types::Date::from_unix_seconds(number(container, "/Created"));
    let names: Vec<&str> = list(container, "/Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.trim_start_matches('/'))
        .collect();
    let ports: Vec<String> = list(container, "/Ports")
        .iter()
        // The same port is listed for IPv6 as well; once is enough for people.
        .filter(|port| text(port, "/IP") != "::")
        .map(|port| {
            let kind = text(port, "/Type");
            match number(port, "/PublicPort") {
                0 => format!("{}/{kind}", number(port, "/PrivatePort")),
                public => format!("0.0.0.0:{public}->{}/{kind}", number(port, "/PrivatePort")),
            }
        })
        .collect();
    let command = text(container, "/Command");
    let command: String =
        if no_trunc { command.to_owned() } else { command.chars().take(20).collect() };
    let row = json!({
        "ID": short_id(text(container, "/Id"), no_trunc),
        "Image": super::service::shown_image(text(container, "/Image")),
        "Command": format!("\"{command}\""),
        "CreatedSince": human::ago(&json!(created.to_string())),
        "Status": text(container, "/Status"),
        "State": text(container, "/State"),
        "Ports": ports.join(", "),
        "Names": names.join(","),
    });
    row.as_object().cloned().unwrap_or_default()
}
