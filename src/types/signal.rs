//! Signals: their numbers and the names that tasks and images write.

/// The signal that asks a container to stop where neither task nor image names one.
pub const TERM: u32 = 15;

/// Cannot be caught.
pub const KILL: u32 = 9;

/// Says that the terminal is gone.
pub const HANG_UP: u32 = 1;

/// The signals of Linux on every processor that midge runs on, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The real-time signals that programs may use, as the C library numbers them: it keeps the first two,
/// 32 and 33, for itself.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// Returns the number of a signal written as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`, in any case; none
/// where there is no such signal.
#[must_use]
pub fn parse(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name {
        "POLL" => "IO",
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        other => other,
    };
    if let Some(index) = NAMES.iter().position(|known| *known == number) {
        return u32::try_from(index + 1).ok();
    }
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(text: &str, sign: char) -> Option<u32> {
    if text.is_empty() { Some(0) } else { text.strip_prefix(sign)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_are_known_by_every_name() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMIN", Some(34)),
            ("RTMAX-1", Some(63)),
            ("SIGSYS", Some(31)),
            ("SIG", None),
            ("SIGWINCH", Some(28)),
            ("SIGIOT", Some(6)),
            ("RTMIN+40", None),
            ("0", None),
            ("65", None),
            ("SIGX", None),
            ("", None),
        ] {
            assert_eq!(super::parse(text), number, "{text}");
        }
    }
}
