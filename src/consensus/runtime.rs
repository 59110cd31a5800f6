//! What the engine runs on.
//!
//! openraft's runtime interface has only static functions, and channels of its own. The channels
//! (tokio's, which need no runtime) and the rest that any executor shares are here once; an
//! executor adds how to spawn, how to wait and where blocking work goes. The one that holds the
//! latest value is our own, in `watch`: tokio's wakes its readers in an order that it draws.

pub use super::watch::Watches;

use openraft_rt::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender, OptionalSend,
    SendError, TryRecvError,
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync;

/// An executor that the engine runs on.
pub trait Runtime: openraft::AsyncRuntime + Clone + Copy + Default + Ord + Send + Sync {
    /// Runs blocking work (a commit) where it holds up nobody.
    fn offload<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;
}

/// A task panicked.
#[derive(Debug)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task panicked")
    }
}

/// The time was up.
#[derive(Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up")
    }
}

/// A handle to a task. Dropping it leaves the task running, as the engine expects.
#[derive(Debug)]
pub struct Join<T>(pub(super) Option<async_task::Task<std::thread::Result<T>>>);

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

impl<T> Future for Join<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.0.as_mut().expect("a handle has its task until it is dropped");
        Pin::new(task).poll(cx).map(|result| result.map_err(|_| Panicked))
    }
}

/// A future with a time limit.
pub struct Timeout<F, S> {
    future: Pin<Box<F>>,
    sleep: Pin<Box<S>>,
}

impl<F, S> Timeout<F, S> {
    /// Limits `future` to the end of `sleep`.
    pub fn new(future: F, sleep: S) -> Self {
        Self { future: Box::pin(future), sleep: Box::pin(sleep) }
    }
}

impl<F, S> fmt::Debug for Timeout<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").finish_non_exhaustive()
    }
}

impl<F: Future, S: Future<Output = ()>> Future for Timeout<F, S> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        self.sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

/// Channels of many messages.
#[derive(Debug)]
pub struct Channels;

/// The sending end.
#[derive(Debug)]
pub struct Sender<T>(sync::mpsc::Sender<T>);

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<T>(sync::mpsc::Receiver<T>);

/// A sending end that does not keep the channel open.
#[derive(Debug)]
pub struct WeakSender<T>(sync::mpsc::WeakSender<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Mpsc for Channels {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = sync::mpsc::channel(buffer);
        (Sender(sender), Receiver(receiver))
    }
}

impl<T: OptionalSend> MpscSender<Channels, T> for Sender<T> {
    async fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message).await.map_err(|error| SendError(error.0))
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(self.0.downgrade())
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            sync::mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            sync::mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

impl<T: OptionalSend> MpscWeakSender<Channels, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

/// Channels of one message.
#[derive(Debug)]
pub struct Oneshots;

/// The sending end.
#[derive(Debug)]
pub struct OneSender<T>(sync::oneshot::Sender<T>);

impl Oneshot for Oneshots {
    type Sender<T: OptionalSend> = OneSender<T>;
    type Receiver<T: OptionalSend> = sync::oneshot::Receiver<T>;
    type ReceiverError = sync::oneshot::error::RecvError;

    fn channel<T: OptionalSend>() -> (OneSender<T>, sync::oneshot::Receiver<T>) {
        let (sender, receiver) = sync::oneshot::channel();
        (OneSender(sender), receiver)
    }
}

impl<T: OptionalSend> OneshotSender<T> for OneSender<T> {
    fn send(self, message: T) -> Result<(), T> {
        self.0.send(message)
    }
}

/// A lock that is waited for without blocking.
#[derive(Debug)]
pub struct Lock<T>(sync::Mutex<T>);

impl<T: OptionalSend + 'static> Mutex<T> for Lock<T> {
    type Guard<'a> = sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    fn lock(&self) -> impl Future<Output = Self::Guard<'_>> + OptionalSend {
        self.0.lock()
    }
}
