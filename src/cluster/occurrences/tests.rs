use super::*;
use crate::{
    cluster::{
        Applied, Rejected,
        leader::tests::{World, id, replicated},
    },
    types::{
        Availability, ClusterSpec, ManagerStatus, NodeState, RequestId, Role, UpdateState,
        UpdateStatus, Version,
    },
};
use expect_test::{Expect, expect};
use std::{collections::BTreeSet, time::Duration};

/// Applies changes one after another and prints what is told of them.
struct Log {
    state: State,
    text: String,
}

impl Log {
    fn new(workers: u128) -> Self {
        let mut world = World::new(workers);
        world.run(Duration::from_secs(1));
        Self { state: world.state, text: String::new() }
    }

    fn apply(&mut self, change: Change) -> Result<Applied, Rejected> {
        let applied = self.state.applied();
        let next = Version { index: applied.index + 1, ..applied };
        let date = Date::from_unix_seconds(next.index);
        let request = Some(RequestId::from_bits(u128::from(next.index)));
        let command = Command { request, term: 1, date, change };
        let before = Before::of(&self.state, &command);
        let outcome = self.state.apply(next, 1, &command);
        if let Some(occurrence) = before.occurrence(&self.state) {
            assert_eq!(occurrence.date, date);
            self.print(&occurrence);
        }
        outcome
    }

    fn print(&mut self, occurrence: &Occurrence) {
        let attributes: Vec<String> =
            occurrence.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (kind, action) = (occurrence.kind.as_str(), &occurrence.action);
        self.text.push_str(&format!("{kind} {action} ({})\n", attributes.join(", ")));
    }

    fn check(&self, expected: &Expect) {
        expected.assert_eq(&self.text);
    }
}

fn service_of(state: &State) -> Service {
    state.service_by_name("ev").expect("it was made").clone()
}

#[test]
fn services_tell_what_swarm_tells() {
    let mut log = Log::new(1);
    let mut template = World::new(1);
    let made = template.create(replicated("ev", 1));
    let row = template.service(&made);
    let create = Change::CreateService { service: Box::new(row.clone()) };
    log.apply(create.clone()).expect("a service");
    assert!(log.apply(create).is_err(), "and a rejected command tells nothing");
    let status = |state, service: &Service| Change::SetUpdateStatus {
        id: service.id.clone(),
        spec_version: service.spec_version,
        status: Some(UpdateStatus {
            state,
            started: Date::EPOCH,
            completed: Date::EPOCH,
            message: String::new(),
            total: 0,
            failed: BTreeSet::new(),
        }),
    };
    for (image, replicas) in [("bb:2", 1), ("bb:2", 2), ("bb:2", 2)] {
        let service = service_of(&log.state);
        let mut spec = Box::new(service.spec.clone());
        spec.task.container.image = image.to_owned();
        spec.mode = Mode::Replicated { replicas };
        let update = Change::UpdateService { id: service.id, expected: service.version, spec };
        log.apply(update).expect("an update");
    }
    for state in
        [UpdateState::Updating, UpdateState::Updating, UpdateState::Paused, UpdateState::Completed]
    {
        let change = status(state, &service_of(&log.state));
        log.apply(change).expect("a status");
    }
    let service = service_of(&log.state);
    let rollback = Change::RollbackService { id: service.id.clone(), expected: service.version };
    log.apply(rollback).expect("a rollback");
    log.apply(Change::RemoveService { id: service.id.clone() }).expect("a removal");
    log.check(&expect![[r#"
        service create (name=ev)
        service update (image.new=bb:2, image.old=good:1, name=ev)
        service update (name=ev, replicas.new=2, replicas.old=1)
        service update (name=ev)
        service update (name=ev, updatestate.new=updating)
        service update (name=ev, updatestate.new=paused, updatestate.old=updating)
        service update (name=ev, updatestate.new=completed, updatestate.old=paused)
        service update (name=ev, replicas.new=1, replicas.old=2, updatestate.new=rollback_started, updatestate.old=completed)
        service remove (name=ev)
    "#]]);
}

#[test]
fn nodes_tell_what_swarm_tells() {
    let mut log = Log::new(1);
    let node = id(1);
    for availability in [Availability::Drain, Availability::Active] {
        let row = log.state.node(&node).expect("a worker").clone();
        let spec = Box::new(crate::types::NodeSpec { availability, ..row.spec });
        let change = Change::UpdateNode { id: node.clone(), expected: row.version, spec };
        log.apply(change).expect("an update");
    }
    let row = log.state.node(&node).expect("a worker").clone();
    let mut spec = Box::new(row.spec.clone());
    spec.labels.insert("a".to_owned(), "1".to_owned());
    let stale = Change::UpdateNode { id: node.clone(), expected: Version::default(), spec };
    assert!(log.apply(stale).is_err());
    let down = |message: &str| Change::SetNodeState {
        id: node.clone(),
        state: NodeState::Down,
        message: message.to_owned(),
    };
    log.apply(down("heartbeat failure")).expect("a state");
    let status = Some(ManagerStatus { address: "10.0.0.2:2377".to_owned(), raft_id: 2 });
    log.apply(Change::SetManagerStatus { id: node.clone(), status }).expect("a standing");
    log.apply(Change::SetManagerStatus { id: node.clone(), status: None }).expect("a standing");
    log.apply(Change::RemoveNode { id: node.clone(), force: false }).expect("a removal");
    let again = Change::CreateNode { node: Box::new(row.clone()) };
    assert!(log.apply(again).is_err(), "a removed id is refused");
    let mut other = row;
    (other.id, other.key_digest, other.role) = (id(9), [9; 32], Role::Worker);
    log.apply(Change::CreateNode { node: Box::new(other.clone()) }).expect("a node");
    (other.id, other.created) = (id(10), Date::EPOCH);
    log.apply(Change::CreateNode { node: Box::new(other) }).expect("the same join again");
    log.apply(Change::UpdateCluster {
        expected: log.state.cluster().expect("a cluster").version,
        spec: Box::new(ClusterSpec::default()),
    })
    .expect("options");
    log.check(&expect![[r#"
        node update (availability.new=drain, availability.old=active, name=node1)
        node update (availability.new=active, availability.old=drain, name=node1)
        node update (name=node1, state.new=down, state.old=ready)
        node update (name=node1, role.new=manager, role.old=worker)
        node update (name=node1, role.new=worker, role.old=manager)
        node remove (name=node1)
        node create (name=node1)
    "#]]);
}

#[test]
fn another_leader_is_told_of_both() {
    let mut log = Log::new(1);
    let key = 5;
    for (number, raft_id) in [(0, key), (1, key + 1)] {
        let status = Some(ManagerStatus { address: String::new(), raft_id });
        log.apply(Change::SetManagerStatus { id: id(number), status }).expect("a standing");
    }
    log.text.clear();
    let date = Date::from_unix_seconds(1);
    let turns = [(None, key), (Some(key), key), (Some(key), key + 1), (Some(key + 1), 77)];
    for (from, to) in turns {
        for occurrence in leadership(&log.state, from, to, date) {
            log.print(&occurrence);
        }
    }
    log.check(&expect![[r#"
        node update (leader.new=true, leader.old=false, name=node0)
        node update (leader.new=false, leader.old=true, name=node0)
        node update (leader.new=true, leader.old=false, name=node1)
        node update (leader.new=false, leader.old=true, name=node1)
    "#]]);
}
