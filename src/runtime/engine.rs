//! The life of a task's container: what the agent asks for, carried out on containerd.
//!
//! The container's id is the task's, so every step finds what an earlier one left and may be
//! repeated. Steps of one task come one after another, those of different tasks side by side.

use super::{
    LogLine, LogOptions, cgroups,
    containerd::{
        container::{self, Record},
        labels,
        link::{CALL_LIMIT, CallError, Link},
        snapshot,
        task::{self, State},
    },
    exec::{self, ExecError},
    folder::{Exit, Folder, LOST},
    log_config::LogSetup,
    logs,
    oci::OciChoice,
    prepare::noted_health,
    spec,
    volumes::Volumes,
    watch,
};
use crate::{
    agent::{self, Failure, Phase},
    types::{Date, ImageHealth, Labels, Platform, Task, TaskId, signal},
    util::{error::chain, unblock::unblock},
};
use containerd_client::services::v1::{
    PluginsRequest, introspection_client::IntrospectionClient, version_client::VersionClient,
};
use futures_lite::future;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// How long a process may take to end after SIGKILL: it may hang in a dead disk or network mount.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often the deletion of a process is tried, and the pause between: together a second, in which
/// a deletion that another part began is through.
const DELETE_ATTEMPTS: u32 = 10;
const DELETE_PAUSE: Duration = Duration::from_millis(100);

/// The snapshotter that is asked where nothing was noted; the one that images are unpacked for.
pub(super) const SNAPSHOTTER: &str = "overlayfs";

/// How many events wait for the agent: a burst of exits of every container that a node can run.
/// Beyond that the watcher waits.
const EVENTS: usize = 256;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Config {
    /// containerd's socket.
    pub socket: String,
    /// The containerd namespace, which bears the node's id: nothing else may be in it.
    pub namespace: String,
    /// Logs and volumes.
    pub data_dir: PathBuf,
    /// What need not survive a restart of the machine.
    pub run_dir: PathBuf,
    /// midge's own executable under the path that [`super::install_helper`] returned.
    pub helper: PathBuf,
    /// What starts the containers that are made from now on.
    pub oci: Arc<OciChoice>,
    /// Where CDI specifications are.
    pub cdi_dirs: Vec<PathBuf>,
}

/// Runs containers. Clones share everything.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(super) shared: Arc<Shared>,
    events: async_channel::Receiver<agent::Event>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) link: Link,
    volumes: Volumes,
    /// What containerd said of the machine, which does not change under it.
    platform: OnceLock<Platform>,
    /// One lock a task's container that something is done to.
    locks: Mutex<BTreeMap<String, Arc<smol::lock::Mutex<()>>>>,
    /// Ids of containers that are being made: their snapshots are no leftovers.
    pub(super) preparing: Mutex<BTreeSet<String>>,
    /// After which step preparing fails.
    #[cfg(test)]
    pub(super) fault: Mutex<Option<super::prepare::Step>>,
    /// What the ids of the commands begin with that this process runs in containers.
    pub(super) exec_prefix: String,
}

/// A container, for lists of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// The task it belongs to.
    pub task: TaskId,
    /// Its id.
    pub container: String,
    /// The image's name.
    pub image: String,
    /// What it runs, an init left out.
    pub command: Vec<String>,
    /// When it was made.
    pub created: Date,
    /// Its labels.
    pub labels: Labels,
    /// The newest file of its log.
    pub log_path: PathBuf,
    /// What its task and its image had mounted in it.
    pub mounts: Vec<spec::Mounted>,
    /// How it is.
    pub phase: Phase,
    /// What its image says of its health.
    pub health: ImageHealth,
}

