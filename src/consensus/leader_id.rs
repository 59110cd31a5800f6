//! Who leads, as votes and log entries name it: one member a term.
//!
//! openraft's own that is written alike lets one leader follow another in the same term, by the
//! order of their keys. But the term is how everything outside tells one leader from the next:
//! commands of an older term are rejected, and a worker takes the assignments with the higher
//! numbers of one term for the newer ones.

use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt};

/// A candidate or a leader. Of two in one term neither comes after the other, so that who voted
/// for one in a term votes for no other in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaderId {
    pub(super) term: u64,
    pub(super) node_id: u64,
}

/// A leader that a majority voted for: there is one a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Elected {
    pub(super) term: u64,
    node_id: u64,
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

impl fmt::Display for Elected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

impl PartialOrd for LeaderId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.term.cmp(&other.term) {
            Ordering::Equal if self.node_id != other.node_id => None,
            order => Some(order),
        }
    }
}

impl PartialEq<Elected> for LeaderId {
    /// A candidate is not yet who it would be once elected.
    fn eq(&self, _: &Elected) -> bool {
        false
    }
}

impl PartialOrd<Elected> for LeaderId {
    fn partial_cmp(&self, other: &Elected) -> Option<Ordering> {
        match self.term.cmp(&other.term) {
            // Whoever is elected comes after every candidate of the term.
            Ordering::Equal => Some(Ordering::Less),
            order => Some(order),
        }
    }
}

impl openraft::vote::RaftLeaderId for LeaderId {
    type Term = u64;
    type NodeId = u64;
    type Committed = Elected;

    fn new(term: u64, node_id: u64) -> Self {
        Self { term, node_id }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn node_id(&self) -> &u64 {
        &self.node_id
    }

    fn to_committed(&self) -> Elected {
        Elected { term: self.term, node_id: self.node_id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{impls::leader_id_adv, vote::RaftLeaderId as _};

    #[test]
    fn a_term_has_one_leader() {
        let id = LeaderId::new;
        assert!(id(1, 9) < id(2, 1));
        assert_eq!(id(2, 1).partial_cmp(&id(2, 2)), None);
        assert!(id(2, 9) < id(2, 1).to_committed());
        assert!(id(3, 1) > id(2, 9).to_committed());
    }

    #[test]
    fn it_is_written_as_ever() {
        let written = postcard::to_allocvec(&leader_id_adv::LeaderId::<u64, u64>::new(7, 1 << 62));
        let written = written.unwrap();
        assert_eq!(postcard::to_allocvec(&LeaderId::new(7, 1 << 62)).unwrap(), written);
        let elected = LeaderId::new(7, 1 << 62).to_committed();
        assert_eq!(postcard::to_allocvec(&elected).unwrap(), written);
    }
}
