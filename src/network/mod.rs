//! The network of the node's tasks: bridge, namespaces, packet filter, published ports.
//!
//! Knows the kernel's network and a few files below the daemon's folders. Must not know who
//! starts containers, nor when; it is told.
//!
//! Everything happens in the network namespace that the thread calling [`Network::new`] is in,
//! and bears names derived from the node's id: several daemons share a machine without meeting.
//!
//! - A bridge with a subnet of its own, chosen once among those the host does not use.
//! - For each task a namespace, mounted below the run folder, and a cable into the bridge.
//! - One nftables table, always written as a whole: source addresses of what leaves the node,
//!   destination addresses of published ports. It can accept nothing that another table drops:
//!   where Docker or ufw drop what is forwarded, their rules must let the bridge through.
//! - For each published port a socket that holds it against other programs.
//!
//! One table more is left where the network was the first of the machine to forward packets
//! (`forwarding`).
//!
//! Version 6 of IP is switched on only for tasks that publish a port at an address of version 6 of
//! the node: they get a unique local address beside the other, and a table of their own.

mod error;
mod files;
mod forwarding;
mod link;
mod name;
mod netns;
mod nft;
mod port;
mod state;
mod subnet;
pub mod survey;
mod sysctl;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

pub use error::NetworkError;
pub use watch::AddressChanges;

use self::{
    state::Paths,
    worker::{Records, Worker},
};
use crate::{
    agent::Failure,
    types::{NodeId, PortStatus, Task, TaskId},
    util::{answer::answered, deadline::within},
};
use std::{collections::BTreeSet, io, net::IpAddr, path::PathBuf, thread, time::Duration};

/// How many calls may wait for the one thread: several for each of the few hundred containers a
/// node runs. Who comes beyond that waits to be let in.
const CALLS_MAX: usize = 1024;

/// How long a call may wait and work. A call works for milliseconds; after a restart hundreds
/// may wait in a row.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);

/// Where the network keeps its things.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node; bridge and table are named after it.
    pub id: NodeId,
    /// Holds the subnet, across restarts of the machine.
    pub data_dir: PathBuf,
    /// Holds namespaces and what is known of tasks, across restarts of the daemon.
    pub run_dir: PathBuf,
}

/// What a container needs to know of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSetup {
    /// The namespace to start it in; none is the node's own.
    pub netns: Option<PathBuf>,
    /// The file to mount at `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// The file to mount at `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// The file to mount at `/etc/hostname`.
    pub hostname_file: Option<PathBuf>,
    /// Its host name.
    pub hostname: String,
    /// Its address on the bridge.
    pub address: Option<IpAddr>,
}

type Call = Box<dyn FnOnce(&mut Worker) + Send>;

/// The network of the node's tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    calls: async_channel::Sender<Call>,
    records: Records,
}

impl Network {
    /// Reads what is known of tasks. Makes nothing in the kernel yet.
    ///
    /// # Errors
    ///
    /// The folders cannot be read, or no thread can be started.
    pub fn new(config: NetworkConfig) -> Result<Self, NetworkError> {
        let paths = Paths { data_dir: config.data_dir, run_dir: config.run_dir };
        let records = Records::default();
        *records.lock() = paths.load()?;
        let mut worker = Worker::new(&config.id, paths, records.clone());
        let (calls, queue) = async_channel::bounded::<Call>(CALLS_MAX);
        thread::Builder::new()
            .name("midge-network".into())
            .spawn(move || {
                while let Ok(call) = queue.recv_blocking() {
                    call(&mut worker);
                }
            })
            .map_err(|source: io::Error| NetworkError::Link {
                what: "start the network's thread".into(),
                source,
            })?;
        Ok(Self { calls, records })
    }

    /// Tells whether there is something of a task.
    #[must_use]
    pub fn knows(&self, task: &TaskId) -> bool {
        self.records.lock().contains_key(task)
    }

    /// Makes a task's network, or completes it. Holds no ports yet.
    ///
    /// # Errors
    ///
    /// The kernel refused, or has not what is needed; nothing was made that
    /// [`Network::remove`] does not find.
    pub async fn prepare(&self, task: &Task) -> Result<NetworkSetup, Failure> {
        let task = task.clone();
        Ok(self.call(move |worker| worker.prepare(&task)).await?)
    }

    /// Opens a prepared task's ports, choosing those that were left open, and returns them.
    ///
    /// # Errors
    ///
    /// A port is held by a program of the node or by another task: a permanent failure.
    /// Otherwise the kernel refused. No port of the task is open then.
    pub async fn publish(&self, task: &Task) -> Result<Vec<PortStatus>, Failure> {
        let task = task.clone();
        Ok(self.call(move |worker| worker.publish(&task)).await?)
    }

    /// Closes a task's ports. What fails is logged; [`Network::remove`] tries again.
    pub async fn unpublish(&self, task: &TaskId) {
        let id = task.clone();
        if let Err(error) = self.call(move |worker| worker.unpublish(&id)).await {
            tracing::warn!(%task, "{}", Failure::from(error).message);
        }
    }

    /// Returns the ports a task publishes now.
    #[must_use]
    pub fn ports(&self, task: &TaskId) -> Vec<PortStatus> {
        self.records.lock().get(task).map(|record| record.ports.clone()).unwrap_or_default()
    }

    /// Returns a task's address on the bridge.
    #[must_use]
    pub fn address(&self, task: &TaskId) -> Option<IpAddr> {
        self.records.lock().get(task)?.address.map(IpAddr::V4)
    }

    /// Removes everything of a task; nothing where there is nothing.
    ///
    /// # Errors
    ///
    /// The kernel refused; repeating goes on where it stopped.
    pub async fn remove(&self, task: &TaskId) -> Result<(), Failure> {
        let task = task.clone();
        Ok(self.call(move |worker| worker.remove(&task)).await?)
    }

    /// At start: removes what is left of tasks outside `tasks`, and sets up again what the others
    /// need. What fails is logged and tried again with the next task.
    pub async fn retain(&self, tasks: &BTreeSet<TaskId>) {
        let tasks = tasks.clone();
        if let Err(error) = self.call(move |worker| worker.retain(&tasks)).await {
            tracing::warn!("the node's network: {}", Failure::from(error).message);
        }
    }

    /// Removes everything: tasks' networks, bridge, table, files. What fails is logged.
    pub async fn teardown(&self) {
        if let Err(error) = self.call(Worker::tear_down).await {
            tracing::warn!("some of the node's network is left: {}", Failure::from(error).message);
        }
    }

    /// Has the network's thread do something and waits for its answer.
    async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Worker) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let (sender, answer) = async_channel::bounded(1);
        let call: Call = Box::new(move |worker| {
            // Nobody waits any more for an answer that came too late.
            let _: Result<(), _> = sender.try_send(f(worker)).map_err(drop);
        });
        let asked = async {
            self.calls.send(call).await.map_err(|_| NetworkError::Stopped)?;
            answered(&self.calls, &answer).await.ok_or(NetworkError::Stopped)?
        };
        let late = || Err(NetworkError::Timeout("change the node's network"));
        within(CALL_TIME_MAX, asked).await.unwrap_or_else(late)
    }
}
