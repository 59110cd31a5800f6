//! One thread, a virtual clock, a seed: enough to run a group of engines.

use crate::{
    consensus::local::{Context, Entered, Task, enter},
    types::Moment,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{self, Poll, Wake, Waker},
    time::Duration,
};

/// Polls without the clock moving: more means that something spins.
const POLLS_PER_INSTANT_MAX: u64 = 200_000;

type Timers = Arc<Mutex<(Moment, BTreeMap<(Moment, u64), Waker>)>>;

pub(crate) struct Executor {
    timers: Timers,
    ready: Arc<Mutex<Vec<u64>>>,
    tasks: RefCell<BTreeMap<u64, (u64, Task)>>,
    next: Cell<u64>,
    random: Cell<u64>,
    owner: Cell<u64>,
    /// A hash of what ran when.
    trace: Cell<u64>,
    /// How often anything of an owner was polled.
    polls: RefCell<BTreeMap<u64, u64>>,
}

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Ready {
    key: u64,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap();
        if !ready.contains(&self.key) {
            ready.push(self.key);
        }
    }
}

struct Sleep {
    timers: Timers,
    at: Moment,
    key: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut timers = self.timers.lock().unwrap();
        if timers.0 >= self.at {
            return Poll::Ready(());
        }
        timers.1.insert((self.at, self.key), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.timers.lock().unwrap().1.remove(&(self.at, self.key));
        drop(waker);
    }
}

impl Executor {
    /// Makes it this thread's. The guard goes last.
    pub(crate) fn enter(seed: u64) -> (Rc<Self>, Entered) {
        let executor = Rc::new(Self {
            timers: Arc::default(),
            ready: Arc::default(),
            tasks: RefCell::default(),
            next: Cell::new(0),
            random: Cell::new(seed),
            owner: Cell::new(0),
            trace: Cell::new(0),
            polls: RefCell::default(),
        });
        let entered = enter(Rc::clone(&executor) as Rc<dyn Context>);
        (executor, entered)
    }

    fn key(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    pub(crate) fn draw(&self) -> u64 {
        self.random.set(self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(self.random.get())
    }

    pub(crate) fn record(&self, value: u64) {
        self.trace.set(mix(self.trace.get() ^ value).wrapping_add(1));
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.get()
    }

    pub(crate) fn polls(&self, owner: u64) -> u64 {
        self.polls.borrow().get(&owner).copied().unwrap_or(0)
    }

    pub(crate) fn spawn_for(&self, owner: u64, future: impl Future<Output = ()> + Send + 'static) {
        let key = self.key();
        self.tasks.borrow_mut().insert(key, (owner, Box::pin(future)));
        self.ready.lock().unwrap().push(key);
    }

    /// Crashes a node: its tasks are gone.
    pub(crate) fn kill(&self, owner: u64) {
        let dead: Vec<_> = {
            let mut tasks = self.tasks.borrow_mut();
            tasks.extract_if(.., |_, (of, _)| *of == owner).collect()
        };
        drop(dead);
    }

    /// Runs until `done`, and returns whether that came to pass within `limit`.
    pub(crate) fn run(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = self.now() + limit;
        loop {
            let mut polls = 0;
            while let Some(key) = self.pick() {
                self.poll(key);
                polls += 1;
                assert!(polls < POLLS_PER_INSTANT_MAX, "something spins");
            }
            if done() {
                return true;
            }
            let due = {
                let mut timers = self.timers.lock().unwrap();
                let Some((at, _)) = timers.1.keys().next().copied().filter(|key| key.0 <= end)
                else {
                    timers.0 = timers.0.max(end);
                    return false;
                };
                timers.0 = at;
                let mut due = Vec::new();
                while let Some(first) = timers.1.first_entry()
                    && first.key().0 <= at
                {
                    due.push(first.remove());
                }
                due
            };
            due.into_iter().for_each(Waker::wake);
        }
    }

    /// Runs one future of an owner to its end.
    pub(crate) fn block_on<T: Send + 'static>(
        &self,
        owner: u64,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let slot = Arc::new(Mutex::new(None));
        let out = Arc::clone(&slot);
        self.spawn_for(owner, async move {
            let value = future.await;
            *out.lock().unwrap() = Some(value);
        });
        let ended = self.run(Duration::from_secs(600), || slot.lock().unwrap().is_some());
        assert!(ended, "it does not end");
        let value = slot.lock().unwrap().take();
        value.unwrap()
    }

    /// Draws one of the tasks that can run: every seed is another schedule.
    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.lock().unwrap();
        ready.retain(|key| self.tasks.borrow().contains_key(key));
        if ready.is_empty() {
            return None;
        }
        let at = usize::try_from(self.draw() % ready.len() as u64).unwrap();
        Some(ready.remove(at))
    }

    fn poll(&self, key: u64) {
        let Some((owner, mut task)) = self.tasks.borrow_mut().remove(&key) else { return };
        self.record(key ^ u64::try_from(self.now().since_origin().as_nanos()).unwrap());
        *self.polls.borrow_mut().entry(owner).or_default() += 1;
        let waker = Waker::from(Arc::new(Ready { key, ready: Arc::clone(&self.ready) }));
        let before = self.owner.replace(owner);
        // Woken while it is polled, it must be found: hence a place holder.
        self.tasks.borrow_mut().insert(key, (owner, Box::pin(std::future::pending())));
        let polled = task.as_mut().poll(&mut task::Context::from_waker(&waker));
        self.owner.set(before);
        let mut tasks = self.tasks.borrow_mut();
        match polled {
            Poll::Ready(()) => drop(tasks.remove(&key)),
            Poll::Pending => {
                if let Some(slot) = tasks.get_mut(&key) {
                    slot.1 = task;
                }
            }
        }
    }
}

impl Context for Executor {
    fn now(&self) -> Moment {
        self.timers.lock().unwrap().0
    }

    fn sleep_until(&self, at: Moment) -> Task {
        Box::pin(Sleep { timers: Arc::clone(&self.timers), at, key: self.key() })
    }

    fn spawn(&self, task: Task) {
        self.spawn_for(self.owner.get(), task);
    }

    fn random(&self) -> u64 {
        self.draw()
    }
}
