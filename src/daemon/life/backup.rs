//! The cluster in one file, and a new manager made of that.
//!
//! The file holds the replicated state, with the root certificate's key in it, and where its manager
//! was found. It holds no node's key: the machine that it is restored to gets an identity of its own.
//! Were it to take over the old one's, two machines would claim one node as soon as the old one came
//! back; so the old node is removed instead, and its certificate refused. The other managers of the
//! backup become workers: nobody knows which of them live, and none may vote.

use super::{
    bind, forget, install,
    start::{self, open_store},
    swarm,
};
use crate::{
    api::{error::LOCKED, local::RestoreOptions},
    cluster::{Change, Class, Command, Refusal, State, restored_anew, terms_passed},
    consensus::{self, OnSmol},
    daemon::{
        error::DaemonError,
        machine::host::{SystemEntropy, random_bytes, wall_clock},
        membership::{
            Membership,
            address::{self, Advertised, Origin, host_of},
        },
        shared::{Shared, as_manager},
    },
    pki::{self, CertificateFiles, Identity, NodeFiles},
    store::{CONTENT_MAX, open_file, seal_file},
    types::{
        Availability, Cluster, ManagerStatus, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role,
        Version,
    },
    util::{error::chain, interfaces::interfaces, unblock::unblock},
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// How long the manager may take to hand out its state: it copies it between two entries.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(30);

/// What is sealed, without the state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// The manager that wrote it.
    node: NodeId,
    /// Where that listened.
    listen: String,
    /// What that told others.
    advertise: String,
}

/// How the content of a file is laid out.
const CONTENT: u8 = 1;

fn encode(about: &About, state: &[u8]) -> Vec<u8> {
    let mut content = postcard::to_extend(about, vec![CONTENT]).expect("memory grows");
    content.extend_from_slice(state);
    content
}

fn decode(content: &[u8]) -> Result<(About, State), String> {
    let damaged = |error: postcard::Error| format!("its content is damaged: {error}");
    match content.split_first() {
        Some((&CONTENT, rest)) => {
            let (about, state) = postcard::take_from_bytes(rest).map_err(damaged)?;
            let state = State::decode_snapshot(state).map_err(|error| error.to_string())?;
            Ok((about, state))
        }
        Some((found, _)) => Err(format!("its content is of a newer midge (format {found})")),
        None => Err("it is empty".to_owned()),
    }
}

/// Returns the cluster as this manager has it, sealed with `passphrase`.
pub(crate) async fn backup(shared: &Shared, passphrase: String) -> Result<Vec<u8>, Refusal> {
    let member = as_manager(shared.member())?;
    let state = member.handle.snapshot(SNAPSHOT_LIMIT).await?;
    let about = About {
        node: member.membership.node.clone(),
        listen: member.membership.listen.clone(),
        advertise: member.told.get(),
    };
    let content = encode(&about, &state);
    if content.len() > CONTENT_MAX {
        let text = format!("the state has {} bytes: a backup holds {CONTENT_MAX}", content.len());
        return Err(Refusal::new(Class::Unavailable, text));
    }
    Ok(unblock(move || seal_file(&passphrase, content, random_bytes())).await)
}

/// Everything of the new manager, before anything of it is on disk.
struct Plan {
    membership: Membership,
    files: NodeFiles,
    listen: SocketAddr,
    /// The state of the backup, as bytes that this midge writes, and its last entry.
    state: Vec<u8>,
    index: u64,
    /// What this machine is in the cluster, and the node in whose place it comes.
    node: Node,
    replaces: NodeId,
}

