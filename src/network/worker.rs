//! The thread that owns the node's network: does one thing after another, blocking.
//!
//! One thread, because the kernel takes its own global lock for nearly all of it anyway, and
//! because a thread stays in the network namespace it was started in, whatever pools the rest of
//! the process uses.

use super::{
    NetworkSetup,
    error::NetworkError,
    files, link, name, netns,
    nft::{Forward, Table},
    port::{self, Reservation},
    state::{Paths, Record},
    subnet::{self, Subnet},
};
use crate::types::{NetworkMode, NodeId, PortProtocol, PortStatus, Task, TaskId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many ports a node publishes at most. The table goes to the kernel in one message, which
/// must fit the send buffer: about 330 bytes a port, 208 KiB where nobody raised the limit.
pub(super) const PORTS_MAX: usize = 512;

/// The records, shared with those who only ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Arc<Mutex<BTreeMap<TaskId, Record>>>);

impl Records {
    /// Returns the records. They are whole even if a thread panicked while it held them.
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, task: &TaskId) -> Option<Record> {
        self.lock().get(task).cloned()
    }
}

/// The network of the node.
#[derive(Debug)]
pub(super) struct Worker {
    paths: Paths,
    bridge: String,
    bridge_mac: [u8; 6],
    table: String,
    spread: u32,
    records: Records,
    held: BTreeMap<(PortProtocol, u16), Reservation>,
}

/// The bridge as it is now.
#[derive(Debug, Clone, Copy)]
struct Bridge {
    index: u32,
    subnet: Subnet,
}

impl Worker {
    /// Makes nothing yet.
    pub(super) fn new(id: &NodeId, paths: Paths, records: Records) -> Self {
        Self {
            bridge: name::bridge(id),
            bridge_mac: name::bridge_mac(id),
            table: name::table(id),
            spread: name::spread(id.as_str()),
            held: BTreeMap::new(),
            paths,
            records,
        }
    }

    /// Makes a task's network.
    pub(super) fn prepare(&mut self, task: &Task) -> Result<NetworkSetup, NetworkError> {
        let hostname = match task.spec.container.hostname.as_str() {
            "" => task.id.as_str().chars().take(HOSTNAME_LEN).collect(),
            hostname => hostname.to_owned(),
        };
        let mode = task.spec.network;
        self.paths.create()?;
        if mode == NetworkMode::Host {
            self.keep(
                &task.id,
                Record { mode, address: None, host_link: None, ports: Vec::new() },
            )?;
            return Ok(NetworkSetup {
                netns: None,
                hosts: None,
                resolv_conf: None,
                hostname,
                address: None,
            });
        }
        let address = match mode {
            NetworkMode::Bridge => Some(self.prepare_bridge_task(&task.id)?),
            NetworkMode::Host | NetworkMode::None => {
                let record = Record { mode, address: None, host_link: None, ports: Vec::new() };
                self.keep(&task.id, record)?;
                self.prepare_netns(&task.id)?;
                None
            }
        };
        let (hosts, resolv_conf) =
            files::write(&self.paths.task_dir(&task.id), &hostname, address)?;
        Ok(NetworkSetup {
            netns: Some(self.paths.netns(&task.id)),
            hosts: Some(hosts),
            resolv_conf: Some(resolv_conf),
            hostname,
            address: address.map(Into::into),
        })
    }

    /// Writes a task's record, unless it has one of the same kind.
    fn keep(&self, task: &TaskId, record: Record) -> Result<Record, NetworkError> {
        if let Some(known) = self.records.get(task)
            && known.mode == record.mode
        {
            return Ok(known);
        }
        self.save(task, record.clone())?;
        Ok(record)
    }

    fn save(&self, task: &TaskId, record: Record) -> Result<(), NetworkError> {
        self.paths.save(task, &record)?;
        drop(self.records.lock().insert(task.clone(), record));
        Ok(())
    }

    fn prepare_netns(&self, task: &TaskId) -> Result<(), NetworkError> {
        let path = self.paths.netns(task);
        netns::create(&path)?;
        netns::run_inside(&path, || {
            link::with_netlink(async |netlink| netlink.set_loopback_up().await)
        })
    }

