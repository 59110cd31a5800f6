//! The thread that owns the node's network: does one thing after another, blocking.
//!
//! One thread, because the kernel takes its own global lock for nearly all of it anyway, and
//! because a thread stays in the network namespace it was started in, whatever pools the rest of
//! the process uses.

use super::{
    NetworkSetup,
    error::NetworkError,
    files::{self, Names, Place},
    forwarding, link, name, netns,
    nft::{self, Forward, Table},
    port::{self, Reservation},
    state::{Paths, Record},
    subnet::{self, Subnet},
    sysctl,
};
use crate::types::{
    NetworkMode, NodeId, PortConfig, PortProtocol, PortStatus, Task, TaskId, host_ips_meet,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many ports a node publishes at most. The table goes to the kernel in one message, which
/// must fit the send buffer: at most 490 bytes a port, 208 KiB where nobody raised the limit.
pub(super) const PORTS_MAX: usize = 400;

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
    held: BTreeMap<PortKey, Reservation>,
    /// The bridge's block of version 6.
    block6: Ipv6Addr,
    /// Whether the table of version 6 may be there.
    has_table6: bool,
    /// Whether the bridge and everything that belongs to it was made since the start.
    is_whole: bool,
    /// Whether the log says already that the kernel forgets no connections.
    has_said_untracked: bool,
}

/// What tells published ports apart.
type PortKey = (PortProtocol, Option<IpAddr>, u16);

