//! Lets the node forward packets, which containers need, without making a router of it.
//!
//! The kernel's switch is for the whole machine: published ports are reached by any of its links, and
//! answers to containers come in by any. A machine between two networks that did not forward would
//! let each reach the other from then on. So who switches it on closes what the switch alone would
//! open: packets between two links that did not forward before.
//!
//! Others must not notice. Links that come later are not closed (Docker's, a VPN's), nor are
//! connections that were rewritten, which somebody meant (a shared uplink, a port passed on), nor a
//! machine that forwarded already. The rules stay for as long as the switch does, also when the
//! node leaves its cluster: until the machine starts anew.

use super::{error::NetworkError, name, nft, sysctl};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// How many links are closed at most, as a bound on the message to the kernel: far beyond those of
/// a machine that forwarded nothing before.
pub(super) const LINKS_MAX: usize = 256;

/// Lets the node forward version 4.
pub(super) fn turn_on() -> Result<(), NetworkError> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    if sysctl::is(SWITCH, "1") {
        return Ok(());
    }
    close("/proc/sys/net/ipv4/conf", Ipv4Addr::UNSPECIFIED.into())?;
    sysctl::set(SWITCH, "1")
}

/// Lets the node forward version 6.
pub(super) fn turn_on6() -> Result<(), NetworkError> {
    const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    if sysctl::is(SWITCH, "1") {
        return Ok(());
    }
    close("/proc/sys/net/ipv6/conf", Ipv6Addr::UNSPECIFIED.into())?;
    sysctl::listen_to_routers()?;
    sysctl::set(SWITCH, "1")
}

/// Closes the node between the links that do not forward now.
fn close(conf: &str, like: IpAddr) -> Result<(), NetworkError> {
    let found = fs::read_dir(conf).map_err(NetworkError::file("read folder", conf))?;
    let names = found.flatten().filter_map(|link| link.file_name().into_string().ok());
    let is_closed = |name: &String| {
        let is_link = !["all", "default", "lo"].contains(&name.as_str());
        let forwarding = Path::new(conf).join(name).join("forwarding");
        is_link && !name::is_ours(name) && sysctl::is(forwarding, "0")
    };
    let links: Vec<String> = names.filter(is_closed).take(LINKS_MAX).collect();
    if links.is_empty() {
        return Ok(());
    }
    nft::close_between(&links, like)?;
    tracing::info!(?links, "forwarding switched on, for containers only");
    Ok(())
}
