//! Seals records, so that nothing of the cluster is readable on a disk that was thrown away.
//!
//! Sealed from the first entry on: free pages of the file keep what was once written. Knows no
//! key but the one it is given; who holds it is `pki`'s affair.

use ring::aead::{self, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
};

/// The first byte of every sealed record: the envelope's format.
const ENVELOPE: u8 = 1;

/// Format, key id and nonce.
const HEADER_LEN: usize = 1 + 4 + NONCE_LEN;

/// Seals with a key, and opens what was sealed with it.
pub struct Sealer {
    id: u32,
    key: LessSafeKey,
    random: Box<dyn Fn() -> [u8; NONCE_LEN] + Send + Sync>,
    nonces: Mutex<Nonces>,
}

/// Where nonces come from: 64 random bits drawn at start, then a counter of 32.
///
/// The counter keeps the records of one run apart; the random part keeps runs apart, even where
/// the file was put back to an older state, which a counter kept in the file could not. Only runs
/// can collide, not records: after a million starts the chance that any two did is below 2^-24.
struct Nonces {
    prefix: [u8; 8],
    counter: u32,
}

impl fmt::Debug for Sealer {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("id", &self.id).finish_non_exhaustive()
    }
}

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the key is as long as it is");
    LessSafeKey::new(key)
}

fn prefix(random: [u8; NONCE_LEN]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&random[..8]);
    prefix
}

impl Sealer {
    /// Makes a sealer with the key named `id`. `random` gives random bits: the operating system's,
    /// or a simulation's.
    #[must_use]
    pub fn new(
        id: u32,
        bytes: &[u8; 32],
        random: impl Fn() -> [u8; NONCE_LEN] + Send + Sync + 'static,
    ) -> Self {
        let nonces = Mutex::new(Nonces { prefix: prefix(random()), counter: 0 });
        Self { id, key: key(bytes), random: Box::new(random), nonces }
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.counter = nonces.counter.wrapping_add(1);
        if nonces.counter == 0 {
            nonces.prefix = prefix((self.random)());
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&nonces.prefix);
        nonce[8..].copy_from_slice(&nonces.counter.to_le_bytes());
        nonce
    }

    /// Seals `plain` for its place: it opens nowhere else.
    pub(super) fn seal(&self, place: &Place, plain: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
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
    /// What is known of the snapshot beside its pieces.
    Snapshot,
    /// A piece of a snapshot.
    Chunk {
        /// Which snapshot of the file.
        generation: u64,
        /// Which piece of it, from 0.
        number: u64,
    },
}

impl Place {
    fn bytes(self) -> [u8; 17] {
        let (kind, first, second) = match self {
            Self::Entry(index) => (1, index, 0),
            Self::Snapshot => (2, 0, 0),
            Self::Chunk { generation, number } => (3, generation, number),
        };
        let mut bytes = [kind; 17];
        bytes[1..9].copy_from_slice(&first.to_le_bytes());
        bytes[9..].copy_from_slice(&second.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(index) => write!(f, "log entry {index}"),
            Self::Snapshot => f.write_str("the snapshot's record"),
            Self::Chunk { number, .. } => write!(f, "piece {number} of the snapshot"),
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

    #[test]
    fn no_nonce_comes_twice() {
        let drawn = std::sync::atomic::AtomicU8::new(0);
        let random = move || [drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed); NONCE_LEN];
        let sealer = Sealer::new(1, &[1; 32], random);
        sealer.nonces.lock().unwrap().counter = u32::MAX - 500;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(sealer.nonce()), "also when the counter wraps");
        }
    }
}
