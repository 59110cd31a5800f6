//! Ports, firewalls, and blocks of addresses.

use super::{
    super::{
        facts::{Chain, Facts, Hook, Keeper, Port, Route},
        finding::Finding,
    },
    AS_ROOT, unseen,
};
use crate::network::survey::{self, Block};

pub(super) fn diagnose(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.extend(facts.ports.iter().map(|port| one_port(facts, port)));
    firewall(facts, findings);
    findings.push(addresses(facts));
}

fn one_port(facts: &Facts, port: &Port) -> Finding {
    let number = port.number;
    let name = format!("port-{number}");
    let holders = match &port.holders {
        Ok(holders) => holders,
        Err(why) => return unseen(&name, &format!("UDP port {number}"), why),
    };
    if holders.is_empty() {
        return Finding::ok(&name, format!("UDP port {number} is free."));
    }
    let others = holders.iter().flatten().find(|(program, _)| program != "midge");
    let is_cluster = number == facts.cluster_port;
    match others {
        Some((program, pid)) => {
            let what = format!("UDP port {number} is held by {program} (process {pid}).");
            if is_cluster {
                let mend = "end that program, or give midge another port on this node: midge swarm \
                            init --listen-addr 0.0.0.0:PORT (the same for join)";
                Finding::problem(&name, what, mend)
            } else {
                Finding::note(
                    &name,
                    format!(
                        "{what} Networks that span nodes would want it; this version has none."
                    ),
                    "nothing",
                )
            }
        }
        None if holders.iter().any(Option::is_some) => {
            Finding::ok(&name, format!("UDP port {number} is held by midge."))
        }
        // The daemon answers, so it is the likely one.
        None if is_cluster
            && matches!(&facts.daemon, Ok(Some(daemon)) if daemon.swarm == "active") =>
        {
            Finding::ok(
                &name,
                format!("UDP port {number} is in use, and the daemon is in a cluster."),
            )
        }
        None if facts.program.root => Finding::note(
            &name,
            format!(
                "UDP port {number} is held by the kernel, or by a program of another container."
            ),
            if is_cluster { "ss -lunp" } else { "nothing: this version does not use it" },
        ),
        None => Finding::note(
            &name,
            format!("UDP port {number} is in use, and only root sees by which program."),
            AS_ROOT,
        ),
    }
}

/// Says blocks as rules take them.
fn blocks(facts: &Facts) -> Vec<String> {
    let written = |(address, len): &Block| format!("{address}/{len}");
    match &facts.bridge_block {
        Some(block) => vec![written(block)],
        None => survey::pool()[..1].iter().map(written).collect(),
    }
}

fn firewall(facts: &Facts, findings: &mut Vec<Finding>) {
    let firewall = &facts.firewall;
    let name = "firewall-forward";
    let chains = match &firewall.chains {
        Ok(chains) => chains,
        Err(why) => {
            findings.push(unseen(name, "The packet filter", why));
            return;
        }
    };
    // The blocks that containers have theirs of are of version 4.
    let seen = |hook: Hook, chain: &&Chain| match hook {
        Hook::Forward => chain.family != "ip6",
        Hook::Input => true,
    };
    let dropping = |hook| -> Vec<&Chain> {
        let of_hook = chains.iter().filter(|chain| chain.hook == hook && chain.drops);
        of_hook.filter(|chain| seen(hook, chain)).collect()
    };
    findings.push(forward(facts, &dropping(Hook::Forward)));
    let input = dropping(Hook::Input);
    if !input.is_empty() {
        let port = facts.cluster_port;
        findings.push(Finding::note(
            "firewall-input",
            format!(
                "{} what comes to this machine unless a rule accepts it: a manager needs UDP \
                 {port}, a worker no port.",
                drops(facts, &input, false)
            ),
            mends(&input, |chain| input_mend(facts, chain)),
        ));
    }
}

