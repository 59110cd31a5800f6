//! Seals records, so that nothing of the cluster is readable on a disk that was thrown away.
//!
//! Sealed from the first entry on: free pages of the file keep what was once written. Knows no
//! key but the one it is given; who holds it is `pki`'s affair.

use ring::aead::{self, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{fmt, io};

/// The first byte of every sealed record: the envelope's format.
const ENVELOPE: u8 = 1;

/// Format, key id and nonce.
const HEADER_LEN: usize = 1 + 4 + NONCE_LEN;

/// Seals and opens with one key.
pub struct Sealer {
    id: u32,
    key: LessSafeKey,
    random: Box<dyn Fn() -> [u8; NONCE_LEN] + Send + Sync>,
}

impl fmt::Debug for Sealer {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Makes a sealer with the key named `id`. `random` draws nonces: 96 random bits, which stay
    /// unique for as many records (2^32) as a cluster writes in decades.
    #[must_use]
    pub fn new(
        id: u32,
        key: &[u8; 32],
        random: impl Fn() -> [u8; NONCE_LEN] + Send + Sync + 'static,
    ) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key is as long as it is");
        Self { id, key: LessSafeKey::new(key), random: Box::new(random) }
    }

    /// Seals `plain` for its place: it opens nowhere else.
    pub(super) fn seal(&self, place: &Place, plain: &[u8]) -> Vec<u8> {
        let nonce = (self.random)();
        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + aead::MAX_TAG_LEN);
        sealed.push(ENVELOPE);
        sealed.extend_from_slice(&self.id.to_le_bytes());
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        let aad = Aad::from(place.bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .expect("a record is far shorter than the cipher's limit of 256 GiB");
        sealed.append(&mut body);
        sealed
    }

    /// Opens what was sealed for `place`.
    pub(super) fn open(&self, place: &Place, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = |why: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{place} cannot be opened: {why}"))
        };
        let Some((header, body)) = sealed.split_at_checked(HEADER_LEN) else {
            return Err(damaged("it is cut short"));
        };
        if header[0] != ENVELOPE {
            return Err(damaged("it was sealed by a newer midge"));
        }
        let id = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        if id != self.id {
            return Err(damaged("it was sealed with another key"));
        }
        let nonce = Nonce::try_assume_unique_for_key(&header[5..])
            .map_err(|_| damaged("it is cut short"))?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(place.bytes()), &mut body)
            .map_err(|_| damaged("it was changed, or its key is not this node's"))?;
        let length = plain.len();
        body.truncate(length);
        Ok(body)
    }
}

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A log entry.
    Entry(u64),
    /// The state of a snapshot.
    Snapshot,
}

impl Place {
    fn bytes(self) -> [u8; 9] {
        let (kind, index) = match self {
            Self::Entry(index) => (1, index),
            Self::Snapshot => (2, 0),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&index.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(index) => write!(f, "log entry {index}"),
            Self::Snapshot => f.write_str("the snapshot"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(id: u32, key: u8) -> Sealer {
        Sealer::new(id, &[key; 32], || [7; NONCE_LEN])
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let sealed = sealer(1, 1).seal(&Place::Entry(5), b"secret words");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(sealer(1, 1).open(&Place::Entry(5), &sealed).unwrap(), b"secret words");
        for (sealer, place) in [
            (sealer(1, 1), Place::Entry(6)),
            (sealer(1, 1), Place::Snapshot),
            (sealer(2, 1), Place::Entry(5)),
            (sealer(1, 2), Place::Entry(5)),
        ] {
            assert!(sealer.open(&place, &sealed).is_err());
        }
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let sealed = sealer(1, 1).seal(&Place::Snapshot, b"x");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer(1, 1).open(&Place::Snapshot, &changed).is_err(), "byte {at}");
            assert!(sealer(1, 1).open(&Place::Snapshot, &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
