//! Which program starts containers: runc, or crun where it is installed, which starts them faster
//! and in less memory.
//!
//! A container keeps the one it was made with. Must not know containerd.

use serde::Deserialize;
use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What an OCI runtime says that it can do is no longer than this.
const FEATURES_MAX: usize = 1 << 20;

/// The programs that are looked for, best first.
const KNOWN: [&str; 2] = ["crun", "runc"];

/// What starts containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OciRuntime {
    /// The program; none leaves the choice to containerd's shim, which takes runc.
    pub binary: Option<PathBuf>,
    /// Whether it can make a mount read-only with all that is mounted below.
    pub recursive_read_only: bool,
}

/// The OCI runtime that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// It is not there.
    #[error("cannot find the OCI runtime {0:?}: install it, or set runtime = \"auto\"")]
    Missing(String),
    /// It does not run.
    #[error("the OCI runtime {} does not work", path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl OciRuntime {
    /// Chooses as configured: `auto`, the name of one, or its path. Runs programs; blocks for as
    /// long as they take to say their version.
    ///
    /// # Errors
    ///
    /// One was named that is not there or does not work.
    pub fn choose(wanted: &str) -> Result<Self, OciError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).collect();
        Self::choose_in(wanted, &folders)
    }

    fn choose_in(wanted: &str, folders: &[PathBuf]) -> Result<Self, OciError> {
        if matches!(wanted, "" | "auto") {
            for path in KNOWN.iter().filter_map(|name| find(name, folders)) {
                match Self::probe(&path) {
                    Ok(runtime) => return Ok(runtime),
                    Err(error) => {
                        tracing::warn!(%error, path = %path.display(), "an OCI runtime is passed over");
                    }
                }
            }
            return Ok(Self::default());
        }
        let path = if wanted.starts_with('/') {
            Some(PathBuf::from(wanted)).filter(|path| path.exists())
        } else {
            find(wanted, folders)
        };
        let path = path.ok_or_else(|| OciError::Missing(wanted.to_owned()))?;
        Self::probe(&path).map_err(|source| OciError::Broken { path, source })
    }

    fn probe(path: &Path) -> io::Result<Self> {
        let version = run(path, "--version")?;
        let first = String::from_utf8_lossy(&version);
        let first = first.lines().next().unwrap_or_default().trim().to_owned();
        let recursive_read_only = can_close_recursively(&run(path, "features").unwrap_or_default());
        tracing::info!(path = %path.display(), version = first, "containers are started by");
        Ok(Self { binary: Some(path.to_owned()), recursive_read_only })
    }
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn run(path: &Path, argument: &str) -> io::Result<Vec<u8>> {
    let output =
        Command::new(path).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{argument} ended with {}", output.status)));
    }
    Ok(output.stdout)
}

/// Reads what an OCI runtime prints of its features.
fn can_close_recursively(features: &[u8]) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Features {
        mount_options: Vec<String>,
    }
    let features = features.get(..FEATURES_MAX).unwrap_or(features);
    let features: Features = serde_json::from_slice(features).unwrap_or_default();
    features.mount_options.iter().any(|option| option == "rro")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_best_that_works_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().to_owned()];
        let choose = |wanted: &str| OciRuntime::choose_in(wanted, &folders);
        assert_eq!(choose("auto").unwrap(), OciRuntime::default());
        let missing = choose("crun").unwrap_err().to_string();
        assert_eq!(
            missing,
            "cannot find the OCI runtime \"crun\": install it, or set runtime = \"auto\""
        );
        let features =
            "[ \"$1\" = features ] && echo '{\"mountOptions\":[\"ro\",\"rro\"]}'; exit 0";
        let runc = program(dir.path(), "runc", features);
        let found = OciRuntime { binary: Some(runc), recursive_read_only: true };
        assert_eq!(choose("").unwrap(), found);
        let crun = program(dir.path(), "crun", "exit 1");
        assert_eq!(choose("auto").unwrap(), found);
        assert!(matches!(choose("crun"), Err(OciError::Broken { .. })));
        program(dir.path(), "crun", "[ \"$1\" = --version ]");
        let plain = OciRuntime { binary: Some(crun.clone()), recursive_read_only: false };
        assert_eq!(choose("auto").unwrap(), plain);
        assert_eq!(choose(&crun.display().to_string()).unwrap(), plain);
        assert_eq!(choose("runc").unwrap(), found);
    }
}
