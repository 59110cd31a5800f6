//! Links, addresses and routes, by netlink. Knows the kernel's objects, nothing of tasks.
//!
//! Each function opens a socket, which belongs to the namespace of the calling thread.

use super::{error::NetworkError, subnet::Subnet};
use crate::util::deadline::within;
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    new_connection_with_socket,
    packet_route::{
        address::AddressAttribute,
        link::{
            InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
            LinkAttribute, LinkMessage,
        },
        route::{RouteAddress, RouteAttribute},
    },
    sys::SmolSocket,
};
use rustix::io::Errno;
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

/// What one call may take. Netlink answers in milliseconds; a loaded single-core board with the
/// kernel's network lock held by a namespace being freed has been seen to take seconds.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// The links a node may have before looking at them is given up, as a bound on memory.
const LINKS_MAX: usize = 16_384;

/// The length of the bridge's prefix of version 6.
pub(super) const PREFIX6_LEN: u8 = 64;

/// A link, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// The number of the bridge it is plugged into.
    pub(super) controller: Option<u32>,
}

/// A netlink connection.
#[derive(Debug)]
pub(super) struct Netlink(Handle);

/// Runs `f` with a connection of this thread's namespace.
pub(super) fn with_netlink<T>(
    f: impl AsyncFnOnce(&Netlink) -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    let (connection, handle, _) = new_connection_with_socket::<SmolSocket>()
        .map_err(|source| NetworkError::Link { what: "open a netlink socket".into(), source })?;
    let netlink = Netlink(handle);
    let ended = async {
        connection.await;
        Err(NetworkError::Link {
            what: "talk to the kernel".into(),
            source: io::ErrorKind::BrokenPipe.into(),
        })
    };
    let done = smol::block_on(within(CALL_TIME_MAX, smol::future::or(f(&netlink), ended)));
    done.unwrap_or_else(|| Err(NetworkError::Timeout("change the node's links")))
}

/// Turns netlink's error into one that says what was being done.
fn failed(what: impl Into<String>) -> impl FnOnce(Error) -> NetworkError {
    let what = what.into();
    move |error| NetworkError::Link { what, source: to_io(error) }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Tells whether the kernel said `errno`.
fn is(error: &Error, errno: Errno) -> bool {
    matches!(error, Error::NetlinkError(message) if message.raw_code() == -errno.raw_os_error())
}

fn to_link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), controller: None };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            _ => {}
        }
    }
    link
}

