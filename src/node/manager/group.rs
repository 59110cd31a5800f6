//! This manager among the managers: where the leader is, who is asked for what, and the way from
//! the group there is to the one that is wanted.
//!
//! Nothing here waits: what takes time runs beside the loop and tells it the end.

use super::{BARRIER_LIMIT, Manager, News, PROPOSE_LIMIT, unavailable};
use crate::{
    cluster::{Class, Event, Refusal, Response, Ticket},
    consensus::{Approach, ProposeError},
    node::{
        ports::{Authority, Host, Log, Peers},
        wait,
    },
    types::{LeaderAt, Moment, NodeId},
};
use std::{collections::BTreeMap, time::Duration};

/// The wait before a step that could not be taken is tried again: a member that catches up does so
/// within some round trips.
const STEP_RETRY: Duration = Duration::from_millis(200);

/// The wait before a step that failed is tried again: a member that cannot be reached holds one up
/// for as long as a proposal takes.
const FAILED_RETRY: Duration = Duration::from_secs(1);

/// The wait before the leader is asked again by a manager that was told that it does not lead:
/// both know within a heartbeat or two who does.
const RELAY_RETRY: Duration = Duration::from_millis(50);

/// How long an election may take before whoever waits is told that there is no leader: several of
/// them, over a slow link. As Swarm's.
const NO_LEADER_LIMIT: Duration = Duration::from_secs(10);

/// From when on too few managers answer the one that leads: several of their heartbeats.
const NO_QUORUM_LIMIT: Duration = Duration::from_secs(5);

/// How often that is looked at while somebody waits.
const QUORUM_LOOK: Duration = Duration::from_secs(1);

/// Docker's words.
pub(super) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are \
                         online. Make sure more than half of the managers are online.";

/// What is known of the managers.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Where the leader was last said to be, and which node it is.
    leader: LeaderAt,
    node: Option<NodeId>,
    /// Since when nobody leads.
    headless: Option<Moment>,
    /// When to look whether enough managers answer this one, while it leads and somebody waits, or
    /// while it is cut off.
    quorum_at: Option<Moment>,
    /// Whether this one leads as far as the engine knows, and too few managers answer it.
    cut_off: bool,
    /// The group that is to be, until it is.
    wanted: Option<BTreeMap<u64, String>>,
    under_way: bool,
    step_at: Option<Moment>,
    relay_at: Option<Moment>,
    /// Closed when another manager leads that this one made way for, or the attempt was given up.
    handing_over: Option<async_channel::Receiver<()>>,
}

impl Group {
    pub(super) fn deadline(&self) -> Option<Moment> {
        let headless = self.headless.map(|since| since + NO_LEADER_LIMIT);
        let ours = wait::earlier(wait::earlier(self.step_at, self.relay_at), self.quorum_at);
        wait::earlier(headless, ours)
    }
}

impl<H: Host, L: Log, P: Peers, A: Authority> Manager<H, L, P, A> {
    /// Says where the leader is, where that changed.
    pub(super) fn point_at_leader(&mut self) {
        let leads = |node: &&crate::types::Node| {
            let member = node.manager.as_ref().map(|manager| manager.raft_id);
            member.is_some() && member == self.leadership.leader
        };
        let row = self.state.nodes().find(leads);
        let node = row.map(|node| node.id.clone());
        let at = match (self.leadership.leading, self.leadership.leader, row) {
            (true, ..) if !self.has_fallen_out() => LeaderAt::Here,
            (false, Some(member), Some(row)) if member != self.member => {
                let address = row.manager.as_ref().map(|manager| manager.address.clone());
                address.map_or(LeaderAt::Nowhere, LeaderAt::There)
            }
            _ => LeaderAt::Nowhere,
        };
        if at == LeaderAt::Nowhere {
            let now = self.host.now();
            self.group.headless.get_or_insert(now);
        } else {
            self.group.headless = None;
        }
        // This one may lead before the entry is applied that makes the cluster.
        if self.group.node != node {
            self.group.node.clone_from(&node);
            self.shared.set(|status| status.leader = node);
        }
        if self.group.leader == at {
            return;
        }
        self.group.leader = at.clone();
        self.peers.set_leader(at);
        self.requests.take_back();
        self.forward_held();
    }

    /// Gives what nobody has to whoever leads.
    pub(super) fn forward_held(&mut self) {
        for ticket in self.requests.held() {
            self.forward(ticket);
        }
    }

    /// Looks again in a moment who leads, and gives that one what nobody has.
    pub(super) fn forward_soon(&mut self) {
        let soon = self.host.now() + RELAY_RETRY;
        self.group.relay_at.get_or_insert(soon);
    }

    /// Gives a request to whoever leads; it waits where nobody does.
    pub(super) fn forward(&mut self, ticket: Ticket) {
        if self.leader.is_some() {
            self.pass_on(ticket);
            return;
        }
        let LeaderAt::There(_) = self.group.leader else { return };
        let Some(deadline) = self.requests.deadline_of(ticket) else { return };
        let Some((request, attempt)) = self.requests.send_away(ticket) else { return };
        let limit = deadline.since(self.host.now());
        let (host, peers, news) = (self.host.clone(), self.peers.clone(), self.news.clone());
        self.host.spawn(async move {
            let relayed = wait::within(&host, limit, peers.relay(request, limit)).await;
            let late = || Err(unavailable("the leader did not answer in time; try again"));
            let result = relayed.unwrap_or_else(late);
            let _ended = news.send(News::Relayed { ticket, attempt, result }).await;
        });
    }

