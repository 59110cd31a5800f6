//! What running containers use, and which processes they have.

use super::{
    super::{
        convert::date,
        local::{BoxStream, Container, ContainerState},
        route::{Call, Reply, json, streaming},
        stream::streamed,
    },
    target,
};
use crate::types::{CpuUsage, Date, DeviceUsage, LinkUsage, Usage};
use bytes::Bytes;
use futures_lite::{StreamExt as _, stream};
use serde_json::{Map, Value, json as value};

pub(crate) async fn stats(call: Call) -> Reply {
    let found = target::find(call.node.as_ref(), call.name()).await?;
    // As Docker: streamed unless that is refused.
    let streams = call.query.get("stream").is_none() || call.query.flag("stream");
    let times = match (streams, call.query.flag("one-shot")) {
        (true, _) => None,
        (false, true) => Some(1),
        // The second tells what was used since the first.
        (false, false) => Some(2),
    };
    let container = found.container;
    if container.state != ContainerState::Running {
        return json(&shown(&container, &Usage::default(), None));
    }
    let usages = call.node.usage(found.place, times).await?;
    let skip = usize::from(times == Some(2));
    Ok(streaming("application/json", streamed(lines(container, usages).skip(skip))))
}

/// Renders each with the one before it, as one JSON object a line.
fn lines(
    container: Container,
    usages: BoxStream<Usage>,
) -> impl futures_lite::Stream<Item = Bytes> + Send {
    stream::unfold((usages, container, None), |(mut usages, container, before)| async move {
        let usage: Usage = usages.next().await?;
        let mut text = shown(&container, &usage, before.as_ref()).to_string().into_bytes();
        text.push(b'\n');
        Some((Bytes::from(text), (usages, container, Some(usage))))
    })
}

fn shown(container: &Container, usage: &Usage, before: Option<&Usage>) -> Value {
    let memory = &usage.memory;
    let networks: Map<String, Value> = usage
        .networks
        .iter()
        .map(|(name, network)| {
            let mut all = Map::new();
            link(&mut all, "rx", network.received);
            link(&mut all, "tx", network.sent);
            (name.clone(), Value::Object(all))
        })
        .collect();
    let mut shown = value!({
        "read": stamp(usage.date),
        "preread": stamp(before.map_or(Date::EPOCH, |before| before.date)),
        "pids_stats": { "current": usage.pids, "limit": usage.pids_limit.unwrap_or(u64::MAX) },
        "blkio_stats": {
            "io_service_bytes_recursive": disks(usage, |disk| (disk.read, disk.written)),
            "io_serviced_recursive": disks(usage, |disk| (disk.reads, disk.writes)),
            "io_queue_recursive": null,
            "io_service_time_recursive": null,
            "io_wait_time_recursive": null,
            "io_merged_recursive": null,
            "io_time_recursive": null,
            "sectors_recursive": null,
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(&usage.cpu),
        "precpu_stats": cpu(before.map_or(&CpuUsage::default(), |before| &before.cpu)),
        "memory_stats": {
            "usage": memory.usage,
            "max_usage": memory.peak,
            "stats": memory.details,
            "failcnt": memory.failures,
            "limit": memory.limit,
        },
        "name": format!("/{}", container.name),
        "id": container.id,
    });
    if !networks.is_empty() {
        shown["networks"] = Value::Object(networks);
    }
    shown
}

/// The date, or what Go shows of none.
fn stamp(at: Date) -> String {
    if at == Date::EPOCH { "0001-01-01T00:00:00Z".to_owned() } else { date(at) }
}

fn cpu(cpu: &CpuUsage) -> Value {
    let mut usage = value!({
        "total_usage": cpu.total,
        "usage_in_kernelmode": cpu.kernel,
        "usage_in_usermode": cpu.user,
    });
    if !cpu.per_cpu.is_empty() {
        usage["percpu_usage"] = value!(cpu.per_cpu);
    }
    value!({
        "cpu_usage": usage,
        "system_cpu_usage": cpu.system,
        "online_cpus": cpu.online,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled,
        },
    })
}

fn disks(usage: &Usage, counts: impl Fn(&DeviceUsage) -> (u64, u64)) -> Value {
    let entry = |disk: &DeviceUsage, op: &str, value: u64| value!({ "major": disk.major, "minor": disk.minor, "op": op, "value": value });
    let both = usage.disks.iter().flat_map(|disk| {
        let (read, written) = counts(disk);
        [entry(disk, "read", read), entry(disk, "write", written)]
    });
    Value::Array(both.collect())
}

fn link(all: &mut Map<String, Value>, direction: &str, link: LinkUsage) {
    let counts = [
        ("bytes", link.bytes),
        ("packets", link.packets),
        ("errors", link.errors),
        ("dropped", link.dropped),
    ];
    for (name, count) in counts {
        all.insert(format!("{direction}_{name}"), Value::from(count));
    }
}

pub(crate) async fn top(call: Call) -> Reply {
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    let table = call.node.processes(found.place, call.query.text("ps_args")).await?;
    json(&value!({ "Titles": table.titles, "Processes": table.rows }))
}
