//! Waiting with an end.

use super::ports::Host;
use crate::types::Moment;
use std::{future::Future, time::Duration};

/// Waits for `future`, at most for `limit`.
pub(super) async fn within<H: Host, T>(
    host: &H,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let deadline = host.now() + limit;
    futures_lite::future::or(async { Some(future.await) }, async {
        host.sleep_until(deadline).await;
        None
    })
    .await
}

/// Waits until `deadline`; for ever where there is none. Only ever one of several things waited
/// for.
pub(super) async fn until<H: Host>(host: &H, deadline: Option<Moment>) {
    match deadline {
        Some(moment) => host.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Returns the earlier of two deadlines, where there are any.
pub(super) fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
