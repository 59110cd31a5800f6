//! What flows on a stream once it was granted: log lines, and how the loading of images goes.

use super::Message;
use crate::{
    cluster::Refusal,
    types::{ChoreDone, Date, TaskId},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A piece of a task's log, from its node to a manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrame {
    /// One line.
    Line {
        /// The task.
        task: TaskId,
        /// Whether it was written to standard error.
        stderr: bool,
        /// When.
        date: Date,
        /// What, with its line break where it had one.
        line: Vec<u8>,
        /// What the log keeps with each line: labels, environment, tag.
        attributes: BTreeMap<String, String>,
    },
    /// There is nothing that could be read.
    Unreadable {
        /// The task.
        task: TaskId,
        /// Why.
        reason: String,
    },
}

impl Message for LogFrame {
    /// The logger splits lines at 16 KiB, which foreign bytes swell to three times that; the
    /// attributes of a line take at most 16 KiB.
    const LEN_MAX: usize = 128 * 1024;
}

/// One piece of an image archive, from a manager to a node. An empty one is the end: a stream that
/// ends without it was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveFrame(pub Vec<u8>);

impl Message for ArchiveFrame {
    /// Pieces are what one read of the client's upload gives, at most 1 MiB.
    const LEN_MAX: usize = (1 << 20) + 64;
}

/// How the loading of images on a node ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadFrame {
    /// The names that are there now.
    Loaded(Vec<String>),
    /// It failed.
    Failed(String),
}

impl Message for LoadFrame {
    /// An archive of 1,000 names of 255 characters takes 256 KB.
    const LEN_MAX: usize = 1 << 20;
}

/// What came of a chore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreFrame(pub Result<ChoreDone, Refusal>);

impl Message for ChoreFrame {
    /// A node with 4,000 images, volumes and containers of 1 KB each takes 12 MB to describe.
    const LEN_MAX: usize = 16 * 1024 * 1024;
}
