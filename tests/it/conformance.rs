//! What the real tools print, against what the docker command and midge print on midge's API.
//!
//! `tests/data/conformance/*.txt` hold command lines and what they printed with Docker's engine.
//! Each file is run twice on one cluster, by the unmodified docker command and by midge. Ids, times
//! and addresses are blurred. Where something is meant to differ, `differences.txt` says why; a
//! difference that is not needed any more fails the test, as one does that nobody gave a reason for.
//!
//! A file holds, one a line: `$ docker ...` with the output below (`[stderr]` before lines of
//! standard error, `[exit N]` where it is not 0), then, where that differs on purpose, the same for
//! `[docker KEY]`, `[midge KEY]` or `[both KEY]`. And directions:
//!
//! - `@on N M`: docker talks to node N from here on, midge to node M.
//! - `@only docker`, `@only midge`, `@only both`: who runs what follows.
//! - `@wait SERVICE N [M]`: until N tasks of the service run and none is on its way, and there are M
//!   with those before them.
//! - `@managers N`: until so many managers answer, and there are no others.
//! - `@completed SERVICE`: until its update counts as completed.
//! - `@blur nodes`, `@blur slots`, `@blur off`: names of nodes, or of slots, do not matter.
//!
//! `UPDATE_EXPECT=1` writes what was printed as `[docker ?]` and `[midge ?]`, to be given a reason.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, Network, can_run, eventually, midge_binary, note, which};
use regex::Regex;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// The files in the order in which they are run: each goes on where the one before has ended.
const FILES: [&str; 10] = [
    "no-swarm.txt",
    "init.txt",
    "join.txt",
    "swarm.txt",
    "node.txt",
    "roles.txt",
    "errors.txt",
    "service.txt",
    "logs.txt",
    "wait.txt",
];

/// The file whose two runs wait long, and are made at the same time.
const PARALLEL: &str = "wait.txt";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tool {
    Docker,
    Midge,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Midge => "midge",
        }
    }

    fn is(self, name: &str) -> bool {
        name == "both" || name == self.name()
    }
}

/// A line of a file with what belongs to it.
#[derive(Debug)]
enum Step {
    /// A direction or a title, as it stands.
    Direction(String),
    Case(Case),
}

#[derive(Debug)]
struct Case {
    command: String,
    recorded: String,
    /// For whom, why, and what is printed instead.
    variants: Vec<(String, String, String)>,
}

impl Case {
    fn variant(&self, tool: Tool) -> Option<&(String, String, String)> {
        self.variants.iter().find(|(who, ..)| tool.is(who))
    }
}

fn parse(text: &str) -> Vec<Step> {
    let header = Regex::new(r"^\[(docker|midge|both) (\S+)\]$").unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let (command, recorded) = (command.to_owned(), String::new());
            steps.push(Step::Case(Case { command, recorded, variants: Vec::new() }));
        } else if line.starts_with(['@', '#']) {
            steps.push(Step::Direction(line.to_owned()));
        } else if let Some(Step::Case(case)) = steps.last_mut() {
            if let Some(found) = header.captures(line) {
                case.variants.push((found[1].to_owned(), found[2].to_owned(), String::new()));
                continue;
            }
            let into = case.variants.last_mut().map_or(&mut case.recorded, |(.., text)| text);
            into.push_str(line);
            into.push('\n');
        } else {
            assert!(line.trim().is_empty(), "{line:?} belongs to nothing");
        }
    }
    steps
}

fn render(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Direction(line) => writeln!(out, "{line}").unwrap(),
            Step::Case(case) => {
                writeln!(out, "\n$ {}\n{}", case.command, case.recorded.trim_end()).unwrap();
                for (who, key, text) in &case.variants {
                    writeln!(out, "[{who} {key}]\n{}", text.trim_end()).unwrap();
                }
                out.push('\n');
            }
        }
    }
    let many = Regex::new(r"\n{3,}").unwrap();
    many.replace_all(out.trim_start(), "\n\n").into_owned()
}

/// How something differs on purpose.
#[derive(Debug)]
struct Rule {
    key: String,
    who: String,
    what: What,
}

