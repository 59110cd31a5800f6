//! A channel that holds the latest value.
//!
//! tokio's would do, but for one thing: it spreads its waiting readers over eight lists at random,
//! so that two runs wake them in different orders, and a simulation does not replay. Here they
//! wake in the order in which they were made.

use openraft_rt::{OptionalSend, OptionalSync, watch};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    task::{Context, Poll, Waker},
};

/// Channels that hold the latest value.
#[derive(Debug)]
pub struct Watches;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Raised by each change.
    version: u64,
    senders: usize,
    receivers: usize,
    next_receiver: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes every reader, after the locks are free: a waker may run what wants them.
    fn wake(waiting: BTreeMap<u64, Waker>) {
        waiting.into_values().for_each(Waker::wake);
    }

    fn changed(&self) {
        let waiting = {
            let mut state = self.state();
            state.version += 1;
            std::mem::take(&mut state.waiting)
        };
        Self::wake(waiting);
    }

    fn receiver(self: &Arc<Self>, seen: Option<u64>) -> WatchReceiver<T> {
        let mut state = self.state();
        state.receivers += 1;
        state.next_receiver += 1;
        let seen = seen.unwrap_or(state.version);
        WatchReceiver { shared: Arc::clone(self), id: state.next_receiver, seen }
    }
}

/// A look at the value. While it is held no writer can change it.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The writing end.
#[derive(Debug)]
pub struct WatchSender<T>(Arc<Shared<T>>);

impl<T> Clone for WatchSender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state();
            state.senders -= 1;
            if state.senders > 0 {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        Shared::<T>::wake(waiting);
    }
}

/// The reading end.
#[derive(Debug)]
pub struct WatchReceiver<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    /// The version it saw last.
    seen: u64,
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver(Some(self.seen))
    }
}

impl<T> Drop for WatchReceiver<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.shared.state();
            state.receivers -= 1;
            state.waiting.remove(&self.id)
        };
        drop(waker);
    }
}

impl<T> WatchReceiver<T> {
    fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<Result<(), watch::RecvError>> {
        let mut state = self.shared.state();
        if state.version != self.seen {
            self.seen = state.version;
            return Poll::Ready(Ok(()));
        }
        if state.senders == 0 {
            return Poll::Ready(Err(watch::RecvError(())));
        }
        let before = state.waiting.insert(self.id, cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl watch::Watch for Watches {
    type Sender<T: OptionalSend + OptionalSync> = WatchSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = WatchReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (WatchSender<T>, WatchReceiver<T>) {
        let state = Mutex::new(State { senders: 1, ..State::default() });
        let shared = Arc::new(Shared { value: RwLock::new(value), state });
        let receiver = shared.receiver(None);
        (WatchSender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<Watches, T> for WatchSender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        if self.0.state().receivers == 0 {
            return Err(watch::SendError(value));
        }
        let before = {
            let mut held = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *held, value)
        };
        drop(before);
        self.0.changed();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = modify(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if modified {
            self.0.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> WatchReceiver<T> {
        self.0.receiver(None)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<Watches, T> for WatchReceiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        // The version first: a change between the two is then reported once more, never missed.
        self.seen = self.shared.state().version;
        self.shared.read()
    }
}
