//! How many threads run the daemon's tasks, and whether they all go on to the next one.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, ThreadId, available_parallelism},
    time::Duration,
};

/// What smol reads the number from, when the first task is spawned.
const VARIABLE: &str = "SMOL_THREADS";

/// More bring nothing: one decides for the cluster, which is one task, and the other serves
/// connections.
const THREADS_MAX: usize = 2;

/// How long a thread that has shown itself keeps still, so that the next task falls to another one.
/// A thread without work takes it within microseconds.
const HOLD: Duration = Duration::from_millis(10);

/// How long to wait before the threads that have not shown themselves are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Has tasks run on two processors, where there are two and nobody says otherwise. Called once, before
/// there is a second thread.
///
/// On one, a manager that decides for tens of thousands of tasks does not hear thousands of nodes in
/// time, and takes them for lost.
#[expect(unsafe_code, reason = "the environment is the only way to say so")]
pub(crate) fn allow() {
    let processors = available_parallelism().map_or(1, std::num::NonZero::get);
    if let Some(threads) = wanted(processors, std::env::var_os(VARIABLE)) {
        // SAFETY: there is no other thread, which could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
    }
}

/// Returns how many threads to ask for; none where somebody has done so.
fn wanted(processors: usize, said: Option<OsString>) -> Option<usize> {
    said.is_none().then(|| processors.min(THREADS_MAX))
}

/// Returns how many threads run tasks.
pub(crate) fn count() -> usize {
    count_of(std::env::var_os(VARIABLE).as_deref())
}

/// Reads the number as smol does. Without any thread there would be nobody to ask.
fn count_of(said: Option<&OsStr>) -> usize {
    said.and_then(OsStr::to_str).and_then(|said| said.parse().ok()).map_or(1, |it: usize| it.max(1))
}

/// A task as an executor takes it.
type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns once each of the `threads` that run what is given to `spawn` has gone on to another task;
/// never, where one of them hangs in a task that does not give it back.
///
/// A thread shows itself by running a task of this function's. Were these to end at once, one thread
/// could run them all: so whichever has one in hand keeps still for [`HOLD`], or until all are seen.
/// That is proof, since a thread counts by its own id, and nobody else runs such tasks.
pub(crate) async fn all_go_on(spawn: impl Fn(Boxed) -> smol::Task<()>, threads: usize) {
    let seen = Arc::new(Seen { threads, ids: Mutex::default(), all: Condvar::new() });
    loop {
        let shown: Vec<_> = (0..threads)
            .map(|_| {
                let seen = Arc::clone(&seen);
                spawn(Box::pin(async move { seen.show() }))
            })
            .collect();
        for shown in shown {
            shown.await;
        }
        if seen.is_all() {
            return;
        }
        smol::Timer::after(LOOK_AGAIN).await;
    }
}

/// The threads that have shown themselves.
struct Seen {
    threads: usize,
    ids: Mutex<HashSet<ThreadId>>,
    all: Condvar,
}

impl Seen {
    fn is_all(&self) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.threads
    }

    /// Notes the thread that this is called on, and keeps it from other work for a moment.
    fn show(&self) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(thread::current().id());
        if ids.len() >= self.threads {
            self.all.notify_all();
        } else {
            drop(self.all.wait_timeout_while(ids, HOLD, |ids| ids.len() < self.threads));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::FutureExt as _;
    use smol::Executor;
    use std::sync::mpsc;

    #[test]
    fn there_are_as_many_as_bring_something_or_as_were_asked_for() {
        assert_eq!(wanted(1, None), Some(1));
        assert_eq!(wanted(64, None), Some(THREADS_MAX));
        assert_eq!(wanted(64, Some("8".into())), None);
        assert_eq!(count_of(Some("8".as_ref())), 8);
        for said in [None, Some("many".as_ref()), Some("0".as_ref())] {
            assert_eq!(count_of(said), 1, "{said:?}");
        }
    }

    /// Runs an executor on so many threads.
    fn executor(threads: usize) -> &'static Executor<'static> {
        let executor: &Executor<'static> = Box::leak(Box::new(Executor::new()));
        for _ in 0..threads {
            thread::spawn(move || smol::block_on(executor.run(std::future::pending::<()>())));
        }
        executor
    }

    #[test]
    fn a_thread_that_hangs_is_noticed_although_another_goes_on() {
        let executor = executor(3);
        let mut check = Box::pin(all_go_on(|task| executor.spawn(task), 3));
        smol::block_on(&mut check);

        let (hangs, hung) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let hanging = executor.spawn(async move {
            hangs.send(()).unwrap();
            // Until it is let go of.
            released.recv().ok();
        });
        hung.recv().unwrap();
        let mut check = Box::pin(all_go_on(|task| executor.spawn(task), 3));
        let late = async {
            smol::Timer::after(HOLD * 5).await;
            false
        };
        let went_on = async {
            (&mut check).await;
            true
        };
        assert!(!smol::block_on(went_on.or(late)), "two of three go on");
        smol::block_on(executor.spawn(async {}));
        drop(release);
        smol::block_on(hanging);
        smol::block_on(check);
    }
}
