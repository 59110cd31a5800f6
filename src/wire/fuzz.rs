//! Frames of peers.

use crate::{
    cluster::{
        Class, Query, Refusal, Request, Response,
        leader::tests::{World, replicated},
    },
    types::{
        Assignments, ChoreDone, Date, FromManager, FromWorker, Register, RequestId, Sequence, Task,
        TaskId, TaskReport, TerminalSize,
    },
    util::fuzz,
    wire::*,
};
use std::time::Duration;

/// What reads one kind of message; the first byte of an input chooses among them.
const KINDS: [fuzz::Target; 9] = [
    read::<FromWorker>,
    read::<FromManager>,
    read::<StreamRequest>,
    read::<StreamReply>,
    read::<ContainerInput>,
    read::<ContainerFrame>,
    read::<LogFrame>,
    read::<LoadFrame>,
    read::<ChoreFrame>,
];

/// What was decoded is encoded, and is the same when it was decoded again.
fn read<M: Message>(payload: &[u8]) -> Option<()> {
    let message: M = decode(payload).ok()?;
    let frame = encode(&message).expect("what was decoded can be encoded");
    let again: M = decode(&frame[HEADER_LEN..]).expect("what was encoded can be decoded");
    assert_eq!(encode(&again), Ok(frame));
    Some(())
}

fn seed<M: Message>(kind: u8, message: &M) -> Vec<u8> {
    let frame = encode(message).unwrap();
    [&[kind], &frame[HEADER_LEN..]].concat()
}

fn from_worker(tasks: &[Task]) -> Vec<Vec<u8>> {
    let session = 1;
    let report = |task: &Task| TaskReport { task: task.id.clone(), status: task.status.clone() };
    let tasks: Vec<_> = tasks.iter().map(report).collect();
    let register = Register {
        session,
        description: Default::default(),
        images: Vec::new(),
        tasks: tasks.clone(),
        successors: Vec::new(),
    };
    vec![
        seed(0, &FromWorker::Register(Box::new(register))),
        seed(0, &FromWorker::Heartbeat { session, applied: Sequence::default() }),
        seed(0, &FromWorker::Report { session, number: 2, tasks }),
    ]
}

fn from_manager(tasks: Vec<Task>) -> Vec<Vec<u8>> {
    let session = 1;
    let assignments = Assignments {
        session,
        sequence: Sequence { epoch: 1, term: 2, number: 3 },
        complete: true,
        tasks,
        removed: vec![TaskId::from_bits(4)],
        images: None,
    };
    vec![
        seed(1, &FromManager::Registered { session, heartbeat: Duration::from_secs(2) }),
        seed(1, &FromManager::Assignments(Box::new(assignments))),
    ]
}

fn streams(tasks: Vec<Task>) -> Vec<Vec<u8>> {
    let spec = Box::new(replicated("web", 2));
    let create = Request::CreateService { request: RequestId::from_bits(5), spec };
    let relayed = [create, Request::Read(Query::Services)];
    let logs = LogsRequest { tasks: vec![TaskId::from_bits(6)], ..LogsRequest::default() };
    let processes = ContainerOp::Processes { options: "-ef".to_owned() };
    let container = ContainerRequest { task: TaskId::from_bits(7), op: processes };
    let mut seeds = vec![
        seed(2, &StreamRequest::Root),
        seed(2, &StreamRequest::Renew { csr: vec![1, 2] }),
        seed(2, &StreamRequest::Logs(Box::new(logs))),
        seed(2, &StreamRequest::Container(Box::new(container))),
        seed(3, &StreamReply::Refused(Refusal::new(Class::NotFound, "no"))),
        seed(3, &StreamReply::Response(Box::new(Response::Tasks(tasks)))),
    ];
    seeds.extend(relayed.map(|request| seed(2, &StreamRequest::Relay(Box::new(request)))));
    seeds
}

fn contents() -> Vec<Vec<u8>> {
    let line = LogFrame::Line {
        task: TaskId::from_bits(8),
        stderr: true,
        date: Date::EPOCH,
        line: b"text\n".to_vec(),
        attributes: [("a".to_owned(), "b".to_owned())].into(),
    };
    vec![
        seed(4, &ContainerInput::Data(vec![1, 2, 3])),
        seed(4, &ContainerInput::Resize(TerminalSize { width: 80, height: 25 })),
        seed(5, &ContainerFrame::Usage(Box::default())),
        seed(6, &line),
        seed(7, &LoadFrame::Loaded(vec!["docker.io/library/bb:1".to_owned()])),
        seed(8, &ChoreFrame(Ok(ChoreDone::Images(Vec::new())))),
    ]
}

#[test]
fn frames() {
    let mut world = World::new(1);
    let _service = world.create(replicated("web", 2));
    world.run(Duration::from_secs(1));
    let tasks = world.wanted();
    let seeds =
        [from_worker(&tasks), from_manager(tasks.clone()), streams(tasks), contents()].concat();
    fuzz::check("frames", &seeds, |bytes| {
        let (kind, payload) = bytes.split_first()?;
        KINDS.get(usize::from(*kind))?(payload)
    });
}