    fn prepare_bridge_task(&mut self, task: &TaskId) -> Result<Ipv4Addr, NetworkError> {
        let bridge = self.ensure_bridge()?;
        let near = name::host_link(task);
        let known = self.records.get(task).and_then(|record| record.address);
        let address = match known.filter(|address| bridge.subnet.contains(*address)) {
            Some(address) => address,
            None => self.allocate(task, bridge.subnet)?,
        };
        // The record comes first: what is made after it is found again whatever happens.
        let ports = self.records.get(task).map(|record| record.ports).unwrap_or_default();
        let record = Record {
            mode: NetworkMode::Bridge,
            address: Some(address),
            host_link: Some(near.clone()),
            ports,
        };
        if self.records.get(task).as_ref() != Some(&record) {
            self.save(task, record)?;
        }
        let netns = self.paths.netns(task);
        let is_whole = netns::is_mounted(&netns);
        self.prepare_netns(task)?;
        let link = link::with_netlink(async |netlink| netlink.find(&near).await)?;
        match link {
            Some(link) if is_whole && link.controller == Some(bridge.index) => {}
            Some(link) if is_whole => link::with_netlink(async |netlink| {
                netlink.plug(link.index, &near, bridge.index).await
            })?,
            _ => self.add_cable(task, &near, address, bridge.index)?,
        }
        netns::run_inside(&netns, || {
            // Addresses of version 6 come with a later release; until then none is made up.
            disable_ipv6("eth0");
            link::with_netlink(async |netlink| {
                netlink.configure_inside(address, bridge.subnet).await
            })
        })?;
        Ok(address)
    }

    fn add_cable(
        &self,
        task: &TaskId,
        near: &str,
        address: Ipv4Addr,
        bridge: u32,
    ) -> Result<(), NetworkError> {
        let far = name::peer_link(task);
        let octets = address.octets();
        let mac = [0x02, 0x42, octets[0], octets[1], octets[2], octets[3]];
        let netns = self.paths.netns(task);
        link::with_netlink(async |netlink| {
            netlink.delete(near).await?;
            netlink.add_cable(near, &far, mac, bridge, &netns).await
        })
    }

    fn allocate(&self, task: &TaskId, subnet: Subnet) -> Result<Ipv4Addr, NetworkError> {
        let records = self.records.lock();
        let taken: BTreeSet<Ipv4Addr> =
            records.values().filter_map(|record| record.address).collect();
        subnet
            .allocate(name::spread(task.as_str()), |address| taken.contains(&address))
            .ok_or_else(|| NetworkError::NoAddress(subnet.to_string()))
    }

    /// Makes the bridge where it is missing, and everything that belongs to it.
    fn ensure_bridge(&mut self) -> Result<Bridge, NetworkError> {
        let found = link::with_netlink(async |netlink| netlink.find(&self.bridge).await)?;
        let known = self.paths.load_subnet()?;
        if let (Some(link), Some(subnet)) = (&found, known) {
            return Ok(Bridge { index: link.index, subnet });
        }
        let subnet = self.choose_subnet(known)?;
        self.paths.save_subnet(subnet)?;
        let index = link::with_netlink(async |netlink| {
            // A bridge of ours with an unknown subnet would keep its old address.
            netlink.delete(&self.bridge).await?;
            netlink.add_bridge(&self.bridge, self.bridge_mac, subnet).await
        })?;
        self.configure_kernel()?;
        self.install_table(subnet)?;
        self.plug_all(index)?;
        tracing::info!(bridge = %self.bridge, %subnet, "bridge made");
        Ok(Bridge { index, subnet })
    }

    /// Keeps the known subnet while nobody else took it, or while tasks have addresses in it.
    fn choose_subnet(&self, known: Option<Subnet>) -> Result<Subnet, NetworkError> {
        let used = link::with_netlink(async |netlink| netlink.used_blocks().await)?;
        if let Some(known) = known {
            let is_free = !used.iter().any(|block| block.overlaps(known));
            let has_tasks = self.records.lock().values().any(|record| record.address.is_some());
            if is_free || has_tasks {
                return Ok(known);
            }
        }
        subnet::choose(self.spread, &used).ok_or(NetworkError::NoSubnet)
    }

    fn configure_kernel(&self) -> Result<(), NetworkError> {
        set_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
        let conf = format!("/proc/sys/net/ipv4/conf/{}", self.bridge);
        set_sysctl(&format!("{conf}/route_localnet"), "1")?;
        // Where forwarding was switched off for new links only.
        set_sysctl(&format!("{conf}/forwarding"), "1")?;
        disable_ipv6(&self.bridge);
        Ok(())
    }

    /// Plugs the cables of running tasks into a bridge that had to be made anew.
    fn plug_all(&self, bridge: u32) -> Result<(), NetworkError> {
        let links: Vec<String> =
            self.records.lock().values().filter_map(|record| record.host_link.clone()).collect();
        link::with_netlink(async |netlink| {
            for name in links {
                if let Some(link) = netlink.find(&name).await? {
                    netlink.plug(link.index, &name, bridge).await?;
                }
            }
            Ok(())
        })
    }

