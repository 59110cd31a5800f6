//! The manager loop: owns the cluster's state and, while this member leads, the leader.
//!
//! Knows the order of things: what is committed is applied before the log goes on; the leader is
//! stepped with the state as of that entry; one proposal is under way at a time; reads wait for
//! the barrier outside of the loop. It takes no decision about the cluster.
//!
//! An entry that cannot be decoded ends the node. It is committed, so it is part of the history
//! that every manager shares: a member that skipped it would go on with a state that differs from
//! the others', and hand that out as snapshots and assignments. A member that stops does no harm,
//! and a newer binary reads what an older one could not.

mod disk;
mod effects;
mod group;
mod requests;
#[cfg(test)]
mod tests;

use super::{
    Ended,
    handle::{ManagerCall, Shared},
    ports::{Authority, Host, Log, Peers},
    wait,
};
use crate::{
    cluster::{
        self, Applied, Change, Class, Command, Event, Leader, Refusal, Response, State, Ticket,
        occurrences::{self, Before},
    },
    consensus::{Approach, Committed, Leadership, Notice, ProposeError, SNAPSHOT_MAX},
    types::{FromWorker, Moment, NodeId, Occurrence, Roster, Version},
    util::board::Board,
};
use async_channel::{Receiver, Sender};
use requests::{Requests, Waiting, answer};
use std::{sync::Arc, time::Duration};

/// How many messages are taken in one turn before the leader's deadlines are looked at again: a
/// step is microseconds to a millisecond, so a turn stays far below a heartbeat.
const DRAIN_MAX: usize = 128;

/// How many operations of the loop can be telling it their end at once. They wait for room.
const NEWS_MAX: usize = 64;

/// The time a proposal may take: an SD card stalls for seconds when it collects garbage, and a
/// user who waits gives up soon after.
const PROPOSE_LIMIT: Duration = Duration::from_secs(10);

/// The time a read barrier may take. With one voter it is a look at memory; with several a round
/// trip over a slow link.
const BARRIER_LIMIT: Duration = Duration::from_secs(5);

/// The time a signature may take: it is milliseconds of CPU on the slowest board.
const SIGN_LIMIT: Duration = Duration::from_secs(10);

/// From how long a gap on the loop counts as a stall: half the time in which a node is declared
/// Down by default is far beyond any healthy turn.
const STALL_MIN: Duration = Duration::from_secs(2);

/// The least time between two ticks: a deadline that a step does not move must not become a loop.
const TICK_FLOOR: Duration = Duration::from_millis(10);

/// The loop's ends of its channels.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) calls: Receiver<ManagerCall>,
    pub(super) inputs: Receiver<Input>,
    /// Closed when the node ends.
    pub(super) stop: Receiver<()>,
}

/// What the loop is told.
#[derive(Debug)]
pub(super) struct Context {
    /// This manager's key in the consensus group.
    pub(super) member: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) occurrences: Board<Occurrence>,
}

/// What a node said.
#[derive(Debug)]
pub(super) enum Input {
    Message { node: NodeId, address: String, via: Option<NodeId>, message: FromWorker },
    Gone { node: NodeId },
}

/// What came of an operation of the loop's own.
#[derive(Debug)]
enum News {
    Proposed { number: u64, result: Result<u64, ProposeError> },
    Barrier { ticket: Ticket, result: Result<(), ProposeError> },
    Relayed { ticket: Ticket, attempt: u32, result: Result<Response, Refusal> },
    Group(Result<Approach, ProposeError>),
}

#[derive(Debug)]
enum Wake {
    Stop,
    Notice(Notice),
    News(News),
    Input(Input),
    Call(ManagerCall),
    Deadline,
    /// The consensus engine is gone.
    Closed,
}

/// A cluster that is to be made.
#[derive(Debug)]
struct Bootstrap {
    command: Command,
    deadline: Moment,
    reply: Sender<Result<Applied, Refusal>>,
    proposed: bool,
}

/// The proposal under way, and the one that waits for it: a leader knows only of its own, but its
/// predecessor in this process may have left one.
#[derive(Debug, Default)]
struct Proposals {
    last: u64,
    under_way: Option<u64>,
    next: Option<Vec<Command>>,
}

