//! Certificates and roots: who takes whose, and how a node follows the cluster from one root to the
//! next, as the transport and the daemon have it. No keys: a root is a number, a certificate names
//! the root that signed it, and one root vouches for the next by naming both.

use super::{restore, world::World};
use crate::{
    cluster::{Admission, ClusterUpdate, Query, RenewRequest, Request, Response},
    types::{
        Cluster, ClusterSpec, Date, NodeId, NodeState, Role, RootCa, RootRotation, Trust, UnlockKey,
    },
};
use async_channel::Receiver;
use futures_lite::FutureExt as _;
use std::{collections::BTreeSet, time::Duration};

/// How long a manager may take to answer; as the daemon's.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How soon is asked again, doubling; as the daemon's, which in the end waits for five minutes.
const RETRY: Duration = Duration::from_millis(500);

/// How often a node looks whether it was told that its certificate is outdated.
const LOOK: Duration = Duration::from_secs(1);

/// What a machine keeps on disk of its certificate, and of what it checks others by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Papers {
    /// The root that signed its certificate.
    signed_by: Vec<u8>,
    trust: Trust,
}

impl Papers {
    /// Those of a node that gets this certificate while `root` is the one of the join tokens.
    pub(super) fn new(certificate: Vec<u8>, root: &RootCa) -> Self {
        let trust = Trust { roots: vec![root.certificate.clone()], cross_signed: Vec::new() };
        Self { signed_by: certificate, trust }
    }

    /// Those of the node that makes the cluster.
    pub(super) fn founding() -> Self {
        let root = root(FIRST);
        Self::new(root.certificate.clone(), &root)
    }

    /// Those of a machine that this cluster is restored to, as the daemon makes them.
    pub(super) fn of_restored(cluster: &Cluster) -> Self {
        Self { signed_by: cluster.signing_root().certificate.clone(), trust: cluster.trust() }
    }

    /// Tells whether they stand under one of these roots, by what is shown beside them.
    fn stand_under(&self, roots: &[Vec<u8>]) -> bool {
        let mut good: BTreeSet<&[u8]> = roots.iter().map(Vec::as_slice).collect();
        // The newest comes first.
        for voucher in self.trust.cross_signed.iter().rev() {
            let (before, after) = voucher.split_at(1);
            if good.contains(before) {
                good.insert(after);
            }
        }
        good.contains(self.signed_by.as_slice())
    }
}

/// The number of a cluster's first root.
pub(super) const FIRST: u8 = 1;

/// Returns the root of a number.
pub(super) fn root(number: u8) -> RootCa {
    RootCa { certificate: vec![number], key: vec![number], digest: [number; 32] }
}

fn digest(certificate: &[u8]) -> [u8; 32] {
    [certificate[0]; 32]
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whatever members do.
    Any,
    /// To get another certificate: one of a root of before opens it.
    Renewal,
}

/// What came of looking after a certificate.
enum Renewal {
    /// The node has what it needs, and is of this role.
    Done(Role),
    Failed,
}

impl World {
    /// Tells whether a manager lets a machine do something, and is taken for one by it. `former` are
    /// the roots of before, as far as the manager has the state.
    pub(super) fn trust_each_other(
        &self,
        former: &[(Vec<u8>, Date)],
        (machine, manager): (&NodeId, &NodeId),
        purpose: Purpose,
    ) -> bool {
        let machines = self.machines();
        let (Some(own), Some(there)) = (machines.get(machine), machines.get(manager)) else {
            return false;
        };
        let (own, there) = (&own.papers, &there.papers);
        let former: Vec<_> = former.iter().map(|(root, _)| root.clone()).collect();
        machine == manager
            || there.stand_under(&own.trust.roots)
                && (own.stand_under(&there.trust.roots)
                    || purpose == Purpose::Renewal && own.stand_under(&former))
    }