#[derive(Debug)]
enum What {
    /// What was recorded is changed before it is compared.
    Change(Regex, String),
    /// Such lines of what is printed are not compared.
    Drop(Regex),
    /// Such lines of what was recorded are not.
    Miss(Regex),
    /// What is at this place of JSON is not compared.
    Path(String),
}

/// Everything that differs on purpose: reasons by key, and rules.
struct Differences {
    reasons: BTreeMap<String, String>,
    rules: Vec<Rule>,
    used: Mutex<BTreeSet<String>>,
}

impl Differences {
    fn read() -> Self {
        let text = fs::read_to_string(data().join("differences.txt")).unwrap();
        let (mut reasons, mut rules) = (BTreeMap::new(), Vec::new());
        let mut key = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let Some(rule) = line.strip_prefix("    ") else {
                let (name, reason) = line.split_once(": ").expect(line);
                key = name.to_owned();
                assert!(reasons.insert(key.clone(), reason.to_owned()).is_none(), "{name} twice");
                continue;
            };
            let mut words = rule.splitn(3, ' ');
            let (who, verb) = (words.next().unwrap().to_owned(), words.next().unwrap());
            let rest = words.next().unwrap();
            let regex = |text: &str| Regex::new(&format!("(?m){text}")).unwrap();
            let what = match verb {
                "change" => {
                    let (from, to) = rest.split_once(" => ").expect(line);
                    What::Change(regex(from), to.trim_matches('"').replace("\\n", "\n"))
                }
                "drop" => What::Drop(regex(rest)),
                "miss" => What::Miss(regex(rest)),
                "path" => What::Path(rest.to_owned()),
                _ => panic!("{line}"),
            };
            rules.push(Rule { key: key.clone(), who, what });
        }
        Self { reasons, rules, used: Mutex::default() }
    }

    fn used(&self, key: &str) {
        self.used.lock().unwrap().insert(key.to_owned());
    }

    /// Leaves out of what is expected in place of the record the lines that are not compared.
    fn shown(&self, tool: Tool, text: &str) -> String {
        let rules = self.rules.iter().filter(|rule| tool.is(&rule.who));
        rules.fold(text.to_owned(), |text, rule| match &rule.what {
            What::Drop(lines) => without(&text, lines),
            _ => text,
        })
    }

    /// Applies the rules to what was recorded and to what was printed.
    fn apply(&self, tool: Tool, recorded: &str, printed: &str) -> (String, String) {
        let (mut recorded, mut printed) = (recorded.to_owned(), printed.to_owned());
        for rule in self.rules.iter().filter(|rule| tool.is(&rule.who)) {
            let before = (recorded.clone(), printed.clone());
            match &rule.what {
                What::Change(from, to) => {
                    recorded = from.replace_all(&recorded, to.as_str()).into_owned();
                }
                What::Drop(lines) => printed = without(&printed, lines),
                What::Miss(lines) => recorded = without(&recorded, lines),
                What::Path(path) => {
                    // Left out only where it differs, so that a rule without need is found.
                    let at = |text: &str| -> Vec<String> {
                        text.lines().filter(|l| is_at(l, path)).map(str::to_owned).collect()
                    };
                    if at(&recorded) != at(&printed) {
                        let others = |text: &str| {
                            let lines = text.lines().filter(|line| !is_at(line, path));
                            lines.fold(String::new(), |all, line| all + line + "\n")
                        };
                        (recorded, printed) = (others(&recorded), others(&printed));
                    }
                }
            }
            if (&recorded, &printed) != (&before.0, &before.1) {
                self.used(&rule.key);
            }
        }
        (recorded, printed)
    }
}

