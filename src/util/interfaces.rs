//! The machine's network interfaces, from what the kernel shows in `/proc`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An address that the kernel replaces within days, for privacy; `IFA_F_TEMPORARY`.
const TEMPORARY: u8 = 0x01;

/// Returns the names of interfaces with their addresses, those of loopback, of one link and for a few
/// days left out.
#[must_use]
pub fn interfaces() -> Vec<(String, IpAddr)> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let six = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut found = v4(&routes, &trie);
    found.extend(v6(&six));
    found
}

/// Pairs each local address with the interface whose directly reached network holds it.
fn v4(routes: &str, trie: &str) -> Vec<(String, IpAddr)> {
    let mut networks = Vec::new();
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, gateway, _, _, _, _, mask, ..] = fields[..] else { continue };
        // The kernel prints these as they lie in its memory: in network byte order.
        let number = |text: &str| {
            u32::from_str_radix(text, 16).ok().map(|bits| u32::from_be_bytes(bits.to_ne_bytes()))
        };
        let (Some(destination), Some(0), Some(mask)) =
            (number(destination), number(gateway), number(mask))
        else {
            continue;
        };
        if mask != 0 {
            networks.push((name.to_owned(), destination, mask));
        }
    }
    networks.sort_by_key(|(_, _, mask)| std::cmp::Reverse(*mask));
    let mut found = BTreeMap::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
            && !address.is_loopback()
        {
            let bits = address.to_bits();
            let home = networks.iter().find(|(_, network, mask)| bits & mask == *network);
            if let Some((name, _, _)) = home {
                found.insert(address, name.clone());
            }
        }
    }
    found.into_iter().map(|(address, name)| (name, IpAddr::V4(address))).collect()
}

fn v6(text: &str) -> Vec<(String, IpAddr)> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [address, _, _, scope, flags, name] = fields[..] else { return None };
            let address = Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?);
            let stays = u8::from_str_radix(flags, 16).ok()? & TEMPORARY == 0;
            (scope == "00" && stays).then(|| (name.to_owned(), IpAddr::V6(address)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_the_interface_whose_network_they_are_in() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                      eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n\
                      eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let trie = "  |-- 192.168.1.7\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n";
        let expected = ("eth0".to_owned(), "192.168.1.7".parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(v4(routes, trie), [expected]);
        }
        let six = "fd000000000000000000000000000001 02 40 00 80 eth0\n\
                   fd00000000000000abcdef0123456789 02 40 00 01 eth0\n\
                   fe800000000000000000000000000001 02 40 20 80 eth0\n";
        assert_eq!(v6(six), [("eth0".to_owned(), "fd00::1".parse().unwrap())]);
    }
}
