//! Images as the rest of midge sees them: what is held, what a transfer reports, what can fail.
//!
//! Knows the OCI and Docker formats ([`document`]); must not know how they are fetched (`registry`)
//! nor where they are kept (`containerd`).

pub mod document;

use crate::types::{Date, Labels, Platform, image::InvalidReference};
use std::fmt;

/// A step of a transfer, as a progress bar shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer (the first 12 digits of its digest) or, for the image as a whole, its tag.
    pub id: String,
    /// What happens to it.
    pub step: Step,
    /// How many bytes are done; zero where that means nothing.
    pub current: u64,
    /// Of how many; zero where unknown.
    pub total: u64,
}

/// What happens to a layer. Displays as the text of Docker's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The image is looked up; holds the repository.
    PullingFrom(String),
    /// Known, not begun.
    PullingLayer,
    /// Its bytes arrive.
    Downloading,
    /// Something broke; seconds until the next try.
    Retrying(u64),
    /// All bytes are here and verified.
    DownloadComplete,
    /// It is being unpacked.
    Extracting,
    /// It is unpacked.
    PullComplete,
    /// It was here before.
    AlreadyExists,
    /// Bytes of an archive arrive.
    Loading,
    /// The archive's layer is here and verified.
    Loaded,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullingFrom(repository) => write!(f, "Pulling from {repository}"),
            Self::PullingLayer => f.write_str("Pulling fs layer"),
            Self::Downloading => f.write_str("Downloading"),
            Self::Retrying(1) => f.write_str("Retrying in 1 second"),
            Self::Retrying(seconds) => write!(f, "Retrying in {seconds} seconds"),
            Self::DownloadComplete => f.write_str("Download complete"),
            Self::Extracting => f.write_str("Extracting"),
            Self::PullComplete => f.write_str("Pull complete"),
            Self::AlreadyExists => f.write_str("Already exists"),
            Self::Loading => f.write_str("Loading layer"),
            Self::Loaded => f.write_str("Loaded layer"),
        }
    }
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// The name it is stored under (`docker.io/library/nginx:1.27`).
    pub name: String,
    /// The digest of the manifest or index that the registry gave.
    pub digest: String,
    /// Whether the name meant something else, or nothing, before ("Downloaded newer image" as
    /// opposed to "Image is up to date").
    pub changed: bool,
}

/// What a registry says of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of the manifest or index.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its own size in bytes.
    pub size: u64,
    /// The platforms it runs on, variants included.
    pub platforms: Vec<Platform>,
}

/// One image of an archive that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The familiar name (`nginx:1.27`); `sha256:...`, its id, where the archive names it not.
    pub name: String,
    /// The digest of the manifest or index.
    pub digest: String,
}

/// An image this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageSummary {
    /// The digest of its configuration: Docker's image id.
    pub id: String,
    /// The familiar names with a tag (`nginx:1.27`).
    pub names: Vec<String>,
    /// The familiar names with a digest (`nginx@sha256:...`).
    pub digests: Vec<String>,
    /// The digest of the manifest or index that the names point to.
    pub target: String,
    /// When it was built, where it says so.
    pub created: Date,
    /// The unpacked size of its layers, or their packed size where they are not unpacked.
    pub size: u64,
    /// Labels.
    pub labels: Labels,
    /// How many of these bytes other images have as well, where that was counted.
    pub shared: Option<u64>,
    /// When its names last changed.
    pub updated: Date,
    /// The containers that use it.
    pub users: Vec<String>,
    /// The platforms whose content is complete.
    pub platforms: Vec<Platform>,
}

/// What the images of a node take of its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDisk {
    /// Bytes, packed and unpacked, what several images have in common counted once.
    pub total: u64,
    /// The images; their sizes are packed and unpacked as well.
    pub images: Vec<ImageSummary>,
}

