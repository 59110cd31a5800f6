//! Options that describe a service, as changes to the spec that the API takes.

mod capability;
mod container;
mod csv;
mod health;
mod list;
mod mount;
mod parse;
mod publish;
mod update;

use super::job;
use crate::cli::{
    exit::CliError,
    human::{parse_bytes, parse_cpus, parse_duration},
};
use clap::Args;
use serde_json::{Map, Value, json};
use std::time::Duration;

pub(super) use list::{ListChanges, NewLists};
pub(super) use mount::{merge_mounts, parse_mount};
pub(super) use publish::{Ports, merge_ports, parse_publish};

/// Options with one value, the same at create and update: those that are given replace the value.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of the service")]
pub(super) struct ScalarArgs {
    /// Override the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The host name inside the containers
    #[arg(long)]
    hostname: Option<String>,
    /// Run a small init inside the container that reaps orphans and forwards signals
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// At most so many processors (0.5, 2); 0 is no limit
    #[arg(long, value_parser = parse_cpus, value_name = "DECIMAL")]
    limit_cpu: Option<u64>,
    /// At most so much memory (64m, 1g); 0 is no limit
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    limit_memory: Option<u64>,
    /// At most so many processes; 0 is no limit
    #[arg(long, value_name = "N")]
    limit_pids: Option<i64>,
    /// Make the root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// At most so many tasks of a job at a time (default: all of --replicas)
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u64>,
    /// How many tasks; of a job, how many must come to their end
    #[arg(long, value_name = "N")]
    pub(super) replicas: Option<u64>,
    /// At most so many tasks on a node; 0 is no bound
    #[arg(long, value_name = "N")]
    replicas_max_per_node: Option<u64>,
    /// Reserve so many processors on the node
    #[arg(long, value_parser = parse_cpus, value_name = "DECIMAL")]
    reserve_cpu: Option<u64>,
    /// Reserve so much memory on the node
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    reserve_memory: Option<u64>,
    /// When to replace a task that ended
    #[arg(long, value_parser = ["none", "on-failure", "any"])]
    restart_condition: Option<String>,
    /// How long to wait before that; doubles with each failure in a row (default 5s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    restart_delay: Option<Duration>,
    /// What the doubled delay is cut to (default 5m)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    restart_max_delay: Option<Duration>,
    /// How often to replace it; 0 is without end
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// The time within which --restart-max-attempts counts
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    restart_window: Option<Duration>,
    /// The time from the stop signal to SIGKILL (default 10s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    stop_grace_period: Option<Duration>,
    /// The signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Give the container a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// The user inside the container: name or uid, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    #[command(flatten)]
    capabilities: capability::CapabilityArgs,
    #[command(flatten)]
    container: container::ContainerArgs,
    #[command(flatten)]
    health: health::HealthArgs,
    #[command(flatten)]
    update: update::UpdateConfigArgs,
    #[command(flatten)]
    rollback: update::RollbackConfigArgs,
}

/// Returns the nanoseconds of a duration, as the API counts time.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl ScalarArgs {
    /// Writes what was given into the spec.
    pub(super) fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        job::apply(self.replicas, self.max_concurrent, spec)?;
        let per_node = ["Global", "GlobalJob"].iter().any(|m| spec["Mode"].get(m).is_some());
        if self.replicas_max_per_node.is_some() && per_node {
            return Err(CliError::failure(
                "replicas-max-per-node can only be used with replicated or replicated-job mode",
            ));
        }
        update::apply(&self.update, &self.rollback, spec)?;
        self.container.apply(spec);
        let task = &mut spec["TaskTemplate"];
        self.apply_container(&mut task["ContainerSpec"])?;
        self.capabilities.apply(&mut task["ContainerSpec"]);
        self.health.apply(&mut task["ContainerSpec"])?;
        self.apply_resources(task);
        self.apply_restart(task);
        if let Some(max) = self.replicas_max_per_node {
            task["Placement"]["MaxReplicas"] = json!(max);
        }
        Ok(())
    }

    fn apply_container(&self, container: &mut Value) -> Result<(), CliError> {
        if let Some(entrypoint) = &self.entrypoint {
            let words = split_command(entrypoint)?;
            container["Command"] = json!(words);
        }
        let texts = [
            ("Hostname", &self.hostname),
            ("StopSignal", &self.stop_signal),
            ("User", &self.user),
            ("Dir", &self.workdir),
        ];
        for (field, value) in texts {
            if let Some(value) = value {
                container[field] = json!(value);
            }
        }
        let flags = [("Init", self.init), ("ReadOnly", self.read_only), ("TTY", self.tty)];
        for (field, value) in flags {
            if let Some(value) = value {
                container[field] = json!(value);
            }
        }
        if let Some(grace) = self.stop_grace_period {
            container["StopGracePeriod"] = json!(nanos(grace));
        }
        Ok(())
    }

    fn apply_resources(&self, task: &mut Value) {
        let fields = [
            ("Limits", "NanoCPUs", self.limit_cpu),
            ("Limits", "MemoryBytes", self.limit_memory),
            ("Reservations", "NanoCPUs", self.reserve_cpu),
            ("Reservations", "MemoryBytes", self.reserve_memory),
        ];
        for (group, field, value) in fields {
            if let Some(value) = value {
                task["Resources"][group][field] = json!(value);
            }
        }
        if let Some(pids) = self.limit_pids {
            task["Resources"]["Limits"]["Pids"] = json!(pids);
        }
    }

    fn apply_restart(&self, task: &mut Value) {
        let policy = "RestartPolicy";
        if let Some(condition) = &self.restart_condition {
            task[policy]["Condition"] = json!(condition);
        }
        let durations = [
            ("Delay", self.restart_delay),
            ("MaxDelay", self.restart_max_delay),
            ("Window", self.restart_window),
        ];
        for (field, value) in durations {
            if let Some(value) = value {
                task[policy][field] = json!(nanos(value));
            }
        }
        if let Some(attempts) = self.restart_max_attempts {
            task[policy]["MaxAttempts"] = json!(attempts);
        }
    }
}

