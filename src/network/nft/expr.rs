//! The expressions of rules. A rule is a list of them: each loads into, computes on or compares
//! a register, and the first that does not hold ends the rule.

use super::message::Attributes;
use std::net::IpAddr;

/// The registers used. 0 holds the verdict.
const REGISTER: u32 = 1;
const PORT_REGISTER: u32 = 2;

const VERDICT_DROP: i32 = 0;
const VERDICT_ACCEPT: i32 = 1;
const VERDICT_JUMP: i32 = -3;

/// What the kernel notes of connections.
const SOURCE_REWRITTEN: u32 = 1 << 4;
const DESTINATION_REWRITTEN: u32 = 1 << 5;

/// The room of an interface name, zeros included.
const NAME_LEN: usize = 16;

/// The expressions of a rule, with the kernel modules they come from.
#[derive(Debug, Default, Clone)]
pub(super) struct Rule {
    list: Attributes,
    modules: Vec<&'static str>,
}

/// Where an address stands in the IPv4 header.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Rule {
    /// Returns the encoded list of expressions.
    pub(super) fn attributes(&self) -> &Attributes {
        &self.list
    }

    /// Names the kernel modules the rule needs beyond the core, as the end of its description.
    pub(super) fn needs(&self) -> String {
        match self.modules.join(", ") {
            none if none.is_empty() => none,
            modules => format!(", needs {modules}"),
        }
    }

    fn push(mut self, name: &'static str, data: &Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nested(2, data);
        self.list = self.list.nested(1, &expression);
        self
    }

    fn with_module(mut self, module: &'static str) -> Self {
        self.modules.push(module);
        self
    }

    fn compare(self, is_equal: bool, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(1, value);
        let data = Attributes::default()
            .number(1, REGISTER)
            .number(2, u32::from(!is_equal))
            .nested(3, &value);
        self.push("cmp", &data)
    }

    fn mask(self, mask: &[u8]) -> Self {
        let len = u32::try_from(mask.len()).expect("a mask has at most 16 bytes");
        let data = Attributes::default()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, len)
            .nested(4, &Attributes::default().bytes(1, mask))
            .nested(5, &Attributes::default().bytes(1, &vec![0; mask.len()]));
        self.push("bitwise", &data)
    }

    fn meta(self, key: u32) -> Self {
        self.push("meta", &Attributes::default().number(2, key).number(1, REGISTER))
    }

    fn payload(self, base: u32, offset: u32, len: u32) -> Self {
        let data = Attributes::default()
            .number(1, REGISTER)
            .number(2, base)
            .number(3, offset)
            .number(4, len);
        self.push("payload", &data)
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(1, value);
        self.push("immediate", &Attributes::default().number(1, register).nested(2, &value))
    }

    /// Holds for packets whose address is in the block.
    pub(super) fn address(self, side: Side, base: IpAddr, mask: IpAddr) -> Self {
        self.load_address(side, base).mask(&octets(mask)).compare(true, &octets(base))
    }

    /// Holds for packets to one address.
    pub(super) fn sent_to(self, address: IpAddr) -> Self {
        self.load_address(Side::Destination, address).compare(true, &octets(address))
    }

    fn load_address(self, side: Side, like: IpAddr) -> Self {
        let (offset, len) = match (side, like) {
            (Side::Source, IpAddr::V4(_)) => (12, 4),
            (Side::Destination, IpAddr::V4(_)) => (16, 4),
            (Side::Source, IpAddr::V6(_)) => (8, 16),
            (Side::Destination, IpAddr::V6(_)) => (24, 16),
        };
        self.payload(1, offset, len)
    }

    /// Holds for packets that came in by the interface.
    pub(super) fn came_by(self, interface: &str) -> Self {
        self.meta(6).compare(true, &padded(interface))
    }

    /// Holds for packets that came in by any other interface.
    pub(super) fn came_not_by(self, interface: &str) -> Self {
        self.meta(6).compare(false, &padded(interface))
    }

    /// Holds for packets that leave by the interface.
    pub(super) fn leaves_by(self, interface: &str) -> Self {
        self.meta(7).compare(true, &padded(interface))
    }

    /// Holds for packets that leave by any other interface.
    pub(super) fn leaves_not_by(self, interface: &str) -> Self {
        self.meta(7).compare(false, &padded(interface))
    }

    /// Holds for packets to one of the node's own addresses, whichever they are now.
    pub(super) fn for_this_node(self, is_v6: bool) -> Self {
        self.of_this_node(Side::Destination, is_v6)
    }

    /// Holds for packets from one of the node's own addresses, whichever they are now.
    pub(super) fn sent_by_this_node(self, is_v6: bool) -> Self {
        self.of_this_node(Side::Source, is_v6)
    }

    fn of_this_node(self, side: Side, is_v6: bool) -> Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        let by = match side {
            Side::Source => 1,
            Side::Destination => 2,
        };
        let data =
            Attributes::default().number(1, REGISTER).number(2, RESULT_ADDRESS_TYPE).number(3, by);
        let module = if is_v6 { "nft_fib_ipv6" } else { "nft_fib_ipv4" };
        self.with_module(module).push("fib", &data).compare(true, &LOCAL.to_ne_bytes())
    }

    /// Holds for packets of connections whose destination was rewritten.
    pub(super) fn was_forwarded(self) -> Self {
        self.connection_status().mask(&DESTINATION_REWRITTEN.to_ne_bytes()).compare(false, &[0; 4])
    }

    /// Holds for packets of connections of which neither end was rewritten.
    pub(super) fn was_not_rewritten(self) -> Self {
        const REWRITTEN: u32 = SOURCE_REWRITTEN | DESTINATION_REWRITTEN;
        self.connection_status().mask(&REWRITTEN.to_ne_bytes()).compare(true, &[0; 4])
    }

    fn connection_status(self) -> Self {
        const KEY_STATUS: u32 = 2;
        self.with_module("nft_ct")
            .push("ct", &Attributes::default().number(1, REGISTER).number(2, KEY_STATUS))
    }

    /// Holds for packets of a transport protocol to a port.
    pub(super) fn port(self, protocol: u8, port: u16) -> Self {
        self.meta(16).compare(true, &[protocol]).payload(2, 2, 2).compare(true, &port.to_be_bytes())
    }

    /// Gives the connection the address of the interface it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.with_module("nft_masq").push("masq", &Attributes::default())
    }

    /// Sends the connection elsewhere.
    pub(super) fn forward_to(self, address: IpAddr, port: u16) -> Self {
        const TYPE_DESTINATION: u32 = 1;
        let data = Attributes::default()
            .number(1, TYPE_DESTINATION)
            .number(2, u32::from(family_of(address)))
            .number(3, REGISTER)
            .number(5, PORT_REGISTER);
        self.with_module("nft_nat")
            .load(REGISTER, &octets(address))
            .load(PORT_REGISTER, &port.to_be_bytes())
            .push("nat", &data)
    }

    /// Lets the packet pass this table.
    pub(super) fn accept(self) -> Self {
        self.verdict(VERDICT_ACCEPT, None)
    }

    /// Drops the packet.
    pub(super) fn drop(self) -> Self {
        self.verdict(VERDICT_DROP, None)
    }

    /// Goes on in another chain, and comes back.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(VERDICT_JUMP, Some(chain))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut verdict = Attributes::default().bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict = verdict.text(2, chain);
        }
        let value = Attributes::default().nested(2, &verdict);
        self.push("immediate", &Attributes::default().number(1, 0).nested(2, &value))
    }
}

/// Returns the kernel's number of an address's family.
pub(super) fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// Pads a name as registers hold it. Names are ours, and shorter than the kernel's limit.
fn padded(name: &str) -> [u8; NAME_LEN] {
    assert!(name.len() < NAME_LEN, "interface names have at most 15 characters");
    let mut bytes = [0; NAME_LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}
