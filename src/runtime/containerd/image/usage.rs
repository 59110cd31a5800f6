//! What images take of the disk, who uses them, and how those that nobody uses go.

use super::{
    Images, SNAPSHOTTER,
    link::{CALL_LIMIT, absent, call, code_is, origin},
    list::Surveyed,
};
use crate::{
    runtime::image::{ImageDisk, ImageSummary, Removal, RuntimeError, document},
    types::image::Reference,
};
use containerd_client::services::v1::{
    ListContainersRequest, PluginsRequest, containers_client::ContainersClient,
    introspection_client::IntrospectionClient, snapshots::UsageRequest,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};
use tonic::Code;

/// The containers that use each image record, by its name.
pub(super) type Users = BTreeMap<String, Vec<String>>;

/// A piece of an image on disk, which several images may have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// A packed layer, a configuration, a manifest or an index, by digest.
    Blob(String),
    /// An unpacked layer, by chain id.
    Snapshot(String),
}

impl Images {
    /// Adds up what the images take, packed and unpacked, the newest image first.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn disk(&self) -> Result<ImageDisk, RuntimeError> {
        let blobs = self.link.blobs().await?;
        let users = self.users().await?;
        let mut sizes: BTreeMap<Part, (u64, u32)> = BTreeMap::new();
        let mut found: Vec<(ImageSummary, BTreeSet<Part>)> = Vec::new();
        for image in self.survey().await? {
            let parts = parts(&image);
            for part in &parts {
                if let Some((_, count)) = sizes.get_mut(part) {
                    *count += 1;
                    continue;
                }
                let size = match part {
                    Part::Blob(digest) => blobs.get(digest).copied().unwrap_or(0),
                    Part::Snapshot(chain) => self.snapshot_size(chain).await?.unwrap_or(0),
                };
                sizes.insert(part.clone(), (size, 1));
            }
            found.push((self.summary(&image, &users).await?, parts));
        }
        let images = found.into_iter().map(|(mut summary, parts)| {
            let sizes: Vec<&(u64, u32)> = parts.iter().filter_map(|part| sizes.get(part)).collect();
            summary.size = sizes.iter().map(|(size, _)| size).sum();
            summary.shared =
                Some(sizes.iter().filter(|(_, count)| *count > 1).map(|(size, _)| size).sum());
            summary
        });
        let mut images: Vec<ImageSummary> = images.collect();
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
        Ok(ImageDisk { total: sizes.values().map(|(size, _)| size).sum(), images })
    }

    /// Removes an image under all of its names; nothing where a container uses it by now.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn forget(&self, target: &str) -> Result<Vec<Removal>, RuntimeError> {
        let found = self.survey().await?.into_iter().find(|image| image.target == target);
        let Some(image) = found else { return Ok(Vec::new()) };
        let users = self.users().await?;
        if image.records.iter().any(|record| users.contains_key(record)) {
            return Ok(Vec::new());
        }
        let mut removals = Vec::new();
        for (number, record) in image.records.iter().enumerate() {
            // The last one waits for the collector, so that the space is free when we say so.
            self.unname(record, number + 1 == image.records.len()).await?;
            if let Ok(reference) = Reference::parse(record) {
                removals.push(Removal::Untagged(reference.to_string()));
            }
        }
        removals.push(Removal::Deleted(image.id()));
        Ok(removals)
    }

    /// Returns the folder that unpacked layers are in: its file system is the one that fills up.
    /// None where containerd does not say.
    ///
    /// # Errors
    ///
    /// containerd fails.
    pub async fn root_dir(&self) -> Result<Option<PathBuf>, RuntimeError> {
        let channel = self.link.channel().await?;
        let mut plugins = IntrospectionClient::with_origin(channel, origin());
        let filter = format!("type==io.containerd.snapshotter.v1,id=={SNAPSHOTTER}");
        let request = self.link.request(PluginsRequest { filters: vec![filter] });
        let answer = call("name its folders", CALL_LIMIT, plugins.plugins(request)).await?;
        let root = |plugin: &containerd_client::services::v1::Plugin| {
            plugin.exports.get("root").map(PathBuf::from)
        };
        Ok(answer.plugins.iter().find_map(root))
    }

    /// Returns who uses which record.
    pub(super) async fn users(&self) -> Result<Users, RuntimeError> {
        let channel = self.link.channel().await?;
        let mut containers = ContainersClient::with_origin(channel, origin());
        let request = self.link.request(ListContainersRequest::default());
        // One by one: a message holds some hundred at most.
        let list = async {
            let mut stream = containers.list_stream(request).await?.into_inner();
            let mut users = Users::new();
            while let Some(message) = stream.message().await? {
                let Some(container) = message.container else { continue };
                users.entry(container.image).or_default().push(container.id);
            }
            Ok(tonic::Response::new(users))
        };
        Ok(call("list containers", CALL_LIMIT, list).await?)
    }

    /// Returns how much an unpacked layer takes; none where it is not unpacked.
    pub(super) async fn snapshot_size(&self, chain: &str) -> Result<Option<u64>, RuntimeError> {
        let mut snapshots = self.link.snapshots().await?;
        let message = UsageRequest { snapshotter: SNAPSHOTTER.to_owned(), key: chain.to_owned() };
        let usage = call("measure", CALL_LIMIT, snapshots.usage(self.link.request(message)));
        let usage = absent(code_is(Code::NotFound), usage).await?;
        Ok(usage.and_then(|usage| u64::try_from(usage.size).ok()))
    }
}

fn parts(image: &Surveyed) -> BTreeSet<Part> {
    let mut parts = BTreeSet::from([Part::Blob(image.target.clone())]);
    for (manifest, config) in image.contents() {
        parts.insert(Part::Blob(manifest.config.digest.clone()));
        parts.extend(manifest.layers.iter().map(|layer| Part::Blob(layer.digest.clone())));
        parts.extend(document::chain_ids(&config.diff_ids).into_iter().map(Part::Snapshot));
    }
    parts
}
