//! Makes a task's container, without running it.

use super::{
    ContainerSetup, PreparedImage, cdi,
    containerd::{
        container::{self, Record},
        labels,
        link::CallError,
        snapshot,
    },
    device,
    engine::{Runtime, SNAPSHOTTER, Shared, disk, permanent},
    folder::Folder,
    host,
    log_config::{LogSetup, Origin},
    mountinfo,
    plan::{self, Abilities, Need, Places, Planned, VolumeUse},
    rootfs::{self, FsMount},
    spec::{self, Facts, Input, edits::Edits, mount::MountSource, user},
    volume::Filling,
    volume_part,
    volumes::{VolumeError, VolumeWanted},
};
use crate::{
    agent::{Failure, Prepared},
    types::{Device, ImageHealth, NamespaceMode, Platform, Task},
    util::{deadline::within, error::chain, unblock::unblock, unbroken::to_its_end},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

/// How long mounting a task's volumes may take: the kernel's own patience with an NFS server that
/// does not answer is minutes, and whoever waits for the task should hear why before.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

/// How long the look into an image may take, with the filling of volumes from it: as long as the
/// unpacking of a layer, 2 GB onto an SD card at 2 MB/s.
const LOOK_LIMIT: Duration = Duration::from_secs(1_200);

/// How long a task waits for others that fill a volume it mounts too, before it says so and is tried
/// again: what most images put into a volume is copied within.
const FILL_PATIENCE: Duration = Duration::from_secs(60);

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

/// What was found good before anything is made.
struct Checked {
    facts: Facts,
    planned: Vec<Planned>,
    edits: Edits,
    log: LogSetup,
    labels: HashMap<String, String>,
    /// What starts it; none is the shim's choice.
    oci: Option<PathBuf>,
}

/// The steps of making a container, for tests that let one of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its folder is there.
    Folder,
    /// Its snapshot is there.
    Snapshot,
    /// Its volumes are filled and its user is known.
    Look,
    /// containerd knows it.
    Record,
}

