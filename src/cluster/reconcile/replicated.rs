//! Replicated services: so many slots, numbered from 1.

use super::{Making, Pass, Slot, Stand};
use crate::{
    cluster::{SlotKey, update},
    types::{Desired, NodeId, ReasonCode, Service, Task, TaskState},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

impl<'a> Pass<'a> {
    pub(super) fn replicated(
        &mut self,
        service: &Service,
        replicas: u64,
    ) -> Vec<(Slot<'a>, Stand)> {
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        let mut tasks: BTreeMap<u64, Vec<&'a Task>> = BTreeMap::new();
        for task in self.state.tasks_of_service(&service.id) {
            if task.desired != Desired::Remove {
                tasks.entry(task.slot).or_default().push(task);
            }
        }
        let slots: Vec<Slot<'a>> = tasks
            .into_iter()
            .filter_map(|(slot, tasks)| {
                let key = SlotKey { service: service.id.clone(), slot, node: None };
                Slot::of(key, tasks)
            })
            .collect();
        let (mut kept, dead): (Vec<_>, Vec<_>) = slots.into_iter().partition(|slot| {
            slot.is_wanted() || (self.is_done(slot) && !is_left_behind(service, slot))
        });
        let mut reused = BTreeSet::new();
        if kept.len() > replicas {
            let surplus = self.surplus(&kept, replicas);
            for slot in kept.iter().filter(|slot| surplus.contains(&slot.key.slot)) {
                self.remove_slot(slot);
            }
            kept.retain(|slot| !surplus.contains(&slot.key.slot));
        } else {
            let missing = replicas - kept.len();
            let taken: BTreeSet<u64> = kept.iter().map(|slot| slot.key.slot).collect();
            let free = (1..).filter(|number| !taken.contains(number));
            for slot in free.take(missing) {
                reused.insert(slot);
                if self.is_full() {
                    break;
                }
                let key = SlotKey { service: service.id.clone(), slot, node: None };
                let making = Making::at_once(ReasonCode::ServiceScaled);
                let task = self.make(service, &key, None, making);
                self.replace(vec![task], vec![]);
            }
        }
        for slot in dead.iter().filter(|slot| !reused.contains(&slot.key.slot)) {
            self.remove_slot(slot);
        }
        kept.into_iter()
            .map(|slot| {
                let stand = self.keep(service, &slot);
                (slot, stand)
            })
            .collect()
    }

    fn remove_slot(&mut self, slot: &Slot<'a>) {
        let desire = slot.all.iter().map(|task| (*task, Desired::Remove)).collect();
        self.replace(vec![], desire);
    }

    /// Returns the slots that go when only `replicas` may stay: from the nodes that hold most,
    /// and first of all what does not run.
    fn surplus(&self, slots: &[Slot<'a>], replicas: usize) -> BTreeSet<u64> {
        let runs = |slot: &Slot<'a>| {
            slot.running.is_some_and(|task| {
                self.observed(task) == TaskState::Running && !self.is_lost(task)
            })
        };
        let mut order: Vec<&Slot<'a>> = slots.iter().collect();
        order.sort_by_key(|slot| (Reverse(runs(slot)), slot.key.slot));
        let mut on_node: BTreeMap<&NodeId, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, u64)> = Vec::new();
        for slot in order {
            let node =
                slot.running.filter(|_| slot.wanted().count() == 1).and_then(|t| t.node.as_ref());
            let nth = node.map_or(usize::MAX, |node| {
                let count = on_node.entry(node).or_insert(0);
                *count += 1;
                *count
            });
            ranked.push((nth, slot.key.slot));
        }
        // Stable: those that are alike stay in the order running first, then by number.
        ranked.sort_by_key(|(nth, _)| *nth);
        ranked.into_iter().skip(replicas).map(|(_, slot)| slot).collect()
    }
}

/// Tells whether a rollback finds the slot given up by what it goes back from: that is filled anew.
fn is_left_behind(service: &Service, slot: &Slot<'_>) -> bool {
    update::is_going_back(service) && slot.newest.spec_version < service.spec_version
}