    /// Writes the packet filter's table from the records.
    fn install_table(&self, subnet: Subnet) -> Result<(), NetworkError> {
        let mut forwards = Vec::new();
        for record in self.records.lock().values() {
            let Some(address) = record.address else { continue };
            forwards.extend(record.ports.iter().map(|status| Forward {
                protocol: protocol_number(status.port.protocol),
                published: status.port.published,
                address,
                target: status.port.target,
            }));
        }
        Table { name: &self.table, bridge: &self.bridge, subnet, forwards }.install()
    }

    /// Opens a task's ports.
    pub(super) fn publish(&mut self, task: &Task) -> Result<Vec<PortStatus>, NetworkError> {
        let mut record = self.records.get(&task.id).ok_or(NetworkError::NotPrepared)?;
        let wanted = &task.endpoint.ports;
        match record.mode {
            NetworkMode::None => return Ok(Vec::new()),
            NetworkMode::Host => {
                record.ports = wanted.iter().cloned().map(|port| PortStatus { port }).collect();
                for status in &mut record.ports {
                    status.port.published = status.port.target;
                }
                let ports = record.ports.clone();
                self.save(&task.id, record)?;
                return Ok(ports);
            }
            NetworkMode::Bridge => {}
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let subnet = self.ensure_bridge()?.subnet;
        if record.ports.is_empty() {
            record.ports = self.reserve_all(task)?;
        }
        let ports = record.ports.clone();
        if let Err(error) = self.save(&task.id, record) {
            if self.records.get(&task.id).is_none_or(|record| record.ports.is_empty()) {
                self.release(&ports);
            }
            return Err(error);
        }
        if let Err(error) = self.install_table(subnet) {
            self.close(&task.id);
            return Err(error);
        }
        Ok(ports)
    }

    /// Reserves the task's ports: all of them or none.
    fn reserve_all(&mut self, task: &Task) -> Result<Vec<PortStatus>, NetworkError> {
        if self.held.len() + task.endpoint.ports.len() > PORTS_MAX {
            return Err(NetworkError::TooManyPorts(self.held.len()));
        }
        let mut reserved = Vec::new();
        for config in &task.endpoint.ports {
            let reservation = port::reserve(config.protocol, config.published)?;
            if self.is_published(config.protocol, reservation.port) {
                return Err(NetworkError::PortInUse {
                    port: reservation.port,
                    protocol: config.protocol,
                });
            }
            let mut port = config.clone();
            port.published = reservation.port;
            reserved.push((PortStatus { port }, reservation));
        }
        let mut ports = Vec::new();
        for (status, reservation) in reserved {
            let key = (status.port.protocol, reservation.port);
            drop(self.held.insert(key, reservation));
            ports.push(status);
        }
        Ok(ports)
    }

    /// Tells whether a task's record has the port: one whose socket could not be had after a
    /// restart is published all the same.
    fn is_published(&self, protocol: PortProtocol, port: u16) -> bool {
        self.records.lock().values().filter(|record| record.address.is_some()).any(|record| {
            let mut ports = record.ports.iter().map(|status| &status.port);
            ports.any(|held| held.protocol == protocol && held.published == port)
        })
    }

    /// Closes a task's ports. The filter's rules go first, so that nobody else is given a port
    /// that still leads to the task.
    pub(super) fn unpublish(&mut self, task: &TaskId) -> Result<(), NetworkError> {
        let Some(mut record) = self.records.get(task) else { return Ok(()) };
        if record.ports.is_empty() {
            return Ok(());
        }
        let ports = std::mem::take(&mut record.ports);
        if record.mode == NetworkMode::Host {
            return self.save(task, record);
        }
        let before = self.records.lock().insert(task.clone(), record.clone());
        let closed = match self.paths.load_subnet() {
            Ok(Some(subnet)) => self.install_table(subnet),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = closed.and_then(|()| self.save(task, record)) {
            // The ports count as open until closing them succeeds.
            self.records.lock().extend(before.map(|before| (task.clone(), before)));
            return Err(error);
        }
        self.release(&ports);
        Ok(())
    }

    fn release(&mut self, ports: &[PortStatus]) {
        for PortStatus { port } in ports {
            drop(self.held.remove(&(port.protocol, port.published)));
        }
    }

    /// Closes a task's ports where it is not known how far opening them came.
    fn close(&mut self, task: &TaskId) {
        if let Err(error) = self.unpublish(task) {
            tracing::warn!(%task, "cannot take back the task's ports: {error}");
        }
    }

    /// Removes everything of a task.
    pub(super) fn remove(&mut self, task: &TaskId) -> Result<(), NetworkError> {
        self.unpublish(task)?;
        let near = name::host_link(task);
        link::with_netlink(async |netlink| netlink.delete(&near).await)?;
        netns::delete(&self.paths.netns(task))?;
        self.paths.forget(task)?;
        drop(self.records.lock().remove(task));
        Ok(())
    }

    /// Removes what is left of tasks that are no more, and sets up again what the others need.
    pub(super) fn retain(&mut self, tasks: &BTreeSet<TaskId>) -> Result<(), NetworkError> {
        for task in self.paths.traces()? {
            if !tasks.contains(&task)
                && let Err(error) = self.remove(&task)
            {
                tracing::warn!(%task, "cannot remove what is left of the task: {error}");
            }
        }
        self.remove_stray_links(tasks)?;
        if self.records.lock().values().any(|record| record.address.is_some()) {
            self.hold_ports();
            let subnet = self.ensure_bridge()?.subnet;
            self.configure_kernel()?;
            self.install_table(subnet)?;
        }
        Ok(())
    }

    /// Removes cables in our bridge whose task is gone; they remain where the run folder was
    /// emptied under a running machine.
    fn remove_stray_links(&self, tasks: &BTreeSet<TaskId>) -> Result<(), NetworkError> {
        let wanted: BTreeSet<String> = tasks.iter().map(name::host_link).collect();
        link::with_netlink(async |netlink| {
            let Some(bridge) = netlink.find(&self.bridge).await? else { return Ok(()) };
            for link in netlink.links().await? {
                let is_cable = link.controller == Some(bridge.index)
                    && link.name.starts_with(name::HOST_LINK_PREFIX);
                if is_cable && !wanted.contains(&link.name) {
                    netlink.delete(&link.name).await?;
                }
            }
            Ok(())
        })
    }

    /// Takes the sockets of published ports again after a restart. Where another program was
    /// quicker the task keeps the port: its connections go there already.
    fn hold_ports(&mut self) {
        let records = self.records.lock();
        let bridged = records.values().filter(|record| record.address.is_some());
        let ports: Vec<(PortProtocol, u16)> = bridged
            .flat_map(|record| &record.ports)
            .map(|status| (status.port.protocol, status.port.published))
            .collect();
        drop(records);
        for (protocol, number) in ports {
            if self.held.contains_key(&(protocol, number)) {
                continue;
            }
            match port::reserve(protocol, number) {
                Ok(held) => drop(self.held.insert((protocol, number), held)),
                Err(error) => tracing::warn!("a task's port is also used otherwise: {error}"),
            }
        }
    }

    /// Removes everything of the node. Goes on past failures and returns the first.
    pub(super) fn tear_down(&mut self) -> Result<(), NetworkError> {
        let mut first = Ok(());
        for task in self.paths.traces()? {
            let removed = self.remove(&task);
            first = first.and(removed);
        }
        self.held.clear();
        let strays = self.remove_stray_links(&BTreeSet::new());
        let unlinked = link::with_netlink(async |netlink| {
            // The table is there exactly where the bridge was made; a kernel without the filter
            // must not keep a node from leaving.
            netlink.delete(&self.bridge).await
        });
        let filtered =
            if self.paths.load_subnet()?.is_some() { Table::remove(&self.table) } else { Ok(()) };
        first.and(strays).and(unlinked).and(filtered).and_then(|()| self.paths.delete())
    }
}

/// The length of a host name made from a task's id, as Docker's.
const HOSTNAME_LEN: usize = 12;

/// Returns the IP protocol's number.
fn protocol_number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => 6,
        PortProtocol::Udp => 17,
    }
}

/// Sets a kernel parameter of this thread's network namespace, unless it has the value: the file
/// may be read-only in a container that was set up rightly.
fn set_sysctl(path: &str, value: &str) -> Result<(), NetworkError> {
    if fs::read_to_string(path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(NetworkError::file("write kernel parameter", path))
}

/// Keeps a link from giving itself an address of version 6. A kernel without version 6 has
/// nothing to be switched off.
fn disable_ipv6(link: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    if Path::new(&path).exists()
        && let Err(error) = set_sysctl(&path, "1")
    {
        tracing::debug!(link, "version 6 stays on: {error}");
    }
}
