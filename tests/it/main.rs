//! Black-box tests: one binary, so that linking is paid once.

mod docker;
mod faults;
mod host;
mod jobs;
mod joining;
mod options;
mod services;
mod tidy;