fn forward(facts: &Facts, dropping: &[&Chain]) -> Finding {
    let name = "firewall-forward";
    if dropping.is_empty() {
        return Finding::ok(name, "Nothing drops what goes through this machine by default.");
    }
    // One that accepts does not keep the next from dropping.
    let closed: Vec<&Chain> =
        dropping.iter().filter(|chain| !chain.lets_midge_through).copied().collect();
    if closed.is_empty() {
        let what = "The firewall drops what goes through this machine, and lets midge's through.";
        return Finding::ok(name, what);
    }
    let bridges = facts.firewall.sees_bridges;
    let and = if bridges { ", nor between containers of one node" } else { "" };
    Finding::warning(
        name,
        format!(
            "{} what goes through this machine: containers reach nothing outside, published \
             ports do not answer{and}.",
            drops(facts, &closed, true)
        ),
        mends(&closed, |chain| forward_mend(facts, chain)),
    )
}

/// Tells whether a chain is one that iptables makes: only its own command keeps rules there.
fn is_of_iptables(chain: &Chain) -> bool {
    let builtin = matches!(chain.name.as_str(), "FORWARD" | "INPUT");
    chain.legacy || (chain.family != "inet" && chain.table == "filter" && builtin)
}

/// Returns who makes the rules of a chain. Of several who share one, whoever keeps what it is told
/// over a restart; Docker makes none about the machine itself.
fn keeper_of(facts: &Facts, chain: &Chain) -> Option<Keeper> {
    if chain.table == "firewalld" {
        return Some(Keeper::Firewalld);
    }
    let known = [Keeper::Ufw, Keeper::Docker];
    known.into_iter().filter(|_| is_of_iptables(chain)).find(|keeper| {
        let is_there = facts.firewall.keepers.contains(keeper);
        is_there && !(chain.hook == Hook::Input && *keeper == Keeper::Docker)
    })
}

/// Says who drops, and where if there are several such chains or it is wanted.
fn drops(facts: &Facts, chains: &[&Chain], place: bool) -> String {
    let mut who: Vec<String> = Vec::new();
    for chain in chains {
        let keeper = match keeper_of(facts, chain) {
            Some(Keeper::Docker) => "Docker's firewall",
            Some(Keeper::Ufw) => "ufw",
            Some(Keeper::Firewalld) => "firewalld",
            None => "the firewall",
        };
        let table = if is_of_iptables(chain) {
            chain.table.clone()
        } else {
            format!("{} {}", chain.family, chain.table)
        };
        let one = if place { format!("{keeper} (table {table})") } else { keeper.to_owned() };
        if !who.contains(&one) {
            who.push(one);
        }
    }
    let verb = if who.len() > 1 { "drop" } else { "drops" };
    let who = who.join(" and ");
    let rest = who.strip_prefix("the ").map(|rest| format!("The {rest}"));
    format!("{} {verb}", rest.unwrap_or(who))
}

/// Says what is to be done for each of these chains, once where it is the same.
fn mends(chains: &[&Chain], mend: impl Fn(&Chain) -> String) -> String {
    let mut all: Vec<String> = Vec::new();
    for mend in chains.iter().map(|chain| mend(chain)) {
        if !all.contains(&mend) {
            all.push(mend);
        }
    }
    all.join("; and ")
}

/// Returns the command that makes rules in a chain of iptables: those of one kind do not help
/// against the other.
fn iptables(chain: &Chain) -> &'static str {
    match (chain.legacy, chain.family) {
        (true, _) => "iptables-legacy",
        (false, "ip6") => "ip6tables",
        (false, _) => "iptables",
    }
}

/// Returns the commands that have a chain of nobody's in particular accept what `matches` say.
fn nft(chain: &Chain, matches: &[String]) -> String {
    let Chain { family, table, name, .. } = chain;
    let rule = |what: &String| format!("nft insert rule {family} {table} {name} {what} accept");
    let rules: Vec<String> = matches.iter().map(rule).collect();
    format!("{}, and the same in /etc/nftables.conf, for every boot", rules.join(" && "))
}

