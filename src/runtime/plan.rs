//! Which files and folders of the node a container mounts, and what has to be made for that.
//!
//! Decides from the task and the image alone; what there is on the node is looked at by
//! [`Planned::check`], and only [`Planned::make`] changes it; volumes are made by
//! [`Volumes`].

use super::{
    PreparedImage,
    engine::{disk, permanent},
    mountinfo::{self, Mounted},
    spec::mount::{Access, MountPoint, MountSource},
    volumes::{ANONYMOUS, VolumeError, VolumeWanted, Volumes, own_name},
};
use crate::{
    agent::Failure,
    types::{
        BindOptions, Labels, Mount, MountKind, Propagation, Task, VolumeOptions, is_volume_name,
    },
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// The kernel that can close a mount with all below it.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);

/// What this node can do with mounts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    /// The kernel's version.
    pub(super) kernel: (u32, u32),
    /// Whether the OCI runtime can close a mount with all below it.
    pub(super) recursive_read_only: bool,
}

impl Abilities {
    fn recursive_read_only(self) -> Result<(), String> {
        if self.kernel < RECURSIVE_READ_ONLY {
            let (major, minor) = self.kernel;
            return Err(format!(
                "it needs kernel 5.12 or later, and this node has {major}.{minor}"
            ));
        }
        if !self.recursive_read_only {
            return Err("the OCI runtime of this node cannot do it".to_owned());
        }
        Ok(())
    }
}

/// A mount of the task, and what it takes.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// How the container sees it.
    pub(super) mount: MountPoint,
    /// What has to be there.
    pub(super) need: Need,
}

/// What has to be there for a mount.
#[derive(Debug, Clone)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// A file or folder of the node.
    Bind {
        /// Its path.
        source: PathBuf,
        /// How it is mounted.
        options: BindOptions,
    },
    /// A volume.
    Volume(VolumeUse),
}

/// How a container uses a volume.
#[derive(Debug, Clone)]
pub(super) struct VolumeUse {
    /// Which, and what it is made with.
    pub(super) wanted: VolumeWanted,
    /// The folder of its content.
    pub(super) root: PathBuf,
    /// Whether the image's content goes into it when it is empty.
    pub(super) fill: bool,
    /// The folder inside it that is mounted; empty is all of it.
    pub(super) subpath: String,
}

/// Where a container's mounts come from.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// The node's volumes.
    pub(super) volumes: &'a Volumes,
    /// Where parts of volumes are mounted for the container; see [`VolumeUse::subpath`].
    pub(super) parts: &'a Path,
}

/// Decides what is mounted where: the task's mounts, and a volume of the container's own for each
/// that the image declares and the task does not mount. Outer paths come before inner ones.
pub(super) fn plan(
    task: &Task,
    image: &PreparedImage,
    places: &Places<'_>,
    abilities: Abilities,
) -> Result<Vec<Planned>, Failure> {
    let mut own = 0;
    let mut next_own = |options: &VolumeOptions| {
        let name = own_name(task.id.as_str(), own);
        own += 1;
        let anonymous = (ANONYMOUS.to_owned(), String::new());
        let labels: Labels = options.labels.clone().into_iter().chain([anonymous]).collect();
        let options = VolumeOptions { labels, ..options.clone() };
        VolumeWanted { name, options, owner: Some(task.id.to_string()) }
    };
    let mut all = Vec::new();
    let mut targets = BTreeSet::new();
    for (index, mount) in task.spec.container.mounts.iter().enumerate() {
        let target = clean(&mount.target)?;
        if !targets.insert(target.clone()) {
            return Err(permanent(format!("duplicate mount point: {target}")));
        }
        all.push(match &mount.kind {
            MountKind::Bind { source, options } => {
                bind(mount, source, *options, target, abilities)?
            }
            MountKind::Volume { name, options } => {
                let wanted = if name.is_empty() {
                    next_own(options)
                } else if is_volume_name(name) {
                    let (name, options) = (name.clone(), options.clone());
                    VolumeWanted { name, options, owner: None }
                } else {
                    return Err(permanent(VolumeError::Name(name.clone()).to_string()));
                };
                let root = places.volumes.content(&wanted.name);
                volume(mount, wanted, target, root, places.parts.join(index.to_string()))?
            }
            MountKind::Tmpfs { options } => {
                let source = MountSource::Memory { size: options.size_bytes, mode: options.mode };
                if options.mode.is_some_and(|mode| mode > 0o7777) {
                    return Err(permanent(format!("invalid tmpfs mode of the mount at {target}")));
                }
                let access = if mount.read_only { Access::Read } else { Access::Write };
                Planned { mount: MountPoint { source, target, access }, need: Need::Nothing }
            }
        });
    }
    for target in &image.config.volumes {
        let target = clean(target)?;
        if targets.insert(target.clone()) {
            let wanted = next_own(&VolumeOptions::default());
            let root = places.volumes.content(&wanted.name);
            let mount = MountPoint::folder(root.clone(), target, false);
            let need = VolumeUse { wanted, root, fill: true, subpath: String::new() };
            all.push(Planned { mount, need: Need::Volume(need) });
        }
    }
    all.sort_by_key(|planned| planned.mount.target.matches('/').count());
    Ok(all)
}

