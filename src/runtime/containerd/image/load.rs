//! Archives become images: `docker save` of any age, and OCI layouts.
//!
//! Blobs stream straight into containerd's store while the archive is read; only the small JSON
//! files stay in memory until the end, when they say what the blobs were.

use super::{
    Images,
    archive::{self, Part},
    content::{CHUNK, Committed, ContentLabels, Writer},
    link::Lease,
    local::record_name,
    pull::{index_labels, manifest_labels},
};
use crate::{
    runtime::image::{
        LoadError, LoadedImage, Progress, RuntimeError, Step,
        document::{
            self, CONFIG_BYTES_MAX, Descriptor, MANIFEST_BYTES_MAX, Manifest, OCI_CONFIG,
            OCI_LAYER, OCI_MANIFEST, Root, short,
        },
    },
    types::{
        Platform,
        image::{DEFAULT_TAG, Reference, is_digest},
    },
    util::unblock::unblock,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

/// How many bytes of JSON files are kept: `manifest.json`, `index.json` and the configurations.
const JSON_BYTES_MAX: usize = 64 << 20;

/// How many links are followed from one path.
const LINKS_MAX: usize = 8;

/// How many images one archive may hold.
const IMAGES_MAX: usize = 1_000;

/// How deep an index may lie in an index.
const DEPTH_MAX: usize = 3;

/// A layer or other blob that is in containerd's store now.
struct Stored {
    digest: String,
    size: u64,
    compression: Option<&'static str>,
}

/// What an archive held, once it was read.
#[derive(Default)]
struct Contents {
    blobs: BTreeMap<String, Stored>,
    json: BTreeMap<String, Vec<u8>>,
    json_bytes: usize,
    links: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image of the archive: what its names will point to.
struct Candidate {
    target: Descriptor,
    names: BTreeSet<String>,
}

impl Images {
    /// Loads the images of an archive and unpacks those that run on `platform`.
    ///
    /// # Errors
    ///
    /// It is no image archive, a broken or hostile one, or containerd fails. What came in by then
    /// is left to containerd's collector.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        platform: &Platform,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let lease = self.link.lease(&format!("midge-load-{:016x}", rand::random::<u64>())).await?;
        let loaded = Box::pin(self.load_now(&lease, archive, platform, &progress)).await;
        let ended = self.link.end(&lease).await;
        let loaded = loaded?;
        ended?;
        Ok(loaded)
    }

    async fn load_now(
        &self,
        lease: &Lease,
        archive: impl Read + Send + 'static,
        platform: &Platform,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let contents = self.ingest(lease, archive, progress).await?;
        let mut candidates = self.oci_images(lease, &contents).await?;
        if candidates.is_empty() {
            candidates = self.docker_images(lease, &contents).await?;
        }
        if candidates.is_empty() {
            let why = "it has neither manifest.json nor index.json with an image";
            return Err(LoadError::Invalid(why.to_owned()));
        }
        let mut loaded = Vec::new();
        for candidate in candidates {
            self.adopt(lease, &candidate, platform, progress, &mut loaded).await?;
        }
        Ok(loaded)
    }

    /// Reads the archive on a thread, and writes its blobs as they come.
    async fn ingest(
        &self,
        lease: &Lease,
        archive: impl Read + Send + 'static,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Contents, LoadError> {
        // Two parts: the archive is read on while containerd writes.
        let (sender, receiver) = async_channel::bounded(2);
        let reading = unblock(move || archive::read(archive, CHUNK, &sender));
        let mut contents = Contents::default();
        let mut reading = Some(smol::spawn(reading));
        let stored = async {
            while let Ok(part) = receiver.recv().await {
                match part {
                    Part::Link { path, target } => {
                        contents.links.insert(path, target);
                    }
                    Part::File { path, size } if is_json(&path, size) => {
                        let bytes = collect(&receiver).await;
                        contents.json_bytes += bytes.len();
                        if contents.json_bytes > JSON_BYTES_MAX {
                            let why = format!("more than {JSON_BYTES_MAX} bytes of JSON");
                            return Err(LoadError::Invalid(why));
                        }
                        contents.json.insert(path, bytes);
                    }
                    Part::File { path, size } => {
                        let stored = self.store(lease, &path, size, &receiver, progress).await?;
                        if let Some(stored) = stored {
                            contents.blobs.insert(path, stored);
                        }
                    }
                    Part::Data(_) | Part::End => (),
                }
            }
            Ok(())
        };
        let stored = stored.await;
        drop(receiver);
        // The reader's own complaint explains a file that ended early.
        if stored.is_ok()
            && let Some(reading) = reading.take()
        {
            reading.await?;
        }
        stored?;
        Ok(contents)
    }

    /// Writes one file of the archive as a blob; `None` where the archive ended inside of it.
    async fn store(
        &self,
        lease: &Lease,
        path: &str,
        size: u64,
        parts: &async_channel::Receiver<Part>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Option<Stored>, LoadError> {
        let named = path.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
        let named = named.filter(|digest| is_digest(digest));
        let expected = named.as_deref().map(|digest| (digest, size));
        let key = format!("midge-load-{:016x}", rand::random::<u64>());
        let id = named.as_deref().map_or_else(|| short(path), short);
        let mut writer = self.link.writer(lease, &key, expected).await?;
        let mut hash = Sha256::new();
        let (mut done, mut magic) = (0, Vec::new());
        loop {
            match parts.recv().await {
                Ok(Part::Data(data)) => {
                    hash.update(&data);
                    if done == 0 {
                        magic = data.get(..6).unwrap_or(&data).to_vec();
                    }
                    done += data.len() as u64;
                    if let Some(writer) = writer.as_mut().filter(|w| w.offset() < done) {
                        writer.write(data).await?;
                    }
                    let (id, step) = (id.clone(), Step::Loading);
                    progress(Progress { id, step, current: done, total: size });
                }
                Ok(Part::End) => break,
                _ => return Ok(None),
            }
        }
        let digest = format!("sha256:{:x}", hash.finalize());
        if named.as_ref().is_some_and(|named| *named != digest) {
            return Err(LoadError::Invalid(format!("{path} does not match its digest")));
        }
        if let Some(writer) = writer {
            self.keep(writer, &key, &digest, size).await?;
        }
        progress(Progress { id, step: Step::Loaded, current: size, total: size });
        Ok(Some(Stored { digest, size, compression: archive::compression(&magic) }))
    }

    async fn keep(
        &self,
        writer: Writer,
        key: &str,
        digest: &str,
        size: u64,
    ) -> Result<(), LoadError> {
        match writer.commit(digest, size, &ContentLabels::new()).await? {
            Committed::Yes | Committed::Existed => Ok(()),
            Committed::Mismatch(message) => {
                self.link.abort(key).await?;
                Err(RuntimeError::Refused { action: "keep content", message, temporary: true }
                    .into())
            }
        }
    }

    /// Returns the images of an OCI layout; none where the archive is not one.
    async fn oci_images(
        &self,
        lease: &Lease,
        contents: &Contents,
    ) -> Result<Vec<Candidate>, LoadError> {
        let Some(index) = contents.json.get("index.json") else { return Ok(Vec::new()) };
        let what = || "index.json".to_owned();
        let (root, _) = document::parse_root(index, document::OCI_INDEX)
            .map_err(|reason| LoadError::Document { what: what(), reason })?;
        let Root::Index(index) = root else {
            return Err(LoadError::Invalid("index.json is a manifest".to_owned()));
        };
        let docker_names = self.docker_names(contents)?;
        let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
        for entry in index.manifests.iter().take(IMAGES_MAX) {
            let Some((target, configs)) = self.label_tree(lease, &entry.digest, 0).await? else {
                continue;
            };
            let candidate = candidates
                .entry(target.digest.clone())
                .or_insert_with(|| Candidate { target, names: BTreeSet::new() });
            candidate.names.extend(annotated_name(entry));
            let by_config = configs.iter().filter_map(|config| docker_names.get(config));
            candidate.names.extend(by_config.flatten().cloned());
        }
        Ok(candidates.into_values().collect())
    }

    /// Labels a manifest or index and what lies below it, so that each part holds the next.
    /// Returns its descriptor and the configurations below; `None` where nothing of it is here.
    async fn label_tree(
        &self,
        lease: &Lease,
        digest: &str,
        depth: usize,
    ) -> Result<Option<(Descriptor, Vec<String>)>, LoadError> {
        if depth > DEPTH_MAX {
            return Err(LoadError::Invalid("its indexes lie too deep in one another".to_owned()));
        }
        let Some(bytes) = self.link.read(digest, MANIFEST_BYTES_MAX).await? else {
            return Ok(None);
        };
        let invalid = |reason| LoadError::Document { what: digest.to_owned(), reason };
        let (root, media_type) = document::parse_root(&bytes, "").map_err(invalid)?;
        let mut configs = Vec::new();
        match &root {
            Root::Manifest(manifest) => {
                if !self.check_config(&manifest.config.digest).await? {
                    return Ok(None);
                }
                self.link.put(lease, digest, &bytes, &manifest_labels(manifest)).await?;
                configs.push(manifest.config.digest.clone());
            }
            Root::Index(index) => {
                for (entry, _) in index.images() {
                    let below = Box::pin(self.label_tree(lease, &entry.digest, depth + 1)).await?;
                    configs.extend(below.into_iter().flat_map(|(_, configs)| configs));
                }
                if configs.is_empty() {
                    return Ok(None);
                }
                self.link.put(lease, digest, &bytes, &index_labels(index)).await?;
            }
        }
        Ok(Some((descriptor(&media_type, digest, bytes.len() as u64), configs)))
    }

    /// Tells whether a configuration came with the archive; one that is none is an error.
    async fn check_config(&self, digest: &str) -> Result<bool, LoadError> {
        let Some(bytes) = self.link.read(digest, CONFIG_BYTES_MAX).await? else {
            return Ok(false);
        };
        let parsed = document::parse_config(&bytes);
        let what = || format!("configuration {digest}");
        parsed.map_err(|reason| LoadError::Document { what: what(), reason })?;
        Ok(true)
    }

    /// Returns the names that `manifest.json` gives to configurations, where there is one beside
    /// an OCI layout.
    fn docker_names(
        &self,
        contents: &Contents,
    ) -> Result<BTreeMap<String, Vec<String>>, LoadError> {
        let mut names = BTreeMap::new();
        for entry in docker_entries(contents)? {
            if let Some(stored) = contents.blob(&entry.config) {
                names.insert(stored.digest.clone(), entry.repo_tags.unwrap_or_default());
            }
        }
        Ok(names)
    }

    /// Returns the images of an archive that only has Docker's `manifest.json`. Their manifests
    /// are made here; the same archive gives the same digests on every node.
    async fn docker_images(
        &self,
        lease: &Lease,
        contents: &Contents,
    ) -> Result<Vec<Candidate>, LoadError> {
        let mut candidates = Vec::new();
        for entry in docker_entries(contents)? {
            let missing = |path: &str| LoadError::Invalid(format!("{path} is missing"));
            let config_bytes = match contents.json(&entry.config) {
                Some(bytes) => bytes.to_vec(),
                None => {
                    let stored = contents.blob(&entry.config);
                    let stored = stored.ok_or_else(|| missing(&entry.config))?;
                    let read = self.link.read(&stored.digest, CONFIG_BYTES_MAX).await?;
                    read.ok_or_else(|| missing(&entry.config))?
                }
            };
            let what = || entry.config.clone();
            let config = document::parse_config(&config_bytes)
                .map_err(|reason| LoadError::Document { what: what(), reason })?;
            let mut layers = Vec::new();
            for path in entry.layers.unwrap_or_default() {
                let stored = contents.blob(&path).ok_or_else(|| missing(&path))?;
                let suffix = stored.compression.map(|c| format!("+{c}")).unwrap_or_default();
                let media_type = format!("{OCI_LAYER}{suffix}");
                layers.push(descriptor(&media_type, &stored.digest, stored.size));
            }
            let config_digest = document::digest(&config_bytes);
            let config_size = config_bytes.len() as u64;
            let manifest =
                Manifest { config: descriptor(OCI_CONFIG, &config_digest, config_size), layers };
            document::check_layers(&manifest, &config)
                .map_err(|reason| LoadError::Document { what: what(), reason })?;
            let bytes = manifest_json(&manifest);
            let digest = document::digest(&bytes);
            self.link.put(lease, &config_digest, &config_bytes, &ContentLabels::new()).await?;
            self.link.put(lease, &digest, &bytes, &manifest_labels(&manifest)).await?;
            let target = descriptor(OCI_MANIFEST, &digest, bytes.len() as u64);
            let names = entry.repo_tags.unwrap_or_default().into_iter().collect();
            candidates.push(Candidate { target, names });
        }
        Ok(candidates)
    }

    /// Unpacks an image and gives it its names.
    async fn adopt(
        &self,
        lease: &Lease,
        candidate: &Candidate,
        platform: &Platform,
        progress: &(dyn Fn(Progress) + Send + Sync),
        loaded: &mut Vec<LoadedImage>,
    ) -> Result<(), LoadError> {
        let digest = &candidate.target.digest;
        let _alone = self.link.exclusive(format!("image {digest}")).await;
        let shown = || candidate.names.first().unwrap_or(digest).clone();
        // An image for other machines is kept as it is: the archive may be for several nodes.
        let local = self.open(digest, platform).await?.unwrap_or_default();
        if let Some(local) = &local {
            for layer in &local.manifest.layers {
                if !self.link.holds(&layer.digest).await? {
                    let why = format!("layer {} of {} is missing", layer.digest, shown());
                    return Err(LoadError::Invalid(why));
                }
            }
            let unpacked = self.unpack(lease, &local.manifest, &local.config, progress).await;
            unpacked
                .map_err(|source| LoadError::Unpack { image: shown(), source: Box::new(source) })?;
        }
        for name in &candidate.names {
            let reference =
                Reference::parse(name).map_err(|error| LoadError::Invalid(error.to_string()))?;
            self.name(&record_name(&reference), &candidate.target, true).await?;
            loaded.push(LoadedImage { name: reference.to_string(), digest: digest.clone() });
        }
        if candidate.names.is_empty() {
            // Without a record the collector would take it. Its id is what users call it by.
            let config = local.map(|local| local.manifest.config.digest);
            let id = config.unwrap_or_else(|| digest.clone());
            self.name(&id, &candidate.target, true).await?;
            loaded.push(LoadedImage { name: id, digest: digest.clone() });
        }
        Ok(())
    }
}

impl Contents {
    fn follow<'a>(&'a self, path: &'a str) -> &'a str {
        let mut path = path.strip_prefix("./").unwrap_or(path);
        for _ in 0..LINKS_MAX {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }

    fn blob(&self, path: &str) -> Option<&Stored> {
        self.blobs.get(self.follow(path))
    }

    fn json(&self, path: &str) -> Option<&[u8]> {
        self.json.get(self.follow(path)).map(Vec::as_slice)
    }
}

/// Tells which files are kept in memory. What lies under `blobs/` is content, whatever it is.
fn is_json(path: &str, size: u64) -> bool {
    let name = path.ends_with(".json") || matches!(path, "oci-layout" | "repositories");
    name && !path.starts_with("blobs/") && size <= CONFIG_BYTES_MAX
}

/// Returns the bytes of the file that began last.
async fn collect(parts: &async_channel::Receiver<Part>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Part::Data(data)) = parts.recv().await {
        bytes.extend_from_slice(&data);
    }
    bytes
}

fn docker_entries(contents: &Contents) -> Result<Vec<DockerEntry>, LoadError> {
    let Some(bytes) = contents.json.get("manifest.json") else { return Ok(Vec::new()) };
    let entries: Vec<DockerEntry> = serde_json::from_slice(bytes)
        .map_err(|error| LoadError::Invalid(format!("manifest.json cannot be read: {error}")))?;
    if entries.len() > IMAGES_MAX {
        return Err(LoadError::Invalid(format!("more than {IMAGES_MAX} images")));
    }
    Ok(entries)
}

/// Returns the name that an OCI layout's index gives an entry: containerd's and Docker's
/// annotation is a whole name, OCI's may be only a tag, which names nothing by itself.
fn annotated_name(entry: &Descriptor) -> Option<String> {
    let get = |key: &str| entry.annotations.get(key).filter(|name| !name.is_empty());
    if let Some(name) = get("io.containerd.image.name") {
        return Some(name.clone());
    }
    let name = get("org.opencontainers.image.ref.name")?;
    let whole = name.contains(['/', ':']) && Reference::parse(name).is_ok();
    // A lone word is a tag by the specification, except that some tools write `nginx`.
    whole.then(|| name.clone()).filter(|name| name != DEFAULT_TAG)
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn manifest_json(manifest: &Manifest) -> Vec<u8> {
    let entry = |d: &Descriptor| serde_json::json!({ "mediaType": d.media_type, "digest": d.digest, "size": d.size });
    let layers: Vec<_> = manifest.layers.iter().map(entry).collect();
    // serde_json orders keys by name, so that the same image has the same bytes everywhere.
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry(&manifest.config),
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
