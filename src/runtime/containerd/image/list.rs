//! What is here: lists, single images by name or id, and the inventory for the manager.

use super::{
    Document, Images,
    link::{CALL_LIMIT, call},
    normalized,
    usage::Users,
};
use crate::{
    runtime::image::{
        ImageDetail, ImageError, ImageSummary, RuntimeError,
        document::{self, Config, Manifest, Root},
    },
    types::{
        Date, HeldImage, Platform,
        image::{Reference, is_digest},
    },
};
use containerd_client::services::v1::ListImagesRequest;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many digits an id needs at least, so that a short name is not taken for one.
const ID_DIGITS_MIN: usize = 4;

/// An image as containerd holds it: one target, all names that point to it.
#[derive(Clone)]
pub(super) struct Surveyed {
    pub(super) target: String,
    /// The names of its records.
    pub(super) records: Vec<String>,
    updated: Date,
    variants: Vec<Variant>,
}

/// One platform of an image whose manifest and configuration are here.
#[derive(Clone)]
struct Variant {
    manifest: Manifest,
    config: Arc<Config>,
    complete: bool,
}

impl Surveyed {
    /// Returns the image's id: the digest of the configuration for this machine, or of the first.
    pub(super) fn id(&self) -> String {
        let first = self.variant().map(|variant| variant.manifest.config.digest.clone());
        first.unwrap_or_else(|| self.target.clone())
    }

    fn variant(&self) -> Option<&Variant> {
        let host = Platform::normalized("linux", std::env::consts::ARCH, "");
        let fitting = self.variants.iter().filter(|v| v.complete);
        let best = fitting.max_by_key(|variant| host.preference(&variant.config.platform));
        best.or_else(|| self.variants.first())
    }

    fn platforms(&self) -> Vec<Platform> {
        let complete = self.variants.iter().filter(|variant| variant.complete);
        let found: BTreeSet<Platform> = complete.map(|v| normalized(&v.config.platform)).collect();
        found.into_iter().collect()
    }

    /// Returns manifest and configuration of each platform that is here.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&Manifest, &Config)> {
        self.variants.iter().map(|variant| (&variant.manifest, &*variant.config))
    }

    fn answers_to(&self, id: &str) -> bool {
        let digits = id.trim_start_matches("sha256:");
        let has = |digest: &str| digest.trim_start_matches("sha256:").starts_with(digits);
        has(&self.target) || self.variants.iter().any(|v| has(&v.manifest.config.digest))
    }
}

/// What a name or an id turned out to mean.
pub(super) struct Found {
    pub(super) image: Surveyed,
    /// The record that was named; none where an id was.
    pub(super) named: Option<String>,
}

impl Found {
    pub(super) fn names(&self) -> &[String] {
        &self.image.records
    }

    pub(super) fn target(&self) -> &str {
        &self.image.target
    }
}

