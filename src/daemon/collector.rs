//! What is remembered of images between collections: when each was last used, and which of them
//! services refer to. In one small file, which may be lost.

use super::machine::host::wall_clock;
use crate::{
    agent::garbage::GcLimits,
    types::Date,
    util::{disk, unblock::unblock},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How exact the dates of uses are that survive a restart: coarser than this no order matters, and
/// finer ones would wear an SD card.
const DATE_STEP: Duration = Duration::from_secs(24 * 3_600);

/// How many images' uses are remembered: more than a node holds at a time. Those of long gone images
/// are the oldest.
const USED_MAX: usize = 1_000;

/// How much of the notes is read: those uses, and 10,000 images of services, at 90 bytes each.
const NOTES_MAX: u64 = 1 << 20;

/// What is remembered across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Notes {
    /// When images were last used, by digest.
    pub(super) used: BTreeMap<String, Date>,
    /// Which of them services refer to, as far as a manager said.
    pub(super) kept: Option<BTreeSet<String>>,
}

/// The image collector of one node.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) limits: Option<GcLimits>,
    path: PathBuf,
    notes: Mutex<Notes>,
    /// Where unpacked layers are, once containerd has said so.
    pub(super) root: Mutex<Option<PathBuf>>,
    /// Held by the one collection under way.
    pub(super) running: smol::lock::Mutex<()>,
}

impl Collector {
    pub(super) fn new(data_dir: &Path, limits: Option<GcLimits>) -> Self {
        let path = data_dir.join("image-use.json");
        let notes = read(&path).unwrap_or_else(|error| {
            // Dates of uses only order what goes first; what services refer to is told again.
            tracing::warn!(%error, path = %path.display(), "cannot read when images were used");
            Notes::default()
        });
        let (notes, root) = (Mutex::new(notes), Mutex::new(None));
        Self { limits, path, notes, root, running: smol::lock::Mutex::new(()) }
    }

    /// An image was used just now.
    pub(super) async fn used(&self, target: &str) {
        let now = wall_clock();
        let worth_writing = {
            let mut notes = self.lock();
            let before = notes.used.insert(target.to_owned(), now);
            while notes.used.len() > USED_MAX {
                let oldest = notes.used.iter().min_by_key(|(_, used)| **used);
                let (oldest, _) = oldest.expect("there are more than none");
                let oldest = oldest.clone();
                notes.used.remove(&oldest);
            }
            before.is_none_or(|before| now.since(before) >= DATE_STEP)
        };
        if worth_writing {
            self.save().await;
        }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn save(&self) {
        let (notes, path) = (self.lock().clone(), self.path.clone());
        let written = unblock(move || write(&path, &notes)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "cannot note when images were used");
        }
    }
}

fn read(path: &Path) -> io::Result<Notes> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Notes::default()),
        Ok(file) if file.len() > NOTES_MAX => return Err(io::ErrorKind::FileTooLarge.into()),
        _ => {}
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write(path: &Path, notes: &Notes) -> io::Result<()> {
    disk::replace(path, &serde_json::to_vec(notes)?, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_and_a_damaged_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::new(dir.path(), None);
        smol::block_on(collector.used("sha256:1"));
        collector.lock().kept = Some(["sha256:2".to_owned()].into());
        smol::block_on(collector.save());
        let notes = collector.lock().clone();
        assert_eq!(*Collector::new(dir.path(), None).lock(), notes);
        fs::write(dir.path().join("image-use.json"), "{").unwrap();
        assert_eq!(*Collector::new(dir.path(), None).lock(), Notes::default());
    }

    #[test]
    fn the_uses_of_long_gone_images_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::new(dir.path(), None);
        let name = |number: usize| format!("sha256:{number:04}");
        for number in 0..USED_MAX {
            let long_ago = Date::from_unix_seconds(u64::try_from(USED_MAX - number).unwrap());
            collector.lock().used.insert(name(number), long_ago);
        }
        smol::block_on(collector.used("sha256:new"));
        let used = &collector.lock().used;
        assert_eq!(used.len(), USED_MAX);
        assert!(used.contains_key("sha256:new") && used.contains_key(&name(0)));
        assert!(!used.contains_key(&name(USED_MAX - 1)), "the oldest use");
    }

    #[test]
    fn a_use_is_written_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::new(dir.path(), None);
        smol::block_on(collector.used("sha256:1"));
        fs::remove_file(dir.path().join("image-use.json")).unwrap();
        smol::block_on(collector.used("sha256:1"));
        assert!(!dir.path().join("image-use.json").exists(), "used a moment ago");
        let long_ago = Date::from_unix_seconds(1);
        collector.lock().used.insert("sha256:1".to_owned(), long_ago);
        smol::block_on(collector.used("sha256:1"));
        assert!(dir.path().join("image-use.json").exists());
    }
}
