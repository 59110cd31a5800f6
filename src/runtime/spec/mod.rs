//! The OCI runtime specification of a task's container, with Docker's defaults.
//!
//! Pure: knows what Docker gives a container; must not touch the node. What had to be read from
//! the node or the image comes in as [`Input`].

mod mounted;
mod seccomp;
pub(super) mod user;

pub use mounted::Mounted;
pub(super) use mounted::mounted;

use super::{ContainerSetup, ImageConfig, cgroups::Controllers};
use crate::types::Task;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use user::User;

/// Where the init is mounted inside a container; Docker's own place for it.
const INIT_PATH: &str = "/sbin/docker-init";

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What a container cannot see.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container cannot write to.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The search path of images that set none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The period that CPU quotas are counted in, in microseconds; the kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The shortest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN_MICROS: u64 = 1_000;

/// Everything a specification is made from.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) id: &'a str,
    pub(super) task: &'a Task,
    pub(super) setup: &'a ContainerSetup,
    pub(super) image: &'a ImageConfig,
    pub(super) user: User,
    /// In the order they are to be mounted in.
    pub(super) mounts: Vec<BindMount>,
    pub(super) controllers: Controllers,
    pub(super) architecture: &'a str,
    /// Our own executable, where the task wants an init.
    pub(super) init: Option<&'a Path>,
}

/// A mount that the task or the node asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BindMount {
    /// The path on the node; none is memory.
    pub(super) source: Option<PathBuf>,
    /// The path inside.
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// The task asks for what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpecError {
    /// Neither task nor image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// The kernel cannot limit it.
    #[error(
        "this node's kernel cannot limit {0}: its cgroup controller is missing \
         (on a Raspberry Pi add cgroup_enable=memory to the kernel's command line)"
    )]
    NoController(&'static str),
}

/// Returns the host name of the container.
pub(super) fn hostname<'a>(id: &'a str, setup: &'a ContainerSetup) -> &'a str {
    /// What Docker shows of an id, and names a container without a host name.
    const SHORT_ID: usize = 12;
    if setup.hostname.is_empty() { &id[..id.len().min(SHORT_ID)] } else { &setup.hostname }
}

/// Returns what the container runs, without an init.
pub(super) fn arguments(task: &Task, image: &ImageConfig) -> Result<Vec<String>, SpecError> {
    let spec = &task.spec.container;
    let (entrypoint, default_args): (&[String], &[String]) = if spec.command.is_empty() {
        (&image.entrypoint, &image.cmd)
    } else {
        (&spec.command, &[])
    };
    let args = if spec.args.is_empty() { default_args } else { &spec.args };
    let all: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    if all.is_empty() { Err(SpecError::NoCommand) } else { Ok(all) }
}

/// Takes the init out of what a container runs.
pub(super) fn strip_init(args: &mut Vec<String>) {
    if args.len() > 3 && args[0] == INIT_PATH && args[1] == super::INIT_MODE {
        args.drain(..3);
    }
}

/// Refuses what cannot be built, before anything is made for it.
pub(super) fn check(
    task: &Task,
    image: &ImageConfig,
    controllers: &Controllers,
) -> Result<(), SpecError> {
    arguments(task, image)?;
    resources(task, controllers).map(|_| ())
}

/// Returns the group of the container below the cgroup root.
pub(super) fn cgroup_path(setup_parent: &str, id: &str) -> String {
    format!("/{}/{id}", setup_parent.trim_matches('/'))
}

/// Builds the specification. Resource limits of the process (ulimit) are left out and so are
/// containerd's own, as Docker's containers have its daemon's.
pub(super) fn build(input: &Input<'_>) -> Result<Value, SpecError> {
    let spec = &input.task.spec.container;
    let mut args = arguments(input.task, input.image)?;
    if input.init.is_some() {
        let init = [INIT_PATH, super::INIT_MODE, "--"];
        args.splice(0..0, init.map(str::to_owned));
    }
    let cwd = if spec.dir.is_empty() { &input.image.working_dir } else { &spec.dir };
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    let capabilities = json!({
        "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
    });
    let mut built = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": spec.tty,
            "user": {
                "uid": input.user.uid,
                "gid": input.user.gid,
                "additionalGids": input.user.groups,
            },
            "args": args,
            "env": environment(input),
            "cwd": cwd,
            "capabilities": capabilities,
            "noNewPrivileges": false,
            "oomScoreAdj": 0,
        },
        "root": { "path": "rootfs", "readonly": spec.read_only },
        "hostname": hostname(input.id, input.setup),
        "mounts": mounts(input),
        "linux": {
            "resources": resources(input.task, &input.controllers)?,
            "cgroupsPath": cgroup_path(&input.setup.cgroup_parent, input.id),
            "namespaces": namespaces(input),
            "seccomp": seccomp::profile(input.architecture),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    });
    if input.setup.netns.is_some() {
        // As Docker: in a network of its own a container may use low ports and ping unprivileged.
        built["linux"]["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        });
    }
    Ok(built)
}

