//! Nodes.

use super::super::{
    convert::{cluster, node},
    dto,
    error::unexpected,
    filter::Filters,
    local::Standing,
    route::{Call, Reply, empty, json, request_id},
};
use crate::{
    cluster::{Query, Refusal, Request, Response},
    types::Node,
};
use http::StatusCode;

/// Docker's filters of nodes.
const FILTERS: &[&str] =
    &["id", "label", "engine.label", "membership", "name", "node.label", "role"];

pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    filters.only("role", &["manager", "worker"])?;
    // Nobody is ever pending: whoever has the token is in.
    filters.only("membership", &["accepted", "pending"])?;
    let local = call.node.as_ref();
    let mut nodes = super::nodes(local, Query::Nodes).await?;
    nodes.retain(|node| {
        filters.fits("id", |id| node.id.as_str().starts_with(id))
            && filters.fits("name", |name| node.description.hostname.starts_with(name))
            && filters.fits("role", |role| node.role.to_string() == role)
            && filters.fits("membership", |membership| membership == "accepted")
            && filters.labels("label", &node.description.engine.labels)
            && filters.labels("engine.label", &node.description.engine.labels)
            && filters.labels("node.label", &node.spec.labels)
    });
    let context = Context::of(&call).await?;
    let nodes: Vec<dto::Node> = nodes.iter().map(|found| context.show(found)).collect();
    json(&nodes)
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let found = super::find_node(call.node.as_ref(), call.name()).await?;
    json(&Context::of(&call).await?.show(&found))
}

/// What of a node's JSON is not the node's own.
struct Context {
    tls: dto::TlsInfo,
    standing: Standing,
}

impl Context {
    async fn of(call: &Call) -> Result<Self, Refusal> {
        let local = call.node.as_ref();
        let found = super::cluster(local).await?;
        Ok(Self { tls: cluster::tls_info(&found, local), standing: local.standing() })
    }

    fn show(&self, found: &Node) -> dto::Node {
        let mut shown = node::from_node(found, self.standing.leader.as_ref(), &self.tls);
        if let Some(manager) = &mut shown.manager_status
            && self.standing.node.as_ref() == Some(&found.id)
            && !self.standing.manager_error.is_empty()
        {
            manager.message.clone_from(&self.standing.manager_error);
        }
        shown
    }
}

pub(crate) async fn update(mut call: Call) -> Reply {
    let version = super::read_version(&call, "node")?;
    let body: dto::NodeSpec = call.json().await?;
    let found = super::find_node(call.node.as_ref(), call.name()).await?;
    let spec = node::to_spec(&body, &found.spec)?;
    let request = Request::UpdateNode { request: request_id(), id: found.id, version, spec };
    match call.node.request(request).await? {
        Response::Done => Ok(empty(StatusCode::OK)),
        _ => Err(unexpected("an update of a node")),
    }
}

pub(crate) async fn remove(call: Call) -> Reply {
    let found = super::find_node(call.node.as_ref(), call.name()).await?;
    let force = call.query.flag("force");
    let request = Request::RemoveNode { request: request_id(), id: found.id, force };
    match call.node.request(request).await? {
        Response::Done => Ok(empty(StatusCode::OK)),
        _ => Err(unexpected("the removal of a node")),
    }
}
