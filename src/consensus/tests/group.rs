//! Elections, fail-over, healing, restarts, and the same run twice.

use super::memory::Memory;
use crate::{
    consensus::{
        Approach, Committed, Consensus, ENTRY_MAX, Leadership, LogStore, Notice, PeerCall,
        ProposeError, Settings, SnapshotInterval, make_alone, make_from_snapshot,
    },
    sim::{
        executor::{Executor, Latency},
        on_sim::OnSim,
    },
};
use openraft_rt::AsyncRuntime as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(5);

/// A member's driver is owned beside it, so that it can end alone.
const DRIVERS: u64 = 100;

/// What one member's driver holds.
#[derive(Debug, Default)]
struct Driven {
    applied: Vec<Committed>,
    leadership: Leadership,
    installs: u64,
    snapshots: u64,
    fatal: Option<String>,
}

#[derive(Debug, Default)]
struct Links {
    members: BTreeMap<u64, Consensus<OnSim>>,
    cut: BTreeSet<u64>,
    /// Who is heard and hears nothing.
    deaf: BTreeSet<u64>,
    /// Where those are reached that moved.
    moved: BTreeMap<u64, String>,
    /// How many bytes a second reach a member over a slow link.
    slow: BTreeMap<u64, u64>,
    calls: u64,
    bytes: u64,
}

/// A network that delivers at once, but for those that are cut off.
#[derive(Debug, Clone)]
struct Net {
    from: u64,
    links: Arc<Mutex<Links>>,
}