/// Splits a command line into words as a shell would, quotes included.
pub(super) fn split_command(text: &str) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => {
                word.get_or_insert_default().extend(chars.next());
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(CliError::usage(format!("unclosed quote in {text:?}")));
    }
    words.extend(word);
    Ok(words)
}

/// Reads `--env`: `NAME=VALUE`, or `NAME` for the value it has here.
pub(super) fn parse_env(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or("");
    if name.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(match std::env::var(text) {
        Ok(value) => format!("{text}={value}"),
        Err(_) => text.to_owned(),
    })
}

/// Reads `--placement-pref`: `spread=node.labels.zone`.
pub(super) fn parse_preference(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some(("spread", label)) if !label.is_empty() => {
            Ok(json!({"Spread": {"SpreadDescriptor": label}}))
        }
        _ => Err(format!("unsupported placement preference {text:?}: spread=LABEL is expected")),
    }
}

/// Replaces the list at `field` of `target`, or removes it where it became empty.
pub(super) fn set_list(target: &mut Value, field: &str, values: Vec<Value>) {
    if !values.is_empty() {
        target[field] = Value::Array(values);
    } else if let Some(object) = target.as_object_mut() {
        object.remove(field);
    }
}

/// Returns the list without the texts in `remove` and with those in `add` that it lacks.
pub(super) fn merge_texts(old: Vec<Value>, add: &[String], remove: &[String]) -> Vec<Value> {
    let removed = |v: &Value| v.as_str().is_some_and(|text| remove.iter().any(|r| r == text));
    let mut merged: Vec<Value> = old.into_iter().filter(|v| !removed(v)).collect();
    for text in add {
        let value = json!(text);
        if !merged.contains(&value) {
            merged.push(value);
        }
    }
    merged
}

/// Takes the list at `pointer` out of the spec, empty where there is none.
pub(super) fn take_list(spec: &Value, pointer: &str) -> Vec<Value> {
    spec.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Returns labels with these added and those removed.
pub(super) fn merge_labels(labels: &Value, add: &[(String, String)], remove: &[String]) -> Value {
    let mut labels: Map<String, Value> = labels.as_object().cloned().unwrap_or_default();
    labels.retain(|key, _| !remove.contains(key));
    for (key, value) in add {
        labels.insert(key.clone(), json!(value));
    }
    Value::Object(labels)
}

/// Returns an environment with these added, the last of a name winning, and those removed.
pub(super) fn merge_env(env: &[Value], add: &[String], remove: &[String]) -> Vec<Value> {
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    let mut merged: Vec<String> = Vec::new();
    let old = env.iter().filter_map(Value::as_str).filter(|e| !remove.contains(&name(e)));
    for entry in old.chain(add.iter().map(String::as_str)) {
        match merged.iter_mut().find(|there| name(there) == name(entry)) {
            Some(there) => entry.clone_into(there),
            None => merged.push(entry.to_owned()),
        }
    }
    merged.into_iter().map(Value::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_like_a_shells() {
        let split = |text| split_command(text).unwrap();
        assert_eq!(split(r#"sh -c 'a  b' "c d" e\ f"#), ["sh", "-c", "a  b", "c d", "e f"]);
        assert_eq!(split("''"), [""]);
        assert!(split_command("'a").is_err());
    }

    #[test]
    fn the_last_of_a_variable_wins() {
        let env = [json!("A=1"), json!("B=2")];
        let merged = merge_env(&env, &["A=3".to_owned()], &["B".to_owned()]);
        assert_eq!(merged, [json!("A=3")]);
    }
}
