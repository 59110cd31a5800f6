//! From a registry into containerd: manifest, configuration and layers, three at a time, each
//! taken up where it broke off.

use super::{
    Images,
    content::{CHUNK, Committed, ContentLabels},
    link::Lease,
};
use crate::{
    runtime::{
        image::{
            Progress, PullError, PulledImage, Step,
            document::{self, CONFIG_BYTES_MAX, Config, Descriptor, Manifest, Root, short},
        },
        registry::{Fetched, RegistryError},
    },
    types::{Platform, RegistryCredential, image::Reference},
    util::{deadline::within, unblock::unblock},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{io::Read, time::Duration};

/// How many layers are fetched at the same time, as Docker does.
const LAYERS_AT_ONCE: usize = 3;

/// How often in a row a transfer may break without a byte of progress before it counts as
/// failed; with the waits between, some 15 s. What asked for the image tries again later.
const ATTEMPTS: u32 = 5;

/// How long a whole pull may take: less than what is left of a lease that is used again.
const PULL_LIMIT: Duration = Duration::from_secs(11 * 3_600);

/// How long a chunk of a layer may take, over the reader's own deadlines (connect, response, idle,
/// each on several mirrors), which normally strike first.
const CHUNK_LIMIT: Duration = Duration::from_secs(600);

pub(super) type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What is pulled, and as whom.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) reference: &'a Reference,
    pub(super) credential: Option<&'a RegistryCredential>,
}