/// Defaults first, then the image's, then the task's; the last of a name wins and keeps the first
/// one's place. A name without `=` takes the variable away, as Docker has it.
fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", hostname(input.id, input.setup))];
    if input.task.spec.container.tty {
        env.push("TERM=xterm".to_owned());
    }
    for variable in input.image.env.iter().chain(&input.task.spec.container.env) {
        let name = variable.split('=').next().unwrap_or("");
        let same = env.iter().position(|known| known.split('=').next() == Some(name));
        match (same, variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(variable.clone()),
            (None, false) => {}
        }
    }
    env
}

fn namespaces(input: &Input<'_>) -> Value {
    let mut all: Vec<Value> =
        ["mount", "uts", "ipc", "pid"].map(|kind| json!({"type": kind})).into();
    if let Some(path) = &input.setup.netns {
        all.push(json!({ "type": "network", "path": path }));
    }
    if input.controllers.support.version == 2 {
        all.push(json!({ "type": "cgroup" }));
    }
    Value::Array(all)
}

fn mounts(input: &Input<'_>) -> Value {
    let table: [(&str, &str, &str, &str); 7] = [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
    ];
    let wanted = |target: &str| input.mounts.iter().any(|mount| mount.target == target);
    let mut all: Vec<Value> = table
        .iter()
        .filter(|(target, ..)| !wanted(target))
        .map(|(target, kind, source, options)| {
            let options: Vec<&str> = options.split(',').collect();
            json!({ "destination": target, "type": kind, "source": source, "options": options })
        })
        .collect();
    let files = [
        ("/etc/hosts", input.setup.hosts.as_ref()),
        ("/etc/resolv.conf", input.setup.resolv_conf.as_ref()),
        ("/etc/hostname", input.setup.hostname_file.as_ref()),
    ];
    let files = files.into_iter().filter(|(target, _)| !wanted(target));
    all.extend(files.filter_map(|(target, source)| Some(bind(source?, target, false))));
    all.extend(input.mounts.iter().map(|mount| match &mount.source {
        Some(source) => bind(source, &mount.target, mount.read_only),
        None => memory(&mount.target, mount.read_only),
    }));
    all.extend(input.init.map(|init| bind(init, INIT_PATH, true)));
    Value::Array(all)
}

fn bind(source: &Path, target: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["rbind", "rprivate", access];
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

fn memory(target: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["noexec", "nosuid", "nodev", "rprivate", access];
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn resources(task: &Task, controllers: &Controllers) -> Result<Value, SpecError> {
    let limits = &task.spec.limits;
    let support = &controllers.support;
    // runc adds the devices that every container has.
    let mut all = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if limits.memory_bytes > 0 {
        if !support.memory {
            return Err(SpecError::NoController("memory"));
        }
        all["memory"] = json!({ "limit": limits.memory_bytes });
        if controllers.swap {
            all["memory"]["swap"] = json!(limits.memory_bytes.saturating_mul(2));
        }
    }
    if limits.nano_cpus > 0 {
        if !support.cpu {
            return Err(SpecError::NoController("cpu"));
        }
        let quota = u128::from(limits.nano_cpus) * u128::from(CPU_PERIOD_MICROS) / 1_000_000_000;
        let quota = u64::try_from(quota).unwrap_or(u64::MAX).max(CPU_QUOTA_MIN_MICROS);
        all["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD_MICROS });
    }
    if limits.pids > 0 {
        if !support.pids {
            return Err(SpecError::NoController("pids"));
        }
        all["pids"] = json!({ "limit": limits.pids });
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
