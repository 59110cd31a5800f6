//! `--publish`: what it says, and how an update changes the list.

use super::csv;
use crate::{
    cli::{
        exit::CliError,
        human::{number, text},
    },
    util::address::without_brackets,
};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// The ports of one `--publish`: several where it names ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Ports(pub(super) Vec<Value>);

/// Reads `--publish`: `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, each of the two a number or a
/// range, or `mode=host,target=80,published=8080,host_ip=127.0.0.1`.
pub(in crate::cli) fn parse_publish(text: &str) -> Result<Ports, String> {
    if text.contains('=') {
        long(text).map(|port| Ports(vec![port]))
    } else {
        short(text).map(Ports)
    }
}

fn long(text: &str) -> Result<Value, String> {
    let mut config = json!({"Protocol": "tcp", "HostIP": ""});
    let port = |what: &str, value: &str| {
        value.parse::<u16>().map_err(|error| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            format!("invalid {what} port ({value}): value must be an integer: {why}")
        })
    };
    for field in csv::fields(text)? {
        let lower = field.to_ascii_lowercase();
        let (key, value) = match lower.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key, value),
            _ => return Err(format!("invalid field: {field}")),
        };
        match key {
            "protocol" => match value {
                "tcp" | "udp" | "sctp" => config["Protocol"] = json!(value),
                _ => return Err(format!("invalid protocol value '{value}'")),
            },
            "mode" => match value {
                "host" | "ingress" => config["PublishMode"] = json!(value),
                _ => {
                    return Err(format!(
                        "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                    ));
                }
            },
            "target" => config["TargetPort"] = json!(port("target", value)?),
            "published" => config["PublishedPort"] = json!(port("published", value)?),
            "host_ip" => config["HostIP"] = json!(address(value)?),
            "name" => config["Name"] = json!(field[key.len() + 1..]),
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if number(&config, "/TargetPort") == 0 {
        return Err("missing mandatory field 'target'".to_owned());
    }
    let one_address = config["HostIP"] != "";
    if config["PublishMode"].is_null() {
        // Only a node of its own has an address of its own.
        config["PublishMode"] = json!(if one_address { "host" } else { "ingress" });
    }
    if one_address && config["PublishMode"] != "host" {
        return Err("host_ip can only be used with mode=host".to_owned());
    }
    Ok(config)
}

fn short(text: &str) -> Result<Vec<Value>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (before, target) = match ports.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, ports),
    };
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let targets = range(target).ok_or_else(|| format!("invalid containerPort: {target}"))?;
    let (ip, published) = match before {
        None => ("", ""),
        Some(before) => before.rsplit_once(':').unwrap_or(("", before)),
    };
    let ip = address(ip)?;
    let published = match published {
        "" => None,
        text => Some(range(text).ok_or_else(|| format!("invalid hostPort: {text}"))?),
    };
    let pairs: Vec<(u16, u16)> = match published {
        None => targets.map(|target| (0, target)).collect(),
        // Every port of the range leads to the one inside.
        Some(published) if targets.len() == 1 => {
            published.map(|published| (published, *targets.start())).collect()
        }
        Some(published) if published.len() == targets.len() => published.zip(targets).collect(),
        Some(_) => {
            return Err(format!("invalid ranges specified for container and host Ports: {ports}"));
        }
    };
    let mode = if ip.is_empty() { "ingress" } else { "host" };
    let port = |(published, target): (u16, u16)| {
        json!({
            "Protocol": protocol, "TargetPort": target, "PublishedPort": published,
            "PublishMode": mode, "HostIP": ip,
        })
    };
    Ok(pairs.into_iter().map(port).collect())
}

/// Reads `80` or `8000-8010`; 0 is no port.
fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first != 0 && first <= last).then_some(first..=last)
}

/// Reads an address, in brackets or not; nothing and every address of version 4 are empty.
fn address(text: &str) -> Result<String, String> {
    let bare = without_brackets(text);
    if bare.is_empty() {
        return Ok(String::new());
    }
    let address: IpAddr = bare.parse().map_err(|_| format!("invalid IP address: {text}"))?;
    Ok(if address == Ipv4Addr::UNSPECIFIED { String::new() } else { address.to_string() })
}

