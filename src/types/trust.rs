//! Whom a node of the cluster believes: its roots, and what the replicated state says of managers.

use super::{Date, JoinTokens, NodeId, Role, RootCa, Version};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// What every node knows of the cluster's roots. Nothing of it is secret.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trust {
    /// The root certificates, DER, that certificates are checked against: one, and the next one as
    /// well while the root is being rotated. The first is that of the join tokens.
    pub roots: Vec<Vec<u8>>,
    /// Certificates that are shown beside a node's own, DER, the newest first: each says that the
    /// root before vouches for the one after, so that a node which was away during a rotation can
    /// check its managers by the root that it knows.
    pub cross_signed: Vec<Vec<u8>>,
}

impl fmt::Debug for Trust {
    /// Counts instead of pages of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.roots.len(), self.cross_signed.len());
        f.debug_struct("Trust").field("roots, cross-signed", &counts).finish()
    }
}

/// The root on its way to being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The root that comes.
    pub root: RootCa,
    /// Its name and key, signed by the root of now, DER.
    pub cross_signed: Vec<u8>,
    /// What admits new nodes afterwards: whoever may have the old root's key may have the tokens.
    pub tokens: JoinTokens,
}

/// A root that was replaced. Its key is gone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRoot {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The name and key of the root that came after it, signed by it, DER.
    pub cross_signed: Vec<u8>,
    /// When it was replaced.
    pub ended: Date,
}

impl fmt::Debug for FormerRoot {
    /// Leaves the bytes out: nobody reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormerRoot").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What the replicated state, as far as a manager has it, says of who may ask what.
///
/// A certificate says which role a node has, and is good for months; the state knows better. It may
/// also be behind: a manager that was off for long meets managers that it has never heard of, and
/// must let them bring it up to date. So what is not in here is believed to its certificate.
///
/// It is kept beside the log, whose entries count for nothing at a start before a majority has
/// agreed on how far they are committed: who that majority may be, must be known before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// The version of the state that says so; a later one replaces it.
    pub as_of: Version,
    /// The nodes that are managers.
    pub managers: BTreeSet<NodeId>,
    /// When a node ceased to be a manager: its certificates of that role count only where they were
    /// issued later.
    pub demoted: BTreeMap<NodeId, Date>,
    /// Where each manager is reached, `host:port`, as it last said.
    #[serde(default)]
    pub addresses: BTreeMap<NodeId, String>,
    /// For how long after its end a certificate still tells who a node is.
    pub grace: Duration,
    /// The roots that count, and what vouches for them.
    #[serde(skip)]
    pub trust: Trust,
    /// Roots of before, DER, and until when: what they signed serves to get another certificate,
    /// and nothing else.
    #[serde(skip)]
    pub former_roots: Vec<(Vec<u8>, Date)>,
    /// All nodes, where the cluster may have forgotten some; none where it has not.
    #[serde(skip)]
    pub members: Option<BTreeSet<NodeId>>,
}

impl Roster {
    /// Tells whether a node whose certificate is good may not be known any more: what it joined was
    /// restored from a backup of before. (Or the state is behind: there is no harm in its asking for
    /// another certificate.)
    #[must_use]
    pub fn may_have_forgotten(&self, node: &NodeId) -> bool {
        self.members.as_ref().is_some_and(|members| !members.contains(node))
    }

    /// Returns the role that counts for a node whose certificate, issued at `issued`, says
    /// `certified`.
    #[must_use]
    pub fn role_of(&self, node: &NodeId, certified: Role, issued: Date) -> Role {
        let ended = |since: &Date| issued <= *since;
        if self.managers.contains(node) || !self.demoted.get(node).is_some_and(ended) {
            certified
        } else {
            Role::Worker
        }
    }

    /// Tells whether a manager whose certificate ended at `not_after` may take part in the
    /// consensus group all the same.
    ///
    /// Managers that were all off past the lives of their certificates could otherwise never agree
    /// on anything again, new certificates included. What is excused is only the date: the key must
    /// be proved, the signature must be right, and the state must know the node as a manager.
    #[must_use]
    pub fn excuses(&self, node: &NodeId, not_after: Date, now: Date) -> bool {
        self.managers.contains(node) && now <= not_after + self.grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Date = Date::from_unix_seconds(1_795_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_managers_certificate_of_before_its_demotion_counts_as_a_workers() {
        let (manager, demoted, unknown) =
            (NodeId::from_bits(1), NodeId::from_bits(2), NodeId::from_bits(3));
        let roster = Roster {
            managers: [manager.clone()].into(),
            demoted: [(manager.clone(), NOW), (demoted.clone(), NOW)].into(),
            ..Roster::default()
        };
        let role = |node, issued| roster.role_of(node, Role::Manager, issued);
        assert_eq!(role(&manager, NOW - DAY), Role::Manager);
        assert_eq!(role(&unknown, NOW - DAY), Role::Manager);
        assert_eq!(role(&demoted, NOW - DAY), Role::Worker);
        assert_eq!(role(&demoted, NOW), Role::Worker);
        assert_eq!(role(&demoted, NOW + DAY), Role::Manager, "this state is behind");
        assert_eq!(roster.role_of(&unknown, Role::Worker, NOW), Role::Worker);
    }

    #[test]
    fn only_a_known_manager_is_excused_and_only_within_the_grace() {
        let (manager, other) = (NodeId::from_bits(1), NodeId::from_bits(2));
        let managers = [manager.clone()].into();
        let roster = Roster { managers, grace: 10 * DAY, ..Roster::default() };
        assert!(roster.excuses(&manager, NOW, NOW + 10 * DAY));
        assert!(!roster.excuses(&manager, NOW, NOW + 10 * DAY + Duration::from_secs(1)));
        assert!(!roster.excuses(&other, NOW, NOW + DAY));
    }
}
