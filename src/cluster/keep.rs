//! Which of a node's images services refer to: a node that runs short of space removes others
//! first.
//!
//! Told with the assignments, so that it is versioned and complete as they are, and only of images
//! that the node holds, so that it costs next to nothing.

use super::State;
use crate::types::{HeldImage, ServiceSpec, image::Reference};
use std::collections::BTreeSet;

/// What services refer to.
#[derive(Debug)]
pub(super) struct Keep {
    /// Digests, and familiar names of images that were never pinned.
    keys: BTreeSet<String>,
    stale: bool,
}

impl Keep {
    pub(super) fn new() -> Self {
        Self { keys: BTreeSet::new(), stale: true }
    }

    /// Services may have changed.
    pub(super) fn mark(&mut self) {
        self.stale = true;
    }

    /// Looks at the services again, where they may have changed. Tells whether it matters.
    pub(super) fn refresh(&mut self, state: &State) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let specs = state.services().flat_map(|service| {
            std::iter::once(&service.spec).chain(service.previous_spec.as_deref())
        });
        let keys = specs.filter_map(key).collect();
        let before = std::mem::replace(&mut self.keys, keys);
        before != self.keys
    }

    /// Returns the digests of those among `held` that are referred to, in order.
    pub(super) fn of(&self, held: &[HeldImage]) -> BTreeSet<String> {
        let kept =
            |held: &&HeldImage| self.keys.contains(&held.digest) || self.keys.contains(&held.name);
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
        world.create(spec);
        assert!(!keep.refresh(&world.state), "nobody said that services changed");
        keep.mark();
        assert!(keep.refresh(&world.state));
        world.update(&service, |spec| {
            spec.task.container.image = format!("web:2@{}", digest('2'));
        });
        keep.mark();
        assert!(keep.refresh(&world.state));
        keep.mark();
        assert!(!keep.refresh(&world.state), "the same again matters to nobody");
        let all = [
            held("web:1", '1'),
            held("web@sha256", '2'),
            held("local:1", '3'),
            held("local:0", '4'),
            held("plain:latest", '5'),
            held("other:1", '6'),
        ];
        let kept: Vec<String> = keep.of(&all).into_iter().collect();
        assert_eq!(kept, ['1', '2', '3', '5'].map(digest));
    }
}
