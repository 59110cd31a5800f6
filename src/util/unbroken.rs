//! Work that goes on though nobody waits for it any more.
//!
//! For what is asked of others, who do it all the same: whoever undoes it has to come after it, not
//! in its midst.

use std::{future::Future, pin::Pin};

/// Begins `work`, and does it to its end also where the wait for it is dropped; what came of it is
/// dropped then. None where it panicked.
pub fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Option<T>> + Send>> {
    let (sender, done) = async_channel::bounded(1);
    smol::spawn(async move { drop(sender.try_send(work.await)) }).detach();
    // Boxed, so that whoever waits is not of a type that holds that of the work.
    Box::pin(async move { done.recv().await.ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn work_goes_on_though_the_wait_for_it_is_dropped() {
        let (gate, opened) = async_channel::bounded::<()>(1);
        let (sender, done) = async_channel::bounded(1);
        let work = async move {
            let _open = opened.recv().await;
            let _nobody_waits = sender.send(5).await;
        };
        smol::block_on(async {
            assert_eq!(future::poll_once(to_its_end(work)).await, None);
            drop(gate);
            assert_eq!(done.recv().await, Ok(5));
            assert_eq!(to_its_end(async { 6 }).await, Some(6));
        });
    }
}
