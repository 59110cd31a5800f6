//! The files a container gets for its names: `hosts` and `resolv.conf`.

use super::error::NetworkError;
use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where systemd-resolved lists the real name servers when `/etc/resolv.conf` only names its own
/// stub, which listens on a loopback address that containers do not reach.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Writes both files into `dir` and returns their paths. They are written in place, since a
/// container that runs has them mounted.
pub(super) fn write(
    dir: &Path,
    hostname: &str,
    address: Option<Ipv4Addr>,
) -> Result<(PathBuf, PathBuf), NetworkError> {
    fs::create_dir_all(dir).map_err(NetworkError::file("make folder", dir))?;
    let (hosts, resolv_conf) = (dir.join("hosts"), dir.join("resolv.conf"));
    let host_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = fs::read_to_string(RESOLVED).ok();
    for (path, text) in [
        (&hosts, hosts_text(hostname, address)),
        (&resolv_conf, resolv_text(&host_conf, resolved.as_deref())),
    ] {
        fs::write(path, text).map_err(NetworkError::file("write", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o644))
            .map_err(NetworkError::file("make readable", path))?;
    }
    Ok((hosts, resolv_conf))
}

fn hosts_text(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         {own}\t{hostname}\n"
    )
}

/// Picks what a container is told of name servers: the host's file, or systemd-resolved's where
/// the host's names loopback only, without the servers that no container reaches.
fn resolv_text(host: &str, resolved: Option<&str>) -> String {
    let source = match resolved {
        Some(resolved) if !host.lines().any(names_reachable_server) => resolved,
        _ => host,
    };
    source
        .lines()
        .filter(|line| server_of(line).is_none() || names_reachable_server(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn server_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn names_reachable_server(line: &str) -> bool {
    let Some(server) = server_of(line) else { return false };
    let address = server.split('%').next().and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_hosts_file_names_the_container() {
        let text = hosts_text("web", Some(Ipv4Addr::new(172, 30, 0, 5)));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("172.30.0.5\tweb\n"));
    }

    #[test]
    fn loopback_servers_are_replaced_or_left_out() {
        let stub = "nameserver 127.0.0.53\nsearch lan\noptions edns0\n";
        let real = "nameserver 192.0.2.1\nsearch lan\n";
        assert_eq!(resolv_text(stub, Some(real)), real);
        assert_eq!(resolv_text(real, Some("nameserver 192.0.2.9\n")), real);
        expect![[r"
            search lan
            options edns0
        "]]
        .assert_eq(&resolv_text(stub, None));
        let mixed = format!("{real}nameserver ::1\nnameserver fe80::1%eth0\n");
        assert!(!resolv_text(&mixed, None).contains("::1\n"));
        assert!(resolv_text(&mixed, None).contains("fe80::1%eth0"));
    }
}
