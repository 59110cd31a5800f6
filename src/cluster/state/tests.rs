//! Tests of the state: preconditions, atomicity, determinism, bytes.

use super::{State, decode_entry, decode_snapshot, encode_entry, forced_anew, terms_passed};
use crate::{
    cluster::{
        Applied, Change, Command, Decision, Rejected, invariants,
        leader::tests::{World, replicated},
        state::{DecodeError, OUTCOMES_MAX, encoded_len},
    },
    types::{
        Availability, Date, Desired, JoinToken, JoinTokens, ManagerStatus, Mode, Node, NodeId,
        NodeSpec, NodeState, NodeStatus, Reason, ReasonCode, RequestId, Role, ServiceId, Task,
        TaskId, TaskState, TaskStatus, Version,
    },
};
use expect_test::expect;
use proptest::prelude::*;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

/// Two nodes besides the manager, and a service with two running tasks.
fn populated() -> (State, ServiceId, Vec<TaskId>) {
    let mut world = World::new(2);
    let service = world.create(replicated("web", 2));
    world.run(Duration::from_secs(1));
    let mut tasks: Vec<Task> = world.state.tasks().cloned().collect();
    tasks.sort_by_key(|task| task.slot);
    (world.state, service, tasks.into_iter().map(|task| task.id).collect())
}

fn apply(state: &mut State, change: Change) -> Result<Applied, Rejected> {
    let applied = state.applied();
    let next = Version { index: applied.index + 1, ..applied };
    let date = Date::from_unix_seconds(2_000_000);
    let command = Command { request: None, term: 1, date, change };
    let before = state.clone();
    let outcome = state.apply(next, 1, &command);
    if outcome.is_err() {
        let mut same = before;
        same.tables.applied = next;
        assert_eq!(*state, same, "a rejected command changes nothing");
    }
    invariants::check(state).expect("what holds of every state");
    outcome
}

fn copy(state: &State, id: &TaskId, new: u128) -> Task {
    let mut task = state.task(id).expect("a task").clone();
    task.id = TaskId::from_bits(new);
    task.node = None;
    task.status = TaskStatus { state: TaskState::Pending, ..TaskStatus::default() };
    task
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("memory");
        }
        text.push('\n');
    }
    text
}

#[test]
fn a_slot_never_gets_a_second_task() {
    let (mut state, _, tasks) = populated();
    let second = copy(&state, &tasks[0], 1);
    let create = |task: &Task| Change::ReplaceTasks { create: vec![task.clone()], desire: vec![] };
    assert!(matches!(apply(&mut state, create(&second)), Err(Rejected::Precondition(_))));
    // Held for a predecessor it may be there, once.
    let mut held = second.clone();
    held.desired = Desired::Ready;
    assert!(apply(&mut state, create(&held)).is_err(), "held, but for nobody");
    held.predecessor = Some(tasks[0].clone());
    assert_eq!(apply(&mut state, create(&held)), Ok(Applied::Done));
    let mut third = held.clone();
    third.id = TaskId::from_bits(3);
    assert!(apply(&mut state, create(&third)).is_err(), "two are held");
    let running = vec![(held.id.clone(), Desired::Running)];
    let both = Change::ReplaceTasks { create: vec![], desire: running.clone() };
    assert!(apply(&mut state, both).is_err(), "two are desired running");
    let desire = [vec![(tasks[0].clone(), Desired::Shutdown)], running].concat();
    assert_eq!(
        apply(&mut state, Change::ReplaceTasks { create: vec![], desire }),
        Ok(Applied::Done)
    );
}

#[test]
fn one_bad_task_rejects_the_whole_command() {
    let (mut state, _, tasks) = populated();
    let good = copy(&state, &tasks[0], 1);
    let mut stranger = good.clone();
    stranger.id = TaskId::from_bits(2);
    stranger.service = ServiceId::from_bits(404);
    let desire = vec![(tasks[0].clone(), Desired::Shutdown)];
    let create = vec![good.clone(), stranger];
    let outcome = apply(&mut state, Change::ReplaceTasks { create, desire });
    assert!(matches!(outcome, Err(Rejected::NotFound { .. })));
    assert_eq!(state.task(&tasks[0]).map(|task| task.desired), Some(Desired::Running));
    assert_eq!(state.task(&good.id), None);
}

