//! What happens to nodes, and to what runs on them.

use super::{World, replicated, world::id};
use crate::{
    cluster::{
        Change, Class, ClusterUpdate, Command, Event, JoinRequest, Query, Refusal, RenewRequest,
        Request, Response, RoleRequest,
    },
    types::{
        Availability, Desired, FromManager, FromWorker, JoinToken, LocalSuccessor, ManagerStatus,
        Mode, NodeDescription, NodeId, NodeState, Reason, ReasonCode, Role, Sequence, TaskId,
        TaskState, TaskStatus,
    },
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn state_of(world: &World, number: u128) -> (NodeState, String) {
    let status = world.state.node(&id(number)).expect("a node").status.clone();
    (status.state, status.message)
}

fn shown(world: &World, number: u128) -> NodeState {
    match world.read(&Query::Nodes) {
        Ok(Response::Nodes(nodes)) => {
            nodes.iter().find(|node| node.id == id(number)).expect("a node").status.state
        }
        other => panic!("{other:?}"),
    }
}

fn join_request(machine: &str, secret: u128) -> JoinRequest {
    JoinRequest {
        labels: std::collections::BTreeMap::new(),
        secret: JoinToken(secret),
        csr: vec![],
        key_digest: [9; 32],
        description: NodeDescription {
            hostname: "new".to_owned(),
            machine_id: machine.to_owned(),
            ..NodeDescription::default()
        },
        availability: Availability::Active,
        address: "10.0.0.9".to_owned(),
        advertise: String::new(),
    }
}

#[test]
fn a_node_out_of_touch_with_the_manager_in_between_has_time_to_find_another() {
    let mut world = World::new(5);
    world.ways.insert(id(1), id(2));
    world.link(1);
    world.create(replicated("web", 5));
    world.run(SECOND);
    let cut = |world: &mut World| {
        world.cut(1);
        world.cut(2);
        world.run(6 * SECOND);
    };
    let task = world.state.tasks_on_node(&id(1)).next().expect("one runs there").id.clone();
    cut(&mut world);
    assert_eq!(state_of(&world, 2).0, NodeState::Down);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    // It comes by another way, and its task has not moved.
    world.ways.clear();
    world.link(1);
    world.run(10 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    assert_eq!(world.task(&task).desired, Desired::Running);

    // Time is given once.
    world.ways.insert(id(1), id(2));
    world.link(2);
    world.link(1);
    world.run(SECOND);
    cut(&mut world);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    world.run(6 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Down);

    // And where the manager in between is in touch, none.
    world.link(2);
    world.link(1);
    world.run(SECOND);
    world.cut(1);
    world.run(6 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Down);
}

#[test]
fn a_silent_node_is_down_within_six_seconds_and_its_tasks_run_elsewhere() {
    let mut world = World::new(2);
    world.create(replicated("web", 2));
    world.run(SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (1, 1));
    world.cut(1);
    world.run(6 * SECOND);
    assert_eq!(state_of(&world, 1), (NodeState::Down, "heartbeat failure".to_owned()));
    assert_eq!(world.running_on(2), 2, "{}", world.tasks());
    // What is left on the lost node stays as it was seen, and is no longer wanted.
    let left: Vec<_> = world.state.tasks_on_node(&id(1)).collect();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].desired, left[0].status.state), (Desired::Shutdown, TaskState::Running));
    // When the node comes back, its surplus is stopped.
    world.link(1);
    world.run(2 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    assert_eq!((world.running_on(1), world.running_on(2)), (0, 2));
    assert!(world.state.tasks_on_node(&id(1)).all(|t| t.status.state == TaskState::Shutdown));
}

#[test]
fn a_node_that_returns_before_its_replacement_is_ready_keeps_its_task() {
    let mut world = World::new(2);
    world.set_availability(2, Availability::Pause);
    world.create(replicated("web", 1));
    world.run(SECOND);
    let task = world.wanted()[0].id.clone();
    world.cut(1);
    world.run(10 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Down);
    world.link(1);
    world.run(2 * SECOND);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1, "{}", world.tasks());
    assert_eq!((&wanted[0].id, wanted[0].status.state), (&task, TaskState::Running));
}

#[test]
fn a_global_task_survives_its_nodes_absence() {
    let mut world = World::new(2);
    let mut spec = replicated("agent", 1);
    spec.mode = Mode::Global;
    world.create(spec);
    world.run(SECOND);
    let before: Vec<_> = world.wanted().into_iter().map(|task| task.id).collect();
    world.cut(1);
    world.run(20 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Down);
    world.link(1);
    world.run(2 * SECOND);
    let after: Vec<_> = world.wanted().into_iter().map(|task| task.id).collect();
    assert_eq!(before, after);
}

#[test]
fn draining_moves_everything_without_delay() {
    let mut world = World::new(2);
    world.create(replicated("web", 4));
    world.run(SECOND);
    world.set_availability(1, Availability::Drain);
    world.run(SECOND / 2);
    assert_eq!((world.running_on(1), world.running_on(2)), (0, 4), "{}", world.tasks());
    world.set_availability(1, Availability::Active);
    world.run(SECOND);
    assert_eq!((world.running_on(1), world.running_on(2)), (0, 4), "nothing moves back");
}

