//! `midge cluster`: the whole cluster in one file.

use super::{
    client::{Call, Client},
    exit::{CliError, Exit},
    output, secret,
    upload::Upload,
};
use crate::util::disk;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Keep the cluster in a file, and make it anew from that
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Write the state of the cluster to a file, sealed with a passphrase
    Backup(BackupArgs),
    /// Make this node the manager of the cluster in a file
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct PassphraseArgs {
    /// Read the passphrase from the first line of this file, instead of MIDGE_PASSPHRASE or the
    /// terminal
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file; one that is there is replaced once the new one is whole
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What `midge cluster backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The address told to the other nodes, instead of that of the backup's manager
    #[arg(long, value_name = "ADDR|NAME|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// The UDP address to listen on, instead of that of the backup's manager
    #[arg(long, value_name = "ADDR[:PORT]")]
    listen_addr: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(client: &Client, command: &ClusterCommand) -> Result<Exit, CliError> {
    match command {
        ClusterCommand::Backup(args) => backup(client, args)?,
        ClusterCommand::Restore(args) => restore(client, args)?,
    }
    Ok(Exit::Ok)
}

fn passphrase(args: &PassphraseArgs, twice: bool) -> Result<String, CliError> {
    let file = args.passphrase_file.as_deref();
    secret::read(file, "MIDGE_PASSPHRASE", "passphrase", twice)
}

fn backup(client: &Client, args: &BackupArgs) -> Result<(), CliError> {
    let failed = |error: &io::Error| {
        CliError::failure(format!("cannot write {}: {error}", args.file.display()))
    };
    let passphrase = passphrase(&args.passphrase, true)?;
    let beside = Beside::new(&args.file).map_err(|error| failed(&error))?;
    let body = json!({"Passphrase": passphrase});
    let content = client.post_for_bytes("/midge/backup", body)?;
    beside.finish(&content, &args.file).map_err(|error| failed(&error))?;
    output::line(&format!("Wrote {} ({} bytes).", args.file.display(), content.len()))
}

/// A file that takes the place of another once it is whole; removed where it never was.
struct Beside {
    path: PathBuf,
    file: File,
}

impl Beside {
    fn new(target: &Path) -> io::Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{}.new", std::process::id()));
        let path = PathBuf::from(path);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    fn finish(mut self, content: &[u8], target: &Path) -> io::Result<()> {
        self.file.write_all(content)?;
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        // Whoever takes the stick out of the machine now takes the backup along.
        disk::sync_folder_of(target)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone where it took its place.
        fs::remove_file(&self.path).ok();
    }
}

fn restore(client: &Client, args: &RestoreArgs) -> Result<(), CliError> {
    let file = File::open(&args.file).map_err(|error| {
        CliError::failure(format!("cannot read {}: {error}", args.file.display()))
    })?;
    let mut line = json!({
        "Passphrase": passphrase(&args.passphrase, false)?,
        "ListenAddr": args.listen_addr.as_deref().unwrap_or(""),
        "AdvertiseAddr": args.advertise_addr.as_deref().unwrap_or(""),
    })
    .to_string();
    line.push('\n');
    let input: Box<dyn Read + Send> =
        Box::new(Cursor::new(line.into_bytes()).chain(Upload::new(file, false)));
    let mut answer = Vec::new();
    client.stream(Method::POST, "/midge/restore", &Call::default(), Some(input), |piece| {
        answer.extend_from_slice(piece);
        Ok(true)
    })?;
    let node: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let node = node.as_str().unwrap_or("");
    output::line(&format!(
        "Cluster restored: current node ({node}) is now its manager.\n\n\
         Workers that know its address come back by themselves; midge node ls shows them. Other \
         managers of the backup are workers now: on each, run midge swarm leave --force, then join \
         it again.\n"
    ))
}
