//! The OCI runtime specification of a task's container, with Docker's defaults.
//!
//! Pure: knows what Docker gives a container; must not touch the node. What had to be read from
//! the node or the image comes in as [`Input`].

mod capabilities;
pub(super) mod edits;
#[cfg(test)]
mod fuzz;
mod limits;
pub(super) mod mount;
mod mounted;
mod seccomp;
mod seccomp_profile;
mod security;
pub(super) mod user;
pub(super) mod variables;

pub use mounted::Mounted;
pub(super) use mounted::mounted;

use super::{ContainerSetup, ImageConfig, apparmor::AppArmor, cgroups::Controllers};
use crate::types::{GenericResource, NamespaceMode, Propagation, Task};
use edits::Edits;
use mount::{MountPoint, MountSource};
use security::{Seccomp, Security, UNCONFINED};
use serde_json::{Value, json};
use std::path::Path;
use user::User;

/// Where the init is mounted inside a container; Docker's own place for it.
const INIT_PATH: &str = "/sbin/docker-init";

/// What a container cannot see.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container cannot write to.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The search path of images that set none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How far a container's `oom_score_adj` goes.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;

/// What a specification depends on of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// What its kernel can limit.
    pub(super) controllers: Controllers,
    /// A bit for each capability that it has.
    pub(super) capabilities: u64,
    /// The kernel's version.
    pub(super) kernel: (u32, u32),
    /// What AppArmor does for containers that name no profile.
    pub(super) apparmor: AppArmor,
    /// What containers cannot see of this node besides what they can see of none.
    pub(super) masked: Vec<String>,
}

impl Default for Facts {
    /// A node that has everything that limits and nothing that is rare.
    fn default() -> Self {
        let support =
            crate::types::CgroupSupport { version: 2, cpu: true, memory: true, pids: true };
        Self {
            controllers: Controllers { support, swap: true },
            capabilities: u64::MAX,
            kernel: (6, 1),
            apparmor: AppArmor::Off,
            masked: Vec::new(),
        }
    }
}

