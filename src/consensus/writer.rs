//! Writes to the log's disk: one after another, beside everything else.
//!
//! The engine hands entries over and goes on: a leader sends them to the others while its own disk
//! writes them, and counts itself only once they are written. Until then they are read from here, and
//! the newest also after it: each is read once more when it is applied, a moment later.
//! What comes while the disk is busy goes into the next commit together.

use super::{Notice, runtime::Runtime, storage::LogStore, types::Types};
use crate::util::{answer::answered, disk::may_pass};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::FutureExt as _;
use openraft::storage::IOFlushed;
use std::{
    collections::BTreeMap,
    fmt, io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The wait before a disk without room, or one that may only be read, is tried again: that is mended
/// by a person or a log rotation, and an attempt costs next to nothing.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// How many bytes of entries wait for the disk before whoever hands over more waits as well: as much
/// as the largest entry.
const WAITING_MAX: usize = super::storage::ENTRY_MAX;

/// How many bytes of entries go into one commit, give or take one handing over.
const COMMIT_BYTES: usize = 1 << 20;

/// How many bytes of entries are kept in memory once they are on disk: what is committed while those
/// before it are applied, and what a member lacks that is a round trip behind.
const KEPT_BYTES: usize = 128 << 10;

/// How long a write takes before the engine's clock is stopped: nothing that heals by itself takes as
/// long, and the clock's ticks of that time are a small part of what the engine can keep.
const CLOCK_LIMIT: Duration = Duration::from_secs(120);

/// A change that may be tried several times.
type Work = Arc<dyn Fn(&dyn LogStore) -> io::Result<()> + Send + Sync>;

enum Job<R: Runtime> {
    Append(Vec<(u64, Bytes)>, IOFlushed<Types<R>>),
    Other(Work, Sender<io::Result<()>>),
}

/// The end of the log, without gaps: all that is not known to be on disk, and the newest of the rest.
#[derive(Default)]
struct Entries {
    by_index: BTreeMap<u64, Bytes>,
    /// How many bytes of them are not known to be on disk.
    waiting: usize,
    /// How many bytes of them are.
    kept: usize,
}

impl Entries {
    /// Takes note that all up to `last`, which are `len` bytes, are on disk.
    fn written(&mut self, last: u64, len: usize) {
        self.waiting -= len;
        self.kept += len;
        while self.kept > KEPT_BYTES {
            let Some(oldest) = self.by_index.first_entry().filter(|it| *it.key() <= last) else {
                break;
            };
            self.kept -= oldest.remove().len();
        }
    }

    /// Forgets those that the log no longer has. All of them are on disk.
    fn forget(&mut self, gone: impl RangeBounds<u64>) {
        self.by_index.retain(|index, bytes| {
            let stays = !gone.contains(index);
            if !stays {
                self.kept -= bytes.len();
            }
            stays
        });
    }
}

type Newest = Arc<Mutex<Entries>>;

fn len(entries: &[(u64, Bytes)]) -> usize {
    entries.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// What was in memory when it was looked at.
pub(super) struct Tail {
    /// The first entry that was, or beyond any: all before it are on disk.
    pub(super) first: u64,
    /// Those of the range that was asked for, in order.
    pub(super) entries: Vec<Bytes>,
}

/// What is heard of the one who writes.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// Closed when nothing is written any more.
    pub(super) ended: Receiver<()>,
    /// Whether the engine may have to wait for the disk for as long as that takes. A task of its
    /// own has to listen: whatever else waits for the engine may wait with it.
    pub(super) hangs: Receiver<bool>,
}

/// The way to the one who writes.
pub(super) struct Writer<R: Runtime> {
    jobs: Sender<Job<R>>,
    newest: Newest,
}

impl<R: Runtime> Clone for Writer<R> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), newest: Arc::clone(&self.newest) }
    }
}

