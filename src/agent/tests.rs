//! Tests of the agent: transcripts of one life, and random orders of everything that can happen.

mod chaos;
mod health;
mod jobs;
mod life;
mod offline;
mod templates;

use super::*;
use crate::types::{
    Assignments, ContainerSpec, Date, Desired, FromManager, FromWorker, ImageHealth, Moment,
    NodeId, Sequence, Task, TaskId, TaskSpec, TaskState, TaskStatus,
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

fn id(n: u128) -> TaskId {
    TaskId::from_bits(n)
}

fn task(n: u128, desired: Desired) -> Task {
    let container = ContainerSpec { image: "bb:1".into(), ..ContainerSpec::default() };
    Task {
        slot: u64::try_from(n).unwrap(),
        node: Some(NodeId::from_bits(1)),
        spec: TaskSpec { container, ..TaskSpec::default() }.into(),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        desired,
        ..Task::sample(n)
    }
}

/// An agent with its clock.
struct Bench {
    agent: Agent,
    now: Moment,
    session: u64,
    number: u64,
    /// The number of the last inventory that was asked for.
    asked: u64,
}

impl Bench {
    fn new(stored: Vec<StoredTask>) -> (Self, Vec<Action>) {
        let (now, date) = (Moment::ZERO, Date::EPOCH);
        let (agent, actions) =
            Agent::new(Options::default(), Sequence::default(), stored, now, date, 7);
        let mut bench = Self { agent, now, session: 0, number: 0, asked: 0 };
        bench.note(&actions);
        (bench, actions)
    }

    /// An agent that knows its containers and has a session.
    fn online(stored: Vec<StoredTask>, containers: Vec<Observed>) -> Self {
        let (mut bench, _) = Self::new(stored);
        bench.inventory(containers);
        bench.connect();
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let date = Date::from_unix_nanos(self.now.since_origin().as_nanos().try_into().unwrap());
        let actions = self.agent.step(self.now, date, event);
        let writes = |action: &Action| matches!(action, Action::Persist(_));
        assert!(!actions.iter().skip(1).any(writes), "written first, then done: {actions:?}");
        self.note(&actions);
        actions
    }

    fn note(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Send(FromWorker::Register(register)) => self.session = register.session,
                Action::Perform(Operation::TakeInventory { asked }) => self.asked = *asked,
                _ => {}
            }
        }
    }

    /// Answers the last inventory that was asked for.
    fn inventory(&mut self, containers: Vec<Observed>) -> Vec<Action> {
        self.step(Event::Inventory { asked: self.asked, containers })
    }

    fn wait(&mut self, wait: Duration) -> Vec<Action> {
        self.now = self.now + wait;
        self.step(Event::Tick)
    }

    fn connect(&mut self) -> Vec<Action> {
        self.step(Event::Described { description: Box::default(), images: Vec::new() });
        self.step(Event::Connected);
        self.number = 0;
        let heartbeat = Duration::from_millis(1_500);
        self.step(Event::Message(FromManager::Registered { session: self.session, heartbeat }))
    }

    fn set(&mut self, complete: bool, tasks: Vec<Task>, removed: Vec<TaskId>) -> Assignments {
        self.number += 1;
        let sequence = Sequence { epoch: 1, term: 1, number: self.number };
        Assignments { session: self.session, sequence, complete, tasks, removed, images: None }
    }

    fn assign(&mut self, complete: bool, tasks: Vec<Task>) -> Vec<Action> {
        let set = self.set(complete, tasks, Vec::new());
        self.step(Event::Message(FromManager::Assignments(Box::new(set))))
    }

    fn state(&self, n: u128) -> Option<(TaskState, &str)> {
        let mut tasks = self.agent.tasks().filter(|(task, _)| task.id == id(n));
        tasks.next().map(|(_, status)| (status.state, status.error.as_str()))
    }

    /// Prepares and starts a task that was just assigned.
    fn run(&mut self, n: u128) {
        self.step(Event::Prepared { task: id(n), result: Ok(made()) });
        self.step(Event::Started { task: id(n), result: Ok((42, Vec::new())) });
        assert_eq!(self.state(n), Some((TaskState::Running, "")));
    }

    fn exit(&mut self, n: u128, code: i32) -> Vec<Action> {
        self.step(Event::Exited { task: id(n), phase: exited(Some(code)) })
    }
}