fn is_at(line: &str, path: &str) -> bool {
    line.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[', ' ']))
}

fn without(text: &str, lines: &Regex) -> String {
    text.lines()
        .filter(|line| !lines.is_match(line))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// What does not matter, and by what it is replaced.
const BLURS: &[(&str, &str)] = &[
    (r"SWMTKN-1-[0-9a-zA-Z-]+", "TOKEN"),
    (r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\n|\n)?", "PEM"),
    (r"\bM[A-Za-z0-9+/=]{19,}", "KEY"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 utc)", "DATE"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b\d{1,3}(\.\d{1,3}){3}\b", "ADDRESS"),
    (r"(?i)\b(less than a second|about a minute|about an hour|\d+ (second|minute)s?) ago", "AGO"),
    (r"\d+(\.\d+)?[KMGT]iB", "SIZE"),
    (r"20\.10\.24\+dfsg1|\b0\.1\.0\b", "VERSION"),
    (r"CPUs:\t\t\t\d+", "CPUs:\t\t\tN"),
    // Progress: how often it is told does not matter.
    (r"overall progress: (rolling back update: )?\d+ out of", "overall progress: ${1}N out of"),
    (r"Waiting \d seconds", "Waiting N seconds"),
    (r"[ ]{2,}", "  "),
];

fn blur(text: &str, nodes: bool, slots: bool) -> String {
    let mut text = text.to_owned();
    for (from, to) in BLURS {
        text = Regex::new(from).unwrap().replace_all(&text, *to).into_owned();
    }
    // Ids: 25 small letters and digits, or 12 of them where a row begins or with a digit among them.
    let first = Regex::new(r"(?m)^([a-z0-9]{12})(\s|$)").unwrap();
    text = first.replace_all(&text, "ID$2").into_owned();
    let cut = Regex::new(r#"("ID": ?")[a-z0-9]{12}""#).unwrap();
    text = cut.replace_all(&text, "${1}ID\"").into_owned();
    let dotted = Regex::new(r"\.[a-z0-9]{12}@").unwrap();
    text = dotted.replace_all(&text, ".ID@").into_owned();
    let word = Regex::new(r"\b([a-z0-9]{25}|[a-z0-9]{12})\b").unwrap();
    let has = |word: &str, what: fn(&char) -> bool| word.chars().any(|c| what(&c));
    let is_id = |word: &str| has(word, char::is_ascii_digit) && has(word, char::is_ascii_lowercase);
    text = word
        .replace_all(&text, |found: &regex::Captures<'_>| {
            if found[0].len() == 25 || is_id(&found[0]) {
                "ID".to_owned()
            } else {
                found[0].to_owned()
            }
        })
        .into_owned();
    if nodes {
        text = Regex::new(r"\bn[123]\b").unwrap().replace_all(&text, "NODE").into_owned();
    }
    if slots {
        text = Regex::new(r"\b([a-z]+)\.\d+").unwrap().replace_all(&text, "$1.SLOT").into_owned();
    }
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        let progress = line.starts_with("overall progress") || line.starts_with("verify: Waiting");
        if !(progress && lines.contains(&line)) {
            lines.push(line);
        }
    }
    let text = lines.join("\n");
    flat(&text).unwrap_or(text).trim_end().to_owned() + "\n"
}

/// Turns JSON, one object a line or one value over several, into a line a value, so that places can
/// be named. Numbers that count changes do not matter.
fn flat(text: &str) -> Option<String> {
    let end = text.find("\n[stderr]").or_else(|| text.find("\n[exit")).unwrap_or(text.len());
    let (json, rest) = text.split_at(end);
    if !json.starts_with(['[', '{']) {
        return None;
    }
    let values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    let values: Vec<Value> = values.collect::<Result<_, _>>().ok()?;
    let mut lines = Vec::new();
    for value in values {
        let objects = match value {
            Value::Array(objects) => objects,
            object => vec![object],
        };
        for object in objects {
            let mut of_object = Vec::new();
            flatten("", &object, &mut of_object);
            of_object.sort();
            of_object.dedup();
            lines.push("object".to_owned());
            lines.extend(of_object);
        }
    }
    Some(lines.join("\n") + rest)
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flatten(&format!("{path}.{key}"), value, lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| flatten(&format!("{path}[]"), item, lines));
        }
        Value::Number(_) if path.ends_with(".Index") => lines.push(format!("{path} = N")),
        Value::Number(_) if path.ends_with(".MemoryBytes") || path.ends_with(".PID") => {
            lines.push(format!("{path} = N"));
        }
        value => lines.push(format!("{path} = {value}")),
    }
}

/// Who runs, and where.
struct Runner<'a> {
    tool: Tool,
    network: &'a Network,
    docker: &'a Path,
    token: &'a str,
}

