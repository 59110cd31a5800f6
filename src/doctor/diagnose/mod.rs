//! From facts to findings. Pure: no clock, no files, no commands.
//!
//! The order of findings is the order in which they are mended: the kernel, what runs on it, the
//! disk, the network, the daemon.

mod disk;
mod engine;
mod kernel;
mod machine;
mod network;
#[cfg(test)]
mod tests;

use super::{
    facts::{Facts, Init, Packages, System},
    finding::Finding,
};

/// Returns what there is to say of a machine. Every name is there once.
#[must_use]
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    kernel::diagnose(facts, &mut findings);
    engine::containerd(facts, &mut findings);
    machine::diagnose(facts, &mut findings);
    disk::diagnose(facts, &mut findings);
    network::diagnose(facts, &mut findings);
    engine::daemon(facts, &mut findings);
    findings
}

/// Says how packages are installed here.
fn install(system: &System, packages: &str) -> String {
    match system.packages {
        Packages::Apt => format!("apt install {packages}"),
        Packages::Apk => format!("apk add {packages}"),
        Packages::Dnf => format!("dnf install {packages}"),
        Packages::Other => format!("install {packages}"),
    }
}

/// Says how a service is started here, now and at every boot.
fn enable(system: &System, service: &str) -> String {
    match system.init {
        Init::Systemd => format!("systemctl enable --now {service}"),
        Init::OpenRc => format!("rc-update add {service} && rc-service {service} start"),
        Init::Other => format!("start {service}, now and at every boot"),
    }
}

/// Says how a service is started anew here.
fn restart(system: &System, service: &str) -> String {
    match system.init {
        Init::Systemd => format!("systemctl restart {service}"),
        Init::OpenRc => format!("rc-service {service} restart"),
        Init::Other => format!("restart {service}"),
    }
}

/// Says where a service's log is.
fn log(system: &System, service: &str) -> String {
    match system.init {
        Init::Systemd => format!("journalctl -u {service}"),
        Init::OpenRc => format!("grep {service} /var/log/messages, and /var/log/{service}*"),
        Init::Other => format!("what {service} printed"),
    }
}

/// Says how a user is let into the group midge.
fn let_in(system: &System) -> &'static str {
    match system.packages {
        Packages::Apk => "addgroup USER midge",
        _ => "usermod -aG midge USER",
    }
}

/// Says how the machine is given a name.
fn rename(system: &System) -> &'static str {
    match system.init {
        Init::Systemd => "hostnamectl set-hostname NAME",
        _ => "echo NAME > /etc/hostname && hostname -F /etc/hostname",
    }
}

/// What to do where only root can look.
const AS_ROOT: &str = "run `midge doctor` as root";

/// Makes a finding of something that nobody could check.
fn unseen(name: &str, what: &str, why: &str) -> Finding {
    Finding::note(name, format!("{what} could not be checked: {why}."), AS_ROOT)
}

/// Says a number of bytes.
fn size(bytes: u64) -> String {
    match bytes {
        0..=0x3fff_ffff => format!("{} MiB", bytes >> 20),
        _ => {
            let tenths = (u128::from(bytes) * 10) >> 30;
            format!("{}.{} GiB", tenths / 10, tenths % 10)
        }
    }
}
