//! Starts the parts of a member together, or none of them.

use super::{renewal, role, whereabouts};
use crate::{
    agent,
    cluster::{Change, Class, Command, Refusal},
    consensus::{Consensus, OnSmol, Settings},
    daemon::{
        error::DaemonError,
        machine::host::{SystemEntropy, random_bytes, wall_clock},
        member::{Duty, Member, Told, credentials, end, managers},
        membership::{Membership, roster},
        ports::{AuthorityPort, DiskPort, Elections, LogPort, MemberPort, PeersPort},
        shared::Shared,
        streams,
    },
    node::{
        self, Handle, ManagerPorts, Ports,
        ports::{Log as _, Write},
    },
    pki::{NodeFiles, SealKey},
    store::{AgentStore, ManagerStore, Sealer},
    transport::Endpoint,
    types::{Cluster, Entropy, Node, RequestId, Role},
};
use futures_lite::FutureExt as _;
use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

/// How many parts of the election timeout a leader's lease and the wait after it are: the engine
/// waits for twice its shortest wait, the lease, and then once to twice that wait.
const WAITS_PER_TIMEOUT: u32 = 3;

/// How often the leader tells the other managers that it lives, in tenths of the engine's shortest
/// wait, which is the longest there is. An answer has to be here before the next beat, so this is
/// the longest round trip; to miss one beat, or two, does no harm. A leader that is alone tells
/// nobody.
const BEAT_TENTHS: u32 = 9;

/// How long making the cluster's first entry may take: one commit on the slowest card.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(30);

/// How often the disk is looked at meanwhile.
const DISK_LOOK: Duration = Duration::from_millis(100);

/// What makes a new cluster.
pub(crate) struct Birth {
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
}

/// A boxed future: the compiler cannot see that one that waits for the engine's may move between
/// threads, unless each of those is looked at alone.
type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, DaemonError>> + Send>>;

/// Starts a member on what is on disk; with `birth`, makes its cluster first. Where it fails nothing
/// runs on, and the port and the files are free for the next attempt.
pub(crate) fn start(
    shared: &Arc<Shared>,
    membership: Membership,
    files: NodeFiles,
    endpoint: Endpoint,
    birth: Option<Birth>,
) -> Boxed<Member> {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let started = start_now(shared, membership, files, endpoint.clone(), birth).await;
        if started.is_err() {
            endpoint.close().await;
        }
        started
    })
}

async fn start_now(
    shared: Arc<Shared>,
    membership: Membership,
    files: NodeFiles,
    endpoint: Endpoint,
    birth: Option<Birth>,
) -> Result<Member, DaemonError> {
    let containers = shared.containers.clone();
    let agent_store = AgentStore::open(&shared.options.data_dir.join("agent.redb"))?;
    let agent_store = agent_store.noting_in(shared.options.run_dir.join("agent"));
    let (election, elections) = async_channel::bounded(1);
    let engine = open_log(&shared, &membership, election)?;
    if engine.is_some() {
        // The log says nothing before a majority is there, and this says who may be one.
        endpoint.set_roster(roster::load(&shared.options.data_dir));
    }
    identify(&endpoint, &membership, &files)?;
    // One waits: a later place counts instead of it.
    let (place, places) = async_channel::bounded(1);
    let (trust, trusts) = async_channel::bounded(1);
    let data_dir: Arc<Path> = Arc::from(shared.options.data_dir.as_path());
    let ports = Ports {
        host: shared.host,
        disk: DiskPort(Arc::new(agent_store)),
        peers: PeersPort { endpoint: endpoint.clone(), places: place, trusts: trust, data_dir },
        workload: containers.clone(),
        manager: engine.as_ref().map(|(_, log)| ManagerPorts {
            log: log.clone(),
            authority: AuthorityPort(shared.clock.clone()),
            member: membership.key(),
        }),
    };
    let options = node::Options {
        node: membership.node.clone(),
        agent: agent::Options::default(),
        occurrences: containers.teller().board().clone(),
    };
    let (handle, run) = node::new(options, ports);
    let (sender, ended) = async_channel::bounded(1);
    smol::spawn(async move {
        // Whoever waited for it may be gone: the daemon ends.
        sender.send(run.run().await).await.ok();
    })
    .detach();
    let mut consensus = None;
    let begun = begin(engine.as_ref(), &membership, &endpoint, (&handle, birth), &mut consensus);
    if let Err(error) = begun.await {
        end(&handle, &ended, consensus.as_ref()).await;
        return Err(error);
    }
    let watch = containers.watch();
    endpoint.set_handler(streams::handler(&shared, &handle, &membership, consensus.clone()));
    let duty = match (membership.role, engine.zip(consensus)) {
        (Role::Worker, _) => Duty::Worker,
        (Role::Manager, None) => Duty::Locked,
        (Role::Manager, Some(((store, _), consensus))) => Duty::Manager { store, consensus },
    };
    let locked = matches!(duty, Duty::Locked);
    endpoint.set_managers(managers(&membership, locked));
    let weak = Arc::downgrade(&shared);
    // One is enough: the member ends by it.
    let (restart, anew) = async_channel::bounded(1);
    let renewal = renewal::run(weak.clone(), endpoint.clone(), trusts, restart.clone());
    let changes = role::Changes { places, elections, restart };
    let role = role::run(weak.clone(), endpoint.clone(), changes);
    let told = Told::new(&membership.advertise);
    let addresses = whereabouts::follow_machine(weak, &handle, &endpoint, &told, locked);
    let _background = [watch, smol::spawn(renewal), smol::spawn(role), addresses];
    Ok(Member { membership, told, duty, handle, endpoint, ended, anew, _background })
}

