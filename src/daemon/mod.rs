//! Puts the real parts together: the composition root of a node.
//!
//! Knows every part and decides nothing about the cluster: it reads the configuration, starts the
//! parts in order, carries requests between them, and ends them on a signal.

mod address;
mod backup;
mod chores;
mod config;
mod container;
mod describe;
mod exec;
mod garbage;
mod host;
mod images;
mod local;
mod lock;
mod logging;
mod logs;
mod member;
mod membership;
mod memory;
mod ports;
mod recovery;
mod remote;
mod renewal;
mod role;
mod roster;
mod streams;
mod swarm;
mod teller;
#[cfg(test)]
mod tests;
mod threads;
mod whereabouts;
mod workload;

use crate::{
    api,
    cluster::{Class, Refusal, Request, Response},
    consensus::StartError,
    network::{Network, NetworkConfig},
    node::{Ended, Handle},
    pki::{CaError, CertificateFiles, FileError, TrustedClock},
    runtime::{self, INIT_MODE, LOGGER_MODE, Runtime, containerd::image::Images},
    store::OpenError,
    transport::{BindError, TlsError},
    types::NodeId,
    util::{
        disk::advice,
        dns::Resolver,
        notify::{notify, watchdog},
    },
};
use config::{Config, ConfigError};
use describe::Machine;
use futures_lite::{FutureExt as _, StreamExt as _};
use host::{SystemEntropy, SystemHost};
use member::Member;
use membership::{Membership, MembershipError};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use workload::Containers;

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

/// The daemon cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(ConfigErrorBox),
    /// A file or folder.
    #[error("cannot {what}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
    /// Another daemon uses the data directory.
    #[error("another midge daemon uses {0}")]
    InUse(PathBuf),
    /// What the node remembers of its cluster cannot be read or written.
    #[error("{0}")]
    Membership(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] CaError),
    /// The node's certificate files cannot be read or written.
    #[error("cannot use the node's certificate files")]
    Files(#[from] FileError),
    /// The node's certificate cannot be used.
    #[error("cannot use the node's certificate")]
    Tls(#[from] TlsError),
    /// The UDP port cannot be listened on.
    #[error("cannot listen for other nodes")]
    Bind(#[from] BindError),
    /// The API's socket cannot be listened on.
    #[error("cannot listen for clients")]
    Api(#[from] api::BindError),
    /// The consensus engine does not start.
    #[error("cannot start the consensus engine")]
    Consensus(#[from] StartError),
    /// The cluster refused.
    #[error("{0}")]
    Refused(Refusal),
    /// Something that cannot happen on a machine that is set up right.
    #[error("{0}")]
    Other(String),
}

/// A configuration error, whose own type is the module's affair.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrorBox(String);

impl From<ConfigError> for DaemonError {
    fn from(error: ConfigError) -> Self {
        Self::Config(ConfigErrorBox(runtime::image::chain(&error)))
    }
}

impl From<MembershipError> for DaemonError {
    fn from(error: MembershipError) -> Self {
        Self::Membership(runtime::image::chain(&error))
    }
}

impl DaemonError {
    /// Tells whether nothing was started since the configuration is wrong.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    /// Returns the whole chain of causes, as one line.
    #[must_use]
    pub fn explain(&self) -> String {
        runtime::image::chain(self)
    }

    /// Returns what to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Config(_) => "midge's README lists what the configuration may hold".to_owned(),
            Self::InUse(_) => {
                "several daemons need a --data-dir, a --run-dir and a --socket each".to_owned()
            }
            Self::Bind(error) => listening(error)?.to_owned(),
            Self::Store(error) => error.hint()?.to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the daemon runs as root".to_owned()
            }
            Self::Io { source, .. } => advice(source.kind())?.to_owned(),
            _ => return None,
        })
    }
}

/// Returns what to do where an address cannot be listened at.
fn listening(error: &BindError) -> Option<&'static str> {
    match error {
        BindError::Socket { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => Some(
                "another program uses the port; join or init with another one: --listen-addr \
                 0.0.0.0:PORT",
            ),
            io::ErrorKind::AddrNotAvailable => {
                Some("this machine does not have that address: `ip address` shows those it has")
            }
            _ => None,
        },
        BindError::Tls(_) => None,
    }
}

/// What all of the daemon's parts share.
pub(crate) struct Shared {
    options: Options,
    config: Config,
    host: SystemHost,
    clock: TrustedClock,
    resolver: Resolver,
    containers: Containers,
    collector: Arc<garbage::Collector>,
    member: Mutex<Option<Arc<Member>>>,
    /// The key that seals the log of a manager.
    lock: Arc<lock::SealLock>,
    /// Taken by whoever changes the membership: one at a time.
    changing: smol::lock::Mutex<()>,
    /// Told when the daemon must end with an error.
    failed: async_channel::Sender<String>,
    /// Commands in containers that clients made here.
    execs: exec::Execs,
    /// What is being done with this node's containers.
    work: container::Work,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the member; where there is none since it starts anew, waits until it has.
    async fn settled_member(&self) -> Option<Arc<Member>> {
        if self.member().is_none() {
            self.settled().await;
        }
        self.member()
    }

