//! Scripts: what is done to a cluster, and what is then seen of it.
//!
//! A line that begins with `> ` is a command; the lines after it are what it shows. Nodes are
//! called `n0` (the first manager), `n1` and so on in the order they joined, and `leader`.
//!
//! - `managers N`: until there are so many; `promote|demote NODE`; `hand-over`: another leads
//! - `join N`, `create NAME N|global|job:N/N|global-job OPTION...`, `scale NAME N`,
//!   `update NAME OPTION...` (`again` forces it), `rollback NAME`, `remove NAME`
//! - options: `image=NAME` (`missing`, `crashing` and `slow` are what they say), `zone=Z`, `gpu=N`,
//!   `attempts=N`, `well=never|after:SECONDS|until:SECONDS`, and of updates `parallelism=N`,
//!   `delay=SECONDS`, `monitor=SECONDS`, `deadline=SECONDS`, `ratio=PART`, `order=start-first`,
//!   `on-failure=continue|rollback`; of rollbacks the same behind `rollback-`
//! - `drain|pause|active NODE`, `label NODE ZONE`, `forget NODE`
//! - `kill NODE NAME`: ends one container of the service there
//! - `crash NODE` ends the daemon, `off NODE` the machine, `on NODE` starts either
//! - `cut NODE`, `mend NODE`: its links to all others; `all` for every worker
//! - `hang`, `mend-disk`: the disk of the first manager's log, or of that of the node named behind
//!   it; `try NAME`: creates a service, once
//! - `rotate`: the root is replaced; `backup`, and `restore`: all managers are lost, and another
//!   machine takes the place of the one that wrote the backup
//! - `wait SECONDS`, `settle`: until all is as it should be
//! - `show`: nodes, wanted tasks, containers
//! - `watch NAME SECONDS`: what becomes of its update and of its tasks, with the time of each change

use super::{
    load::{health_check, service_spec},
    trust::Papers,
    world::{Crash, World},
};
use crate::{
    cluster::{Query, Request, Response},
    types::{
        Availability, Constraint, FailureAction, Mode, Node, NodeId, NodeSpec, Ratio, Role,
        Service, ServiceSpec, Task, UpdateConfig, UpdateOrder,
    },
};
use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The longest a single command may take, in virtual time.
const COMMAND_LIMIT: Duration = Duration::from_secs(1_200);

/// How long everything must be as it should be before it counts as settled.
const SETTLED: u32 = 5;

#[test]
fn scenarios_show_what_they_expect() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scenario");
    let entries = fs::read_dir(&folder).expect("the scenarios are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are no scenarios");
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if env::var("UPDATE_EXPECT").is_ok() {
            fs::write(&path, played).unwrap();
        } else {
            assert_eq!(script, played, "{}; UPDATE_EXPECT=1 rewrites it", path.display());
        }
    }
}

/// Plays a script; returns it with what its commands show.
fn play(script: &str) -> String {
    // Nodes follow roots where a run has more than one.
    let seed = if script.contains("> rotate") { 2 } else { 1 };
    let world = World::new(seed, env::var("MIDGE_SIM_TRACE").is_ok());
    let manager = NodeId::from_bits(1);
    let own = ([0; 32], Papers::founding());
    world.add(&manager, Role::Manager, world.new_address(), Vec::new(), own);
    world.start(&manager);
    perform(&world, |world| async move {
        world.bootstrap().await;
        String::new()
    });
    let (mut played, backup) = (String::new(), Arc::new(Mutex::new(None)));
    for line in script.lines() {
        if let Some(command @ ("backup" | "restore")) = line.strip_prefix("> ") {
            let (file, write) = (Arc::clone(&backup), command == "backup");
            let shown = perform(&world, |world| async move {
                if !write {
                    world.restore(file.lock().unwrap().take().expect("there is a backup"));
                    return String::new();
                }
                let written = world.backup().await;
                let shown = format!("with the roots {:?}\n", written.roots());
                *file.lock().unwrap() = Some(written);
                shown
            });
            writeln!(played, "{line}").unwrap();
            played += &shown;
        } else if let Some(command) = line.strip_prefix("> ") {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let shown = perform(&world, |world| async move { world.command(&words).await });
            writeln!(played, "{line}").unwrap();
            played += &shown;
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(played, "{line}").unwrap();
        }
    }
    world.end();
    played
}

/// Runs one command to its end.
fn perform<F: Future<Output = String> + Send + 'static>(
    world: &World,
    work: impl FnOnce(World) -> F,
) -> String {
    let future = work(world.clone());
    world.0.executor.block_on(0, COMMAND_LIMIT, future)
}

/// Makes the spec that the words of a `create` describe.
fn described(name: &str, mode: &str, options: &[&str]) -> ServiceSpec {
    let mut spec = service_spec(name, parse_mode(mode));
    set_options(&mut spec, options);
    spec
}