fn exited(code: Option<i32>) -> Phase {
    Phase::Exited { code, date: None, out_of_memory: false }
}

fn observed(n: u128, phase: Phase) -> Observed {
    Observed { task: id(n), container: "c".into(), phase, health: ImageHealth::default() }
}

fn made() -> Prepared {
    Prepared { container: "c".into(), health: ImageHealth::default() }
}

fn running() -> Phase {
    Phase::Running { pid: 42, ports: Vec::new() }
}

fn stored(n: u128, state: TaskState) -> StoredTask {
    let task = task(n, Desired::Running);
    let status = TaskStatus { state, ..task.status.clone() };
    StoredTask { task, status, reported: true, local: None }
}

fn failure(temporary: bool) -> Failure {
    Failure { message: "No such image: bb:1".into(), temporary }
}

/// One line an action: what matters of it.
fn show(actions: &[Action]) -> String {
    let mut text = String::new();
    for action in actions {
        match action {
            Action::Perform(Operation::Prepare { task }) => writeln!(text, "prepare {}", task.slot),
            Action::Perform(Operation::Start { task }) => writeln!(text, "start {}", task.slot),
            Action::Perform(Operation::Stop { task, grace, .. }) => {
                writeln!(text, "stop {} {grace:?}", tail(task))
            }
            Action::Perform(Operation::Remove { task }) => writeln!(text, "remove {}", tail(task)),
            Action::Perform(Operation::Probe { task, number, .. }) => {
                writeln!(text, "probe {} #{number}", tail(task))
            }
            Action::Tell { task, state } => writeln!(text, "tell {} {state}", tail(task)),
            Action::Perform(Operation::TakeInventory { .. }) => writeln!(text, "inventory"),
            Action::Send(message) => writeln!(text, "send {}", show_message(message)),
            Action::Reconnect { reason } => writeln!(text, "reconnect: {reason}"),
            Action::Retire { reason } => writeln!(text, "retire: {reason}"),
            Action::Persist(records) => {
                let records: Vec<String> = records.iter().map(show_record).collect();
                writeln!(text, "persist {}", records.join(", "))
            }
        }
        .unwrap();
    }
    text
}

fn tail(id: &TaskId) -> &str {
    id.as_str().trim_start_matches('0')
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Sequence(sequence) => format!("sequence {}", sequence.number),
        Record::PutTask(stored) => {
            format!("{} {} {}", tail(&stored.task.id), stored.status.state, stored.task.desired)
        }
        Record::RemoveTask(id) => format!("-{}", tail(id)),
        Record::NoteTask(stored) => {
            format!("note {} {}", tail(&stored.task.id), stored.status.state)
        }
    }
}

fn show_message(message: &FromWorker) -> String {
    match message {
        FromWorker::Register(register) => {
            format!("register {}+{}", register.tasks.len(), register.successors.len())
        }
        FromWorker::Heartbeat { applied, .. } => format!("heartbeat {}", applied.number),
        FromWorker::Report { number, tasks, .. } => {
            let one = |report: &crate::types::TaskReport| {
                let status = &report.status;
                let error = if status.error.is_empty() { "" } else { ": " };
                format!(
                    "{} {} \"{}\"{error}{}",
                    tail(&report.task),
                    status.state,
                    status.message,
                    status.error
                )
            };
            let tasks: Vec<String> = tasks.iter().map(one).collect();
            format!("report #{number} {}", tasks.join(", "))
        }
        FromWorker::Inventory { .. } => "inventory".to_owned(),
        FromWorker::Leave { .. } => "leave".to_owned(),
        FromWorker::Unwell { message, .. } => format!("unwell: {message}"),
    }
}