#[test]
fn when_most_nodes_vanish_the_leader_doubts_itself_first() {
    let mut world = World::new(4);
    world.create(replicated("web", 4));
    world.run(SECOND);
    for number in 1..=3 {
        world.cut(number);
    }
    world.run(30 * SECOND);
    for number in 1..=3 {
        assert_eq!(state_of(&world, number).0, NodeState::Ready);
        assert_eq!(shown(&world, number), NodeState::Unknown);
    }
    assert_eq!(world.running_on(4), 1);
    // One comes back: it is as if nothing had been.
    world.link(1);
    world.run(SECOND);
    assert_eq!(shown(&world, 1), NodeState::Ready);
    // The others do not, and the doubt expires.
    world.run(40 * SECOND);
    assert_eq!(state_of(&world, 2).0, NodeState::Down);
    assert_eq!(state_of(&world, 3).0, NodeState::Down);
    assert_eq!(world.running_on(1) + world.running_on(4), 4, "{}", world.tasks());
}

#[test]
fn half_of_the_nodes_are_lost_without_doubt() {
    let mut world = World::new(4);
    world.run(SECOND);
    world.cut(1);
    world.cut(2);
    world.run(6 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Down);
    assert_eq!(state_of(&world, 2).0, NodeState::Down);
}

#[test]
fn a_stalled_leader_extends_every_deadline() {
    let mut world = World::new(1);
    world.run(SECOND);
    let wait = 60 * SECOND;
    world.now = world.now + wait;
    world.date = world.date + wait;
    world.event(Event::Stalled { wait });
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    world.beat_all();
    world.run(10 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
}

#[test]
fn a_new_leader_knows_no_node_and_moves_nothing() {
    let mut world = World::new(2);
    world.create(replicated("web", 2));
    world.run(SECOND);
    let before = world.tasks();
    world.cut(2);
    world.fail_over(2);
    let moved = "Node moved to \"unknown\" state due to leadership change in cluster";
    assert_eq!(state_of(&world, 1), (NodeState::Unknown, moved.to_owned()));
    world.link(0);
    world.link(1);
    world.run(8 * SECOND);
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
    assert_eq!(state_of(&world, 2).0, NodeState::Unknown);
    assert_eq!(world.tasks(), before);
    world.run(4 * SECOND);
    let lost = "heartbeat failure for node in \"unknown\" state";
    assert_eq!(state_of(&world, 2), (NodeState::Down, lost.to_owned()));
    assert_eq!(world.running_on(1), 2);
}

#[test]
fn a_node_whose_manager_is_unwell_says_so_until_it_is_well() {
    let mut world = World::new(1);
    let session = world.workers[&id(1)].session;
    let message = "the disk is full".to_owned();
    let seen = |world: &World| match world.read(&Query::Nodes) {
        Ok(Response::Nodes(nodes)) => {
            let node = nodes.into_iter().find(|node| node.id == id(1)).expect("a node");
            (node.status.state, node.status.message)
        }
        other => panic!("{other:?}"),
    };
    let applied = Sequence::default();
    world.say(1, FromWorker::Unwell { session, message: message.clone() });
    world.say(1, FromWorker::Heartbeat { session, applied });
    assert_eq!(seen(&world), (NodeState::Ready, message));
    world.say(1, FromWorker::Heartbeat { session, applied });
    assert_eq!(seen(&world), (NodeState::Ready, String::new()));
}

#[test]
fn a_node_that_followed_a_later_manager_says_why_it_ignores_this_one() {
    let mut world = World::new(1);
    let worker = &world.workers[&id(1)];
    let (session, own) = (worker.session, worker.applied);
    let seen = |world: &World| match world.read(&Query::Nodes) {
        Ok(Response::Nodes(nodes)) => {
            nodes.into_iter().find(|node| node.id == id(1)).expect("a node").status.message
        }
        other => panic!("{other:?}"),
    };
    for later in [
        Sequence { term: own.term + 1, ..own },
        Sequence { epoch: own.epoch + 1, term: 0, number: 0 },
    ] {
        world.say(1, FromWorker::Heartbeat { session, applied: later });
        assert!(seen(&world).contains("ignores this manager"), "{later:?}: {}", seen(&world));
        world.say(1, FromWorker::Heartbeat { session, applied: own });
        assert_eq!(seen(&world), "");
    }
}

#[test]
fn a_node_is_shown_where_its_last_message_came_from() {
    let mut world = World::new(1);
    let session = world.workers[&id(1)].session;
    let shown = |world: &World| world.state.node(&id(1)).expect("a node").status.address.clone();
    let before = shown(&world);
    let beat_from = |world: &mut World, address: &str| {
        let message = FromWorker::Heartbeat { session, applied: Sequence::default() };
        world.event(Event::Message {
            node: id(1),
            address: address.to_owned(),
            via: None,
            message,
        });
    };
    let applied = world.state.applied();
    beat_from(&mut world, &before);
    assert_eq!(world.state.applied(), applied, "nothing is written where nothing is new");
    beat_from(&mut world, "10.9.9.9");
    assert_eq!(shown(&world), "10.9.9.9");
    let applied = world.state.applied();
    beat_from(&mut world, "10.9.9.9");
    assert_eq!(world.state.applied(), applied);
    beat_from(&mut world, &before);
    assert_eq!(shown(&world), before);
}

#[test]
fn a_node_that_leaves_is_down_at_once() {
    let mut world = World::new(2);
    world.create(replicated("web", 2));
    world.run(SECOND);
    let session = world.workers[&id(1)].session;
    world.cut(1);
    world.say(1, FromWorker::Leave { session });
    world.work();
    assert_eq!(state_of(&world, 1).0, NodeState::Down);
    assert_eq!(world.running_on(2), 2, "{}", world.tasks());
    let request = world.request_id();
    let removed = world.request(Request::RemoveNode { request, id: id(1), force: false });
    assert_eq!(removed, Ok(Response::Done));
    assert!(world.state.is_removed(&id(1)));
    assert_eq!(world.state.tasks_on_node(&id(1)).count(), 0);
    world.link(1);
    assert_eq!(world.workers[&id(1)].heard.last(), Some(&FromManager::Removed));
}

#[test]
fn removal_needs_force_where_the_node_lives_and_a_manager_stays() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    world.run(SECOND);
    let remove = |world: &mut World, number: u128, force: bool| {
        let request = world.request_id();
        world.request(Request::RemoveNode { request, id: id(number), force })
    };
    let refusal = remove(&mut world, 1, false).expect_err("a refusal");
    assert_eq!(refusal.message, format!("node {} is not down and can't be removed", id(1)));
    let refusal = remove(&mut world, 0, true).expect_err("a refusal");
    assert!(refusal.message.contains("must be demoted"), "{refusal}");
    assert_eq!(remove(&mut world, 1, true), Ok(Response::Done));
    assert!(!world.workers[&id(1)].linked);
    world.run(SECOND);
    assert_eq!(world.wanted().len(), 1, "the slot gets a new task");
    assert_eq!(world.wanted()[0].node, None);
}

