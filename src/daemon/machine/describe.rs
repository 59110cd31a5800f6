//! What this machine is.

use crate::types::{GenericResource, Labels, Resources};
use std::fs;

/// The machine, as far as it does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Its host name.
    pub(crate) hostname: String,
    /// `/etc/machine-id`, empty where there is none.
    pub(crate) machine_id: String,
    /// All of its CPU and memory.
    pub(crate) resources: Resources,
    /// What else it has, as its operator says.
    pub(crate) generic: Vec<GenericResource>,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The kernel's word for the processor (`x86_64`, `aarch64`, `armv7l`).
    pub(crate) architecture: String,
    /// The operating system's name for people.
    pub(crate) operating_system: String,
    /// Its version.
    pub(crate) os_version: String,
}

impl Machine {
    /// Looks at the machine. What else it has, nobody can see.
    pub(crate) fn look(generic: Vec<GenericResource>) -> Self {
        let uname = rustix::system::uname();
        let os = os_release();
        let field = |name: &str| os.get(name).cloned().unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let processors = u64::try_from(processors).unwrap_or(1);
        Self {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            machine_id: machine_id(),
            resources: Resources {
                nano_cpus: processors * 1_000_000_000,
                memory_bytes: total_memory(),
            },
            generic,
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            operating_system: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
        }
    }
}

fn machine_id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

fn total_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Reads `NAME="value"` lines.
fn os_release() -> Labels {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory_and_processors() {
        let machine = Machine::look(Vec::new());
        assert!(machine.resources.memory_bytes > 1 << 20);
        assert!(machine.resources.nano_cpus >= 1_000_000_000);
        assert!(!machine.hostname.is_empty() && !machine.kernel.is_empty());
    }
}
