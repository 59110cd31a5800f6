//! Log entries and snapshots.

use super::{
    Change, Command, State, decode_entry, decode_snapshot, encode_entry, invariants,
    leader::tests::{World, replicated},
};
use crate::{
    types::{JoinToken, JoinTokens, Version},
    util::fuzz,
};
use std::{sync::LazyLock, time::Duration};

/// Two nodes besides the manager, and a service with two running tasks.
static POPULATED: LazyLock<State> = LazyLock::new(|| {
    let mut world = World::new(2);
    let _service = world.create(replicated("web", 2));
    world.run(Duration::from_secs(1));
    world.state
});

/// Applies what an entry holds. A command that panics would end every manager, over and over.
fn apply(commands: &[Command]) {
    let mut state = POPULATED.clone();
    for command in commands {
        let applied = state.applied();
        let next = Version { index: applied.index + 1, ..applied };
        let _rejected = state.apply(next, command.term, command);
        invariants::check(&state).expect("what holds of every state");
    }
}

#[test]
fn entries() {
    let state = &*POPULATED;
    let service = state.services().next().unwrap();
    let task = state.tasks().next().unwrap();
    let node = state.nodes().next().unwrap();
    let tokens = JoinTokens { worker: JoinToken(1), manager: JoinToken(2) };
    let changes = [
        Change::RotateTokens { tokens },
        Change::CreateService { service: Box::new(service.clone()) },
        Change::UpdateService {
            id: service.id.clone(),
            expected: service.version,
            spec: Box::new(service.spec.clone()),
        },
        Change::RemoveService { id: service.id.clone() },
        Change::ReplaceTasks { create: vec![task.clone()], desire: vec![] },
        Change::ReportTasks { reports: vec![(task.id.clone(), task.status.clone())] },
        Change::RemoveTasks { tasks: vec![task.id.clone()] },
        Change::CreateNode { node: Box::new(node.clone()) },
        Change::UpdateNode {
            id: node.id.clone(),
            expected: node.version,
            spec: Box::new(node.spec.clone()),
        },
        Change::RemoveNode { id: node.id.clone(), force: true },
    ];
    let command = |change| Command { request: None, term: 1, date: task.created, change };
    let seeds: Vec<_> =
        changes.into_iter().map(|change| encode_entry(&[command(change)])).collect();
    fuzz::check("entries", &seeds, |bytes| {
        let commands = decode_entry(bytes).ok()?;
        assert_eq!(decode_entry(&encode_entry(&commands)).as_ref(), Ok(&commands));
        apply(&commands);
        Some(())
    });
}

#[test]
fn snapshots() {
    let seeds = [State::default().encode_snapshot(), POPULATED.encode_snapshot()];
    fuzz::check("snapshots", &seeds, |bytes| {
        let state = decode_snapshot(bytes).ok()?;
        assert_eq!(decode_snapshot(&state.encode_snapshot()).as_ref(), Ok(&state));
        Some(())
    });
}
