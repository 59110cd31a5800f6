//! The order of things: what waits for the disk, and what one task's actions wait for.

use super::{
    lanes::{Lanes, RUNNING_MAX, STOPS_MAX},
    outbox::Outbox,
};
use crate::{
    agent::{Action, Operation, Record},
    types::{
        FromWorker, NodeDescription, Register, Sequence, Task, TaskId, TaskReport, TaskStatus,
    },
};
use std::time::Duration;

fn sequence(term: u64) -> Sequence {
    Sequence { epoch: 1, term, number: 1 }
}

fn persist(term: u64) -> Action {
    Action::Persist(vec![Record::Sequence(sequence(term))])
}

fn beat(term: u64) -> Action {
    Action::Send(FromWorker::Heartbeat { session: 1, applied: sequence(term) })
}

fn remove(task: u128) -> Operation {
    Operation::Remove { task: TaskId::from_bits(task) }
}

fn removal(task: u128) -> Action {
    Action::Perform(remove(task))
}

fn stop(task: u128) -> Operation {
    let task = TaskId::from_bits(task);
    Operation::Stop { task, signal: String::new(), grace: Duration::from_secs(10) }
}

fn register(session: u64, tasks: Vec<TaskReport>) -> Action {
    let (description, images) = (NodeDescription::default(), Vec::new());
    let register = Register { session, description, images, tasks, successors: Vec::new() };
    Action::Send(FromWorker::Register(Box::new(register)))
}

#[test]
fn what_follows_a_record_waits_until_it_is_written() {
    let mut outbox = Outbox::new(Sequence::default());
    outbox.push(vec![removal(1), persist(1), removal(2)]);
    assert_eq!(outbox.next(), Some(removal(1)));
    assert_eq!(outbox.next(), Some(persist(1)));
    assert_eq!(outbox.next(), None);
    outbox.written();
    assert_eq!(outbox.next(), Some(removal(2)));
    assert_eq!(outbox.next(), None);
}

#[test]
fn a_failed_write_is_repeated_with_what_gathered() {
    let mut outbox = Outbox::new(Sequence::default());
    outbox.push(vec![persist(1)]);
    assert!(matches!(outbox.next(), Some(Action::Persist(_))));
    outbox.push(vec![persist(2), removal(1)]);
    assert_eq!(outbox.next(), None);
    let both = vec![Record::Sequence(sequence(1)), Record::Sequence(sequence(2))];
    assert_eq!(outbox.again(), both);
    outbox.written();
    assert_eq!(outbox.next(), Some(removal(1)), "both records are on disk by now");
}

#[test]
fn heartbeats_pass_a_slow_disk_and_claim_nothing_that_is_not_on_it() {
    let mut outbox = Outbox::new(sequence(1));
    outbox.push(vec![persist(2)]);
    assert!(matches!(outbox.next(), Some(Action::Persist(_))));
    outbox.push(vec![removal(1), beat(2)]);
    assert_eq!(outbox.next(), Some(beat(1)));
    assert_eq!(outbox.next(), None);
    outbox.written();
    outbox.push(vec![beat(2)]);
    assert_eq!(outbox.next(), Some(removal(1)));
    assert_eq!(outbox.next(), Some(beat(2)));
}

#[test]
fn a_session_begins_past_a_slow_disk_and_tells_the_rest_once_that_is_written() {
    let status = TaskStatus::default();
    let report = TaskReport { task: TaskId::from_bits(1), status };
    let mut outbox = Outbox::new(sequence(1));
    outbox.push(vec![persist(2)]);
    assert!(matches!(outbox.next(), Some(Action::Persist(_))));
    outbox.push(vec![register(7, vec![report.clone()])]);
    assert_eq!(outbox.next(), Some(register(7, Vec::new())));
    assert_eq!(outbox.next(), None, "once");
    outbox.written();
    assert_eq!(outbox.next(), Some(register(7, vec![report])));
}

#[test]
fn of_sessions_begun_past_a_slow_disk_each_is_told_of_once() {
    let mut outbox = Outbox::new(sequence(1));
    outbox.push(vec![persist(2)]);
    assert!(matches!(outbox.next(), Some(Action::Persist(_))));
    for session in [7, 8] {
        outbox.push(vec![register(session, Vec::new())]);
        assert_eq!(outbox.next(), Some(register(session, Vec::new())));
        assert_eq!(outbox.next(), None);
    }
}

#[test]
fn a_disk_that_never_answers_holds_back_a_bounded_number_of_actions() {
    let mut outbox = Outbox::new(Sequence::default());
    outbox.push(vec![persist(1)]);
    assert!(matches!(outbox.next(), Some(Action::Persist(_))));
    for _ in 0..5_000 {
        outbox.push(vec![beat(1)]);
    }
    assert!(!outbox.is_full(), "what is repeated anyway is dropped");
    for task in 0..5_000 {
        outbox.push(vec![removal(task)]);
    }
    assert!(outbox.is_full());
}