struct Manager<H, L, P, A> {
    host: H,
    log: L,
    peers: P,
    authority: A,
    shared: Arc<Shared>,
    member: u64,
    occurrences: Board<Occurrence>,
    state: State,
    /// What the peers' side was told of it.
    roster: Roster,
    leadership: Leadership,
    /// The term of the last leader that was derived here.
    led: Option<u64>,
    /// The member that led last: between two leaders there is none.
    last_leader: Option<u64>,
    leader: Option<Leader>,
    requests: Requests,
    bootstrap: Option<Bootstrap>,
    proposals: Proposals,
    disk: disk::Disk,
    group: group::Group,
    last_tick: Moment,
    /// How long messages have been waiting without a pause.
    backlog: Duration,
    news: Sender<News>,
}

/// Runs the loop until the node ends.
pub(super) async fn run<H: Host, L: Log, P: Peers, A: Authority>(
    host: H,
    log: L,
    peers: P,
    authority: A,
    context: Context,
    channels: Channels,
) -> Ended {
    let notices = log.notices();
    let (news_tx, news) = async_channel::bounded(NEWS_MAX);
    let mut manager = Manager {
        last_tick: host.now(),
        backlog: Duration::ZERO,
        host,
        log,
        peers,
        authority,
        shared: context.shared,
        member: context.member,
        occurrences: context.occurrences,
        state: State::default(),
        roster: Roster::default(),
        leadership: Leadership::default(),
        led: None,
        last_leader: None,
        leader: None,
        requests: Requests::default(),
        bootstrap: None,
        proposals: Proposals::default(),
        disk: disk::Disk::default(),
        group: group::Group::default(),
        news: news_tx,
    };
    manager.point_at_leader();
    let ended = manager.drive(&channels, &notices, &news).await;
    manager.requests.refuse_all(&unavailable("the node is shutting down"));
    ended
}

impl<H: Host, L: Log, P: Peers, A: Authority> Manager<H, L, P, A> {
    async fn drive(
        &mut self,
        channels: &Channels,
        notices: &Receiver<Notice>,
        news: &Receiver<News>,
    ) -> Ended {
        let mut slept = self.host.now();
        loop {
            // A turn that took this long heard nobody either.
            let busy = self.host.now().since(slept);
            // Nor did one that leaves messages waiting: heartbeats may be among them, or have been
            // dropped for want of room.
            self.backlog =
                if channels.inputs.is_empty() { Duration::ZERO } else { busy + self.backlog };
            if busy >= STALL_MIN || (!self.backlog.is_zero() && !busy.is_zero()) {
                self.stalled(busy);
            }
            let since = self.host.now();
            let deadline = self.next_deadline();
            let wake = self.wait(channels, notices, news, deadline).await;
            slept = self.host.now();
            if deadline.is_some_and(|deadline| slept.since(deadline) >= STALL_MIN) {
                self.stalled(slept.since(since));
            }
            if let Some(ended) = self.turn(wake, channels, notices, news) {
                return ended;
            }
        }
    }

    /// Waits for the first of everything that can happen.
    async fn wait(
        &self,
        channels: &Channels,
        notices: &Receiver<Notice>,
        news: &Receiver<News>,
        deadline: Option<Moment>,
    ) -> Wake {
        use futures_lite::future::or;
        let stop = async {
            let _closed = channels.stop.recv().await;
            Wake::Stop
        };
        let notice = async { notices.recv().await.map_or(Wake::Closed, Wake::Notice) };
        // The sender of news lives in `self`; calls and inputs end only with the node.
        let news = async { news.recv().await.map_or(Wake::Stop, Wake::News) };
        let call = async { channels.calls.recv().await.map_or(Wake::Stop, Wake::Call) };
        let input = async { channels.inputs.recv().await.map_or(Wake::Stop, Wake::Input) };
        let late = async {
            wait::until(&self.host, deadline).await;
            Wake::Deadline
        };
        or(stop, or(notice, or(news, or(call, or(input, late))))).await
    }

    /// Handles what woke the loop and what else is ready, up to a bound.
    fn turn(
        &mut self,
        wake: Wake,
        channels: &Channels,
        notices: &Receiver<Notice>,
        news: &Receiver<News>,
    ) -> Option<Ended> {
        let mut next = Some(wake);
        for _ in 0..DRAIN_MAX {
            let Some(wake) = next else { break };
            if let Some(ended) = self.handle(wake) {
                return Some(ended);
            }
            next = None
                .or_else(|| notices.try_recv().ok().map(Wake::Notice))
                .or_else(|| news.try_recv().ok().map(Wake::News))
                .or_else(|| channels.calls.try_recv().ok().map(Wake::Call))
                .or_else(|| channels.inputs.try_recv().ok().map(Wake::Input));
        }
        // The bound was hit: what was taken out already must not be lost.
        if let Some(ended) = next.and_then(|wake| self.handle(wake)) {
            return Some(ended);
        }
        self.tick();
        None
    }