impl Runtime {
    /// Makes the task's volumes, snapshot and container; returns what was made. Nothing runs yet.
    /// Where it fails, what was made of the container is taken back.
    ///
    /// Goes on where nobody waits for it any more: what containerd or a thread was asked for comes
    /// about all the same, and [`Runtime::remove`] must find it made.
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
        let guard = self.shared.lock(task.id.as_str()).await;
        let runtime = self.clone();
        let (task, setup, image) = (task.clone(), setup.clone(), image.clone());
        let made = to_its_end(async move {
            let _guard = guard;
            runtime.prepare_alone(&task, &setup, &image).await
        });
        let panicked = || Err(permanent("internal error: preparing ended early".to_owned()));
        made.await.unwrap_or_else(panicked)
    }

    async fn prepare_alone(
        &self,
        task: &Task,
        setup: &ContainerSetup,
        image: &PreparedImage,
    ) -> Result<Prepared, Failure> {
        let prepared =
            Prepared { container: task.id.to_string(), health: image.config.health.clone() };
        let id = task.id.as_str();
        let failed = |error: CallError| error.failure("cannot create the container");
        if container::get(&self.shared.link, id).await.map_err(failed)?.is_some() {
            return Ok(prepared);
        }
        let _preparing = Preparing::new(&self.shared, id);
        let checked = self.check(task, setup, image).await?;
        let made = self.make(task, setup, image, checked).await;
        if made.is_err() {
            self.take_back(task, image).await;
        }
        made.map(|()| prepared)
    }

    /// Refuses what cannot work.
    async fn check(
        &self,
        task: &Task,
        setup: &ContainerSetup,
        image: &PreparedImage,
    ) -> Result<Checked, Failure> {
        let (runtime, task, image) = (self.clone(), task.clone(), image.clone());
        let setup = setup.clone();
        unblock(move || {
            let facts = host::facts();
            let architecture = Platform::normalized("linux", std::env::consts::ARCH, "");
            spec::check(&task, &setup, &image.config, &facts, &architecture.architecture)
                .map_err(|error| permanent(error.to_string()))?;
            let oci = runtime
                .shared
                .config
                .oci
                .get()
                .map_err(|error| Failure { message: chain(&error), temporary: true })?;
            let recursive_read_only = oci.recursive_read_only;
            let abilities = Abilities { kernel: facts.kernel, recursive_read_only };
            let planned = runtime.plan(&task, &image, abilities)?;
            let mounts =
                mountinfo::read().map_err(|error| disk("cannot read the node's mounts", &error))?;
            for planned in &planned {
                planned.check(&mounts)?;
            }
            let edits = devices(&task)?;
            let (log, labels) = log(&task, &image, &runtime.folder(task.id.as_str()))?;
            Ok(Checked { facts, planned, edits, log, labels, oci: oci.binary })
        })
        .await
    }

    /// Decides what the task mounts.
    fn plan(
        &self,
        task: &Task,
        image: &PreparedImage,
        abilities: Abilities,
    ) -> Result<Vec<Planned>, Failure> {
        let parts = self.parts(task.id.as_str());
        let places = Places { volumes: self.volumes(), parts: &parts };
        plan::plan(task, image, &places, abilities)
    }

    async fn make(
        &self,
        task: &Task,
        setup: &ContainerSetup,
        image: &PreparedImage,
        checked: Checked,
    ) -> Result<(), Failure> {
        let id = task.id.as_str();
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot create the container");
        let Checked { facts, planned, mut edits, log, labels, oci } = checked;
        self.make_folder(task, setup, image, log, &planned).await?;
        self.reached(Step::Folder)?;
        let mounts = snapshot::prepare(link, &image.snapshotter, id, &image.chain_id);
        let mounts = mounts.await.map_err(failed)?;
        self.reached(Step::Snapshot)?;

        let look = self.look_of(task, image, mounts, planned.clone());
        let (user, more) = look.run().await?;
        edits.extend(more);
        self.reached(Step::Look)?;

        let mut setup = setup.clone();
        setup.hostname_file.get_or_insert_with(|| self.folder(id).hostname());
        let platform = Platform::normalized("linux", std::env::consts::ARCH, "");
        let spec = &task.spec.container;
        // The orphans of a container that sees the node's processes are the node's own init's.
        let has_init = spec.init && spec.pid == NamespaceMode::Private;
        let built = spec::build(&Input {
            id,
            task,
            setup: &setup,
            image: &image.config,
            user,
            mounts: planned.into_iter().map(|planned| planned.mount).collect(),
            edits,
            facts: &facts,
            architecture: &platform.architecture,
            init: has_init.then_some(self.shared.config.helper.as_path()),
        });
        let mut built = built.map_err(|error| permanent(error.to_string()))?;
        note_health(&mut built, &image.config.health);
        let record = Record {
            id: id.to_owned(),
            image: image.name.clone(),
            labels,
            snapshotter: image.snapshotter.clone(),
            created: None,
            spec: built.to_string().into_bytes(),
            oci_runtime: oci,
        };
        container::create(link, record).await.map_err(failed)?;
        self.reached(Step::Record)
    }

    /// Makes the container's folder, what it binds where that may be made, and its volumes.
    async fn make_folder(
        &self,
        task: &Task,
        setup: &ContainerSetup,
        image: &PreparedImage,
        log: LogSetup,
        planned: &[Planned],
    ) -> Result<(), Failure> {
        let id = task.id.as_str();
        let (folder, snapshotter) = (self.folder(id), image.snapshotter.clone());
        let snapshotter = (snapshotter != SNAPSHOTTER).then_some(snapshotter);
        let hostname = setup.hostname_file.is_none().then(|| spec::hostname(id, setup).to_owned());
        let made = unblock(move || {
            folder.create(snapshotter.as_deref(), hostname.as_deref())?;
            log.write(&folder.log())
        });
        made.await.map_err(|error| disk("cannot make the container's folder", &error))?;
        let (volumes, id, planned) = (self.volumes().clone(), id.to_owned(), planned.to_vec());
        mounting(unblock(move || {
            planned.iter().try_for_each(Planned::make)?;
            let wanted = planned.iter().filter_map(|planned| match &planned.need {
                Need::Volume(volume) => Some(volume.wanted.clone()),
                _ => None,
            });
            let wanted: Vec<VolumeWanted> = wanted.collect();
            volumes.attach(&id, &wanted).map_err(|error| refused_volume(&error))
        }))
        .await
    }

    fn look_of(
        &self,
        task: &Task,
        image: &PreparedImage,
        mounts: Vec<FsMount>,
        planned: Vec<Planned>,
    ) -> Look {
        let spec = &task.spec.container;
        Look {
            mounts,
            at: self.shared.config.run_dir.join("rootfs").join(task.id.as_str()),
            planned,
            user: if spec.user.is_empty() { &image.config.user } else { &spec.user }.clone(),
            groups: spec.groups.clone(),
            cdi: spec.devices.iter().filter_map(cdi_name).collect(),
            cdi_dirs: self.shared.config.cdi_dirs.clone(),
        }
    }

    /// Takes back what was made of a container that could not be. What cannot be taken back now is
    /// found by [`Runtime::remove`].
    async fn take_back(&self, task: &Task, image: &PreparedImage) {
        let id = task.id.as_str();
        let link = &self.shared.link;
        // While containerd may know it, its files stay: preparing it again finds it whole.
        if let Err(error) = container::delete(link, id).await {
            tracing::warn!(%error, container = id, "cannot take back a container");
            return;
        }
        if let Err(error) = snapshot::remove(link, &image.snapshotter, id).await {
            tracing::warn!(%error, container = id, "cannot take back a container's snapshot");
        }
        if let Err(failure) = self.remove_files(id).await {
            let error = failure.message;
            tracing::warn!(error, container = id, "cannot take back a container's files");
        }
    }

    /// Removes everything of a container that lies on the node's disk, and the volumes that go
    /// with it.
    pub(super) async fn remove_files(&self, id: &str) -> Result<(), Failure> {
        let rootfs = self.shared.config.run_dir.join("rootfs").join(id);
        let (folder, parts) = (self.folder(id), self.parts(id));
        let (volumes, id) = (self.volumes().clone(), id.to_owned());
        unblock(move || {
            let failed = |error| disk("cannot remove the container's files", &error);
            // Only the empty folder of a mount point.
            drop(std::fs::remove_dir(rootfs));
            volume_part::unmount_all(&parts).map_err(failed)?;
            volumes.forget(&id).map_err(|error| refused_volume(&error))?;
            folder.remove().map_err(failed)
        })
        .await
    }

    /// Mounts what a container is about to need: after a restart of the machine nothing of what
    /// was mounted when it was prepared is left.
    pub(super) async fn mount_volumes(&self, task: &Task) -> Result<(), Failure> {
        // What cannot be was refused when it was prepared.
        let able = Abilities { kernel: (u32::MAX, 0), recursive_read_only: true };
        let planned = self.plan(task, &PreparedImage::default(), able)?;
        let (volumes, id) = (self.volumes().clone(), task.id.to_string());
        mounting(unblock(move || {
            volumes.mount_for(&id).map_err(|error| refused_volume(&error))?;
            for planned in &planned {
                let Need::Volume(volume) = &planned.need else { continue };
                let MountSource::Path { path, .. } = &planned.mount.source else { continue };
                if !volume.subpath.is_empty() {
                    volume_part::mount(&open_part(volume)?, path)
                        .map_err(|error| disk("cannot mount a part of a volume", &error))?;
                }
            }
            Ok(())
        }))
        .await
    }

    /// Returns the folder that parts of volumes are mounted below for a container.
    fn parts(&self, id: &str) -> PathBuf {
        self.shared.config.run_dir.join("parts").join(id)
    }

    /// Tells that a step is done; a test may have it fail.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests"))]
    fn reached(&self, step: Step) -> Result<(), Failure> {
        #[cfg(test)]
        if *self.shared.fault.lock().unwrap() == Some(step) {
            return Err(Failure { message: format!("injected after {step:?}"), temporary: true });
        }
        #[cfg(not(test))]
        let _ = step;
        Ok(())
    }
}

