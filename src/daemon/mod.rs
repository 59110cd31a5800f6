//! Puts the real parts together.

use std::{path::PathBuf, process::ExitCode};

/// What `midge daemon` was asked for.
#[derive(Debug)]
pub struct Options {
    /// Where the node keeps what must survive a restart.
    pub data_dir: PathBuf,
    /// Where the node keeps what must not survive one of the machine.
    pub run_dir: PathBuf,
    /// Where the API listens.
    pub socket: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// The configuration file, where one was named.
    pub config: Option<PathBuf>,
    /// Whether the log is one JSON object a line.
    pub json_log: bool,
    /// How much is logged.
    pub log_level: tracing::Level,
}
#[derive(Debug, thiserror::Error)]
#[error("nope")]
pub struct DaemonError;
impl DaemonError {
    pub fn is_configuration(&self) -> bool {
        false
    }
    pub fn hint(&self) -> Option<String> {
        None
    }
}
pub fn run(_options: Options) -> Result<(), DaemonError> {
    Err(DaemonError)
}
pub fn helper_main() -> Option<ExitCode> {
    None
}