    /// Waits while the membership is being changed. Whoever does so with a member in hand keeps the
    /// next one from its files.
    async fn settled(&self) {
        if self.changing.try_lock().is_none() {
            let changed = async { drop(self.changing.lock().await) };
            let late = async {
                smol::Timer::after(CHANGE_LIMIT).await;
            };
            changed.or(late).await;
        }
    }

    fn set_member(&self, member: Option<Arc<Member>>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// Asks the leader.
    async fn ask(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        match self.member() {
            Some(member) => member.handle.request(request, limit).await,
            None => Err(Refusal::new(Class::Unavailable, api::error::NOT_IN_SWARM)),
        }
    }
}

/// Runs as one of the helpers that live beside containers, where this process was started as one.
#[must_use]
pub fn helper_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next()?;
    let rest: Vec<_> = args.collect();
    if mode == LOGGER_MODE {
        Some(runtime::logger_main(&rest))
    } else if mode == INIT_MODE {
        Some(runtime::init_main(&rest))
    } else {
        None
    }
}

/// Runs the daemon until it is told to end.
///
/// # Errors
///
/// It cannot start, or cannot go on.
pub fn run(options: Options) -> Result<(), DaemonError> {
    memory::share_heap();
    threads::allow();
    let config = Config::read(options.config.as_deref())?;
    logging::start(options.json_log, options.log_level);
    for dir in [&options.data_dir, &options.run_dir] {
        make_dir(dir)?;
    }
    let _lock = lock(&options.data_dir)?;
    smol::block_on(serve(options, config))
}

/// Returns where the configuration is unless told otherwise.
#[must_use]
pub fn config_path() -> &'static Path {
    Path::new(config::DEFAULT_PATH)
}

/// Returns what a daemon has start containers with the configuration at `path`, or with the one at
/// the usual place, which may be missing: `auto`, or nothing, where it chooses.
///
/// # Errors
///
/// It cannot be read, or is wrong: no daemon starts with it.
pub fn configured_runtime(path: Option<&Path>) -> Result<String, DaemonError> {
    Ok(Config::read(path)?.runtime)
}

/// Returns the UDP port that the node with this data directory talks to others on: the one it
/// listens at, or the usual one where it is in no cluster, or none may know.
#[must_use]
pub fn cluster_port(data_dir: &Path) -> u16 {
    let membership = Membership::load(data_dir).ok().flatten();
    let port = membership.and_then(|it| it.listen.rsplit_once(':')?.1.parse().ok());
    port.unwrap_or(crate::transport::PORT)
}

fn make_dir(dir: &Path) -> Result<(), DaemonError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|source| DaemonError::Io { what: format!("make {}", dir.display()), source })
}

