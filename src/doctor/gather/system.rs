//! The operating system, who the machine says it is, its memory.

use super::{
    super::facts::{Identity, Init, Memory, Packages, System},
    Where,
};
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Programs that every system has, by whose width the system is judged.
const PROGRAMS: [&str; 3] = ["/bin/sh", "/bin/busybox", "/sbin/init"];

/// How many links lead to a program at most.
const LINKS_MAX: usize = 8;

pub(super) fn system(place: &Where) -> System {
    let release = ["/etc/os-release", "/usr/lib/os-release"];
    let release = release.iter().find_map(|path| place.read(path)).unwrap_or_default();
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let ids =
        format!("{} {}", field("ID").unwrap_or_default(), field("ID_LIKE").unwrap_or_default());
    let is = |names: &[&str]| ids.split_whitespace().any(|id| names.contains(&id));
    let packages = if is(&["debian", "ubuntu", "raspbian"]) {
        Packages::Apt
    } else if is(&["alpine"]) {
        Packages::Apk
    } else if is(&["fedora", "rhel", "centos"]) {
        Packages::Dnf
    } else {
        Packages::Other
    };
    let init = if place.exists("/run/systemd/system") || place.exists("/lib/systemd/systemd") {
        Init::Systemd
    } else if place.exists("/sbin/openrc") {
        Init::OpenRc
    } else {
        Init::Other
    };
    let board = place.read("/proc/device-tree/model");
    let board = board.map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned());
    System {
        name: field("PRETTY_NAME"),
        board: board.filter(|board| !board.is_empty()),
        packages,
        init,
        bits: PROGRAMS.iter().find_map(|program| bits(place, Path::new(program))),
    }
}

/// Returns how many bits a program has.
fn bits(place: &Where, program: &Path) -> Option<u8> {
    let mut header = [0; 5];
    fs::File::open(resolve(place, program)?).ok()?.read_exact(&mut header).ok()?;
    match header {
        [0x7f, b'E', b'L', b'F', 1] => Some(32),
        [0x7f, b'E', b'L', b'F', 2] => Some(64),
        _ => None,
    }
}

/// Follows links as they are meant on the machine that is looked at.
fn resolve(place: &Where, path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(place.at(&path)) {
            Ok(to) => path = path.parent()?.join(to),
            Err(_) => return Some(place.at(&path)),
        }
    }
    None
}

pub(super) fn identity(place: &Where) -> Identity {
    let dbus = Path::new("/var/lib/dbus/machine-id");
    let is_link = fs::symlink_metadata(place.at(dbus)).is_ok_and(|m| m.file_type().is_symlink());
    let hostname = place
        .read("/proc/sys/kernel/hostname")
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    Identity {
        machine_id: place.read("/etc/machine-id"),
        dbus_machine_id: if is_link { None } else { place.read(dbus) },
        hostname: hostname.trim().to_owned(),
    }
}

pub(super) fn memory(place: &Where) -> Memory {
    let info = place.read("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| {
        let rest = line.strip_prefix("MemTotal:")?;
        rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    let swaps = place.read("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let path = fields.next()?.to_owned();
        let kib = fields.nth(1)?.parse::<u64>().ok()?;
        Some((path, kib * 1024))
    });
    Memory { total: kib.unwrap_or(0) * 1024, swaps: swaps.collect() }
}
