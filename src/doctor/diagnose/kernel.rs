//! The kernel, what it can limit, and whether the programs on it are of its width.

use super::{
    super::{
        facts::{BootFile, BootKind, Cgroups, Facts, Feature, Init, Kernel, Packages, Presence},
        finding::Finding,
    },
    enable, install, unseen,
};
use crate::runtime::apparmor::{AppArmor, OWN_PROFILE};

/// The oldest kernel whose nf_tables and iptables rewrite addresses beside each other, as they do
/// where Docker or a firewall runs too.
const LEAST: (u32, u32) = (4, 18);

/// The oldest kernel that has `openat2`, which commands that reach into a container's files use.
const WHOLE: (u32, u32) = (5, 6);

/// The words that switch the Raspberry Pi's memory controller on.
const MEMORY_WORDS: &str = "cgroup_enable=memory cgroup_memory=1";

pub(super) fn diagnose(facts: &Facts, findings: &mut Vec<Finding>) {
    let kernel = &facts.kernel;
    findings.push(version(facts));
    if kernel.modules_gone {
        let is_there = |has| matches!(has, Presence::BuiltIn | Presence::Loaded);
        let enough = kernel.features.iter().all(|(feature, has)| !feature.needed || is_there(*has));
        let make = if enough { Finding::warning } else { Finding::problem };
        findings.push(make(
            "kernel-modules",
            format!(
                "The modules of the running kernel {} are gone, as after an upgrade: none can be \
                 loaded.",
                kernel.release
            ),
            "reboot",
        ));
    }
    features(facts, findings);
    if !kernel.namespaces_missing.is_empty() {
        findings.push(Finding::problem(
            "kernel-namespaces",
            format!("The kernel has no namespaces for {}.", kernel.namespaces_missing.join(", ")),
            "use a kernel with CONFIG_NAMESPACES and CONFIG_NET_NS, such as your distribution's own",
        ));
    }
    if kernel.seccomp == Some(false) {
        findings.push(Finding::problem(
            "kernel-seccomp",
            "The kernel cannot filter system calls: containers do not start.",
            "use a kernel with CONFIG_SECCOMP_FILTER, such as your distribution's own",
        ));
    }
    cgroups(facts, findings);
    findings.extend(apparmor(facts));
    findings.push(width(facts));
}

/// Reads `6.1.0-18-amd64`.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn version(facts: &Facts) -> Finding {
    let kernel = &facts.kernel;
    let named = [&facts.system.name, &facts.system.board].into_iter().flatten();
    let on: String = named.map(|name| format!(", {name}")).collect();
    let what = format!("Linux {} on {}{on}.", kernel.release, kernel.machine);
    let upgrade = "upgrade the kernel, or the distribution";
    match numbers(&kernel.release) {
        Some(found) if found < LEAST => {
            let what = format!("{what} midge needs {}.{} or newer.", LEAST.0, LEAST.1);
            Finding::problem("kernel", what, upgrade)
        }
        Some(found) if found < WHOLE => {
            let what = format!(
                "{what} Before {}.{} `midge cp` and parts of volumes do not work.",
                WHOLE.0, WHOLE.1
            );
            Finding::warning("kernel", what, upgrade)
        }
        _ => Finding::ok("kernel", what),
    }
}