#[test]
fn states_never_fall() {
    let (mut state, _, tasks) = populated();
    let report = |state| {
        let status = TaskStatus { state, ..TaskStatus::default() };
        Change::ReportTasks { reports: vec![(tasks[0].clone(), status)] }
    };
    for (to, then) in [
        (TaskState::Assigned, TaskState::Running),
        (TaskState::Failed, TaskState::Failed),
        (TaskState::Complete, TaskState::Failed),
        (TaskState::Orphaned, TaskState::Orphaned),
    ] {
        assert_eq!(apply(&mut state, report(to)), Ok(Applied::Done));
        assert_eq!(state.task(&tasks[0]).map(|task| task.status.state), Some(then));
    }
    for (to, then) in [
        (Desired::Shutdown, Desired::Shutdown),
        (Desired::Running, Desired::Shutdown),
        (Desired::Ready, Desired::Shutdown),
    ] {
        let desire = vec![(tasks[0].clone(), to)];
        drop(apply(&mut state, Change::ReplaceTasks { create: vec![], desire }));
        assert_eq!(state.task(&tasks[0]).map(|task| task.desired), Some(then));
    }
}

#[test]
fn a_decision_that_no_longer_holds_is_skipped() {
    let (mut state, _, tasks) = populated();
    let node = NodeId::from_bits(2);
    let mut task = copy(&state, &tasks[0], 1);
    task.predecessor = Some(tasks[0].clone());
    task.desired = Desired::Ready;
    let create = Change::ReplaceTasks { create: vec![task.clone()], desire: vec![] };
    assert_eq!(apply(&mut state, create), Ok(Applied::Done));
    let decide = |node: Option<NodeId>, error: &str| {
        let decision =
            Decision { task: task.id.clone(), node, error: error.to_owned(), generic: vec![] };
        Change::Schedule { decisions: vec![decision] }
    };
    assert!(apply(&mut state, decide(None, "no suitable node")).is_ok());
    assert_eq!(state.task(&task.id).map(|t| t.status.error.as_str()), Some("no suitable node"));
    // To a manager that is drained.
    assert!(apply(&mut state, decide(Some(NodeId::from_bits(0)), "")).is_ok());
    assert_eq!(state.task(&task.id).and_then(|t| t.node.clone()), None);
    assert!(apply(&mut state, decide(Some(node.clone()), "")).is_ok());
    let given = state.task(&task.id).expect("a task");
    assert_eq!((given.status.state, given.node.clone()), (TaskState::Assigned, Some(node)));
    // Once is enough.
    assert!(apply(&mut state, decide(Some(NodeId::from_bits(1)), "")).is_ok());
    assert_eq!(state.tasks_on_node(&NodeId::from_bits(1)).filter(|t| t.id == task.id).count(), 0);
}

#[test]
fn a_removed_node_never_returns() {
    let (mut state, _, tasks) = populated();
    let id = NodeId::from_bits(1);
    let node = Box::new(state.node(&id).expect("a node").clone());
    let refused = apply(&mut state, Change::RemoveNode { id: id.clone(), force: false });
    assert!(matches!(refused, Err(Rejected::Precondition(_))));
    assert!(apply(&mut state, Change::RemoveNode { id: id.clone(), force: true }).is_ok());
    assert!(state.is_removed(&id));
    assert_eq!(tasks.iter().filter(|task| state.task(task).is_some()).count(), 1);
    assert!(apply(&mut state, Change::CreateNode { node }).is_err());
    let state_of = Change::SetNodeState { id, state: NodeState::Ready, message: String::new() };
    assert!(matches!(apply(&mut state, state_of), Err(Rejected::NotFound { .. })));
}

