//! What a task needs of its image: here already, or fetched, or a failure that says why.

use super::{
    Document, Images, SNAPSHOTTER,
    link::{CALL_LIMIT, absent, call, code_is, refused},
    list, normalized,
    pull::Report,
    unpack::wire,
};
use crate::{
    agent::Failure,
    runtime::{
        PreparedImage,
        image::{
            ImageError, Progress, PullError, RuntimeError,
            document::{
                self, CONFIG_BYTES_MAX, Config, Descriptor, MANIFEST_BYTES_MAX, Manifest, Root,
            },
        },
        registry::RegistryError,
    },
    types::{Platform, RegistryCredential, image::Reference},
    util::error::chain,
};
use containerd_client::services::v1::{
    CreateImageRequest, GetImageRequest, Image, UpdateImageRequest,
};
use std::{collections::BTreeMap, sync::Arc};
use tonic::Code;

/// An image of this node, for one platform.
pub(super) struct Local {
    pub(super) manifest: Manifest,
    pub(super) config: Arc<Config>,
}

/// How an image is here.
enum Here {
    Ready(Box<PreparedImage>),
    Missing,
    WrongPlatform(PullError),
}

impl Images {
    /// Makes an image ready for a task: `image` is a reference, pinned or not, or an image id.
    ///
    /// Content of the pinned digest that is here needs no registry, and neither does an id. A
    /// reference without a digest is looked up; where that fails, what is here under its name
    /// serves.
    ///
    /// # Errors
    ///
    /// A failure that says whether trying again may help.
    pub async fn ensure(
        &self,
        image: &str,
        credential: Option<&RegistryCredential>,
        platform: &Platform,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<PreparedImage, Failure> {
        let ensured = Box::pin(self.ensure_now(image, credential, platform, &progress)).await;
        ensured.map_err(|error| failure(image, &error))
    }

    async fn ensure_now(
        &self,
        image: &str,
        credential: Option<&RegistryCredential>,
        platform: &Platform,
        progress: Report<'_>,
    ) -> Result<PreparedImage, PullError> {
        if list::may_be_id(image) {
            match self.here_by_id(image, platform, progress).await? {
                Here::Ready(prepared) => return Ok(*prepared),
                Here::WrongPlatform(error) => return Err(error),
                Here::Missing if list::is_full_id(image) => return Err(unknown(image)),
                Here::Missing => (),
            }
        }
        let reference = Reference::parse(image)?;
        if reference.digest.is_some() {
            let here = self.here(&reference, platform, progress).await?;
            if let Here::Ready(prepared) = here {
                return Ok(*prepared);
            }
        }
        let pulled = self.pull(&reference, credential, platform, progress).await;
        let here = self.here(&reference, platform, progress).await?;
        match (pulled, here) {
            (Ok(_), Here::Ready(prepared)) => Ok(*prepared),
            (Err(error), Here::Ready(prepared)) => {
                let error = chain(&error);
                tracing::warn!(image, error, "not pulled; what is here serves");
                Ok(*prepared)
            }
            (_, Here::WrongPlatform(error)) | (Err(error), Here::Missing) => Err(error),
            (Ok(_), Here::Missing) => {
                let why = "the image is gone as soon as it was pulled";
                Err(refused("keep an image", why).into())
            }
        }
    }

    async fn here_by_id(
        &self,
        id: &str,
        platform: &Platform,
        progress: Report<'_>,
    ) -> Result<Here, PullError> {
        let found = match self.find(id).await {
            Ok(found) => found,
            Err(ImageError::Runtime(error)) => return Err(error.into()),
            Err(_) => return Ok(Here::Missing),
        };
        let Some(name) = found.names().first().cloned() else { return Ok(Here::Missing) };
        let label = format!("{id}: {name}");
        self.here_target(&name, found.target(), platform, progress, &label).await
    }

    /// Looks for a reference: by its digest where it has one, by its name otherwise.
    async fn here(
        &self,
        reference: &Reference,
        platform: &Platform,
        progress: Report<'_>,
    ) -> Result<Here, PullError> {
        let image = reference.to_string();
        let name = record_name(reference);
        let Some(digest) = &reference.digest else {
            let Some(target) = self.target(&name).await? else { return Ok(Here::Missing) };
            return self.here_target(&name, &target, platform, progress, &image).await;
        };
        let here = self.here_target(&name, digest, platform, progress, &image).await?;
        if let Here::Ready(_) = here
            && self.target(&name).await?.is_none()
        {
            // Content that is here under another name: a name of its own keeps it here.
            let Some((root, media_type)) = self.root(digest).await? else {
                return Ok(Here::Missing);
            };
            let _root = root;
            let size = self.link.blobs().await?.get(digest).copied().unwrap_or(0);
            let target = Descriptor {
                media_type: media_type.to_string(),
                digest: digest.clone(),
                size,
                platform: None,
                annotations: BTreeMap::new(),
            };
            self.record(reference, &target).await?;
        }
        Ok(here)
    }

    async fn here_target(
        &self,
        name: &str,
        target: &str,
        platform: &Platform,
        progress: Report<'_>,
        image: &str,
    ) -> Result<Here, PullError> {
        let local = match self.open(target, platform).await? {
            Ok(Some(local)) => local,
            Ok(None) => return Ok(Here::Missing),
            Err(platforms) => {
                let available: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                return Ok(Here::WrongPlatform(PullError::Platform {
                    image: image.to_owned(),
                    wanted: platform.clone(),
                    available: available.join(", "),
                }));
            }
        };
        let chain = document::chain_ids(&local.config.diff_ids).pop().unwrap_or_default();
        if !chain.is_empty() && !self.is_unpacked(&chain).await? {
            for layer in &local.manifest.layers {
                if !self.link.holds(&layer.digest).await? {
                    return Ok(Here::Missing);
                }
            }
            let _alone = self.link.exclusive(format!("image {target}")).await;
            let lease = self.link.lease(&format!("midge-unpack-{target}")).await?;
            self.unpack(&lease, &local.manifest, &local.config, progress).await?;
            self.link.end(&lease).await?;
        }
        Ok(Here::Ready(Box::new(PreparedImage {
            name: name.to_owned(),
            digest: target.to_owned(),
            snapshotter: SNAPSHOTTER.to_owned(),
            chain_id: chain,
            config: local.config.container.clone(),
        })))
    }

    /// Opens what is here of an image for `platform`; the inner error holds the platforms it is
    /// for, none of which runs.
    pub(super) async fn open(
        &self,
        target: &str,
        platform: &Platform,
    ) -> Result<Result<Option<Local>, Vec<Platform>>, RuntimeError> {
        let Some((root, _)) = self.root(target).await? else { return Ok(Ok(None)) };
        match &*root {
            Root::Manifest(manifest) => Ok(self.open_manifest(manifest, platform).await?),
            Root::Index(index) => {
                let fitting = index.choose(platform);
                if fitting.is_empty() {
                    return Ok(Err(index.platforms()));
                }
                for entry in fitting {
                    let Some((child, _)) = self.root(&entry.digest).await? else { continue };
                    let Root::Manifest(manifest) = &*child else { continue };
                    if let Ok(Some(local)) = self.open_manifest(manifest, platform).await? {
                        return Ok(Ok(Some(local)));
                    }
                }
                Ok(Ok(None))
            }
        }
    }

    async fn open_manifest(
        &self,
        manifest: &Manifest,
        platform: &Platform,
    ) -> Result<Result<Option<Local>, Vec<Platform>>, RuntimeError> {
        let Some(config) = self.config(&manifest.config.digest).await? else {
            return Ok(Ok(None));
        };
        if !platform.runs(&config.platform) {
            return Ok(Err(vec![normalized(&config.platform)]));
        }
        if document::check_layers(manifest, &config).is_err() {
            return Ok(Ok(None));
        }
        Ok(Ok(Some(Local { manifest: manifest.clone(), config })))
    }

    /// Reads an index or manifest that is here, with its media type. What cannot be parsed
    /// counts as not here: the registry may have better.
    pub(super) async fn root(
        &self,
        digest: &str,
    ) -> Result<Option<(Arc<Root>, Arc<str>)>, RuntimeError> {
        if let Some(Document::Root(root, media_type)) = self.remembered(digest) {
            return Ok(self.link.holds(digest).await?.then_some((root, media_type)));
        }
        let Some(bytes) = self.link.read(digest, MANIFEST_BYTES_MAX).await? else {
            return Ok(None);
        };
        let (root, media_type) = match document::parse_root(&bytes, "") {
            Ok((root, media_type)) => (Arc::new(root), Arc::from(media_type)),
            Err(error) => {
                tracing::debug!(%error, digest, "a local document is no image");
                return Ok(None);
            }
        };
        self.remember(digest, Document::Root(Arc::clone(&root), Arc::clone(&media_type)));
        Ok(Some((root, media_type)))
    }

    /// Reads a configuration that is here.
    pub(super) async fn config(&self, digest: &str) -> Result<Option<Arc<Config>>, RuntimeError> {
        if let Some(Document::Config(config)) = self.remembered(digest) {
            return Ok(self.link.holds(digest).await?.then_some(config));
        }
        let Some(bytes) = self.link.read(digest, CONFIG_BYTES_MAX).await? else {
            return Ok(None);
        };
        let config = match document::parse_config(&bytes) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::debug!(%error, digest, "a local configuration is none");
                return Ok(None);
            }
        };
        self.remember(digest, Document::Config(Arc::clone(&config)));
        Ok(Some(config))
    }

    /// Returns the digest that a name points to.
    async fn target(&self, name: &str) -> Result<Option<String>, RuntimeError> {
        let mut images = self.link.images().await?;
        let get = images.get(self.link.request(GetImageRequest { name: name.to_owned() }));
        let get = call("look for an image", CALL_LIMIT, get);
        let found = absent(code_is(Code::NotFound), get).await?;
        Ok(found.and_then(|f| f.image).and_then(|image| image.target).map(|target| target.digest))
    }

    /// Stores a target under the names of a reference; tells whether its main name is new or
    /// points elsewhere now.
    ///
    /// A pinned reference gets a name by digest, so that a moved tag does not take the content
    /// from it; its tag only where nothing else has that name.
    pub(super) async fn record(
        &self,
        reference: &Reference,
        target: &Descriptor,
    ) -> Result<bool, RuntimeError> {
        let changed = self.name(&record_name(reference), target, true).await?;
        if reference.tag.is_some() && reference.digest.is_some() {
            self.name(&reference.canonical(), target, false).await?;
        }
        Ok(changed)
    }

    /// Lets `name` point to `target`; tells whether that changed anything.
    pub(super) async fn name(
        &self,
        name: &str,
        target: &Descriptor,
        replace: bool,
    ) -> Result<bool, RuntimeError> {
        let mut images = self.link.images().await?;
        let image = Image { name: name.to_owned(), target: Some(wire(target)), ..Image::default() };
        let message = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        let create = call("name an image", CALL_LIMIT, images.create(self.link.request(message)));
        if absent(code_is(Code::AlreadyExists), create).await?.is_some() {
            return Ok(true);
        }
        if !replace || self.target(name).await?.as_ref() == Some(&target.digest) {
            return Ok(false);
        }
        let message = UpdateImageRequest {
            image: Some(image),
            update_mask: Some(prost_types::FieldMask { paths: vec!["target".to_owned()] }),
            ..Default::default()
        };
        call("rename an image", CALL_LIMIT, images.update(self.link.request(message))).await?;
        Ok(true)
    }
}

