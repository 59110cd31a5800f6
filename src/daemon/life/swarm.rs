//! Becoming a member of a cluster, and ceasing to be one, as a user asks for it.

use super::{
    bind, forget, install, recovery,
    start::{self, Birth},
    whereabouts,
};
use crate::{
    api::{
        error::LOCKED,
        local::{InitOptions, JoinOptions},
    },
    cluster::{Class, JoinRequest, Refusal, Request, check_cluster_spec},
    daemon::{
        error::DaemonError,
        machine::host::{SystemEntropy, wall_clock},
        member::{Duty, Member},
        membership::{
            Membership,
            address::{self, Advertised, Origin, host_of},
        },
        shared::{Shared, not_in_swarm},
    },
    pki::{self, CertificateFiles, Identity, NodeFiles, TokenText},
    transport::JoinError,
    types::{
        Cluster, ClusterId, Date, Entropy, JoinToken, JoinTokens, ManagerStatus, Node, NodeId,
        NodeSpec, NodeState, NodeStatus, RequestId, Role, RootRotation, Trust, UnlockKey, Version,
    },
    util::error::chain,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Docker's words.
const IN_SWARM: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave \
                        this swarm and join another one.";

/// Docker's words, for the only manager.
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating \
                            as a manager. Removing the last manager erases all current state of \
                            the swarm. Use `--force` to ignore this message.";

/// How long leaving may take: the agent itself gives up after two minutes.
const LEAVE_LIMIT: Duration = Duration::from_secs(150);

/// How long the leader may take to answer whoever leaves.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// How long the other managers may take to let one go: a change of the group, perhaps of its
/// leader before.
const STEP_BACK_LIMIT: Duration = Duration::from_secs(20);

fn invalid(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Class::Invalid, chain(error))
}

/// How long the managers may take to give a new one its vote, before whoever joins is told that it
/// has joined: it first fetches their state, over whatever link it has.
const VOTE_LIMIT: Duration = Duration::from_secs(20);

/// Returns what a user wants other nodes to be told: here, or in the configuration.
fn asked_for<'a>(shared: &'a Shared, said: &'a str) -> &'a str {
    match (said, shared.config.advertise_addr.as_str()) {
        ("", "auto") => "",
        ("", configured) => configured,
        (said, _) => said,
    }
}

/// Makes a new cluster with this node as its manager.
pub(crate) async fn init(shared: Arc<Shared>, options: InitOptions) -> Result<NodeId, Refusal> {
    let _one = shared.changing.lock().await;
    if shared.member().is_some() {
        if options.force_new_cluster {
            return recovery::force_new_cluster(&shared, &options).await;
        }
        return Err(in_swarm());
    }
    check_cluster_spec(&options.spec)?;
    let listen = address::listen(&options.listen).map_err(|error| invalid(&error))?;
    let text = asked_for(&shared, &options.advertise);
    let advertise =
        address::advertise(text, (&options.listen, listen)).map_err(|error| invalid(&error))?;
    forget(&shared.options.data_dir)?;
    let made = make(&shared, options, listen, advertise).await;
    if made.is_err() {
        // Nothing of a cluster that was not acknowledged may come back with the next start.
        forget(&shared.options.data_dir)?;
    }
    Ok(made?)
}

async fn make(
    shared: &Arc<Shared>,
    options: InitOptions,
    listen: SocketAddr,
    told: Advertised,
) -> Result<NodeId, DaemonError> {
    let date = wall_clock();
    let root = pki::create_root(date)?;
    let (node, cluster) =
        (NodeId::generate(&mut SystemEntropy), ClusterId::generate(&mut SystemEntropy));
    let identity = Identity { node: node.clone(), role: Role::Manager, cluster: cluster.clone() };
    let (key, csr) = pki::new_key_and_request(None)?;
    let certificate = pki::sign(&root, &csr, &identity, date, options.spec.node_cert_expiry)?;
    let key_digest = pki::request_key_digest(&csr)?;
    let files = NodeFiles { trust: root_only(&root.certificate), certificate, key };
    CertificateFiles::under(&shared.options.data_dir).save(&files)?;
    let endpoint = bind(shared, listen).await?;
    let mut membership = Membership::new(node.clone(), cluster.clone(), Role::Manager, date);
    membership.listen = address::kept_listen(&options.listen, listen);
    let advertise = told.address.clone();
    membership.managers = vec![advertise.clone()];
    membership.set_advertised(told);
    let description = shared.containers.describe_now().await;
    let unlock_key = options.spec.autolock.then(|| UnlockKey::generate(&mut SystemEntropy));
    let birth = Birth {
        cluster: Cluster {
            id: cluster,
            version: Version::ZERO,
            created: date,
            updated: date,
            spec: options.spec,
            root,
            tokens: JoinTokens { worker: new_token(), manager: new_token() },
            unlock_key,
            rotation: None,
            former_roots: Vec::new(),
        },
        node: Node {
            id: node.clone(),
            version: Version::ZERO,
            created: date,
            updated: date,
            spec: NodeSpec {
                labels: shared.config.node_labels.clone(),
                role: Role::Manager,
                availability: options.availability,
            },
            description,
            status: NodeStatus {
                state: NodeState::Unknown,
                message: String::new(),
                address: host_of(&advertise),
            },
            manager: Some(ManagerStatus { address: advertise, raft_id: node.member() }),
            role: Role::Manager,
            key_digest,
        },
    };
    let member = start::start(shared, membership.clone(), files, endpoint, Some(birth)).await?;
    if let Err(error) = membership.save(&shared.options.data_dir) {
        member.stop().await;
        return Err(error.into());
    }
    install(shared, member);
    Ok(node)
}

