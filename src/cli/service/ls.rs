//! `midge service ls`.

use super::job;
use crate::{
    cli::{
        client::{self, Client},
        exit::{CliError, Exit},
        human::{items, list, number, short_id, text},
        output::{self, column},
    },
    types::image::Reference,
};
use clap::Args;
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// Only services that fit: id, label, mode, name (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}} {{.Replicas}}'
    #[arg(long)]
    format: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(client: &Client, args: &LsArgs) -> Result<Exit, CliError> {
    let query = client::filters(&args.filter)?;
    let mut services = items(client.get(&format!("/services?status=true&{query}"))?)?;
    services.sort_by(|a, b| text(a, "/Spec/Name").cmp(text(b, "/Spec/Name")));
    if args.quiet {
        services
            .iter()
            .try_for_each(|service| output::line(&short_id(text(service, "/ID"), false)))?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Map<String, Value>> = services.iter().map(row).collect();
    let columns = [
        column("ID", "ID"),
        column("Name", "NAME"),
        column("Mode", "MODE"),
        column("Replicas", "REPLICAS"),
        column("Image", "IMAGE"),
        column("Ports", "PORTS"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(Exit::Ok)
}

fn row(service: &Value) -> Map<String, Value> {
    let running = number(service, "/ServiceStatus/RunningTasks");
    let desired = number(service, "/ServiceStatus/DesiredTasks");
    let max = number(service, "/Spec/TaskTemplate/Placement/MaxReplicas");
    let bound = if max > 0 { format!(" (max {max} per node)") } else { String::new() };
    let row = json!({
        "ID": short_id(text(service, "/ID"), false),
        "Name": text(service, "/Spec/Name"),
        "Mode": job::mode_name(service),
        "Replicas": format!("{running}/{desired}{bound}{}", job::completions(service)),
        "Image": shown_image(text(service, "/Spec/TaskTemplate/ContainerSpec/Image")),
        "Ports": ports(list(service, "/Spec/EndpointSpec/Ports")),
    });
    row.as_object().cloned().unwrap_or_default()
}

/// Returns the image as tables show it: without the digest where there is a tag.
pub(in crate::cli) fn shown_image(image: &str) -> String {
    match Reference::parse(image) {
        Ok(mut reference) if reference.tag.is_some() => {
            reference.digest = None;
            let tagged = reference.to_string();
            // A tag that the user left out stays out.
            if image.contains(':') { tagged } else { image.to_owned() }
        }
        _ => image.to_owned(),
    }
}

/// Returns published ports as tables show them: `*:8080->80/tcp`.
pub(in crate::cli) fn ports(ports: &[Value]) -> String {
    let shown = ports.iter().map(|port| {
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        let target = number(port, "/TargetPort");
        match number(port, "/PublishedPort") {
            0 => format!("*->{target}/{protocol}"),
            published => format!("*:{published}->{target}/{protocol}"),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}
