//! What the table holds.
//!
//! A table can accept nothing that another table drops: where Docker or ufw set the forward
//! chain's policy to drop, their rules must let the bridge through.

use super::{
    super::error::NetworkError,
    expr::{Rule, Side, family_of},
    message::{Attributes, Batch, Kind, Refused},
};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
const LOOPBACK_MASK: IpAddr = IpAddr::V4(Ipv4Addr::new(255, 0, 0, 0));
const LOOPBACK_LINK: &str = "lo";

/// The hooks of the kernel's network stack.
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
pub(super) const HOOK_POSTROUTING: u32 = 4;

/// The priorities of the kernel's own order: before connection tracking, destination rewriting,
/// a little before other filters, source rewriting.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_FILTER: i32 = -10;
const PRIORITY_SOURCE: i32 = 100;

/// Packets that no rule is about pass.
pub(super) const POLICY_ACCEPT: u32 = 1;

/// The chain of published ports.
const PORTS: &str = "ports";

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Forward {
    /// The IP protocol's number.
    pub(in super::super) protocol: u8,
    /// The node's address it is open at; none is every one.
    pub(in super::super) at: Option<IpAddr>,
    /// The port on the node.
    pub(in super::super) published: u16,
    /// The task's address.
    pub(in super::super) address: IpAddr,
    /// The port inside.
    pub(in super::super) target: u16,
}

/// The table.
#[derive(Debug)]
pub(in super::super) struct Table<'a> {
    /// Its name.
    pub(in super::super) name: &'a str,
    /// The bridge.
    pub(in super::super) bridge: &'a str,
    /// The first of the bridge's addresses; says which version the table is of.
    pub(in super::super) base: IpAddr,
    /// The mask of the bridge's addresses.
    pub(in super::super) mask: IpAddr,
    /// The published ports.
    pub(in super::super) forwards: Vec<Forward>,
}