/// Asks for another role of a node.
fn set_role(world: &mut World, number: u128, role: Role) -> Result<Response, Refusal> {
    let request = wanting_role(world, number, role);
    world.request(request)
}

fn wanting_role(world: &mut World, number: u128, role: Role) -> Request {
    let node = world.state.node(&id(number)).expect("a node").clone();
    let mut spec = node.spec;
    spec.role = role;
    let request = world.request_id();
    let (id, version) = (node.id, node.version);
    Request::UpdateNode { request, id, version, spec }
}

/// The node, a worker so far, fetches the certificate of its role.
fn take_role(world: &mut World, number: u128) -> Result<Role, Refusal> {
    take_role_as(world, number, (Role::Worker, id(number).member()))
}

fn take_role_as(world: &mut World, number: u128, as_member: (Role, u64)) -> Result<Role, Refusal> {
    take_role_at(world, number, as_member, &format!("10.0.0.{number}:2377"))
}

fn take_role_at(
    world: &mut World,
    number: u128,
    (certified, member): (Role, u64),
    advertise: &str,
) -> Result<Role, Refusal> {
    let node = world.state.node(&id(number)).expect("a node");
    let asked = RoleRequest {
        node: node.id.clone(),
        certified,
        csr: Vec::new(),
        key_digest: node.key_digest,
        advertise: advertise.to_owned(),
        member,
    };
    match world.request(Request::TakeRole(Box::new(asked)))? {
        Response::Admitted(admission) => Ok(admission.role),
        other => panic!("{other:?}"),
    }
}

fn group(world: &World) -> Vec<String> {
    world.group.values().cloned().collect()
}

#[test]
fn a_worker_becomes_a_manager_once_it_is_ready_for_it() {
    let mut world = World::new(2);
    world.run(SECOND);
    assert_eq!(take_role(&mut world, 1), Ok(Role::Worker), "nobody wants it to be more");
    set_role(&mut world, 1, Role::Manager).expect("a change");
    world.run(SECOND);
    let told = world.workers[&id(1)].heard.iter().rev().find_map(|message| match message {
        FromManager::Place { role, managers } => Some((*role, managers.len())),
        _ => None,
    });
    assert_eq!(told, Some((Role::Manager, 1)), "it is told");
    assert_eq!(group(&world), ["10.0.0.0:2377"], "and not waited for");
    assert_eq!(take_role(&mut world, 1), Ok(Role::Manager));
    assert_eq!(take_role(&mut world, 1), Ok(Role::Manager), "an answer may be lost");
    assert_eq!(group(&world).len(), 2);
    world.run(SECOND);
    let places = |number| {
        let heard = &world.workers[&id(number)].heard;
        heard
            .iter()
            .filter(|m| matches!(m, FromManager::Place { managers, .. } if managers.len() == 2))
            .count()
    };
    assert_eq!((places(1), places(2)), (1, 1), "everybody learns where managers are, once");
}