/// What `--publish-rm` names: the port inside, and what else was said of it.
struct Removed {
    target: std::ops::RangeInclusive<u16>,
    protocol: String,
    published: Option<u16>,
    mode: Option<String>,
}

fn removed(text: &str) -> Result<Removed, CliError> {
    let invalid = || {
        CliError::usage(format!("invalid port {text:?} of --publish-rm"))
            .hint("name the port inside the container, for example 80 or 53/udp")
    };
    if text.contains('=') {
        let port = long(text).map_err(CliError::usage)?;
        let target = u16::try_from(number(&port, "/TargetPort")).map_err(|_| invalid())?;
        let published = u16::try_from(number(&port, "/PublishedPort")).ok().filter(|p| *p != 0);
        let mode =
            text.contains("mode=").then(|| port["PublishMode"].as_str().unwrap_or("").into());
        let protocol = port["Protocol"].as_str().unwrap_or("tcp").to_owned();
        return Ok(Removed { target: target..=target, protocol, published, mode });
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published.parse().map_err(|_| invalid())?), target),
        None => (None, ports),
    };
    let target = range(target).ok_or_else(invalid)?;
    Ok(Removed { target, protocol: protocol.to_ascii_lowercase(), published, mode: None })
}

impl Removed {
    fn fits(&self, port: &Value) -> bool {
        let same = |pointer: &str, default: &str, wanted: &str| {
            let found = text(port, pointer);
            (if found.is_empty() { default } else { found }) == wanted
        };
        let published = number(port, "/PublishedPort");
        u16::try_from(number(port, "/TargetPort")).is_ok_and(|target| self.target.contains(&target))
            && same("/Protocol", "tcp", &self.protocol)
            && self.mode.as_ref().is_none_or(|mode| same("/PublishMode", "ingress", mode))
            && self.published.is_none_or(|wanted| u64::from(wanted) == published)
    }
}