#[test]
fn the_last_manager_stays() {
    let (mut state, ..) = populated();
    let id = NodeId::from_bits(0);
    let expected = state.node(&id).expect("a node").version;
    let spec = Box::new(NodeSpec {
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
    });
    assert!(apply(&mut state, Change::UpdateNode { id: id.clone(), expected, spec }).is_err());
    assert!(apply(&mut state, Change::RemoveNode { id, force: true }).is_err());
}

#[test]
fn an_update_and_a_rollback_swap_specs() {
    let (mut state, id, _) = populated();
    let old = state.service(&id).expect("a service").clone();
    let mut spec = old.spec.clone();
    spec.task.container.image = "good:2".to_owned();
    let change = Change::UpdateService {
        id: id.clone(),
        expected: old.version,
        spec: Box::new(spec.clone()),
    };
    assert!(apply(&mut state, change.clone()).is_ok());
    assert_eq!(apply(&mut state, change), Err(Rejected::OutOfSequence));
    let new = state.service(&id).expect("a service").clone();
    assert_eq!(new.previous_spec.as_deref(), Some(&old.spec));
    assert!(new.spec_version > old.spec_version);
    // The same spec again keeps the previous one.
    let same = Change::UpdateService {
        id: id.clone(),
        expected: new.version,
        spec: Box::new(spec.clone()),
    };
    assert!(apply(&mut state, same).is_ok());
    let again = state.service(&id).expect("a service").clone();
    assert_eq!(again.previous_spec.as_deref(), Some(&old.spec));
    let rollback = Change::RollbackService { id: id.clone(), expected: again.version };
    assert!(apply(&mut state, rollback).is_ok());
    let back = state.service(&id).expect("a service");
    assert_eq!((&back.spec, back.previous_spec.as_deref()), (&old.spec, Some(&spec)));
}

#[test]
fn outcomes_are_remembered_and_bounded() {
    let (mut state, ..) = populated();
    let rotate = |number: u128| Command {
        request: Some(RequestId::from_bits(number)),
        term: 1,
        date: Date::EPOCH,
        change: Change::RotateTokens {
            tokens: JoinTokens { worker: JoinToken(number), manager: JoinToken(0) },
        },
    };
    let version = state.applied();
    assert!(state.apply(version, 1, &rotate(1)).is_ok());
    assert!(state.apply(version, 1, &rotate(2)).is_ok());
    // Not carried out again, and not even looked at: its term is old.
    assert_eq!(state.apply(version, 9, &rotate(1)), Ok(Applied::Done));
    assert_eq!(state.cluster().expect("a cluster").tokens.worker, JoinToken(2));
    assert_eq!(state.apply(version, 9, &rotate(3)), Err(Rejected::StaleTerm));
    assert_eq!(state.outcome(&RequestId::from_bits(3)), None, "it may be tried again");
    for number in 0..2 * u128::try_from(OUTCOMES_MAX).expect("small") {
        assert!(state.apply(version, 1, &rotate(10 + number)).is_ok());
    }
    assert_eq!(state.outcome(&RequestId::from_bits(1)), None);
    assert_eq!(state.tables.outcomes.len(), OUTCOMES_MAX);
}

#[test]
fn foreign_bytes_are_refused() {
    let (state, ..) = populated();
    let bytes = state.encode_snapshot();
    assert_eq!(decode_snapshot(&bytes), Ok(state));
    assert!(matches!(decode_entry(&bytes), Err(DecodeError::NotOurs(_))));
    assert!(matches!(decode_snapshot(b"mg"), Err(DecodeError::NotOurs(_))));
    let mut newer = bytes.clone();
    newer[4] = 3;
    assert_eq!(decode_snapshot(&newer), Err(DecodeError::Format { found: 3 }));
    newer[4] = 0;
    assert_eq!(decode_snapshot(&newer), Err(DecodeError::Format { found: 0 }));
    let cut = &bytes[..bytes.len() - 1];
    assert!(matches!(decode_snapshot(cut), Err(DecodeError::Damaged(_))));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(decode_snapshot(&longer), Err(DecodeError::Damaged(_))));
    let huge = vec![0; super::ENTRY_MAX + 1];
    assert!(matches!(decode_entry(&huge), Err(DecodeError::TooLong { .. })));
}