#[test]
fn a_manager_is_a_worker_once_the_group_has_let_it_go() {
    let mut world = World::new(2);
    world.run(SECOND);
    let refusal = set_role(&mut world, 0, Role::Worker).expect_err("a refusal");
    assert_eq!(refusal.message, "attempting to demote the last manager of the swarm");
    for number in [1, 2] {
        set_role(&mut world, number, Role::Manager).expect("a change");
        take_role(&mut world, number).expect("a role");
    }
    world.run(SECOND);
    set_role(&mut world, 2, Role::Worker).expect("two are left");
    assert_eq!(group(&world).len(), 2);
    let refusal = take_role(&mut world, 2).expect_err("a refusal");
    assert!(refusal.message.contains("still being taken out"), "{refusal}");
    let members = [0, 1, 2].map(|number| id(number).member());
    world.event(Event::Group { members: members.into() });
    assert!(world.state.node(&id(2)).expect("a node").manager.is_some());
    world.event(Event::Group { members: members[..2].iter().copied().collect() });
    let row = world.state.node(&id(2)).expect("a node");
    assert_eq!((row.role, &row.manager), (Role::Worker, &None));
    assert_eq!(take_role(&mut world, 2), Ok(Role::Worker));
}

#[test]
fn a_manager_that_was_let_go_between_two_sessions_hears_of_it_with_the_next() {
    let mut world = World::new(1);
    world.run(SECOND);
    set_role(&mut world, 1, Role::Manager).expect("a change");
    take_role(&mut world, 1).expect("a role");
    set_role(&mut world, 1, Role::Worker).expect("one is left");
    world.event(Event::Group { members: [id(0).member()].into() });
    world.link(1);
    let told = world.workers[&id(1)].heard.iter().rev().find_map(|message| match message {
        FromManager::Registered { .. } => Some(None),
        FromManager::Place { role, .. } => Some(Some(*role)),
        _ => None,
    });
    assert_eq!(told, Some(Some(Role::Worker)), "told since it registered");
}

#[test]
fn a_manager_that_moved_says_so_and_everybody_learns_it() {
    let mut world = World::new(2);
    world.run(SECOND);
    set_role(&mut world, 1, Role::Manager).expect("a change");
    take_role(&mut world, 1).expect("a role");
    world.run(SECOND);
    let own = (Role::Manager, id(1).member());
    assert_eq!(take_role_at(&mut world, 1, own, "10.9.9.9:2377"), Ok(Role::Manager));
    assert_eq!(group(&world), ["10.0.0.0:2377", "10.9.9.9:2377"]);
    let roster = world.state.roster();
    assert_eq!(roster.addresses[&id(1)], "10.9.9.9:2377");
    world.run(SECOND);
    let told = |number| {
        world.workers[&id(number)].heard.iter().rev().find_map(|message| match message {
            FromManager::Place { managers, .. } => Some(managers.clone()),
            _ => None,
        })
    };
    let managers = vec!["10.0.0.0:2377".to_owned(), "10.9.9.9:2377".to_owned()];
    assert_eq!((told(1), told(2)), (Some(managers.clone()), Some(managers)));
    // Once more changes nothing, and a member of before says nothing that counts.
    let applied = world.state.applied();
    take_role_at(&mut world, 1, own, "10.9.9.9:2377").expect("a role");
    take_role_at(&mut world, 1, own, "").expect("a role");
    take_role_at(&mut world, 1, (Role::Manager, 77), "10.8.8.8:2377").expect("a role");
    assert_eq!(world.state.applied(), applied);
}

#[test]
fn the_only_manager_moves() {
    let mut world = World::new(1);
    world.run(SECOND);
    let own = (Role::Manager, id(0).member());
    assert_eq!(take_role_at(&mut world, 0, own, "10.9.9.9:2377"), Ok(Role::Manager));
    assert_eq!(group(&world), ["10.9.9.9:2377"]);
}

#[test]
fn a_manager_let_go_and_wanted_again_is_a_worker_in_between() {
    let mut world = World::new(2);
    world.run(SECOND);
    for number in [1, 2] {
        set_role(&mut world, number, Role::Manager).expect("a change");
        take_role(&mut world, number).expect("a role");
    }
    let own = id(2).member();
    set_role(&mut world, 2, Role::Worker).expect("two are left");
    world.event(Event::Group { members: [0, 1].map(|it| id(it).member()).into() });
    set_role(&mut world, 2, Role::Manager).expect("a change");
    let took = take_role_as(&mut world, 2, (Role::Manager, own));
    assert_eq!(took, Ok(Role::Worker), "it holds the log of a member that was let go");
    assert_eq!(world.state.node(&id(2)).expect("a node").manager, None);
    for member in [7, 8] {
        let took = take_role_as(&mut world, 2, (Role::Worker, member));
        assert_eq!(took, Ok(Role::Manager), "without a log it may come, and come again");
        let row = world.state.node(&id(2)).expect("a node").manager.as_ref();
        assert_eq!(row.map(|manager| manager.raft_id), Some(member));
    }
    let took = take_role_as(&mut world, 2, (Role::Manager, 8));
    assert_eq!(took, Ok(Role::Manager), "and stays");
}

