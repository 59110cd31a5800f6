//! What a node stores: images, volumes, containers' own files; and what can be asked of it.

use super::{Date, Labels, Platform, VolumeOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An image of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredImage {
    /// The digest of its configuration (`sha256:...`), as Docker's ids.
    pub id: String,
    /// Familiar names with tags; empty where it is only known by digest.
    pub tags: Vec<String>,
    /// Familiar names with digests (`nginx@sha256:...`).
    pub digests: Vec<String>,
    /// When it was built.
    pub created: Date,
    /// Bytes of content and unpacked layers.
    pub size: u64,
    /// How many of these it has in common with other images, where that was counted.
    pub shared: Option<u64>,
    /// Labels of the image.
    pub labels: Labels,
    /// The platforms whose content is complete here.
    pub platforms: Vec<Platform>,
    /// How many containers use it.
    pub containers: u64,
}

/// All that `inspect` shows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredImageDetail {
    /// What lists show as well.
    pub image: StoredImage,
    /// The platform of what is shown.
    pub platform: Platform,
    /// The author; may be empty.
    pub author: String,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Its arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The working directory.
    pub dir: String,
    /// The user.
    pub user: String,
    /// The stop signal.
    pub stop_signal: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Folders that become volumes.
    pub volumes: Vec<String>,
    /// The digests of the unpacked layers.
    pub layers: Vec<String>,
}

/// What became of an image that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemovedImage {
    /// This name is gone.
    Untagged(String),
    /// This content is gone.
    Deleted(String),
}

/// A volume of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredVolume {
    /// Its name.
    pub name: String,
    /// Where its content is.
    pub path: String,
    /// When it was made.
    pub created: Date,
    /// Its labels.
    pub labels: Labels,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// The containers that use it, whether they run or not.
    pub users: Vec<String>,
    /// How many bytes it takes, where that was counted and can be.
    pub size: Option<u64>,
}

/// What a container of a node takes on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as it is called.
    pub image: String,
    /// The id of the image; may be empty.
    pub image_id: String,
    /// The whole command line.
    pub command: Vec<String>,
    /// When it was made.
    pub created: Date,
    /// Docker's word for how far it has come.
    pub state: String,
    /// Bytes of its own files, its image's left out.
    pub size: u64,
    /// How many volumes it uses.
    pub volumes: u64,
    /// Labels.
    pub labels: Labels,
}

/// What takes a node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageUse {
    /// Bytes of all images' content and unpacked layers, what they share counted once.
    pub images_size: u64,
    /// Its images.
    pub images: Vec<StoredImage>,
    /// Its containers.
    pub containers: Vec<StoredContainer>,
    /// Its volumes.
    pub volumes: Vec<StoredVolume>,
}

/// Which of what is not used goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prune {
    /// Also images that have a tag, and volumes that have a name.
    pub all: bool,
    /// Only what was made before.
    pub until: Option<Date>,
    /// Only what has all of these labels, `KEY` or `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Only what has none of these.
    pub without: Vec<String>,
}

impl Prune {
    fn fits(&self, created: Date, labels: &Labels) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|actual| actual == value),
            None => labels.contains_key(wanted),
        };
        self.until.is_none_or(|until| created < until)
            && self.labels.iter().all(has)
            && !self.without.iter().any(has)
    }

    /// Tells whether an image goes; one that a container uses never does.
    #[must_use]
    pub fn takes_image(&self, image: &StoredImage) -> bool {
        let unnamed = image.tags.is_empty();
        image.containers == 0 && (self.all || unnamed) && self.fits(image.created, &image.labels)
    }

    /// Tells whether a volume goes; one that a container uses never does. `anonymous` is the label
    /// of those that nobody named.
    #[must_use]
    pub fn takes_volume(&self, volume: &StoredVolume, anonymous: &str) -> bool {
        let unnamed = volume.labels.contains_key(anonymous);
        volume.users.is_empty()
            && (self.all || unnamed)
            && self.fits(volume.created, &volume.labels)
    }
}

