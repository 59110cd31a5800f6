//! Backups of the cluster: midge's own.

use super::nullable;
use serde::Deserialize;

/// `POST /midge/backup`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_debug_implementations, reason = "it holds a passphrase")]
pub struct BackupRequest {
    /// What seals the file.
    #[serde(deserialize_with = "nullable")]
    pub passphrase: String,
}

/// The first line of `POST /midge/restore`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_debug_implementations, reason = "it holds a passphrase")]
pub struct RestoreRequest {
    /// What opens the file.
    #[serde(deserialize_with = "nullable")]
    pub passphrase: String,
    /// Where to listen.
    #[serde(deserialize_with = "nullable")]
    pub listen_addr: String,
    /// What others are told.
    #[serde(deserialize_with = "nullable")]
    pub advertise_addr: String,
}
