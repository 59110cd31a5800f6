//! Waiting with an end, by the machine's clock: what the simulation drives waits by that of its host.

use futures_lite::future;
use futures_util::FutureExt as _;
use smol::Timer;
use std::{future::Future, time::Duration};

/// Waits for `work`, at most for `limit` from now; none where it is not done by then, and dropped
/// with the wait.
pub fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    // Combinators, since an async block would hold the work twice: some is kilobytes.
    future::or(work.map(Some), Timer::after(limit).map(|_| None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::block_on;

    #[test]
    fn what_is_done_is_returned_though_the_time_is_over() {
        assert_eq!(block_on(within(Duration::ZERO, async { 5 })), Some(5));
    }

    #[test]
    fn what_never_ends_is_dropped() {
        let (held, gone) = async_channel::bounded::<()>(1);
        let never = async move {
            let _held = held;
            future::pending::<()>().await;
        };
        assert_eq!(block_on(within(Duration::from_millis(1), never)), None);
        assert!(gone.is_closed());
    }
}
