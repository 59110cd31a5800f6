//! This node as a member of a cluster, while it runs.

use super::membership::{Membership, address::host_of};
use crate::{
    cluster::{Query, Request, Response},
    consensus::{Consensus, OnSmol},
    node::{Ended, Handle},
    pki::NodeFiles,
    store::ManagerStore,
    transport::{Credentials, Endpoint, Managers},
    types::{Node, Role},
};
use async_channel::Receiver;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a manager that ends waits for another to take the lead: an election without its wait.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

/// How long the leader may take to say who the managers are.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A running member: the parts that exist only then, started and ended together.
#[derive(Debug)]
pub(super) struct Member {
    /// As it was when the member started.
    pub(super) membership: Membership,
    /// Where other nodes are told to reach it by now.
    pub(super) told: Told,
    pub(super) duty: Duty,
    pub(super) handle: Handle,
    pub(super) endpoint: Endpoint,
    /// Told once, why the node ended.
    pub(super) ended: Receiver<Ended>,
    /// Told once, where it is to start anew: the certificate that it does so with.
    pub(super) anew: Receiver<NodeFiles>,
    /// Dropped with the member: what forwards events of containers, what renews its certificate,
    /// and what follows its role and its addresses.
    pub(super) _background: [smol::Task<()>; 4],
}

/// What a member does for its cluster.
#[derive(Debug)]
pub(super) enum Duty {
    /// It runs containers.
    Worker,
    /// It is a manager that waits for the unlock key, and only a worker until then.
    Locked,
    /// It takes part in deciding.
    Manager {
        /// The log.
        store: Arc<ManagerStore>,
        /// The engine on it.
        consensus: Consensus<OnSmol>,
    },
}

impl Member {
    /// Tells whether it waits for the unlock key.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self.duty, Duty::Locked)
    }

    /// Returns its consensus engine.
    pub(super) fn consensus(&self) -> Option<&Consensus<OnSmol>> {
        match &self.duty {
            Duty::Manager { consensus, .. } => Some(consensus),
            Duty::Worker | Duty::Locked => None,
        }
    }

    /// Asks the leader for the managers; none where nobody leads.
    pub(super) async fn managers(&self) -> Option<Vec<Node>> {
        let nodes = self.handle.request(Request::Read(Query::Nodes), ASK_LIMIT).await;
        let Ok(Response::Nodes(nodes)) = nodes else { return None };
        Some(nodes.into_iter().filter(|node| node.manager.is_some()).collect())
    }

    /// Ends the member; containers go on running. What is on disk stays.
    pub(super) async fn stop(&self) {
        if let Some(consensus) = self.consensus() {
            consensus.hand_over(HAND_OVER_LIMIT).await;
        }
        end(&self.handle, &self.ended, self.consensus()).await;
        self.endpoint.close().await;
    }
}

/// Ends the node's loop and its engine.
pub(super) async fn end(
    handle: &Handle,
    ended: &Receiver<Ended>,
    consensus: Option<&Consensus<OnSmol>>,
) {
    handle.stop();
    ended.recv().await.ok();
    if let Some(consensus) = consensus {
        consensus.shutdown().await;
    }
}

/// What other nodes are told by now, `host:port`. All clones are one.
#[derive(Debug, Clone)]
pub(super) struct Told(Arc<Mutex<String>>);

impl Told {
    pub(super) fn new(address: &str) -> Self {
        Self(Arc::new(Mutex::new(address.to_owned())))
    }

    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, address: &str) {
        address.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Returns what is on disk as connections take it.
pub(super) fn credentials(files: &NodeFiles) -> Credentials {
    Credentials {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        trust: files.trust.clone(),
    }
}

/// Returns where the node finds managers.
pub(super) fn managers(membership: &Membership, locked: bool) -> Managers {
    let mut known = membership.known_managers();
    match membership.role {
        // It lives on as a worker of the other managers, where there are any.
        Role::Manager if locked => Managers::Remote(membership.other_managers()),
        Role::Manager => {
            known.retain(|address| *address != membership.advertise);
            Managers::Local { address: host_of(&membership.advertise), others: known }
        }
        Role::Worker => Managers::Remote(known),
    }
}
