//! Identifiers: 25 characters of base 36, as Swarm's, so that tables and scripts need no change.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The length of every id in characters: 128 bits in base 36, left-padded with zeros.
pub const ID_LEN: usize = 25;

const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A source of randomness handed to pure code: the caller decides whether it is the operating
/// system's or a seeded stream.
pub trait Entropy {
    /// Returns the next 64 bits.
    fn next_u64(&mut self) -> u64;

    /// Returns the next 128 bits.
    fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }
}

/// The text is not an id: wrong length, or a character outside `0-9a-z`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: {ID_LEN} characters of 0-9 and a-z are expected")]
pub struct InvalidId(pub String);

/// Renders 128 bits as base 36, left-padded to [`ID_LEN`].
fn encode_base36(mut bits: u128) -> [u8; ID_LEN] {
    let mut digits = [b'0'; ID_LEN];
    for digit in digits.iter_mut().rev() {
        let value = usize::try_from(bits % 36).expect("a remainder of 36 fits");
        *digit = BASE36[value];
        bits /= 36;
    }
    assert!(bits == 0, "128 bits fit in 25 digits of base 36");
    digits
}

fn parse_base36(text: &str) -> Result<[u8; ID_LEN], InvalidId> {
    let fits = text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let digits = text.as_bytes().try_into().ok().filter(|_| fits);
    digits.ok_or_else(|| InvalidId(text.to_owned()))
}

/// Takes the digits out of what is read, without a text of its own.
struct Digits;

impl de::Visitor<'_> for Digits {
    type Value = [u8; ID_LEN];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse_base36(text).map_err(E::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        // Its digits, and no text on the heap: a manager holds some ten ids a task, and copies them
        // with each decision.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// The first in order.
            pub const MIN: Self = Self([b'0'; ID_LEN]);

            /// The last in order.
            pub const MAX: Self = Self([b'z'; ID_LEN]);

            /// Draws a fresh id.
            pub fn generate(entropy: &mut dyn Entropy) -> Self {
                Self(encode_base36(entropy.next_u128()))
            }

            /// Derives the id that belongs to these 128 bits, for ids that both ends compute.
            #[must_use]
            pub fn from_bits(bits: u128) -> Self {
                Self(encode_base36(bits))
            }

            /// Parses an id.
            ///
            /// # Errors
            ///
            /// The text is not 25 characters of `0-9a-z`.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                parse_base36(text).map(Self)
            }

            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("digits and letters are ASCII")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.as_str().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Digits).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

id!(
    /// Names a cluster; the O of every certificate in it.
    ClusterId
);
id!(
    /// Names a node; the CN of its certificate.
    NodeId
);
id!(
    /// Names a service.
    ServiceId
);
id!(
    /// Names a task.
    TaskId
);
id!(
    /// Names a network.
    NetworkId
);
id!(
    /// Names one request to change the cluster, so that a retry of it is recognised.
    RequestId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_25_digits_of_base_36() {
        assert_eq!(NodeId::from_bits(0).as_str(), "0".repeat(25));
        assert_eq!(NodeId::from_bits(35).as_str(), format!("{}z", "0".repeat(24)));
        assert_eq!(NodeId::from_bits(u128::MAX).as_str().len(), ID_LEN);
        assert!(NodeId::parse(NodeId::from_bits(u128::MAX).as_str()).is_ok());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "abc", &"A".repeat(25), &"-".repeat(25), &"a".repeat(26)] {
            assert_eq!(NodeId::parse(text), Err(InvalidId(text.to_owned())));
        }
    }
}