impl Runtime {
    /// Starts to watch containerd, which may be away.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let link = Link::new(config.socket.clone(), &config.namespace);
        let (sender, events) = async_channel::bounded(EVENTS);
        let shared = Arc::new(Shared {
            volumes: Volumes::new(&config.data_dir),
            config,
            link,
            platform: OnceLock::new(),
            locks: Mutex::default(),
            preparing: Mutex::default(),
            #[cfg(test)]
            fault: Mutex::default(),
            exec_prefix: exec::prefix(),
        });
        smol::spawn(watch::run(Arc::downgrade(&shared), sender)).detach();
        Self { shared, events }
    }

    /// Returns why no container can be made, where what is to start them is missing. Runs programs;
    /// blocks for as long as they take.
    #[must_use]
    pub fn cannot_make(&self) -> Option<String> {
        self.shared.config.oci.get().err().map(|error| chain(&error))
    }

    /// Returns containerd's version.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn version(&self) -> Result<String, Failure> {
        let request = self.shared.link.request(());
        let version = self.shared.link.call("version", CALL_LIMIT, |channel| async move {
            VersionClient::with_origin(channel, Link::origin()).version(request).await
        });
        let version = version.await.map_err(|error| error.failure("cannot ask for a version"))?;
        Ok(version.version)
    }

    /// Returns the platform whose images run here, as containerd tells it: a 32-bit userland on a
    /// 64-bit kernel says so. Asked once: each task needs it.
    ///
    /// # Errors
    ///
    /// containerd is away at first, or names no platform.
    pub async fn platform(&self) -> Result<Platform, Failure> {
        if let Some(known) = self.shared.platform.get() {
            return Ok(known.clone());
        }
        let request = self.shared.link.request(PluginsRequest { filters: Vec::new() });
        let plugins = self.shared.link.call("plugins", CALL_LIMIT, |channel| async move {
            IntrospectionClient::with_origin(channel, Link::origin()).plugins(request).await
        });
        let plugins = plugins.await.map_err(|error| error.failure("cannot ask for a platform"))?;
        let mut platforms = plugins
            .plugins
            .into_iter()
            .filter(|plugin| plugin.r#type == "io.containerd.runtime.v2")
            .flat_map(|plugin| plugin.platforms);
        let platform = platforms.next().ok_or_else(|| Failure {
            message: "containerd names no platform that it runs containers of".to_owned(),
            temporary: false,
        })?;
        let platform =
            Platform::normalized(&platform.os, &platform.architecture, &platform.variant);
        Ok(self.shared.platform.get_or_init(|| platform).clone())
    }

    /// Lets the task's container run; returns its process.
    ///
    /// # Errors
    ///
    /// It is not prepared, has ended before, or runc refuses it.
    pub async fn start(&self, task: &Task) -> Result<u32, Failure> {
        let id = task.id.as_str();
        let _guard = self.shared.lock(id).await;
        let folder = self.folder(id);
        let link = &self.shared.link;
        if folder.read_exit().is_some() {
            return Err(permanent("the container has run before".to_owned()));
        }
        let refused = |error: CallError| error.failure("starting container failed");
        let found = future::try_zip(container::get(link, id), task::get(link, id));
        let (record, state) = found.await.map_err(refused)?;
        let record =
            record.ok_or_else(|| permanent("the container was not prepared".to_owned()))?;
        match state {
            Some(State::Running { pid }) => return Ok(pid),
            Some(State::Stopped { .. }) => {
                return Err(permanent("the container has run before".to_owned()));
            }
            Some(State::Created) => {}
            None => self.create_process(task, &record, &folder).await?,
        }
        match task::start(link, id).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                // It may have been started all the same, with the answer lost.
                if let Ok(Some(State::Running { pid })) = task::get(link, id).await {
                    return Ok(pid);
                }
                let failure = refused(error);
                if task::delete(link, id).await.is_ok() {
                    drop(folder.unmark_started());
                }
                Err(failure)
            }
        }
    }

    async fn create_process(
        &self,
        task: &Task,
        record: &Record,
        folder: &Folder,
    ) -> Result<(), Failure> {
        let link = &self.shared.link;
        self.mount_volumes(task).await?;
        let tty = task.spec.container.tty;
        let uri = if LogSetup::read(&folder.log()).keep || tty {
            log_uri(&self.shared.config.helper, &folder.log())
        } else {
            // Nobody reads what is not kept. A terminal must be read, or its writer would stop.
            String::new()
        };
        let make = async {
            let mounts = snapshot::mounts(link, &record.snapshotter, &record.id).await?;
            task::create(link, &record.id, mounts, &uri, tty).await
        };
        let marked = {
            let folder = folder.clone();
            unblock(move || folder.mark_started())
        };
        let (made, marked) = future::zip(make, marked).await;
        let result = match (made, marked) {
            (Err(error), _) => Err(error.failure("starting container failed")),
            (Ok(()), Err(error)) => {
                // Without the mark it could run a second time after a power cut.
                let message = format!("cannot note the container's start: {error}");
                drop(task::kill(link, &record.id, signal::KILL, true).await);
                Err(Failure { message, temporary: true })
            }
            (Ok(()), Ok(())) => Ok(()),
        };
        if result.is_err() && task::delete(link, &record.id).await.is_ok() {
            drop(folder.unmark_started());
        }
        result
    }

    /// Asks the container to stop, and kills it after the grace period. Returns how it ended,
    /// at once where nothing runs; without a status where it never ran.
    ///
    /// # Errors
    ///
    /// containerd is away, or the kernel does not end the process.
    pub async fn stop(
        &self,
        task: &TaskId,
        signal: &str,
        grace: Duration,
    ) -> Result<Phase, Failure> {
        let id = task.as_str();
        let _guard = self.shared.lock(id).await;
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot stop the container");
        if let Some(exit) = self.folder(id).read_exit() {
            return Ok(exit.into());
        }
        match task::get(link, id).await.map_err(failed)? {
            None => return Ok(self.folder(id).read_exit().map_or(LOST, Phase::from)),
            Some(State::Stopped { code, date }) => return Ok(self.settle(id, code, date).await),
            Some(State::Created) => {
                self.kill_and_delete(id).await?;
                return Ok(LOST);
            }
            Some(State::Running { .. }) => {}
        }
        let number = self.stop_signal(id, signal).await.map_err(failed)?;
        task::kill(link, id, number, false).await.map_err(failed)?;
        let state = match task::wait(link, id, grace).await {
            Err(CallError::Late { .. }) => {
                task::kill(link, id, signal::KILL, true).await.map_err(failed)?;
                task::wait(link, id, KILL_LIMIT).await.map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        match state {
            Some(State::Stopped { code, date }) => Ok(self.settle(id, code, date).await),
            _ => Ok(self.folder(id).read_exit().map_or(LOST, Phase::from)),
        }
    }

    /// Sends a signal to the container's first process; none is the one that its image stops with.
    /// Returns its number. It waits for nothing else that is done to the container: that never has
    /// another process.
    ///
    /// # Errors
    ///
    /// The container does not run, or containerd is away.
    pub async fn signal(&self, task: &TaskId, number: Option<u32>) -> Result<u32, ExecError> {
        let (id, link) = (task.as_str(), &self.shared.link);
        exec::running(link, task).await?;
        let failed = |error: CallError| error.failure("cannot signal the container");
        let number = match number {
            Some(number) => number,
            None => self.stop_signal(id, "").await.map_err(failed)?,
        };
        let sent = task::kill(link, id, number, number == signal::KILL).await.map_err(failed)?;
        sent.map(|()| number).ok_or_else(|| ExecError::NotRunning(task.clone()))
    }

    /// Returns the signal to stop with: the one given, else the one noted with the container.
    async fn stop_signal(&self, id: &str, given: &str) -> Result<u32, CallError> {
        if let Some(number) = signal::parse(given) {
            return Ok(number);
        }
        let record = container::get(&self.shared.link, id).await?;
        let noted = record.and_then(|record| record.labels.get(labels::STOP_SIGNAL).cloned());
        Ok(noted.and_then(|noted| signal::parse(&noted)).unwrap_or(signal::TERM))
    }

    /// Removes the container with its snapshot, log and own volumes; kills it where it runs.
    ///
    /// # Errors
    ///
    /// containerd is away, or something is left; asking again goes on where this ended.
    pub async fn remove(&self, task: &TaskId) -> Result<(), Failure> {
        let id = task.as_str();
        let _guard = self.shared.lock(id).await;
        let folder = self.folder(id);
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot remove the container");
        let record = container::get(link, id).await.map_err(failed)?;
        self.kill_and_delete(id).await?;
        container::delete(link, id).await.map_err(failed)?;
        let group = record.as_ref().and_then(|record| cgroup_of(&record.spec));
        if let Some(group) = group {
            unblock(move || cgroups::remove_empty(&group)).await;
        }
        let snapshotter = record.map(|record| record.snapshotter).or_else(|| folder.snapshotter());
        let snapshotter = snapshotter.unwrap_or_else(|| SNAPSHOTTER.to_owned());
        snapshot::remove(link, &snapshotter, id).await.map_err(failed)?;
        self.remove_files(id).await
    }

    /// Ends what runs of a container and deletes its process.
    async fn kill_and_delete(&self, id: &str) -> Result<(), Failure> {
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot end the container");
        match task::get(link, id).await.map_err(failed)? {
            None => return Ok(()),
            Some(State::Stopped { .. }) => {}
            Some(State::Running { .. } | State::Created) => {
                // Refused where it has just ended, which the wait will tell.
                drop(task::kill(link, id, signal::KILL, true).await);
                task::wait(link, id, KILL_LIMIT).await.map_err(failed)?;
            }
        }
        for attempt in 1.. {
            // A delete that was given up, by this daemon or by one that died, may still be under way:
            // then this one finds the connection to the shim closed, and the task gone a moment later.
            match task::delete(link, id).await {
                Ok(()) => break,
                Err(error) if attempt == DELETE_ATTEMPTS => return Err(failed(error)),
                Err(_) => drop(smol::Timer::after(DELETE_PAUSE).await),
            }
        }
        Ok(())
    }

    /// Returns every container of this node.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn inventory(&self) -> Result<Vec<agent::Observed>, Failure> {
        self.shared.inventory().await
    }

    /// Returns every container of this node, with what lists show of it.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn list(&self) -> Result<Vec<ContainerInfo>, Failure> {
        self.shared.list().await
    }

    /// Returns the channel of what happens by itself: that containerd was found, then exits; when
    /// it goes away that it did, and when it is back that it is.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<agent::Event> {
        self.events.clone()
    }

    /// Tells whether the output of a task's container is kept, so that it can be read.
    #[must_use]
    pub fn keeps_log(&self, task: &TaskId) -> bool {
        LogSetup::read(&self.folder(task.as_str()).log()).keep
    }

    /// Reads the log of a task's container; the channel closes at its end. Where there is no log
    /// it closes at once, unless the reader wants to follow what is still to come.
    #[must_use]
    pub fn logs(&self, task: &TaskId, options: LogOptions) -> async_channel::Receiver<LogLine> {
        logs::read(self.folder(task.as_str()), options)
    }

    /// Returns one container of this node, with what lists show of it.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn info(&self, task: &TaskId) -> Result<Option<ContainerInfo>, Failure> {
        let record = container::get(&self.shared.link, task.as_str()).await;
        let record = record.map_err(|error| error.failure("cannot ask for a container"))?;
        let Some(record) = record else { return Ok(None) };
        let phase = self.shared.phase(&record.id, None).await?;
        Ok(Some(info(record, task.clone(), phase, &self.shared.config.data_dir)))
    }

    /// Returns how many bytes each container's own files take, its image's left out.
    ///
    /// # Errors
    ///
    /// containerd is away.
    pub async fn sizes(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let link = &self.shared.link;
        let failed = |error: CallError| error.failure("cannot measure the containers");
        let mut sizes = BTreeMap::new();
        for record in container::list(link).await.map_err(failed)? {
            let size = snapshot::usage(link, &record.snapshotter, &record.id).await;
            sizes.insert(record.id, size.map_err(failed)?);
        }
        Ok(sizes)
    }

    /// Returns the volumes of this node.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.shared.volumes
    }

    pub(super) fn folder(&self, id: &str) -> Folder {
        self.shared.folder(id)
    }

    async fn settle(&self, id: &str, code: i32, date: Option<Date>) -> Phase {
        self.shared.settle(id, code, date).await
    }
}

