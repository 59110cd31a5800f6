//! Where files go: whether there is room, whether it can be trusted, how fast it is.

use super::{
    super::{
        facts::{Disk, Facts, Role},
        finding::Finding,
    },
    size, unseen,
};

/// A write that outlives a power cut takes a good card 5 to 20 ms; beyond this every change of the
/// cluster is felt. Microseconds.
const SYNC_SLOW: u64 = 50_000;

/// Beyond this a manager is taken for one whose disk hangs. Microseconds.
const SYNC_HANGS: u64 = 1_000_000;

/// What is left for programs before it is said, of what midge remembers and of images.
const DATA_LOW: u64 = 500 << 20;
const IMAGES_LOW: u64 = 2 << 30;

/// What is left before nothing works: a snapshot of the cluster's state, and one small image.
const DATA_LEAST: u64 = 50 << 20;
const IMAGES_LEAST: u64 = 200 << 20;

/// File systems without what files of containers need.
const POOR: [&str; 6] = ["vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk"];

/// File systems of other machines.
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"];

pub(super) fn diagnose(facts: &Facts, findings: &mut Vec<Finding>) {
    for disk in &facts.disks {
        let names = match disk.role {
            Role::Data => ["data-file-system", "data-space", "data-fsync"],
            Role::Images => ["images-file-system", "images-space", "images-fsync"],
        };
        findings.push(file_system(names[0], disk));
        findings.push(space(names[1], disk));
        if let Some(sync) = &disk.sync {
            findings.push(match sync {
                Ok(sync) => sync_time(names[2], disk, sync.median, sync.worst),
                Err(why) => unseen(names[2], &format!("How fast {} is", disk.path), why),
            });
        }
    }
}

/// Says what is wrong with a file system for what is kept there.
fn unfit(disk: &Disk) -> Option<(bool, String)> {
    let (path, kind) = (&disk.path, disk.file_system.as_deref()?);
    let keeps = match disk.role {
        Role::Data => "what midge remembers of its cluster",
        Role::Images => "images and containers",
    };
    Some(match (kind, disk.role) {
        ("tmpfs" | "ramfs", Role::Data) => {
            (true, format!("{path} is in memory: {keeps} is lost with the power."))
        }
        ("tmpfs" | "ramfs", Role::Images) => {
            (false, format!("{path} is in memory: {keeps} take it from programs."))
        }
        ("overlay" | "overlayfs", Role::Images) => {
            (true, format!("{path} is an overlay itself, on which containerd can make no other."))
        }
        ("overlay" | "overlayfs", Role::Data) => (
            false,
            format!(
                "{path} is an overlay, as of a read-only system: it may be lost with the power."
            ),
        ),
        (kind, _) if REMOTE.contains(&kind) => (
            true,
            format!(
                "{path} is on {kind}, over the network: {keeps} must be on a disk of this machine."
            ),
        ),
        (kind, _) if POOR.contains(&kind) => (
            true,
            format!("{path} is on {kind}, which has no owners and links: it cannot hold {keeps}."),
        ),
        _ => return None,
    })
}

fn file_system(name: &str, disk: &Disk) -> Finding {
    let path = &disk.path;
    let elsewhere = match disk.role {
        Role::Data => format!(
            "mount a disk with ext4 at {path}, or give another folder: midge daemon --data-dir DIR"
        ),
        Role::Images => format!(
            "mount a disk with ext4 at {path}, or set root = \"DIR\" in /etc/containerd/config.toml"
        ),
    };
    if disk.read_only {
        return Finding::problem(
            name,
            format!("{path} is read-only."),
            "mount it writable; after errors of the disk check it first: dmesg, fsck",
        );
    }
    if let Some((is_problem, what)) = unfit(disk) {
        let make = if is_problem { Finding::problem } else { Finding::warning };
        return make(name, what, elsewhere);
    }
    let kind = disk.file_system.as_deref().unwrap_or("an unknown file system");
    let on = if disk.card { ", a memory card" } else { "" };
    Finding::ok(name, format!("{path} is on {kind}{on}."))
}

fn space(name: &str, disk: &Disk) -> Finding {
    let path = &disk.path;
    let (low, least, mend) = match disk.role {
        Role::Data => {
            (DATA_LOW, DATA_LEAST, "make room: du -xh / | sort -h | tail shows where it goes")
        }
        Role::Images => {
            (IMAGES_LOW, IMAGES_LEAST, "make room: midge image prune -a, midge system df")
        }
    };
    if disk.total == 0 {
        return unseen(name, &format!("The room at {path}"), "the kernel does not tell");
    }
    let what = format!("{} of {} are free at {path}.", size(disk.free), size(disk.total));
    let full = u128::from(disk.free) * 100 < u128::from(disk.total) * 15;
    match disk.free {
        free if free < least => Finding::problem(name, what, mend),
        free if free < low => Finding::warning(name, what, mend),
        _ if full && disk.role == Role::Images => Finding::note(
            name,
            format!("{what} Above 85 % midge removes images that nothing uses."),
            mend,
        ),
        _ => Finding::ok(name, what),
    }
}

fn sync_time(name: &str, disk: &Disk, median: u64, worst: u64) -> Finding {
    let ms = |micros: u64| match micros {
        0..=9_999 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    };
    let what = format!(
        "A write that outlives a power cut takes {} at {}, {} at worst.",
        ms(median),
        disk.path,
        ms(worst)
    );
    let card =
        if disk.card { "use a card of class A1 or A2, or an SSD" } else { "use another disk" };
    let mend = format!("{card}; do not make this node a manager");
    match (median, worst) {
        (median, _) if median > SYNC_HANGS => Finding::problem(name, what, mend),
        (median, worst) if median > SYNC_SLOW || worst > SYNC_HANGS => {
            Finding::warning(name, what, mend)
        }
        _ => Finding::ok(name, what),
    }
}
