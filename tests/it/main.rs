//! Black-box tests: one binary, so that linking is paid once.

mod cli;
mod conformance;
mod docker;
mod faults;
mod host;
mod joining;
mod options;
mod services;
mod tidy;
