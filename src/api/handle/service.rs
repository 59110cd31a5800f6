//! Services.

use super::super::{
    convert::{older, service, show},
    dto,
    error::{invalid, unexpected},
    filter::Filters,
    local::{Holders, LocalNode},
    route::{Call, Reply, empty, json, json_with, request_id},
};
use crate::{
    cluster::{Class, Query, Refusal, Request, Response},
    types::{
        ImagePin, JobTally, Mode, Node, NodeId, NodeState, Platform, Service, ServiceId,
        ServiceSpec, Task, TaskState, Version, image::Reference,
    },
};
use http::StatusCode;
use std::collections::{BTreeMap, BTreeSet};

/// Docker's filters of services.
const FILTERS: &[&str] = &["id", "label", "mode", "name", "runtime"];

pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    let local = call.node.as_ref();
    let mut services = super::services(local, Query::Services).await?;
    services.retain(|service| {
        let mode = match service.spec.mode {
            Mode::Replicated { .. } => "replicated",
            Mode::Global => "global",
            Mode::ReplicatedJob { .. } => "replicated-job",
            Mode::GlobalJob => "global-job",
        };
        filters.fits("id", |id| service.id.as_str().starts_with(id))
            && filters.fits("name", |name| service.spec.name.starts_with(name))
            && filters.fits("mode", |wanted| mode == wanted)
            && filters.fits("runtime", |runtime| runtime == "container")
            && filters.labels("label", &service.spec.labels)
    });
    let defaults = call.query.flag("insertDefaults");
    let mut shown: Vec<dto::Service> =
        services.iter().map(|found| show::from_service(found, defaults)).collect();
    if call.query.flag("status") && !services.is_empty() {
        let ids = services.iter().map(|service| service.id.clone()).collect();
        let of_these = Query::Tasks { services: ids, nodes: Vec::new() };
        let tasks = super::tasks(local, of_these).await?;
        let nodes = super::nodes(local, Query::Nodes).await?;
        let mut by_service: BTreeMap<&ServiceId, Vec<&Task>> = BTreeMap::new();
        for task in &tasks {
            by_service.entry(&task.service).or_default().push(task);
        }
        for (shown, service) in shown.iter_mut().zip(&services) {
            let own = by_service.remove(&service.id).unwrap_or_default();
            shown.service_status = Some(status(service, &own, &nodes));
        }
    }
    json(&shown)
}

/// Counts a service's tasks. One on a lost node, or one that was told to stop, is not counted as
/// running: Swarm counts both, and shows more of them than were asked for.
fn status(service: &Service, tasks: &[&Task], nodes: &[Node]) -> dto::ServiceStatus {
    let is_present = |task: &Task| {
        super::node_of(nodes, task).is_some_and(|node| node.status.state != NodeState::Down)
    };
    // Of a job, only the present iteration is of interest.
    let iteration = service.job.map(|job| job.iteration);
    let own = || tasks.iter().copied().filter(|task| task.job_iteration == iteration);
    let running = own().filter(|task| {
        task.status.state == TaskState::Running && task.desired.is_wanted() && is_present(task)
    });
    let tally = JobTally::of(service, own());
    let job = tally.unwrap_or_default();
    let wanted = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        // As Docker: how many may run at a time, also when all is done.
        Mode::ReplicatedJob { max_concurrent: 0, total_completions } => total_completions,
        Mode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
        // As Docker: of this one, what is done is counted beside it.
        Mode::GlobalJob => job.active + job.given_up,
        Mode::Global => {
            let nodes: BTreeSet<&NodeId> = own()
                .filter(|task| task.desired.is_wanted())
                .filter_map(|task| task.node.as_ref())
                .collect();
            u64::try_from(nodes.len()).unwrap_or(u64::MAX)
        }
    };
    dto::ServiceStatus {
        running_tasks: u64::try_from(running.count()).unwrap_or(u64::MAX),
        desired_tasks: wanted,
        completed_tasks: job.complete,
        given_up_tasks: job.given_up,
    }
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let found = super::find_service(call.node.as_ref(), call.name()).await?;
    json(&show::from_service(&found, call.query.flag("insertDefaults")))
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let body: dto::ServiceSpec = call.json().await?;
    let mut spec = service::to_spec(&body, None)?;
    spec.task.credential = super::credential(&call)?;
    if spec.name.is_empty() {
        spec.name = random_name();
    }
    let warnings = pin(call.node.as_ref(), &mut spec, true).await?;
    let request = Request::CreateService { request: request_id(), spec: Box::new(spec) };
    match call.node.request(request).await? {
        Response::Created(id) => {
            let body = dto::ServiceCreated { id: id.to_string(), warnings };
            json_with(StatusCode::CREATED, &body)
        }
        _ => Err(unexpected("the creation of a service")),
    }
}

