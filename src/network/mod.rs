//! Bridges, network namespaces, packet filter, names.

use crate::{
    agent::Failure,
    types::{NodeId, PortStatus, Task, TaskId},
};
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

/// Configuration.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// id
    pub id: NodeId,
    /// data
    pub data_dir: PathBuf,
    /// run
    pub run_dir: PathBuf,
}
/// Setup.
#[derive(Debug, Clone, Default)]
pub struct NetworkSetup {
    /// netns
    pub netns: Option<PathBuf>,
    /// hosts
    pub hosts: Option<PathBuf>,
    /// resolv
    pub resolv_conf: Option<PathBuf>,
    /// hostname
    pub hostname: String,
    /// address
    pub address: Option<IpAddr>,
}
/// Network.
#[derive(Debug, Clone)]
pub struct Network;
/// Error.
#[derive(Debug, thiserror::Error)]
#[error("network")]
pub struct NetworkError;
impl Network {
    /// new
    pub fn new(_: NetworkConfig) -> Result<Self, NetworkError> {
        Ok(Self)
    }
    /// p
    pub async fn prepare(&self, _: &Task) -> Result<NetworkSetup, Failure> {
        Ok(NetworkSetup::default())
    }
    /// p
    pub async fn publish(&self, _: &Task) -> Result<Vec<PortStatus>, Failure> {
        Ok(Vec::new())
    }
    /// p
    pub async fn unpublish(&self, _: &TaskId) {}
    /// p
    pub fn ports(&self, _: &TaskId) -> Vec<PortStatus> {
        Vec::new()
    }
    /// p
    pub fn address(&self, _: &TaskId) -> Option<IpAddr> {
        None
    }
    /// p
    pub async fn remove(&self, _: &TaskId) -> Result<(), Failure> {
        Ok(())
    }
    /// p
    pub async fn retain(&self, _: &BTreeSet<TaskId>) {}
    /// p
    pub async fn teardown(&self) {}
}
