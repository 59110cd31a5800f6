//! Looks at the machine. Decides nothing: what a thing means is the other half's affair.
//!
//! Files are read below a root folder, so that tests show another machine's. What only the running
//! kernel tells (its packet filter, its clock) is asked of it when the root is the real one. Needs no
//! rights; what it must not see is told with the reason.

mod clock;
mod disk;
mod kernel;
mod network;
mod system;
#[cfg(test)]
mod tests;

use super::facts::{Answer, Config, Containerd, Facts, Program, Socket, SocketState};
use crate::runtime;
use std::{
    fs,
    io::{self, Read as _},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// The largest file that is read: `modules.dep` of a distribution has 1 MiB.
const FILE_MAX: u64 = 8 << 20;

/// How long containerd may take for its version.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(5);

/// Where programs are looked for, beside `PATH`: an ordinary user's has no `sbin`.
const PROGRAMS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where to look.
#[derive(Debug, Clone)]
pub struct Where {
    /// The folder that stands for `/`.
    pub root: PathBuf,
    /// Where the daemon keeps what must survive a restart.
    pub data_dir: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// The socket of the daemon's API.
    pub socket: PathBuf,
    /// What starts containers, as configured; `auto`, or empty, is midge's choice.
    pub runtime: String,
    /// The UDP port that the node talks to others on.
    pub cluster_port: u16,
}

impl Where {
    /// Returns where a path of the machine is to be found.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Tells whether the machine is this one.
    fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Reads a file that is text; none where it is not there, or may not be read.
    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.at(path)).ok()?.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// Returns the folders that programs are in.
    fn programs(&self) -> Vec<PathBuf> {
        let path = std::env::var_os("PATH").filter(|_| self.is_here()).unwrap_or_default();
        let mut folders: Vec<PathBuf> =
            std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
        for folder in PROGRAMS.map(|folder| self.at(folder)) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

/// Looks at everything but the daemon, which its clients ask.
#[must_use]
pub fn gather(place: &Where) -> Facts {
    let root = rustix::process::geteuid().is_root();
    let system = system::system(place);
    Facts {
        program: Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            root,
        },
        kernel: kernel::kernel(place),
        cgroups: kernel::cgroups(place),
        apparmor: kernel::apparmor(place),
        containerd: containerd(place),
        oci_configured: named(place).map(str::to_owned),
        oci_runtimes: oci_runtimes(place),
        cluster_port: place.cluster_port,
        ports: network::ports(place),
        socket: Socket {
            path: place.socket.display().to_string(),
            state: socket(&place.at(&place.socket)),
        },
        clock: clock::clock(place),
        disks: disk::disks(place),
        firewall: network::firewall(place),
        routes: network::routes(place),
        bridge_block: crate::network::survey::bridge_block(&place.at(&place.data_dir))
            .unwrap_or_default(),
        identity: system::identity(place),
        memory: system::memory(place),
        config: Config::Usable,
        daemon: Ok(None),
        system,
    }
}

/// Tells what is at a socket's path.
fn socket(path: &Path) -> SocketState {
    let unknown = |error: &io::Error| SocketState::Unknown(error.to_string());
    match fs::metadata(path) {
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => return SocketState::Absent,
            io::ErrorKind::PermissionDenied => return SocketState::Denied,
            _ => return unknown(&error),
        },
        Ok(metadata) if !metadata.file_type().is_socket() => return SocketState::NotASocket,
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => SocketState::Listens,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => SocketState::Stale,
            io::ErrorKind::PermissionDenied => SocketState::Denied,
            io::ErrorKind::NotFound => SocketState::Absent,
            _ => unknown(&error),
        },
    }
}

fn containerd(place: &Where) -> Containerd {
    let path = place.at(&place.containerd);
    let answer = match socket(&path) {
        SocketState::Absent => Answer::Absent,
        SocketState::Stale => Answer::Refused,
        SocketState::Denied => Answer::Denied,
        SocketState::NotASocket => Answer::Silent("it is no socket".to_owned()),
        SocketState::Unknown(why) => Answer::Silent(why),
        SocketState::Listens => {
            let path = path.to_string_lossy();
            let asked = runtime::containerd::probe::version(&path, CONTAINERD_LIMIT);
            match smol::block_on(asked) {
                Ok(version) => Answer::Version(version),
                Err(why) => Answer::Silent(why),
            }
        }
    };
    let installed = place.programs().iter().any(|folder| folder.join("containerd").is_file());
    Containerd { socket: place.containerd.display().to_string(), answer, installed }
}

/// Looks for what starts containers. Programs of another machine are not run.
fn oci_runtimes(place: &Where) -> Vec<(String, Result<String, String>)> {
    let say = |path: PathBuf| {
        if place.is_here() {
            let version = runtime::oci_version(&path).map_err(|error| error.to_string());
            return (path.display().to_string(), version);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.clone(), Ok(name))
    };
    let Some(wanted) = named(place) else {
        return runtime::oci_programs(&place.programs()).into_iter().map(say).collect();
    };
    let folders = place.programs();
    let path = match wanted.starts_with('/') {
        true => Some(place.at(wanted)).filter(|path| path.exists()),
        false => folders.iter().map(|folder| folder.join(wanted)).find(|path| path.is_file()),
    };
    let missing = || (wanted.to_owned(), Err("there is no such program".to_owned()));
    vec![path.map_or_else(missing, say)]
}

/// Returns what the configuration has start containers; none where midge chooses.
fn named(place: &Where) -> Option<&str> {
    Some(place.runtime.as_str()).filter(|wanted| !matches!(*wanted, "" | "auto"))
}
