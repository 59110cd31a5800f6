//! Addresses as users write them: `10.0.0.1`, `eth0:2377`, `manager.example:2377`.

use crate::{
    transport,
    util::{
        address::{own_towards, without_brackets},
        interfaces::interfaces,
    },
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address cannot be used. The wording is Swarm's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
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
pub(crate) fn listen(text: &str) -> Result<SocketAddr, AddressError> {
    let invalid = || AddressError::Listen(text.to_owned());
    if text.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, transport::PORT).into());
    }
    if let Some(address) = literal(text, transport::PORT) {
        return Ok(address);
    }
    let (name, port) = split_port(text).ok_or_else(invalid)?;
    let address = of_interface(&interfaces(), name).ok_or_else(invalid)?;
    Ok((address, port).into())
}

/// Returns what to keep of where to listen: an interface by its name, since its address may change.
pub(crate) fn kept_listen(text: &str, listen: SocketAddr) -> String {
    match listens_on(text) {
        Some(name) => format!("{name}:{}", listen.port()),
        None => listen.to_string(),
    }
}

/// Returns the interface that `text` names as the place to listen.
fn listens_on(text: &str) -> Option<&str> {
    if text.is_empty() || literal(text, transport::PORT).is_some() {
        return None;
    }
    split_port(text).map(|(name, _)| name)
}

/// How the address that other nodes are told came about, and so whether it changes with the
/// machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Chosen among those of the machine, for a user who named none.
    Found,
    /// That of an interface, which a user named.
    Interface(String),
    /// A user named it, and the machine had it.
    Own,
    /// A user named it, and something else leads from there to here; or a user named a DNS name.
    Given,
}

/// Where other nodes are told to reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertised {
    /// `host:port`.
    pub(crate) address: String,
    /// Why it is this one.
    pub(crate) origin: Origin,
}

/// Returns what to tell other nodes: what was asked for, or this machine's only address. Host names
/// are kept, so that a manager whose address changes is still found.
pub(crate) fn advertise(
    text: &str,
    (listen_text, listen): (&str, SocketAddr),
) -> Result<Advertised, AddressError> {
    let told = |address: SocketAddr, origin| Advertised { address: address.to_string(), origin };
    if text.is_empty() {
        if listen.ip().is_unspecified() {
            let address = (only_address(&interfaces())?, listen.port()).into();
            return Ok(told(address, Origin::Found));
        }
        let interface = listens_on(listen_text).map(|name| Origin::Interface(name.to_owned()));
        return Ok(told(listen, interface.unwrap_or(Origin::Own)));
    }
    let invalid = || AddressError::Advertise(text.to_owned());
    if let Some(address) = literal(text, listen.port()) {
        if address.ip().is_unspecified() {
            return Err(invalid());
        }
        let own = interfaces().iter().any(|(_, own)| *own == address.ip());
        return Ok(told(address, if own { Origin::Own } else { Origin::Given }));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_| invalid())?),
        None => (text, listen.port()),
    };
    if let Some(address) = of_interface(&interfaces(), name) {
        return Ok(told((address, port).into(), Origin::Interface(name.to_owned())));
    }
    let host = name.contains('.') && crate::types::validate_hostname(name).is_ok();
    if !host {
        return Err(invalid());
    }
    Ok(Advertised { address: format!("{name}:{port}"), origin: Origin::Given })
}

/// What this machine's addresses mean for the one that other nodes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays.
    Stays,
    /// This one, `host:port`, takes its place.
    Moves(String),
    /// The machine does not have it any more, and midge may not, or cannot, choose another: why, and
    /// what to do.
    Lost(String),
}

