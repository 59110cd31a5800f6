//! The engine on smol.

use super::{
    runtime::{Channels, Elapsed, Join, Lock, Oneshots, Panicked, Runtime, Timeout},
    watch::Watches,
};
use crate::util::unblock::unblock;
use futures_lite::FutureExt as _;
use openraft_rt::{AsyncRuntime, OptionalSend};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// smol's executor, clock and blocking pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnSmol;

/// A wait.
#[derive(Debug)]
pub struct Sleep(smol::Timer);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl AsyncRuntime for OnSmol {
    type JoinError = Panicked;
    type JoinHandle<T: OptionalSend + 'static> = Join<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T, Sleep>;
    type ThreadLocalRng = rand::rngs::ThreadRng;
    type Mpsc = Channels;
    type Watch = Watches;
    type Oneshot = Oneshots;
    type Mutex<T: OptionalSend + 'static> = Lock<T>;

    fn spawn<T>(future: T) -> Join<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Join(Some(smol::spawn(AssertUnwindSafe(future).catch_unwind())))
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep(smol::Timer::after(duration))
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep(smol::Timer::at(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F, Sleep> {
        Timeout::new(future, Self::sleep(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Timeout<F, Sleep> {
        Timeout::new(future, Self::sleep_until(deadline))
    }

    fn is_panic(_: &Panicked) -> bool {
        true
    }

    fn thread_rng() -> rand::rngs::ThreadRng {
        rand::rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        smol::block_on(future)
    }
}

impl Runtime for OnSmol {
    fn offload<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        unblock(work)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_runtime_as_the_engine_needs_one() {
        openraft_rt::testing::Suite::<super::OnSmol>::test_all();
    }
}