fn features(facts: &Facts, findings: &mut Vec<Finding>) {
    let of = |wanted: &[Presence]| -> Vec<&Feature> {
        let found = facts.kernel.features.iter().filter(|(_, has)| wanted.contains(has));
        found.map(|(feature, _)| feature).collect()
    };
    let list = |features: &[&Feature]| {
        features.iter().map(|feature| feature.name).collect::<Vec<_>>().join(", ")
    };
    let there = of(&[Presence::BuiltIn, Presence::Loaded]);
    let loadable = of(&[Presence::Loadable]);
    let mut parts = Vec::new();
    if !there.is_empty() {
        parts.push(format!("{} are there", list(&there)));
    }
    if !loadable.is_empty() {
        parts.push(format!("{} are loaded when needed", list(&loadable)));
    }
    if !parts.is_empty() {
        findings.push(Finding::ok("kernel-features", format!("{}.", parts.join("; "))));
    }
    // Without its own modules the running kernel says nothing of the next.
    if !facts.kernel.modules_gone {
        findings.extend(of(&[Presence::Missing]).into_iter().map(|f| missing(facts, *f)));
    }
    let unknown = of(&[Presence::Unknown]);
    if !unknown.is_empty() {
        findings.push(Finding::note(
            "kernel-unknown",
            format!(
                "Nothing here tells whether the kernel has {}: no /proc/config.gz, no \
                 /boot/config, no /lib/modules.",
                list(&unknown)
            ),
            "nothing, unless containers do not start",
        ));
    }
}

fn missing(facts: &Facts, feature: Feature) -> Finding {
    let name = format!("kernel-{}", feature.name);
    let what = format!("The kernel has no {}, for {}.", feature.module, feature.purpose);
    let release = &facts.kernel.release;
    let mend = match facts.system.packages {
        Packages::Apt if release.ends_with("-raspi") => {
            "apt install linux-modules-extra-raspi".to_owned()
        }
        Packages::Apk if release.ends_with("-virt") => {
            "apk add linux-lts, and boot that kernel".to_owned()
        }
        Packages::Dnf => format!("dnf install kernel-modules-{release}"),
        _ => format!("use a kernel with {}, such as your distribution's own", feature.option),
    };
    if feature.needed {
        Finding::problem(&name, what, mend)
    } else {
        Finding::note(&name, what, mend)
    }
}

fn apparmor(facts: &Facts) -> Option<Finding> {
    let name = "apparmor";
    let Some(state) = &facts.apparmor.state else {
        return Some(unseen(name, "Which profiles AppArmor has loaded", "only root may know"));
    };
    let mend = match () {
        () if !facts.apparmor.parser => install(&facts.system, "apparmor"),
        () if facts.apparmor.installed => format!("apparmor_parser --replace {OWN_PROFILE}"),
        () => "install midge by its package or its install.sh, which bring the profile".to_owned(),
    };
    match state {
        AppArmor::Off => None,
        AppArmor::Profile(profile) => {
            Some(Finding::ok(name, format!("AppArmor confines containers by {profile}.")))
        }
        AppArmor::Unconfined => Some(Finding::warning(
            name,
            "The kernel has AppArmor, but no profile for containers is loaded: it does not confine \
             them.",
            mend,
        )),
    }
}

fn cgroups(facts: &Facts, findings: &mut Vec<Finding>) {
    let cgroups = &facts.cgroups;
    if cgroups.version == 0 {
        let mend = match facts.system.init {
            Init::OpenRc => "rc-update add cgroups && rc-service cgroups start",
            _ => "mount -t cgroup2 none /sys/fs/cgroup, at every boot",
        };
        let what = "Control groups are not mounted at /sys/fs/cgroup: containers do not start.";
        findings.push(Finding::problem("cgroups", what, mend));
        return;
    }
    let named = [("cpu", cgroups.cpu), ("memory", cgroups.memory), ("pids", cgroups.pids)];
    let has: Vec<&str> = named.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    findings.push(Finding::ok(
        "cgroups",
        format!("Version {}, with {}.", cgroups.version, has.join(", ")),
    ));
    if !cgroups.memory {
        findings.push(memory(cgroups));
    }
    for (name, has, option) in
        [("cpu", cgroups.cpu, "CONFIG_CFS_BANDWIDTH"), ("pids", cgroups.pids, "CONFIG_CGROUP_PIDS")]
    {
        if !has {
            findings.push(Finding::warning(
                &format!("cgroup-{name}"),
                format!("The {name} controller is off: such limits of services have no effect."),
                format!(
                    "use a kernel with {option}, and remove cgroup_disable={name} from its command \
                     line"
                ),
            ));
        }
    }
}

