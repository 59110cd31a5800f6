//! The command line: a client of the daemon's API, and `midge daemon` itself.
//!
//! One file a noun. Knows clap, HTTP paths and how people read tables; knows nothing of the
//! cluster's insides: whatever it can do, any client of the API can.

mod client;
mod cluster;
mod complete;
mod cp;
mod daemon;
mod definition;
mod df;
#[cfg(test)]
mod docs;
mod doctor;
mod drain;
mod ending;
mod events;
mod examples;
mod exec;
mod exit;
mod human;
mod image;
mod info;
mod login;
mod node;
mod nodes;
mod output;
mod pieces;
mod poll;
mod screen;
mod secret;
mod service;
mod stats;
mod style;
mod suggest;
mod swarm;
mod system;
mod task;
mod template;
mod top;
mod unsupported;
mod upload;
mod version;
mod volume;
mod when;

use clap::{FromArgMatches, Parser, Subcommand};
use client::Client;
use exit::{CliError, Exit};
use std::{ffi::OsString, process::ExitCode};

/// Runs containers on mixed ARM and x86 fleets: one program, no Docker, no Kubernetes
///
/// Every node runs `midge daemon`; every other command talks to the daemon of this node.
///
/// Begin with `midge swarm init` on the first node, run the `midge swarm join` command it prints
/// on the others, then try `midge service create --name web --replicas 3 nginx`.
#[derive(Debug, Parser)]
#[command(name = "midge", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// The daemon to talk to
    #[arg(short = 'H', long, env = "MIDGE_HOST", value_name = "unix:///PATH",
          default_value = client::DEFAULT_HOST)]
    host: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this machine as a node
    Daemon(daemon::DaemonArgs),
    /// Form a cluster, join one, leave it
    #[command(subcommand)]
    Swarm(swarm::SwarmCommand),
    /// Keep the cluster in a file, and make it anew from that
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Look at nodes and change them
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Run services
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Look at tasks, and ask why they are as they are
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Bring images to nodes, look at them, remove them
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Look at volumes, make them, remove them
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Look at what takes the disk
    #[command(subcommand)]
    System(df::SystemCommand),
    /// Log in to a registry
    ///
    /// Asks the registry whether it takes user and password, and keeps them where Docker does:
    /// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. Commands of the same user send them
    /// along: `midge image pull`, and `midge service create --with-registry-auth` to the nodes.
    Login(login::LoginArgs),
    /// Forget the login to a registry
    Logout(login::LogoutArgs),
    /// Tell what happens, as it happens
    Events(events::EventsArgs),
    /// List the containers of this node
    Ps(system::PsArgs),
    /// Run a command in a running container, on any node
    Exec(exec::ExecArgs),
    /// Copy files between here and a running container, on any node
    Cp(cp::CpArgs),
    /// Show what running containers use
    Stats(stats::StatsArgs),
    /// List the processes of a running container
    Top(top::TopArgs),
    /// Send a signal to running containers, on any node
    ///
    /// SIGKILL unless told otherwise, which ends them. A container that ends so has failed, and the
    /// restart policy of its service decides what follows.
    Kill(ending::KillArgs),
    /// End running containers, on any node
    ///
    /// Sends the stop signal, and SIGKILL once the grace period is over. As with Swarm the task then
    /// counts as complete or failed by its exit status, and the restart policy of its service decides
    /// what follows: usually a new one. To have fewer, use `midge service scale`.
    Stop(ending::StopArgs),
    /// End running containers whose services put new ones in their place
    ///
    /// A container is started once: this ends it like `midge stop`, and its service makes a new task in
    /// the same slot, maybe on another node, after its restart delay. Refused where that is not
    /// certain: for jobs, and for services with a `--restart-condition` other than `any` or with
    /// `--restart-max-attempts`. For those, and for all tasks of a service in turn, use
    /// `midge service update --force`.
    Restart(ending::StopArgs),
    /// Wait until containers have ended, on any node, and print their exit status
    ///
    /// At once for one that has ended. One that is not yet started is waited for as well. Waits on
    /// through a restart of the daemon on the container's node, and through a cut link to it.
    Wait(ending::WaitArgs),
    /// Show what this node is and how it is
    Info(info::InfoArgs),
    /// Look at this machine: what is wrong with it for midge, and what to do about it
    ///
    /// Works before midge is installed, without a daemon, and without root as far as it can; it says
    /// what it could not check. Fails where it finds a problem.
    Doctor(doctor::DoctorArgs),
    /// Show the versions of this program and of the daemon
    Version(version::VersionArgs),
    /// Print the script that completes midge's commands in a shell
    Completion(complete::CompletionArgs),
    /// Print the manual page of a command, or write all of them
    Man(complete::ManArgs),
    #[command(flatten)]
    Hidden(system::HiddenCommand),
}

/// Runs one command line and returns how it ended.
#[must_use]
pub fn run() -> ExitCode {
    // The helpers that live beside containers must not start a runtime, nor parse anything more
    // than they need: they come before everything else.
    if let Some(code) = crate::daemon::helper_main() {
        return code;
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    match complete::answer() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return ExitCode::from(definition::usage(&error, &words).code()),
    }
    let parsed = definition::parse(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(definition::usage(&error, &words).code()),
    };
    match dispatch(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.exit.code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let client = Client::new(&cli.host)?;
    match cli.command {
        Command::Daemon(args) => daemon::run(args),
        Command::Swarm(command) => swarm::run(&client, command),
        Command::Cluster(command) => cluster::run(&client, &command),
        Command::Node(command) => node::run(&client, command),
        Command::Service(command) => service::run(&client, command),
        Command::Task(command) => task::run(&client, &command),
        Command::Image(command) => image::run(&client, command),
        Command::Volume(command) => volume::run(&client, command),
        Command::System(command) => df::run(&client, &command),
        Command::Login(args) => login::login(&client, args),
        Command::Logout(args) => login::logout(&args),
        Command::Events(args) => events::run(&client, &args),
        Command::Ps(args) => system::ps(&client, &args),
        Command::Exec(args) => exec::run(&client, &args),
        Command::Cp(args) => cp::run(&client, &args),
        Command::Stats(args) => stats::run(&client, &args),
        Command::Top(args) => top::run(&client, &args),
        Command::Kill(args) => ending::kill(&client, &args),
        Command::Stop(args) => ending::stop(&client, &args),
        Command::Restart(args) => ending::restart(&client, &args),
        Command::Wait(args) => ending::wait(&client, &args),
        Command::Info(args) => info::run(&client, &args),
        Command::Doctor(args) => doctor::run(&client, &args),
        Command::Version(args) => version::run(&client, &args),
        Command::Completion(args) => complete::completion(&args),
        Command::Man(args) => complete::man(&args),
        Command::Hidden(command) => system::hidden(command),
    }
}

/// Does the same for each name, going on after one that fails, as Docker does: each failure is
/// printed, and the whole ends in failure where there was one.
fn each(
    names: &[String],
    mut act: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    for name in names {
        if let Err(error) = act(name) {
            if error.exit == Exit::Unreachable {
                return Err(error);
            }
            output::error(&error);
            exit = error.exit;
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition::command().debug_assert();
    }
}
