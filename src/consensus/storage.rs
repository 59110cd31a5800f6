//! What the engine keeps on disk, as bytes: what they mean is the engine's affair, and how they
//! are kept is the store's.

use super::{
    Notice,
    runtime::Runtime,
    types::{Entry, LogId, Payload, SnapshotMeta, Types, Vote},
    writer::{Heard, Tail, Writer},
};
use async_channel::Sender;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    entry::RaftEntry as _,
    storage::{IOFlushed, RaftLogStorage},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io,
    marker::PhantomData,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, PoisonError},
};

/// The largest log entry that is written or read: a batch of commands is cut well below it.
pub const ENTRY_MAX: usize = 4 << 20;

/// The largest snapshot that is written, read, or taken from another member: what a board of 512 MB
/// can hold while it also holds the state that the snapshot replaces.
pub const SNAPSHOT_MAX: usize = 128 << 20;

/// How many entries are read from disk in one go.
const READ_ENTRIES: u64 = 64;

/// How many entries are read first for a message to another member: large ones fill it, and more
/// would be read for nothing.
const READ_FIRST: u64 = 8;

/// How many bytes of entries make a full message to another member, give or take one entry: some
/// seconds of the slowest link, so that little is lost with one that is cut off, and of a link of
/// 10 MB/s as much as its round trip takes.
const MESSAGE_BYTES: usize = 128 << 10;

/// The first byte of every record and message: how the rest is encoded.
const ENCODING: u8 = 1;

/// Room for what surrounds an entry's bytes in a record.
const RECORD_MARGIN: usize = 1024;

/// The log's place on disk. Every call is on disk when it returns, and may block.
pub trait LogStore: Send + Sync + Debug + 'static {
    /// Returns the newest entry, and the place up to which older ones were discarded.
    ///
    /// # Errors
    ///
    /// The disk failed.
    fn log_state(&self) -> io::Result<Extent>;

    /// Returns entries from `first` on, up to and without `end`, in order, without gaps. May stop
    /// early, but returns at least one where there is one.
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
    fn append(&self, entries: &[(u64, Bytes)]) -> io::Result<()>;

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
    /// The disk failed, or the state is more than [`SNAPSHOT_MAX`].
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
    postcard::to_extend(value, vec![ENCODING]).map_err(io::Error::other)
}

/// Reads a record of the log.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    decode_up_to(bytes, ENTRY_MAX + RECORD_MARGIN)
}

/// Reads what [`encode`] wrote, unless it is larger than `bytes_max`.
pub(super) fn decode_up_to<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> io::Result<T> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if bytes.len() > bytes_max {
        return Err(damaged(format!("{} bytes are more than any that are written", bytes.len())));
    }
    match bytes.split_first() {
        Some((&ENCODING, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("a log record has bytes to spare".to_owned())),
            Err(error) => Err(damaged(format!("a log record is damaged: {error}"))),
        },
        Some((format, _)) => {
            Err(damaged(format!("a log record is of a newer midge (format {format})")))
        }
        None => Err(damaged("a log record is empty".to_owned())),
    }
}

/// The engine's view of a [`LogStore`].
#[derive(Debug)]
pub(super) struct Storage<R: Runtime> {
    store: Arc<dyn LogStore>,
    /// The index of the newest snapshot on disk: one that is older comes too late.
    newest: Arc<Mutex<u64>>,
    writer: Writer<R>,
    runtime: PhantomData<R>,
}

impl<R: Runtime> Clone for Storage<R> {
    fn clone(&self) -> Self {
        let (store, newest) = (Arc::clone(&self.store), Arc::clone(&self.newest));
        Self { store, newest, writer: self.writer.clone(), runtime: PhantomData }
    }
}

impl<R: Runtime> Storage<R> {
    /// Begins to write to `store`, until the driver has ended.
    pub(super) fn new(store: Arc<dyn LogStore>, driver: Sender<Notice>) -> (Self, Heard) {
        let (writer, heard) = Writer::start(Arc::clone(&store), driver);
        (Self { store, newest: Arc::default(), writer, runtime: PhantomData }, heard)
    }

    /// Waits until everything is on disk that the engine handed over before.
    pub(super) async fn flush(&self) -> io::Result<()> {
        self.writer.write(|_| Ok(())).await
    }

