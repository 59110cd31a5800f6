//! The cluster: making, joining, leaving, options.

use super::super::{
    convert::{cluster, node},
    dto,
    error::{invalid, unexpected},
    local::{InitOptions, JoinOptions},
    route::{Call, Reply, empty, json, request_id},
};
use crate::{
    cluster::{ClusterUpdate, Request, Response},
    types::{ClusterSpec, UnlockKey},
};
use http::StatusCode;
use serde_json::Value;

/// A joiner tries these one after another; more are a mistake, and each costs a time-out.
const REMOTES_MAX: usize = 32;

pub(crate) async fn inspect(call: Call) -> Reply {
    let found = super::cluster(call.node.as_ref()).await?;
    json(&cluster::from_cluster(&found, call.node.as_ref(), true))
}

pub(crate) async fn init(mut call: Call) -> Reply {
    let body: dto::InitRequest = call.json().await?;
    cluster::refuse_data_path(&body.data_path_addr, &body.data_path_port, &body.default_addr_pool)?;
    let mut spec = cluster::to_spec(&body.spec, &ClusterSpec::default())?;
    if !body.spec.ca_config.signing_ca_cert.is_empty() {
        return Err(invalid(
            "a cluster begins with a root of its own: swarm ca --rotate replaces it",
        ));
    }
    spec.autolock |= body.auto_lock_managers;
    let options = InitOptions {
        availability: node::to_availability(&body.availability)?,
        force_new_cluster: body.force_new_cluster,
        spec,
        listen: body.listen_addr,
        advertise: body.advertise_addr,
    };
    json(&call.node.swarm_init(options).await?.as_str())
}

pub(crate) async fn join(mut call: Call) -> Reply {
    let body: dto::JoinRequest = call.json().await?;
    let none = Value::Null;
    cluster::refuse_data_path(&body.data_path_addr, &none, &none)?;
    let remotes: Vec<String> =
        body.remote_addrs.into_iter().filter(|address| !address.is_empty()).collect();
    if remotes.is_empty() {
        return Err(invalid("at least one RemoteAddr is required to join"));
    }
    if remotes.len() > REMOTES_MAX {
        return Err(invalid(format!("at most {REMOTES_MAX} addresses can be given to join")));
    }
    if body.join_token.is_empty() {
        return Err(invalid("invalid join token"));
    }
    let options = JoinOptions {
        listen: body.listen_addr,
        advertise: body.advertise_addr,
        remotes,
        token: body.join_token,
        availability: node::to_availability(&body.availability)?,
    };
    call.node.swarm_join(options).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn leave(call: Call) -> Reply {
    call.node.swarm_leave(call.query.flag("force")).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn update(mut call: Call) -> Reply {
    let version = super::read_version(&call, "swarm")?;
    let body: dto::SwarmSpec = call.json().await?;
    let current = super::cluster(call.node.as_ref()).await?;
    let next_root = match cluster::next_root(&body.ca_config, &current.spec)? {
        Some(given) => Some(Box::new(call.node.next_root(&current, given)?)),
        None => None,
    };
    let request = Request::UpdateCluster(Box::new(ClusterUpdate {
        request: request_id(),
        version,
        spec: cluster::to_spec(&body, &current.spec)?,
        rotate_worker_token: call.query.flag("rotateWorkerToken"),
        rotate_manager_token: call.query.flag("rotateManagerToken"),
        rotate_unlock_key: call.query.flag("rotateManagerUnlockKey"),
        fresh_unlock_key: UnlockKey(rand::random()),
        next_root,
    }));
    match call.node.request(request).await? {
        Response::Done => Ok(empty(StatusCode::OK)),
        _ => Err(unexpected("an update of the cluster")),
    }
}

pub(crate) async fn unlock_key(call: Call) -> Reply {
    let found = super::cluster(call.node.as_ref()).await?;
    json(&serde_json::json!({"UnlockKey": call.node.unlock_key(&found)}))
}

pub(crate) async fn unlock(mut call: Call) -> Reply {
    let body: dto::UnlockRequest = call.json().await?;
    call.node.swarm_unlock(body.unlock_key).await?;
    Ok(empty(StatusCode::OK))
}
