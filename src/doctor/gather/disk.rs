//! Where files go.

use super::{
    super::facts::{Disk, Role, Sync},
    Where,
};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often the disk is written to: enough that half of them say what is usual.
const WRITES: usize = 11;

/// How long that may take in all: a disk that hangs has said what it is.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// What is written each time: as much as a small change of the cluster.
const WRITE_SIZE: usize = 16 << 10;

pub(super) fn disks(place: &Where) -> Vec<Disk> {
    let images = images_dir(place);
    let data = disk(place, Role::Data, &place.data_dir);
    vec![data, disk(place, Role::Images, &images)]
}

/// Returns where containerd keeps images and containers.
fn images_dir(place: &Where) -> PathBuf {
    let text = place.read("/etc/containerd/config.toml").unwrap_or_default();
    let config: Option<toml::Table> = toml::from_str(&text).ok();
    let root = config.and_then(|config| config.get("root")?.as_str().map(PathBuf::from));
    root.unwrap_or_else(|| PathBuf::from("/var/lib/containerd"))
}

fn disk(place: &Where, role: Role, path: &Path) -> Disk {
    // Before the first start there is no such folder: the disk is that of the nearest above.
    let there = path.ancestors().find(|path| place.exists(path)).unwrap_or_else(|| Path::new("/"));
    let real = place.at(there);
    let mount = mount(place, &real, there);
    let room = rustix::fs::statvfs(&real).ok();
    let bytes = |blocks: u64| room.as_ref().map_or(0, |room| blocks.saturating_mul(room.f_frsize));
    let read_only = room
        .as_ref()
        .is_some_and(|room| room.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    Disk {
        role,
        path: path.display().to_string(),
        card: mount.as_ref().is_some_and(|mount| is_card(place, mount)),
        file_system: mount.map(|mount| mount.kind),
        read_only,
        total: bytes(room.as_ref().map_or(0, |room| room.f_blocks)),
        free: bytes(room.as_ref().map_or(0, |room| room.f_bavail)),
        sync: (role == Role::Data && !read_only).then(|| {
            measure(&real).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("only root may write to {}", there.display())
                }
                _ => error.to_string(),
            })
        }),
    }
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    device: String,
    kind: String,
    source: String,
}

/// Finds what is mounted at a path: by its device where that is in the list, else by its name.
fn mount(place: &Where, real: &Path, path: &Path) -> Option<Mount> {
    let list = place.read("/proc/self/mountinfo")?;
    let canonical = if place.is_here() { fs::canonicalize(real).ok() } else { None };
    let path = canonical.as_deref().unwrap_or(path);
    let mut best: Option<(usize, Mount)> = None;
    for line in list.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let (Some(device), Some(point)) = (before.get(2), before.get(4)) else { continue };
        let mut after = after.split(' ');
        let (Some(kind), Some(source)) = (after.next(), after.next()) else { continue };
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        // A later mount at one place lies over an earlier.
        if path.starts_with(&point) && best.as_ref().is_none_or(|(least, _)| *least <= depth) {
            let mount = Mount {
                device: (*device).to_owned(),
                kind: kind.to_owned(),
                source: source.to_owned(),
            };
            best = Some((depth, mount));
        }
    }
    best.map(|(_, mount)| mount)
}

/// Tells whether a mount is on a memory card, by its name or by its device's.
fn is_card(place: &Where, mount: &Mount) -> bool {
    let link = fs::read_link(place.at(format!("/sys/dev/block/{}", mount.device)));
    let named = |text: &str| text.contains("mmcblk");
    // Built-in flash memory bears the same name; its kind tells.
    let name = link.map(|link| link.display().to_string()).unwrap_or_default();
    let name = if named(&mount.source) { &mount.source } else { &name };
    let Some(at) = name.rfind("mmcblk") else { return false };
    let disk: String = name[at..].chars().take_while(|c| *c != 'p' && *c != '/').collect();
    let kind = place.read(format!("/sys/block/{disk}/device/type"));
    kind.is_none_or(|kind| kind.trim() == "SD")
}

/// Removes a file when dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Writes to a folder's disk and waits until it is safe, over and over.
fn measure(folder: &Path) -> io::Result<Sync> {
    let device = fs::metadata(folder)?.dev();
    let path = folder.join(format!(".midge-doctor-{}-{device}", std::process::id()));
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
    let _removed = Removed(path);
    let bytes = vec![0x5a; WRITE_SIZE];
    let mut taken = Vec::with_capacity(WRITES);
    let began = Instant::now();
    while taken.len() < WRITES && began.elapsed() < WRITE_TIME_MAX {
        let write = Instant::now();
        file.write_all(&bytes)?;
        file.sync_all()?;
        taken.push(u64::try_from(write.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    taken.sort_unstable();
    Ok(Sync {
        median: taken.get(taken.len() / 2).copied().unwrap_or(0),
        worst: taken.last().copied().unwrap_or(0),
    })
}
