//! The consensus engine's runtime on the virtual clock.

use super::executor::{self, running};
use crate::consensus::runtime::{
    Channels, Elapsed, Lock, Oneshots, Panicked, Runtime, Timeout, Watches,
};
use crate::types::Moment;
use openraft_rt::{AsyncRuntime, OptionalSend};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;

/// The simulation's executor, clock and disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OnSim;

/// A point of the virtual clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Moment);

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Self(running().now())
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0 + wait)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, wait: Duration) {
        *self = *self + wait;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, back: Duration) -> Self {
        Self(self.0 - back)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, back: Duration) {
        *self = *self - back;
    }
}

/// A wait.
pub(crate) struct Sleep(executor::Sleep);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A handle to a task. Dropping it leaves the task running.
pub(crate) struct Join<T>(oneshot::Receiver<T>);

impl<T> Future for Join<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.map_err(|_| Panicked))
    }
}

impl AsyncRuntime for OnSim {
    type JoinError = Panicked;
    type JoinHandle<T: OptionalSend + 'static> = Join<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T, Sleep>;
    type ThreadLocalRng = StdRng;
    type Mpsc = Channels;
    type Watch = Watches;
    type Oneshot = Oneshots;
    type Mutex<T: OptionalSend + 'static> = Lock<T>;

    fn spawn<T>(future: T) -> Join<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        running().spawn(async move {
            // Nobody waits for most tasks.
            let _unwanted = sender.send(future.await);
        });
        Join(receiver)
    }

    fn sleep(duration: Duration) -> Sleep {
        let executor = running();
        Sleep(executor.sleep_until(executor.now() + duration))
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep(running().sleep_until(deadline.0))
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

    fn thread_rng() -> StdRng {
        StdRng::seed_from_u64(running().random())
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, _: F) -> T
    where
        F: Future<Output = T>,
    {
        unreachable!("nothing blocks in a simulation")
    }
}

impl Runtime for OnSim {
    async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        running().offload(work).await
    }
}
