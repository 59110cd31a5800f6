//! The bytes of snapshots and log entries: postcard inside a versioned envelope.
//!
//! The envelope is a magic number and a format version. postcard itself describes nothing, and
//! reads too short a struct as an error and too long a one not at all, so a change of any type in
//! here needs a new format version and a reader for the old one. The golden bytes in the tests
//! fail when somebody forgets.

mod v1;

use super::{State, Tables};
use crate::cluster::command::Command;
use serde::{Serialize, de::DeserializeOwned};

/// The longest log entry that is read. A batch is kept far below it; the consensus engine's
/// messages bear it.
pub const ENTRY_MAX: usize = 8 << 20;

/// The longest snapshot that is read: 100 000 tasks at about 1 KB each, and as much again.
pub const SNAPSHOT_MAX: usize = 256 << 20;

const ENTRY_MAGIC: [u8; 4] = *b"mgEN";
const SNAPSHOT_MAGIC: [u8; 4] = *b"mgSN";

/// What is written. 1: as midge 0.1 was. 2: options of several managers, and the unlock key.
const FORMAT: u8 = 2;

/// Bytes that are no entry or snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than anything we write.
    #[error("{length} bytes are more than the {limit} that are read")]
    TooLong {
        /// How long.
        length: usize,
        /// What is read at most.
        limit: usize,
    },
    /// Not the envelope.
    #[error("the bytes are not a {0}")]
    NotOurs(&'static str),
    /// Written by a newer midge.
    #[error("format {found} is not known, only up to {FORMAT}; was it written by a newer version?")]
    Format {
        /// The format named.
        found: u8,
    },
    /// The content does not fit the format.
    #[error("the content is damaged: {0}")]
    Damaged(String),
}

/// Encodes a batch of commands as one log entry.
#[must_use]
pub fn encode_entry(commands: &[Command]) -> Vec<u8> {
    encode(ENTRY_MAGIC, commands)
}

/// Returns how many bytes a command takes in an entry, which has a handful more around them all.
pub(in crate::cluster) fn encoded_len(command: &Command) -> usize {
    postcard::experimental::serialized_size(command).expect("every type in it has a length")
}

/// Decodes a log entry.
///
/// # Errors
///
/// The bytes are no entry of a format that is known.
pub fn decode_entry(bytes: &[u8]) -> Result<Vec<Command>, DecodeError> {
    let (format, content) = open(ENTRY_MAGIC, "log entry", ENTRY_MAX, bytes)?;
    if format == 1 {
        let commands: Vec<v1::Command> = decode(content)?;
        return Ok(commands.into_iter().map(Command::from).collect());
    }
    decode(content)
}

/// Decodes a snapshot.
///
/// # Errors
///
/// The bytes are no snapshot of a format that is known.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State, DecodeError> {
    let (format, content) = open(SNAPSHOT_MAGIC, "snapshot", SNAPSHOT_MAX, bytes)?;
    if format == 1 {
        let tables: v1::Tables = decode(content)?;
        return Ok(State::of(Tables::from(tables)));
    }
    decode(content)
}

impl State {
    /// Encodes the whole state. Equal states give equal bytes.
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        encode(SNAPSHOT_MAGIC, self)
    }

    /// Decodes a snapshot; see [`decode_snapshot`].
    ///
    /// # Errors
    ///
    /// The bytes are no snapshot of a format that is known.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_snapshot(bytes)
    }
}

fn encode<T: Serialize + ?Sized>(magic: [u8; 4], content: &T) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.push(FORMAT);
    postcard::to_extend(content, bytes).expect("every type in it has a length, and memory grows")
}

/// Takes the envelope off: returns its format, which is one that is known, and the content.
fn open<'a>(
    magic: [u8; 4],
    kind: &'static str,
    limit: usize,
    bytes: &'a [u8],
) -> Result<(u8, &'a [u8]), DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { length: bytes.len(), limit });
    }
    let rest = bytes.strip_prefix(&magic).ok_or(DecodeError::NotOurs(kind))?;
    let (format, content) = rest.split_first().ok_or(DecodeError::NotOurs(kind))?;
    if !(1..=FORMAT).contains(format) {
        return Err(DecodeError::Format { found: *format });
    }
    Ok((*format, content))
}

fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, DecodeError> {
    let damaged = |error: postcard::Error| DecodeError::Damaged(error.to_string());
    let (value, rest) = postcard::take_from_bytes(content).map_err(damaged)?;
    if !rest.is_empty() {
        return Err(DecodeError::Damaged(format!("{} bytes are left over", rest.len())));
    }
    Ok(value)
}
