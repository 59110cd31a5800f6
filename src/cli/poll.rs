//! Asking the daemon again and again until something has come about, or Ctrl-C.

use super::exit::{CliError, Exit};
use crate::util::unblock::unblock;
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt as _, future::or};
use std::time::{Duration, Instant};

/// How often the daemon is asked, as by Docker's client.
const POLL: Duration = Duration::from_millis(200);

/// How long one read may take: the daemon itself gives up earlier on a manager that is silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Reads again and again, and hands what was read to `step` with the time since the first read,
/// until `step` returns how it ended. None where Ctrl-C came first, be it while an answer is waited
/// for.
pub(super) fn until<P, R>(
    read: impl FnOnce() -> Result<P, CliError> + Clone + Send + 'static,
    mut step: impl FnMut(P, Duration) -> Result<Option<R>, CliError>,
) -> Result<Option<R>, CliError>
where
    P: Send + 'static,
{
    let mut signals = Signals::new([Signal::Int])
        .map_err(|error| CliError::failure(format!("cannot wait for signals: {error}")))?;
    smol::block_on(async {
        let begun = Instant::now();
        loop {
            let answer = or(unblock(read.clone()), late());
            let answer = async { Some(answer.await) };
            let Some(polled) = or(answer, interrupted(&mut signals)).await else {
                return Ok(None);
            };
            if let Some(ended) = step(polled?, begun.elapsed())? {
                return Ok(Some(ended));
            }
            let pause = async { Some(smol::Timer::after(POLL).await) };
            if or(pause, interrupted(&mut signals)).await.is_none() {
                return Ok(None);
            }
        }
    })
}

async fn late<P>() -> Result<P, CliError> {
    smol::Timer::after(ANSWER_LIMIT).await;
    let seconds = ANSWER_LIMIT.as_secs();
    let message = format!("the midge daemon has not answered for {seconds} seconds");
    Err(CliError { exit: Exit::Unreachable, message, hint: None })
}

/// Waits for Ctrl-C.
async fn interrupted<T>(signals: &mut Signals) -> Option<T> {
    match signals.next().await {
        Some(_) => None,
        // Without signals nothing can interrupt.
        None => futures_lite::future::pending().await,
    }
}