#[test]
fn a_demotion_that_would_lose_the_majority_is_refused_with_numbers() {
    let mut world = World::new(3);
    world.run(SECOND);
    for number in [1, 2] {
        set_role(&mut world, number, Role::Manager).expect("a change");
        take_role(&mut world, number).expect("a role");
    }
    world.cut(1);
    world.run(Duration::from_secs(20));
    let refusal = set_role(&mut world, 2, Role::Worker).expect_err("a refusal");
    assert!(
        refusal
            .message
            .ends_with("of the 2 managers that would be left 1 answer, and 2 are needed"),
        "{refusal}"
    );
    set_role(&mut world, 1, Role::Worker).expect("the lost one may go");
}

#[test]
fn joining_twice_gives_the_same_node_and_a_cloned_disk_is_refused() {
    let mut world = World::new(1);
    let join = |world: &mut World, machine: &str, secret: u128| {
        world.request(Request::Join(Box::new(join_request(machine, secret))))
    };
    let refusal = join(&mut world, "m", 99).expect_err("a refusal");
    assert_eq!(refusal.class, Class::Unauthorized);
    assert!(refusal.message.contains("the token may have been rotated"), "{refusal}");
    let Ok(Response::Admitted(first)) = join(&mut world, "m", 11) else { panic!("not admitted") };
    assert_eq!(first.role, Role::Worker);
    let Ok(Response::Admitted(again)) = join(&mut world, "m", 11) else { panic!("not admitted") };
    assert_eq!(first, again);
    let refusal = join(&mut world, "other", 11).expect_err("a refusal");
    assert_eq!(refusal.class, Class::Conflict);
    assert!(refusal.message.contains("cloned"), "{refusal}");
    assert_eq!(world.state.nodes().count(), 3);
    // Two at once are one node as well.
    world.commits = false;
    let mut request = join_request("n", 11);
    request.key_digest = [8; 32];
    let tickets: Vec<_> =
        (0..2).map(|_| world.ask(Request::Join(Box::new(request.clone())))).collect();
    world.commits = true;
    world.commit();
    let answers: Vec<_> = tickets.iter().map(|ticket| world.replies[ticket].clone()).collect();
    assert!(answers[0].is_ok());
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn managers_that_join_at_once_are_no_more_than_there_may_be() {
    let mut world = World::new(1);
    world.commits = false;
    let tickets: Vec<_> = (0..12_u8)
        .map(|number| {
            let secret = world.state.cluster().expect("a cluster").tokens.manager;
            let mut request = join_request(&format!("m{number}"), secret.0);
            request.key_digest = [100 + number; 32];
            request.advertise = format!("10.0.1.{number}:2377");
            world.ask(Request::Join(Box::new(request)))
        })
        .collect();
    world.commits = true;
    world.commit();
    let managers = world.state.nodes().filter(|node| node.spec.role == Role::Manager).count();
    assert_eq!(managers, 9);
    let refused = tickets.iter().filter_map(|ticket| world.replies[ticket].clone().err());
    let refused: Vec<_> = refused.map(|refusal| refusal.message).collect();
    assert_eq!(refused, vec!["the cluster has 9 managers, which is all it takes"; 4]);
}

#[test]
fn a_cloned_disk_gets_no_session() {
    let mut world = World::new(1);
    let clone =
        NodeDescription { machine_id: "elsewhere".to_owned(), ..NodeDescription::default() };
    world.link_as(1, clone, vec![]);
    let holder = "node1 (machine machine1)".to_owned();
    assert_eq!(world.workers[&id(1)].heard.last(), Some(&FromManager::Duplicate { holder }));
}

#[test]
fn rotating_a_token_replaces_it_once() {
    let mut world = World::new(0);
    let request = world.request_id();
    let cluster = world.state.cluster().expect("a cluster").clone();
    let rotate = Request::UpdateCluster(Box::new(ClusterUpdate {
        request,
        version: cluster.version,
        spec: cluster.spec.clone(),
        rotate_worker_token: true,
        rotate_manager_token: false,
        rotate_unlock_key: false,
        fresh_unlock_key: crate::types::UnlockKey([9; 32]),
        next_root: None,
    }));
    assert_eq!(world.request(rotate.clone()), Ok(Response::Done));
    let rotated = world.state.cluster().expect("a cluster").clone();
    assert_ne!(rotated.tokens.worker, cluster.tokens.worker);
    assert_eq!(rotated.tokens.manager, cluster.tokens.manager);
    // A retry is answered from memory.
    assert_eq!(world.request(rotate), Ok(Response::Done));
    assert_eq!(world.state.cluster().expect("a cluster").tokens, rotated.tokens);
}

#[test]
fn a_session_that_is_not_known_is_told_so() {
    let mut world = World::new(1);
    let message = FromWorker::Heartbeat { session: 4_711, applied: Sequence::default() };
    world.say(1, message);
    let told = FromManager::NoSession { session: 4_711 };
    assert_eq!(world.workers[&id(1)].heard.last(), Some(&told));
}

#[test]
fn a_node_that_missed_a_set_gets_a_complete_one() {
    let mut world = World::new(1);
    world.run(SECOND);
    // The set with the new task is lost on the way.
    world.cut(1);
    world.create(replicated("web", 2));
    world.workers.get_mut(&id(1)).expect("a worker").linked = true;
    assert!(world.workers[&id(1)].tasks.is_empty());
    world.run(4 * SECOND);
    assert_eq!(world.running_on(1), 2, "{}", world.tasks());
}

#[test]
fn a_report_is_taken_only_once_it_is_committed() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    let task = world.wanted()[0].id.clone();
    world.commits = false;
    world.report(&task, TaskState::Running, "");
    assert!(world.workers[&id(1)].taken.is_empty());
    world.commits = true;
    world.commit();
    assert_eq!(world.workers[&id(1)].taken.len(), 1);
    // Steps before RUNNING need no commit.
    let before = world.proposals;
    world.report(&task, TaskState::Preparing, "");
    assert_eq!(world.workers[&id(1)].taken.len(), 2);
    assert_eq!(world.proposals, before);
}

