//! What a machine's network is like, for whoever looks before anything is made: reads, and changes
//! nothing.

use super::{
    nft::{self, Entry},
    state::Paths,
    subnet::{self, POOL, Subnet},
};
use std::{io, net::Ipv4Addr, path::Path};

/// How every bridge of midge's begins.
pub const BRIDGE_PREFIX: &str = "mdg";

/// A block of IPv4 addresses: the first, and the length of the prefix.
pub type Block = (Ipv4Addr, u8);

/// Returns the blocks that bridges get theirs of.
#[must_use]
pub fn pool() -> [Block; 2] {
    POOL
}

/// Tells whether two blocks share an address.
#[must_use]
pub fn overlap(one: Block, other: Block) -> bool {
    Subnet::containing(one.0, one.1).overlaps(Subnet::containing(other.0, other.1))
}

/// Tells whether a bridge finds a block that overlaps none in `used`.
#[must_use]
pub fn has_free_block(used: &[Block]) -> bool {
    let used: Vec<Subnet> =
        used.iter().map(|(address, len)| Subnet::containing(*address, *len)).collect();
    subnet::choose(0, &used).is_some()
}

/// Returns the block that the bridge of the node with this data directory has; none where it was
/// not chosen yet.
///
/// # Errors
///
/// What the daemon wrote cannot be read.
pub fn bridge_block(data_dir: &Path) -> io::Result<Option<Block>> {
    let paths = Paths { data_dir: data_dir.to_owned(), run_dir: data_dir.to_owned() };
    let subnet = paths.load_subnet().map_err(io::Error::other)?;
    Ok(subnet.map(|subnet| (subnet.base(), subnet.prefix_len())))
}

/// A chain of the packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook that calls it, in the kernel's numbers (1 input, 2 forward), for IP only.
    pub hook: Option<u32>,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
}

/// What others filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The chains in tables that are not midge's.
    pub chains: Vec<FilterChain>,
    /// Whether a rule there speaks of midge's addresses or bridges, and does not drop.
    pub lets_midge_through: bool,
}

/// Asks the kernel for the packet filter of this thread's network namespace.
///
/// # Errors
///
/// Only root may ask, or the kernel has no nf_tables.
pub fn filter() -> io::Result<Filter> {
    let mut filter = Filter::default();
    for entry in nft::chains()? {
        let Entry { table, chain, hook, drops, .. } = entry;
        if !table.starts_with("midge_") {
            filter.chains.push(FilterChain { table, name: chain, hook, drops });
        }
    }
    let ours = |value: &[u8]| {
        value.starts_with(BRIDGE_PREFIX.as_bytes())
            // Of four bytes, or of as many as the prefix has.
            || POOL.iter().any(|(base, _)| value.len() <= 4 && value.starts_with(&base.octets()[..2]))
    };
    filter.lets_midge_through = nft::rules()?.iter().any(|rule| {
        !rule.table.starts_with("midge_") && rule.goes_on && rule.compared.iter().any(|v| ours(v))
    });
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::{super::name, *};
    use crate::types::NodeId;

    #[test]
    fn blocks_are_compared_as_the_daemon_does() {
        let block = |a, b, len| (Ipv4Addr::new(a, b, 0, 0), len);
        assert!(overlap(block(172, 30, 20), block(172, 16, 12)));
        assert!(!overlap(block(172, 30, 20), block(172, 31, 16)));
        assert!(has_free_block(&[block(172, 30, 16)]));
        assert!(!has_free_block(&[block(172, 16, 12), block(10, 0, 8)]));
        assert!(name::bridge(&NodeId::from_bits(1)).starts_with(BRIDGE_PREFIX));
        assert!(name::table(&NodeId::from_bits(1)).starts_with("midge_"));
    }
}
