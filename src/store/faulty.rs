//! A disk in memory that fails as disks do: what was written but not synced may be lost or torn,
//! writes may fail, and it may be full.

use redb::StorageBackend;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// The size of what a disk writes as a whole: a torn write ends at such a boundary.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Image {
    /// What reads see.
    live: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Writes since the last sync, in order: offset and bytes.
    pending: Vec<(usize, Vec<u8>)>,
    /// Fails every write and sync while set.
    broken: bool,
    /// Breaks after so many more writes and syncs.
    breaks_after: Option<u64>,
    /// Refuses to grow beyond this.
    capacity: Option<usize>,
    writes: u64,
    /// Raised by each crash: handles of before are dead.
    generation: u64,
}

/// A disk. Clones are the same disk; [`FaultyDisk::backend`] opens it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<Image>>);

/// An open file on the disk.
#[derive(Debug)]
pub(crate) struct Backend {
    disk: FaultyDisk,
    generation: u64,
}

impl FaultyDisk {
    fn with<T>(&self, work: impl FnOnce(&mut Image) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the disk. Handles opened before the last crash see errors only.
    pub(crate) fn backend(&self) -> Backend {
        Backend { disk: self.clone(), generation: self.with(|image| image.generation) }
    }

    /// Cuts the power: of what was not synced, `random` decides for each write whether it is
    /// there, lost or torn.
    pub(crate) fn crash(&self, mut random: impl FnMut() -> u64) {
        self.with(|image| {
            let mut durable = std::mem::take(&mut image.durable);
            for (offset, bytes) in std::mem::take(&mut image.pending) {
                let kept = match random() % 3 {
                    0 => bytes.len(),
                    1 => 0,
                    _ => {
                        let sectors = bytes.len().div_ceil(SECTOR);
                        let kept = usize::try_from(random()).unwrap_or(0) % sectors.max(1);
                        (kept * SECTOR).min(bytes.len())
                    }
                };
                if durable.len() < offset + kept {
                    durable.resize(offset + kept, 0);
                }
                durable[offset..offset + kept].copy_from_slice(&bytes[..kept]);
            }
            image.live.clone_from(&durable);
            image.durable = durable;
            image.generation += 1;
            image.broken = false;
            image.breaks_after = None;
        });
    }

    /// Makes every write fail, or no more.
    pub(crate) fn break_writes(&self, broken: bool) {
        self.with(|image| image.broken = broken);
    }

    /// Breaks in the midst of what comes: after so many more writes and syncs.
    pub(crate) fn break_after(&self, steps: u64) {
        self.with(|image| image.breaks_after = Some(steps));
    }

    /// Changes one byte, as a failing disk or somebody with a hex editor does.
    pub(crate) fn tamper(&self, at: u64, mask: u8) {
        self.with(|image| {
            let length = image.durable.len() as u64;
            let at = usize::try_from(at % length.max(1)).unwrap_or(0);
            for bytes in [&mut image.durable, &mut image.live] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
        });
    }

    /// Leaves so much more room than is used now, or no bound.
    pub(crate) fn limit_room(&self, room: Option<usize>) {
        self.with(|image| image.capacity = room.map(|room| image.live.len() + room));
    }

    /// Returns how many writes reached the disk.
    pub(crate) fn writes(&self) -> u64 {
        self.with(|image| image.writes)
    }
}

impl Image {
    /// Counts one write or sync, and fails it where it should.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.breaks_after {
            Some(0) => self.broken = true,
            Some(steps) => *steps -= 1,
            None => {}
        }
        if self.broken { Err(io::Error::other("the disk fails")) } else { Ok(()) }
    }
}

impl Backend {
    fn with<T>(&self, work: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        self.disk.with(|image| {
            if image.generation != self.generation {
                return Err(io::Error::other("the power was cut"));
            }
            work(image)
        })
    }
}

fn range(offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    Ok(start..start + length)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|image| Ok(image.live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = range(offset, out.len())?;
        self.with(|image| {
            let bytes = image.live.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|image| {
            image.step()?;
            if image.capacity.is_some_and(|capacity| len > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            image.live.resize(len, 0);
            // A length is metadata, journalled by the file system on its own.
            image.durable.resize(len, 0);
            image.pending.retain(|(offset, bytes)| offset + bytes.len() <= len);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|image| {
            image.step()?;
            // What is pending is all that differs: copying the whole file is slow.
            for (offset, bytes) in std::mem::take(&mut image.pending) {
                image.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = range(offset, data.len())?;
        self.with(|image| {
            image.step()?;
            image.writes += 1;
            let start = range.start;
            image.live.get_mut(range).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            image.pending.push((start, data.to_vec()));
            Ok(())
        })
    }
}
