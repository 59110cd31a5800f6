//! Reads: the committed state, with what the leader knows besides laid over it.
//!
//! An object's version stays that of the committed one: what lies over it was never written.

use super::{
    Class, Leader, Query, Refusal, Response, State, join,
    leader::{check_update, find_service},
    rehearse,
    why::Look,
};
use crate::types::{Date, Moment, Node, NodeId, NodeState, ServiceId, Task, image::Reference};

/// Returns the tasks of these services that these nodes have, in order of id.
fn asked<'a>(state: &'a State, services: &[ServiceId], nodes: &[NodeId]) -> Vec<&'a Task> {
    if services.is_empty() && nodes.is_empty() {
        return state.tasks().collect();
    }
    let mut tasks: Vec<&Task> = if services.is_empty() {
        nodes.iter().flat_map(|id| state.tasks_on_node(id)).collect()
    } else {
        let on = |task: &&Task| task.node.as_ref().is_some_and(|node| nodes.contains(node));
        let tasks = services.iter().flat_map(|id| state.tasks_of_service(id));
        tasks.filter(|task| nodes.is_empty() || on(task)).collect()
    };
    tasks.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    // Of what was named twice.
    tasks.dedup_by(|a, b| a.id == b.id);
    tasks
}

impl Leader {
    /// Answers a read from the state as it is now.
    pub(super) fn read(
        &self,
        state: &State,
        (now, date): (Moment, Date),
        query: &Query,
    ) -> Result<Response, Refusal> {
        let Self { volatile, memory, .. } = self;
        let look = Look { state, volatile, memory, now, date };
        Ok(match query {
            Query::Cluster => Response::Cluster(Box::new(join::cluster(state)?.clone())),
            Query::Nodes => Response::Nodes(state.nodes().map(|node| self.seen(node)).collect()),
            Query::NodesNamed(name) => {
                let nodes = state.nodes().filter(|node| node.may_be(name));
                Response::Nodes(nodes.map(|node| self.seen(node)).collect())
            }
            Query::Services => Response::Services(state.services().cloned().collect()),
            Query::ServicesNamed(name) => {
                let services = state.services().filter(|service| service.may_be(name));
                Response::Services(services.cloned().collect())
            }
            Query::Tasks { services, nodes } => {
                let tasks = asked(state, services, nodes).into_iter();
                Response::Tasks(tasks.map(|task| self.observed(task)).collect())
            }
            Query::TasksNamed(name) => {
                let tasks = state.tasks().filter(|task| task.may_be(name));
                Response::Tasks(tasks.map(|task| self.observed(task)).collect())
            }
            Query::HeldImages { image } => Response::HeldImages(self.held(image)?),
            Query::WhyTask { id } => {
                let missing = || Refusal::new(Class::NotFound, format!("task {id} not found"));
                Response::Why(look.task(state.task(id).ok_or_else(missing)?))
            }
            Query::WhyService { id } => Response::Why(look.service(find_service(state, id)?)),
            Query::PlanUpdate { id, version, spec } => {
                check_update(find_service(state, id)?, *version, spec)?;
                let time = (now, date);
                Response::Plan(rehearse::update(state, &self.volatile, time, id, *version, spec)?)
            }
        })
    }

    fn seen(&self, node: &Node) -> Node {
        let mut seen = node.clone();
        if node.status.state != NodeState::Down && self.liveness.is_suspect(&node.id) {
            seen.status.state = NodeState::Unknown;
            "most nodes fell silent at once; the manager doubts itself first"
                .clone_into(&mut seen.status.message);
        }
        let session = self.sessions.get(&node.id);
        if seen.status.state == NodeState::Ready
            && let Some(unwell) = session.and_then(|session| session.unwell.as_ref())
        {
            unwell.clone_into(&mut seen.status.message);
        }
        seen
    }

    fn observed(&self, task: &Task) -> Task {
        let mut observed = task.clone();
        if let Some(soft) = self.volatile.soft.get(&task.id)
            && soft.state > task.status.state
        {
            observed.status = soft.clone();
        }
        observed
    }

    fn held(&self, image: &str) -> Result<Vec<(NodeId, crate::types::HeldImage)>, Refusal> {
        let digest = image.starts_with("sha256:");
        let name = if digest {
            image.to_owned()
        } else {
            let invalid = |error: crate::types::image::InvalidReference| {
                Refusal::new(Class::Invalid, error.to_string())
            };
            Reference::parse(image).map_err(invalid)?.to_string()
        };
        let fits = |held: &&crate::types::HeldImage| {
            if digest { held.digest == name } else { held.name == name || held.name == image }
        };
        let held = self.volatile.images.iter().flat_map(|(node, images)| {
            images.iter().filter(fits).map(|held| (node.clone(), held.clone()))
        });
        Ok(held.collect())
    }
}