#[test]
fn only_a_tasks_own_node_may_speak_of_it() {
    let mut world = World::new(2);
    world.create(replicated("web", 1));
    world.run(SECOND);
    let task = world.wanted()[0].clone();
    let other = if task.node == Some(id(1)) { 2 } else { 1 };
    let status = TaskStatus { state: TaskState::Failed, ..TaskStatus::default() };
    let session = world.workers[&id(other)].session;
    let tasks = vec![crate::types::TaskReport { task: task.id.clone(), status }];
    world.say(other, FromWorker::Report { session, number: 1, tasks });
    assert_eq!(world.task(&task.id).status.state, TaskState::Running);
}

#[test]
fn what_a_node_restarted_itself_is_adopted() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    world.run(SECOND);
    let old = world.wanted()[0].clone();
    // The leader is cut off for less than it takes to notice.
    let date = world.date;
    let mut made = old.clone();
    made.id = TaskId::from_bits(77);
    made.predecessor = Some(old.id.clone());
    made.failures = 1;
    made.reasons = vec![Reason { code: ReasonCode::LocalRestart, date }];
    made.status = TaskStatus { state: TaskState::Running, date, ..TaskStatus::default() };
    let worker = world.workers.get_mut(&id(1)).expect("a worker");
    let failed = TaskStatus { state: TaskState::Failed, date, ..TaskStatus::default() };
    worker.tasks.get_mut(&old.id).expect("the task").1 = failed;
    worker.tasks.insert(made.id.clone(), (made.clone(), made.status.clone()));
    let description = world.state.node(&id(1)).expect("a node").description.clone();
    world.link_as(1, description, vec![LocalSuccessor { task: made.clone(), made: date }]);
    world.run(10 * SECOND);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1, "{}", world.tasks());
    assert_eq!((&wanted[0].id, wanted[0].status.state), (&made.id, TaskState::Running));
    assert_eq!(world.task(&old.id).status.state, TaskState::Failed);
    assert!(world.workers[&id(1)].tasks.contains_key(&made.id));
}

#[test]
fn after_a_day_the_tasks_of_a_lost_node_are_orphans() {
    let mut world = World::new(2);
    world.create(replicated("web", 2));
    world.run(SECOND);
    world.cut(1);
    world.run(6 * SECOND);
    world.advance(24 * 3_600 * SECOND);
    let states: Vec<_> = world.state.tasks_on_node(&id(1)).map(|task| task.status.state).collect();
    assert_eq!(states, [TaskState::Orphaned]);
}

#[test]
fn a_failed_proposal_is_decided_again_and_given_up_in_the_end() {
    let mut world = World::new(1);
    world.commits = false;
    let request = world.request_id();
    let spec = Box::new(replicated("web", 1));
    let ticket = world.ask(Request::CreateService { request, spec });
    for _ in 0..3 {
        assert!(!world.replies.contains_key(&ticket));
        world.pending = None;
        world.event(Event::ProposalFailed { error: "no quorum".to_owned() });
        world.advance(SECOND);
    }
    let refusal = world.replies[&ticket].clone().expect_err("a refusal");
    assert_eq!(refusal.class, Class::Unavailable);
    assert!(refusal.message.contains("no quorum"));
}

