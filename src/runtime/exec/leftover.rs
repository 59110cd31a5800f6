//! Processes that a daemon which died left in containers: those that somebody listened to are
//! ended, the others are waited for.

use super::{
    PREFIX,
    fifo::{self, Folder},
    streams::{ExecEvent, ExecOutput, Guard, reap},
};
use crate::{
    runtime::containerd::{exec::Key, link::Link},
    util::unblock::unblock,
};
use std::{fs, path::Path};

/// How many leftovers are ended side by side: each is a call or three to one shim, and a small
/// board has better things to do while it starts.
const AT_ONCE: usize = 8;

/// Ends, or waits for, what is noted below the run directory, except for what begins with `own`:
/// that was run since.
pub(in crate::runtime) async fn sweep(link: &Link, run_dir: &Path, own: &str) {
    let run_dir = run_dir.to_owned();
    let found = {
        let root = fifo::root(&run_dir);
        unblock(move || noted(&root)).await
    };
    let (sender, queue) = async_channel::unbounded();
    for key in found.into_iter().filter(|key| !key.exec.starts_with(own)) {
        let folder = Folder::new(&run_dir, &key);
        // Unbounded, and as long as the list that it is filled from.
        drop(sender.send((key, folder)).await);
    }
    drop(sender);
    let work = (0..AT_ONCE).map(|_| async {
        while let Ok((key, folder)) = queue.recv().await {
            take_up(link, &key, folder).await;
        }
    });
    futures_util::future::join_all(work).await;
}

async fn take_up(link: &Link, key: &Key, folder: Folder) {
    let opened = {
        let folder = folder.clone();
        unblock(move || folder.is_detached().then(|| folder.open())).await
    };
    let Some(Ok(ends)) = opened else {
        reap(link, key, folder, false).await;
        return;
    };
    // The shim holds its ends open: ours are not needed for that.
    drop(ends.keepers);
    let mut guard = Guard::new(link, key, &folder);
    guard.release(true);
    let mut output = ExecOutput::new(guard, ends.stdout, ends.stderr);
    smol::spawn(async move { while !matches!(output.next().await, ExecEvent::Exited(_)) {} })
        .detach();
}

/// Lists the processes that are noted. Blocks.
fn noted(root: &Path) -> Vec<Key> {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut found = Vec::new();
    for container in names(root) {
        for exec in names(&root.join(&container)) {
            if exec.starts_with(PREFIX) {
                found.push(Key { container: container.clone(), exec });
            }
        }
    }
    found
}
