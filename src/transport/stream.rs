//! Streams of bytes and messages between two nodes, or of a node with itself.

use super::tls::explain;
use crate::{
    util::deadline,
    wire::{self, DecodeError, EncodeError, HEADER_LEN, Message},
};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use std::{future::Future, time::Duration};

/// The largest piece that is handed on at once.
const CHUNK_LEN: usize = 64 * 1024;

/// Pieces under way between a node and itself: with the length of one, as much as QUIC's window.
const LOCAL_CHUNKS_MAX: usize = 16;

/// A stream came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No connection to that node.
    #[error("the node is not connected")]
    NotConnected,
    /// This machine has no address or route to get there with.
    #[error("nothing leads there: {0}")]
    NoWay(String),
    /// It ended early.
    #[error("the stream was cut off: {0}")]
    Broken(String),
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// What came is no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What was to go is no message.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The peer refused.
    #[error(transparent)]
    Refused(#[from] crate::cluster::Refusal),
    /// The peer answered something else than was asked.
    #[error("the peer sent an answer that does not fit the request")]
    Unexpected,
}

/// Ends `future` after `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    deadline::within(limit, future).await.unwrap_or(Err(StreamError::Timeout(limit)))
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// The sending end. Dropped before [`ByteSender::finish`], the receiver sees an error and never
/// takes a part for the whole.
pub struct ByteSender(SendHalf);

enum SendHalf {
    Quic { stream: quinn::SendStream, finished: bool },
    Local(Sender<Piece>),
}

/// The receiving end.
pub struct ByteReceiver {
    half: ReceiveHalf,
    /// Read from the stream, not yet asked for.
    rest: Bytes,
}

enum ReceiveHalf {
    Quic(quinn::RecvStream),
    Local { receiver: Receiver<Piece>, ended: bool },
}

impl std::fmt::Debug for ByteSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteSender")
    }
}

impl std::fmt::Debug for ByteReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteReceiver")
    }
}

impl Drop for ByteSender {
    fn drop(&mut self) {
        if let SendHalf::Quic { stream, finished: false } = &mut self.0 {
            // Refused only where the connection or the stream has ended: then the peer knows.
            let _outcome = stream.reset(1u32.into());
        }
    }
}

pub(super) fn from_quic(
    (send, receive): (quinn::SendStream, quinn::RecvStream),
) -> (ByteSender, ByteReceiver) {
    (
        ByteSender(SendHalf::Quic { stream: send, finished: false }),
        ByteReceiver { half: ReceiveHalf::Quic(receive), rest: Bytes::new() },
    )
}

/// Returns both ends of a stream of a node with itself.
pub(super) fn local_pair() -> [(ByteSender, ByteReceiver); 2] {
    let (there, from_here) = async_channel::bounded(LOCAL_CHUNKS_MAX);
    let (here, from_there) = async_channel::bounded(LOCAL_CHUNKS_MAX);
    let end = |sender, receiver| {
        let half = ReceiveHalf::Local { receiver, ended: false };
        (ByteSender(SendHalf::Local(sender)), ByteReceiver { half, rest: Bytes::new() })
    };
    [end(there, from_there), end(here, from_here)]
}

fn broken(error: impl std::fmt::Display) -> StreamError {
    StreamError::Broken(error.to_string())
}

impl ByteSender {
    /// Sends the bytes; waits while the receiver is behind.
    ///
    /// # Errors
    ///
    /// The stream or its connection ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        match &mut self.0 {
            SendHalf::Quic { stream, .. } => stream.write_all(bytes).await.map_err(|e| match e {
                quinn::WriteError::ConnectionLost(cause) => StreamError::Broken(explain(&cause)),
                other => broken(other),
            }),
            SendHalf::Local(sender) => {
                for chunk in bytes.chunks(CHUNK_LEN) {
                    let piece = Piece::Bytes(Bytes::copy_from_slice(chunk));
                    sender.send(piece).await.map_err(|_| broken("nobody reads it"))?;
                }
                Ok(())
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The message is too long, or the stream ended.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), StreamError> {
        self.write_all(&wire::encode(message)?).await
    }

