//! `/etc/hosts` and `/etc/resolv.conf`, as libc reads them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Name servers that are asked, as libc's MAXNS.
const SERVERS_MAX: usize = 3;

/// Domains that are searched, as libc's MAXDNSRCH.
const SEARCH_MAX: usize = 6;

/// How names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// A name with so many dots is first asked for as it stands.
    pub(super) ndots: usize,
    /// How long one server may take.
    pub(super) timeout: Duration,
    /// How often all servers are asked.
    pub(super) attempts: u32,
}

impl Config {
    pub(super) fn parse(text: &str, port: u16) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) needs an interface, which a stub has no use for.
                    if let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
                        && config.servers.len() < SERVERS_MAX
                    {
                        config.servers.push(SocketAddr::new(address, port));
                    }
                }
                // The last of these lines counts.
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_end_matches('.').to_owned());
                    let domains = domains.filter(|domain| !domain.is_empty());
                    config.search = domains.take(SEARCH_MAX).collect();
                }
                Some("options") => words.for_each(|option| config.set(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        config
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = usize::try_from(value.min(15)).unwrap_or(15),
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 10))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// Returns the names to ask for, in order.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let bare = std::iter::once(format!("{host}."));
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}."));
        if host.matches('.').count() >= self.ndots {
            bare.chain(searched).collect()
        } else {
            searched.chain(bare).collect()
        }
    }
}

/// Returns the addresses that a hosts file gives `host`, IPv4 first.
pub(super) fn hosts_entries(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut addresses = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}
