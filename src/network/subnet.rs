//! Blocks of IPv4 addresses, and the choice of one for the bridge. Pure.

use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// The length of a bridge's prefix: 4,093 tasks, far beyond what a node runs, and sixteen
/// daemons fit into one block of the pool.
pub(super) const PREFIX_LEN: u8 = 20;

/// Where bridges come from. Neither is what Docker, Podman, Kubernetes or home routers take by
/// default.
pub(super) const POOL: [(Ipv4Addr, u8); 2] =
    [(Ipv4Addr::new(172, 30, 0, 0), 16), (Ipv4Addr::new(10, 210, 0, 0), 16)];

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Subnet {
    base: Ipv4Addr,
    prefix_len: u8,
}

impl Subnet {
    /// Returns the block of `prefix_len` that `address` is in.
    pub(super) fn containing(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        let base = Ipv4Addr::from_bits(address.to_bits() & bits_of(prefix_len));
        Self { base, prefix_len }
    }

    /// Returns the first address.
    pub(super) fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Returns the mask as an address.
    pub(super) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(bits_of(self.prefix_len))
    }

    /// Returns the prefix length.
    pub(super) fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Returns the bridge's own address, the first usable one.
    pub(super) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + 1)
    }

    /// Tells whether `address` is in the block.
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & bits_of(self.prefix_len) == self.base.to_bits()
    }

    /// Tells whether the blocks share an address.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// Returns the address a task gets: the first free one from `start` on, going round. Starting
    /// anywhere rather than at the least one keeps a freed address unused for as long as possible.
    pub(super) fn allocate(self, start: u32, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        // Without the base, the gateway and the broadcast address.
        let usable = (1_u64 << (32 - u32::from(self.prefix_len))).checked_sub(3)?;
        let usable = u32::try_from(usable).ok().filter(|usable| *usable > 0)?;
        (0..usable)
            .map(|step| {
                let offset = (u64::from(start) + u64::from(step)) % u64::from(usable);
                let offset = u32::try_from(offset).expect("a remainder of a u32 fits");
                Ipv4Addr::from_bits(self.base.to_bits() + 2 + offset)
            })
            .find(|address| !taken(*address))
    }
}

/// Returns a mask's bits.
fn bits_of(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

/// Picks a block that overlaps none in `used`, beginning the search at `start` within each block
/// of the pool so that daemons that start together rarely want the same one.
pub(super) fn choose(start: u32, used: &[Subnet]) -> Option<Subnet> {
    POOL.iter().find_map(|(base, prefix_len)| {
        let count = 1_u32 << (PREFIX_LEN - prefix_len);
        (0..count)
            .map(|step| {
                let index = (start % count + step) % count;
                let bits = base.to_bits() + (index << (32 - PREFIX_LEN));
                Subnet::containing(Ipv4Addr::from_bits(bits), PREFIX_LEN)
            })
            .find(|candidate| !used.iter().any(|other| other.overlaps(*candidate)))
    })
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a block of IPv4 addresses");
        let (base, prefix_len) = text.split_once('/').ok_or_else(invalid)?;
        let base = base.parse().map_err(|_| invalid())?;
        let prefix_len = prefix_len.parse().ok().filter(|len| *len <= 30).ok_or_else(invalid)?;
        Ok(Self::containing(base, prefix_len))
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn blocks_overlap_where_one_holds_the_other() {
        let subnet: Subnet = "172.30.16.0/20".parse().expect("valid");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 30, 16, 1));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 240, 0));
        assert!(subnet.overlaps("172.30.0.0/16".parse().expect("valid")));
        assert!(subnet.overlaps("172.30.31.0/24".parse().expect("valid")));
        assert!(!subnet.overlaps("172.30.32.0/24".parse().expect("valid")));
        assert!("172.30.0.0".parse::<Subnet>().is_err());
        assert!("172.30.0.0/33".parse::<Subnet>().is_err());
    }

    #[test]
    fn every_address_is_given_once_and_none_of_the_reserved() {
        let subnet: Subnet = "10.0.0.0/28".parse().expect("valid");
        let mut taken = BTreeSet::new();
        while let Some(address) = subnet.allocate(u32::MAX, |address| taken.contains(&address)) {
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 13);
        assert!(!taken.contains(&Ipv4Addr::new(10, 0, 0, 0)));
        assert!(!taken.contains(&Ipv4Addr::new(10, 0, 0, 1)));
        assert!(!taken.contains(&Ipv4Addr::new(10, 0, 0, 15)));
    }

    #[test]
    fn the_pool_avoids_what_is_used_and_ends() {
        let mut used = vec!["172.30.0.0/16".parse().expect("valid")];
        let chosen = choose(3, &used).expect("the second block is free");
        assert_eq!(chosen.to_string(), "10.210.48.0/20");
        while let Some(chosen) = choose(3, &used) {
            used.push(chosen);
        }
        assert_eq!(used.len(), 17);
    }
}
