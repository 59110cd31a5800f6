//! Images: this node's for users, and archives for many nodes at once.

use super::logs::streams_of;
use crate::{
    api::local::{BoxStream, Progress, PullOptions, Resolved},
    cluster::{Class, Refusal},
    daemon::{
        remote::{self, Target},
        shared::Shared,
    },
    runtime::image::{self, ImageError, ImageSummary, PullError, Removal, Step},
    transport::{ByteReceiver, ByteSender, StreamError},
    types::{
        NodeId, RegistryCredential, RemovedImage, StoredImage, StoredImageDetail, image::Reference,
    },
    util::error::chain,
    wire::{ArchiveFrame, LoadFrame, StreamRequest},
};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{FutureExt as _, StreamExt as _};
use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

/// Pieces of an archive between the upload and each node: the slowest one makes the rest wait.
const PIECES_MAX: usize = 8;

/// The largest piece that is sent on as one.
const PIECE_MAX: usize = 1 << 20;

/// Steps of progress that wait for the reader.
const STEPS_MAX: usize = 64;

/// How long an upload, or a node that takes it, may stand still before it counts as broken.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a node may take to unpack after the last byte.
const UNPACK_LIMIT: Duration = Duration::from_secs(900);

/// Reads pieces as one blocking reader, for containerd's side of a load.
struct Pieces {
    pieces: Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let next = async { self.pieces.recv().await.ok() };
            let late = async {
                smol::Timer::after(IDLE_LIMIT).await;
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the archive stopped coming")))
            };
            match smol::block_on(next.or(late)) {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.rest.len());
        out[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

async fn load_here(
    shared: &Shared,
    pieces: Receiver<io::Result<Bytes>>,
    progress: impl Fn(image::Progress) + Send + Sync,
) -> Result<Vec<String>, String> {
    let platform = shared.containers.platform().await;
    let reader = Pieces { pieces, rest: Bytes::new() };
    let loaded = shared.containers.images().load(reader, &platform, progress).await;
    let loaded = loaded.map_err(|error| chain(&error))?;
    for image in &loaded {
        shared.containers.teller().image("load", &image.digest, &image.name);
    }
    Ok(loaded.into_iter().map(|image| image.name).collect())
}

/// Takes an archive that a manager sends.
pub(crate) async fn serve_load(
    shared: &Arc<Shared>,
    mut sender: ByteSender,
    mut receiver: ByteReceiver,
) -> Result<(), StreamError> {
    let (pieces_in, pieces) = async_channel::bounded(PIECES_MAX);
    let forward = smol::spawn(async move {
        loop {
            let item = match receiver.receive::<ArchiveFrame>().await {
                Ok(Some(ArchiveFrame(piece))) if piece.is_empty() => return,
                Ok(Some(ArchiveFrame(piece))) => Ok(Bytes::from(piece)),
                Ok(None) => Err(io::Error::other("the archive was cut off")),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            let ended = item.is_err();
            if pieces_in.send(item).await.is_err() || ended {
                return;
            }
        }
    });
    let frame = match load_here(shared, pieces, |_| {}).await {
        Ok(names) => LoadFrame::Loaded(names),
        Err(error) => LoadFrame::Failed(error),
    };
    drop(forward);
    sender.send(&frame).await?;
    sender.finish().await
}

async fn load_there(
    shared: &Shared,
    node: &NodeId,
    pieces: &Receiver<io::Result<Bytes>>,
) -> Result<Vec<String>, Refusal> {
    let request = StreamRequest::LoadImage { size: 0 };
    let (mut sender, mut answers) = remote::ask(shared, node, request).await?.split();
    let feed = async {
        'feed: while let Ok(piece) = pieces.recv().await {
            let cut = |error: io::Error| Refusal::new(Class::Invalid, error.to_string());
            for part in piece.map_err(cut)?.chunks(PIECE_MAX) {
                if sender.send(&ArchiveFrame(part.to_vec())).await.is_err() {
                    break 'feed;
                }
            }
        }
        // Where the stream broke, the other direction tells why.
        let _sent = sender.send(&ArchiveFrame(Vec::new())).await;
        std::future::pending::<Result<LoadFrame, Refusal>>().await
    };
    // The node may refuse in the middle: its answer is waited for all along.
    let answer = async { Ok(answers.within(UNPACK_LIMIT).await?) };
    match answer.or(feed).await? {
        LoadFrame::Loaded(names) => Ok(names),
        LoadFrame::Failed(error) => Err(Refusal::new(Class::Internal, error)),
    }
}

/// Loads an archive into several nodes at once.
pub(crate) fn load(
    shared: Arc<Shared>,
    targets: Vec<Target>,
    mut archive: BoxStream<io::Result<Bytes>>,
) -> BoxStream<Progress> {
    let (sender, items) = async_channel::bounded(STEPS_MAX);
    let many = targets.len() > 1;
    let work = smol::spawn(async move {
        let mut feeds = Vec::new();
        let mut loads = Vec::new();
        for target in targets {
            let (feed, pieces) = async_channel::bounded(PIECES_MAX);
            feeds.push(feed);
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            loads.push(smol::spawn(async move {
                load_one(&shared, target, pieces, many, &sender).await
            }));
        }
        while let Some(piece) = archive.next().await {
            for feed in &feeds {
                let copy = match &piece {
                    Ok(bytes) => Ok(bytes.clone()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                // A node that failed takes no more; its error is told below.
                feed.send(copy).await.ok();
            }
            if piece.is_err() || feeds.iter().all(Sender::is_closed) {
                break;
            }
        }
        drop(feeds);
        let mut failures = Vec::new();
        for load in loads {
            failures.extend(load.await);
        }
        if !failures.is_empty() {
            // The user has gone where nobody takes it.
            sender.send(Progress::Error(failures.join("\n"))).await.ok();
        }
    });
    streams_of(items, work)
}

/// Loads into one node and tells how it went; returns what failed.
async fn load_one(
    shared: &Arc<Shared>,
    target: Target,
    pieces: Receiver<io::Result<Bytes>>,
    many: bool,
    sender: &Sender<Progress>,
) -> Option<String> {
    let (name, loaded) = match target {
        Target::Here => {
            let steps = sender.clone();
            let progress = move |step: image::Progress| {
                if !many {
                    // Steps are for the eye: one that finds no room is passed over.
                    let _shown = steps.try_send(progress(step));
                }
            };
            let name = shared.containers.machine().hostname.clone();
            (name, load_here(shared, pieces, progress).await)
        }
        Target::There(node, name) => {
            let loaded = load_there(shared, &node, &pieces).await;
            (name, loaded.map_err(|refusal| refusal.message))
        }
    };
    match loaded {
        Ok(images) => {
            for image in images {
                let what = if image.starts_with("sha256:") { "image ID" } else { "image" };
                let text = if many {
                    format!("{name}: Loaded {what}: {image}\n")
                } else {
                    format!("Loaded {what}: {image}\n")
                };
                sender.send(Progress::Text(text)).await.ok();
            }
            None
        }
        Err(error) if many => Some(format!("{name}: {error}")),
        Err(error) => Some(error),
    }
}

fn progress(step: image::Progress) -> Progress {
    let amount = (step.total > 0).then_some((step.current, step.total));
    Progress::Status { id: step.id, status: step.step.to_string(), amount }
}

/// Pulls an image.
pub(crate) fn pull(
    shared: Arc<Shared>,
    reference: Reference,
    options: PullOptions,
) -> BoxStream<Progress> {
    let (sender, items) = async_channel::bounded(STEPS_MAX);
    let work = smol::spawn(async move {
        let platform = match options.platform {
            Some(platform) => platform,
            None => shared.containers.platform().await,
        };
        let steps = sender.clone();
        let show = move |step: image::Progress| {
            // Only the amounts may be passed over; what happens to a layer may not.
            let item = progress(step.clone());
            if matches!(step.step, Step::Downloading) {
                let _shown = steps.try_send(item);
            } else {
                steps.send_blocking(item).ok();
            }
        };
        let images = shared.containers.images();
        let pulled = images.pull(&reference, options.credential.as_ref(), &platform, show).await;
        let last = match pulled {
            Ok(pulled) => {
                shared.containers.teller().pulled(&reference);
                let status =
                    |status: String| Progress::Status { id: String::new(), status, amount: None };
                sender.send(status(format!("Digest: {}", pulled.digest))).await.ok();
                let what =
                    if pulled.changed { "Downloaded newer image" } else { "Image is up to date" };
                status(format!("Status: {what} for {reference}"))
            }
            Err(error) => Progress::Error(chain(&error)),
        };
        sender.send(last).await.ok();
    });
    streams_of(items, work)
}

/// Asks the registry what a reference stands for.
pub(crate) async fn resolve(
    shared: &Shared,
    reference: &Reference,
    credential: Option<&RegistryCredential>,
) -> Result<Resolved, Refusal> {
    let resolved = shared.containers.images().resolve(reference, credential).await;
    let resolved = resolved.map_err(|error: PullError| {
        let class = if error.is_not_found() { Class::NotFound } else { Class::Internal };
        Refusal::new(class, chain(&error))
    })?;
    Ok(Resolved {
        digest: resolved.digest,
        media_type: resolved.media_type,
        size: resolved.size,
        platforms: resolved.platforms,
    })
}

/// Asks a registry whether it takes a login.
pub(crate) async fn login(
    shared: &Shared,
    registry: String,
    credential: RegistryCredential,
) -> Result<(), Refusal> {
    shared.containers.images().check_login(registry, credential).await.map_err(|error| {
        let class = if error.is_refusal() { Class::Unauthorized } else { Class::Unavailable };
        Refusal::new(class, chain(&error))
    })
}

fn refusal(error: &ImageError) -> Refusal {
    let class = match error {
        ImageError::NotFound(_) => Class::NotFound,
        ImageError::Ambiguous(_) | ImageError::Reference(_) => Class::Invalid,
        ImageError::Conflict { .. } => Class::Conflict,
        ImageError::Runtime(_) => Class::Internal,
    };
    Refusal::new(class, chain(error))
}

pub(crate) fn summary(image: ImageSummary) -> StoredImage {
    StoredImage {
        id: image.id,
        tags: image.names,
        digests: image.digests,
        created: image.created,
        size: image.size,
        shared: image.shared,
        labels: image.labels,
        platforms: image.platforms,
        containers: u64::try_from(image.users.len()).unwrap_or(u64::MAX),
    }
}

/// Lists the images of this node.
pub(crate) async fn list(shared: &Shared) -> Result<Vec<StoredImage>, Refusal> {
    let images = shared.containers.images().list().await;
    let images = images.map_err(|error| Refusal::new(Class::Internal, chain(&error)))?;
    Ok(images.into_iter().map(summary).collect())
}

/// Shows one image.
pub(crate) async fn inspect(shared: &Shared, name: &str) -> Result<StoredImageDetail, Refusal> {
    let detail = shared.containers.images().inspect(name).await.map_err(|error| refusal(&error))?;
    let config = detail.config;
    Ok(StoredImageDetail {
        image: summary(detail.summary),
        platform: detail.platform,
        author: String::new(),
        entrypoint: config.entrypoint,
        command: config.cmd,
        env: config.env,
        dir: config.working_dir,
        user: config.user,
        stop_signal: config.stop_signal,
        exposed_ports: Vec::new(),
        volumes: config.volumes,
        layers: detail.diff_ids,
    })
}

/// Removes an image.
pub(crate) async fn remove(
    shared: &Shared,
    name: &str,
    force: bool,
) -> Result<Vec<RemovedImage>, Refusal> {
    let removed = shared.containers.images().remove(name, force).await;
    let removed = removed.map_err(|error| refusal(&error))?;
    Ok(told(shared, removed))
}

/// Tells what was removed, and returns it.
pub(crate) fn told(shared: &Shared, removed: Vec<Removal>) -> Vec<RemovedImage> {
    let teller = shared.containers.teller();
    let ids = removed.iter().find_map(|removal| match removal {
        Removal::Deleted(id) => Some(id.clone()),
        Removal::Untagged(_) => None,
    });
    let tell = |removal: Removal| match removal {
        Removal::Untagged(name) => {
            teller.image("untag", ids.as_deref().unwrap_or(&name), &name);
            RemovedImage::Untagged(name)
        }
        Removal::Deleted(id) => {
            teller.image("delete", &id, &id);
            RemovedImage::Deleted(id)
        }
    };
    removed.into_iter().map(tell).collect()
}
