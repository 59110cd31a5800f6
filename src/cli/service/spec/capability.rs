//! `--cap-add` and `--cap-drop`.

use super::{set_list, take_list};
use crate::types::{CAPABILITY_ALL, capability_name};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;

/// Stands for an empty list where lists are merged, as [`capability_name`] makes it.
const RESET: &str = "CAP_RESET";

/// What processes may do beyond other processes.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct CapabilityArgs {
    /// Add a capability, or give one back that was dropped; RESET begins anew (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or take one back that was added; RESET begins anew (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
}

type Names = BTreeSet<String>;

impl CapabilityArgs {
    /// Merges what was given into the container's lists.
    pub(super) fn apply(&self, container: &mut Value) {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return;
        }
        let names = |list: &[String]| list.iter().map(|name| capability_name(name)).collect();
        let stored = |field: &str| {
            let list = take_list(container, field);
            list.iter().filter_map(Value::as_str).map(capability_name).collect()
        };
        let (add, drop) = merge(
            stored("/CapabilityAdd"),
            stored("/CapabilityDrop"),
            &names(&self.cap_add),
            &names(&self.cap_drop),
        );
        for (field, names) in [("CapabilityAdd", add), ("CapabilityDrop", drop)] {
            set_list(container, field, names.into_iter().map(Value::from).collect());
        }
    }
}

/// Merges as Swarm does. Each capability is in one of three states: added, dropped, as usual. A
/// step in one direction leads from the opposite state to the usual one first. Where one is both
/// added and dropped at once, it is added.
fn merge(mut add: Names, mut drop: Names, to_add: &Names, to_drop: &Names) -> (Names, Names) {
    if to_add.contains(RESET) {
        add.clear();
    }
    if to_drop.contains(RESET) {
        drop.clear();
    }
    for name in to_drop.iter().filter(|name| !to_add.contains(*name)) {
        if !add.remove(name) {
            drop.insert(name.clone());
        }
    }
    for name in to_add {
        if !drop.remove(name) {
            add.insert(name.clone());
        }
    }
    (listed(add), listed(drop))
}

/// All of them swallow each single one.
fn listed(mut names: Names) -> Names {
    if names.contains(CAPABILITY_ALL) {
        return Names::from([CAPABILITY_ALL.to_owned()]);
    }
    names.remove(RESET);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &str) -> Names {
        list.split_whitespace().map(capability_name).collect()
    }

    fn merged(add: &str, drop: &str, to_add: &str, to_drop: &str) -> (Names, Names) {
        merge(names(add), names(drop), &names(to_add), &names(to_drop))
    }

    #[test]
    fn lists_merge_as_swarms_do() {
        for (add, drop, to_add, to_drop, expected) in [
            ("", "", "net_admin", "chown", ("NET_ADMIN", "CHOWN")),
            ("", "", "chown", "chown", ("CHOWN", "")),
            ("", "chown", "chown", "", ("", "")),
            ("chown", "", "", "chown", ("", "")),
            ("chown", "", "", "chown kill", ("", "KILL")),
            ("chown", "kill", "reset sys_time", "", ("SYS_TIME", "KILL")),
            ("chown", "kill", "", "reset", ("CHOWN", "")),
            ("chown", "kill", "reset", "reset", ("", "")),
            ("chown", "", "all", "", ("ALL", "")),
            ("all", "", "chown", "", ("ALL", "")),
            ("all", "", "", "all", ("", "")),
            ("all", "", "chown", "all", ("CHOWN", "")),
        ] {
            let found = merged(add, drop, to_add, to_drop);
            let expected = (names(expected.0), names(expected.1));
            assert_eq!(found, expected, "{add} | {drop} | {to_add} | {to_drop}");
        }
    }

    proptest! {
        #[test]
        fn a_step_leads_through_the_usual_state(
            add in proptest::collection::btree_set("CAP_[A-D]", 0..4),
            drop in proptest::collection::btree_set("CAP_[E-H]", 0..4),
            name in "CAP_[A-H]",
        ) {
            let one = Names::from([name.clone()]);
            let (added, dropped) = merge(add.clone(), drop.clone(), &one, &Names::new());
            prop_assert!(!dropped.contains(&name));
            prop_assert_eq!(added.contains(&name), !drop.contains(&name));
            let (added, dropped) = merge(added, dropped, &one, &Names::new());
            prop_assert!(added.contains(&name) && !dropped.contains(&name), "twice is added");
            let (added, dropped) = merge(added, dropped, &Names::new(), &one);
            prop_assert!(!added.contains(&name) && !dropped.contains(&name));
            // Nothing else moved.
            let others = |set: &Names| set.iter().filter(|n| **n != name).cloned().collect::<Names>();
            prop_assert_eq!((others(&added), others(&dropped)), (others(&add), others(&drop)));
        }
    }
}
