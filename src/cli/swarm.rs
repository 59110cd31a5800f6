//! `midge swarm`.

mod ca;

use super::{
    client::Client,
    exit::{CliError, Exit},
    human::{parse_duration, text},
    output,
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::time::Duration;

/// Form a cluster, join one, leave it
#[derive(Debug, Subcommand)]
pub(super) enum SwarmCommand {
    /// Make this node the first manager of a new cluster
    Init(InitArgs),
    /// Make this node a member of a cluster
    Join(JoinArgs),
    /// Show, or replace, the token that admits nodes
    JoinToken(JoinTokenArgs),
    /// Take this node out of its cluster
    Leave {
        /// Leave even as a manager, which may end the cluster
        #[arg(short, long)]
        force: bool,
    },
    /// Change the options of the cluster
    Update(SpecArgs),
    /// Open a manager that was restarted and is locked
    ///
    /// Reads the key from a terminal without showing it, or else one line of standard input.
    Unlock,
    /// Show, or replace, the key that opens locked managers
    UnlockKey {
        /// Replace the key; managers that are out of reach still need the old one
        #[arg(long)]
        rotate: bool,
        /// Print the key only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print the root certificate of the cluster, or replace it
    ///
    /// Every node gets another certificate, and containers go on. A node that is Down is not waited
    /// for: it follows when it comes back within the rejoin grace. Join tokens change at the end.
    Ca(ca::CaArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Availability {
    Active,
    Pause,
    Drain,
}

impl Availability {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The address told to the other nodes: an address, a host name or an interface, and a port
    #[arg(long, value_name = "ADDR|NAME|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// The UDP address to listen on
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Whether this node takes tasks
    #[arg(long, value_enum, default_value = "active")]
    availability: Availability,
    /// Go on as the only manager with what this node has, where its cluster lost the others;
    /// options of the cluster stay as they are
    #[arg(long)]
    force_new_cluster: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// Managers of the cluster, tried in order; a DNS name is looked up anew where they have moved
    #[arg(value_name = "HOST:PORT", required = true)]
    remote: Vec<String>,
    /// What `midge swarm join-token` shows
    #[arg(long)]
    token: String,
    /// The address told to the other nodes
    #[arg(long, value_name = "ADDR|NAME|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// The UDP address to listen on
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Whether this node takes tasks
    #[arg(long, value_enum, default_value = "active")]
    availability: Availability,
}

#[derive(Debug, Args)]
pub(super) struct JoinTokenArgs {
    /// Whether the token admits workers or managers
    #[arg(value_parser = ["worker", "manager"])]
    role: String,
    /// Replace the token; members are unaffected
    #[arg(long)]
    rotate: bool,
    /// Print the token only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Whether a manager that was restarted needs the unlock key
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    autolock: Option<bool>,
    /// How long new node certificates are good for
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    cert_expiry: Option<Duration>,
    /// How long managers do without their leader before they elect another
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    election_timeout: Option<Duration>,
    /// How long after its certificate ran out a node may renew it
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    rejoin_grace: Option<Duration>,
    /// How often nodes tell that they live; one is Down after three of these
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    dispatcher_heartbeat: Option<Duration>,
    /// Log entries between snapshots
    #[arg(long, value_name = "N")]
    snapshot_interval: Option<u64>,
    /// How many tasks of a slot are kept
    #[arg(long, value_name = "N")]
    task_history_limit: Option<i64>,
}

impl SpecArgs {
    fn is_empty(&self) -> bool {
        self.cert_expiry.is_none()
            && self.autolock.is_none()
            && self.election_timeout.is_none()
            && self.rejoin_grace.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.snapshot_interval.is_none()
            && self.task_history_limit.is_none()
    }

    fn apply(&self, spec: &mut Value) {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        if let Some(expiry) = self.cert_expiry {
            spec["CAConfig"]["NodeCertExpiry"] = json!(nanos(expiry));
        }
        if let Some(autolock) = self.autolock {
            spec["EncryptionConfig"]["AutoLockManagers"] = json!(autolock);
        }
        if let Some(timeout) = self.election_timeout {
            spec["Raft"]["ElectionTimeout"] = json!(nanos(timeout));
        }
        if let Some(grace) = self.rejoin_grace {
            spec["CAConfig"]["RejoinGrace"] = json!(nanos(grace));
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec["Dispatcher"]["HeartbeatPeriod"] = json!(nanos(period));
        }
        if let Some(interval) = self.snapshot_interval {
            spec["Raft"]["SnapshotInterval"] = json!(interval);
        }
        if let Some(limit) = self.task_history_limit {
            spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(limit);
        }
    }
}

pub(super) fn run(client: &Client, command: SwarmCommand) -> Result<Exit, CliError> {
    match command {
        SwarmCommand::Init(args) => init(client, &args)?,
        SwarmCommand::Join(args) => join(client, &args)?,
        SwarmCommand::JoinToken(args) => join_token(client, &args)?,
        SwarmCommand::Leave { force } => {
            client.post(&format!("/swarm/leave?force={force}"), Value::Null)?;
            output::line("Node left the swarm.")?;
        }
        SwarmCommand::Update(args) => update(client, &args)?,
        SwarmCommand::Unlock => unlock(client)?,
        SwarmCommand::UnlockKey { rotate, quiet } => unlock_key(client, rotate, quiet)?,
        SwarmCommand::Ca(args) => ca::run(client, &args)?,
    }
    Ok(Exit::Ok)
}

fn init(client: &Client, args: &InitArgs) -> Result<(), CliError> {
    let mut spec = json!({});
    args.spec.apply(&mut spec);
    let body = json!({
        "ListenAddr": args.listen_addr,
        "AdvertiseAddr": args.advertise_addr.as_deref().unwrap_or(""),
        "Availability": args.availability.as_str(),
        "ForceNewCluster": args.force_new_cluster,
        "Spec": spec,
    });
    let node = client.post("/swarm/init", body)?;
    let node = node.as_str().unwrap_or("");
    output::line(&format!("Swarm initialized: current node ({node}) is now a manager.\n"))?;
    print_join_command(client, "worker")?;
    output::line(
        "To add a manager to this swarm, run 'midge swarm join-token manager' and follow the \
         instructions.\n",
    )?;
    if args.spec.autolock == Some(true) { print_unlock_command(client) } else { Ok(()) }
}

fn present_unlock_key(client: &Client) -> Result<String, CliError> {
    let answer = client.get("/swarm/unlockkey")?;
    match text(&answer, "/UnlockKey") {
        "" => Err(CliError::failure("no unlock key is set")
            .hint("midge swarm update --autolock makes one")),
        key => Ok(key.to_owned()),
    }
}

fn print_unlock_command(client: &Client) -> Result<(), CliError> {
    let key = present_unlock_key(client)?;
    output::line(&format!(
        "To unlock a swarm manager after it restarts, run the `midge swarm unlock`\n\
         command and provide the following key:\n\n    {key}\n\n\
         Remember to store this key in a password manager, since without it you\n\
         will not be able to restart the manager."
    ))
}

fn unlock(client: &Client) -> Result<(), CliError> {
    let info = client.get("/info")?;
    match text(&info, "/Swarm/LocalNodeState") {
        "locked" => {}
        "inactive" => return Err(CliError::failure("this node is not part of a swarm")),
        _ => return Err(CliError::failure("swarm is not locked")),
    }
    let key = super::secret::from_input("Enter unlock key: ")?;
    client.post("/swarm/unlock", json!({"UnlockKey": key}))?;
    Ok(())
}

fn unlock_key(client: &Client, rotate: bool, quiet: bool) -> Result<(), CliError> {
    if rotate {
        let swarm = client.get("/swarm")?;
        if swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"] != true {
            return Err(CliError::failure("cannot rotate because autolock is not turned on")
                .hint("midge swarm update --autolock turns it on"));
        }
        let version = super::human::number(&swarm, "/Version/Index");
        let path = format!("/swarm/update?version={version}&rotateManagerUnlockKey=true");
        client.post(&path, swarm["Spec"].clone())?;
        if !quiet {
            output::line("Successfully rotated manager unlock key.\n")?;
        }
    }
    if quiet {
        return output::line(&present_unlock_key(client)?);
    }
    print_unlock_command(client)
}

fn print_join_command(client: &Client, role: &str) -> Result<(), CliError> {
    let swarm = client.get("/swarm")?;
    let token = token(&swarm, role);
    let info = client.get("/info")?;
    let node = text(&info, "/Swarm/NodeID");
    let address = super::human::list(&info, "/Swarm/RemoteManagers")
        .iter()
        .find(|manager| text(manager, "/NodeID") == node)
        .map_or("", |manager| text(manager, "/Addr"));
    output::line(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    \
         midge swarm join --token {token} {address}\n"
    ))
}

fn token<'a>(swarm: &'a Value, role: &str) -> &'a str {
    text(swarm, if role == "manager" { "/JoinTokens/Manager" } else { "/JoinTokens/Worker" })
}

