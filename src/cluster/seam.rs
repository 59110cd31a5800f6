//! A stand-in for scheduling, enforcement and validation.

pub(super) mod schedule {
    use crate::{
        cluster::{Decision, State},
        types::{
            Availability, HeldImage, Moment, NodeId, NodeState, TaskId, TaskState, TaskStatus,
        },
    };
    use std::collections::BTreeMap;

    #[derive(Debug, Default)]
    pub(crate) struct Volatile {
        pub(crate) soft: BTreeMap<TaskId, TaskStatus>,
        pub(crate) images: BTreeMap<NodeId, Vec<HeldImage>>,
    }

    pub(crate) fn schedule(state: &State, _: &Volatile, _: Moment) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut extra: BTreeMap<NodeId, usize> = BTreeMap::new();
        for task in state.tasks() {
            if task.status.state != TaskState::Pending || !task.desired.is_wanted() {
                continue;
            }
            let fits = |node: &&crate::types::Node| {
                node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
                    && task.node.as_ref().is_none_or(|id| *id == node.id)
            };
            let best = state.nodes().filter(fits).min_by_key(|node| {
                let active = state.tasks_on_node(&node.id).filter(|t| t.is_active()).count();
                active + extra.get(&node.id).copied().unwrap_or(0)
            });
            let (node, error) = match best {
                Some(node) => {
                    *extra.entry(node.id.clone()).or_insert(0) += 1;
                    (Some(node.id.clone()), String::new())
                }
                None => (None, "no suitable node".to_owned()),
            };
            decisions.push(Decision { task: task.id.clone(), node, error });
        }
        decisions
    }
}

pub(super) mod enforce {
    use crate::{
        cluster::State,
        types::{Date, TaskId, TaskStatus},
    };

    pub(crate) fn enforce(_: &State, _: Date) -> Vec<(TaskId, TaskStatus)> {
        Vec::new()
    }
}

pub(super) mod validate {
    use crate::{cluster::Refusal, types::ServiceSpec};

    pub(crate) fn service_spec(_: &ServiceSpec) -> Result<(), Refusal> {
        Ok(())
    }
}
