//! `midge ps`, and what no user types.

use super::{
    client::{self, Client},
    exit::{CliError, Exit},
    human::{self, list, number, short_id, text},
    output::{self, column},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

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

/// Shows a port with the address at which it is reached, as Docker does.
fn shown_port(port: &Value) -> String {
    let inside = format!("{}/{}", number(port, "/PrivatePort"), text(port, "/Type"));
    match (text(port, "/IP"), number(port, "/PublicPort")) {
        (_, 0) => inside,
        (address, public) if address.contains(':') => format!("[{address}]:{public}->{inside}"),
        (address, public) => format!("{address}:{public}->{inside}"),
    }
}

fn row(container: &Value, no_trunc: bool) -> Map<String, Value> {
    let created = crate::types::Date::from_unix_seconds(number(container, "/Created"));
    let names: Vec<&str> = list(container, "/Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.trim_start_matches('/'))
        .collect();
    let ports: Vec<String> = list(container, "/Ports").iter().map(shown_port).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_where_they_are_reached() {
        let port = |ip: &str, public: u16| {
            shown_port(&json!({
                "IP": ip, "PublicPort": public, "PrivatePort": 80, "Type": "tcp",
            }))
        };
        assert_eq!(port("0.0.0.0", 8080), "0.0.0.0:8080->80/tcp");
        assert_eq!(port("127.0.0.1", 8080), "127.0.0.1:8080->80/tcp");
        assert_eq!(port("::", 8081), "[::]:8081->80/tcp");
        assert_eq!(port("", 0), "80/tcp");
    }
}