impl Shared {
    pub(super) fn folder(&self, id: &str) -> Folder {
        Folder::new(&self.config.data_dir, id)
    }

    /// Waits until nothing else is done to the container.
    pub(super) async fn lock(&self, id: &str) -> smol::lock::MutexGuardArc<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(id.to_owned()).or_default())
        };
        lock.lock_arc().await
    }

    pub(super) async fn inventory(self: &Arc<Self>) -> Result<Vec<agent::Observed>, Failure> {
        let observed = |info: ContainerInfo| agent::Observed {
            task: info.task,
            container: info.container,
            phase: info.phase,
            health: info.health,
        };
        Ok(self.list().await?.into_iter().map(observed).collect())
    }

    async fn list(self: &Arc<Self>) -> Result<Vec<ContainerInfo>, Failure> {
        // One after the other: a container is recorded before its process is made, and whoever
        // has ended by the second question is found in the notes.
        let failed = |error: CallError| error.failure("cannot list the containers");
        let states = task::list(&self.link).await.map_err(failed)?;
        let records = container::list(&self.link).await.map_err(failed)?;
        let states: BTreeMap<String, State> = states.into_iter().collect();
        let mut all = Vec::new();
        for record in records {
            let Ok(task) = TaskId::parse(&record.id) else { continue };
            if record.labels.get(labels::TASK) != Some(&record.id) {
                continue;
            }
            let phase = self.phase(&record.id, states.get(&record.id).copied()).await?;
            all.push(info(record, task, phase, &self.config.data_dir));
        }
        Ok(all)
    }

    /// Judges how a container is; `state` may be of a moment ago.
    async fn phase(self: &Arc<Self>, id: &str, state: Option<State>) -> Result<Phase, Failure> {
        let folder = self.folder(id);
        if let Some(exit) = folder.read_exit() {
            if matches!(state, Some(State::Stopped { .. })) {
                self.free(id);
            }
            return Ok(exit.into());
        }
        let failed = |error: CallError| error.failure("cannot ask for a container");
        let state = match state {
            // It may have been started after the list was made.
            None if folder.was_started() => task::get(&self.link, id).await.map_err(failed)?,
            other => other,
        };
        Ok(match state {
            Some(State::Stopped { code, date }) => self.settle(id, code, date).await,
            Some(State::Running { pid }) => Phase::Running { pid, ports: Vec::new() },
            Some(State::Created) => Phase::Created,
            None if folder.was_started() => folder.read_exit().map_or(LOST, Phase::from),
            None => Phase::Created,
        })
    }

    /// Notes how a container ended and frees its shim. The note comes first: what containerd
    /// knows is gone with the shim.
    pub(super) async fn settle(self: &Arc<Self>, id: &str, code: i32, date: Option<Date>) -> Phase {
        let folder = self.folder(id);
        let record = container::get(&self.link, id).await.ok().flatten();
        let group = record.as_ref().and_then(|record| cgroup_of(&record.spec));
        let (volumes, container) = (self.volumes.clone(), id.to_owned());
        let noted = unblock(move || {
            let root = Path::new(cgroups::ROOT);
            let out_of_memory = group.is_some_and(|group| cgroups::ran_out_of_memory(root, &group));
            let before = folder.read_exit();
            let exit = before.unwrap_or(Exit { code, date, out_of_memory });
            let written = folder.write_exit(&exit);
            if before.is_none() && written.is_ok() {
                volumes.let_go(&container);
            }
            (written, exit)
        });
        let (written, exit) = noted.await;
        match written {
            // The shim keeps what could not be noted. Of one that was removed nobody asks.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, container = id, "cannot note an exit");
            }
            Ok(()) | Err(_) => self.free(id),
        }
        exit.into()
    }

    /// Frees the shim of a container that ended, once nothing else is done to the container.
    ///
    /// Of two deletes at a time the second may find the process deleted but the shim still counting
    /// it: containerd then asks the shim to end, which it does not yet, and hangs up on it for ever.
    fn free(self: &Arc<Self>, id: &str) {
        let (shared, id) = (Arc::clone(self), id.to_owned());
        smol::spawn(async move {
            let _guard = shared.lock(&id).await;
            if let Err(error) = task::delete(&shared.link, &id).await {
                tracing::debug!(%error, container = id, "cannot free the shim");
            }
        })
        .detach();
    }

    /// Ends the commands that a daemon which died left in containers.
    pub(super) async fn sweep_execs(&self) {
        exec::sweep(&self.link, &self.config.run_dir, &self.exec_prefix).await;
    }

    /// Tells whether there is a container of this id, or one is being made.
    pub(super) async fn is_of_use(&self, id: &str) -> Result<bool, CallError> {
        let made = self.preparing.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
        Ok(made || container::get(&self.link, id).await?.is_some())
    }

    /// Removes snapshots that a crash left between being made and being recorded.
    pub(super) async fn sweep(&self) -> Result<(), CallError> {
        let keys = snapshot::of_tasks(&self.link, SNAPSHOTTER).await?;
        let records = container::list(&self.link).await?;
        let known: BTreeSet<String> = records.into_iter().map(|record| record.id).collect();
        for key in keys.into_iter().filter(|key| !known.contains(key)) {
            if !self.is_of_use(&key).await? {
                snapshot::remove(&self.link, SNAPSHOTTER, &key).await?;
            }
        }
        Ok(())
    }
}

