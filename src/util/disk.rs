//! What is wrong with a disk, as far as it can be told from an error.

use std::io;

/// Tells whether this may pass without anything being started anew: there is no room, which somebody
/// may make, or it may only be read, which somebody may change. What was written stays readable.
#[must_use]
pub fn may_pass(kind: io::ErrorKind) -> bool {
    no_room(kind) || kind == io::ErrorKind::ReadOnlyFilesystem
}

fn no_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns what a person can do about a disk that cannot be written, where that is known.
#[must_use]
pub fn advice(kind: io::ErrorKind) -> Option<&'static str> {
    if kind == io::ErrorKind::ReadOnlyFilesystem {
        Some(
            "the kernel makes a file system read-only when its disk fails: see `dmesg`, check the \
             file system or replace the disk, mount it for writing, and start again",
        )
    } else if no_room(kind) {
        Some("make room on the disk and start again")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind::{InvalidData, QuotaExceeded, ReadOnlyFilesystem, StorageFull};

    #[test]
    fn what_may_pass_has_an_advice() {
        for kind in [StorageFull, QuotaExceeded, ReadOnlyFilesystem] {
            assert!(may_pass(kind) && advice(kind).is_some(), "{kind}");
        }
        assert!(!may_pass(InvalidData) && advice(InvalidData).is_none());
    }
}