/// A name for a service that was given none.
fn random_name() -> String {
    const LEFT: [&str; 16] = [
        "brave", "bright", "calm", "clever", "eager", "gentle", "happy", "keen", "kind", "lively",
        "merry", "nimble", "proud", "quick", "quiet", "sharp",
    ];
    const RIGHT: [&str; 16] = [
        "ant", "bee", "crane", "dove", "egret", "finch", "gnat", "hare", "ibis", "jay", "kite",
        "lark", "moth", "newt", "otter", "plover",
    ];
    let bits: u64 = rand::random();
    let word = |words: [&'static str; 16], shift: u32| {
        words[usize::try_from((bits >> shift) & 15).expect("four bits fit")]
    };
    format!("{}_{}_{:06x}", word(LEFT, 0), word(RIGHT, 4), (bits >> 8) & 0x00ff_ffff)
}

/// Where the client brought no digest, pins to the content that nodes hold, so that all of them run
/// the same. Returns a warning where nodes differ. A pin that is there keeps its digest and learns who
/// holds it by now, unless it is to be made `anew`; what nobody is known to hold stays as it is.
async fn pin(
    local: &dyn LocalNode,
    spec: &mut ServiceSpec,
    anew: bool,
) -> Result<Option<Vec<String>>, Refusal> {
    let Ok(reference) = Reference::parse(&spec.task.container.image) else { return Ok(None) };
    if reference.digest.is_some() {
        spec.task.pin = None;
        return Ok(None);
    }
    let image = reference.to_string();
    let query = Query::HeldImages { image: image.clone() };
    let answer = local.request(Request::Read(query)).await?;
    let Response::HeldImages(holders) = answer else {
        return Err(unexpected("a read of the images"));
    };
    if let (false, Some(kept)) = (anew, &mut spec.task.pin) {
        let nodes = holders.iter().filter(|(_, image)| image.digest == kept.digest);
        let nodes: BTreeSet<&NodeId> = nodes.map(|(node, _)| node).collect();
        if !nodes.is_empty() {
            kept.nodes = nodes.into_iter().cloned().collect();
        }
        return Ok(None);
    }
    let digests: BTreeSet<&str> = holders.iter().map(|(_, image)| image.digest.as_str()).collect();
    let several = digests.len() > 1;
    let Some((pin, platforms)) = choose(&holders) else { return Ok(None) };
    let warning = several.then(|| {
        vec![format!(
            "nodes hold different images under the name {image}; the service is pinned to {}, \
             which {} of them hold",
            pin.digest,
            pin.nodes.len()
        )]
    });
    spec.task.placement.platforms = platforms;
    spec.task.pin = Some(pin);
    Ok(warning)
}

/// The digest that most nodes hold, the least of equals; with the platforms there are of it.
fn choose(holders: &Holders) -> Option<(ImagePin, Vec<Platform>)> {
    let mut by_digest: BTreeMap<&str, (BTreeSet<&NodeId>, BTreeSet<&Platform>)> = BTreeMap::new();
    for (node, image) in holders {
        let (nodes, platforms) = by_digest.entry(&image.digest).or_default();
        nodes.insert(node);
        platforms.extend(&image.platforms);
    }
    let most = by_digest.values().map(|(nodes, _)| nodes.len()).max()?;
    let (digest, (nodes, platforms)) =
        by_digest.into_iter().find(|(_, (nodes, _))| nodes.len() == most)?;
    let pin = ImagePin { digest: digest.to_owned(), nodes: nodes.into_iter().cloned().collect() };
    Some((pin, platforms.into_iter().cloned().collect()))
}

