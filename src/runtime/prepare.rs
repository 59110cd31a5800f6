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
    image::chain,
    rootfs::{self, FsMount},
    spec::{self, BindMount, Input, user},
    volume,
    volumes::{ANONYMOUS, VolumeError, VolumeWanted, Volumes, own_name},
};
use crate::{
    agent::{Failure, Prepared},
    types::{ImageHealth, Labels, MountKind, Platform, Task, VolumeOptions, is_volume_name},
};
use futures_lite::future;
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

/// How long mounting a task's volumes may take: the kernel's own patience with an NFS server that
/// does not answer is minutes, and whoever waits for the task should hear why before.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

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
    /// The volume that it is.
    volume: Option<VolumeWanted>,
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
        let planned = plan(task, image, self.volumes())?;
        check(task, image, &planned)?;
        let hostname = spec::hostname(id, setup).to_owned();
        let made = {
            let (folder, snapshotter) = (folder.clone(), image.snapshotter.clone());
            smol::unblock(move || folder.create(&snapshotter, &hostname))
        };
        made.await.map_err(|error| disk("cannot make the container's folder", &error))?;
        self.attach_volumes(id, &planned).await?;
        let mounts = snapshot::prepare(link, &image.snapshotter, id, &image.chain_id);
        let mounts = mounts.await.map_err(failed)?;

        let wanted = given_or(&task.spec.container.user, &image.config.user).to_owned();
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
        let stop_signal = given_or(&task.spec.container.stop_signal, &image.config.stop_signal);
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

impl Runtime {
    /// Makes and mounts the volumes of a container.
    async fn attach_volumes(&self, id: &str, planned: &[Planned]) -> Result<(), Failure> {
        let wanted: Vec<VolumeWanted> =
            planned.iter().filter_map(|planned| planned.volume.clone()).collect();
        let (volumes, id) = (self.volumes().clone(), id.to_owned());
        mounting(smol::unblock(move || volumes.attach(&id, &wanted))).await
    }

    /// Mounts the volumes of a container that is about to start, where they are not.
    pub(super) async fn mount_volumes(&self, id: &str) -> Result<(), Failure> {
        let (volumes, id) = (self.volumes().clone(), id.to_owned());
        mounting(smol::unblock(move || volumes.mount_for(&id))).await
    }
}

/// Returns what the task says, or what its image does.
fn given_or<'a>(task: &'a str, image: &'a str) -> &'a str {
    if task.is_empty() { image } else { task }
}

/// Waits for a mount, but not for ever: that of a server which is away hangs.
async fn mounting(work: impl Future<Output = Result<(), VolumeError>>) -> Result<(), Failure> {
    let done = async {
        work.await.map_err(|error| Failure {
            message: chain(&error),
            temporary: matches!(error, VolumeError::Disk { .. } | VolumeError::Mount { .. }),
        })
    };
    let late = async {
        smol::Timer::after(MOUNT_LIMIT).await;
        let seconds = MOUNT_LIMIT.as_secs();
        let message = format!("mounting the task's volumes takes more than {seconds} s");
        Err(Failure { message, temporary: true })
    };
    future::or(done, late).await
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
fn plan(task: &Task, image: &PreparedImage, volumes: &Volumes) -> Result<Vec<Planned>, Failure> {
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
    for mount in &task.spec.container.mounts {
        let target = clean(&mount.target)?;
        let (source, volume) = match &mount.kind {
            MountKind::Bind { source, .. } => (Some(PathBuf::from(source)), None),
            MountKind::Volume { name, options } if name.is_empty() => {
                (None, Some(next_own(options)))
            }
            MountKind::Volume { name, options } if is_volume_name(name) => {
                let (name, options) = (name.clone(), options.clone());
                (None, Some(VolumeWanted { name, options, owner: None }))
            }
            MountKind::Volume { name, .. } => {
                return Err(permanent(VolumeError::Name(name.clone()).to_string()));
            }
            MountKind::Tmpfs { .. } => (None, None),
        };
        if !targets.insert(target.clone()) {
            return Err(permanent(format!("duplicate mount point: {target}")));
        }
        let source = volume.as_ref().map(|volume| volumes.content(&volume.name)).or(source);
        let mount = BindMount { source, target, read_only: mount.read_only };
        all.push(Planned { mount, fill: volume.is_some(), volume });
    }
    for target in &image.config.volumes {
        let target = clean(target)?;
        if targets.insert(target.clone()) {
            let volume = next_own(&VolumeOptions::default());
            let source = Some(volumes.content(&volume.name));
            let mount = BindMount { source, target, read_only: false };
            all.push(Planned { mount, fill: true, volume: Some(volume) });
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