    fn handle(&mut self, wake: Wake) -> Option<Ended> {
        match wake {
            Wake::Stop => return Some(Ended::Stopped),
            Wake::Closed => {
                let error = "the consensus engine ended".to_owned();
                return Some(Ended::Fatal { error });
            }
            Wake::Notice(notice) => return self.take_notice(notice),
            Wake::News(News::Proposed { number, result }) => self.proposed(number, result),
            Wake::News(News::Barrier { ticket, result }) => self.barrier_passed(ticket, result),
            Wake::News(News::Relayed { ticket, attempt, result }) => {
                self.relayed(ticket, attempt, result);
            }
            Wake::News(News::Group(result)) => self.group_moved(result),
            Wake::Call(call) => self.take_call(call),
            Wake::Input(Input::Message { node, address, via, message }) => {
                self.step(Event::Message { node, address, via, message });
            }
            Wake::Input(Input::Gone { node }) => self.step(Event::Disconnected { node }),
            Wake::Deadline => {}
        }
        None
    }

    fn take_notice(&mut self, notice: Notice) -> Option<Ended> {
        match notice {
            Notice::Apply { entries, done } => {
                for entry in entries {
                    if let Err(error) = self.apply(entry) {
                        return Some(Ended::Fatal { error });
                    }
                }
                answer(&done, ());
            }
            Notice::Snapshot { reply } => {
                let bytes = self.state.encode_snapshot();
                let outgrown = outgrown(bytes.len());
                self.shared.set(|status| status.log_health = outgrown);
                answer(&reply, bytes);
            }
            Notice::Install { index, data, done } => match State::decode_snapshot(&data) {
                Ok(state) => {
                    tracing::info!(index, bytes = data.len(), "took over a snapshot");
                    self.state = state;
                    self.follow_options();
                    self.follow_roster();
                    self.state.removed().for_each(|node| self.peers.disconnect(node));
                    self.rebuild();
                    self.point_at_leader();
                    answer(&done, ());
                }
                Err(error) => {
                    let error = format!("cannot read the snapshot up to entry {index}: {error}");
                    return Some(Ended::Fatal { error });
                }
            },
            Notice::Leadership(leadership) => self.lead(leadership),
            Notice::Fatal { error } => return Some(Ended::Fatal { error }),
        }
        None
    }

    fn apply(&mut self, entry: Committed) -> Result<(), String> {
        // The engine's own entries (elections, membership) carry nothing.
        if entry.data.is_empty() {
            return Ok(());
        }
        let version = Version { epoch: self.state.epoch(), index: entry.index };
        let commands = cluster::decode_entry(&entry.data)
            .map_err(|error| format!("cannot read log entry {}: {error}", entry.index))?;
        let apply = |command: Command| {
            let before = Before::of(&self.state, &command);
            let outcome = self.state.apply(version, entry.term, &command);
            if outcome.is_ok()
                && let Change::RemoveNode { id, .. } = &command.change
            {
                self.peers.disconnect(id);
            }
            if let Some(occurrence) = before.occurrence(&self.state) {
                self.occurrences.post(occurrence);
            }
            (command, outcome)
        };
        let outcomes: Vec<_> = commands.into_iter().map(apply).collect();
        self.follow_options();
        if outcomes.iter().any(|(command, _)| !command.change.is_about_services()) {
            self.follow_roster();
        }
        self.answer_bootstrap(&outcomes);
        if self.leader.is_some() {
            self.step(Event::Applied { version, outcomes });
        } else {
            // A cluster that was just made has its leader from here on.
            self.begin_leading();
        }
        self.point_at_leader();
        Ok(())
    }

    /// Tells the log what the cluster's options, as of now, say of it.
    fn follow_options(&self) {
        if let Some(cluster) = self.state.cluster() {
            self.log.set_snapshot_interval(cluster.spec.snapshot_interval);
            self.log.set_election_timeout(cluster.version, cluster.spec.election_timeout);
            self.log.set_unlock_key(cluster.version, cluster.unlock_key);
        }
    }

    /// Tells the peers' side who is a manager, where that changed.
    fn follow_roster(&mut self) {
        let roster = self.state.roster();
        let as_of = std::mem::replace(&mut self.roster.as_of, roster.as_of);
        if roster == self.roster {
            self.roster.as_of = as_of;
        } else {
            self.roster = roster.clone();
            self.peers.set_roster(roster);
        }
    }