#[test]
fn nothing_is_decided_before_it_is_known_what_came_of_the_last_decision() {
    let mut world = World::new(1);
    world.run(SECOND);
    world.commits = false;
    let request = world.request_id();
    let spec = Box::new(replicated("web", 1));
    world.ask(Request::CreateService { request, spec });
    let created = world.pending.take().expect("the service is proposed");
    world.commit_entry(&created);
    let late = world.fail_proposal().expect("its task is proposed");
    world.advance(SECOND);
    let empty = world.pending.take().expect("an entry is proposed behind it");
    assert_eq!(empty, []);
    world.commit_entry(&late);
    world.commit_entry(&empty);
    assert_eq!(world.wanted().len(), 1);
    assert!(world.rejected.is_empty(), "{:?}", world.rejected);
}

/// One of three managers is lost, and nobody knows yet whether that is committed when another one is
/// to be demoted: after both, one of two would answer, and two are needed.
#[test]
fn no_manager_is_let_go_before_it_is_known_what_came_of_the_last_change() {
    for committed in [true, false] {
        let mut world = World::new(2);
        world.run(SECOND);
        for number in [1, 2] {
            set_role(&mut world, number, Role::Manager).expect("a change");
            take_role(&mut world, number).expect("a role");
        }
        world.run(SECOND);
        world.cut(2);
        world.commits = false;
        while world.pending.is_none() {
            world.run(SECOND);
        }
        let late = world.fail_proposal().expect("a manager is lost");
        let asked = wanting_role(&mut world, 1, Role::Worker);
        let ticket = world.ask(asked);
        world.advance(SECOND);
        let empty = world.pending.take().expect("an entry is proposed behind it");
        assert_eq!(empty, [], "nothing is decided yet");
        if committed {
            world.commit_entry(&late);
        }
        world.commit_entry(&empty);
        world.commit();
        let refused =
            world.replies[&ticket].as_ref().is_err_and(|it| it.message.contains("quorum"));
        assert_eq!(refused, committed, "{:?}", world.replies[&ticket]);
    }
}

#[test]
fn a_change_of_a_node_is_given_up_in_the_end() {
    let mut world = World::new(1);
    world.run(SECOND);
    world.commits = false;
    let asked = wanting_role(&mut world, 1, Role::Manager);
    let ticket = world.ask(asked);
    for _ in 0..3 {
        assert!(!world.replies.contains_key(&ticket));
        world.fail_proposal().expect("it is proposed, or an entry before it");
        world.advance(SECOND);
    }
    let refusal = world.replies[&ticket].clone().expect_err("a refusal");
    assert_eq!(refusal.class, Class::Unavailable);
}

#[test]
fn a_retry_after_a_fail_over_is_no_second_create() {
    let mut world = World::new(1);
    let request = world.request_id();
    let create =
        || Request::CreateService { request: request.clone(), spec: Box::new(replicated("a", 1)) };
    let first = world.request(create());
    world.fail_over(2);
    assert_eq!(world.request(create()), first);
    assert_eq!(world.state.services().count(), 1);
}

#[test]
fn an_entry_of_an_older_term_is_rejected() {
    let mut world = World::new(1);
    let change = Change::RemoveTasks { tasks: vec![] };
    let command = Command { request: None, term: 1, date: world.date, change };
    let version = world.state.applied();
    let rejected = world.state.apply(version, 2, &command).map_err(Refusal::from);
    assert_eq!(rejected.map_err(|refusal| refusal.class), Err(Class::Unavailable));
}

#[test]
fn a_predecessor_that_does_not_end_is_waited_for_a_minute() {
    let mut world = World::new(2);
    let mut spec = replicated("web", 1);
    spec.task.container.image = "stuck:1".to_owned();
    world.create(spec);
    world.run(SECOND);
    let old = world.wanted()[0].clone();
    let node = old.node.clone().expect("a node");
    let number = if node == id(1) { 1 } else { 2 };
    world.set_availability(number, Availability::Drain);
    world.run(58 * SECOND);
    let held = world.wanted()[0].clone();
    assert_eq!(held.desired, Desired::Ready, "{}", world.tasks());
    world.run(4 * SECOND);
    let running = world.task(&held.id);
    assert_eq!((running.desired, running.status.state), (Desired::Running, TaskState::Running));
}

#[test]
fn a_node_heard_while_its_loss_is_committed_ends_up_ready() {
    let mut world = World::new(1);
    world.run(SECOND);
    world.cut(1);
    world.commits = false;
    world.advance(6 * SECOND);
    assert!(world.pending.is_some());
    world.link(1);
    world.commits = true;
    world.commit();
    assert_eq!(state_of(&world, 1).0, NodeState::Ready);
}

#[test]
fn only_the_newest_of_many_local_restarts_are_taken_over() {
    let mut world = World::new(1);
    world.create(replicated("web", 1));
    world.run(SECOND);
    let old = world.wanted()[0].clone();
    let date = world.date;
    let mut successors = Vec::new();
    let mut before = old.id.clone();
    for number in 1..=40 {
        let mut task = old.clone();
        task.id = TaskId::from_bits(1_000 + u128::from(number));
        task.predecessor = Some(before);
        task.failures = number;
        task.status.state = if number < 40 { TaskState::Failed } else { TaskState::Running };
        before = task.id.clone();
        successors.push(LocalSuccessor { task, made: date });
    }
    let description = world.state.node(&id(1)).expect("a node").description.clone();
    world.link_as(1, description, successors);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1, "{}", world.tasks());
    assert_eq!((&wanted[0].id, wanted[0].status.state), (&before, TaskState::Running));
    assert_eq!(world.state.tasks().count(), 5, "{}", world.tasks());
}

