//! `midge service`.

mod create;
mod generic;
mod inspect;
mod job;
mod logs;
mod ls;
mod plan;
mod progress;
mod resolve;
mod spec;
mod update;

use super::{
    client::{Client, encode},
    each,
    exit::{CliError, Exit},
    human::{number, text},
    output, task,
};
use clap::{Args, Subcommand};
use serde_json::Value;

pub(super) use generic::shown as shown_generic;
pub(super) use ls::{ports, shown_image};
pub(super) use resolve::registry_auth;

/// Run services
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Make a service and wait until it runs
    Create(Box<create::CreateArgs>),
    /// Show everything about services
    Inspect(inspect::InspectArgs),
    /// Show what a service, or a task, has printed
    Logs(logs::LogsArgs),
    /// List the services
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// List the tasks of services
    Ps(task::ServicePsArgs),
    /// Remove services with all their tasks
    #[command(visible_alias = "remove")]
    Rm {
        /// Ids, prefixes of ids, or names
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Give a service its previous spec back
    Rollback(RollbackArgs),
    /// Set how many tasks services have
    Scale(ScaleArgs),
    /// Change a service
    Update(Box<update::UpdateArgs>),
    /// Say in plain words how services stand, and what their updates wait for
    Why {
        /// Ids, prefixes of ids, or names
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
}

/// How to wait for what was asked.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WaitArgs {
    /// Return at once, without waiting until the service runs as asked
    #[arg(short, long)]
    detach: bool,
    /// Show no progress (still wait)
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The id, a prefix of it, or the name
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// How many tasks which service has
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    scales: Vec<String>,
    /// Return at once, without waiting until the services run as asked
    #[arg(short, long)]
    detach: bool,
}

pub(super) fn run(client: &Client, command: ServiceCommand) -> Result<Exit, CliError> {
    match command {
        ServiceCommand::Create(args) => create::run(client, &args),
        ServiceCommand::Inspect(args) => inspect::run(client, &args),
        ServiceCommand::Logs(args) => logs::run(client, &args),
        ServiceCommand::Ls(args) => ls::run(client, &args),
        ServiceCommand::Ps(args) => task::service_ps(client, args),
        ServiceCommand::Rm { services } => each(&services, |name| {
            client.delete(&format!("/services/{}", encode(name)))?;
            output::line(name)
        }),
        ServiceCommand::Rollback(args) => rollback(client, &args.service, args.wait),
        ServiceCommand::Scale(args) => scale(client, &args),
        ServiceCommand::Update(args) => update::run(client, &args),
        ServiceCommand::Why { services } => task::why(client, "services", &services),
    }
}

/// Reads a service by id, prefix or name.
fn get(client: &Client, name: &str) -> Result<Value, CliError> {
    client.get(&format!("/services/{}", encode(name)))
}

/// Sends a changed spec for the service as it was read, and prints what the daemon warns of.
/// Returns its answer.
fn post_update(
    client: &Client,
    service: &Value,
    spec: Value,
    query: &str,
    registry_auth: Option<String>,
) -> Result<Value, CliError> {
    let id = text(service, "/ID");
    let version = number(service, "/Version/Index");
    let path = format!("/services/{}/update?version={version}{query}", encode(id));
    let call = super::client::Call { registry_auth, body: Some(spec) };
    let answer = client.json(hyper::Method::POST, &path, call)?;
    for warning in super::human::list(&answer, "/Warnings") {
        output::note(warning.as_str().unwrap_or(""));
    }
    Ok(answer)
}

fn rollback(client: &Client, name: &str, wait: WaitArgs) -> Result<Exit, CliError> {
    let service = get(client, name)?;
    post_update(client, &service, service["Spec"].clone(), "&rollback=previous", None)?;
    output::line(name)?;
    progress::wait(client, name, wait)
}

fn scale(client: &Client, args: &ScaleArgs) -> Result<Exit, CliError> {
    let mut scaled = Vec::new();
    let exit = each(&args.scales, |scale| {
        let (name, replicas) = scale.split_once('=').ok_or_else(|| {
            CliError::usage(format!("invalid scale specifier '{scale}'."))
                .hint("write SERVICE=REPLICAS, for example web=5")
        })?;
        let replicas: u64 = replicas.parse().map_err(|error| {
            CliError::failure(format!("{name}: invalid replicas value {replicas}: {error}"))
                .hint("a number of tasks is expected, for example web=5")
        })?;
        let named = |error: CliError| match error.exit {
            Exit::Failure => CliError { message: format!("{name}: {}", error.message), ..error },
            _ => error,
        };
        let service = get(client, name).map_err(named)?;
        let mut spec = service["Spec"].clone();
        job::apply(Some(replicas), None, &mut spec).map_err(|_| {
            CliError::failure(format!(
                "{name}: scale can only be used with replicated or replicated-job mode"
            ))
        })?;
        post_update(client, &service, spec, "", None).map_err(named)?;
        output::line(&format!("{name} scaled to {replicas}"))?;
        scaled.push(name.to_owned());
        Ok(())
    })?;
    let wait = WaitArgs { detach: args.detach, quiet: false };
    let waited = progress::wait_for_each(client, &scaled, wait)?;
    Ok(if exit == Exit::Ok { waited } else { exit })
}