fn key(port: &PortConfig) -> PortKey {
    (port.protocol, port::normalized(port.host_ip), port.published)
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
            block6: name::block6(id),
            has_table6: true,
            is_whole: false,
            has_said_untracked: false,
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
        let place = match mode {
            NetworkMode::Bridge => self.prepare_bridge_task(task)?,
            NetworkMode::Host | NetworkMode::None => {
                let ports = Vec::new();
                let record = Record { mode, address: None, address6: None, host_link: None, ports };
                self.keep(&task.id, record)?;
                if mode == NetworkMode::Host {
                    Place::Host
                } else {
                    let netns = self.paths.netns(&task.id);
                    netns::create(&netns)?;
                    netns::run_inside(&netns, || {
                        link::with_netlink(async |netlink| netlink.set_loopback_up().await)
                    })?;
                    Place::Alone
                }
            }
        };
        let container = &task.spec.container;
        let (hosts, dns) = (&container.hosts, &container.dns);
        let names = Names { hostname: &hostname, place, hosts, dns };
        let files = files::write(&self.paths.task_dir(&task.id), &names)?;
        let address = match place {
            Place::Bridge { address, .. } => Some(address.into()),
            Place::Host | Place::Alone => None,
        };
        let netns = (mode != NetworkMode::Host).then(|| self.paths.netns(&task.id));
        Ok(NetworkSetup {
            netns,
            hosts: Some(files.hosts),
            resolv_conf: Some(files.resolv_conf),
            hostname_file: Some(files.hostname),
            hostname,
            address,
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

    fn prepare_bridge_task(&mut self, wanted: &Task) -> Result<Place, NetworkError> {
        let task = &wanted.id;
        let bridge = self.ensure_bridge()?;
        let near = name::host_link(task);
        let known = self.records.get(task).and_then(|record| record.address);
        let address = match known.filter(|address| bridge.subnet.contains(*address)) {
            Some(address) => address,
            None => self.allocate(task, bridge.subnet)?,
        };
        // The record comes first: what is made after it is found again whatever happens.
        let ports = self.records.get(task).map(|record| record.ports).unwrap_or_default();
        let mut host_ips = wanted.endpoint.ports.iter().filter_map(|port| port.host_ip);
        let has_v6 = host_ips.any(|address| address.is_ipv6());
        let address6 = has_v6.then(|| self.address6(address.to_bits()));
        let record = Record {
            mode: NetworkMode::Bridge,
            address: Some(address),
            address6,
            host_link: Some(near.clone()),
            ports,
        };
        if self.records.get(task).as_ref() != Some(&record) {
            self.save(task, record)?;
        }
        let netns = self.paths.netns(task);
        let is_whole = netns::is_mounted(&netns);
        netns::create(&netns)?;
        let mac = mac_of(address);
        link::with_netlink(async |netlink| match netlink.find(&near).await? {
            Some(link) if is_whole && link.controller == Some(bridge.index) => Ok(()),
            Some(link) if is_whole => netlink.plug(link.index, &near, bridge.index).await,
            _ => {
                netlink.delete(&near).await?;
                netlink.add_cable(&near, mac, bridge.index, &netns).await
            }
        })?;
        let gateway6 = self.address6(1);
        if address6.is_some() {
            self.enable_ipv6()?;
        }
        netns::run_inside(&netns, || {
            match address6 {
                Some(_) => sysctl::enable_ipv6("eth0")?,
                // None is made up that nobody asked for.
                None => sysctl::disable_ipv6("eth0"),
            }
            link::with_netlink(async |netlink| {
                netlink.set_loopback_up().await?;
                netlink.configure_inside(address, bridge.subnet).await?;
                if let Some(address6) = address6 {
                    netlink.add_address6("eth0", address6).await?;
                    netlink.add_default_route6(gateway6).await?;
                }
                Ok(())
            })
        })?;
        Ok(Place::Bridge { address, address6, gateway: bridge.subnet.gateway() })
    }

    /// Returns an address of the bridge's block of version 6. That of a task ends with its address
    /// of version 4, and is as unique.
    fn address6(&self, end: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.block6.to_bits() | u128::from(end))
    }

    /// Lets the bridge and the node forward version 6.
    fn enable_ipv6(&self) -> Result<(), NetworkError> {
        sysctl::enable_ipv6(&self.bridge)?;
        let gateway = self.address6(1);
        link::with_netlink(async |netlink| netlink.add_address6(&self.bridge, gateway).await)?;
        forwarding::turn_on6()
    }

    fn allocate(&self, task: &TaskId, subnet: Subnet) -> Result<Ipv4Addr, NetworkError> {
        let records = self.records.lock();
        let taken: BTreeSet<Ipv4Addr> =
            records.values().filter_map(|record| record.address).collect();
        subnet
            .allocate(name::spread(task.as_str()), |address| taken.contains(&address))
            .ok_or_else(|| NetworkError::NoAddress(subnet.to_string()))
    }

    /// Makes the bridge where it is missing, and everything that belongs to it. What an attempt
    /// before this one left undone, or a daemon that was killed, is done now.
    fn ensure_bridge(&mut self) -> Result<Bridge, NetworkError> {
        let found = link::with_netlink(async |netlink| netlink.find(&self.bridge).await)?;
        let known = self.paths.load_subnet()?;
        let subnet = match (&found, known) {
            (Some(link), Some(subnet)) if self.is_whole => {
                return Ok(Bridge { index: link.index, subnet });
            }
            (Some(_), Some(subnet)) => subnet,
            _ => {
                self.is_whole = false;
                // A bridge of ours with an unknown subnet would keep its old address.
                link::with_netlink(async |netlink| netlink.delete(&self.bridge).await)?;
                let subnet = self.choose_subnet(known)?;
                self.paths.save_subnet(subnet)?;
                tracing::info!(bridge = %self.bridge, %subnet, "making the bridge");
                subnet
            }
        };
        let index = link::with_netlink(async |netlink| {
            netlink.add_bridge(&self.bridge, self.bridge_mac, subnet).await
        })?;
        self.configure_kernel()?;
        self.install_table(subnet)?;
        self.plug_all(index)?;
        self.is_whole = true;
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
        forwarding::turn_on()?;
        let conf = format!("/proc/sys/net/ipv4/conf/{}", self.bridge);
        sysctl::set(&format!("{conf}/route_localnet"), "1")?;
        // Where forwarding was switched off for new links only.
        sysctl::set(&format!("{conf}/forwarding"), "1")?;
        if self.records.lock().values().any(|record| record.address6.is_some()) {
            self.enable_ipv6()
        } else {
            sysctl::disable_ipv6(&self.bridge);
            Ok(())
        }
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
    fn install_table(&mut self, subnet: Subnet) -> Result<(), NetworkError> {
        let (mut forwards, mut forwards6) = (Vec::new(), Vec::new());
        let mut has_v6 = false;
        for record in self.records.lock().values() {
            has_v6 |= record.address6.is_some();
            for forward in forwards_of(record, &record.ports) {
                let is_v4 = forward.address.is_ipv4();
                (if is_v4 { &mut forwards } else { &mut forwards6 }).push(forward);
            }
        }
        let (name, bridge) = (self.table.as_str(), self.bridge.as_str());
        let (base, mask) = (subnet.base().into(), subnet.mask().into());
        Table { name, bridge, base, mask, forwards }.install()?;
        let base = IpAddr::V6(self.block6);
        if has_v6 {
            let mask = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX << (128 - link::PREFIX6_LEN)));
            Table { name, bridge, base, mask, forwards: forwards6 }.install()?;
        } else if self.has_table6
            && let Err(error) = Table::remove(name, base)
        {
            // A kernel without version 6 has no table of it.
            tracing::debug!("no table of version 6 to remove: {error}");
        }
        self.has_table6 = has_v6;
        Ok(())
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
        if let Err(error) = self.save(&task.id, record.clone()) {
            if self.records.get(&task.id).is_none_or(|record| record.ports.is_empty()) {
                self.release(&ports);
            }
            return Err(error);
        }
        if let Err(error) = self.install_table(subnet) {
            self.close(&task.id);
            return Err(error);
        }
        // Who sent before the port was open would go on reaching the socket that holds it.
        self.forget_connections(&record, &ports);
        Ok(ports)
    }

    /// Reserves the task's ports: all of them or none.
    fn reserve_all(&mut self, task: &Task) -> Result<Vec<PortStatus>, NetworkError> {
        if self.held.len() + task.endpoint.ports.len() > PORTS_MAX {
            return Err(NetworkError::TooManyPorts(self.held.len()));
        }
        let mut reserved = Vec::new();
        for config in &task.endpoint.ports {
            let address = port::normalized(config.host_ip);
            if address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) {
                return Err(NetworkError::Loopback6(config.target));
            }
            let protocol = config.protocol;
            let reservation = port::reserve(protocol, address, config.published)?;
            let port = reservation.port;
            if self.is_published((protocol, address, port)) {
                return Err(NetworkError::PortInUse { address, port, protocol });
            }
            let mut port = config.clone();
            port.published = reservation.port;
            reserved.push((PortStatus { port }, reservation));
        }
        let mut ports = Vec::new();
        for (status, reservation) in reserved {
            drop(self.held.insert(key(&status.port), reservation));
            ports.push(status);
        }
        Ok(ports)
    }

    /// Tells whether a task's record has the port: one whose socket could not be had after a
    /// restart is published all the same.
    fn is_published(&self, (protocol, address, port): PortKey) -> bool {
        self.records.lock().values().filter(|record| record.address.is_some()).any(|record| {
            let mut ports = record.ports.iter().map(|status| key(&status.port));
            ports.any(|held| (held.0, held.2) == (protocol, port) && host_ips_meet(held.1, address))
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
        if let Err(error) = closed.and_then(|()| self.save(task, record.clone())) {
            // The ports count as open until closing them succeeds.
            self.records.lock().extend(before.map(|before| (task.clone(), before)));
            return Err(error);
        }
        self.forget_connections(&record, &ports);
        self.release(&ports);
        Ok(())
    }

    /// Lets packets to a task's ports be asked about anew, those of clients that keep sending too.
    /// What has connections of its own notices that they ended, and begins others.
    fn forget_connections(&mut self, record: &Record, ports: &[PortStatus]) {
        let mut forwards = forwards_of(record, ports);
        forwards.retain(|forward| forward.protocol == protocol_number(PortProtocol::Udp));
        if let Err(error) = nft::forget(&forwards)
            && !self.has_said_untracked
        {
            self.has_said_untracked = true;
            tracing::warn!(
                "cannot have the kernel forget connections: after an update, clients of UDP ports \
                 that keep sending reach the new task late (needs nf_conntrack_netlink): {error}"
            );
        }
    }

    fn release(&mut self, ports: &[PortStatus]) {
        for PortStatus { port } in ports {
            drop(self.held.remove(&key(port)));
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
            self.is_whole = false;
            self.ensure_bridge()?;
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
        let ports: Vec<PortKey> =
            bridged.flat_map(|record| &record.ports).map(|status| key(&status.port)).collect();
        drop(records);
        for port in ports {
            if self.held.contains_key(&port) {
                continue;
            }
            match port::reserve(port.0, port.1, port.2) {
                Ok(held) => drop(self.held.insert(port, held)),
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
        self.is_whole = false;
        let strays = self.remove_stray_links(&BTreeSet::new());
        let unlinked = link::with_netlink(async |netlink| {
            // The table is there exactly where the bridge was made; a kernel without the filter
            // must not keep a node from leaving.
            netlink.delete(&self.bridge).await
        });
        let filtered =
            if self.paths.load_subnet()?.is_some() { self.remove_tables() } else { Ok(()) };
        first.and(strays).and(unlinked).and(filtered).and_then(|()| self.paths.delete())
    }

    fn remove_tables(&self) -> Result<(), NetworkError> {
        // A kernel without version 6 has no table of it.
        drop(Table::remove(&self.table, IpAddr::V6(self.block6)));
        Table::remove(&self.table, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// The length of a host name made from a task's id, as Docker's.
const HOSTNAME_LEN: usize = 12;

/// Returns the hardware address of a task's `eth0`, as Docker makes it from the address.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let octets = address.octets();
    [0x02, 0x42, octets[0], octets[1], octets[2], octets[3]]
}

/// Returns where packets to a task's ports go.
fn forwards_of(record: &Record, ports: &[PortStatus]) -> Vec<Forward> {
    let forward = |PortStatus { port }: &PortStatus| {
        let at = port::normalized(port.host_ip);
        let address = match at {
            Some(IpAddr::V6(_)) => record.address6.map(IpAddr::V6),
            _ => record.address.map(IpAddr::V4),
        };
        Some(Forward {
            protocol: protocol_number(port.protocol),
            at: at.filter(|at| !at.is_unspecified()),
            published: port.published,
            address: address?,
            target: port.target,
        })
    };
    ports.iter().filter_map(forward).collect()
}

/// Returns the IP protocol's number.
fn protocol_number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => 6,
        PortProtocol::Udp => 17,
    }
}
