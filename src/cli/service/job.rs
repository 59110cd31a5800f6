//! Jobs: how many of them, how far one has come, and how that is told.

use super::{WaitArgs, progress::Screen};
use crate::cli::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::{self, items, number, text},
    output,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often the daemon is asked, as Docker's client.
const POLL: Duration = Duration::from_millis(200);

/// How long a global job without any task is looked at: its tasks are all made at once.
const NO_NODE: Duration = Duration::from_secs(5);

/// With more tasks than this there is no line for each, as for services.
const BARS_MAX: usize = 20;

/// The states a job's task passes, as the positions of its bar.
const STEPS: [&str; 9] = [
    "new",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
];

/// Writes how many tasks a service has into its mode.
pub(super) fn apply(
    replicas: Option<u64>,
    max_concurrent: Option<u64>,
    spec: &mut Value,
) -> Result<(), CliError> {
    let mode = &mut spec["Mode"];
    let job = mode.get("ReplicatedJob").is_some();
    if max_concurrent.is_some() && !job {
        return Err(CliError::failure("max-concurrent can only be used with replicated-job mode"));
    }
    if let Some(replicas) = replicas {
        let field = match (job, mode.get("Replicated").is_some()) {
            (true, _) => "/ReplicatedJob/TotalCompletions",
            (false, true) => "/Replicated/Replicas",
            (false, false) => {
                return Err(CliError::failure(
                    "replicas can only be used with replicated or replicated-job mode",
                ));
            }
        };
        set(mode, field, replicas);
        // A new job runs all of them at once unless told otherwise.
        if job && mode.pointer("/ReplicatedJob/MaxConcurrent").is_none() {
            set(mode, "/ReplicatedJob/MaxConcurrent", replicas);
        }
    }
    if let Some(max) = max_concurrent {
        set(mode, "/ReplicatedJob/MaxConcurrent", max);
    }
    Ok(())
}

fn set(mode: &mut Value, pointer: &str, count: u64) {
    let mut path = pointer.split('/').skip(1);
    if let (Some(kind), Some(field)) = (path.next(), path.next()) {
        mode[kind][field] = json!(count);
    }
}

/// Returns a service's mode as tables show it.
pub(super) fn mode_name(service: &Value) -> &'static str {
    let mode = &service["Spec"]["Mode"];
    let known =
        [("Global", "global"), ("ReplicatedJob", "replicated job"), ("GlobalJob", "global job")];
    let found = known.into_iter().find(|(field, _)| mode.get(field).is_some());
    found.map_or("replicated", |(_, name)| name)
}

/// Returns how many of a job's tasks are done, as tables show it behind how many run; empty for
/// services.
pub(super) fn completions(service: &Value) -> String {
    let complete = number(service, "/ServiceStatus/CompletedTasks");
    let total = match mode_name(service) {
        "replicated job" => number(service, "/Spec/Mode/ReplicatedJob/TotalCompletions"),
        "global job" => number(service, "/ServiceStatus/DesiredTasks"),
        _ => return String::new(),
    };
    match number(service, "/ServiceStatus/GivenUpTasks") {
        0 => format!(" ({complete}/{total} completed)"),
        given_up => format!(" ({complete}/{total} completed, {given_up} given up)"),
    }
}

/// Prints a job's mode for people.
pub(super) fn pretty(service: &Value, line: &mut impl FnMut(&str, &str)) {
    let mode = mode_name(service);
    let name = if mode == "global job" { "Global Job" } else { "Replicated Job" };
    line("Service Mode:\t", name);
    if mode == "replicated job" {
        let count = |field: &str| number(service, &format!("/Spec/Mode/ReplicatedJob/{field}"));
        line(" Max Concurrent:\t", &count("MaxConcurrent").to_string());
        line(" Total Completions:\t", &count("TotalCompletions").to_string());
    }
    let status = &service["JobStatus"];
    line(" Iteration:\t", &number(status, "/JobIteration/Index").to_string());
    line(" Last Execution:\t", &human::ago(&status["LastExecution"]));
}

/// How one place of a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The state of the task that counts.
    state: String,
    error: String,
    /// Whether anything is wanted there, or was and is done.
    wanted: bool,
    /// Whether it failed, and nothing takes its place.
    given_up: bool,
}

/// How far a job has come.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Whether nodes are its places, so that there are as many as are seen.
    global: bool,
    total: usize,
    concurrent: usize,
    /// By number or node.
    places: BTreeMap<String, Place>,
}