/// Takes the data directory for this process alone, until the file is closed.
fn lock(data_dir: &Path) -> Result<fs::File, DaemonError> {
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
fn installation(data_dir: &Path) -> Result<NodeId, DaemonError> {
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
            let mut file = fs::File::create(&path).map_err(failed("make"))?;
            writeln!(file, "{id}").and_then(|()| file.sync_all()).map_err(failed("write"))?;
            Ok(id)
        }
        Err(source) => Err(failed("read")(source)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, DaemonError> {
    std::path::absolute(path)
        .map_err(|source| DaemonError::Io { what: format!("find {}", path.display()), source })
}

fn compose(
    mut options: Options,
    config: Config,
    failed: async_channel::Sender<String>,
) -> Result<Arc<Shared>, DaemonError> {
    options.data_dir = absolute(&options.data_dir)?;
    options.run_dir = absolute(&options.run_dir)?;
    let id = installation(&options.data_dir)?;
    let executable = std::env::current_exe()
        .map_err(|source| DaemonError::Io { what: "find this executable".to_owned(), source })?;
    let helper = runtime::install_helper(&executable, &options.data_dir).map_err(|source| {
        DaemonError::Io { what: "keep a copy of this executable for containers".to_owned(), source }
    })?;
    let namespace = format!("midge-{id}");
    let socket = options.containerd.to_string_lossy().into_owned();
    let runtime = Runtime::new(runtime::Config {
        socket: socket.clone(),
        namespace: namespace.clone(),
        data_dir: options.data_dir.clone(),
        run_dir: options.run_dir.clone(),
        oci: Arc::new(runtime::OciChoice::new(&config.runtime, &helper, &options.run_dir)),
        helper,
        cdi_dirs: runtime::CDI_DIRS.map(PathBuf::from).into(),
    });
    // Containers that run go on, and so does everything else of the node.
    if let Some(error) = runtime.cannot_make() {
        tracing::error!(error, "no container can be made");
    }
    let resolver = Resolver::default();
    let registry = runtime::registry::RegistryConfig {
        mirrors: config.registry.mirrors.clone(),
        plain_http: config.registry.plain_http.clone(),
    };
    let resolve = resolver.clone();
    let resolve: runtime::registry::Resolve =
        Arc::new(move |host, port| resolve.resolve_blocking(host, port).map_err(io::Error::other));
    let images = Images::new(&socket, &namespace, registry, resolve)
        .map_err(|error| DaemonError::Other(error.to_string()))?;
    let network = Network::new(NetworkConfig {
        id: id.clone(),
        data_dir: options.data_dir.clone(),
        run_dir: options.run_dir.clone(),
    })
    .map_err(|error| DaemonError::Other(runtime::image::chain(&error)))?;
    let last_seen = Membership::load(&options.data_dir)?.map(|m| m.last_seen);
    let collector = garbage::Collector::new(&options.data_dir, config.image_gc.0);
    let collector = Arc::new(collector);
    let containers = Containers::new(
        runtime,
        images,
        Arc::clone(&collector),
        network,
        Machine::look(config.generic_resources.clone()),
        config.engine_labels.clone(),
        format!("/midge/{id}"),
    );
    Ok(Arc::new(Shared {
        lock: Arc::new(lock::SealLock::new(&options.data_dir)),
        options,
        config,
        host: SystemHost::new(),
        clock: TrustedClock::system(last_seen.unwrap_or_default()),
        resolver,
        containers,
        collector,
        member: Mutex::new(None),
        changing: smol::lock::Mutex::new(()),
        failed,
        execs: exec::Execs::default(),
        work: container::Work::default(),
    }))
}

/// How long a client waits for a member that starts anew: the files of the one before come free, and
/// an engine reads its log.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// How old the time on disk may be when the daemon ends: one that is stopped and started over and
/// over does not wear the card out.
const TIME_KEPT_AT_END: Duration = Duration::from_secs(3_600);

async fn serve(options: Options, config: Config) -> Result<(), DaemonError> {
    let (failed, failures) = async_channel::bounded(1);
    let shared = compose(options, config, failed)?;
    let listener = api::bind(&shared.options.socket)?;
    garbage::start(&shared);
    if let Some(membership) = Membership::load(&shared.options.data_dir)? {
        resume(&shared, membership).await?;
    }
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let node: Arc<dyn api::local::LocalNode> = Arc::new(local::Local(Arc::clone(&shared)));
    let serving = smol::spawn(api::serve(listener, node, async move {
        // Closed says the same as a message: it is over.
        stopped.recv().await.ok();
    }));
    tell("READY=1");
    // On the executor that runs everything else: what holds that up ends this as well.
    let _watched = smol::spawn(feed_watchdog());
    let _small = smol::spawn(memory::stay_small());
    tracing::info!(socket = %shared.options.socket.display(), "ready");
    let end = signal().or(async { failures.recv().await.ok() }).await;
    tell("STOPPING=1");
    drop(stop);
    serving.await;
    if let Some(member) = shared.member() {
        member.stop().await;
        swarm::remember(&shared, TIME_KEPT_AT_END);
    }
    fs::remove_file(&shared.options.socket).ok();
    end.map_or(Ok(()), |error| Err(DaemonError::Other(error)))
}

/// Takes up the membership that is on disk.
async fn resume(shared: &Arc<Shared>, membership: Membership) -> Result<(), DaemonError> {
    let files = CertificateFiles::under(&shared.options.data_dir).load()?.ok_or_else(|| {
        DaemonError::Other(format!(
            "this node is in a cluster, but its certificate is gone from {}",
            shared.options.data_dir.display()
        ))
    })?;
    let membership = role::settle(&shared.options.data_dir, membership, &files)?;
    swarm::start(shared, membership, files).await
}

/// Waits for a signal to end.
async fn signal() -> Option<String> {
    use async_signal::{Signal, Signals};
    let mut signals = match Signals::new([Signal::Term, Signal::Int]) {
        Ok(signals) => signals,
        Err(error) => return Some(format!("cannot wait for signals: {error}")),
    };
    let signal = signals.next().await;
    tracing::info!(?signal, "ending; containers go on running");
    None
}

fn tell(state: &str) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Tells a service manager that asked for it that tasks still get their turn; twice as often as it
/// wants to hear of it, so that a late one is no reason to be restarted.
async fn feed_watchdog() {
    let Some(limit) = watchdog() else { return };
    loop {
        smol::Timer::after(limit / 2).await;
        tell("WATCHDOG=1");
    }
}

/// The node behind a handle ended by itself.
async fn ended(shared: &Arc<Shared>, handle: &Handle, ended: Ended) {
    match ended {
        Ended::Stopped => {}
        Ended::Retired { reason } => swarm::retire(shared, handle, &reason).await,
        Ended::Fatal { error } => {
            // Full says that somebody told before.
            let _told = shared.failed.try_send(error);
        }
    }
}