impl PeerCall for Net {
    fn call(
        &self,
        target: u64,
        address: String,
        request: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>> {
        let (links, from) = (Arc::clone(&self.links), self.from);
        Box::pin(async move {
            let slow = links.lock().unwrap().slow.get(&target).copied();
            if let Some(rate) = slow {
                let micros = request.len() as u64 * 1_000_000 / rate;
                OnSim::sleep(Duration::from_micros(micros)).await;
            }
            let member = {
                let mut links = links.lock().unwrap();
                links.calls += 1;
                links.bytes += request.len() as u64;
                let away = links.moved.get(&target).is_some_and(|at| *at != address);
                let deaf = links.deaf.contains(&target) || away;
                if links.cut.contains(&from) || links.cut.contains(&target) || deaf {
                    return Err(io::ErrorKind::HostUnreachable.into());
                }
                links.members.get(&target).cloned()
            };
            let member = member.ok_or(io::ErrorKind::ConnectionRefused)?;
            let answer = member.handle(&request).await?;
            let (cut, deaf) = {
                let links = links.lock().unwrap();
                (links.cut.contains(&from), links.deaf.contains(&from))
            };
            if cut || deaf {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            Ok(answer)
        })
    }
}

/// Opens the log of one member.
pub(crate) type Open = Box<dyn Fn(u64) -> Arc<dyn LogStore>>;

pub(crate) struct Group {
    pub(crate) executor: Executor,
    links: Arc<Mutex<Links>>,
    disks: BTreeMap<u64, Arc<Memory>>,
    /// Opens a member's disk; the memory above, where absent.
    open: Option<Open>,
    driven: BTreeMap<u64, Arc<Mutex<Driven>>>,
    snapshot_interval: SnapshotInterval,
}

impl Group {
    pub(crate) fn new(seed: u64, members: u64) -> Self {
        Self::with(seed, members, None)
    }

    pub(crate) fn with(seed: u64, members: u64, open: Option<Open>) -> Self {
        let mut group = Self {
            executor: Executor::new(seed),
            links: Arc::default(),
            disks: (1..=members).map(|id| (id, Arc::default())).collect(),
            open,
            driven: BTreeMap::new(),
            snapshot_interval: SnapshotInterval::new(10_000),
        };
        for id in 1..=members {
            group.start(id);
        }
        group
    }

    /// Runs until `done`, and returns whether that came to pass within `limit`.
    pub(crate) fn run(&self, limit: Duration, done: impl FnMut() -> bool) -> bool {
        self.executor.run(self.executor.now() + limit, done)
    }

    fn block_on<T: Send + 'static>(
        &self,
        id: u64,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.executor.block_on(id, Duration::from_secs(600), future)
    }

    pub(crate) fn start(&mut self, id: u64) {
        let driven: Arc<Mutex<Driven>> = Arc::default();
        self.driven.insert(id, Arc::clone(&driven));
        let channel = Consensus::<OnSim>::channel();
        let notices = channel.1.clone();
        self.executor.spawn_for(DRIVERS + id, drive(notices, driven));
        let settings = Settings {
            id,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(300),
            snapshot_interval: self.snapshot_interval.clone(),
        };
        let net = Arc::new(Net { from: id, links: Arc::clone(&self.links) });
        let disk: Arc<dyn LogStore> = match &self.open {
            Some(open) => open(id),
            None => Arc::clone(&self.disks[&id]) as Arc<dyn LogStore>,
        };
        let started =
            self.block_on(id, async move { Consensus::start(&settings, disk, net, channel).await });
        self.links.lock().unwrap().members.insert(id, started.unwrap());
    }

    /// Whether a member is of no use until it is started again.
    pub(crate) fn failed(&self, id: u64) -> bool {
        self.driven[&id].lock().unwrap().fatal.is_some()
    }

    pub(crate) fn crash(&self, id: u64) {
        let member = self.links.lock().unwrap().members.remove(&id);
        self.executor.kill(id);
        self.executor.kill(DRIVERS + id);
        drop(member);
    }

    fn member(&self, id: u64) -> Consensus<OnSim> {
        self.links.lock().unwrap().members[&id].clone()
    }

    pub(crate) fn initialize(&self, id: u64) {
        let member = self.member(id);
        self.block_on(id, async move { member.initialize(format!("member-{id}")).await }).unwrap();
    }

    pub(crate) fn propose(&self, id: u64, data: &[u8]) -> Result<u64, ProposeError> {
        let (member, data) = (self.member(id), data.to_vec());
        self.block_on(id, async move { member.propose(data, LIMIT).await })
    }

    fn barrier(&self, id: u64) -> Result<(), ProposeError> {
        let member = self.member(id);
        self.block_on(id, async move { member.read_barrier(LIMIT).await })
    }

    pub(crate) fn leader_among(&self, ids: &[u64]) -> Option<u64> {
        ids.iter().copied().find(|id| self.driven[id].lock().unwrap().leadership.leading)
    }

    pub(crate) fn elect(&self, ids: &[u64]) -> u64 {
        let found = self.run(Duration::from_secs(60), || self.leader_among(ids).is_some());
        assert!(found, "nobody of {ids:?} leads after a minute");
        self.leader_among(ids).unwrap()
    }

    /// A group of three: one begins and takes the others in.
    fn of_three(seed: u64) -> Self {
        Self::new(seed, 3).grow()
    }

    pub(crate) fn grow(self) -> Self {
        let group = self;
        group.initialize(1);
        group.elect(&[1]);
        group.become_group_of(3);
        group
    }

    /// Has the first member, which leads, make a group of the first so many.
    fn become_group_of(&self, members: u64) {
        let there = (0..100).any(|_| {
            let (member, wanted) = (self.member(1), first(members));
            let step = self.block_on(1, async move { member.approach(&wanted, LIMIT).await });
            let step = step.unwrap();
            if step == Approach::Waits {
                self.run(Duration::from_millis(200), || false);
            }
            step == Approach::There
        });
        assert!(there, "the others do not catch up");
    }

    pub(crate) fn data(&self, id: u64) -> Vec<Vec<u8>> {
        let driven = self.driven[&id].lock().unwrap();
        driven.applied.iter().map(|e| e.data.clone()).filter(|d| !d.is_empty()).collect()
    }

    pub(crate) fn everyone_has(&self, ids: &[u64], count: usize) {
        let reached = self
            .run(Duration::from_secs(60), || ids.iter().all(|id| self.data(*id).len() >= count));
        assert!(reached, "not everyone applied {count} entries");
    }

    fn hash(&self) -> u64 {
        for (id, driven) in &self.driven {
            let driven = driven.lock().unwrap();
            self.executor.record(*id);
            for entry in &driven.applied {
                self.executor.record(entry.index ^ (entry.term << 32));
                entry.data.iter().for_each(|byte| self.executor.record(u64::from(*byte)));
            }
        }
        let links = self.links.lock().unwrap();
        self.executor.record(links.calls);
        self.executor.record(links.bytes);
        self.executor.trace()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Members hold the links that hold them.
        let members = std::mem::take(&mut self.links.lock().unwrap().members);
        for id in members.keys() {
            self.executor.kill(*id);
            self.executor.kill(DRIVERS + id);
        }
        drop(members);
    }
}

/// The first members, each at its address.
fn first(members: u64) -> BTreeMap<u64, String> {
    (1..=members).map(|id| (id, format!("member-{id}"))).collect()
}

/// A driver whose state is the list of what was applied.
async fn drive(notices: async_channel::Receiver<Notice>, driven: Arc<Mutex<Driven>>) {
    while let Ok(notice) = notices.recv().await {
        match notice {
            Notice::Apply { entries, done } => {
                {
                    let mut driven = driven.lock().unwrap();
                    let last = driven.applied.last().map(|e| e.index);
                    if let (Some(last), Some(first)) = (last, entries.first()) {
                        assert_eq!(first.index, last + 1, "entries come in order, once");
                    }
                    driven.applied.extend(entries);
                }
                done.send(()).await.ok();
            }
            Notice::Snapshot { reply } => {
                let bytes = {
                    let mut driven = driven.lock().unwrap();
                    driven.snapshots += 1;
                    let state: Vec<_> =
                        driven.applied.iter().map(|e| (e.index, e.term, e.data.clone())).collect();
                    postcard::to_stdvec(&state).unwrap()
                };
                reply.send(bytes).await.ok();
            }
            Notice::Install { index, data, done } => {
                {
                    let state: Vec<(u64, u64, Vec<u8>)> = postcard::from_bytes(&data).unwrap();
                    let mut driven = driven.lock().unwrap();
                    driven.installs += 1;
                    driven.applied = state
                        .into_iter()
                        .map(|(index, term, data)| Committed { index, term, data })
                        .collect();
                    assert_eq!(driven.applied.last().map(|e| e.index), Some(index));
                }
                done.send(()).await.ok();
            }
            Notice::Leadership(leadership) => driven.lock().unwrap().leadership = leadership,
            Notice::Fatal { error } => driven.lock().unwrap().fatal = Some(error),
        }
    }
}

#[test]
fn one_member_leads_and_keeps_what_it_acknowledged_over_restarts() {
    let mut group = Group::new(1, 1);
    group.initialize(1);
    group.elect(&[1]);
    for n in 0..5_u8 {
        group.propose(1, &[n]).unwrap();
        group.barrier(1).unwrap();
    }
    group.crash(1);
    group.start(1);
    group.elect(&[1]);
    assert_eq!(group.data(1), (0..5_u8).map(|n| vec![n]).collect::<Vec<_>>());
    let term = group.driven[&1].lock().unwrap().leadership.term;
    assert!(term >= 2, "a restart is a new term");
    group.propose(1, b"after").unwrap();
}

#[test]
fn an_idle_group_of_one_writes_nothing_and_does_not_wake() {
    let group = Group::new(2, 1);
    group.initialize(1);
    group.elect(&[1]);
    group.propose(1, b"x").unwrap();
    group.run(Duration::from_secs(5), || false);
    let (writes, polls) = (group.disks[&1].writes(), group.executor.polls());
    group.run(Duration::from_secs(3_600), || false);
    assert_eq!(group.disks[&1].writes(), writes, "an idle hour wrote something");
    let woken = group.executor.polls() - polls;
    assert!(woken <= 2, "an idle hour took {woken} wakeups");
    group.propose(1, b"still there").unwrap();
    group.barrier(1).unwrap();
}

#[test]
fn snapshots_shorten_the_log_and_are_installed_at_start() {
    let mut group = Group::new(3, 1);
    group.crash(1);
    group.snapshot_interval.set(600);
    group.start(1);
    group.initialize(1);
    group.elect(&[1]);
    for n in 0..1_500_u32 {
        group.propose(1, &n.to_le_bytes()).unwrap();
    }
    let disk = Arc::clone(&group.disks[&1]);
    let shortened = group.run(LIMIT, || disk.has_snapshot() && disk.entries() < 1_200);
    assert!(shortened, "{} entries are left", disk.entries());
    group.crash(1);
    group.start(1);
    group.elect(&[1]);
    assert_eq!(group.driven[&1].lock().unwrap().installs, 1);
    let expected: Vec<_> = (0..1_500_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    assert_eq!(group.data(1), expected);
}

#[test]
fn a_long_log_without_a_snapshot_is_replayed_to_its_end() {
    let mut group = Group::new(4, 1);
    group.initialize(1);
    group.elect(&[1]);
    for n in 0..5_000_u32 {
        group.propose(1, &n.to_le_bytes()).unwrap();
    }
    group.crash(1);
    group.start(1);
    group.elect(&[1]);
    assert_eq!(group.data(1).len(), 5_000);
}

#[test]
fn three_members_fail_over_and_heal() {
    for seed in 0..10 {
        let mut group = Group::of_three(seed);
        group.propose(1, b"one").unwrap();
        group.links.lock().unwrap().cut.insert(1);
        let next = group.elect(&[2, 3]);
        group.propose(next, b"two").unwrap();
        let stale = group.propose(1, b"lost");
        assert!(stale.is_err(), "a leader that is cut off commits nothing: {stale:?}");
        assert!(group.barrier(1).is_err(), "nor does it answer reads");
        group.links.lock().unwrap().cut.clear();
        group.everyone_has(&[1, 2, 3], 2);
        let third = 5 - next;
        group.crash(third);
        let leader = group.elect(&[1, next]);
        group.propose(leader, b"three").unwrap();
        group.start(third);
        group.everyone_has(&[1, 2, 3], 3);
        for id in [1, 2, 3] {
            assert_eq!(group.data(id), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        }
    }
}

#[test]
fn a_member_that_moved_follows_the_leader_there_is() {
    let group = Group::of_three(14);
    let leader = group.elect(&[1, 2, 3]);
    let moves = (1..=3).find(|id| *id != leader).unwrap();
    group.links.lock().unwrap().moved.insert(moves, "elsewhere".to_owned());
    let mut wanted = first(3);
    wanted.insert(moves, "elsewhere".to_owned());
    let member = group.member(leader);
    let step = group.block_on(leader, async move { member.approach(&wanted, LIMIT).await });
    assert_eq!(step.unwrap(), Approach::Nearer);
    group.propose(leader, b"after").unwrap();
    group.everyone_has(&[1, 2, 3], 1);
    assert_eq!(group.leader_among(&[1, 2, 3]), Some(leader), "nobody else had to lead");
}

/// Whoever had a member take its place in the group ends between the two steps of that.
#[test]
fn a_change_that_was_begun_is_finished_by_the_next_approach() {
    const CALLER: u64 = 50;
    let group = Group::new(15, 3);
    group.initialize(1);
    group.elect(&[1]);
    group.become_group_of(2);
    let joint = |id| group.member(id).present().joint;
    for _ in 0..100 {
        let (member, wanted) = (group.member(1), first(3));
        group.executor.spawn_for(CALLER, async move {
            member.approach(&wanted, LIMIT).await.ok();
        });
        let begun = group.run(Duration::from_secs(1), || joint(1));
        group.executor.kill(CALLER);
        if begun {
            break;
        }
    }
    group.run(Duration::from_secs(5), || false);
    assert!(joint(1), "nobody finishes what was begun");
    let votes = || {
        let member = group.member(3);
        group.block_on(3, async move { member.votes_within(Duration::from_secs(1)).await })
    };
    assert!(!votes(), "the former voters are needed yet");
    group.become_group_of(3);
    assert!(!joint(1) && votes());
    // Of the former two this one could not be missed.
    group.crash(2);
    group.propose(1, b"without the second").unwrap();
}

/// The only one with a vote asks nobody, also while another is on its way and may never come.
#[test]
fn who_votes_alone_never_lacks_the_others() {
    let mut group = Group::new(24, 2);
    group.initialize(1);
    group.elect(&[1]);
    group.crash(2);
    let member = group.member(1);
    assert!(member.votes_alone());
    let step = group.block_on(1, async move { member.approach(&first(2), LIMIT).await });
    assert_eq!(step.unwrap(), Approach::Nearer);
    group.run(Duration::from_secs(60), || false);
    group.propose(1, b"alone").unwrap();
    let member = group.member(1);
    assert_eq!((member.members().learners, member.without_quorum()), ([2].into(), None));
    assert!(member.votes_alone());
    group.start(2);
    group.become_group_of(2);
    assert!(!group.member(1).votes_alone());
}

/// Entries that take longer than the engine's patience come over in the end, and nobody else has
/// to lead meanwhile.
#[test]
fn a_follower_behind_a_slow_link_takes_large_entries() {
    let mut group = Group::of_three(16);
    group.crash(3);
    group.propose(1, &vec![7; ENTRY_MAX]).unwrap();
    for number in 0..20_u8 {
        group.propose(1, &vec![number; 20 << 10]).unwrap();
    }
    group.links.lock().unwrap().slow.insert(3, 100 << 10);
    group.start(3);
    group.everyone_has(&[3], 21);
    assert_eq!(group.data(3), group.data(1));
    assert_eq!(group.leader_among(&[1, 2, 3]), Some(1));
}

#[test]
fn a_leader_that_is_heard_and_hears_nothing_is_followed_by_another() {
    // With each seed it is in the midst of something else.
    for seed in 0..20 {
        let group = Group::of_three(seed);
        group.propose(1, b"before").unwrap();
        group.links.lock().unwrap().deaf.insert(1);
        let begun = group.executor.now();
        let leader = group.elect(&[2, 3]);
        let took = group.executor.now().since(begun);
        assert!(took < Duration::from_secs(3), "{took:?} with seed {seed}");
        group.propose(leader, b"meanwhile").unwrap();
        group.links.lock().unwrap().deaf.clear();
        group.everyone_has(&[1, 2, 3], 2);
        assert_eq!(group.elect(&[1, 2, 3]), leader);
    }
}

#[test]
fn what_was_just_written_is_applied_without_reading_it_back() {
    let group = Group::of_three(17);
    group.propose(1, b"the first").unwrap();
    group.everyone_has(&[1, 2, 3], 1);
    let reads = || group.disks.values().map(|disk| disk.reads()).sum::<u64>();
    let before = reads();
    for number in 0..10_u8 {
        group.propose(1, &vec![number; 10 << 10]).unwrap();
    }
    group.everyone_has(&[1, 2, 3], 11);
    assert_eq!(reads(), before);
}

#[test]
fn a_leader_whose_disk_is_slow_writes_by_the_others() {
    let group = Group::of_three(13);
    let stall = Duration::from_secs(30);
    let only = Some(1);
    group.executor.set_latency(Latency { stalls: 1_000, stall, only, ..Latency::default() });
    let (member, done) = (group.member(1), Arc::new(Mutex::new(None)));
    let outcome = Arc::clone(&done);
    group.executor.spawn_for(1, async move {
        let written = member.propose(b"by the others".to_vec(), LIMIT).await;
        *outcome.lock().unwrap() = Some(written);
    });
    assert!(group.run(Duration::from_secs(5), || done.lock().unwrap().is_some()));
    assert!(done.lock().unwrap().as_ref().unwrap().is_ok(), "{done:?}");
    assert_eq!(group.data(1), [b"by the others".to_vec()]);
    group.everyone_has(&[1, 2, 3], 1);
    assert_eq!(group.leader_among(&[1, 2, 3]), Some(1));
}

/// Has the disk of a leader stand still for as long as `stall` says, by whatever `begin` does to it,
/// and expects the leader among the others afterwards.
fn a_leader_follows_again(
    stall: Duration,
    begin: impl Fn(&Group, &Arc<Memory>),
    end: impl Fn(&Arc<Memory>),
) {
    let group = Group::of_three(13);
    group.propose(1, b"before").unwrap();
    // The others have nothing to write any more.
    group.everyone_has(&[1, 2, 3], 1);
    let disk = Arc::clone(&group.disks[&1]);
    begin(&group, &disk);
    let member = group.member(1);
    group.executor.spawn_for(1, async move {
        // Nobody waits for it that long. It is more than waits for a disk without the engine.
        let large = vec![0; ENTRY_MAX];
        member.propose(large, LIMIT).await.ok();
    });
    group.run(Duration::from_millis(1), || false);
    group.executor.set_latency(Latency::default());
    let leader = group.elect(&[2, 3]);
    group.propose(leader, b"meanwhile").unwrap();
    group.run(stall, || false);
    end(&disk);
    group.everyone_has(&[1, 2, 3], 2);
    assert_eq!(group.data(1), group.data(leader));
    assert_eq!(group.leader_among(&[1]), None);
    // Its clock runs again: it can lead where it has to.
    let third = 5 - leader;
    group.links.lock().unwrap().cut.insert(leader);
    let next = group.elect(&[1, third]);
    group.propose(next, b"after").unwrap();
    group.links.lock().unwrap().cut.insert(next);
    group.links.lock().unwrap().cut.remove(&leader);
    let other = if next == 1 { third } else { 1 };
    group.elect(&[other, leader]);
}

/// Longer than the engine's queue takes its ticks, of which there are fifty a second here.
const LONG_STALL: Duration = Duration::from_secs(1_400);

#[test]
fn a_leader_whose_disk_hung_for_long_follows_again() {
    for stall in [Duration::from_secs(300), LONG_STALL] {
        let hang = |group: &Group, _: &Arc<Memory>| {
            let latency = Latency { stalls: 1_000, stall, only: Some(1), ..Latency::default() };
            group.executor.set_latency(latency);
        };
        a_leader_follows_again(stall, hang, |_| {});
    }
}

#[test]
fn a_leader_whose_disk_was_full_for_long_follows_again() {
    a_leader_follows_again(LONG_STALL, |_, disk| disk.fill(true), |disk| disk.fill(false));
}

#[test]
fn snapshots_follow_the_interval_as_it_is_now() {
    let group = Group::new(8, 1);
    group.initialize(1);
    group.elect(&[1]);
    for n in 0..50_u8 {
        group.propose(1, &[n]).unwrap();
    }
    let disk = Arc::clone(&group.disks[&1]);
    assert!(!disk.has_snapshot());
    group.snapshot_interval.set(20);
    group.propose(1, b"one more").unwrap();
    assert!(group.run(LIMIT, || disk.has_snapshot()));
}

#[test]
fn a_member_that_lags_far_behind_gets_a_snapshot() {
    let mut group = Group::of_three(5);
    for id in [1, 2, 3] {
        group.crash(id);
    }
    group.snapshot_interval.set(100);
    for id in [1, 2] {
        group.start(id);
    }
    let leader = group.elect(&[1, 2]);
    // Larger than one message, together.
    for n in 0..700_u32 {
        group.propose(leader, &[n.to_le_bytes().to_vec(), vec![7; 16 << 10]].concat()).unwrap();
    }
    let disk = Arc::clone(&group.disks[&leader]);
    assert!(group.run(LIMIT, || disk.has_snapshot()));
    group.start(3);
    group.everyone_has(&[3], 700);
    assert!(group.driven[&3].lock().unwrap().installs >= 1);
    assert_eq!(group.data(3), group.data(leader));
}

#[test]
fn a_follower_that_missed_megabytes_catches_up_by_entries() {
    let mut group = Group::of_three(6);
    group.crash(3);
    for n in 0..40_u8 {
        group.propose(1, &vec![n; 512 << 10]).unwrap();
    }
    group.start(3);
    group.everyone_has(&[3], 40);
    assert_eq!(group.driven[&3].lock().unwrap().installs, 0);
}

#[test]
fn a_broken_disk_ends_the_member_and_says_so() {
    let group = Group::new(7, 1);
    group.initialize(1);
    group.elect(&[1]);
    group.disks[&1].break_writes();
    assert!(matches!(group.propose(1, b"x"), Err(ProposeError::Fatal(_))));
    let driven = &group.driven[&1];
    assert!(group.run(LIMIT, || driven.lock().unwrap().fatal.is_some()));
    assert!(matches!(group.propose(1, b"y"), Err(ProposeError::Fatal(_))));
    assert!(group.barrier(1).is_err());
}

#[test]
fn shutting_down_waits_for_nobody_who_stopped_listening() {
    let group = Group::new(8, 1);
    group.initialize(1);
    group.elect(&[1]);
    // A driver that reads no more, and holds what it was given.
    group.executor.kill(DRIVERS + 1);
    let member = group.member(1);
    let waiting = member.clone();
    group.executor.spawn_for(1, async move {
        waiting.propose(b"x".to_vec(), LIMIT).await.ok();
    });
    group.run(Duration::from_millis(50), || false);
    group.block_on(1, async move { member.shutdown().await });
}

#[test]
fn a_proposal_that_is_too_large_is_refused() {
    let group = Group::new(9, 1);
    group.initialize(1);
    group.elect(&[1]);
    let large = vec![0; crate::consensus::ENTRY_MAX + 1];
    assert!(group.propose(1, &large).is_err());
    group.propose(1, &large[1..]).unwrap();
}

fn one_run(seed: u64) -> u64 {
    let mut group = Group::of_three(seed);
    for n in 0..20_u8 {
        group.propose(1, &[n]).unwrap();
    }
    group.crash(1);
    let next = group.elect(&[2, 3]);
    group.propose(next, b"after").unwrap();
    group.start(1);
    group.everyone_has(&[1, 2, 3], 21);
    group.hash()
}

#[test]
fn the_same_seed_is_the_same_run() {
    let runs: Vec<u64> = (0..5).map(one_run).collect();
    assert_eq!(runs, (0..5).map(one_run).collect::<Vec<_>>());
    let distinct: BTreeSet<u64> = runs.iter().copied().collect();
    assert_eq!(distinct.len(), runs.len(), "another seed is another run");
    let elsewhere = std::thread::spawn(|| one_run(3)).join().unwrap();
    assert_eq!(elsewhere, runs[3], "on another thread as well");
}

/// Two of three members are gone for good: the third goes on alone with all it has, at once and
/// after restarts, be its log long or mostly in a snapshot.
#[test]
fn a_member_goes_on_alone_where_its_group_is_lost() {
    for interval in [10_000, 10] {
        let mut group = Group::of_three(11);
        group.snapshot_interval.set(interval);
        for number in 0..40_u8 {
            group.propose(1, &[number]).unwrap();
        }
        group.everyone_has(&[1, 2, 3], 40);
        for id in [1, 2, 3] {
            group.crash(id);
        }
        let mut term = 0;
        let disk = Arc::clone(&group.disks[&2]);
        make_alone::<OnSim>(disk.as_ref(), 2, "member-2".to_owned(), 7, |now| {
            term = now;
            b"anew".to_vec()
        })
        .unwrap();
        for _ in 0..3 {
            group.start(2);
            let led = group.run(Duration::from_millis(200), || group.leader_among(&[2]).is_some());
            assert!(led, "elected without waiting for anybody");
            assert_eq!(group.member(2).members().voters, [2]);
            let data = group.data(2);
            assert_eq!((data.len(), data[39].as_slice(), data[40].as_slice()), {
                (41, &[39][..], &b"anew"[..])
            });
            let driven = group.driven[&2].lock().unwrap();
            assert!(driven.applied.iter().any(|entry| entry.data == b"anew" && entry.term == term));
            drop(driven);
            group.crash(2);
        }
        group.start(2);
        group.elect(&[2]);
        group.propose(2, b"more").unwrap();
    }
}

#[test]
fn a_group_is_made_from_a_snapshot() {
    let mut group = Group::new(12, 1);
    group.crash(1);
    let disk = Arc::clone(&group.disks[&1]);
    let snapshot = postcard::to_stdvec(&vec![(900_u64, 5_u64, b"old".to_vec())]).unwrap();
    let make = || {
        let (state, address) = ((900, snapshot.clone()), "member-1".to_owned());
        make_from_snapshot::<OnSim>(disk.as_ref(), 1, address, state, 7, |_| b"anew".to_vec())
    };
    make().unwrap();
    assert_eq!(make().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let (disk, nothing) = (Arc::clone(&disk), Memory::default());
    let none = make_alone::<OnSim>(&nothing, 1, String::new(), 0, |_| Vec::new());
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
    for _ in 0..2 {
        group.start(1);
        group.elect(&[1]);
        assert_eq!(group.data(1), [b"old".to_vec(), b"anew".to_vec()]);
        group.crash(1);
    }
    assert!(disk.snapshot().unwrap().is_some());
}
