//! One thread, a virtual clock and a seeded stream: everything a run depends on.
//!
//! Tasks are polled in an order drawn from the seed; when none is ready the clock jumps to the
//! next timer. Every task belongs to an owner, which the tasks it spawns inherit; killing an owner
//! drops its tasks between two polls, as a crash would. Knows nothing of nodes or clusters.

use crate::{types::Moment, util::random::draw};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Who a task belongs to: one life of one node. 0 is the world, which never crashes.
pub(crate) type Owner = u64;

/// How many polls may pass without the clock moving: far above any burst of a healthy cluster.
const POLLS_PER_INSTANT_MAX: u64 = 2_000_000;

type BoxedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The owner of the task that is being polled.
    static CURRENT: Cell<Owner> = const { Cell::new(0) };
    /// The executor that runs on this thread, for code that is given none.
    static RUNNING: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

/// Returns the executor that runs on this thread.
pub(super) fn running() -> Executor {
    RUNNING.with_borrow(Clone::clone).expect("a simulation runs on this thread")
}

/// How an owner's disk behaves. Chances are in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) most: Duration,
    pub(crate) stalls: u64,
    pub(crate) stall: Duration,
    /// Whose disk stalls; none means everybody's.
    pub(crate) only: Option<Owner>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { most: Duration::from_millis(20), stalls: 0, stall: Duration::ZERO, only: None }
    }
}

#[derive(Default)]
struct Inner {
    now: Moment,
    next_key: u64,
    random: u64,
    tasks: BTreeMap<u64, (Owner, Option<BoxedFuture>)>,
    timers: BTreeMap<(Moment, u64), Waker>,
    paused: BTreeMap<Owner, Moment>,
    latency: Latency,
    /// A running hash of everything that was polled and said.
    trace: u64,
    /// How often anything was polled.
    polls: u64,
}

/// The executor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    inner: Arc<Mutex<Inner>>,
    /// In order of age, not of waking: the channels' libraries wake in an order of their own.
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct TaskWaker {
    key: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key);
    }
}

impl Executor {
    pub(crate) fn new(seed: u64) -> Self {
        let inner = Inner { random: seed, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), ready: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Moment {
        self.lock().now
    }

    pub(crate) fn random(&self) -> u64 {
        draw(&mut self.lock().random)
    }

    /// Draws a number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    /// Draws a time between two.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.below(span.saturating_add(1)))
    }

    /// Draws whether something of this chance (in thousandths) happens.
    pub(super) fn chance(&self, thousandths: u64) -> bool {
        self.below(1_000) < thousandths
    }

    /// Mixes something into the trace hash.
    pub(crate) fn record(&self, value: u64) {
        let mut inner = self.lock();
        let mut mixed = inner.trace ^ value;
        inner.trace = draw(&mut mixed);
    }

    pub(crate) fn set_latency(&self, latency: Latency) {
        self.lock().latency = latency;
    }

    /// Does blocking work as a disk would: it takes a while, and a crash meanwhile finds it done
    /// or not.
    pub(super) async fn offload<T>(&self, work: impl FnOnce() -> T + Send) -> T {
        let latency = self.lock().latency;
        let stalls =
            self.chance(latency.stalls) && latency.only.is_none_or(|owner| owner == CURRENT.get());
        let stall = if stalls { latency.stall } else { Duration::ZERO };
        let wait = self.between(Duration::from_micros(100), latency.most) + stall;
        if self.chance(500) {
            let result = work();
            self.sleep(wait).await;
            return result;
        }
        self.sleep(wait).await;
        work()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// Returns how often anything was polled.
    pub(crate) fn polls(&self) -> u64 {
        self.lock().polls
    }

    /// Spawns a task that belongs to whoever is being polled.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_for(CURRENT.get(), future);
    }

