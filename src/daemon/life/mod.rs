//! How this node becomes a member of a cluster, changes as one, and ceases to be one.
//!
//! Whoever changes the membership holds [`Shared::changing`]. What a member follows in the background
//! (its certificate, its role, its addresses) does not start and end members: it says that it is to
//! start anew, and that is done here.

pub(crate) mod backup;
pub(crate) mod recovery;
mod renewal;
mod role;
pub(crate) mod start;
pub(crate) mod swarm;
mod whereabouts;

use crate::{
    daemon::{
        error::DaemonError,
        machine::host::SystemEntropy,
        member::Member,
        membership::{Membership, address, roster},
        shared::Shared,
    },
    node::{Ended, Handle},
    pki::{CertificateFiles, Identity, NodeFiles},
    store::{AgentStore, OpenError},
    transport::{self, Endpoint},
    types::{Entropy as _, Role, new_member_key},
    util::error::chain,
};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a port may take to come free that an attempt of a moment ago held.
const BIND_LIMIT: Duration = Duration::from_secs(3);

/// How often that is tried.
const BIND_POLL: Duration = Duration::from_millis(50);

/// How long whoever still looks at a member that was stopped may take to let go of its files: an
/// answer on its way to a client, above all.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// Where an endpoint is that nobody is to reach: at whichever port is free, for this machine alone.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Takes up the membership that is on disk.
pub(crate) async fn resume(
    shared: &Arc<Shared>,
    membership: Membership,
) -> Result<(), DaemonError> {
    let data_dir = &shared.options.data_dir;
    let files = CertificateFiles::under(data_dir).load()?.ok_or_else(|| {
        DaemonError::Other(format!(
            "this node is in a cluster, but its certificate is gone from {}",
            data_dir.display()
        ))
    })?;
    let mut membership = settle(data_dir, membership, &files)?;
    // It may have moved while nobody looked.
    let before = membership.clone();
    drop(whereabouts::follow(&shared.config.advertise_addr, &mut membership));
    if membership != before {
        membership.save(data_dir)?;
    }
    let endpoint = bind_again(shared, &membership.listen).await?;
    let member = start::start(shared, membership, files, endpoint, None).await?;
    install(shared, member);
    Ok(())
}

/// Makes the membership's role that of the certificate, and removes what a worker does not have.
fn settle(
    data_dir: &Path,
    mut membership: Membership,
    files: &NodeFiles,
) -> Result<Membership, DaemonError> {
    let role = Identity::from_certificate(&files.certificate)?.role;
    if role == membership.role {
        return Ok(membership);
    }
    tracing::info!(%role, "this node takes another role");
    if role == Role::Worker {
        forget_state(data_dir)?;
        // Without its log it is another member of the group, should it ever come back.
        membership.member = Some(new_member_key(SystemEntropy.next_u128()));
        membership.was_manager = true;
    }
    membership.role = role;
    membership.save(data_dir)?;
    Ok(membership)
}

/// Makes a member the daemon's; waits in the background for its end, and for its word that it is to
/// start anew.
fn install(shared: &Arc<Shared>, member: Member) {
    let (handle, end, anew) = (member.handle.clone(), member.ended.clone(), member.anew.clone());
    let member = Arc::new(member);
    // Weak: what says so is dropped with the member.
    let before = Arc::downgrade(&member);
    shared.set_member(Some(member));
    let keeper = Arc::clone(shared);
    smol::spawn(async move {
        if let Ok(files) = anew.recv().await
            && let Some(before) = before.upgrade()
        {
            start_anew(&keeper, before, &files).await;
        }
    })
    .detach();
    let shared = Arc::clone(shared);
    smol::spawn(async move {
        match end.recv().await {
            Ok(Ended::Retired { reason }) => retire(&shared, &handle, &reason).await,
            Ok(Ended::Fatal { error }) => shared.fail(DaemonError::Other(error)),
            Ok(Ended::Stopped) | Err(_) => {}
        }
    })
    .detach();
}

