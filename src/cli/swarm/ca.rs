//! `midge swarm ca`.

use crate::cli::{
    client::Client,
    exit::CliError,
    human::{list, number, parse_duration, text},
    output,
};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often it is looked whether the nodes have followed.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(in crate::cli) struct CaArgs {
    /// Replace the root certificate
    #[arg(long)]
    rotate: bool,
    /// A file with the root certificate to take, PEM; without one a new root is made
    #[arg(long, value_name = "PEM-FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// A file with its key, PEM
    #[arg(long, value_name = "PEM-FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// How long new node certificates are good for
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    cert_expiry: Option<Duration>,
    /// An authority outside of the cluster: not supported
    #[arg(long, value_name = "EXTERNAL-CA")]
    external_ca: Option<String>,
    /// Do not wait until all nodes that are there have followed
    #[arg(short, long)]
    detach: bool,
    /// Do not tell how far it is, nor print the new root
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(client: &Client, args: &CaArgs) -> Result<(), CliError> {
    if args.external_ca.is_some() {
        return Err(CliError::usage(
            "--external-ca is not supported: managers sign certificates themselves, so that a \
             cluster without a way to the outside can",
        )
        .hint("--ca-cert and --ca-key take a root that you have"));
    }
    if !args.rotate {
        let flags = [
            ("cert-expiry", args.cert_expiry.is_some()),
            ("ca-cert", args.ca_cert.is_some()),
            ("ca-key", args.ca_key.is_some()),
            ("detach", args.detach),
            ("quiet", args.quiet),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
            let text = format!("`--{flag}` flag requires the `--rotate` flag to update the CA");
            return Err(CliError::usage(text));
        }
        return print_root(client);
    }
    begin(client, args)?;
    if args.detach {
        return Ok(());
    }
    follow(client, args.quiet)?;
    if args.quiet {
        return Ok(());
    }
    output::note(
        "nodes do not follow a manager that is restored from a backup of before; take another: \
         midge cluster backup FILE",
    );
    print_root(client)
}

fn print_root(client: &Client) -> Result<(), CliError> {
    let swarm = client.get("/swarm")?;
    output::raw(text(&swarm, "/TLSInfo/TrustRoot").as_bytes())
}

fn begin(client: &Client, args: &CaArgs) -> Result<(), CliError> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
    let (certificate, key) = (read(&args.ca_cert)?, read(&args.ca_key)?);
    let swarm = client.get("/swarm")?;
    let mut spec = swarm["Spec"].clone();
    let times = spec["CAConfig"]["ForceRotate"].as_u64().unwrap_or(0);
    spec["CAConfig"]["ForceRotate"] = json!(times + 1);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        spec["CAConfig"]["SigningCACert"] = json!(certificate);
        spec["CAConfig"]["SigningCAKey"] = json!(key);
    }
    if let Some(expiry) = args.cert_expiry {
        let nanos = u64::try_from(expiry.as_nanos()).unwrap_or(u64::MAX);
        spec["CAConfig"]["NodeCertExpiry"] = json!(nanos);
    }
    let version = number(&swarm, "/Version/Index");
    client.post(&format!("/swarm/update?version={version}"), spec)?;
    Ok(())
}

fn read(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path)
        .map_err(|error| CliError::failure(format!("cannot read {}: {error}", path.display())))
}

/// Waits until the root is replaced, and says so once it waits for long.
fn follow(client: &Client, quiet: bool) -> Result<(), CliError> {
    let mut told = quiet;
    loop {
        let swarm = client.get("/swarm")?;
        if swarm["RootRotationInProgress"] != Value::Bool(true) {
            return Ok(());
        }
        if !told {
            told = true;
            let nodes = client.get("/nodes")?;
            let all = list(&nodes, "");
            let down = all.iter().filter(|node| text(node, "/Status/State") == "down").count();
            let there = all.len() - down;
            output::note(&format!(
                "waiting until {there} nodes have another certificate; {down} that are down follow \
                 when they are back"
            ));
        }
        std::thread::sleep(LOOK);
    }
}
