//! A cluster that lost its managers, taken up again by one; and a manager that was locked, opened.

use super::{released, resume, start::open_store, stop};
use crate::{
    api::{error::LOCKED, local::InitOptions},
    cluster::{Class, Refusal, forced_anew, terms_passed},
    consensus::{self, OnSmol},
    daemon::{
        error::DaemonError,
        machine::host::wall_clock,
        member::Member,
        membership::{Membership, address},
        shared::{Shared, as_manager},
    },
    pki,
    store::AgentStore,
    types::{ManagerStatus, NodeId},
    util::unblock::unblock,
};
use std::sync::Arc;

/// Docker's words.
const NOT_LOCKED: &str = "swarm is not locked";

/// Docker's words.
const WRONG_KEY: &str = "swarm could not be unlocked: invalid key provided";

/// What Docker's clients send where the user named no address to listen on.
const LISTEN_DEFAULT: &str = "0.0.0.0:2377";

/// Goes on as the only manager, with what is on this node's disk. Its containers, and those of the
/// workers, go on running. Called by whoever holds the right to change the membership.
pub(crate) async fn force_new_cluster(
    shared: &Arc<Shared>,
    options: &InitOptions,
) -> Result<NodeId, Refusal> {
    let member = as_manager(shared.member())?;
    refuse_if_others_lead(&member).await?;
    let before = member.membership.clone();
    let after = moved(&before, options)?;
    tracing::warn!("a new cluster is made of this manager alone");
    stop(shared, member).await;
    let made = anew(shared, &after).await;
    // Where it was not made the node is what it was before.
    let now = if made.is_ok() { after } else { before };
    let node = now.node.clone();
    go_on(shared, now).await?;
    made?;
    Ok(node)
}

/// Managers that still agree with each other would go on beside the new cluster, with its nodes' ids.
async fn refuse_if_others_lead(member: &Member) -> Result<(), Refusal> {
    let managers = member.managers().await.unwrap_or_default();
    if managers.iter().all(|manager| manager.id == member.membership.node) {
        return Ok(());
    }
    let text = format!(
        "the swarm has a leader, and {} managers: nothing is lost that a new cluster would bring \
         back. To let managers go, demote them (`node demote NODE`)",
        managers.len()
    );
    Err(Refusal::new(Class::Conflict, text))
}

/// Takes the membership up again in this process.
async fn go_on(shared: &Arc<Shared>, membership: Membership) -> Result<(), Refusal> {
    resume(shared, membership).await.map_err(|error| {
        let refusal = error.refusal();
        shared.fail(error);
        refusal
    })
}

/// Opens a locked manager with the unlock key's text.
pub(crate) async fn unlock(shared: &Arc<Shared>, key: &str) -> Result<(), Refusal> {
    let _one = shared.changing.lock().await;
    let member = shared
        .member()
        .ok_or_else(|| Refusal::new(Class::Unavailable, "This node is not part of a swarm"))?;
    if !member.is_locked() {
        return Err(Refusal::new(Class::Conflict, NOT_LOCKED));
    }
    let key = pki::parse_unlock_key(key);
    let key = key.ok_or_else(|| Refusal::new(Class::Invalid, "invalid key string"))?;
    if !shared.lock.unlock(key).map_err(DaemonError::from)? {
        return Err(Refusal::new(Class::Unauthorized, WRONG_KEY));
    }
    let membership = member.membership.clone();
    stop(shared, member).await;
    let data_dir = shared.options.data_dir.clone();
    drop(released(|| Ok(AgentStore::open(&data_dir.join("agent.redb"))?)).await?);
    go_on(shared, membership).await
}

/// Returns the membership with the addresses that were given; what was not stays.
fn moved(before: &Membership, options: &InitOptions) -> Result<Membership, Refusal> {
    let invalid = |error: address::AddressError| Refusal::new(Class::Invalid, error.to_string());
    let mut after = before.clone();
    if !matches!(options.listen.as_str(), "" | LISTEN_DEFAULT) {
        let listen = address::listen(&options.listen).map_err(invalid)?;
        after.listen = address::kept_listen(&options.listen, listen);
    }
    if !options.advertise.is_empty() {
        let listen = address::listen(&after.listen).map_err(invalid)?;
        let told = address::advertise(&options.advertise, (&after.listen, listen));
        after.set_advertised(told.map_err(invalid)?);
    }
    after.managers = vec![after.advertise.clone()];
    Ok(after)
}

/// Makes the group on disk, and then says where it is found.
async fn anew(shared: &Shared, membership: &Membership) -> Result<(), DaemonError> {
    let data_dir = shared.options.data_dir.clone();
    let seal = shared.lock.open()?.ok_or_else(|| DaemonError::Other(LOCKED.to_owned()))?;
    let store = released(|| {
        let _agent = AgentStore::open(&data_dir.join("agent.redb"))?;
        open_store(&data_dir, &seal)
    })
    .await?;
    let (key, address) = (membership.key(), membership.advertise.clone());
    let status = ManagerStatus { address: address.clone(), raft_id: key };
    let (manager, date) = (membership.node.clone(), wall_clock());
    let made = unblock(move || {
        consensus::make_alone::<OnSmol>(store.as_ref(), key, address, terms_passed(date), |term| {
            forced_anew(manager, status, term, date)
        })
    });
    made.await.map_err(|source| DaemonError::Io { what: "make a new group".to_owned(), source })?;
    Ok(membership.save(&data_dir)?)
}
