//! Puts the real parts together: the composition root of a node.
//!
//! Knows every part and decides nothing about the cluster: it reads the configuration, starts the
//! parts in order, carries requests between them, and ends them on a signal.
//!
//! What is here comes in layers, each of which names those above it only:
//!
//! 1. `machine`, `config`, `membership`: the process, the machine, and what is on disk; `error`,
//!    what may be wrong with these; `installation`, which takes them for this daemon
//! 2. `ports`, and `workload` with its `collector` and `teller`: the ports of `node`
//! 3. `member`, `shared`: what runs
//! 4. `remote`, `containers`: what is asked of a node, this one or another
//! 5. `streams`: what other nodes ask of this one
//! 6. `life`: how a member starts, changes and ends
//! 7. `local`: what clients ask of this node

mod collector;
mod config;
mod containers;
mod error;
mod installation;
mod life;
mod local;
mod machine;
mod member;
mod membership;
mod ports;
mod remote;
mod shared;
mod streams;
mod teller;
#[cfg(test)]
mod tests;
mod workload;

pub use config::{ConfigError, Options};
pub use error::DaemonError;
pub use membership::MembershipError;

use crate::{
    api,
    network::{Network, NetworkConfig},
    pki::TrustedClock,
    runtime::{self, INIT_MODE, LOGGER_MODE, Runtime, containerd::image::Images},
    util::{
        dns::Resolver,
        notify::{notify, watchdog},
    },
};
use collector::Collector;
use config::Config;
use containers::{container::WORK_MAX, garbage};
use futures_lite::{FutureExt as _, StreamExt as _};
use installation::{absolute, lock, make_dir};
use machine::{describe::Machine, host::SystemHost, logging, memory, threads};
use membership::{Membership, lock::SealLock, remember};
use shared::Shared;
use smol::lock::Semaphore;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};
use workload::Containers;

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

fn compose(
    mut options: Options,
    config: Config,
    failed: async_channel::Sender<DaemonError>,
) -> Result<Arc<Shared>, DaemonError> {
    options.data_dir = absolute(&options.data_dir)?;
    options.run_dir = absolute(&options.run_dir)?;
    let id = installation::id(&options.data_dir)?;
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
    })?;
    let last_seen = Membership::load(&options.data_dir)?.map(|m| m.last_seen);
    let collector = Arc::new(Collector::new(&options.data_dir, config.image_gc.0));
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
        lock: Arc::new(SealLock::new(&options.data_dir)),
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
        work: Arc::new(Semaphore::new(WORK_MAX)),
    }))
}

/// How old the time on disk may be when the daemon ends: one that is stopped and started over and
/// over does not wear the card out.
const TIME_KEPT_AT_END: Duration = Duration::from_secs(3_600);

async fn serve(options: Options, config: Config) -> Result<(), DaemonError> {
    let (failed, failures) = async_channel::bounded(1);
    let shared = compose(options, config, failed)?;
    let listener = api::bind(&shared.options.socket)?;
    garbage::start(&shared);
    if let Some(membership) = Membership::load(&shared.options.data_dir)? {
        life::resume(&shared, membership).await?;
    }
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let node: Arc<dyn api::local::LocalNode> = Arc::new(local::Local::new(Arc::clone(&shared)));
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
        remember(&shared.options.data_dir, shared.clock.date(), TIME_KEPT_AT_END);
    }
    fs::remove_file(&shared.options.socket).ok();
    end.map_or(Ok(()), Err)
}

/// Waits for a signal to end.
async fn signal() -> Option<DaemonError> {
    use async_signal::{Signal, Signals};
    let mut signals = match Signals::new([Signal::Term, Signal::Int]) {
        Ok(signals) => signals,
        Err(source) => {
            return Some(DaemonError::Io { what: "wait for signals".to_owned(), source });
        }
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

/// Tells a service manager that asked for it that tasks still get their turn, on every thread that
/// runs them; twice as often as it wants to hear of it, so that a late one is no reason to be
/// restarted.
async fn feed_watchdog() {
    let Some(limit) = watchdog() else { return };
    loop {
        smol::Timer::after(limit / 2).await;
        threads::all_go_on(smol::spawn, threads::count()).await;
        tell("WATCHDOG=1");
    }
}