impl Runner<'_> {
    fn host(&self, on: usize) -> &Host {
        &self.network.hosts[on - 1]
    }

    /// Runs a command line and returns what it printed, as it is recorded.
    fn run(&self, command: &str, on: usize) -> String {
        let socket = format!("unix://{}/midge.sock", self.host(on).dir.display());
        let config = self.host(on).dir.join("docker-config");
        let program = match self.tool {
            Tool::Docker => self.docker.to_path_buf(),
            Tool::Midge => midge_binary(),
        };
        let line = command.replacen("docker ", "\"$PROGRAM\" ", 1);
        let output = Command::new("sh")
            .args(["-c", &line])
            .env("PROGRAM", program)
            .env("DOCKER_HOST", &socket)
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_CLI_HINTS", "false")
            .env_remove("DOCKER_API_VERSION")
            .env("MIDGE_HOST", &socket)
            .env("NO_COLOR", "1")
            .env("TOKEN", self.token)
            .env("N1", &self.host(1).address)
            .env("WAITED", self.waited())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            writeln!(text, "[stderr] {line}").unwrap();
        }
        match output.status.code() {
            Some(0) => {}
            code => writeln!(text, "[exit {}]", code.unwrap_or(-1)).unwrap(),
        }
        text
    }

    /// The name of the service in the file that both run at the same time.
    fn waited(&self) -> &'static str {
        match self.tool {
            Tool::Docker => "webd",
            Tool::Midge => "webm",
        }
    }
}

/// Waits until so many tasks of a service run and none is on its way, and all of them, with their
/// history, are as many as is said.
fn settle(host: &Host, service: &str, count: usize, all: Option<usize>) {
    eventually(&format!("{service} to settle"), || {
        let list = ["service", "ps", service, "--no-resolve", "--format"];
        let format = "{{.DesiredState}} {{.CurrentState}}";
        let tasks = host.ok(&[&list[..], &[format]].concat());
        let running = tasks.lines().filter(|task| task.starts_with("Running Running ")).count();
        let moving = tasks.lines().filter(|task| {
            let state = task.split(' ').nth(1).unwrap_or("");
            !["Running", "Shutdown", "Complete", "Failed", "Rejected"].contains(&state)
                || task.starts_with("Shutdown Running")
        });
        let whole = all.is_none_or(|all| tasks.lines().count() == all);
        (running == count && moving.count() == 0 && whole).then_some(())
    });
}

/// Waits until so many managers answer, and there are no others.
fn managers(host: &Host, count: usize) {
    eventually("the managers to be as they were asked to be", || {
        let list = host.ok(&["node", "ls", "--format", "{{.ManagerStatus}}"]);
        let managers = || list.lines().filter(|status| !status.is_empty());
        let answers = |status: &&str| ["Leader", "Reachable"].contains(status);
        (managers().count() == count && managers().filter(answers).count() == count).then_some(())
    });
}

/// Waits until an update counts as completed.
fn complete(host: &Host, service: &str) {
    eventually(&format!("the update of {service} to be completed"), || {
        let found = host.inspect("service", service);
        (found["UpdateStatus"]["State"] == "completed").then_some(())
    });
}