/// Makes the root that replaces the cluster's, and has that one vouch for it.
pub(crate) fn next_root(
    cluster: &Cluster,
    given: Option<(String, String)>,
    date: Date,
) -> Result<RootRotation, Refusal> {
    let failed = |error: pki::CaError| Refusal::new(Class::Internal, chain(&error));
    let root = match given {
        Some((certificate, key)) => {
            let taken = pki::adopt_root(&certificate, &key, date);
            taken.map_err(|error| Refusal::new(Class::Invalid, error.to_string()))?
        }
        None => pki::create_root(date).map_err(failed)?,
    };
    let cross_signed = pki::cross_sign(&cluster.root, &root, date).map_err(failed)?;
    let tokens = JoinTokens { worker: new_token(), manager: new_token() };
    Ok(RootRotation { root, cross_signed, tokens })
}

/// Returns the trust of a node that knows one root and nothing else yet.
fn root_only(root: &[u8]) -> Trust {
    Trust { roots: vec![root.to_vec()], cross_signed: Vec::new() }
}

fn new_token() -> JoinToken {
    JoinToken(SystemEntropy.next_u128())
}

/// Joins a cluster.
pub(crate) async fn join(shared: Arc<Shared>, options: JoinOptions) -> Result<(), Refusal> {
    let _one = shared.changing.lock().await;
    if shared.member().is_some() {
        return Err(in_swarm());
    }
    let token = TokenText::parse(&options.token)
        .map_err(|error| Refusal::new(Class::Invalid, format!("invalid join token: {error}")))?;
    let listen = address::listen(&options.listen).map_err(|error| invalid(&error))?;
    let text = asked_for(&shared, &options.advertise);
    let advertise = match text {
        "" => None,
        text => {
            let told = address::advertise(text, (&options.listen, listen));
            Some(told.map_err(|error| invalid(&error))?)
        }
    };
    if shared.containers.describe_now().await.platform.architecture.is_empty() {
        return Err(Refusal::new(Class::Unavailable, "containerd does not answer on this node"));
    }
    Ok(joined(&shared, &options, &token, listen, advertise).await?)
}

async fn joined(
    shared: &Arc<Shared>,
    options: &JoinOptions,
    token: &TokenText,
    listen: SocketAddr,
    advertise: Option<Advertised>,
) -> Result<(), DaemonError> {
    let data_dir = &shared.options.data_dir;
    let files = CertificateFiles::under(data_dir);
    // The key of a join whose answer was lost is used again: the manager then gives the same node
    // id, and does not count two nodes.
    // Only the manager knows which role the token stands for.
    let told = match (advertise, options.remotes.first()) {
        (None, Some(manager)) => {
            let found = whereabouts::own_address(shared, manager, listen.port()).await;
            found.map(|address| Advertised { address, origin: Origin::Found })
        }
        (advertise, _) => advertise,
    };
    let known = files.load_key()?;
    let (key, csr) = pki::new_key_and_request(known.as_deref())?;
    if known.is_none() {
        files.save_key(&key)?;
    }
    let request = JoinRequest {
        secret: token.secret,
        key_digest: pki::request_key_digest(&csr)?,
        csr,
        description: shared.containers.describe_now().await,
        labels: shared.config.node_labels.clone(),
        availability: options.availability,
        address: String::new(),
        advertise: told.as_ref().map(|told| told.address.clone()).unwrap_or_default(),
    };
    let endpoint = bind(shared, listen).await?;
    let admitted = match endpoint.join(&options.remotes, token, request).await {
        Ok(admitted) => admitted,
        Err(error) => {
            endpoint.close().await;
            return Err(refused(&error).into());
        }
    };
    let date = wall_clock();
    let admission = admitted.admission;
    let mut membership = Membership::new(admission.node, admission.cluster, admission.role, date);
    membership.listen = address::kept_listen(&options.listen, listen);
    if let Some(told) = told {
        membership.set_advertised(told);
    }
    membership.managers.clone_from(&options.remotes);
    membership.joined.clone_from(&options.remotes);
    let trust = root_only(&admitted.root);
    let node_files = NodeFiles { trust, certificate: admission.certificate, key };
    if let Err(error) = files.save(&node_files) {
        endpoint.close().await;
        return Err(error.into());
    }
    let member = start::start(shared, membership.clone(), node_files, endpoint, None).await?;
    if let Err(error) = membership.save(data_dir) {
        member.stop().await;
        return Err(error.into());
    }
    let consensus = member.consensus().cloned();
    install(shared, member);
    // Whoever is told that a manager joined may take another one down.
    if let Some(consensus) = consensus
        && !consensus.votes_within(VOTE_LIMIT).await
    {
        tracing::warn!("this manager has joined, and does not vote yet: it is still catching up");
    }
    Ok(())
}

