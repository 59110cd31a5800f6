//! Signals: their names and numbers.

/// The signals Linux has names for, with their numbers being 1 to 31 in this order.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The highest signal number.
const SIGNAL_MAX: u32 = 64;

/// Returns the number of a signal named `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`, in any case.
#[must_use]
pub fn signal_number(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=SIGNAL_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(above) = name.strip_prefix("RTMIN") {
        // glibc and musl keep the first two (32, 33) for themselves.
        return offset(above, '+').map(|n| 34 + n).filter(|n| *n <= SIGNAL_MAX);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        return offset(below, '-').and_then(|n| SIGNAL_MAX.checked_sub(n)).filter(|n| *n >= 34);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    let index = SIGNALS.iter().position(|known| *known == name)?;
    u32::try_from(index + 1).ok()
}

/// Returns the number behind `sign`, or 0 where there is nothing at all.
fn offset(text: &str, sign: char) -> Option<u32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok().filter(|n| *n <= SIGNAL_MAX)
}