fn bind(
    mount: &Mount,
    source: &str,
    options: BindOptions,
    target: String,
    abilities: Abilities,
) -> Result<Planned, Failure> {
    let refused =
        |why: &str| permanent(format!("invalid mount config for type \"bind\" at {target}: {why}"));
    if !source.starts_with('/') {
        return Err(refused(&format!("the source {source:?} must be absolute")));
    }
    if options.read_only_force_recursive && !mount.read_only {
        return Err(refused("bind-recursive=readonly needs a read-only mount"));
    }
    if options.read_only_force_recursive
        && (options.non_recursive || options.read_only_non_recursive)
    {
        return Err(refused("it cannot be read-only recursively and not"));
    }
    if options.read_only_force_recursive && options.propagation != Propagation::RPrivate {
        return Err(refused("bind-recursive=readonly needs bind-propagation=rprivate"));
    }
    let recursive = abilities.recursive_read_only();
    let access = match (mount.read_only, &recursive) {
        (false, _) => Access::Write,
        (true, Ok(())) if !options.non_recursive && !options.read_only_non_recursive => {
            Access::ReadAll
        }
        (true, Err(why)) if options.read_only_force_recursive => {
            return Err(refused(&format!("cannot make it read-only recursively: {why}")));
        }
        (true, _) => Access::Read,
    };
    let path = PathBuf::from(source);
    let recursive = !options.non_recursive;
    let (source, propagation) = (path.clone(), options.propagation);
    let source_of = MountSource::Path { path, recursive, propagation };
    let mount = MountPoint { source: source_of, target, access };
    Ok(Planned { mount, need: Need::Bind { source, options } })
}

fn volume(
    mount: &Mount,
    wanted: VolumeWanted,
    target: String,
    root: PathBuf,
    part: PathBuf,
) -> Result<Planned, Failure> {
    wanted.check().map_err(|error| permanent(error.to_string()))?;
    let options = &wanted.options;
    let subpath = options.subpath.trim_end_matches('/');
    let is_inner = Path::new(subpath)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inner {
        let subpath = &options.subpath;
        return Err(permanent(format!("the volume subpath {subpath:?} must be a relative path")));
    }
    if !subpath.is_empty() && wanted.owner.is_some() {
        return Err(permanent("must not set Subpath when using anonymous volumes".to_owned()));
    }
    let seen = if subpath.is_empty() { root.clone() } else { part };
    // What is mounted is a part that somebody made: it is not the image's to fill.
    let fill = !options.no_copy && subpath.is_empty();
    let subpath = subpath.to_owned();
    let use_of = VolumeUse { wanted, root, fill, subpath };
    Ok(Planned {
        mount: MountPoint::folder(seen, target, mount.read_only),
        need: Need::Volume(use_of),
    })
}

impl Planned {
    /// Refuses, before anything is made, what is not there. Blocks.
    pub(super) fn check(&self, mounts: &[Mounted]) -> Result<(), Failure> {
        let Need::Bind { source, options } = &self.need else { return Ok(()) };
        let path = source.display();
        if !source.exists() {
            if options.create_source {
                return Ok(());
            }
            return Err(permanent(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )));
        }
        let (wanted, also_slave) = match options.propagation {
            Propagation::Shared | Propagation::RShared => ("shared mount", false),
            Propagation::Slave | Propagation::RSlave => ("shared or slave mount", true),
            Propagation::Private | Propagation::RPrivate => return Ok(()),
        };
        let real =
            fs::canonicalize(source).map_err(|e| disk("cannot look at a bind source", &e))?;
        match mountinfo::of(mounts, &real) {
            Some(on) if on.is_shared || (also_slave && on.is_slave) => Ok(()),
            Some(on) => {
                let on = on.path.display();
                Err(permanent(format!("path {path} is mounted on {on} but it is not a {wanted}")))
            }
            None => Err(permanent(format!("path {path} is not below any mount of this node"))),
        }
    }

    /// Makes a source that is missing and may be made. Blocks.
    pub(super) fn make(&self) -> Result<(), Failure> {
        match &self.need {
            Need::Bind { source, options } if options.create_source && !source.exists() => {
                fs::create_dir_all(source).map_err(|error| {
                    disk(&format!("cannot make the bind source {}", source.display()), &error)
                })
            }
            _ => Ok(()),
        }
    }
}

/// Brings a path inside the container into its shortest form, so that equal ones are seen to be.
fn clean(target: &str) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if !target.starts_with('/') || parts.is_empty() {
        let message = format!("invalid mount path: {target:?} must be absolute and not the root");
        return Err(permanent(message));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests;
