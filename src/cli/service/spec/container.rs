//! Options with one value that say how a container is set up.

use super::{merge_labels, parse::parse_pair};
use crate::cli::human::parse_bytes;
use clap::Args;
use serde_json::{Value, json};

/// The log driver that options without one are for.
const LOG_DRIVER: &str = "json-file";

/// How containers are set up; the same at create and update.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of the service")]
pub(in crate::cli) struct ContainerArgs {
    /// How the service's name resolves: vip or dnsrr
    #[arg(long, value_name = "vip|dnsrr")]
    endpoint_mode: Option<String>,
    /// How the container is isolated; only `default` is known on Linux
    #[arg(long, value_name = "default")]
    isolation: Option<String>,
    /// Whose shared memory and semaphores the container uses: `host`, or `private`
    #[arg(long, value_name = "host|private")]
    ipc: Option<String>,
    /// Where output goes: json-file, local or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Set an option of the log driver, for example max-size=10m (can be repeated)
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE")]
    log_opt: Vec<(String, String)>,
    /// So much swap beside --limit-memory; -1 is without limit
    #[arg(long, value_parser = parse_swap, allow_hyphen_values = true, value_name = "BYTES")]
    memory_swap: Option<i64>,
    /// How readily memory is swapped, 0 to 100; -1 is the node's own
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    memory_swappiness: Option<i64>,
    /// How readily the kernel ends the container for want of memory, -1000 to 1000
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    oom_score_adj: Option<i64>,
    /// Whose processes the container sees: `host`, or `private`
    #[arg(long, value_name = "host|private")]
    pid: Option<String>,
    /// Give the container all capabilities and devices of the node
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: Option<bool>,
    /// The size of /dev/shm (default 64m)
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    shm_size: Option<u64>,
}

/// Reads `--memory-swap`.
fn parse_swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = parse_bytes(text)?;
    i64::try_from(bytes).map_err(|_| format!("invalid size: '{text}'"))
}

impl ContainerArgs {
    /// Writes what was given into the spec.
    pub(in crate::cli) fn apply(&self, spec: &mut Value) {
        if let Some(mode) = &self.endpoint_mode {
            spec["EndpointSpec"]["Mode"] = json!(mode);
        }
        let task = &mut spec["TaskTemplate"];
        self.apply_log(task);
        for (field, value) in
            [("SwapBytes", self.memory_swap), ("MemorySwappiness", self.memory_swappiness)]
        {
            if let Some(value) = value {
                task["Resources"][field] = json!(value);
            }
        }
        let container = &mut task["ContainerSpec"];
        for (field, value) in
            [("Isolation", &self.isolation), ("PidMode", &self.pid), ("IpcMode", &self.ipc)]
        {
            if let Some(value) = value {
                container[field] = json!(value);
            }
        }
        if let Some(score) = self.oom_score_adj {
            container["OomScoreAdj"] = json!(score);
        }
        if let Some(privileged) = self.privileged {
            container["Privileged"] = json!(privileged);
        }
        if let Some(size) = self.shm_size {
            container["ShmSize"] = json!(size);
        }
    }

    /// A driver comes with its own options; options alone change those of the driver there is.
    fn apply_log(&self, task: &mut Value) {
        match self.log_driver.as_deref() {
            Some("") => task["LogDriver"] = Value::Null,
            Some(driver) => task["LogDriver"] = json!({"Name": driver}),
            None if self.log_opt.is_empty() => return,
            None if task["LogDriver"].is_null() => task["LogDriver"] = json!({"Name": LOG_DRIVER}),
            None => {}
        }
        if !self.log_opt.is_empty() {
            let log = &mut task["LogDriver"];
            log["Options"] = merge_labels(&log["Options"], &self.log_opt, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_replaces_and_options_merge() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let log = |before: Value, driver: Option<&str>, options: &[(String, String)]| {
            let mut task = json!({"LogDriver": before});
            let log_driver = driver.map(str::to_owned);
            let args =
                ContainerArgs { log_driver, log_opt: options.to_vec(), ..Default::default() };
            args.apply_log(&mut task);
            task["LogDriver"].clone()
        };
        let there = json!({"Name": "local", "Options": {"max-size": "1m", "max-file": "2"}});
        assert_eq!(log(there.clone(), None, &[]), there);
        assert_eq!(log(there.clone(), Some("none"), &[]), json!({"Name": "none"}));
        assert_eq!(log(there.clone(), Some(""), &[]), Value::Null);
        assert_eq!(
            log(there, None, &[pair("max-size", "5m")]),
            json!({"Name": "local", "Options": {"max-size": "5m", "max-file": "2"}})
        );
        assert_eq!(
            log(Value::Null, None, &[pair("max-size", "5m")]),
            json!({"Name": "json-file", "Options": {"max-size": "5m"}})
        );
        assert_eq!(parse_swap("-1"), Ok(-1));
        assert_eq!(parse_swap("1m"), Ok(1 << 20));
        assert!(parse_swap("-2").is_err());
    }
}
