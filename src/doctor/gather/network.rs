//! Ports, the packet filter, routes.

use super::{
    super::facts::{Chain, Firewall, Hook, Keeper, Port, Route},
    Where,
};
use crate::{network::survey, util::command::output};
use std::{collections::BTreeSet, fs, io, net::Ipv4Addr, process::Command, time::Duration};

/// What networks that span nodes would listen on.
const NETWORKS_PORT: u16 = 4789;

/// How many processes are looked at for who holds a port.
const PROCESSES_MAX: usize = 32_768;

/// How long iptables may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

pub(super) fn ports(place: &Where) -> Vec<Port> {
    let lists = ["/proc/net/udp", "/proc/net/udp6"].map(|path| place.read(path));
    let seen = lists.iter().any(Option::is_some);
    let text: String = lists.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let one = |number: u16| {
        if !seen {
            let why = "there is no /proc/net/udp".to_owned();
            return Port { number, holders: Err(why) };
        }
        let inodes = sockets(&text, number);
        let mut holders: Vec<Option<(String, u32)>> = Vec::new();
        if !inodes.is_empty() {
            holders = holders_of(place, &inodes).into_iter().map(Some).collect();
            if holders.is_empty() {
                holders.push(None);
            }
        }
        Port { number, holders: Ok(holders) }
    };
    [place.cluster_port, NETWORKS_PORT].map(one).into()
}

/// Returns the inodes of the sockets that are bound to a port.
fn sockets(text: &str, port: u16) -> BTreeSet<String> {
    let wanted = format!(":{port:04X}");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let bound = lines.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&wanted)));
    bound.filter_map(|fields| fields.get(9).map(|inode| (*inode).to_owned())).collect()
}

/// Returns the programs that have one of these sockets, with their processes. Those of other users
/// are seen by root only.
fn holders_of(place: &Where, inodes: &BTreeSet<String>) -> BTreeSet<(String, u32)> {
    let links: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut found = BTreeSet::new();
    let processes = fs::read_dir(place.at("/proc")).into_iter().flatten().flatten();
    for process in processes.take(PROCESSES_MAX) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let holds = files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| links.contains(link)));
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.insert((name.trim().to_owned(), pid));
        }
    }
    found
}

pub(super) fn routes(place: &Where) -> Result<Vec<Route>, String> {
    let text = place.read("/proc/net/route").ok_or("there is no /proc/net/route")?;
    // The kernel prints numbers as they lie in its memory, in network order.
    let number = |text: &str| {
        u32::from_str_radix(text, 16).ok().map(|bits| u32::from_be_bytes(bits.to_ne_bytes()))
    };
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, to, _, _, _, _, _, mask, ..] = fields[..] else { return None };
        Some(Route {
            interface: interface.to_owned(),
            to: Ipv4Addr::from_bits(number(to)?),
            prefix_len: u8::try_from(number(mask)?.leading_ones()).ok()?,
        })
    });
    Ok(lines.collect())
}

pub(super) fn firewall(place: &Where) -> Firewall {
    let is_on = |path: &str| place.read(path).is_some_and(|text| text.trim() == "1");
    let mut firewall = Firewall {
        chains: Ok(Vec::new()),
        keepers: Vec::new(),
        sees_bridges: is_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    };
    if !place.is_here() {
        firewall.chains = Err("another machine's kernel is not asked".to_owned());
        return firewall;
    }
    match survey::filter() {
        Ok(filter) => read_filter(&mut firewall, &filter),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            firewall.chains = Err("only root may ask the kernel for it".to_owned());
            return firewall;
        }
        // A kernel without nf_tables, which another finding names, or with iptables of before.
        Err(error) if is_unsupported(&error) => {}
        Err(error) => firewall.chains = Err(error.to_string()),
    }
    let legacy = place.read("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        read_legacy(&mut firewall);
    }
    firewall
}

