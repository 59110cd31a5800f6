//! Global services: one task on every node that fits.

use super::{Making, Pass, Slot, Stand, is_ended};
use crate::{
    cluster::SlotKey,
    types::{Availability, Desired, Node, NodeId, NodeState, ReasonCode, Service, Task, TaskState},
};
use std::collections::BTreeMap;

impl<'a> Pass<'a> {
    pub(super) fn global(&mut self, service: &Service) -> Vec<(Slot<'a>, Stand)> {
        let mut tasks: BTreeMap<&'a NodeId, Vec<&'a Task>> = BTreeMap::new();
        for task in self.state.tasks_of_service(&service.id) {
            if let Some(node) = task.node.as_ref().filter(|_| task.desired != Desired::Remove) {
                tasks.entry(node).or_default().push(task);
            }
        }
        let mut stands = Vec::new();
        let state = self.state;
        for node in state.nodes() {
            let key = SlotKey { service: service.id.clone(), slot: 0, node: Some(node.id.clone()) };
            let slot = Slot::of(key.clone(), tasks.remove(&node.id).unwrap_or_default());
            let fits = service.spec.task.placement.constraints.iter().all(|c| c.matches(node));
            match slot {
                Some(slot) if slot.is_wanted() => {
                    let takes_part = self.takes_part(node, &slot, fits);
                    let stand = takes_part.then(|| self.keep(service, &slot));
                    stands.extend(stand.map(|stand| (slot, stand)));
                }
                Some(slot) if fits && takes_tasks(node) && self.is_done(&slot) => {
                    let stand = self.keep(service, &slot);
                    stands.push((slot, stand));
                }
                _ if fits && takes_tasks(node) && !self.is_full() => {
                    let making = Making::at_once(ReasonCode::NodeJoined);
                    let task = self.make(service, &key, None, making);
                    self.replace(vec![task], vec![]);
                }
                _ => {}
            }
        }
        stands
    }

    /// A node that has a wanted task; tells whether its task is to be kept up.
    pub(super) fn takes_part(&mut self, node: &Node, slot: &Slot<'a>, fits: bool) -> bool {
        let wanted = || slot.wanted();
        if !fits || node.spec.availability == Availability::Drain {
            let desire = wanted().map(|task| (task, Desired::Shutdown)).collect();
            self.replace(vec![], desire);
            return false;
        }
        if node.status.state == NodeState::Down {
            // Nothing takes its place elsewhere, so it stays wanted: should the node come back,
            // it still runs. What its node told before it went away is looked at then.
            let gone = wanted().filter(|task| is_ended(task));
            let desire: Vec<_> = gone.map(|task| (task, Desired::Shutdown)).collect();
            if !desire.is_empty() {
                self.replace(vec![], desire);
            }
            return false;
        }
        if node.spec.availability == Availability::Pause {
            if let (Some(running), Some(incoming)) = (slot.running, slot.incoming) {
                if is_ended(running) || self.observed(incoming) == TaskState::Running {
                    self.replace(vec![], vec![(running, Desired::Shutdown)]);
                } else if is_ended(incoming) {
                    self.replace(vec![], vec![(incoming, Desired::Shutdown)]);
                }
            } else if slot.running.is_some_and(is_ended) {
                let desire = wanted().map(|task| (task, Desired::Shutdown)).collect();
                self.replace(vec![], desire);
            } else if let Some(held) = slot.held.filter(|held| is_ended(held)) {
                self.replace(vec![], vec![(held, Desired::Shutdown)]);
            } else if let (None, Some(held)) = (slot.running, slot.held) {
                // It was given to the node before the pause, and its predecessor was told to stop.
                self.release(held);
            }
            return false;
        }
        true
    }
}

pub(super) fn takes_tasks(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}
