//! What a service or a host may be called.

/// The longest service name in characters: a DNS label.
pub const SERVICE_NAME_MAX: usize = 63;

/// A name that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("name must be provided")]
    Empty,
    /// More than [`SERVICE_NAME_MAX`] characters.
    #[error("name must be 63 characters or fewer")]
    TooLong,
    /// A character that a DNS label does not hold. The text is Swarm's.
    #[error("name must be valid as a DNS name component")]
    NotDnsLabel,
    /// Not a host name.
    #[error("hostname {0:?} is not valid: letters, digits, '-' and '.' are allowed")]
    NotHostname(String),
}

/// Checks a service name as Swarm does: letters, digits, `-` and `_`, beginning and ending with a
/// letter or digit, at most 63.
///
/// # Errors
///
/// The first rule that the name breaks.
pub fn validate_service_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if !edge(bytes.first()) || !edge(bytes.last()) || !bytes.iter().all(|b| inner(*b)) {
        return Err(InvalidName::NotDnsLabel);
    }
    if bytes.len() > SERVICE_NAME_MAX {
        return Err(InvalidName::TooLong);
    }
    Ok(())
}

/// Checks a host name for a container: at most 253 characters of letters, digits, `-`, `_`, `.`.
///
/// # Errors
///
/// The name holds something else.
pub fn validate_hostname(name: &str) -> Result<(), InvalidName> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(InvalidName::NotHostname(name.to_owned())) }
}

/// The longest name of a volume: a folder is named after it, and file systems end at 255 bytes.
const VOLUME_NAME_MAX: usize = 255;

/// Tells whether the text can be a volume's name, by Docker's rule, which keeps it from being a
/// path: at least two characters of `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[must_use]
pub fn is_volume_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric();
    (2..=VOLUME_NAME_MAX).contains(&name.len())
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_dns_labels() {
        for good in ["web", "A_b", "a-b", "1", &"a".repeat(63)] {
            assert_eq!(validate_service_name(good), Ok(()), "{good}");
        }
        assert_eq!(validate_service_name(""), Err(InvalidName::Empty));
        for bad in ["a.b", "-a", "a-", "a b", "ä"] {
            assert_eq!(validate_service_name(bad), Err(InvalidName::NotDnsLabel), "{bad}");
        }
        assert_eq!(validate_service_name(&"a".repeat(64)), Err(InvalidName::TooLong));
    }

    #[test]
    fn volume_names_are_no_paths() {
        for good in ["ab", "A.b_c-1", "1a", &"a".repeat(255)] {
            assert!(is_volume_name(good), "{good}");
        }
        for bad in ["", "a", ".a", "-a", "a/b", "..", "a b", &"a".repeat(256)] {
            assert!(!is_volume_name(bad), "{bad}");
        }
    }
}
