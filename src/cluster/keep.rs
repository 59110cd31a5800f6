//! Which of a node's images services refer to: a node that runs short of space removes others
//! first.
//!
//! Told with the assignments, so that it is versioned and complete as they are, and only of images
//! that the node holds, so that it costs next to nothing.

use super::{Change, State};
use crate::types::{HeldImage, ServiceId, ServiceSpec, image::Reference};
use std::collections::{BTreeMap, BTreeSet};

/// What services refer to.
#[derive(Debug)]
pub(super) struct Keep {
    /// Digests, and familiar names of images that were never pinned: how often each is referred to.
    uses: BTreeMap<String, usize>,
    of_services: BTreeMap<ServiceId, BTreeSet<String>>,
    /// Services that may refer to something else by now; none where all of them may.
    stale: Option<BTreeSet<ServiceId>>,
}

impl Keep {
    pub(super) fn new() -> Self {
        Self { uses: BTreeMap::new(), of_services: BTreeMap::new(), stale: None }
    }

    /// A change was applied.
    pub(super) fn note(&mut self, change: &Change) {
        let service = match change {
            Change::CreateService { service } => &service.id,
            Change::UpdateService { id, .. }
            | Change::RollbackService { id, .. }
            | Change::RevertService { id, .. }
            | Change::RemoveService { id, .. } => id,
            _ => return,
        };
        if let Some(stale) = &mut self.stale {
            stale.insert(service.clone());
        }
    }

    /// Looks at those services again that changed. Tells whether it matters.
    pub(super) fn refresh(&mut self, state: &State) -> bool {
        let stale = self.stale.replace(BTreeSet::new());
        let stale =
            stale.unwrap_or_else(|| state.services().map(|service| service.id.clone()).collect());
        let mut changed = false;
        for id in stale {
            let service = state.service(&id);
            let specs = service
                .into_iter()
                .flat_map(|it| std::iter::once(&it.spec).chain(it.previous_spec.as_deref()));
            let now: BTreeSet<String> = specs.filter_map(key).collect();
            for key in &now {
                let uses = self.uses.entry(key.clone()).or_default();
                changed |= *uses == 0;
                *uses += 1;
            }
            let before = if now.is_empty() {
                self.of_services.remove(&id)
            } else {
                self.of_services.insert(id, now)
            };
            for key in before.into_iter().flatten() {
                let Some(uses) = self.uses.get_mut(&key) else { continue };
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&key);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Returns the digests of those among `held` that are referred to, in order.
    pub(super) fn of(&self, held: &[HeldImage]) -> BTreeSet<String> {
        let used = |key: &String| self.uses.contains_key(key);
        let kept = |held: &&HeldImage| used(&held.digest) || used(&held.name);
        held.iter().filter(kept).map(|held| held.digest.clone()).collect()
    }
}

/// Returns by what the image of a service is known on its nodes.
fn key(spec: &ServiceSpec) -> Option<String> {
    let image = Reference::parse(&spec.task.container.image).ok()?;
    let pinned = spec.task.pin.as_ref().map(|pin| pin.digest.clone());
    Some(image.digest.clone().or(pinned).unwrap_or_else(|| image.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::leader::tests::{World, replicated},
        types::ImagePin,
    };

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn held(name: &str, digit: char) -> HeldImage {
        HeldImage { name: name.to_owned(), digest: digest(digit), platforms: Vec::new() }
    }

    #[test]
    fn specs_and_previous_specs_keep_their_images() {
        let mut world = World::new(1);
        let mut keep = Keep::new();
        assert!(!keep.refresh(&world.state), "no service, no image");
        let mut spec = replicated("web", 0);
        spec.task.container.image = format!("web:1@{}", digest('1'));
        let service = world.create(spec);
        let mut spec = replicated("pinned", 0);
        spec.task.container.image = "local:1".to_owned();
        spec.task.pin = Some(ImagePin { digest: digest('3'), nodes: Vec::new() });
        world.create(spec);
        let mut spec = replicated("plain", 0);
        spec.task.container.image = "docker.io/library/plain".to_owned();
        let plain = world.create(spec);
        assert!(!keep.refresh(&world.state), "nobody said that services changed");
        let mut keep = Keep::new();
        assert!(keep.refresh(&world.state), "the first look is at everything");
        world.update(&service, |spec| {
            spec.task.container.image = format!("web:2@{}", digest('2'));
        });
        let removed = |id: &ServiceId| Change::RemoveService { id: id.clone() };
        keep.note(&removed(&service));
        assert!(keep.refresh(&world.state));
        keep.note(&removed(&service));
        assert!(!keep.refresh(&world.state), "the same again matters to nobody");
        let all = [
            held("web:1", '1'),
            held("web@sha256", '2'),
            held("local:1", '3'),
            held("local:0", '4'),
            held("plain:latest", '5'),
            held("other:1", '6'),
        ];
        let kept = |keep: &Keep| keep.of(&all).into_iter().collect::<Vec<String>>();
        assert_eq!(kept(&keep), ['1', '2', '3', '5'].map(digest));
        world.remove(&plain);
        keep.note(&removed(&plain));
        assert!(keep.refresh(&world.state));
        assert_eq!(kept(&keep), ['1', '2', '3'].map(digest));
    }
}
