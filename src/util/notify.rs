//! Tells systemd how the service is: its readiness protocol, a datagram to a socket.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// Sends `state` (`READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=...`) to whoever started this
/// process and asked for it by `NOTIFY_SOCKET`; does nothing where nobody did.
///
/// # Errors
///
/// The socket that was named does not take it.
pub fn notify(state: &str) -> io::Result<()> {
    std::env::var_os("NOTIFY_SOCKET").map_or(Ok(()), |socket| send(&socket, state))
}

/// Sends `state` to a socket: a path, or `@` and an abstract name.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::Error::other("NOTIFY_SOCKET is neither a path nor an abstract name")),
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Returns within how long the service manager wants to hear `WATCHDOG=1` again and again; None
/// where it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    watchdog_of(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn watchdog_of(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    // A child inherits both, and is not meant.
    let meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros = micros?.parse::<u64>().ok()?;
    (meant && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_state_reaches_a_socket_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&socket), "READY=1");

        let name = format!("midge-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_ref(), "WATCHDOG=1").unwrap();
        assert_eq!(received(&socket), "WATCHDOG=1");
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = send(dir.path().join("gone").as_os_str(), "READY=1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(send("relative".as_ref(), "READY=1").is_err());
        assert!(send("".as_ref(), "READY=1").is_err());
    }

    #[test]
    fn the_watchdog_is_this_process_s_alone() {
        let text = |text: &str| Some(text.to_owned());
        let minute = Some(Duration::from_mins(1));
        assert_eq!(watchdog_of(text("60000000"), None, 7), minute);
        assert_eq!(watchdog_of(text("60000000"), text("7"), 7), minute);
        assert_eq!(watchdog_of(text("60000000"), text("8"), 7), None);
        assert_eq!(watchdog_of(None, None, 7), None);
        assert_eq!(watchdog_of(text("0"), None, 7), None);
        assert_eq!(watchdog_of(text("soon"), None, 7), None);
    }
}
