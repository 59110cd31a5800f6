//! Chores: what users ask of what this node stores, and of what others do.

use super::{garbage, images};
use crate::{
    agent::garbage::is_wanted,
    api::local::NodeAnswer,
    cluster::{Class, Refusal},
    daemon::{
        machine::host::SystemEntropy,
        remote::{self, Target},
        shared::Shared,
    },
    runtime::{ANONYMOUS, VolumeError, VolumeWanted, Volumes},
    transport::{ByteSender, StreamError},
    types::{
        Chore, ChoreDone, Entropy, NewVolume, NodeId, Prune, StorageUse, StoredContainer,
        StoredImage, StoredVolume, image::Reference,
    },
    util::{deadline::within, error::chain, unblock::unblock},
    wire::{ChoreFrame, StreamRequest},
};
use std::{sync::Arc, time::Duration};

/// How long a chore may take: counting the files of volumes and removing images is the disk's
/// work, and an SD card does some hundred files a second.
const CHORE_LIMIT: Duration = Duration::from_secs(600);

/// Does a chore for another node.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    chore: Chore,
    mut sender: ByteSender,
) -> Result<(), StreamError> {
    let frame = ChoreFrame(run(shared, chore).await);
    sender.send(&frame).await?;
    sender.finish().await
}

/// Does a chore on each of several nodes, all at once; the answers come in order of names.
pub(crate) async fn everywhere(
    shared: &Arc<Shared>,
    targets: Vec<Target>,
    chore: Chore,
) -> Vec<NodeAnswer> {
    let mut asked = Vec::new();
    for target in targets {
        let (shared, chore) = (Arc::clone(shared), chore.clone());
        asked.push(smol::spawn(async move {
            match target {
                Target::Here => {
                    let node = shared.member().map(|member| member.membership.node.clone());
                    let name = shared.containers.machine().hostname.clone();
                    NodeAnswer { node, name, result: run(&shared, chore).await }
                }
                Target::There(node, name) => {
                    let result = ask(&shared, &node, chore).await;
                    NodeAnswer { node: Some(node), name, result }
                }
            }
        }));
    }
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await);
    }
    answers.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    answers
}

async fn ask(shared: &Shared, node: &NodeId, chore: Chore) -> Result<ChoreDone, Refusal> {
    let mut line = remote::ask(shared, node, StreamRequest::Chore(Box::new(chore))).await?;
    let ChoreFrame(result) = line.answers().within(CHORE_LIMIT).await?;
    result
}

/// Does a chore on this node.
pub(crate) async fn run(shared: &Shared, chore: Chore) -> Result<ChoreDone, Refusal> {
    let work = async {
        match chore {
            Chore::Images => Ok(ChoreDone::Images(images::list(shared).await?)),
            Chore::Image { name } => {
                Ok(ChoreDone::Image(Box::new(images::inspect(shared, &name).await?)))
            }
            Chore::RemoveImage { name, force } => {
                let removed = images::remove(shared, &name, force).await?;
                Ok(ChoreDone::ImagesRemoved { removed, freed: 0 })
            }
            Chore::PruneImages(prune) => prune_images(shared, &prune).await,
            Chore::Usage => Ok(ChoreDone::Usage(Box::new(usage(shared).await?))),
            volumes => {
                let store = shared.containers.runtime().volumes().clone();
                let done = unblock(move || volume_chore(&store, volumes)).await;
                done.map_err(|error| refusal(&error))
            }
        }
    };
    let late = || Err(Refusal::new(Class::Unavailable, "it did not finish in time"));
    within(CHORE_LIMIT, Box::pin(work)).await.unwrap_or_else(late)
}

fn refusal(error: &VolumeError) -> Refusal {
    let class = match error {
        VolumeError::NotFound(_) | VolumeError::Driver(_) => Class::NotFound,
        VolumeError::Name(_) | VolumeError::Options(_) => Class::Invalid,
        VolumeError::InUse { .. } => Class::Conflict,
        VolumeError::Mount { .. } | VolumeError::Disk { .. } => Class::Internal,
    };
    Refusal::new(class, chain(error))
}