/// Under what the specification holds what the image says of the health of its containers: as
/// long as the container is there, whatever becomes of the image. A label would have to be short.
const HEALTH: &str = "io.midge.image-health";

fn note_health(built: &mut serde_json::Value, health: &ImageHealth) {
    if *health != ImageHealth::default()
        && let Ok(text) = serde_json::to_string(health)
    {
        built["annotations"][HEALTH] = text.into();
    }
}

/// Returns what the image of a container says of its health.
pub(super) fn noted_health(spec: &serde_json::Value) -> ImageHealth {
    let text = spec["annotations"][HEALTH].as_str();
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Waits for mounts, but not for ever: that of a server which is away hangs.
async fn mounting(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    within(MOUNT_LIMIT, work).await.unwrap_or_else(|| {
        let seconds = MOUNT_LIMIT.as_secs();
        let message = format!("mounting the task's volumes takes more than {seconds} s");
        Err(Failure { message, temporary: true })
    })
}

fn refused_volume(error: &VolumeError) -> Failure {
    Failure {
        message: chain(error),
        temporary: matches!(error, VolumeError::Disk { .. } | VolumeError::Mount { .. }),
    }
}

fn cdi_name(device: &Device) -> Option<String> {
    match device {
        Device::Cdi { name } => Some(name.clone()),
        Device::Path { .. } => None,
    }
}

/// Finds the devices that the task names by their paths; all of them where it is privileged.
fn devices(task: &Task) -> Result<Edits, Failure> {
    let refused = |error: device::DeviceError| permanent(chain(&error));
    let spec = &task.spec.container;
    let mut edits = Edits::default();
    if spec.privileged {
        edits = device::every(Path::new("/dev")).map_err(refused)?;
    }
    for device in &spec.devices {
        if let Device::Path { source, target, permissions } = device {
            edits.extend(device::by_path(source, target, permissions).map_err(refused)?);
        }
    }
    Ok(edits)
}

/// Reads how the task's output is kept; returns the container's labels too.
fn log(
    task: &Task,
    image: &PreparedImage,
    folder: &Folder,
) -> Result<(LogSetup, HashMap<String, String>), Failure> {
    let spec = &task.spec.container;
    let stop_signal =
        if spec.stop_signal.is_empty() { &image.config.stop_signal } else { &spec.stop_signal };
    let path = folder.log().to_string_lossy().into_owned();
    let labels = labels::container(task, &image.config.labels, &path, stop_signal);
    let env: Vec<String> = image.config.env.iter().chain(&spec.env).cloned().collect();
    let command = spec::arguments(task, &image.config).unwrap_or_default();
    let origin = Origin {
        task,
        labels: &labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        env: &env,
        image: &image.name,
        image_id: &image.digest,
        command: &command,
    };
    let setup = LogSetup::new(task.spec.log.as_ref(), &origin);
    Ok((setup.map_err(|error| permanent(error.to_string()))?, labels))
}

/// What is done on a thread that may wait for disks: volumes are made and filled, and the image's
/// users looked up.
struct Look {
    mounts: Vec<FsMount>,
    at: PathBuf,
    planned: Vec<Planned>,
    user: String,
    groups: Vec<String>,
    cdi: Vec<String>,
    cdi_dirs: Vec<PathBuf>,
}

impl Look {
    /// Looks, on a thread that is waited for no longer than [`LOOK_LIMIT`]: one that hangs in a dead
    /// disk or network mount never ends.
    async fn run(self) -> Result<(user::User, Edits), Failure> {
        let until = Instant::now() + LOOK_LIMIT;
        let looked = within(LOOK_LIMIT, unblock(move || self.look(until))).await;
        looked.unwrap_or_else(|| {
            let minutes = LOOK_LIMIT.as_secs() / 60;
            let message =
                format!("filling volumes from the image takes more than {minutes} minutes");
            Err(Failure { message, temporary: true })
        })
    }

    fn look(&self, until: Instant) -> Result<(user::User, Edits), Failure> {
        let mut wanted = Vec::new();
        for planned in &self.planned {
            let Need::Volume(volume) = &planned.need else { continue };
            if !volume.subpath.is_empty() {
                drop(open_part(volume)?);
            } else if volume.fill {
                wanted.push((volume.root.clone(), planned.mount.target.clone()));
            }
        }
        let filling = Filling::open(&wanted, FILL_PATIENCE)
            .map_err(|error| disk("cannot make a volume", &error))?;
        let looked = rootfs::with_root(&self.mounts, &self.at, || {
            filling.copy_up(until)?;
            Ok((rootfs::read_text("/etc/passwd")?, rootfs::read_text("/etc/group")?))
        });
        drop(filling);
        let (passwd, group) =
            looked.map_err(|error| disk("cannot look into the image's files", &error))?;
        let user = user::resolve(&self.user, &self.groups, &passwd, &group)
            .map_err(|error| permanent(error.to_string()))?;
        let names: Vec<&str> = self.cdi.iter().map(String::as_str).collect();
        let edits = cdi::resolve(&names, &self.cdi_dirs, user.uid)
            .map_err(|error| permanent(chain(&error)))?;
        Ok((user, edits))
    }
}

/// Opens the part of a volume that is to be mounted; it must be there.
fn open_part(volume: &VolumeUse) -> Result<rustix::fd::OwnedFd, Failure> {
    let VolumeUse { wanted, subpath, root, .. } = volume;
    volume_part::open(root, subpath).map_err(|error| {
        let name = &wanted.name;
        permanent(format!("cannot access path {subpath:?} of the volume {name:?}: {error}"))
    })
}
