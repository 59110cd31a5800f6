//! The kernel: what it is, what it has, what it limits.

use super::{
    super::facts::{AppArmor, BootFile, BootKind, Cgroups, FEATURES, Feature, Kernel, Presence},
    Where,
};
use crate::runtime::apparmor;
use std::{collections::BTreeSet, fs, io::Read as _};

/// The namespaces that containers need.
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// Where a kernel's command line is written, by who boots it. The first that is there counts.
const BOOT_FILES: [(&str, BootKind); 7] = [
    ("/boot/firmware/cmdline.txt", BootKind::Line),
    ("/boot/cmdline.txt", BootKind::Line),
    ("/media/mmcblk0p1/cmdline.txt", BootKind::Line),
    ("/boot/armbianEnv.txt", BootKind::Armbian),
    ("/boot/extlinux/extlinux.conf", BootKind::Extlinux),
    ("/boot/extlinux.conf", BootKind::Extlinux),
    ("/etc/default/grub", BootKind::Grub),
];

pub(super) fn kernel(place: &Where) -> Kernel {
    let uname = rustix::system::uname();
    // What `/proc` says is the machine that is looked at.
    let release = place.read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    let release = release.unwrap_or_else(|| uname.release().to_string_lossy().into_owned());
    let machine = place.read("/proc/sys/kernel/arch").map(|text| text.trim().to_owned());
    let machine = machine.unwrap_or_else(|| uname.machine().to_string_lossy().into_owned());
    let sources = Sources::read(place, &release);
    let missing = NAMESPACES
        .iter()
        .filter(|name| fs::symlink_metadata(place.at(format!("/proc/self/ns/{name}"))).is_err());
    let folder = place.at("/proc/self/ns");
    let can_see = folder.is_dir();
    Kernel {
        features: FEATURES.iter().map(|feature| (*feature, sources.presence(feature))).collect(),
        namespaces_missing: missing.filter(|_| can_see).map(|name| (*name).to_owned()).collect(),
        seccomp: seccomp(place, &sources),
        modules_gone: sources.modules_gone,
        release,
        machine,
    }
}

pub(super) fn apparmor(place: &Where) -> AppArmor {
    let enabled = place.read(apparmor::ENABLED);
    let loaded = place.read(apparmor::LOADED);
    let state = apparmor::read(enabled.as_deref(), loaded.as_deref());
    let hidden = loaded.is_none() && place.exists(apparmor::LOADED);
    AppArmor {
        state: (state == apparmor::AppArmor::Off || !hidden).then_some(state),
        parser: place.programs().iter().any(|folder| folder.join("apparmor_parser").is_file()),
        installed: place.exists(apparmor::OWN_PROFILE),
    }
}

fn seccomp(place: &Where, sources: &Sources) -> Option<bool> {
    if place.exists("/proc/sys/kernel/seccomp/actions_avail") {
        return Some(true);
    }
    match sources.option("CONFIG_SECCOMP_FILTER") {
        Some('y') => Some(true),
        Some(_) => Some(false),
        None => {
            let status = place.read("/proc/self/status")?;
            status.lines().any(|line| line.starts_with("Seccomp:")).then_some(true)
        }
    }
}

/// What tells of a kernel's parts.
struct Sources {
    /// Lines of its configuration; none where it is nowhere.
    config: Option<String>,
    /// File systems that it has at present.
    file_systems: String,
    /// Modules that are loaded.
    loaded: BTreeSet<String>,
    /// Modules that are built in, and modules that can be loaded; none where nothing lists them.
    built_in: Option<BTreeSet<String>>,
    loadable: Option<BTreeSet<String>>,
    modules_gone: bool,
}

impl Sources {
    fn read(place: &Where, release: &str) -> Self {
        let folders = ["/lib/modules", "/usr/lib/modules"];
        let list = |file: &str| {
            let texts = folders
                .iter()
                .find_map(|folder| place.read(format!("{folder}/{release}/{file}")))?;
            Some(texts.lines().filter_map(module_of).collect::<BTreeSet<String>>())
        };
        let loaded = place.read("/proc/modules");
        let loads = loaded.is_some();
        let loaded = loaded.unwrap_or_default();
        let loadable = list("modules.dep");
        let others = folders.iter().any(|folder| {
            fs::read_dir(place.at(folder)).is_ok_and(|mut entries| entries.next().is_some())
        });
        Self {
            config: config(place, release),
            file_systems: place.read("/proc/filesystems").unwrap_or_default(),
            loaded: loaded.lines().filter_map(module_of).collect(),
            built_in: list("modules.builtin"),
            modules_gone: loads && loadable.is_none() && others,
            // A kernel that loads no modules needs no list of them.
            loadable: loadable
                .or_else(|| (place.exists("/proc/filesystems") && !loads).then(BTreeSet::new)),
        }
    }

    /// Returns `y` or `m` of a configuration's option, `n` where it is not set.
    fn option(&self, option: &str) -> Option<char> {
        let config = self.config.as_ref()?;
        let set = config
            .lines()
            .find_map(|line| line.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')));
        Some(set.and_then(|value| value.chars().next()).unwrap_or('n'))
    }

    fn presence(&self, feature: &Feature) -> Presence {
        let named = |set: &Option<BTreeSet<String>>| {
            set.as_ref().is_some_and(|set| set.contains(feature.module))
        };
        let is_file_system = self
            .file_systems
            .lines()
            .any(|line| line.split_whitespace().last() == Some(feature.module));
        if named(&self.built_in) {
            return Presence::BuiltIn;
        }
        if self.loaded.contains(feature.module) {
            return Presence::Loaded;
        }
        match self.option(feature.option) {
            Some('y') => Presence::BuiltIn,
            _ if named(&self.loadable) => Presence::Loadable,
            _ if is_file_system => Presence::BuiltIn,
            Some('n') => Presence::Missing,
            // It was built as a module, which is not there to be loaded.
            Some(_) if self.loadable.is_some() || self.modules_gone => Presence::Missing,
            None if self.loadable.is_some() && self.built_in.is_some() => Presence::Missing,
            _ => Presence::Unknown,
        }
    }
}

/// Reads the name of a module from a line of `/proc/modules`, `modules.dep` or `modules.builtin`.
fn module_of(line: &str) -> Option<String> {
    let first = line.split([' ', ':']).next()?.rsplit('/').next()?;
    let name = first.split(".ko").next()?;
    (!name.is_empty()).then(|| name.replace('-', "_"))
}

fn config(place: &Where, release: &str) -> Option<String> {
    let packed = fs::read(place.at("/proc/config.gz")).ok();
    let unpacked = packed.and_then(|packed| {
        let mut text = String::new();
        let reader = flate2::read::GzDecoder::new(&packed[..]);
        reader.take(super::FILE_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    });
    let files = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    unpacked.or_else(|| files.iter().find_map(|file| place.read(file)))
}

pub(super) fn cgroups(place: &Where) -> Cgroups {
    let root = place.at("/sys/fs/cgroup");
    let is_mounted = fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some());
    let found = crate::runtime::cgroups_at(&root);
    let boot = BOOT_FILES.iter().find_map(|(path, kind)| {
        let there = place.exists(path);
        there.then(|| BootFile {
            path: (*path).to_owned(),
            kind: *kind,
            text: place.read(path).unwrap_or_default(),
        })
    });
    Cgroups {
        version: if is_mounted { found.version } else { 0 },
        cpu: found.cpu,
        memory: found.memory,
        pids: found.pids,
        boot,
    }
}
