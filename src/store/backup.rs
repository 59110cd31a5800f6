//! Files that a passphrase opens: what leaves the node for a drawer.
//!
//! A header in the clear (what it is, its format, how the key is made of the passphrase), then one
//! sealed piece. The header is bound into the seal. Knows nothing of what is inside.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// The largest content: the largest state that a manager reads back, and what belongs to it.
pub const CONTENT_MAX: usize = crate::consensus::SNAPSHOT_MAX + (64 << 10);

const CHACHA20_POLY1305_TAG: usize = 16;

const MAGIC: [u8; 8] = *b"mgBACKUP";

/// The only format so far.
const FORMAT: u8 = 1;

/// 32 MiB for less than a second: a board of 512 MB bears it beside its containers, and whoever
/// tries passphrases on graphics cards pays the same memory for each. OWASP asks for 19 MiB.
const MEMORY_KIB: u32 = 32 << 10;

/// How often that memory is gone over.
const PASSES: u32 = 3;

/// What is read: a foreign file must not make this process take gigabytes, nor minutes.
const MEMORY_KIB_MAX: u32 = 256 << 10;

/// The same, for its passes.
const PASSES_MAX: u32 = 16;

const SALT_LEN: usize = 16;
const CHECK_LEN: usize = 16;

/// Magic, format, memory, passes, salt, check, nonce, and the length of the content.
const HEADER_LEN: usize = 8 + 1 + 4 + 4 + SALT_LEN + CHECK_LEN + NONCE_LEN + 8;

/// Why a file does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFileError {
    /// It is something else.
    #[error("the file is no backup of a cluster")]
    NotOurs,
    /// A newer midge wrote it.
    #[error(
        "the backup was written by a newer midge (format {found}); this one reads up to {FORMAT}"
    )]
    Newer {
        /// Its format.
        found: u8,
    },
    /// Its end is missing.
    #[error("the backup is cut short: {found} of its {expected} bytes are there")]
    Short {
        /// How long it is.
        found: u64,
        /// How long it should be.
        expected: u64,
    },
    /// The passphrase is not the one it was made with.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// It is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
}

/// The header's fields.
struct Header {
    memory_kib: u32,
    passes: u32,
    salt: [u8; SALT_LEN],
    /// Drawn from the passphrase beside the key: tells a wrong one from a damaged file.
    check: [u8; CHECK_LEN],
    nonce: [u8; NONCE_LEN],
    content_len: u64,
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        bytes.extend(self.memory_kib.to_le_bytes());
        bytes.extend(self.passes.to_le_bytes());
        bytes.extend(self.salt);
        bytes.extend(self.check);
        bytes.extend(self.nonce);
        bytes.extend(self.content_len.to_le_bytes());
        assert!(bytes.len() == HEADER_LEN, "every field has its length");
        bytes
    }

    fn parse(file: &[u8]) -> Result<Self, OpenFileError> {
        let rest = file.strip_prefix(&MAGIC).ok_or(OpenFileError::NotOurs)?;
        match rest.first() {
            Some(&FORMAT) => {}
            Some(0) => return Err(OpenFileError::NotOurs),
            Some(found) => return Err(OpenFileError::Newer { found: *found }),
            None => return Err(short(file, HEADER_LEN)),
        }
        if file.len() < HEADER_LEN {
            return Err(short(file, HEADER_LEN));
        }
        let mut rest = &rest[1..];
        Ok(Self {
            memory_kib: u32::from_le_bytes(take(&mut rest)),
            passes: u32::from_le_bytes(take(&mut rest)),
            salt: take(&mut rest),
            check: take(&mut rest),
            nonce: take(&mut rest),
            content_len: u64::from_le_bytes(take(&mut rest)),
        })
    }

    /// Makes the key, and what tells whether the passphrase is right.
    fn derive(&self, passphrase: &str) -> Result<([u8; 32], [u8; CHECK_LEN]), OpenFileError> {
        let unusual = OpenFileError::Damaged("it asks for more memory or time than any backup");
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return Err(unusual);
        }
        let length = Some(32 + CHECK_LEN);
        let params = Params::new(self.memory_kib, self.passes, 1, length).map_err(|_| unusual)?;
        let mut out = [0; 32 + CHECK_LEN];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &self.salt, &mut out)
            .map_err(|_| OpenFileError::Damaged("its key cannot be made"))?;
        let mut rest = &out[..];
        Ok((take(&mut rest), take(&mut rest)))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, after) = rest.split_first_chunk::<N>().expect("the length was looked at");
    *rest = after;
    *field
}