pub(crate) async fn update(mut call: Call) -> Reply {
    let version = super::read_version(&call, "service")?;
    // Before anything is refused: a client that still writes its spec would find the pipe broken, and
    // not read why.
    let body: Result<dto::ServiceSpec, Refusal> = call.json().await;
    let local = call.node.clone();
    let found = super::find_service(local.as_ref(), call.name()).await?;
    match call.query.get("rollback") {
        None | Some("none") => {}
        Some("previous") => return rollback(&call, found, version).await,
        Some(other) => return Err(invalid(format!("unrecognized rollback option {other}"))),
    }
    let body = body?;
    let mut spec = service::to_spec(&body, Some(&found.spec))?;
    older::keep_unknown(&mut spec, &body, &found.spec, call.version);
    spec.task.credential = match super::credential(&call)? {
        Some(credential) => Some(credential),
        None => kept_credential(&call, &found)?,
    };
    // A new template replaces tasks anyway, so it may as well learn who holds the image by now;
    // scaling must not. Whoever forces an update wants what the name stands for today.
    let forced = spec.task.force_update != found.spec.task.force_update;
    let anew = forced || call.query.flag("resolveImage");
    let warnings = if anew || spec.task != found.spec.task {
        pin(local.as_ref(), &mut spec, anew).await?
    } else {
        None
    };
    if call.query.flag("dryRun") {
        return plan(local.as_ref(), found.id, version, spec).await;
    }
    let request = Request::UpdateService {
        request: request_id(),
        id: found.id,
        version,
        spec: Box::new(spec),
    };
    match local.request(request).await? {
        Response::Done | Response::Created(_) => json(&dto::ServiceUpdated { warnings }),
        _ => Err(unexpected("an update of a service")),
    }
}

fn kept_credential(
    call: &Call,
    found: &Service,
) -> Result<Option<crate::types::RegistryCredential>, Refusal> {
    match call.query.get("registryAuthFrom") {
        None | Some("spec") => Ok(found.spec.task.credential.clone()),
        Some("previous-spec") => {
            Ok(found.previous_spec.as_ref().and_then(|spec| spec.task.credential.clone()))
        }
        Some(other) => Err(invalid(format!("unsupported registryAuthFrom value: {other}"))),
    }
}

async fn rollback(call: &Call, found: Service, version: Version) -> Reply {
    let Some(previous) = found.previous_spec else {
        let message = format!("service {} does not have a previous spec", found.id);
        return Err(Refusal::new(Class::Conflict, message));
    };
    if call.query.flag("dryRun") {
        return plan(call.node.as_ref(), found.id, version, *previous).await;
    }
    let request = Request::RollbackService { request: request_id(), id: found.id, version };
    match call.node.request(request).await? {
        Response::Done | Response::Created(_) => json(&dto::ServiceUpdated::default()),
        _ => Err(unexpected("a rollback of a service")),
    }
}

/// Says what an update would do.
async fn plan(local: &dyn LocalNode, id: ServiceId, version: Version, spec: ServiceSpec) -> Reply {
    let query = Query::PlanUpdate { id, version, spec: Box::new(spec) };
    match local.request(Request::Read(query)).await? {
        Response::Plan(plan) => json(&show::from_plan(&plan)),
        _ => Err(unexpected("a plan of an update")),
    }
}

/// midge's own: why a service is as it is.
pub(crate) async fn why(call: Call) -> Reply {
    let id = super::find_service(call.node.as_ref(), call.name()).await?.id;
    super::why(call.node.as_ref(), id.to_string(), Query::WhyService { id }).await
}

pub(crate) async fn remove(call: Call) -> Reply {
    let found = super::find_service(call.node.as_ref(), call.name()).await?;
    let request = Request::RemoveService { request: request_id(), id: found.id };
    match call.node.request(request).await? {
        Response::Done => Ok(empty(StatusCode::OK)),
        _ => Err(unexpected("the removal of a service")),
    }
}
