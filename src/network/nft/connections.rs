//! The connections that the kernel tracks for the packet filter.
//!
//! The rules of published ports are asked about the first packet of a connection only; the rest
//! goes where that one went. What UDP has of connections ends when nobody sends for a while, so a
//! client that keeps sending would be sent on to a task that is gone for as long as it does.
//!
//! The layout is the kernel's `linux/netfilter/nfnetlink_conntrack.h`.

use super::{
    Forward,
    expr::family_of,
    message::{self, Attributes, Question, Talk, attributes},
};
use rustix::io::Errno;
use std::{io, net::IpAddr};

/// The subsystem's number in the upper byte of a message's.
const TRACKED: u16 = 1 << 8;
const NEW: u16 = TRACKED;
const GET: u16 = TRACKED | 1;
const DELETE: u16 = TRACKED | 2;

/// The attributes of a connection.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// How many bytes of connections are read: a gateway's table of 262,144, the most that kernels have
/// by default, at some 400 bytes each. Only those that are forgotten are kept meanwhile.
const READ_MAX: usize = 128 << 20;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    protocol: u8,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

/// Has the kernel forget the connections that were made to published ports before they became what
/// they are now, so that the next packet of each is asked about anew.
pub(in super::super) fn forget(ports: &[Forward]) -> io::Result<()> {
    for like in [true, false] {
        let ports: Vec<&Forward> =
            ports.iter().filter(|port| port.address.is_ipv4() == like).collect();
        let Some(first) = ports.first() else { continue };
        let family = family_of(first.address);
        let mut stale = Vec::new();
        let question = Question { ask: GET, answer: NEW, family, bytes_max: READ_MAX };
        message::dump(&question, |_, body| {
            if ports.iter().any(|port| is_of(port, body)) {
                stale.push(identity(body));
            }
        })?;
        let mut talk = Talk::open()?;
        for connection in &stale {
            match talk.ask(DELETE, family, connection) {
                // It ended meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                answer => answer?,
            }
        }
    }
    Ok(())
}

/// Tells whether a connection was made to a published port of this node.
fn is_of(port: &Forward, connection: &[u8]) -> bool {
    let found = |wanted| attributes(connection).into_iter().find(|(kind, _)| *kind == wanted);
    let there = found(ORIGINAL).and_then(|(_, value)| direction(value));
    let back = found(REPLY).and_then(|(_, value)| direction(value));
    let (Some(there), Some(back)) = (there, back) else { return false };
    // Where only the source was rewritten it is on its way to the same port of another machine.
    let is_ours = back.source != there.destination || back.destination == there.source;
    there.protocol == port.protocol
        && there.destination.1 == port.published
        && port.at.is_none_or(|at| at == there.destination.0)
        && is_ours
}

/// Returns what tells a connection from all others, also from a later one that is like it.
fn identity(connection: &[u8]) -> Attributes {
    const NESTED: u16 = 0x8000;
    attributes(connection).into_iter().fold(Attributes::default(), |identity, (kind, value)| {
        match kind {
            ORIGINAL => identity.bytes(kind | NESTED, value),
            ID | ZONE => identity.bytes(kind, value),
            _ => identity,
        }
    })
}

fn direction(tuple: &[u8]) -> Option<Direction> {
    let (mut source, mut destination, mut protocol) = (None, None, None);
    let (mut source_port, mut destination_port) = (None, None);
    for (group, inner) in attributes(tuple) {
        for (kind, value) in attributes(inner) {
            match (group, kind) {
                (1, 1 | 3) => source = address(value),
                (1, 2 | 4) => destination = address(value),
                (2, 1) => protocol = value.first().copied(),
                (2, 2) => source_port = number(value),
                (2, 3) => destination_port = number(value),
                _ => {}
            }
        }
    }
    Some(Direction {
        protocol: protocol?,
        source: (source?, source_port?),
        destination: (destination?, destination_port?),
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    type End = (&'static str, u16);

    fn tuple(source: End, destination: End) -> Attributes {
        let octets = |end: End| match end.0.parse().expect("an address") {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let first = if source.0.contains(':') { 3 } else { 1 };
        let addresses = Attributes::default()
            .bytes(first, &octets(source))
            .bytes(first + 1, &octets(destination));
        let ports = Attributes::default()
            .bytes(1, &[17])
            .bytes(2, &source.1.to_be_bytes())
            .bytes(3, &destination.1.to_be_bytes());
        Attributes::default().nested(1, &addresses).nested(2, &ports)
    }

    fn connection(there: (End, End), back: (End, End)) -> Vec<u8> {
        let there = tuple(there.0, there.1);
        let back = tuple(back.0, back.1);
        let list = Attributes::default().nested(ORIGINAL, &there).nested(REPLY, &back);
        list.number(3, 0).number(ID, 7).into_bytes()
    }

    fn port(at: Option<&str>, address: &str) -> Forward {
        Forward {
            protocol: 17,
            at: at.map(|at| at.parse().expect("an address")),
            published: 53,
            address: address.parse().expect("an address"),
            target: 5353,
        }
    }

    #[test]
    fn connections_to_a_published_port_are_told_from_others() {
        let (client, node, task) = (("192.0.2.2", 4000), ("192.0.2.1", 53), ("172.30.0.2", 5353));
        let rewritten = connection((client, node), (task, client));
        let not_rewritten = connection((client, node), (node, client));
        let far = ("198.51.100.1", 53);
        let leaving = connection((("172.30.0.3", 4000), far), (far, ("192.0.2.1", 4000)));
        let back_in = connection((("172.30.0.2", 4000), node), (task, ("172.30.0.1", 4000)));
        let other_port = connection((client, ("192.0.2.1", 54)), (task, client));
        let every = port(None, "172.30.0.2");
        let which = [&rewritten, &not_rewritten, &leaving, &back_in, &other_port];
        assert_eq!(which.map(|one| is_of(&every, one)), [true, true, false, true, false]);
        let here = port(Some("192.0.2.1"), "172.30.0.2");
        assert_eq!(which.map(|one| is_of(&here, one)), [true, true, false, true, false]);
        let elsewhere = port(Some("192.0.2.9"), "172.30.0.2");
        assert_eq!(which.map(|one| is_of(&elsewhere, one)), [false; 5]);
        let tcp = Forward { protocol: 6, ..every };
        assert_eq!(which.map(|one| is_of(&tcp, one)), [false; 5]);

        let (client, node) = (("2001:db8::2", 4000), ("2001:db8::1", 53));
        let six = connection((client, node), (("fd00::2", 5353), client));
        assert!(is_of(&port(Some("2001:db8::1"), "fd00::2"), &six));
    }

    #[test]
    fn a_connection_is_named_by_its_beginning_and_its_number() {
        let (client, node) = (("192.0.2.2", 4000), ("192.0.2.1", 53));
        let whole = connection((client, node), (node, client));
        let expected =
            Attributes::default().nested(ORIGINAL, &tuple(client, node)).number(ID, 7).into_bytes();
        assert_eq!(identity(&whole).into_bytes(), expected);
    }

    #[test]
    fn bytes_that_are_no_connection_are_nobodys() {
        let port = port(None, "172.30.0.2");
        for bytes in [&[][..], &[1], &[4, 0, 1, 0], &[8, 0, 1, 0, 4, 0, 1, 0], &[0xff; 9]] {
            assert!(!is_of(&port, bytes));
            identity(bytes);
        }
    }
}
