//! `midge daemon`.

use super::exit::{CliError, Exit};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// Where the node keeps what must survive a restart
    #[arg(long, default_value = "/var/lib/midge", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the node keeps what must not survive one of the machine
    #[arg(long, default_value = "/run/midge", value_name = "DIR")]
    run_dir: PathBuf,
    /// Where the API listens
    #[arg(long, default_value = "/run/midge/midge.sock", value_name = "PATH")]
    socket: PathBuf,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH")]
    containerd: PathBuf,
    /// The configuration; the default one may be missing
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log is written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// How much is logged
    #[arg(long, value_enum, default_value = "info", env = "MIDGE_LOG_LEVEL")]
    log_level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

pub(super) fn run(args: DaemonArgs) -> Result<Exit, CliError> {
    let level = match args.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let options = crate::daemon::Options {
        data_dir: args.data_dir,
        run_dir: args.run_dir,
        socket: args.socket,
        containerd: args.containerd,
        config: args.config,
        json_log: args.log_format == LogFormat::Json,
        log_level: level,
    };
    crate::daemon::run(options).map(|()| Exit::Ok).map_err(|error| CliError {
        exit: if error.is_configuration() { Exit::Config } else { Exit::Failure },
        message: error.explain(),
        hint: error.hint(),
    })
}
