//! The real clock, randomness and tasks.

use crate::{
    node::ports::Host,
    types::{Date, Entropy, Moment},
};
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Clock, randomness and tasks of the operating system, on smol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemHost {
    origin: Instant,
}

impl SystemHost {
    /// Returns the host, whose monotonic clock begins now.
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

/// Returns the wall-clock time.
pub(crate) fn wall_clock() -> Date {
    Date::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

impl Host for SystemHost {
    fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }

    fn date(&self) -> Date {
        wall_clock()
    }

    async fn sleep_until(&self, moment: Moment) {
        let deadline = self.origin.checked_add(moment.since_origin());
        match deadline {
            Some(deadline) => {
                smol::Timer::at(deadline).await;
            }
            // Further away than the clock counts: never.
            None => std::future::pending().await,
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(future).detach();
    }

    fn random(&self) -> u64 {
        SystemEntropy.next_u64()
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&mut self) -> u64 {
        getrandom::u64().expect("the kernel gives randomness once it has booted")
    }
}

/// Returns 32 random bytes.
pub(crate) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&SystemEntropy.next_u64().to_le_bytes());
    }
    bytes
}
