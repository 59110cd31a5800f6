//! Nodes.

use super::{date, job, version};
use crate::{
    api::{dto, error::invalid},
    cluster::Refusal,
    types::{Availability, Node, NodeId, NodeSpec, NodeState, Role},
};

/// Reads an availability; empty is active.
///
/// # Errors
///
/// It is none.
pub fn to_availability(text: &str) -> Result<Availability, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(invalid(format!("invalid Availability: {text:?}"))),
    }
}

/// Reads what a user sets of a node; what is empty stays as it is.
///
/// # Errors
///
/// A role or availability is none.
pub fn to_spec(dto: &dto::NodeSpec, current: &NodeSpec) -> Result<NodeSpec, Refusal> {
    if !dto.name.is_empty() {
        return Err(invalid("\"Name\": a node is named by its host"));
    }
    Ok(NodeSpec {
        labels: dto.labels.clone(),
        role: match dto.role.to_ascii_lowercase().as_str() {
            "" => current.role,
            "worker" => Role::Worker,
            "manager" => Role::Manager,
            _ => return Err(invalid(format!("invalid Role: {:?}", dto.role))),
        },
        availability: match dto.availability.as_str() {
            "" => current.availability,
            text => to_availability(text)?,
        },
    })
}

/// Shows a node.
#[must_use]
pub fn from_node(node: &Node, leader: Option<&NodeId>, tls: &dto::TlsInfo) -> dto::Node {
    let description = &node.description;
    let cgroups = description.cgroups;
    let controllers = [("cpu", cgroups.cpu), ("memory", cgroups.memory), ("pids", cgroups.pids)];
    let plugin = |kind: &str, name: &str| dto::EnginePlugin {
        r#type: kind.to_owned(),
        name: name.to_owned(),
    };
    dto::Node {
        id: node.id.to_string(),
        version: version(node.version),
        created_at: date(node.created),
        updated_at: date(node.updated),
        spec: dto::NodeSpec {
            name: String::new(),
            labels: node.spec.labels.clone(),
            role: node.spec.role.to_string(),
            availability: node.spec.availability.to_string(),
        },
        description: dto::NodeDescription {
            hostname: description.hostname.clone(),
            platform: dto::Platform {
                architecture: description.platform.kernel_name(),
                os: description.platform.os.clone(),
                variant: description.platform.variant.clone(),
            },
            resources: dto::NodeResources {
                nano_cpus: description.resources.nano_cpus,
                memory_bytes: description.resources.memory_bytes,
                generic_resources: job::from_generic(&description.generic),
            },
            engine: dto::Engine {
                engine_version: description.engine.version.clone(),
                labels: description.engine.labels.clone(),
                plugins: vec![
                    plugin("Log", "json-file"),
                    plugin("Network", "bridge"),
                    plugin("Network", "host"),
                    plugin("Network", "null"),
                    plugin("Volume", "local"),
                ],
                runtime_version: description.engine.runtime_version.clone(),
            },
            tls_info: tls.clone(),
            cgroups: dto::Cgroups {
                version: cgroups.version,
                controllers: controllers
                    .iter()
                    .filter(|(_, present)| *present)
                    .map(|(name, _)| (*name).to_owned())
                    .collect(),
            },
        },
        status: dto::NodeStatus {
            state: node.status.state.to_string(),
            message: node.status.message.clone(),
            addr: node.status.address.clone(),
        },
        manager_status: node.manager.as_ref().map(|manager| dto::ManagerStatus {
            leader: leader == Some(&node.id),
            reachability: match node.status.state {
                NodeState::Ready => "reachable",
                NodeState::Down => "unreachable",
                NodeState::Unknown => "unknown",
            }
            .to_owned(),
            addr: manager.address.clone(),
            message: complaint(node),
        }),
    }
}

/// Returns what a node that is in touch says is wrong with its manager.
fn complaint(node: &Node) -> String {
    match node.status.state {
        NodeState::Ready => node.status.message.clone(),
        NodeState::Down | NodeState::Unknown => String::new(),
    }
}
