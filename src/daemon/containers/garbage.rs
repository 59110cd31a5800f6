//! Removes images that nothing uses where the disk gets full.
//!
//! Knows how full the disk is, what uses an image here, and what was last known of the services;
//! which images go is decided by [`crate::agent::garbage`].

use super::images;
use crate::{
    agent::garbage::{AGE_MIN, Candidate, Fill, is_wanted, victims},
    cluster::{Class, Refusal},
    daemon::{machine::host::wall_clock, shared::Shared},
    runtime::image::{ImageDisk, ImageSummary},
    types::{Date, Task, image::Reference},
    util::{error::chain, unblock::unblock},
};
use futures_lite::FutureExt as _;
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

/// How often the disk is looked at beside every change of the images: containers and logs fill it
/// as well. One call of the kernel, and nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// How long the agent may take to say what it has.
const AGENT_LIMIT: Duration = Duration::from_secs(5);

/// Watches the disk, and makes room for pulls, until the daemon ends.
pub(crate) fn start(shared: &Arc<Shared>) {
    let images = shared.containers.images();
    let asked = Arc::downgrade(shared);
    images.ask_for_room(Box::new(move |needed| {
        let asked = Weak::clone(&asked);
        Box::pin(async move { room(&*asked.upgrade()?, needed).await })
    }));
    let changes = images.changes();
    let watched = Arc::downgrade(shared);
    smol::spawn(async move {
        loop {
            let changed = async { changes.recv().await.is_ok() };
            let late = async {
                smol::Timer::after(LOOK_EVERY).await;
                true
            };
            if !changed.or(late).await {
                return;
            }
            let Some(shared) = watched.upgrade() else { return };
            if let Err(refusal) = collect(&shared, 0).await {
                tracing::debug!(error = refusal.message, "cannot look for unused images");
            }
        }
    })
    .detach();
}

/// Makes room for so many bytes where there is none; returns how many are free then.
async fn room(shared: &Shared, needed: u64) -> Option<u64> {
    let fill = fill(shared).await?;
    if fill.free >= needed {
        return Some(fill.free);
    }
    if let Err(refusal) = collect(shared, needed).await {
        tracing::warn!(error = refusal.message, "cannot make room for an image");
    }
    Some(self::fill(shared).await?.free)
}

/// Returns how full the file system of containerd's layers is; none where that cannot be known.
async fn fill(shared: &Shared) -> Option<Fill> {
    let known = shared.collector.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let root = match known {
        Some(root) => root,
        None => {
            let root = shared.containers.images().root_dir().await.ok().flatten()?;
            let mut known = shared.collector.root.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(root).clone()
        }
    };
    let stat = unblock(move || rustix::fs::statvfs(&root)).await.ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let used = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
    Some(Fill { used, free: bytes(stat.f_bavail) })
}

/// Removes what must go, one image after another, and measures after each.
async fn collect(shared: &Shared, needed: u64) -> Result<(), Refusal> {
    let collector = &shared.collector;
    let _alone = collector.running.lock().await;
    let Some(before) = fill(shared).await else { return Ok(()) };
    if before.excess(collector.limits, needed) == 0 {
        return Ok(());
    }
    // Off means that only people remove images, also where a pull lacks room.
    let Some(limits) = collector.limits else { return Ok(()) };
    let store = shared.containers.images();
    let failed = |error: &dyn std::error::Error| Refusal::new(Class::Internal, chain(error));
    let disk = store.disk().await.map_err(|error| failed(&error))?;
    let Some(candidates) = candidates(shared, &disk).await? else { return Ok(()) };
    let age_min = if before.free < needed { Duration::ZERO } else { AGE_MIN };
    let excess = before.excess(Some(limits), needed);
    let mut removed = Vec::new();
    // All that may go, in order: what is shared is only seen to be free when it is.
    for target in victims(&candidates, u64::MAX, wall_clock(), age_min) {
        let now = fill(shared).await.unwrap_or(before);
        if before.free.saturating_add(excess) <= now.free {
            break;
        }
        let gone = store.forget(&target).await.map_err(|error| failed(&error))?;
        for gone in images::told(shared, gone) {
            if let crate::types::RemovedImage::Untagged(name) = gone {
                removed.push(name);
            }
        }
    }
    let after = fill(shared).await.unwrap_or(before);
    let freed = after.free.saturating_sub(before.free);
    if removed.is_empty() {
        tracing::warn!(free = after.free, needed, "the disk is full, and no image is unused");
    } else {
        let images = removed.join(", ");
        tracing::info!(freed, free = after.free, images, "removed images that nothing uses");
    }
    Ok(())
}

/// Judges every image; none where too little is known to remove any.
async fn candidates(shared: &Shared, disk: &ImageDisk) -> Result<Option<Vec<Candidate>>, Refusal> {
    let Some((wanted, kept)) = needs(shared).await? else {
        tracing::warn!("no manager has said yet which images services refer to; none is removed");
        return Ok(None);
    };
    let now = wall_clock();
    let mut notes = shared.collector.lock();
    notes.used.retain(|target, _| disk.images.iter().any(|image| image.target == *target));
    let judge = |image: &ImageSummary| {
        let names: Vec<String> = image.names.iter().chain(&image.digests).cloned().collect();
        let running = !image.users.is_empty() || is_wanted(&wanted, &names, &image.target);
        if running {
            notes.used.insert(image.target.clone(), now);
        }
        let last_used = notes.used.get(&image.target).copied().unwrap_or(Date::EPOCH);
        Candidate {
            target: image.target.clone(),
            own: image.size.saturating_sub(image.shared.unwrap_or(0)),
            last_used: last_used.max(image.updated),
            in_use: running || kept.contains(&image.target),
        }
    };
    Ok(Some(disk.images.iter().map(judge).collect()))
}

/// Returns what this node's tasks refer to, also those that have no container yet.
pub(crate) async fn wanted(shared: &Shared) -> Result<BTreeSet<String>, Refusal> {
    let Some(member) = shared.member() else { return Ok(BTreeSet::new()) };
    let tasks = member.handle.agent_tasks(AGENT_LIMIT).await?;
    Ok(tasks.iter().flat_map(|local| references(&local.task)).collect())
}

/// Returns what this node's tasks refer to, and which images services do. None where no manager
/// ever said the latter.
async fn needs(shared: &Shared) -> Result<Option<(BTreeSet<String>, BTreeSet<String>)>, Refusal> {
    let Some(member) = shared.member() else {
        // In no cluster there are no tasks and no services.
        return Ok(Some((BTreeSet::new(), BTreeSet::new())));
    };
    let wanted = wanted(shared).await?;
    if let Some(kept) = member.handle.kept_images(AGENT_LIMIT).await? {
        let news = {
            let mut notes = shared.collector.lock();
            let news = notes.kept.as_ref() != Some(&kept);
            notes.kept = Some(kept.clone());
            news
        };
        if news {
            shared.collector.save().await;
        }
        return Ok(Some((wanted, kept)));
    }
    let kept = shared.collector.lock().kept.clone();
    Ok(kept.map(|kept| (wanted, kept)))
}

/// Returns how a task's image may be called here: by digest, or by name where it has none.
fn references(task: &Task) -> Vec<String> {
    let Ok(image) = Reference::parse(&task.spec.container.image) else { return Vec::new() };
    let pinned = task.spec.pin.as_ref().map(|pin| pin.digest.clone());
    match image.digest.clone().or(pinned) {
        Some(digest) => vec![digest],
        None => vec![image.to_string()],
    }
}
