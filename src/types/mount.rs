//! What mounts must satisfy, before and after their templates are expanded.

use super::{BindOptions, Mount, MountKind, Propagation, VolumeOptions, is_volume_name};
use std::collections::BTreeSet;

/// A mount that breaks the rules. The texts are Docker's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMount {
    /// No target.
    #[error("ContainerSpec: mount target must be provided")]
    NoTarget,
    /// A relative target.
    #[error("invalid mount target, must be an absolute path: {0}")]
    RelativeTarget(String),
    /// A target that could leave the container's root.
    #[error("invalid mount target, must not climb with \"..\": {0}")]
    ClimbingTarget(String),
    /// The root as target.
    #[error("invalid mount target: the container's root cannot be replaced")]
    RootTarget,
    /// Two mounts at one place.
    #[error("ContainerSpec: duplicate mount point: {0}")]
    Duplicate(String),
    /// A bind mount of nothing; names the target.
    #[error("invalid bind mount source, must not be empty (target {0})")]
    NoBindSource(String),
    /// A bind mount of a relative path.
    #[error("invalid bind mount source, must be an absolute path: {0}")]
    RelativeBindSource(String),
    /// Two answers to what lies below a read-only bind mount.
    #[error(
        "invalid bind options for {0}: ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other"
    )]
    ReadOnlyBoth(String),
    /// An option of read-only mounts on one that is none.
    #[error(
        "invalid bind options for {0}: bind-recursive=writable and bind-recursive=readonly need readonly"
    )]
    NotReadOnly(String),
    /// Mounts below that would come and go cannot be kept read-only.
    #[error(
        "invalid bind options for {0}: bind-recursive=readonly needs bind-propagation=rprivate"
    )]
    ForcedPropagation(String),
    /// Mounts below are left out, and something is said of them.
    #[error(
        "invalid bind options for {0}: bind-recursive=disabled leaves nothing to be read-only below"
    )]
    NonRecursiveBoth(String),
    /// Not the name of a volume.
    #[error(
        "invalid volume mount source, must not be an absolute path and only \
         [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed: {0}"
    )]
    VolumeName(String),
    /// A name of one character, which Docker does not take either.
    #[error("invalid volume mount source, must have at least 2 characters: {0}")]
    ShortVolumeName(String),
    /// A volume that starts empty and cannot be written to; names the target.
    #[error("must not set ReadOnly mode when using anonymous volumes (target {0})")]
    AnonymousReadOnly(String),
    /// A part of a volume that is not below it.
    #[error("invalid volume subpath, must be relative and must not climb with \"..\": {0}")]
    Subpath(String),
    /// A part of a volume that is made empty for each task; names the target.
    #[error("must not set Subpath when using anonymous volumes (target {0})")]
    AnonymousSubpath(String),
    /// Not a mode.
    #[error("invalid tmpfs mode {0:o}: at most 7777")]
    TmpfsMode(u32),
}

/// Checks mounts, each alone and all together.
///
/// # Errors
///
/// The first rule that one breaks.
pub fn validate_mounts(mounts: &[Mount]) -> Result<(), InvalidMount> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        let target = || mount.target.clone();
        if mount.target.is_empty() {
            return Err(InvalidMount::NoTarget);
        }
        if !mount.target.starts_with('/') {
            return Err(InvalidMount::RelativeTarget(target()));
        }
        let Some(parts) = lexical(&mount.target) else {
            return Err(InvalidMount::ClimbingTarget(target()));
        };
        if parts.is_empty() {
            return Err(InvalidMount::RootTarget);
        }
        if !targets.insert(parts) {
            return Err(InvalidMount::Duplicate(target()));
        }
        match &mount.kind {
            MountKind::Bind { source, options } => bind(mount, source, options)?,
            MountKind::Volume { name, options } => volume(mount, name, options)?,
            MountKind::Tmpfs { options } => {
                if let Some(mode) = options.mode.filter(|mode| *mode > 0o7777) {
                    return Err(InvalidMount::TmpfsMode(mode));
                }
            }
        }
    }
    Ok(())
}

fn bind(mount: &Mount, source: &str, options: &BindOptions) -> Result<(), InvalidMount> {
    let target = || mount.target.clone();
    if source.is_empty() {
        return Err(InvalidMount::NoBindSource(target()));
    }
    if !source.starts_with('/') {
        return Err(InvalidMount::RelativeBindSource(source.to_owned()));
    }
    let (writable, forced) = (options.read_only_non_recursive, options.read_only_force_recursive);
    if writable && forced {
        return Err(InvalidMount::ReadOnlyBoth(target()));
    }
    if (writable || forced) && !mount.read_only {
        return Err(InvalidMount::NotReadOnly(target()));
    }
    if (writable || forced) && options.non_recursive {
        return Err(InvalidMount::NonRecursiveBoth(target()));
    }
    if forced && options.propagation != Propagation::RPrivate {
        return Err(InvalidMount::ForcedPropagation(target()));
    }
    Ok(())
}

fn volume(mount: &Mount, name: &str, options: &VolumeOptions) -> Result<(), InvalidMount> {
    if name.len() == 1 {
        return Err(InvalidMount::ShortVolumeName(name.to_owned()));
    }
    if !name.is_empty() && !is_volume_name(name) {
        return Err(InvalidMount::VolumeName(name.to_owned()));
    }
    if name.is_empty() && mount.read_only {
        return Err(InvalidMount::AnonymousReadOnly(mount.target.clone()));
    }
    if name.is_empty() && !options.subpath.is_empty() {
        return Err(InvalidMount::AnonymousSubpath(mount.target.clone()));
    }
    if options.subpath.starts_with('/') || lexical(&options.subpath).is_none() {
        return Err(InvalidMount::Subpath(options.subpath.clone()));
    }
    Ok(())
}

/// Returns the path's parts, so that `/a`, `/a/` and `/./a` are known as one; none where it climbs.
fn lexical(path: &str) -> Option<Vec<&str>> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.map(|part| (part != "..").then_some(part)).collect()
}
