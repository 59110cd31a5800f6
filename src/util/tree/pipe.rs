//! Archives between a thread that packs or unpacks and whoever carries them: pieces over a
//! channel, with an end that is told from a break.

use async_channel::{Receiver, Sender};
use std::io::{self, Read, Write};

/// The size of a piece.
pub const PIECE: usize = 64 << 10;

/// Hands what is written to a channel, in pieces.
#[derive(Debug)]
pub struct PieceWriter {
    sender: Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl PieceWriter {
    /// Writes to a channel.
    #[must_use]
    pub fn new(sender: Sender<io::Result<Vec<u8>>>) -> Self {
        Self { sender, piece: Vec::with_capacity(PIECE) }
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.send_blocking(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads what comes over a channel, until it is closed.
#[derive(Debug)]
pub struct PieceReader {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl PieceReader {
    /// Reads from a channel.
    #[must_use]
    pub fn new(receiver: Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { receiver, piece: Vec::new(), at: 0 }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.recv_blocking() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_break_is_an_error() {
        let (sender, receiver) = async_channel::unbounded();
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 253).to_le_bytes()[0]).collect();
        let mut writer = PieceWriter::new(sender.clone());
        writer.write_all(&bytes).unwrap();
        writer.flush().unwrap();
        drop(writer);
        let mut reader = PieceReader::new(receiver);
        let mut read = vec![0; bytes.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == bytes);
        sender.send_blocking(Err(io::ErrorKind::UnexpectedEof.into())).unwrap();
        assert!(reader.read(&mut read).is_err());
        drop(sender);
        assert_eq!(reader.read(&mut read).unwrap(), 0);
    }
}
