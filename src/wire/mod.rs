//! What nodes say to each other, as bytes.
//!
//! Every message is a frame: its length (four bytes, big-endian), the version of the format (one
//! byte), and a postcard body. Decoding is total: whatever the bytes, it returns a message or says
//! why there is none. Knows nothing of connections; who may say what is `transport`'s affair.
//!
//! Types are encoded by the order of their variants and fields, and by nothing else: whoever changes
//! one, here or in what it is made of, changes what nodes of another version read.
//! `tests/data/wire` holds the bytes of every variant of every type that a message reaches, and a
//! test (`record`) compares. Where it fails:
//!
//! - A variant may be appended to an enum: `UPDATE_EXPECT=1` records its bytes. An older peer does not
//!   know it. In a session it passes over such a message ([`DecodeError::UnknownVariant`]), as if it
//!   was lost; a request it refuses, and who asked goes on without; in the middle of a message the
//!   whole is malformed. So what is new is an answer to what is new, or may go unheard.
//! - A field that was renamed keeps its place: what the record has of it is taken out by hand, and
//!   recorded again.
//! - A field more, one less, another order or another type is a new [`VERSION`], with a record of its
//!   own. This one is then read and written as long as nodes of it may be met: which one a connection
//!   is of is agreed on in its handshake, by the protocols that both ends name (`transport`'s `ALPN`).
//!   Ends that have none in common say so, and so does whoever meets a frame of a version that it
//!   does not know.

mod container;
mod content;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod record;
mod stream;

pub use container::{ContainerFrame, ContainerInput, ContainerOp, ContainerRequest};
pub use content::{ArchiveFrame, ChoreFrame, LoadFrame, LogFrame};
pub use stream::{LogsRequest, RaftAnswer, RaftCall, StreamReply, StreamRequest};

use crate::types::{FromManager, FromWorker};
use serde::{Serialize, de::DeserializeOwned};

/// The version of the format that this build writes and reads.
pub const VERSION: u8 = 1;

/// The bytes before a frame's payload.
pub const HEADER_LEN: usize = 4;

/// The longest frame of a peer that showed no certificate: a join request takes about 1 KB, a
/// thousand engine labels included less than this.
pub const STRANGER_LEN_MAX: usize = 64 * 1024;

/// A kind of message.
pub trait Message: Serialize + DeserializeOwned {
    /// The longest payload of this kind.
    const LEN_MAX: usize;

    /// How many variants there are, of an enum that a newer peer may know more of; else 0.
    const VARIANTS: u32 = 0;
}

impl Message for FromWorker {
    /// A register with the reports of 1,000 tasks and 1,000 images takes about 500 KB.
    const LEN_MAX: usize = 4 * 1024 * 1024;

    const VARIANTS: u32 = 6;
}

impl Message for FromManager {
    /// A complete set of 1,000 tasks with large specs (8 KB each) takes 8 MB.
    const LEN_MAX: usize = 16 * 1024 * 1024;

    const VARIANTS: u32 = 9;
}

impl Message for StreamRequest {
    /// A relayed service spec is bounded by what the API accepts of a body, which is less.
    const LEN_MAX: usize = 4 * 1024 * 1024;

    const VARIANTS: u32 = 16;
}

impl Message for StreamReply {
    /// A relayed list of 10,000 tasks of 3 KB takes 30 MB.
    const LEN_MAX: usize = 48 * 1024 * 1024;

    const VARIANTS: u32 = 9;
}

/// The longest message of the consensus engine: its own limit is 10 MiB.
const RAFT_LEN_MAX: usize = 11 << 20;

impl Message for RaftCall {
    const LEN_MAX: usize = RAFT_LEN_MAX;
}

impl Message for RaftAnswer {
    const LEN_MAX: usize = RAFT_LEN_MAX;
}

/// A message cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is larger than the peer would take.
    #[error("the message has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It holds what the format cannot express.
    #[error("the message cannot be encoded: {0}")]
    Unencodable(String),
}

/// The bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is longer than this kind of message may be.
    #[error("a message of {len} bytes was announced, at most {max} are allowed")]
    TooLong {
        /// What its header says.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Nothing is in it.
    #[error("the message is empty")]
    Empty,
    /// The peer speaks another version.
    #[error("the message is of version {0}, but only version {VERSION} is known")]
    UnknownVersion(u8),
    /// The peer says what only newer versions know.
    #[error("the message is of a kind, {0}, that this version of midge does not know")]
    UnknownVariant(u32),
    /// The body is not what its version says.
    #[error("the message is malformed: {0}")]
    Malformed(String),
    /// The body ends before the payload does.
    #[error("the message has {0} bytes too many")]
    Trailing(usize),
}

/// Returns the message as a whole frame, header included.
///
/// # Errors
///
/// The message is too long, or holds what the format cannot express.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; HEADER_LEN];
    frame.push(VERSION);
    let mut frame = postcard::to_extend(message, frame)
        .map_err(|error| EncodeError::Unencodable(error.to_string()))?;
    let len = frame.len() - HEADER_LEN;
    let fits = u32::try_from(len).ok().filter(|_| len <= M::LEN_MAX);
    let header = fits.ok_or(EncodeError::TooLong { len, max: M::LEN_MAX })?;
    frame[..HEADER_LEN].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Returns the length of the payload that follows this header.
///
/// # Errors
///
/// It is longer than `max`.
pub fn payload_len(header: [u8; HEADER_LEN], max: usize) -> Result<usize, DecodeError> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len <= max { Ok(len) } else { Err(DecodeError::TooLong { len, max }) }
}

/// Returns the message in a frame's payload.
///
/// # Errors
///
/// The payload is no message of this kind and of a known version, to its last byte.
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, DecodeError> {
    if payload.len() > M::LEN_MAX {
        return Err(DecodeError::TooLong { len: payload.len(), max: M::LEN_MAX });
    }
    let (version, body) = payload.split_first().ok_or(DecodeError::Empty)?;
    if *version != VERSION {
        return Err(DecodeError::UnknownVersion(*version));
    }
    let (message, rest) = postcard::take_from_bytes(body).map_err(|error| {
        match postcard::take_from_bytes::<u32>(body) {
            Ok((variant, _)) if M::VARIANTS > 0 && variant >= M::VARIANTS => {
                DecodeError::UnknownVariant(variant)
            }
            _ => DecodeError::Malformed(error.to_string()),
        }
    })?;
    if rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests;
