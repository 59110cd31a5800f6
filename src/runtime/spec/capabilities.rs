//! Which capabilities a container's processes may have.

use super::SpecError;
use crate::types::{CAPABILITIES, CAPABILITY_ALL, ContainerSpec, capabilities_in, capability_name};

/// Docker's default set.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// Returns what a container is granted, in the order of the numbers. `node` has a bit for each
/// capability that the node itself has: its kernel may be older, or it a container in its turn.
///
/// As Docker: what is dropped is taken from the default set, what is added comes on top. With
/// `ALL` added, what is dropped is taken from all; with `ALL` dropped, only what is added is left.
pub(super) fn granted(spec: &ContainerSpec, node: u64) -> Result<Vec<&'static str>, SpecError> {
    let (add, drop) = (names(&spec.capability_add)?, names(&spec.capability_drop)?);
    let here: Vec<&str> = capabilities_in(node).collect();
    if spec.privileged {
        return Ok(here);
    }
    if let Some(name) = add.iter().find(|name| **name != CAPABILITY_ALL && !here.contains(name)) {
        return Err(SpecError::CapabilityMissing((*name).to_owned()));
    }
    let is_kept = |name: &&str| {
        if add.contains(&CAPABILITY_ALL) {
            return !drop.contains(name);
        }
        let by_default =
            DEFAULT.contains(name) && !drop.contains(&CAPABILITY_ALL) && !drop.contains(name);
        by_default || add.contains(name)
    };
    Ok(here.into_iter().filter(is_kept).collect())
}

/// Brings names into the kernel's form; `net_admin` and `CAP_NET_ADMIN` are the same.
fn names(given: &[String]) -> Result<Vec<&'static str>, SpecError> {
    let name = |given: &String| {
        let full = capability_name(given);
        let mut known = CAPABILITIES.into_iter().chain([CAPABILITY_ALL]);
        known.find(|name| *name == full).ok_or(SpecError::Capability(full))
    };
    given.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample};

    const EACH: u64 = (1 << CAPABILITIES.len()) - 1;

    fn spec(add: &[&str], drop: &[&str]) -> ContainerSpec {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ContainerSpec {
            capability_add: owned(add),
            capability_drop: owned(drop),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn names_are_taken_in_every_form_and_unknown_ones_refused() {
        let granted = granted(&spec(&["net_admin"], &["CAP_NET_RAW", "chown"]), EACH).unwrap();
        assert_eq!(granted.len(), 13);
        assert!(granted.contains(&"CAP_NET_ADMIN") && !granted.contains(&"CAP_CHOWN"));
        let refused = super::granted(&spec(&["fly"], &[]), EACH).unwrap_err();
        assert_eq!(refused.to_string(), "invalid capability: unknown capability \"CAP_FLY\"");
        let refused = super::granted(&spec(&["BPF"], &[]), EACH >> 3).unwrap_err();
        let text = "this node does not have the capability \"CAP_BPF\"";
        assert_eq!(refused.to_string(), text);
    }

    #[test]
    fn all_is_what_the_node_has() {
        assert_eq!(granted(&spec(&["all"], &[]), EACH >> 3).unwrap().len(), 38);
        let privileged = ContainerSpec { privileged: true, ..spec(&[], &["ALL"]) };
        assert_eq!(granted(&privileged, u64::MAX).unwrap(), CAPABILITIES);
        assert_eq!(granted(&spec(&["kill"], &["ALL"]), EACH).unwrap(), ["CAP_KILL"]);
        assert_eq!(granted(&spec(&["ALL"], &["ALL"]), EACH).unwrap(), CAPABILITIES);
    }

    proptest! {
        /// Whatever is added is there and whatever is dropped is not, but what is added prevails;
        /// nothing else differs from where the merge began.
        #[test]
        fn a_merge_adds_and_drops_what_it_is_told(
            add in sample::subsequence(CAPABILITIES.to_vec(), 0..=6),
            drop in sample::subsequence(CAPABILITIES.to_vec(), 0..=6),
            add_all: bool,
            drop_all: bool,
        ) {
            let mut given = spec(&add, &drop);
            if add_all { given.capability_add.push("ALL".into()); }
            if drop_all { given.capability_drop.push("ALL".into()); }
            let granted = granted(&given, EACH).unwrap();
            for name in CAPABILITIES {
                let expected = match (add_all, drop_all) {
                    (true, _) => !drop.contains(&name),
                    (false, true) => add.contains(&name),
                    (false, false) => {
                        add.contains(&name) || (DEFAULT.contains(&name) && !drop.contains(&name))
                    }
                };
                prop_assert_eq!(granted.contains(&name), expected, "{}", name);
            }
            let order: Vec<_> = CAPABILITIES.into_iter().filter(|name| granted.contains(name)).collect();
            prop_assert_eq!(granted, order);
        }
    }
}