impl Netlink {
    /// Finds a link by its name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Link>, NetworkError> {
        let mut found = self.0.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(to_link)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(failed(format!("look for link {name}"))(error)),
        }
    }

    /// Returns every link.
    pub(super) async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let mut messages = self.0.link().get().execute();
        let mut links = Vec::new();
        while let Some(message) = messages.try_next().await.map_err(failed("list the links"))? {
            if links.len() < LINKS_MAX {
                links.push(to_link(&message));
            }
        }
        Ok(links)
    }

    async fn expect_link(&self, name: &str) -> Result<Link, NetworkError> {
        self.find(name).await?.ok_or_else(|| NetworkError::Link {
            what: format!("find link {name}"),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Makes a bridge, with its address, and returns its number.
    pub(super) async fn add_bridge(
        &self,
        name: &str,
        mac: [u8; 6],
        subnet: Subnet,
    ) -> Result<u32, NetworkError> {
        let message = LinkBridge::new(name).address(mac.to_vec()).up().build();
        match self.0.link().add(message).execute().await {
            Ok(()) => {}
            Err(error) if is(&error, Errno::EXIST) => {}
            Err(error) if is(&error, Errno::OPNOTSUPP) => {
                return Err(NetworkError::Unsupported {
                    what: "connect tasks with each other".into(),
                    module: "bridge",
                });
            }
            Err(error) => return Err(failed(format!("make bridge {name}"))(error)),
        }
        let index = self.expect_link(name).await?.index;
        self.set_up(index, name).await?;
        self.add_address(index, name, subnet.gateway(), subnet.prefix_len()).await?;
        Ok(index)
    }

    /// Makes a cable between this namespace and the one at `netns`, its far end named `eth0`
    /// there, its near end plugged into the bridge and switched on.
    ///
    /// One message makes all of it where it belongs: the kernel waits for every processor when a
    /// link moves from one namespace to another.
    pub(super) async fn add_cable(
        &self,
        near: &str,
        mac: [u8; 6],
        bridge: u32,
        netns: &Path,
    ) -> Result<(), NetworkError> {
        let file = File::open(netns).map_err(NetworkError::file("open", netns))?;
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(mac.to_vec())
            .setns_by_fd(file.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(near)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .controller(bridge)
            .up()
            .build();
        if let Err(error) = self.0.link().add(message).execute().await {
            if is(&error, Errno::OPNOTSUPP) {
                return Err(NetworkError::Unsupported {
                    what: "connect a task with the node".into(),
                    module: "veth",
                });
            }
            return Err(failed(format!("make link {near}"))(error));
        }
        let index = self.expect_link(near).await?.index;
        self.turn_back(index, near).await
    }

    /// Plugs a link into the bridge and switches it on.
    pub(super) async fn plug(
        &self,
        index: u32,
        name: &str,
        bridge: u32,
    ) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        let plugged = self.0.link().set(message).execute().await;
        plugged.map_err(failed(format!("plug link {name} into the bridge")))?;
        self.turn_back(index, name).await
    }

    /// Lets the bridge send out of a link what came in by it: with br_netfilter loaded (by Docker,
    /// say) a task's connection to a port it publishes itself never leaves the bridge.
    async fn turn_back(&self, index: u32, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]))
            .build();
        let turned = self.0.link().set_port(message).execute().await;
        turned.map_err(failed(format!("let link {name} reach itself")))
    }

    async fn set_up(&self, index: u32, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let done = self.0.link().set(message).execute().await;
        done.map_err(failed(format!("switch on link {name}")))
    }

    /// Switches on the namespace's loopback.
    pub(super) async fn set_loopback_up(&self) -> Result<(), NetworkError> {
        let index = self.expect_link("lo").await?.index;
        self.set_up(index, "lo").await
    }

    /// Gives `eth0` its address and the namespace its default route.
    pub(super) async fn configure_inside(
        &self,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> Result<(), NetworkError> {
        let index = self.expect_link("eth0").await?.index;
        self.add_address(index, "eth0", address, subnet.prefix_len()).await?;
        self.set_up(index, "eth0").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(subnet.gateway()).build();
        match self.0.route().add(route).execute().await {
            Err(error) if !is(&error, Errno::EXIST) => {
                Err(failed("add the task's default route")(error))
            }
            _ => Ok(()),
        }
    }

    /// Gives a link an address of version 6.
    pub(super) async fn add_address6(
        &self,
        name: &str,
        address: Ipv6Addr,
    ) -> Result<(), NetworkError> {
        let index = self.expect_link(name).await?.index;
        self.add_address(index, name, address, PREFIX6_LEN).await
    }

    /// Gives the namespace its default route of version 6.
    pub(super) async fn add_default_route6(&self, gateway: Ipv6Addr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build();
        match self.0.route().add(route).execute().await {
            Err(error) if !is(&error, Errno::EXIST) => {
                Err(failed("add the task's default route of version 6")(error))
            }
            _ => Ok(()),
        }
    }

    async fn add_address(
        &self,
        index: u32,
        name: &str,
        address: impl Into<IpAddr>,
        prefix_len: u8,
    ) -> Result<(), NetworkError> {
        let address = address.into();
        match self.0.address().add(index, address, prefix_len).execute().await {
            Err(error) if !is(&error, Errno::EXIST) => {
                Err(failed(format!("give {address}/{prefix_len} to link {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a link; one that is not there is removed already.
    pub(super) async fn delete(&self, name: &str) -> Result<(), NetworkError> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        match self.0.link().del(link.index).execute().await {
            Err(error) if !is(&error, Errno::NODEV) => {
                Err(failed(format!("remove link {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the IPv4 blocks that the node's addresses and routes cover, without default
    /// routes.
    pub(super) async fn used_blocks(&self) -> Result<Vec<Subnet>, NetworkError> {
        let mut used = Vec::new();
        let mut addresses = self.0.address().get().execute();
        while let Some(message) =
            addresses.try_next().await.map_err(failed("list the addresses"))?
        {
            for attribute in &message.attributes {
                if let AddressAttribute::Address(IpAddr::V4(address)) = attribute {
                    used.push(Subnet::containing(*address, message.header.prefix_len));
                }
            }
        }
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.0.route().get(all).execute();
        while let Some(message) = routes.try_next().await.map_err(failed("list the routes"))? {
            let prefix_len = message.header.destination_prefix_length;
            for attribute in &message.attributes {
                if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute
                    && prefix_len > 0
                {
                    used.push(Subnet::containing(*address, prefix_len));
                }
            }
        }
        Ok(used)
    }
}
