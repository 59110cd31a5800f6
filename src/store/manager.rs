//! The manager's file: the log, the vote and the snapshot.

use super::{
    file::{self, OpenError, disk},
    seal::{Place, Sealer},
};
use crate::consensus::{Extent, LogStore};
use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use std::{
    io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot-meta";
const SNAPSHOT_DATA: &str = "snapshot-data";

/// The most entries that one read gives: the engine asks again for the rest.
const READ_MAX: usize = 4_096;

/// The manager's file.
#[derive(Debug)]
pub struct ManagerStore {
    database: Database,
    sealer: Sealer,
    /// Why the last commit failed, until one succeeds.
    failure: Mutex<Option<String>>,
    /// How long the last commit took, in microseconds.
    last_commit: AtomicU64,
}

impl ManagerStore {
    /// Opens, or makes, the file at `path`.
    ///
    /// # Errors
    ///
    /// Another daemon has it, a newer midge wrote it, or it cannot be read.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, OpenError> {
        Ok(Self::new(file::open(path)?, sealer))
    }

    /// Opens, or makes, the file on a disk that is not the file system's.
    ///
    /// # Errors
    ///
    /// As [`ManagerStore::open`].
    pub fn open_on(backend: impl StorageBackend, sealer: Sealer) -> Result<Self, OpenError> {
        Ok(Self::new(file::open_on(backend)?, sealer))
    }

    fn new(database: Database, sealer: Sealer) -> Self {
        Self { database, sealer, failure: Mutex::new(None), last_commit: AtomicU64::new(0) }
    }

    /// Returns how long the last commit took.
    #[must_use]
    pub fn last_commit(&self) -> Duration {
        Duration::from_micros(self.last_commit.load(Ordering::Relaxed))
    }

    /// Returns why nothing can be committed, where nothing can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, work: impl FnOnce(&WriteTransaction) -> io::Result<()>) -> io::Result<()> {
        let start = Instant::now();
        let write = || -> io::Result<()> {
            let write = self.database.begin_write().map_err(disk)?;
            work(&write)?;
            write.commit().map_err(disk)
        };
        let result = write();
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_commit.store(took, Ordering::Relaxed);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) =
            result.as_ref().err().map(ToString::to_string);
        result
    }

    fn state(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let read = self.database.begin_read().map_err(disk)?;
        let table = match read.open_table(STATE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(disk(error)),
        };
        Ok(table.get(key).map_err(disk)?.map(|value| value.value().to_vec()))
    }
}

impl LogStore for ManagerStore {
    fn log_state(&self) -> io::Result<Extent> {
        let purged = self.state(PURGED)?;
        let read = self.database.begin_read().map_err(disk)?;
        let table = match read.open_table(LOG) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => {
                return Ok(Extent { last: None, purged });
            }
            Err(error) => return Err(disk(error)),
        };
        let last = match table.last().map_err(disk)? {
            Some((index, sealed)) => {
                Some(self.sealer.open(&Place::Entry(index.value()), sealed.value())?)
            }
            None => None,
        };
        Ok(Extent { last, purged })
    }

    fn read(&self, first: u64, end: u64) -> io::Result<Vec<Vec<u8>>> {
        let read = self.database.begin_read().map_err(disk)?;
        let table = match read.open_table(LOG) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(disk(error)),
        };
        let mut entries = Vec::new();
        for row in table.range(first..end).map_err(disk)?.take(READ_MAX) {
            let (index, sealed) = row.map_err(disk)?;
            entries.push(self.sealer.open(&Place::Entry(index.value()), sealed.value())?);
        }
        Ok(entries)
    }

    fn append(&self, entries: Vec<(u64, Vec<u8>)>) -> io::Result<()> {
        self.write(|write| {
            let mut table = write.open_table(LOG).map_err(disk)?;
            for (index, entry) in &entries {
                let sealed = self.sealer.seal(&Place::Entry(*index), entry);
                table.insert(index, sealed.as_slice()).map_err(disk)?;
            }
            Ok(())
        })
    }

    fn truncate(&self, first: u64) -> io::Result<()> {
        self.write(|write| {
            let mut table = write.open_table(LOG).map_err(disk)?;
            table.retain_in(first.., |_, _| false).map_err(disk)
        })
    }

    fn purge(&self, last: u64, mark: Vec<u8>) -> io::Result<()> {
        self.write(|write| {
            let mut state = write.open_table(STATE).map_err(disk)?;
            state.insert(PURGED, mark.as_slice()).map_err(disk)?;
            let mut table = write.open_table(LOG).map_err(disk)?;
            table.retain_in(..=last, |_, _| false).map_err(disk)
        })
    }

    fn save_vote(&self, vote: Vec<u8>) -> io::Result<()> {
        self.write(|write| {
            let mut state = write.open_table(STATE).map_err(disk)?;
            state.insert(VOTE, vote.as_slice()).map_err(disk)?;
            Ok(())
        })
    }

    fn vote(&self) -> io::Result<Option<Vec<u8>>> {
        self.state(VOTE)
    }

    fn save_snapshot(&self, meta: Vec<u8>, data: Vec<u8>) -> io::Result<()> {
        let sealed = self.sealer.seal(&Place::Snapshot, &data);
        self.write(|write| {
            let mut state = write.open_table(STATE).map_err(disk)?;
            state.insert(SNAPSHOT_META, meta.as_slice()).map_err(disk)?;
            state.insert(SNAPSHOT_DATA, sealed.as_slice()).map_err(disk)?;
            Ok(())
        })
    }

    fn snapshot(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (self.state(SNAPSHOT_META)?, self.state(SNAPSHOT_DATA)?) {
            (Some(meta), Some(sealed)) => {
                Ok(Some((meta, self.sealer.open(&Place::Snapshot, &sealed)?)))
            }
            _ => Ok(None),
        }
    }
}
