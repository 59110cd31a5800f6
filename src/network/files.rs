//! The files a container gets for its names: `hosts`, `hostname` and `resolv.conf`.

use super::error::NetworkError;
use crate::types::DnsConfig;
use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where systemd-resolved lists the real name servers when `/etc/resolv.conf` only names its own
/// stub, which listens on a loopback address that containers do not reach.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// What a container behind the bridge asks where the node knows only a server of its own, as
/// Docker has it: without one it would resolve nothing at all.
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The address that stands for the node in a task's hosts, as Docker writes it.
const NODE: &str = "host-gateway";

/// What a container's files are made from.
#[derive(Debug)]
pub(super) struct Names<'a> {
    /// Its host name.
    pub(super) hostname: &'a str,
    /// Where it is.
    pub(super) place: Place,
    /// Further lines of the hosts file, `ADDRESS NAME...`.
    pub(super) hosts: &'a [String],
    /// How names are resolved.
    pub(super) dns: &'a DnsConfig,
}

/// Where a container is in the node's network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Behind the bridge.
    Bridge {
        /// Its address.
        address: Ipv4Addr,
        /// Its address of version 6.
        address6: Option<Ipv6Addr>,
        /// The node's address on the bridge.
        gateway: Ipv4Addr,
    },
    /// In the node's own network.
    Host,
    /// Nowhere.
    Alone,
}

/// Where a container's files are.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) hosts: PathBuf,
    pub(super) hostname: PathBuf,
    pub(super) resolv_conf: PathBuf,
}

/// Writes the files into `dir` and returns their paths. They are written in place, since a
/// container that runs has them mounted.
pub(super) fn write(dir: &Path, names: &Names<'_>) -> Result<Files, NetworkError> {
    fs::create_dir_all(dir).map_err(NetworkError::file("make folder", dir))?;
    let [hosts, hostname, resolv_conf] =
        ["hosts", "hostname", "resolv.conf"].map(|name| dir.join(name));
    let host_hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let host_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = fs::read_to_string(RESOLVED).ok();
    for (path, text) in [
        (&hosts, hosts_text(names, &host_hosts)?),
        (&hostname, format!("{}\n", names.hostname)),
        (&resolv_conf, resolv_text(names, &host_conf, resolved.as_deref())?),
    ] {
        fs::write(path, text).map_err(NetworkError::file("write", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o644))
            .map_err(NetworkError::file("make readable", path))?;
    }
    Ok(Files { hosts, hostname, resolv_conf })
}

