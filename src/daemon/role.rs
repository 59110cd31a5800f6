//! This node's role as it changes: told by a manager, proved by a certificate, and then lived.
//!
//! A node that takes another role starts its member anew, on the same files; containers go on
//! running. The certificate decides which role a node has, also where power was cut in between.

use super::{
    DaemonError, Shared,
    address::{self, Advertised, Origin},
    host::SystemEntropy,
    member,
    membership::Membership,
    ports::{Elections, Place},
    recovery, swarm,
};
use crate::{
    pki::{self, CertificateFiles, Identity, NodeFiles},
    runtime::image::chain,
    store::AgentStore,
    transport::Endpoint,
    types::{Entropy as _, Role, new_member_key},
    wire::{StreamReply, StreamRequest},
};
use async_channel::Receiver;
use futures_lite::FutureExt as _;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

/// The wait before a role that could not be taken is asked for again: the group of managers lets a
/// member go within some round trips.
const RETRY: Duration = Duration::from_millis(500);

/// Within how long all managers start anew whose election timeout changed.
const TURNS_MAX: Duration = Duration::from_secs(5);

/// How long a manager may take to answer: two commits on the slowest card, and an election.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What changes about a member while it runs.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) places: Receiver<Place>,
    /// How long the consensus group should do without a leader.
    pub(super) elections: Receiver<Elections>,
}

enum Change {
    Place(Place),
    Election(Elections),
    /// Nothing: a role that could not be taken is asked for again.
    Again,
}

/// Follows what managers say of this node's place, until dropped.
pub(super) async fn run(shared: Weak<Shared>, endpoint: Endpoint, changes: Changes) {
    let mut wanted: Option<Role> = None;
    let mut let_go = false;
    loop {
        let told = async { changes.places.recv().await.ok().map(Change::Place) };
        let election = async {
            match changes.elections.recv().await {
                Ok(timeout) => Some(Change::Election(timeout)),
                // A worker has no such group.
                Err(_) => std::future::pending().await,
            }
        };
        let again = async {
            if wanted.is_none() {
                return std::future::pending().await;
            }
            smol::Timer::after(RETRY).await;
            Some(Change::Again)
        };
        let Some(change) = told.or(election).or(again).await else { return };
        let Some(shared) = shared.upgrade() else { return };
        match change {
            Change::Place(place) => {
                wanted = Some(place.role);
                let own = shared.member().map(|member| member.told.get());
                let_go = !place.managers.is_empty()
                    && !own.is_some_and(|it| place.managers.contains(&it));
                if let Err(error) = learn(&shared, &endpoint, place.managers) {
                    tracing::warn!(error = error.explain(), "cannot write down where managers are");
                }
            }
            Change::Election(elections) => {
                // This task ends with the member that it replaces.
                smol::spawn(hold_elections(Arc::clone(&shared), elections)).detach();
                return;
            }
            Change::Again => {}
        }
        let Some(member) = shared.member() else { continue };
        let own = member.membership.role;
        // A manager that is no longer among the managers asks whether it is one.
        if wanted == Some(own) && !(own == Role::Manager && let_go) {
            wanted = None;
        }
        let Some(role) = wanted else { continue };
        match take(&shared, &endpoint, role).await {
            Ok(Some((files, role))) if role != own => {
                // This task ends with the member that it replaces.
                smol::spawn(switch(Arc::clone(&shared), member, files, role)).detach();
                return;
            }
            Ok(Some(_)) if role == own => wanted = None,
            Ok(_) => {}
            Err(error) => {
                tracing::info!(error = error.explain(), %role, "the role is not taken yet");
            }
        }
    }
}

/// Takes in where the managers are, for the next session and the next start.
fn learn(shared: &Shared, endpoint: &Endpoint, managers: Vec<String>) -> Result<(), DaemonError> {
    let Some(mut membership) = Membership::load(&shared.options.data_dir)? else { return Ok(()) };
    if managers.is_empty() || membership.managers == managers {
        return Ok(());
    }
    membership.managers = managers;
    membership.save(&shared.options.data_dir)?;
    let locked = shared.member().is_some_and(|member| member.locked);
    endpoint.set_managers(member::managers(&membership, locked));
    Ok(())
}

/// Asks for a certificate of the role that this node should have by now; returns it, and the role
/// it is of. None while the node is no member.
async fn take(
    shared: &Shared,
    endpoint: &Endpoint,
    role: Role,
) -> Result<Option<(NodeFiles, Role)>, DaemonError> {
    let data_dir = &shared.options.data_dir;
    let (Some(mut files), Some(membership)) =
        (CertificateFiles::under(data_dir).load()?, Membership::load(data_dir)?)
    else {
        return Ok(None);
    };
    let chosen = match role {
        Role::Worker => None,
        Role::Manager => choose_address(shared, endpoint, &membership).await,
    };
    let advertise = chosen.clone().unwrap_or_else(|| membership.advertise.clone());
    let (_, csr) = pki::new_key_and_request(Some(&files.key))?;
    let request =
        StreamRequest::TakeRole { csr, advertise: advertise.clone(), member: membership.key() };
    let reply = endpoint.ask_manager(request, ANSWER_LIMIT).await;
    let reply = reply.map_err(|error| DaemonError::Other(chain(&error)))?;
    let StreamReply::Admitted(admission) = reply else {
        return Err(DaemonError::Other("a manager answered oddly".to_owned()));
    };
    let odd = || DaemonError::Other("a manager sent a certificate that is not ours".to_owned());
    let identity = Identity::from_certificate(&admission.certificate).map_err(|_| odd())?;
    let same_key =
        pki::key_digest(&files.certificate).ok() == pki::key_digest(&admission.certificate).ok();
    if identity.node != membership.node || identity.cluster != membership.cluster || !same_key {
        return Err(odd());
    }
    files.certificate = admission.certificate;
    if identity.role == Role::Manager {
        keep_address(data_dir, chosen)?;
    }
    Ok(Some((files, identity.role)))
}

