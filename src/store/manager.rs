//! The manager's file: the log, the vote, the snapshot.

use super::{
    file::{OpenError, StoreFile, disk, existing},
    seal::{Place, Sealer},
};
use crate::consensus::{Extent, LogStore, SNAPSHOT_MAX};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::{io, path::Path, time::Duration};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const CHUNKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";

/// A snapshot is kept in pieces of this size: redb finds room for a value in one run of pages, and
/// a run of many megabytes makes the file grow and stay large.
const CHUNK_BYTES: usize = 256 << 10;

/// How many bytes of entries one read gives, give or take one: the engine asks again for the rest.
const READ_BYTES: usize = 8 << 20;

/// What is known of a snapshot beside its pieces.
#[derive(Debug, Serialize, Deserialize)]
struct SnapshotRecord {
    /// What the engine wants to know of it.
    meta: Vec<u8>,
    /// Counts the snapshots of this file; bound into every piece, so that no piece of an older
    /// one passes for one of this.
    generation: u64,
    /// The length of the whole.
    len: u64,
}

/// The manager's file.
#[derive(Debug)]
pub struct ManagerStore {
    file: StoreFile,
    sealer: Sealer,
}

impl ManagerStore {
    /// Opens, or makes, the file at `path`.
    ///
    /// # Errors
    ///
    /// Another daemon has it, a newer midge wrote it, or it cannot be read.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, OpenError> {
        Ok(Self { file: StoreFile::open(path)?, sealer })
    }

    /// Opens, or makes, the file on a disk that is not the file system's. A clone of `backend` is
    /// opened now, and another after each failure.
    ///
    /// # Errors
    ///
    /// As [`ManagerStore::open`].
    #[cfg(test)]
    pub(crate) fn open_on(
        backend: impl redb::StorageBackend + Clone,
        sealer: Sealer,
    ) -> Result<Self, OpenError> {
        Ok(Self { file: StoreFile::open_on(backend)?, sealer })
    }

    /// Returns how long the commit under way has taken already, where there is one.
    #[must_use]
    pub fn commit_under_way(&self) -> Option<Duration> {
        self.file.commit_under_way()
    }

    /// Returns why nothing can be committed, where nothing can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.file.failure()
    }

    fn save_state(&self, key: &str, value: &[u8]) -> io::Result<()> {
        self.file.write(|write| {
            write.open_table(STATE).map_err(disk)?.insert(key, value).map_err(disk)?;
            Ok(())
        })
    }

    fn snapshot_record(&self, read: &ReadTransaction) -> io::Result<Option<SnapshotRecord>> {
        let Some(sealed) = state(read, SNAPSHOT)? else { return Ok(None) };
        let bytes = self.sealer.open(&Place::Snapshot, &sealed)?;
        let record = postcard::from_bytes(&bytes);
        record.map(Some).map_err(|error| damaged(&format!("the snapshot's record: {error}")))
    }
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn state(read: &ReadTransaction, key: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(table) = existing(read.open_table(STATE))? else { return Ok(None) };
    Ok(table.get(key).map_err(disk)?.map(|value| value.value().to_vec()))
}

impl LogStore for ManagerStore {
    fn log_state(&self) -> io::Result<Extent> {
        self.file.read(|read| {
            let purged = state(read, PURGED)?;
            let Some(table) = existing(read.open_table(LOG))? else {
                return Ok(Extent { last: None, purged });
            };
            let last = match table.last().map_err(disk)? {
                Some((index, sealed)) => {
                    Some(self.sealer.open(&Place::Entry(index.value()), sealed.value())?)
                }
                None => None,
            };
            Ok(Extent { last, purged })
        })
    }