/// Judges the address that other nodes are told, `host:port`, by those that the machine has now.
/// `way` is the machine's own address on its way out. A machine without any address is only between
/// two of them.
pub(crate) fn judge(
    told: &str,
    origin: Option<&Origin>,
    own: &[(String, IpAddr)],
    way: Option<IpAddr>,
) -> Verdict {
    let Ok(address) = told.parse::<SocketAddr>() else { return Verdict::Stays };
    let has = |wanted: IpAddr| own.iter().any(|(name, it)| *it == wanted && !is_inner(name));
    let moves = |to: IpAddr| Verdict::Moves(SocketAddr::from((to, address.port())).to_string());
    if let Some(Origin::Interface(name)) = origin {
        let mut of_it = own.iter().filter(|(interface, _)| interface == name);
        return match of_interface(own, name) {
            Some(to) if !of_it.any(|(_, it)| *it == address.ip()) => moves(to),
            _ => Verdict::Stays,
        };
    }
    if own.iter().any(|(_, it)| *it == address.ip()) || own.iter().all(|(name, _)| is_inner(name)) {
        return Verdict::Stays;
    }
    match origin {
        Some(Origin::Found) => match way.filter(|way| has(*way)) {
            Some(to) => moves(to),
            None => match only_address(own) {
                Ok(to) => moves(to),
                Err(_) => Verdict::Lost(format!(
                    "this node has several addresses now, and none is {}, which other nodes know: \
                     name one by advertise_addr in the configuration and restart the daemon",
                    address.ip()
                )),
            },
        },
        Some(Origin::Own) => Verdict::Lost(format!(
            "this node no longer has the address {}, which a user had it tell other nodes: give it \
             back, or set advertise_addr = \"auto\" (or an address, a DNS name, an interface) in the \
             configuration and restart the daemon",
            address.ip()
        )),
        Some(Origin::Interface(_) | Origin::Given) | None => Verdict::Stays,
    }
}

/// Returns this machine's address on its way to `target`, or out into the world.
pub(crate) fn way_to(target: Option<SocketAddr>) -> Option<IpAddr> {
    // Of networks for documentation: they are nobody's, and lead where everything else does.
    let out =
        [SocketAddr::from(([192, 0, 2, 1], 9)), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into()];
    target.into_iter().chain(out).find_map(|target| {
        let own = own_towards(target).ok()?;
        (!own.is_unspecified() && !own.is_loopback()).then_some(own)
    })
}

/// Returns the host of `host:port`.
pub(crate) fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Reads `10.0.0.1`, `10.0.0.1:2377`, `fd00::1`, `[fd00::1]` or `[fd00::1]:2377`.
fn literal(text: &str, port: u16) -> Option<SocketAddr> {
    let address = || Some((without_brackets(text).parse::<IpAddr>().ok()?, port).into());
    text.parse().ok().or_else(address)
}

fn split_port(text: &str) -> Option<(&str, u16)> {
    match text.rsplit_once(':') {
        Some((name, port)) => Some((name, port.parse().ok()?)),
        None => Some((text, transport::PORT)),
    }
}

fn of_interface(own: &[(String, IpAddr)], name: &str) -> Option<IpAddr> {
    let of_it = own.iter().filter(|(interface, _)| interface == name);
    of_it.map(|(_, address)| *address).min_by_key(IpAddr::is_ipv6)
}

/// Tells whether an interface is inside the machine: bridges of container engines are no way to
/// reach it.
fn is_inner(name: &str) -> bool {
    ["docker", "br-", "veth", "mdg", "cni", "virbr"].iter().any(|p| name.starts_with(p))
}

/// Returns the addresses by which the machine may be reached.
pub(crate) fn outer(mut own: Vec<(String, IpAddr)>) -> Vec<(String, IpAddr)> {
    own.retain(|(name, _)| !is_inner(name));
    own
}