/// Chooses where others reach this node once it is a manager, where nothing says so yet.
async fn choose_address(
    shared: &Shared,
    endpoint: &Endpoint,
    membership: &Membership,
) -> Option<String> {
    if !membership.advertise.is_empty() {
        return None;
    }
    let port = endpoint.local_address().map_or(crate::transport::PORT, |own| own.port());
    let manager = membership.managers.first().map_or("", String::as_str);
    own_address(shared, manager, port).await
}

fn keep_address(data_dir: &Path, chosen: Option<String>) -> Result<(), DaemonError> {
    let (Some(address), Some(mut membership)) = (chosen, Membership::load(data_dir)?) else {
        return Ok(());
    };
    membership.set_advertised(Advertised { address, origin: Origin::Found });
    Ok(membership.save(data_dir)?)
}

/// Takes the role that a renewed certificate is of: it was changed while the node was away, or the
/// answer was lost that said so.
pub(super) async fn overtaken(
    shared: Arc<Shared>,
    endpoint: &Endpoint,
    files: NodeFiles,
    role: Role,
) -> Result<(), DaemonError> {
    let Some(member) = shared.member() else { return Ok(()) };
    if role == Role::Manager {
        let chosen = choose_address(&shared, endpoint, &member.membership).await;
        keep_address(&shared.options.data_dir, chosen)?;
    }
    // What calls this ends with the member that is replaced.
    smol::spawn(switch(shared, member, files, role)).detach();
    Ok(())
}

/// Makes the membership's role that of the certificate, and removes what a worker does not have.
pub(super) fn settle(
    data_dir: &Path,
    mut membership: Membership,
    files: &NodeFiles,
) -> Result<Membership, DaemonError> {
    let identity = Identity::from_certificate(&files.certificate)
        .map_err(|error| DaemonError::Other(chain(&error)))?;
    if identity.role == membership.role {
        return Ok(membership);
    }
    if identity.role == Role::Worker {
        member::forget_state(data_dir)?;
        // Without its log it is another member of the group, should it ever come back.
        membership.member = Some(new_member_key(SystemEntropy.next_u128()));
        membership.was_manager = true;
    }
    membership.role = identity.role;
    membership.save(data_dir)?;
    Ok(membership)
}

/// Starts the member anew in its other role.
async fn switch(shared: Arc<Shared>, before: Arc<member::Member>, files: NodeFiles, role: Role) {
    let _one = shared.changing.lock().await;
    if shared.member().is_none_or(|now| !Arc::ptr_eq(&now, &before)) {
        return;
    }
    if role != before.membership.role {
        tracing::info!(%role, "this node takes another role");
    }
    let data_dir = &shared.options.data_dir;
    let switched = async {
        CertificateFiles::under(data_dir).save(&files)?;
        let had_log = before.store.is_some();
        recovery::stop(&shared, before).await;
        // The last tasks of the member that ended hold its files for a moment.
        recovery::released(|| {
            let _agent = AgentStore::open(&data_dir.join("agent.redb"))?;
            match shared.lock.open()?.filter(|_| had_log) {
                Some(seal) => member::open_store(data_dir, &seal).map(drop),
                None => Ok(()),
            }
        })
        .await?;
        let Some(membership) = Membership::load(data_dir)? else { return Ok(()) };
        let membership = settle(data_dir, membership, &files)?;
        swarm::start(&shared, membership, files).await
    };
    if let Err(error) = switched.await {
        // The files say what the node is: the next start finds it so.
        let _told = shared.failed.try_send(error.explain());
    }
}

/// Starts the member anew with another election timeout: managers one after another, the leader,
/// whose end costs an election, last.
async fn hold_elections(shared: Arc<Shared>, elections: Elections) {
    let Elections { timeout, as_of } = elections;
    let Some(before) = shared.member() else { return };
    let turn = if before.handle.status().leading {
        TURNS_MAX
    } else {
        TURNS_MAX.mul_f64(rand::random::<f64>() * 0.8)
    };
    smol::Timer::after(turn).await;
    let data_dir = &shared.options.data_dir;
    let kept = || -> Result<Option<NodeFiles>, DaemonError> {
        let Some(mut membership) = Membership::load(data_dir)? else { return Ok(None) };
        membership.election_millis = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        membership.election_as_of = as_of;
        membership.save(data_dir)?;
        Ok(CertificateFiles::under(data_dir).load()?)
    };
    match kept() {
        Ok(Some(files)) => {
            tracing::info!(?timeout, "managers do without a leader for another time from now on");
            let role = before.membership.role;
            switch(shared, before, files, role).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(error = error.explain(), "the election timeout is as it was");
        }
    }
}

/// Returns this machine's own address on the way to a manager, `host:port`.
pub(super) async fn own_address(shared: &Shared, manager: &str, port: u16) -> Option<String> {
    let found = shared.resolver.resolve_pair(manager, crate::transport::PORT).await.ok()?;
    let own = address::way_to(found.first().copied())?;
    Some(SocketAddr::from((own, port)).to_string())
}
