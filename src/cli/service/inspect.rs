//! `midge service inspect`.

mod container;

use super::{generic, job};
use crate::{
    cli::{
        client::{Client, encode},
        each,
        exit::{CliError, Exit},
        human::{self, binary_size, list, number, text},
        output,
    },
    types::UPDATE_PROGRESS_DEADLINE,
};
use clap::Args;
use serde_json::Value;
use std::time::Duration;

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
        let service = client.get(&format!("/services/{}?insertDefaults=true", encode(name)));
        found.push(service.map_err(|error| match error.message.ends_with("not found") {
            true => CliError { message: format!("Error: no such service: {name}"), ..error },
            false => error,
        })?);
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
    update_status(&service["UpdateStatus"], &mut line);
    let task = &service["Spec"]["TaskTemplate"];
    placement(&task["Placement"], &mut line);
    let spec = &service["Spec"];
    steps("UpdateConfig", "Update order:     ", &spec["UpdateConfig"], &mut line);
    steps("RollbackConfig", "Rollback order:   ", &spec["RollbackConfig"], &mut line);
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

/// Says how far an update, or its way back, has come.
fn update_status(status: &Value, line: &mut impl FnMut(&str, &str)) {
    let state = text(status, "/State");
    if state.is_empty() {
        return;
    }
    line("UpdateStatus:", "");
    line(" State:\t\t", state);
    if status["StartedAt"].is_string() {
        line(" Started:\t", &human::ago(&status["StartedAt"]));
    }
    if state == "completed" && status["CompletedAt"].is_string() {
        line(" Completed:\t", &human::ago(&status["CompletedAt"]));
    }
    line(" Message:\t", text(status, "/Message"));
}

/// Says how an update, or its way back, goes.
fn steps(title: &str, order: &str, config: &Value, line: &mut impl FnMut(&str, &str)) {
    if !config.is_object() {
        return;
    }
    let nanos = |pointer: &str| human::go_duration(Duration::from_nanos(number(config, pointer)));
    line(&format!("{title}:"), "");
    line(" Parallelism:\t", &number(config, "/Parallelism").to_string());
    if number(config, "/Delay") > 0 {
        line(" Delay:\t\t", &nanos("/Delay"));
    }
    line(" On failure:\t", text(config, "/FailureAction"));
    if number(config, "/Monitor") > 0 {
        line(" Monitoring Period: ", &nanos("/Monitor"));
    }
    let ratio = config["MaxFailureRatio"].as_f64().unwrap_or(0.0);
    line(" Max failure ratio: ", &ratio.to_string());
    line(&format!(" {order} "), text(config, "/Order"));
    // Docker knows no such deadline: it is shown where somebody has set one.
    match config["ProgressDeadline"].as_u64().map(Duration::from_nanos) {
        None | Some(UPDATE_PROGRESS_DEADLINE) => {}
        Some(Duration::ZERO) => line(" Progress deadline: ", "none"),
        Some(deadline) => line(" Progress deadline: ", &human::go_duration(deadline)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(print: impl FnOnce(&mut dyn FnMut(&str, &str))) -> String {
        let mut out = String::new();
        print(&mut |label, value| out.push_str(&format!("{label}{value}\n")));
        out
    }

    #[test]
    fn an_update_is_printed_as_dockers() {
        // As recorded of a service with these options.
        let mut config = json!({
            "Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
            "Monitor": 2_000_000_000, "MaxFailureRatio": 0.2, "Order": "start-first",
            "ProgressDeadline": 600_000_000_000_u64,
        });
        let recorded = "UpdateConfig:\n Parallelism:\t2\n Delay:\t\t1s\n On failure:\trollback\n \
                        Monitoring Period: 2s\n Max failure ratio: 0.2\n \
                        Update order:      start-first\n";
        let steps = |config: &Value| {
            printed(|mut line| steps("UpdateConfig", "Update order:     ", config, &mut line))
        };
        assert_eq!(steps(&config), recorded);
        for (deadline, shown) in [(0_u64, "none"), (90_000_000_000, "1m30s")] {
            config["ProgressDeadline"] = json!(deadline);
            assert_eq!(steps(&config), format!("{recorded} Progress deadline: {shown}\n"));
        }
    }

    #[test]
    fn how_far_an_update_is_is_printed_as_dockers() {
        let status = |status: Value| printed(|mut line| update_status(&status, &mut line));
        assert_eq!(status(Value::Null), "");
        let long_ago = "2000-01-01T00:00:00Z";
        let ago = human::ago(&json!(long_ago));
        for (state, completed) in
            [("completed", format!(" Completed:\t{ago}\n")), ("rollback_completed", String::new())]
        {
            let shown = status(json!({
                "State": state, "StartedAt": long_ago, "CompletedAt": long_ago, "Message": "done",
            }));
            assert_eq!(
                shown,
                format!(
                    "UpdateStatus:\n State:\t\t{state}\n Started:\t{ago}\n{completed} Message:\tdone\n"
                )
            );
        }
    }
}