fn short(file: &[u8], expected: usize) -> OpenFileError {
    let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    OpenFileError::Short { found: number(file.len()), expected: number(expected) }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key is as long as it is");
    LessSafeKey::new(key)
}

/// Seals `content` with a passphrase. `random` are fresh random bytes: each file has a key of its
/// own. Takes its time on purpose.
///
/// # Panics
///
/// `content` is longer than [`CONTENT_MAX`].
#[must_use]
pub fn seal_file(passphrase: &str, content: Vec<u8>, random: [u8; 32]) -> Vec<u8> {
    assert!(content.len() <= CONTENT_MAX, "whoever makes a backup looks at its size");
    let mut rest = &random[..];
    let mut header = Header {
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: take(&mut rest),
        check: [0; CHECK_LEN],
        nonce: take(&mut rest),
        content_len: u64::try_from(content.len()).expect("a length fits"),
    };
    let (key, check) = header.derive(passphrase).expect("our own parameters are in bounds");
    header.check = check;
    let mut file = header.bytes();
    let mut body = content;
    cipher(&key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(header.nonce),
            Aad::from(&file),
            &mut body,
        )
        .expect("it is far shorter than the cipher's limit of 256 GiB");
    file.append(&mut body);
    file
}

/// Opens a file that [`seal_file`] made.
///
/// # Errors
///
/// See [`OpenFileError`].
pub fn open_file(passphrase: &str, file: &[u8]) -> Result<Vec<u8>, OpenFileError> {
    let header = Header::parse(file)?;
    let content_len = usize::try_from(header.content_len).unwrap_or(usize::MAX);
    if content_len > CONTENT_MAX {
        return Err(OpenFileError::Damaged("it names a length that no backup has"));
    }
    let expected = HEADER_LEN + content_len + CHACHA20_POLY1305_TAG;
    if file.len() < expected {
        return Err(short(file, expected));
    }
    if file.len() > expected {
        return Err(OpenFileError::Damaged("there is something after its end"));
    }
    let (key, check) = header.derive(passphrase)?;
    if check != header.check {
        return Err(OpenFileError::Passphrase);
    }
    let (head, body) = file.split_at(HEADER_LEN);
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(header.nonce);
    let opened = cipher(&key).open_in_place(nonce, Aad::from(head), &mut body);
    let length = opened.map_err(|_| OpenFileError::Damaged("its content was changed"))?.len();
    body.truncate(length);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_opens_with_its_passphrase_only() {
        let file = seal_file("correct horse", b"the state".to_vec(), [7; 32]);
        assert!(!file.windows(5).any(|bytes| bytes == b"state"));
        assert_eq!(open_file("correct horse", &file).unwrap(), b"the state");
        assert_eq!(open_file("Correct horse", &file), Err(OpenFileError::Passphrase));
        assert_eq!(open_file("", &file), Err(OpenFileError::Passphrase));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let file = seal_file("x", b"the state".to_vec(), [7; 32]);
        let length = u64::try_from(file.len()).unwrap();
        for at in [8, 9, 40, HEADER_LEN - 1] {
            let found = u64::try_from(at).unwrap();
            let expected = u64::try_from(HEADER_LEN).unwrap();
            assert_eq!(open_file("x", &file[..at]), Err(OpenFileError::Short { found, expected }));
        }
        let cut = &file[..file.len() - 1];
        let short = OpenFileError::Short { found: length - 1, expected: length };
        assert_eq!(open_file("x", cut), Err(short));
        assert_eq!(open_file("x", &[]), Err(OpenFileError::NotOurs));
        assert_eq!(open_file("x", b"PK\x03\x04 something else"), Err(OpenFileError::NotOurs));
        let changed = |at: usize, to: u8| {
            let mut file = file.clone();
            file[at] = to;
            open_file("x", &file).unwrap_err()
        };
        assert_eq!(changed(8, 9), OpenFileError::Newer { found: 9 });
        let damaged = |error: OpenFileError| matches!(error, OpenFileError::Damaged(_));
        assert!(damaged(changed(12, 0x7f)), "memory without bounds");
        assert!(damaged(changed(16, 0x7f)), "passes without bounds");
        assert!(damaged(changed(HEADER_LEN - 1, 0x7f)), "a length without bounds");
        assert!(damaged(changed(file.len() - 1, !file[file.len() - 1])));
        assert!(damaged(changed(HEADER_LEN, !file[HEADER_LEN])));
        assert!(damaged(changed(HEADER_LEN - 9, !file[HEADER_LEN - 9])), "the nonce");
        assert_eq!(changed(20, !file[20]), OpenFileError::Passphrase);
        let longer = [file.as_slice(), b"x"].concat();
        assert!(damaged(open_file("x", &longer).unwrap_err()));
    }
}
