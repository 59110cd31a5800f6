//! Watches containerd for as long as the runtime lives: exits as they happen, and that containerd
//! came (back).
//!
//! Subscribes first and says so then: no exit falls between it and an inventory that is asked for
//! from there on.

use super::{containerd::events::Subscription, engine::Shared, strays};
use crate::{agent::Event, types::TaskId};
use async_channel::Sender;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// The first wait before containerd is tried again: a restart of it takes about a second.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// What the doubling wait grows to; a node is useless without containerd, so it is asked often.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// Why watching ended for good.
struct Unwanted;

/// Runs until the runtime is dropped.
pub(super) async fn run(shared: Weak<Shared>, events: Sender<Event>) {
    let mut wait = RETRY_MIN;
    let mut swept = false;
    loop {
        let Some(strong) = shared.upgrade() else { return };
        match follow(strong, &shared, &events, &mut swept).await {
            Err(Unwanted) => return,
            Ok(true) => {
                if events.send(Event::RuntimeLost).await.is_err() {
                    return;
                }
                wait = RETRY_MIN;
            }
            Ok(false) => {}
        }
        smol::Timer::after(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Follows one subscription to its end. Tells whether it was live.
async fn follow(
    strong: Arc<Shared>,
    shared: &Weak<Shared>,
    events: &Sender<Event>,
    swept: &mut bool,
) -> Result<bool, Unwanted> {
    let mut subscription = match Subscription::open(&strong.link).await {
        Ok(subscription) => subscription,
        Err(error) => {
            tracing::debug!(%error, "cannot subscribe to containerd's events");
            return Ok(false);
        }
    };
    if !*swept {
        strong.sweep_execs().await;
        match strong.sweep().await {
            Ok(()) => *swept = true,
            Err(error) => tracing::warn!(%error, "cannot remove leftover snapshots"),
        }
    }
    events.send(Event::RuntimeFound).await.map_err(|_| Unwanted)?;
    // For as long as it is there.
    let _looking = smol::spawn(strays::run(Weak::clone(shared)));
    // While nothing happens, the runtime's owner may drop it.
    drop(strong);
    while let Some(exit) = subscription.next().await {
        let Some(strong) = shared.upgrade() else { return Err(Unwanted) };
        let Ok(task) = TaskId::parse(&exit.container) else { continue };
        // Side by side: a burst of exits costs each only its own note.
        let events = events.clone();
        smol::spawn(async move {
            let phase = strong.settle(&exit.container, exit.code, exit.date).await;
            drop(events.send(Event::Exited { task, phase }).await);
        })
        .detach();
    }
    Ok(true)
}
