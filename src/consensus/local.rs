//! The engine on an executor of one thread, under a virtual clock: what the simulation runs.
//!
//! openraft's runtime interface has static functions only, so clock, executor and random stream
//! are found through a thread-local that [`enter`] fills. Nothing else is: with the same context
//! behaving the same, the engine does the same.

use super::{
    runtime::{Channels, Elapsed, Lock, Oneshots, Panicked, Runtime, Timeout},
    watch::Watches,
};
use crate::types::Moment;
use openraft_rt::{AsyncRuntime, OptionalSend};
use std::{
    cell::RefCell,
    convert::Infallible,
    fmt,
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::Pin,
    rc::Rc,
    task::{self, Poll},
    time::Duration,
};
use tokio::sync::oneshot;

/// A boxed task.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the engine needs of a simulation.
pub(crate) trait Context: 'static {
    /// The clock of the node whose task is being polled.
    fn now(&self) -> Moment;

    /// Waits until `moment` on that clock.
    fn sleep_until(&self, moment: Moment) -> Task;

    /// Spawns a task that belongs to the node whose task is being polled.
    fn spawn(&self, task: Task);

    /// Returns the next 64 bits of the run's stream.
    fn random(&self) -> u64;
}

thread_local! {
    static CONTEXT: RefCell<Option<Rc<dyn Context>>> = const { RefCell::new(None) };
}

/// Makes `context` this thread's until the guard is dropped. Hold it for the whole run, and for as
/// long as anything of the run is dropped.
#[must_use]
pub(crate) fn enter(context: Rc<dyn Context>) -> Entered {
    Entered(CONTEXT.replace(Some(context)))
}

/// Ends what [`enter`] began.
pub(crate) struct Entered(Option<Rc<dyn Context>>);

impl Drop for Entered {
    fn drop(&mut self) {
        drop(CONTEXT.replace(self.0.take()));
    }
}

fn context() -> Rc<dyn Context> {
    let context = CONTEXT.with_borrow(|context| context.as_ref().map(Rc::clone));
    context.expect("the engine runs locally only between `enter` and the end of its guard")
}

/// The executor that [`enter`] installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Local;

/// A point of the virtual clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Moment);

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Self(context().now())
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

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, back: Duration) {
        *self = *self - back;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}

/// A wait on the virtual clock.
pub(crate) struct Sleep(Task);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// A handle to a task. A panic is not caught: it ends the run, as it should. What is reported
/// instead is a task that was dropped with its node.
pub(crate) struct Join<T>(oneshot::Receiver<T>);

impl<T> Future for Join<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.map_err(|_| Panicked))
    }
}

/// The run's random stream.
pub(crate) struct Random;

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(context().random() >> 32).expect("32 bits are left"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(context().random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&context().random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Local {
    type JoinError = Panicked;
    type JoinHandle<T: OptionalSend + 'static> = Join<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T, Sleep>;
    type ThreadLocalRng = Random;
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
        context().spawn(Box::pin(async move {
            // Nobody waits where the handle was dropped.
            drop(sender.send(future.await));
        }));
        Join(receiver)
    }

    fn sleep(duration: Duration) -> Sleep {
        let context = context();
        Sleep(context.sleep_until(context.now() + duration))
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep(context().sleep_until(deadline.0))
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
        false
    }

    fn thread_rng() -> Random {
        Random
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        unreachable!("the simulation's executor blocks, the engine never does")
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, std::io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(work())
    }
}

impl Runtime for Local {
    async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        work()
    }
}
