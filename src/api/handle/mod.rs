//! One file a resource: from a request to the local node and back.

pub(super) mod archive;
pub(super) mod backup;
mod chore;
pub(super) mod container;
pub(super) mod ending;
pub(super) mod events;
pub(super) mod exec;
pub(super) mod image;
pub(super) mod login;
pub(super) mod network;
pub(super) mod node;
mod select;
pub(super) mod service;
pub(super) mod stats;
pub(super) mod swarm;
pub(super) mod system;
mod target;
pub(super) mod task;
pub(super) mod volume;

use super::{
    decode, dto,
    error::{invalid, not_found, unexpected},
    local::LocalNode,
    route::{Call, Reply, json},
};
use crate::{
    cluster::{Query, Refusal, Request, Response},
    types::{Cluster, Node, RegistryCredential, Service, Task, Version},
};
use serde::Deserialize;

async fn cluster(node: &dyn LocalNode) -> Result<Cluster, Refusal> {
    match node.request(Request::Read(Query::Cluster)).await? {
        Response::Cluster(cluster) => Ok(*cluster),
        _ => Err(unexpected("a read of the cluster")),
    }
}

async fn nodes(node: &dyn LocalNode, query: Query) -> Result<Vec<Node>, Refusal> {
    match node.request(Request::Read(query)).await? {
        Response::Nodes(nodes) => Ok(nodes),
        _ => Err(unexpected("a read of the nodes")),
    }
}

async fn services(node: &dyn LocalNode, query: Query) -> Result<Vec<Service>, Refusal> {
    match node.request(Request::Read(query)).await? {
        Response::Services(services) => Ok(services),
        _ => Err(unexpected("a read of the services")),
    }
}

async fn tasks(node: &dyn LocalNode, query: Query) -> Result<Vec<Task>, Refusal> {
    match node.request(Request::Read(query)).await? {
        Response::Tasks(tasks) => Ok(tasks),
        _ => Err(unexpected("a read of the tasks")),
    }
}

fn is_unknown<T>(answer: &Result<T, Refusal>) -> bool {
    answer.as_ref().is_err_and(Refusal::may_be_of_an_older_peer)
}

/// The nodes that a name may mean.
async fn nodes_named(node: &dyn LocalNode, name: &str) -> Result<Vec<Node>, Refusal> {
    let named = nodes(node, Query::NodesNamed(name.to_owned())).await;
    let mut found = if is_unknown(&named) { nodes(node, Query::Nodes).await? } else { named? };
    found.retain(|node| node.may_be(name));
    Ok(found)
}

/// The services that a name may mean.
async fn services_named(node: &dyn LocalNode, name: &str) -> Result<Vec<Service>, Refusal> {
    let named = services(node, Query::ServicesNamed(name.to_owned())).await;
    let mut found =
        if is_unknown(&named) { services(node, Query::Services).await? } else { named? };
    found.retain(|service| service.may_be(name));
    Ok(found)
}

/// The tasks that a name may mean.
async fn tasks_named(node: &dyn LocalNode, name: &str) -> Result<Vec<Task>, Refusal> {
    let all = Query::Tasks { services: Vec::new(), nodes: Vec::new() };
    let named = tasks(node, Query::TasksNamed(name.to_owned())).await;
    let mut found = if is_unknown(&named) { tasks(node, all).await? } else { named? };
    found.retain(|task| task.may_be(name));
    Ok(found)
}

/// Returns the node of a task; none that was removed. The nodes are in order of id, as they are read.
fn node_of<'a>(nodes: &'a [Node], task: &Task) -> Option<&'a Node> {
    let id = task.node.as_ref()?;
    nodes.binary_search_by(|node| node.id.cmp(id)).ok().map(|at| &nodes[at])
}

/// Answers why the thing of this id is as it is.
async fn why(node: &dyn LocalNode, id: String, query: Query) -> Reply {
    match node.request(Request::Read(query)).await? {
        Response::Why(why) => json(&dto::Why { id, why }),
        _ => Err(unexpected("a question why")),
    }
}

/// Finds one thing by its whole id, else its name, else the beginning of its id.
fn find<T>(
    kind: &str,
    name: &str,
    items: Vec<T>,
    id: impl Fn(&T) -> &str,
    named: impl Fn(&T) -> bool,
) -> Result<T, Refusal> {
    let tests: [&dyn Fn(&T) -> bool; 3] =
        [&|item| id(item) == name, &|item| named(item), &|item| id(item).starts_with(name)];
    let mut items = items;
    for test in tests {
        let ids: Vec<String> =
            items.iter().filter(|item| test(item)).map(|item| id(item).to_owned()).collect();
        match ids.as_slice() {
            [] => {}
            [only] => {
                let at = items.iter().position(|item| id(item) == only);
                return Ok(items.swap_remove(at.expect("it was found a line above")));
            }
            several => {
                return Err(invalid(format!(
                    "{kind} {name} is ambiguous ({} matches found: {}); use one of these ids",
                    several.len(),
                    several.join(", ")
                )));
            }
        }
    }
    Err(not_found(format!("{kind} {name} not found")))
}

async fn find_node(node: &dyn LocalNode, name: &str) -> Result<Node, Refusal> {
    let named = |node: &Node| node.description.hostname == name;
    find("node", name, nodes_named(node, name).await?, |node| node.id.as_str(), named)
}

async fn find_service(node: &dyn LocalNode, name: &str) -> Result<Service, Refusal> {
    let named = |service: &Service| service.spec.name == name;
    find("service", name, services_named(node, name).await?, |service| service.id.as_str(), named)
}

/// The version that the client read, which every write must name.
fn read_version(call: &Call, kind: &str) -> Result<Version, Refusal> {
    let text = call.query.text("version");
    let number: u64 =
        text.parse().map_err(|_| invalid(format!("invalid {kind} version '{text}'")))?;
    Ok(Version::from_api(number))
}

/// A login to a registry, as Docker's clients send it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
    serveraddress: String,
}

impl Auth {
    /// The login; none where it holds none.
    fn credential(self) -> Option<RegistryCredential> {
        let token =
            if self.identitytoken.is_empty() { self.registrytoken } else { self.identitytoken };
        let is_token = !token.is_empty();
        if !is_token && self.username.is_empty() {
            return None;
        }
        let secret = if is_token { token } else { self.password };
        Some(RegistryCredential { username: self.username, secret, is_token })
    }
}

/// The login of a request's `X-Registry-Auth`; none where it holds none.
fn credential(call: &Call) -> Result<Option<RegistryCredential>, Refusal> {
    let wrong = || invalid("invalid X-Registry-Auth header: base64url of JSON is expected");
    let Some(header) = call.headers.get("x-registry-auth") else { return Ok(None) };
    let text = header.to_str().map_err(|_| wrong())?;
    if text.is_empty() {
        return Ok(None);
    }
    let json = super::route::decode_base64url(text).ok_or_else(wrong)?;
    let auth: Auth = decode::from_slice(&json).map_err(|_| wrong())?;
    Ok(auth.credential())
}
