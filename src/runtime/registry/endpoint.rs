//! Which hosts answer for a registry, and how they are spoken to.
//!
//! Pure: mirrors, plain HTTP, Docker Hub's other name.

use crate::types::image::DEFAULT_REGISTRY;
use std::{collections::BTreeMap, net::IpAddr};

/// Where Docker Hub's registry really is.
const HUB_HOST: &str = "registry-1.docker.io";

/// The most mirrors of one registry that are tried: each can cost a connection's deadline.
const MIRRORS_MAX: usize = 8;

/// What the operator says about registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryConfig {
    /// For each registry, the mirrors to try before it, in order: `host[:port]` or a URL.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The registries spoken to without TLS: `host`, `host:port`, or a network (`10.0.0.0/8`).
    /// The loopback always is.
    pub plain_http: Vec<String>,
}

/// One host that may have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme and authority, without a final slash.
    pub base: String,
    /// Whether this is the registry itself: a mirror gets no credential that was given for the
    /// registry.
    pub origin: bool,
}

impl Endpoint {
    /// Tells whether it is spoken to without TLS.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.base.starts_with("http://")
    }

    /// Tells whether it is on this machine, where no proxy leads to.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let authority = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        is_loopback(host_of(authority.split('/').next().unwrap_or("")))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl RegistryConfig {
    /// Returns the hosts to ask for content of `registry`, in order; the registry itself is last.
    #[must_use]
    pub fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.mirrors.get(registry).map_or(&[][..], Vec::as_slice);
        let mut endpoints: Vec<Endpoint> = mirrors
            .iter()
            .take(MIRRORS_MAX)
            .map(|mirror| Endpoint { base: self.base(mirror), origin: false })
            .collect();
        let host = if registry == DEFAULT_REGISTRY { HUB_HOST } else { registry };
        endpoints.push(Endpoint { base: self.base(host), origin: true });
        endpoints
    }

    fn base(&self, host: &str) -> String {
        let host = host.trim_end_matches('/');
        if host.starts_with("http://") || host.starts_with("https://") {
            return host.to_owned();
        }
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        format!("{scheme}://{host}")
    }

    fn is_plain(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address: Option<IpAddr> = host.parse().ok();
        is_loopback(host)
            || self.plain_http.iter().any(|entry| {
                entry == authority
                    || entry == host
                    || address.is_some_and(|address| network_holds(entry, address))
            })
    }
}

/// Returns the host of `host[:port]`, an IPv6 address without its brackets.
#[must_use]
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => authority,
    }
}

fn network_holds(network: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |a: u128, b: u128, width: u32| {
        bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0)
    };
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(config: &RegistryConfig, registry: &str) -> String {
        let endpoints = config.endpoints(registry);
        assert!(endpoints.last().unwrap().origin);
        assert_eq!(endpoints.iter().filter(|e| e.origin).count(), 1);
        endpoints.into_iter().map(|e| e.base).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn plain_http_is_for_the_loopback_and_what_is_configured() {
        let config = RegistryConfig {
            plain_http: ["reg.lan", "other:5000", "10.1.0.0/16", "bad/99", "fd00::/8"]
                .map(String::from)
                .to_vec(),
            ..Default::default()
        };
        for (registry, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("reg.lan", true),
            ("reg.lan:443", true),
            ("other:5000", true),
            ("other:5001", false),
            ("10.1.200.3:5000", true),
            ("10.2.0.1:5000", false),
            ("[fd00::1]:80", true),
            ("[fe80::1]:80", false),
            ("quay.io", false),
            ("localhost.example.com", false),
            ("10.1.0.1.example.com", false),
        ] {
            let scheme = if plain { "http" } else { "https" };
            assert_eq!(bases(&config, registry), format!("{scheme}://{registry}"));
        }
    }

    #[test]
    fn mirrors_come_first_in_order_and_the_hub_has_another_name() {
        let mut config = RegistryConfig::default();
        assert_eq!(bases(&config, "docker.io"), "https://registry-1.docker.io");
        let mirrors = ["http://m1:5000/", "m2", "127.0.0.1:9"].map(String::from).to_vec();
        config.mirrors.insert("docker.io".into(), mirrors);
        assert_eq!(
            bases(&config, "docker.io"),
            "http://m1:5000 https://m2 http://127.0.0.1:9 https://registry-1.docker.io"
        );
        assert_eq!(bases(&config, "quay.io"), "https://quay.io");
    }
}
