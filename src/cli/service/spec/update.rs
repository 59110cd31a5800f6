//! `--update-*` and `--rollback-*`.

use super::nanos;
use crate::{
    cli::{exit::CliError, human::parse_duration},
    types::{FailureAction, UPDATE_MONITOR, UPDATE_PARALLELISM, UpdateOrder},
};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// How tasks are replaced when the service changes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Updates")]
pub(in crate::cli) struct UpdateConfigArgs {
    /// Replace so many tasks at a time (default 1); 0 is all at once
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u64>,
    /// How long to wait after a task was replaced, before the next (default 0s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    update_delay: Option<Duration>,
    /// How long a new task is watched for failure once it runs (default 5s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    update_monitor: Option<Duration>,
    /// What to do when too many new tasks fail: stop and wait for you, go on, or go back to the
    /// previous spec (default pause)
    #[arg(long, value_parser = ["pause", "continue", "rollback"])]
    update_failure_action: Option<String>,
    /// Which part of the new tasks may fail, 0 to 1 (default 0)
    #[arg(long, value_parser = parse_ratio, value_name = "RATIO")]
    update_max_failure_ratio: Option<f64>,
    /// Whether the old task stops before the new one starts, or once that one runs (default
    /// stop-first)
    #[arg(long, value_parser = ["stop-first", "start-first"])]
    update_order: Option<String>,
    /// How long a new task may take until it runs; then it counts as failed (default 10m); 0 is for
    /// ever
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    update_progress_deadline: Option<Duration>,
}

/// How tasks are replaced when the service goes back to its previous spec.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Rollbacks")]
pub(in crate::cli) struct RollbackConfigArgs {
    /// Replace so many tasks at a time when going back (default 1); 0 is all at once
    #[arg(long, value_name = "N")]
    rollback_parallelism: Option<u64>,
    /// How long to wait after a task was replaced, before the next (default 0s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    rollback_delay: Option<Duration>,
    /// How long a new task is watched for failure once it runs (default 5s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    rollback_monitor: Option<Duration>,
    /// What to do when too many new tasks fail: stop and wait for you, or go on (default pause)
    #[arg(long, value_parser = ["pause", "continue"])]
    rollback_failure_action: Option<String>,
    /// Which part of the new tasks may fail, 0 to 1 (default 0)
    #[arg(long, value_parser = parse_ratio, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<f64>,
    /// Whether the old task stops before the new one starts, or once that one runs (default
    /// stop-first)
    #[arg(long, value_parser = ["stop-first", "start-first"])]
    rollback_order: Option<String>,
    /// How long a new task may take until it runs; then it counts as failed (default 10m); 0 is for
    /// ever
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    rollback_progress_deadline: Option<Duration>,
}

/// Reads `--update-max-failure-ratio`; whether it is a part of a whole is for the daemon to say.
fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| ratio.is_finite());
    ratio.ok_or_else(|| "a number from 0 to 1 is expected".to_owned())
}

impl UpdateConfigArgs {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let fields = [
            ("Parallelism", self.update_parallelism.map(Value::from)),
            ("Delay", self.update_delay.map(|time| json!(nanos(time)))),
            ("Monitor", self.update_monitor.map(|time| json!(nanos(time)))),
            ("FailureAction", self.update_failure_action.as_deref().map(Value::from)),
            ("MaxFailureRatio", self.update_max_failure_ratio.map(Value::from)),
            ("Order", self.update_order.as_deref().map(Value::from)),
            ("ProgressDeadline", self.update_progress_deadline.map(|time| json!(nanos(time)))),
        ];
        given(fields)
    }
}

impl RollbackConfigArgs {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let fields = [
            ("Parallelism", self.rollback_parallelism.map(Value::from)),
            ("Delay", self.rollback_delay.map(|time| json!(nanos(time)))),
            ("Monitor", self.rollback_monitor.map(|time| json!(nanos(time)))),
            ("FailureAction", self.rollback_failure_action.as_deref().map(Value::from)),
            ("MaxFailureRatio", self.rollback_max_failure_ratio.map(Value::from)),
            ("Order", self.rollback_order.as_deref().map(Value::from)),
            ("ProgressDeadline", self.rollback_progress_deadline.map(|time| json!(nanos(time)))),
        ];
        given(fields)
    }
}