    /// Follows what a node is told of the cluster's roots, as long as its daemon lives in this role.
    pub(super) async fn follow_trust(
        self,
        node: NodeId,
        own: Role,
        trusts: Receiver<(Trust, Duration)>,
    ) {
        let executor = self.0.executor.clone();
        let (mut wanted, mut outdated, mut failures) = (None, false, 0);
        loop {
            let renewal = match &wanted {
                Some(trust) => self.follow(&node, trust).await,
                None if outdated => self.renew(&node).await,
                None => Renewal::Done(own),
            };
            let mut wait = LOOK;
            match renewal {
                Renewal::Done(role) if role != own => return self.switch(&node, role).await,
                Renewal::Done(_) => (wanted, outdated, failures) = (None, false, 0),
                Renewal::Failed => {
                    failures += 1;
                    wait = RETRY * (1 << failures.min(5));
                }
            }
            let told = async { trusts.recv().await.ok().map(Some) };
            let late = async {
                executor.sleep(wait).await;
                Some(None)
            };
            match told.or(late).await {
                Some(Some((trust, within))) => {
                    executor.sleep(executor.between(Duration::ZERO, within)).await;
                    wanted = Some(trust);
                }
                Some(None) => {}
                None => return,
            }
            let mut network = self.network();
            let Some(port) = network.ports.get_mut(&node) else { return };
            if std::mem::take(&mut port.outdated) {
                (wanted, outdated) = (None, true);
            }
        }
    }

    /// Goes by the roots that a manager named, with a certificate of the last of them, and says so.
    async fn follow(&self, node: &NodeId, trust: &Trust) -> Renewal {
        let newest = trust.roots.last().expect("a cluster has a root");
        let (mut papers, own) = {
            let machine = &self.machines()[node];
            (machine.papers.clone(), machine.role)
        };
        papers.trust.cross_signed.clone_from(&trust.cross_signed);
        if !papers.stand_under(std::slice::from_ref(newest)) {
            let Some(there) = self.session_manager(node) else { return Renewal::Failed };
            let Some((admission, _)) = self.new_certificate(node, &there).await else {
                return Renewal::Failed;
            };
            papers.signed_by = admission.certificate;
            if !papers.stand_under(std::slice::from_ref(newest)) {
                return Renewal::Failed;
            }
            if admission.role != own {
                papers.trust = trust.clone();
                self.take_papers(node, papers);
                return Renewal::Done(admission.role);
            }
        }
        papers.trust = trust.clone();
        self.take_papers(node, papers);
        let Some(there) = self.session_manager(node) else { return Renewal::Failed };
        let request = Request::Certified { node: node.clone(), root: digest(newest) };
        let answer = self.ask_node(node, &there, Purpose::Any, move |_, handle| {
            let handle = handle.clone();
            Some(Box::pin(async move { handle.request(request, ANSWER_LIMIT).await }))
        });
        match self.in_time(answer).await {
            Some(Ok(Ok(_))) => Renewal::Done(own),
            _ => Renewal::Failed,
        }
    }

    /// Gets another certificate of whichever manager gives one, and the roots with it.
    async fn renew(&self, node: &NodeId) -> Renewal {
        let known = self.known_managers(node);
        for there in self.session_manager(node).into_iter().chain(known) {
            let Some((admission, trust)) = self.new_certificate(node, &there).await else {
                continue;
            };
            let papers = Papers { signed_by: admission.certificate, trust };
            if papers.stand_under(&papers.trust.roots) {
                self.take_papers(node, papers);
                return Renewal::Done(admission.role);
            }
        }
        Renewal::Failed
    }

    /// Asks the manager at an address for a certificate; returns it with the roots that count there.
    async fn new_certificate(&self, node: &NodeId, there: &str) -> Option<(Admission, Trust)> {
        let key_digest = self.machines().get(node)?.key_digest;
        let asked = RenewRequest { node: node.clone(), csr: vec![1], key_digest, expired: None };
        let (world, manager) = (self.clone(), self.at(there)?);
        let good = self.trust_each_other(&[], (node, &manager), Purpose::Any);
        let answer = self.ask_node(node, there, Purpose::Renewal, move |_, handle| {
            let handle = handle.clone();
            Some(Box::pin(async move {
                let answer = handle.renew(asked, good, ANSWER_LIMIT).await;
                (answer, world.named_roots(&manager))
            }))
        });
        let answer = self.in_time(answer).await;
        self.trace(|| format!("{} asks for a certificate: {answer:?}", self.name(node)));
        match answer {
            Some(Ok((Ok(admission), trust))) => Some((admission, trust)),
            _ => None,
        }
    }

