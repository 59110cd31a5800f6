//! Black-box tests: one binary, so that linking is paid once.

mod certificates;
mod chaos;
mod cli;
mod conformance;
mod debian;
mod disks;
mod docker;
mod doctor;
mod events;
mod exec;
mod faults;
mod health;
mod host;
mod images;
mod install;
mod jobs;
mod joining;
mod managers;
mod mistakes;
mod options;
mod recovery;
mod registry;
mod services;
mod spec;
mod tidy;
mod updates;
