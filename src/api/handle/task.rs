//! Tasks and their logs.

use super::{
    super::{
        convert::task,
        dto,
        error::{invalid, not_found},
        filter::Filters,
        local::{LocalNode, LogOptions, LogTask},
        route::{Call, Reply, json, streaming},
        stream::{LogFormat, log_bytes, streamed},
    },
    target::{self, Target},
};
use crate::{
    cluster::{Query, Refusal, is_outdated},
    types::{Node, NodeId, Service, ServiceId, Task},
};

/// Docker's filters of tasks; the last is what its client polls while an update goes on.
const FILTERS: &[&str] =
    &["id", "label", "name", "node", "service", "desired-state", "runtime", "_up-to-date"];

/// The desired states there are; Docker's client calls the first "accepted".
const DESIRED: [&str; 6] = ["ready", "running", "complete", "shutdown", "remove", "accepted"];

pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    filters.only("desired-state", &DESIRED)?;
    let local = call.node.as_ref();
    let by_node = node_ids(local, filters.values("node")).await?;
    let Some(by_service) = service_ids(local, filters.values("service")).await? else {
        return json(&Vec::<dto::Task>::new());
    };
    let (services, nodes) = if filters.values("_up-to-date").is_empty() {
        Default::default()
    } else {
        (super::services(local, Query::Services).await?, super::nodes(local, Query::Nodes).await?)
    };
    let mut tasks =
        super::tasks(local, Query::Tasks { services: by_service, nodes: by_node }).await?;
    tasks.retain(|task| fits(task, &filters, &services, &nodes));
    json(&tasks.iter().map(task::from_task).collect::<Vec<_>>())
}

/// None where something was asked for and nothing of that name is there.
async fn service_ids(
    node: &dyn LocalNode,
    wanted: &[String],
) -> Result<Option<Vec<ServiceId>>, Refusal> {
    let mut ids = Vec::new();
    for name in wanted {
        ids.extend(super::services_named(node, name).await?.into_iter().map(|service| service.id));
    }
    // A service that is gone may still have tasks that end: its whole id finds them.
    ids.extend(wanted.iter().filter_map(|name| ServiceId::parse(name).ok()));
    ids.sort();
    ids.dedup();
    Ok((wanted.is_empty() || !ids.is_empty()).then_some(ids))
}

/// Refuses, as Docker, a node that is not there.
async fn node_ids(node: &dyn LocalNode, wanted: &[String]) -> Result<Vec<NodeId>, Refusal> {
    let mut ids = Vec::new();
    for name in wanted {
        let found = super::nodes_named(node, name).await?;
        if found.is_empty() {
            return Err(not_found(format!("node {name} not found")));
        }
        ids.extend(found.into_iter().map(|node| node.id));
    }
    Ok(ids)
}

fn fits(task: &Task, filters: &Filters, services: &[Service], nodes: &[Node]) -> bool {
    let current = |value: &str| {
        let at = services.binary_search_by(|service| service.id.cmp(&task.service));
        let service = at.ok().map(|at| &services[at]);
        let node = super::node_of(nodes, task);
        // What an update leaves alone must count: a client waits until enough tasks do.
        let current = service.is_some_and(|service| !is_outdated(service, task, node));
        current == matches!(value, "true" | "1")
    };
    filters.fits("id", |id| task.id.as_str().starts_with(id))
        && filters.fits("name", |name| task.full_name().starts_with(name))
        && filters.fits("runtime", |runtime| runtime == "container")
        && filters.fits("desired-state", |state| {
            task.desired.as_str() == state || (state == "accepted" && task.desired.is_wanted())
        })
        && filters.fits("_up-to-date", current)
        && filters.labels("label", &task.service_labels)
}

async fn find(call: &Call) -> Result<Task, Refusal> {
    let name = call.name();
    let tasks = super::tasks_named(call.node.as_ref(), name).await?;
    // By its slot's name the newest task is meant: the others are its history.
    let newest = tasks.iter().filter(|task| task.short_name() == name).max_by_key(|t| t.created);
    let newest = newest.map(|task| task.id.clone());
    let named = |task: &Task| task.full_name() == name || Some(&task.id) == newest.as_ref();
    super::find("task", name, tasks, |task| task.id.as_str(), named)
}

pub(crate) async fn inspect(call: Call) -> Reply {
    json(&task::from_task(&find(&call).await?))
}

/// midge's own: why a task is as it is.
pub(crate) async fn why(call: Call) -> Reply {
    let id = find(&call).await?.id;
    super::why(call.node.as_ref(), id.to_string(), Query::WhyTask { id }).await
}

pub(crate) async fn logs(call: Call) -> Reply {
    let task = find(&call).await?;
    let tty = task.spec.container.tty;
    let Some(task) = log_task(&task) else {
        return Err(not_found(format!("task {} has no node yet", task.id)));
    };
    send_logs(&call, vec![task], None, tail(&call)?, tty).await
}

/// The log of a container, as `docker logs` asks for it: on a manager, of any node.
pub(crate) async fn container_logs(call: Call) -> Reply {
    let Target { place, container, .. } = target::find(call.node.as_ref(), call.name()).await?;
    let node = match place.node {
        Some(node) => node,
        None => call.node.standing().node.ok_or_else(|| not_found("this node is in no swarm"))?,
    };
    let task = LogTask { task: place.task, service: container.service, node };
    // As Docker: what is no number means all.
    let tail = call.query.get("tail").and_then(|tail| tail.parse().ok());
    send_logs(&call, vec![task], None, tail, container.spec.container.tty).await
}

pub(crate) async fn service_logs(call: Call) -> Reply {
    let service = super::find_service(call.node.as_ref(), call.name()).await?;
    let query = Query::Tasks { services: vec![service.id.clone()], nodes: Vec::new() };
    let tasks = super::tasks(call.node.as_ref(), query).await?;
    let tasks = tasks.iter().filter_map(log_task).collect();
    send_logs(&call, tasks, Some(service.id), tail(&call)?, service.spec.task.container.tty).await
}

/// None where it has no node yet, and so has written nothing.
fn log_task(task: &Task) -> Option<LogTask> {
    let node = task.node.clone()?;
    Some(LogTask { task: task.id.clone(), service: task.service.clone(), node })
}

/// How many of a service's newest lines are asked for; none for all.
fn tail(call: &Call) -> Result<Option<u64>, Refusal> {
    match call.query.get("tail") {
        None | Some("" | "all") => Ok(None),
        Some(number) => number
            .parse()
            .map(Some)
            .map_err(|_| invalid("tail value must be a positive integer or \"all\"")),
    }
}

async fn send_logs(
    call: &Call,
    tasks: Vec<LogTask>,
    service: Option<ServiceId>,
    tail: Option<u64>,
    tty: bool,
) -> Reply {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(invalid("Bad parameters: you must choose at least one stream"));
    }
    let options = LogOptions {
        tasks,
        service,
        follow: query.flag("follow"),
        tail,
        since: query.date("since")?,
        until: query.date("until")?,
        stdout,
        stderr,
    };
    let format = LogFormat {
        raw: tty,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let lines = call.node.logs(options).await?;
    let kind = if tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    Ok(streaming(kind, streamed(log_bytes(lines, format))))
}
