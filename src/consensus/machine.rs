//! Hands what is committed to the driver, and takes snapshots of its state.

use super::{
    Committed, Notice,
    runtime::Runtime,
    storage::{SNAPSHOT_MAX, Storage, decode},
    types::{LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types},
};
use crate::util::answer::answered;
use async_channel::Sender;
use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry as _,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use std::io;

/// The driver's state, seen from the engine.
#[derive(Debug)]
pub(super) struct Machine<R: Runtime> {
    pub(super) storage: Storage<R>,
    pub(super) notices: Sender<Notice>,
    pub(super) applied: Option<LogId<R>>,
    pub(super) membership: StoredMembership<R>,
}

fn gone<E>(_: E) -> io::Error {
    io::Error::other("the driver ended")
}

/// How many entries the driver is given at once. After a start there may be ten thousand to
/// apply; between two of these it can answer its health checks.
const BATCH_ENTRIES_MAX: usize = 256;

/// How many bytes make a full batch, give or take one entry.
const BATCH_BYTES: usize = 4 << 20;

/// Entries on their way to the driver, and whoever waits for them.
struct Batch<R: Runtime> {
    entries: Vec<Committed>,
    bytes: usize,
    responders: Vec<ApplyResponder<Types<R>>>,
}

impl<R: Runtime> Default for Batch<R> {
    fn default() -> Self {
        Self { entries: Vec::new(), bytes: 0, responders: Vec::new() }
    }
}

impl<R: Runtime> Machine<R> {
    async fn hand_over(&self, batch: Batch<R>) -> io::Result<()> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let (done, applied) = async_channel::bounded(1);
        let notice = Notice::Apply { entries: batch.entries, done };
        self.notices.send(notice).await.map_err(gone)?;
        answered(&self.notices, &applied).await.ok_or_else(|| gone(()))?;
        for responder in batch.responders {
            responder.send(());
        }
        Ok(())
    }

    /// Gives the driver the snapshot that is on disk, where there is one.
    pub(super) async fn restore(&mut self) -> io::Result<()> {
        if let Some((meta, data)) = self.storage.call(|store| store.snapshot()).await? {
            self.install(decode(&meta)?, data).await?;
        }
        Ok(())
    }

    async fn install(&mut self, meta: SnapshotMeta<R>, data: Vec<u8>) -> io::Result<()> {
        let (done, installed) = async_channel::bounded(1);
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.notices.send(Notice::Install { index, data, done }).await.map_err(gone)?;
        answered(&self.notices, &installed).await.ok_or_else(|| gone(()))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
        Ok(())
    }
}

impl<R: Runtime> RaftStateMachine<Types<R>> for Machine<R> {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder<R>;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<R>>, StoredMembership<R>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<R>>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id();
            let data = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(Payload(data)) => data,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::<R>::new(Some(id), membership);
                    Vec::new()
                }
            };
            batch.bytes += data.len();
            batch.entries.push(Committed { index: id.index, term: id.leader_id.term, data });
            batch.responders.extend(responder);
            self.applied = Some(id);
            if batch.entries.len() >= BATCH_ENTRIES_MAX || batch.bytes >= BATCH_BYTES {
                self.hand_over(std::mem::take(&mut batch)).await?;
            }
        }
        self.hand_over(batch).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder<R>> {
        let builder = self.get_snapshot_builder().await;
        match &builder.data {
            // A log that grows costs room. A snapshot that no manager can read would cost the log
            // that it stands for.
            Some(Ok(data)) if data.len() > SNAPSHOT_MAX => {
                tracing::error!(bytes = data.len(), "the state is too large for a snapshot");
                None
            }
            _ => Some(builder),
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R> {
        // Encoded here, between two entries, and only written beside them: the state must be the
        // one that `applied` names, or a restart would apply entries a second time.
        let (reply, taken) = async_channel::bounded(1);
        let asked = self.notices.send(Notice::Snapshot { reply }).await;
        let data = match asked {
            Ok(()) => answered(&self.notices, &taken).await.ok_or_else(|| gone(())),
            Err(error) => Err(gone(error)),
        };
        Builder {
            storage: self.storage.clone(),
            data: Some(data),
            meta: SnapshotMeta::<R> {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<R>,
        snapshot: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.storage.save_snapshot(meta, snapshot.clone()).await?;
        self.install(meta.clone(), snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<R>>, io::Error> {
        let Some((meta, snapshot)) = self.storage.call(|store| store.snapshot()).await? else {
            return Ok(None);
        };
        Ok(Some(Snapshot::<R> { meta: decode(&meta)?, snapshot }))
    }
}

/// Takes one snapshot.
#[derive(Debug)]
pub(super) struct Builder<R: Runtime> {
    storage: Storage<R>,
    /// The encoded state; taken by the first build.
    data: Option<io::Result<Vec<u8>>>,
    meta: SnapshotMeta<R>,
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for Builder<R> {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot<R>, io::Error> {
        let taken = self.data.take();
        let snapshot =
            taken.unwrap_or_else(|| Err(io::Error::other("this snapshot was taken already")))?;
        self.storage.save_snapshot(&self.meta, snapshot.clone()).await?;
        Ok(Snapshot::<R> { meta: self.meta.clone(), snapshot })
    }
}
