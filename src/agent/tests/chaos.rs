//! Random orders, losses, doublings, crashes and restarts against virtual containers.

use super::*;
use crate::{
    runtime::fake::{Fake, Faults},
    types::{HealthCheck, HealthTest},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Move {
    /// Carry out the n-th operation that waits, perhaps twice, perhaps never.
    Perform(usize, u8),
    Wait(u16),
    Connect,
    Disconnect,
    Register,
    Complete(u8, u8),
    Increment(u8, u8),
    Stale,
    LoseRuntime,
    RestoreRuntime,
    CrashAgent,
    Reboot,
    Kill(u8),
    Taken(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => (any::<usize>(), 0u8..12).prop_map(|(n, times)| Move::Perform(n, times)),
        4 => (0u16..20_000).prop_map(Move::Wait),
        1 => Just(Move::Connect),
        1 => Just(Move::Disconnect),
        2 => Just(Move::Register),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Move::Complete(a, b)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Move::Increment(a, b)),
        1 => Just(Move::Stale),
        1 => Just(Move::LoseRuntime),
        2 => Just(Move::RestoreRuntime),
        1 => Just(Move::CrashAgent),
        1 => Just(Move::Reboot),
        1 => any::<u8>().prop_map(Move::Kill),
        1 => (1u64..4).prop_map(Move::Taken),
    ]
}

struct World {
    bench: Bench,
    fake: Fake,
    waiting: Vec<Operation>,
    disk: BTreeMap<TaskId, StoredTask>,
    sequence: Sequence,
    /// The highest state seen of each task, since the agent started.
    seen: BTreeMap<TaskId, TaskState>,
    /// What sits on disk as final never changes.
    finals: BTreeMap<TaskId, TaskState>,
    /// Tasks that a manager told to stop or left out.
    stoppable: BTreeSet<TaskId>,
    /// Tasks once given: what a set then leaves out never comes back, as no manager would.
    given: u16,
    dropped: u16,
    /// Inventories that were taken and are told only later.
    late: Vec<Event>,
    /// Unanswered preparations.
    preparing: BTreeMap<TaskId, u32>,
}

impl World {
    fn step(&mut self, event: Event) {
        if let Event::Prepared { task, .. } = &event {
            self.preparing.remove(task);
        }
        let actions = self.bench.step(event);
        self.take(actions);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in &actions {
            match action {
                Action::Persist(records) => records.iter().for_each(|record| self.write(record)),
                Action::Perform(Operation::Stop { task, .. }) => {
                    let over = self.disk.get(task).is_some_and(|s| !s.status.state.is_live());
                    assert!(over || self.stoppable.contains(task), "stopped without a reason");
                }
                Action::Perform(Operation::Prepare { task }) => {
                    let count = self.preparing.entry(task.id.clone()).or_default();
                    *count += 1;
                    assert_eq!(*count, 1, "one preparation at a time");
                    assert!(self.disk.contains_key(&task.id), "done before it was written");
                }
                Action::Perform(Operation::Remove { task }) => {
                    self.preparing.remove(task);
                }
                Action::Send(FromWorker::Report { tasks, .. }) => {
                    for report in tasks.iter().filter(|r| !r.status.state.is_live()) {
                        let on_disk = self.disk.get(&report.task).map(|s| s.status.state);
                        if on_disk.is_some() {
                            assert!(on_disk >= Some(report.status.state), "said before written");
                        }
                    }
                }
                _ => {}
            }
        }
        self.waiting.extend(actions.into_iter().filter_map(|action| match action {
            Action::Perform(operation) => Some(operation),
            _ => None,
        }));
        for (task, status) in self.bench.agent.tasks() {
            let before = self.seen.insert(task.id.clone(), status.state);
            assert!(before <= Some(status.state), "{} fell from {before:?}", task.id);
            let checked = task.spec.container.health.is_some();
            let runs = status.state == TaskState::Running;
            assert!(!checked || !runs || self.fake.was_well(&task.id), "not known to be well");
        }
        let present: BTreeSet<TaskId> =
            self.bench.agent.tasks().map(|(task, _)| task.id.clone()).collect();
        self.seen.retain(|id, _| present.contains(id));
        if let Some(next) = self.bench.agent.next_deadline() {
            assert!(next > self.bench.now, "a deadline in the past would spin");
        }
    }

