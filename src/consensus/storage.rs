//! What the engine keeps on disk, as bytes: what they mean is the engine's affair, and how they
//! are kept is the store's.

use super::{
    runtime::Runtime,
    types::{Entry, LogId, Types, Vote},
};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, io, marker::PhantomData, ops::RangeBounds, sync::Arc};

/// The largest log entry that is written or read: a batch of commands is cut well below it.
pub const ENTRY_MAX: usize = 4 << 20;

/// The most entries that are read at once; the engine asks again for the rest.
const READ_MAX: u64 = 256;

/// The log's place on disk. Every call is on disk when it returns, and may block.
pub trait LogStore: Send + Sync + Debug + 'static {
    /// Returns the newest entry, and the place up to which older ones were discarded.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn log_state(&self) -> io::Result<Extent>;

    /// Returns entries from `first` on, up to and without `end`, in order, without gaps.
    ///
    /// # Errors
    ///
    /// The disk failed, or what it holds was tampered with.
    fn read(&self, first: u64, end: u64) -> io::Result<Vec<Vec<u8>>>;

    /// Adds entries after the newest; all or none.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn append(&self, entries: Vec<(u64, Vec<u8>)>) -> io::Result<()>;

    /// Discards entries from `first` on.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn truncate(&self, first: u64) -> io::Result<()>;

    /// Discards entries up to and with `last`, and remembers `mark` for it.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn purge(&self, last: u64, mark: Vec<u8>) -> io::Result<()>;

    /// Replaces the vote.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn save_vote(&self, vote: Vec<u8>) -> io::Result<()>;

    /// Returns the vote.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn vote(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the snapshot: what describes it, and the state it holds.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn save_snapshot(&self, meta: Vec<u8>, data: Vec<u8>) -> io::Result<()>;

    /// Returns the snapshot.
    ///
    /// # Errors
    ///
    /// The disk failed, or what it holds was tampered with.
    fn snapshot(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>>;
}

/// Which entries there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extent {
    /// The newest entry.
    pub last: Option<Vec<u8>>,
    /// The mark of the last discarded one.
    pub purged: Option<Vec<u8>>,
}

pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    if bytes.len() > ENTRY_MAX + 1024 {
        return Err(io::Error::other("a log record is larger than any that is written"));
    }
    postcard::from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("log record: {error}")))
}

/// The engine's view of a [`LogStore`].
#[derive(Debug)]
pub(super) struct Storage<R> {
    pub(super) store: Arc<dyn LogStore>,
    pub(super) runtime: PhantomData<R>,
}

impl<R> Clone for Storage<R> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), runtime: PhantomData }
    }
}

impl<R: Runtime> Storage<R> {
    /// Runs one blocking call where it holds up nobody.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn LogStore) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = Arc::clone(&self.store);
        R::offload(move || work(store.as_ref())).await
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for Storage<R> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> Result<Vec<Entry<R>>, io::Error> {
        use std::ops::Bound;
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let entries = self.call(move |store| store.read(first, end)).await?;
        entries.iter().map(|bytes| decode(bytes)).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<R>>, io::Error> {
        let vote = self.call(|store| store.vote()).await?;
        vote.map(|bytes| decode(&bytes)).transpose()
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<R>>, io::Error> {
        self.try_get_log_entries(start..end.min(start.saturating_add(READ_MAX))).await
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for Storage<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<R>>, io::Error> {
        use openraft::entry::RaftEntry as _;
        let extent = self.call(|store| store.log_state()).await?;
        let purged: Option<LogId<R>> = extent.purged.map(|bytes| decode(&bytes)).transpose()?;
        let last: Option<Entry<R>> = extent.last.map(|bytes| decode(&bytes)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id()).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<R>) -> Result<(), io::Error> {
        let bytes = encode(vote)?;
        self.call(move |store| store.save_vote(bytes)).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<Types<R>>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry<R>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        use openraft::entry::RaftEntry as _;
        let mut encoded = Vec::new();
        for entry in entries {
            encoded.push((entry.log_id().index, encode(&entry)?));
        }
        let result = self.call(move |store| store.append(encoded)).await;
        let outcome = result.as_ref().copied().map_err(|e| io::Error::other(e.to_string()));
        callback.io_completed(outcome);
        result
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId<R>>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |id| id.index + 1);
        self.call(move |store| store.truncate(first)).await
    }

    async fn purge(&mut self, log_id: LogId<R>) -> Result<(), io::Error> {
        let mark = encode(&log_id)?;
        self.call(move |store| store.purge(log_id.index, mark)).await
    }
}