fn hosts_text(names: &Names<'_>, host: &str) -> Result<String, NetworkError> {
    let hostname = names.hostname;
    let mut text = match names.place {
        Place::Host => {
            let mut text = host.to_owned();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
        _ => "127.0.0.1\tlocalhost\n\
              ::1\tlocalhost ip6-localhost ip6-loopback\n\
              fe00::\tip6-localnet\n\
              ff00::\tip6-mcastprefix\n\
              ff02::1\tip6-allnodes\n\
              ff02::2\tip6-allrouters\n"
            .to_owned(),
    };
    for line in names.hosts {
        let refused = |why| NetworkError::Host { line: line.clone(), why };
        let mut words = line.split_whitespace();
        let address = match words.next() {
            Some(NODE) => match names.place {
                Place::Bridge { gateway, .. } => IpAddr::V4(gateway),
                _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            Some(address) => address.parse().map_err(|_| refused("it begins with no address"))?,
            None => return Err(refused("it is empty")),
        };
        let aliases: Vec<&str> = words.collect();
        if aliases.is_empty() {
            return Err(refused("it names no host"));
        }
        text.push_str(&format!("{address}\t{}\n", aliases.join(" ")));
    }
    let (own, own6) = match names.place {
        Place::Bridge { address, address6, .. } => (address, address6),
        Place::Host | Place::Alone => (Ipv4Addr::LOCALHOST, None),
    };
    let own6 = own6.map(IpAddr::V6);
    for own in [IpAddr::V4(own)].into_iter().chain(own6) {
        text.push_str(&format!("{own}\t{hostname}\n"));
    }
    Ok(text)
}

/// Says what a container is told of name servers: what the task says, and where it says nothing
/// what the node's file does, or systemd-resolved's where the node's names loopback only. Servers
/// that the container cannot reach are left out.
fn resolv_text(
    names: &Names<'_>,
    host: &str,
    resolved: Option<&str>,
) -> Result<String, NetworkError> {
    let dns = names.dns;
    let reaches_loopback = matches!(names.place, Place::Host);
    let source = match resolved {
        Some(resolved) if !reaches_loopback && !host.lines().any(names_reachable_server) => {
            resolved
        }
        _ => host,
    };
    let mut servers: Vec<String> = dns.nameservers.clone();
    for server in &servers {
        if address_of(server).is_none() {
            return Err(NetworkError::NameServer(server.clone()));
        }
    }
    if servers.is_empty() {
        let reachable = |line: &&str| reaches_loopback || names_reachable_server(line);
        let lines = source.lines().filter(reachable);
        servers.extend(lines.filter_map(server_of).map(str::to_owned));
    }
    if servers.is_empty() && matches!(names.place, Place::Bridge { .. }) {
        tracing::warn!(
            servers = FALLBACK.join(" "),
            "this node's own name servers are not reached by tasks, which are given others"
        );
        servers.extend(FALLBACK.map(str::to_owned));
    }
    let mut text = String::new();
    match dns.search.as_slice() {
        [] => text.push_str(&lines_of(source, &["search", "domain"])),
        // As Docker: a lone dot is no domain at all.
        [dot] if dot == "." => {}
        domains => text.push_str(&format!("search {}\n", domains.join(" "))),
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    match dns.options.as_slice() {
        [] => text.push_str(&lines_of(source, &["options", "sortlist"])),
        options => text.push_str(&format!("options {}\n", options.join(" "))),
    }
    Ok(text)
}

/// Returns the lines that begin with one of some words.
fn lines_of(source: &str, words: &[&str]) -> String {
    let wanted = |line: &&str| line.split_whitespace().next().is_some_and(|w| words.contains(&w));
    source.lines().filter(wanted).fold(String::new(), |text, line| text + line + "\n")
}

fn server_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

/// Reads an address, which may name the link it is reached by.
fn address_of(server: &str) -> Option<IpAddr> {
    server.split('%').next()?.parse().ok()
}

fn names_reachable_server(line: &str) -> bool {
    let address = server_of(line).and_then(address_of);
    address.is_some_and(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 5);
    const BRIDGE: Place =
        Place::Bridge { address: ADDRESS, address6: None, gateway: Ipv4Addr::new(172, 30, 0, 1) };

    fn hosts(place: Place, lines: &[&str], host: &str) -> Result<String, String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let dns = DnsConfig::default();
        let names = Names { hostname: "web", place, hosts: &lines, dns: &dns };
        hosts_text(&names, host).map_err(|error| error.to_string())
    }

    fn resolv(
        place: Place,
        dns: &DnsConfig,
        host: &str,
        resolved: Option<&str>,
    ) -> Result<String, String> {
        let names = Names { hostname: "web", place, hosts: &[], dns };
        resolv_text(&names, host, resolved).map_err(|error| error.to_string())
    }

    #[test]
    fn the_hosts_file_names_the_container_and_its_hosts() {
        let text = hosts(BRIDGE, &["192.0.2.1 db db.lan", "host-gateway node"], "x").unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        let end = "192.0.2.1\tdb db.lan\n172.30.0.1\tnode\n172.30.0.5\tweb\n";
        assert!(text.ends_with(end), "{text}");
        let place = Place::Bridge {
            address: ADDRESS,
            address6: Some("fd00::5".parse().unwrap()),
            gateway: ADDRESS,
        };
        assert!(hosts(place, &[], "").unwrap().ends_with("172.30.0.5\tweb\nfd00::5\tweb\n"));
        let text = hosts(Place::Host, &["::1 me"], "10.0.0.1 node").unwrap();
        assert_eq!(text, "10.0.0.1 node\n::1\tme\n127.0.0.1\tweb\n");
        for (line, why) in [("", "is empty"), ("db 1.2.3.4", "no address"), ("1.2.3.4", "no host")]
        {
            let error = hosts(BRIDGE, &[line], "").unwrap_err();
            assert!(error.contains(why) && error.contains("extra host"), "{error}");
        }
    }

    #[test]
    fn loopback_servers_are_replaced_or_left_out() {
        let none = DnsConfig::default();
        let stub = "nameserver 127.0.0.53\nsearch lan\noptions edns0\n";
        let real = "search lan\nnameserver 192.0.2.1\n";
        assert_eq!(resolv(BRIDGE, &none, stub, Some(real)).unwrap(), real);
        assert_eq!(resolv(BRIDGE, &none, real, Some("nameserver 192.0.2.9\n")).unwrap(), real);
        expect![[r"
            search lan
            nameserver 8.8.8.8
            nameserver 8.8.4.4
            options edns0
        "]]
        .assert_eq(&resolv(BRIDGE, &none, stub, None).unwrap());
        let kept = "search lan\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(resolv(Place::Host, &none, stub, Some(real)).unwrap(), kept);
        assert_eq!(resolv(Place::Alone, &none, "nameserver ::1\n", None).unwrap(), "");
        let mixed = format!("{real}nameserver ::1\nnameserver fe80::1%eth0\n");
        let text = resolv(BRIDGE, &none, &mixed, None).unwrap();
        assert!(!text.contains("::1\n") && text.contains("fe80::1%eth0"), "{text}");
    }

    #[test]
    fn what_the_task_says_replaces_what_the_node_says() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let node = "nameserver 192.0.2.1\nsearch lan\noptions edns0\n";
        let mut dns = DnsConfig {
            nameservers: list(&["127.0.0.1", "2001:db8::1"]),
            search: list(&["a.lan", "b.lan"]),
            options: list(&["ndots:2", "rotate"]),
        };
        expect![[r"
            search a.lan b.lan
            nameserver 127.0.0.1
            nameserver 2001:db8::1
            options ndots:2 rotate
        "]]
        .assert_eq(&resolv(BRIDGE, &dns, node, None).unwrap());
        dns = DnsConfig { search: list(&["."]), ..DnsConfig::default() };
        let text = resolv(BRIDGE, &dns, node, None).unwrap();
        assert_eq!(text, "nameserver 192.0.2.1\noptions edns0\n");
        dns = DnsConfig { nameservers: list(&["dns.lan"]), ..DnsConfig::default() };
        let error = resolv(BRIDGE, &dns, node, None).unwrap_err();
        assert_eq!(error, "invalid DNS server \"dns.lan\": it is no address");
    }
}