    pub(crate) fn spawn_for(
        &self,
        owner: Owner,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut inner = self.lock();
        inner.next_key += 1;
        let key = inner.next_key;
        inner.tasks.insert(key, (owner, Some(Box::pin(future))));
        drop(inner);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// Drops every task of an owner.
    pub(crate) fn kill(&self, owner: Owner) {
        let dead: Vec<_> = {
            let mut inner = self.lock();
            inner.paused.remove(&owner);
            inner.tasks.extract_if(.., |_, (of, _)| *of == owner).collect()
        };
        // Dropping may wake and lock.
        drop(dead);
    }

    /// Drops everything that runs or waits. Tasks hold the executor that holds them: without this
    /// they live for ever.
    pub(super) fn shut_down(&self) {
        let _running = Running::enter(self);
        loop {
            let (tasks, timers) = {
                let mut inner = self.lock();
                (std::mem::take(&mut inner.tasks), std::mem::take(&mut inner.timers))
            };
            if tasks.is_empty() && timers.is_empty() {
                return;
            }
            // Dropping may wake, lock and spawn.
            drop(tasks);
            drop(timers);
        }
    }

    /// Polls nothing of an owner for a while, as if it had been sent SIGSTOP.
    pub(super) fn pause(&self, owner: Owner, wait: Duration) {
        let mut inner = self.lock();
        let until = inner.now + wait;
        inner.paused.insert(owner, until);
    }

    pub(super) fn sleep_until(&self, at: Moment) -> Sleep {
        Sleep { executor: self.clone(), at, key: None }
    }

    pub(super) async fn sleep(&self, wait: Duration) {
        self.sleep_until(self.now() + wait).await;
    }

    /// Runs until `until`, or until `done` says so. Returns whether it did.
    pub(crate) fn run(&self, until: Moment, mut done: impl FnMut() -> bool) -> bool {
        let _running = Running::enter(self);
        let mut polls = 0;
        loop {
            if done() {
                return true;
            }
            while let Some(key) = self.pick() {
                self.poll(key);
                polls += 1;
                assert!(polls < POLLS_PER_INSTANT_MAX, "something polls in a loop");
                if done() {
                    return true;
                }
            }
            polls = 0;
            if !self.advance(until) {
                return false;
            }
        }
    }

    /// Runs one future of an owner to its end, which must come within `limit`.
    pub(crate) fn block_on<T: Send + 'static>(
        &self,
        owner: Owner,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (sender, result) = async_channel::bounded(1);
        self.spawn_for(owner, async move {
            let _wanted = sender.send(future.await).await;
        });
        let ended = self.run(self.now() + limit, || !result.is_empty());
        assert!(ended, "it does not end within {limit:?}");
        result.try_recv().expect("it ended")
    }

    /// Draws one of the ready tasks whose owner is not paused.
    fn pick(&self) -> Option<u64> {
        let mut inner = self.lock();
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.retain(|key| inner.tasks.contains_key(key));
        if ready.is_empty() {
            return None;
        }
        let is_held = |key: &&u64| {
            inner.tasks.get(*key).is_some_and(|task| inner.paused.contains_key(&task.0))
        };
        let open = ready.iter().filter(|key| !is_held(key)).count();
        let mut random = inner.random;
        let drawn = draw(&mut random) % u64::try_from(open).expect("a usize fits").max(1);
        let drawn = usize::try_from(drawn).expect("it is below a usize");
        let key = ready.iter().filter(|key| !is_held(key)).nth(drawn).copied()?;
        inner.random = random;
        ready.remove(&key);
        Some(key)
    }

    fn poll(&self, key: u64) {
        let Some((owner, mut future)) = ({
            let mut inner = self.lock();
            let now = inner.now.since_origin().as_nanos();
            let mut mixed = inner.trace ^ key ^ u64::try_from(now).unwrap_or(u64::MAX);
            inner.trace = draw(&mut mixed);
            inner.polls += 1;
            inner.tasks.get_mut(&key).and_then(|(owner, future)| Some((*owner, future.take()?)))
        }) else {
            return;
        };
        let waker = Waker::from(Arc::new(TaskWaker { key, ready: Arc::clone(&self.ready) }));
        let before = CURRENT.replace(owner);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        CURRENT.set(before);
        let mut inner = self.lock();
        match (polled, inner.tasks.get_mut(&key)) {
            (Poll::Pending, Some((_, slot))) => *slot = Some(future),
            (Poll::Ready(()), Some(_)) => {
                inner.tasks.remove(&key);
                drop(inner);
            }
            // Killed while it ran.
            (_, None) => drop(inner),
        }
    }

    /// Moves the clock to the next timer, at most to `until`.
    fn advance(&self, until: Moment) -> bool {
        let mut inner = self.lock();
        let timer = inner.timers.keys().next().map(|(at, _)| *at);
        let resume = inner.paused.values().min().copied();
        let next = timer.into_iter().chain(resume).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            inner.now = inner.now.max(until);
            return false;
        };
        inner.now = inner.now.max(next);
        let now = inner.now;
        inner.paused.retain(|_, end| *end > now);
        let mut due = Vec::new();
        while let Some(entry) = inner.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        drop(inner);
        due.into_iter().for_each(Waker::wake);
        true
    }
}

/// A wait on the virtual clock.
pub(super) struct Sleep {
    executor: Executor,
    at: Moment,
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor.clone();
        let mut inner = executor.lock();
        if inner.now >= self.at {
            return Poll::Ready(());
        }
        let key = match self.key {
            Some(key) => key,
            None => {
                inner.next_key += 1;
                inner.next_key
            }
        };
        self.key = Some(key);
        inner.timers.insert((self.at, key), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.executor.lock().timers.remove(&(self.at, key));
            drop(waker);
        }
    }
}

/// Makes an executor the thread's, until dropped.
struct Running(Option<Executor>);

impl Running {
    fn enter(executor: &Executor) -> Self {
        Self(RUNNING.replace(Some(executor.clone())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(RUNNING.replace(self.0.take()));
    }
}
