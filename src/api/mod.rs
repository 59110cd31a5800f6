//! The Docker-compatible HTTP interface.