/// Some commands whose layout is in every format.
fn fixed_commands() -> [Command; 3] {
    let command = |change| Command {
        request: Some(RequestId::from_bits(5)),
        term: 3,
        date: Date::from_unix_seconds(1_000),
        change,
    };
    let status =
        TaskStatus { state: TaskState::Failed, exit_code: Some(-1), ..TaskStatus::default() };
    [
        command(Change::SetNodeState {
            id: NodeId::from_bits(1),
            state: NodeState::Down,
            message: "heartbeat failure".to_owned(),
        }),
        command(Change::ReportTasks { reports: vec![(TaskId::from_bits(2), status)] }),
        command(Change::RemoveTasks { tasks: vec![TaskId::from_bits(3)] }),
    ]
}

/// Where this fails, a type in the log has changed: raise the format's version, and keep a reader
/// for the bytes below.
#[test]
fn the_bytes_of_an_entry_stay_what_they_are() {
    let commands = fixed_commands();
    let bytes = encode_entry(&commands);
    assert_eq!(decode_entry(&bytes).as_deref(), Ok(&commands[..]));
    let envelope = encode_entry(&[]).len();
    assert_eq!(envelope + commands.iter().map(encoded_len).sum::<usize>(), bytes.len());
    expect![[r#"
        6d67454e02030119303030303030303030303030303030303030303030303030
        350380a094a58d1d061930303030303030303030303030303030303030303030
        3030310111686561727462656174206661696c75726501193030303030303030
        30303030303030303030303030303030350380a094a58d1d1001193030303030
        30303030303030303030303030303030303030320a0000000000010100011930
        3030303030303030303030303030303030303030303030350380a094a58d1d12
        011930303030303030303030303030303030303030303030303033
    "#]]
    .assert_eq(&hex(&bytes));
}

/// See above.
#[test]
fn the_bytes_of_a_snapshot_stay_what_they_are() {
    let bytes = fixed().encode_snapshot();
    assert_eq!(decode_snapshot(&bytes), Ok(fixed()));
    expect![[r#"
        6d67534e02010901193030303030303030303030303030303030303030303030
        303101098080b4ccd4dfc603000a018090bcfd0280ceda0300904e0080d293ad
        030080e7840f0000010101020303030303030303030303030303030303030303
        0303030303030303030303030304000000011930303030303030303030303030
        3030303030303030303030301930303030303030303030303030303030303030
        30303030303000018080b4ccd4dfc6038080b4ccd4dfc603000102056e6f6465
        30056c696e757805616d6436340080d0acf30e80808080100000000000000000
        086d616368696e6530000000010d31302e302e302e303a323337378080808080
        8080804001000000000000000000000000000000000000000000000000000000
        0000000000011930303030303030303030303030303030303030303030303036
        193030303030303030303030303030303030303030303030303600038080b4cc
        d4dfc6038080b4ccd4dfc603037765620006676f6f643a310000000000000000
        0000000000000000000000000000000000000000000000000000000000000205
        00ac0200000000000000000000000000000100000100000005000000d8040001
        00000005000000d8040000030000000119303030303030303030303030303030
        3030303030303030303719303030303030303030303030303030303030303030
        3030303700048080b4ccd4dfc6038080b4ccd4dfc60319303030303030303030
        303030303030303030303030303030360377656200010006676f6f643a310000
        0000000000000000000000000000000000000000000000000000000000000000
        00000000020500ac020000000000000000000000000000000107000000000000
        0000000100000000000100000100000000000119303030303030303030303030
        303030303030303030303030318080b4ccd4dfc6030119303030303030303030
        30303030303030303030303030303035000000
    "#]]
    .assert_eq(&hex(&bytes));
}

fn recorded(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// What the first format wrote of the same entry and state means the same: what is new has its
/// default.
#[test]
fn the_first_format_is_read() {
    let entry = recorded(include_str!("../../../tests/data/format-1/entry.hex"));
    assert_eq!(entry[4], 1);
    assert_eq!(decode_entry(&entry).as_deref(), Ok(&fixed_commands()[..]));
    let snapshot = recorded(include_str!("../../../tests/data/format-1/snapshot.hex"));
    assert_eq!(snapshot[4], 1);
    // The one manager that there was then has no standing in this recording.
    let mut state = fixed();
    state.tables.nodes.values_mut().for_each(|node| Arc::make_mut(node).manager = None);
    assert_eq!(decode_snapshot(&snapshot), Ok(state));
    let cut = &snapshot[..snapshot.len() - 1];
    assert!(matches!(decode_snapshot(cut), Err(DecodeError::Damaged(_))));
}

/// A state with something in every table, made without the leader.
fn fixed() -> State {
    let mut world = World::new(1);
    let id = world.create(replicated("web", 1));
    let mut cluster = world.state.cluster().expect("a cluster").clone();
    cluster.tokens = JoinTokens { worker: JoinToken(1), manager: JoinToken(2) };
    let node = |number| {
        let mut node = world.state.node(&NodeId::from_bits(number)).expect("a node").clone();
        node.status = NodeStatus::default();
        Box::new(node)
    };
    let mut service = world.service(&id);
    service.id = ServiceId::from_bits(6);
    let mut task = world.wanted()[0].clone();
    task.id = TaskId::from_bits(7);
    task.service = service.id.clone();
    task.node = None;
    task.status = TaskStatus::default();
    task.reasons = vec![Reason { code: ReasonCode::ServiceScaled, date: Date::EPOCH }];
    let mut state = State::default();
    for change in [
        Change::CreateCluster { cluster: Box::new(cluster), node: node(0) },
        Change::CreateNode { node: node(1) },
        Change::CreateService { service: Box::new(service) },
        Change::ReplaceTasks { create: vec![task], desire: vec![] },
        Change::RemoveNode { id: NodeId::from_bits(1), force: true },
    ] {
        assert!(apply(&mut state, change).is_ok());
    }
    let change =
        Change::RotateTokens { tokens: JoinTokens { worker: JoinToken(3), manager: JoinToken(4) } };
    let request = Some(RequestId::from_bits(5));
    let command = Command { request, term: 1, date: Date::EPOCH, change };
    assert!(state.apply(Version { epoch: 1, index: 9 }, 1, &command).is_ok());
    state
}

fn any_change(tasks: &[TaskId], service: &ServiceId, state: &State, pick: u64) -> Change {
    let at = usize::try_from(pick % 7).expect("small");
    let id = tasks.get(at).cloned().unwrap_or_else(|| TaskId::from_bits(u128::from(pick % 5)));
    let desired = [Desired::Ready, Desired::Running, Desired::Shutdown, Desired::Remove];
    let desired = desired[usize::try_from(pick / 7 % 4).expect("small")];
    let node = NodeId::from_bits(u128::from(pick / 3 % 4));
    let reached = [TaskState::Assigned, TaskState::Running, TaskState::Failed, TaskState::Orphaned];
    let reached = reached[usize::try_from(pick / 11 % 4).expect("small")];
    let mut task = copy(state, &tasks[0], u128::from(pick % 5));
    task.slot = pick / 5 % 3;
    task.desired = desired;
    task.predecessor = (pick.is_multiple_of(2)).then(|| id.clone());
    match pick % 13 {
        0 | 1 => Change::ReplaceTasks { create: vec![task], desire: vec![(id, desired)] },
        2 => Change::ReplaceTasks { create: vec![], desire: vec![(id, desired)] },
        3 | 4 => {
            let decision =
                Decision { task: id, node: Some(node), error: String::new(), generic: vec![] };
            Change::Schedule { decisions: vec![decision] }
        }
        5 | 6 => {
            let status = TaskStatus { state: reached, ..TaskStatus::default() };
            Change::ReportTasks { reports: vec![(id, status)] }
        }
        7 => {
            task.node = Some(node.clone());
            task.status.state = reached;
            Change::AdoptTasks { node, tasks: vec![task] }
        }
        8 => Change::RemoveTasks { tasks: vec![id] },
        9 if pick.is_multiple_of(5) => {
            Change::ForceNewCluster { manager: node, status: manager_status() }
        }
        9 => Change::RemoveNode { id: node, force: pick.is_multiple_of(2) },
        10 if pick.is_multiple_of(4) => Change::RemoveService { id: service.clone() },
        11 => {
            let mut spec = replicated("web", pick % 4);
            if pick.is_multiple_of(2) {
                spec.mode = Mode::Global;
            }
            let expected = state.service(service).map_or(Version::ZERO, |s| s.version);
            Change::UpdateService { id: service.clone(), expected, spec: Box::new(spec) }
        }
        _ => {
            let state = if pick.is_multiple_of(2) { NodeState::Down } else { NodeState::Ready };
            Change::SetNodeState { id: node, state, message: String::new() }
        }
    }
}

proptest! {
    /// Whatever is committed: nothing panics, what must hold holds, and replicas agree on every
    /// byte, one that was restored from a snapshot on the way included.
    #[test]
    fn replicas_agree(picks in proptest::collection::vec(any::<u64>(), 1..60)) {
        let (mut one, service, tasks) = populated();
        let mut two = one.clone();
        let mut seen: BTreeMap<TaskId, (TaskState, Desired)> = BTreeMap::new();
        for (at, pick) in picks.iter().enumerate() {
            let change = if one.task(&tasks[0]).is_some() {
                any_change(&tasks, &service, &one, *pick)
            } else {
                Change::RemoveTasks { tasks: vec![] }
            };
            let first = apply(&mut one, change.clone());
            if at == picks.len() / 2 {
                two = decode_snapshot(&two.encode_snapshot()).unwrap();
            }
            prop_assert_eq!(first, apply(&mut two, change));
            for task in one.tasks() {
                let now = (task.status.state, task.desired);
                let before = seen.insert(task.id.clone(), now).unwrap_or(now);
                // A task that was forgotten and made anew begins again.
                prop_assert!(now.0 >= before.0 && now.1 >= before.1 || task.created == task.updated);
            }
        }
        prop_assert_eq!(one.encode_snapshot(), two.encode_snapshot());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..5) {
        let magic: &[u8] = match kind {
            0 => b"mgEN\x01",
            1 => b"mgSN\x01",
            2 => b"mgEN\x02",
            3 => b"mgSN\x02",
            _ => b"",
        };
        let bytes = [magic, &bytes].concat();
        drop(decode_entry(&bytes));
        drop(decode_snapshot(&bytes));
    }
}

fn manager_status() -> ManagerStatus {
    ManagerStatus { address: "10.0.0.9:2377".to_owned(), raft_id: 1 }
}

#[test]
fn a_forced_cluster_has_one_manager_and_a_new_epoch() {
    let (mut state, service, tasks) = populated();
    let (own, other) = (NodeId::from_bits(1), NodeId::from_bits(0));
    assert_eq!(state.node(&other).map(|node| node.role), Some(Role::Manager));
    let (before, row) = (state.clone(), state.service(&service).cloned());
    let force = |manager| Change::ForceNewCluster { manager, status: manager_status() };
    assert!(apply(&mut state, force(NodeId::from_bits(404))).is_err());
    assert_eq!(state.epoch(), 1);
    assert!(apply(&mut state, force(own.clone())).is_ok());
    let index = before.applied().index + 2;
    assert_eq!((state.epoch(), state.applied()), (2, Version { epoch: 2, index }));
    let lost = state.node(&other).expect("a node");
    assert_eq!((lost.role, lost.spec.role, &lost.manager), (Role::Worker, Role::Worker, &None));
    let node = state.node(&own).expect("a node");
    assert_eq!((node.role, node.spec.role), (Role::Manager, Role::Manager));
    assert_eq!(node.manager, Some(manager_status()));
    assert_eq!(node.version, state.applied());
    assert_eq!(state.service(&service).cloned(), row);
    for task in tasks {
        assert_eq!(state.task(&task), before.task(&task));
    }
    // What a user read before still counts.
    let spec = Box::new(before.service(&service).expect("a service").spec.clone());
    let expected = before.service(&service).expect("a service").version;
    assert!(apply(&mut state, Change::UpdateService { id: service, expected, spec }).is_ok());
    assert!(apply(&mut state, force(own)).is_ok());
    assert_eq!(state.epoch(), 3);
}

/// Applies an entry as a manager does.
fn apply_entry(state: &mut State, term: u64, entry: &[u8]) {
    let applied = state.applied();
    let version = Version { index: applied.index + 1, ..applied };
    for command in decode_entry(entry).expect("what we wrote is readable") {
        assert_eq!(state.apply(version, term, &command).err(), None);
    }
}

#[test]
fn what_begins_later_on_the_same_older_state_is_above_what_began_before() {
    let (state, _, _) = populated();
    let own = NodeId::from_bits(1);
    let begun = |date: &str| {
        let mut state = state.clone();
        let date = Date::parse(date).expect("a date");
        let term = 1 + terms_passed(date);
        let entry = forced_anew(own.clone(), manager_status(), term, date);
        apply_entry(&mut state, term, &entry);
        let node = state.node(&own).expect("a node");
        assert_eq!(node.version, state.applied(), "the whole entry is of the new epoch");
        (state.epoch(), term)
    };
    let days = [
        "2027-03-01T12:00:00Z",
        "2027-03-01T12:00:05Z",
        "2027-03-01T12:09:59Z",
        "2027-03-01T12:10:00Z",
        "2031-01-01T00:00:00Z",
    ];
    assert!(days.map(begun).is_sorted_by(|before, after| before < after), "{:?}", days.map(begun));
    // Without a clock it rises all the same, and a clock that is mad leaves room for the next.
    assert_eq!(begun("1970-01-01T00:00:09Z"), (2, 1));
    assert_eq!(begun("2500-01-01T00:00:00Z").0, Version::EPOCH_MAX);
}

#[test]
fn passing_over_epochs_never_goes_back() {
    let mut state = State::default();
    for (last, epoch) in [(0, 1), (7, 7), (3, 7), (u64::MAX, Version::EPOCH_MAX - 1)] {
        assert!(apply(&mut state, Change::PassEpochs { last }).is_ok());
        assert_eq!(state.epoch(), epoch);
    }
}

#[test]
fn a_restored_cluster_has_another_manager_and_a_new_epoch() {
    let (mut state, service, _) = populated();
    let old = NodeId::from_bits(0);
    let mut node = state.node(&old).expect("a node").clone();
    node.id = NodeId::from_bits(9);
    node.manager = Some(manager_status());
    let restore = |node: &Node| Change::RestoreCluster {
        node: Box::new(node.clone()),
        replaces: old.clone(),
    };
    assert!(apply(&mut state, restore(&node)).is_err(), "with another node's key");
    node.key_digest = [9; 32];
    let mut same = node.clone();
    same.id = NodeId::from_bits(1);
    assert!(apply(&mut state, restore(&same)).is_err(), "with another node's id");
    assert_eq!(state.epoch(), 1);
    assert!(apply(&mut state, restore(&node)).is_ok());
    assert_eq!(state.epoch(), 2);
    assert!(state.node(&old).is_none() && state.is_removed(&old));
    let managers: Vec<&NodeId> =
        state.nodes().filter(|node| node.role == Role::Manager).map(|node| &node.id).collect();
    assert_eq!(managers, [&node.id]);
    assert!(state.service(&service).is_some());
    assert!(apply(&mut state, restore(&node)).is_err(), "twice");
    assert!(apply(&mut State::default(), restore(&node)).is_err(), "without a cluster");
}
