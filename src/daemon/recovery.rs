//! A cluster that lost its managers, taken up again by one.

use super::{
    DaemonError, Shared, address, host::wall_clock, member::open_store, membership::Membership,
    swarm,
};
use crate::{
    api::{error::NOT_A_MANAGER, local::InitOptions},
    cluster::{Change, Class, Command, Refusal, encode_entry},
    consensus::{self, OnSmol},
    store::{AgentStore, OpenError},
    types::{ManagerStatus, NodeId, Role},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long whoever still looks at a member that was stopped may take to let go of its files: an
/// answer on its way to a client, above all.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// What Docker's clients send where the user named no address to listen on.
const LISTEN_DEFAULT: &str = "0.0.0.0:2377";

/// Goes on as the only manager, with what is on this node's disk. Its containers, and those of the
/// workers, go on running. Called by whoever holds the right to change the membership.
pub(super) async fn force_new_cluster(
    shared: &Arc<Shared>,
    options: &InitOptions,
) -> Result<NodeId, Refusal> {
    let member = shared.member().ok_or_else(swarm::not_in_swarm)?;
    if member.membership.role != Role::Manager {
        return Err(Refusal::new(Class::Unavailable, NOT_A_MANAGER));
    }
    let before = member.membership.clone();
    let after = moved(&before, options)?;
    tracing::warn!("a new cluster is made of this manager alone");
    member.stop().await;
    shared.set_member(None);
    drop(member);
    let made = anew(shared, &after).await;
    // Where it was not made the node is what it was before.
    let now = if made.is_ok() { after } else { before };
    let node = now.node.clone();
    if let Err(error) = super::resume(shared, now).await {
        // Nothing but another start of the daemon helps. Full says that somebody told before.
        let _told = shared.failed.try_send(error.explain());
        return Err(swarm::internal(&error));
    }
    made.map(|()| node).map_err(|error| swarm::internal(&error))
}

/// Returns the membership with the addresses that were given; what was not stays.
fn moved(before: &Membership, options: &InitOptions) -> Result<Membership, Refusal> {
    let invalid = |error: address::AddressError| Refusal::new(Class::Invalid, error.to_string());
    let mut after = before.clone();
    if !matches!(options.listen.as_str(), "" | LISTEN_DEFAULT) {
        after.listen = address::listen(&options.listen).map_err(invalid)?.to_string();
    }
    if !options.advertise.is_empty() {
        let listen = address::listen(&after.listen).map_err(invalid)?;
        after.advertise = address::advertise(&options.advertise, listen).map_err(invalid)?;
    }
    after.managers = vec![after.advertise.clone()];
    Ok(after)
}

/// Makes the group on disk, and then says where it is found.
async fn anew(shared: &Shared, membership: &Membership) -> Result<(), DaemonError> {
    let data_dir = shared.options.data_dir.clone();
    let store = released(&data_dir).await?;
    let (key, address) = (membership.key(), membership.advertise.clone());
    let status = ManagerStatus { address: address.clone(), raft_id: key };
    let change = Change::ForceNewCluster { manager: membership.node.clone(), status };
    let made = smol::unblock(move || {
        consensus::make_alone::<OnSmol>(store.as_ref(), key, address, |term| {
            let date = wall_clock();
            encode_entry(&[Command { request: None, term, date, change }])
        })
    });
    made.await.map_err(|source| DaemonError::Io { what: "make a new group".to_owned(), source })?;
    Ok(membership.save(&data_dir)?)
}

/// Waits until a member that was stopped has let go of its files, and opens the manager's.
async fn released(data_dir: &Path) -> Result<Arc<crate::store::ManagerStore>, DaemonError> {
    let start = Instant::now();
    loop {
        let opened = AgentStore::open(&data_dir.join("agent.redb"))
            .map_err(DaemonError::from)
            .and_then(|_| open_store(data_dir));
        match opened {
            Err(DaemonError::Store(OpenError::InUse { .. })) if start.elapsed() < RELEASE_LIMIT => {
                smol::Timer::after(RELEASE_POLL).await;
            }
            result => return result,
        }
    }
}