fn memory(cgroups: &Cgroups) -> Finding {
    let what = "The memory controller is off: this node gets no task with --limit-memory, and a \
                container can take all memory.";
    Finding::warning("cgroup-memory", what, memory_mend(cgroups.boot.as_ref()))
}

fn memory_mend(boot: Option<&BootFile>) -> String {
    let Some(boot) = boot else {
        return format!("add {MEMORY_WORDS} to the kernel's command line, then reboot");
    };
    let path = &boot.path;
    let mut words = boot.text.split(|c: char| c.is_ascii_whitespace() || c == '"' || c == '=');
    if boot.text.contains("cgroup_enable=memory") && !words.any(|w| w == "cgroup_disable") {
        return format!("reboot: {path} has the words already");
    }
    match boot.kind {
        BootKind::Line => {
            format!("add {MEMORY_WORDS} to the end of the one line in {path}, then reboot")
        }
        BootKind::Grub => format!(
            "add {MEMORY_WORDS} to GRUB_CMDLINE_LINUX in {path}, run update-grub (or \
             grub2-mkconfig -o /boot/grub2/grub.cfg), then reboot"
        ),
        BootKind::Armbian => {
            format!("add {MEMORY_WORDS} to the line extraargs= in {path}, then reboot")
        }
        BootKind::Extlinux => {
            format!("add {MEMORY_WORDS} to the APPEND line in {path}, then reboot")
        }
    }
}

/// Returns how many bits a kernel has, by its word for the processor.
fn kernel_bits(kernel: &Kernel) -> Option<u8> {
    match kernel.machine.as_str() {
        "x86_64" | "aarch64" | "riscv64" | "ppc64le" | "s390x" => Some(64),
        machine if machine.starts_with("arm") || machine.ends_with("86") => Some(32),
        _ => None,
    }
}

/// Judges the program, the system's programs and the kernel by their widths.
fn width(facts: &Facts) -> Finding {
    let name = "architecture";
    let own = &facts.program.architecture;
    let machine = &facts.kernel.machine;
    if machine == "armv6l" {
        return Finding::problem(
            name,
            "The processor is an ARMv6, as of the first Raspberry Pi and the Zero: midge needs \
             ARMv7.",
            "use a newer board",
        );
    }
    let own_bits = if own == "arm" || own == "x86" { 32 } else { 64 };
    let package = if machine == "x86_64" { "amd64" } else { "arm64" };
    match (kernel_bits(&facts.kernel), facts.system.bits) {
        (Some(64), Some(32)) => {
            let what = format!(
                "The system's programs have 32 bits and the kernel ({machine}) has 64: the node is \
                 what its containerd is, and images that are built for {package} alone do not run."
            );
            let mend = "nothing, where 32-bit images are wanted; else install the 64-bit system";
            Finding::warning(name, what, mend)
        }
        (Some(64), Some(64)) if own_bits == 32 => Finding::warning(
            name,
            format!("This midge was built for 32 bits ({own}), the system for 64."),
            format!("install midge for {package}"),
        ),
        _ => Finding::ok(name, format!("midge for {own} on {machine}.")),
    }
}

/// Says how the container runtime is installed here.
pub(super) fn install_containerd(facts: &Facts) -> String {
    let system = &facts.system;
    let then = enable(system, "containerd");
    match system.packages {
        // Its package starts it.
        Packages::Apt => install(system, "containerd runc"),
        Packages::Apk => {
            format!("{} && {then}", install(system, "containerd containerd-openrc runc"))
        }
        Packages::Dnf => format!("{} && {then}", install(system, "containerd runc")),
        Packages::Other => format!("{}; {then}", install(system, "containerd and runc")),
    }
}