/// Returns the machine's only address of version 4 or, where it has none, of version 6.
fn only_address(own: &[(String, IpAddr)]) -> Result<IpAddr, AddressError> {
    let outer = own.iter().filter(|(name, _)| !is_inner(name)).map(|(_, address)| *address);
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = outer.partition(IpAddr::is_ipv4);
    let found = if four.is_empty() { six } else { four };
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

    const ANY: (&str, SocketAddr) =
        ("", SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), transport::PORT));

    #[test]
    fn addresses_get_the_usual_port() {
        assert_eq!(listen("").unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(listen("10.0.0.1").unwrap().to_string(), "10.0.0.1:2377");
        assert_eq!(listen("[::1]:5").unwrap().to_string(), "[::1]:5");
        for text in ["fd00::1", "[fd00::1]", "[fd00::1]:2377"] {
            assert_eq!(listen(text).unwrap().to_string(), "[fd00::1]:2377");
            assert_eq!(advertise(text, ANY).unwrap().address, "[fd00::1]:2377");
        }
        let told = |text: &str| {
            let told = advertise(text, ANY).unwrap();
            (told.address, told.origin)
        };
        assert_eq!(told("10.0.0.1"), ("10.0.0.1:2377".to_owned(), Origin::Given));
        assert_eq!(told("pi.example.com"), ("pi.example.com:2377".to_owned(), Origin::Given));
        assert_eq!(told("pi.example.com:9").0, "pi.example.com:9");
    }

    #[test]
    fn what_nobody_can_reach_is_refused() {
        for bad in ["0.0.0.0", "nope0", "10.0.0.1:99999", "bad.addr:99999"] {
            assert!(advertise(bad, ANY).is_err(), "{bad}");
        }
        for bad in ["10.0.0.11:99999", "nope0", "a b", "[10.0.0.1", "fd00::1]:2377"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_interface_to_listen_on_is_kept_by_its_name() {
        let listen: SocketAddr = "10.0.0.1:2377".parse().unwrap();
        assert_eq!(kept_listen("eth0", listen), "eth0:2377");
        for text in ["", "0.0.0.0:2377", "10.0.0.1", "10.0.0.1:2377"] {
            assert_eq!(kept_listen(text, listen), "10.0.0.1:2377", "{text}");
        }
    }

    fn own(addresses: &[&str]) -> Vec<(String, IpAddr)> {
        let pair = |text: &&str| {
            let (name, address) = text.split_once('=').unwrap();
            (name.to_owned(), address.parse().unwrap())
        };
        addresses.iter().map(pair).collect()
    }

    fn judged(told: &str, origin: &Origin, addresses: &[&str], way: &str) -> String {
        match judge(told, Some(origin), &own(addresses), way.parse().ok()) {
            Verdict::Stays => "stays".to_owned(),
            Verdict::Moves(to) => to,
            Verdict::Lost(why) => why,
        }
    }

    #[test]
    fn an_address_that_was_found_follows_the_machine() {
        let found =
            |addresses: &[&str], way: &str| judged("10.0.0.1:77", &Origin::Found, addresses, way);
        assert_eq!(found(&["eth0=10.0.0.1", "wlan0=10.0.1.1"], "10.0.1.1"), "stays");
        assert_eq!(found(&["eth0=10.0.0.2"], ""), "10.0.0.2:77");
        assert_eq!(found(&["eth0=10.0.0.2", "wlan0=10.0.1.1"], "10.0.1.1"), "10.0.1.1:77");
        assert_eq!(found(&["eth0=fd00::2", "eth0=10.0.0.2"], ""), "10.0.0.2:77");
        assert_eq!(found(&["eth0=fd00::2"], ""), "[fd00::2]:77");
        // Between two addresses, and with none but a bridge's.
        assert_eq!(found(&[], ""), "stays");
        assert_eq!(found(&["mdg0=10.200.0.1"], "10.200.0.1"), "stays");
        assert_eq!(found(&["mdg0=10.200.0.1", "eth0=10.0.0.2"], "10.200.0.1"), "10.0.0.2:77");
        let says = found(&["eth0=10.0.0.2", "wlan0=10.0.1.1"], "");
        assert!(says.contains("several addresses") && says.contains("advertise_addr"), "{says}");
    }

    #[test]
    fn an_interfaces_address_follows_that_interface() {
        let named = |addresses: &[&str]| {
            let origin = Origin::Interface("eth0".to_owned());
            judged("10.0.0.1:77", &origin, addresses, "10.0.1.1")
        };
        assert_eq!(named(&["eth0=10.0.0.1", "eth0=10.0.0.2"]), "stays");
        assert_eq!(named(&["eth0=fd00::2", "eth0=10.0.0.2", "wlan0=10.0.0.1"]), "10.0.0.2:77");
        assert_eq!(named(&["eth0=fd00::2"]), "[fd00::2]:77");
        assert_eq!(named(&["wlan0=10.0.1.1"]), "stays");
    }

    #[test]
    fn what_a_user_said_is_not_replaced() {
        let says = judged("10.0.0.1:77", &Origin::Own, &["eth0=10.0.0.2"], "10.0.0.2");
        assert!(says.contains("no longer has the address 10.0.0.1"), "{says}");
        assert!(says.contains("advertise_addr"), "{says}");
        assert_eq!(judged("10.0.0.1:77", &Origin::Own, &["eth0=10.0.0.1"], ""), "stays");
        assert_eq!(judged("10.0.0.1:77", &Origin::Given, &["eth0=10.0.0.2"], ""), "stays");
        assert_eq!(judged("pi.lan:77", &Origin::Given, &["eth0=10.0.0.2"], ""), "stays");
        assert_eq!(judge("10.0.0.1:77", None, &own(&["eth0=10.0.0.2"]), None), Verdict::Stays);
    }
}
