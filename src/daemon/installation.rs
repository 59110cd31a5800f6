//! The folders of this installation, whose they are, and its id.

use super::{error::DaemonError, machine::host::SystemEntropy};
use crate::{types::NodeId, util::disk};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Makes a folder, and those that it is in.
pub(super) fn make_dir(dir: &Path) -> Result<(), DaemonError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|source| DaemonError::Io { what: format!("make {}", dir.display()), source })
}

/// Takes the data directory for this process alone, until the file is closed.
pub(super) fn lock(data_dir: &Path) -> Result<fs::File, DaemonError> {
    let path = data_dir.join("lock");
    let failed = |source| DaemonError::Io { what: format!("lock {}", path.display()), source };
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DaemonError::InUse(data_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Returns the id of this installation: what containers, networks and images of this daemon are
/// named by, whether it is in a cluster or not.
pub(super) fn id(data_dir: &Path) -> Result<NodeId, DaemonError> {
    let path = data_dir.join("installation");
    let failed = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |source| DaemonError::Io { what, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) => NodeId::parse(text.trim())
            .map_err(|error| DaemonError::Other(format!("{} is damaged: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = NodeId::generate(&mut SystemEntropy);
            disk::replace(&path, format!("{id}\n").as_bytes(), 0o644).map_err(failed("write"))?;
            Ok(id)
        }
        Err(source) => Err(failed("read")(source)),
    }
}

/// Returns the path from the root, wherever the daemon was started.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, DaemonError> {
    std::path::absolute(path)
        .map_err(|source| DaemonError::Io { what: format!("find {}", path.display()), source })
}
