//! The volumes of this node: a record and a folder each, which containers use them, and what is
//! mounted on those that have options.
//!
//! Nothing is held in memory: who uses a volume is in the folders of the containers, and what is
//! mounted is in the kernel, so that a daemon which starts knows both. Must not know what is put
//! into a volume (`volume` fills it from the image).

mod mounts;

use crate::{
    types::{Date, Labels, StoredVolume, VolumeOptions, is_volume_name},
    util::disk::{remove, replace},
};
use mounts::MountPlan;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

pub use mounts::VolumeOptionError;

/// Marks a volume that nobody named, as Docker does.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// How many files of a volume are counted before its size is given up as unknown: a few seconds of
/// an SD card's reading, which whoever asks for sizes waits for.
const COUNTED_MAX: usize = 200_000;

/// The largest record that is read: 1,024 labels and options of an ordinary length.
const RECORD_MAX: u64 = 1 << 20;

/// Something that happened to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeNews {
    /// It was made.
    Created(String),
    /// It was removed.
    Removed(String),
    /// A container that uses it was made.
    Mounted {
        /// The volume.
        name: String,
        /// The container.
        container: String,
    },
    /// A container that used it has ended.
    Unmounted {
        /// The volume.
        name: String,
        /// The container.
        container: String,
    },
}

