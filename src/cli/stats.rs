//! `midge stats`.

use super::{
    client::{Call, Client, encode},
    exit::{CliError, Exit},
    human::{binary_size, decimal_size, items, list, number, short_id, text},
    output::{self, Column, column},
};
use clap::Args;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How often the table is drawn anew, as Docker draws it.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// How many containers are watched at once: each holds a connection to the daemon, which takes 512.
const CONTAINERS_MAX: usize = 256;

/// Clears a terminal, cursor to the top left.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Tasks of any node (id, SERVICE.SLOT), or containers of this one; all that run by default
    #[arg(value_name = "TASK|CONTAINER")]
    containers: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}} {{.CPUPerc}}'
    #[arg(long)]
    format: Option<String>,
    /// Print once, and end
    #[arg(long)]
    no_stream: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
}

const COLUMNS: [Column; 8] = [
    column("ID", "CONTAINER ID"),
    column("Name", "NAME"),
    column("CPUPerc", "CPU %"),
    column("MemUsage", "MEM USAGE / LIMIT"),
    column("MemPerc", "MEM %"),
    column("NetIO", "NET I/O"),
    column("BlockIO", "BLOCK I/O"),
    column("PIDs", "PIDS"),
];

type Row = Map<String, Value>;

pub(super) fn run(client: &Client, args: &StatsArgs) -> Result<Exit, CliError> {
    let names = match args.containers.as_slice() {
        [] => running(client)?,
        named => named.to_vec(),
    };
    if names.len() > CONTAINERS_MAX {
        let text =
            format!("{} containers run, and {CONTAINERS_MAX} are shown at most", names.len());
        return Err(CliError::failure(text).hint("name the tasks that you want to see"));
    }
    if args.no_stream { once(client, args, &names) } else { follow(client, args, names) }
}

/// Lists what runs: on a manager in the whole cluster, else on this node.
fn running(client: &Client) -> Result<Vec<String>, CliError> {
    let filter = super::client::filters(&["desired-state=running".to_owned()])?;
    let tasks = match client.get(&format!("/tasks?{filter}")) {
        Ok(tasks) => items(tasks)?,
        Err(error) if error.exit == Exit::Unreachable => return Err(error),
        Err(_) => {
            let containers = items(client.get("/containers/json")?)?;
            return Ok(containers.iter().map(|c| text(c, "/Id").to_owned()).collect());
        }
    };
    let running = tasks.iter().filter(|task| text(task, "/Status/State") == "running");
    Ok(running.map(|task| text(task, "/ID").to_owned()).collect())
}

fn once(client: &Client, args: &StatsArgs, names: &[String]) -> Result<Exit, CliError> {
    let all: Vec<Result<Row, CliError>> = thread::scope(|scope| {
        let ask = |name: &String| {
            let path = format!("/containers/{}/stats?stream=0", encode(name));
            scope.spawn(move || client.get(&path).map(|stats| row(&stats, args.no_trunc)))
        };
        // All are asked before the first is waited for: each takes a second.
        let asked: Vec<_> = names.iter().map(ask).collect();
        let failed = |_| Err(CliError::failure("a thread that asked the daemon ended early"));
        asked.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
    });
    let mut rows = Vec::new();
    let mut exit = Exit::Ok;
    for result in all {
        match result {
            Ok(row) => rows.push(row),
            Err(error) if error.exit == Exit::Unreachable => return Err(error),
            Err(error) => {
                output::error(&error);
                exit = error.exit;
            }
        }
    }
    sort(&mut rows);
    output::rows(args.format.as_deref(), &COLUMNS, &rows)?;
    Ok(exit)
}

fn sort(rows: &mut [Row]) {
    rows.sort_by_cached_key(|row| row.get("Name").and_then(Value::as_str).map(str::to_owned));
}

fn follow(client: &Client, args: &StatsArgs, names: Vec<String>) -> Result<Exit, CliError> {
    let rows: Arc<Mutex<BTreeMap<String, Row>>> = Arc::default();
    let (ended, ends) = mpsc::channel();
    let mut left = names.len();
    for name in names {
        let (client, rows, ended) = (client.clone(), Arc::clone(&rows), ended.clone());
        let no_trunc = args.no_trunc;
        thread::spawn(move || {
            let result = watch(&client, &name, no_trunc, &rows);
            rows.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            // Nobody waits any more where the command is ending.
            ended.send(result).ok();
        });
    }
    let plain = matches!(args.format.as_deref(), None | Some("" | "table"));
    while left > 0 {
        match ends.recv_timeout(DRAW_EVERY) {
            Ok(Ok(())) => left -= 1,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let all = rows.lock().unwrap_or_else(PoisonError::into_inner);
                let mut shown: Vec<Row> = all.values().cloned().collect();
                drop(all);
                sort(&mut shown);
                if plain {
                    output::raw(CLEAR.as_bytes())?;
                }
                output::rows(args.format.as_deref(), &COLUMNS, &shown)?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Keeps one container's row, until the container ends.
fn watch(
    client: &Client,
    name: &str,
    no_trunc: bool,
    rows: &Mutex<BTreeMap<String, Row>>,
) -> Result<(), CliError> {
    let path = format!("/containers/{}/stats?stream=1", encode(name));
    let mut rest = Vec::new();
    client.stream(hyper::Method::GET, &path, &Call::default(), None, |bytes| {
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let stats = serde_json::from_slice(&line)
                .map_err(|error| CliError::failure(format!("unreadable answer: {error}")))?;
            let row = row(&stats, no_trunc);
            rows.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), row);
        }
        Ok(true)
    })
}

