//! A notice board: what is posted reaches every reader, and the last of it whoever comes later.
//!
//! Posting never waits: a reader that does not keep up is cut off, and finds that out.

use async_channel::{Receiver, Sender};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Limits of a board.
#[derive(Debug, Clone, Copy)]
pub struct BoardLimits {
    /// How much is kept for readers who come later.
    pub recent: usize,
    /// How much may wait for one reader.
    pub waiting: usize,
    /// How many readers there may be.
    pub readers: usize,
}

/// A board. Clones share everything.
pub struct Board<T> {
    limits: BoardLimits,
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    recent: VecDeque<Arc<T>>,
    readers: Vec<Sender<Arc<T>>>,
}

impl<T> Clone for Board<T> {
    fn clone(&self) -> Self {
        Self { limits: self.limits, inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Board<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a reader of a board has: what was posted before, oldest first, and what comes.
#[derive(Debug)]
pub struct Reading<T> {
    /// What was posted before.
    pub recent: Vec<Arc<T>>,
    /// What comes. Closes, after what waits in it, when the reader did not keep up.
    pub next: Receiver<Arc<T>>,
}

impl<T> Board<T> {
    /// Makes an empty board.
    #[must_use]
    pub fn new(limits: BoardLimits) -> Self {
        let inner = Inner { recent: VecDeque::new(), readers: Vec::new() };
        Self { limits, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Posts something, in order with everything else.
    pub fn post(&self, item: T) {
        let item = Arc::new(item);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.recent.len() >= self.limits.recent.max(1) {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Arc::clone(&item));
        // Full or closed: the reader is too slow, or gone.
        inner.readers.retain(|reader| reader.try_send(Arc::clone(&item)).is_ok());
    }

    /// Begins to read; none where there are too many readers already.
    #[must_use]
    pub fn read(&self) -> Option<Reading<T>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.readers.retain(|reader| !reader.is_closed());
        if inner.readers.len() >= self.limits.readers {
            return None;
        }
        let (sender, next) = async_channel::bounded(self.limits.waiting.max(1));
        inner.readers.push(sender);
        Some(Reading { recent: inner.recent.iter().cloned().collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BoardLimits = BoardLimits { recent: 3, waiting: 2, readers: 2 };

    fn values(items: &[Arc<u32>]) -> Vec<u32> {
        items.iter().map(|item| **item).collect()
    }

    #[test]
    fn later_readers_get_the_last_in_order() {
        let board = Board::new(LIMITS);
        (1..=5).for_each(|n| board.post(n));
        let reading = board.read().unwrap();
        assert_eq!(values(&reading.recent), [3, 4, 5]);
        board.post(6);
        assert_eq!(*reading.next.try_recv().unwrap(), 6);
        assert!(reading.next.is_empty() && !reading.next.is_closed());
    }

    #[test]
    fn a_slow_reader_is_cut_off_and_the_others_are_not() {
        let board = Board::new(LIMITS);
        let (slow, quick) = (board.read().unwrap(), board.read().unwrap());
        for n in 1..=3 {
            board.post(n);
            assert_eq!(*quick.next.try_recv().unwrap(), n);
        }
        assert!(slow.next.is_closed() && !quick.next.is_closed());
        let left: Vec<u32> = std::iter::from_fn(|| slow.next.try_recv().ok()).map(|n| *n).collect();
        assert_eq!(left, [1, 2], "what waited is not lost");
    }

    #[test]
    fn readers_are_counted_and_those_who_left_are_not() {
        let board = Board::<u32>::new(LIMITS);
        let first = board.read().unwrap();
        let _second = board.read().unwrap();
        assert!(board.read().is_none());
        drop(first);
        assert!(board.read().is_some());
    }
}