fn join(client: &Client, args: &JoinArgs) -> Result<(), CliError> {
    let body = json!({
        "ListenAddr": args.listen_addr,
        "AdvertiseAddr": args.advertise_addr.as_deref().unwrap_or(""),
        "RemoteAddrs": args.remote,
        "JoinToken": args.token,
        "Availability": args.availability.as_str(),
    });
    client.post("/swarm/join", body)?;
    let info = client.get("/info")?;
    let role = if info["Swarm"]["ControlAvailable"] == true { "manager" } else { "worker" };
    output::line(&format!("This node joined a swarm as a {role}."))
}

fn join_token(client: &Client, args: &JoinTokenArgs) -> Result<(), CliError> {
    if args.rotate {
        let swarm = client.get("/swarm")?;
        let version = super::human::number(&swarm, "/Version/Index");
        let which = if args.role == "manager" { "Manager" } else { "Worker" };
        let path = format!("/swarm/update?version={version}&rotate{which}Token=true");
        client.post(&path, swarm["Spec"].clone())?;
        if !args.quiet {
            output::line(&format!("Successfully rotated {} join token.\n", args.role))?;
        }
    }
    if args.quiet {
        let swarm = client.get("/swarm")?;
        return output::line(token(&swarm, &args.role));
    }
    print_join_command(client, &args.role)
}

fn update(client: &Client, args: &SpecArgs) -> Result<(), CliError> {
    if args.is_empty() {
        return Err(CliError::usage("nothing to change: give at least one option")
            .hint("midge swarm update --help lists them"));
    }
    let swarm = client.get("/swarm")?;
    let mut spec = swarm["Spec"].clone();
    args.apply(&mut spec);
    let version = super::human::number(&swarm, "/Version/Index");
    client.post(&format!("/swarm/update?version={version}"), spec)?;
    output::line("Swarm updated.")?;
    let was_locked = swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"] == true;
    if args.autolock == Some(true) && !was_locked { print_unlock_command(client) } else { Ok(()) }
}
