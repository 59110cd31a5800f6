//! The cluster.

use super::{date, duration, nanos, version};
use crate::{
    api::{
        dto::{self, is_unset},
        error::{invalid, unsupported},
        local::LocalNode,
    },
    cluster::Refusal,
    types::{Cluster, ClusterSpec, Role},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use x509_parser::prelude::FromDer;

/// Docker's name of the only cluster there is.
const NAME: &str = "default";

/// What Docker shows of options that midge does not have.
const LOG_ENTRIES_FOR_SLOW_FOLLOWERS: u64 = 500;
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;
const SUBNET_SIZE: u32 = 24;
const DATA_PATH_PORT: u32 = 4789;

fn refuse(set: bool, flag: &str, field: &str) -> Result<(), Refusal> {
    if set {
        return Err(unsupported(format!("\"{flag}\" ({field}) is not supported yet")));
    }
    Ok(())
}

/// Reads the cluster's options; what is left out stays as in `current`.
///
/// # Errors
///
/// An option is not supported, or no value for it.
pub fn to_spec(dto: &dto::SwarmSpec, current: &ClusterSpec) -> Result<ClusterSpec, Refusal> {
    if !matches!(dto.name.as_str(), "" | NAME) {
        return Err(invalid("swarm spec must be named \"default\""));
    }
    let (raft, ca) = (&dto.raft, &dto.ca_config);
    let slow = raft.log_entries_for_slow_followers.unwrap_or(0);
    for (set, flag, field) in [
        (!dto.labels.is_empty(), "--label", "Labels"),
        (!is_unset(&dto.task_defaults.log_driver), "--log-driver", "TaskDefaults.LogDriver"),
        (raft.keep_old_snapshots.unwrap_or(0) != 0, "--max-snapshots", "Raft.KeepOldSnapshots"),
        (
            slow != 0 && slow != LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
            "slow followers",
            "Raft.LogEntriesForSlowFollowers",
        ),
        (!matches!(raft.election_tick, 0 | ELECTION_TICK), "election tick", "Raft.ElectionTick"),
        (
            !matches!(raft.heartbeat_tick, 0 | HEARTBEAT_TICK),
            "heartbeat tick",
            "Raft.HeartbeatTick",
        ),
    ] {
        refuse(set, flag, field)?;
    }
    if !is_unset(&ca.external_cas) {
        return Err(unsupported(
            "\"--external-ca\" (CAConfig.ExternalCAs) is not supported: managers sign certificates \
             themselves, so that a cluster without a way to the outside can",
        ));
    }
    let history = dto.orchestration.task_history_retention_limit;
    let period = match dto.dispatcher.heartbeat_period {
        0 => current.heartbeat_period,
        nanos => duration(nanos, "dispatcher-heartbeat")?,
    };
    let expiry = match ca.node_cert_expiry {
        0 => current.node_cert_expiry,
        nanos => duration(nanos, "cert-expiry")?,
    };
    if expiry < crate::types::NODE_CERT_EXPIRY_MIN {
        return Err(invalid("minimum certificate expiry time is: 1h0m0s"));
    }
    let election = match raft.election_timeout {
        None => current.election_timeout,
        Some(nanos) => duration(nanos, "election-timeout")?,
    };
    let grace = match ca.rejoin_grace {
        None => current.rejoin_grace,
        Some(nanos) => duration(nanos, "rejoin-grace")?,
    };
    Ok(ClusterSpec {
        task_history_limit: history.unwrap_or(current.task_history_limit),
        heartbeat_period: period,
        node_cert_expiry: expiry,
        snapshot_interval: raft.snapshot_interval.unwrap_or(current.snapshot_interval),
        election_timeout: election,
        autolock: dto.encryption_config.auto_lock_managers.unwrap_or(current.autolock),
        rejoin_grace: grace,
        force_rotate: match ca.force_rotate {
            // Left out.
            0 => current.force_rotate,
            given => given,
        },
    })
}

/// Returns the root that is to replace the present one, as two PEMs; none where one is to be made.
/// `None` outside says that the root stays.
///
/// # Errors
///
/// One of the two is missing, or nothing says that the root is to be replaced.
pub fn next_root(
    dto: &dto::CaConfig,
    current: &ClusterSpec,
) -> Result<Option<Option<(String, String)>>, Refusal> {
    let given = match (dto.signing_ca_cert.as_str(), dto.signing_ca_key.as_str()) {
        ("", "") => None,
        ("", _) | (_, "") => {
            return Err(invalid("a root takes both a certificate and a key: --ca-cert, --ca-key"));
        }
        (certificate, key) => Some((certificate.to_owned(), key.to_owned())),
    };
    if dto.force_rotate > current.force_rotate {
        return Ok(Some(given));
    }
    match given {
        Some(_) => Err(invalid("a new root takes the place of the present one with --rotate only")),
        None => Ok(None),
    }
}

/// Shows the cluster, its tokens only where `tokens` says so.
#[must_use]
pub fn from_cluster(cluster: &Cluster, node: &dyn LocalNode, tokens: bool) -> dto::Swarm {
    let spec = &cluster.spec;
    dto::Swarm {
        id: cluster.id.to_string(),
        version: version(cluster.version),
        created_at: date(cluster.created),
        updated_at: date(cluster.updated),
        spec: dto::SwarmSpec {
            name: NAME.to_owned(),
            orchestration: dto::Orchestration {
                task_history_retention_limit: Some(spec.task_history_limit),
            },
            raft: dto::Raft {
                snapshot_interval: Some(spec.snapshot_interval),
                keep_old_snapshots: Some(0),
                log_entries_for_slow_followers: Some(LOG_ENTRIES_FOR_SLOW_FOLLOWERS),
                election_tick: ELECTION_TICK,
                heartbeat_tick: HEARTBEAT_TICK,
                election_timeout: Some(nanos(spec.election_timeout)),
            },
            dispatcher: dto::Dispatcher { heartbeat_period: nanos(spec.heartbeat_period) },
            ca_config: dto::CaConfig {
                node_cert_expiry: nanos(spec.node_cert_expiry),
                rejoin_grace: Some(nanos(spec.rejoin_grace)),
                force_rotate: spec.force_rotate,
                ..Default::default()
            },
            encryption_config: dto::EncryptionConfig { auto_lock_managers: Some(spec.autolock) },
            ..Default::default()
        },
        tls_info: tls_info(cluster, node),
        root_rotation_in_progress: cluster.rotation.is_some(),
        default_addr_pool: None,
        subnet_size: SUBNET_SIZE,
        data_path_port: DATA_PATH_PORT,
        join_tokens: tokens.then(|| dto::JoinTokens {
            worker: node.join_token(cluster, Role::Worker),
            manager: node.join_token(cluster, Role::Manager),
        }),
    }
}

/// Shows the cluster's root. All nodes trust the same one, so it is every node's as well.
#[must_use]
pub fn tls_info(cluster: &Cluster, node: &dyn LocalNode) -> dto::TlsInfo {
    let parsed = x509_parser::certificate::X509Certificate::from_der(&cluster.root.certificate);
    let (subject, key) = parsed
        .map(|(_, root)| {
            (STANDARD.encode(root.subject().as_raw()), STANDARD.encode(root.public_key().raw))
        })
        .unwrap_or_default();
    dto::TlsInfo {
        trust_root: node.root_pem(cluster),
        cert_issuer_subject: subject,
        cert_issuer_public_key: key,
    }
}

/// Refuses what `swarm init` and `swarm join` cannot do.
pub(crate) fn refuse_data_path(
    addr: &serde_json::Value,
    port: &serde_json::Value,
    pool: &serde_json::Value,
) -> Result<(), Refusal> {
    refuse(!is_unset(addr), "--data-path-addr", "DataPathAddr")?;
    let default_port = port.as_u64() == Some(DATA_PATH_PORT.into());
    refuse(!is_unset(port) && !default_port, "--data-path-port", "DataPathPort")?;
    refuse(!is_unset(pool), "--default-addr-pool", "DefaultAddrPool")
}
