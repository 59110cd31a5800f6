//! Black-box tests: one binary, so that linking is paid once.

mod docker;
mod events;
mod exec;
mod faults;
mod host;
mod images;
mod jobs;
mod joining;
mod mistakes;
mod options;
mod services;
mod spec;
mod tidy;
