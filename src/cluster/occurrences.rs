//! What a command made happen, as users are told by `events`.
//!
//! Knows which objects a command touches and what Swarm says of their differences; must not know
//! who listens. Every manager derives the same from the same log, times included.

#[cfg(test)]
mod tests;

use super::{
    command::{Change, Command},
    state::State,
};
use crate::types::{
    Date, Labels, Mode, Node, NodeId, Occurrence, OccurrenceKind, Service, ServiceId,
};

/// What a command touches, as it is before the command is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    date: Date,
    touched: Touched,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Touched {
    /// Nothing that users are told of.
    Nothing,
    Node(NodeId, Option<Box<Node>>),
    Service(ServiceId, Option<Box<Service>>),
}

impl Before {
    /// Notes what `command` is about to touch.
    #[must_use]
    pub fn of(state: &State, command: &Command) -> Self {
        let node = |id: &NodeId| Touched::Node(id.clone(), state.node(id).cloned().map(Box::new));
        let service =
            |id: &ServiceId| Touched::Service(id.clone(), state.service(id).cloned().map(Box::new));
        let touched = match &command.change {
            Change::CreateCluster { node: made, .. } | Change::CreateNode { node: made } => {
                node(&made.id)
            }
            Change::UpdateNode { id, .. }
            | Change::DescribeNode { id, .. }
            | Change::SetNodeState { id, .. }
            | Change::SetManagerStatus { id, .. }
            | Change::RemoveNode { id, .. } => node(id),
            Change::CreateService { service: made } => service(&made.id),
            Change::UpdateService { id, .. }
            | Change::RollbackService { id, .. }
            | Change::RevertService { id, .. }
            | Change::SetUpdateStatus { id, .. }
            | Change::RemoveService { id } => service(id),
            _ => Touched::Nothing,
        };
        Self { date: command.date, touched }
    }

    /// Returns what came of it; nothing where the command was rejected or changed nothing.
    #[must_use]
    pub fn occurrence(self, after: &State) -> Option<Occurrence> {
        let date = self.date;
        let (kind, id, action, attributes) = match self.touched {
            Touched::Nothing => return None,
            Touched::Node(id, before) => {
                let after = after.node(&id);
                let action = action(before.as_deref(), after)?;
                let attributes = node(before.as_deref(), after);
                (OccurrenceKind::Node, id.to_string(), action, attributes)
            }
            Touched::Service(id, before) => {
                let after = after.service(&id);
                let action = action(before.as_deref(), after)?;
                let attributes = service(before.as_deref(), after);
                (OccurrenceKind::Service, id.to_string(), action, attributes)
            }
        };
        Some(Occurrence { date, kind, action: action.to_owned(), id, attributes })
    }
}

/// Returns what is told when another manager begins to lead. Members are named by their keys in
/// the consensus group; one without a node is passed over.
#[must_use]
pub fn leadership(state: &State, from: Option<u64>, to: u64, date: Date) -> Vec<Occurrence> {
    let row = |key: u64| {
        let leads = |node: &&Node| node.manager.as_ref().is_some_and(|m| m.raft_id == key);
        state.nodes().find(leads)
    };
    let tell = |node: &Node, leads: bool| {
        let mut attributes = named(&node.description.hostname);
        changed(&mut attributes, "leader", !leads, leads);
        Occurrence {
            date,
            kind: OccurrenceKind::Node,
            action: "update".to_owned(),
            id: node.id.to_string(),
            attributes,
        }
    };
    let last = from.filter(|from| *from != to).and_then(row).map(|node| tell(node, false));
    let next = (from != Some(to)).then(|| row(to)).flatten().map(|node| tell(node, true));
    last.into_iter().chain(next).collect()
}

fn action<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> Option<&'static str> {
    match (before, after) {
        (None, Some(_)) => Some("create"),
        (Some(_), None) => Some("remove"),
        (Some(before), Some(after)) if before != after => Some("update"),
        _ => None,
    }
}

fn named(name: &str) -> Labels {
    Labels::from([("name".to_owned(), name.to_owned())])
}

/// Says what something was and is, where that differs.
fn changed<T: ToString + PartialEq>(attributes: &mut Labels, what: &str, old: T, new: T) {
    if old != new {
        attributes.insert(format!("{what}.old"), old.to_string());
        attributes.insert(format!("{what}.new"), new.to_string());
    }
}

fn node(before: Option<&Node>, after: Option<&Node>) -> Labels {
    let Some(node) = after.or(before) else { return Labels::new() };
    let mut attributes = named(&node.description.hostname);
    if let (Some(old), Some(new)) = (before, after) {
        changed(&mut attributes, "availability", old.spec.availability, new.spec.availability);
        changed(&mut attributes, "role", old.role, new.role);
        changed(&mut attributes, "state", old.status.state, new.status.state);
    }
    attributes
}

fn service(before: Option<&Service>, after: Option<&Service>) -> Labels {
    let Some(service) = after.or(before) else { return Labels::new() };
    let mut attributes = named(&service.spec.name);
    let (Some(old), Some(new)) = (before, after) else { return attributes };
    let image = |service: &Service| service.spec.task.container.image.clone();
    changed(&mut attributes, "image", image(old), image(new));
    if let (Mode::Replicated { replicas: before }, Mode::Replicated { replicas: after }) =
        (&old.spec.mode, &new.spec.mode)
    {
        changed(&mut attributes, "replicas", *before, *after);
    }
    let state = |service: &Service| service.update.as_ref().map(|update| update.state);
    match (state(old), state(new)) {
        (None, Some(new)) => {
            attributes.insert("updatestate.new".to_owned(), new.as_str().to_owned());
        }
        (Some(old), Some(new)) => {
            changed(&mut attributes, "updatestate", old.as_str(), new.as_str());
        }
        (_, None) => {}
    }
    attributes
}