/// Runs the steps of a file and returns what does not fit, with where it stands.
fn run(
    runner: &Runner<'_>,
    steps: &[Step],
    differences: &Differences,
) -> Vec<(usize, String, String)> {
    let (mut on, mut active, mut nodes, mut slots) = (1, true, false, false);
    let mut wrong = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let case = match step {
            Step::Direction(line) => {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    ["@on", docker, midge] => {
                        let on_whom = if runner.tool == Tool::Docker { docker } else { midge };
                        on = on_whom.parse().unwrap();
                    }
                    ["@only", who] => active = runner.tool.is(who),
                    ["@wait", service, count, rest @ ..] if active => {
                        let all = rest.first().map(|all| all.parse().unwrap());
                        settle(runner.host(1), service, count.parse().unwrap(), all);
                    }
                    ["@managers", count] if active => {
                        managers(runner.host(1), count.parse().unwrap());
                    }
                    ["@completed", service] if active => complete(runner.host(1), service),
                    ["@blur", what] => (nodes, slots) = (*what != "off", *what == "slots"),
                    [first, ..] => {
                        let known = first.starts_with('#') || !active;
                        assert!(known, "{line}");
                    }
                    [] => {}
                }
                continue;
            }
            Step::Case(case) if active => case,
            Step::Case(_) => continue,
        };
        let printed = runner.run(&case.command, on).replace(runner.waited(), "web");
        let expected = match case.variant(runner.tool) {
            Some((_, key, text)) if key != "?" => {
                differences.used(key);
                if blur(text, nodes, slots) == blur(&case.recorded, nodes, slots) {
                    wrong.push((
                        index,
                        "is like the record now: the difference has to go".into(),
                        printed,
                    ));
                    continue;
                }
                differences.shown(runner.tool, &blur(text, nodes, slots))
            }
            _ => blur(&case.recorded, nodes, slots),
        };
        let (expected, shown) =
            differences.apply(runner.tool, &expected, &blur(&printed, nodes, slots));
        let (expected, shown) =
            if slots { (sorted(&expected), sorted(&shown)) } else { (expected, shown) };
        if expected.trim_end() != shown.trim_end() {
            wrong.push((index, diff(&expected, &shown), printed));
        }
    }
    wrong
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Shows the lines that only one side has.
fn diff(expected: &str, shown: &str) -> String {
    let mut out = String::new();
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    for line in expected.lines().filter(|line| !has(shown, line)) {
        writeln!(out, "    - {line}").unwrap();
    }
    for line in shown.lines().filter(|line| !has(expected, line)) {
        writeln!(out, "    + {line}").unwrap();
    }
    if out.is_empty() { "    the lines are in another order".to_owned() } else { out }
}

/// Writes down what was printed, for somebody to give it a reason.
fn update(steps: &mut [Step], tool: Tool, wrong: &[(usize, String, String)]) {
    for (index, _, printed) in wrong {
        let Step::Case(case) = &mut steps[*index] else { continue };
        case.variants.retain(|(who, ..)| !tool.is(who));
        case.variants.push((tool.name().to_owned(), "?".to_owned(), printed.clone()));
    }
}

/// Runs a file for both and returns what does not fit, for each of them.
fn run_both(
    network: &Network,
    docker: &Path,
    file: &str,
    steps: &[Step],
    differences: &Differences,
) -> [Vec<(usize, String, String)>; 2] {
    let run_one = |tool| {
        // Anew for each: one of them may have made the cluster.
        let token = network.manager().midge(&["swarm", "join-token", "-q", "worker"]);
        let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
        run(&Runner { tool, network, docker, token: &token }, steps, differences)
    };
    if file == PARALLEL {
        return std::thread::scope(|scope| {
            let midge = scope.spawn(|| run_one(Tool::Midge));
            [run_one(Tool::Docker), midge.join().unwrap()]
        });
    }
    [run_one(Tool::Docker), run_one(Tool::Midge)]
}

#[test]
fn the_docker_command_and_midge_print_what_docker_prints() {
    let Some(docker) = which("docker").filter(|_| can_run()) else {
        note("skipped: the docker command is not installed, or hosts cannot be made");
        return;
    };
    let differences = Differences::read();
    let mut network = Network::new(3);
    network.hosts.iter_mut().for_each(Host::start_daemon);
    let mut faults = String::new();
    for file in FILES {
        let path = data().join(file);
        let mut steps = parse(&fs::read_to_string(&path).unwrap());
        if file == "node.txt" {
            network.load_busybox();
        }
        let wrong = run_both(&network, &docker, file, &steps, &differences);
        for (tool, wrong) in [Tool::Docker, Tool::Midge].into_iter().zip(&wrong) {
            for (index, what, _) in wrong {
                let Step::Case(case) = &steps[*index] else { continue };
                writeln!(faults, "{file}, {}: {}\n{what}", tool.name(), case.command).unwrap();
            }
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                update(&mut steps, tool, wrong);
            }
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, render(&steps)).unwrap();
        }
        for step in &steps {
            let Step::Case(case) = step else { continue };
            for (_, key, _) in &case.variants {
                assert!(key == "?" || differences.reasons.contains_key(key), "{key} has no reason");
            }
        }
    }
    let used = differences.used.lock().unwrap();
    for key in differences.reasons.keys().filter(|key| !used.contains(*key)) {
        writeln!(faults, "differences.txt: {key} is not needed").unwrap();
    }
    assert!(faults.is_empty(), "{faults}");
}