    /// Says that this was all.
    ///
    /// # Errors
    ///
    /// The stream or its connection ended.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        match &mut self.0 {
            SendHalf::Quic { stream, finished } => {
                *finished = true;
                stream.finish().map_err(broken)
            }
            SendHalf::Local(sender) => {
                sender.send(Piece::End).await.map_err(|_| broken("nobody reads it"))
            }
        }
    }

    /// Says that this was all, and waits until the peer has it: after it the connection may be
    /// closed.
    ///
    /// # Errors
    ///
    /// The stream or its connection ended.
    pub async fn finish_and_flush(mut self) -> Result<(), StreamError> {
        match &mut self.0 {
            SendHalf::Quic { stream, finished } => {
                *finished = true;
                stream.finish().map_err(broken)?;
                stream.stopped().await.map(|_| ()).map_err(broken)
            }
            SendHalf::Local(_) => self.finish().await,
        }
    }
}

impl ByteReceiver {
    /// Returns the next bytes, none at the end.
    ///
    /// # Errors
    ///
    /// The stream or its connection ended early.
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        match &mut self.half {
            ReceiveHalf::Quic(stream) => {
                let chunk = stream.read_chunk(CHUNK_LEN, true).await.map_err(|e| match e {
                    quinn::ReadError::ConnectionLost(cause) => StreamError::Broken(explain(&cause)),
                    other => broken(other),
                })?;
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            ReceiveHalf::Local { ended: true, .. } => Ok(None),
            ReceiveHalf::Local { receiver, ended } => match receiver.recv().await {
                Ok(Piece::Bytes(bytes)) => Ok(Some(bytes)),
                Ok(Piece::End) => {
                    *ended = true;
                    Ok(None)
                }
                Err(_) => Err(broken("the sender is gone")),
            },
        }
    }

    /// Fills `buffer`; false where the stream ends before its first byte.
    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<bool, StreamError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(mut bytes) = self.read().await? else {
                return if filled == 0 { Ok(false) } else { Err(broken("in a message")) };
            };
            let take = bytes.len().min(buffer.len() - filled);
            buffer[filled..filled + take].copy_from_slice(&bytes.split_to(take));
            filled += take;
            self.rest = bytes;
        }
        Ok(true)
    }

    /// Returns the next message, none at the end.
    ///
    /// # Errors
    ///
    /// What comes is no message, or the stream ended early.
    pub async fn receive<M: Message>(&mut self) -> Result<Option<M>, StreamError> {
        self.receive_up_to(M::LEN_MAX).await
    }

    /// As [`ByteReceiver::receive`], in a session: passes over what only newer versions know, as if it
    /// was lost. To end the session would be to have it again, and again, for as long as the peer
    /// has to say that.
    pub(super) async fn receive_known<M: Message>(&mut self) -> Result<Option<M>, StreamError> {
        loop {
            match self.receive().await {
                Err(StreamError::Decode(error @ DecodeError::UnknownVariant(_))) => {
                    tracing::debug!(%error, "passed over what a newer node says");
                }
                outcome => return outcome,
            }
        }
    }

    /// As [`ByteReceiver::receive`], of a peer that is trusted with less.
    pub(super) async fn receive_up_to<M: Message>(
        &mut self,
        max: usize,
    ) -> Result<Option<M>, StreamError> {
        let mut header = [0; HEADER_LEN];
        if !self.read_exact(&mut header).await? {
            return Ok(None);
        }
        let len = wire::payload_len(header, max.min(M::LEN_MAX))?;
        // Grows with what really comes: a header alone reserves nothing.
        let mut payload = Vec::new();
        while payload.len() < len {
            let mut bytes = self.read().await?.ok_or_else(|| broken("in a message"))?;
            let take = bytes.len().min(len - payload.len());
            payload.extend_from_slice(&bytes.split_to(take));
            self.rest = bytes;
        }
        Ok(Some(wire::decode(&payload)?))
    }
}
