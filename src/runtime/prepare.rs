//! Makes a task's container, without running it.

use super::{
    ContainerSetup, PreparedImage, cgroups,
    containerd::{
        container::{self, Record},
        labels,
        link::CallError,
        snapshot,
    },
    engine::{Runtime, Shared, disk, permanent},
    folder::Folder,
    rootfs::{self, FsMount},
    spec::{self, BindMount, Input, user},
    volume,
};
use crate::{
    agent::{Failure, Prepared},
    types::{ImageHealth, MountKind, Platform, Task},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

/// Names a container that is being made, until dropped.
struct Preparing {
    shared: Arc<Shared>,
    id: String,
}

impl Preparing {
    fn new(shared: &Arc<Shared>, id: &str) -> Self {
        let mut all = shared.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.to_owned());
        drop(all);
        Self { shared: shared.clone(), id: id.to_owned() }
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        let mut all = self.shared.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.id);
    }
}

/// A mount whose folder on the node is known.
struct Planned {
    mount: BindMount,
    /// Whether it is a volume that the image's content goes into when it is first used.
    fill: bool,
}

impl Runtime {
    /// Makes the task's volumes, snapshot and container; returns what was made. Nothing runs
    /// yet.
    ///
    /// # Errors
    ///
    /// The task asks for what the image or the node does not have, or containerd refuses.
    pub async fn prepare(
        &self,
        task: &Task,
        setup: &ContainerSetup,
        image: &PreparedImage,
    ) -> Result<Prepared, Failure> {
        let guard = self.lock(&task.id).await;
        let id = task.id.as_str();
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot create the container");
        if container::get(link, id).await.map_err(failed)?.is_some() {
            return Ok(prepared(task, image));
        }
        let preparing = Preparing::new(&self.shared, id);
        let folder = self.folder(id);
        let planned = plan(task, image, &self.shared.config.data_dir, &folder)?;
        check(task, image, &planned)?;
        let hostname = spec::hostname(id, setup).to_owned();
        let made = {
            let (folder, snapshotter) = (folder.clone(), image.snapshotter.clone());
            smol::unblock(move || folder.create(&snapshotter, &hostname))
        };
        made.await.map_err(|error| disk("cannot make the container's folder", &error))?;
        let mounts = snapshot::prepare(link, &image.snapshotter, id, &image.chain_id);
        let mounts = mounts.await.map_err(failed)?;

        let wanted = if task.spec.container.user.is_empty() {
            image.config.user.clone()
        } else {
            task.spec.container.user.clone()
        };
        let at = self.shared.config.run_dir.join("rootfs").join(id);
        let fill: Vec<(PathBuf, String)> = planned
            .iter()
            .filter(|planned| planned.fill)
            .filter_map(|p| Some((p.mount.source.clone()?, p.mount.target.clone())))
            .collect();
        // The guards go along: whoever comes next must wait for the thread, even if nobody waits
        // for this call any more.
        let looked = smol::unblock(move || {
            let user = look(&mounts, &at, &fill, &wanted);
            (user, (guard, preparing))
        });
        let (user, _guards) = looked.await;
        let user = user?;

        let mut setup = setup.clone();
        setup.hostname_file.get_or_insert_with(|| folder.hostname());
        let platform = Platform::normalized("linux", std::env::consts::ARCH, "");
        let controllers = cgroups::controllers(Path::new(cgroups::ROOT));
        let built = spec::build(&Input {
            id,
            task,
            setup: &setup,
            image: &image.config,
            user,
            mounts: planned.into_iter().map(|planned| planned.mount).collect(),
            controllers,
            architecture: &platform.architecture,
            init: task.spec.container.init.then_some(self.shared.config.helper.as_path()),
        });
        let built = built.map_err(|error| permanent(error.to_string()))?;
        let stop_signal = if task.spec.container.stop_signal.is_empty() {
            &image.config.stop_signal
        } else {
            &task.spec.container.stop_signal
        };
        let log = folder.log().to_string_lossy().into_owned();
        let record = Record {
            id: id.to_owned(),
            image: image.name.clone(),
            labels: labels::container(task, &image.config.labels, &log, stop_signal),
            snapshotter: image.snapshotter.clone(),
            created: None,
            spec: with_health(built, &image.config.health).to_string().into_bytes(),
        };
        container::create(link, record).await.map_err(failed)?;
        Ok(prepared(task, image))
    }
}

