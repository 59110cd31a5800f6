//! IP addresses as they are written, and the machine's own on its way to others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Returns `fd00::1` of `[fd00::1]`, and any other text as it is.
#[must_use]
pub fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

/// Returns every address of the version that `other` is of, at a port that the kernel chooses.
#[must_use]
pub fn any_like(other: SocketAddr) -> SocketAddr {
    let any: IpAddr = match other {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (any, 0).into()
}

/// Returns this machine's own address on its way to `target`. Nothing is sent: the kernel only
/// chooses the way.
///
/// # Errors
///
/// Nothing leads there.
pub fn own_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any_like(target))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_go_where_there_are_both() {
        for (text, bare) in [("[::1]", "::1"), ("::1", "::1"), ("[::1", "[::1"), ("", "")] {
            assert_eq!(without_brackets(text), bare);
        }
    }

    #[test]
    fn the_kernel_knows_the_way() {
        let own = |target: &str| own_towards(target.parse().expect("an address"));
        assert_eq!(own("127.0.0.1:9").expect("a way").to_string(), "127.0.0.1");
        assert!(own("255.255.255.255:9").is_err());
    }
}
