//! Missing batteries, without a word of our domain.

pub mod address;
pub mod answer;
pub mod board;
pub mod command;
pub mod deadline;
pub mod disk;
pub mod dns;
pub mod docker_config;
pub mod error;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod hello;
pub mod interfaces;
pub mod notify;
pub mod random;
#[cfg(test)]
pub(crate) mod sample;
pub mod tree;
pub mod unblock;
pub mod unbroken;
