//! `midge doctor`.

use super::{
    client::Client,
    exit::{CliError, Exit},
    human::{list, text},
    output::{self, column},
    style::{self, Tone},
};
use crate::doctor::{self, Config, Daemon, Facts, Finding, Level, Where};
use clap::Args;
use serde_json::{Map, Value};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the daemon may take for what needs no leader.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take otherwise: a manager looks for a leader for ten seconds.
const INFO_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Where the node keeps, or is to keep, what must survive a restart
    #[arg(long, default_value = "/var/lib/midge", value_name = "DIR")]
    data_dir: PathBuf,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH")]
    containerd: PathBuf,
    /// The daemon's configuration; the default one may be missing
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `table`, `json`, or a template such as '{{.Level}} {{.Name}}: {{.Mend}}'
    #[arg(long)]
    format: Option<String>,
    /// Print only what is not ok
    #[arg(short, long)]
    quiet: bool,
    /// Look at the machine whose files are below this folder
    #[arg(long, default_value = "/", value_name = "DIR", hide = true)]
    root: PathBuf,
}

pub(super) fn run(client: &Client, args: &DoctorArgs) -> Result<Exit, CliError> {
    let facts = look(client, args)?;
    let mut findings = doctor::diagnose(&facts);
    let is_problem = |finding: &Finding| finding.level == Level::Problem;
    let exit = if findings.iter().any(is_problem) { Exit::Failure } else { Exit::Ok };
    if args.quiet {
        findings.retain(|finding| finding.level != Level::Ok);
    }
    if output::is_table(args.format.as_deref()) {
        output::raw(report(&findings, style::enabled(&io::stdout())).as_bytes())?;
    } else {
        let columns = [
            column("Level", "LEVEL"),
            column("Name", "NAME"),
            column("What", "WHAT"),
            column("Mend", "MEND"),
        ];
        let rows: Vec<Map<String, Value>> = findings.iter().map(row).collect();
        output::rows(args.format.as_deref(), &columns, &rows)?;
    }
    Ok(exit)
}

fn look(client: &Client, args: &DoctorArgs) -> Result<Facts, CliError> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| {
            CliError::usage(format!("invalid path {:?}: {error}", path.display().to_string()))
        })
    };
    let root = absolute(&args.root)?;
    if !root.is_dir() {
        return Err(CliError::usage(format!("{} is no folder", root.display())));
    }
    let is_here = root == Path::new("/");
    // The daemon and its configuration are those of this machine.
    let configured = (is_here || args.config.is_some()).then(|| config(args));
    let runtime = configured.as_ref().and_then(|it| it.as_ref().ok()).cloned();
    let data_dir = absolute(&args.data_dir)?;
    let cluster_port = crate::daemon::cluster_port(&below(&root, &data_dir));
    let mut facts = doctor::gather(&Where {
        data_dir,
        containerd: absolute(&args.containerd)?,
        socket: client.socket().to_owned(),
        root,
        runtime: runtime.unwrap_or_default(),
        cluster_port,
    });
    facts.config = match configured {
        Some(Err(wrong)) => wrong,
        _ => Config::Usable,
    };
    if is_here && facts.socket.state == doctor::SocketState::Listens {
        facts.daemon = daemon(client).map(Some);
    }
    Ok(facts)
}

/// Returns where a path of the machine is whose files are below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns what the configuration has start containers, or what is wrong with it.
fn config(args: &DoctorArgs) -> Result<String, Config> {
    crate::daemon::configured_runtime(args.config.as_deref()).map_err(|error| {
        let path = args.config.as_deref().unwrap_or_else(|| crate::daemon::config_path());
        let denied = fs::File::open(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let why = error.explain().trim_end().replace('\n', " ");
        if denied { Config::Unseen(why) } else { Config::Wrong(why) }
    })
}

/// Asks the daemon how it is.
fn daemon(client: &Client) -> Result<Daemon, String> {
    let ask = |path: &str, limit: Duration| {
        client
            .get_within(path, limit)
            .ok_or_else(|| format!("no answer to {path} within {} s", limit.as_secs()))
    };
    let version = ask("/version", VERSION_LIMIT)?;
    let info = ask("/info", INFO_LIMIT)?;
    let manager = info["Swarm"]["ControlAvailable"] == true;
    let nodes = if manager { client.get_within("/nodes", VERSION_LIMIT) } else { None };
    let own = text(&info, "/Swarm/NodeID");
    let host = text(&info, "/Name");
    let others = nodes.as_ref().and_then(Value::as_array).into_iter().flatten();
    let namesakes = others
        .filter(|node| text(node, "/ID") != own && text(node, "/Description/Hostname") == host)
        .count();
    let words = |pointer: &str| {
        list(&info, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Ok(Daemon {
        version: text(&version, "/Version").to_owned(),
        swarm: text(&info, "/Swarm/LocalNodeState").to_owned(),
        error: text(&info, "/Swarm/Error").to_owned(),
        manager,
        warnings: words("/Warnings"),
        namesakes,
    })
}

fn row(finding: &Finding) -> Map<String, Value> {
    let fields = [
        ("Level", finding.level.as_str()),
        ("Name", &finding.name),
        ("What", &finding.what),
        ("Mend", &finding.mend),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}

/// Writes findings for people: a line each, and one below it for what to do.
fn report(findings: &[Finding], colour: bool) -> String {
    let widest = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let level = widest(|finding| finding.level.as_str().len()) + 2;
    let name = widest(|finding| finding.name.len()) + 2;
    let clean = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let mut out = String::new();
    for finding in findings {
        let word = finding.level.as_str();
        let shown = match finding.level {
            Level::Problem => style::paint(colour, Tone::Bad, word),
            Level::Warning => style::paint(colour, Tone::Warn, word),
            Level::Ok | Level::Note => word.to_owned(),
        };
        out.push_str(&shown);
        out.extend(std::iter::repeat_n(' ', level - word.len()));
        out.push_str(&format!("{:name$}{}\n", finding.name, clean(&finding.what)));
        if !finding.mend.is_empty() {
            let mend = style::paint(colour, Tone::Hint, "fix:");
            out.push_str(&format!("{:1$}{mend} {2}\n", "", level + name, clean(&finding.mend)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_aligned_and_cannot_move_the_cursor() {
        let finding = |level, name: &str, what: &str, mend: &str| Finding {
            level,
            name: name.to_owned(),
            what: what.to_owned(),
            mend: mend.to_owned(),
        };
        let findings = [
            finding(Level::Ok, "kernel", "Linux.", ""),
            finding(Level::Problem, "cgroup-memory", "Off\u{1b}[2J.", "reboot"),
        ];
        let expected = "ok       kernel         Linux.\n\
                        problem  cgroup-memory  Off [2J.\n                        fix: reboot\n";
        assert_eq!(report(&findings, false), expected);
        assert!(report(&findings, true).contains("\x1b[31mproblem\x1b[0m  cgroup-memory"));
        assert_eq!(report(&[], true), "");
    }
}
