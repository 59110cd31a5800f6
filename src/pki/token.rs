//! The text of a join token: `SWMTKN-1-<root digest>-<secret>`.
//!
//! The digest lets a joining node tell the cluster's root before it trusts anything; the secret
//! admits it. Both halves are base 36, left-padded: 50 digits for 256 bits, 25 for 128.

use crate::types::JoinToken;
use std::fmt;

const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;
const PREFIX: &str = "SWMTKN";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A join token taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenText {
    /// SHA-256 of the root certificate, DER.
    pub root_digest: [u8; 32],
    /// What admits the node.
    pub secret: JoinToken,
}

/// The text is no join token. Never repeats the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as one.
    #[error("not a join token: it must begin with SWMTKN-1-")]
    NotAToken,
    /// Another version of the format.
    #[error("join token of version {0:?}, but only version 1 is known")]
    WrongVersion(String),
    /// Cut off.
    #[error("the join token is cut off: its {part} has {found} of {expected} characters")]
    Truncated {
        /// `digest` or `secret`.
        part: &'static str,
        /// How many are expected.
        expected: usize,
        /// How many are there.
        found: usize,
    },
    /// Something was added.
    #[error("the join token is too long: its {part} has {found} characters instead of {expected}")]
    TooLong {
        /// `digest` or `secret`.
        part: &'static str,
        /// How many are expected.
        expected: usize,
        /// How many are there.
        found: usize,
    },
    /// A character that no token has, or digits that stand for more than fits.
    #[error("the {part} of the join token has characters that cannot be: 0-9 and a-z are expected")]
    BadCharacters {
        /// `digest` or `secret`.
        part: &'static str,
    },
}

impl TokenText {
    /// Parses the text, white space around it aside.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().splitn(4, '-');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError::NotAToken);
        }
        match parts.next() {
            Some("1") => {}
            Some(other) if other.len() <= 8 => {
                return Err(TokenError::WrongVersion(other.to_owned()));
            }
            _ => return Err(TokenError::NotAToken),
        }
        let digest = digits(parts.next().unwrap_or(""), "digest", DIGEST_DIGITS)?;
        let secret = digits(parts.next().unwrap_or(""), "secret", SECRET_DIGITS)?;
        let root_digest =
            decode::<32>(digest).ok_or(TokenError::BadCharacters { part: "digest" })?;
        let secret = decode::<16>(secret).ok_or(TokenError::BadCharacters { part: "secret" })?;
        Ok(Self { root_digest, secret: JoinToken(u128::from_be_bytes(secret)) })
    }
}

impl fmt::Display for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = encode(&self.root_digest, DIGEST_DIGITS);
        let secret = encode(&self.secret.0.to_be_bytes(), SECRET_DIGITS);
        write!(f, "{PREFIX}-1-{digest}-{secret}")
    }
}

/// Returns `text` where it has the right length.
fn digits<'a>(text: &'a str, part: &'static str, expected: usize) -> Result<&'a str, TokenError> {
    let found = text.chars().count();
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(TokenError::Truncated { part, expected, found }),
        std::cmp::Ordering::Greater => Err(TokenError::TooLong { part, expected, found }),
        std::cmp::Ordering::Equal => Ok(text),
    }
}

/// Returns the number in base 36 as so many big-endian bytes; none where a character is no digit
/// or the number does not fit.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for character in text.bytes() {
        let digit = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'z' => character - b'a' + 10,
            _ => return None,
        };
        let mut carry = u32::from(digit);
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * 36;
            *byte = carry.to_be_bytes()[3];
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// Returns the big-endian number in base 36, left-padded to `width` digits.
fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![b'0'; width];
    for place in text.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = (value / 36).to_be_bytes()[3];
            remainder = value % 36;
        }
        *place = BASE36[remainder as usize];
    }
    assert!(number.iter().all(|byte| *byte == 0), "the width holds every number of this size");
    text.iter().map(|digit| char::from(*digit)).collect()
}