impl Images {
    /// Returns the images of this node, the newest first.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn list(&self) -> Result<Vec<ImageSummary>, RuntimeError> {
        let users = self.users().await?;
        let mut summaries = Vec::new();
        for image in self.survey().await? {
            summaries.push(self.summary(&image, &users).await?);
        }
        summaries.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
        Ok(summaries)
    }

    /// Returns the id of each image by the names of its records, which containers are made of.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn ids(&self) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut ids = BTreeMap::new();
        for image in self.survey().await? {
            let id = image.id();
            ids.extend(image.records.into_iter().map(|record| (record, id.clone())));
        }
        Ok(ids)
    }

    /// Returns one image by name or id.
    ///
    /// # Errors
    ///
    /// There is none, the id fits several, or containerd fails.
    pub async fn inspect(&self, name: &str) -> Result<ImageDetail, ImageError> {
        let found = self.find(name).await?;
        let summary = self.summary(&found.image, &self.users().await?).await?;
        let config = found.image.variant().map(|variant| Arc::clone(&variant.config));
        let config = config.unwrap_or_default();
        Ok(ImageDetail {
            summary,
            platform: normalized(&config.platform),
            config: config.container.clone(),
            diff_ids: config.diff_ids.clone(),
        })
    }

    /// Returns what the manager is told: each name with its digest and the platforms that are
    /// complete here. Images without a complete platform are left out.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn held(&self) -> Result<Vec<HeldImage>, RuntimeError> {
        let mut held = Vec::new();
        for image in self.survey().await? {
            let platforms = image.platforms();
            if platforms.is_empty() {
                continue;
            }
            let names = image.records.iter().filter_map(|record| familiar(record));
            held.extend(names.map(|name| HeldImage {
                name,
                digest: image.target.clone(),
                platforms: platforms.clone(),
            }));
        }
        held.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(held)
    }

    /// Finds an image by name, id, or beginning of an id.
    pub(super) async fn find(&self, text: &str) -> Result<Found, ImageError> {
        let images = self.survey().await?;
        if !is_full_id(text)
            && let Ok(reference) = Reference::parse(text)
            && let Some(found) = by_name(&images, &reference)
        {
            return Ok(found);
        }
        if !may_be_id(text) {
            return Err(ImageError::NotFound(text.to_owned()));
        }
        let mut fitting = images.into_iter().filter(|image| image.answers_to(text));
        match (fitting.next(), fitting.next()) {
            (Some(image), None) => Ok(Found { image, named: None }),
            // One configuration under several manifests (compressed anew, say) is one id.
            (Some(mut image), Some(second)) if second.id() == image.id() => {
                let rest: Vec<Surveyed> = std::iter::once(second).chain(fitting).collect();
                if rest.iter().any(|other| other.id() != image.id()) {
                    return Err(ImageError::Ambiguous(text.to_owned()));
                }
                image.records.extend(rest.into_iter().flat_map(|other| other.records));
                Ok(Found { image, named: None })
            }
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
            (None, _) => Err(ImageError::NotFound(text.to_owned())),
        }
    }

    /// Reads everything that is here.
    pub(super) async fn survey(&self) -> Result<Vec<Surveyed>, RuntimeError> {
        let mut client = self.link.images().await?;
        let list = client.list(self.link.request(ListImagesRequest::default()));
        let records = call("list images", CALL_LIMIT, list).await?.images;
        let blobs = self.link.blobs().await?;
        let mut images: BTreeMap<String, Surveyed> = BTreeMap::new();
        for record in records {
            let Some(target) = record.target else { continue };
            let updated = record.updated_at.as_ref().map(date).unwrap_or_default();
            let entry = images.entry(target.digest.clone()).or_insert_with(|| Surveyed {
                target: target.digest,
                records: Vec::new(),
                updated,
                variants: Vec::new(),
            });
            entry.records.push(record.name);
        }
        for image in images.values_mut() {
            image.variants = self.variants(&image.target, &blobs).await?;
        }
        Ok(images.into_values().collect())
    }

    async fn variants(
        &self,
        target: &str,
        blobs: &BTreeMap<String, u64>,
    ) -> Result<Vec<Variant>, RuntimeError> {
        let mut manifests = Vec::new();
        match self.root_in(target, blobs).await?.as_deref() {
            None => (),
            Some(Root::Manifest(manifest)) => manifests.push(manifest.clone()),
            Some(Root::Index(index)) => {
                for (entry, _) in index.images() {
                    let child = self.root_in(&entry.digest, blobs).await?;
                    if let Some(Root::Manifest(manifest)) = child.as_deref() {
                        manifests.push(manifest.clone());
                    }
                }
            }
        }
        let mut variants = Vec::new();
        for manifest in manifests {
            if !blobs.contains_key(&manifest.config.digest) {
                continue;
            }
            let known = self.remembered(&manifest.config.digest);
            let config = match known {
                Some(Document::Config(config)) => Some(config),
                _ => self.config(&manifest.config.digest).await?,
            };
            let Some(config) = config else { continue };
            let complete = manifest.layers.iter().all(|layer| blobs.contains_key(&layer.digest));
            variants.push(Variant { manifest, config, complete });
        }
        Ok(variants)
    }

    /// Reads a document of which `blobs` says whether it is here.
    async fn root_in(
        &self,
        digest: &str,
        blobs: &BTreeMap<String, u64>,
    ) -> Result<Option<Arc<Root>>, RuntimeError> {
        if !blobs.contains_key(digest) {
            return Ok(None);
        }
        if let Some(Document::Root(root, _)) = self.remembered(digest) {
            return Ok(Some(root));
        }
        Ok(self.root(digest).await?.map(|(root, _)| root))
    }

    pub(super) async fn summary(
        &self,
        image: &Surveyed,
        users: &Users,
    ) -> Result<ImageSummary, RuntimeError> {
        let mut summary = ImageSummary {
            users: image
                .records
                .iter()
                .filter_map(|name| users.get(name))
                .flatten()
                .cloned()
                .collect(),
            updated: image.updated,
            id: image.id(),
            target: image.target.clone(),
            platforms: image.platforms(),
            created: image.updated,
            ..ImageSummary::default()
        };
        let mut digests = BTreeSet::new();
        for reference in image.records.iter().filter_map(|name| Reference::parse(name).ok()) {
            digests.insert(format!("{}@{}", reference.familiar_repository(), image.target));
            if reference.tag.is_some() {
                summary.names.push(reference.to_string());
            }
        }
        summary.names.sort();
        summary.digests = digests.into_iter().collect();
        if let Some(variant) = image.variant() {
            summary.labels.clone_from(&variant.config.container.labels);
            if variant.config.created != Date::EPOCH {
                summary.created = variant.config.created;
            }
            summary.size = self.size(variant).await?;
        }
        Ok(summary)
    }

    /// Returns the unpacked size, or the packed one of what is not unpacked.
    async fn size(&self, variant: &Variant) -> Result<u64, RuntimeError> {
        let mut size = 0;
        let chain = document::chain_ids(&variant.config.diff_ids);
        for (layer, key) in variant.manifest.layers.iter().zip(chain) {
            size += self.snapshot_size(&key).await?.unwrap_or(layer.size);
        }
        Ok(size)
    }
}

