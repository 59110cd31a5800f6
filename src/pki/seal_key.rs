//! The key that seals log entries and snapshots at rest, and what it is itself sealed with.
//!
//! `midge-seal-1 ID KEY` is the key in the clear. `midge-seal-2 ID VERSION plain KEY` is the same of
//! a cluster that was locked once, and `midge-seal-2 ID VERSION locked NONCE KEY` needs the unlock
//! key. VERSION is that of the cluster's row which the file follows: a manager that reads its log
//! again passes through every unlock key that there ever was, and must not go back to one of them.

use super::files::{FileError, read, write_atomically};
use crate::types::{UnlockKey, Version};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{fmt, path::Path};

/// How an unlock key begins, as Docker's.
const PREFIX: &str = "SWMKEY-1-";

/// The key that seals log entries and snapshots at rest.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    /// Names the key in every envelope it sealed.
    pub id: u32,
    /// The key.
    pub bytes: [u8; 32],
}

impl fmt::Debug for SealKey {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the text of an unlock key.
#[must_use]
pub fn unlock_key_text(key: &UnlockKey) -> String {
    format!("{PREFIX}{}", STANDARD_NO_PAD.encode(key.0))
}

/// Reads the text of an unlock key, white space around it aside.
#[must_use]
pub fn parse_unlock_key(text: &str) -> Option<UnlockKey> {
    let bytes = STANDARD_NO_PAD.decode(text.trim().strip_prefix(PREFIX)?).ok()?;
    bytes.try_into().ok().map(UnlockKey)
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFile {
    /// The version of the cluster's row that it follows; zero where it follows none.
    pub version: Version,
    /// The key, as it lies there.
    pub kept: KeptKey,
}

/// A seal key as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptKey {
    /// In the clear.
    Plain(SealKey),
    /// Sealed with the unlock key.
    Locked {
        /// The seal key's name.
        id: u32,
        /// Drawn anew each time.
        nonce: [u8; NONCE_LEN],
        /// The key and its tag.
        sealed: Vec<u8>,
    },
}

fn cipher(key: &UnlockKey) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key.0).expect("the key is as long as it is");
    LessSafeKey::new(key)
}

fn bound(id: u32, version: Version) -> Aad<Vec<u8>> {
    Aad::from(format!("midge-seal-2 {id} {version}").into_bytes())
}

impl SealFile {
    /// Keeps `key` in the clear, for a cluster that has no unlock key.
    #[must_use]
    pub fn plain(key: SealKey, version: Version) -> Self {
        Self { version, kept: KeptKey::Plain(key) }
    }

    /// Keeps `key` sealed with `unlock`. `nonce` is random.
    #[must_use]
    pub fn locked(
        key: &SealKey,
        version: Version,
        unlock: &UnlockKey,
        nonce: [u8; NONCE_LEN],
    ) -> Self {
        let mut sealed = key.bytes.to_vec();
        let place = Nonce::assume_unique_for_key(nonce);
        cipher(unlock)
            .seal_in_place_append_tag(place, bound(key.id, version), &mut sealed)
            .expect("a key is far shorter than the cipher's limit");
        Self { version, kept: KeptKey::Locked { id: key.id, nonce, sealed } }
    }

    /// Returns the key; none where it is locked with another key than `unlock`.
    #[must_use]
    pub fn open(&self, unlock: Option<&UnlockKey>) -> Option<SealKey> {
        match &self.kept {
            KeptKey::Plain(key) => Some(key.clone()),
            KeptKey::Locked { id, nonce, sealed } => {
                let mut sealed = sealed.clone();
                let place = Nonce::assume_unique_for_key(*nonce);
                let opened =
                    cipher(unlock?).open_in_place(place, bound(*id, self.version), &mut sealed);
                let bytes = <[u8; 32]>::try_from(&*opened.ok()?).ok()?;
                Some(SealKey { id: *id, bytes })
            }
        }
    }