/// Everything a specification is made from.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) id: &'a str,
    pub(super) task: &'a Task,
    pub(super) setup: &'a ContainerSetup,
    pub(super) image: &'a ImageConfig,
    pub(super) user: User,
    /// Those of the task and its image.
    pub(super) mounts: Vec<MountPoint>,
    /// What devices bring along.
    pub(super) edits: Edits,
    pub(super) facts: &'a Facts,
    pub(super) architecture: &'a str,
    /// Our own executable, where the task wants an init.
    pub(super) init: Option<&'a Path>,
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
    /// No such capability.
    #[error("invalid capability: unknown capability {0:?}")]
    Capability(String),
    /// The kernel is older than the capability, or the node is not given it.
    #[error("this node does not have the capability {0:?}")]
    CapabilityMissing(String),
    /// A security option.
    #[error("invalid --security-opt {option:?}: {why}")]
    Security {
        /// The option.
        option: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A seccomp profile.
    #[error("cannot read the seccomp profile: {0}")]
    Seccomp(String),
    /// A named AppArmor profile.
    #[error(
        "cannot confine the container by the AppArmor profile {0:?}: this node's kernel has no AppArmor"
    )]
    NoAppArmor(String),
    /// A kernel parameter.
    #[error("sysctl {name:?} cannot be set: {why}")]
    Sysctl {
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A limit of processes.
    #[error("invalid ulimit {name:?}: {why}")]
    Ulimit {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A swap limit without a memory limit. The wording is Docker's.
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapAlone,
    /// A swap limit, which counts memory as well, below that of memory. The wording is Docker's.
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapTooSmall,
    /// The wording is Docker's.
    #[error("Invalid value: {0}, valid memory swappiness range is 0-100")]
    Swappiness(u8),
    /// The wording is Docker's.
    #[error("Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScoreAdj(i32),
}

/// Returns the version of the group file system.
fn cgroups_of(controllers: &Controllers) -> u8 {
    controllers.support.version
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
    setup: &ContainerSetup,
    image: &ImageConfig,
    facts: &Facts,
    architecture: &str,
) -> Result<(), SpecError> {
    let nothing = Input {
        id: task.id.as_str(),
        task,
        setup,
        image,
        user: User::default(),
        mounts: Vec::new(),
        edits: Edits::default(),
        facts,
        architecture,
        init: None,
    };
    build(&nothing).map(|_| ())
}

/// Returns the group of the container below the cgroup root.
pub(super) fn cgroup_path(setup_parent: &str, id: &str) -> String {
    format!("/{}/{id}", setup_parent.trim_matches('/'))
}

/// Builds the specification. Limits of the process that the task does not name are left out and
/// so are containerd's own, as Docker's containers have its daemon's.
pub(super) fn build(input: &Input<'_>) -> Result<Value, SpecError> {
    let spec = &input.task.spec.container;
    let security = security::parse(&spec.security)?;
    let capabilities = capabilities::granted(spec, input.facts.capabilities)?;
    let mut built = json!({
        "ociVersion": "1.0.2",
        "process": process(input, &security, &capabilities)?,
        "root": { "path": "rootfs", "readonly": spec.read_only },
        "hostname": hostname(input.id, input.setup),
        "mounts": mount::all(input),
        "linux": {
            "resources": limits::resources(input.task, &input.facts.controllers, &input.edits)?,
            "cgroupsPath": cgroup_path(&input.setup.cgroup_parent, input.id),
            "namespaces": namespaces(input),
        },
    });
    let linux = &mut built["linux"];
    if let Some(profile) = seccomp(input, &security, &capabilities)? {
        linux["seccomp"] = profile;
    }
    if !spec.privileged && !security.open_paths {
        let own = input.facts.masked.iter().map(String::as_str);
        linux["maskedPaths"] = MASKED.into_iter().chain(own).collect();
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    let sysctls = limits::sysctls(spec, input.setup.netns.is_some())?;
    if !sysctls.is_empty() {
        linux["sysctl"] = json!(sysctls);
    }
    if !input.edits.nodes.is_empty() {
        linux["devices"] = input.edits.nodes.iter().map(edits::DeviceNode::to_json).collect();
    }
    if let Some(propagation) = root_propagation(&input.mounts) {
        linux["rootfsPropagation"] = json!(propagation);
    }
    if !input.edits.hooks.is_empty() {
        built["hooks"] = json!(input.edits.hooks);
    }
    Ok(built)
}

fn process(
    input: &Input<'_>,
    security: &Security,
    capabilities: &[&str],
) -> Result<Value, SpecError> {
    let spec = &input.task.spec.container;
    let mut args = arguments(input.task, input.image)?;
    if input.init.is_some() {
        let init = [INIT_PATH, super::INIT_MODE, "--"];
        args.splice(0..0, init.map(str::to_owned));
    }
    let cwd = if spec.dir.is_empty() { &input.image.working_dir } else { &spec.dir };
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !OOM_SCORE_ADJ.contains(&spec.oom_score_adj) {
        return Err(SpecError::OomScoreAdj(spec.oom_score_adj));
    }
    let mut groups = input.user.groups.clone();
    groups.extend(input.edits.groups.iter().filter(|group| !input.user.groups.contains(group)));
    let mut process = json!({
        "terminal": spec.tty,
        "user": { "uid": input.user.uid, "gid": input.user.gid, "additionalGids": groups },
        "args": args,
        "env": environment(input),
        "cwd": cwd,
        "capabilities": { "bounding": capabilities },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj,
    });
    if input.user.uid == 0 {
        // Of another user the kernel would take these at the first exec anyway.
        process["capabilities"]["effective"] = json!(capabilities);
        process["capabilities"]["permitted"] = json!(capabilities);
    }
    let rlimits = limits::ulimits(spec)?;
    if rlimits.as_array().is_some_and(|all| !all.is_empty()) {
        process["rlimits"] = rlimits;
    }
    if let Some(profile) = apparmor(input, security)? {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

/// Returns the AppArmor profile, where the kernel has AppArmor.
fn apparmor(input: &Input<'_>, security: &Security) -> Result<Option<String>, SpecError> {
    let privileged = input.task.spec.container.privileged;
    let wanted = security.apparmor.as_deref().or_else(|| privileged.then_some(UNCONFINED));
    match (wanted, &input.facts.apparmor) {
        (None, AppArmor::Profile(name)) => Ok(Some(name.clone())),
        (None, AppArmor::Off | AppArmor::Unconfined) | (Some(UNCONFINED), AppArmor::Off) => {
            Ok(None)
        }
        (Some(name), AppArmor::Off) => Err(SpecError::NoAppArmor(name.to_owned())),
        (Some(name), _) => Ok(Some(name.to_owned())),
    }
}

/// Returns the filter of calls. A privileged container has one only where it names one.
fn seccomp(
    input: &Input<'_>,
    security: &Security,
    capabilities: &[&str],
) -> Result<Option<Value>, SpecError> {
    match &security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if input.task.spec.container.privileged => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::profile(input.architecture, capabilities))),
        Seccomp::Profile(text) => {
            seccomp_profile::convert(text, input.architecture, capabilities, input.facts)
        }
    }
}

/// Returns how the root must propagate mounts, for those that are to show mounts of the node.
fn root_propagation(mounts: &[MountPoint]) -> Option<&'static str> {
    let has = |wanted: [Propagation; 2]| {
        mounts.iter().any(|mount| match &mount.source {
            MountSource::Path { propagation, .. } => wanted.contains(propagation),
            MountSource::Memory { .. } => false,
        })
    };
    if has([Propagation::Shared, Propagation::RShared]) {
        return Some("shared");
    }
    has([Propagation::Slave, Propagation::RSlave]).then_some("rslave")
}

/// Defaults first, then the image's variables, then the task's, then what it was given of the node.
fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", hostname(input.id, input.setup))];
    if input.task.spec.container.tty {
        env.push("TERM=xterm".to_owned());
    }
    let resources = GenericResource::environment(&input.task.generic);
    let given = input.image.env.iter().chain(&input.task.spec.container.env);
    variables::merge(&mut env, given.chain(&resources).chain(&input.edits.env));
    env
}

fn namespaces(input: &Input<'_>) -> Value {
    let spec = &input.task.spec.container;
    let mut all: Vec<Value> = ["mount", "uts"].map(|kind| json!({"type": kind})).into();
    for (kind, mode) in [("ipc", spec.ipc), ("pid", spec.pid)] {
        if mode == NamespaceMode::Private {
            all.push(json!({"type": kind}));
        }
    }
    if let Some(path) = &input.setup.netns {
        all.push(json!({ "type": "network", "path": path }));
    }
    if cgroups_of(&input.facts.controllers) == 2 {
        all.push(json!({ "type": "cgroup" }));
    }
    Value::Array(all)
}

#[cfg(test)]
mod tests;
