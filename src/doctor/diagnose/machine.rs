//! Memory, the clock, and who the machine says it is.

use super::{
    super::{
        facts::{Facts, Init},
        finding::Finding,
    },
    enable, install, rename, size,
};
use crate::types::Date;

/// Less than this, and what runs beside the daemon has little room: boards of 512 MiB show 420.
const MEMORY_SMALL: u64 = 400 << 20;

/// Less than this, and containerd, the daemon and one container do not fit.
const MEMORY_LEAST: u64 = 128 << 20;

/// How far beyond the build a clock may be before it is doubted: no board is used for longer.
const YEARS_MAX: u64 = 30;

/// Names that images of systems come with, so that many machines have them.
const COMMON_NAMES: [&str; 8] =
    ["localhost", "raspberrypi", "debian", "ubuntu", "alpine", "fedora", "orangepi", "dietpi"];

pub(super) fn diagnose(facts: &Facts, findings: &mut Vec<Finding>) {
    memory(facts, findings);
    clock(facts, findings);
    findings.push(machine_id(facts));
    findings.push(hostname(facts));
}

fn memory(facts: &Facts, findings: &mut Vec<Finding>) {
    let name = "memory";
    let memory = &facts.memory;
    let compressed = memory.swaps.iter().any(|(path, _)| path.contains("zram"));
    let swap: u64 = memory.swaps.iter().map(|(_, bytes)| *bytes).sum();
    let beside = match (swap, compressed) {
        (0, _) => "no swap".to_owned(),
        (_, true) => format!("{} of swap, compressed in memory", size(swap)),
        _ => format!("{} of swap", size(swap)),
    };
    let what = format!("{} of memory, {beside}.", size(memory.total));
    let zram = "swap into compressed memory: install zram-tools, or systemd-zram-generator";
    findings.push(match memory.total {
        0 => Finding::note(name, "Nothing tells how much memory there is.", "mount /proc"),
        total if total < MEMORY_LEAST => Finding::problem(
            name,
            format!("{what} containerd, midge and one container do not fit."),
            "use a machine with 256 MiB or more",
        ),
        total if total < MEMORY_SMALL => Finding::note(
            name,
            format!("{what} containerd and midge take some 80 MiB of it."),
            if compressed { "keep services small: --limit-memory" } else { zram },
        ),
        _ => Finding::ok(name, what),
    });
    let card = facts.disks.iter().any(|disk| disk.card);
    let on_disk = memory.swaps.iter().find(|(path, _)| !path.contains("zram"));
    if let (true, Some((path, _))) = (card, on_disk) {
        findings.push(Finding::note(
            "swap",
            format!("There is swap at {path}, and this machine runs on a memory card, which it wears out."),
            zram,
        ));
    }
}

/// Says the day of a moment, in seconds since 1970.
fn day(seconds: u64) -> String {
    Date::from_unix_seconds(seconds).to_string().chars().take(10).collect()
}

fn clock(facts: &Facts, findings: &mut Vec<Finding>) {
    let name = "clock";
    let clock = &facts.clock;
    let now = day(clock.now);
    let keep = match facts.system.init {
        Init::Systemd => "timedatectl set-ntp true".to_owned(),
        Init::OpenRc => {
            let chrony = install(&facts.system, "chrony");
            format!("{chrony} && {}", enable(&facts.system, "chronyd"))
        }
        Init::Other => "run an NTP client, such as chrony".to_owned(),
    };
    if clock.now < clock.built || clock.now > clock.built + YEARS_MAX * 365 * 86_400 {
        let what =
            format!("The clock says {now}, which cannot be: certificates and logs are wrong.");
        findings.push(Finding::problem(name, what, keep));
        return;
    }
    findings.push(match clock.synchronised {
        Some(true) => Finding::ok(name, format!("It is {now}, and the clock is kept right.")),
        Some(false) => Finding::warning(
            name,
            format!("The clock says {now}, and nothing keeps it right."),
            keep.clone(),
        ),
        None => Finding::note(
            name,
            format!(
                "The clock says {now}; the kernel does not tell whether something keeps it right."
            ),
            format!("if nothing does: {keep}"),
        ),
    });
    if !clock.battery {
        findings.push(Finding::note(
            "clock-battery",
            "There is no clock that goes on without power: after a power cut the time is wrong \
             until the network is there.",
            "nothing: midge judges certificates by the last time that it knows",
        ));
    }
}

fn machine_id(facts: &Facts) -> Finding {
    let name = "machine-id";
    let make = match facts.system.init {
        Init::Systemd => "rm -f /etc/machine-id && systemd-machine-id-setup".to_owned(),
        _ => format!("{} && dbus-uuidgen > /etc/machine-id", install(&facts.system, "dbus")),
    };
    let anew = format!("{make}, then reboot; on an image that is cloned, empty the file before");
    let identity = &facts.identity;
    let Some(id) = identity.machine_id.as_deref().map(str::trim) else {
        let what = "There is no /etc/machine-id, by which a cloned disk is told.";
        return Finding::note(name, what, make);
    };
    let first = id.chars().next();
    if id.is_empty() || id == "uninitialized" {
        let what = "/etc/machine-id is not made yet: systemd does so at the first boot.";
        return Finding::note(name, what, format!("reboot, or {make}"));
    }
    if id.len() != 32 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        let what = "/etc/machine-id holds no id of 32 hexadecimal digits.";
        return Finding::warning(name, what, anew);
    }
    if id.chars().all(|c| Some(c) == first) {
        let what = format!("/etc/machine-id is {id}, which other machines have too.");
        return Finding::warning(name, what, anew);
    }
    match identity.dbus_machine_id.as_deref().map(str::trim) {
        Some(other) if other != id => Finding::warning(
            name,
            "/var/lib/dbus/machine-id is another than /etc/machine-id, as on a disk that was \
             cloned and given one of them anew: other machines may have the older.",
            "ln -sf /etc/machine-id /var/lib/dbus/machine-id",
        ),
        _ => Finding::ok(name, format!("The machine's id is {id}.")),
    }
}

fn hostname(facts: &Facts) -> Finding {
    let name = "hostname";
    let host = facts.identity.hostname.trim();
    let short = host.split('.').next().unwrap_or_default();
    let set = rename(&facts.system);
    if host.is_empty() || host == "(none)" {
        return Finding::warning(name, "The machine has no host name.", set);
    }
    if COMMON_NAMES.contains(&short) {
        let what = format!(
            "The host name is {host}, which other machines have too: `midge node ls` does not tell them apart."
        );
        return Finding::note(name, what, set);
    }
    Finding::ok(name, format!("The host name is {host}."))
}