/// Returns the fields that have a value.
fn given<const N: usize>(fields: [(&'static str, Option<Value>); N]) -> Vec<(&'static str, Value)> {
    fields.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

/// Writes what was given into the spec. To the API a field that is left out is zero, not its
/// default: so where nothing is set yet, the others are set to what it is otherwise.
pub(super) fn apply(
    update: &UpdateConfigArgs,
    rollback: &RollbackConfigArgs,
    spec: &mut Value,
) -> Result<(), CliError> {
    let mode = &spec["Mode"];
    let job = ["ReplicatedJob", "GlobalJob"].iter().any(|kind| mode.get(kind).is_some());
    for (config, fields) in
        [("UpdateConfig", update.fields()), ("RollbackConfig", rollback.fields())]
    {
        if fields.is_empty() {
            continue;
        }
        if job {
            let message = "update and rollback configuration is not supported for jobs";
            return Err(CliError::failure(message));
        }
        if spec[config].is_null() {
            spec[config] = json!({
                "Parallelism": UPDATE_PARALLELISM,
                "FailureAction": FailureAction::default().as_str(),
                "Monitor": nanos(UPDATE_MONITOR),
                "MaxFailureRatio": 0,
                "Order": UpdateOrder::default().as_str(),
            });
        }
        for (field, value) in fields {
            spec[config][field] = value;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: UpdateConfigArgs,
        #[command(flatten)]
        rollback: RollbackConfigArgs,
    }

    /// Returns what becomes of a spec by these options.
    fn changed(mut spec: Value, options: &str) -> Result<Value, String> {
        let words = std::iter::once("midge").chain(options.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        apply(&line.update, &line.rollback, &mut spec).map_err(|error| error.message)?;
        Ok(spec)
    }

    #[test]
    fn what_is_not_said_is_dockers_default() {
        let none = json!({"Mode": {"Global": {}}});
        assert_eq!(changed(none.clone(), ""), Ok(none.clone()));
        // As recorded of docker service create --update-delay 1s --update-parallelism 2.
        let found = changed(none.clone(), "--update-delay 1s --update-parallelism 2").unwrap();
        assert_eq!(
            found["UpdateConfig"].to_string(),
            r#"{"Delay":1000000000,"FailureAction":"pause","MaxFailureRatio":0,"Monitor":5000000000,"Order":"stop-first","Parallelism":2}"#
        );
        assert_eq!(found.get("RollbackConfig"), None);
        let found = changed(none, "--rollback-progress-deadline 0").unwrap();
        assert_eq!(
            found["RollbackConfig"].to_string(),
            r#"{"FailureAction":"pause","MaxFailureRatio":0,"Monitor":5000000000,"Order":"stop-first","Parallelism":1,"ProgressDeadline":0}"#
        );
        assert_eq!(found.get("UpdateConfig"), None);
    }

    #[test]
    fn every_option_replaces_its_field_alone() {
        let all = json!({
            "Parallelism": 0, "Delay": 1, "FailureAction": "continue", "Monitor": 2,
            "MaxFailureRatio": 0.25, "Order": "start-first", "ProgressDeadline": 3,
        });
        for (option, field, value) in [
            ("parallelism 4", "Parallelism", json!(4)),
            ("delay 0s", "Delay", json!(0)),
            ("failure-action pause", "FailureAction", json!("pause")),
            ("monitor 1m", "Monitor", json!(60_000_000_000_u64)),
            ("max-failure-ratio 0.5", "MaxFailureRatio", json!(0.5)),
            ("order stop-first", "Order", json!("stop-first")),
            ("progress-deadline 1h", "ProgressDeadline", json!(3_600_000_000_000_u64)),
        ] {
            let before = json!({"UpdateConfig": all, "RollbackConfig": all});
            for (verb, config) in [("update", "UpdateConfig"), ("rollback", "RollbackConfig")] {
                let mut after = before.clone();
                after[config][field] = value.clone();
                assert_eq!(changed(before.clone(), &format!("--{verb}-{option}")), Ok(after));
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for job in ["ReplicatedJob", "GlobalJob"] {
            for option in ["--update-delay 1s", "--rollback-parallelism 2"] {
                assert_eq!(
                    changed(json!({"Mode": {job: {}}}), option),
                    Err("update and rollback configuration is not supported for jobs".to_owned())
                );
            }
            let job = json!({"Mode": {job: {}}});
            assert_eq!(changed(job.clone(), ""), Ok(job));
        }
        for (option, text) in [
            ("--rollback-failure-action rollback", "[possible values: pause, continue]"),
            ("--update-order first", "[possible values: stop-first, start-first]"),
            ("--update-max-failure-ratio nan", "a number from 0 to 1 is expected"),
            ("--update-parallelism=-1", "invalid digit"),
            ("--update-delay 5", "invalid duration"),
        ] {
            let error = changed(json!({}), option).unwrap_err();
            assert!(error.contains(text), "{option}: {error}");
        }
    }
}
