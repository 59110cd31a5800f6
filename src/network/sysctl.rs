//! Kernel parameters of the network namespace that the calling thread is in.

use super::error::NetworkError;
use std::{fs, path::Path};

/// Sets a kernel parameter of this thread's network namespace, unless it has the value: the file
/// may be read-only in a container that was set up rightly.
pub(super) fn set(path: &str, value: &str) -> Result<(), NetworkError> {
    if is(path, value) {
        return Ok(());
    }
    fs::write(path, value).map_err(NetworkError::file("write kernel parameter", path))
}

/// Tells whether a kernel parameter of this thread's network namespace has the value.
pub(super) fn is(path: impl AsRef<Path>, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

/// Keeps a link from giving itself an address of version 6. A kernel without version 6 has
/// nothing to be switched off.
pub(super) fn disable_ipv6(link: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    if Path::new(&path).exists()
        && let Err(error) = set(&path, "1")
    {
        tracing::debug!(link, "version 6 stays on: {error}");
    }
}

/// Lets a link have addresses of version 6: those it is given, at once, and no others.
pub(super) fn enable_ipv6(link: &str) -> Result<(), NetworkError> {
    let conf = format!("/proc/sys/net/ipv6/conf/{link}");
    if !Path::new(&conf).exists() {
        return Err(NetworkError::Unsupported {
            what: "publish ports at addresses of version 6".into(),
            module: "ipv6",
        });
    }
    for (name, value) in [("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")] {
        set(&format!("{conf}/{name}"), value)?;
    }
    Ok(())
}

/// Lets links that listen to what routers announce do so also while the node forwards version 6. It
/// would lose its own address and route, unless it is told (2) to listen all the same.
pub(super) fn listen_to_routers() -> Result<(), NetworkError> {
    let links = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    for listens in links.map(|link| link.path().join("accept_ra")) {
        if is(&listens, "1") {
            fs::write(&listens, "2")
                .map_err(NetworkError::file("write kernel parameter", &listens))?;
        }
    }
    Ok(())
}