fn forward_mend(facts: &Facts, chain: &Chain) -> String {
    let each = |say: &dyn Fn(&str) -> String| {
        blocks(facts).iter().map(|block| say(block)).collect::<Vec<_>>().join(" && ")
    };
    let iptables = iptables(chain);
    match keeper_of(facts, chain) {
        Some(Keeper::Docker) => {
            let rules = each(&|block| {
                format!(
                    "{iptables} -I DOCKER-USER -s {block} -j ACCEPT && \
                     {iptables} -I DOCKER-USER -d {block} -j ACCEPT"
                )
            });
            format!("{rules}, at every boot once Docker runs")
        }
        Some(Keeper::Ufw) => {
            each(&|block| format!("ufw route allow from {block} && ufw route allow to {block}"))
        }
        Some(Keeper::Firewalld) => {
            let rules = each(&|block| {
                format!("firewall-cmd --permanent --zone=trusted --add-source={block}")
            });
            format!("{rules} && firewall-cmd --reload")
        }
        None if is_of_iptables(chain) => {
            let rules = each(&|block| {
                format!(
                    "{iptables} -I FORWARD -s {block} -j ACCEPT && \
                     {iptables} -I FORWARD -d {block} -j ACCEPT"
                )
            });
            format!("{rules}, at every boot; or the same in the rules of your firewall")
        }
        None => {
            let both = |block: &String| [format!("ip saddr {block}"), format!("ip daddr {block}")];
            nft(chain, &blocks(facts).iter().flat_map(both).collect::<Vec<_>>())
        }
    }
}

fn input_mend(facts: &Facts, chain: &Chain) -> String {
    let port = facts.cluster_port;
    match keeper_of(facts, chain) {
        Some(Keeper::Ufw) => format!("ufw allow {port}/udp"),
        Some(Keeper::Firewalld) => {
            format!("firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload")
        }
        _ if is_of_iptables(chain) => {
            format!("{} -I INPUT -p udp --dport {port} -j ACCEPT, at every boot", iptables(chain))
        }
        _ => nft(chain, &[format!("udp dport {port}")]),
    }
}

fn addresses(facts: &Facts) -> Finding {
    let name = "subnets";
    let routes = match &facts.routes {
        Ok(routes) => routes,
        Err(why) => return unseen(name, "Routes", why),
    };
    let others: Vec<&Route> = routes
        .iter()
        .filter(|route| route.prefix_len > 0 && !route.interface.starts_with(survey::BRIDGE_PREFIX))
        .collect();
    let block = |route: &Route| (route.to, route.prefix_len);
    if let Some((address, len)) = facts.bridge_block {
        let clash = others.iter().find(|route| survey::overlap(block(route), (address, len)));
        return match clash {
            Some(route) => Finding::warning(
                name,
                format!(
                    "Containers here have {address}/{len}, and so has what is behind {} ({}/{}): \
                     they cannot reach that.",
                    route.interface, route.to, route.prefix_len
                ),
                "reboot: where the route is there first, midge takes another block",
            ),
            None => Finding::ok(name, format!("Containers here have {address}/{len}, alone.")),
        };
    }
    let used: Vec<Block> = others.iter().map(|route| block(route)).collect();
    let pool = survey::pool();
    let written: Vec<String> =
        pool.iter().map(|(address, len)| format!("{address}/{len}")).collect();
    let written = written.join(" and ");
    if survey::has_free_block(&used) {
        return Finding::ok(name, format!("There is room for containers in {written}."));
    }
    let clash = others.iter().find(|route| survey::overlap(block(route), pool[0]));
    let clash = clash.map(|route| {
        format!(" ({}/{} behind {}, for one)", route.to, route.prefix_len, route.interface)
    });
    Finding::problem(
        name,
        format!(
            "Containers get addresses of {written}, and routes of this machine cover all of \
             them{}.",
            clash.unwrap_or_default()
        ),
        "narrow those routes, so that a /20 is left for containers",
    )
}