impl Images {
    /// Pulls an image for `platform` and unpacks it. Dropping the future leaves what was fetched;
    /// the next pull goes on from there.
    ///
    /// # Errors
    ///
    /// The registry or containerd fails, or the image is broken or made for other machines.
    pub async fn pull(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
        platform: &Platform,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<PulledImage, PullError> {
        let source = Source { reference, credential };
        let pull = Box::pin(self.pull_now(source, platform, &progress));
        within(PULL_LIMIT, pull).await.unwrap_or_else(|| {
            let hours = PULL_LIMIT.as_secs() / 3_600;
            Err(PullError::Late { image: reference.to_string(), hours })
        })
    }

    async fn pull_now(
        &self,
        source: Source<'_>,
        platform: &Platform,
        progress: Report<'_>,
    ) -> Result<PulledImage, PullError> {
        let reference = source.reference;
        let which = reference.tag.as_deref().or(reference.digest.as_deref()).unwrap_or("");
        progress(Progress {
            id: which.to_owned(),
            step: Step::PullingFrom(reference.repository.clone()),
            current: 0,
            total: 0,
        });
        let fetched = self.fetch_manifest(reference, source.credential).await?;
        let _alone = self.link.exclusive(format!("image {}", fetched.digest)).await;
        let lease = self.link.lease(&format!("midge-pull-{}", fetched.digest)).await?;
        let (root, media_type) = parse_root(reference, &fetched)?;
        self.pull_root(source, platform, progress, &lease, (&root, &fetched)).await?;
        let target = Descriptor {
            media_type,
            digest: fetched.digest.clone(),
            size: fetched.body.len() as u64,
            platform: None,
            annotations: ContentLabels::new(),
        };
        let changed = self.record(reference, &target).await?;
        self.link.end(&lease).await?;
        Ok(PulledImage { name: reference.canonical(), digest: fetched.digest, changed })
    }

    /// Fetches what the root leads to for `platform`, then keeps the root itself: its labels say
    /// that all of it is here.
    async fn pull_root(
        &self,
        source: Source<'_>,
        platform: &Platform,
        progress: Report<'_>,
        lease: &Lease,
        (root, fetched): (&Root, &Fetched),
    ) -> Result<(), PullError> {
        match root {
            Root::Manifest(manifest) => {
                self.pull_manifest(source, platform, progress, lease, manifest).await?;
                self.link
                    .put(lease, &fetched.digest, &fetched.body, &manifest_labels(manifest))
                    .await?;
            }
            Root::Index(index) => {
                let Some(entry) = index.choose(platform).first().copied() else {
                    return Err(mismatch(source.reference, platform, &index.platforms()));
                };
                let pinned = source.reference.with_digest(&entry.digest);
                let child = self.fetch_manifest(&pinned, source.credential).await?;
                let (Root::Manifest(manifest), _) = parse_root(&pinned, &child)? else {
                    let what = "an index inside of an index".to_owned();
                    return Err(broken(&pinned, document::DocumentError::NotAnImage(what)));
                };
                self.pull_manifest(source, platform, progress, lease, &manifest).await?;
                self.link
                    .put(lease, &child.digest, &child.body, &manifest_labels(&manifest))
                    .await?;
                let labels = index_labels(index);
                self.link.put(lease, &fetched.digest, &fetched.body, &labels).await?;
            }
        }
        Ok(())
    }

    async fn pull_manifest(
        &self,
        source: Source<'_>,
        platform: &Platform,
        progress: Report<'_>,
        lease: &Lease,
        manifest: &Manifest,
    ) -> Result<(), PullError> {
        let Source { reference, credential } = source;
        let bytes = match self.link.read(&manifest.config.digest, CONFIG_BYTES_MAX).await? {
            Some(bytes) => bytes,
            None => self.fetch_config(reference, credential, &manifest.config).await?,
        };
        let config = parse_config(reference, &bytes)?;
        document::check_layers(manifest, &config).map_err(|why| broken(reference, why))?;
        if !platform.runs(&config.platform) {
            return Err(mismatch(reference, platform, &[config.platform]));
        }
        self.check_room(reference, manifest, &config).await?;
        for layer in &manifest.layers {
            report(progress, layer, Step::PullingLayer, 0);
        }
        let fetches =
            manifest.layers.iter().map(|layer| self.fetch_layer(source, lease, layer, progress));
        let fetches: Vec<_> = fetches.collect();
        stream::iter(fetches).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
        self.link.put(lease, &manifest.config.digest, &bytes, &ContentLabels::new()).await?;
        self.unpack(lease, manifest, &config, progress).await?;
        Ok(())
    }

    /// Fetches one layer, trying again as long as that gets on.
    async fn fetch_layer(
        &self,
        source: Source<'_>,
        lease: &Lease,
        layer: &Descriptor,
        progress: Report<'_>,
    ) -> Result<(), PullError> {
        let _alone = self.link.exclusive(format!("blob {}", layer.digest)).await;
        let mut reached = 0;
        let mut failures = 0;
        loop {
            let mut offset = reached;
            let tried = self.try_layer(source, lease, layer, progress, &mut offset).await;
            let error = match tried {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            failures = if offset > reached { 1 } else { failures + 1 };
            reached = reached.max(offset);
            if !error.is_temporary() || failures >= ATTEMPTS {
                return Err(error);
            }
            let wait = 1 << (failures - 1);
            tracing::debug!(%error, layer = layer.digest, wait, "a layer is tried again");
            report(progress, layer, Step::Retrying(wait), offset);
            smol::Timer::after(Duration::from_secs(wait)).await;
        }
    }

    async fn try_layer(
        &self,
        source: Source<'_>,
        lease: &Lease,
        layer: &Descriptor,
        progress: Report<'_>,
        offset: &mut u64,
    ) -> Result<(), PullError> {
        let Source { reference, .. } = source;
        let key = format!("midge-{}", layer.digest);
        let labels = source_labels(reference);
        let expected = Some((layer.digest.as_str(), layer.size));
        let Some(mut writer) = self.link.writer(lease, &key, expected).await? else {
            report(progress, layer, Step::AlreadyExists, 0);
            return Ok(self.link.label(&layer.digest, &labels).await?);
        };
        // An offset of the full size without a byte sent: containerd has the blob for another
        // namespace and shares it.
        if writer.offset() < layer.size {
            let chunks = self.stream_blob(source, layer, writer.offset());
            while writer.offset() < layer.size {
                let chunk = next_chunk(&chunks, reference).await?;
                writer.write(chunk).await?;
                *offset = writer.offset();
                report(progress, layer, Step::Downloading, writer.offset());
            }
        }
        match writer.commit(&layer.digest, layer.size, &labels).await? {
            Committed::Yes => {
                report(progress, layer, Step::DownloadComplete, layer.size);
                Ok(())
            }
            Committed::Existed => Ok(self.link.label(&layer.digest, &labels).await?),
            Committed::Mismatch(message) => {
                tracing::warn!(layer = layer.digest, message, "a layer arrived broken");
                self.link.abort(&key).await?;
                *offset = 0;
                Err(PullError::Corrupt { what: format!("layer {}", layer.digest) })
            }
        }
    }

    /// Reads a blob on a thread of its own. Dropping the receiver ends it at the next chunk, or
    /// when the connection idles.
    fn stream_blob(
        &self,
        source: Source<'_>,
        blob: &Descriptor,
        offset: u64,
    ) -> async_channel::Receiver<Result<Vec<u8>, RegistryError>> {
        // Two chunks: the network goes on while containerd writes.
        let (sender, receiver) = async_channel::bounded(2);
        let (registry, reference) = (self.registry.clone(), source.reference.clone());
        let credential = source.credential.cloned();
        let (digest, mut left) = (blob.digest.clone(), blob.size - offset);
        unblock(move || {
            let host = reference.registry.clone();
            let mut reader = match registry.blob(&reference, &digest, offset, credential.as_ref()) {
                Ok(reader) => reader,
                Err(error) => return drop(sender.send_blocking(Err(error))),
            };
            while left > 0 {
                let size = left.min(CHUNK as u64);
                let mut chunk =
                    Vec::with_capacity(CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)));
                let read = (&mut reader).take(size).read_to_end(&mut chunk);
                left -= chunk.len() as u64;
                // What arrived before a break is kept: the next attempt goes on after it.
                let arrived = chunk.len() as u64;
                if arrived > 0 && sender.send_blocking(Ok(chunk)).is_err() {
                    return;
                }
                let broken = match read {
                    Ok(_) if arrived == size => continue,
                    Ok(_) => std::io::ErrorKind::UnexpectedEof.into(),
                    Err(error) => error,
                };
                let error = RegistryError::Broken { registry: host, source: broken };
                return drop(sender.send_blocking(Err(error)));
            }
        })
        .detach();
        receiver
    }

