//! The daemon's own log, on stderr.

use tracing::Level;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
};

/// Sends the log to stderr from now on. Called once, before anything is logged.
pub(crate) fn start(json: bool, level: Level) {
    // The engines below log each step; what an operator reads is ours, and their warnings.
    let others = if level == Level::TRACE { LevelFilter::DEBUG } else { LevelFilter::WARN };
    // The consensus engine warns of every message to a manager that is off, several a second.
    let engine = if level == Level::TRACE { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    let filter = Targets::new()
        .with_default(others)
        .with_target("openraft", engine)
        .with_target("midge", level);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(level >= Level::DEBUG);
    let registry = Registry::default();
    let started = if json {
        tracing::subscriber::set_global_default(registry.with(layer.json().with_filter(filter)))
    } else {
        let layer = layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        tracing::subscriber::set_global_default(registry.with(layer.with_filter(filter)))
    };
    assert!(started.is_ok(), "nothing else in this program starts a log");
}
