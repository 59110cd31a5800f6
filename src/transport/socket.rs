//! The UDP socket of an endpoint.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
};

/// Opens the socket that listens at `listen`. Any address is one of either version, whichever of the
/// two says so: Docker's clients write `0.0.0.0` where the user said nothing. Of version 4 alone it
/// is where the kernel has no other.
///
/// # Errors
///
/// The address is taken or not this machine's.
pub(super) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    if !listen.ip().is_unspecified() {
        return UdpSocket::bind(listen);
    }
    match both(listen.port()) {
        Err(error) if listen.is_ipv4() && has_no_version_6(&error) => UdpSocket::bind(listen),
        result => result,
    }
}

fn both(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket.into())
}

/// `ipv6.disable=1` takes the whole family away, the setting `disable_ipv6` its addresses.
fn has_no_version_6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let raw = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|it| raw == Some(it.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_of_either_version() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let socket = bind(any.parse().unwrap()).unwrap();
            let port = socket.local_addr().unwrap().port();
            for own in ["127.0.0.1", "::1"] {
                let Ok(caller) = UdpSocket::bind((own, 0)) else { continue };
                caller.send_to(b"x", (own, port)).unwrap();
                let (_, from) = socket.recv_from(&mut [0]).unwrap();
                assert_eq!(from.ip().to_canonical().to_string(), own);
            }
        }
        let one = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(one.local_addr().unwrap().ip().to_string(), "127.0.0.1");
    }
}
