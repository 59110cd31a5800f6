//! Placement constraints: `node.labels.zone==a`, `node.role!=manager`.

use super::Node;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// Whether the value must or must not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// One constraint. Kept as it was written, with the spaces around both sides, since it is by its text
/// that clients take one away; the spaces mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Constraint {
    /// What is compared (`node.labels.zone`).
    pub key: String,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: String,
}

/// An expression that is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    /// No `==` or `!=`.
    #[error("constraint expected one operator from ==, !=: {0:?}")]
    NoOperator(String),
    /// A key that nothing ever matches. Swarm accepts it and leaves the tasks pending for ever.
    #[error(
        "constraint key {0:?} is unknown; one of node.id, node.hostname, node.ip, node.role, \
         node.platform.os, node.platform.arch, node.labels.NAME, engine.labels.NAME is expected"
    )]
    UnknownKey(String),
    /// A value that the key can never have.
    #[error("constraint value {value:?} is invalid for {key}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

impl Constraint {
    /// Parses an expression.
    ///
    /// # Errors
    ///
    /// It has no operator, an unknown key, or a value that the key can never have.
    pub fn parse(text: &str) -> Result<Self, InvalidConstraint> {
        let (operator, at) = match (text.find("=="), text.find("!=")) {
            (Some(equal), Some(not)) if not < equal => (Operator::NotEqual, not),
            (Some(equal), _) => (Operator::Equal, equal),
            (None, Some(not)) => (Operator::NotEqual, not),
            (None, None) => return Err(InvalidConstraint::NoOperator(text.to_owned())),
        };
        let (key, value) = (text[..at].to_owned(), text[at + 2..].to_owned());
        let constraint = Self { key, operator, value };
        constraint.check()?;
        Ok(constraint)
    }

    /// Returns key and value without the spaces around them.
    fn sides(&self) -> (&str, &str) {
        (self.key.trim(), self.value.trim())
    }

    fn check(&self) -> Result<(), InvalidConstraint> {
        let (key, value) = self.sides();
        let invalid =
            || InvalidConstraint::InvalidValue { key: key.to_owned(), value: value.to_owned() };
        match key.to_ascii_lowercase().as_str() {
            "node.id" | "node.hostname" | "node.platform.os" | "node.platform.arch" => {
                if value.is_empty() { Err(invalid()) } else { Ok(()) }
            }
            "node.role" => match value.to_ascii_lowercase().as_str() {
                "manager" | "worker" => Ok(()),
                _ => Err(invalid()),
            },
            "node.ip" => parse_network(value).map(|_| ()).ok_or_else(invalid),
            _ if label_name(key, "node.labels.").is_some() => Ok(()),
            _ if label_name(key, "engine.labels.").is_some() => Ok(()),
            _ => Err(InvalidConstraint::UnknownKey(key.to_owned())),
        }
    }

    /// Tells whether the node meets the constraint. A missing label equals the empty text.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let equal = self.value_equals(node);
        match self.operator {
            Operator::Equal => equal,
            Operator::NotEqual => !equal,
        }
    }

    fn value_equals(&self, node: &Node) -> bool {
        let (key, value) = self.sides();
        let is = |actual: &str| actual.eq_ignore_ascii_case(value);
        let platform = &node.description.platform;
        match key.to_ascii_lowercase().as_str() {
            "node.id" => is(node.id.as_str()),
            "node.hostname" => is(&node.description.hostname),
            "node.role" => is(&node.role.to_string()),
            "node.platform.os" => is(&platform.os),
            "node.platform.arch" => {
                let normal =
                    |arch: &str| super::Platform::normalized("linux", arch, "").architecture;
                normal(&platform.architecture) == normal(value)
            }
            "node.ip" => {
                let Ok(address) = node.status.address.parse::<IpAddr>() else { return false };
                parse_network(value).is_some_and(|network| contains(network, address))
            }
            _ => {
                let labels = [
                    ("node.labels.", &node.spec.labels),
                    ("engine.labels.", &node.description.engine.labels),
                ];
                labels.iter().any(|(prefix, labels)| {
                    label_name(key, prefix)
                        .is_some_and(|name| is(labels.get(name).map_or("", String::as_str)))
                })
            }
        }
    }
}

/// Returns the label that `key` names under `prefix`, whose own case does not matter.
#[must_use]
pub fn label_name<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    let head = key.get(..prefix.len())?;
    let name = &key[prefix.len()..];
    (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then_some(name)
}

/// Returns address and prefix length of `10.0.0.1` or `10.0.0.0/8`.
fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(full);
    (length <= full).then_some((address, length))
}

fn contains((network, length): (IpAddr, u32), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            let differing = n.to_bits() ^ a.to_bits();
            length == 0 || differing >> (32 - length) == 0
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            let differing = n.to_bits() ^ a.to_bits();
            length == 0 || differing >> (128 - length) == 0
        }
        _ => false,
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{}{operator}{}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_parse_and_print() {
        // `service update --constraint-rm` of any client takes away what is written the same.
        let texts = ["node.role==manager", "node.labels.zone!=a", "engine.labels.os==x y"];
        for text in texts.into_iter().chain([" node.id == x ", "node.role ==worker"]) {
            assert_eq!(Constraint::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_never_matches_is_refused() {
        for text in ["node.role", "foo==bar", "node.labels.==a", "node.ip==nope", "node.role==x"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_contain_addresses() {
        let inside = |network: &str, address: &str| {
            contains(parse_network(network).unwrap(), address.parse().unwrap())
        };
        assert!(inside("10.0.0.0/8", "10.9.9.9"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4"));
        assert!(inside("10.0.0.1", "10.0.0.1"));
        assert!(inside("fd00::/8", "fd12::1"));
        assert!(!inside("fd00::/8", "10.0.0.1"));
        assert!(parse_network("10.0.0.0/33").is_none());
    }
}