impl<R: Runtime> fmt::Debug for Writer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn lock(newest: &Newest) -> MutexGuard<'_, Entries> {
    newest.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended<E>(_: E) -> io::Error {
    io::Error::other("nothing is written to the log any more")
}

fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl<R: Runtime> Writer<R> {
    /// Begins to write, until nobody has anything to write or the driver has ended.
    pub(super) fn start(store: Arc<dyn LogStore>, driver: Sender<Notice>) -> (Self, Heard) {
        let (jobs, queue) = async_channel::unbounded();
        let (alive, ended) = async_channel::bounded(1);
        // Two words for each write that hung, minutes apart.
        let (hanging, hangs) = async_channel::unbounded();
        let newest = Newest::default();
        let disk = Disk { store, driver, newest: Arc::clone(&newest), failure: None, hanging };
        drop(R::spawn(async move {
            disk.run(queue).await;
            drop(alive);
        }));
        (Self { jobs, newest }, Heard { ended, hangs })
    }

    /// Hands entries over; they can be read from now on. Waits while too many are waiting already.
    ///
    /// # Errors
    ///
    /// Nothing is written any more.
    pub(super) async fn append(
        &self,
        entries: Vec<(u64, Bytes)>,
        flushed: IOFlushed<Types<R>>,
    ) -> io::Result<()> {
        let many = {
            let mut newest = lock(&self.newest);
            newest.by_index.extend(entries.iter().cloned());
            newest.waiting += len(&entries);
            newest.waiting > WAITING_MAX
        };
        self.jobs.try_send(Job::Append(entries, flushed)).map_err(ended)?;
        if many { self.write(|_| Ok(())).await } else { Ok(()) }
    }

    /// Changes something after everything that was handed over before, and waits until it is on
    /// disk.
    ///
    /// # Errors
    ///
    /// The disk failed, or nothing is written any more.
    pub(super) async fn write(
        &self,
        work: impl Fn(&dyn LogStore) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let (done, outcome) = async_channel::bounded(1);
        self.jobs.try_send(Job::Other(Arc::new(work), done)).map_err(ended)?;
        answered(&self.jobs, &outcome).await.ok_or_else(|| ended(()))?
    }

    /// Forgets entries that the log no longer has, after [`Writer::write`] has discarded them.
    pub(super) fn forget(&self, gone: impl RangeBounds<u64>) {
        lock(&self.newest).forget(gone);
    }

    /// Returns what of `first..end` is in memory: all that may not be on disk yet is.
    pub(super) fn tail(&self, first: u64, end: u64) -> Tail {
        let newest = lock(&self.newest);
        let entries = &newest.by_index;
        Tail {
            entries: entries.range(first..end.max(first)).map(|(_, bytes)| bytes.clone()).collect(),
            first: entries.first_key_value().map_or(u64::MAX, |(index, _)| *index),
        }
    }
}

/// The one who writes.
struct Disk {
    store: Arc<dyn LogStore>,
    /// Closed when the driver has ended: nothing is waited for then.
    driver: Sender<Notice>,
    newest: Newest,
    /// A write failed: one after it would leave a gap.
    failure: Option<io::Error>,
    /// Told of writes beyond [`CLOCK_LIMIT`], and of their ends.
    hanging: Sender<bool>,
}

impl Disk {
    async fn run<R: Runtime>(mut self, queue: Receiver<Job<R>>) {
        let mut next = None;
        loop {
            let job = match next.take() {
                Some(job) => job,
                None => match self.wait(&queue).await {
                    Some(job) => job,
                    None => return,
                },
            };
            match job {
                Job::Append(entries, flushed) => next = self.append(entries, flushed, &queue).await,
                Job::Other(work, done) => {
                    // Whoever asked may be gone.
                    let _gone = done.try_send(self.write::<R>(work).await);
                }
            }
        }
    }

    async fn wait<R: Runtime>(&self, queue: &Receiver<Job<R>>) -> Option<Job<R>> {
        let ended = async {
            self.driver.closed().await;
            None
        };
        ended.or(async { queue.recv().await.ok() }).await
    }