    /// Takes over a change of leadership.
    fn lead(&mut self, leadership: Leadership) {
        let before = std::mem::replace(&mut self.leadership, leadership);
        self.shared.set(|status| {
            status.leading = leadership.leading;
            status.term = leadership.term;
        });
        if let Some(leader) = leadership.leader {
            let date = self.host.date();
            let last = self.last_leader.replace(leader);
            for told in occurrences::leadership(&self.state, last, leader, date) {
                self.occurrences.post(told);
            }
        }
        if !leadership.leading {
            if before.leading {
                tracing::warn!(term = leadership.term, "this manager no longer leads");
            }
            self.drop_leader();
        }
        if !leadership.leading || before.term != leadership.term {
            self.end_cut_off();
        }
        self.point_at_leader();
        if leadership.leading && (!before.leading || before.term != leadership.term) {
            tracing::info!(term = leadership.term, "this manager leads");
            self.rebuild();
            self.propose_bootstrap();
        }
    }

    /// Throws the leader away, with what it wanted to propose.
    fn drop_leader(&mut self) {
        self.leader = None;
        self.proposals.next = None;
    }

    /// Throws the leader away, and derives it anew where this member leads.
    fn rebuild(&mut self) {
        if self.leader.take().is_some() {
            self.proposals.next = None;
            self.requests.take_back();
        }
        self.begin_leading();
    }

    /// Derives the leader where this member leads a cluster, and gives it what waited for it.
    fn begin_leading(&mut self) {
        if !self.leadership.leading || self.leader.is_some() || self.state.cluster().is_none() {
            return;
        }
        if self.has_fallen_out() {
            return;
        }
        let (now, date, seed) = (self.host.now(), self.host.date(), self.host.random());
        let term = self.leadership.term;
        let again = self.led.replace(term) == Some(term);
        let (leader, effects) = Leader::new(&self.state, now, date, (term, again), seed);
        self.leader = Some(leader);
        self.carry_out(effects);
        self.forward_held();
    }

    fn step(&mut self, event: Event) {
        let Some(leader) = &mut self.leader else { return };
        let effects = leader.step(&self.state, self.host.now(), self.host.date(), event);
        self.carry_out(effects);
    }

    fn stalled(&mut self, wait: Duration) {
        // Once for each time that it is held up, however many turns that takes.
        let before = self.backlog.saturating_sub(wait);
        if wait.max(self.backlog) >= STALL_MIN && before < STALL_MIN {
            tracing::warn!(?wait, "this manager was held up: nobody is declared lost for it");
        }
        self.step(Event::Stalled { wait });
    }

    fn next_deadline(&self) -> Option<Moment> {
        let floor = self.last_tick + TICK_FLOOR;
        let leader = self.leader.as_ref().and_then(Leader::next_deadline);
        let bootstrap = self.bootstrap.as_ref().map(|bootstrap| bootstrap.deadline);
        let ours = wait::earlier(self.requests.next_deadline(), bootstrap);
        let ours = wait::earlier(ours, self.disk.deadline());
        let ours = wait::earlier(ours, self.group.deadline());
        wait::earlier(leader.map(|deadline| deadline.max(floor)), ours)
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now = self.host.now();
        self.look_at_disk();
        self.look_at_group();
        self.requests.expire(now, &unavailable("no answer in time; try again"));
        if self.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.deadline <= now)
            && let Some(bootstrap) = self.bootstrap.take()
        {
            let text = "the cluster could not be made in time: the log has no leader";
            answer(&bootstrap.reply, Err(unavailable(text)));
        }
        let due = self.leader.as_ref().and_then(Leader::next_deadline);
        if due.is_some_and(|due| due <= now) && self.last_tick + TICK_FLOOR <= now {
            self.last_tick = now;
            self.step(Event::Tick);
        }
    }
}

/// Says that the state is too large for a snapshot, where it is.
fn outgrown(bytes: usize) -> Option<String> {
    let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
    (bytes > SNAPSHOT_MAX).then(|| {
        format!(
            "the cluster's state has {} MiB, and a snapshot holds {}: until there is less, the log of \
             this manager grows, and it cannot be backed up",
            mebibytes(bytes),
            mebibytes(SNAPSHOT_MAX)
        )
    })
}

fn unavailable(text: &str) -> Refusal {
    Refusal::new(Class::Unavailable, text)
}
