//! Ports, firewalls, and blocks of addresses.

use super::{
    super::{
        facts::{Chain, Facts, Hook, Keeper, Port, Route},
        finding::Finding,
    },
    AS_ROOT, unseen,
};
use crate::network::survey::{self, Block};

/// The port that nodes talk to managers on, unless told otherwise.
pub(super) const CLUSTER_PORT: u16 = 2377;

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
    let is_cluster = number == CLUSTER_PORT;
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
    let dropping =
        |hook| -> Option<&Chain> { chains.iter().find(|chain| chain.hook == hook && chain.drops) };
    let firewalld = firewall.keepers.contains(&Keeper::Firewalld);
    findings.push(match dropping(Hook::Forward) {
        None if !firewalld => {
            Finding::ok(name, "Nothing drops what goes through this machine by default.")
        }
        _ if firewall.lets_midge_through => Finding::ok(
            name,
            "The firewall drops what goes through this machine, and lets midge's through.",
        ),
        found => {
            let who = keeper(facts.firewall.keepers.first());
            let table = found.map(|chain| format!(" (table {})", chain.table)).unwrap_or_default();
            let and =
                if firewall.sees_bridges { ", nor between containers of one node" } else { "" };
            Finding::warning(
                name,
                format!(
                    "{who} drops what goes through this machine{table}: containers reach nothing \
                     outside, published ports do not answer{and}."
                ),
                forward_mend(facts),
            )
        }
    });
    if dropping(Hook::Input).is_some() || firewalld {
        findings.push(Finding::note(
            "firewall-input",
            format!(
                "{} drops what comes to this machine unless a rule accepts it: a manager needs UDP \
                 {CLUSTER_PORT}, a worker no port.",
                keeper(of_input(facts))
            ),
            input_mend(facts),
        ));
    }
}

/// Returns whose rules those of the machine itself are: Docker makes none.
fn of_input(facts: &Facts) -> Option<&Keeper> {
    facts.firewall.keepers.iter().find(|keeper| **keeper != Keeper::Docker)
}

fn keeper(keeper: Option<&Keeper>) -> &'static str {
    match keeper {
        Some(Keeper::Docker) => "Docker's firewall",
        Some(Keeper::Ufw) => "ufw",
        Some(Keeper::Firewalld) => "firewalld",
        None => "The firewall",
    }
}

/// Returns the command whose rules the dropping ones are among: an accept of the other kind does not
/// help.
fn iptables(facts: &Facts) -> &'static str {
    let legacy = |chain: &Chain| chain.drops && chain.legacy;
    let is_legacy = facts.firewall.chains.iter().flatten().any(legacy);
    if is_legacy { "iptables-legacy" } else { "iptables" }
}

fn forward_mend(facts: &Facts) -> String {
    let iptables = iptables(facts);
    let each = |say: &dyn Fn(&str) -> String| {
        blocks(facts).iter().map(|block| say(block)).collect::<Vec<_>>().join(" && ")
    };
    match facts.firewall.keepers.first() {
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
        None => {
            let rules = each(&|block| {
                format!(
                    "{iptables} -I FORWARD -s {block} -j ACCEPT && \
                     {iptables} -I FORWARD -d {block} -j ACCEPT"
                )
            });
            format!("{rules}, at every boot; or the same in the rules of your firewall")
        }
    }
}

fn input_mend(facts: &Facts) -> String {
    match of_input(facts) {
        Some(Keeper::Ufw) => format!("ufw allow {CLUSTER_PORT}/udp"),
        Some(Keeper::Firewalld) => format!(
            "firewall-cmd --permanent --add-port={CLUSTER_PORT}/udp && firewall-cmd --reload"
        ),
        _ => format!(
            "{} -I INPUT -p udp --dport {CLUSTER_PORT} -j ACCEPT, at every boot",
            iptables(facts)
        ),
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
        "narrow those routes, so that a block of 20 bits is left for containers",
    )
}