#[test]
fn a_certificate_is_renewed_for_the_key_that_joined() {
    let mut world = World::new(1);
    let node = world.state.node(&id(1)).expect("a node").clone();
    let csr = vec![1];
    let mut renew = |node: &NodeId, key_digest| {
        let (node, csr) = (node.clone(), csr.clone());
        world.request(Request::Renew(Box::new(RenewRequest {
            node,
            csr,
            key_digest,
            expired: None,
        })))
    };
    let Ok(Response::Admitted(admission)) = renew(&node.id, node.key_digest) else {
        panic!("a member is renewed")
    };
    assert_eq!((admission.node, admission.role), (node.id.clone(), node.role));
    let other_key = renew(&node.id, [77; 32]).unwrap_err();
    assert_eq!(other_key.class, Class::Unauthorized);
    assert!(other_key.message.contains("another key"), "{}", other_key.message);
    let stranger = renew(&NodeId::from_bits(99), node.key_digest).unwrap_err();
    assert!(stranger.message.contains("no longer part"), "{}", stranger.message);
}

#[test]
fn a_member_that_a_restored_cluster_does_not_know_is_taken_in_again() {
    let mut world = World::new(2);
    let gone = world.state.node(&id(2)).expect("a node").id.clone();
    let readmit = |world: &mut World, node: &NodeId, expired| {
        let (node, csr, key_digest) = (node.clone(), vec![1], [77; 32]);
        let asked = RenewRequest { node, csr, key_digest, expired };
        world.request(Request::Readmit(Box::new(asked)))
    };
    let unknown = NodeId::from_bits(99);
    let never = readmit(&mut world, &unknown, None).unwrap_err();
    assert!(never.message.contains("no longer part"), "{}", never.message);

    let remove = Request::RemoveNode {
        request: crate::types::RequestId::from_bits(9_002),
        id: gone.clone(),
        force: true,
    };
    assert_eq!(world.request(remove), Ok(Response::Done));
    let manager = world.state.node(&id(1)).expect("a node").clone();
    let status = ManagerStatus { address: "n1:2377".to_owned(), raft_id: 1 };
    let change = Change::ForceNewCluster { manager: manager.id.clone(), status };
    let (term, date) = (1, world.date);
    world.commit_entry(&[Command { request: None, term, date, change }]);
    assert!(world.state.roster().may_have_forgotten(&unknown));

    let removed = readmit(&mut world, &gone, None).unwrap_err();
    assert!(removed.message.contains("no longer part"), "{}", removed.message);
    let expired = readmit(&mut world, &unknown, Some(date)).unwrap_err();
    assert!(expired.message.contains("no longer part"), "{}", expired.message);
    let other_key = readmit(&mut world, &manager.id, None).unwrap_err();
    assert!(other_key.message.contains("another key"), "{}", other_key.message);
    for _again in 0..2 {
        // The second time it is known.
        let Ok(Response::Admitted(admission)) = readmit(&mut world, &unknown, None) else {
            panic!("it was a member")
        };
        assert_eq!((&admission.node, admission.role), (&unknown, Role::Worker));
    }
    assert_eq!(world.state.node(&unknown).expect("a node").key_digest, [77; 32]);
    assert!(!world.state.roster().may_have_forgotten(&unknown));
}

#[test]
fn a_certificate_that_ran_out_is_renewed_within_the_grace() {
    let mut world = World::new(1);
    let node = world.state.node(&id(1)).expect("a node").clone();
    let cluster = world.state.cluster().expect("a cluster").clone();
    let grace = Duration::from_secs(5 * 86_400);
    let shorter = Request::UpdateCluster(Box::new(ClusterUpdate {
        request: crate::types::RequestId::from_bits(9_001),
        version: cluster.version,
        spec: crate::types::ClusterSpec { rejoin_grace: grace, ..cluster.spec },
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: false,
        fresh_unlock_key: crate::types::UnlockKey([9; 32]),
        next_root: None,
    }));
    assert_eq!(world.request(shorter), Ok(Response::Done));
    let date = world.date;
    let mut renew = |ago: Duration| {
        let (node, key_digest) = (node.id.clone(), node.key_digest);
        let expired = Some(date - ago);
        let asked = RenewRequest { node, csr: vec![1], key_digest, expired };
        world.request(Request::Renew(Box::new(asked)))
    };
    assert!(renew(SECOND).is_ok() && renew(grace - SECOND).is_ok());
    let late = renew(grace + 60 * SECOND).unwrap_err();
    assert_eq!(late.class, Class::Unauthorized);
    assert!(late.message.contains("rejoin grace of 5 days"), "{}", late.message);
}