/// Makes this node the only manager of the cluster in `file`.
pub(crate) async fn restore(
    shared: &Arc<Shared>,
    options: RestoreOptions,
    file: Vec<u8>,
) -> Result<NodeId, Refusal> {
    let _one = shared.changing.lock().await;
    if shared.member().is_some() {
        return Err(swarm::in_swarm());
    }
    let invalid = |text: String| Refusal::new(Class::Invalid, text);
    let passphrase = options.passphrase.clone();
    let content = unblock(move || open_file(&passphrase, &file)).await;
    let content = content.map_err(|error| invalid(error.to_string()))?;
    let (about, state) =
        decode(&content).map_err(|error| invalid(format!("cannot read the backup: {error}")))?;
    drop(content);
    let plan = plan(shared, &options, &about, state).await?;
    let data_dir = shared.options.data_dir.clone();
    // What a restore that was cut short has left.
    forget(&data_dir)?;
    let endpoint = bind(shared, plan.listen).await?;
    let node = plan.membership.node.clone();
    let made = async {
        let (membership, files) = match make(shared, plan).await {
            Ok(made) => made,
            Err(error) => {
                endpoint.close().await;
                return Err(error);
            }
        };
        let member = start::start(shared, membership.clone(), files, endpoint, None).await?;
        if let Err(error) = membership.save(&data_dir) {
            member.stop().await;
            return Err(error.into());
        }
        install(shared, member);
        Ok(())
    };
    let made: Result<(), DaemonError> = made.await;
    if let Err(error) = made {
        forget(&data_dir)?;
        return Err(error.into());
    }
    tracing::warn!(%node, "the cluster was restored from a backup");
    Ok(node)
}

async fn plan(
    shared: &Shared,
    options: &RestoreOptions,
    about: &About,
    mut state: State,
) -> Result<Plan, Refusal> {
    let invalid = |text: String| Refusal::new(Class::Invalid, text);
    let Some(cluster) = state.cluster().cloned() else {
        return Err(invalid("the backup holds no cluster".to_owned()));
    };
    let (listen, told) = addresses(options, about)?;
    let advertise = told.address.clone();
    let (id, date) = (NodeId::generate(&mut SystemEntropy), wall_clock());
    let (files, key_digest) = identity(&cluster, &id)?;
    let mut membership = Membership::new(id.clone(), cluster.id.clone(), Role::Manager, date);
    let listen_text = if options.listen.is_empty() { &about.listen } else { &options.listen };
    membership.listen = address::kept_listen(listen_text, listen);
    membership.managers = vec![advertise.clone()];
    membership.set_advertised(told);
    // What a user said of the manager is said of the one in its place.
    let spec = state.node(&about.node).map(|node| node.spec.clone());
    let labels = || NodeSpec {
        labels: shared.config.node_labels.clone(),
        role: Role::Manager,
        availability: Availability::Active,
    };
    let node = Node {
        id,
        version: Version::ZERO,
        created: date,
        updated: date,
        spec: NodeSpec { role: Role::Manager, ..spec.unwrap_or_else(labels) },
        description: shared.containers.describe_now().await,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            address: host_of(&advertise),
        },
        manager: Some(ManagerStatus { address: advertise, raft_id: membership.key() }),
        role: Role::Manager,
        key_digest,
    };
    let replaces = about.node.clone();
    let change =
        Change::RestoreCluster { node: Box::new(node.clone()), replaces: replaces.clone() };
    let (index, bytes) = (state.applied().index, state.encode_snapshot());
    let at = Version { epoch: state.epoch(), index: index + 1 };
    let command = Command { request: None, term: 1, date, change };
    state.apply(at, 1, &command).map_err(|error| invalid(format!("cannot restore: {error}")))?;
    Ok(Plan { membership, files, listen, state: bytes, index, node, replaces })
}

/// Makes the node's key, and a certificate of the cluster's root for it.
fn identity(cluster: &Cluster, node: &NodeId) -> Result<(NodeFiles, [u8; 32]), DaemonError> {
    let identity =
        Identity { node: node.clone(), role: Role::Manager, cluster: cluster.id.clone() };
    let (key, csr) = pki::new_key_and_request(None)?;
    let expiry = cluster.spec.node_cert_expiry;
    let certificate = pki::sign(cluster.signing_root(), &csr, &identity, wall_clock(), expiry)?;
    let digest = pki::request_key_digest(&csr)?;
    Ok((NodeFiles { trust: cluster.trust(), certificate, key }, digest))
}

