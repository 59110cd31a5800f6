//! Jobs: how many of them, how far one has come, and how that is told.

use super::progress::{STEPS_OF_JOBS, Waited, step, tasks};
use crate::cli::{
    client::{Client, encode},
    exit::CliError,
    human::{self, number, text},
    poll,
    screen::{BARS_MAX, Line, Screen},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long a global job without any task is looked at: its tasks are all made at once.
const NO_NODE: Duration = Duration::from_secs(5);

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
        "global job" => complete + number(service, "/ServiceStatus/DesiredTasks"),
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

impl Place {
    /// Tells whether there is an error to be told: what is done has none any more.
    fn is_in_trouble(&self) -> bool {
        !self.error.is_empty() && self.state != "complete"
    }

    fn line(&self, name: &str) -> Line {
        if self.is_in_trouble() {
            return Line::error(name, &self.error);
        }
        Line::bar(name, &self.state, step(&self.state), STEPS_OF_JOBS)
    }
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

    fn lines(&self) -> Vec<Line> {
        let complete = self.complete();
        let left = self.total.saturating_sub(complete).min(self.concurrent);
        let mut lines = vec![
            Line::head(format!("job progress: {complete} out of {} complete", self.total)),
            Line::head(format!("active tasks: {} out of {left} tasks", self.active())),
        ];
        let places = self.places.iter().map(|(name, place)| (self.name(name.trim()), place));
        if self.total > BARS_MAX {
            let places: Vec<_> = places.filter(|(_, place)| place.is_in_trouble()).collect();
            let errors = places.iter().map(|(name, place)| (&**name, &*place.error));
            lines.extend(Line::errors(errors));
        } else {
            lines.extend(places.map(|(name, place)| place.line(&name)));
        }
        lines
    }

    fn name(&self, place: &str) -> String {
        match place.parse::<u64>() {
            Ok(number) => format!("{}/{}", number + 1, self.total),
            Err(_) => human::short_id(place, false),
        }
    }

    /// Returns how the job ended, where it did: done, without a node that fits, or failed.
    fn ended(&self, service: &Value, waited: Duration) -> Option<Result<&'static str, CliError>> {
        let (given_up, error) = self.given_up();
        if self.global && self.places.is_empty() {
            let text = "no node fits the job now; those that come to fit will run it";
            return (waited >= NO_NODE).then_some(Ok(text));
        }
        if self.complete() == self.total {
            return Some(Ok("job complete"));
        }
        if self.active() > 0 || self.complete() + given_up < self.total {
            return None;
        }
        let tasks = if given_up == 1 { "task was" } else { "tasks were" };
        let name = text(service, "/Spec/Name");
        let said = format!("job failed: {given_up} of {} {tasks} given up: {error}", self.total);
        Some(Err(CliError::failure(said).hint(format!(
            "midge service ps {name} shows every attempt; midge service update --force {name} \
             runs the job again"
        ))))
    }
}

/// Waits until a job is done, or will never be.
pub(super) fn wait(
    client: &Client,
    service: &Value,
    screen: &mut Screen,
) -> Result<Waited, CliError> {
    let iteration = number(service, "/JobStatus/JobIteration/Index");
    let reader = (client.clone(), text(service, "/ID").to_owned());
    let ended = poll::until(
        move || read(&reader.0, &reader.1),
        |(service, tasks), waited| {
            if number(&service, "/JobStatus/JobIteration/Index") != iteration {
                return Err(CliError::failure("the job was set off again meanwhile")
                    .hint("midge service ps shows its tasks"));
            }
            let progress = progress(&service, &tasks);
            screen.show(progress.lines())?;
            Ok(progress.ended(&service, waited))
        },
    )?;
    match ended {
        None => Ok(Waited::Interrupted { converged: false }),
        Some(result) => {
            screen.say(result?)?;
            Ok(Waited::Arrived)
        }
    }
}

fn read(client: &Client, id: &str) -> Result<(Value, Vec<Value>), CliError> {
    let service = client.get(&format!("/services/{}", encode(id)))?;
    Ok((service, tasks(client, id, true)?))
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
        let lines = progress.lines();
        let lines: Vec<&str> = lines.iter().map(Line::shown).collect();
        expect_test::expect![[r"
            job progress: 1 out of 4 complete
            active tasks: 1 out of 2 tasks
            1/4: complete  [==================================================>]
            2/4: ready     [===================================>               ]
            3/4: exit 2"]]
        .assert_eq(&lines.join("\n"));
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
        assert_eq!(completions(&service), " (1/4 completed, 2 given up)");
        service["Spec"]["Mode"] = json!({"Replicated": {"Replicas": 1}});
        assert_eq!(completions(&service), "");
    }
}
