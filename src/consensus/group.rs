//! From the members a group has to those it should have, one safe step at a time.
//!
//! Knows no time limits and no peers: it looks at the group and names the next step.

use std::collections::{BTreeMap, BTreeSet};

/// How many entries a member may lack when it is given its vote: it gets them within a few round
/// trips, and until then it would hold up what needs its vote.
const BEHIND_MAX: u64 = 64;

/// The group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Present {
    /// The member that leads.
    pub(super) own: u64,
    pub(super) voters: BTreeSet<u64>,
    /// Whether two sets of voters count, the former and the next: a change that was not finished,
    /// since its leader ended or its time was up between the two steps. Each write and each
    /// election needs a majority of both then.
    pub(super) joint: bool,
    /// All members, those that only follow included, with their addresses.
    pub(super) members: BTreeMap<u64, String>,
    /// Up to where each one's log is known to be the leader's.
    pub(super) matched: BTreeMap<u64, u64>,
    /// The end of the leader's log.
    pub(super) last: u64,
}

/// What brings the group nearer to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Let a member follow, or tell where it is reached now.
    Follow(u64, String),
    /// Give a member that has caught up its vote.
    Vote(u64),
    /// Take a voter out.
    Leave(u64),
    /// Take out a member that only follows.
    Forget(u64),
    /// Have the next voters alone count, which ends a change that was begun.
    Settle,
    /// Let another lead, so that it can take this one out.
    HandOver(u64),
    /// Nothing can be done yet: members have to catch up.
    Wait,
}

impl Present {
    fn lacks(&self, id: u64) -> Option<u64> {
        self.matched.get(&id).map(|matched| self.last.saturating_sub(*matched))
    }

    /// Returns the voter that lacks least, of those that are to stay.
    pub(super) fn successor(&self, stays: impl Fn(u64) -> bool) -> Option<u64> {
        let others = self.voters.iter().copied().filter(|id| *id != self.own && stays(*id));
        others.filter_map(|id| Some((self.lacks(id)?, id))).min().map(|(_, id)| id)
    }

    /// Returns the next step towards `wanted`; none where the group is as wanted. One member a
    /// step: a group that grows or shrinks by one keeps a majority in common with the one before.
    pub(super) fn next_step(&self, wanted: &BTreeMap<u64, String>) -> Option<Step> {
        if self.joint {
            return Some(Step::Settle);
        }
        let stays = |id: u64| wanted.contains_key(&id);
        if let Some((id, address)) =
            wanted.iter().find(|(id, address)| self.members.get(id) != Some(address))
        {
            return Some(Step::Follow(*id, address.clone()));
        }
        let others = |id: &&u64| **id != self.own;
        if let Some(id) = self.voters.iter().filter(others).find(|id| !stays(**id)) {
            return Some(Step::Leave(*id));
        }
        if let Some(id) = self.members.keys().find(|id| !stays(**id) && !self.voters.contains(id)) {
            return Some(Step::Forget(*id));
        }
        let waiting: Vec<u64> =
            wanted.keys().copied().filter(|id| !self.voters.contains(id)).collect();
        let caught_up = |id: &&u64| self.lacks(**id).is_some_and(|lacks| lacks <= BEHIND_MAX);
        if let Some(id) = waiting.iter().find(caught_up) {
            return Some(Step::Vote(*id));
        }
        if !stays(self.own) {
            return Some(self.successor(stays).map_or(Step::Wait, Step::HandOver));
        }
        (!waiting.is_empty()).then_some(Step::Wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ids: &[u64]) -> BTreeMap<u64, String> {
        ids.iter().map(|id| (*id, format!("10.0.0.{id}:2377"))).collect()
    }

    fn present(voters: &[u64], followers: &[(u64, u64)]) -> Present {
        let all: Vec<u64> = voters.iter().copied().chain(followers.iter().map(|f| f.0)).collect();
        Present {
            own: 1,
            voters: voters.iter().copied().collect(),
            joint: false,
            members: wanted(&all),
            matched: voters.iter().map(|id| (*id, 1_000)).chain(followers.to_vec()).collect(),
            last: 1_000,
        }
    }

    #[test]
    fn a_new_member_follows_first_and_votes_once_it_has_caught_up() {
        let step = |present: Present| present.next_step(&wanted(&[1, 2]));
        let follow = Step::Follow(2, "10.0.0.2:2377".to_owned());
        assert_eq!(step(present(&[1], &[])), Some(follow));
        assert_eq!(step(present(&[1], &[(2, 10)])), Some(Step::Wait));
        assert_eq!(step(present(&[1], &[(2, 990)])), Some(Step::Vote(2)));
        assert_eq!(step(present(&[1, 2], &[])), None);
    }

    #[test]
    fn who_is_not_wanted_leaves_though_another_never_comes() {
        let step = |present: Present| present.next_step(&wanted(&[1, 2, 4]));
        assert_eq!(step(present(&[1, 2, 3], &[(4, 0)])), Some(Step::Leave(3)));
        assert_eq!(step(present(&[1, 2], &[(4, 0), (5, 0)])), Some(Step::Forget(5)));
        assert_eq!(step(present(&[1, 2], &[(4, 0)])), Some(Step::Wait));
    }

    #[test]
    fn a_leader_that_is_not_wanted_hands_over_to_who_lacks_least() {
        let mut group = present(&[1, 2, 3], &[]);
        group.matched.insert(2, 400);
        assert_eq!(group.next_step(&wanted(&[2, 3])), Some(Step::HandOver(3)));
        let alone = present(&[1], &[(2, 3)]);
        assert_eq!(alone.next_step(&wanted(&[2])), Some(Step::Wait));
    }

    #[test]
    fn a_change_that_was_begun_is_finished_before_anything_else() {
        let group = Present { joint: true, ..present(&[1, 2], &[]) };
        for ids in [&[1, 2][..], &[1], &[1, 2, 3]] {
            assert_eq!(group.next_step(&wanted(ids)), Some(Step::Settle), "{ids:?}");
        }
    }

    #[test]
    fn an_address_that_changed_is_told() {
        let mut moved = wanted(&[1, 2]);
        moved.insert(2, "10.0.0.9:2377".to_owned());
        let follow = Step::Follow(2, "10.0.0.9:2377".to_owned());
        assert_eq!(present(&[1, 2], &[]).next_step(&moved), Some(follow));
    }
}