    fn write(&mut self, record: &Record) {
        match record {
            Record::Sequence(sequence) => self.sequence = *sequence,
            Record::PutTask(stored) => {
                let (id, state) = (stored.task.id.clone(), stored.status.state);
                assert!(state.is_committed(), "{state} is never written");
                if let Some(last) = self.finals.get(&id) {
                    assert_eq!(*last, state, "a final state changed");
                }
                if !state.is_live() {
                    self.finals.insert(id.clone(), state);
                }
                self.disk.insert(id, (**stored).clone());
            }
            Record::RemoveTask(id) => {
                self.disk.remove(id);
                self.finals.remove(id);
            }
            // Lost with every life of the agent, as with the machine's power.
            Record::NoteTask(stored) => assert_eq!(stored.status.state, TaskState::Running),
        }
    }

    fn set(&mut self, complete: bool, listed: u16, stop: u16) -> Assignments {
        let bit = |bits: u16, n: u8| bits >> n & 1 == 1;
        let listed = listed & !self.dropped;
        if complete {
            self.dropped |= self.given & !listed;
        }
        self.given |= listed;
        let mut tasks = Vec::new();
        for n in 0..12u8 {
            // Every third is of a job.
            let mut one = task(u128::from(n) + 1, Desired::Shutdown);
            one.job_iteration = n.is_multiple_of(3).then_some(1);
            if !bit(stop, n) {
                one.desired = one.goal();
            }
            if bit(listed, n) {
                if n % 3 == 0 {
                    one.spec_mut().container.health = Some(check());
                }
                tasks.push(one);
            }
            if complete && !bit(listed, n) || bit(listed, n) && bit(stop, n) {
                self.stoppable.insert(id(u128::from(n) + 1));
            }
        }
        if complete {
            // Local successors are in no set of ours: all of them may go.
            self.stoppable.extend(
                self.bench
                    .agent
                    .tasks()
                    .map(|(task, _)| task.id.clone())
                    .filter(|id| !(1..=12).any(|n| *id == super::id(n))),
            );
            self.stoppable.extend(
                self.fake
                    .running()
                    .into_iter()
                    .filter(|id| !tasks.iter().any(|task| task.id == *id)),
            );
        }
        self.bench.set(complete, tasks, Vec::new())
    }

    fn restart_agent(&mut self) {
        self.waiting.clear();
        self.late.clear();
        self.seen.clear();
        self.preparing.clear();
        let stored: Vec<StoredTask> = self.disk.values().cloned().collect();
        let (now, date) = (self.bench.now, Date::EPOCH);
        let seed = self.bench.session.wrapping_add(1);
        let (agent, actions) =
            Agent::new(Options::default(), self.sequence, stored, now, date, seed);
        self.bench.agent = agent;
        self.take(actions);
        self.step(Event::Described { description: Box::default(), images: Vec::new() });
    }

    fn perform(&mut self, n: usize, times: u8) {
        if self.waiting.is_empty() {
            return;
        }
        let operation = self.waiting.remove(n % self.waiting.len());
        let event = answer(&mut self.fake, self.bench.now, operation);
        if times != 1 && matches!(event, Event::Inventory { .. }) {
            self.late.push(event);
            return;
        }
        // Twice at times; never lost while the agent lives, which the driver promises.
        self.step(event.clone());
        if times == 0 && !matches!(event, Event::Prepared { .. }) {
            self.step(event);
        }
    }

    fn assign(&mut self, set: Assignments) {
        self.step(Event::Message(FromManager::Assignments(Box::new(set))));
    }

    fn make(&mut self, one: Move) {
        match one {
            Move::Perform(n, times) => self.perform(n, times),
            Move::Wait(millis) => {
                self.bench.now = self.bench.now + Duration::from_millis(millis.into());
                for event in self.fake.poll(self.bench.now, Date::EPOCH) {
                    self.step(event);
                }
                self.step(Event::Tick);
                for event in std::mem::take(&mut self.late) {
                    self.step(event);
                }
            }
            Move::Connect => self.step(Event::Connected),
            Move::Disconnect => self.step(Event::Disconnected),
            Move::Register => {
                let before = self.bench.agent.session();
                let (session, heartbeat) = (self.bench.session, Duration::from_secs(60));
                self.step(Event::Message(FromManager::Registered { session, heartbeat }));
                if before != self.bench.agent.session() {
                    self.bench.number = 0;
                }
            }
            Move::Complete(listed, stop) => {
                let set = self.set(true, listed.into(), stop.into());
                self.assign(set);
            }
            Move::Increment(listed, stop) => {
                let set = self.set(false, listed.into(), stop.into());
                self.assign(set);
            }
            Move::Stale => {
                let session = self.bench.session.wrapping_sub(1);
                let sequence = Sequence { epoch: 9, term: 9, number: 1 };
                let (complete, tasks, removed, images) = (true, Vec::new(), Vec::new(), None);
                self.assign(Assignments { session, sequence, complete, tasks, removed, images });
            }
            Move::LoseRuntime => {
                let event = self.fake.lose_runtime();
                self.step(event);
            }
            Move::RestoreRuntime => {
                let event = self.fake.restore_runtime(self.bench.now, Date::EPOCH);
                self.step(event);
            }
            Move::CrashAgent => self.restart_agent(),
            Move::Reboot => {
                self.fake.reboot();
                self.restart_agent();
            }
            Move::Kill(n) => {
                let running: Vec<TaskId> = self.fake.running().into_iter().collect();
                if let Some(task) = running.get(usize::from(n) % running.len().max(1)).cloned()
                    && let Some(event) = self.fake.kill(&task, Date::EPOCH)
                {
                    self.step(event);
                }
            }
            Move::Taken(number) => {
                let session = self.bench.session;
                self.step(Event::Message(FromManager::ReportTaken { session, number }));
            }
        }
    }

