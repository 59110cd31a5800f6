//! What a manager does with a running container of a node, and what the node answers.

use super::Message;
use crate::{
    cluster::Refusal,
    types::{ExecSpec, PathStat, ProcessTable, TaskId, TerminalSize, UnpackOptions, Usage},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which container, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// The container's task.
    pub task: TaskId,
    /// What to do.
    pub op: ContainerOp,
}

/// What is done with a container. Variants are only ever appended: their order is their encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerOp {
    /// Runs a process. Answered by `Started`, then its output, then `Exited`.
    Exec {
        /// What to run.
        spec: ExecSpec,
        /// It goes on when the stream ends, and its output is nobody's.
        detach: bool,
        /// How large its terminal is at first.
        size: Option<TerminalSize>,
    },
    /// Looks at a path. Answered by `Stat`.
    Stat {
        /// The path, with what its end says.
        path: String,
    },
    /// Packs a path. Answered by `Stat`, then the archive in pieces, then `Done`.
    Pack {
        /// The path, with what its end says.
        path: String,
    },
    /// Unpacks the archive that follows. Answered by `Done`.
    Unpack {
        /// The folder.
        path: String,
        /// How.
        options: UnpackOptions,
    },
    /// Reads what the kernel has counted, once a second. Answered by `Usage` each time, then
    /// `Done`.
    Usage {
        /// How often; none is until the container ends.
        times: Option<u32>,
    },
    /// Lists the processes. Answered by `Processes`.
    Processes {
        /// The options of `ps`.
        options: String,
    },
    /// Sends a signal to the first process. Answered by `Done`; of SIGKILL once the container has
    /// ended.
    Signal {
        /// Which.
        number: u32,
    },
    /// Asks the container to end, and kills it where it does not. Answered by `Done` once it has
    /// ended. It is killed in time also where the stream ends before.
    Stop {
        /// The signal that asks it to; none is its image's.
        signal: Option<u32>,
        /// The time until it is killed; none is for ever.
        grace: Option<Duration>,
    },
    /// Waits until the container has ended. Answered by `Exited`, with a reason where how it ended is
    /// not known.
    Wait {
        /// Whether to wait until nothing is left of it.
        removed: bool,
    },
}

/// To the node, while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerInput {
    /// Input of the process, or a piece of the archive.
    Data(Vec<u8>),
    /// This was all of it: an archive that ends without was cut off.
    End,
    /// The terminal has another size.
    Resize(TerminalSize),
}

impl Message for ContainerInput {
    /// Pieces are what one read gives, at most 1 MiB.
    const LEN_MAX: usize = (1 << 20) + 64;
}

/// From the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerFrame {
    /// It was not done, or not to its end. Nothing follows.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What a shell would exit with, where the program was the reason.
        code: Option<i32>,
    },
    /// The process runs.
    Started {
        /// Its id on the node.
        pid: u32,
    },
    /// The process printed.
    Stdout(Vec<u8>),
    /// The process printed an error.
    Stderr(Vec<u8>),
    /// The process ended. Nothing follows.
    Exited {
        /// Its exit status.
        code: i32,
        /// Why, where it did not end by itself; else empty.
        reason: String,
    },
    /// What the path is.
    Stat(PathStat),
    /// A piece of the archive.
    Data(Vec<u8>),
    /// What the kernel has counted.
    Usage(Box<Usage>),
    /// The processes.
    Processes(ProcessTable),
    /// This was all.
    Done,
}

impl Message for ContainerFrame {
    /// Pieces are at most 64 KiB; a list of 10,000 processes of 300 bytes takes 3 MB.
    const LEN_MAX: usize = 4 << 20;
}