/// Tells whether the text can be an image id or the beginning of one.
pub(super) fn may_be_id(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    (ID_DIGITS_MIN..=64).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Tells whether the text can be nothing but an image id.
pub(super) fn is_full_id(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    may_be_id(text) && (digits.len() == 64 || is_digest(text))
}

/// Returns the familiar name of a record; `None` for one that is only an id.
fn familiar(record: &str) -> Option<String> {
    Some(Reference::parse(record).ok()?.to_string())
}

fn by_name(images: &[Surveyed], reference: &Reference) -> Option<Found> {
    let name = super::local::record_name(reference);
    let exact = images.iter().find(|image| image.records.contains(&name));
    if let Some(image) = exact {
        return Some(Found { image: image.clone(), named: Some(name) });
    }
    // `bb@sha256:...` of an image that is only here by a tag of that repository.
    let digest = reference.digest.as_ref()?;
    let image = images.iter().find(|image| image.target == *digest)?;
    let same = |record: &&String| {
        Reference::parse(record).is_ok_and(|other| {
            other.registry == reference.registry
                && other.repository == reference.repository
                && reference.tag.as_ref().is_none_or(|tag| other.tag.as_ref() == Some(tag))
        })
    };
    let record = image.records.iter().find(same)?.clone();
    Some(Found { image: image.clone(), named: Some(record) })
}

fn date(timestamp: &prost_types::Timestamp) -> Date {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
    let nanos = u64::try_from(timestamp.nanos).unwrap_or(0);
    Date::from_unix_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        let digits = "0123456789abcdef".repeat(4);
        for (text, may, full) in [
            (digits.as_str(), true, true),
            (&format!("sha256:{digits}"), true, true),
            ("cafe", true, false),
            ("sha256:cafe", true, false),
            ("bb", false, false),
            ("nginx", false, false),
            ("CAFE", false, false),
            ("cafe:1", false, false),
        ] {
            assert_eq!((may_be_id(text), is_full_id(text)), (may, full), "{text}");
        }
    }
}