/// Sets what the words of a `create` or an `update` say.
fn set_options(spec: &mut ServiceSpec, options: &[&str]) {
    for (option, value) in options.iter().filter_map(|word| word.split_once('=')) {
        match option {
            "image" => value.clone_into(&mut spec.task.container.image),
            "zone" => {
                let constraint = Constraint::parse(&format!("node.labels.zone=={value}"));
                spec.task.placement.constraints.push(constraint.unwrap());
            }
            "well" => {
                let words: Vec<&str> = value.split(':').collect();
                spec.task.container.health = Some(health_check(&words));
            }
            "gpu" => {
                spec.task.generic.insert("gpu".to_owned(), value.parse().unwrap());
            }
            "attempts" => spec.task.restart.max_attempts = value.parse().unwrap(),
            other => match other.strip_prefix("rollback-") {
                Some(option) => set_update_option(&mut spec.rollback, option, value),
                None => set_update_option(&mut spec.update, other, value),
            },
        }
    }
}

fn set_update_option(config: &mut UpdateConfig, option: &str, value: &str) {
    let seconds = || Duration::from_secs(value.parse().unwrap());
    match (option, value) {
        ("parallelism", _) => config.parallelism = value.parse().unwrap(),
        ("delay", _) => config.delay = seconds(),
        ("monitor", _) => config.monitor = seconds(),
        ("deadline", _) => config.progress_deadline = seconds(),
        ("ratio", _) => {
            config.max_failure_ratio = Ratio::from_fraction(value.parse().unwrap()).unwrap();
        }
        ("order", "start-first") => config.order = UpdateOrder::StartFirst,
        ("order", "stop-first") => config.order = UpdateOrder::StopFirst,
        ("on-failure", "pause") => config.failure_action = FailureAction::Pause,
        ("on-failure", "continue") => config.failure_action = FailureAction::Continue,
        ("on-failure", "rollback") => config.failure_action = FailureAction::Rollback,
        other => panic!("{other:?} is no option of a service"),
    }
}

