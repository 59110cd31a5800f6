//! What a restart must not forget: each task's address and ports, and the bridge's subnet. Knows
//! files, nothing of the kernel's network.

use super::{error::NetworkError, subnet::Subnet};
use crate::{
    types::{NetworkMode, PortStatus, TaskId},
    util::disk,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// How long a state file may be. A record with every port a service can publish takes a few
/// kilobytes; what is longer was not written by us.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What is kept of a task's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Which kind it is.
    pub(super) mode: NetworkMode,
    /// Its address on the bridge.
    pub(super) address: Option<Ipv4Addr>,
    /// Its address of version 6, where it publishes a port at one of the node's.
    pub(super) address6: Option<Ipv6Addr>,
    /// The name of the node's end of its cable.
    pub(super) host_link: Option<String>,
    /// What it publishes now.
    pub(super) ports: Vec<PortStatus>,
}

/// The node's own network, across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    subnet: Subnet,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// What outlives the machine's restart.
    pub(super) data_dir: PathBuf,
    /// What does not need to.
    pub(super) run_dir: PathBuf,
}

impl Paths {
    fn node_file(&self) -> PathBuf {
        self.data_dir.join("network.json")
    }

    /// Returns the folder of namespaces.
    pub(super) fn netns_dir(&self) -> PathBuf {
        self.run_dir.join("netns")
    }

    /// Returns the folder of records and of the tasks' files.
    pub(super) fn tasks_dir(&self) -> PathBuf {
        self.run_dir.join("tasks")
    }

    /// Returns where a task's namespace is mounted.
    pub(super) fn netns(&self, task: &TaskId) -> PathBuf {
        self.netns_dir().join(task.as_str())
    }

    /// Returns the folder of a task's files.
    pub(super) fn task_dir(&self, task: &TaskId) -> PathBuf {
        self.tasks_dir().join(task.as_str())
    }

    fn record(&self, task: &TaskId) -> PathBuf {
        self.tasks_dir().join(format!("{task}.json"))
    }

    /// Makes the folders.
    pub(super) fn create(&self) -> Result<(), NetworkError> {
        for dir in [self.netns_dir(), self.tasks_dir(), self.data_dir.clone()] {
            fs::create_dir_all(&dir).map_err(NetworkError::file("make folder", &dir))?;
        }
        Ok(())
    }

    /// Removes the folders, where nothing is left in them, and the subnet.
    pub(super) fn delete(&self) -> Result<(), NetworkError> {
        remove(&self.node_file())?;
        for dir in [self.netns_dir(), self.tasks_dir()] {
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(NetworkError::file("remove folder", &dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the subnet.
    pub(super) fn load_subnet(&self) -> Result<Option<Subnet>, NetworkError> {
        let file: Option<NodeFile> = read_json(&self.node_file())?;
        Ok(file.map(|file| file.subnet))
    }

    /// Keeps the subnet.
    pub(super) fn save_subnet(&self, subnet: Subnet) -> Result<(), NetworkError> {
        write_json(&self.node_file(), &NodeFile { subnet })
    }

    /// Keeps a task's record.
    pub(super) fn save(&self, task: &TaskId, record: &Record) -> Result<(), NetworkError> {
        write_json(&self.record(task), record)
    }

    /// Forgets a task: its files and, last of all, its record.
    pub(super) fn forget(&self, task: &TaskId) -> Result<(), NetworkError> {
        let dir = self.task_dir(task);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::file("remove folder", &dir)(error));
            }
            _ => {}
        }
        remove(&self.record(task))
    }

    /// Reads every record. One that cannot be read is left out: its task is prepared anew, and
    /// what is left of it is found by [`Paths::traces`].
    pub(super) fn load(&self) -> Result<BTreeMap<TaskId, Record>, NetworkError> {
        let mut records = BTreeMap::new();
        for name in file_names(&self.tasks_dir())? {
            let Some(task) = name.strip_suffix(".json").and_then(|id| TaskId::parse(id).ok())
            else {
                continue;
            };
            match read_json(&self.record(&task)) {
                Ok(Some(record)) => drop(records.insert(task, record)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%task, "the task's network is forgotten: {error}"),
            }
        }
        Ok(records)
    }

    /// Returns every task that anything is left of.
    pub(super) fn traces(&self) -> Result<Vec<TaskId>, NetworkError> {
        let mut names = file_names(&self.tasks_dir())?;
        names.extend(file_names(&self.netns_dir())?);
        // Also of one whose record was being written.
        let ids = names.iter().filter_map(|name| name.split('.').next());
        let mut tasks: Vec<TaskId> = ids.filter_map(|id| TaskId::parse(id).ok()).collect();
        tasks.sort();
        tasks.dedup();
        Ok(tasks)
    }
}

fn file_names(dir: &Path) -> Result<Vec<String>, NetworkError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(NetworkError::file("read folder", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(NetworkError::file("read folder", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    disk::remove(path).map_err(NetworkError::file("remove", path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(NetworkError::file("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(NetworkError::file("read", path))?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| NetworkError::file("read", path)(error.into()))?;
    Ok(Some(value))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), NetworkError> {
    let written = serde_json::to_vec(value).map_err(io::Error::from);
    let written = written.and_then(|bytes| disk::replace(path, &bytes, 0o644));
    written.map_err(NetworkError::file("write", path))
}
