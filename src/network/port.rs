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
    net::{Ipv4Addr, SocketAddrV4},
};

/// A held port; free again when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    _socket: Socket,
    /// The port.
    pub(super) port: u16,
}

/// Takes `port`, or any free one where it is 0.
pub(super) fn reserve(protocol: PortProtocol, port: u16) -> Result<Reservation, NetworkError> {
    bind(protocol, port).map_err(|source| {
        if source.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) {
            NetworkError::PortInUse { port, protocol }
        } else {
            NetworkError::Port { port, protocol, source }
        }
    })
}

fn bind(protocol: PortProtocol, port: u16) -> io::Result<Reservation> {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let socket = match protocol {
        PortProtocol::Tcp => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            // Connections that a server just closed must not keep its successor away; a socket
            // that listens still does.
            socket.set_reuse_address(true)?;
            socket.bind(&any.into())?;
            socket.listen(1)?;
            socket
        }
        PortProtocol::Udp => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&any.into())?;
            // Nothing should reach it past the filter; what does must not pile up.
            socket.set_recv_buffer_size(1)?;
            socket
        }
    };
    let local = socket.local_addr()?.as_socket_ipv4();
    let port = local.map(|local| local.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Reservation { _socket: socket, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_until_dropped() {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let held = reserve(protocol, 0).expect("some port is free");
            assert!(held.port > 0);
            let error = reserve(protocol, held.port).expect_err("it is held");
            let text =
                format!("port {}/{} is already in use on this node", held.port, protocol.as_str());
            assert_eq!(error.to_string(), text);
            assert!(!error.is_temporary());
            let port = held.port;
            drop(held);
            reserve(protocol, port).expect("it is free again");
        }
    }
}
