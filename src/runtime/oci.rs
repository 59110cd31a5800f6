//! Which program starts containers: runc, or another that is configured, or crun where there is no
//! runc.
//!
//! crun starts containers some 20 % faster, but is not taken by itself beside a runc: crun 1.8
//! mounts what lies below a bind mount that is to be flat, and refuses nodes that mount both
//! versions of the control groups. A container keeps the one it was made with. Must not know
//! containerd.

use crate::util::command;
use serde::Deserialize;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What an OCI runtime says that it can do is no longer than this.
const FEATURES_MAX: u64 = 1 << 20;

/// How long a program may take for what is asked of it here: a loaded single-core board starts a
/// container in a second or two.
const RUN_LIMIT: Duration = Duration::from_secs(10);

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

/// The choice of what starts containers, made again as long as what was asked for cannot be used:
/// containers that run need it no more, and new ones come once it is there.
#[derive(Debug)]
pub struct OciChoice {
    wanted: String,
    executable: PathBuf,
    scratch: PathBuf,
    chosen: Mutex<Option<OciRuntime>>,
}

impl OciChoice {
    /// Nothing is chosen yet; the arguments are those of [`OciRuntime::choose`].
    #[must_use]
    pub fn new(wanted: &str, executable: &Path, scratch: &Path) -> Self {
        Self {
            wanted: wanted.to_owned(),
            executable: executable.to_owned(),
            scratch: scratch.to_owned(),
            chosen: Mutex::default(),
        }
    }

    /// Returns what starts containers; once that is found, it stays. Blocks as
    /// [`OciRuntime::choose`] does.
    ///
    /// # Errors
    ///
    /// As of [`OciRuntime::choose`].
    pub fn get(&self) -> Result<OciRuntime, OciError> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = &*chosen {
            return Ok(chosen.clone());
        }
        let found = OciRuntime::choose(&self.wanted, &self.executable, &self.scratch)?;
        *chosen = Some(found.clone());
        Ok(found)
    }
}

impl OciRuntime {
    /// Chooses as configured: `auto`, the name of one, or its path. Runs programs; blocks for as
    /// long as they take.
    ///
    /// `auto` takes runc, and without one crun where it starts a container here. `executable`,
    /// linked statically, is what runs in that container, and `scratch` a folder that may be made
    /// for it.
    ///
    /// # Errors
    ///
    /// One was named that is not there or does not work.
    pub fn choose(wanted: &str, executable: &Path, scratch: &Path) -> Result<Self, OciError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).collect();
        Self::choose_in(wanted, executable, scratch, &folders)
    }

    fn choose_in(
        wanted: &str,
        executable: &Path,
        scratch: &Path,
        folders: &[PathBuf],
    ) -> Result<Self, OciError> {
        if matches!(wanted, "" | "auto") {
            if let Some(Ok(runc)) = find("runc", folders).map(|path| Self::probe(&path)) {
                return Ok(runc);
            }
            if let Some(path) = find("crun", folders) {
                let started = start_container(&path, executable, "--version", scratch);
                match started.and_then(|()| Self::probe(&path)) {
                    Ok(crun) => return Ok(crun),
                    Err(error) => {
                        tracing::info!(%error, path = %path.display(), "crun does not work here");
                    }
                }
            }
            // What is not found here the shim may find all the same: its path is another.
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
        let version = oci_version(path)?;
        let features = run(Command::new(path).arg("features")).unwrap_or_default();
        let recursive_read_only =
            can_close_recursively(&features) || is_crun_that_can_close_recursively(&version);
        tracing::info!(path = %path.display(), version, "containers are started by");
        Ok(Self { binary: Some(path.to_owned()), recursive_read_only })
    }
}

/// Returns the OCI runtimes that midge takes by itself, as far as they are in `folders`.
#[must_use]
pub fn oci_programs(folders: &[PathBuf]) -> Vec<PathBuf> {
    ["runc", "crun"].into_iter().filter_map(|name| find(name, folders)).collect()
}