/// Returns the name that a reference is stored under: by digest where it has one.
pub(super) fn record_name(reference: &Reference) -> String {
    match &reference.digest {
        Some(digest) => format!("{}/{}@{digest}", reference.registry, reference.repository),
        None => reference.canonical(),
    }
}

fn unknown(image: &str) -> PullError {
    PullError::Registry(RegistryError::NotFound {
        what: image.to_owned(),
        registry: "this node".to_owned(),
        message: "no image of that id".to_owned(),
    })
}

/// Says what became of a task's image, in Docker's words where it has some.
fn failure(image: &str, error: &PullError) -> Failure {
    let temporary = error.is_temporary();
    let message = match error {
        PullError::Registry(RegistryError::NotFound { .. }) => format!("No such image: {image}"),
        PullError::Registry(_) if !temporary => {
            format!("No such image: {image} ({})", chain(error))
        }
        PullError::Registry(_) => format!("cannot pull image {image}: {}", chain(error)),
        _ => chain(error),
    };
    Failure { message, temporary }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::containerd::image::pull::mismatch;

    #[test]
    fn failures_say_whether_waiting_helps() {
        let registry = || "r".to_owned();
        let show = |error: PullError| {
            let Failure { message, temporary } = failure("bb:9", &error);
            format!("{message} | {temporary}")
        };
        let what = || "bb:9".to_owned();
        let gone = RegistryError::NotFound { what: what(), registry: registry(), message: what() };
        assert_eq!(show(gone.into()), "No such image: bb:9 | false");
        let denied =
            RegistryError::Denied { what: what(), registry: registry(), message: "no".into() };
        assert_eq!(
            show(denied.into()),
            "No such image: bb:9 (access to bb:9 denied by registry r: no) | false"
        );
        let away = RegistryError::Status { registry: registry(), status: 503, message: "x".into() };
        assert_eq!(show(away.into()), "cannot pull image bb:9: registry r answered 503: x | true");
        let node = Platform::normalized("linux", "armv6l", "");
        let image = Platform::normalized("linux", "arm", "v7");
        let reference = Reference::parse("bb:9").unwrap();
        assert_eq!(
            show(mismatch(&reference, &node, &[image])),
            "image bb:9 does not run on linux/arm/v6: it is made for linux/arm/v7 | false"
        );
    }

    #[test]
    fn pinned_references_have_a_name_of_their_own() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let name = |text: &str| record_name(&Reference::parse(text).unwrap());
        assert_eq!(name("bb:1"), "docker.io/library/bb:1");
        assert_eq!(name(&format!("bb:1@{digest}")), format!("docker.io/library/bb@{digest}"));
    }
}
