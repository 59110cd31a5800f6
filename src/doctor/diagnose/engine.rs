//! containerd below the daemon, and the daemon itself.

use super::{
    super::{
        facts::{Answer, Config, Daemon, Facts, SocketState},
        finding::Finding,
    },
    AS_ROOT, enable, install, kernel, let_in, log, rename, restart,
};

/// The oldest containerd that has what the daemon asks for.
const CONTAINERD_LEAST: (u32, u32) = (1, 6);

pub(super) fn containerd(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.push(answer(facts));
    findings.push(oci_runtime(facts));
}

/// Reads `1.6.20~ds1` or `v2.0.0`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn answer(facts: &Facts) -> Finding {
    let name = "containerd";
    let found = &facts.containerd;
    let socket = &found.socket;
    let start = enable(&facts.system, "containerd");
    match &found.answer {
        Answer::Version(version) => match numbers(version) {
            Some(has) if has < CONTAINERD_LEAST => Finding::problem(
                name,
                format!(
                    "containerd is {version}; midge needs {}.{} or newer.",
                    CONTAINERD_LEAST.0, CONTAINERD_LEAST.1
                ),
                "upgrade containerd, if need be by the packages that Docker keeps: containerd.io",
            ),
            _ => Finding::ok(name, format!("containerd {version} answers at {socket}.")),
        },
        Answer::Absent if found.installed => {
            Finding::problem(name, format!("containerd does not run: there is no {socket}."), start)
        }
        Answer::Absent => Finding::problem(
            name,
            format!("containerd is not installed: there is no {socket}."),
            kernel::install_containerd(facts),
        ),
        Answer::Refused => Finding::problem(
            name,
            format!("containerd does not run: nobody listens at {socket}."),
            start,
        ),
        Answer::Denied => Finding::note(
            name,
            format!("containerd could not be asked: only root may use {socket}."),
            AS_ROOT,
        ),
        Answer::Silent(why) => Finding::problem(
            name,
            format!("containerd does not answer at {socket}: {why}."),
            format!("look at its log: {}", log(&facts.system, "containerd")),
        ),
    }
}

fn oci_runtime(facts: &Facts) -> Finding {
    let name = "oci-runtime";
    let works = facts.oci_runtimes.iter().find_map(|(path, version)| match version {
        Ok(version) => Some((path, version)),
        Err(_) => None,
    });
    if let Some((path, version)) = works {
        return Finding::ok(name, format!("{version}, at {path}."));
    }
    if let (Some(wanted), Some((_, Err(why)))) = (&facts.oci_configured, facts.oci_runtimes.first())
    {
        return Finding::problem(
            name,
            format!("The configuration has {wanted} start containers, which does not work: {why}."),
            format!(
                "install it; or remove the line `runtime` from the configuration, then {}",
                restart(&facts.system, "midge")
            ),
        );
    }
    let mend = install(&facts.system, "runc");
    match facts.oci_runtimes.first() {
        Some((path, Err(why))) => {
            Finding::problem(name, format!("{path} does not work: {why}."), mend)
        }
        _ => Finding::problem(
            name,
            "Neither runc nor crun is installed: containers do not start.",
            mend,
        ),
    }
}

pub(super) fn daemon(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.config {
        Config::Usable => {}
        Config::Wrong(why) => findings.push(Finding::problem(
            "config",
            format!("The daemon does not start: {why}."),
            "correct that file; midge's README lists what it may hold",
        )),
        Config::Unseen(why) => findings.push(Finding::note(
            "config",
            format!("The configuration could not be checked: {why}."),
            AS_ROOT,
        )),
    }
    findings.push(socket(facts));
    if let Ok(Some(daemon)) = &facts.daemon {
        findings.push(version(facts, daemon));
        swarm(facts, daemon, findings);
    }
}

fn socket(facts: &Facts) -> Finding {
    let name = "daemon";
    let path = &facts.socket.path;
    let start = format!("{}; or, to try it, midge daemon", enable(&facts.system, "midge"));
    match &facts.socket.state {
        SocketState::Absent => {
            Finding::note(name, format!("No daemon runs: there is no {path}."), start)
        }
        SocketState::Stale => Finding::note(
            name,
            format!("No daemon runs: {path} is left of one that ended without removing it."),
            start,
        ),
        SocketState::NotASocket => Finding::problem(
            name,
            format!("The daemon does not start: {path} is no socket."),
            format!("move {path} away"),
        ),
        SocketState::Denied => Finding::note(
            name,
            format!("The daemon could not be asked: only root and the group midge may use {path}."),
            format!("{AS_ROOT}, or let yourself in: {}", let_in(&facts.system)),
        ),
        SocketState::Unknown(why) => {
            Finding::note(name, format!("{path} could not be checked: {why}."), AS_ROOT)
        }
        SocketState::Listens => match &facts.daemon {
            Ok(Some(_)) => Finding::ok(name, format!("A daemon answers at {path}.")),
            Ok(None) => Finding::ok(name, format!("Something listens at {path}.")),
            Err(why) => Finding::problem(
                name,
                format!("What listens at {path} does not answer as midge: {why}."),
                format!("look at its log: {}", log(&facts.system, "midge")),
            ),
        },
    }
}

fn version(facts: &Facts, daemon: &Daemon) -> Finding {
    let name = "daemon-version";
    let own = &facts.program.version;
    if daemon.version == *own {
        Finding::ok(name, format!("The daemon is {own}, as this program."))
    } else {
        Finding::warning(
            name,
            format!("The daemon is {}, and this program {own}.", daemon.version),
            format!(
                "{}, once the newer program is the one it starts; containers go on",
                restart(&facts.system, "midge")
            ),
        )
    }
}

fn swarm(facts: &Facts, daemon: &Daemon, findings: &mut Vec<Finding>) {
    let name = "cluster";
    let role = if daemon.manager { "a manager" } else { "a worker" };
    findings.push(match (daemon.swarm.as_str(), daemon.error.as_str()) {
        ("active", "") => Finding::ok(name, format!("This node is {role} of a cluster.")),
        ("locked", _) => Finding::problem(
            name,
            "This manager is locked since its restart.",
            "midge swarm unlock",
        ),
        ("inactive", _) => Finding::note(
            name,
            "This node is in no cluster.",
            "midge swarm init, or the `midge swarm join` that another node's \
             `midge swarm join-token worker` prints",
        ),
        (state, "") => Finding::warning(name, format!("This node is {state}."), "midge info"),
        (_, error) => {
            let mend = if daemon.manager {
                "midge node ls"
            } else {
                "see that a manager runs, and that its UDP port is open: 2377, unless it was given \
                 another"
            };
            Finding::problem(name, format!("This node is {role}, and says: {error}."), mend)
        }
    });
    // What other findings say already, and better.
    let known = ["containerd does not answer", "cannot limit memory"];
    let others = daemon.warnings.iter().map(|text| text.trim_start_matches("WARNING: "));
    for (index, text) in others
        .filter(|text| *text != daemon.error && !known.iter().any(|word| text.contains(word)))
        .enumerate()
    {
        let name = if index == 0 {
            "daemon-warning".to_owned()
        } else {
            format!("daemon-warning-{}", index + 1)
        };
        findings.push(Finding::warning(&name, format!("The daemon warns: {text}."), "midge info"));
    }
    if daemon.namesakes > 0 {
        findings.push(Finding::warning(
            "cluster-hostname",
            format!("{} other nodes of the cluster have this node's host name.", daemon.namesakes),
            format!("{}, then {}", rename(&facts.system), restart(&facts.system, "midge")),
        ));
    }
}
