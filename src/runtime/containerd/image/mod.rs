//! Images in containerd: pulled, loaded, listed, removed, and made ready for containers.
//!
//! Knows containerd's content, snapshots, leases and collector, and the registry client. Must not
//! know tasks beyond what their failures look like.
//!
//! What keeps containerd's collector away: while we write, a lease; afterwards the image record,
//! which holds its target, whose labels hold the rest (manifest, configuration, layers, and by
//! the configuration the topmost snapshot). Every label is set before the lease ends.

mod archive;
mod content;
#[cfg(test)]
mod fuzz;
mod link;
mod list;
mod load;
mod local;
mod pull;
mod remove;
mod room;
mod unpack;
mod usage;
mod watch;

#[cfg(test)]
mod tests;

use super::super::{
    image::{PullError, Resolved, document},
    registry::{Registry, RegistryConfig, RegistryError, Resolve},
};
use crate::{
    types::{Platform, RegistryCredential, image::Reference},
    util::unblock::unblock,
};
use document::{Config, Root};
use link::Link;
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// How many parsed documents are remembered, so that a list does not read everything again: three
/// an image, for more images than a node has.
const DOCUMENTS_MAX: usize = 512;

/// The snapshotter that layers are unpacked into.
pub const SNAPSHOTTER: &str = "overlayfs";

/// The namespace is not a word that containerd accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid containerd namespace {0:?}")]
pub struct InvalidNamespace(pub String);

/// Asked before a pull writes so many bytes: makes room where there is none, and returns how many
/// are free then; none where nobody knows.
pub type MakeRoom =
    Box<dyn Fn(u64) -> Pin<Box<dyn Future<Output = Option<u64>> + Send>> + Send + Sync>;

/// The images of one node. Clones share everything.
#[derive(Clone)]
pub struct Images {
    link: Arc<Link>,
    registry: Registry,
    documents: Arc<Mutex<BTreeMap<String, Document>>>,
    room: Arc<OnceLock<MakeRoom>>,
}

#[derive(Clone)]
enum Document {
    Root(Arc<Root>, Arc<str>),
    Config(Arc<Config>),
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("namespace", &self.link.namespace()).finish_non_exhaustive()
    }
}

impl Images {
    /// Works on `namespace` of the containerd at `socket`, which need not be there yet: each
    /// operation connects where there is no connection.
    ///
    /// # Errors
    ///
    /// containerd takes no such namespace.
    pub fn new(
        socket: &str,
        namespace: &str,
        registries: RegistryConfig,
        resolve: Resolve,
    ) -> Result<Self, InvalidNamespace> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let fits = (1..=76).contains(&namespace.len()) && namespace.bytes().all(word);
        if !fits {
            return Err(InvalidNamespace(namespace.to_owned()));
        }
        Ok(Self {
            link: Arc::new(Link::new(socket, namespace)),
            registry: Registry::new(registries, resolve),
            documents: Arc::default(),
            room: Arc::default(),
        })
    }

    /// Asks the registry what a reference points to now, and for which platforms. Keeps nothing.
    ///
    /// # Errors
    ///
    /// The registry does not answer or refuses, or what it has is no image.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
    ) -> Result<Resolved, PullError> {
        let fetched = self.fetch_manifest(reference, credential).await?;
        let (root, media_type) = pull::parse_root(reference, &fetched)?;
        let size = fetched.body.len() as u64;
        let platforms = match &root {
            Root::Index(index) => index.platforms(),
            Root::Manifest(manifest) => {
                let config = self.fetch_config(reference, credential, &manifest.config).await?;
                let config = pull::parse_config(reference, &config)?;
                vec![config.platform]
            }
        };
        let platforms = platforms.iter().map(normalized).collect();
        Ok(Resolved { digest: fetched.digest, media_type, size, platforms })
    }

    /// Asks a registry (`docker.io`, `host:port`) whether it takes a login.
    ///
    /// # Errors
    ///
    /// It does not, or does not answer.
    pub async fn check_login(
        &self,
        registry: String,
        credential: RegistryCredential,
    ) -> Result<(), RegistryError> {
        let client = self.registry.clone();
        unblock(move || client.check_login(&registry, &credential)).await
    }

    /// Says whom to ask, before a pull, whether there is room for it; once.
    pub fn ask_for_room(&self, room: MakeRoom) {
        let _set_before = self.room.set(room);
    }

    fn remembered(&self, digest: &str) -> Option<Document> {
        let documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        documents.get(digest).cloned()
    }

    fn remember(&self, digest: &str, document: Document) {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if documents.len() >= DOCUMENTS_MAX {
            documents.clear();
        }
        documents.insert(digest.to_owned(), document);
    }
}

/// Returns a platform with the names that nodes and constraints use.
fn normalized(platform: &Platform) -> Platform {
    Platform::normalized(&platform.os, &platform.architecture, &platform.variant)
}
