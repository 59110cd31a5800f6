//! What all of the daemon's parts share.

use super::{
    collector::Collector,
    config::{Config, Options},
    error::DaemonError,
    machine::host::SystemHost,
    member::{Duty, Member},
    membership::lock::SealLock,
    workload::Containers,
};
use crate::{
    api::error::{LOCKED, NOT_A_MANAGER, NOT_IN_SWARM},
    cluster::{Class, Refusal, Request, Response},
    pki::TrustedClock,
    util::{deadline::within, dns::Resolver},
};
use smol::lock::Semaphore;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a client waits for a member that starts anew: the files of the one before come free, and
/// an engine reads its log.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// What all of the daemon's parts share.
pub(crate) struct Shared {
    pub(super) options: Options,
    pub(super) config: Config,
    pub(super) host: SystemHost,
    pub(super) clock: TrustedClock,
    pub(super) resolver: Resolver,
    pub(super) containers: Containers,
    pub(super) collector: Arc<Collector>,
    pub(super) member: Mutex<Option<Arc<Member>>>,
    /// The key that seals the log of a manager.
    pub(super) lock: Arc<SealLock>,
    /// Taken by whoever changes the membership: one at a time.
    pub(super) changing: smol::lock::Mutex<()>,
    /// Told when the daemon must end with an error.
    pub(super) failed: async_channel::Sender<DaemonError>,
    /// How much more may be done with this node's containers at once.
    pub(super) work: Arc<Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// Returns this node as a member; none where it is in no cluster, or starts anew.
    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_member(&self, member: Option<Arc<Member>>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// Returns the member; where there is none since it starts anew, waits until it has.
    pub(super) async fn settled_member(&self) -> Option<Arc<Member>> {
        if self.member().is_none() {
            self.settled().await;
        }
        self.member()
    }

    /// Waits while the membership is being changed. Whoever does so with a member in hand keeps the
    /// next one from its files.
    pub(super) async fn settled(&self) {
        if self.changing.try_lock().is_none() {
            drop(within(CHANGE_LIMIT, self.changing.lock()).await);
        }
    }

    /// Asks the leader.
    pub(super) async fn ask(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        match self.member() {
            Some(member) => member.handle.request(request, limit).await,
            None => Err(not_in_swarm()),
        }
    }

    /// Has the daemon end with an error: nothing but another start of it helps.
    pub(super) fn fail(&self, error: DaemonError) {
        // Full says that somebody told before.
        let _told = self.failed.try_send(error);
    }
}

/// Returns a member that is a manager, and open.
///
/// # Errors
///
/// What a user is told otherwise.
pub(super) fn as_manager(member: Option<Arc<Member>>) -> Result<Arc<Member>, Refusal> {
    let refused = |text: &str| Err(Refusal::new(Class::Unavailable, text));
    let member = member.ok_or_else(not_in_swarm)?;
    match member.duty {
        Duty::Worker => refused(NOT_A_MANAGER),
        Duty::Locked => refused(LOCKED),
        Duty::Manager { .. } => Ok(member),
    }
}

/// The refusal of a node that is in no cluster.
pub(super) fn not_in_swarm() -> Refusal {
    Refusal::new(Class::Unavailable, NOT_IN_SWARM)
}
