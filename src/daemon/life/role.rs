//! This node's role as it changes: told by a manager, proved by a certificate, and then lived.
//!
//! A node that takes another role starts its member anew, on the same files; containers go on
//! running. The certificate decides which role a node has, also where power was cut in between.

use super::whereabouts;
use crate::{
    daemon::{
        error::DaemonError,
        member::managers,
        membership::{
            Membership, MembershipError,
            address::{Advertised, Origin},
        },
        ports::{Elections, Place},
        shared::Shared,
    },
    pki::{self, CertificateFiles, Identity, NodeFiles},
    transport::Endpoint,
    types::Role,
    util::error::chain,
    wire::{StreamReply, StreamRequest},
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use std::{path::Path, sync::Weak, time::Duration};

/// The wait before a role that could not be taken is asked for again: the group of managers lets a
/// member go within some round trips.
const RETRY: Duration = Duration::from_millis(500);

/// Within how long all managers start anew whose election timeout changed.
const TURNS_MAX: Duration = Duration::from_secs(5);

/// How long a manager may take to answer: two commits on the slowest card, and an election.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What changes about a member while it runs.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) places: Receiver<Place>,
    /// How long the consensus group should do without a leader.
    pub(crate) elections: Receiver<Elections>,
    /// Takes in the certificate that the member is to start anew with.
    pub(crate) restart: Sender<NodeFiles>,
}

enum Change {
    Place(Place),
    Election(Elections),
    /// Nothing: a role that could not be taken is asked for again.
    Again,
}

/// Follows what managers say of this node's place, until dropped, or until the member is to start
/// anew.
pub(crate) async fn run(shared: Weak<Shared>, endpoint: Endpoint, changes: Changes) {
    match shared.upgrade() {
        // That it is a member is written down last, and over what is learned before.
        Some(shared) => drop(shared.changing.lock().await),
        None => return,
    }
    let mut wanted: Option<Role> = None;
    let mut let_go = false;
    loop {
        let Some(change) = next(&changes, wanted.is_some()).await else { return };
        let Some(shared) = shared.upgrade() else { return };
        match change {
            Change::Place(place) => {
                wanted = Some(place.role);
                let own = shared.member().map(|member| member.told.get());
                let_go = !place.managers.is_empty()
                    && !own.is_some_and(|it| place.managers.contains(&it));
                if let Err(error) = learn(&shared, &endpoint, place.managers) {
                    tracing::warn!(error = chain(&error), "cannot write down where managers are");
                }
            }
            Change::Election(elections) => {
                let leading = shared.member().is_some_and(|it| it.handle.status().leading);
                smol::Timer::after(turn(leading)).await;
                match keep_elections(&shared.options.data_dir, elections) {
                    Ok(Some(files)) => {
                        let timeout = elections.timeout;
                        tracing::info!(
                            ?timeout,
                            "managers do without a leader for another time from now on"
                        );
                        return restart(&changes.restart, files);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let error = error.explain();
                        tracing::warn!(error, "the election timeout is as it was");
                    }
                }
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
            Ok(Some((files, role))) if role != own => return restart(&changes.restart, files),
            Ok(Some(_)) if role == own => wanted = None,
            Ok(_) => {}
            Err(error) => {
                tracing::info!(error = error.explain(), %role, "the role is not taken yet");
            }
        }
    }
}

/// Waits for what there is to do next; `unfinished` has it done again after a while. None once nobody
/// says anything any more.
async fn next(changes: &Changes, unfinished: bool) -> Option<Change> {
    let told = async { changes.places.recv().await.ok().map(Change::Place) };
    let election = async {
        match changes.elections.recv().await {
            Ok(timeout) => Some(Change::Election(timeout)),
            // A worker has no such group.
            Err(_) => std::future::pending().await,
        }
    };
    let again = async {
        if !unfinished {
            return std::future::pending().await;
        }
        smol::Timer::after(RETRY).await;
        Some(Change::Again)
    };
    told.or(election).or(again).await
}

/// Takes in where the managers are, for the next session and the next start.
fn learn(shared: &Shared, endpoint: &Endpoint, known: Vec<String>) -> Result<(), MembershipError> {
    let Some(mut membership) = Membership::load(&shared.options.data_dir)? else { return Ok(()) };
    if known.is_empty() || membership.managers == known {
        return Ok(());
    }
    membership.managers = known;
    membership.save(&shared.options.data_dir)?;
    let locked = shared.member().is_some_and(|member| member.is_locked());
    endpoint.set_managers(managers(&membership, locked));
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
    let reply = endpoint.ask_manager(request, ANSWER_LIMIT).await?;
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
    whereabouts::own_address(shared, manager, port).await
}

fn keep_address(data_dir: &Path, chosen: Option<String>) -> Result<(), MembershipError> {
    let (Some(address), Some(mut membership)) = (chosen, Membership::load(data_dir)?) else {
        return Ok(());
    };
    membership.set_advertised(Advertised { address, origin: Origin::Found });
    membership.save(data_dir)
}

/// Makes ready for the role that a renewed certificate is of: it was changed while the node was away,
/// or the answer was lost that said so.
pub(crate) async fn overtaken(
    shared: &Shared,
    endpoint: &Endpoint,
    role: Role,
) -> Result<(), MembershipError> {
    let Some(member) = shared.member() else { return Ok(()) };
    if role == Role::Manager {
        let chosen = choose_address(shared, endpoint, &member.membership).await;
        keep_address(&shared.options.data_dir, chosen)?;
    }
    Ok(())
}

/// Has the member start anew.
pub(crate) fn restart(to: &Sender<NodeFiles>, files: NodeFiles) {
    // Full says that it does so already.
    let _told = to.try_send(files);
}

/// Returns when a manager starts anew with another election timeout: one after another, the leader,
/// whose end costs an election, last.
fn turn(leading: bool) -> Duration {
    if leading { TURNS_MAX } else { TURNS_MAX.mul_f64(rand::random::<f64>() * 0.8) }
}

/// Writes down how long to do without a leader; returns what the member starts anew with. None while
/// the node is no member.
fn keep_elections(data_dir: &Path, elections: Elections) -> Result<Option<NodeFiles>, DaemonError> {
    let Some(mut membership) = Membership::load(data_dir)? else { return Ok(None) };
    let millis = u64::try_from(elections.timeout.as_millis()).unwrap_or(u64::MAX);
    membership.election_millis = Some(millis);
    membership.election_as_of = elections.as_of;
    membership.save(data_dir)?;
    Ok(CertificateFiles::under(data_dir).load()?)
}