impl Progress {
    fn count(&self, fits: impl Fn(&Place) -> bool) -> usize {
        self.places.values().filter(|place| fits(place)).count()
    }

    fn complete(&self) -> usize {
        self.count(|place| place.state == "complete")
    }

    fn active(&self) -> usize {
        self.count(|place| place.wanted && place.state != "complete")
    }

    /// Returns how many places are given up, and the first of their errors.
    fn given_up(&self) -> (usize, &str) {
        let mut all = self.places.values().filter(|place| place.given_up);
        let error = all.next().map_or("", |place| &place.error);
        (self.count(|place| place.given_up), error)
    }

    fn lines(&self, bars: bool) -> Vec<String> {
        let complete = self.complete();
        let left = self.total.saturating_sub(complete).min(self.concurrent);
        let mut lines = vec![
            format!("job progress: {complete} out of {} complete", self.total),
            format!("active tasks: {} out of {left} tasks", self.active()),
        ];
        if bars && self.total <= BARS_MAX {
            lines.extend(self.places.iter().map(|(name, place)| self.bar(name.trim(), place)));
        }
        lines
    }

    fn bar(&self, name: &str, place: &Place) -> String {
        let name = match name.parse::<u64>() {
            Ok(number) => format!("{}/{}", number + 1, self.total),
            Err(_) => name.chars().take(12).collect(),
        };
        let step = STEPS.iter().position(|step| *step == place.state).map_or(0, |at| at + 1);
        let filled: String = "=".repeat(step * 5).chars().take(45).collect();
        let shown = if place.error.is_empty() {
            format!("[{:<46}]", format!("{filled}>"))
        } else {
            place.error.chars().take(75).collect()
        };
        format!("{name}: {:<9} {shown}", place.state)
    }
}

