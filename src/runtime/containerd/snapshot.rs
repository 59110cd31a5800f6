//! Snapshots: the writable layer of each container.

use super::{
    labels,
    link::{CALL_LIMIT, CallError, Link, found},
};
use crate::runtime::rootfs::FsMount;
use containerd_client::{
    services::v1::snapshots::{
        ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
        UsageRequest, snapshots_client::SnapshotsClient,
    },
    types,
};

/// How many snapshots one listing returns at most: a node has tens of containers, and a sweep that
/// misses some finds them at the next start.
const LIST_MAX: usize = 10_000;

/// Makes the writable layer `key` on top of `parent`, or finds it made already, and returns how
/// it is mounted.
pub(in crate::runtime) async fn prepare(
    link: &Link,
    snapshotter: &str,
    key: &str,
    parent: &str,
) -> Result<Vec<FsMount>, CallError> {
    let own = [(labels::TASK, key), (labels::GC_ROOT, "1970-01-01T00:00:00Z")];
    let request = link.request(PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: own.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    });
    let made = link
        .call("snapshots.prepare", CALL_LIMIT, |channel| async move {
            SnapshotsClient::with_origin(channel, Link::origin()).prepare(request).await
        })
        .await;
    match made {
        Ok(response) => Ok(response.mounts.into_iter().map(from_wire).collect()),
        Err(error) if error.is_already_there() => mounts(link, snapshotter, key).await,
        Err(error) => Err(error),
    }
}

/// Returns how the snapshot `key` is mounted.
pub(in crate::runtime) async fn mounts(
    link: &Link,
    snapshotter: &str,
    key: &str,
) -> Result<Vec<FsMount>, CallError> {
    let request =
        link.request(MountsRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
    let response = link
        .call("snapshots.mounts", CALL_LIMIT, |channel| async move {
            SnapshotsClient::with_origin(channel, Link::origin()).mounts(request).await
        })
        .await?;
    Ok(response.mounts.into_iter().map(from_wire).collect())
}

/// Removes the snapshot `key`; one that is not there is removed.
pub(in crate::runtime) async fn remove(
    link: &Link,
    snapshotter: &str,
    key: &str,
) -> Result<(), CallError> {
    let request = link.request(RemoveSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
    });
    let removed = link
        .call("snapshots.remove", CALL_LIMIT, |channel| async move {
            SnapshotsClient::with_origin(channel, Link::origin()).remove(request).await
        })
        .await;
    found(removed).map(|_| ())
}

/// Returns how many bytes the snapshot `key` itself takes; 0 for one that is not there.
pub(in crate::runtime) async fn usage(
    link: &Link,
    snapshotter: &str,
    key: &str,
) -> Result<u64, CallError> {
    let request =
        link.request(UsageRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
    let usage = link
        .call("snapshots.usage", CALL_LIMIT, |channel| async move {
            SnapshotsClient::with_origin(channel, Link::origin()).usage(request).await
        })
        .await;
    let size = found(usage)?.map_or(0, |usage| usage.size);
    Ok(u64::try_from(size).unwrap_or(0))
}

/// Returns the keys of the snapshots that belong to tasks.
pub(in crate::runtime) async fn of_tasks(
    link: &Link,
    snapshotter: &str,
) -> Result<Vec<String>, CallError> {
    let filters = vec![format!("labels.{:?}", labels::TASK)];
    let request =
        link.request(ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters });
    let keys = link.call("snapshots.list", CALL_LIMIT, |channel| async move {
        let mut client = SnapshotsClient::with_origin(channel, Link::origin());
        let mut stream = client.list(request).await?.into_inner();
        let mut keys = Vec::new();
        while let Some(page) = stream.message().await? {
            keys.extend(page.info.into_iter().map(|info| info.name));
            if keys.len() > LIST_MAX {
                break;
            }
        }
        Ok(tonic::Response::new(keys))
    });
    keys.await
}

fn from_wire(mount: types::Mount) -> FsMount {
    FsMount { kind: mount.r#type, source: mount.source, options: mount.options }
}

/// Turns a mount into what containerd sends to the shim.
pub(super) fn to_wire(mount: FsMount) -> types::Mount {
    types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: String::new(),
        options: mount.options,
    }
}
