//! Published ports.

use super::{LIST_MAX, count, invalid};
use crate::{
    cluster::request::{Class, Refusal},
    types::{
        Endpoint, EndpointMode, NetworkMode, PortConfig, PortProtocol, PublishMode, host_ips_meet,
    },
};
use std::net::IpAddr;

/// The longest name of a port, as of a service (IANA's own end at 15).
const NAME_MAX: usize = 63;

pub(super) fn check(endpoint: &Endpoint, network: NetworkMode) -> Result<(), Refusal> {
    count("published ports", endpoint.ports.len(), LIST_MAX)?;
    let mut taken: Vec<(PortProtocol, u16, Option<IpAddr>)> = Vec::new();
    for port in &endpoint.ports {
        let protocol = port.protocol.as_str();
        if port.target == 0 {
            return Err(invalid("EndpointSpec: invalid target port 0"));
        }
        name(port)?;
        if port.mode == PublishMode::Ingress {
            if endpoint.mode == EndpointMode::DnsRoundRobin {
                return Err(invalid(
                    "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
                ));
            }
            return Err(Refusal::new(
                Class::Unsupported,
                format!(
                    "publishing port {} with mode=ingress is not supported yet: use mode=host",
                    port.target
                ),
            ));
        }
        match network {
            NetworkMode::Bridge => {}
            NetworkMode::None => {
                return Err(invalid(format!(
                    "port {}/{protocol} cannot be published: network none has no address",
                    port.target
                )));
            }
            NetworkMode::Host if port.published != 0 && port.published != port.target => {
                return Err(invalid(format!(
                    "port {}/{protocol} cannot be published as {}: on network host a container's \
                     port is the host's",
                    port.target, port.published
                )));
            }
            NetworkMode::Host if port.host_ip.is_some() => {
                return Err(invalid(format!(
                    "port {}/{protocol} cannot be published at one address: on network host a \
                     container listens where it likes",
                    port.target
                )));
            }
            NetworkMode::Host => {}
        }
        let published = match (network, port.published) {
            (NetworkMode::Host, 0) => port.target,
            (_, published) => published,
        };
        let same = |(protocol, number, ip): &(PortProtocol, u16, Option<IpAddr>)| {
            let overlap = host_ips_meet(*ip, port.host_ip);
            (*protocol, *number) == (port.protocol, published) && overlap
        };
        if published != 0 && taken.iter().any(same) {
            return Err(invalid(format!(
                "EndpointSpec: duplicate published ports provided: {published}/{protocol}"
            )));
        }
        taken.push((port.protocol, published, port.host_ip));
    }
    Ok(())
}

fn name(port: &PortConfig) -> Result<(), Refusal> {
    if port.name.len() > NAME_MAX || port.name.contains(char::is_control) {
        return Err(invalid(format!("invalid name of port {}", port.target)));
    }
    Ok(())
}