/// Starts the engine where there is a log, and makes the cluster that is to be made. `consensus` is
/// what was started, also where the rest fails.
async fn begin(
    engine: Option<&(Arc<ManagerStore>, LogPort)>,
    membership: &Membership,
    endpoint: &Endpoint,
    (handle, birth): (&Handle, Option<Birth>),
    consensus: &mut Option<Consensus<OnSmol>>,
) -> Result<(), DaemonError> {
    let Some((store, log)) = engine else { return Ok(()) };
    let own = (membership.key(), membership.election_timeout());
    let engine = start_engine(Arc::clone(store), log.clone(), own, endpoint).await?;
    *consensus = Some(engine.clone());
    let Some(birth) = birth else {
        log.set(engine);
        return Ok(());
    };
    let made = async {
        engine.initialize(membership.advertise.clone()).await?;
        log.set(engine);
        bootstrap(handle.clone(), birth).await
    };
    made.or(unwritable(log)).await
}

/// Returns once the log cannot be written. One that there is waits for its disk for as long as that
/// takes; a cluster that is only being made is not worth it.
async fn unwritable(log: &LogPort) -> Result<(), DaemonError> {
    loop {
        smol::Timer::after(DISK_LOOK).await;
        let why = match log.write_under_way() {
            Some(Write { failure: Some(failure), .. }) => failure,
            Some(Write { time, .. }) if time >= BOOTSTRAP_LIMIT => {
                format!("its disk has not finished a write for {} s", time.as_secs())
            }
            _ => continue,
        };
        let text = format!(
            "cannot write the log of the new cluster: {why} (make room on the disk, and see that it can \
             be written)"
        );
        return Err(Refusal::new(Class::Unavailable, text).into());
    }
}

/// Gives the endpoint what others know this node by.
fn identify(
    endpoint: &Endpoint,
    membership: &Membership,
    files: &NodeFiles,
) -> Result<(), DaemonError> {
    if membership.was_manager {
        endpoint.set_was_manager();
    }
    Ok(endpoint.set_identity(Some(&credentials(files)))?)
}

/// Opens the log of a manager; none on a worker, nor where the manager is locked.
fn open_log(
    shared: &Shared,
    membership: &Membership,
    elections: async_channel::Sender<Elections>,
) -> Result<Option<(Arc<ManagerStore>, LogPort)>, DaemonError> {
    if membership.role == Role::Worker {
        return Ok(None);
    }
    let Some(seal) = shared.lock.open()? else {
        tracing::warn!("this manager is locked: midge swarm unlock opens it");
        return Ok(None);
    };
    let store = open_store(&shared.options.data_dir, &seal)?;
    let (timeout, as_of) = (membership.election_timeout(), membership.election_as_of);
    let (lock, election) = (Arc::clone(&shared.lock), Elections { timeout, as_of });
    Ok(Some((Arc::clone(&store), LogPort::new(store, lock, election, elections))))
}

/// Opens the manager's file with the key that seals it.
pub(crate) fn open_store(
    data_dir: &Path,
    seal: &SealKey,
) -> Result<Arc<ManagerStore>, DaemonError> {
    let nonce = || {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&random_bytes()[..12]);
        nonce
    };
    let sealer = Sealer::new(seal.id, &seal.bytes, nonce);
    Ok(Arc::new(ManagerStore::open(&data_dir.join("manager.redb"), sealer)?))
}

/// Starts the engine. The node's loop must run already, since the engine gives it the snapshot first.
fn start_engine(
    store: Arc<ManagerStore>,
    log: LogPort,
    (id, election): (u64, Duration),
    endpoint: &Endpoint,
) -> Boxed<Consensus<OnSmol>> {
    let peers = Arc::new(MemberPort(endpoint.clone()));
    Box::pin(async move {
        let wait = election / WAITS_PER_TIMEOUT;
        let settings = Settings {
            id,
            heartbeat: wait * BEAT_TENTHS / 10,
            election: wait,
            snapshot_interval: log.snapshot_interval(),
        };
        Ok(Consensus::<OnSmol>::start(&settings, store, peers, log.channel()).await?)
    })
}

async fn bootstrap(handle: Handle, birth: Birth) -> Result<(), DaemonError> {
    let command = Command {
        request: Some(RequestId::from_bits(SystemEntropy.next_u128())),
        term: 0,
        date: wall_clock(),
        change: Change::CreateCluster {
            cluster: Box::new(birth.cluster),
            node: Box::new(birth.node),
        },
    };
    handle.bootstrap(command, BOOTSTRAP_LIMIT).await.map(|_| ()).map_err(DaemonError::from)
}
