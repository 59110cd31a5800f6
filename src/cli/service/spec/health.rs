//! `--health-*` and `--no-healthcheck`.

use super::nanos;
use crate::cli::{exit::CliError, human::parse_duration};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// How the health of containers is found out. What is left out is the image's.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health")]
pub(in crate::cli) struct HealthArgs {
    /// The command line that tells whether a container is healthy
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// The time between two checks (default 30s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    health_interval: Option<Duration>,
    /// So many failures in a row make a container unhealthy (default 3)
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// The time between two checks while a container starts (default 5s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    health_start_interval: Option<Duration>,
    /// How long a container may take to start before failures count (default 0s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    health_start_period: Option<Duration>,
    /// How long one check may take (default 30s)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    health_timeout: Option<Duration>,
    /// Check no health, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// Merges what was given into the container.
    pub(super) fn apply(&self, container: &mut Value) -> Result<(), CliError> {
        let times = [
            ("Interval", self.health_interval),
            ("StartInterval", self.health_start_interval),
            ("StartPeriod", self.health_start_period),
            ("Timeout", self.health_timeout),
        ];
        let given = self.health_cmd.is_some()
            || self.health_retries.is_some()
            || times.iter().any(|(_, time)| time.is_some());
        if self.no_healthcheck {
            if given {
                let message = "--no-healthcheck conflicts with --health-* options";
                return Err(CliError::failure(message));
            }
            container["Healthcheck"] = json!({"Test": ["NONE"]});
            return Ok(());
        }
        if !given {
            return Ok(());
        }
        if container["Healthcheck"].is_null() {
            container["Healthcheck"] = json!({});
        }
        let health = &mut container["Healthcheck"];
        // Whoever sets how checks go wants them again.
        if health["Test"][0] == "NONE" {
            health["Test"] = Value::Null;
        }
        match self.health_cmd.as_deref() {
            None => {}
            Some("") => health["Test"] = Value::Null,
            Some(line) => health["Test"] = json!(["CMD-SHELL", line]),
        }
        for (field, time) in times {
            if let Some(time) = time {
                health[field] = json!(nanos(time));
            }
        }
        if let Some(retries) = self.health_retries {
            health["Retries"] = json!(retries);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(before: Value, args: &HealthArgs) -> Value {
        let mut container = json!({"Healthcheck": before});
        args.apply(&mut container).unwrap();
        container["Healthcheck"].clone()
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        let cmd = |line: &str| HealthArgs { health_cmd: Some(line.into()), ..Default::default() };
        let timeout =
            HealthArgs { health_timeout: Some(Duration::from_secs(2)), ..Default::default() };
        let off = HealthArgs { no_healthcheck: true, ..Default::default() };
        let shell = json!({"Test": ["CMD-SHELL", "a"], "Retries": 2});
        for (before, args, after) in [
            (Value::Null, &cmd("a"), json!({"Test": ["CMD-SHELL", "a"]})),
            (Value::Null, &HealthArgs::default(), Value::Null),
            (shell.clone(), &cmd("b"), json!({"Test": ["CMD-SHELL", "b"], "Retries": 2})),
            (shell.clone(), &cmd(""), json!({"Test": null, "Retries": 2})),
            (shell.clone(), &off, json!({"Test": ["NONE"]})),
            (
                shell,
                &timeout,
                json!({"Test": ["CMD-SHELL", "a"], "Retries": 2, "Timeout": 2_000_000_000}),
            ),
            (json!({"Test": ["NONE"]}), &timeout, json!({"Test": null, "Timeout": 2_000_000_000})),
        ] {
            assert_eq!(applied(before.clone(), args), after, "{before} {args:?}");
        }
        let both = HealthArgs { no_healthcheck: true, ..cmd("a") };
        let error = both.apply(&mut json!({})).unwrap_err();
        assert_eq!(error.message, "--no-healthcheck conflicts with --health-* options");
    }
}