/// Returns where to listen and what to tell others: what was given, else what the backup says, so
/// that workers which know that address come back by themselves.
fn addresses(options: &RestoreOptions, about: &About) -> Result<(SocketAddr, Advertised), Refusal> {
    let invalid = |error: address::AddressError| Refusal::new(Class::Invalid, chain(&error));
    let text = if options.listen.is_empty() { &about.listen } else { &options.listen };
    let listen = address::listen(text).map_err(invalid)?;
    if !options.advertise.is_empty() {
        let told = address::advertise(&options.advertise, (text, listen)).map_err(invalid)?;
        return Ok((listen, told));
    }
    let told = host_of(&about.advertise);
    let known: Option<IpAddr> = told.parse().ok();
    if let Some(known) = known
        && !interfaces().iter().any(|(_, own)| *own == known)
    {
        let text = format!(
            "this machine does not have the address {known} of the manager that the backup was \
             taken on - give it one that workers know, or specify another with --advertise-addr"
        );
        return Err(Refusal::new(Class::Invalid, text));
    }
    // Workers know this one, and it must not be replaced unasked.
    let origin = if known.is_some() { Origin::Own } else { Origin::Given };
    Ok((listen, Advertised { address: about.advertise.clone(), origin }))
}

/// Puts the new manager on disk; that it is a member is said last, by whoever calls this.
async fn make(shared: &Shared, plan: Plan) -> Result<(Membership, NodeFiles), DaemonError> {
    let data_dir = shared.options.data_dir.clone();
    let Plan { membership, files, state, index, node, replaces, .. } = plan;
    CertificateFiles::under(&data_dir).save(&files)?;
    let seal = shared.lock.open()?.ok_or_else(|| DaemonError::Other(LOCKED.to_owned()))?;
    let store = open_store(&data_dir, &seal)?;
    let (key, address) = (membership.key(), membership.advertise.clone());
    let made = unblock(move || {
        let (store, snapshot, date) = (store.as_ref(), (index, state), wall_clock());
        let first = |term| restored_anew(node, replaces, term, date);
        let passed = terms_passed(date);
        consensus::make_from_snapshot::<OnSmol>(store, key, address, snapshot, passed, first)
    });
    made.await.map_err(|source| DaemonError::Io { what: "write the state".to_owned(), source })?;
    Ok((membership, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_read_back_and_a_foreign_one_refused() {
        let about = About {
            node: NodeId::from_bits(1),
            listen: "0.0.0.0:2377".to_owned(),
            advertise: "10.0.0.1:2377".to_owned(),
        };
        let state = State::default();
        let content = encode(&about, &state.encode_snapshot());
        assert_eq!(decode(&content).unwrap(), (about, state));
        for at in 0..content.len() {
            assert!(decode(&content[..at]).is_err(), "cut at {at}");
        }
        let newer = [&[2], &content[1..]].concat();
        assert!(decode(&newer).unwrap_err().contains("newer midge (format 2)"));
    }

    #[test]
    fn where_the_manager_is_found_is_as_given_or_as_it_was() {
        let about = |advertise: &str| About {
            node: NodeId::from_bits(1),
            listen: "0.0.0.0:2399".to_owned(),
            advertise: advertise.to_owned(),
        };
        let options = |listen: &str, advertise: &str| RestoreOptions {
            passphrase: String::new(),
            listen: listen.to_owned(),
            advertise: advertise.to_owned(),
        };
        let (listen, told) = addresses(&options("", ""), &about("manager.example:2399")).unwrap();
        assert_eq!((listen.port(), told.address.as_str()), (2399, "manager.example:2399"));
        let refused = addresses(&options("", ""), &about("192.0.2.77:2399")).unwrap_err();
        assert!(refused.message.contains("--advertise-addr"), "{}", refused.message);
        let given = options("0.0.0.0:5000", "192.0.2.78");
        let (listen, told) = addresses(&given, &about("192.0.2.77:2399")).unwrap();
        assert_eq!((listen.port(), told.address.as_str()), (5000, "192.0.2.78:5000"));
    }
}