/// Starts a member anew with another certificate, or with other settings: on the same files, while
/// containers go on running.
async fn start_anew(shared: &Arc<Shared>, before: Arc<Member>, files: &NodeFiles) {
    let _one = shared.changing.lock().await;
    if shared.member().is_none_or(|now| !Arc::ptr_eq(&now, &before)) {
        return;
    }
    let data_dir = &shared.options.data_dir;
    let started = async {
        CertificateFiles::under(data_dir).save(files)?;
        let had_log = before.consensus().is_some();
        stop(shared, before).await;
        // The last tasks of the member that ended hold its files for a moment.
        released(|| {
            let _agent = AgentStore::open(&data_dir.join("agent.redb"))?;
            match shared.lock.open()?.filter(|_| had_log) {
                Some(seal) => start::open_store(data_dir, &seal).map(drop),
                None => Ok(()),
            }
        })
        .await?;
        match Membership::load(data_dir)? {
            Some(membership) => resume(shared, membership).await,
            None => Ok(()),
        }
    };
    if let Err(error) = started.await {
        // The files say what the node is: the next start finds it so.
        shared.fail(error);
    }
}

/// Ends the member that runs, for another to take its place.
async fn stop(shared: &Shared, member: Arc<Member>) {
    member.stop().await;
    shared.set_member(None);
}

/// The node is no longer a member: everything of it goes.
async fn retire(shared: &Arc<Shared>, handle: &Handle, reason: &str) {
    tracing::info!(reason, "this node is no longer a member of its cluster");
    let _one = shared.changing.lock().await;
    if let Some(member) = shared.member() {
        if let Some(consensus) = member.consensus() {
            consensus.shutdown().await;
        }
        member.endpoint.close().await;
    }
    handle.stop();
    shared.containers.network().teardown().await;
    shared.containers.remove_cgroup();
    if let Err(error) = forget(&shared.options.data_dir) {
        tracing::error!(error = error.explain(), "cannot forget the cluster");
    }
    shared.set_member(None);
}

/// Removes every trace of a membership: also what a join or init that was cut short has left.
fn forget(data_dir: &Path) -> Result<(), DaemonError> {
    Membership::remove(data_dir)?;
    CertificateFiles::under(data_dir).remove()?;
    forget_state(data_dir)?;
    remove_files([data_dir.join("agent.redb")])
}

/// Removes what only a manager has.
fn forget_state(data_dir: &Path) -> Result<(), DaemonError> {
    let files = ["manager.redb", "seal.key", roster::FILE];
    remove_files(files.map(|file| data_dir.join(file)))
}

fn remove_files<const N: usize>(paths: [PathBuf; N]) -> Result<(), DaemonError> {
    for path in paths {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(DaemonError::Io { what: format!("remove {}", path.display()), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens files that a member which was stopped may not have let go of yet.
async fn released<T>(open: impl Fn() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    let start = Instant::now();
    loop {
        match open() {
            Err(DaemonError::Store(OpenError::InUse { .. })) if start.elapsed() < RELEASE_LIMIT => {
                smol::Timer::after(RELEASE_POLL).await;
            }
            result => return result,
        }
    }
}

/// Binds the endpoint; waits a moment where the port is taken, since the endpoint of a join that
/// just failed lets go of it only once its last connection has.
async fn bind(shared: &Shared, listen: SocketAddr) -> Result<Endpoint, DaemonError> {
    let start = Instant::now();
    loop {
        let (clock, resolver) = (shared.clock.clone(), shared.resolver.clone());
        match Endpoint::bind(transport::Config { listen, clock, resolver }) {
            Err(transport::BindError::Socket { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && start.elapsed() < BIND_LIMIT =>
            {
                smol::Timer::after(BIND_POLL).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Binds the endpoint where this node listened before. Where the machine has no such address, as
/// after a power cut before DHCP has answered, it is bound where nobody reaches it: the node's
/// containers come back all the same, and [`whereabouts`] moves it once the address is there.
async fn bind_again(shared: &Shared, text: &str) -> Result<Endpoint, DaemonError> {
    let why = match address::listen(text) {
        Ok(listen) => match bind(shared, listen).await {
            Err(DaemonError::Bind(error)) if error.lacks_address() => chain(&error),
            result => return result,
        },
        // An interface that has no address, or is not there.
        Err(error) => error.to_string(),
    };
    tracing::warn!(why, "other nodes do not reach this one until the machine has that address");
    bind(shared, NOWHERE).await
}