    fn read(&self, first: u64, end: u64) -> io::Result<Vec<Vec<u8>>> {
        self.file.read(|read| {
            let mut entries = Vec::new();
            let Some(table) = existing(read.open_table(LOG))? else { return Ok(entries) };
            let mut bytes = 0;
            for row in table.range(first..end.max(first)).map_err(disk)? {
                let (index, sealed) = row.map_err(disk)?;
                let entry = self.sealer.open(&Place::Entry(index.value()), sealed.value())?;
                bytes += entry.len();
                entries.push(entry);
                if bytes >= READ_BYTES {
                    break;
                }
            }
            Ok(entries)
        })
    }

    fn append(&self, entries: &[(u64, Bytes)]) -> io::Result<()> {
        self.file.write(|write| {
            let mut table = write.open_table(LOG).map_err(disk)?;
            for (index, entry) in entries {
                let sealed = self.sealer.seal(&Place::Entry(*index), entry);
                table.insert(index, sealed.as_slice()).map_err(disk)?;
            }
            Ok(())
        })
    }

    fn truncate(&self, first: u64) -> io::Result<()> {
        self.file.write(|write| {
            let mut table = write.open_table(LOG).map_err(disk)?;
            table.retain_in(first.., |_, _| false).map_err(disk)
        })
    }

    fn purge(&self, last: u64, mark: Vec<u8>) -> io::Result<()> {
        self.file.write(|write| {
            let mut state = write.open_table(STATE).map_err(disk)?;
            state.insert(PURGED, mark.as_slice()).map_err(disk)?;
            let mut table = write.open_table(LOG).map_err(disk)?;
            table.retain_in(..=last, |_, _| false).map_err(disk)
        })
    }

    fn save_vote(&self, vote: Vec<u8>) -> io::Result<()> {
        self.save_state(VOTE, &vote)
    }

    fn vote(&self) -> io::Result<Option<Vec<u8>>> {
        self.file.read(|read| state(read, VOTE))
    }

    fn save_snapshot(&self, meta: Vec<u8>, data: Vec<u8>) -> io::Result<()> {
        if data.len() > SNAPSHOT_MAX {
            let text =
                format!("the state has {} bytes: a snapshot holds {SNAPSHOT_MAX}", data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let before = self.file.read(|read| self.snapshot_record(read))?;
        let generation = before.map_or(1, |before| before.generation + 1);
        let len = u64::try_from(data.len()).map_err(io::Error::other)?;
        let record = SnapshotRecord { meta, generation, len };
        let record = postcard::to_stdvec(&record).map_err(io::Error::other)?;
        self.file.write(|write| {
            let mut table = write.open_table(CHUNKS).map_err(disk)?;
            table.retain(|_, _| false).map_err(disk)?;
            for (number, chunk) in (0_u64..).zip(data.chunks(CHUNK_BYTES)) {
                let sealed = self.sealer.seal(&Place::Chunk { generation, number }, chunk);
                table.insert(number, sealed.as_slice()).map_err(disk)?;
            }
            let sealed = self.sealer.seal(&Place::Snapshot, &record);
            let mut state = write.open_table(STATE).map_err(disk)?;
            state.insert(SNAPSHOT, sealed.as_slice()).map_err(disk)?;
            Ok(())
        })
    }

    fn snapshot(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.file.read(|read| {
            let Some(record) = self.snapshot_record(read)? else { return Ok(None) };
            if usize::try_from(record.len).map_or(true, |len| len > SNAPSHOT_MAX) {
                return Err(damaged("the snapshot is larger than any that is written"));
            }
            let mut data = Vec::new();
            if let Some(table) = existing(read.open_table(CHUNKS))? {
                for row in table.iter().map_err(disk)? {
                    let (number, sealed) = row.map_err(disk)?;
                    let place =
                        Place::Chunk { generation: record.generation, number: number.value() };
                    data.extend(self.sealer.open(&place, sealed.value())?);
                }
            }
            if u64::try_from(data.len()).ok() != Some(record.len) {
                return Err(damaged("a piece of the snapshot is missing"));
            }
            Ok(Some((record.meta, data)))
        })
    }
}