fn is_unsupported(error: &io::Error) -> bool {
    let codes = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// By which chain each of those who make rules is known.
const MARKS: [(&str, Keeper); 2] =
    [("DOCKER-USER", Keeper::Docker), ("ufw-before-forward", Keeper::Ufw)];

fn read_filter(firewall: &mut Firewall, filter: &[survey::FilterChain]) {
    firewall.chains = Ok(called(filter, false));
    for (mark, keeper) in MARKS {
        if filter.iter().any(|chain| chain.name == mark) {
            firewall.keepers.push(keeper);
        }
    }
    if filter.iter().any(|chain| chain.table == FIREWALLD) {
        firewall.keepers.push(Keeper::Firewalld);
    }
}

/// firewalld's table. Its chains accept by default, and end in a rule that rejects.
const FIREWALLD: &str = "firewalld";

/// Returns the chains that see what comes to the machine, or goes through it.
fn called(filter: &[survey::FilterChain], legacy: bool) -> Vec<Chain> {
    let one = |chain: &survey::FilterChain| {
        let hook = match chain.hook? {
            1 => Hook::Input,
            2 => Hook::Forward,
            _ => return None,
        };
        Some(Chain {
            family: chain.family,
            table: chain.table.clone(),
            name: chain.name.clone(),
            legacy,
            hook,
            drops: chain.drops || chain.table == FIREWALLD,
            lets_midge_through: chain.lets_midge_through,
        })
    };
    filter.iter().filter_map(one).collect()
}

/// Reads the rules of the older iptables, which only its own command shows. One that is not there,
/// or does not end, tells nothing.
fn read_legacy(firewall: &mut Firewall) {
    let commands = ["iptables-legacy-save", "iptables-save"];
    let Some(text) = commands.iter().find_map(|name| run(name).ok()) else { return };
    let (chains, keepers) = legacy(&text);
    if let Ok(found) = &mut firewall.chains {
        found.extend(chains);
    }
    for keeper in keepers {
        if !firewall.keepers.contains(&keeper) {
            firewall.keepers.push(keeper);
        }
    }
}

/// Reads what `iptables-save` prints of the table `filter`.
pub(super) fn legacy(text: &str) -> (Vec<Chain>, Vec<Keeper>) {
    let (mut chains, mut rules, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
    let (family, table) = ("ip", "filter");
    let ours: Vec<String> = survey::pool()
        .iter()
        .map(|(base, _)| format!(" {}.{}.", base.octets()[0], base.octets()[1]))
        .chain([format!(" {}", survey::BRIDGE_PREFIX)])
        .collect();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let Some(name) = words.next().and_then(|word| word.strip_prefix(':')) {
            let hook = match name {
                "INPUT" => Some(1),
                "FORWARD" => Some(2),
                _ => None,
            };
            chains.push(survey::FilterChain {
                family,
                table: table.to_owned(),
                name: name.to_owned(),
                hook,
                drops: words.next() == Some("DROP"),
                lets_midge_through: false,
            });
            keepers.extend(MARKS.iter().find(|(mark, _)| *mark == name).map(|(_, keeper)| *keeper));
        } else if let Some(chain) = line.strip_prefix("-A ").and_then(|_| words.next()) {
            let targets = ["-j", "-g"];
            let target = words.skip_while(|word| !targets.contains(word)).nth(1).unwrap_or("");
            rules.push(survey::FilterRule {
                family,
                table: table.to_owned(),
                chain: chain.to_owned(),
                calls: Some(target.to_owned()),
                lets_midge_through: target == "ACCEPT" && ours.iter().any(|it| line.contains(it)),
            });
        }
    }
    survey::judge(&mut chains, &rules);
    (called(&chains, true), keepers)
}

/// Runs a command that prints the table `filter`, and returns what it printed.
fn run(name: &str) -> io::Result<String> {
    let command = &mut Command::new(name);
    let printed = output(command.args(["-t", "filter"]), COMMAND_LIMIT, super::FILE_MAX)?;
    String::from_utf8(printed).map_err(|_| io::ErrorKind::InvalidData.into())
}
