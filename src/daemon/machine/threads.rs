//! How many threads run the daemon's tasks.

use std::thread::available_parallelism;

/// What smol reads the number from, when the first task is spawned.
const VARIABLE: &str = "SMOL_THREADS";

/// More bring nothing: one decides for the cluster, which is one task, and the other serves
/// connections.
const THREADS_MAX: usize = 2;

/// Has tasks run on two processors, where there are two and nobody says otherwise. Called once, before
/// there is a second thread.
///
/// On one, a manager that decides for tens of thousands of tasks does not hear thousands of nodes in
/// time, and takes them for lost.
#[expect(unsafe_code, reason = "the environment is the only way to say so")]
pub(crate) fn allow() {
    let processors = available_parallelism().map_or(1, std::num::NonZero::get);
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: there is no other thread, which could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, processors.min(THREADS_MAX).to_string()) };
    }
}