    pub(super) async fn fetch_manifest(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
    ) -> Result<Fetched, PullError> {
        let (registry, reference) = (self.registry.clone(), reference.clone());
        let credential = credential.cloned();
        let fetch = unblock(move || registry.manifest(&reference, credential.as_ref()));
        Ok(fetch.await?)
    }

    /// Fetches the configuration of an image, verified.
    pub(super) async fn fetch_config(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
        config: &Descriptor,
    ) -> Result<Vec<u8>, PullError> {
        let size = config.size;
        if size > CONFIG_BYTES_MAX {
            let what = "the configuration, in bytes,";
            let count = usize::try_from(size).unwrap_or(usize::MAX);
            let limit = usize::try_from(CONFIG_BYTES_MAX).unwrap_or(usize::MAX);
            return Err(broken(reference, document::DocumentError::TooMany { what, count, limit }));
        }
        let (registry, wanted) = (self.registry.clone(), config.digest.clone());
        let (reference, credential) = (reference.clone(), credential.cloned());
        let fetch = unblock(move || -> Result<Vec<u8>, RegistryError> {
            let reader = registry.blob(&reference, &wanted, 0, credential.as_ref())?;
            let mut bytes = Vec::new();
            reader.take(size + 1).read_to_end(&mut bytes).map_err(|source| {
                RegistryError::Broken { registry: reference.registry.clone(), source }
            })?;
            Ok(bytes)
        });
        let bytes = fetch.await?;
        if bytes.len() as u64 != size || document::digest(&bytes) != config.digest {
            return Err(PullError::Corrupt { what: format!("configuration {}", config.digest) });
        }
        Ok(bytes)
    }
}

async fn next_chunk(
    chunks: &async_channel::Receiver<Result<Vec<u8>, RegistryError>>,
    reference: &Reference,
) -> Result<Vec<u8>, PullError> {
    let broken = |kind: std::io::ErrorKind| RegistryError::Broken {
        registry: reference.registry.clone(),
        source: kind.into(),
    };
    match within(CHUNK_LIMIT, chunks.recv()).await {
        Some(Ok(chunk)) => Ok(chunk?),
        Some(Err(_)) => Err(broken(std::io::ErrorKind::UnexpectedEof).into()),
        None => Err(broken(std::io::ErrorKind::TimedOut).into()),
    }
}

fn report(progress: Report<'_>, layer: &Descriptor, step: Step, current: u64) {
    progress(Progress { id: short(&layer.digest), step, current, total: layer.size });
}

pub(super) fn parse_root(
    reference: &Reference,
    fetched: &Fetched,
) -> Result<(Root, String), PullError> {
    let parsed = document::parse_root(&fetched.body, &fetched.content_type);
    parsed.map_err(|reason| broken(reference, reason))
}

pub(super) fn parse_config(reference: &Reference, bytes: &[u8]) -> Result<Config, PullError> {
    document::parse_config(bytes).map_err(|reason| broken(reference, reason))
}

fn broken(reference: &Reference, reason: document::DocumentError) -> PullError {
    PullError::Document { image: reference.to_string(), reason }
}

pub(super) fn mismatch(
    reference: &Reference,
    wanted: &Platform,
    available: &[Platform],
) -> PullError {
    let listed: Vec<String> = available.iter().map(ToString::to_string).collect();
    let available = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
    PullError::Platform { image: reference.to_string(), wanted: wanted.clone(), available }
}

/// What lets containerd find the registry a blob came from.
fn source_labels(reference: &Reference) -> ContentLabels {
    let key = format!("containerd.io/distribution.source.{}", reference.registry);
    // containerd limits key and value together to 4096 bytes; both are far below that here.
    [(key, reference.repository.clone())].into()
}

/// The references from a manifest that containerd's collector follows.
pub(super) fn manifest_labels(manifest: &Manifest) -> ContentLabels {
    let config = ("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.clone());
    let layers = manifest.layers.iter().enumerate().map(|(number, layer)| {
        (format!("containerd.io/gc.ref.content.l.{number}"), layer.digest.clone())
    });
    std::iter::once(config).chain(layers).collect()
}

/// The references from an index that containerd's collector follows; those that are not here do
/// no harm.
pub(super) fn index_labels(index: &document::Index) -> ContentLabels {
    let entries = index.manifests.iter().enumerate().map(|(number, entry)| {
        (format!("containerd.io/gc.ref.content.m.{number}"), entry.digest.clone())
    });
    entries.collect()
}