    /// Lets everything work, and asks for four new tasks.
    fn heal(&mut self) {
        self.make(Move::RestoreRuntime);
        self.fake.set_faults(Faults::default());
        self.make(Move::Disconnect);
        self.make(Move::Connect);
        self.make(Move::Register);
        let set = self.set(true, 0b1111 << 8, 0);
        self.assign(set);
        for _ in 0..400 {
            while !self.waiting.is_empty() {
                self.perform(0, 1);
            }
            self.make(Move::Wait(1_000));
            let number = u64::MAX;
            self.make(Move::Taken(number));
            let (session, heartbeat) = (self.bench.session, Duration::from_secs(60));
            self.step(Event::Message(FromManager::Beat { session, heartbeat }));
        }
    }
}

/// Carries out an operation; returns its answer.
fn answer(fake: &mut Fake, now: Moment, operation: Operation) -> Event {
    match operation {
        Operation::Prepare { task } => {
            Event::Prepared { result: fake.prepare(&task), task: task.id }
        }
        Operation::Start { task } => {
            Event::Started { result: fake.start(now, &task), task: task.id }
        }
        Operation::Stop { task, .. } => match fake.stop(&task, Date::EPOCH) {
            Ok(phase) => Event::Exited { task, phase },
            Err(failure) => Event::StopFailed { task, failure },
        },
        Operation::Remove { task } => Event::Removed { result: fake.remove(&task), task },
        Operation::TakeInventory { asked } => match fake.inventory() {
            Ok(containers) => Event::Inventory { asked, containers },
            Err(_) => Event::RuntimeLost,
        },
        Operation::Probe { task, number, command, .. } => {
            let result = fake.probe(now, &task, &command);
            Event::Probed { task, number, result }
        }
    }
}

/// Well after a second.
fn check() -> HealthCheck {
    HealthCheck {
        test: HealthTest::Command(vec!["after".into(), "1".into()]),
        interval: Duration::from_secs(2),
        ..HealthCheck::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(seed: u64, moves in prop::collection::vec(moves(), 0..120)) {
        let faults =
            Faults { temporary: 100, permanent: 50, crash: 200, sick: 300, ..Faults::default() };
        let (bench, actions) = Bench::new(Vec::new());
        let mut world = World {
            bench,
            fake: Fake::new(seed, faults),
            waiting: Vec::new(),
            late: Vec::new(),
            disk: BTreeMap::new(),
            sequence: Sequence::default(),
            seen: BTreeMap::new(),
            finals: BTreeMap::new(),
            stoppable: BTreeSet::new(),
            given: 0,
            dropped: 0,
            preparing: BTreeMap::new(),
        };
        world.take(actions);
        world.step(Event::Described { description: Box::default(), images: Vec::new() });
        for one in moves {
            world.make(one);
        }
        world.heal();
        let running = world.fake.running();
        for (task, status) in world.bench.agent.tasks() {
            prop_assert!((9..=12).any(|n| task.id == id(n)), "{} is left", task.id);
            prop_assert!(world.fake.starts(&task.id) <= 1);
            let runs = status.state == TaskState::Running;
            prop_assert_eq!(runs, running.contains(&task.id), "{} {:?}", task.id, status);
            prop_assert!(runs || !status.state.is_live(), "{} {:?}", task.id, status);
        }
        prop_assert_eq!(world.bench.agent.tasks().count(), 4);
        for n in 1..=12 {
            prop_assert!(world.fake.starts(&id(n)) <= 1, "{n} was started twice");
        }
    }
}