    /// Tells whether the key needs an unlock key.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.kept, KeptKey::Locked { .. })
    }

    /// Reads the file; none where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is damaged, or of a newer midge.
    pub fn load(path: &Path) -> Result<Option<Self>, FileError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let problem = match text.split_whitespace().next() {
            Some("midge-seal-1" | "midge-seal-2") => match parse(&text) {
                Some(file) => return Ok(Some(file)),
                None => "it is cut short or was changed",
            },
            Some(word) if word.starts_with("midge-seal-") => "it was written by a newer midge",
            _ => "it holds no seal key",
        };
        Err(FileError::Damaged { path: path.to_owned(), problem: problem.to_owned() })
    }

    /// Writes the file; on disk when it returns.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let version = self.version;
        let text = match &self.kept {
            KeptKey::Plain(key) if version == Version::ZERO => {
                format!("midge-seal-1 {} {}\n", key.id, STANDARD.encode(key.bytes))
            }
            KeptKey::Plain(key) => {
                let bytes = STANDARD.encode(key.bytes);
                format!("midge-seal-2 {} {version} plain {bytes}\n", key.id)
            }
            KeptKey::Locked { id, nonce, sealed } => {
                let (nonce, sealed) = (STANDARD.encode(nonce), STANDARD.encode(sealed));
                format!("midge-seal-2 {id} {version} locked {nonce} {sealed}\n")
            }
        };
        write_atomically(path, text.as_bytes(), 0o600)
    }
}

fn parse(text: &str) -> Option<SealFile> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let key = |bytes: &str| STANDARD.decode(bytes).ok()?.try_into().ok();
    Some(match words[..] {
        ["midge-seal-1", id, bytes] => {
            let key = SealKey { id: id.parse().ok()?, bytes: key(bytes)? };
            SealFile::plain(key, Version::ZERO)
        }
        ["midge-seal-2", id, as_of, "plain", bytes] => {
            let key = SealKey { id: id.parse().ok()?, bytes: key(bytes)? };
            SealFile::plain(key, version(as_of)?)
        }
        ["midge-seal-2", id, as_of, "locked", nonce, sealed] => {
            let nonce = STANDARD.decode(nonce).ok()?.try_into().ok()?;
            let sealed = STANDARD.decode(sealed).ok()?;
            let kept = KeptKey::Locked { id: id.parse().ok()?, nonce, sealed };
            SealFile { version: version(as_of)?, kept }
        }
        _ => return None,
    })
}

/// Reads what a version prints as.
fn version(text: &str) -> Option<Version> {
    let (epoch, index) = text.split_once('.')?;
    Some(Version { epoch: epoch.parse().ok()?, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SealKey = SealKey { id: 1, bytes: [5; 32] };
    const AS_OF: Version = Version { epoch: 2, index: 70 };

    #[test]
    fn an_unlock_key_has_dockers_text() {
        let key = UnlockKey([7; 32]);
        let text = unlock_key_text(&key);
        assert_eq!(text, "SWMKEY-1-BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
        assert_eq!(parse_unlock_key(&format!(" {text}\n")), Some(key));
        for wrong in ["", "SWMKEY-1-", "SWMKEY-2-BwcH", &text[..text.len() - 1], &text[1..]] {
            assert_eq!(parse_unlock_key(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
    }

    #[test]
    fn a_locked_key_opens_with_its_unlock_key_only() {
        let (unlock, other) = (UnlockKey([7; 32]), UnlockKey([8; 32]));
        let locked = SealFile::locked(&KEY, AS_OF, &unlock, [3; NONCE_LEN]);
        assert!(locked.is_locked());
        assert_eq!(locked.open(Some(&unlock)), Some(KEY));
        assert_eq!((locked.open(Some(&other)), locked.open(None)), (None, None));
        let later = SealFile { version: Version { epoch: 2, index: 71 }, ..locked };
        assert_eq!(later.open(Some(&unlock)), None, "the version is bound into the seal");
        assert_eq!(SealFile::plain(KEY, AS_OF).open(None), Some(KEY));
    }

    #[test]
    fn what_is_written_is_read_and_the_first_format_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        assert_eq!(SealFile::load(&path).unwrap(), None);
        for file in [
            SealFile::plain(KEY, Version::ZERO),
            SealFile::plain(KEY, AS_OF),
            SealFile::locked(&KEY, AS_OF, &UnlockKey([7; 32]), [3; NONCE_LEN]),
        ] {
            file.save(&path).unwrap();
            assert_eq!(SealFile::load(&path).unwrap(), Some(file));
        }
        let says = |text: &str| {
            std::fs::write(&path, text).unwrap();
            SealFile::load(&path).unwrap_err().to_string()
        };
        assert!(says("midge-seal-3 1 x").contains("newer midge"));
        assert!(says("midge-seal-2 1 2.70 locked AAAA").contains("cut short"));
        assert!(says("midge-seal-1 1 AAAA").contains("cut short"));
        assert!(says("hello").contains("no seal key"));
    }
}