    /// Returns the roots that a manager names: by the state, as far as it has that.
    fn named_roots(&self, manager: &NodeId) -> Trust {
        let network = self.network();
        let known = network.ports.get(manager).map(|port| port.roster.trust.clone());
        let known = known.filter(|trust| !trust.roots.is_empty());
        known.unwrap_or_else(|| self.machines()[manager].papers.trust.clone())
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.0.executor.sleep(ANSWER_LIMIT).await;
            None
        };
        async { Some(answer.await) }.or(late).await
    }

    /// A node has other papers from now on. Where it believes a root less, its connections are made
    /// anew.
    fn take_papers(&self, node: &NodeId, papers: Papers) {
        let dropped = {
            let mut machines = self.machines();
            let Some(machine) = machines.get_mut(node) else { return };
            let before = std::mem::replace(&mut machine.papers, papers);
            let now = &machine.papers.trust.roots;
            before.trust.roots.iter().any(|root| !now.contains(root))
        };
        self.trace(|| format!("{} has {:?}", self.name(node), self.machines()[node].papers));
        if dropped {
            self.hang_up_all(node);
        }
    }

    /// Tells whether users replace the root in this run.
    pub(super) fn rotates(&self) -> bool {
        self.0.rotates
    }

    /// Tells whether nodes may need another certificate in this run.
    pub(super) fn renews(&self) -> bool {
        self.rotates() || restore::strikes(self.0.seed)
    }

    /// Replaces the root.
    pub(super) async fn rotate_root(&self) {
        let Ok(Response::Cluster(cluster)) = self.ask(Request::Read(Query::Cluster)).await else {
            panic!("the cluster cannot be read");
        };
        let next = {
            let mut checks = self.checks();
            checks.roots += 1;
            FIRST + checks.roots
        };
        let spec = ClusterSpec { force_rotate: cluster.spec.force_rotate + 1, ..cluster.spec };
        let rotation = RootRotation {
            root: root(next),
            cross_signed: [cluster.root.certificate, root(next).certificate].concat(),
            tokens: cluster.tokens,
        };
        let request = Request::UpdateCluster(Box::new(ClusterUpdate {
            request: self.request_id(),
            version: cluster.version,
            spec,
            rotate_worker_token: false,
            rotate_manager_token: false,
            rotate_unlock_key: false,
            fresh_unlock_key: UnlockKey([0; 32]),
            next_root: Some(Box::new(rotation)),
        }));
        let _conflict = self.ask(request).await;
    }

    /// A root counts alone: whoever is not lost goes by it.
    pub(super) fn check_rotated(&self, state: &crate::cluster::State, next: &[u8; 32]) {
        let machines = self.machines();
        for node in state.nodes().filter(|node| node.status.state != NodeState::Down) {
            let papers = &machines[&node.id].papers;
            let follows = digest(&papers.signed_by) == *next
                && papers.trust.roots.iter().any(|root| digest(root) == *next);
            assert!(follows, "{} is not Down, and has {papers:?}", self.name(&node.id));
        }
    }

    /// Returns what keeps the roots from being as they should, if anything.
    pub(super) fn trust_unrest(&self) -> Option<String> {
        let checks = self.checks();
        let cluster = checks.state.cluster()?;
        if let Some(rotation) = &cluster.rotation {
            return Some(format!("the root {:?} does not count yet", rotation.root.certificate));
        }
        let machines = self.machines();
        let mut members = machines.iter().filter(|(_, machine)| !machine.retired);
        let behind = members.find(|(_, machine)| {
            let papers = &machine.papers;
            let (root, roots) = (&cluster.root.certificate, &papers.trust.roots);
            papers.signed_by != *root || roots.as_slice() != std::slice::from_ref(root)
        });
        behind.map(|(node, machine)| format!("{} has {:?}", self.name(node), machine.papers))
    }
}