impl Table<'_> {
    /// Replaces what the kernel holds of the table.
    pub(in super::super) fn install(&self) -> Result<(), NetworkError> {
        self.batch().commit().map_err(refused)
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::new(family_of(self.base));
        replace(&mut batch, self.name);
        batch.push(Kind::NewTable, name(self.name), "its table");
        self.push_chains(&mut batch);
        self.push_guard(&mut batch);
        self.push_source_rules(&mut batch);
        for chain in ["prerouting", "output"] {
            self.rule(
                &mut batch,
                chain,
                &Rule::default().for_this_node(self.base.is_ipv6()).jump(PORTS),
            );
        }
        for forward in &self.forwards {
            let rule = Rule::default().port(forward.protocol, forward.published);
            let rule = forward.at.into_iter().fold(rule, Rule::sent_to);
            let rule = rule.forward_to(forward.address, forward.target);
            self.rule(&mut batch, PORTS, &rule);
        }
        // The last message carries the answer; the accepting rules come last for no other reason.
        self.rule(&mut batch, "forward", &Rule::default().came_by(self.bridge).accept());
        self.rule(&mut batch, "forward", &Rule::default().leaves_by(self.bridge).accept());
        batch
    }

    /// Removes the table of that name, where there is one, among those of an address's version.
    pub(in super::super) fn remove(table: &str, like: IpAddr) -> Result<(), NetworkError> {
        let mut batch = Batch::new(family_of(like));
        replace(&mut batch, table);
        batch.commit().map_err(refused)
    }

    fn push_chains(&self, batch: &mut Batch) {
        let ports = name(self.name).text(3, PORTS);
        batch.push(Kind::NewChain, ports, "its chain of ports");
        for (chain, kind, hook, priority) in [
            ("guard", "filter", HOOK_PREROUTING, PRIORITY_RAW),
            ("prerouting", "nat", HOOK_PREROUTING, PRIORITY_DESTINATION),
            ("output", "nat", HOOK_OUTPUT, PRIORITY_DESTINATION),
            ("forward", "filter", HOOK_FORWARD, PRIORITY_FILTER),
            ("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SOURCE),
        ] {
            let hook = Attributes::default().number(1, hook).bytes(2, &priority.to_be_bytes());
            let body = name(self.name)
                .text(3, chain)
                .nested(4, &hook)
                .number(5, POLICY_ACCEPT)
                .text(7, kind);
            let module = if kind == "nat" { ", needs nft_chain_nat" } else { "" };
            batch.push(Kind::NewChain, body, format!("its {chain} chain{module}"));
        }
    }

    fn push_guard(&self, batch: &mut Batch) {
        // Another machine that has a route to the bridge's addresses by this node would reach every
        // port of every task, also those that are not published. What was sent to a published
        // port, and answers to what a task asked for, still bear the node's address here. What
        // the node sends to its own address on the bridge comes in by loopback.
        let from_elsewhere = Rule::default()
            .came_not_by(self.bridge)
            .came_not_by(LOOPBACK_LINK)
            .address(Side::Destination, self.base, self.mask)
            .drop();
        self.rule(batch, "guard", &from_elsewhere);
        if self.base.is_ipv4() {
            // The bridge routes loopback addresses so that 127.0.0.1 reaches published ports;
            // without this rule a task could reach what the node itself serves on 127.0.0.1.
            let to_loopback = Rule::default()
                .came_by(self.bridge)
                .address(Side::Destination, LOOPBACK, LOOPBACK_MASK)
                .drop();
            self.rule(batch, "guard", &to_loopback);
        }
    }

    fn push_source_rules(&self, batch: &mut Batch) {
        let from_task = || Rule::default().address(Side::Source, self.base, self.mask);
        let outbound = from_task().leaves_not_by(self.bridge).masquerade();
        // A task that uses a port published by its neighbour or itself: the answer must come
        // back through the node, or it would come from an address that was never asked.
        let between_tasks = from_task().leaves_by(self.bridge).was_forwarded().masquerade();
        for rule in [outbound, between_tasks] {
            self.rule(batch, "postrouting", &rule);
        }
        if self.base.is_ipv4() {
            let from_loopback = Rule::default()
                .address(Side::Source, LOOPBACK, LOOPBACK_MASK)
                .leaves_by(self.bridge)
                .masquerade();
            self.rule(batch, "postrouting", &from_loopback);
        }
    }

    fn rule(&self, batch: &mut Batch, chain: &str, rule: &Rule) {
        let body = name(self.name).text(2, chain).nested(4, rule.attributes());
        batch.push(Kind::NewRule, body, format!("a rule of its {chain} chain{}", rule.needs()));
    }
}

/// Empties the table by removing it; making it first keeps that from failing where there is none.
pub(super) fn replace(batch: &mut Batch, table: &str) {
    batch.push(Kind::NewTable, name(table), "its table");
    batch.push(Kind::DeleteTable, name(table), "its former table");
}

pub(super) fn name(table: &str) -> Attributes {
    Attributes::default().text(1, table)
}

pub(super) fn refused(refused: Refused) -> NetworkError {
    let missing = [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT];
    let is_missing =
        missing.iter().any(|errno| refused.source.raw_os_error() == Some(errno.raw_os_error()));
    if is_missing && !refused.what.contains("needs") {
        return NetworkError::Unsupported {
            what: "publish ports and to let tasks reach other networks".into(),
            module: "nf_tables",
        };
    }
    NetworkError::Filter { what: refused.what, source: refused.source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's default of `net.core.wmem_max`.
    const SEND_BUFFER: usize = 212_992;

    #[test]
    fn all_ports_fit_the_send_buffer() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().expect("an address");
            let forward =
                Forward { protocol: 6, at: Some(address), published: 80, address, target: 80 };
            let table = Table {
                name: "midge_01234567",
                bridge: "mdg01234567",
                base: address,
                mask: address,
                forwards: vec![forward; super::super::super::worker::PORTS_MAX],
            };
            let len = table.batch().encode().len();
            assert!(len < SEND_BUFFER, "{address}: {len}");
        }
    }
}