/// Returns the first line of what an OCI runtime says of its version. Blocks.
///
/// # Errors
///
/// It cannot be run, or fails.
pub fn oci_version(path: &Path) -> io::Result<String> {
    let printed = run(Command::new(path).arg("--version"))?;
    let printed = String::from_utf8_lossy(&printed);
    Ok(printed.lines().next().unwrap_or_default().trim().to_owned())
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Runs a program to its end, which must be a success, and returns what it printed.
fn run(command: &mut Command) -> io::Result<Vec<u8>> {
    command::output(command, RUN_LIMIT, FEATURES_MAX)
}

/// Starts a container with next to nothing in it, and takes everything of it away again.
fn start_container(
    runtime: &Path,
    executable: &Path,
    argument: &str,
    scratch: &Path,
) -> io::Result<()> {
    let id = format!("midge-probe-{}", std::process::id());
    let bundle = scratch.join(&id);
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(rootfs.join("proc"))?;
    let started = (|| {
        let name = executable.file_name().unwrap_or_default().to_string_lossy();
        fs::write(rootfs.join(&*name), "")?;
        let mut spec = probe_spec(executable, &id);
        spec["process"]["args"] = serde_json::json!([format!("/{name}"), argument]);
        spec["mounts"][1]["destination"] = format!("/{name}").into();
        fs::write(bundle.join("config.json"), spec.to_string())?;
        let mut command = Command::new(runtime);
        command.arg("--root").arg(bundle.join("state"));
        run(command.arg("run").arg("--bundle").arg(&bundle).arg(&id)).map(drop)
    })();
    let removed = fs::remove_dir_all(&bundle);
    started.and(removed)
}

fn probe_spec(executable: &Path, id: &str) -> serde_json::Value {
    let kinds = ["mount", "pid", "ipc", "uts", "network"];
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": id,
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "type": "bind", "source": executable, "options": ["bind", "ro"],
            },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "pids": { "limit": 64 },
            },
            "namespaces": kinds.map(|kind| serde_json::json!({ "type": kind })),
            "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
        },
    })
}

/// Before it printed its features crun could do it already.
fn is_crun_that_can_close_recursively(version: &str) -> bool {
    let Some(version) = version.strip_prefix("crun version ") else { return false };
    super::host::version(version) >= (1, 8)
}

/// Reads what an OCI runtime prints of its features.
fn can_close_recursively(features: &[u8]) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Features {
        mount_options: Vec<String>,
    }
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
        let scratch = dir.path().join("scratch");
        let choose =
            |wanted: &str| OciRuntime::choose_in(wanted, Path::new("/bin/x"), &scratch, &folders);
        assert_eq!(choose("auto").unwrap(), OciRuntime::default());
        let missing = choose("crun").unwrap_err().to_string();
        let expected =
            "cannot find the OCI runtime \"crun\": install it, or set runtime = \"auto\"";
        assert_eq!(missing, expected);
        // Says its version, but starts no container.
        let says = "[ \"$1\" = --version ] && echo crun version 1.8.1";
        let crun = program(dir.path(), "crun", says);
        assert_eq!(choose("auto").unwrap(), OciRuntime::default());
        let named = OciRuntime { binary: Some(crun.clone()), recursive_read_only: true };
        assert_eq!(choose("crun").unwrap(), named);
        assert_eq!(choose(&crun.display().to_string()).unwrap(), named);
        let runs = "[ \"$1\" = --root -a \"$3\" = run ] || [ \"$1\" = --version ]";
        program(dir.path(), "crun", runs);
        let plain = OciRuntime { binary: Some(crun), recursive_read_only: false };
        assert_eq!(choose("auto").unwrap(), plain);
        let features =
            "[ \"$1\" = features ] && echo '{\"mountOptions\":[\"ro\",\"rro\"]}'; exit 0";
        let runc = program(dir.path(), "runc", features);
        let found = OciRuntime { binary: Some(runc), recursive_read_only: true };
        assert_eq!(choose("").unwrap(), found);
        assert_eq!(choose("runc").unwrap(), found);
        assert_eq!(choose("crun").unwrap(), plain);
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        program(dir.path(), "crun", "exit 1");
        assert!(matches!(choose("crun"), Err(OciError::Broken { .. })));
    }

    #[test]
    fn what_is_missing_is_looked_for_again_and_what_was_found_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crun").display().to_string();
        let choice = OciChoice::new(&path, Path::new("/bin/x"), dir.path());
        assert!(matches!(choice.get(), Err(OciError::Missing(_))));
        let says = "[ \"$1\" = --version ] && echo crun version 1.8.1";
        let crun = program(dir.path(), "crun", says);
        let found = OciRuntime { binary: Some(crun.clone()), recursive_read_only: true };
        assert_eq!(choice.get().unwrap(), found);
        fs::remove_file(crun).unwrap();
        assert_eq!(choice.get().unwrap(), found);
    }

    /// Where busybox is linked statically and runc works, a container can be started.
    #[test]
    fn a_container_is_started_to_see_whether_one_can_be() {
        let busybox = Path::new("/bin/busybox");
        let folders = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
        let Some(runc) = find("runc", &folders) else { return };
        if !rustix::process::geteuid().is_root() || !busybox.exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        start_container(&runc, busybox, "true", dir.path()).unwrap();
        let error = start_container(&runc, busybox, "false", dir.path()).unwrap_err();
        assert!(error.to_string().contains("exit status: 1"), "{error}");
        start_container(&runc, &dir.path().join("none"), "true", dir.path()).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