fn info(record: Record, task: TaskId, phase: Phase, data_dir: &Path) -> ContainerInfo {
    let spec: serde_json::Value = serde_json::from_slice(&record.spec).unwrap_or_default();
    let args = spec["process"]["args"].as_array().cloned().unwrap_or_default();
    let mut command: Vec<String> =
        args.iter().filter_map(|arg| arg.as_str().map(str::to_owned)).collect();
    spec::strip_init(&mut command);
    ContainerInfo {
        task,
        image: record.image,
        command,
        created: record.created.unwrap_or_default(),
        labels: record.labels.into_iter().collect(),
        mounts: spec::mounted(&spec),
        log_path: Folder::new(data_dir, &record.id).log(),
        container: record.id,
        phase,
        health: noted_health(&spec),
    }
}

pub(super) fn cgroup_of(spec: &[u8]) -> Option<String> {
    let spec: serde_json::Value = serde_json::from_slice(spec).ok()?;
    Some(spec["linux"]["cgroupsPath"].as_str()?.to_owned())
}

/// Returns how the shim is told to start the logger. containerd hands the query on as arguments,
/// in any order where there are several; so there is one.
fn log_uri(helper: &Path, log: &Path) -> String {
    let helper = percent(&helper.to_string_lossy());
    format!("binary://{helper}?{}={}", super::LOGGER_MODE, percent(&log.to_string_lossy()))
}

fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to memory cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub(super) fn permanent(message: String) -> Failure {
    Failure { message, temporary: false }
}

/// A failure of the node's disk. Space may come back.
pub(super) fn disk(what: &str, error: &io::Error) -> Failure {
    Failure { message: format!("{what}: {error}"), temporary: true }
}