/// Renders what Docker's API tells of a container, as Docker's client does.
fn row(stats: &Value, no_trunc: bool) -> Row {
    let memory = memory(&stats["memory_stats"]);
    let limit = number(stats, "/memory_stats/limit");
    let (mut received, mut sent) = (0, 0);
    for network in stats["networks"].as_object().into_iter().flat_map(Map::values) {
        received += number(network, "/rx_bytes");
        sent += number(network, "/tx_bytes");
    }
    let (mut read, mut written) = (0, 0);
    for entry in list(stats, "/blkio_stats/io_service_bytes_recursive") {
        match text(entry, "/op").to_ascii_lowercase().as_str() {
            "read" => read += number(entry, "/value"),
            "write" => written += number(entry, "/value"),
            _ => {}
        }
    }
    let row = json!({
        "ID": short_id(text(stats, "/id"), no_trunc),
        "Container": short_id(text(stats, "/id"), no_trunc),
        "Name": text(stats, "/name").trim_start_matches('/'),
        "CPUPerc": percent(cpu(stats), 100),
        "MemUsage": format!("{} / {}", binary_size(memory), binary_size(limit)),
        "MemPerc": percent((memory, limit), 100),
        "NetIO": format!("{} / {}", decimal_size(received), decimal_size(sent)),
        "BlockIO": format!("{} / {}", decimal_size(read), decimal_size(written)),
        "PIDs": number(stats, "/pids_stats/current").to_string(),
    });
    row.as_object().cloned().unwrap_or_default()
}

/// What the container cannot do without: the kernel could drop the rest at once.
fn memory(stats: &Value) -> u64 {
    let usage = number(stats, "/usage");
    let reclaimable = ["/stats/total_inactive_file", "/stats/inactive_file"]
        .iter()
        .find_map(|path| stats.pointer(path)?.as_u64());
    match reclaimable {
        Some(reclaimable) if reclaimable < usage => usage - reclaimable,
        _ => usage,
    }
}

/// The share of one processor: the container's time times the number of processors, and theirs.
fn cpu(stats: &Value) -> (u64, u64) {
    let since = |path: &str| {
        let before = number(stats, &format!("/precpu_stats{path}"));
        number(stats, &format!("/cpu_stats{path}")).saturating_sub(before)
    };
    let processors = number(stats, "/cpu_stats/online_cpus").max(1);
    let used = since("/cpu_usage/total_usage").saturating_mul(processors);
    (used, since("/system_cpu_usage"))
}

/// Renders a part of a whole, in hundredths.
fn percent((part, whole): (u64, u64), scale: u64) -> String {
    let parts = u128::from(part) * u128::from(scale) * 100;
    let hundredths = parts.checked_div(u128::from(whole)).unwrap_or_default();
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_dockers() {
        let stats = json!({
            "id": "0123456789abcdefghijklmno", "name": "/web.1.x",
            "pids_stats": {"current": 3},
            "cpu_stats": {
                "cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 20_000, "online_cpus": 2
            },
            "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000},
            "memory_stats": {
                "usage": 3 << 20, "limit": 64 << 20, "stats": {"inactive_file": 1 << 20}
            },
            "networks": {"eth0": {"rx_bytes": 1_000, "tx_bytes": 20}, "b": {"rx_bytes": 500}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "read", "value": 5_000}, {"op": "Write", "value": 7}, {"op": "Sync", "value": 9}
            ]},
        });
        expect_test::expect![[r#"{"BlockIO":"5kB / 7B","CPUPerc":"40.00%","Container":"0123456789ab","ID":"0123456789ab","MemPerc":"3.12%","MemUsage":"2MiB / 64MiB","Name":"web.1.x","NetIO":"1.5kB / 20B","PIDs":"3"}"#]]
        .assert_eq(&Value::Object(row(&stats, false)).to_string());
        assert_eq!(row(&json!({}), false)["CPUPerc"], "0.00%");
    }
}