/// Why something could not be done to a volume. Texts are Docker's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of that name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// It can be no name.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )]
    Name(String),
    /// Containers use it.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// The containers.
        users: Vec<String>,
    },
    /// Another driver is asked for.
    #[error("error looking up volume plugin {0}: plugin \"{0}\" not found")]
    Driver(String),
    /// The driver's options are wrong.
    #[error(transparent)]
    Options(#[from] VolumeOptionError),
    /// What its options say cannot be mounted.
    #[error("error while mounting volume '{name}': failed to mount local volume: {what}")]
    Mount {
        /// The volume.
        name: String,
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node's disk.
    #[error("cannot {what} volume {name}")]
    Disk {
        /// What was to be done.
        what: &'static str,
        /// The volume.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A volume that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeWanted {
    /// Its name.
    pub name: String,
    /// What it is made with, where it is not there.
    pub options: VolumeOptions,
    /// The container that it goes with; none for one that stays.
    pub owner: Option<String>,
}

impl VolumeWanted {
    /// Refuses what cannot be made, whatever is there.
    pub(super) fn check(&self) -> Result<(), VolumeError> {
        if !is_volume_name(&self.name) {
            return Err(VolumeError::Name(self.name.clone()));
        }
        if !matches!(self.options.driver.as_str(), "" | "local") {
            return Err(VolumeError::Driver(self.options.driver.clone()));
        }
        MountPlan::of(&self.options.options)?;
        Ok(())
    }
}

/// What is kept of a volume on disk, besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    created: Date,
    labels: Labels,
    options: BTreeMap<String, String>,
    owner: Option<String>,
}

type Tell = Box<dyn Fn(VolumeNews) + Send + Sync>;

/// The volumes of one node. Clones share everything. Every call blocks.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    /// One folder a volume.
    dir: PathBuf,
    /// One folder a container.
    containers: PathBuf,
    /// One lock a volume that something is done to: a mount may hang in a dead network.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    tell: OnceLock<Tell>,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// The file in a container's folder that names the volumes it uses.
const USES: &str = "uses";

/// The file in a container's folder that says that it has ended.
const EXIT: &str = "exit";

impl Volumes {
    /// Names the volumes below a data directory; touches nothing.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            inner: Arc::new(Inner {
                dir: data_dir.join("volumes"),
                containers: data_dir.join("containers"),
                locks: Mutex::default(),
                tell: OnceLock::new(),
            }),
        }
    }

    /// Says whom to tell what happens; once.
    pub fn tell(&self, tell: impl Fn(VolumeNews) + Send + Sync + 'static) {
        let _set_before = self.inner.tell.set(Box::new(tell));
    }

    /// Returns the folder with a volume's content.
    #[must_use]
    pub fn content(&self, name: &str) -> PathBuf {
        self.inner.dir.join(name).join("_data")
    }

    /// Lists the volumes, by name.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn list(&self) -> Result<Vec<StoredVolume>, VolumeError> {
        let users = self.users();
        let mut found = Vec::new();
        for name in names_in(&self.inner.dir).map_err(disk("list", "s"))? {
            if is_volume_name(&name) && self.content(&name).is_dir() {
                let record = self.record(&name)?;
                found.push(self.stored(name, record, &users));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns one volume.
    ///
    /// # Errors
    ///
    /// There is none, or the disk.
    pub fn get(&self, name: &str) -> Result<StoredVolume, VolumeError> {
        if !is_volume_name(name) || !self.content(name).is_dir() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let record = self.record(name)?;
        Ok(self.stored(name.to_owned(), record, &self.users()))
    }

    /// Makes a volume; one that is there stays as it is.
    ///
    /// # Errors
    ///
    /// Name, driver or options are wrong, or the disk.
    pub fn create(&self, wanted: &VolumeWanted) -> Result<StoredVolume, VolumeError> {
        self.make(wanted)?;
        self.get(&wanted.name)
    }

    /// Removes a volume with its content.
    ///
    /// # Errors
    ///
    /// There is none, a container uses it, or the disk. With `force`, none is no error.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        if !is_volume_name(name) || !self.inner.dir.join(name).is_dir() {
            return if force { Ok(()) } else { Err(VolumeError::NotFound(name.to_owned())) };
        }
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: who begins to use it notes that first.
        if let Some(users) = self.users().remove(name) {
            return Err(VolumeError::InUse { name: name.to_owned(), users });
        }
        self.destroy(name)
    }

    /// Notes which volumes a container uses, makes those that are missing and mounts what their
    /// options say.
    ///
    /// # Errors
    ///
    /// As [`Volumes::create`], or something cannot be mounted.
    pub(super) fn attach(
        &self,
        container: &str,
        wanted: &[VolumeWanted],
    ) -> Result<(), VolumeError> {
        let folder = self.inner.containers.join(container);
        let names: Vec<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        if !names.is_empty() {
            replace(&folder.join(USES), names.join("\n").as_bytes(), 0o644)
                .map_err(disk("note the use of", &names.join(", ")))?;
        }
        for wanted in wanted {
            self.make(wanted)?;
            self.mount(&wanted.name)?;
            let (name, container) = (wanted.name.clone(), container.to_owned());
            self.say(VolumeNews::Mounted { name, container });
        }
        Ok(())
    }

    /// Mounts again what a restart of the machine has unmounted under a container that is about to
    /// start.
    pub(super) fn mount_for(&self, container: &str) -> Result<(), VolumeError> {
        self.uses(container).iter().try_for_each(|name| self.mount(name))
    }

    /// A container has ended: unmounts what no other uses.
    pub(super) fn let_go(&self, container: &str) {
        for name in self.uses(container) {
            self.unmount_unused(&name);
            let container = container.to_owned();
            self.say(VolumeNews::Unmounted { name, container });
        }
    }

    /// A container is about to be forgotten: removes the volumes that go with it.
    pub(super) fn forget(&self, container: &str) -> Result<(), VolumeError> {
        let uses = self.uses(container);
        for name in &uses {
            let lock = self.lock(name);
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            if self.record(name)?.owner.as_deref() == Some(container) {
                self.destroy(name)?;
            }
        }
        let noted = self.inner.containers.join(container).join(USES);
        remove(&noted).map_err(disk("note the end of the use of", &uses.join(", ")))?;
        uses.iter().for_each(|name| self.unmount_unused(name));
        Ok(())
    }

    /// Returns how many bytes a volume's content takes; none where that is not for us to count:
    /// it is mounted from elsewhere, or has too many files.
    #[must_use]
    pub fn size(&self, volume: &StoredVolume) -> Option<u64> {
        if volume.options.contains_key("device") {
            return None;
        }
        let mut counted = 0;
        size_of(&self.content(&volume.name), &mut counted).ok().flatten()
    }

    fn say(&self, news: VolumeNews) {
        if let Some(tell) = self.inner.tell.get() {
            tell(news);
        }
    }

    fn lock(&self, name: &str) -> Arc<Mutex<()>> {
        let mut locks = self.inner.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    fn make(&self, wanted: &VolumeWanted) -> Result<(), VolumeError> {
        wanted.check()?;
        let VolumeWanted { name, options, owner } = wanted;
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let content = self.content(name);
        if content.is_dir() {
            return Ok(());
        }
        let record = Record {
            created: now(),
            labels: options.labels.clone(),
            options: options.options.clone(),
            owner: owner.clone(),
        };
        let text = serde_json::to_vec(&record).map_err(io::Error::other);
        let folder = self.inner.dir.join(name);
        let made = text.and_then(|text| {
            fs::create_dir_all(&folder)?;
            // The record first: a folder with content and without one would be somebody's data. Its
            // options may hold the password of a file server.
            replace(&folder.join("record.json"), &text, 0o600)?;
            fs::create_dir(&content)
        });
        made.map_err(disk("make", name))?;
        self.say(VolumeNews::Created(name.clone()));
        Ok(())
    }

    /// Removes a volume that is locked and not in use.
    fn destroy(&self, name: &str) -> Result<(), VolumeError> {
        let failed = disk("remove", name);
        let content = self.content(name);
        match mounts::unmount(&content).and_then(|()| mounts::is_mounted(&content)) {
            Ok(false) => {}
            // What is mounted there is not ours to remove.
            Ok(true) => return Err(failed(io::ErrorKind::ResourceBusy.into())),
            Err(error) => return Err(failed(error)),
        }
        match fs::remove_dir_all(self.inner.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) => {}
            Ok(()) => self.say(VolumeNews::Removed(name.to_owned())),
        }
        Ok(())
    }

    fn mount(&self, name: &str) -> Result<(), VolumeError> {
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.record(name)?;
        let Some(plan) = MountPlan::of(&record.options)? else { return Ok(()) };
        let content = self.content(name);
        let mounted = mounts::is_mounted(&content).map_err(disk("look at", name))?;
        if mounted {
            return Ok(());
        }
        plan.mount(&content).map_err(|source| VolumeError::Mount {
            name: name.to_owned(),
            what: format!("mount {}:{}", plan.device, content.display()),
            source,
        })
    }

    fn unmount_unused(&self, name: &str) {
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let used = names_in(&self.inner.containers).unwrap_or_default().into_iter().any(|id| {
            let ended = self.inner.containers.join(&id).join(EXIT).exists();
            !ended && self.uses(&id).iter().any(|used| used == name)
        });
        if used {
            return;
        }
        if let Err(error) = mounts::unmount(&self.content(name)) {
            tracing::warn!(%error, volume = name, "cannot unmount a volume");
        }
    }

    fn record(&self, name: &str) -> Result<Record, VolumeError> {
        let folder = self.inner.dir.join(name);
        let path = folder.join("record.json");
        let failed = disk("read the record of", name);
        match fs::metadata(&path) {
            Ok(file) if file.len() <= RECORD_MAX => {}
            Ok(_) => return Err(failed(io::ErrorKind::FileTooLarge.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Put there by hand: plain data, as old as its folder.
                let modified = fs::metadata(&folder).and_then(|folder| folder.modified());
                let created = modified.map(date).unwrap_or_default();
                return Ok(Record { created, ..Record::default() });
            }
            Err(error) => return Err(failed(error)),
        }
        let text = fs::read(&path).map_err(&failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    fn stored(
        &self,
        name: String,
        record: Record,
        users: &BTreeMap<String, Vec<String>>,
    ) -> StoredVolume {
        StoredVolume {
            path: self.content(&name).to_string_lossy().into_owned(),
            created: record.created,
            labels: record.labels,
            options: record.options,
            users: users.get(&name).cloned().unwrap_or_default(),
            size: None,
            name,
        }
    }

    fn uses(&self, container: &str) -> Vec<String> {
        let text = fs::read_to_string(self.inner.containers.join(container).join(USES));
        let names: BTreeSet<String> = text.unwrap_or_default().lines().map(str::to_owned).collect();
        names.into_iter().filter(|name| is_volume_name(name)).collect()
    }

    /// Returns the containers that use each volume, whether they run or not.
    fn users(&self) -> BTreeMap<String, Vec<String>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut containers = names_in(&self.inner.containers).unwrap_or_default();
        containers.sort();
        for container in containers {
            for name in self.uses(&container) {
                users.entry(name).or_default().push(container.clone());
            }
        }
        users
    }
}

/// Returns the name of the `index`th volume of a container's own: it has none of its user's, and
/// must be the same when the container is prepared again.
#[must_use]
pub(super) fn own_name(container: &str, index: usize) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("midge volume {index} of {container}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn disk<'a>(what: &'static str, name: &'a str) -> impl Fn(io::Error) -> VolumeError + use<'a> {
    move |source| VolumeError::Disk { what, name: name.to_owned(), source }
}

fn now() -> Date {
    date(SystemTime::now())
}

fn date(time: SystemTime) -> Date {
    Date::EPOCH + time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Returns the names in a folder; none where there is no folder.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |entry: io::Result<fs::DirEntry>| Some(entry.ok()?.file_name().into_string());
    Ok(entries.filter_map(name).filter_map(Result::ok).collect())
}

/// Adds up what is below a folder, on its own file system; none where that is too much to count.
fn size_of(root: &Path, counted: &mut usize) -> io::Result<Option<u64>> {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(root)?.dev();
    let (mut size, mut folders) = (0_u64, vec![root.to_owned()]);
    let mut linked = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            *counted += 1;
            if *counted > COUNTED_MAX {
                return Ok(None);
            }
            let entry = entry?;
            // It may have gone since it was listed.
            let Ok(file) = entry.metadata() else { continue };
            if file.is_dir() && file.dev() == device {
                folders.push(entry.path());
            } else if file.nlink() == 1 || linked.insert(file.ino()) {
                size += file.len();
            }
        }
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests;