    /// Writes entries, with those handed over meanwhile; returns what is to be done next where that
    /// is something else.
    async fn append<R: Runtime>(
        &mut self,
        mut entries: Vec<(u64, Bytes)>,
        flushed: IOFlushed<Types<R>>,
        queue: &Receiver<Job<R>>,
    ) -> Option<Job<R>> {
        let mut waiting = vec![flushed];
        let mut next = None;
        let mut written = len(&entries);
        while written < COMMIT_BYTES {
            match queue.try_recv() {
                Ok(Job::Append(more, flushed)) => {
                    written += len(&more);
                    entries.extend(more);
                    waiting.push(flushed);
                }
                other => {
                    next = other.ok();
                    break;
                }
            }
        }
        let last = entries.last().map(|(index, _)| *index);
        // One commit for all of them, and on disk before anybody hears of it.
        let result = self.write::<R>(Arc::new(move |store| store.append(&entries))).await;
        if let (Some(last), Ok(())) = (last, &result) {
            lock(&self.newest).written(last, written);
        }
        for flushed in waiting {
            flushed.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(again(error)),
            });
        }
        next
    }

    /// Writes, and tells of a write that takes very long.
    async fn write<R: Runtime>(&mut self, work: Work) -> io::Result<()> {
        let (hanging, mut told) = (self.hanging.clone(), false);
        let long = async {
            R::sleep(CLOCK_LIMIT).await;
            told = hanging.try_send(true).is_ok();
            std::future::pending().await
        };
        let result = self.attempt::<R>(work).or(long).await;
        if told {
            // Nobody listens where the engine has ended.
            let _gone = hanging.try_send(false);
        }
        result
    }

    /// Writes where it holds up nobody, and again while the disk has no room or may only be read,
    /// for as long as there is a driver: the engine takes any failure for the end, and that is none. What is not
    /// written meanwhile is not acknowledged either.
    async fn attempt<R: Runtime>(&mut self, work: Work) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(again(failure));
        }
        loop {
            let (attempt, store) = (Arc::clone(&work), Arc::clone(&self.store));
            let passing = match R::offload(move || attempt(store.as_ref())).await {
                Err(error) if may_pass(error.kind()) => error,
                Err(error) => {
                    self.failure = Some(again(&error));
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            };
            let waited = async {
                R::sleep(ROOM_RETRY).await;
                false
            };
            let ended = async {
                self.driver.closed().await;
                true
            };
            if ended.or(waited).await {
                return Err(passing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_are_kept_and_no_more_than_the_limit() {
        const LEN: usize = 48 << 10;
        let entry = |index| (index, Bytes::from(vec![0; LEN]));
        let mut newest = Entries::default();
        newest.by_index.extend((1..=5).map(entry));
        newest.waiting = 5 * LEN;
        newest.written(2, 2 * LEN);
        assert_eq!(newest.by_index.len(), 5, "the limit is not reached");
        newest.written(4, 2 * LEN);
        assert!(newest.by_index.keys().eq(&[3, 4, 5]), "{:?}", newest.by_index.keys());
        assert_eq!((newest.kept, newest.waiting), (2 * LEN, LEN));
        newest.written(5, LEN);
        newest.forget(5..);
        newest.forget(..=3);
        assert!(newest.by_index.keys().eq(&[4]) && newest.kept == LEN);
    }

    #[test]
    fn what_is_not_on_disk_is_never_let_go() {
        let mut newest = Entries::default();
        newest.by_index.extend((1..=3).map(|index| (index, Bytes::from(vec![0; KEPT_BYTES + 1]))));
        newest.waiting = 3 * (KEPT_BYTES + 1);
        newest.written(1, KEPT_BYTES + 1);
        assert!(newest.by_index.keys().eq(&[2, 3]));
    }
}