fn volume_chore(volumes: &Volumes, chore: Chore) -> Result<ChoreDone, VolumeError> {
    match chore {
        Chore::Volumes => Ok(ChoreDone::Volumes(volumes.list()?)),
        Chore::Volume { name } => Ok(ChoreDone::Volume(Box::new(volumes.get(&name)?))),
        Chore::CreateVolume(new) => Ok(ChoreDone::Volume(Box::new(volumes.create(&wanted(new))?))),
        Chore::RemoveVolume { name, force } => {
            volumes.remove(&name, force)?;
            Ok(ChoreDone::Done)
        }
        Chore::PruneVolumes(prune) => {
            let (mut removed, mut freed) = (Vec::new(), 0);
            for volume in volumes.list()? {
                if !prune.takes_volume(&volume, ANONYMOUS) {
                    continue;
                }
                let size = volumes.size(&volume).unwrap_or(0);
                match volumes.remove(&volume.name, true) {
                    Ok(()) => {
                        freed += size;
                        removed.push(volume.name);
                    }
                    // A task began to use it meanwhile.
                    Err(VolumeError::InUse { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(ChoreDone::VolumesRemoved { removed, freed })
        }
        // The others are not about volumes; `run` has them.
        Chore::Images
        | Chore::Image { .. }
        | Chore::RemoveImage { .. }
        | Chore::PruneImages(_)
        | Chore::Usage => Ok(ChoreDone::Done),
    }
}

fn wanted(new: NewVolume) -> VolumeWanted {
    let NewVolume { mut name, mut options } = new;
    if name.is_empty() {
        let (high, low) = (SystemEntropy.next_u128(), SystemEntropy.next_u128());
        name = format!("{high:032x}{low:032x}");
        options.labels.insert(ANONYMOUS.to_owned(), String::new());
    }
    VolumeWanted { name, options, owner: None }
}

async fn prune_images(shared: &Shared, prune: &Prune) -> Result<ChoreDone, Refusal> {
    let failed = |error: &dyn std::error::Error| Refusal::new(Class::Internal, chain(error));
    let store = shared.containers.images();
    let before = store.disk().await.map_err(|error| failed(&error))?;
    let wanted = garbage::wanted(shared).await?;
    let mut removed = Vec::new();
    let total = before.total;
    for image in before.images {
        let target = image.target.clone();
        let names: Vec<String> = image.names.iter().chain(&image.digests).cloned().collect();
        // A task that is being prepared has no container yet that would keep its image.
        if is_wanted(&wanted, &names, &target) {
            continue;
        }
        if prune.takes_image(&images::summary(image)) {
            let gone = store.forget(&target).await.map_err(|error| failed(&error))?;
            removed.extend(images::told(shared, gone));
        }
    }
    let after = store.disk().await.map_err(|error| failed(&error))?;
    Ok(ChoreDone::ImagesRemoved { removed, freed: total.saturating_sub(after.total) })
}

/// Adds up what takes this node's disk.
async fn usage(shared: &Shared) -> Result<StorageUse, Refusal> {
    let runtime = shared.containers.runtime();
    let images = shared.containers.images().disk().await;
    let images = images.map_err(|error| Refusal::new(Class::Internal, chain(&error)))?;
    let away = |failure: crate::agent::Failure| Refusal::new(Class::Unavailable, failure.message);
    let sizes = runtime.sizes().await.map_err(away)?;
    let list = runtime.list().await.map_err(away)?;
    let store = runtime.volumes().clone();
    let volumes = unblock(move || {
        let mut volumes = store.list()?;
        for volume in &mut volumes {
            volume.size = store.size(volume);
        }
        Ok(volumes)
    });
    let volumes: Vec<StoredVolume> = volumes.await.map_err(|error| refusal(&error))?;
    let total = images.total;
    let mut ids = std::collections::BTreeMap::new();
    let mut shown: Vec<StoredImage> = Vec::new();
    for image in images.images {
        ids.extend(image.users.iter().map(|user| (user.clone(), image.id.clone())));
        shown.push(images::summary(image));
    }
    let stored = list.into_iter().map(|info| {
        let uses = volumes.iter().filter(|volume| volume.users.contains(&info.container));
        let name = info.labels.get("com.docker.swarm.task.name").unwrap_or(&info.container);
        let image = Reference::parse(&info.image).map(|reference| reference.to_string());
        StoredContainer {
            name: name.clone(),
            image: image.unwrap_or(info.image),
            image_id: ids.get(&info.container).cloned().unwrap_or_default(),
            command: info.command,
            created: info.created,
            state: match info.phase {
                crate::agent::Phase::Created => "created",
                crate::agent::Phase::Running { .. } => "running",
                crate::agent::Phase::Exited { .. } => "exited",
            }
            .to_owned(),
            size: sizes.get(&info.container).copied().unwrap_or(0),
            volumes: u64::try_from(uses.count()).unwrap_or(u64::MAX),
            labels: info.labels,
            id: info.container,
        }
    });
    let containers = stored.collect();
    Ok(StorageUse { images_size: total, images: shown, containers, volumes })
}