/// An image in full.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDetail {
    /// What a list shows of it.
    pub summary: ImageSummary,
    /// What it is made for.
    pub platform: Platform,
    /// What its containers are made from.
    pub config: super::ImageConfig,
    /// The digests of its unpacked layers, lowest first.
    pub diff_ids: Vec<String>,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The name is gone.
    Untagged(String),
    /// The image of this id is gone, and its content with the next collection.
    Deleted(String),
}

/// containerd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// No connection.
    #[error("{0}")]
    Away(String),
    /// No answer.
    #[error("containerd took more than {seconds} s to {action}")]
    Late {
        /// What it was asked.
        action: &'static str,
        /// For how long we waited.
        seconds: u64,
    },
    /// A refusal.
    #[error("containerd failed to {action}: {message}")]
    Refused {
        /// What it was asked.
        action: &'static str,
        /// Its words.
        message: String,
        /// Whether trying again may help.
        temporary: bool,
    },
}

impl RuntimeError {
    /// Tells whether trying again may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Away(_) | Self::Late { .. } => true,
            Self::Refused { temporary, .. } => *temporary,
        }
    }
}

/// An image could not be pulled or looked up.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// What was asked for is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The registry has not got it, or did not let us, or was not there.
    #[error(transparent)]
    Registry(#[from] super::registry::RegistryError),
    /// A document of the image is not what it should be.
    #[error("image {image}: {reason}")]
    Document {
        /// The image.
        image: String,
        /// What is wrong.
        #[source]
        reason: document::DocumentError,
    },
    /// It is made for other machines.
    #[error("image {image} does not run on {wanted}: it is made for {available}")]
    Platform {
        /// The image.
        image: String,
        /// What this node is.
        wanted: Platform,
        /// What the image has.
        available: String,
    },
    /// Bytes are not what their digest says.
    #[error("{what} does not match its digest")]
    Corrupt {
        /// Which.
        what: String,
    },
    /// The disk is too full for it.
    #[error("no room for image {image}: it needs about {}, {} free", megabytes(*needed), megabytes(*free))]
    NoRoom {
        /// The image.
        image: String,
        /// How many bytes it takes, packed and unpacked.
        needed: u64,
        /// How many there are.
        free: u64,
    },
    /// It cannot be brought to the disk.
    #[error("cannot write unpacked layers to the disk")]
    Disk(#[source] std::io::Error),
    /// It took too long as a whole.
    #[error("pulling {image} took more than {hours} hours")]
    Late {
        /// The image.
        image: String,
        /// The limit.
        hours: u64,
    },
    /// containerd.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl PullError {
    /// Tells whether trying again may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_temporary(),
            Self::Runtime(error) => error.is_temporary(),
            Self::Corrupt { .. } | Self::Late { .. } | Self::NoRoom { .. } | Self::Disk(_) => true,
            Self::Reference(_) | Self::Document { .. } | Self::Platform { .. } => false,
        }
    }

    /// Tells whether the registry said that there is no such image.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Registry(super::registry::RegistryError::NotFound { .. }))
    }
}

/// An archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// It is not an image archive, or a broken one.
    #[error("invalid archive: {0}")]
    Invalid(String),
    /// A document in it is not what it should be.
    #[error("invalid archive: {what}")]
    Document {
        /// Which.
        what: String,
        /// What is wrong.
        #[source]
        reason: document::DocumentError,
    },
    /// Unpacking it failed.
    #[error("cannot unpack {image}")]
    Unpack {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: Box<PullError>,
    },
    /// containerd.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// An image could not be found, inspected, tagged or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is none of that name or id here. The wording is Docker's.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The id is the beginning of several.
    #[error("image id {0} is ambiguous")]
    Ambiguous(String),
    /// It is in use, or has several names. The wording is Docker's.
    #[error("conflict: unable to {action} (must {remedy}) - {reason}")]
    Conflict {
        /// What was refused.
        action: String,
        /// What would work.
        remedy: &'static str,
        /// Why.
        reason: String,
    },
    /// The new name is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// containerd.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Says bytes as people read them off disks.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
