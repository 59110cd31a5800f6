//! The clock.

use super::{super::facts::Clock, Where};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

pub(super) fn clock(place: &Where) -> Clock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let devices = fs::read_dir(place.at("/sys/class/rtc"));
    Clock {
        now: since.as_secs(),
        built: crate::pki::BUILD_DATE.unix_seconds(),
        synchronised: if place.is_here() { synchronised() } else { None },
        battery: devices.is_ok_and(|mut devices| devices.next().is_some()),
    }
}

/// Asks the kernel whether something keeps its clock right; none where it does not tell.
fn synchronised() -> Option<bool> {
    // SAFETY: the structure is made of integers alone, for which zero is a value.
    #[expect(unsafe_code, reason = "no safe wrapper of adjtimex is at hand")]
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to the structure, which is ours, and with no mode set nothing else.
    #[expect(unsafe_code, reason = "no safe wrapper of adjtimex is at hand")]
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    let is_kept = state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0;
    (state >= 0).then_some(is_kept)
}
