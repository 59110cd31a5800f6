//! Generic resources of one node: who has what, and what is left.

use super::node_set::Credit;
use crate::types::{GenericReservations, GenericResource, Task, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// What tasks have of a node's generic resources.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// Who has which thing: also whoever waits for the one that has it.
    named: BTreeMap<GenericResource, BTreeSet<TaskId>>,
    /// How many of each kind that is counted.
    discrete: BTreeMap<String, u64>,
}

impl Use {
    /// Counts what a task has, but for what it takes over from its predecessor.
    pub(super) fn add(&mut self, task: &TaskId, mine: &[GenericResource], credit: Credit<'_>) {
        for resource in mine {
            match resource {
                GenericResource::Named { .. } => {
                    self.named.entry(resource.clone()).or_default().insert(task.clone());
                }
                GenericResource::Discrete { kind, count } => {
                    let more = count.saturating_sub(counted(credit.generic, kind));
                    let used = self.discrete.entry(kind.clone()).or_default();
                    *used = used.saturating_add(more);
                }
            }
        }
    }

    /// Returns what a task gets that wants so many of each kind, or none where too few are left.
    /// Things of its predecessor come first: what is changed least is what people expect.
    pub(super) fn claim(
        &self,
        node: &[GenericResource],
        wanted: &GenericReservations,
        credit: Credit<'_>,
    ) -> Option<Vec<GenericResource>> {
        let mut claimed = Vec::new();
        for (kind, wanted) in wanted.iter().filter(|(_, wanted)| **wanted > 0) {
            let there = node.iter().filter(|resource| resource.kind() == kind);
            let total = counted(node, kind);
            if total > 0 {
                let used = self.discrete.get(kind).copied().unwrap_or_default();
                let used = used.saturating_sub(counted(credit.generic, kind));
                if used.saturating_add(*wanted) > total {
                    return None;
                }
                claimed.push(GenericResource::Discrete { kind: kind.clone(), count: *wanted });
                continue;
            }
            let named = there.filter(|it| matches!(it, GenericResource::Named { .. }));
            let mut free: Vec<&GenericResource> =
                named.filter(|resource| self.is_free(resource, credit)).collect();
            free.sort_by_key(|resource| !credit.generic.contains(resource));
            let count = usize::try_from(*wanted).unwrap_or(usize::MAX);
            if free.len() < count {
                return None;
            }
            claimed.extend(free.into_iter().take(count).cloned());
        }
        claimed.sort();
        Some(claimed)
    }

    fn is_free(&self, resource: &GenericResource, credit: Credit<'_>) -> bool {
        let holders = self.named.get(resource);
        holders.is_none_or(|all| all.iter().all(|holder| credit.holder == Some(holder)))
    }
}

/// Returns how many of a kind there are in a list that counts it.
fn counted(list: &[GenericResource], of: &str) -> u64 {
    let count = |resource: &GenericResource| match resource {
        GenericResource::Discrete { kind, count } if kind == of => *count,
        _ => 0,
    };
    list.iter().map(count).fold(0, u64::saturating_add)
}

/// What is left of a node's generic resources while its tasks are counted one after another.
#[derive(Debug)]
pub(in crate::cluster) struct Left(Vec<GenericResource>);

impl Left {
    pub(in crate::cluster) fn of(node: &[GenericResource]) -> Self {
        Self(node.to_vec())
    }

    /// Takes what a task has besides what the one it waits for has; tells whether all of it was
    /// there.
    pub(in crate::cluster) fn take(&mut self, task: &Task, before: Option<&Task>) -> bool {
        let held = before.map_or(&[][..], |before| &before.generic);
        let mut left = self.0.clone();
        let taken = task.generic.iter().all(|resource| match resource {
            GenericResource::Named { .. } if held.contains(resource) => true,
            GenericResource::Named { .. } => {
                let at = left.iter().position(|known| known == resource);
                at.map(|at| left.remove(at)).is_some()
            }
            GenericResource::Discrete { kind, count } => left.iter_mut().any(|one| match one {
                GenericResource::Discrete { kind: known, count: left } if known == kind => {
                    let rest = left.checked_sub(count.saturating_sub(counted(held, kind)));
                    *left = rest.unwrap_or(*left);
                    rest.is_some()
                }
                _ => false,
            }),
        });
        if taken {
            self.0 = left;
        }
        taken
    }
}

#[cfg(test)]
mod tests;
