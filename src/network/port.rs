//! Ports of the node: who holds one, which are free.
//!
//! A published port is rewritten by the packet filter before any socket sees it, so the kernel
//! would let both a task and a program on the node have the same one, and the program would go
//! silent. So each published port is also held by a socket: another program, or another daemon
//! beside us, gets "address already in use", and `ss -l` shows who has it.

use super::error::NetworkError;
use crate::types::PortProtocol;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// A held port; free again when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    _socket: Socket,
    /// The port.
    pub(super) port: u16,
}

/// Returns the address as it is told apart from others: 0.0.0.0 is every address.
pub(super) fn normalized(address: Option<IpAddr>) -> Option<IpAddr> {
    address.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Takes `port` at an address, or at every one of version 4; any free one where it is 0.
pub(super) fn reserve(
    protocol: PortProtocol,
    address: Option<IpAddr>,
    port: u16,
) -> Result<Reservation, NetworkError> {
    let at = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    bind(protocol, SocketAddr::new(at, port)).map_err(|source| {
        let is = |errno: Errno| source.raw_os_error() == Some(errno.raw_os_error());
        if is(Errno::ADDRINUSE) {
            NetworkError::PortInUse { address, port, protocol }
        } else if is(Errno::ADDRNOTAVAIL) {
            NetworkError::NoSuchAddress { address: at, port, protocol }
        } else {
            NetworkError::Port { address, port, protocol, source }
        }
    })
}

fn bind(protocol: PortProtocol, address: SocketAddr) -> io::Result<Reservation> {
    let domain = Domain::for_address(address);
    let (kind, number) = match protocol {
        PortProtocol::Tcp => (Type::STREAM, Protocol::TCP),
        PortProtocol::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(domain, kind, Some(number))?;
    if address.is_ipv6() {
        // The same port of version 4 is another's.
        socket.set_only_v6(true)?;
    }
    match protocol {
        PortProtocol::Tcp => {
            // Connections that a server just closed must not keep its successor away; a socket
            // that listens still does.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(1)?;
        }
        PortProtocol::Udp => {
            socket.bind(&address.into())?;
            // Nothing should reach it past the filter; what does must not pile up.
            socket.set_recv_buffer_size(1)?;
        }
    }
    let local = socket.local_addr()?.as_socket();
    let port = local.map(|local| local.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Reservation { _socket: socket, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_until_dropped() {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let held = reserve(protocol, None, 0).expect("some port is free");
            assert!(held.port > 0);
            let error = reserve(protocol, None, held.port).expect_err("it is held");
            let text =
                format!("port {}/{} is already in use on this node", held.port, protocol.as_str());
            assert_eq!(error.to_string(), text);
            assert!(!error.is_temporary());
            let port = held.port;
            drop(held);
            reserve(protocol, None, port).expect("it is free again");
        }
    }

    #[test]
    fn a_port_is_held_at_one_address_only() {
        let [one, two] = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse::<IpAddr>().ok());
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let held = reserve(protocol, one, 0).expect("some port is free");
            let _other = reserve(protocol, two, held.port).expect("another address");
            let error = reserve(protocol, one, held.port).expect_err("it is held");
            let shown = format!("port 127.0.0.1:{}/{}", held.port, protocol.as_str());
            assert!(error.to_string().starts_with(&shown), "{error}");
            reserve(protocol, None, held.port).expect_err("one of all addresses is held");
        }
        let far = "192.0.2.77".parse().ok();
        let error = reserve(PortProtocol::Tcp, far, 80).expect_err("it is another machine's");
        let text = "cannot publish port 80/tcp on 192.0.2.77: this node has no such address";
        assert_eq!(error.to_string(), text);
        assert!(!error.is_temporary());
        assert_eq!(normalized("0.0.0.0".parse().ok()), None);
        assert_eq!(normalized(one), one);
    }
}