    /// Writes a snapshot, unless a newer one is there: a member's own may be finished only after
    /// the leader's was installed, and the log up to that one is gone.
    pub(super) async fn save_snapshot(
        &self,
        meta: &SnapshotMeta<R>,
        data: Vec<u8>,
    ) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let (meta, newest) = (encode(meta)?, Arc::clone(&self.newest));
        self.writer
            .write(move |store| {
                let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
                if index >= *newest {
                    store.save_snapshot(meta.clone(), data.clone())?;
                    *newest = index;
                }
                Ok(())
            })
            .await
    }

    /// Gives up what leadership an earlier run of this member `id` held. The engine would go on in
    /// the same term; but what a leader counts within its term (assignments, above all) begins
    /// anew with each run, so each run must have a term of its own.
    pub(super) async fn abdicate(&self, id: u64) -> io::Result<()> {
        let vote = self.call(|store| store.vote()).await?;
        let Some(mut vote) = vote.map(|bytes| decode::<Vote<R>>(&bytes)).transpose()? else {
            return Ok(());
        };
        if !vote.committed || vote.leader_id.node_id != id {
            return Ok(());
        }
        vote.committed = false;
        let bytes = encode(&vote)?;
        self.call(move |store| store.save_vote(bytes)).await
    }

    /// Reads entries of `first..end`: some, but all of them after enough calls. The log may begin
    /// after `first`, where older entries were discarded, but it has no gaps.
    async fn read_some(&self, first: u64, end: u64) -> io::Result<Vec<Entry<R>>> {
        // The tail first: what is written in between is found twice, and not missed.
        let Tail { first: kept, entries: tail } = self.writer.tail(first, end);
        let mut entries: Vec<Entry<R>> = Vec::new();
        if first < kept {
            let end = end.min(kept);
            let read = self.call(move |store| store.read(first, end)).await?;
            entries = read.iter().map(|bytes| decode(bytes)).collect::<io::Result<_>>()?;
        }
        // The disk may have stopped before it came to the tail.
        let next = entries.last().map_or(first, |entry| entry.log_id().index + 1);
        if entries.is_empty() || next >= kept {
            for bytes in &tail {
                entries.push(decode(bytes)?);
            }
        }
        let begins = entries.first().map_or(first, |entry| entry.log_id().index);
        for (index, entry) in (begins..).zip(&entries) {
            if entry.log_id().index != index {
                let why = format!("log entry {index} is missing");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(entries)
    }

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
        let (mut next, end) = bounds(&range);
        let mut entries = Vec::new();
        while next < end {
            let some = self.read_some(next, end).await?;
            let Some(last) = some.last() else { break };
            next = last.log_id().index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn entries_stream<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = Result<Entry<R>, io::Error>> + OptionalSend {
        let (first, end) = bounds(&range);
        let storage = self.clone();
        let read = stream::try_unfold(first, move |next| {
            let storage = storage.clone();
            async move {
                if next >= end {
                    return Ok::<_, io::Error>(None);
                }
                let some =
                    storage.read_some(next, end.min(next.saturating_add(READ_ENTRIES))).await?;
                let after = some.last().map(|last| last.log_id().index + 1);
                Ok(after.map(|after| (stream::iter(some.into_iter().map(Ok)), after)))
            }
        });
        Box::pin(read.try_flatten())
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
        let (mut message, mut bytes) = (Vec::new(), 0);
        let mut next = start;
        for stop in [READ_FIRST, READ_ENTRIES].map(|count| end.min(start.saturating_add(count))) {
            if next >= stop || bytes >= MESSAGE_BYTES {
                break;
            }
            let read = self.read_some(next, stop).await?;
            for entry in read {
                if bytes >= MESSAGE_BYTES {
                    break;
                }
                bytes += size::<R>(&entry);
                next = entry.log_id().index + 1;
                message.push(entry);
            }
        }
        Ok(message)
    }
}

/// Returns about how many bytes an entry takes in a message.
pub(super) fn size<R: Runtime>(entry: &Entry<R>) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Payload(data)) => data.len(),
        _ => RECORD_MARGIN,
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

impl<R: Runtime> RaftLogStorage<Types<R>> for Storage<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<R>>, io::Error> {
        self.flush().await?;
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
        self.writer.write(move |store| store.save_vote(bytes.clone())).await
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
        let mut encoded = Vec::new();
        for entry in entries {
            encoded.push((entry.log_id().index, Bytes::from(encode(&entry)?)));
        }
        self.writer.append(encoded, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId<R>>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |id| id.index + 1);
        self.writer.write(move |store| store.truncate(first)).await?;
        self.writer.forget(first..);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<R>) -> Result<(), io::Error> {
        let mark = encode(&log_id)?;
        self.writer.write(move |store| store.purge(log_id.index, mark.clone())).await?;
        self.writer.forget(..=log_id.index);
        Ok(())
    }
}
