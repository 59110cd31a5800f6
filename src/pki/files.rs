//! What a node keeps of its identity on disk.
//!
//! `certificates/swarm-root-ca.crt` and `swarm-node.crt` (PEM, as Swarm's, so that `openssl x509`
//! reads them; each may hold more than one certificate while the root is rotated, the most important
//! first), `swarm-node.key` (PEM, 0600), and the key that seals the log (0600). Every file is
//! written beside its place, synced and renamed, so that a power cut leaves the old or the new one.

use super::pem::{from_pem, to_pem};
use crate::{types::Trust, util::disk};
use std::{
    fmt, fs,
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

const FOLDER: &str = "certificates";
const ROOT: &str = "swarm-root-ca.crt";
const CERTIFICATE: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";

/// The largest of these files that is read: a certificate takes about 900 bytes.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read`, `write` or `remove`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is there, but not what it should be.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A node's identity, all DER.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeFiles {
    /// The cluster's roots, and what is shown beside the certificate.
    pub trust: Trust,
    /// The node's certificate.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8.
    pub key: Vec<u8>,
}

impl fmt::Debug for NodeFiles {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeFiles").finish_non_exhaustive()
    }
}

/// Where a node keeps its identity.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    folder: PathBuf,
}

impl CertificateFiles {
    /// Names the files under a data directory.
    #[must_use]
    pub fn under(data: &Path) -> Self {
        Self { folder: data.join(FOLDER) }
    }

    /// Reads the identity; none where the node is no member.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is damaged, or only some are there.
    pub fn load(&self) -> Result<Option<NodeFiles>, FileError> {
        let chain = self.read_pems(CERTIFICATE, "CERTIFICATE")?.into_iter();
        let mut chain = chain.flatten();
        let key = self.load_key()?;
        let roots = self.read_pems(ROOT, "CERTIFICATE")?;
        match (roots, chain.next(), key) {
            (Some(roots), Some(certificate), Some(key)) => {
                let trust = Trust { roots, cross_signed: chain.collect() };
                Ok(Some(NodeFiles { trust, certificate, key }))
            }
            // The certificate is written last: without it, a join was cut short.
            (_, None, _) => Ok(None),
            (roots, _, _) => {
                let name = if roots.is_none() { ROOT } else { KEY };
                let problem = "it is missing beside the node's certificate".to_owned();
                Err(FileError::Damaged { path: self.folder.join(name), problem })
            }
        }
    }

    /// Returns the key alone: one that a join made whose answer was lost is used again.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is damaged.
    pub fn load_key(&self) -> Result<Option<Vec<u8>>, FileError> {
        let keys = self.read_pems(KEY, "PRIVATE KEY")?;
        Ok(keys.and_then(|keys| keys.into_iter().next()))
    }

    /// Writes the key alone, before the join that names it.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save_key(&self, key: &[u8]) -> Result<(), FileError> {
        self.write(KEY, &to_pem("PRIVATE KEY", key), 0o600)
    }

    /// Writes the identity, the certificate last.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn save(&self, files: &NodeFiles) -> Result<(), FileError> {
        self.save_key(&files.key)?;
        let pems = |ders: &[&Vec<u8>]| -> String {
            ders.iter().map(|der| to_pem("CERTIFICATE", der)).collect()
        };
        let roots: Vec<_> = files.trust.roots.iter().collect();
        self.write(ROOT, &pems(&roots), 0o644)?;
        let chain: Vec<_> =
            [&files.certificate].into_iter().chain(&files.trust.cross_signed).collect();
        self.write(CERTIFICATE, &pems(&chain), 0o644)
    }

    /// Forgets the identity, the certificate first.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn remove(&self) -> Result<(), FileError> {
        for name in [CERTIFICATE, KEY, ROOT] {
            let path = self.folder.join(name);
            disk::remove(&path).map_err(|source| FileError::Io {
                doing: "remove",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Reads what a file holds, at least one.
    fn read_pems(&self, name: &str, label: &str) -> Result<Option<Vec<Vec<u8>>>, FileError> {
        let path = self.folder.join(name);
        let Some(text) = read(&path)? else { return Ok(None) };
        match from_pem(label, &text) {
            Some(der) => Ok(Some(der)),
            None => Err(FileError::Damaged { path, problem: format!("no PEM of a {label}") }),
        }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), FileError> {
        write_atomically(&self.folder.join(name), text.as_bytes(), mode)
    }
}

pub(super) fn read(path: &Path) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io { doing: "read", path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    let _length = file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

pub(super) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Io { doing: "write", path: path.to_owned(), source };
    let folder = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    disk::replace(path, bytes, mode).map_err(failed)
}
