//! What a machine's network is like, for whoever looks before anything is made: reads, and changes
//! nothing.

use super::{
    name, nft,
    state::Paths,
    subnet::{self, POOL, Subnet},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::Path,
};

/// How every bridge of midge's begins.
pub const BRIDGE_PREFIX: &str = name::BRIDGE_PREFIX;

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
    /// The family of its table, as `nft` writes it: `ip`, `ip6`, `inet`; empty of any other.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook that calls it, in the kernel's numbers (1 input, 2 forward), for IP only.
    pub hook: Option<u32>,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
    /// Whether midge's packets get through it, once [`judge`] has said so.
    pub lets_midge_through: bool,
}

/// A rule of the packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// The family of its table, as a chain's.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The chain that it hands packets on to.
    pub calls: Option<String>,
    /// Whether it speaks of midge's addresses or bridges, and does not drop.
    pub lets_midge_through: bool,
}

/// Asks the kernel for the packet filter of this thread's network namespace, without midge's own
/// tables.
///
/// # Errors
///
/// Only root may ask, or the kernel has no nf_tables.
pub fn filter() -> io::Result<Vec<FilterChain>> {
    let chains = nft::chains()?.into_iter().map(|entry| FilterChain {
        family: family(entry.family),
        table: entry.table,
        name: entry.chain,
        hook: entry.hook,
        drops: entry.drops,
        lets_midge_through: false,
    });
    let ours = |value: &[u8]| {
        value.starts_with(BRIDGE_PREFIX.as_bytes())
            // Of four bytes, or of as many as the prefix has.
            || POOL.iter().any(|(base, _)| value.len() <= 4 && value.starts_with(&base.octets()[..2]))
    };
    let rules = nft::rules()?.into_iter().map(|rule| FilterRule {
        family: family(rule.family),
        lets_midge_through: rule.goes_on && rule.compared.iter().any(|value| ours(value)),
        table: rule.table,
        chain: rule.chain,
        calls: rule.calls,
    });
    let mut chains: Vec<FilterChain> =
        chains.filter(|chain| !chain.table.starts_with("midge_")).collect();
    judge(&mut chains, &rules.collect::<Vec<_>>());
    Ok(chains)
}

fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => "",
    }
}

/// Says of each chain that the kernel calls by itself whether midge's packets get through it. A rule
/// that accepts ends only what that chain does to a packet: the other such chains go on, and one of
/// them that drops it has the last word. Chains that no plain rule calls may be any one's, since
/// those that maps of verdicts call are not told.
pub fn judge(chains: &mut [FilterChain], rules: &[FilterRule]) {
    let key = |family, table: &str, chain: &str| (family, table.to_owned(), chain.to_owned());
    let mut calls: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for rule in rules {
        let called = calls.entry(key(rule.family, &rule.table, &rule.chain)).or_default();
        called.extend(rule.calls.as_deref());
    }
    let reached = |from: &FilterChain| {
        let mut found = BTreeSet::from([from.name.clone()]);
        let mut next = vec![from.name.clone()];
        while let Some(chain) = next.pop() {
            let called = calls.get(&key(from.family, &from.table, &chain)).into_iter().flatten();
            for name in called {
                if found.insert((*name).to_owned()) {
                    next.push((*name).to_owned());
                }
            }
        }
        found
    };
    let same =
        |one: &FilterChain, rule: &FilterRule| one.family == rule.family && one.table == rule.table;
    let called: Vec<Option<BTreeSet<String>>> =
        chains.iter().map(|chain| chain.hook.map(|_| reached(chain))).collect();
    let through = |index: usize, rule: &FilterRule| {
        let own = called[index].as_ref().is_some_and(|own| own.contains(&rule.chain));
        let others = || {
            let of_table = chains.iter().zip(&called).filter(|(chain, _)| same(chain, rule));
            of_table.filter_map(|(_, names)| names.as_ref()).any(|it| it.contains(&rule.chain))
        };
        same(&chains[index], rule) && (own || !others())
    };
    let ours: Vec<&FilterRule> = rules.iter().filter(|rule| rule.lets_midge_through).collect();
    let judged: Vec<bool> = (0..chains.len())
        .map(|index| called[index].is_some() && ours.iter().any(|rule| through(index, rule)))
        .collect();
    for (chain, judged) in chains.iter_mut().zip(judged) {
        chain.lets_midge_through = judged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn an_accept_counts_in_the_chain_that_drops() {
        let chain = |family, table: &str, name: &str, hook| FilterChain {
            family,
            table: table.to_owned(),
            name: name.to_owned(),
            hook,
            drops: hook.is_some(),
            lets_midge_through: false,
        };
        let rule = |family, table: &str, chain: &str, calls: Option<&str>| FilterRule {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            calls: calls.map(str::to_owned),
            lets_midge_through: calls.is_none(),
        };
        let let_through = |rules: &[FilterRule]| {
            let mut chains = [
                chain("ip", "filter", "FORWARD", Some(2)),
                chain("ip", "filter", "DOCKER-USER", None),
                chain("inet", "filter", "forward", Some(2)),
                chain("inet", "filter", "input", Some(1)),
                chain("inet", "filter", "mapped", None),
            ];
            judge(&mut chains, rules);
            let through = chains.iter().filter(|chain| chain.lets_midge_through);
            through.map(|it| format!("{} {}", it.family, it.name)).collect::<Vec<_>>().join(", ")
        };
        let docker = rule("ip", "filter", "FORWARD", Some("DOCKER-USER"));
        let in_docker = [docker, rule("ip", "filter", "DOCKER-USER", None)];
        assert_eq!(let_through(&in_docker), "ip FORWARD");
        assert_eq!(let_through(&[rule("inet", "filter", "input", None)]), "inet input");
        assert_eq!(let_through(&[rule("inet", "filter", "forward", None)]), "inet forward");
        // It is not known who calls it.
        let mapped = [rule("inet", "filter", "mapped", None)];
        assert_eq!(let_through(&mapped), "inet forward, inet input");
        let around = [("a", "b"), ("b", "a"), ("input", "a")]
            .map(|(from, to)| rule("inet", "filter", from, Some(to)));
        assert_eq!(let_through(&around), "");
    }
}
