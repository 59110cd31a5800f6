//! How little memory the daemon keeps.

use std::{fs, ops::Range, time::Duration};

/// How often what is not used is given back: what is used after all costs a fault without I/O when it
/// is next touched.
const EVERY: Duration = Duration::from_secs(60);

/// Has all threads share one heap. Called once, before there is a second thread.
///
/// glibc gives each thread a heap of its own, against contention that this program does not have:
/// it waits for disks, containerd and other nodes. What a burst of work leaves free in one of them
/// serves no other thread and is seldom given back, which cost an idle manager up to 5 MiB.
#[expect(unsafe_code, reason = "the C library's settings have no safe call")]
pub(crate) fn share_heap() {
    // SAFETY: it reads two integers, and no other thread allocates meanwhile.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "glibc knows the setting");
}

/// Gives back what is not used, for as long as the daemon runs.
///
/// The kernel maps sixteen pages of the executable around each that is run, and holds what is mapped
/// for used. So after a start nearly all of it counts as used, though an idle node runs little of it.
pub(crate) async fn stay_small() {
    let code = fs::read_to_string("/proc/self/maps").ok().as_deref().and_then(code_in);
    loop {
        smol::Timer::after(EVERY).await;
        give_back(code.as_ref());
    }
}

#[expect(unsafe_code, reason = "neither call has a safe form")]
fn give_back(code: Option<&Range<usize>>) {
    if let Some(code) = code {
        let start = std::ptr::with_exposed_provenance_mut(code.start);
        // SAFETY: nobody writes to this mapping, or could; what of it is run or read next is what
        // was there before, since the kernel takes it from the same file.
        let advised = unsafe { libc::madvise(start, code.len(), libc::MADV_DONTNEED) };
        debug_assert_eq!(advised, 0, "the code is mapped");
    }
    // SAFETY: it gives back only what is free, and takes the allocator's own lock.
    unsafe { libc::malloc_trim(0) };
}

/// Returns where the program's code lies, by what the kernel says of its memory: the first mapping
/// that may be run and not be written to.
fn code_in(maps: &str) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("r-xp ").then_some(address(start)?..address(end)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_may_be_run_and_not_be_written_to() {
        let maps = "00200000-00604000 r--p 00000000 fe:00 10 /usr/bin/midge\n\
                    00604000-01055000 r-xp 00403000 fe:00 10 /usr/bin/midge\n\
                    01055000-0105a000 r--p 00e53000 fe:00 10 /usr/bin/midge\n\
                    7ffd9a5f2000-7ffd9a5f4000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(code_in(maps), Some(0x60_4000..0x105_5000));
        let odd = "00604000-01055000 rwxp 00403000 fe:00 10 /usr/bin/midge\nnonsense\n";
        assert_eq!(code_in(odd), None);
    }

    #[test]
    fn what_is_given_back_comes_again() {
        let maps = fs::read_to_string("/proc/self/maps").expect("the kernel tells");
        let code = code_in(&maps).expect("a test has code");
        let here = what_is_given_back_comes_again as fn() as usize;
        assert!(code.contains(&here), "this program's own code comes first");
        give_back(Some(&code));
        let after = fs::read_to_string("/proc/self/maps").expect("it goes on to run");
        assert_eq!(code_in(&after), Some(code));
    }
}
