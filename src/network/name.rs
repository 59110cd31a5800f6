//! Names of what the kernel holds for us. All are derived from ids, so that a daemon that lost
//! everything still finds what it made, and several daemons on a machine do not meet.

use crate::types::{NodeId, TaskId};
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, net::Ipv6Addr};

/// Returns the hash of `text`.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

/// Returns the bridge's name. An interface name has at most 15 characters.
pub(super) fn bridge(node: &NodeId) -> String {
    format!("{BRIDGE_PREFIX}{}", hex(&digest(node.as_str())[..4]))
}

/// What every name of [`bridge`] begins with.
pub(super) const BRIDGE_PREFIX: &str = "mdg";

/// Returns the name of the packet filter's table.
pub(super) fn table(node: &NodeId) -> String {
    format!("midge_{}", hex(&digest(node.as_str())[..4]))
}

/// Returns the bridge's hardware address, locally administered. Set, since a bridge otherwise
/// takes its ports' least one and so changes whenever a task comes or goes.
pub(super) fn bridge_mac(node: &NodeId) -> [u8; 6] {
    let digest = digest(node.as_str());
    [0x02, digest[0], digest[1], digest[2], digest[3], digest[4]]
}

/// Returns the bridge's block of version 6, of which the last 64 bits are zero: unique local
/// addresses (RFC 4193) whose global id is the node's hash, so that nodes do not collide.
pub(super) fn block6(node: &NodeId) -> Ipv6Addr {
    let digest = digest(node.as_str());
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&digest[..5]);
    Ipv6Addr::from(octets)
}

/// Returns the name of the node's end of a task's cable.
pub(super) fn host_link(task: &TaskId) -> String {
    format!("{HOST_LINK_PREFIX}{}", hex(&digest(task.as_str())[..5]))
}

/// What every name of [`host_link`] begins with.
pub(super) const HOST_LINK_PREFIX: &str = "mv";

/// Tells whether a link of that name is one of any midge's of this machine: a bridge or a cable.
pub(super) fn is_ours(link: &str) -> bool {
    let digits = |prefix| link.strip_prefix(prefix).unwrap_or_default();
    let is_hash =
        |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash(digits(BRIDGE_PREFIX), 8) || is_hash(digits(HOST_LINK_PREFIX), 10)
}

/// Returns a number that spreads evenly, to begin a search at.
pub(super) fn spread(text: &str) -> u32 {
    let digest = digest(text);
    u32::from_be_bytes([digest[8], digest[9], digest[10], digest[11]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_ours_are_told_from_others() {
        let ours = [bridge(&NodeId::from_bits(1)), host_link(&TaskId::from_bits(1))];
        assert!(ours.iter().all(|name| is_ours(name)), "{ours:?}");
        for name in ["", "eth0", "mv0", "mvlan0", "mdg", "mdg0", "mvoffice12345"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