#[test]
fn what_is_repeated_while_the_disk_does_not_answer_is_held_once() {
    let report =
        |number| Action::Send(FromWorker::Report { session: 1, number, tasks: Vec::new() });
    let inventory = |asked| Action::Perform(Operation::TakeInventory { asked });
    let mut outbox = Outbox::new(Sequence::default());
    outbox.push(vec![persist(1), removal(1)]);
    assert_eq!(outbox.next(), Some(persist(1)));
    for number in 1..=5_000 {
        outbox.push(vec![removal(1), removal(2), inventory(number), report(number)]);
    }
    assert!(!outbox.is_full(), "the node goes on being asked how it is");
    assert_eq!(outbox.next(), None);
    outbox.written();
    let held: Vec<Action> = std::iter::from_fn(|| outbox.next()).collect();
    assert_eq!(held, [removal(1), removal(2), inventory(5_000), report(5_000)]);
}

#[test]
fn a_manager_that_is_lost_is_looked_for_past_a_slow_disk() {
    let reconnect = || Action::Reconnect { reason: "no answer".to_owned() };
    let mut outbox = Outbox::new(Sequence::default());
    outbox.push(vec![persist(1), removal(1)]);
    assert_eq!(outbox.next(), Some(persist(1)));
    outbox.push(vec![reconnect()]);
    assert_eq!(outbox.next(), Some(reconnect()));
    assert_eq!(outbox.next(), None, "the rest waits");
}

#[test]
fn one_task_waits_for_itself_and_not_for_others() {
    let mut lanes = Lanes::default();
    for operation in [stop(1), remove(1), stop(2)] {
        lanes.push(operation);
    }
    let first = lanes.next().expect("nothing runs");
    let second = lanes.next().expect("the other task's runs beside it");
    assert_eq!((first.operation, second.operation), (stop(1), stop(2)));
    assert!(lanes.next().is_none(), "the first task is busy");
    lanes.finished(&first.lane, first.number);
    assert_eq!(lanes.next().expect("it is free").operation, remove(1));
}

#[test]
fn a_repetition_takes_the_place_of_what_waits() {
    let mut lanes = Lanes::default();
    lanes.push(remove(1));
    let running = lanes.next().expect("nothing runs");
    for _ in 0..3 {
        lanes.push(remove(1));
    }
    lanes.finished(&running.lane, running.number);
    let again = lanes.next().expect("one more was asked for");
    lanes.finished(&again.lane, again.number);
    assert!(lanes.next().is_none());
}

#[test]
fn stopping_ends_what_prepares() {
    let mut lanes = Lanes::default();
    let task = Task::sample(1);
    lanes.push(Operation::Prepare { task: Box::new(task.clone()) });
    let job = lanes.next().expect("nothing runs");
    let mut prepared = std::pin::pin!(futures_util::future::Abortable::new(
        std::future::pending::<()>(),
        job.registration
    ));
    let poll = |future: std::pin::Pin<&mut _>| {
        futures_lite::future::block_on(futures_lite::future::poll_once(future))
    };
    assert!(poll(prepared.as_mut()).is_none(), "it prepares");
    lanes.push(Operation::Start { task: Box::new(task) });
    lanes.push(stop(1));
    assert!(poll(prepared).is_some_and(|ended| ended.is_err()), "it was ended");
    lanes.finished(&job.lane, job.number);
    assert_eq!(lanes.next().expect("it is free").operation, stop(1), "nothing is started any more");
}

#[test]
fn only_so_many_run_at_once() {
    let mut lanes = Lanes::default();
    for task in 0..200 {
        lanes.push(remove(task));
    }
    let running: Vec<_> = std::iter::from_fn(|| lanes.next()).collect();
    assert_eq!(running.len(), RUNNING_MAX);
    lanes.finished(&running[0].lane, running[0].number);
    assert!(lanes.next().is_some());
    assert!(lanes.next().is_none());
}

#[test]
fn containers_that_take_their_time_to_end_keep_nothing_else_waiting() {
    let mut lanes = Lanes::default();
    for task in 0..200 {
        lanes.push(stop(task));
    }
    let stops: Vec<_> = std::iter::from_fn(|| lanes.next()).collect();
    assert_eq!(stops.len(), STOPS_MAX);
    lanes.push(Operation::TakeInventory { asked: 1 });
    lanes.push(remove(500));
    let others: Vec<_> = std::iter::from_fn(|| lanes.next()).map(|job| job.operation).collect();
    assert_eq!(others, [Operation::TakeInventory { asked: 1 }, remove(500)]);
    lanes.finished(&stops[0].lane, stops[0].number);
    assert_eq!(lanes.next().expect("one stop has ended").operation, stop(STOPS_MAX as u128));
    assert!(lanes.next().is_none());
}
