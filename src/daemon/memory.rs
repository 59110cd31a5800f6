//! How the allocator keeps memory.

/// Has all threads share one heap. Called once, before there is a second thread.
///
/// glibc gives each thread a heap of its own, against contention that this program does not have:
/// it waits for disks, containerd and other nodes. What a burst of work leaves free in one of them
/// serves no other thread and is seldom given back, which cost an idle manager up to 5 MiB.
#[expect(unsafe_code, reason = "the C library's settings have no safe call")]
pub(super) fn share_heap() {
    // SAFETY: it reads two integers, and no other thread allocates meanwhile.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "glibc knows the setting");
}
