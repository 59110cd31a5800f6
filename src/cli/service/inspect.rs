//! `midge service inspect`.

mod container;

use super::{generic, get, job};
use crate::cli::{
    client::Client,
    each,
    exit::{CliError, Exit},
    human::{self, binary_size, list, number, text},
    output,
};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// Ids, prefixes of ids, or names
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    /// `json`, or a template such as '{{.Spec.Name}}'
    #[arg(short, long, conflicts_with = "pretty")]
    format: Option<String>,
    /// Print for people
    #[arg(long)]
    pretty: bool,
}

pub(super) fn run(client: &Client, args: &InspectArgs) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    let exit = each(&args.services, |name| {
        found.push(get(client, name)?);
        Ok(())
    });
    if args.pretty {
        found.iter().try_for_each(pretty)?;
    } else {
        output::objects(args.format.as_deref(), &found)?;
    }
    exit
}

fn pretty(service: &Value) -> Result<(), CliError> {
    let mut out = String::from("\n");
    let mut line = |label: &str, value: &str| out.push_str(&format!("{label}{value}\n"));
    line("ID:\t\t", text(service, "/ID"));
    line("Name:\t\t", text(service, "/Spec/Name"));
    if let Some(labels) = service["Spec"]["Labels"].as_object().filter(|l| !l.is_empty()) {
        line("Labels:", "");
        for (key, value) in labels {
            line(&format!(" {key}="), value.as_str().unwrap_or(""));
        }
    }
    if service.get("JobStatus").is_some() {
        job::pretty(service, &mut line);
    } else if service["Spec"]["Mode"].get("Global").is_some() {
        line("Service Mode:\t", "Global");
    } else {
        line("Service Mode:\t", "Replicated");
        let replicas = number(service, "/Spec/Mode/Replicated/Replicas");
        line(" Replicas:\t", &replicas.to_string());
    }
    if let Some(status) = service.get("UpdateStatus").filter(|s| !text(s, "/State").is_empty()) {
        line("UpdateStatus:", "");
        line(" State:\t\t", text(status, "/State"));
        line(" Started:\t", &human::ago(&status["StartedAt"]));
        if text(status, "/State") == "completed" {
            line(" Completed:\t", &human::ago(&status["CompletedAt"]));
        }
        line(" Message:\t", text(status, "/Message"));
    }
    let task = &service["Spec"]["TaskTemplate"];
    placement(&task["Placement"], &mut line);
    container::template(task, &mut line);
    line("Resources:", "");
    for (title, group) in [("Reservations", "Reservations"), ("Limits", "Limits")] {
        resources(title, &task["Resources"][group], &mut line);
    }
    swap(&task["Resources"], &mut line);
    let networks: Vec<&str> =
        list(task, "/Networks").iter().map(|network| text(network, "/Target")).collect();
    if !networks.is_empty() {
        line("Networks: ", &networks.join(" "));
    }
    line("Endpoint Mode:\t", service["Spec"]["EndpointSpec"]["Mode"].as_str().unwrap_or("vip"));
    container::ports(list(service, "/Spec/EndpointSpec/Ports"), &mut line);
    container::health(&task["ContainerSpec"]["Healthcheck"], &mut line);
    out.push('\n');
    output::raw(out.as_bytes())
}

fn placement(placement: &Value, line: &mut impl FnMut(&str, &str)) {
    line("Placement:", "");
    let texts = |pointer: &str| -> Vec<&str> {
        list(placement, pointer).iter().filter_map(Value::as_str).collect()
    };
    let constraints = texts("/Constraints");
    if !constraints.is_empty() {
        line(" Constraints:\t", &format!("[{}]", constraints.join(" ")));
    }
    let preferences: Vec<String> = list(placement, "/Preferences")
        .iter()
        .map(|p| format!("spread={}", text(p, "/Spread/SpreadDescriptor")))
        .collect();
    if !preferences.is_empty() {
        line(" Preferences:\t", &preferences.join(" "));
    }
    if number(placement, "/MaxReplicas") > 0 {
        line(" Max Replicas Per Node: ", &number(placement, "/MaxReplicas").to_string());
    }
}

fn swap(resources: &Value, line: &mut impl FnMut(&str, &str)) {
    match resources["SwapBytes"].as_i64() {
        None => {}
        Some(-1) => line(" Swap:\t\t", "unlimited"),
        Some(_) => line(" Swap:\t\t", &binary_size(number(resources, "/SwapBytes"))),
    }
    if let Some(swappiness) = resources["MemorySwappiness"].as_i64() {
        line(" Swappiness:\t", &swappiness.to_string());
    }
}

fn resources(title: &str, resources: &Value, line: &mut impl FnMut(&str, &str)) {
    let (cpus, memory) = (number(resources, "/NanoCPUs"), number(resources, "/MemoryBytes"));
    let pids = number(resources, "/Pids");
    let others = generic::shown(resources);
    if cpus == 0 && memory == 0 && pids == 0 && others.is_empty() {
        return;
    }
    line(&format!(" {title}:"), "");
    if cpus > 0 {
        let fraction = format!("{:09}", cpus % 1_000_000_000);
        let shown = format!("{}.{fraction}", cpus / 1_000_000_000);
        line("  CPU:\t\t", shown.trim_end_matches('0').trim_end_matches('.'));
    }
    if memory > 0 {
        line("  Memory:\t", &binary_size(memory));
    }
    if pids > 0 {
        line("  PIDs:\t\t", &pids.to_string());
    }
    if !others.is_empty() {
        line("  Generic:\t", &others);
    }
}
