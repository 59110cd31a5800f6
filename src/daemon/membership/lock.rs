//! The key that seals this manager's log, and whether a person must open it.
//!
//! While the cluster has an unlock key, the seal key lies on disk sealed with that. It is written
//! anew as part of applying the entry that changed the unlock key: who is told that the key was
//! replaced can rely on the new one, on this manager, from then on.

use crate::{
    daemon::machine::host::random_bytes,
    pki::{FileError, SealFile, SealKey},
    types::{UnlockKey, Version},
    util::error::chain,
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is known of the file while it is open.
struct Held {
    file: SealFile,
    key: SealKey,
    unlock: Option<UnlockKey>,
}

/// The seal key of this node.
pub(crate) struct SealLock {
    path: PathBuf,
    held: Mutex<Option<Held>>,
}

impl std::fmt::Debug for SealLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealLock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SealLock {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("seal.key"), held: Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the seal key, made and written where there is none; none where it is locked.
    pub(crate) fn open(&self) -> Result<Option<SealKey>, FileError> {
        let mut held = self.held();
        let file = if let Some(file) = SealFile::load(&self.path)? {
            file
        } else {
            // Nothing is ever sealed with a key that is not on disk.
            let key = SealKey { id: 1, bytes: random_bytes() };
            let file = SealFile::plain(key, Version::ZERO);
            file.save(&self.path)?;
            file
        };
        if let Some(known) = held.as_ref().filter(|held| held.file == file) {
            return Ok(Some(known.key.clone()));
        }
        let key = file.open(None);
        *held = key.clone().map(|key| Held { file, key, unlock: None });
        Ok(key)
    }

    /// Opens the key with `unlock`; returns whether that is the right one.
    pub(crate) fn unlock(&self, unlock: UnlockKey) -> Result<bool, FileError> {
        let Some(file) = SealFile::load(&self.path)? else { return Ok(false) };
        let Some(key) = file.open(Some(&unlock)) else { return Ok(false) };
        let unlock = file.is_locked().then_some(unlock);
        *self.held() = Some(Held { file, key, unlock });
        Ok(true)
    }

    /// Follows the cluster's unlock key, as of this version of the cluster's row. What is older than
    /// the file is passed over: a log is read again after each start.
    pub(crate) fn follow(&self, as_of: Version, unlock: Option<UnlockKey>) {
        let mut held = self.held();
        let Some(known) = held.as_mut() else { return };
        if known.unlock == unlock || as_of <= known.file.version {
            return;
        }
        let file = match &unlock {
            None => SealFile::plain(known.key.clone(), as_of),
            Some(unlock) => {
                let mut nonce = [0; 12];
                nonce.copy_from_slice(&random_bytes()[..12]);
                SealFile::locked(&known.key, as_of, unlock, nonce)
            }
        };
        if let Err(error) = file.save(&self.path) {
            // The next entry that is applied tries it again.
            let error = chain(&error);
            tracing::error!(error, "this manager's key cannot be kept under the new unlock key");
            return;
        }
        tracing::info!(locked = unlock.is_some(), "this manager's key is kept anew");
        (known.file, known.unlock) = (file, unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Version {
        Version { epoch: 1, index }
    }

    #[test]
    fn a_lock_follows_the_cluster_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let lock = SealLock::new(dir.path());
        let key = lock.open().unwrap().unwrap();
        let (a, b) = (UnlockKey([1; 32]), UnlockKey([2; 32]));
        lock.follow(at(5), Some(a));
        assert_eq!(lock.open().unwrap(), Some(key.clone()), "it stays open in this process");
        lock.follow(at(9), Some(b));
        // The process begins anew, and reads its log again.
        let lock = SealLock::new(dir.path());
        assert_eq!(lock.open().unwrap(), None);
        lock.follow(at(5), Some(a));
        assert!(!lock.unlock(a).unwrap(), "replaced");
        assert!(lock.unlock(b).unwrap());
        for (version, unlock) in [(at(3), None), (at(5), Some(a)), (at(9), Some(b))] {
            lock.follow(version, unlock);
            assert!(SealFile::load(&lock.path).unwrap().unwrap().open(Some(&b)).is_some());
        }
        lock.follow(at(12), None);
        let lock = SealLock::new(dir.path());
        assert_eq!(lock.open().unwrap(), Some(key.clone()));
        lock.follow(at(5), Some(a));
        let file = SealFile::load(&lock.path).unwrap().unwrap();
        assert!(!file.is_locked());
        // Another cluster, another key.
        std::fs::remove_file(&lock.path).unwrap();
        assert_ne!(lock.open().unwrap(), Some(key));
    }
}
