//! Layers become snapshots: each is applied onto the one below, checked, and committed under the
//! name of the whole chain.

use super::{
    Images, SNAPSHOTTER,
    link::{CALL_LIMIT, CallError, Lease, SLOW_CALL_LIMIT, absent, call, code_is, refused},
};
use crate::{
    runtime::image::{
        Progress, PullError, RuntimeError, Step,
        document::{self, Config, Descriptor, Manifest, short},
    },
    util::{deadline::within, unblock::unblock},
};
use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
            StatSnapshotRequest,
        },
    },
    types,
};
use std::{collections::HashMap, fs::File, sync::Arc, time::Duration};
use tonic::Code;

/// How long unpacking one layer may take: 2 GB onto an SD card at 2 MB/s.
const APPLY_LIMIT: Duration = Duration::from_secs(1_200);

/// The label that names the snapshot a layer is being unpacked for.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";

impl Images {
    /// Unpacks what is not unpacked yet, and returns the chain id of the whole; empty for an
    /// image without layers.
    pub(super) async fn unpack(
        &self,
        lease: &Lease,
        manifest: &Manifest,
        config: &Config,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<String, PullError> {
        let chain = document::chain_ids(&config.diff_ids);
        let root = self.open_root().await;
        let mut below = String::new();
        for ((layer, diff_id), name) in manifest.layers.iter().zip(&config.diff_ids).zip(&chain) {
            let report = |step, current| {
                let (id, total) = (short(&layer.digest), layer.size);
                progress(Progress { id, step, current, total });
            };
            let _alone = self.link.exclusive(format!("chain {name}")).await;
            report(Step::Extracting, 0);
            self.unpack_layer(lease, layer, diff_id, &below, name, root.as_ref()).await?;
            report(Step::PullComplete, layer.size);
            below.clone_from(name);
        }
        if !below.is_empty() {
            let label = format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}");
            let labels = [(label, below.clone())].into();
            self.link.label(&manifest.config.digest, &labels).await?;
        }
        Ok(below)
    }

    /// Tells whether the snapshot of a chain is there.
    pub(super) async fn is_unpacked(&self, chain: &str) -> Result<bool, RuntimeError> {
        let mut snapshots = self.link.snapshots().await?;
        let message =
            StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: chain.to_owned() };
        let stat = snapshots.stat(self.link.request(message));
        let stat = call("look for a snapshot", CALL_LIMIT, stat);
        Ok(absent(code_is(Code::NotFound), stat).await?.is_some())
    }

    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        diff_id: &str,
        below: &str,
        name: &str,
        root: Option<&Arc<File>>,
    ) -> Result<(), PullError> {
        let mut snapshots = self.link.snapshots().await?;
        let key = format!("extract-midge-{:016x} {name}", rand::random::<u64>());
        let labels: HashMap<String, String> = [(SNAPSHOT_REF.to_owned(), name.to_owned())].into();
        let message = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: below.to_owned(),
            labels: labels.clone(),
        };
        // With the label, containerd answers that the target exists, and leases it, in one step:
        // looking first would race with the collector.
        let prepare = snapshots.prepare(self.link.leased(message, lease));
        let prepare = call("prepare a snapshot", SLOW_CALL_LIMIT, prepare);
        let Some(prepared) = absent(code_is(Code::AlreadyExists), prepare).await? else {
            if self.is_unpacked(name).await? {
                return Ok(());
            }
            let why = "it says that it exists, and it does not";
            return Err(refused("prepare a snapshot", why).into());
        };
        let mut result = self.apply(layer, diff_id, prepared.mounts).await;
        if let (Ok(()), Some(root)) = (&result, root) {
            result = sync(Arc::clone(root)).await;
        }
        if let Err(error) = result {
            self.drop_snapshot(&key).await;
            return Err(error);
        }
        let message = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.clone(),
            labels,
        };
        let commit = snapshots.commit(self.link.leased(message, lease));
        let commit = call("keep a snapshot", SLOW_CALL_LIMIT, commit);
        if absent(code_is(Code::AlreadyExists), commit).await?.is_none() {
            self.drop_snapshot(&key).await;
        }
        Ok(())
    }

    async fn apply(
        &self,
        layer: &Descriptor,
        diff_id: &str,
        mounts: Vec<types::Mount>,
    ) -> Result<(), PullError> {
        let mut diff = self.link.diff().await?;
        let message = ApplyRequest {
            diff: Some(wire(layer)),
            mounts,
            // For a containerd whose folders we cannot see. Those before 1.7.14 ignore it.
            sync_fs: true,
            ..ApplyRequest::default()
        };
        let apply = diff.apply(self.link.request(message));
        let applied = call("unpack a layer", APPLY_LIMIT, apply).await.map_err(|e| e.error)?;
        match applied.applied {
            Some(applied) if applied.digest == diff_id => Ok(()),
            _ => Err(PullError::Corrupt { what: format!("unpacked layer {}", layer.digest) }),
        }
    }

    /// Opens the folder that layers are unpacked into; none where that cannot be, as of a containerd
    /// that has mounts of its own.
    pub(super) async fn open_root(&self) -> Option<Arc<File>> {
        let root = self.root_dir().await.ok().flatten()?;
        unblock(move || File::open(root)).await.ok().map(Arc::new)
    }

    /// Removes a snapshot that came to nothing. Where that fails, the end of the lease does it.
    async fn drop_snapshot(&self, key: &str) {
        let removed = async {
            let mut snapshots = self.link.snapshots().await?;
            let message =
                RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
            let remove = snapshots.remove(self.link.request(message));
            call("remove a snapshot", SLOW_CALL_LIMIT, remove).await?;
            Ok::<(), CallError>(())
        };
        if let Err(CallError { error, .. }) = removed.await {
            tracing::debug!(%error, key, "a half-unpacked snapshot is left to the collector");
        }
    }
}

/// Waits until what was unpacked below a folder is on disk: a power cut after the commit must not
/// leave a snapshot of empty files behind.
async fn sync(root: Arc<File>) -> Result<(), PullError> {
    let synced = unblock(move || rustix::fs::syncfs(&*root));
    let late = || Err(rustix::io::Errno::TIMEDOUT);
    let synced = within(APPLY_LIMIT, synced).await.unwrap_or_else(late);
    synced.map_err(|error| PullError::Disk(error.into()))
}

/// Returns a descriptor as containerd wants it.
pub(super) fn wire(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    }
}