/// Under what the specification holds what the image says of the health of its containers: as
/// long as the container is there, whatever becomes of the image. A label would have to be short.
const HEALTH: &str = "io.midge.image-health";

fn prepared(task: &Task, image: &PreparedImage) -> Prepared {
    Prepared { container: task.id.to_string(), health: image.config.health.clone() }
}

fn with_health(mut built: serde_json::Value, health: &ImageHealth) -> serde_json::Value {
    if *health != ImageHealth::default()
        && let Ok(text) = serde_json::to_string(health)
    {
        built["annotations"][HEALTH] = text.into();
    }
    built
}

/// Returns what the image of a container says of its health.
pub(super) fn noted_health(spec: &serde_json::Value) -> ImageHealth {
    let text = spec["annotations"][HEALTH].as_str();
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Refuses, before anything is made, what cannot work.
fn check(task: &Task, image: &PreparedImage, planned: &[Planned]) -> Result<(), Failure> {
    let controllers = cgroups::controllers(Path::new(cgroups::ROOT));
    let refused = spec::check(task, &image.config, &controllers);
    refused.map_err(|error| permanent(error.to_string()))?;
    let own = |planned: &&Planned| !planned.fill;
    for source in planned.iter().filter(own).filter_map(|planned| planned.mount.source.as_ref()) {
        if !source.exists() {
            let path = source.display();
            return Err(permanent(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )));
        }
    }
    Ok(())
}

/// Decides what is mounted where: the task's mounts, and a volume of the container's own for each
/// that the image declares and the task does not mount. Outer paths come before inner ones.
fn plan(
    task: &Task,
    image: &PreparedImage,
    data_dir: &Path,
    folder: &Folder,
) -> Result<Vec<Planned>, Failure> {
    let mut own = 0;
    let mut next_own = || {
        own += 1;
        folder.volume(own - 1)
    };
    let mut all = Vec::new();
    let mut targets = BTreeSet::new();
    for mount in &task.spec.container.mounts {
        let target = clean(&mount.target)?;
        let (source, fill) = match &mount.kind {
            MountKind::Bind { source, .. } => (Some(PathBuf::from(source)), false),
            MountKind::Volume { name, .. } if name.is_empty() => (Some(next_own()), true),
            MountKind::Volume { name, .. } if volume::is_name(name) => {
                (Some(data_dir.join("volumes").join(name).join("_data")), true)
            }
            MountKind::Volume { name, .. } => {
                return Err(permanent(format!(
                    "{name:?} includes invalid characters for a local volume name, only \
                     \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
                )));
            }
            MountKind::Tmpfs { .. } => (None, false),
        };
        if !targets.insert(target.clone()) {
            return Err(permanent(format!("duplicate mount point: {target}")));
        }
        all.push(Planned { mount: BindMount { source, target, read_only: mount.read_only }, fill });
    }
    for target in &image.config.volumes {
        let target = clean(target)?;
        if targets.insert(target.clone()) {
            let mount = BindMount { source: Some(next_own()), target, read_only: false };
            all.push(Planned { mount, fill: true });
        }
    }
    all.sort_by_key(|planned| planned.mount.target.matches('/').count());
    Ok(all)
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

/// Looks into the image: fills volumes, and finds the user's ids.
fn look(
    mounts: &[FsMount],
    at: &Path,
    fill: &[(PathBuf, String)],
    wanted: &str,
) -> Result<user::User, Failure> {
    let open = |(path, target): &(PathBuf, String)| Ok((volume::open(path)?, target.clone()));
    let volumes: io::Result<Vec<_>> = fill.iter().map(open).collect();
    let volumes = volumes.map_err(|error| disk("cannot make a volume", &error))?;
    let looked = rootfs::with_root(mounts, at, || {
        for (volume, target) in &volumes {
            volume::copy_up(volume, target)?;
        }
        Ok((rootfs::read_text("/etc/passwd")?, rootfs::read_text("/etc/group")?))
    });
    let (passwd, group) =
        looked.map_err(|error| disk("cannot look into the image's files", &error))?;
    user::resolve(wanted, &passwd, &group).map_err(|error| permanent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn equal_targets_are_seen_to_be() {
        assert_eq!(clean("/a//b/./c/../").unwrap(), "/a/b");
        for target in ["a", "/", "", "/a/.."] {
            assert!(clean(target).is_err(), "{target}");
        }
    }
}