    pub(super) fn relayed(
        &mut self,
        ticket: Ticket,
        attempt: u32,
        result: Result<Response, Refusal>,
    ) {
        if result.as_ref().is_err_and(|refusal| refusal.class == Class::NotLeader) {
            let since = self.requests.sent_back(ticket, attempt);
            // A leader that was lost with the majority is known as one until there is another.
            if since.is_some_and(|since| self.host.now().since(since) >= NO_LEADER_LIMIT) {
                self.requests.refuse(ticket, unavailable(NO_LEADER));
            }
            self.forward_soon();
        } else if let Some(waiting) = self.requests.take(ticket) {
            super::answer(&waiting.reply, result);
        }
    }

    /// Takes over which group is wanted.
    pub(super) fn set_group(&mut self, wanted: BTreeMap<u64, String>) {
        self.group.wanted = Some(wanted);
        self.group.step_at = None;
        self.approach_group();
    }

    /// Takes the next step towards the group that is wanted.
    fn approach_group(&mut self) {
        if !self.leadership.leading {
            self.group.wanted = None;
        }
        let Some(wanted) = self.group.wanted.clone().filter(|_| !self.group.under_way) else {
            return;
        };
        self.group.under_way = true;
        self.group.step_at = None;
        let (host, log, news) = (self.host.clone(), self.log.clone(), self.news.clone());
        self.host.spawn(async move {
            let step = log.approach(wanted, PROPOSE_LIMIT);
            let result = wait::within(&host, PROPOSE_LIMIT * 2, step).await;
            let result = result.unwrap_or_else(|| Err(ProposeError::Timeout(PROPOSE_LIMIT * 2)));
            let _ended = news.send(News::Group(result)).await;
        });
    }

    pub(super) fn group_moved(&mut self, result: Result<Approach, ProposeError>) {
        self.group.under_way = false;
        let now = self.host.now();
        match result {
            Ok(Approach::Nearer) => {
                tracing::info!(members = self.log.members().len(), "the group of managers changed");
                self.step(Event::Group { members: self.log.members() });
                self.approach_group();
            }
            Ok(Approach::There) => {
                self.group.wanted = None;
                self.step(Event::Group { members: self.log.members() });
            }
            Ok(Approach::Waits) => self.group.step_at = Some(now + STEP_RETRY),
            Err(error) => {
                tracing::warn!(%error, "the group of managers is not as it should be yet");
                self.group.step_at = Some(now + FAILED_RETRY);
            }
        }
    }

    /// Does what is due.
    pub(super) fn look_at_group(&mut self) {
        let now = self.host.now();
        if self.group.step_at.is_some_and(|at| at <= now) {
            self.group.step_at = None;
            self.approach_group();
        }
        if self.group.relay_at.is_some_and(|at| at <= now) {
            self.group.relay_at = None;
            self.forward_held();
        }
        if self.group.headless.is_some_and(|since| now.since(since) >= NO_LEADER_LIMIT) {
            self.group.headless = Some(now);
            self.requests.refuse_held(&unavailable(NO_LEADER));
        }
        if self.group.quorum_at.is_some_and(|at| at <= now) {
            self.look_for_quorum(now);
        }
    }

    /// Somebody waits for what this one can only do with more than half of the managers.
    pub(super) fn expect_quorum(&mut self) {
        let at = self.host.now() + QUORUM_LOOK;
        self.group.quorum_at.get_or_insert(at);
    }

    /// Tells whether this one leads and too few managers have answered it for long.
    pub(super) fn lacks_quorum(&self) -> bool {
        self.log.without_quorum().is_some_and(|time| time >= NO_QUORUM_LIMIT)
    }

    /// Tells whether the other managers have to do without this one, whatever its engine says.
    pub(super) fn has_fallen_out(&self) -> bool {
        (self.disk.is_stuck() || self.group.cut_off) && !self.log.votes_alone()
    }

    /// A change was not committed, since too few managers answer. Nothing comes of anything that is
    /// decided here from now on, and the others may have another leader, or other roots: nodes that
    /// have a session here look for that one, or do without a manager, this node among them.
    pub(super) fn note_cut_off(&mut self) {
        let now = self.host.now();
        self.requests.refuse_since(now - NO_LEADER_LIMIT, &unavailable(NO_LEADER));
        self.group.cut_off = true;
        self.group.quorum_at = Some(now + QUORUM_LOOK);
        self.drop_leader();
        self.point_at_leader();
    }

    pub(super) fn end_cut_off(&mut self) {
        if std::mem::take(&mut self.group.cut_off) && !self.disk.is_stuck() {
            self.shared.set(|status| status.manager_health = None);
        }
    }

    fn look_for_quorum(&mut self, now: Moment) {
        let lacks = self.lacks_quorum();
        if self.group.cut_off && !lacks {
            tracing::info!("enough managers answer again");
            self.end_cut_off();
            self.point_at_leader();
            self.begin_leading();
        }
        let waits = self.leader.is_some() && !self.requests.is_empty();
        self.group.quorum_at = (waits || self.group.cut_off).then(|| now + QUORUM_LOOK);
        if waits && lacks {
            let refusal = unavailable(NO_LEADER);
            self.requests.refuse_since(now - NO_LEADER_LIMIT, &refusal);
        }
    }

    /// Lets another manager lead, where there is one that could; does nothing while that is under
    /// way.
    pub(super) fn step_down(&mut self) {
        let under_way = self.group.handing_over.as_ref().is_some_and(|over| !over.is_closed());
        if under_way || self.log.votes_alone() {
            return;
        }
        let (ends, over) = async_channel::bounded::<()>(1);
        self.group.handing_over = Some(over);
        let log = self.log.clone();
        self.host.spawn(async move {
            log.hand_over(BARRIER_LIMIT).await;
            drop(ends);
        });
    }
}
