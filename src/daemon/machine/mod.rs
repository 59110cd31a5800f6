//! This process, and the machine that it runs on. Knows nothing of containers or clusters.

pub(crate) mod describe;
pub(crate) mod host;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod threads;