fn refused(error: &JoinError) -> Refusal {
    let class = match error {
        JoinError::Refused(_) => Class::Invalid,
        _ => Class::Unavailable,
    };
    Refusal::new(class, chain(error))
}

/// Leaves the cluster.
pub(crate) async fn leave(shared: &Arc<Shared>, force: bool) -> Result<(), Refusal> {
    let member = {
        let _one = shared.changing.lock().await;
        shared.member()
    };
    let Some(member) = member else {
        return Err(Refusal::new(Class::Unavailable, "This node is not part of a swarm"));
    };
    let member = match member.duty {
        Duty::Locked if !force => return Err(Refusal::new(Class::Unavailable, LOCKED)),
        Duty::Worker | Duty::Locked => member,
        Duty::Manager { .. } => {
            let managers = member.managers().await;
            if !force {
                return Err(Refusal::new(Class::Unavailable, leaving(managers.map(|m| m.len()))));
            }
            match managers {
                Some(managers) if managers.len() > 1 => {
                    let stepped = step_back(shared, member, managers).await;
                    stepped.ok_or_else(not_in_swarm)?
                }
                _ => member,
            }
        }
    };
    member.handle.leave()?;
    let start = std::time::Instant::now();
    while shared.member().is_some_and(|now| Arc::ptr_eq(&now, &member)) {
        if start.elapsed() > LEAVE_LIMIT {
            let text = "the node is still stopping its containers; it leaves once they are gone";
            return Err(Refusal::new(Class::Unavailable, text));
        }
        smol::Timer::after(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Says what leaving costs a cluster of so many managers.
fn leaving(managers: Option<usize>) -> String {
    let Some(count) = managers.filter(|count| *count > 1) else { return LAST_MANAGER.to_owned() };
    let left = count - 1;
    format!(
        "You are attempting to leave the swarm on a node that is participating as a manager. \
         Removing this node leaves {left} managers out of {count}. Demote it first (`node demote \
         self`), or use `--force`, which tries to, and leaves in any case."
    )
}

/// Has the other managers let this one go, so that they do not wait for it ever after. Where they
/// cannot, it goes all the same: that is what force is for.
async fn step_back(
    shared: &Shared,
    member: Arc<Member>,
    managers: Vec<Node>,
) -> Option<Arc<Member>> {
    let own = managers.into_iter().find(|node| node.id == member.membership.node);
    let Some(Node { id, version, mut spec, .. }) = own else { return Some(member) };
    spec.role = Role::Worker;
    let request = RequestId::from_bits(SystemEntropy.next_u128());
    let demote = Request::UpdateNode { request, id, version, spec };
    if let Err(refusal) = member.handle.request(demote, ASK_LIMIT).await {
        tracing::warn!(%refusal, "the other managers do not let this one go; it leaves anyway");
        return Some(member);
    }
    // Its files must come free before the node is a worker.
    drop(member);
    let start = std::time::Instant::now();
    while start.elapsed() < STEP_BACK_LIMIT {
        match shared.member() {
            Some(now) if now.membership.role == Role::Worker => return Some(now),
            _ => smol::Timer::after(Duration::from_millis(20)).await,
        };
    }
    tracing::warn!("the other managers did not let this one go in time; it leaves anyway");
    shared.settled_member().await
}

/// The refusal of a node that is in a cluster already.
pub(super) fn in_swarm() -> Refusal {
    Refusal::new(Class::Unavailable, IN_SWARM)
}