/// Waits until a job is done, or will never be.
pub(super) fn wait(client: &Client, service: &Value, wait: WaitArgs) -> Result<Exit, CliError> {
    let id = text(service, "/ID");
    let iteration = number(service, "/JobStatus/JobIteration/Index");
    let mut screen = Screen::new(wait.quiet);
    let mut said = [String::new(), String::new()];
    let begun = Instant::now();
    loop {
        let now = client.get(&format!("/services/{}", encode(id)))?;
        if number(&now, "/JobStatus/JobIteration/Index") != iteration {
            return Err(CliError::failure("the job was set off again meanwhile")
                .hint("midge service ps shows its tasks"));
        }
        let progress = read(client, &now)?;
        show(&progress, &mut screen, &mut said, wait.quiet)?;
        let (given_up, error) = progress.given_up();
        let started = !progress.places.is_empty() || !progress.global;
        if !started && begun.elapsed() >= NO_NODE {
            screen.say("no node fits the job now; those that come to fit will run it")?;
            return Ok(Exit::Ok);
        }
        if started && progress.complete() == progress.total {
            screen.say("job complete")?;
            return Ok(Exit::Ok);
        }
        if progress.active() == 0 && progress.complete() + given_up == progress.total && started {
            let tasks = if given_up == 1 { "task was" } else { "tasks were" };
            let name = text(&now, "/Spec/Name");
            return Err(CliError::failure(format!(
                "job failed: {given_up} of {} {tasks} given up: {error}",
                progress.total
            ))
            .hint(format!(
                "midge service ps {name} shows every attempt; midge service update --force {name} \
                 runs the job again"
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// Draws over what was shown; where stdout is no terminal, prints what changed.
fn show(
    progress: &Progress,
    screen: &mut Screen,
    said: &mut [String; 2],
    quiet: bool,
) -> Result<(), CliError> {
    if quiet {
        return Ok(());
    }
    if output::stdout_is_terminal() {
        return screen.draw(&progress.lines(true));
    }
    for (said, line) in said.iter_mut().zip(progress.lines(false)) {
        if *said != line {
            output::line(&line)?;
            *said = line;
        }
    }
    Ok(())
}

fn read(client: &Client, service: &Value) -> Result<Progress, CliError> {
    let filter = encode(&format!(
        r#"{{"service":{{"{}":true}},"_up-to-date":{{"true":true}}}}"#,
        text(service, "/ID")
    ));
    Ok(progress(service, &items(client.get(&format!("/tasks?filters={filter}"))?)?))
}

fn progress(service: &Value, tasks: &[Value]) -> Progress {
    let job = service.pointer("/Spec/Mode/ReplicatedJob");
    let mut places: BTreeMap<String, (String, Place)> = BTreeMap::new();
    for task in tasks {
        let key = match job {
            Some(_) => format!("{:>8}", number(task, "/Slot")),
            None => text(task, "/NodeID").to_owned(),
        };
        let wanted = matches!(text(task, "/DesiredState"), "complete" | "ready");
        let state = text(task, "/Status/State");
        let failed = matches!(state, "failed" | "rejected");
        let never = text(task, "/Spec/RestartPolicy/Condition") == "none";
        let place = Place {
            state: state.to_owned(),
            given_up: !wanted && (failed || never),
            error: text(task, "/Status/Err").to_owned(),
            wanted,
        };
        let created = text(task, "/CreatedAt").to_owned();
        // One that came to its end counts most, then what is wanted, then the newest.
        let rank = |created: &str, place: &Place| {
            (place.state == "complete", place.wanted, created.to_owned())
        };
        let better =
            places.get(&key).is_none_or(|(at, known)| rank(at, known) <= rank(&created, &place));
        if better {
            places.insert(key, (created, place));
        }
    }
    let places: BTreeMap<String, Place> =
        places.into_iter().map(|(key, (_, place))| (key, place)).collect();
    let count = |field: &str| {
        let count = job.and_then(|job| job[field].as_u64()).unwrap_or(0);
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    let total = if job.is_some() { count("TotalCompletions") } else { places.len() };
    let concurrent = match count("MaxConcurrent") {
        0 => total,
        bound => bound,
    };
    Progress { global: job.is_none(), total, concurrent, places }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u64, desired: &str, state: &str, error: &str) -> Value {
        json!({
            "Slot": slot, "NodeID": "n", "DesiredState": desired, "CreatedAt": format!("{slot}"),
            "Status": {"State": state, "Err": error},
        })
    }

    #[test]
    fn places_are_counted_once() {
        let service = json!({"Spec": {"Mode": {"ReplicatedJob":
            {"MaxConcurrent": 2, "TotalCompletions": 4}}}});
        let tasks = [
            task(0, "shutdown", "failed", "no"),
            task(0, "complete", "complete", ""),
            task(1, "shutdown", "failed", "exit 1"),
            task(1, "ready", "ready", ""),
            task(2, "shutdown", "failed", "exit 2"),
        ];
        let progress = progress(&service, &tasks);
        assert_eq!((progress.complete(), progress.active()), (1, 1));
        assert_eq!(progress.given_up(), (1, "exit 2"));
        let lines = progress.lines(true);
        assert_eq!(lines[0], "job progress: 1 out of 4 complete");
        assert_eq!(lines[1], "active tasks: 1 out of 2 tasks");
        assert!(lines[2].starts_with("1/4: complete  [====="), "{}", lines[2]);
        assert_eq!(lines[4], "3/4: failed    exit 2");
    }

    #[test]
    fn counts_go_where_the_mode_has_them() {
        let apply = |mode: Value, replicas, max| {
            let mut spec = json!({"Mode": mode});
            apply(replicas, max, &mut spec).map(|()| spec["Mode"].clone()).map_err(|e| e.message)
        };
        let job = |max: u64, total: u64| json!({"ReplicatedJob": {"MaxConcurrent": max, "TotalCompletions": total}});
        assert_eq!(apply(json!({"ReplicatedJob": {}}), Some(4), None), Ok(job(4, 4)));
        assert_eq!(apply(json!({"ReplicatedJob": {}}), Some(4), Some(2)), Ok(job(2, 4)));
        assert_eq!(apply(job(2, 4), Some(6), None), Ok(job(2, 6)));
        let max = "max-concurrent can only be used with replicated-job mode";
        for mode in ["Replicated", "Global", "GlobalJob"] {
            assert_eq!(apply(json!({mode: {}}), None, Some(1)), Err(max.to_owned()));
        }
        let replicas = "replicas can only be used with replicated or replicated-job mode";
        for mode in ["Global", "GlobalJob"] {
            assert_eq!(apply(json!({mode: {}}), Some(1), None), Err(replicas.to_owned()));
        }
    }

    #[test]
    fn tables_say_how_much_is_done() {
        let status = json!({"CompletedTasks": 1, "DesiredTasks": 3, "GivenUpTasks": 2});
        let mut service =
            json!({"Spec": {"Mode": {"GlobalJob": {}}}, "ServiceStatus": status.clone()});
        assert_eq!(completions(&service), " (1/3 completed, 2 given up)");
        service["Spec"]["Mode"] = json!({"Replicated": {"Replicas": 1}});
        assert_eq!(completions(&service), "");
    }
}
