//! Reads what the kernel holds of the packet filter, of all tables.

use super::message::{self, NF_TABLES, Question, attributes};
use std::io;

/// What a chain is asked for by, and answered as.
const GET_CHAIN: u16 = 4;
const CHAIN: u16 = 3;

/// The same of a rule.
const GET_RULE: u16 = 7;
const RULE: u16 = 6;

/// How many bytes of the packet filter are read: the rules of several thousand published ports.
const READ_MAX: usize = 16 << 20;

/// The families whose hooks are those of IP: `inet`, `ip`, `ip6`.
const IP_FAMILIES: [u8; 3] = [1, 2, 10];

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Entry {
    /// The family of its table, in the kernel's numbers.
    pub(in super::super) family: u8,
    /// Its table.
    pub(in super::super) table: String,
    /// Its name.
    pub(in super::super) chain: String,
    /// The hook that calls it, where it is one of IP's.
    pub(in super::super) hook: Option<u32>,
    /// Whether it drops what no rule accepts.
    pub(in super::super) drops: bool,
}

/// A rule, as far as it says whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct About {
    /// The family of its table, in the kernel's numbers.
    pub(in super::super) family: u8,
    /// Its table.
    pub(in super::super) table: String,
    /// Its chain.
    pub(in super::super) chain: String,
    /// The chain that it hands packets on to.
    pub(in super::super) calls: Option<String>,
    /// What it compares packets with.
    pub(in super::super) compared: Vec<Vec<u8>>,
    /// Whether it accepts, or hands on to another chain.
    pub(in super::super) goes_on: bool,
}

/// Returns every chain.
pub(in super::super) fn chains() -> io::Result<Vec<Entry>> {
    let mut chains = Vec::new();
    message::dump(&every(GET_CHAIN, CHAIN), |family, body| chains.push(chain(family, body)))?;
    Ok(chains)
}

/// Returns every rule.
pub(in super::super) fn rules() -> io::Result<Vec<About>> {
    let mut rules = Vec::new();
    message::dump(&every(GET_RULE, RULE), |family, body| rules.push(rule(family, body)))?;
    Ok(rules)
}

fn every(ask: u16, answer: u16) -> Question {
    let [ask, answer] = [ask, answer].map(|number| (NF_TABLES << 8) | number);
    Question { ask, answer, family: 0, bytes_max: READ_MAX }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn chain(family: u8, body: &[u8]) -> Entry {
    let (table, name) = (String::new(), String::new());
    let mut entry = Entry { family, table, chain: name, hook: None, drops: false };
    for (kind, value) in attributes(body) {
        match kind {
            1 => entry.table = text(value),
            3 => entry.chain = text(value),
            4 if IP_FAMILIES.contains(&family) => {
                let hook = attributes(value).into_iter().find(|(kind, _)| *kind == 1);
                entry.hook = hook.and_then(|(_, value)| number(value));
            }
            5 => entry.drops = number(value) == Some(0),
            _ => {}
        }
    }
    entry
}

fn rule(family: u8, body: &[u8]) -> About {
    let (table, chain, compared) = (String::new(), String::new(), Vec::new());
    let mut about = About { family, table, chain, calls: None, compared, goes_on: false };
    for (kind, value) in attributes(body) {
        match kind {
            1 => about.table = text(value),
            2 => about.chain = text(value),
            4 => {
                attributes(value).into_iter().for_each(|(_, element)| read(&mut about, element));
            }
            _ => {}
        }
    }
    about
}

/// Reads one expression of a rule.
fn read(about: &mut About, element: &[u8]) {
    let parts = attributes(element);
    let part = |number| parts.iter().find(|(kind, _)| *kind == number).map(|(_, value)| *value);
    let (Some(name), Some(data)) = (part(1), part(2)) else { return };
    let inner = |outer: &'_ [u8], number: u16| {
        let found = attributes(outer).into_iter().find(|(kind, _)| *kind == number);
        found.map(|(_, value)| value.to_vec())
    };
    match text(name).as_str() {
        "cmp" => {
            let value = inner(data, 3).and_then(|data| inner(&data, 1));
            about.compared.extend(value);
        }
        "immediate" => {
            const ACCEPT: u32 = 1;
            const JUMP: u32 = 0xffff_fffd;
            const GOTO: u32 = 0xffff_fffc;
            let Some(verdict) = inner(data, 2).and_then(|data| inner(&data, 2)) else { return };
            let code = inner(&verdict, 1).and_then(|code| number(&code));
            about.goes_on |= matches!(code, Some(ACCEPT | JUMP | GOTO));
            if matches!(code, Some(JUMP | GOTO)) {
                about.calls = inner(&verdict, 2).map(|name| text(&name));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::Attributes, *};

    #[test]
    fn what_docker_and_others_make_is_read() {
        let hook = Attributes::default().number(1, 2).number(2, 0);
        let body = Attributes::default().text(1, "filter").text(3, "FORWARD").nested(4, &hook);
        let entry = chain(2, &body.number(5, 0).into_bytes());
        let expected = ("filter".to_owned(), "FORWARD".to_owned(), Some(2), true);
        assert_eq!((entry.table, entry.chain, entry.hook, entry.drops), expected);

        let data = Attributes::default().bytes(1, &[172, 30]);
        let compare = Attributes::default().number(1, 1).nested(3, &data);
        let compare = Attributes::default().text(1, "cmp").nested(2, &compare);
        let read = |verdict: Attributes| {
            let verdict = Attributes::default().nested(2, &verdict);
            let verdict = Attributes::default().number(1, 0).nested(2, &verdict);
            let verdict = Attributes::default().text(1, "immediate").nested(2, &verdict);
            let list = Attributes::default().nested(1, &compare).nested(1, &verdict);
            let body = Attributes::default().text(1, "filter").text(2, "FORWARD").nested(4, &list);
            rule(2, &body.into_bytes())
        };
        let accepts = About {
            family: 2,
            table: "filter".to_owned(),
            chain: "FORWARD".to_owned(),
            calls: None,
            compared: vec![vec![172, 30]],
            goes_on: true,
        };
        assert_eq!(read(Attributes::default().number(1, 1)), accepts);
        let calls = About { calls: Some("mine".to_owned()), ..accepts };
        assert_eq!(read(Attributes::default().number(1, 0xffff_fffd).text(2, "mine")), calls);
    }

    #[test]
    fn bytes_that_are_no_attributes_are_nothing() {
        for bytes in [&[][..], &[1], &[2, 0, 1, 0], &[0xff, 0xff, 1, 0, 5], &[4, 0, 4, 0x80]] {
            assert!(!chain(2, bytes).drops && rule(2, bytes).compared.is_empty());
        }
    }
}
