//! Work that blocks, on a thread of its own.

use std::{
    any::Any,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

type Answer = Box<dyn Any + Send>;
type Work = Box<dyn FnOnce() -> Answer + Send>;

/// Begins work that may block, at once. Once it has begun it is not interrupted; whoever drops what is
/// returned takes it back before that.
///
/// It is `smol::unblock`, which the compiler copies whole for each piece of work: here all work is of one
/// type.
#[expect(clippy::disallowed_methods, reason = "nothing but this calls it")]
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblocked<T> {
    let work: Work = Box::new(move || Box::new(work()));
    Unblocked { task: smol::unblock(work), answer: PhantomData }
}

/// What work returns on another thread. Panics where the work does.
#[must_use = "the work is taken back"]
#[derive(Debug)]
pub struct Unblocked<T> {
    task: smol::Task<Answer>,
    answer: PhantomData<fn() -> T>,
}

impl<T> Unblocked<T> {
    /// Lets the work go on without anybody who waits for it.
    pub fn detach(self) {
        self.task.detach();
    }
}

impl<T: 'static> Future for Unblocked<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.task)
            .poll(context)
            .map(|answer| *answer.downcast().expect("the work returns nothing else"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_before_it_is_waited_for() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waits = unblock(move || {
            sender.send(()).unwrap();
            7
        });
        receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(smol::block_on(waits), 7);
    }

    #[test]
    #[should_panic(expected = "mine")]
    fn a_panic_is_the_waiters() {
        smol::block_on(unblock(|| panic!("mine")));
    }
}