impl World {
    #[expect(clippy::too_many_lines, reason = "one list of commands")]
    async fn command(self, words: &[String]) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["join", count] => {
                for _ in 0..count.parse::<u32>().unwrap() {
                    self.join(Role::Worker).await;
                }
            }
            ["managers", count] => {
                while self.managers().len() < count.parse().unwrap() {
                    self.join(Role::Manager).await;
                }
                self.settle().await;
            }
            ["promote" | "demote", node] => {
                let id = self.node_named(node);
                let nodes = self.nodes().await;
                let node = nodes.into_iter().find(|node| node.id == id).expect("it is a member");
                let promote = words[0] == "promote";
                let role = if promote { Role::Manager } else { Role::Worker };
                let spec = NodeSpec { role, ..node.spec.clone() };
                if let Err(refusal) = self.update_node(&node, spec).await {
                    return format!("{refusal}\n");
                }
            }
            ["hand-over"] => self.hand_over(&self.leader(), Duration::from_secs(10)).await,
            ["create", name, mode, rest @ ..] => {
                if let Err(refusal) = self.create(described(name, mode, rest)).await {
                    return format!("{refusal}\n");
                }
            }
            ["scale", name, count] => {
                let service = self.service_named(name).await;
                let mut spec = service.spec.clone();
                spec.mode = parse_mode(count);
                self.update(&service, spec).await.expect("nobody else writes");
            }
            ["update", name, rest @ ..] => {
                let service = self.service_named(name).await;
                let mut spec = service.spec.clone();
                spec.task.force_update += u64::from(rest.contains(&"again"));
                set_options(&mut spec, rest);
                self.update(&service, spec).await.expect("nobody else writes");
            }
            ["rollback", name] => {
                let Service { id, version, .. } = self.service_named(name).await;
                let request = self.request_id();
                let request = Request::RollbackService { request, id, version };
                if let Err(refusal) = self.ask(request).await {
                    return format!("{refusal}\n");
                }
            }
            ["remove", name] => {
                let service = self.service_named(name).await;
                self.remove_service(service.id).await.expect("it is there");
            }
            ["drain" | "pause" | "active" | "label", node, rest @ ..] => {
                self.change_node(words[0], node, rest).await;
            }
            ["forget", node] => {
                if let Err(refusal) = self.forget(&self.node_named(node)).await {
                    return format!("{refusal}\n");
                }
            }
            ["kill", node, service] => self.kill_one(&self.node_named(node), service),
            ["crash", node] => self.crash(&self.node_named(node), Crash::Kill),
            ["off", node] => self.crash(&self.node_named(node), Crash::Power),
            ["on", node] => self.start(&self.node_named(node)),
            ["cut" | "mend", which] => self.cut(words[0] == "cut", which),
            ["hang" | "mend-disk", rest @ ..] => {
                let node = self.node_named(rest.first().copied().unwrap_or("n0"));
                self.hang(&node, words[0] == "hang");
            }
            ["try", name] => return self.try_once(name).await,
            ["rotate"] => self.rotate_root().await,
            ["wait", seconds] => {
                self.0.executor.sleep(Duration::from_secs(seconds.parse().unwrap())).await;
            }
            ["settle"] => self.settle().await,
            ["show"] => return self.show().await,
            ["watch", name, seconds] => {
                return self.watch(name, Duration::from_secs(seconds.parse().unwrap())).await;
            }
            other => panic!("{other:?} is no command"),
        }
        String::new()
    }

    /// Ends one container of a service on a node.
    fn kill_one(&self, node: &NodeId, service: &str) {
        // The manager may be away.
        let named = self.checks().state.service_by_name(service).map(|it| it.id.clone());
        let id = named.expect("it exists");
        let running = self.machines()[node].fake.lock().unwrap().running();
        let of_it = |task: &&crate::types::TaskId| {
            self.checks().state.task(task).is_some_and(|task| task.service == id)
        };
        let task = running.iter().find(of_it).cloned().expect("one runs there");
        self.kill_container(node, &task);
    }

    /// Asks for a service; shows the answer and how long it took, in seconds.
    async fn try_once(&self, name: &str) -> String {
        let (request, begun) = (self.request_id(), self.0.executor.now());
        let spec = Box::new(service_spec(name, Mode::Replicated { replicas: 1 }));
        let handle = self.handle(&self.leader()).expect("the manager runs");
        let limit = Duration::from_secs(60);
        let result = handle.request(Request::CreateService { request, spec }, limit).await;
        let took = self.0.executor.now().since(begun).as_secs();
        let health = handle.status().manager_health.map_or_else(String::new, |it| it + "\n");
        match result {
            Ok(_) => format!("done after {took} s\n{health}"),
            Err(refusal) => format!("refused after {took} s: {refusal}\n{health}"),
        }
    }

    fn node_named(&self, name: &str) -> NodeId {
        if name == "leader" {
            return self.leader();
        }
        let number: usize = name[1..].parse().expect("nodes are called n0, n1, ...");
        self.0.names.lock().unwrap()[number].clone()
    }

    async fn service_named(&self, name: &str) -> Service {
        let services = self.services().await;
        services.into_iter().find(|service| service.spec.name == name).expect("it exists")
    }

    async fn change_node(&self, what: &str, name: &str, rest: &[&str]) {
        let id = self.node_named(name);
        let nodes = self.nodes().await;
        let node: Node = nodes.into_iter().find(|node| node.id == id).expect("it is a member");
        let mut spec = node.spec.clone();
        match what {
            "drain" => spec.availability = Availability::Drain,
            "pause" => spec.availability = Availability::Pause,
            "active" => spec.availability = Availability::Active,
            _ => drop(spec.labels.insert("zone".to_owned(), rest.concat())),
        }
        self.update_node(&node, spec).await.expect("nobody else writes");
    }

    fn cut(&self, cut: bool, which: &str) {
        let nodes: Vec<NodeId> = match which {
            "all" => {
                let machines = self.machines();
                let workers = machines.iter().filter(|(_, it)| it.role == Role::Worker);
                workers.map(|(node, _)| node.clone()).collect()
            }
            name => vec![self.node_named(name)],
        };
        let mut network = self.network();
        for node in nodes {
            if cut {
                network.cut_up.insert(node.clone());
                network.cut_down.insert(node);
            } else {
                network.cut_up.remove(&node);
                network.cut_down.remove(&node);
            }
        }
    }

    async fn settle(&self) {
        let (mut calm, begun) = (0, self.0.executor.now());
        while calm < SETTLED {
            self.0.executor.sleep(Duration::from_secs(1)).await;
            let unrest = self.unrest();
            calm = if unrest.is_none() { calm + 1 } else { 0 };
            let late = self.0.executor.now().since(begun) > COMMAND_LIMIT / 2;
            assert!(!late, "it does not settle: {unrest:?}");
        }
    }

    async fn show(&self) -> String {
        let mut text = String::new();
        let nodes = self.nodes().await;
        let (leader, managers) =
            (self.leader(), nodes.iter().filter(|node| node.manager.is_some()).count());
        for node in &self.in_order(nodes, |node| Some(node.id.clone())) {
            let (state, availability) = (node.status.state, node.spec.availability);
            let standing = match (&node.manager, node.id == leader) {
                (Some(_), _) if managers < 2 => "",
                (Some(_), true) => " leader",
                (Some(_), false) => " manager",
                (None, _) => "",
            };
            writeln!(text, "{} {state} {availability}{standing}", self.name(&node.id)).unwrap();
        }
        let query = Query::Tasks { services: Vec::new(), nodes: Vec::new() };
        let Ok(Response::Tasks(tasks)) = self.ask(Request::Read(query)).await else {
            panic!("tasks can be read");
        };
        let wanted: Vec<Task> = tasks.into_iter().filter(|t| t.desired.is_wanted()).collect();
        let mut lines: Vec<String> = wanted.iter().map(|task| self.line_of(task)).collect();
        lines.sort();
        for line in lines {
            writeln!(text, "{line}").unwrap();
        }
        let machines = self.machines();
        let mut counts = BTreeMap::new();
        for (node, machine) in machines.iter() {
            let running = machine.fake.lock().unwrap().running().len();
            counts.insert(self.number(node), (self.name(node), running));
        }
        let counts: Vec<_> = counts.values().map(|(name, n)| format!("{name}={n}")).collect();
        writeln!(text, "containers {}", counts.join(" ")).unwrap();
        text
    }

    /// Shows what becomes of a service in the next time, looking five times a second.
    async fn watch(&self, name: &str, time: Duration) -> String {
        let (mut text, mut last) = (String::new(), String::new());
        let begun = self.0.executor.now();
        loop {
            let now = self.0.executor.now();
            let seen = self.look_at(name);
            if seen != last {
                let tenths = now.since(begun).as_millis() / 100;
                let time = format!("{}.{} s", tenths / 10, tenths % 10);
                for (at, line) in seen.lines().enumerate() {
                    let shown = if at == 0 { time.as_str() } else { "" };
                    writeln!(text, "{shown:>8}  {line}").unwrap();
                }
                last = seen;
            }
            if now.since(begun) >= time {
                return text;
            }
            self.0.executor.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the update of a service in a line, and the tasks of each slot that are wanted or
    /// still live in one. Of what was committed: the steps to READY are not in it.
    fn look_at(&self, name: &str) -> String {
        let checks = self.checks();
        let Some(service) = checks.state.service_by_name(name) else { return String::new() };
        let mut text = match &service.update {
            Some(update) => format!("{}: {}\n", update.state.as_str(), update.message),
            None => "no update\n".to_owned(),
        };
        let mut slots: BTreeMap<String, Vec<&Task>> = BTreeMap::new();
        for task in checks.state.tasks_of_service(&service.id) {
            text = text.replace(task.id.as_str(), &task.short_name());
            if task.desired.is_wanted() || task.status.state.is_live() {
                let node = task.node.as_ref().filter(|_| task.slot == 0);
                let slot = node.map_or_else(|| task.slot.to_string(), |node| self.name(node));
                slots.entry(slot).or_default().push(task);
            }
        }
        for (slot, mut tasks) in slots {
            tasks.sort_by_key(|task| (task.created, task.predecessor.is_some()));
            let tasks = tasks.into_iter().map(|task| {
                let image = &task.spec.container.image;
                let node = task.node.as_ref().map_or_else(|| "-".to_owned(), |it| self.name(it));
                format!("{image} on {node} {}/{}", task.desired, task.status.state)
            });
            let tasks: Vec<String> = tasks.collect();
            writeln!(text, "{slot}: {}", tasks.join(", ")).unwrap();
        }
        text
    }

    fn line_of(&self, task: &Task) -> String {
        let node = task.node.as_ref().map_or_else(|| "-".to_owned(), |node| self.name(node));
        let slot = if task.slot == 0 { node.clone() } else { task.slot_number().to_string() };
        let why: Vec<_> = task.reasons.iter().map(|reason| format!("{:?}", reason.code)).collect();
        let error = if task.status.error.is_empty() { "" } else { ": " };
        let has: String = task.generic.iter().map(|resource| format!(" {resource}")).collect();
        format!(
            "{}.{slot} {node} {}/{} {}{has}{error}{}",
            task.service_name,
            task.desired,
            task.status.state,
            why.join(","),
            task.status.error
        )
    }

    fn in_order<T>(&self, mut all: Vec<T>, node: impl Fn(&T) -> Option<NodeId>) -> Vec<T> {
        all.sort_by_key(|item| node(item).map(|id| self.number(&id)));
        all
    }
}

fn parse_mode(text: &str) -> Mode {
    if text == "global" {
        return Mode::Global;
    }
    if text == "global-job" {
        return Mode::GlobalJob;
    }
    let number = |text: &str| text.parse().expect("a number is expected");
    if let Some(job) = text.strip_prefix("job:") {
        let (at_a_time, total) = job.split_once('/').expect("how many at a time, and in all");
        let (max_concurrent, total_completions) = (number(at_a_time), number(total));
        return Mode::ReplicatedJob { max_concurrent, total_completions };
    }
    Mode::Replicated { replicas: number(text) }
}