/// Returns ports without those that `remove` names by their targets, and with those in `add` that
/// it lacks.
pub(in crate::cli) fn merge_ports(
    mut ports: Vec<Value>,
    add: &[Ports],
    remove: &[String],
) -> Result<Vec<Value>, CliError> {
    let remove: Vec<Removed> = remove.iter().map(|text| removed(text)).collect::<Result<_, _>>()?;
    ports.retain(|port| !remove.iter().any(|removed| removed.fits(port)));
    let key = |port: &Value| {
        let or = |pointer: &str, default: &str| {
            let found = text(port, pointer);
            (if found.is_empty() { default } else { found }).to_owned()
        };
        (
            number(port, "/TargetPort"),
            number(port, "/PublishedPort"),
            or("/Protocol", "tcp"),
            or("/PublishMode", "ingress"),
            or("/HostIP", ""),
        )
    };
    for port in add.iter().flat_map(|ports| &ports.0) {
        if !ports.iter().any(|there| key(there) == key(port)) {
            ports.push(port.clone());
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shows ports as `ADDRESS:PUBLISHED:TARGET/PROTOCOL@MODE`.
    fn read(written: &str) -> Result<Vec<String>, String> {
        let show = |port: &Value| {
            format!(
                "{}:{}:{}/{}@{}",
                text(port, "/HostIP"),
                number(port, "/PublishedPort"),
                number(port, "/TargetPort"),
                text(port, "/Protocol"),
                text(port, "/PublishMode"),
            )
        };
        parse_publish(written).map(|ports| ports.0.iter().map(show).collect())
    }

    #[test]
    fn ports_read() {
        for (written, expected) in [
            ("80", &[":0:80/tcp@ingress"] as &[&str]),
            ("8080:80/udp", &[":8080:80/udp@ingress"]),
            (
                "8000-8002:80-82",
                &[":8000:80/tcp@ingress", ":8001:81/tcp@ingress", ":8002:82/tcp@ingress"],
            ),
            ("8000-8001:80", &[":8000:80/tcp@ingress", ":8001:80/tcp@ingress"]),
            ("80-81", &[":0:80/tcp@ingress", ":0:81/tcp@ingress"]),
            ("127.0.0.1:8080:80", &["127.0.0.1:8080:80/tcp@host"]),
            ("127.0.0.1::80", &["127.0.0.1:0:80/tcp@host"]),
            ("[::1]:8080:80", &["::1:8080:80/tcp@host"]),
            ("[::]:8080:80", &[":::8080:80/tcp@host"]),
            ("0.0.0.0:8080:80", &[":8080:80/tcp@ingress"]),
            ("mode=host,target=80", &[":0:80/tcp@host"]),
            ("Target=80,published=8080,Protocol=UDP,mode=ingress", &[":8080:80/udp@ingress"]),
            ("target=80,published=8080,host_ip=10.0.0.1", &["10.0.0.1:8080:80/tcp@host"]),
        ] {
            assert_eq!(read(written).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn ports_are_refused_in_dockers_words() {
        for (written, message) in [
            ("x", "invalid containerPort: x"),
            ("99999", "invalid containerPort: 99999"),
            ("99999:80", "invalid hostPort: 99999"),
            ("80:80/foo", "invalid proto: foo"),
            ("80:", "no port specified: 80:<empty>"),
            ("82-80:80", "invalid hostPort: 82-80"),
            ("0:0", "invalid containerPort: 0"),
            ("nope:80:80", "invalid IP address: nope"),
            (
                "8000-8002:80-81",
                "invalid ranges specified for container and host Ports: 8000-8002:80-81",
            ),
            ("mode=host", "missing mandatory field 'target'"),
            ("published=1", "missing mandatory field 'target'"),
            (
                "mode=x,target=80",
                "invalid publish mode value (x): must be either 'ingress' or 'host'",
            ),
            ("target=80,protocol=x", "invalid protocol value 'x'"),
            ("target=80,x", "invalid field: x"),
            ("target=80,foo=1", "invalid field key: foo"),
            ("target=a", "invalid target port (a): value must be an integer: invalid syntax"),
            (
                "target=99999",
                "invalid target port (99999): value must be an integer: value out of range",
            ),
            ("target=80,mode=ingress,host_ip=10.0.0.1", "host_ip can only be used with mode=host"),
        ] {
            assert_eq!(read(written), Err(message.to_owned()), "{written}");
        }
    }

    #[test]
    fn ports_go_by_their_targets() {
        let parse = |written: &str| parse_publish(written).unwrap().0;
        let old = [
            parse("mode=host,target=80,published=8080"),
            parse("127.0.0.1:8081:80"),
            parse("53:53/udp"),
            parse("90-92"),
        ]
        .concat();
        let left = |remove: &[&str]| {
            let remove: Vec<String> = remove.iter().map(|text| (*text).to_owned()).collect();
            let merged = merge_ports(old.clone(), &[], &remove).unwrap();
            merged.iter().map(|port| number(port, "/TargetPort")).collect::<Vec<_>>()
        };
        assert_eq!(left(&["80"]), [53, 90, 91, 92]);
        assert_eq!(left(&["8081:80"]), [80, 53, 90, 91, 92]);
        assert_eq!(left(&["53", "91-95"]), [80, 80, 53, 90]);
        assert_eq!(left(&["53/UDP", "90-92"]), [80, 80]);
        assert_eq!(left(&["target=80,mode=ingress"]).len(), 6);
        assert_eq!(left(&["target=80,published=8080"]), [80, 53, 90, 91, 92]);
        assert!(merge_ports(Vec::new(), &[], &["x".to_owned()]).is_err());
        let add =
            [parse_publish("53:53/udp").unwrap(), parse_publish("127.0.0.1:8080:80").unwrap()];
        let merged = merge_ports(old.clone(), &add, &[]).unwrap();
        assert_eq!(merged.len(), old.len() + 1, "what is there is not added again");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(target=|mode=host,|host_ip=|[0-9:/=,.a-z\\[\\]-]){0,12}") {
            parse_publish(&text).ok();
            removed(&text).ok();
        }

        #[test]
        fn ranges_pair_up(first in 1_u16..60_000, inside in 1_u16..60_000, more in 0_u16..100) {
            let written = format!("{first}-{}:{inside}-{}", first + more, inside + more);
            let ports = parse_publish(&written).unwrap().0;
            prop_assert_eq!(ports.len(), usize::from(more) + 1);
            for port in ports {
                let offset = number(&port, "/PublishedPort") - u64::from(first);
                prop_assert_eq!(number(&port, "/TargetPort"), u64::from(inside) + offset);
            }
        }
    }
}
