//! How names are resolved inside: hosts and name servers. Each ends up as a line of a file, so none
//! may hold more than one.

use super::{LIST_MAX, count, invalid, word};
use crate::{
    cluster::request::Refusal,
    types::{ContainerSpec, validate_hostname},
};
use std::net::IpAddr;

pub(super) fn check(spec: &ContainerSpec) -> Result<(), Refusal> {
    hosts(&spec.hosts)?;
    let dns = &spec.dns;
    count("name servers", dns.nameservers.len(), LIST_MAX)?;
    for server in &dns.nameservers {
        if server.parse::<IpAddr>().is_err() {
            word("a name server", server)?;
            return Err(invalid(format!("IP address is not correctly formatted: {server}")));
        }
    }
    count("search domains", dns.search.len(), LIST_MAX)?;
    for domain in &dns.search {
        // A lone dot stands for no domain at all.
        if domain != "." && validate_hostname(domain.trim_end_matches('.')).is_err() {
            word("a search domain", domain)?;
            return Err(invalid(format!("{domain} is not a valid domain")));
        }
    }
    count("resolver options", dns.options.len(), LIST_MAX)?;
    for option in &dns.options {
        word("a resolver option", option)?;
        if option.is_empty() || option.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid(format!("invalid resolver option: {option:?}")));
        }
    }
    Ok(())
}

fn hosts(hosts: &[String]) -> Result<(), Refusal> {
    count("hosts", hosts.len(), LIST_MAX)?;
    for line in hosts {
        word("a host", line)?;
        let bad = || invalid(format!("bad format for add-host: {line:?}"));
        if line.contains(char::is_control) {
            return Err(bad());
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let address = words.next().ok_or_else(bad)?;
        // The word stands for the node's own address on the container's network.
        if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("invalid IP address in add-host: {address:?}")));
        }
        let mut names = words.peekable();
        if names.peek().is_none() || names.any(|name| validate_hostname(name).is_err()) {
            return Err(bad());
        }
    }
    Ok(())
}
