//! The few signal calls that the standard library and rustix lack, for the modes of the executable
//! that run as processes of their own.

#![expect(unsafe_code, reason = "no safe wrapper of sigaction, sigwaitinfo and kill is at hand")]

use std::mem::MaybeUninit;

/// Ignores a signal from now on.
pub(super) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Keeps every signal from being delivered, so that [`wait`] can fetch them.
pub(super) fn block_all() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is filled before it is read, and the mask is this thread's own.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Waits for the next signal, and returns its number.
pub(super) fn wait() -> i32 {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is filled before it is read; no further information is asked for.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::sigwaitinfo(set.as_ptr(), std::ptr::null_mut())
    }
}

/// Sends any signal, real-time ones included. A process that is gone is no error.
pub(super) fn send(process: i32, signal: i32) {
    // SAFETY: kill reads no memory of ours.
    unsafe { libc::kill(process, signal) };
}
