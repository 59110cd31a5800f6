//! What several managers cost: `make bench BENCH=managers`.

use crate::{
    host::{Host, Network, eventually},
    median,
    process::Process,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How many services each measurement of writes makes.
const WRITES: usize = 800;

/// How many writers there are at once, in turn.
const WRITERS: [usize; 2] = [1, 8];

/// How many services are listed.
const SERVICES: usize = 1_000;

/// How many tasks they have.
const TASKS: usize = 10_000;

/// How often a leader is lost; the median counts.
const LOSSES: usize = 3;

/// How many writes go before the leader is lost.
const WRITES_BEFORE: usize = 50;

/// How long is written after it is gone: longer than any election.
const AFTER: Duration = Duration::from_secs(4);

pub(crate) fn run() {
    for managers in [1, 3] {
        let network = Network::managers(managers, 0);
        for writers in WRITERS {
            let rate = median((0..3).map(|_| write(network.manager(), writers)).collect());
            println!(
                "service creates a second, {managers} manager(s), {writers} client(s): {rate:.0}"
            );
        }
        if managers == 1 {
            full(&network);
        }
    }
    let mut network = Network::managers(3, 0);
    for (how, clean) in [("killed", false), ("stopped", true)] {
        let gaps: Vec<f64> = (0..LOSSES).map(|_| lose_leader(&mut network, clean)).collect();
        let worst = gaps.iter().copied().fold(0.0, f64::max);
        let middle = median(gaps);
        println!("the leader of three is {how}: no write for {middle:.2} s, at most {worst:.2} s");
    }
}

/// A client of the API that keeps its connection.
struct Client {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
}

impl Client {
    fn of(host: &Host) -> Self {
        Self { socket: host.dir.join("midge.sock"), stream: None }
    }

    /// Asks, and returns the status and the answer; none where nothing answers in time.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Option<(u16, Vec<u8>)> {
        let answer = self.try_ask(method, path, body);
        if answer.is_none() {
            self.stream = None;
        }
        answer
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &Value) -> Option<(u16, Vec<u8>)> {
        if self.stream.is_none() {
            let stream = UnixStream::connect(&self.socket).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all((head + &body).as_bytes()).ok()?;
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let status = line.split_whitespace().nth(1)?.parse().ok()?;
        let mut length = Some(0);
        loop {
            line.clear();
            stream.read_line(&mut line).ok()?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            } else if header.starts_with("transfer-encoding:") {
                length = None;
            }
        }
        let answer = match length {
            Some(length) => exactly(stream, length)?,
            None => chunks(stream)?,
        };
        Some((status, answer))
    }
}

fn exactly(stream: &mut BufReader<UnixStream>, length: usize) -> Option<Vec<u8>> {
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

fn chunks(stream: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        answer.extend(exactly(stream, length)?);
        exactly(stream, 2)?;
        if length == 0 {
            return Some(answer);
        }
    }
}

fn service(name: &str, replicas: usize) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": "bb:1", "Command": ["sleep", "3600"] } },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}

fn create(client: &mut Client, name: &str, replicas: usize) {
    let answer = client.ask("POST", "/services/create", &service(name, replicas));
    let status = answer.as_ref().map(|(status, _)| *status);
    assert_eq!(status, Some(201), "a service is made: {answer:?}");
}

fn remove_all(host: &Host) {
    let mut client = Client::of(host);
    let (_, list) = client.ask("GET", "/services", &Value::Null).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    for service in list.as_array().unwrap() {
        let path = format!("/services/{}", service["ID"].as_str().unwrap());
        client.ask("DELETE", &path, &Value::Null).unwrap();
    }
}

/// Makes services of no tasks, each write acknowledged by a majority's disks; returns how many a
/// second.
fn write(host: &Host, writers: usize) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for writer in 0..writers {
            let mut client = Client::of(host);
            scope.spawn(move || {
                for number in 0..WRITES / writers {
                    create(&mut client, &format!("w{writer}-{number}"), 0);
                }
            });
        }
    });
    let rate = WRITES as f64 / start.elapsed().as_secs_f64();
    remove_all(host);
    rate
}

/// A thousand services with ten thousand tasks that no node can run.
fn full(network: &Network) {
    let host = network.manager();
    let mut client = Client::of(host);
    let mut many = |number: usize| {
        let mut spec = service(&format!("many-{number}"), TASKS / SERVICES);
        spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.labels.none==1"] });
        let (status, _) = client.ask("POST", "/services/create", &spec).unwrap();
        assert_eq!(status, 201);
    };
    (0..SERVICES).for_each(&mut many);
    // Only the last service's: a list of all of them is memory of its own.
    let path = format!("/tasks?filters=%7B%22service%22%3A%5B%22many-{}%22%5D%7D", SERVICES - 1);
    eventually("every task to be there", || {
        let (_, tasks) = client.ask("GET", &path, &Value::Null)?;
        let tasks: Value = serde_json::from_slice(&tasks).ok()?;
        (tasks.as_array()?.len() == TASKS / SERVICES).then_some(())
    });
    let memory = Process::of(host.pid()).resident();
    println!("a manager with {SERVICES} services and {TASKS} tasks: {memory:.1} MiB resident");
    let lists = (0..20).map(|_| {
        let start = Instant::now();
        client.ask("GET", "/services", &Value::Null).unwrap();
        start.elapsed().as_secs_f64() * 1_000.0
    });
    println!("list {SERVICES} services through the API: {:.1} ms", median(lists.collect()));
}

/// Ends the leader while a client writes through another manager without pause; returns the longest
/// time between two writes that were taken.
fn lose_leader(network: &mut Network, clean: bool) -> f64 {
    network.await_nodes(3, 0);
    let leader = eventually("a leader", || network.manager().leader()) - 1;
    let writer = (leader + 1) % 3;
    let mut client = Client::of(&network.hosts[writer]);
    let (done, lost) = (AtomicBool::new(false), Barrier::new(2));
    let gap = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut number, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
            while !done.load(Ordering::Relaxed) {
                let answer =
                    client.ask("POST", "/services/create", &service(&format!("w{number}"), 0));
                number += 1;
                if answer.is_some_and(|(status, _)| status == 201) {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                if number == WRITES_BEFORE {
                    lost.wait();
                    (longest, last) = (Duration::ZERO, Instant::now());
                }
            }
            longest
        });
        lost.wait();
        if clean {
            network.hosts[leader].stop_daemon();
        } else {
            network.hosts[leader].kill_daemon();
        }
        thread::sleep(AFTER);
        done.store(true, Ordering::Relaxed);
        writing.join().unwrap()
    });
    remove_all(&network.hosts[writer]);
    network.hosts[leader].start_daemon();
    gap.as_secs_f64()
}
