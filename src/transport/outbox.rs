//! What waits to be sent to one peer. Taking never waits: what a slow peer has no room for is
//! dropped, since every message of a session is repeated until it is answered.

use super::stream::{ByteSender, StreamError};
use crate::wire::{self, Message};
use async_channel::{Receiver, Sender};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Messages that wait: many minutes of heartbeats and reports.
const MESSAGES_MAX: usize = 256;

/// Bytes that wait: two of the largest sets of assignments.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The end that messages are put into. All clones are one queue.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    frames: Sender<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

/// The end that is sent from.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: Receiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn outbox() -> (Outbox, Outgoing) {
    let (sender, receiver) = async_channel::bounded(MESSAGES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outbox { frames: sender, bytes: bytes.clone() }, Outgoing { frames: receiver, bytes })
}

impl Outbox {
    /// Takes a message, or drops it.
    pub(super) fn put<M: Message>(&self, message: &M) {
        let Ok(frame) = wire::encode(message) else { return };
        let len = frame.len();
        let waiting = self.bytes.fetch_add(len, Ordering::Relaxed);
        let taken = waiting + len <= BYTES_MAX && self.frames.try_send(frame).is_ok();
        if !taken {
            let _before = self.bytes.fetch_sub(len, Ordering::Relaxed);
        }
    }
}

impl Outgoing {
    /// Sends until the stream ends or every [`Outbox`] is gone.
    pub(super) async fn drain(self, mut stream: ByteSender) -> Result<(), StreamError> {
        while let Ok(frame) = self.frames.recv().await {
            let _before = self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
            stream.write_all(&frame).await?;
        }
        stream.finish().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{types::FromManager, wire::StreamReply};

    #[test]
    fn a_full_outbox_drops() {
        let (outbox, outgoing) = outbox();
        for _ in 0..MESSAGES_MAX + 3 {
            outbox.put(&FromManager::Removed);
        }
        assert_eq!(outgoing.frames.len(), MESSAGES_MAX);
        let (outbox, outgoing) = super::outbox();
        let large = StreamReply::Certificate(vec![0; BYTES_MAX - 100]);
        outbox.put(&large);
        outbox.put(&large);
        assert_eq!(outgoing.frames.len(), 1);
        outbox.put(&FromManager::Removed);
        assert_eq!(outgoing.frames.len(), 2, "what fits is still taken");
    }
}
