//! `midge version`.

use super::{
    client::Client,
    exit::{CliError, Exit},
    human::{list, text},
    output,
};
use clap::Args;
use serde_json::{Value, json};

/// The version of the API that this client speaks.
const API_VERSION: &str = "1.47";

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// `json`, or a template such as '{{.Server.Version}}'
    #[arg(short, long)]
    format: Option<String>,
}

pub(super) fn run(client: &Client, args: &VersionArgs) -> Result<Exit, CliError> {
    let own = json!({
        "Platform": {"Name": "midge"},
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API_VERSION,
        "Os": std::env::consts::OS,
        "Arch": architecture(),
    });
    // Without a daemon, what is known is shown all the same, and the command fails.
    let server = client.get("/version");
    let value = json!({
        "Client": own,
        "Server": server.as_ref().ok().cloned().unwrap_or(Value::Null),
    });
    match args.format.as_deref() {
        Some(format) if !format.is_empty() => output::object(format, &value)?,
        _ => {
            let mut out = client_part(&value["Client"]);
            if let Ok(server) = &server {
                out.push_str(&server_part(server));
            }
            output::raw(out.as_bytes())?;
        }
    }
    server.map(|_| Exit::Ok)
}

/// The processor in Docker's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_part(client: &Value) -> String {
    let mut out = String::from("Client: midge\n");
    for (label, value) in [
        ("Version:", text(client, "/Version").to_owned()),
        ("API version:", text(client, "/ApiVersion").to_owned()),
        ("OS/Arch:", format!("{}/{}", text(client, "/Os"), text(client, "/Arch"))),
    ] {
        out.push_str(&format!(" {label:<18} {value}\n"));
    }
    out
}

fn server_part(server: &Value) -> String {
    let mut out = format!("\nServer: {}\n", text(server, "/Platform/Name"));
    for component in list(server, "/Components") {
        let details = &component["Details"];
        out.push_str(&format!(" {}:\n", text(component, "/Name")));
        out.push_str(&format!("  {:<17} {}\n", "Version:", text(component, "/Version")));
        let mut detail = |label: &str, value: String| {
            if !value.is_empty() {
                out.push_str(&format!("  {label:<17} {value}\n"));
            }
        };
        let api = text(details, "/ApiVersion");
        if !api.is_empty() {
            let least = text(details, "/MinAPIVersion");
            detail("API version:", format!("{api} (minimum version {least})"));
            detail("OS/Arch:", format!("{}/{}", text(details, "/Os"), text(details, "/Arch")));
            detail("Kernel:", text(details, "/KernelVersion").to_owned());
            detail("Experimental:", text(details, "/Experimental").to_owned());
        }
        detail("GitCommit:", text(details, "/GitCommit").to_owned());
    }
    out
}
