//! Addresses as users write them: `10.0.0.1`, `eth0:2377`, `manager.example:2377`.

use crate::{transport, util::interfaces::interfaces};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address cannot be used. The wording is Swarm's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// Not an address with a port.
    #[error("{0:?} is no address to listen on: ADDRESS[:PORT] or INTERFACE[:PORT] is expected")]
    Listen(String),
    /// Nothing that others could reach.
    #[error(
        "advertise address must be a non-zero IP address, a host name or network interface (with \
         optional port number): {0:?}"
    )]
    Advertise(String),
    /// More than one to choose from.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses \
         ({0}) - specify one with --advertise-addr"
    )]
    Ambiguous(String),
    /// None to choose from.
    #[error("this system has no address to advertise - specify one with --advertise-addr")]
    NoAddress,
}

/// Returns where to listen: any address at the usual port where nothing was said.
pub(super) fn listen(text: &str) -> Result<SocketAddr, AddressError> {
    let invalid = || AddressError::Listen(text.to_owned());
    if text.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, transport::PORT).into());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, transport::PORT).into());
    }
    let (name, port) = split_port(text).ok_or_else(invalid)?;
    let address = of_interface(name).ok_or_else(invalid)?;
    Ok((address, port).into())
}

/// Returns `host:port` to tell other nodes: what was asked for, or this machine's only address.
/// Host names are kept, so that a manager whose address changes is still found.
pub(super) fn advertise(text: &str, listen: SocketAddr) -> Result<String, AddressError> {
    if text.is_empty() {
        let address = if listen.ip().is_unspecified() { only_address()? } else { listen.ip() };
        return Ok(SocketAddr::from((address, listen.port())).to_string());
    }
    let invalid = || AddressError::Advertise(text.to_owned());
    let usable = |address: SocketAddr| {
        if address.ip().is_unspecified() { Err(invalid()) } else { Ok(address.to_string()) }
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return usable(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return usable((address, listen.port()).into());
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_| invalid())?),
        None => (text, listen.port()),
    };
    if let Some(address) = of_interface(name) {
        return Ok(SocketAddr::from((address, port)).to_string());
    }
    let host = name.contains('.') && crate::types::validate_hostname(name).is_ok();
    if host { Ok(format!("{name}:{port}")) } else { Err(invalid()) }
}

fn split_port(text: &str) -> Option<(&str, u16)> {
    match text.rsplit_once(':') {
        Some((name, port)) => Some((name, port.parse().ok()?)),
        None => Some((text, transport::PORT)),
    }
}

fn of_interface(name: &str) -> Option<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        interfaces().into_iter().filter(|(i, _)| i == name).map(|(_, a)| a).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.into_iter().next()
}

fn only_address() -> Result<IpAddr, AddressError> {
    // Bridges of container engines are no way to reach this machine.
    let inner = |name: &str| {
        ["docker", "br-", "veth", "mdg", "cni", "virbr"].iter().any(|p| name.starts_with(p))
    };
    let found: Vec<IpAddr> = interfaces()
        .into_iter()
        .filter(|(name, address)| address.is_ipv4() && !inner(name))
        .map(|(_, address)| address)
        .collect();
    match found.as_slice() {
        [] => Err(AddressError::NoAddress),
        [one] => Ok(*one),
        many => {
            let shown: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(AddressError::Ambiguous(shown.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        assert_eq!(listen("").unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(listen("10.0.0.1").unwrap().to_string(), "10.0.0.1:2377");
        assert_eq!(listen("[::1]:5").unwrap().to_string(), "[::1]:5");
        let any = listen("").unwrap();
        assert_eq!(advertise("10.0.0.1", any).unwrap(), "10.0.0.1:2377");
        assert_eq!(advertise("pi.example.com", any).unwrap(), "pi.example.com:2377");
        assert_eq!(advertise("pi.example.com:9", any).unwrap(), "pi.example.com:9");
    }

    #[test]
    fn what_nobody_can_reach_is_refused() {
        let any = listen("").unwrap();
        for bad in ["0.0.0.0", "nope0", "10.0.0.1:99999", "bad.addr:99999"] {
            assert!(advertise(bad, any).is_err(), "{bad}");
        }
        for bad in ["10.0.0.11:99999", "nope0", "a b"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }
}
