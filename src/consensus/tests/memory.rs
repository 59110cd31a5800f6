//! A log in memory, as a disk that never fails.

use crate::consensus::{Extent, LogStore};
use bytes::Bytes;
use std::{collections::BTreeMap, io, sync::Mutex};

#[derive(Debug, Default)]
struct Image {
    entries: BTreeMap<u64, Vec<u8>>,
    purged: Option<Vec<u8>>,
    vote: Option<Vec<u8>>,
    snapshot: Option<(Vec<u8>, Vec<u8>)>,
    writes: u64,
    reads: u64,
    broken: bool,
    full: bool,
}

/// What survives a crash of its node.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Image>);

impl Memory {
    pub(super) fn writes(&self) -> u64 {
        self.0.lock().unwrap().writes
    }

    /// Returns how often entries were read.
    pub(super) fn reads(&self) -> u64 {
        self.0.lock().unwrap().reads
    }

    pub(super) fn entries(&self) -> usize {
        self.0.lock().unwrap().entries.len()
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.0.lock().unwrap().snapshot.is_some()
    }

    pub(super) fn break_writes(&self) {
        self.0.lock().unwrap().broken = true;
    }

    /// Leaves no room for anything, or some again.
    pub(super) fn fill(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    fn write(&self, work: impl FnOnce(&mut Image)) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        if image.broken {
            return Err(io::Error::other("the disk fails"));
        }
        if image.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        image.writes += 1;
        work(&mut image);
        Ok(())
    }
}

impl LogStore for Memory {
    fn log_state(&self) -> io::Result<Extent> {
        let image = self.0.lock().unwrap();
        let last = image.entries.last_key_value().map(|(_, bytes)| bytes.clone());
        Ok(Extent { last, purged: image.purged.clone() })
    }

    fn read(&self, first: u64, end: u64) -> io::Result<Vec<Vec<u8>>> {
        let mut image = self.0.lock().unwrap();
        image.reads += 1;
        Ok(image.entries.range(first..end.max(first)).map(|(_, bytes)| bytes.clone()).collect())
    }

    fn append(&self, entries: &[(u64, Bytes)]) -> io::Result<()> {
        let entries = entries.iter().map(|(index, bytes)| (*index, bytes.to_vec()));
        self.write(|image| image.entries.extend(entries))
    }

    fn truncate(&self, first: u64) -> io::Result<()> {
        self.write(|image| drop(image.entries.split_off(&first)))
    }

    fn purge(&self, last: u64, mark: Vec<u8>) -> io::Result<()> {
        self.write(|image| {
            image.entries = image.entries.split_off(&(last + 1));
            image.purged = Some(mark);
        })
    }

    fn save_vote(&self, vote: Vec<u8>) -> io::Result<()> {
        self.write(|image| image.vote = Some(vote))
    }

    fn vote(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().vote.clone())
    }

    fn save_snapshot(&self, meta: Vec<u8>, data: Vec<u8>) -> io::Result<()> {
        self.write(|image| image.snapshot = Some((meta, data)))
    }

    fn snapshot(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        Ok(self.0.lock().unwrap().snapshot.clone())
    }
}
