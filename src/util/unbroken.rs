//! Work that goes on though nobody waits for it any more.
//!
//! For what is asked of others, who do it all the same: whoever undoes it has to come after it, not
//! in its midst.

use std::future::Future;

/// Does `work` to its end, also where this wait for it is dropped once begun; what came of it is
/// dropped then. None where it panicked.
pub async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, done) = async_channel::bounded(1);
    smol::spawn(async move { drop(sender.try_send(work.await)) }).detach();
    done.recv().await.ok()
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
