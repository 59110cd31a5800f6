//! `midge service ls`.

use super::job;
use crate::{
    cli::{
        client::{self, Client},
        exit::{CliError, Exit},
        human::{items, list, natural, number, short_id, text},
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
    services.sort_by(|a, b| natural(text(a, "/Spec/Name"), text(b, "/Spec/Name")));
    if args.quiet && output::is_table(args.format.as_deref()) {
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

/// Returns published ports as tables show them: `*:8080->80/tcp`, and ports that follow one another
/// as one range, `*:8080-8082->80-82/tcp`.
pub(in crate::cli) fn ports(ports: &[Value]) -> String {
    /// First and last of published and target ports.
    struct Range<'a> {
        published: (u64, u64),
        target: (u64, u64),
        protocol: &'a str,
    }
    let mut ports: Vec<&Value> = ports.iter().collect();
    ports.sort_by_key(|port| {
        (text(port, "/Protocol"), number(port, "/PublishedPort"), number(port, "/TargetPort"))
    });
    let mut ranges: Vec<Range<'_>> = Vec::new();
    for port in ports {
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        let (published, target) = (number(port, "/PublishedPort"), number(port, "/TargetPort"));
        match ranges.last_mut() {
            Some(last)
                if last.protocol == protocol
                    && published > 0
                    && last.published.1 + 1 == published
                    && last.target.1 + 1 == target =>
            {
                last.published.1 = published;
                last.target.1 = target;
            }
            _ => {
                let (published, target) = ((published, published), (target, target));
                ranges.push(Range { published, target, protocol });
            }
        }
    }
    let span = |(first, last): (u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let shown = ranges.iter().map(|range| {
        let published = match range.published {
            (0, _) => String::new(),
            published => format!(":{}", span(published)),
        };
        format!("*{published}->{}/{}", span(range.target), range.protocol)
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_follow_one_another_are_a_range() {
        let port = |published: u64, target: u64, protocol: &str| json!({"Protocol": protocol, "TargetPort": target, "PublishedPort": published});
        assert_eq!(ports(&[port(8080, 80, "tcp")]), "*:8080->80/tcp");
        assert_eq!(ports(&[port(0, 80, "tcp")]), "*->80/tcp");
        assert_eq!(
            ports(&[
                port(82, 2, "tcp"),
                port(81, 1, "tcp"),
                port(53, 53, "udp"),
                port(90, 9, "tcp")
            ]),
            "*:81-82->1-2/tcp, *:90->9/tcp, *:53->53/udp"
        );
        assert_eq!(ports(&[]), "");
    }
}