/// A volume that a user makes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewVolume {
    /// Its name; empty leaves that to the node.
    pub name: String,
    /// With what.
    pub options: VolumeOptions,
}

/// Something that a user asks of what nodes store. Variants are only ever appended: their order is
/// their encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chore {
    /// Lists the images.
    Images,
    /// Shows one image.
    Image {
        /// Name, digest, or the beginning of an id.
        name: String,
    },
    /// Removes a name of an image, and the image with its last one.
    RemoveImage {
        /// Name, digest, or the beginning of an id.
        name: String,
        /// Also where containers use it, or it has several names.
        force: bool,
    },
    /// Removes images that nothing uses.
    PruneImages(Prune),
    /// Adds up what takes the disk.
    Usage,
    /// Lists the volumes.
    Volumes,
    /// Shows one volume.
    Volume {
        /// Its name.
        name: String,
    },
    /// Makes a volume.
    CreateVolume(NewVolume),
    /// Removes a volume.
    RemoveVolume {
        /// Its name.
        name: String,
        /// Whether none of that name is no error.
        force: bool,
    },
    /// Removes volumes that nothing uses.
    PruneVolumes(Prune),
}

/// What came of a chore. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChoreDone {
    /// Images, the newest first.
    Images(Vec<StoredImage>),
    /// One image.
    Image(Box<StoredImageDetail>),
    /// What is gone.
    ImagesRemoved {
        /// Names and images.
        removed: Vec<RemovedImage>,
        /// Bytes that are free again.
        freed: u64,
    },
    /// What takes the disk.
    Usage(Box<StorageUse>),
    /// Volumes, by name.
    Volumes(Vec<StoredVolume>),
    /// One volume.
    Volume(Box<StoredVolume>),
    /// What is gone.
    VolumesRemoved {
        /// Their names.
        removed: Vec<String>,
        /// Bytes that are free again.
        freed: u64,
    },
    /// It is done.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_takes_what_is_unused_and_fits() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        let image = |tag: Option<&str>, containers| StoredImage {
            tags: tag.map(str::to_owned).into_iter().collect(),
            created: Date::from_unix_seconds(100),
            labels: labels.clone(),
            containers,
            ..StoredImage::default()
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let date = |seconds| Some(Date::from_unix_seconds(seconds));
        let dangling = Prune::default();
        let all = Prune { all: true, ..Prune::default() };
        for (prune, image, taken) in [
            (&dangling, image(None, 0), true),
            (&dangling, image(None, 1), false),
            (&dangling, image(Some("bb:1"), 0), false),
            (&all, image(Some("bb:1"), 0), true),
            (&all, image(Some("bb:1"), 1), false),
            (&Prune { until: date(100), ..all.clone() }, image(None, 0), false),
            (&Prune { until: date(101), ..all.clone() }, image(None, 0), true),
            (&Prune { labels: words(&["a", "a=1"]), ..all.clone() }, image(None, 0), true),
            (&Prune { labels: words(&["a", "b"]), ..all.clone() }, image(None, 0), false),
            (&Prune { without: words(&["a=2"]), ..all.clone() }, image(None, 0), true),
            (&Prune { without: words(&["b", "a"]), ..all.clone() }, image(None, 0), false),
        ] {
            assert_eq!(prune.takes_image(&image), taken, "{prune:?} {image:?}");
        }
        let volume = |label: &str, users: &[&str]| StoredVolume {
            labels: [(label.to_owned(), String::new())].into(),
            users: words(users),
            ..StoredVolume::default()
        };
        for (prune, volume, taken) in [
            (&dangling, volume("anon", &[]), true),
            (&dangling, volume("anon", &["c"]), false),
            (&dangling, volume("other", &[]), false),
            (&all, volume("other", &[]), true),
        ] {
            assert_eq!(prune.takes_volume(&volume, "anon"), taken, "{prune:?} {volume:?}");
        }
    }
}
